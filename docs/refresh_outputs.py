"""Run the commands of the documentation again and paste what they print.

Every ``console`` block holds commands after ``$ ``, each followed by its output. A line ``...``
stands for output left out; as many lines as stand before and after it are kept. Python blocks
and specifications that name a file to save them in are saved first. From the root of the project:

    python docs/refresh_outputs.py [PAGE]...
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(
    ROOT / page
    for page in ("docs/tutorial.md", "README.md", "docs/gradient.md", "docs/checkpoints.md")
)
"""In this order, in one folder: the README shows files that the tutorial makes."""
ELSEWHERE = (ROOT / "docs/attack.md", ROOT / "docs/sweeps.md")
"""Refreshed in a folder of its own each; a test beside that of the commands compares the first."""
CUT = "..."
_BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_SAVED = re.compile(
    r"as `([\w.]+)`:\n\n```(?:python|toml)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL
)


def commands(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines shown below it.

    Example:
        >>> commands("$ a b\\none\\n$ c\\n")
        [('a b', ['one']), ('c', [])]
    """
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def excerpt(shown: list[str], output: list[str]) -> list[str]:
    """The part of the output that was shown before, by number of lines around ``...``.

    Example:
        >>> excerpt(["old", "..."], ["new", "more", "last"])
        ['new', '...']
    """
    if CUT not in shown:
        return output
    cut = shown.index(CUT)
    after = len(shown) - cut - 1
    return [*output[:cut], CUT, *output[len(output) - after :]]


def refresh(page: str, run: Callable[[str], str]) -> str:
    """The page with the output of each command as `run` gives it now."""

    def paste(match: re.Match[str]) -> str:
        lines = []
        for command, shown in commands(match[1]):
            lines += [f"$ {command}", *excerpt(shown, run(command).rstrip("\n").splitlines())]
        return "\n".join(["```console", *lines, "```"])

    return _BLOCK.sub(paste, page)


def save_scripts(page: str, folder: Path) -> None:
    """Write the blocks that the page says to save."""
    for name, text in _SAVED.findall(page):
        (folder / name).write_text(text, encoding="utf-8")


def run_shell(command: str, folder: Path) -> str:
    """Standard output of a command, run with the `kktcert` and `python` of this interpreter."""
    program, _, arguments = command.partition(" ")
    path = Path(sys.executable).parent / program
    done = subprocess.run(
        f"'{path}' {arguments}",
        shell=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout


def main() -> None:
    """Rewrite the pages in place; all unless some are named."""
    named = {Path(word).resolve() for word in sys.argv[1:]}
    for pages in (PAGES, *((page,) for page in ELSEWHERE)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path in pages:
                if named and path not in named:
                    continue
                page = path.read_text(encoding="utf-8")
                save_scripts(page, folder)
                path.write_text(
                    refresh(page, lambda command, at=folder: run_shell(command, at)),
                    encoding="utf-8",
                )


if __name__ == "__main__":
    main()
