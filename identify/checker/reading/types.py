"""The types of every field of a report, notes included, as its schema has them.

A copy of the schema's types in plain code, so that the folder works wherever it is copied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..outcome import CheckInputError
from .fields import as_boolean, as_list, as_number, as_table, as_text, as_whole, one_of

Kind = Callable[[object, str], object]
"""Raises CheckInputError unless a value is of the kind; the text says where it stands."""


def table(required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Kind:
    """An object with these fields and no others."""
    known = {**required, **(optional or {})}

    def check(value: object, where: str) -> None:
        found = as_table(value, where or "report")
        start = f"{where}." if where else ""
        for name in required:
            if name not in found:
                raise CheckInputError(where or "report", f"the field {name}", "none")
        for name, inner in found.items():
            if name not in known:
                raise CheckInputError(where or "report", "fields of the schema", repr(name)[:80])
            known[name](inner, start + name)

    return check


def listed(kind: Kind, low: int = 0, high: float = math.inf) -> Kind:
    """A list of `low` to `high` values of one kind."""

    def check(value: object, where: str) -> None:
        items = as_list(value, where)
        if not low <= len(items) <= high:
            raise CheckInputError(where, f"{low} to {high:g} entries", len(items))
        for item in items:
            kind(item, where)

    return check


def maybe(kind: Kind) -> Kind:
    """That kind, or null."""
    return lambda value, where: value is None or kind(value, where)


def either(first: Kind, second: Kind) -> Kind:
    """The first kind for objects whose `samples` are a list, else the second."""

    def check(value: object, where: str) -> None:
        listed_samples = isinstance(value, dict) and isinstance(value.get("samples"), list)
        (first if listed_samples else second)(value, where)

    return check


def whole(low: int = -(2**62), high: int = 2**62) -> Kind:
    """An integer in a range."""
    return lambda value, where: as_whole(value, where, low, high)


def real(low: float = -math.inf) -> Kind:
    """A number of at least `low`."""
    return lambda value, where: as_number(value, where, low)


def choice(*options: Any) -> Kind:
    """One of these values, and of their types."""

    def check(value: object, where: str) -> None:
        one_of(value, where, options)
        if type(value) not in set(map(type, options)):
            raise CheckInputError(where, "an integer", repr(value)[:80])

    return check


def _text_or_number(value: object, where: str) -> object:
    return as_text(value, where) if isinstance(value, str) else as_number(value, where)


def _name_of_something(value: object, where: str) -> None:
    if not as_text(value, where):
        raise CheckInputError(where, "a sentence", "an empty text")


def _hash(value: object, where: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", as_text(value, where)):
        raise CheckInputError(where, "64 hexadecimal digits", repr(value)[:80])


def _versions(value: object, where: str) -> None:
    found = as_table(value, where)
    for name in {"kktcert", *found}:
        as_text(found.get(name), f"{where}.{name}")


def _numbers(value: object, where: str) -> None:
    # Certificates hold millions of them.
    if not set(map(type, as_list(value, where))) <= {int, float}:
        raise CheckInputError(where, "numbers", "something else")


def _integers(low: int) -> Kind:
    def check(value: object, where: str) -> None:
        items = as_list(value, where)
        if not set(map(type, items)) <= {int} or min(items, default=low) < low:
            raise CheckInputError(where, "integers", "something else")

    return check


_flag: Kind = lambda value, where: as_boolean(value, where)  # noqa: E731
_EVIDENCE = choice("proved_exact", "proved_interval", "numerical")
_SENTENCES = listed(as_text)
_RESIDUAL = table({"value": maybe(real(0.0)), "equations": whole(0)})
_PAIR = listed(whole(1), 2, 2)
_SCOPE = either(
    table({"kind": choice("shown"), "samples": _PAIR}),
    table({"kind": choice("at_most", "exactly"), "samples": whole(1)}),
)
_CONDITION = table(
    {
        "name": as_text,
        "holds": maybe(_flag),
        "required": maybe(_text_or_number),
        "found": maybe(_text_or_number),
        "evidence": _EVIDENCE,
        "source": as_text,
    },
    {"needed": _flag},
)
_ASSUMED = table(
    {
        "samples": maybe(whole(1)),
        "scale": choice("free", "unit", "margin", "bias"),
        "non_negative": _flag,
        "noise": maybe(real()),
        "loss": maybe(choice("logistic", "squared", "cross-entropy")),
        "decay": maybe(real()),
    },
    {
        "arithmetic": choice("auto", "exact", "float64", "float32", "float16", "bfloat16"),
        "point": maybe(choice("midpoint", "initial")),
        "gradient_decay": real(0.0),
    },
)
_ENCLOSURE = table(
    {
        "precision": whole(),
        "radius": real(),
        "pivots": _integers(0),
        "centres": listed(_numbers),
        "radii": listed(_numbers),
        "relative": _numbers,
        "conditions": _numbers,
    }
)
_SET = table({"samples": listed(_numbers), "coefficients": _numbers, "residual": real()})
_CERTIFICATE = table(
    {
        "format": choice(1, 2),
        "assumed": _ASSUMED,
        "basis": maybe(listed(_numbers)),
        "neurons": maybe(_integers(0)),
        "shift": maybe(whole()),
        "points": maybe(listed(_integers(-(2**62)))),
        "rank": maybe(table({"prime": whole(), "neurons": whole(), "unknowns": whole()})),
        "singular_value": maybe(table({"bound": real(), "neurons": whole(), "radius": real()})),
        "terms": maybe(table({"values": listed(_numbers), "signs": listed(choice(-1, 1))})),
        "enclosure": maybe(_ENCLOSURE),
        "sets": maybe(listed(_SET, 2, 2)),
        "digest": _hash,
    }
)
_PROBLEM = table(
    {
        "source": choice("kkt", "weight-decay", "gradient", "fine-tuning"),
        "degree": whole(3),
        "width": whole(1),
        "dimension": whole(1),
    },
    {
        "distinct_neurons": maybe(whole()),
        "span_dimension": maybe(whole()),
        "unknowns": maybe(whole()),
        "rank": maybe(whole()),
        "rank_method": maybe(as_text),
    },
)
_REPORT = table(
    {
        "schema_version": choice(1),
        "verdict": choice("globally", "locally", "nonidentifiable", "undecided"),
        "reason": _name_of_something,
        "scope": maybe(_SCOPE),
        "spans_input_space": maybe(_flag),
        "symmetries": _SENTENCES,
        "sample_count": maybe(whole(1)),
        "evidence": _EVIDENCE,
        "strengthen": _SENTENCES,
        "conditions": listed(_CONDITION),
        "residuals": table(dict.fromkeys(("balance", "off_span", "linear", "samples"), _RESIDUAL)),
        "redundant_equations": maybe(whole()),
        "condition_number": maybe(real()),
        "condition_method": maybe(as_text),
        "error_bounds": maybe(listed(maybe(real(0.0)))),
        "assumptions": _SENTENCES,
        "caveats": _SENTENCES,
        "certificate": maybe(_CERTIFICATE),
        "noise_level": maybe(real()),
        "problem": _PROBLEM,
        "inputs": listed(
            table({"role": choice("model", "gradient", "initial"), "sha256": _hash}), 1
        ),
        "seed": whole(0),
        "versions": _versions,
        "seconds": real(0.0),
    },
    {
        "absolute_bounds": maybe(listed(maybe(real(0.0)))),
        "data_error": maybe(real(0.0)),
        "candidates": _flag,
        "covered": _flag,
    },
)


def check_types(report: object) -> None:
    """Raise CheckInputError unless every field is there and of its type, and there is no other.

    Example:
        >>> check_types({"schema_version": 1})
        Traceback (most recent call last):
        ...
        identify.checker.outcome.CheckInputError: report: expected the field verdict, got none
    """
    _REPORT(report, "")
