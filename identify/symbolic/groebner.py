"""Polynomial systems with rational coefficients: Groebner basis, dimension, all solutions.

Exact integer and rational arithmetic of python-flint.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import Any

import flint

from identify.budget import UNLIMITED, Budget
from identify.errors import BudgetExceededError, InvalidInputError

MAX_MULTIPLICITY = 120
"""Solutions of one finite system, counted with multiplicity: matrices of this size are formed."""

Monomial = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AlgebraicPoint:
    """deg(modulus) conjugate points: coordinates are polynomials in a root of the modulus.

    ``modulus`` is irreducible over Q; both are of type fmpq_poly.
    """

    modulus: Any
    coordinates: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Variety:
    """The complex solutions of a system.

    ``basis`` is the reduced Groebner basis (degree reverse lexicographic), each polynomial
    primitive over the integers. ``dimension`` is -1 without a solution. For dimension 0:
    ``count`` different solutions, ``multiplicity`` with multiplicities, and all of them in
    ``points``; otherwise None, None and no points.
    """

    basis: tuple[Any, ...]
    dimension: int
    count: int | None
    multiplicity: int | None
    points: tuple[AlgebraicPoint, ...]


def solve_system(generators: Sequence[Any], ring: Any, budget: Budget = UNLIMITED) -> Variety:
    """All complex solutions of polynomials (fmpz_mpoly over ``ring``, degrevlex) that are to be 0.

    The dimension is the largest number of variables of which no leading monomial of the basis is
    a product. Finitely many solutions are read off the quotient ring A: the rank of its trace
    form Tr(fg) counts them, and with a form s that separates them, f the squarefree part of its
    characteristic polynomial, each coordinate is a rational function of the root of f. Every
    listed point is substituted into the generators.

    Raises BudgetExceededError when the budget ends between two reductions,
    InvalidInputError for more than 120 solutions with multiplicity.
    Cost: doubly exponential in the number of variables at worst, then O(variables D^3) rational
    operations for D solutions.

    Source: Cox, Little & O'Shea, "Ideals, Varieties, and Algorithms", chapters 2, 5.3 and 9.3;
    Rouillier (1999), "Solving zero-dimensional systems through the rational univariate
    representation".

    Example:
        >>> import flint
        >>> ring = flint.fmpz_mpoly_ctx.get(["x", "y"], flint.Ordering.degrevlex)
        >>> x, y = ring.gens()
        >>> circle = solve_system([x**2 + y**2 - 1], ring)
        >>> circle.dimension, circle.count
        (1, None)
        >>> tangent = solve_system([x**2 + y**2 - 1, y - 1], ring)
        >>> tangent.dimension, tangent.count, tangent.multiplicity
        (0, 1, 2)
    """
    basis = groebner_basis(generators, ring, budget)
    variables = len(ring.gens())
    leading = [leading_monomial(g) for g in basis]
    dimension = _dimension(leading, variables)
    if dimension != 0:
        none = 0 if dimension < 0 else None
        return Variety(tuple(basis), dimension, none, none, ())
    monomials = _standard_monomials(leading, variables)
    tables = _multiplication(basis, monomials, variables)
    points, distinct = _points(tables, monomials, budget)
    for point in points:
        if any(not evaluated(g, point).is_zero() for g in generators):
            raise ArithmeticError("a solution of the Groebner basis does not solve the system")
    return Variety(tuple(basis), 0, distinct, len(monomials), points)


def groebner_basis(generators: Sequence[Any], ring: Any, budget: Budget = UNLIMITED) -> list[Any]:
    """The reduced Groebner basis by Buchberger's algorithm, pairs of least degree first.

    Pairs with coprime leading monomials are left out (the first criterion of Buchberger), and
    those whose least common multiple is divisible by a third one, both of whose pairs are done.
    """
    basis: list[Any] = []
    leading: list[Monomial] = []
    pending: set[tuple[int, int]] = set()
    queue: list[tuple[int, int, tuple[int, int]]] = []
    order = count()

    def add(polynomial: Any) -> None:
        new, place = leading_monomial(polynomial), len(basis)
        for k, other in enumerate(leading):
            common = _lcm(new, other)
            if sum(common) < sum(new) + sum(other):
                pending.add((k, place))
                heapq.heappush(queue, (sum(common), next(order), (k, place)))
        basis.append(polynomial)
        leading.append(new)

    def superfluous(i: int, j: int) -> bool:
        common = _lcm(leading[i], leading[j])
        return any(
            k not in (i, j)
            and _divides(leading[k], common)
            and (min(i, k), max(i, k)) not in pending
            and (min(j, k), max(j, k)) not in pending
            for k in range(len(basis))
        )

    def reduced(polynomial: Any) -> Any:
        if not basis:
            return polynomial.primitive()[1]
        return polynomial.reduction_primitive_part(flint.fmpz_mpoly_vec(basis, ring))

    waiting = sorted((g for g in generators if g != 0), key=lambda g: g.total_degree())
    while waiting or queue:
        _within(budget, f"the Groebner basis at {len(basis)} elements, {len(queue)} pairs left")
        if waiting:
            candidate = waiting.pop(0)
        else:
            pair = heapq.heappop(queue)[2]
            pending.discard(pair)
            if superfluous(*pair):
                continue
            candidate = basis[pair[0]].spoly(basis[pair[1]])
        if candidate == 0:
            continue
        rest = reduced(candidate)
        if rest == 0:
            continue
        if rest.is_constant():
            return [ring.constant(1)]
        add(rest)
    if not basis:
        return []
    minimal = list(flint.fmpz_mpoly_vec(basis, ring).autoreduction())
    positive = [g if g.coeffs()[0] > 0 else -g for g in minimal]
    return sorted(positive, key=leading_monomial, reverse=True)


def leading_monomial(polynomial: Any) -> Monomial:
    """Exponents of the leading term in the order of the ring."""
    return tuple(int(k) for k in polynomial.monomial(0))


def evaluated(polynomial: Any, point: AlgebraicPoint) -> Any:
    """The value at a point, as a polynomial in the root of its modulus (fmpq_poly)."""

    powers: list[list[Any]] = [[flint.fmpq_poly([1])] for _ in point.coordinates]
    total = flint.fmpq_poly([])
    for monomial, coefficient in polynomial.terms():
        term = flint.fmpq_poly([coefficient])
        for k, exponent in enumerate(monomial):
            while len(powers[k]) <= exponent:
                powers[k].append(powers[k][-1] * point.coordinates[k] % point.modulus)
            term = term * powers[k][exponent] % point.modulus
        total += term
    return total


def _dimension(leading: Sequence[Monomial], variables: int) -> int:
    supports = {frozenset(k for k, e in enumerate(m) if e) for m in leading}
    if frozenset() in supports:
        return -1
    for size in range(variables, 0, -1):
        for chosen in combinations(range(variables), size):
            if not any(support <= set(chosen) for support in supports):
                return size
    return 0


def _standard_monomials(leading: Sequence[Monomial], variables: int) -> list[Monomial]:
    """The monomials that no leading monomial divides, in increasing order."""
    found = {(0,) * variables}
    border = list(found)
    while border:
        following = []
        for monomial in border:
            for k in range(variables):
                raised = _times(monomial, k)
                if raised not in found and not any(_divides(m, raised) for m in leading):
                    found.add(raised)
                    following.append(raised)
        if len(found) > MAX_MULTIPLICITY:
            raise InvalidInputError(
                "system",
                f"at most {MAX_MULTIPLICITY} solutions with multiplicity",
                "more",
                "give more neurons or ask for fewer samples",
            )
        border = following
    return sorted(found, key=_order)


def _multiplication(
    basis: Sequence[Any], monomials: Sequence[Monomial], variables: int
) -> list[Any]:
    """The matrices of multiplication by each variable; columns are images of the monomials."""

    size = len(monomials)
    place = {m: k for k, m in enumerate(monomials)}
    forms: dict[Monomial, list[Any]] = {}
    for m, k in place.items():
        forms[m] = [flint.fmpq(int(j == k)) for j in range(size)]
    tails = {leading_monomial(g): g for g in basis}

    def combined(parts: Sequence[tuple[Any, list[Any]]]) -> list[Any]:
        total = [flint.fmpq(0)] * size
        for factor, form in parts:
            total = [t + factor * f for t, f in zip(total, form, strict=True)]
        return total

    # In increasing order of the products, so that every smaller form is there already.
    products = {_times(m, k) for m in monomials for k in range(variables)} - place.keys()
    for product in sorted(products, key=_order):
        if product in tails:
            (_, lead), *tail = tails[product].terms()
            forms[product] = combined([(flint.fmpq(-c) / lead, forms[tuple(m)]) for m, c in tail])
            continue
        k, smaller = next(
            (k, lower)
            for k in range(variables)
            if product[k] and (lower := _times(product, k, -1)) in forms and lower not in place
        )
        parts = zip(forms[smaller], monomials, strict=True)
        forms[product] = combined([(c, forms[_times(m, k)]) for c, m in parts if c])
    return [
        flint.fmpq_mat([forms[_times(m, k)] for m in monomials]).transpose()
        for k in range(variables)
    ]


def _points(
    tables: Sequence[Any], monomials: Sequence[Monomial], budget: Budget
) -> tuple[tuple[AlgebraicPoint, ...], int]:
    """All points by a rational univariate representation, and their number by the trace form."""

    size, variables = len(monomials), len(tables)
    identity = flint.fmpq_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])
    products = {monomials[0]: identity}
    for m in monomials[1:]:
        _within(budget, "the trace form")
        k = next(k for k in range(variables) if m[k])
        products[m] = tables[k] * products[_times(m, k, -1)]
    traces = flint.fmpq_mat([[_trace(products[m]) for m in monomials]])
    # Column 0 of a product is the image of 1, so column j of M_i is the product of i and j.
    distinct = flint.fmpq_mat([(traces * products[m]).entries() for m in monomials]).rank()

    step, form, squarefree = 0, None, None
    while True:
        _within(budget, "the search for a separating form")
        form = sum((t * (step**k) for k, t in enumerate(tables)), 0 * identity)
        characteristic = form.charpoly()
        squarefree = characteristic / characteristic.gcd(characteristic.derivative())
        if squarefree.degree() == distinct:
            break
        step += 1

    # Powers of the form under the trace, then Rouillier's sums with Horner's polynomials.
    powers = [identity]
    for _ in range(distinct - 1):
        powers.append(powers[-1] * form)
    coefficients = squarefree.coeffs()
    horner = [flint.fmpq_poly([1])]
    for j in range(1, distinct):
        horner.append(horner[-1] * flint.fmpq_poly([0, 1]) + coefficients[distinct - j])

    def numerator(matrix: Any) -> Any:
        return sum(
            (h * _trace(matrix * p) for p, h in zip(powers, reversed(horner), strict=True)),
            flint.fmpq_poly([]),
        )

    below, above = numerator(identity), [numerator(t) for t in tables]
    points = []
    for modulus, _ in squarefree.factor()[1]:
        _, inverse, _ = below.xgcd(modulus)
        points.append(AlgebraicPoint(modulus, tuple(n * inverse % modulus for n in above)))
    return tuple(points), int(distinct)


def _within(budget: Budget, stage: str) -> None:
    if budget.expired:
        raise BudgetExceededError(
            f"the time limit ended {stage}; give more neurons, ask for fewer samples or allow more"
        )


def _trace(matrix: Any) -> Any:
    return sum(matrix[k, k] for k in range(matrix.nrows()))


def _times(monomial: Monomial, variable: int, by: int = 1) -> Monomial:
    return (*monomial[:variable], monomial[variable] + by, *monomial[variable + 1 :])


def _divides(first: Monomial, second: Monomial) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True))


def _lcm(first: Monomial, second: Monomial) -> Monomial:
    return tuple(max(a, b) for a, b in zip(first, second, strict=True))


def _order(monomial: Monomial) -> tuple[int, ...]:
    """Sorts by the degree reverse lexicographic order."""
    return (sum(monomial), *(-e for e in reversed(monomial)))
