"""What a page holds, apart from how it looks."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from identify.errors import FileError

BAD, GOOD, OPEN = "bad", "good", "open"
"""What a verdict or a row means for the owner of the data: exposed, not exposed, not known."""
_KEY = "kktcert-page"


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption and what it shows, for those who do not see it."""

    caption: str
    alternative: str
    png: str

    @staticmethod
    def of(content: bytes, caption: str, alternative: str) -> Picture:
        """Encode the bytes of a PNG."""
        return Picture(caption, alternative, base64.b64encode(content).decode("ascii"))


@dataclass(frozen=True)
class Table:
    """A table with a heading and a sentence that explains it; `marks` colours its rows."""

    title: str
    explanation: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A positive number on a logarithmic scale, and the limit that it has to keep, if any."""

    name: str
    value: float
    limit: float | None = None


@dataclass(frozen=True)
class Page:
    """One run for people.

    `lead` are labelled sentences, the first of them the conclusion; `lists` have headings;
    `recheck` is the command line that examines the report again; `provenance` names and values.
    """

    title: str
    verdict: str
    meaning: str
    lead: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    bars: tuple[Bar, ...] = ()
    lists: tuple[tuple[str, tuple[str, ...]], ...] = ()
    recheck: str = ""
    provenance: tuple[tuple[str, str], ...] = ()
    text: str = ""
    source: str = field(default="", compare=False)

    def to_json(self) -> str:
        """Return the page as JSON that may stand inside of HTML."""
        text = json.dumps(asdict(self), allow_nan=False)
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def read_page(html: str, path: str) -> Page:
    """Return the page inside of an HTML file that `render` wrote.

    Raises FileError for another file.
    """
    start = html.find(f'<script type="application/json" id="{_KEY}">')
    end = html.find("</script>", start)
    if start < 0 or end < 0:
        raise FileError(path, "is no report of kktcert", "give folders that --out wrote")
    try:
        content = json.loads(html[html.index(">", start) + 1 : end])
        return _page(content[0] if isinstance(content, list) else content)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FileError(path, "holds a damaged report", "write it again") from error


def _page(content: Mapping[str, Any]) -> Page:
    return Page(
        title=str(content["title"]),
        verdict=str(content["verdict"]),
        meaning=_word(content["meaning"]),
        lead=_pairs(content["lead"]),
        pictures=tuple(Picture(**part) for part in content["pictures"]),
        tables=tuple(_table(part) for part in content["tables"]),
        bars=tuple(Bar(**part) for part in content["bars"]),
        lists=tuple((str(name), tuple(map(str, items))) for name, items in content["lists"]),
        recheck=str(content["recheck"]),
        provenance=_pairs(content["provenance"]),
        text=str(content["text"]),
        source=str(content["source"]),
    )


def _table(content: Mapping[str, Any]) -> Table:
    return Table(
        str(content["title"]), str(content["explanation"]), tuple(map(str, content["header"])),
        tuple(tuple(map(str, row)) for row in content["rows"]),
        tuple(_word(mark) for mark in content["marks"]),
    )  # fmt: skip


def _pairs(content: Sequence[Sequence[Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in content)


def _word(given: Any) -> str:
    if given not in (BAD, GOOD, OPEN, ""):
        raise ValueError(given)
    return str(given)
