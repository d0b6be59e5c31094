"""The KKT system of a two-layer network in symbols, derived by differentiation with sympy.

sympy is imported when a system is derived, not with this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from identify.errors import InvalidInputError
from identify.network import MAX_DEGREE
from identify.results import FloatArray
from identify.tensors import symmetric_dimension

if TYPE_CHECKING:
    import sympy

MAX_EQUATIONS = 1_000
MAX_TERMS = 5_000
"""Summands a (w_j . x_i)^k over all outputs: derivation time grows with equations and terms."""
MAX_ENTRIES = 20_000
"""Of a Hermite matrix or a moment tensor."""


@dataclass(frozen=True, eq=False, repr=False)
class KKTSystem:
    """The KKT conditions of max-margin training as sympy expressions.

    ``network`` holds f_c(x) in the symbols ``inputs`` x[k], one expression for each output;
    ``lagrangian`` is 1/2 |theta|^2 - sum lambda (margin - 1). ``stationarity`` (= 0, in the order
    of ``parameters``: a, w, h), ``primal`` (>= 0), ``dual`` (>= 0) and ``slackness`` (= 0) are
    columns. ``coefficients`` (n, C) are the b_ic in sum_ic b_ic grad f_c(x_i). ``classes`` are
    those of the samples, from 1, for several outputs.

    ``symbols`` lists the symbols by family, row by row: ``a`` (m,) or (C, m), ``w`` (m, d), ``h``
    (m,) with a bias, ``x`` (n, d), ``lambda`` (n,) or (n, C - 1), ``y`` (n,) for one output. Their
    names count from 1: w[2,1], x[1,3], lambda[1]; lambda[i,c] belongs to f_class - f_c.

    Source: Lyu & Li (2020), "Gradient descent maximizes the margin of homogeneous neural
    networks", for the problem whose KKT conditions these are.

    Example:
        >>> system = kkt_system(1, 1, 1, 3)
        >>> system.stationarity[0]
        a[1] - lambda[1]*w[1,1]**3*x[1,1]**3*y[1]
        >>> system.slackness[0].subs(system.symbols["lambda"][0], 0)
        0
    """

    dimension: int
    width: int
    samples: int
    degree: int
    activation: tuple[sympy.Expr, ...] | None
    bias: bool
    outputs: int
    classes: tuple[int, ...] | None
    symbols: Mapping[str, tuple[sympy.Symbol, ...]]
    inputs: tuple[sympy.Symbol, ...]
    network: tuple[sympy.Expr, ...]
    lagrangian: sympy.Expr
    stationarity: sympy.ImmutableMatrix
    primal: sympy.ImmutableMatrix
    dual: sympy.ImmutableMatrix
    slackness: sympy.ImmutableMatrix
    coefficients: sympy.ImmutableMatrix

    def __repr__(self) -> str:
        return (
            f"KKTSystem(dimension={self.dimension}, width={self.width}, samples={self.samples}, "
            f"degree={self.degree}, bias={self.bias}, outputs={self.outputs})"
        )

    def __str__(self) -> str:
        return self.to_text()

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The weights theta: every a, then every w, then every h."""
        return tuple(s for family in ("a", "w", "h") for s in self.symbols.get(family, ()))

    @property
    def unknowns(self) -> tuple[sympy.Symbol, ...]:
        """What the weights are asked for: the samples, then the multipliers.

        Example:
            >>> kkt_system(2, 1, 1, 3).unknowns
            (x[1,1], x[1,2], lambda[1])
        """
        return (*self.symbols["x"], *self.symbols["lambda"])

    @property
    def labels(self) -> tuple[sympy.Symbol, ...]:
        """The labels y[i], -1 or 1; none for several outputs, where ``classes`` says it."""
        return self.symbols.get("y", ())

    @property
    def point_dimension(self) -> int:
        """The dimension r of (w_j, h_j) and (x_i, 1): d, or d + 1 with a bias."""
        return self.dimension + self.bias

    def count(self) -> dict[str, int]:
        """Numbers of conditions and symbols.

        Example:
            >>> count = kkt_system(2, 3, 2, 3).count()
            >>> count["stationarity"], count["equations"], count["inequalities"]
            (9, 11, 4)
            >>> count["parameters"], count["unknowns"]
            (9, 6)
        """
        sizes = {
            name: len(getattr(self, name)) for name in ("stationarity", "primal", "dual")
        } | {"slackness": len(self.slackness)}
        return sizes | {
            "equations": sizes["stationarity"] + sizes["slackness"],
            "inequalities": sizes["primal"] + sizes["dual"],
            "parameters": len(self.parameters),
            "unknowns": len(self.unknowns),
            "labels": len(self.labels),
        }

    def orders(self) -> tuple[int, ...]:
        """The orders of the moment tensors: powers in the derivative of the activation, plus one.

        Example:
            >>> kkt_system(1, 1, 1, 3, activation=[1, 0, 2, 1]).orders()
            (2, 3)
        """
        if self.activation is None:
            return (self.degree,)
        return tuple(k for k, c in enumerate(self.activation) if k and c != 0)

    def moment_tensor(
        self, order: int | None = None, output: int = 1
    ) -> dict[tuple[int, ...], sympy.Expr]:
        """Entries of T = c sum_i b_i x_i^(order), with c the coefficient of t^order.

        T[k1, ..., k_order] is the derivative of c sum_i b_i (x_i . v)^order by v_k1 ... v_k_order,
        over order!. Keys are the sorted indices, from 1, in the order of the columns of
        ``hermite_matrix``; with a bias the last index is that of the coordinate 1. ``order`` is the
        degree unless given.

        Raises InvalidInputError for an order that the activation has not, an output that is not
        there, and more than 20,000 entries. Cost: C(r + order, order) derivatives.

        Example:
            >>> tensor = kkt_system(2, 1, 1, 3).moment_tensor()
            >>> tensor[1, 1, 2]
            lambda[1]*x[1,1]**2*x[1,2]*y[1]
        """
        import sympy

        order = self._order(order)
        _whole("output", output, 1, self.outputs)
        r = self.point_dimension
        _check_entries("moment tensor", symmetric_dimension(order, r), order)
        v = sympy.symbols(f"v1:{r + 1}", real=True)
        factor = sympy.Integer(1) if self.activation is None else self.activation[order]
        rows = _rows(self.symbols["x"], self.dimension)
        form = factor * sum(
            self.coefficients[i, output - 1] * _affine(v, row) ** order
            for i, row in enumerate(rows)
        )
        derivatives: dict[tuple[int, ...], sympy.Expr] = {(): form}
        for length in range(1, order + 1):
            derivatives = {
                index: derivatives[index[:-1]].diff(v[index[-1] - 1])
                for index in combinations_with_replacement(range(1, r + 1), length)
            }
        size = math.factorial(order)
        return {index: sympy.expand(value / size) for index, value in derivatives.items()}

    def hermite_matrix(self, order: int | None = None) -> sympy.ImmutableMatrix:
        """H, shape (m r, N): Bombieri-Weyl coordinates of T to T(w_j^(order-1), .), row by row.

        The tensor with coordinates t is p(v) = sum_k t_k sqrt(order!/k!) v^k, and T(v^(order-1), .)
        is the gradient of p over the order. The points are (w_j), or (w_j, h_j) with a bias. Rows
        and columns stand as in the numerical matrix of the verifier.

        Raises InvalidInputError for an order that the activation has not and for more than 20,000
        entries. Cost: r N derivatives and m r N substitutions.

        Example:
            >>> kkt_system(2, 1, 1, 3).hermite_matrix()[0, 1]
            2*sqrt(3)*w[1,1]*w[1,2]/3
        """
        import sympy

        order, r = self._order(order), self.point_dimension
        size = symmetric_dimension(order, r)
        _check_entries("Hermite matrix", self.width * r * size, order)
        v = sympy.symbols(f"v1:{r + 1}", real=True)
        basis = []
        for index in combinations_with_replacement(range(r), order):
            powers = [index.count(axis) for axis in range(r)]
            weight = math.factorial(order) // math.prod(math.factorial(k) for k in powers)
            monomial = sympy.Mul(*(s**k for s, k in zip(v, powers, strict=True)))
            basis.append(sympy.sqrt(weight) * monomial)
        gradients = [[form.diff(s) / order for form in basis] for s in v]
        rows = []
        for point in self.points():
            place = dict(zip(v, point, strict=True))
            rows += [[entry.xreplace(place) for entry in row] for row in gradients]
        return sympy.ImmutableMatrix(rows)

    def points(self) -> list[tuple[sympy.Symbol, ...]]:
        """The rows w_j, or (w_j, h_j) with a bias."""
        rows = _rows(self.symbols["w"], self.dimension)
        if not self.bias:
            return rows
        return [(*row, h) for row, h in zip(rows, self.symbols["h"], strict=True)]

    def lambdify(self, expressions: Any = None) -> Callable[..., FloatArray]:
        """A numerical function of the arrays of ``symbols``, by name, for any expressions.

        ``expressions`` is one expression, a matrix or a sequence; the stationarity unless given.
        The function takes the families as keywords (``multipliers`` for lambda), each of any shape
        with the right number of entries, and returns float64 of the shape of the expressions
        (columns as (k,)). Families that do not occur may be left out.

        Raises InvalidInputError, when called, for families missing, unknown or of a wrong size.

        Example:
            >>> residual = kkt_system(1, 1, 1, 3).lambdify()
            >>> residual(a=[2.0], w=[[1.0]], x=[[1.0]], multipliers=[0.5], y=[1.0])
            array([ 1.5, -2. ])
        """
        import sympy

        chosen = self.stationarity if expressions is None else expressions
        flat, shape = _flattened(chosen)
        used = set().union(*(sympy.sympify(entry).free_symbols for entry in flat))
        names = {"multipliers" if f == "lambda" else f: group for f, group in self.symbols.items()}
        needed = {name for name, group in names.items() if used & set(group)}
        function = sympy.lambdify([list(group) for group in names.values()], flat, "numpy")

        def evaluate(**values: npt.ArrayLike) -> FloatArray:
            if not needed <= values.keys() <= names.keys():
                raise InvalidInputError(
                    "arrays", f"{', '.join(sorted(needed))}", ", ".join(sorted(values)) or "none"
                )
            arguments = []
            for name, group in names.items():
                array = np.asarray(values.get(name, np.zeros(len(group))), dtype=np.float64)
                if array.size != len(group):
                    raise InvalidInputError(name, f"{len(group)} numbers", array.size)
                arguments.append(array.ravel())
            return np.array(function(*arguments), dtype=np.float64).reshape(shape)

        return evaluate

    def to_text(self) -> str:
        """The system as lines of text, in the notation of sympy."""
        from identify.symbolic_text import to_text

        return to_text(self)

    def to_latex(self) -> str:
        """The system as LaTeX: a paragraph and an ``align*`` for each part (needs amsmath)."""
        from identify.symbolic_text import to_latex

        return to_latex(self)

    def to_json(self) -> dict[str, Any]:
        """The system as numbers, strings, lists and dicts; expressions in sympy's notation.

        Example:
            >>> kkt_system(1, 1, 1, 3).to_json()["primal"]
            [{'name': 'margin[1]', 'expression': 'a[1]*w[1,1]**3*x[1,1]**3*y[1] - 1'}]
        """
        from identify.symbolic_text import to_json

        return to_json(self)

    def _order(self, order: int | None) -> int:
        if order is None:
            return self.degree
        if order not in self.orders():
            raise InvalidInputError("order", f"one of {self.orders()}", order)
        return order


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
    the degree, and systems of more than 1,000 equations and inequalities or 5,000 terms.
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

    points = _rows(symbols["w"], dimension)
    if bias:
        points = [(*row, h) for row, h in zip(points, symbols["h"], strict=True)]
    hidden = [_activated(_affine(point, inputs), degree, c) for point in points]
    network = tuple(
        sympy.Add(*(a * s for a, s in zip(row, hidden, strict=True)))
        for row in _rows(symbols["a"], width)
    )
    # The margins as functions of the outputs f[i,c]: their derivatives are the b_ic.
    values = _rows(family("f", samples, outputs), outputs)
    if chosen is None:
        margins = [y * row[0] - 1 for y, row in zip(symbols["y"], values, strict=True)]
    else:
        margins = [values[i - 1][chosen[i - 1] - 1] - values[i - 1][k - 1] - 1 for i, k in others]
    loaded = sympy.Add(*(s * g for s, g in zip(symbols["lambda"], margins, strict=True)))
    coefficients = sympy.ImmutableMatrix([[loaded.diff(f) for f in row] for row in values])
    place = {}
    for row, sample in zip(values, _rows(symbols["x"], dimension), strict=True):
        at_sample = dict(zip(inputs, sample, strict=True))
        place.update({f: e.xreplace(at_sample) for f, e in zip(row, network, strict=True)})
    primal = [margin.xreplace(place) for margin in margins]

    parameters = [s for name in ("a", "w", "h") for s in symbols.get(name, ())]
    half = sympy.Rational(1, 2) * sympy.Add(*(s**2 for s in parameters))
    lagrangian = half - loaded.xreplace(place)
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
        stationarity=_column(lagrangian.diff(s) for s in parameters),
        primal=_column(primal),
        dual=_column(symbols["lambda"]),
        slackness=_column(s * g for s, g in zip(symbols["lambda"], primal, strict=True)),
        coefficients=coefficients,
    )


def _symbol(name: str, place: tuple[int, ...]) -> sympy.Symbol:
    import sympy

    return sympy.Symbol(f"{name}[{','.join(map(str, place))}]", real=True)


def _column(entries: Iterable[sympy.Expr]) -> sympy.ImmutableMatrix:
    import sympy

    return sympy.ImmutableMatrix([[entry] for entry in entries])


def _rows(group: tuple[sympy.Symbol, ...], length: int) -> list[tuple[sympy.Symbol, ...]]:
    return [group[k : k + length] for k in range(0, len(group), length)]


def _affine(point: Sequence[sympy.Expr], sample: Sequence[sympy.Expr]) -> sympy.Expr:
    """point . (sample, 1), or point . sample if they are equally long."""
    import sympy

    lifted = (*sample, 1) if len(point) > len(sample) else sample
    return sympy.Add(*(u * x for u, x in zip(point, lifted, strict=True)))


def _activated(
    z: sympy.Expr, degree: int, coefficients: tuple[sympy.Expr, ...] | None
) -> sympy.Expr:
    import sympy

    if coefficients is None:
        return z**degree
    return sympy.Add(*(c * z**k for k, c in enumerate(coefficients)))


def _coefficients(
    degree: int, activation: Sequence[float] | None
) -> tuple[sympy.Expr, ...] | None:
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


def _classes(
    samples: int, outputs: int, classes: Sequence[int] | None
) -> tuple[int, ...] | None:
    if outputs == 1:
        if classes is not None:
            raise InvalidInputError("classes", "none for one output", "some")
        return None
    if classes is None:
        return tuple(i % outputs + 1 for i in range(samples))
    if len(classes) != samples:
        raise InvalidInputError("classes", f"{samples}, one for each sample", len(classes))
    for k in classes:
        _whole("classes", k, 1, outputs)
    return tuple(int(k) for k in classes)


def _flattened(expressions: Any) -> tuple[list[Any], tuple[int, ...]]:
    shape = getattr(expressions, "shape", None)
    if shape is not None:
        return list(expressions), tuple(shape[:1] if shape[1:] == (1,) else shape)
    if isinstance(expressions, Sequence):
        return list(expressions), (len(expressions),)
    return [expressions], ()


def _whole(name: str, value: object, least: int, most: int | None = None) -> None:
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fits or value < least or (most is not None and value > most):  # type: ignore[operator]
        expected = f"an integer from {least}" + ("" if most is None else f" to {most}")
        raise InvalidInputError(name, expected, repr(value))


def _check_sizes(
    dimension: int, width: int, samples: int, degree: int, bias: bool, outputs: int
) -> None:
    for name, size in (("dimension", dimension), ("width", width), ("samples", samples),
                       ("outputs", outputs)):  # fmt: skip
        _whole(name, size, 1)
    _whole("degree", degree, 1, MAX_DEGREE)
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


def _check_entries(what: str, entries: int, order: int) -> None:
    if entries > MAX_ENTRIES:
        raise InvalidInputError(
            what, f"at most {MAX_ENTRIES:,} entries", f"{entries:,} at order {order}"
        )
