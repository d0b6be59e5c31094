"""The samples between two checkpoints of a known recipe, and what is not said without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from identify.checkpoints import replay_sides
from identify.checkpoints.recipe import Recipe, parse_open_recipe
from identify.checkpoints.replay import replay_samples, retrain
from identify.checkpoints.replay_problem import begin_at, pose
from identify.checkpoints.replay_search import search_recipe
from identify.checkpoints.replay_sides import trace
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


@pytest.mark.parametrize("sizes", [(20, 80, 6), (20, 120, 1)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu:0.1"])
def test_relu_networks_come_back_exactly_from_random_points(sizes, activation):
    recipe = replace(RECIPE, loss="cross_entropy" if sizes[-1] > 1 else "logistic")
    rng = np.random.default_rng(1)
    net = training.start(sizes, rng, activation)
    x = rng.normal(size=(4, 20))
    y = rng.integers(0, 6, 4).astype(float) if sizes[-1] > 1 else np.array([1.0, -1.0, 1.0, -1.0])
    end = retrain(net, x, y, recipe)
    found = replay_samples(net, end, find_span(net, end), recipe, y)
    assert found.determined
    assert errors(found.samples, x).max() < 1e-9
    assert np.all(errors(found.samples, x) <= found.error_bounds.max())


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_mini_batches_of_a_known_order(activation):
    order = np.array([[0, 1], [2, 3], [1, 2], [0, 3]] * 5)
    recipe = Recipe(20, 0.2, 0.5, order=order)
    net, end, x, y = pair(11, activation, (20, 90, 6), recipe=recipe)
    found = replay_samples(net, end, find_span(net, end), recipe, y)
    assert found.determined
    assert errors(found.samples, x).max() < 1e-9
    shuffled = replace(recipe, order=order[::-1].copy())
    assert not replay_samples(net, end, find_span(net, end), shuffled, y, start=x).determined


@pytest.mark.parametrize(("activation", "outputs"), [("gelu", 6), ("relu", 6), ("relu", 1)])
def test_labels_are_found(activation, outputs):
    recipe = replace(RECIPE, loss="cross_entropy" if outputs > 1 else "logistic")
    rng = np.random.default_rng(2)
    net = training.start((40, 200, outputs), rng, activation)
    x = rng.normal(size=(4, 40))
    y = np.array([0.0, 3.0, 3.0, 5.0]) if outputs > 1 else np.array([1.0, -1.0, -1.0, 1.0])
    end = retrain(net, x, y, recipe)
    found = replay_samples(net, end, find_span(net, end), recipe)
    assert found.determined
    nearest = np.linalg.norm(found.samples[:, None] - x[None], axis=2).argmin(axis=0)
    assert np.array_equal(found.labels[nearest], y)
    assert errors(found.samples, x).max() < 1e-9
    assert "labels" in found.fitted


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize(("text", "steps"), [("steps=9-40", 25), ("steps=25", 25)])
def test_steps_and_rate_are_found(activation, text, steps):
    net, end, x, y = pair(12, activation, (20, 90, 6))
    asked = parse_open_recipe(f"{text},momentum=0.5")
    found = search_recipe(net, end, find_span(net, end), asked, y)
    assert found.determined
    assert found.steps == steps
    assert found.rate == pytest.approx(RECIPE.rate, rel=1e-8)
    assert errors(found.samples, x).max() < 1e-8


def test_a_range_without_the_number_of_steps_is_never_determined():
    net, end, _, y = pair(13, sizes=(20, 90, 6))
    asked = parse_open_recipe("steps=10-18,momentum=0.5")
    found = search_recipe(net, end, find_span(net, end), asked, y)
    assert not found.determined
    assert "do not reach" in str(found)


def test_held_sides_are_those_of_the_run():
    net, end, x, y = pair(14, "relu", (20, 80, 6))
    span = find_span(net, end)
    problem = pose(net, end, span, RECIPE, y, fit_rate=False)
    u = begin_at(problem, span, x + 0.1, np.random.default_rng(0))
    run = trace(problem, u)
    np.testing.assert_array_equal(run.residual, problem.residual(u))
    held = run.preactivations > 0.0
    np.testing.assert_allclose(problem.residual(u, sides=held), run.residual, atol=1e-12)
    rows = np.arange(80)
    neurons = replay_sides._Neurons(problem, u, run.slopes)
    far, z = neurons.replay(rows, np.zeros((80, *held.shape[:2]), dtype=bool))
    np.testing.assert_allclose(z, run.preactivations.transpose(2, 0, 1), atol=1e-12)
    whole = run.residual[: 80 * 4].reshape(80, 4)
    outer = run.residual[80 * 4 :].reshape(6, 81)[:, :80].T
    wanted = np.sqrt(np.sum(whole**2, axis=1) + np.sum(outer**2, axis=1))
    np.testing.assert_allclose(far, wanted, atol=1e-12)
    slopes = problem.jacobian(u, sides=held)
    direction = np.random.default_rng(1).normal(size=len(u))
    step = 1e-6
    ahead, behind = (problem.residual(u + s * step * direction, sides=held) for s in (1, -1))
    slope = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(slopes @ direction, slope, atol=1e-4 * np.abs(slope).max())
