"""The samples between two checkpoints of a known recipe, and what is not said without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from identify.checkpoints.recipe import Recipe
from identify.checkpoints.replay import replay_samples, retrain
from identify.checkpoints.span import find_span
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork
from tests.identify.checkpoints import training

RECIPE = Recipe(25, 0.3, 0.5)


def pair(seed, activation="gelu", sizes=(20, 60, 6), count=4, recipe=RECIPE, biases=True):
    rng = np.random.default_rng(seed)
    net = training.start(sizes, rng, activation)
    if not biases:
        net = DeepNetwork(net.weights, None, activation)
    x, y = rng.normal(size=(count, sizes[0])), rng.integers(0, sizes[-1], count).astype(float)
    return net, retrain(net, x, y, recipe), x, y


def errors(found, x):
    distances = np.linalg.norm(found[:, None] - x[None], axis=2)
    return distances.min(axis=0) / np.linalg.norm(x, axis=1)


@pytest.mark.parametrize("activation", ["gelu", "tanh", "silu"])
@pytest.mark.parametrize("sizes", [(20, 60, 6), (20, 50, 40, 6)])
def test_samples_come_back_exactly(activation, sizes):
    net, end, x, y = pair(0, activation, sizes)
    found = replay_samples(net, end, find_span(net, end), RECIPE, y)
    assert found.determined
    assert errors(found.samples, x).max() < 1e-9
    assert np.all(errors(found.samples, x) <= found.error_bounds.max())
    again = retrain(net, found.samples, y, RECIPE)
    for a, b in zip(again.weights, end.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_decay_and_no_biases():
    recipe = Recipe(20, 0.3, 0.0, 1e-3)
    net, end, x, y = pair(1, recipe=recipe, biases=False)
    span = find_span(net, end)
    assert span.samples == len(x)
    found = replay_samples(net, end, span, recipe, y, start=1.05 * x)
    assert found.determined
    assert errors(found.samples, x).max() < 1e-9


def test_the_rate_is_fitted():
    net, end, x, y = pair(2)
    wrong = replace(RECIPE, rate=1.05 * RECIPE.rate)
    span = find_span(net, end)
    taken = replay_samples(net, end, span, wrong, y, starts=1, start=x)
    assert not taken.determined
    fitted = replay_samples(net, end, span, wrong, y, fit_rate=True)
    assert fitted.determined
    assert fitted.rate == pytest.approx(RECIPE.rate, rel=1e-9)
    assert errors(fitted.samples, x).max() < 1e-8


@pytest.mark.parametrize("change", [{"steps": 24}, {"steps": 30}, {"momentum": 0.6}])
def test_another_recipe_is_never_determined(change):
    net, end, x, y = pair(3)
    found = replay_samples(
        net, end, find_span(net, end), replace(RECIPE, **change), y, start=x, fit_rate=True
    )
    assert not found.determined
    assert "candidates" in str(found)


def test_a_wrong_label_is_never_determined():
    net, end, _, y = pair(4)
    wrong = y.copy()
    wrong[0] = (wrong[0] + 1) % 6
    found = replay_samples(net, end, find_span(net, end), RECIPE, wrong, starts=2)
    assert not found.determined


def test_float32_checkpoints_give_what_their_rounding_leaves():
    net, end, x, y = pair(5)

    def stored(network):
        weights = [w.astype(np.float32) for w in network.weights]
        return DeepNetwork(weights, [b.astype(np.float32) for b in network.biases], "gelu")

    start = stored(net)
    end = stored(retrain(start, x, y, RECIPE))
    found = replay_samples(start, end, find_span(start, end), RECIPE, y)
    assert found.determined
    assert 1e-12 < errors(found.samples, x).max() < 1e-3
    assert np.all(errors(found.samples, x) <= found.error_bounds.max())


def test_a_relu_network_from_a_start_nearby():
    net, end, x, y = pair(6, "relu", sizes=(20, 80, 6))
    rng = np.random.default_rng(0)
    near = x + 0.05 * rng.normal(size=x.shape)
    found = replay_samples(net, end, find_span(net, end), RECIPE, y, start=near)
    assert errors(found.samples, x).max() < 0.05


def test_the_time_limit_keeps_a_result():
    net, end, x, y = pair(7, "relu")
    found = replay_samples(net, end, find_span(net, end), RECIPE, y, time_limit=0.01)
    assert found.timed_out
    assert found.samples.shape == x.shape


def test_what_does_not_fit_is_refused():
    net, end, _, y = pair(8)
    span = find_span(net, end)
    with pytest.raises(InvalidInputError, match="labels"):
        replay_samples(net, end, span, RECIPE, y[1:])
    rng = np.random.default_rng(0)
    adam = training.train(net, rng.normal(size=(4, 20)), y, training.Recipe("adam", 9, 1e-3), rng)
    with pytest.raises(InvalidInputError, match="span"):
        replay_samples(net, adam, find_span(net, adam), RECIPE, y)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_one_sample_is_its_span(activation):
    net, end, x, y = pair(9, activation, count=1)
    found = replay_samples(net, end, find_span(net, end), RECIPE, y)
    assert found.determined
    assert errors(found.samples, x).max() < 1e-9


def test_biases_that_were_not_trained_are_refused():
    net, _, x, y = pair(10)
    step = net.gradient(x, np.ones((4, 6)))
    moved = [w - 0.1 * g for w, g in zip(net.weights, step.weights, strict=True)]
    end = DeepNetwork(moved, net.biases, "gelu")
    with pytest.raises(InvalidInputError, match="biases"):
        replay_samples(net, end, find_span(net, end), RECIPE, y)
