"""Training in the span is training, and its tangents are its derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from identify.checkpoints.recipe import Recipe, parse_open_recipe
from identify.checkpoints.replay import retrain
from identify.checkpoints.simulate import Smoothed, SpanNetwork, tangents, train
from identify.errors import InvalidInputError
from tests.identify.checkpoints import training


@pytest.mark.parametrize("sizes", [(7, 9, 3), (7, 9, 6, 3)])
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("rule", ["plain", "momentum"])
def test_retraining_is_the_reference_training(sizes, activation, rule):
    rng = np.random.default_rng(0)
    net = training.start(sizes, rng, activation)
    x, y = rng.normal(size=(4, 7)), rng.integers(0, 3, 4).astype(float)
    wanted = training.train(net, x, y, training.Recipe(rule, 11, 0.1, 0.01), rng)
    momentum = 0.9 if rule == "momentum" else 0.0
    got = retrain(net, x, y, Recipe(11, 0.1, momentum, 0.01))
    for a, b in zip((*got.weights, *got.biases), (*wanted.weights, *wanted.biases), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def network(rng, activation, biased, outputs):
    sizes = (5, 8, 6, outputs)
    whole = training.start(sizes, rng, activation)
    layers = [
        np.column_stack([w, b]) if index and biased else w
        for index, (w, b) in enumerate(zip(whole.weights, whole.biases, strict=True))
    ]
    return SpanNetwork(
        tuple(layers), (False, biased, biased), whole.activations, (False, False, False)
    )


@pytest.mark.parametrize("activation", ["gelu", "tanh", "silu", "sigmoid", "monomial:3"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("loss", "outputs"), [
    ("cross_entropy", 3), ("logistic", 1), ("squared", 2),
])  # fmt: skip
def test_tangents_are_differences(activation, biased, loss, outputs):
    rng = np.random.default_rng(1)
    net = network(rng, activation, biased, outputs)
    points = 0.5 * rng.normal(size=(4, 5))
    labels = {
        "cross_entropy": rng.integers(0, 3, 4).astype(float),
        "logistic": rng.choice([-1.0, 1.0], 4),
        "squared": rng.normal(size=(4, 2)),
    }[loss]
    recipe = Recipe(7, 0.03, 0.5, 0.02, loss)
    directions = rng.normal(size=(3, 4, 5))
    chunks = list(tangents(net, points, labels, recipe, directions, rate=True))
    found = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    step = 1e-5
    for index, direction in enumerate(directions):
        ahead = train(net, points + step * direction, labels, recipe)
        behind = train(net, points - step * direction, labels, recipe)
        for layer, (a, b) in enumerate(zip(ahead, behind, strict=True)):
            slope = (a - b) / (2 * step)
            size = np.abs(slope).max()
            np.testing.assert_allclose(found[layer][index], slope, atol=1e-4 * size)
    more, less = (replace(recipe, rate=recipe.rate * np.exp(s * step)) for s in (1, -1))
    ahead, behind = train(net, points, labels, more), train(net, points, labels, less)
    for layer, (a, b) in enumerate(zip(ahead, behind, strict=True)):
        slope = (a - b) / (2 * step)
        np.testing.assert_allclose(found[layer][-1], slope, atol=1e-4 * np.abs(slope).max())


def test_a_frozen_layer_stays():
    rng = np.random.default_rng(2)
    net = replace(network(rng, "tanh", True, 3), frozen=(False, False, True))
    labels = np.array([0.0, 1.0])
    points = rng.normal(size=(2, 5))
    after = train(net, points, labels, Recipe(3, 0.1))
    assert np.array_equal(after[2], net.layers[2])
    assert not np.array_equal(after[0], net.layers[0])
    (parts,) = tangents(net, points, labels, Recipe(3, 0.1), rng.normal(size=(1, 2, 5)))
    assert not parts[2].any()
    assert parts[0].any()


def test_a_narrow_smoothed_relu_is_a_relu():
    z = np.linspace(-2.0, 2.0, 9)
    narrow = Smoothed(1e-3)
    np.testing.assert_allclose(narrow.value(z), np.maximum(z, 0.0), atol=1e-3)
    step = 1e-6
    wide = Smoothed(0.5)
    slope = (wide.value(z + step) - wide.value(z - step)) / (2 * step)
    np.testing.assert_allclose(wide.slope(z), slope, atol=1e-8)
    bend = (wide.slope(z + step) - wide.slope(z - step)) / (2 * step)
    np.testing.assert_allclose(wide.curvature(z), bend, atol=1e-8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps=3-x,rate=1", "a number for steps"),
        ("steps=9-3", "A-B"),
        ("steps=3,rate=x", "a number for rate"),
        ("steps=3,rate=0.1,pace=2", "pace=2"),
        ("steps=3,rate=0.1,rate=2", "rate=2"),
        ("steps=0,rate=0.1", "1 <= A"),
        ("steps=3,rate=-1", "positive"),
        ("steps=3,rate=1,momentum=1", "momentum"),
        ("steps=3,rate=1,decay=-1", "decay"),
        ("steps=3,rate=1,loss=hinge", "loss"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(text, words):
    with pytest.raises(InvalidInputError, match=words):
        parse_open_recipe(text)
