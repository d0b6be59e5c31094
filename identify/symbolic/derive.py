"""The KKT system of a two-layer network in symbols, derived by differentiation with sympy.

sympy is imported when a system is derived, not with this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from identify.errors import InvalidInputError
from identify.model.two_layer import MAX_DEGREE
from identify.symbolic.system import KKTSystem, affine, check_whole, rows_of

if TYPE_CHECKING:
    import sympy

__all__ = ["KKTSystem", "kkt_system"]

MAX_EQUATIONS = 1_000
MAX_TERMS = 2_000
"""Summands of the Lagrangian, each w_jk x_ik counted: derivation time is proportional to them."""


def kkt_system(
    dimension: int,
    width: int,
    samples: int,
    degree: int,
    *,
    activation: Sequence[float] | None = None,
    bias: bool = False,
    outputs: int = 1,
    classes: Sequence[int] | None = None,
) -> KKTSystem:
    """Derive the KKT system of max-margin training of a two-layer network.

    One output: minimise 1/2 |theta|^2 subject to y_i f(x_i) >= 1 with
    f(x) = sum_j a_j s(w_j . x + h_j), s(t) = t^degree or s(t) = sum_k c_k t^k for ``activation`` =
    (c_0, ..., c_degree). C outputs: f_c(x_i) is subtracted from the output of the class of x_i,
    f_class - f_c >= 1 for every other c; ``classes`` (from 1) are 1, 2, ..., C, 1, ... unless
    given. Floats are read as decimals: 0.1 is 1/10. Only networks that are homogeneous in theta
    (a monomial) are driven to such points by training on a logistic or exponential loss.

    Raises InvalidInputError for sizes that are not positive integers, coefficients that do not fit
    the degree, and systems of more than 1,000 equations and inequalities or 2,000 terms.
    Cost: one derivative of the Lagrangian for each parameter.

    Source: Lyu & Li (2020); the constraints for C outputs are those of Crammer & Singer (2001),
    "On the algorithmic implementation of multiclass kernel-based vector machines".

    Example:
        >>> system = kkt_system(dimension=2, width=3, samples=2, degree=3)
        >>> system.stationarity.shape
        (9, 1)
        >>> system.primal[0].diff(system.labels[0]) == system.network[0].subs(
        ...     dict(zip(system.inputs, system.symbols["x"][:2])))
        True
    """
    _check_sizes(dimension, width, samples, degree, bias, outputs)
    import sympy

    c = _coefficients(degree, activation)
    chosen = _classes(samples, outputs, classes)

    def family(name: str, *lengths: int) -> tuple[sympy.Symbol, ...]:
        places = product(*(range(1, length + 1) for length in lengths))
        return tuple(_symbol(name, place) for place in places)

    symbols = {"a": family("a", width) if chosen is None else family("a", outputs, width)}
    symbols["w"] = family("w", width, dimension)
    if bias:
        symbols["h"] = family("h", width)
    symbols["x"] = family("x", samples, dimension)
    if chosen is None:
        symbols["lambda"], symbols["y"] = family("lambda", samples), family("y", samples)
    else:
        others = [(i + 1, k) for i, own in enumerate(chosen) for k in range(1, outputs + 1)
                  if k != own]  # fmt: skip
        symbols["lambda"] = tuple(_symbol("lambda", place) for place in others)
    inputs = family("x", dimension)

    points = rows_of(symbols["w"], dimension)
    if bias:
        points = [(*row, h) for row, h in zip(points, symbols["h"], strict=True)]
    hidden = [_activated(affine(point, inputs), degree, c) for point in points]
    network = tuple(
        sympy.Add(*(a * s for a, s in zip(row, hidden, strict=True)))
        for row in rows_of(symbols["a"], width)
    )
    # The margins as functions of the outputs f[i,c]: their derivatives are the b_ic.
    values = rows_of(family("f", samples, outputs), outputs)
    if chosen is None:
        margins = [y * row[0] - 1 for y, row in zip(symbols["y"], values, strict=True)]
    else:
        margins = [values[i - 1][chosen[i - 1] - 1] - values[i - 1][k - 1] - 1 for i, k in others]
    loaded = sympy.Add(*(s * g for s, g in zip(symbols["lambda"], margins, strict=True)))
    coefficients = sympy.ImmutableMatrix([[loaded.diff(f) for f in row] for row in values])
    place = {}
    for row, sample in zip(values, rows_of(symbols["x"], dimension), strict=True):
        at_sample = dict(zip(inputs, sample, strict=True))
        place.update({f: e.xreplace(at_sample) for f, e in zip(row, network, strict=True)})
    primal = [margin.xreplace(place) for margin in margins]

    parameters = [s for name in ("a", "w", "h") for s in symbols.get(name, ())]
    half = sympy.Rational(1, 2) * sympy.Add(*(s**2 for s in parameters))
    lagrangian = half - loaded.xreplace(place)
    # The margins are affine in the outputs: up to a constant this is the Lagrangian, and each
    # parameter occurs in few of the terms.
    terms = [*half.expand().args] + [
        -coefficients[i, k] * term
        for i, row in enumerate(values)
        for k, value in enumerate(row)
        for term in sympy.Add.make_args(place[value])
    ]
    return KKTSystem(
        dimension=dimension,
        width=width,
        samples=samples,
        degree=degree,
        activation=c,
        bias=bool(bias),
        outputs=outputs,
        classes=chosen,
        symbols=symbols,
        inputs=inputs,
        network=network,
        lagrangian=lagrangian,
        stationarity=_column(_gradient(terms, parameters)),
        primal=_column(primal),
        dual=_column(symbols["lambda"]),
        slackness=_column(s * g for s, g in zip(symbols["lambda"], primal, strict=True)),
        coefficients=coefficients,
    )


def _symbol(name: str, place: tuple[int, ...]) -> sympy.Symbol:
    import sympy

    return sympy.Symbol(f"{name}[{','.join(map(str, place))}]", real=True)


def _gradient(terms: Sequence[sympy.Expr], parameters: Sequence[sympy.Symbol]) -> list[sympy.Expr]:
    """The gradient of the sum of the terms."""
    import sympy

    parts: dict[sympy.Symbol, list[sympy.Expr]] = {s: [] for s in parameters}
    for term in terms:
        for s in term.free_symbols & parts.keys():
            parts[s].append(term.diff(s))
    return [sympy.Add(*parts[s]) for s in parameters]


def _column(entries: Iterable[sympy.Expr]) -> sympy.ImmutableMatrix:
    import sympy

    return sympy.ImmutableMatrix([[entry] for entry in entries])


def _activated(
    z: sympy.Expr, degree: int, coefficients: tuple[sympy.Expr, ...] | None
) -> sympy.Expr:
    import sympy

    if coefficients is None:
        return z**degree
    return sympy.Add(*(c * z**k for k, c in enumerate(coefficients)))


def _coefficients(degree: int, activation: Sequence[float] | None) -> tuple[sympy.Expr, ...] | None:
    import sympy

    if activation is None:
        return None
    if len(activation) != degree + 1:
        raise InvalidInputError(
            "activation", f"{degree + 1} coefficients for degree {degree}", len(activation)
        )
    exact = tuple(
        sympy.Rational(repr(float(c))) if isinstance(c, float) and math.isfinite(c)
        else sympy.sympify(c)
        for c in activation
    )  # fmt: skip
    if not all(c.is_real and c.is_number for c in exact) or exact[-1] == 0:
        raise InvalidInputError(
            "activation", "finite coefficients, the last one not 0", tuple(activation)
        )
    return exact


def _classes(samples: int, outputs: int, classes: Sequence[int] | None) -> tuple[int, ...] | None:
    if outputs == 1:
        if classes is not None:
            raise InvalidInputError("classes", "none for one output", "some")
        return None
    if classes is None:
        return tuple(i % outputs + 1 for i in range(samples))
    if len(classes) != samples:
        raise InvalidInputError("classes", f"{samples}, one for each sample", len(classes))
    for k in classes:
        check_whole("classes", k, 1, outputs)
    return tuple(int(k) for k in classes)


def _check_sizes(
    dimension: int, width: int, samples: int, degree: int, bias: bool, outputs: int
) -> None:
    for name, size in (("dimension", dimension), ("width", width), ("samples", samples),
                       ("outputs", outputs)):  # fmt: skip
        check_whole(name, size, 1)
    check_whole("degree", degree, 1, MAX_DEGREE)
    constraints = samples * max(1, outputs - 1)
    conditions = width * (dimension + outputs + bool(bias)) + 3 * constraints
    terms = constraints * min(outputs, 2) * width * (dimension + 1)
    if conditions > MAX_EQUATIONS or terms > MAX_TERMS:
        raise InvalidInputError(
            "size",
            f"at most {MAX_EQUATIONS:,} equations and inequalities and {MAX_TERMS:,} terms",
            f"{conditions:,} and {terms:,}",
            "choose a smaller dimension, width, number of samples or outputs",
        )
