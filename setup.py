"""What depends on where the repository lies: links of the README on the package index, and URLs.

Everything else stands in pyproject.toml. KKTCERT_REPOSITORY names the repository; without it the
README is taken as it is and the package names no page.
"""

import os
import re
from pathlib import Path

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")


def absolute(text, repository, version):
    """Make the relative links of a README absolute, at the tag of the version.

    The package index shows no picture of a relative link. `raw` and `blob` are the paths of GitHub
    and of forges like it.
    """

    def link(found):
        kind = "raw" if found[1] else "blob"
        return f"{found[1]}[{found[2]}]({repository}/{kind}/v{version}/{found[3]})"

    return LINK.sub(link, text)


def urls(repository, version):
    """The pages that the package index links."""
    return {
        "Source": repository,
        "Documentation": f"{repository}/blob/v{version}/docs/index.md",
        "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def main():
    """Hand both to setuptools."""
    from setuptools import setup

    root = Path(__file__).resolve().parent
    readme = (root / "README.md").read_text(encoding="utf-8")
    pyproject = (root / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "([^"]+)"$', pyproject, re.MULTILINE)[1]
    repository = os.environ.get("KKTCERT_REPOSITORY", "").rstrip("/")
    more = {}
    if repository:
        readme = absolute(readme, repository, version)
        more["project_urls"] = urls(repository, version)
    setup(long_description=readme, long_description_content_type="text/markdown", **more)


if __name__ == "__main__":
    main()
