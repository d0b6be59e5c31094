"""Exact solution sets of one gradient against the planted samples and the float verifier."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import sympy

from identify.assess import assess_identifiability
from identify.errors import BudgetExceededError, InvalidInputError
from identify.records import Verdict
from identify.symbolic.numbers import is_zero
from identify.symbolic.solve import exact_gradient, solve_gradient
from tests.identify.symbolic.exact_batches import (
    HEIGHTS,
    POINTS,
    batch,
    float_data,
    moved,
    nearest,
    normal,
    same_set,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "solutions.md"
SIZES = list(product((1, 2, 3), (1, 2), (3, 4, 5)))
CASES = [case for case in SIZES if case[:2] != (1, 2)]
"""Two inputs of one entry are parallel without a bias."""


class TestOneGradient:
    @pytest.mark.parametrize(("d", "n", "degree"), CASES)
    def test_planted_set_is_the_only_one(self, d, n, degree):
        self.check(d, n, degree, bias=False)

    @pytest.mark.parametrize(("d", "n", "degree"), SIZES)
    def test_with_a_hidden_bias(self, d, n, degree):
        self.check(d, n, degree, bias=True)

    def check(self, d, n, degree, bias):
        points, heights, x, b, rows, values = batch(d, n, degree, bias)
        found = solve_gradient(points, heights, rows, values, samples=n, degree=degree, bias=bias)
        assert found.unique
        assert (found.dimension, found.complex_count, found.multiplicity) == (0, 1, 1)
        assert found.fewer == ()
        assert found.span == n
        assert found.excluded[0].endswith("none such explains the data")
        assert len(found.symmetries) == (1 if bias else 2)
        (solution,) = found.solutions
        assert same_set(solution, normal(x, b, degree, bias))
        again = exact_gradient(
            points, heights, solution.samples, solution.coefficients, degree, bias=bias
        )
        assert again == (rows, values)
        data = float_data(points, heights, rows, values, degree, bias)
        report = assess_identifiability(data, samples=n)
        assert nearest(report.recovery.samples, solution, bias) < 1e-9
        # One input of one entry: nothing speaks against a second sample.
        determined = bias or d > 1
        assert (report.verdict is Verdict.GLOBALLY) == determined
        if n == 2 and degree == 3:  # two cubes are three cubes of their plane
            verdict = assess_identifiability(data).verdict
            assert verdict is Verdict.NONIDENTIFIABLE

    @pytest.mark.parametrize(("d", "n", "degree"), CASES)
    def test_one_changed_number_leaves_nothing(self, d, n, degree):
        points, heights, _, _, rows, values = batch(d, n, degree)
        changed = moved(rows, 0, 0, Fraction(1, 1000)), values
        for other in (changed, (rows, moved(values, 1, 0, Fraction(1, 1000)))):
            found = solve_gradient(points, heights, *other, samples=n, degree=degree)
            assert found.dimension == -1
            assert (found.solutions, found.complex_count) == ((), 0)
            assert not found.unique

    def test_a_third_sample_leaves_nothing_for_two(self):
        """The linear equations still have a solution: only the polynomial ones have none."""
        third = ([[1, 2], [1, -1], [1, 5]], [1, -3, Fraction(1, 100)])
        rows, values = exact_gradient(POINTS[2], HEIGHTS[:3], *third, 4)
        found = solve_gradient(POINTS[2], HEIGHTS[:3], rows, values, samples=2, degree=4)
        assert found.consistent
        assert found.dimension == -1
        assert "none\n" in str(found)
        three = solve_gradient(POINTS[2], HEIGHTS[:3], rows, values, samples=3, degree=4)
        assert three.dimension == 1  # rank 5 of 5, for 6 unknowns
        assert three.fewer == ()

    def test_more_rows_than_samples_leave_nothing(self):
        points, heights, _, _, rows, values = batch(3, 2, 3)
        found = solve_gradient(points, heights, rows, values, samples=1, degree=3)
        assert (found.span, found.dimension, found.charts) == (2, -1, ())

    def test_length_is_free_and_order_does_not_matter(self):
        points, heights, x, b, rows, values = batch(2, 2, 4)
        other = [[3 * e for e in x[1]], [-e for e in x[0]]]
        data = exact_gradient(points, heights, other, [b[1] / 81, b[0]], 4)
        assert data == (rows, values)

    def test_without_values(self):
        points, heights, x, b, rows, _ = batch(2, 2, 4)
        found = solve_gradient(points, heights, rows, samples=2, degree=4)
        assert same_set(found.solutions[0], normal(x, b, 4))

    def test_parallel_samples_are_one(self):
        """Inputs of one entry without a bias: no two samples differ in direction."""
        rows, values = exact_gradient([[2], [1]], [1, 1], [[1], [3]], [1, 1], 3)
        found = solve_gradient([[2], [1]], [1, 1], rows, values, samples=2, degree=3)
        assert found.dimension == -1
        assert found.fewer == (1,)
        assert "sets of 1 explain" in found.excluded[0]

    def test_no_gradient_at_all(self):
        zero = sympy.zeros(2, 2), sympy.zeros(2, 1)
        found = solve_gradient([[1, 0], [0, 1]], [1, 1], *zero, samples=1, degree=3)
        assert (found.dimension, found.fewer) == (-1, (0,))

    def test_samples_in_every_chart(self):
        """Leading zeros are directions like any other."""
        points, x = POINTS[3], [[0, 0, 5], [0, 1, 2]]
        rows, values = exact_gradient(points, HEIGHTS, x, [1, 2], 3)
        found = solve_gradient(points, HEIGHTS, rows, values, samples=2, degree=3)
        assert found.unique
        assert same_set(found.solutions[0], normal(x, [1, 2], 3))


class TestBelowTheThreshold:
    points, heights = [[1, 0], [0, 1]], [1, 1]
    x, b = [[1, 1], [1, -2]], [1, -1]

    def solved(self, heights, width=2, samples=2):
        points = self.points[:width]
        rows, values = exact_gradient(points, heights[:width], self.x, self.b, 3)
        found = solve_gradient(points, heights[:width], rows, values, samples=samples, degree=3)
        return found, rows, values

    def test_neurons_decide_the_dimension(self):
        assert self.solved([1, 1])[0].unique
        assert self.solved([1, 0])[0].dimension == 1
        assert self.solved([1, 1], width=1)[0].dimension == 2
        curve, *_ = self.solved([1, 0])
        assert (curve.solutions, curve.complex_count, curve.unique) == ((), None, False)
        assert "dimension 1" in str(curve)

    def test_curve_has_rational_members(self):
        _, rows, values = self.solved([1, 0])
        m = sympy.Symbol("m")
        k, b = 3 * m / (1 + m + m**2), (1 + m + m**2) / (1 + 2 * m)
        x = [[1, 1 + k], [1, -2 + m * k]]
        same = exact_gradient(self.points, [1, 0], x, [b, -b], 3)
        assert all(is_zero(e) for p, q in zip(same, (rows, values), strict=True) for e in p - q)
        # At m = 1 another training set, and with the second neuron it is none.
        other = [[e.subs(m, 1) for e in row[1:]] for row in x]
        assert other == [[2], [-1]]
        full = exact_gradient(self.points, [1, 1], [[1, 2], [1, -1]], [1, -1], 3)
        assert full != exact_gradient(self.points, [1, 1], self.x, self.b, 3)

    def test_planted_set_is_a_smooth_real_point_of_the_curve(self):
        """Jacobian of rank 4 in 5 unknowns: near it the real solutions are a curve too."""
        curve, *_ = self.solved([1, 0])
        (chart,) = [chart for chart in curve.charts if chart.dimension == 1]
        t = sympy.Rational(-1, 3)  # 1/(b1 b2 (x1 - x2))
        place = dict(zip(chart.unknowns, (1, -1, 1, -2, t), strict=True))
        assert [g.subs(place) for g in chart.generators] == [0, 0, 0, 0]
        assert sympy.Matrix(chart.generators).jacobian(chart.unknowns).subs(place).rank() == 4

    def test_verifier_does_not_call_it_unique(self):
        _, rows, values = self.solved([1, 0])
        data = float_data(self.points, [1, 0], rows, values, 3)
        for samples in (None, 2):
            assert assess_identifiability(data, samples=samples).verdict is not Verdict.GLOBALLY

    def test_square_system_has_false_solutions(self):
        """Rank 4 for 4 unknowns: finitely many, simple, real, and not only the planted one."""
        x, b = [[1, 1], [1, -2]], [3, 1]
        rows, values = exact_gradient(self.points, [1, 1], x, b, 4)
        found = solve_gradient(self.points, [1, 1], rows, values, samples=2, degree=4)
        assert (found.dimension, found.rank, found.entries) == (0, 4, 5)
        assert found.complex_count == found.multiplicity > 1
        assert any(same_set(s, normal(x, b, 4)) for s in found.solutions)
        for solution in found.solutions:
            same = exact_gradient(self.points, [1, 1], solution.samples, solution.coefficients, 4)
            for p, q in zip(same, (rows, values), strict=True):
                assert all(abs(sympy.N(e, 40)) < 1e-30 for e in p - q)


HERMITE = ([[1, 0], [0, 1]], [1, 1], [[1, 0], [0, 1]], [1, 1])


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, [[1.0, 0], [0, 1]], "points: expected exact numbers, got the float 1.0; write frac"),
        (0, np.eye(2), "the float"),
        (1, np.ones(2), "output_weights: expected exact numbers, got the float"),
        (0, [[1, sympy.Float(2)], [0, 1]], "the float"),
        (0, [[1, sympy.Symbol("u")], [0, 1]], "the symbols in u"),
        (0, [[1, sympy.I], [0, 1]], "real algebraic numbers, got I"),
        (0, [[1, sympy.pi], [0, 1]], "real algebraic numbers, got pi"),
        (0, [[1, "2"], [0, 1]], "exact numbers, got str"),
        (0, [[1, True], [0, 1]], "a truth value"),
        (0, [[1, 2], [0]], "rows of equal length"),
        (0, [], "rows of equal length"),
        (0, 3, "rows of exact numbers, got int"),
        (0, [[1] * 5] * 2, "entries of a point: expected an integer from 1 to 4"),
        (1, [1], "output_weights: expected 2 exact numbers, got 1"),
        (2, [[1, 0]], "rows: expected 2 rows, got 1"),
        (2, [[1], [2]], "rows of length 2"),
        (3, [1, 2, 3], "values: expected 2"),
    ],
)
def test_refused_numbers(place, value, words):
    arguments = list(HERMITE)
    arguments[place] = value
    with pytest.raises(InvalidInputError, match=words) as caught:
        solve_gradient(*arguments, samples=1, degree=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0, "degree": 3}, "samples"),
        ({"samples": 4, "degree": 3}, "from 1 to 3"),
        ({"samples": 1, "degree": 2}, "degree"),
        ({"samples": 1, "degree": 9}, "from 3 to 8"),
        ({"samples": 1, "degree": 3, "time_limit": 0}, "time_limit"),
    ],
)
def test_refused_sizes(options, words):
    with pytest.raises(InvalidInputError, match=words):
        solve_gradient(*HERMITE, **options)


def test_field_of_high_degree_is_refused():
    roots = [sympy.sqrt(2), sympy.sqrt(3), sympy.sqrt(5), sympy.Integer(2) ** sympy.Rational(1, 6)]
    with pytest.raises(InvalidInputError, match="a field of degree at most 16, got 24"):
        solve_gradient([roots[1:]], [1], [roots[1:]], samples=1, degree=3)


def test_time_limit():
    points, heights, _, _, rows, values = batch(3, 2, 5)
    with pytest.raises(BudgetExceededError, match="the time limit ended the Groebner basis"):
        solve_gradient(points, heights, rows, values, samples=2, degree=5, time_limit=1e-9)


def test_integer_arrays_are_exact():
    points = np.array([[1, 0], [0, 1]])
    rows, values = exact_gradient(points, np.array([1, 1]), points, [1, 1], 3)
    assert rows == 3 * sympy.eye(2)
    found = solve_gradient(points, [1, 1], rows, values, samples=2, degree=3)
    assert found.unique
    samples, coefficients = found.solutions[0].to_float()
    np.testing.assert_array_equal(samples, [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(coefficients, [1.0, 1.0])


def test_import_does_not_load_sympy():
    code = "import sys, identify.symbolic.solve; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_worked_examples_print_what_the_page_shows():
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n\nIt prints:\n\n```\n(.*?)```", page, flags=re.S)
    assert len(blocks) == page.count("```python") == 9
    names = {}
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)
        assert printed.getvalue() == shown
