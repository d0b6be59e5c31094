"""The text form of a report, to be read at a glance."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

from identify.thresholds import COARSE_NOISE

WIDTH = 100
_LABEL = 14


def number(value: float | int | str | None) -> str:
    """Write a number in few characters; None as "-".

    Example:
        >>> number(56), number(1e-15), number(0.1), number(None), number(1234.5)
        ('56', '1.0e-15', '0.1', '-', '1.2e+03')
    """
    if value is None:
        return "-"
    if isinstance(value, str | int):
        return str(value)
    if not math.isfinite(value):
        return "-"
    if value == 0.0 or (1e-3 <= abs(value) < 1e3 and float(f"{value:.4g}") == value):
        return f"{value:.4g}"
    return f"{value:.1e}"


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1.

    Example:
        >>> counted(1, "sample"), counted(3, "sample")
        ('1 sample', '3 samples')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def drowned(noise: float) -> str:
    """What may hide samples at the relative noise of float32 and above; nothing below.

    Example:
        >>> drowned(1e-15), "float64" in drowned(1e-7)
        ('', True)
    """
    if noise < COARSE_NOISE:
        return ""
    return (
        f"; at a noise of {noise:.1e} samples that the network is sure of, whose loss hardly "
        "slopes, can drown: the same data computed in float64 may show them"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], indent: int = 2) -> list[str]:
    """Align text in columns, two spaces apart, under a header.

    Example:
        >>> table(["a", "b"], [["long", "1"]], indent=0)
        ['a     b', 'long  1']
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    spell = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells)
    return [(" " * indent + line).rstrip() for line in spell]


def labelled(label: str, text: str) -> list[str]:
    if not text:
        return []
    lines = wrapped(text, indent=" " * _LABEL)
    return [label.ljust(_LABEL) + lines[0].lstrip(), *lines[1:]]


def wrapped(text: str, indent: str = "", first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    ) or [""]


def section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *lines] if lines else []


def bullets(items: Iterable[str]) -> list[str]:
    return [line for item in items for line in wrapped(item, "    ", "  - ")]
