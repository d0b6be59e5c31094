"""The samples between two checkpoints of a ReLU network whose recipe nobody knows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from identify.checkpoints import pair_masks
from identify.checkpoints.pair import check_pair, separate_pair
from identify.checkpoints.pair_problem import pose_pair
from identify.checkpoints.recipe import Recipe
from identify.checkpoints.replay import retrain
from identify.checkpoints.span import find_span
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.deep import DeepNetwork
from tests.identify.checkpoints import training

FAR = 0.05


def pair(seed, *, count=6, width=300, outputs=1, activation="relu", recipe=None):
    rng = np.random.default_rng(seed)
    net = training.start((60, width, outputs), rng, activation)
    x = rng.normal(size=(count, 60))
    if outputs == 1:
        y = np.where(np.arange(count) % 2, 1.0, -1.0)
        recipe = recipe or Recipe(30, 0.1, loss="logistic")
    else:
        y = rng.integers(0, outputs, count).astype(float)
        recipe = recipe or Recipe(30, 0.1)
    return net, retrain(net, x, y, recipe), x, y


def nearest(found, x):
    away = np.linalg.norm(found[:, None] - x[None], axis=2)
    return away.argmin(axis=0), away.min(axis=0) / np.linalg.norm(x, axis=1)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu:0.1"])
@pytest.mark.parametrize("seed", range(3))
def test_every_sample_comes_back_with_its_label(activation, seed):
    net, end, x, y = pair(seed, activation=activation)
    found = separate_pair(net, end, find_span(net, end))
    which, away = nearest(found.samples, x)
    assert away.max() < FAR
    assert np.array_equal(found.labels[which], y)
    assert found.candidates
    assert found.verdict == "undecided"
    assert found.redundancy > 0


@pytest.mark.parametrize("recipe", [
    Recipe(30, 0.02, 0.9, loss="logistic"),
    Recipe(80, 0.1, loss="logistic"),
    Recipe(30, 0.1, 0.0, 1e-3, loss="logistic"),
    Recipe(30, 0.03, loss="squared"),
])  # fmt: skip
def test_the_recipe_does_not_matter(recipe):
    net, end, x, y = pair(0, recipe=recipe)
    found = separate_pair(net, end, find_span(net, end))
    which, away = nearest(found.samples, x)
    assert away.max() < FAR
    assert np.array_equal(found.labels[which], y)


def test_several_outputs():
    net, end, x, y = pair(1, outputs=4, width=400)
    found = separate_pair(net, end, find_span(net, end))
    which, away = nearest(found.samples, x)
    assert away.max() < FAR
    assert np.array_equal(found.labels[which], y)


def test_mini_batches():
    rng = np.random.default_rng(3)
    net = training.start((60, 400, 3), rng)
    x, y = rng.normal(size=(6, 60)), np.arange(6.0) % 3
    end = training.train(net, x, y, training.Recipe("plain", 40, 0.1, batch=2), rng)
    found = separate_pair(net, end, find_span(net, end))
    assert nearest(found.samples, x)[1].max() < FAR


def test_random_changes_have_no_candidates():
    rng = np.random.default_rng(5)
    for count in (4, 8):
        net = training.start((60, 200, 1), rng)
        change = rng.normal(size=(200, count)) @ rng.normal(size=(count, 61))
        change *= 0.3 * np.linalg.norm(net.weights[0]) / np.linalg.norm(change)
        end = DeepNetwork(
            [net.weights[0] + change[:, :-1], 1.1 * net.weights[1]],
            [net.biases[0] + change[:, -1], net.biases[1]], "relu",
        )  # fmt: skip
        found = separate_pair(net, end, find_span(net, end))
        assert found.span == count
        assert not found.candidates
        assert "no candidates" in str(found)


def test_fewer_neurons_than_samples_need_have_no_candidates():
    net, end, *_ = pair(6, count=10, width=30)
    found = separate_pair(net, end, find_span(net, end))
    assert not found.candidates


def test_adam_has_neither_span_nor_candidates():
    rng = np.random.default_rng(7)
    net = training.start((60, 100, 3), rng)
    x, y = rng.normal(size=(6, 60)), np.arange(6.0) % 3
    end = training.train(net, x, y, training.Recipe("adam", 15, 1e-3), rng)
    found = separate_pair(net, end, find_span(net, end))
    assert found.span is None
    assert not found.covered
    assert found.samples is None
    assert found.to_dict()["residual"] is None


def test_free_entries_are_the_least_squares_in_the_box():
    rng = np.random.default_rng(8)
    net, end, x, _ = pair(9, count=5, width=40)
    problem = pose_pair(net, end, find_span(net, end))
    points = find_span(net, end).lifted(x) @ find_span(net, end).basis.T
    amplitudes = rng.normal(size=(40, 5))
    free = rng.random((40, 5)) < 0.4
    on = ~free & (rng.random((40, 5)) < 0.5)
    found = pair_masks._between(problem, points, amplitudes, 0.0, on, free)
    size = np.where(free, np.abs(amplitudes), 0.0)
    low, high = np.minimum(0.0, amplitudes), np.maximum(0.0, amplitudes)
    assert np.array_equal(found[on], amplitudes[on])
    assert not found[~free & ~on].any()
    assert np.all(found >= low)
    assert np.all(found <= high)
    best = np.sum((problem.change - found @ points) ** 2)
    for _ in range(200):
        other = np.clip(found + 0.05 * size * rng.normal(size=size.shape), low, high)
        other = np.where(free, other, found)
        assert np.sum((problem.change - other @ points) ** 2) >= best * (1.0 - 1e-6)


@pytest.mark.parametrize("off", [0.1, 0.3])
def test_alternation_finds_the_samples_from_points_nearby(off):
    net, end, x, _ = pair(2)
    span = find_span(net, end)
    problem = pose_pair(net, end, span)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=x.shape)
    near = x + off * noise * np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(
        noise, axis=1, keepdims=True
    )
    points = problem.scaled(span.lifted(near) @ span.basis.T)
    amplitudes = problem.change @ np.linalg.pinv(points)
    cotangents = amplitudes * (problem.before @ points.T > 0.0)
    layer = pair_masks._layer(problem, 0.0, moving=True)
    begin = pair_masks._unfitted(cotangents, amplitudes, len(x))
    found = pair_masks.alternate(problem, layer, begin, 12.0, bent=True)
    assert nearest(found.points @ span.basis[:, :-1], x)[1].max() < FAR


def test_what_is_not_covered_is_refused():
    net, end, *_ = pair(3)
    deep = training.start((60, 20, 10, 1), np.random.default_rng(0))
    for first, last in itertools.product((net, deep), repeat=2):
        if first is net and last is net:
            continue
        with pytest.raises(NotYetSupportedError, match="3 linear layers"):
            check_pair(first, last)
    smooth = DeepNetwork(net.weights, net.biases, "gelu")
    with pytest.raises(NotYetSupportedError, match="gelu"):
        check_pair(smooth, smooth)
    bare = DeepNetwork(net.weights, None, "relu")
    with pytest.raises(NotYetSupportedError, match="without a first bias"):
        check_pair(bare, bare)
    wide = training.start((60, 301, 1), np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match="shapes"):
        check_pair(net, wide)
    frozen = DeepNetwork(end.weights, [net.biases[0], end.biases[1]], "relu")
    with pytest.raises(NotYetSupportedError, match="did not move"):
        separate_pair(net, frozen, find_span(net, frozen))
    span = find_span(net, end)
    with pytest.raises(InvalidInputError, match="seed"):
        separate_pair(net, end, span, seed=-1)
    with pytest.raises(InvalidInputError, match="span"):
        pose_pair(net, end, replace(span, basis=span.basis[:0], reason="none"))


def test_the_time_limit_keeps_a_result():
    net, end, x, _ = pair(4)
    found = separate_pair(net, end, find_span(net, end), time_limit=1e-3)
    assert found.timed_out
    assert found.samples.shape == x.shape
