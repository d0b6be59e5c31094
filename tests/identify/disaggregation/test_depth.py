"""From the last hidden layer down: planted batches, and where the way ends."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from identify.assess_batch import assess_gradient
from identify.disaggregation.depth import AtTheTop, descend
from identify.model.deep import DeepGradient, DeepNetwork

from .problems import distances, plant


def follow(problem, *, scaled=True, gradient=None):
    run = problem.network.forward(problem.samples)
    top = problem.network.depth - 2
    slopes = problem.network.activations[top].slope(run.preactivations[top])
    h, p = run.inputs[top], problem.cotangents
    if not scaled:
        size = np.linalg.norm(h, axis=1, keepdims=True)
        h, p = h / size, p * size
    return descend(
        problem.network,
        problem.gradient if gradient is None else gradient,
        AtTheTop(h, p, slopes, scaled=scaled, accuracy=1e-9),
    )


@pytest.mark.parametrize("activation", ["relu", "leaky_relu:0.1", "elu", "tanh", "softplus"])
@pytest.mark.parametrize("sizes", [[9, 20, 1], [9, 15, 20, 3], [9, 14, 16, 20, 2]])
def test_reaches_the_input(activation, sizes):
    problem = plant(sizes, 5, 0, activation)
    found = follow(problem)
    assert (found.layer, found.stopped) == (0, "")
    assert distances(found.inputs, problem.samples).max() < 1e-8
    ones = np.array(found.ones[:-2])
    assert (ones < 1e-8).all()


def test_a_bias_below_fixes_the_scale():
    problem = plant([9, 15, 20, 1], 4, 1)
    network = problem.network
    open_network = type(network)(
        network.weights, [network.biases[0], None, network.biases[2]], "relu"
    )
    gradient = open_network.gradient(problem.samples, problem.cotangents)
    run = open_network.forward(problem.samples)
    size = np.linalg.norm(run.inputs[1], axis=1, keepdims=True)
    found = descend(
        open_network,
        gradient,
        AtTheTop(
            run.inputs[1] / size,
            problem.cotangents * size,
            (run.preactivations[1] > 0).astype(float),
            scaled=False,
            accuracy=1e-9,
        ),
    )
    assert found.scaled
    assert distances(found.inputs, problem.samples).max() < 1e-9
    np.testing.assert_allclose(found.cotangents, problem.cotangents, rtol=1e-8)


def test_without_any_bias_directions_are_left():
    problem = plant([9, 15, 20, 1], 4, 1, bias=False)
    found = follow(problem, scaled=False)
    assert not found.scaled
    true = problem.samples / np.linalg.norm(problem.samples, axis=1, keepdims=True)
    shown = found.inputs / np.linalg.norm(found.inputs, axis=1, keepdims=True)
    assert distances(shown, true).max() < 1e-9


def test_a_narrow_layer_ends_the_way():
    problem = plant([9, 3, 30, 1], 5, 0)
    found = follow(problem)
    assert found.layer == 1
    assert "dependent" in found.stopped
    run = problem.network.forward(problem.samples)
    assert distances(found.inputs, run.inputs[1]).max() < 1e-8


def test_a_layer_without_its_gradient_ends_the_way():
    problem = plant([9, 15, 20, 1], 4, 1)
    g = problem.gradient
    found = follow(problem, gradient=DeepGradient((None, *g.weights[1:]), (None, *g.biases[1:])))
    assert (found.layer, "not supplied" in found.stopped) == (1, True)


def test_values_that_hide_the_slope_end_the_way():
    problem = plant([9, 15, 20, 1], 4, 1, "gelu")
    found = follow(problem)
    assert (found.layer, "gelu" in found.stopped) == (1, True)


@pytest.mark.parametrize("kinds", [
    ["sigmoid", "relu"], ["softplus", "relu"], ["elu", "relu"], ["relu", "relu"],
    ["sigmoid", "softplus", "relu"], ["elu", "sigmoid"],
])  # fmt: skip
def test_a_black_input_without_the_gradient_of_its_bias_is_undecided(kinds):
    """The gradient of the first layer is all 0: it shows neither a rank nor a length."""
    rng = np.random.default_rng(0)
    sizes = [6, 30, *[20] * (len(kinds) - 2), 40, 1]
    weights = [rng.normal(size=(n, k)) for k, n in pairwise(sizes)]
    network = DeepNetwork(weights, [rng.normal(size=n) for n in sizes[1:]], kinds)
    g = network.gradient(np.zeros((1, 6)), [[0.3]])
    report = assess_gradient(network, DeepGradient(g.weights, (None, *g.biases[1:])))
    assert report.verdict == "undecided"
    if kinds[-1] == "relu":
        assert "gradient of layer 1 is 0" in report.reason
        entered = network.forward(np.zeros((1, 6))).inputs[1]
        assert report.found.layer in (1, 2)
        assert report.found.layer == 2 or distances(report.found.samples, entered).max() < 1e-8
