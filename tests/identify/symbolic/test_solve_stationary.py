"""Exact solution sets of weights: KKT points over number fields, and three samples for two."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import sympy

from identify.assess import assess_identifiability
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.records import Verdict
from identify.symbolic.derive import kkt_system
from identify.symbolic.numbers import is_positive, is_zero
from identify.symbolic.solve import exact_gradient, solve_gradient, solve_stationary, three_cubes
from tests.identify.symbolic.exact_batches import (
    as_network,
    batch,
    nearest,
    normal,
    planted,
    same_set,
    vanish,
)

ROOT3 = sympy.sqrt(3)
TURN = sympy.Matrix([[ROOT3 / 2, sympy.Rational(1, 2)], [sympy.Rational(-1, 2), ROOT3 / 2]])
PLANTED = {
    "cubic over Q(sqrt 3)": (2, 3, 1, None),
    "cubic, turned by 30 degrees": (2, 3, 1, TURN),
    "cubic, a neuron for both": (2, 3, 2, None),
    "quartic over Q(2^(1/6))": (2, 4, 2, None),
    "quintic of field degree 16": (2, 5, 2, None),
    "three cubic samples": (3, 3, 2, None),
}


class TestStationaryWeights:
    @pytest.mark.medium
    @pytest.mark.parametrize("arguments", PLANTED.values(), ids=PLANTED)
    def test_exact_kkt_point(self, arguments):
        w, a, x, multipliers = planted(*arguments)
        n, degree, *_ = arguments
        # A sample of margin above 1 and multiplier 0 is inactive.
        lifted = x.col_join(2 * x[:1, :])
        system = kkt_system(n, len(a), n + 1, degree)
        values = {"a": a, "w": list(w), "x": list(lifted), "lambda": [*multipliers, 0],
                  "y": [1] * (n + 1)}  # fmt: skip
        place = {}
        for family, group in system.symbols.items():
            place.update(zip(group, map(sympy.sympify, values[family]), strict=True))

        def at_point(column):
            return [entry.xreplace(place) for entry in column]

        assert vanish(at_point(system.stationarity))
        assert vanish(at_point(system.slackness))
        *margins, inactive = at_point(system.primal)
        assert vanish(margins)
        assert is_positive(inactive)
        *dual, last = at_point(system.dual)
        assert all(map(is_positive, dual))
        assert last == 0

        found = solve_stationary(w, a, samples=n, degree=degree)
        assert found.unique
        assert found.complex_count == found.multiplicity == 1
        (solution,) = found.feasible
        assert same_set(solution, normal(x, multipliers, degree))
        pairs = zip(solution.multipliers, multipliers, strict=True)
        assert vanish(p - q for p, q in pairs)

    def test_verifier_recovers_the_same_samples(self):
        for n, degree, largest in ((2, 4, 2), (3, 3, 2)):
            w, a, _, _ = planted(n, degree, largest)
            data = HermiteData.from_kkt(as_network(w.tolist(), a, degree, False))
            report = assess_identifiability(data)
            assert report.verdict is Verdict.GLOBALLY
            found = solve_stationary(w, a, samples=n, degree=degree)
            assert nearest(report.recovery.samples, found.solutions[0]) < 1e-9

    def test_both_sets_of_an_open_quartic(self):
        """Without the neuron of both samples one entry of T is open, and two sets remain."""
        w, a, x, multipliers = planted(2, 4, 1)
        found = solve_stationary(w, a, samples=2, degree=4)
        assert (found.dimension, found.complex_count, found.multiplicity) == (0, 3, 3)
        assert len(found.solutions) == len(found.feasible) == 2
        planted_set = normal(x.tolist(), multipliers, 4)
        rows = [(1, 1, sympy.Rational(1, 32)), (1, -1, sympy.Rational(1, 32))]
        assert [same_set(s, planted_set) for s in found.solutions].count(True) == 1
        assert [same_set(s, rows) for s in found.solutions].count(True) == 1
        assert not found.unique
        data = HermiteData.from_kkt(as_network(w.tolist(), a, 4, False))
        report = assess_identifiability(data, samples=2)
        assert report.verdict is Verdict.NONIDENTIFIABLE
        for shown in report.alternatives:
            assert min(nearest(shown.samples, s) for s in found.solutions) < 1e-9

    def test_weights_out_of_balance_are_stationary_for_no_data(self):
        found = solve_stationary([[2, 0], [0, 2]], [1, Fraction(1, 2)], samples=2, degree=4)
        assert (found.dimension, found.consistent) == (-1, False)
        dead = solve_stationary([[2, 0], [0, 2]], [1, 0], samples=2, degree=4)
        assert dead.dimension == -1

    def test_dead_neurons_say_nothing(self):
        found = solve_stationary([[ROOT3, 0], [0, ROOT3], [0, 0]], [1, 1, 0], samples=2, degree=3)
        assert found.unique

    def test_feasible_asks_for_positive_multipliers_and_equal_margins(self):
        found = solve_stationary([[2, 0], [0, 2]], [1, 1], samples=2, degree=4)
        first = found.solutions[0]
        outputs = first.outputs
        assert [f * b for f, b in zip(outputs, first.coefficients, strict=True)] == [1, 1]
        wrong = replace(first, outputs=(outputs[0], -outputs[1]))
        longer = replace(first, outputs=(outputs[0], 2 * outputs[1]))
        for solution, bias, feasible in ((first, True, 1), (wrong, False, 0), (longer, False, 1),
                                         (longer, True, 0)):  # fmt: skip
            changed = replace(found, solutions=(solution,), has_bias=bias)
            assert len(changed.feasible) == feasible

    def test_hidden_bias_fixes_the_length(self):
        """w = (root, 0), h = (0, root): the samples are points of a line and its infinity."""
        turn = sympy.Matrix([[3, 4], [4, -3]]) / 5
        w, a, x, multipliers = planted(2, 3, 1, turn)
        found = solve_stationary(w, a, samples=2, degree=3, bias=True)
        assert found.unique
        expected = [
            (sympy.expand(p / h), sympy.expand(b * h**3))
            for (p, h), b in zip(x.tolist(), multipliers, strict=True)
        ]
        assert same_set(found.solutions[0], expected)
        # The lengths of (x, 1) are not those of the planted samples: no common margin.
        assert found.feasible == ()


class TestOtherFields:
    def test_solutions_outside_the_field_of_the_data(self):
        """Points over Q(sqrt 2): the planted set, and others in larger fields."""
        points = [[1, sympy.sqrt(2)], [0, 1]]
        x, b = [[1, 1], [1, -2]], [3, 1]
        rows, values = exact_gradient(points, [1, 1], x, b, 4)
        found = solve_gradient(points, [1, 1], rows, values, samples=2, degree=4)
        assert found.generator == sympy.sqrt(2)
        assert found.dimension == 0
        assert any(same_set(s, normal(x, b, 4)) for s in found.solutions)
        for solution in found.solutions:
            same = exact_gradient(points, [1, 1], solution.samples, solution.coefficients, 4)
            for p, q in zip(same, (rows, values), strict=True):
                assert all(abs(sympy.N(e, 25)) < 1e-20 for e in p - q)

    def test_conjugate_of_the_data_is_other_data(self):
        found = {}
        for sign in (1, -1):
            points = [[1, sign * sympy.sqrt(2)], [1, 1]]
            x = [[1, sympy.sqrt(2)], [1, 0]]
            rows, values = exact_gradient(points, [1, 1], x, [1, 1], 3)
            found[sign] = solve_gradient(points, [1, 1], rows, values, samples=2, degree=3)
            assert found[sign].unique
            assert same_set(found[sign].solutions[0], normal(x, [1, 1], 3))
        # The generator enters with its sign: sqrt(2) must not become -sqrt(2).
        assert sympy.sqrt(2) in found[1].solutions[0].samples


class TestThreeCubes:
    def test_identity_in_symbols(self):
        b1, b2, s, t, u, v = sympy.symbols("b1 b2 s t u v")
        x = sympy.symbols("p1:4"), sympy.symbols("q1:4")
        family = three_cubes(x[0], b1, x[1], b2, s, t)
        assert family.samples.shape == (3, 3)
        # On the plane first, then for every point: the slopes u, v are those of the two samples.
        plane = three_cubes([1, 0], b1, [0, 1], b2, s, t)
        cubes = sum(
            c * (u * y[0] + v * y[1]) ** 3
            for c, y in zip(plane.coefficients, plane.samples.tolist(), strict=True)
        )
        assert is_zero(cubes - b1 * u**3 - b2 * v**3)
        for y, m in zip(family.samples.tolist(), plane.samples[:, 1], strict=True):
            assert all(is_zero(e - p - m * q) for e, p, q in zip(y, *x, strict=True))

    def test_members_have_the_same_gradient(self):
        points, heights, x, b, rows, values = batch(3, 2, 3)
        for s, t in ((1, 2), (-3, Fraction(1, 2)), (sympy.sqrt(2), -1)):
            member = three_cubes(x[0], b[0], x[1], b[1], s, t)
            same = exact_gradient(points, heights, member.samples, member.coefficients, 3)
            assert vanish([*(same[0] - rows), *(same[1] - values)])
            four = exact_gradient(points, heights, member.samples, member.coefficients, 4)
            assert four != exact_gradient(points, heights, x, b, 4)

    @pytest.mark.parametrize("d", [2, 3])
    def test_family_has_two_dimensions(self, d):
        points, heights, _, _, rows, values = batch(d, 2, 3)
        found = solve_gradient(points, heights, rows, values, samples=3, degree=3)
        assert (found.dimension, found.fewer) == (2, (2,))
        assert not found.unique

    def test_every_set_of_three_is_in_the_family(self):
        """On 2 X^3 + 5 Y^3 the ideal of three samples contains m1 m2 m3 2 - 5."""
        data = exact_gradient([[1, 0], [0, 1]], [1, 1], [[1, 0], [0, 1]], [2, 5], 3)
        found = solve_gradient([[1, 0], [0, 1]], [1, 1], *data, samples=3, degree=3)
        (chart,) = [chart for chart in found.charts if chart.dimension >= 0]
        assert [row[0] for row in chart.samples] == [1, 1, 1]
        m = [row[1] for row in chart.samples]
        _, rest = sympy.reduced(
            2 * m[0] * m[1] * m[2] - 5, chart.groebner_basis, *chart.unknowns, order="grevlex"
        )
        assert rest == 0
        # and the coefficients of three_cubes, up to its denominators
        b = chart.unknowns[0]
        _, rest = sympy.reduced(
            sympy.expand(b * (m[1] - m[0]) * (m[2] - m[0]) - 2 * m[1] * m[2]),
            chart.groebner_basis, *chart.unknowns, order="grevlex",
        )  # fmt: skip
        assert rest == 0

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (([1, 0], 1, [2, 0], 1, 1, 2), "not parallel"),
            (([1, 0], 0, [0, 1], 1, 1, 2), "b1 and b2 not 0"),
            (([1, 0], 1, [0, 1], 1, 0, 2), "other than 0"),
            (([1, 0], 1, [0, 1], 1, 2, 2), "different"),
            (([1, 0], 1, [0, 1], 4, 2, 1), "different"),
            (([1, 0], 1, [0, 1], 4, 2, 0.5), "the float 0.5"),
            (([1, 0], 1, [0, 1, 2], 4, 2, 1), "rows of equal length"),
        ],
    )
    def test_refused(self, arguments, words):
        with pytest.raises(InvalidInputError, match=words):
            three_cubes(*arguments)
