"""Pages for people: report.html beside what a command writes, and one page of many runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from identify.command.data_options import ModelOptions, SourceOptions
from identify.command.options import LogOptions
from identify.command.output import OutputFolder, check_file_target, replacing
from identify.errors import FileError, one_line

PAGE, REPORT = "report.html", "report.json"
AUDIT = "Which samples are exposed?"
_LARGEST = 200_000_000
_PICTURES = {
    "contact.png": (
        "Recovered samples; where the truth or other training sets are known, they stand beside.",
        "Contact sheet of the recovered samples as images, each with its caption.",
    ),
    "overview.png": ("Overview.", "Overview of the pictures."),
}


class Told(Protocol):
    """A report: plain data, JSON and text."""

    def to_dict(self) -> dict[str, Any]: ...

    def to_json(self) -> str: ...


def check_line(model: Path, source: SourceOptions, layout: ModelOptions) -> str:
    """The command line that checks the report in the folder in which it stands.

    Example:
        >>> check_line(Path("a b.pt"), SourceOptions(), ModelOptions(activation="relu"))
        "kktcert check report.json 'a b.pt' --activation relu"
    """
    words = ["kktcert", "check", REPORT, str(model)]
    for name, value in (
        ("--source", source.source.value if source.gradient or source.initial else None),
        ("--gradient", source.gradient),
        ("--initial", source.initial),
        ("--activation", layout.activation),
        ("--degree", layout.degree),
        ("--layers", layout.layers),
        ("--key", layout.key),
    ):
        words += [name, str(value)] if value is not None else []
    return shlex.join(words)


def write_report(folder: OutputFolder, report: Told, recheck: str = "") -> None:
    """Write report.json and, with the pictures that are in the folder, report.html."""
    folder.write_text(REPORT, report.to_json())
    write_page(folder, report.to_dict(), str(report), recheck)


def write_page(
    folder: OutputFolder,
    content: Mapping[str, Any],
    text: str,
    recheck: str = "",
    title: str | None = None,
) -> None:
    """Write report.html; the pictures are those that this run has written."""
    from identify.report.page.build import report_page
    from identify.report.page.content import Picture
    from identify.report.page.render import render

    if folder.path is None:
        return
    pictures = [
        Picture.of((folder.path / name).read_bytes(), *words)
        for name, words in _PICTURES.items()
        if name in folder.written
    ]
    page = report_page(content, text, pictures=pictures, title=title, recheck=recheck)
    folder.write_text(PAGE, render([page]))


def report(
    *,
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders that --out wrote.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there.")] = False,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Its title.")] = None,
    log: LogOptions,
) -> int:
    """Make one page of many runs, the exposed ones first."""
    from identify.report.page.render import render

    check_file_target(out, (".html",), force=force)
    pages = [_page_of(folder) for folder in folders]
    with replacing(out) as target:
        target.write_text(render(pages, title), encoding="utf-8")
    exposed = sum(page.meaning == "bad" for page in pages)
    print(f"{exposed} of {len(pages)} runs expose samples\nwritten to {one_line(str(out))}")
    return 0


def _page_of(folder: Path) -> Any:
    """The page of a folder: the one that was written, or one from report.json alone."""
    from dataclasses import replace

    from identify.report.page.build import report_page
    from identify.report.page.content import read_page

    if (folder / PAGE).is_file():
        return replace(read_page(_text(folder / PAGE), str(folder / PAGE)), source=str(folder))
    if not (folder / REPORT).is_file():
        raise FileError(folder, "holds no report", "give folders that --out wrote")
    try:
        content = json.loads(_text(folder / REPORT))
    except (ValueError, RecursionError) as error:
        raise FileError(folder / REPORT, "is no JSON") from error
    if not isinstance(content, dict) or "verdict" not in content:
        raise FileError(folder / REPORT, "is no report with a verdict")
    return report_page(content, source=str(folder))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise FileError(path, f"is larger than {_LARGEST:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, "cannot be read as text") from error
