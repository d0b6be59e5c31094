"""Statements about stationary points and the sources of Hermite data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from identify import TwoLayerNetwork
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.statements.kkt import balance as kkt
from proofs_check.statements.kkt import fine_tuning, gradients, multipliers, sources, symmetries
from proofs_check.strategies import GradientProblem, SampleSet
from tests.proofs_check import helpers


def samples(degree=3, count=3, seed=1):
    """Orthonormal samples with equal coefficients."""
    drawn = strategies.draw_samples("orthonormal", count, count + 1, seed)
    return SampleSet("orthonormal", drawn, np.full(count, 0.5), degree, seed)


def problem(degree=3, kind="generic", width=5, seed=2):
    """A random network with a batch of three."""
    rng = np.random.default_rng(seed)
    net = TwoLayerNetwork(rng.standard_normal((width, 4)), rng.uniform(0.5, 1, width), degree)
    drawn = strategies.draw_samples(kind, 3, 4, seed)
    return GradientProblem(net, SampleSet(kind, drawn, np.array([1.0, -0.7, 0.4]), degree, seed))


def test_rescaled_samples_have_unit_margins():
    point = kkt.equalise(strategies.stationary_point(samples()))
    np.testing.assert_allclose(kkt.margins(point), 1.0, rtol=1e-13)
    total = np.sum(point.network.output_weight**2)
    assert total == pytest.approx(np.sum(np.abs(point.data.coefficients)), rel=1e-13)
    helpers.assert_instance(multipliers.MULTIPLIERS, point)


def test_unequal_margins_break_the_sum():
    data = replace(samples(), coefficients=np.array([0.5, 1.0, 2.0]))
    point = strategies.stationary_point(data)
    helpers.assert_counterexample(multipliers.MULTIPLIERS, "equal-margins", point)


@pytest.mark.parametrize(("row", "height"), [(0.0, 1.0), (1.0, 0.0)])
def test_half_a_neuron_is_not_stationary(row, height):
    point = strategies.stationary_point(samples())
    net = point.network
    grown = TwoLayerNetwork(
        np.vstack([net.hidden_weight, np.full(4, row)]), np.append(net.output_weight, height), 3
    )
    helpers.assert_counterexample(kkt.DEAD, "stationary", replace(point, network=grown))


def test_negative_factor_keeps_odd_degrees_and_not_even_ones():
    odd = symmetries.ScaledPoint(strategies.stationary_point(samples(3)), -2.0)
    assert symmetries.SCALE.conclusion(odd).holds
    even = symmetries.ScaledPoint(strategies.stationary_point(samples(4)), -2.0)
    helpers.assert_counterexample(symmetries.SCALE, "positive", even)


def test_wrong_parity_changes_the_network():
    helpers.assert_instance(symmetries.NEURONS, symmetries.Flip(problem(3), "both"))
    wrong = symmetries.Flip(problem(3), "hidden")
    helpers.assert_counterexample(symmetries.NEURONS, "parity", wrong)


def test_decay_in_a_gradient_breaks_euler():
    entry = problem()
    helpers.assert_instance(gradients.EULER, gradients.Reading(entry.network, entry.data))
    decayed = gradients.Reading(entry.network, entry.data, decay=0.01)
    helpers.assert_counterexample(gradients.EULER, "no-decay", decayed)
    helpers.assert_counterexample(gradients.GRADIENT_SOURCE, "no-decay", decayed)


def test_one_step_from_the_first_weights_is_exact():
    run = fine_tuning.Descent(problem(), 1, 0.1, "initial")
    path = fine_tuning.descend(run)
    data = fine_tuning.HermiteData.from_fine_tuning(*path.networks, point="initial")
    batch = run.problem.data.samples
    assert np.all(fine_tuning.first_order_bound(path, data, batch) < 1e-14)
    slopes = sources.tensor_slopes(data.points, batch, path.shares.sum(axis=0), 3)
    np.testing.assert_allclose(data.scales[:, None] * slopes, data.rows, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, (0.3, -1.0, 0.5, 1.0)])
def test_rational_gradient_is_the_gradient(bias, activation):
    entry = problem()
    net = replace(entry.network, activation=activation)
    if bias:
        net = replace(net, hidden_bias=np.linspace(-1.0, 1.0, net.width))
    hidden, output = rational.gradient(net, entry.data.samples, entry.data.coefficients)
    expected = net.gradient(entry.data.samples, entry.data.coefficients)
    np.testing.assert_allclose(rational.floats(hidden), expected.points, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(rational.floats(output), expected.output_weight, rtol=1e-11)
    values = rational.floats(rational.value(net, entry.data.samples))
    np.testing.assert_allclose(values, net.value(entry.data.samples), rtol=1e-11)
