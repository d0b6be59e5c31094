"""The polynomial systems behind `identify.symbolic.solve`: echelon form, charts, exact points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product
from typing import TYPE_CHECKING, Any

import flint

from identify.budget import Budget
from identify.symbolic.groebner import AlgebraicPoint, Variety, solve_system
from identify.symbolic.moment_equations import LinearPart, Powers, Problem, echelon_form
from identify.symbolic.numbers import integer_terms, is_positive, tidy
from identify.symbolic.solution_set import Chart, ExactTrainingSet, SolutionSet

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Part:
    """A chart: the place of the leading 1 of each sample; where equal leads differ first."""

    leads: tuple[int, ...]
    splits: tuple[tuple[int, int, int], ...]
    """(i, j, k): samples i and j differ in entry k and agree in those before."""


def explanations(problem: Problem, samples: int, budget: Budget) -> SolutionSet:
    """The solution set for exactly this number of samples, and which smaller numbers explain."""
    linear = echelon_form(problem, samples)
    fewer = [n for n in range(samples) if _explained(problem, n, budget)]
    charts: list[Chart] = []
    found: list[ExactTrainingSet] = []
    ordered: dict[tuple[int, ...], list[int]] = {}
    for part, variety in _solved(problem, linear, samples, budget):
        charts.append(_chart(part, variety, linear, problem, samples))
        if variety.dimension != 0:
            continue
        total = ordered.setdefault(part.leads, [0, 0])
        total[0] += variety.count or 0
        total[1] += variety.multiplicity or 0
        for point in variety.points:
            for values in _real_values(point, linear):
                b, x = _training_set(part, values, samples, problem)
                if _in_order(part, x):
                    kept = [row[:-1] if problem.bias else row for row in x]
                    found.append(
                        ExactTrainingSet(_matrix(kept), tuple(tidy(linear.unit * c) for c in b))
                    )
    dimension = max((chart.dimension for chart in charts), default=-1)
    finite = dimension <= 0
    counts = [0, 0]
    for leads, total in ordered.items():
        # Every order of samples in the same chart is a solution, and so is every conjugate.
        orders = math.prod(math.factorial(leads.count(c)) for c in set(leads))
        orders *= linear.field_degree
        for k in range(2):
            if total[k] % orders:
                raise ArithmeticError("the solutions are not closed under permutation")
            counts[k] += total[k] // orders
    return SolutionSet(
        degree=problem.degree,
        samples=samples,
        dimension=dimension,
        solutions=tuple(sorted(found, key=_numerical)) if finite else (),
        complex_count=counts[0] if finite else None,
        multiplicity=counts[1] if finite else None,
        span=problem.span[0],
        rank=linear.rank,
        entries=linear.entries,
        consistent=linear.consistent,
        fewer=tuple(fewer),
        charts=tuple(charts),
        unit=linear.unit,
        generator=None if linear.field.is_QQ else linear.field.ext.as_expr(),
        has_bias=problem.bias,
    )


def _explained(problem: Problem, samples: int, budget: Budget) -> bool:
    """Whether any set of this many samples explains the data."""
    if samples == 0:
        return not any(row[-1] for row in problem.equations)
    linear = echelon_form(problem, samples)
    return any(v.dimension >= 0 for _, v in _solved(problem, linear, samples, budget))


def _solved(
    problem: Problem, linear: LinearPart, samples: int, budget: Budget
) -> Iterator[tuple[Part, Variety]]:
    if linear.consistent and problem.span[0] <= samples:
        for part in _parts(problem.point_dimension, samples, problem.bias):
            generators, ring = _generators(part, linear, samples, problem)
            yield part, solve_system(generators, ring, budget)


def _parts(r: int, samples: int, bias: bool) -> Iterator[Part]:
    """Disjoint parts that cover the unordered sets of pairwise non-parallel samples."""
    places = [r - 1] if bias else range(r)
    for leads in combinations_with_replacement(places, samples):
        pairs = [(i, j) for i, j in combinations(range(samples), 2) if leads[i] == leads[j]]
        choices = [_free(leads[i], r, bias) for i, _ in pairs]
        for firsts in product(*choices):
            splits = tuple((i, j, k) for (i, j), k in zip(pairs, firsts, strict=True))
            yield Part(leads, splits)


def _free(lead: int, r: int, bias: bool) -> range:
    """The entries that the chart leaves open."""
    return range(r - 1) if bias else range(lead + 1, r)


def _names(part: Part, samples: int, problem: Problem) -> dict[tuple[int, int], str]:
    """The unknown entries of the samples."""
    r, bias = problem.point_dimension, problem.bias
    return {
        (i, k): f"x[{i + 1},{k + 1}]" for i in range(samples) for k in _free(part.leads[i], r, bias)
    }


def _generators(
    part: Part, linear: LinearPart, samples: int, problem: Problem
) -> tuple[list[Any], Any]:
    """The system in a chart; unknowns b, entries of the samples, t and theta, in this order."""

    free = list(_names(part, samples, problem))
    plain = [f"b{i}" for i in range(samples)] + [f"x{i}_{k}" for i, k in free] + ["t"]
    algebraic = not linear.field.is_QQ
    ring = flint.fmpz_mpoly_ctx.get(
        [*plain, *(["theta"] if algebraic else [])], flint.Ordering.degrevlex
    )
    gens = ring.gens()
    size, b, t = len(gens), gens[:samples], gens[len(plain) - 1]
    x = {key: gens[samples + place] for place, key in enumerate(free)}
    places = {key: samples + place for place, key in enumerate(free)}

    def moment(i: int, k: Powers) -> Powers | None:
        """The exponents of b_i x_i^k, or None where an entry is 0."""
        exponents = [0] * size
        exponents[i] = 1
        for entry, power in enumerate(k):
            if power and (i, entry) in places:
                exponents[places[i, entry]] = power
            elif power and entry != part.leads[i]:
                return None
        return tuple(exponents)

    generators = []
    for row in linear.rows:
        terms: dict[Powers, Any] = {}
        for key, value in row.items():
            if key is None:
                monomials, sign = [(0,) * size], -1
            else:
                monomials, sign = [m for i in range(samples) if (m := moment(i, key))], 1
            for monomial, (power, c) in product(monomials, _in_theta(value, linear.field)):
                raised = (*monomial[:-1], power) if algebraic else monomial
                terms[raised] = terms.get(raised, 0) + sign * c
        generators.append(ring.from_dict(integer_terms(terms)))
    for normal in linear.normals:
        for i in range(samples):
            terms = {}
            for entry, value in enumerate(normal):
                monomial = [0] * size
                if (i, entry) in places:
                    monomial[places[i, entry]] = 1
                elif entry != part.leads[i]:
                    continue
                for power, c in _in_theta(value, linear.field):
                    raised = (*monomial[:-1], power) if algebraic else tuple(monomial)
                    terms[raised] = terms.get(raised, 0) + c
            generators.append(ring.from_dict(integer_terms(terms)))
    if algebraic:
        modulus = enumerate(reversed(linear.field.mod.to_list()))
        generators.append(
            ring.from_dict(integer_terms({(*(0,) * (size - 1), power): c for power, c in modulus}))
        )
    away = t
    for coefficient in b:
        away = away * coefficient
    for i, j, first in part.splits:
        for k in _free(part.leads[i], problem.point_dimension, problem.bias):
            if k < first:
                generators.append(x[i, k] - x[j, k])
        away = away * (x[i, first] - x[j, first])
    return [*generators, away - 1], ring


def _chart(
    part: Part, variety: Variety, linear: LinearPart, problem: Problem, samples: int
) -> Chart:
    import sympy

    free = _names(part, samples, problem)
    names = [*(f"b[{i + 1}]" for i in range(samples)), *free.values(), "t"]
    names += [] if linear.field.is_QQ else ["theta"]
    unknowns = tuple(map(sympy.Symbol, names))
    entries = dict(zip(free, unknowns[samples:], strict=False))
    generators, _ = _generators(part, linear, samples, problem)
    count = variety.count

    def written(polynomial: Any) -> sympy.Expr:
        terms = {tuple(map(int, m)): int(c) for m, c in polynomial.terms()}
        return sympy.Poly.from_dict(terms, *unknowns).as_expr()

    return Chart(
        samples=tuple(tuple(row) for row in _lifted(part, entries, samples, problem)),
        unknowns=unknowns,
        generators=tuple(map(written, generators)),
        groebner_basis=tuple(map(written, variety.basis)),
        dimension=variety.dimension,
        solution_count=None if count is None else count // linear.field_degree,
    )


def _lifted(
    part: Part, entries: dict[tuple[int, int], Any], samples: int, problem: Problem
) -> list[list[Any]]:
    """The samples with their leading 1 and zeros, in point dimension."""
    import sympy

    return [
        [
            entries.get((i, k), sympy.Integer(int(k == part.leads[i])))
            for k in range(problem.point_dimension)
        ]
        for i in range(samples)
    ]


def _training_set(
    part: Part, values: Sequence[Any], samples: int, problem: Problem
) -> tuple[Sequence[Any], list[list[Any]]]:
    free = _names(part, samples, problem)
    entries = dict(zip(free, values[samples:], strict=False))
    return values[:samples], _lifted(part, entries, samples, problem)


def _in_order(part: Part, x: list[list[Any]]) -> bool:
    """Of the orders of the samples in one chart, take the increasing one."""
    return all(is_positive(x[j][k] - x[i][k]) for i, j, k in part.splits)


def _real_values(point: AlgebraicPoint, linear: LinearPart) -> Iterator[list[Any]]:
    """The coordinates at the real points among the conjugates, theta in its own place."""
    import sympy

    field, degree, theta = linear.field, point.modulus.degree(), None
    if not field.is_QQ:
        *_, image = point.coordinates
        theta = field.ext.as_expr()
        if degree == linear.field_degree:
            # The point lies in Q(theta): write its coordinates in powers of theta.
            powers = [flint.fmpq_poly([1])]
            for _ in range(degree - 1):
                powers.append(powers[-1] * image % point.modulus)
            table = flint.fmpq_mat([_padded(p, degree) for p in powers]).transpose()
            wanted = [_padded(c, degree) for c in point.coordinates]
            solved = table.solve(flint.fmpq_mat(wanted).transpose()).transpose().tolist()
            yield [sympy.expand(_at(theta, row)) for row in solved]
            return
    for root in _real_roots(point.modulus):
        if theta is None or _same(_at(root, _padded(point.coordinates[-1], degree)), theta, field):
            values = [tidy(_at(root, _padded(c, degree))) for c in point.coordinates]
            if degree <= 2:
                yield values
            else:
                shown = len(values) - 1 - (theta is not None)  # without t and theta
                pairs = zip(values[:shown], point.coordinates[:shown], strict=True)
                yield [_own_root(v, c, point.modulus) for v, c in pairs]


def _own_root(value: Any, coordinate: Any, modulus: Any) -> Any:
    """A coordinate as a root of its own minimal polynomial, told apart by digits."""
    degree = modulus.degree()
    columns = [flint.fmpq_poly([0] * k + [1]) * coordinate % modulus for k in range(degree)]
    table = flint.fmpq_mat([_padded(c, degree) for c in columns])
    candidates = _real_roots(table.charpoly().factor()[1][0][0])
    digits = 30
    while True:
        # Not the difference itself: its digits would be sought for ever where it is 0.
        there = value.evalf(digits)
        bound = (1 + abs(there)) * 10.0 ** (10 - digits)
        near = [r for r in candidates if abs(r.evalf(digits) - there) < bound]
        if len(near) == 1:
            return near[0]
        digits *= 2


def _real_roots(modulus: Any) -> list[Any]:
    import sympy

    x = sympy.Dummy("x")
    coefficients = [sympy.Rational(int(c.p), int(c.q)) for c in reversed(modulus.coeffs())]
    polynomial = sympy.Poly(coefficients, x)
    return list(polynomial.real_roots(multiple=True, radicals=polynomial.degree() <= 2))


def _same(value: Any, theta: Any, field: Any) -> bool:
    """Whether a conjugate of theta is theta: the conjugates are compared with the value."""
    import sympy

    conjugates = sympy.Poly(field.mod.to_list(), sympy.Dummy("x")).nroots(n=60)
    nearest = min(conjugates, key=lambda other: abs(other - value.evalf(60)))
    return bool(nearest == min(conjugates, key=lambda other: abs(other - theta.evalf(60))))


def _at(root: Any, coefficients: Iterable[Any]) -> Any:
    import sympy

    return sympy.Add(
        *(sympy.Rational(int(c.p), int(c.q)) * root**k for k, c in enumerate(coefficients))
    )


def _padded(polynomial: Any, length: int) -> list[Any]:
    coefficients = polynomial.coeffs()
    return [*coefficients, *([flint.fmpq(0)] * (length - len(coefficients)))]


def _numerical(found: Any) -> list[float]:
    samples, coefficients = found.to_float()
    return [*samples.ravel().tolist(), *coefficients.tolist()]


def _matrix(rows: list[list[Any]]) -> sympy.ImmutableMatrix:
    import sympy

    return sympy.ImmutableMatrix(rows)


def _in_theta(value: Any, field: Any) -> list[tuple[int, Any]]:
    """A field element as (power of theta, rational coefficient)."""
    return [(0, value)] if field.is_QQ else list(enumerate(reversed(value.to_list())))
