"""Odd powers below 2n neurons: the joint equations, their derivative, and what they may claim."""

from __future__ import annotations

import time

import numpy as np
import pytest

import identify
from identify.budget import Budget
from identify.disaggregation.search.joint import joint_of, joint_power, solve_joint
from identify.disaggregation.search.pose import pose
from identify.model.deep import DeepGradient
from tests.identify.disaggregation.problems import initialise
from tests.identify.disaggregation.search.families import distances


def network_and_batch(count, width, seed, degree=3, dimension=30):
    rng = np.random.default_rng(seed)
    network = initialise([dimension, width, 1], rng, f"monomial:{degree}", bias=False)
    batch = rng.normal(size=(count, dimension))
    p = rng.uniform(0.3, 0.7, (count, 1)) * rng.choice([-1.0, 1.0], (count, 1))
    return network, network.gradient(batch, p), batch, p


def posed_joint(network, gradient):
    spaces = pose(network, gradient, None, samples=None, seed=0).spaces
    joint = joint_of(spaces)
    assert joint is not None
    return spaces, joint


@pytest.mark.parametrize(("degree", "count", "width"), [(3, 4, 7), (3, 5, 6), (5, 3, 5), (7, 2, 3)])
def test_the_true_samples_solve_the_equations_and_the_derivative_is_right(degree, count, width):
    network, gradient, batch, p = network_and_batch(count, width, 1, degree)
    spaces, joint = posed_joint(network, gradient)
    own = np.sign(p) * np.abs(p) ** (1.0 / degree) * batch
    z = np.linalg.solve(joint.back, (own @ spaces.bottom.rows).T)
    residual, t = joint.residual(z)
    assert np.linalg.norm(residual) < 1e-10
    jacobian = joint.jacobian(z, t)
    step = np.random.default_rng(2).normal(size=z.shape)
    slow = (joint.residual(z - 1e-6 * step)[0] - joint.residual(z + 1e-6 * step)[0]) / 2e-6
    fast = (jacobian @ step.T.ravel()).reshape(slow.shape)
    assert np.linalg.norm(fast - slow) < 1e-7 * np.linalg.norm(fast)


@pytest.mark.parametrize(
    ("degree", "count", "width", "seed"),
    [(3, 4, 6, 0), (3, 5, 8, 1), (3, 6, 9, 2), (3, 5, 9, 3), (5, 3, 5, 4)],
)
def test_candidates_below_2n_neurons_and_no_verdict(degree, count, width, seed):
    network, gradient, batch, _ = network_and_batch(count, width, seed, degree)
    report = identify.assess_gradient(network, gradient)
    assert report.verdict == "undecided"
    assert report.found.power < 1
    assert "all samples together" in report.reason
    assert report.candidates
    apart = distances(report, batch)
    assert len(apart) == count
    assert (apart <= 3.0 * report.found.error_bounds + 1e-12).all()
    report.to_json()


@pytest.mark.parametrize("seed", range(3))
def test_float32_is_covered_by_the_bounds(seed):
    network, gradient, batch, _ = network_and_batch(5, 8, seed)
    single = DeepGradient([w.astype(np.float32) for w in gradient.weights], gradient.biases)
    report = identify.assess_gradient(network, single)
    apart = distances(report, batch)
    assert len(apart) == 5
    assert (apart <= 3.0 * report.found.error_bounds).all()


def test_square_systems_are_left_alone():
    # m = n: every gradient has solutions, whatever the batch was.
    network, gradient, _, _ = network_and_batch(5, 5, 0)
    spaces, joint = posed_joint(network, gradient)
    assert joint_power(joint, spaces.rank) < 1
    report = identify.assess_gradient(network, gradient)
    assert report.found.samples is None


def test_equal_neurons_are_no_equations():
    network, _, batch, p = network_and_batch(4, 5, 0)
    weights = [np.repeat(network.weights[0][:4], 2, axis=0), np.ones((1, 8))]
    same = identify.DeepNetwork(weights, [None, None], "monomial:3")
    spaces = pose(same, same.gradient(batch, p), None, samples=None, seed=0).spaces
    joint = joint_of(spaces)
    assert joint is not None
    assert joint_power(joint, spaces.rank) < 1


@pytest.mark.parametrize("name", ["monomial:4", "tanh"])
def test_even_powers_and_other_activations_have_none(name):
    rng = np.random.default_rng(0)
    network = initialise([20, 6, 1], rng, name, bias=False)
    gradient = network.gradient(rng.normal(size=(4, 20)), np.ones((4, 1)))
    assert joint_of(pose(network, gradient, None, samples=None, seed=0).spaces) is None


@pytest.mark.parametrize(("count", "width"), [(4, 6), (3, 5), (3, 4)])
def test_data_that_no_batch_explains_give_nothing(count, width):
    network, gradient, _, _ = network_and_batch(count, width, 0)
    rng = np.random.default_rng(3)
    permuted = DeepGradient([gradient.weights[0][rng.permutation(width)], None], gradient.biases)
    report = identify.assess_gradient(network, permuted, time_limit=20.0)
    assert report.verdict == "undecided"
    assert report.found.samples is None


def test_the_time_limit_ends_the_search():
    network, gradient, _, _ = network_and_batch(5, 8, 0)
    spaces, joint = posed_joint(network, gradient)
    found = solve_joint(
        joint, spaces.rank, np.random.default_rng(0), Budget(time.monotonic() - 1.0)
    )
    assert (len(found.points), found.starts) == (0, 0)
    assert "time limit" in found.stopped
