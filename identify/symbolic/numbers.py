"""Exact numbers: reading them without floats, signs, and the real field that they span."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from identify.errors import InvalidInputError

if TYPE_CHECKING:
    import sympy

MAX_FIELD_DEGREE = 16

HINT = "write fractions.Fraction, sympy.Rational or sympy.sqrt"


def exact(name: str, value: Any, *, symbols: bool = False) -> sympy.Expr:
    """The number as an expression of sympy; floats are refused, symbols unless allowed.

    Example:
        >>> exact("x", 3)
        3
        >>> exact("x", 0.5)
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: x: expected exact numbers, got the float 0.5; ...
    """
    import sympy

    if isinstance(value, bool | np.bool_):
        raise InvalidInputError(name, "exact numbers", "a truth value", HINT)
    if isinstance(value, int | np.integer):
        return sympy.Integer(int(value))
    if isinstance(value, Fraction):
        return sympy.Rational(value.numerator, value.denominator)
    if isinstance(value, float | complex | np.inexact):
        raise InvalidInputError(name, "exact numbers", f"the float {value}", HINT)
    if not isinstance(value, sympy.Expr):
        raise InvalidInputError(name, "exact numbers", type(value).__name__, HINT)
    if value.has(sympy.Float):
        raise InvalidInputError(name, "exact numbers", f"the float {value}", HINT)
    if value.free_symbols:
        if symbols:
            return value
        raise InvalidInputError(name, "exact numbers", f"the symbols in {value}")
    if not value.is_real or value.is_algebraic is False:
        raise InvalidInputError(name, "real algebraic numbers", value, HINT)
    return value


def exact_matrix(
    name: str, values: Any, height: int | None = None, columns: int | None = None,
    *, symbols: bool = False,
) -> list[list[sympy.Expr]]:  # fmt: skip
    """Rows of exact numbers from nested sequences, an array or a matrix; shapes are checked."""
    rows = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(rows, Sequence) or not all(isinstance(row, Sequence) for row in rows):
        raise InvalidInputError(name, "rows of exact numbers", type(values).__name__)
    width = (len(rows[0]) if rows else 0) if columns is None else columns
    if not rows or width < 1 or any(len(row) != width for row in rows):
        shape = f"{len(rows)} rows of lengths {sorted({len(row) for row in rows})}"
        wanted = "equal length from 1" if columns is None else f"length {columns}"
        raise InvalidInputError(name, f"rows of {wanted}", shape)
    if height is not None and len(rows) != height:
        raise InvalidInputError(name, f"{height} rows", len(rows))
    return [[exact(name, value, symbols=symbols) for value in row] for row in rows]


def exact_column(name: str, values: Any, length: int, *, symbols: bool = False) -> list[sympy.Expr]:
    """Exact numbers from a sequence, an array or a matrix of one column."""
    entries = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(entries, Sequence):
        raise InvalidInputError(name, f"{length} exact numbers", type(values).__name__)
    flat = [e[0] if isinstance(e, Sequence) and len(e) == 1 else e for e in entries]
    if len(flat) != length:
        raise InvalidInputError(name, f"{length} exact numbers", len(flat))
    return [exact(name, value, symbols=symbols) for value in flat]


def is_zero(value: sympy.Expr) -> bool:
    """Whether an algebraic number or a rational expression in symbols is 0.

    Example:
        >>> from sympy import sqrt
        >>> is_zero(sqrt(2) * sqrt(3) - sqrt(6)), is_zero(sqrt(2) - 1)
        (True, False)
    """
    import sympy

    if value.is_Rational:
        return bool(value == 0)
    if value.free_symbols:
        return bool(sympy.cancel(value) == 0)
    # Far from 0 the enclosure of the evaluation decides; near it, the minimal polynomial.
    if abs(value.evalf(30)) > 1e-20:
        return False
    x = sympy.Dummy("x")
    return bool(sympy.minimal_polynomial(value, x) == x)


def is_positive(value: sympy.Expr) -> bool:
    """Whether a real algebraic number is above 0.

    Example:
        >>> from sympy import sqrt
        >>> is_positive(sqrt(2) - 1), is_positive(sqrt(8) - 2 * sqrt(2)), is_positive(1 - sqrt(2))
        (True, False, False)
    """
    if is_zero(value):
        return False
    digits = 30
    while abs(approximate := value.evalf(digits)) < 10.0 ** (-digits // 2):
        digits *= 2
    return bool(approximate > 0)


def tidy(value: Any) -> sympy.Expr:
    """An algebraic number in the normal form of its field, or expanded if that has high degree.

    Example:
        >>> from sympy import sqrt
        >>> tidy(1 / (1 + sqrt(2)))
        -1 + sqrt(2)
    """
    import sympy

    value = sympy.sympify(value)
    if value.is_Rational or value.has(sympy.CRootOf):
        return value
    return sympy.expand(sympy.radsimp(sympy.expand(value)))


def common_field(values: Iterable[sympy.Expr]) -> tuple[Any, dict[sympy.Expr, Any]]:
    """The field Q or Q(theta) of sympy with all these real algebraic numbers, and its elements.

    Raises InvalidInputError for a field of degree above 16. Cost: a primitive element, which for
    three or more independent roots takes seconds.

    Example:
        >>> from sympy import sqrt
        >>> field, elements = common_field([sqrt(2) / 3, sqrt(8)])
        >>> field, elements[sqrt(8)]
        (QQ<sqrt(2)>, ANP([2, 0], [1, 0, -2], QQ))
    """
    import sympy

    given = list(values)
    domain, elements = sympy.construct_domain(given, field=True, extension=True)
    if not domain.is_QQ:
        if not domain.is_AlgebraicField:
            raise InvalidInputError("numbers", "real algebraic numbers", domain, HINT)
        degree = len(domain.mod.to_list()) - 1
        if degree > MAX_FIELD_DEGREE:
            raise InvalidInputError(
                "numbers",
                f"a field of degree at most {MAX_FIELD_DEGREE}",
                degree,
                "choose weights with fewer roots",
            )
    return domain, dict(zip(given, elements, strict=True))


def integer_terms(terms: dict[Any, Any]) -> dict[Any, int]:
    """Rational coefficients times their common denominator."""
    exact_terms = {key: Fraction(int(c.numerator), int(c.denominator)) for key, c in terms.items()}
    common = math.lcm(*(c.denominator for c in exact_terms.values()))
    return {key: int(c * common) for key, c in exact_terms.items() if c}
