"""Statements about sample splitting."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from proofs_check.statements.splitting import bounds as splitting_bounds
from proofs_check.statements.splitting import descent as splitting_descent
from proofs_check.statements.splitting import expansion as splitting_expansion
from proofs_check.statements.splitting import gain as splitting_gain
from proofs_check.statements.splitting import kkt as splitting_kkt
from proofs_check.statements.splitting import optimal as splitting_optimal
from proofs_check.statements.splitting import penalties as splitting_penalties
from proofs_check.statements.splitting import problems as splitting_problems
from proofs_check.statements.splitting.families import Features, Loss, spectrum
from proofs_check.statements.splitting.problems import Problem
from tests.proofs_check import helpers


@pytest.mark.parametrize("kind", splitting_problems.LOSSES)
@pytest.mark.parametrize("features", splitting_problems.FEATURES)
def test_derivatives_are_those_of_the_values(kind, features):
    problem = splitting_problems.build_problem(kind, features, "generic", 2, 3, 1)
    rng = np.random.default_rng(0)
    along = rng.standard_normal((2, 3))
    coefficients, errors = splitting_problems.taylor(
        lambda step: problem.value(problem.x + step[:, None, None] * along, problem.lam)
    )
    slope = float(np.sum(splitting_problems.gradient_x(problem) * along))
    flat = along.ravel()
    bent = float(flat @ splitting_problems.hessian(problem) @ flat)
    assert abs(coefficients[1] - slope) < errors[1] + 1e-12
    assert abs(2.0 * coefficients[2] - bent) < 2.0 * errors[2] + 1e-12


def test_measured_orders_of_known_remainders():
    steps = splitting_expansion.STEPS[:, None]
    for power in (2, 3, 4):
        found = splitting_expansion.order(3.0 * steps**power, 1e-16)
        assert found == pytest.approx(power, abs=1e-9)
    assert splitting_expansion.order(np.full((6, 1), 1e-15), 1e-15) == math.inf


@pytest.mark.parametrize(("count", "total"), [(2, 1.0), (4, 1.0), (6, 1.0), (4, 3.0), (6, 3.0)])
def test_the_search_for_better_splits_comes_close_to_the_optimum(count, total):
    shares = []
    for seed in range(12):
        problem = splitting_problems.build_problem(
            "quadratic", "sine", "generic", 1, 3, seed, plant="x"
        )
        plan = splitting_optimal.Plan(problem, 0, count, False, total, total, 1.0)
        if splitting_optimal.claim(plan) > -0.1:
            continue
        best = min(
            splitting_problems.split_taylor(problem, 0, *found)[0][2]
            for found in splitting_optimal.tried(plan)
        )
        shares.append(2.0 * best / splitting_optimal.claim(plan))
    assert len(shares) >= 5
    assert np.median(shares) > 0.9
    assert max(shares) < 1.0 + 1e-6


def test_idle_candidate_hides_a_saddle():
    """sin(lam sin x) at lam = x = 0: gradients and S vanish, the Hessian is [[0, 1], [1, 0]]."""
    loss = Loss("wave", np.zeros((1, 1)), np.ones(1), np.zeros(1))
    features = Features("sine", np.ones((1, 1)), np.zeros(1))
    problem = Problem(loss, features, np.zeros((1, 1)), np.zeros(1), "stored", 0)
    assert not np.any(splitting_problems.gradient_x(problem))
    assert not np.any(splitting_problems.splitting_matrix(problem, 0))
    found = splitting_problems.hessian(problem, joint=True)
    np.testing.assert_array_equal(found, [[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(spectrum(splitting_bounds.bordered(problem)[0]), [-1.0, 1.0])


def test_idle_candidate_breaks_the_joint_bound_alone():
    # (lam sin x + 1)^2/2 at lam = x = 0 is stationary in both, with a saddle and S = 0.
    loss = Loss("quadratic", np.eye(1), np.ones(1), -np.ones(1))
    features = Features("sine", np.ones((1, 1)), np.zeros(1))
    problem = Problem(loss, features, np.zeros((1, 1)), np.zeros(1), "stored", 0)
    helpers.assert_counterexample(splitting_bounds.JOINT, "multipliers", problem)
    least = float(spectrum(splitting_problems.hessian(problem, joint=True))[0])
    assert least == pytest.approx(-1.0)


def test_constants_of_the_gain_add_up():
    """-1/2 + a/6 + b/8 <= -5/24 for rho eps = a gamma, k beta B^2 eps^2 = b gamma, a, b <= 1."""
    import sympy as sp

    gamma, eps, a, b, count = sp.symbols("gamma epsilon a b k", positive=True)
    rho, stiff = a * gamma / eps, b * gamma / (count * eps**2)
    change = count * (-gamma * eps**2 / 2 + rho * eps**3 / 6) + stiff * (count * eps**2) ** 2 / 8
    share = sp.Rational(5, 24)
    assert float(share) == splitting_gain.SHARE
    slack = count * gamma * eps**2 * ((1 - a) / 6 + (1 - b) / 8)
    assert sp.expand(change + share * count * gamma * eps**2 + slack) == 0
    known = splitting_descent.Constants(ell=3.0, twist=2.0, bend=1.5, beta=0.7)
    gamma_, eps_ = splitting_descent.GAMMA, splitting_descent.EPSILON
    least = min(eps_**2 / (2.0 * known.ell), splitting_gain.SHARE * gamma_ * known.square)
    assert known.price * least == pytest.approx(1.0)


def test_gain_without_beta_is_as_small_as_one_likes():
    """phi = z^2/2, rho = 0: the best of all steps gains gamma^2/(2 beta B^2), beta as large."""
    import sympy as sp

    gamma, bend, beta, square = sp.symbols("gamma B beta s", positive=True)
    change = -gamma * square / 2 + beta * (bend * square / 2) ** 2 / 2
    (best,) = sp.solve(sp.diff(change, square), square)
    gain = sp.simplify(-change.subs(square, best))
    assert sp.simplify(gain - gamma**2 / (2 * beta * bend**2)) == 0
    assert sp.limit(gain, beta, sp.oo) == 0
    assert sp.Rational(1, 2) >= sp.Rational(5, 24)


def _clones(together):
    claimed = splitting_gain.clones(3)
    return replace(claimed, together=together)


def test_many_splits_with_the_step_of_one_raise_the_loss():
    helpers.assert_counterexample(splitting_gain.TOGETHER, "step", _clones(1))
    helpers.assert_instance(splitting_gain.TOGETHER, _clones(16))
    step = math.sqrt(splitting_gain.square(_clones(1)))
    assert splitting_gain.gains(_clones(1), np.array([step]))[0] < 0.0


def test_multipliers_as_variables_steepen_with_the_number_of_candidates():
    problem = splitting_problems.build_problem("quadratic", "sine", "generic", 1, 1, 0)
    helpers.assert_counterexample(
        splitting_bounds.LARGEST, "fixed multipliers", splitting_bounds.Doubling(problem, 0, True)
    )
    tops = {True: [], False: []}
    for _ in range(16):
        for joint, found in tops.items():
            found.append(float(spectrum(splitting_problems.hessian(problem, joint))[-1]))
        problem = splitting_bounds.doubled(splitting_bounds.Doubling(problem, 0, True))
    assert tops[True][-1] > 4.0 * tops[True][0]
    assert tops[False][-1] <= tops[False][0]


def test_penalty_can_outweigh_negative_curvature():
    """S = -1 and h = x^2: halves lower l at every step below 1/2 and raise l + h."""
    loss = Loss("quadratic", np.eye(1), np.ones(1), np.array([-1.0]))
    features = Features("square", np.ones((1, 1)), np.zeros(1))
    problem = Problem(loss, features, np.zeros((1, 1)), np.array([-1.0]), "stored", 0)
    case = splitting_expansion.halved_case(problem)
    found = splitting_penalties.PenaltyCase(case, splitting_penalties.Penalty("blur"))
    assert splitting_problems.splitting_matrix(problem, 0).item() == -1.0
    assert splitting_penalties.decisive(found).item() == 3.0
    alone = splitting_expansion.change(case)
    assert np.all(alone < 0.0)
    assert np.all(alone + splitting_penalties.penalty_change(found) > 0.0)


def test_splits_that_go_nowhere_reach_the_end_as_well():
    run = splitting_descent.build_run(100, 1, 4, True, 0, 1.0, 0.0)
    found = splitting_descent.descend(run.problem, splitting_descent.constants(run.problem), 10**5)
    before = splitting_descent.start_value(run.problem)
    assert found.splits >= 1
    assert found.lowest >= -splitting_descent.GAMMA
    assert found.gradient <= splitting_descent.EPSILON
    # Second-order stationary by the letter, with 99 per cent of the loss still there.
    assert splitting_descent.start_value(found.problem) > 0.99 * before


@pytest.mark.parametrize("dimension", splitting_descent.DIMENSIONS)
def test_bound_on_the_steps_does_not_know_the_dimension(dimension):
    run = splitting_descent.build_run(dimension, 2, 4, True, 5, 1.0, 0.0)
    known = splitting_descent.constants(run.problem)
    start = splitting_descent.start_value(run.problem)
    features = run.problem.features
    assert np.linalg.norm(features.directions, 2) <= math.sqrt(len(features.offsets)) + 1e-12
    found = splitting_descent.descend(run.problem, known, 10**6)
    assert 0 < found.steps <= start * known.price


def test_soft_relu_has_no_splitting_matrix_of_its_loss():
    problem = splitting_kkt.build("soft_relu", "generic", 2, 3, 4, 0)
    helpers.assert_counterexample(splitting_kkt.MATRIX, "derivatives", problem)
