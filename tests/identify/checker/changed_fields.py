"""Every field of an honest report changed in turn."""

from __future__ import annotations

from identify.checker.outcome import CONFIRMED, CheckInputError
from tests.identify.checker.deep_reports import Reported, signed


def leaves(part, path=()):
    """Paths of all values and parts; of long lists those of the first entry."""
    yield path, part
    if isinstance(part, dict):
        for name, inner in part.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(part, list) and part:
        for k in range(len(part) if path[-1] in ("checks", "ranks") else 1):
            yield from leaves(part[k], (*path, k))


def mutants(value):
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, int):
        return [value + 1, value - 1, 2 * value + 7, 0, None]
    if isinstance(value, float):
        return [value * 1.5, value * 0.5, -value, 1e308, None, 0.0]
    if isinstance(value, list):
        return [[], None, *([value[:-1]] if value else [])]
    return [None] if isinstance(value, dict) else []


def is_named(path, names):
    field = ".".join(name for name in path if isinstance(name, str))
    return any((f"{name}.").startswith(f"{field}.") or field.startswith(f"{name}.")
               for name in names)  # fmt: skip


def unnamed_changes(honest: Reported):
    """Changes that are still confirmed although their field is not said to be unchecked.

    Returns them with the number of changes that could be read.
    """
    kept, tried = [], 0
    for path, value in leaves(honest.report):
        if not path or path[-1] == "digest" or (path[-1] in ("pivots", "excluded")):
            continue
        if path in (("assumptions",), ("certificate",)):
            continue  # how many there are is checked, the words are notes
        for other in mutants(value):
            if other == value or (isinstance(value, float) and not value):
                continue
            report = honest.changed()
            place = report
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = other
            try:
                result = honest.check(signed(report))
            except CheckInputError:
                continue
            tried += 1
            if result.outcome == CONFIRMED and not is_named(path, result.not_checked):
                kept.append((path, value, other))
    return kept, tried
