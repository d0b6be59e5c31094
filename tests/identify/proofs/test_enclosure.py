"""Boxes around the terms against Newton's method at 60 digits, and controls that must fail."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.optimize

from identify.budget import Budget
from identify.errors import InvalidInputError
from identify.proofs import enclosure
from identify.proofs.balls import BallEquations, Field, relative_radii, verify_box
from identify.proofs.enclosure import enclose_terms, estimate_seconds
from tests.identify.proofs.enclosure_problems import (
    SHIFT,
    Problem,
    distances,
    forward,
    moved,
    near_parallel,
    planted,
    solve,
)

CASES = [
    (3, 1, 1, 1e-13, False),
    (4, 1, 2, 1e-4, True),
    (5, 1, 1, 1e-9, True),
    (3, 2, 4, 1e-13, False),
    (3, 2, 5, 1e-6, True),
    (4, 2, 3, 1e-9, True),
    (5, 2, 4, 1e-7, True),
    (6, 2, 4, 1e-8, True),
    (3, 3, 6, 1e-10, False),
    (4, 3, 7, 1e-8, True),
    (5, 3, 5, 1e-12, True),
    (3, 4, 8, 1e-8, False),
    (4, 4, 9, 1e-13, True),
]


@pytest.mark.parametrize(("degree", "r", "k", "rho", "mixed"), CASES)
def test_solutions_for_all_data_within_the_radius_lie_in_the_box(degree, r, k, rho, mixed):
    problem = planted(degree, r, k, 10 * degree + r, mixed=mixed)
    box = problem.enclose(rho)
    assert box.outcome == "proved", box.reason
    assert box.precision == 53
    assert box.pivots.shape == (r * r,)
    assert np.unique(box.pivots).size == r * r
    assert np.all(np.abs(problem.terms - box.centres) <= box.radii)
    found = distances(problem, box, rho, r)
    assert max(found) < 1
    # Adverse data reach far into the box, so that it is not wide for nothing.
    assert max(found) > (0.5 if rho > 1e-12 else 0.05)


@pytest.mark.parametrize("degree", [3, 4])
def test_one_solution_from_every_start_in_the_box(degree):
    rho = 1e-5
    problem = planted(degree, 2, 4, 7, mixed=True)
    box = problem.enclose(rho)
    assert box.outcome == "proved"
    rng = np.random.default_rng(0)
    with mpmath.workdps(60):
        data = moved(problem, rho, rng.uniform(-1, 1, (4, 2)), rng.uniform(-1, 1, (4, 2)))
        first = solve(problem, box.pivots, box.centres, *data)
        for _ in range(5):
            start = box.centres + box.radii * rng.uniform(-1, 1, (2, 2))
            other = solve(problem, box.pivots, start, *data)
            assert mpmath.norm(other - first) < mpmath.mpf(10) ** -45


def test_one_unknown_in_closed_form():
    problem = Problem(
        np.array([[2**SHIFT]]), np.array([[8.0]]), np.ones(1), 3, np.array([[1.9]]), np.ones(1)
    )
    box = problem.enclose(1e-3)
    assert box.outcome == "proved"
    low, high = box.centres - box.radii, box.centres + box.radii
    assert low < np.cbrt(8 * 0.999) < np.cbrt(8 * 1.001) < high
    assert box.relative[0] < 1e-3


def test_consistent_noisy_data_are_never_contradicted():
    outcomes = []
    for seed in range(60):
        degree, r = 3 + seed % 3, 1 + seed % 4
        rho = 10.0 ** -(5 + seed % 8)
        problem = planted(degree, r, 3 * r + 2, seed, mixed=True, noise=0.99 * rho)
        outcomes.append(problem.enclose(rho).outcome)
    assert "contradicted" not in outcomes
    assert outcomes.count("proved") > 30


def test_one_false_equation_contradicts():
    rho = 1e-9
    problem = planted(3, 4, 12, 2)
    box = problem.enclose(rho)
    assert box.outcome == "proved"
    rest = np.setdiff1d(np.arange(48), box.pivots)
    size = np.linalg.norm(problem.rhs)
    for row in rest[::5].tolist():
        rhs = problem.rhs.copy()
        # Far less than what the box alone leaves open for this equation.
        rhs.ravel()[row] += 40 * rho * size
        false = Problem(problem.points, rhs, problem.weights, 3, problem.terms, problem.signs)
        found = false.enclose(rho)
        if np.array_equal(found.pivots, box.pivots):
            assert found.outcome == "contradicted"
            assert "no common solution" in found.reason
            assert np.all(np.isfinite(found.radii))


@pytest.mark.parametrize("r", [2, 3])
def test_more_samples_than_terms_are_never_proved(r):
    contradicted = 0
    for seed in range(8):
        degree, extra = 4 + seed % 2, planted(3, r, 1, seed, members=r + 1).terms
        extra /= np.linalg.norm(extra, axis=1)[:, None]
        problem = planted(degree, r, 4 * r + 4, 100 + seed)
        points, weights = np.ldexp(problem.points.astype(float), -SHIFT), problem.weights
        problem.rhs = forward(points, weights, degree, extra, np.ones(r + 1))

        def gap(z, problem=problem, points=points):
            fit = forward(points, problem.weights, problem.degree, z.reshape(r, r), problem.signs)
            return (fit - problem.rhs).ravel()

        start = extra[:r].ravel()
        closest = scipy.optimize.least_squares(gap, start).x.reshape(r, r)
        for rho in (1e-13, 1e-8, 1e-5):
            box = problem.enclose(rho, closest)
            assert box.outcome != "proved"
            contradicted += box.outcome == "contradicted"
    assert contradicted > 3


def test_a_centre_far_off_is_never_proved():
    for seed in range(30):
        degree, r = 3 + seed % 3, 1 + seed % 4
        problem = planted(degree, r, 3 * r + 2, seed, mixed=True)
        far = np.random.default_rng(seed + 1000).standard_normal((r, r))
        assert problem.enclose(1e-8, far).outcome != "proved"
        assert problem.enclose(1e-8, 1.5 * problem.terms).outcome != "proved"


def test_a_centre_close_by_is_polished():
    problem = planted(4, 3, 9, 3)
    near = problem.terms * (1 + 1e-3 * np.random.default_rng(1).standard_normal((3, 3)))
    box = problem.enclose(1e-10, near)
    assert box.outcome == "proved"
    assert np.all(np.abs(problem.terms - box.centres) <= box.radii)


@pytest.mark.parametrize(
    ("degree", "r", "closeness", "seed"), [(3, 2, 8, 0), (3, 3, 6, 1), (4, 4, 7, 0), (5, 2, 9, 0)]
)
def test_precision_rescues_badly_conditioned_exact_data(degree, r, closeness, seed):
    problem = near_parallel(degree, r, closeness, seed, 62)
    low = problem.enclose(0.0, max_precision=53)
    assert low.outcome == "undecided"
    assert "rounding is the limit" in low.reason
    assert np.all(np.isinf(low.radii))
    assert np.all(np.isinf(low.relative))
    box = problem.enclose(0.0)
    assert box.outcome == "proved", box.reason
    assert box.precision == 106
    assert max(distances(problem, box, 0.0, 0)) < 1


@pytest.mark.parametrize("seed", range(6))
def test_precision_does_not_rise_where_the_data_are_the_limit(seed):
    known = near_parallel(3, 2, 8, seed, SHIFT).enclose(0.0)
    assert (known.outcome, known.precision <= 106) == ("undecided", True)
    assert "the radius of the data is the limit" in known.reason
    rough = planted(4, 3, 6, seed).enclose(0.01)
    assert (rough.outcome, rough.precision) == ("undecided", 53)
    assert "the radius of the data is the limit" in rough.reason


def test_equal_terms_are_not_isolated():
    problem = planted(3, 2, 4, 7)
    terms = np.array([[1.0, 0.5], [1.0, 0.5]])
    points = np.ldexp(problem.points.astype(float), -SHIFT)
    problem.rhs = forward(points, problem.weights, 3, terms, problem.signs)
    box = problem.enclose(1e-12, terms)
    assert (box.outcome, box.precision) == ("undecided", 106)
    assert "singular" in box.reason
    assert np.all(box.conditions > 1e10)


def test_the_printed_box_passes_alone_and_a_smaller_one_does_not():
    problem = planted(3, 3, 7, 4)
    box = problem.enclose(1e-8)
    equations = problem.equations(1e-8)
    assert box.outcome == "proved"
    assert verify_box(equations, box.pivots, box.centres, box.radii, box.precision)
    assert verify_box(equations, box.pivots, box.centres, 1.3 * box.radii, 106)
    for wrong in (0.5 * box.radii, 0 * box.radii, 1e9 * box.radii):
        assert not verify_box(equations, box.pivots, box.centres, wrong, box.precision)
    aside = box.centres + 2 * box.radii
    assert not verify_box(equations, box.pivots, aside, box.radii, box.precision)
    wider = problem.equations(3e-8)
    assert not verify_box(wider, box.pivots, box.centres, box.radii, box.precision)


def test_the_textbook_test_in_another_interval_arithmetic_agrees():
    problem, rho, r = planted(4, 2, 5, 11, mixed=True), 1e-8, 2
    box = problem.enclose(rho)
    assert box.outcome == "proved"
    iv = mpmath.iv
    unit, size = iv.mpf(2) ** -SHIFT, iv.sqrt(sum(iv.mpf(x) ** 2 for x in problem.rhs.ravel()))
    around = iv.mpf([-1, 1])
    p = [[(iv.mpf(int(x)) + around) * unit for x in row] for row in problem.points]
    right = [[iv.mpf(x) + rho * size * around for x in row] for row in problem.rhs]

    def value(z, j, axis):
        total = -right[j][axis]
        for i in range(r):
            along = p[j][0] * z[i][0] + p[j][1] * z[i][1]
            total += problem.weights[j] * problem.signs[i] * along**3 * z[i][axis]
        return total

    def slope(z, j, axis, i, b):
        along = p[j][0] * z[i][0] + p[j][1] * z[i][1]
        inner = 3 * along**2 * z[i][axis] * p[j][b] + (along**3 if axis == b else 0)
        return problem.weights[j] * problem.signs[i] * inner

    spread = [iv.mpf([-x, x]) for x in box.radii.ravel().tolist()]
    centre = [[iv.mpf(x) for x in row] for row in box.centres.tolist()]
    wide = [[centre[i][b] + spread[r * i + b] for b in range(r)] for i in range(r)]
    inverse = np.linalg.inv(problem.equations(rho).jacobian(box.centres)[box.pivots])
    rows = [divmod(row, r) for row in box.pivots.tolist()]
    table = [[slope(wide, *row, i, b) for i in range(r) for b in range(r)] for row in rows]
    for n, radius in enumerate(box.radii.ravel().tolist()):
        image = -sum(inverse[n, e] * value(centre, *row) for e, row in enumerate(rows))
        for unknown in range(r * r):
            mixed = sum(inverse[n, e] * table[e][unknown] for e in range(r * r))
            image += ((n == unknown) - mixed) * spread[unknown]
        assert max(abs(image.a), abs(image.b)) < radius
    for row in np.setdiff1d(np.arange(10), box.pivots).tolist():
        assert 0 in value(wide, *divmod(row, r))


def test_relative_radii_and_conditions():
    problem = planted(4, 3, 8, 6, mixed=True)
    box = problem.enclose(1e-9)
    wide, away = np.linalg.norm(box.radii, axis=1), np.linalg.norm(box.centres, axis=1)
    assert np.all(box.relative >= wide / (away - wide))
    assert np.allclose(box.relative, wide / (away - wide), rtol=1e-11)
    assert np.all(np.isinf(relative_radii(np.ones((2, 2)), np.ones((2, 2)))))
    inverse = np.linalg.pinv(problem.equations(1e-9).jacobian(box.centres))
    for i in range(3):
        norm = np.linalg.norm(inverse[3 * i : 3 * i + 3], 2) * np.linalg.norm(problem.rhs)
        assert box.conditions[i] == pytest.approx(norm / away[i], rel=1e-8)


def test_the_jacobian_is_the_derivative():
    problem = planted(5, 3, 4, 8, mixed=True)
    equations, step = problem.equations(0.0), 1e-6
    exact = equations.jacobian(problem.terms)
    points = np.ldexp(problem.points.astype(float), -SHIFT)
    for unknown in range(9):
        ends = []
        for sign in (1.0, -1.0):
            z = problem.terms.copy()
            z.ravel()[unknown] += sign * step
            ends.append(forward(points, problem.weights, 5, z, problem.signs).ravel())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert np.allclose(slope, exact[:, unknown], rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    balls = equations.over(problem.terms, 1e-3 * np.ones((3, 3))).jacobian(range(12))
    inside = [b.contains(float(x)) for b, x in zip(balls.entries(), exact.ravel(), strict=True)]
    assert all(inside)


@pytest.mark.parametrize("part", ["balls", "floats"])
def test_a_wrong_sign_in_a_jacobian_breaks_the_proof(monkeypatch, part):
    problem = planted(3, 2, 4, 7)
    assert problem.enclose(1e-8, max_precision=53).outcome == "proved"
    if part == "balls":
        right = Field.jacobian
        monkeypatch.setattr(Field, "jacobian", lambda self, rows: -right(self, rows))
    else:
        plain = BallEquations.jacobian
        monkeypatch.setattr(BallEquations, "jacobian", lambda self, z: -plain(self, z))
    assert problem.enclose(1e-8, max_precision=53).outcome != "proved"


def test_the_reference_notices_a_box_that_forgets_the_data(monkeypatch):
    problem, rho = planted(3, 2, 4, 7), 1e-9
    right = BallEquations.__init__
    with monkeypatch.context() as patch:
        patch.setattr(
            BallEquations, "__init__", lambda self, *given: right(self, *given[:-1], 1e-12)
        )
        box = problem.enclose(rho)
    assert box.outcome == "proved"
    assert max(distances(problem, box, rho, 0)) > 1


def test_time_limit_and_progress():
    problem = planted(3, 3, 6, 1)
    late = problem.enclose(1e-10, budget=Budget(float("-inf")))
    assert (late.outcome, late.reason) == ("undecided", "the time limit was reached")
    seen = []
    problem.enclose(1e-10, budget=Budget(progress=lambda stage, share: seen.append((stage, share))))
    assert len(seen) > 3
    assert all(stage and 0 <= share <= 1 for stage, share in seen)


def test_ten_terms_take_the_work_that_is_estimated(monkeypatch):
    """A few products of r^2 x r^2 ball matrices, and no more for each r^2 further equations."""
    entries, right = [], BallEquations.over

    class Counted:
        def __init__(self, field):
            self.field = field

        def __getattr__(self, name):
            return getattr(self.field, name)

        def jacobian(self, rows):
            entries.append(len(rows) * 100)
            return self.field.jacobian(rows)

    monkeypatch.setattr(BallEquations, "over", lambda self, *a, **k: Counted(right(self, *a, **k)))
    box = planted(3, 10, 24, 1).enclose(1e-11)
    assert (box.outcome, box.precision) == ("proved", 53)
    assert box.attempts <= 2
    assert 240 * 100 <= sum(entries) <= 5 * 100 * 100
    assert estimate_seconds(10, 24) < estimate_seconds(10, 80) < estimate_seconds(20, 80)


def test_a_box_as_wide_as_a_term_is_undecided(monkeypatch):
    problem = planted(3, 2, 4, 7)
    monkeypatch.setattr(enclosure, "relative_radii", lambda centres, radii: np.full(2, np.inf))
    box = problem.enclose(1e-8)
    assert box.outcome == "undecided"
    assert "as wide as" in box.reason


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"points": np.ones((4, 2))}, "points: expected int64"),
        ({"points": np.ones((1, 2), dtype=np.int64)}, "points: expected at least r = 2 rows"),
        ({"shift": 0}, "shift: expected 1 to 62"),
        ({"shift": 63}, "shift: expected 1 to 62"),
        ({"rhs": np.ones((4, 3))}, "rhs: expected shape"),
        ({"rhs": np.full((4, 2), np.nan)}, "rhs: expected finite"),
        ({"rhs": np.zeros((4, 2))}, "rhs: expected not all 0"),
        ({"weights": np.zeros(4)}, "weights: expected positive"),
        ({"degree": 2}, "degree: expected 3 to"),
        ({"terms": np.ones((3, 2))}, "terms: expected shape"),
        ({"terms": np.array([[1.0, 0.0], [0.0, 0.0]])}, "terms: expected no row of zeros"),
        ({"terms": np.full((2, 2), 1e200)}, "terms: expected sizes"),
        ({"signs": np.array([1.0, 0.5])}, r"signs: expected \+-1"),
        ({"rho": -1e-9}, "rho: expected"),
        ({"rho": float("nan")}, "rho: expected"),
        ({"max_precision": 24}, "max_precision: expected at least 53"),
    ],
)
def test_bad_input(change, match):
    problem = planted(3, 2, 4, 7)
    given = {
        "points": problem.points,
        "shift": SHIFT,
        "rhs": problem.rhs,
        "weights": problem.weights,
        "degree": 3,
        "terms": problem.terms,
        "signs": problem.signs,
        "rho": 1e-9,
    }
    with pytest.raises(InvalidInputError, match=match):
        enclose_terms(**(given | change))


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_neurons_orthogonal_to_samples(degree):
    # Their inner products are balls around 0, whose powers have to stay finite.
    points = np.vstack([np.eye(3), [[0.6, 0.8, 0.0], [0.0, 0.6, 0.8], [0.8, 0.0, 0.6]]])
    terms = np.diag([1.0, 2.0, 0.5])
    rhs = (points @ terms.T) ** (degree - 1) @ terms
    integers = np.rint(np.ldexp(points, SHIFT)).astype(np.int64)
    box = enclose_terms(integers, SHIFT, rhs, np.ones(6), degree, terms, np.ones(3), 1e-12)
    assert box.outcome == "proved", box.reason
    assert np.all(box.relative < 1e-8)
