"""The results of a sweep as a table, or as records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attack.sweep.store import Row
from identify.errors import InvalidInputError, listed
from identify.text import table

COLUMNS = 8
"""Most columns of results that are chosen by themselves."""


def flat(row: Row) -> dict[str, Any]:
    """Return one run as names and single values; those of a result as ``command.part.part``.

    Example:
        >>> row = Row(1, {"seed": 3}, "done", {"verify": {"verdict": "globally", "n": {"r": 2}}},
        ...           "", 0.5, "here:1", "2026-01-01", False)
        >>> flat(row)["verify.n.r"], flat(row)["seed"]
        (2, 3)
    """
    found: dict[str, Any] = {"run": row.number, **row.values, "state": row.state}
    found |= {"seconds": row.seconds, "worker": row.worker, "started": row.started}
    found |= {"resumed": row.resumed, "error": row.error}
    for command, result in row.results.items():
        _add(found, command, result)
    return found


def sweep_table(rows: Sequence[Row], columns: Sequence[str] = ()) -> list[str]:
    """Return the lines of a table: the values, the state, and the results that differ.

    `columns` are names of `flat`, whole or their last parts.

    Raises InvalidInputError for a column that no run has.
    """
    records = [flat(row) for row in rows]
    names = [_named(column, records) for column in columns] or _varying(rows, records)
    own = list(rows[0].values) if rows else []
    head = ["run", *own, "state", *names]
    body = [[_spell(record.get(name)) for name in head] for record in records]
    lines = table([_short(name, head) for name in head], body)
    failed = [row for row in rows if row.error]
    return [*lines, *(f"run {row.number}: {row.error}" for row in failed)]


def records_json(rows: Sequence[Row]) -> str:
    """Return all runs with their results as a JSON list."""
    facts = [
        {
            "run": row.number, "values": dict(row.values), "state": row.state, "error": row.error,
            "seconds": row.seconds, "worker": row.worker, "started": row.started,
            "resumed": row.resumed, "results": dict(row.results),
        }
        for row in rows
    ]  # fmt: skip
    return json.dumps(facts, indent=1, allow_nan=False)


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _add(found, f"{name}.{key}", part)
    elif not isinstance(value, list):
        found[name] = value


def _varying(rows: Sequence[Row], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The results that are not the same in all runs; seconds where there are none."""
    known: dict[str, set[Any]] = {}
    for row, record in zip(rows, records, strict=True):
        for name, value in record.items():
            if name.partition(".")[0] in row.results and _telling(name, value):
                known.setdefault(name, set()).add(value)
    order = list(dict.fromkeys(command for row in rows for command in row.results))
    names = [name for name, values in known.items() if len(values) > 1]
    # What the last command says is what the sweep is about.
    names.sort(key=lambda n: (_depth(n), -order.index(n.partition(".")[0])))
    return ["seconds", *names[:COLUMNS]]


def _depth(name: str) -> int:
    return name.count(".")


def _telling(name: str, value: Any) -> bool:
    """Whether a value can be a result worth a column: no setting, no time, no long text."""
    parts = name.split(".")
    if {"settings", "seconds", "versions", "config"} & set(parts):
        return False
    return not (isinstance(value, str) and len(value) > 24)


def _named(column: str, records: Sequence[Mapping[str, Any]]) -> str:
    names = {name for record in records for name in record}
    fitting = sorted(n for n in names if n == column or n.endswith(f".{column}"))
    if column in names:
        return column
    if len(fitting) != 1:
        known = listed(fitting or sorted(n for n in names if n.count(".") <= 1))
        raise InvalidInputError("--columns", f"one of {known}", column)
    return fitting[0]


def _short(name: str, head: Sequence[str]) -> str:
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in head) == 1 else name


def _spell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
