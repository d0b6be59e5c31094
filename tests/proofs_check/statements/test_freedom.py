"""Statements about what weights leave free."""

from __future__ import annotations

import numpy as np
import pytest

from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.statements.freedom import never_identifiable, relu, relu_networks, shadows
from proofs_check.statements.freedom import off_span as freedom
from proofs_check.strategies import SampleSet
from tests.proofs_check import helpers


def shadow(count=4, dimension=5, neurons=2, *, bias=False, seed=1):
    """A stationary network of few neurons on generic samples."""
    samples = strategies.draw_samples("generic", count, dimension, seed)
    b = np.array([1.0, -0.7, 0.6, 1.2])[:count]
    data = SampleSet("generic", samples, b, 3, seed)
    return shadows.cast_shadow(data, neurons, bias=bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", freedom.MAPS)
def test_maps_off_the_span(kind, bias):
    case = freedom.OffSpan(shadow(bias=bias), kind)
    helpers.assert_instance(freedom.OFF_SPAN, case)
    x = case.shadow.data.samples
    moved = freedom.move_samples(case, freedom.draw_map(case))
    assert np.max(np.linalg.norm(moved - x, axis=1)) > 0.1
    assert freedom.OFF_SPAN.recheck(case).holds


def test_a_map_that_moves_the_bias_is_seen():
    case = freedom.OffSpan(shadow(bias=True), "any", loose=True)
    helpers.assert_counterexample(freedom.OFF_SPAN, "bias", case)


def test_one_direction_of_the_bias_leaves_no_room():
    samples = np.array([[-0.3], [1.0]])
    data = SampleSet("given", samples, np.array([1.0, 0.8]), 3, 0)
    cramped = shadows.cast_shadow(data, 1, bias=True)
    assert cramped.outside.shape == (2, 1)
    helpers.assert_counterexample(never_identifiable.NEVER, "room", cramped)
    helpers.assert_instance(never_identifiable.NEVER, shadow(bias=True))


def deep(seed=0, widths=(5, 4)):
    """A network of two hidden layers and a point."""
    rng = np.random.default_rng(seed)
    return relu_networks.draw_layers(3, widths, rng), rng.standard_normal(3)


def test_relu_gradients_agree_with_differences():
    layers, x = deep()
    slope, weights = relu_networks.gradients(layers, x)
    step = 1e-6
    for axis in range(3):
        move = step * np.eye(3)[axis]
        ahead = relu_networks.value(layers, x + move) - relu_networks.value(layers, x - move)
        assert ahead / (2 * step) == pytest.approx(slope[axis], rel=1e-6, abs=1e-8)
    for depth, found in enumerate(weights):
        # f is linear in each layer on one pattern, so that <W, df/dW> = f.
        total = float(np.sum(found * layers[depth]))
        assert total == pytest.approx(relu_networks.value(layers, x), rel=1e-12)


def test_relu_gradients_in_fractions():
    layers, x = deep()
    exact = tuple(rational.exact(weight) for weight in layers)
    fractions = relu_networks.gradients(exact, rational.exact(x))[1]
    for found, expected in zip(fractions, relu_networks.gradients(layers, x)[1], strict=True):
        np.testing.assert_allclose(rational.floats(found), expected, rtol=1e-12, atol=1e-14)


def one_layer(samples, coefficients, steps=None):
    """Samples of the network relu(x_1) + relu(x_2)."""
    layers = (np.eye(2), np.ones((1, 2)))
    given = layers, np.array(samples), np.array(coefficients), 0
    return relu.Change(*given) if steps is None else relu.Split(*given, *steps)


def test_merging_by_hand():
    pair = one_layer([[0.25, 0.75], [0.5, 0.5]], [1.0, 3.0])
    samples, heights = relu.merge(pair)
    np.testing.assert_allclose(samples, [[0.4375, 0.5625]])
    assert heights == pytest.approx(4.0)
    helpers.assert_instance(relu.MERGE, pair)
    apart = one_layer([[1.0, -1.0], [0.5, 0.5]], [1.0, 3.0])
    helpers.assert_counterexample(relu.MERGE, "pattern", apart)


def test_splitting_by_hand():
    level = np.array([1.0, -1.0])
    change = one_layer([[0.5, 0.5]], [2.0], (level, 0.25, 0.125))
    samples, heights = relu.split(change)
    np.testing.assert_allclose(samples, [[0.75, 0.25], [0.375, 0.625]])
    np.testing.assert_allclose(heights, [2.0 / 3.0, 4.0 / 3.0])
    helpers.assert_instance(relu.SPLIT, change)
    steep = one_layer([[0.5, 0.5]], [2.0], (np.array([1.0, 1.0]), 0.25, 0.125))
    helpers.assert_counterexample(relu.SPLIT, "level", steep)
    far = one_layer([[0.5, 0.5]], [2.0], (level, 0.75, 0.125))
    helpers.assert_counterexample(relu.SPLIT, "pattern", far)
