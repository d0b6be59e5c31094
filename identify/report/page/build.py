"""A page from what a command wrote: report.json, its text, and the pictures beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from identify.report.page.content import BAD, GOOD, OPEN, Bar, Page, Picture, Table
from identify.report.page.explanations import explained
from identify.text import number

_TITLES = {
    None: "Do the weights give away their training samples?",
    "gradient": "Does one gradient give away its batch?",
    "stationary": "Do the weights give away their training samples?",
}
_HOLDS = {True: "holds", False: "fails", None: "not checked"}
_MARKS = {True: GOOD, False: BAD, None: OPEN}
_LABELLED = re.compile(r"(\S+(?: \S+)*) {2,}(\S.*)")
_RESIDUALS = {
    "balance": "balance or consistency",
    "off_span": "outside of the span",
    "linear": "linear equations",
    "samples": "recovered samples",
}


def report_page(
    content: Mapping[str, Any],
    text: str = "",
    *,
    pictures: Sequence[Picture] = (),
    title: str | None = None,
    recheck: str = "",
    source: str = "",
) -> Page:
    """Build the page of a report.

    Args:
        content: report.json, of any kind.
        text: the report as the command prints it; its first lines are the conclusion.
        pictures: in their order.
        title: of the page; by the kind of the report unless given.
        recheck: the command line that examines the report again.
        source: the folder, for pages of many runs.

    Example:
        >>> page = report_page({"verdict": "undecided", "reason": "too few rows", "seed": 0})
        >>> page.meaning, page.lead[0]
        ('open', ('in short', 'nothing is known: this is no proof of privacy'))
    """
    verdict = str(content.get("verdict", "unknown"))
    kind = content.get("kind")
    return Page(
        title=title or _TITLES.get(kind if isinstance(kind, str) else None, str(kind)),
        verdict=verdict,
        meaning=_meaning(content),
        lead=_lead(content, text),
        pictures=tuple(pictures),
        tables=tuple(t for t in (_samples(content), _conditions(content), _checks(content)) if t),
        bars=_bars(content),
        lists=(
            ("What it rests on", tuple(map(str, content.get("assumptions") or ()))),
            ("What would break it", tuple(map(str, content.get("caveats") or ()))),
            ("What stays open", tuple(map(str, content.get("symmetries") or ()))),
        ),
        recheck=recheck,
        provenance=provenance(content),
        text=text,
        source=source,
    )


def labelled_lines(text: str) -> list[tuple[str, str]]:
    """Return the labelled paragraphs at the top of a report's text, up to its first table.

    Example:
        >>> labelled_lines("T\\n=\\nin short      one\\n              two\\nverdict       x")
        [('in short', 'one two'), ('verdict', 'x')]
    """
    found: list[list[str]] = []
    for line in text.splitlines()[2:]:
        match = _LABELLED.match(line)
        if match:
            found.append([match[1], match[2]])
        elif line.startswith("  ") and found:
            found[-1][1] += f" {line.strip()}"
        elif line:
            break
    return [(label, words) for label, words in found]


def _lead(content: Mapping[str, Any], text: str) -> tuple[tuple[str, str], ...]:
    told = labelled_lines(text)
    if told:
        kept = [row for row in told if row[0] not in ("verdict",)]
        return tuple(sorted(kept, key=lambda row: row[0] != "in short"))
    short = {
        "globally": "the training samples can be reconstructed",
        "locally": "training samples that explain the data can be reconstructed",
        "nonidentifiable": "two different training sets explain the data",
    }.get(str(content.get("verdict")), "nothing is known: this is no proof of privacy")
    reason = str(content.get("reason") or "")
    return (("in short", short), *([("reason", reason)] if reason else []))


def _meaning(content: Mapping[str, Any]) -> str:
    """Whether samples are exposed; nothing that a report says is a proof that none are."""
    exposed = content.get("verdict") in ("globally", "locally") or content.get("candidates")
    return BAD if exposed else OPEN


def _samples(content: Mapping[str, Any]) -> Table | None:
    bounds = content.get("error_bounds")
    if not isinstance(bounds, list) or not bounds:
        return None
    columns = {"error bound": [number(bound) for bound in bounds]}
    for name, key in (("label", "labels"), ("counts", "counts")):
        values = content.get(key)
        if isinstance(values, list) and len(values) == len(bounds):
            columns[name] = ["-" if value is None else f"{value:.3g}" for value in values]
    rows = [(str(k + 1), *cells) for k, cells in enumerate(zip(*columns.values(), strict=True))]
    return Table(
        "Samples",
        "The error bound is the largest possible error over the length of the sample.",
        ("sample", *columns),
        tuple(rows[:200]),
    )


def _conditions(content: Mapping[str, Any]) -> Table | None:
    given = content.get("conditions")
    if not isinstance(given, list) or not given:
        return None
    rows, marks = [], []
    for row in given:
        name, needed = str(row.get("name")), bool(row.get("needed", True))
        words = _HOLDS[row.get("holds")] + ("" if needed else ", not required")
        rows.append((
            name, words, explained(name), number(row.get("required")), number(row.get("found")),
            str(row.get("evidence") or ""),
        ))  # fmt: skip
        marks.append(_MARKS[row.get("holds")] if needed else "")
    return Table(
        "Conditions of the verdict",
        "A positive verdict needs every one that is required. One that fails is no harm done: it "
        "says why more is not claimed.",
        ("condition", "", "meaning", "required", "found", "evidence"),
        tuple(rows),
        tuple(marks),
    )


def _checks(content: Mapping[str, Any]) -> Table | None:
    given = content.get("checks")
    if not isinstance(given, list) or not given:
        return None
    rows, marks = [], []
    for row in given:
        name, holds = str(row.get("name")), row.get("holds")
        rows.append((
            name, _HOLDS[holds], explained(name), number(row.get("value")),
            number(row.get("limit")), str(row.get("note") or ""),
        ))  # fmt: skip
        marks.append(_MARKS[holds])
    return Table(
        "Checks",
        "What the recovered samples have to obey, measured on the data.",
        ("check", "", "meaning", "value", "limit", ""),
        tuple(rows),
        tuple(marks),
    )


def _bars(content: Mapping[str, Any]) -> tuple[Bar, ...]:
    found = []
    residuals = content.get("residuals")
    if isinstance(residuals, Mapping):
        for name, part in residuals.items():
            if _positive(part.get("value")):
                found.append(Bar(_RESIDUALS.get(name, str(name)), float(part["value"])))
    for row in content.get("checks") or ():
        value, limit = row.get("value"), row.get("limit")
        if _positive(value) and _positive(limit) and "layer" in str(row.get("name")):
            found.append(Bar(str(row["name"]), float(value), float(limit)))
    return tuple(found)


def _positive(value: Any) -> bool:
    number_like = isinstance(value, int | float) and not isinstance(value, bool)
    return number_like and 0 < value < math.inf


def provenance(content: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return hashes of the inputs, the problem, seed, seconds and versions of a report."""
    rows = []
    for entry in content.get("inputs") or ():
        name = str(entry.get("path") or entry.get("role"))
        rows.append((str(entry.get("role", "input")), f"{name}, sha256 {entry.get('sha256')}"))
    problem = content.get("problem")
    if isinstance(problem, Mapping):
        for name, value in problem.items():
            if value is not None and not isinstance(value, Mapping | list):
                shown = number(value) if isinstance(value, float) else str(value)
                rows.append((str(name).replace("_", " "), shown))
    for name in ("seed", "seconds"):
        if content.get(name) is not None:
            rows.append((name, number(content[name])))
    versions = content.get("versions")
    if isinstance(versions, Mapping):
        rows.append(("versions", ", ".join(f"{name} {v}" for name, v in versions.items())))
    return tuple(rows)
