"""Fields of an untrusted JSON document: types, ranges and shapes, for the checker."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..outcome import CheckInputError, FloatArray, IntArray

MAX_REPORT_BYTES = 2**28
READ_RATE = 10_000_000
"""Bytes of a report that are read, looked through and hashed in a second, on a slow machine.

A third of what was measured: 118 MB took 3.9 s of one core."""
MAX_DEPTH = 40
LARGEST_INTEGER = 2**62


def load_json(path: Path, time_limit: float | None = None) -> object:
    """Load JSON: every key once, finite numbers, at most 256 MiB and what the time allows."""

    def refuse(word: str) -> None:
        raise CheckInputError(path, "finite numbers", word)

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise CheckInputError(path, "every key once", "a key twice")
        return table

    try:
        if not path.is_file():
            raise CheckInputError(path, "a report", "no such file")
        size = path.stat().st_size
        if size > MAX_REPORT_BYTES:
            raise CheckInputError(path, f"at most {MAX_REPORT_BYTES} bytes", size)
        if time_limit is not None and size > max(1.0, time_limit) * READ_RATE:
            seconds = math.ceil(size / READ_RATE)
            raise CheckInputError(
                path, f"a report that is read in {time_limit:g} s", f"{size} bytes",
                f"give --time-limit {seconds} or more",
            )  # fmt: skip
        text = path.read_text(encoding="utf-8")
        result: object = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except CheckInputError:
        raise
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckInputError(path, "a report in JSON", reason) from None
    return result


def check_plain(value: object) -> None:
    """Refuse everything that is no JSON: other types, NaN, infinity, too deep nesting."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if type(item) is dict:
                if any(type(key) is not str for key in item):
                    raise CheckInputError("report", "text as keys", "another type")
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
            elif type(item) is float:
                if not math.isfinite(item):
                    raise CheckInputError("report", "finite numbers", item)
            elif type(item) is int:
                if abs(item) > 2**1000:
                    raise CheckInputError("report", "numbers in the range of float64", "more")
            elif item is not None and type(item) not in (bool, str):
                raise CheckInputError("report", "plain JSON data", type(item).__name__)
        if not below:
            return
        level = below
    raise CheckInputError("report", f"at most {MAX_DEPTH} levels", "more")


def get_field(table: Mapping[str, Any], key: str) -> Any:
    """The field of that name."""
    if key not in table:
        raise CheckInputError("report", f"the field {key}", "none")
    return table[key]


def as_table(value: object, where: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise CheckInputError(where, "an object", type(value).__name__)
    return value


def as_list(value: object, where: str, length: int | None = None) -> list[Any]:
    """A list, of that length if one is given."""
    if not isinstance(value, list):
        raise CheckInputError(where, "a list", type(value).__name__)
    if length is not None and len(value) != length:
        raise CheckInputError(where, f"{length} entries", len(value))
    return value


def as_text(value: object, where: str) -> str:
    """Text."""
    if not isinstance(value, str):
        raise CheckInputError(where, "text", type(value).__name__)
    return value


def one_of(value: Any, where: str, options: Iterable[Any]) -> Any:
    """One of the options."""
    options = tuple(options)
    if isinstance(value, bool) or value not in options:
        raise CheckInputError(where, f"one of {', '.join(map(str, options))}", repr(value)[:80])
    return value


def as_boolean(value: object, where: str, *, optional: bool = False) -> bool | None:
    """True or false, or None where that is allowed."""
    if value is None and optional:
        return None
    if not isinstance(value, bool):
        raise CheckInputError(where, "true or false", type(value).__name__)
    return value


def as_whole(value: object, where: str, low: int = 0, high: int = LARGEST_INTEGER) -> int:
    """An integer in a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise CheckInputError(where, f"an integer from {low} to {high}", repr(value)[:80])
    return value


def maybe_whole(value: object, where: str, low: int = 0) -> int | None:
    """An integer or None."""
    return None if value is None else as_whole(value, where, low)


def as_number(value: object, where: str, low: float = -math.inf) -> float:
    """A number as float, at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < low:
        expected = "a number" if low == -math.inf else f"a number of at least {low:g}"
        raise CheckInputError(where, expected, repr(value)[:80])
    return float(value)


def maybe_number(value: object, where: str, low: float = -math.inf) -> float | None:
    """A number or None."""
    return None if value is None else as_number(value, where, low)


def as_numbers(value: object, where: str, length: int | None = None) -> FloatArray:
    """A list of numbers."""
    items = as_list(value, where, length)
    if not set(map(type, items)) <= {int, float}:
        raise CheckInputError(where, "numbers", "something else")
    return np.array(items, dtype=np.float64)


def as_matrix(value: object, where: str, rows: int | None, columns: int | None) -> FloatArray:
    """Rows of numbers, all of one length."""
    lines = as_list(value, where, rows)
    if not lines:
        raise CheckInputError(where, "rows", "an empty list")
    width = len(as_list(lines[0], where, columns))
    return np.array([as_numbers(line, where, width) for line in lines]).reshape(len(lines), width)


def as_integers(value: object, where: str, length: int | None = None) -> IntArray:
    """A list of integers of at most 62 bits."""
    items = as_list(value, where, length)
    if not set(map(type, items)) <= {int} or any(abs(i) > LARGEST_INTEGER for i in items):
        raise CheckInputError(where, "integers of at most 62 bits", "something else")
    return np.array(items, dtype=np.int64)
