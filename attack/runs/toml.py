"""Write settings as TOML, to be read by tomllib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identify.errors import InvalidInputError


def to_toml(settings: Mapping[str, Any]) -> str:
    """Write a mapping of texts, numbers, booleans, lists and mappings; None is left out.

    `tomllib.loads` gives the mapping back without its None, tuples as lists.

    Raises InvalidInputError for values of other types, NaN, whole numbers beyond 64 bits, and text
    that is no Unicode.

    Source: the TOML specification 1.0.0, written by tomli-w.

    Example:
        >>> print(to_toml({"seed": 0, "start": {"kind": "noise", "scale": 1e-4, "file": None}}))
        seed = 0
        <BLANKLINE>
        [start]
        kind = "noise"
        scale = 0.0001
        <BLANKLINE>
    """
    import tomli_w

    kept = without_none(settings)
    _require_writable("settings", kept)
    return tomli_w.dumps(kept)


def without_none(value: Any) -> Any:
    """Return what `to_toml` keeps, as tomllib reads it: no None, lists for tuples.

    Example:
        >>> without_none({"a": None, "b": (1, {"c": None})})
        {'b': [1, {}]}
    """
    if isinstance(value, Mapping):
        return {str(k): without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value


def _require_writable(name: str, value: Any) -> None:
    """tomli-w writes what tomllib, or the next reader, would refuse; we do not."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _require_writable(key, key)
            _require_writable(key, inner)
    elif isinstance(value, list):
        for item in value:
            _require_writable(name, item)
    elif isinstance(value, str):
        if any(0xD800 <= ord(c) < 0xE000 for c in value):
            raise InvalidInputError(ascii(name), "valid Unicode", ascii(value))
    elif not isinstance(value, bool | int | float):
        raise InvalidInputError(name, "text, numbers, lists or mappings", type(value).__name__)
    elif isinstance(value, float) and value != value:
        raise InvalidInputError(name, "a number", "NaN")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidInputError(name, "a whole number of 64 bits", value)
