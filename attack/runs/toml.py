"""Write settings as TOML, to be read by tomllib."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from identify.errors import InvalidInputError

_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r",
}  # fmt: skip


def to_toml(settings: Mapping[str, Any]) -> str:
    """Write a mapping of texts, numbers, booleans, lists and mappings; None is left out.

    `tomllib.loads` gives the mapping back without its None, tuples as lists.

    Raises InvalidInputError for values of other types, NaN, whole numbers beyond 64 bits, and text
    that is no Unicode.

    Source: the TOML specification 1.0.0.

    Example:
        >>> print(to_toml({"seed": 0, "start": {"kind": "noise", "scale": 1e-4, "file": None}}))
        seed = 0
        <BLANKLINE>
        [start]
        kind = "noise"
        scale = 0.0001
        <BLANKLINE>
    """
    return "\n".join(_table(settings, ())) + "\n"


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


def _table(settings: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    present = {name: value for name, value in settings.items() if value is not None}
    plain = {k: v for k, v in present.items() if not isinstance(v, Mapping)}
    lines = [f"{_key(name)} = {_value(name, value)}" for name, value in plain.items()]
    for name, value in present.items():
        if isinstance(value, Mapping):
            inner = (*path, name)
            if lines:
                lines.append("")
            lines += [f"[{'.'.join(map(_key, inner))}]", *_table(value, inner)]
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidInputError(name, "a whole number of 64 bits", value)
        return str(value)
    if isinstance(value, float):
        if value != value:
            raise InvalidInputError(name, "a number", "NaN")
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(name, item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = [f"{_key(k)} = {_value(k, v)}" for k, v in value.items() if v is not None]
        return f"{{{', '.join(pairs)}}}"
    raise InvalidInputError(name, "text, numbers, lists or mappings", type(value).__name__)


def _text(text: str) -> str:
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise InvalidInputError("text", "valid Unicode", ascii(text))
    return f'"{"".join(map(_character, text))}"'


def _character(c: str) -> str:
    if c in _ESCAPES:
        return _ESCAPES[c]
    return c if ord(c) >= 0x20 and ord(c) != 0x7F else f"\\u{ord(c):04x}"
