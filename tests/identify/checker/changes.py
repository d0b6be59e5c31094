"""Changes to the fields of a report, each of which makes it false, and its case."""

from __future__ import annotations

import copy

from identify.checker.case import Case
from identify.checker.reading.files import read_network
from identify.checker.reading.report import read_report
from identify.checker.source import build_data

NOTES = {
    "schema_version", "reason", "symmetries", "strengthen", "condition_number",
    "condition_method", "assumptions", "caveats", "format", "distinct_neurons", "rank_method",
    "seed", "versions", "seconds", "digest", "precision",
}  # fmt: skip


def put(report, path, value):
    """A copy of the report with one field replaced."""
    changed = copy.deepcopy(report)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def leaves(node, path=()):
    """Every field that is no note; of long lists the first and the last entry."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in NOTES and (key != "source" or path == ("problem",)):
                yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        yield path, node
        for index in range(len(node)) if len(node) < 12 else (0, len(node) - 1):
            yield from leaves(node[index], (*path, index))
    else:
        yield path, node


def changes(path, value):
    """Values that make the field false, by its type."""
    if isinstance(value, bool):
        return [not value, None, 1]
    if value is None:
        return [1, 0.5, "x", True]
    if path[-1] == "found" and isinstance(value, float) and value > 1e12:
        return [1e-6 * value, -value, "x"]  # a gap down to rounding errors
    if isinstance(value, int):
        if "pivots" in path:  # other pivots may do as well
            return [-1, 10**6, None, 2.5]
        if path[-1] == "neurons":  # one more neuron, or one less, may be as true
            return [1, 10**6, -1, None, 2.5]
        return [2 * value + 3, -value - 1, None, value + 0.5]
    if isinstance(value, float):
        if abs(value) < 1e-12:  # nobody reproduces rounding errors
            return [value + 1.0, -value - 1.0, None, "x"]
        if path[-1] == "bound" or "error_bounds" in path:  # smaller and larger, what is false
            return [2.0 * value + 1.0, -value, None]
        return [1.1 * value, 10.0 * value, -value, None, value + 1.0]
    if isinstance(value, str):
        return ["", "x", "kkt", "proved_interval", "numerical", "undecided", "bias"]
    return [value[:-1], [*value, *value[-1:]], [], None]


def case_of(report, files, **options):
    networks = {"model": read_network(files[0])}
    if files[1] is not None:
        networks["gradient"] = read_network(files[1])
    content = read_report(report)
    return Case(content, build_data(content.source, networks, None), **options)
