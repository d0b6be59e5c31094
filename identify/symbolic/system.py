"""The symbolic KKT system as an object: count, moment tensor, Hermite matrix, functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.tensors import symmetric_dimension

if TYPE_CHECKING:
    import sympy

MAX_ENTRIES = 4_000
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
        >>> from identify.symbolic.derive import kkt_system
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
            >>> from identify.symbolic.derive import kkt_system
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
            >>> from identify.symbolic.derive import kkt_system
            >>> count = kkt_system(2, 3, 2, 3).count()
            >>> count["stationarity"], count["equations"], count["inequalities"]
            (9, 11, 4)
            >>> count["parameters"], count["unknowns"]
            (9, 6)
        """
        sizes = {name: len(getattr(self, name)) for name in ("stationarity", "primal", "dual")} | {
            "slackness": len(self.slackness)
        }
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
            >>> from identify.symbolic.derive import kkt_system
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
        there, and more than 4,000 entries. Cost: C(r + order, order) derivatives.

        Example:
            >>> from identify.symbolic.derive import kkt_system
            >>> tensor = kkt_system(2, 1, 1, 3).moment_tensor()
            >>> tensor[1, 1, 2]
            lambda[1]*x[1,1]**2*x[1,2]*y[1]
        """
        import sympy

        order = self._order(order)
        check_whole("output", output, 1, self.outputs)
        r = self.point_dimension
        _check_entries("moment tensor", symmetric_dimension(order, r), order)
        v = sympy.symbols(f"v1:{r + 1}", real=True)
        factor = sympy.Integer(1) if self.activation is None else self.activation[order]
        rows = rows_of(self.symbols["x"], self.dimension)
        form = factor * sum(
            self.coefficients[i, output - 1] * affine(v, row) ** order for i, row in enumerate(rows)
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

        Raises InvalidInputError for an order that the activation has not and for more than 4,000
        entries. Cost: r N derivatives and m r N substitutions.

        Example:
            >>> from identify.symbolic.derive import kkt_system
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
        gradients = [
            [form.diff(s) / order if form.has(s) else sympy.S.Zero for form in basis] for s in v
        ]
        rows = []
        for point in self.points():
            place = dict(zip(v, point, strict=True))
            rows += [[entry.xreplace(place) for entry in row] for row in gradients]
        return sympy.ImmutableMatrix(rows)

    def points(self) -> list[tuple[sympy.Symbol, ...]]:
        """The rows w_j, or (w_j, h_j) with a bias."""
        rows = rows_of(self.symbols["w"], self.dimension)
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
            >>> from identify.symbolic.derive import kkt_system
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
        from identify.symbolic.forms import to_text

        return to_text(self)

    def to_latex(self) -> str:
        """The system as LaTeX: a paragraph and an ``align*`` for each part (needs amsmath)."""
        from identify.symbolic.forms import to_latex

        return to_latex(self)

    def to_json(self) -> dict[str, Any]:
        """The system as numbers, strings, lists and dicts; expressions in sympy's notation.

        Example:
            >>> from identify.symbolic.derive import kkt_system
            >>> kkt_system(1, 1, 1, 3).to_json()["primal"]
            [{'name': 'margin[1]', 'expression': 'a[1]*w[1,1]**3*x[1,1]**3*y[1] - 1'}]
        """
        from identify.symbolic.forms import to_json

        return to_json(self)

    def _order(self, order: int | None) -> int:
        if order is None:
            return self.degree
        if order not in self.orders():
            raise InvalidInputError("order", f"one of {self.orders()}", order)
        return order


def rows_of(group: tuple[sympy.Symbol, ...], length: int) -> list[tuple[sympy.Symbol, ...]]:
    """A family of symbols as rows of a given length."""
    return [group[k : k + length] for k in range(0, len(group), length)]


def affine(point: Sequence[sympy.Expr], sample: Sequence[sympy.Expr]) -> sympy.Expr:
    """point . (sample, 1), or point . sample if they are equally long."""
    import sympy

    lifted = (*sample, 1) if len(point) > len(sample) else sample
    return sympy.Add(*(u * x for u, x in zip(point, lifted, strict=True)))


def _flattened(expressions: Any) -> tuple[list[Any], tuple[int, ...]]:
    shape = getattr(expressions, "shape", None)
    if shape is not None:
        return list(expressions), tuple(shape[:1] if shape[1:] == (1,) else shape)
    if isinstance(expressions, Sequence):
        return list(expressions), (len(expressions),)
    return [expressions], ()


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is not an integer in a range."""
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fits or value < least or (most is not None and value > most):  # type: ignore[operator]
        expected = f"an integer from {least}" + ("" if most is None else f" to {most}")
        raise InvalidInputError(name, expected, repr(value))


def _check_entries(what: str, entries: int, order: int) -> None:
    if entries > MAX_ENTRIES:
        raise InvalidInputError(
            what, f"at most {MAX_ENTRIES:,} entries", f"{entries:,} at order {order}"
        )
