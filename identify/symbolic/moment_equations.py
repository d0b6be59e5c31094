"""Exact Hermite data of a small network as linear equations for the moment tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

from identify.symbolic.numbers import common_field, tidy
from identify.tensors import symmetric_dimension

if TYPE_CHECKING:
    import sympy

Powers = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """Exact data: degree a_j T(u_j^(degree-1), .) = rows_j, T(u_j^degree) = values_j."""

    points: list[list[sympy.Expr]]
    outputs: list[sympy.Expr]
    rows: list[list[sympy.Expr]]
    values: list[sympy.Expr] | None
    degree: int
    bias: bool

    @property
    def point_dimension(self) -> int:
        """Entries r of a point, the hidden bias included."""
        return len(self.points[0])

    @cached_property
    def numbers(self) -> tuple[Any, dict[sympy.Expr, Any]]:
        """The field of all numbers, and each of them as its element."""
        given = [*self.outputs, *(self.values or ())]
        given += [entry for rows in (self.points, self.rows) for row in rows for entry in row]
        return common_field(given)

    @cached_property
    def span(self) -> tuple[int, list[list[Any]]]:
        """Dimension of the span of the rows, and a basis of what is orthogonal to it."""
        from sympy.polys.matrices import DomainMatrix

        field, element = self.numbers
        rows = [[element[entry] for entry in row] for row in self.rows]
        matrix = DomainMatrix(rows, (len(rows), self.point_dimension), field)
        return matrix.rank(), matrix.nullspace().to_list()

    @cached_property
    def equations(self) -> list[list[Any]]:
        """Coefficients of the T_k = sum_i b_i x_i^k in the order of ``exponents``, constants."""
        r, degree, (field, element) = self.point_dimension, self.degree, self.numbers
        columns = list(exponents(r, degree))
        place = {k: column for column, k in enumerate(columns)}
        table = []
        for j, point in enumerate(self.points):
            u = [element[entry] for entry in point]
            factor = degree * element[self.outputs[j]]
            slopes = {k: _multinomial(k) * _power(u, k, field) for k in exponents(r, degree - 1)}
            for c in range(r):
                row = [field.zero] * len(columns) + [element[self.rows[j][c]]]
                for k, slope in slopes.items():
                    row[place[_raised(k, c)]] += factor * slope
                table.append(row)
            if self.values is not None:
                values = [_multinomial(k) * _power(u, k, field) for k in columns]
                table.append([*values, element[self.values[j]]])
        return table


@dataclass(frozen=True, eq=False)
class LinearPart:
    """What holds for n samples: sum_k c_k T_k = c, one dict a row, the constant under None.

    Entries are elements of ``field``, Q or Q(theta); T is to be multiplied by ``unit``. The samples
    are orthogonal to ``normals``. ``rank`` and ``entries`` count the given equations and the
    entries of T on the space that is left. ``consistent`` says whether a tensor on it obeys them.
    """

    rows: list[dict[Powers | None, Any]]
    normals: list[list[Any]]
    field: Any
    unit: sympy.Expr
    rank: int
    entries: int
    consistent: bool

    @property
    def field_degree(self) -> int:
        """Degree over Q."""
        return 1 if self.field.is_QQ else len(self.field.mod.to_list()) - 1


def echelon_form(problem: Problem, samples: int) -> LinearPart:
    """The equations in reduced echelon form, on the span of the rows if that has n dimensions.

    rows = M diag(b) X with X of n rows: if the rows have rank n, they span the same space as the
    samples, which therefore lie in it. If only the constants are irrational, with rational ratios,
    T is measured in one of them, so that the polynomial system has rational coefficients.
    """
    import sympy
    from sympy.polys.matrices import DomainMatrix

    (field, _), (span, basis) = problem.numbers, problem.span
    columns = list(exponents(problem.point_dimension, problem.degree))
    normals = basis if span == samples else []
    table = [*problem.equations, *_orthogonal(normals, columns, problem)]
    width = len(columns) + 1
    reduced, pivots = DomainMatrix(table, (len(table), width), field).rref()
    rows = reduced.to_list()[: len(pivots)]
    consistent = width - 1 not in pivots
    entries = symmetric_dimension(problem.degree, problem.point_dimension - len(normals))
    rank = len(pivots) - (not consistent) - (len(columns) - entries)

    unit = sympy.Integer(1)
    constants = [row[-1] for row in rows if row[-1]]
    if not field.is_QQ and constants:
        scaled = [[*row[:-1], row[-1] / constants[0]] for row in rows]
        if all(_is_rational(entry) for row in (*scaled, *normals) for entry in row):
            unit = tidy(field.to_sympy(constants[0]))
            field = sympy.QQ
            rows, normals = [[[_rational(e) for e in row] for row in t] for t in (scaled, normals)]
    keys = [*columns, None]
    return LinearPart(
        rows=[{key: e for key, e in zip(keys, row, strict=True) if e} for row in rows],
        normals=normals,
        field=field,
        unit=unit,
        rank=rank,
        entries=entries,
        consistent=consistent,
    )


def _orthogonal(
    normals: Sequence[Sequence[Any]], columns: Sequence[Powers], problem: Problem
) -> list[list[Any]]:
    """T(normal, e_k) = 0 for every k of one order less."""
    place = {k: column for column, k in enumerate(columns)}
    table = []
    for normal in normals:
        for k in exponents(problem.point_dimension, problem.degree - 1):
            row = [problem.numbers[0].zero] * (len(columns) + 1)
            for c, entry in enumerate(normal):
                row[place[_raised(k, c)]] += entry
            table.append(row)
    return table


def _is_rational(value: Any) -> bool:
    return len(value.to_list()) <= 1


def _rational(value: Any) -> Any:
    import sympy

    return (value.to_list() or [sympy.QQ(0)])[0]


def exponents(variables: int, degree: int) -> Iterator[Powers]:
    """All exponents of this total degree, the first variable first."""
    for chosen in combinations_with_replacement(range(variables), degree):
        yield tuple(chosen.count(k) for k in range(variables))


def _multinomial(exponents: Powers) -> int:
    return math.factorial(sum(exponents)) // math.prod(math.factorial(k) for k in exponents)


def _power(point: Sequence[Any], exponents: Powers, field: Any) -> Any:
    return math.prod((u**k for u, k in zip(point, exponents, strict=True)), start=field.one)


def _raised(exponents: Powers, variable: int) -> Powers:
    return (*exponents[:variable], exponents[variable] + 1, *exponents[variable + 1 :])
