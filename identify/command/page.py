"""Pages for people: report.html beside what a command writes, and one page of many runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from identify.command.data_options import ModelOptions, SourceOptions
from identify.command.hub import shown
from identify.command.options import LogOptions
from identify.command.output import OutputFolder, check_file_target, replacing
from identify.errors import FileError, one_line

PAGE, REPORT, REPLAY = "report.html", "report.json", "replay.json"
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
    words = ["kktcert", "check", REPORT, shown(model)]
    for name, value in (
        ("--source", source.source.value if source.gradient or source.initial else None),
        ("--gradient", source.gradient),
        ("--initial", source.initial),
        ("--activation", layout.activation),
        ("--degree", layout.degree),
        ("--layers", layout.layers),
        ("--key", layout.key),
    ):
        said = shown(value) if isinstance(value, Path) else str(value)
        words += [name, said] if value is not None else []
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
    from identify.report.page.render import render

    if folder.path is None:
        return
    pictures = _drawn(folder)
    page = report_page(content, text, pictures=pictures, title=title, recheck=recheck)
    folder.write_text(PAGE, render([page]))


def write_replay_page(folder: OutputFolder, content: Mapping[str, Any], text: str) -> None:
    """Write report.html of a replayed training run."""
    from identify.report.page.render import render
    from identify.report.page.runs import replay_page

    folder.write_text(PAGE, render([replay_page(content, text, pictures=_drawn(folder))]))


def _drawn(folder: OutputFolder) -> list[Any]:
    """The pictures that this run has written."""
    from identify.report.page.content import Picture

    path = folder.path
    names = () if path is None else tuple(n for n in _PICTURES if n in folder.written)
    return [Picture.of((path / name).read_bytes(), *_PICTURES[name]) for name in names if path]


def report(
    *,
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders that --out wrote, or files of span."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write, or FILE.md.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there.")] = False,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Its title.")] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Leave out all pictures; they are private.")
    ] = False,
    card: Annotated[
        bool,
        typer.Option("--model-card", help="Write a section for a model card instead: FILE.md."),
    ] = False,
    log: LogOptions,
) -> int:
    """Make one page of many runs, the exposed ones first."""
    from identify.report.page.card import model_card
    from identify.report.page.render import render

    check_file_target(out, (".md",) if card else (".html",), force=force)
    pages = [_page_of(folder) for folder in folders]
    if no_images:
        pages = [replace(page, pictures=()) for page in pages]
    with replacing(out) as target:
        target.write_text(model_card(pages) if card else render(pages, title), encoding="utf-8")
    exposed = sum(page.meaning == "bad" for page in pages)
    print(f"{exposed} of {len(pages)} runs expose samples\nwritten to {one_line(str(out))}")
    return 0


def _page_of(folder: Path) -> Any:
    """The page of a folder: the one that was written, or one from report.json alone."""
    from identify.report.page.build import report_page
    from identify.report.page.content import read_page
    from identify.report.page.runs import attack_page, replay_page, span_page

    if (folder / PAGE).is_file():
        return replace(read_page(_text(folder / PAGE), str(folder / PAGE)), source=str(folder))
    if folder.suffix == ".safetensors" and folder.is_file():
        from identify.checkpoints.span import load_span

        return span_page([float(value) for value in load_span(folder)[1]], source=str(folder))
    if (folder / REPLAY).is_file():
        return replay_page(_json(folder / REPLAY), source=str(folder))
    if not (folder / REPORT).is_file():
        raise FileError(folder, "holds no report", "give folders that --out wrote")
    content = _json(folder / REPORT)
    if content.get("kind") == "attack":
        return attack_page(content, source=str(folder))
    if "verdict" not in content:
        raise FileError(folder / REPORT, "is no report with a verdict")
    return report_page(content, source=str(folder))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise FileError(path, "is no JSON") from error
    if not isinstance(content, dict):
        raise FileError(path, "is no report")
    return content


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise FileError(path, f"is larger than {_LARGEST:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, "cannot be read as text") from error
