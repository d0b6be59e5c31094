"""Groebner bases, dimensions, charts and points against sympy."""

from __future__ import annotations

import random
from itertools import permutations, product

import flint
import pytest
import sympy

from identify.errors import InvalidInputError
from identify.symbolic.groebner import groebner_basis, solve_system
from identify.symbolic.solve import solve_gradient, solve_stationary
from tests.identify.symbolic.exact_batches import batch, planted

ROOT3 = sympy.sqrt(3)
TURN = sympy.Matrix([[ROOT3 / 2, sympy.Rational(1, 2)], [sympy.Rational(-1, 2), ROOT3 / 2]])


class TestCharts:
    """The parts that the proof is made of, checked by sympy."""

    @pytest.mark.parametrize(("d", "n", "degree"), [(1, 1, 5), (2, 2, 3), (2, 2, 5), (3, 2, 3)])
    def test_bases_are_those_of_sympy(self, d, n, degree):
        points, heights, _, _, rows, values = batch(d, n, degree)
        found = solve_gradient(points, heights, rows, values, samples=n, degree=degree)
        assert found.charts
        for chart in found.charts:
            theirs = sympy.groebner(chart.generators, *chart.unknowns, order="grevlex")
            ours = {sympy.Poly(g, *chart.unknowns).monic() for g in chart.groebner_basis}
            monic = {sympy.Poly(g, *chart.unknowns).monic() for g in theirs.exprs}
            assert ours == monic

    def test_over_a_field_the_basis_is_that_of_sympy(self):
        w, a, _, _ = planted(2, 3, 1, TURN)
        found = solve_stationary(w, a, samples=2, degree=3)
        assert found.generator == ROOT3
        for chart in found.charts:
            theirs = sympy.groebner(chart.generators, *chart.unknowns, order="grevlex")
            assert {sympy.Poly(g, *chart.unknowns).monic() for g in theirs.exprs} == {
                sympy.Poly(g, *chart.unknowns).monic() for g in chart.groebner_basis
            }

    @pytest.mark.parametrize(("r", "n", "parts"), [(2, 1, 2), (2, 2, 2), (3, 1, 3), (3, 2, 6)])
    def test_charts_cover_every_pair_of_directions_once(self, r, n, parts):
        zero = [[0] * r] * 2, [0, 0]
        points = [[1] * r, list(range(1, r + 1))]
        found = solve_gradient(points, [0, 0], *zero, samples=n, degree=3)
        assert len(found.charts) == parts
        entries = [x for x in product((0, 1, 2), repeat=r) if next((e for e in x if e), 0) == 1]
        for directions in permutations(entries, n):
            fits = [chart for chart in found.charts if self.fits(chart, directions)]
            sorted_leads = [x.index(1) for x in directions] == sorted(
                x.index(1) for x in directions
            )
            assert len(fits) == (1 if sorted_leads else 0)

    def fits(self, chart, directions):
        """Whether the last generators of the chart leave room for these directions."""
        place = {}
        for shown, x in zip(chart.samples, directions, strict=True):
            for symbol, value in zip(shown, x, strict=True):
                if symbol.is_Symbol:
                    place[symbol] = value
                elif symbol != value:
                    return False
        place.update({s: 1 for s in chart.unknowns if s.name.startswith("b[")})
        # No linear condition restricts b alone: only those that separate samples are looked at.
        rest = [g.subs(place) for g in chart.generators if not self.is_moment(g)]
        t = chart.unknowns[-1]
        return all(g == 0 or (g.has(t) and g.diff(t) != 0) for g in rest)

    def is_moment(self, generator):
        """Every term has one coefficient: an equation of the data."""
        return not any(s.name == "t" for s in generator.free_symbols) and any(
            s.name.startswith("b[") for s in generator.free_symbols
        )


class TestGroebner:
    RING = flint.fmpz_mpoly_ctx.get(["x", "y", "z"], flint.Ordering.degrevlex)

    def test_random_systems_against_sympy(self):
        """Bases, dimensions and, by the degree of an eliminant, the number of solutions."""
        generator = random.Random(3)
        x = sympy.symbols("x y z")
        monomials = [m for m in product(range(3), repeat=3) if sum(m) <= 2]
        dimensions = set()
        for _ in range(25):
            terms = [
                {m: generator.randint(-4, 4) for m in generator.sample(monomials, 4)}
                for _ in range(3)
            ]
            ours = [self.RING.from_dict(t) for t in terms]
            theirs = [sympy.Poly.from_dict(t, *x).as_expr() for t in terms]
            basis = groebner_basis(ours, self.RING)
            expected = sympy.groebner([e for e in theirs if e != 0], *x, order="grevlex")
            written = {
                sympy.Poly.from_dict({tuple(map(int, m)): int(c) for m, c in g.terms()}, *x).monic()
                for g in basis
            }
            assert written == {sympy.Poly(e, *x).monic() for e in expected.exprs}
            solved = solve_system(ours, self.RING)
            dimensions.add(solved.dimension)
            assert (solved.dimension == 0) == (
                expected.is_zero_dimensional and expected.exprs != [1]
            )
            if solved.dimension == 0:
                assert solved.count <= solved.multiplicity
                assert sum(p.modulus.degree() for p in solved.points) == solved.count
        assert {0, 1} <= dimensions

    def test_multiplicities_and_the_rank_of_the_trace_form(self):
        x, y, z = self.RING.gens()
        solved = solve_system([(x - 1) ** 2, (y - x) ** 3, z * y - 1], self.RING)
        assert (solved.dimension, solved.count, solved.multiplicity) == (0, 1, 6)
        solved = solve_system([x**2 - 2, y**2 - 3, z - x - y], self.RING)
        assert (solved.count, solved.multiplicity, len(solved.points)) == (4, 4, 1)
        assert solve_system([x * y - 1, x], self.RING).dimension == -1
        assert solve_system([x * y, x * z], self.RING).dimension == 2
        assert solve_system([], self.RING).dimension == 3

    def test_too_many_solutions_are_refused(self):
        x, y, z = self.RING.gens()
        with pytest.raises(InvalidInputError, match="120 solutions"):
            solve_system([x**6 - y, y**5 - z, z**5 - x], self.RING)
