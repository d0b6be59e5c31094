"""Configuration of the documentation (Sphinx, MyST, furo)."""

import re
from importlib.metadata import version as installed_version

project = "kktcert"
author = "the kktcert authors"
copyright = "the kktcert authors"
release = version = installed_version("kktcert")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "kktcert"


def _plain_formulas(_app, _what, _name, _object, _options, lines):
    """Docstrings write norms as |x|; outside code the bars and stars are no markup.

    "Cost:" and "Source:" become paragraphs of their own, whatever their indentation.
    """
    escaped, hanging = [], False
    end = next((k for k, line in enumerate(lines) if line.strip() == "Example:"), len(lines))
    for line in lines[:end]:
        parts = re.split(r"(``[^`]*``|`[^`]*`)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        text = "".join(parts)
        heading = re.match(r"(Cost|Source): ", text)
        if heading:
            escaped += ["", f"**{heading[1]}:** {text[heading.end() :]}"]
        else:
            hanging = hanging and text.startswith(" ")
            escaped.append(text.lstrip() if hanging else text)
        hanging = hanging or bool(heading)
    lines[:end] = escaped


def setup(app):
    """Run before napoleon, which connects with the default priority of 500."""
    app.connect("autodoc-process-docstring", _plain_formulas, priority=400)
