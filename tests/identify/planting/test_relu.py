"""Planted ReLU networks satisfy their equations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import identify
from identify.errors import InvalidInputError
from identify.planting.plant import PlantingError
from identify.planting.relu import consistent_patterns
from tests.identify.disaggregation.stationary_families import centred, explains


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bias", [True, False])
def test_stationarity_patterns_and_margins(seed, bias):
    x = centred(np.random.default_rng(seed), 3 + seed % 3, 11)
    planted = identify.plant_relu_network(x, seed=seed, bias=bias, copies=1 + seed % 3)
    network = planted.network
    assert explains(network, x, planted.coefficients)
    on = network.forward(x).preactivations[0].T > 0.0
    np.testing.assert_array_equal(on, planted.patterns)
    np.testing.assert_allclose(planted.labels * network.value(x)[:, 0], 1.0, rtol=1e-9)


def test_both_layers_are_balanced_and_stationary():
    x = identify.equiangular_samples(5, 3, 7)
    planted = identify.plant_relu_network(x, trained="both")
    network = planted.network
    again = network.gradient(x, planted.coefficients[:, None])
    np.testing.assert_allclose(again.weights[1], network.weights[1], rtol=1e-9)
    lifted = np.column_stack([network.weights[0], network.biases[0]])
    np.testing.assert_allclose(np.linalg.norm(lifted, axis=1), np.abs(network.weights[1][0]))


@pytest.mark.parametrize("count", [3, 6, 9])
def test_all_consistent_patterns_are_found(count):
    rng = np.random.default_rng(count)
    lifted = np.column_stack([centred(rng, count, 12), np.ones(count)])
    b = rng.uniform(0.5, 2.0, count) * rng.choice([-1.0, 1.0], count)
    patterns, signs = consistent_patterns(lifted, b, rng)
    found = {(row.tobytes(), sign) for row, sign in zip(patterns, signs, strict=True)}
    expected = set()
    for bits in itertools.product([False, True], repeat=count):
        for sign in (1.0, -1.0):
            on = np.array(bits)
            values = sign * lifted @ ((on * b) @ lifted)
            if on.any() and ((values > 0.0) == on).all():
                expected.add((on.tobytes(), sign))
    assert found <= expected
    assert len(found) >= 0.9 * len(expected)


def test_many_samples_start_from_random_patterns():
    x = centred(np.random.default_rng(0), 15, 30)
    planted = identify.plant_relu_network(x, kind="regression", copies=1)
    assert explains(planted.network, x, planted.coefficients)
    assert len(planted.patterns) > 10


def test_refused():
    x = np.eye(3)
    for options in ({"labels": [1, 2, 1]}, {"kind": "other"}, {"copies": 0}):
        with pytest.raises(InvalidInputError):
            identify.plant_relu_network(x, **options)
    with pytest.raises(InvalidInputError):
        identify.equiangular_samples(4, 1, 9)
    with pytest.raises(PlantingError):
        identify.plant_relu_network(np.random.default_rng(0).normal(size=(4, 9)), trained="both")


@pytest.mark.parametrize("kind", ["margin", "regression"])
@pytest.mark.parametrize("width", [24, 31, 90])
def test_a_chosen_number_of_neurons(kind, width):
    x = identify.centred_samples(5, 14, seed=width)
    planted = identify.plant_relu_network(x, kind=kind, width=width, seed=1)
    assert planted.network.widths == (width,)
    assert explains(planted.network, x, planted.coefficients)
    on = planted.network.forward(x).preactivations[0].T > 0.0
    np.testing.assert_array_equal(on, planted.patterns)
    if kind == "margin":
        np.testing.assert_allclose(planted.network.value(x)[:, 0], 1.0, rtol=1e-9)


def test_both_layers_with_a_part_of_the_patterns():
    x = identify.equiangular_samples(8, 4, 12)
    planted = identify.plant_relu_network(x, trained="both", width=60)
    again = planted.network.gradient(x, planted.coefficients[:, None])
    np.testing.assert_allclose(again.weights[1], planted.network.weights[1], rtol=1e-9)
    assert planted.determined
    with pytest.raises(InvalidInputError):
        identify.plant_relu_network(x, width=0)


@pytest.mark.parametrize(("count", "dimension"), [(2, 2), (5, 5), (9, 40)])
def test_centred_samples_have_one_norm_and_many_patterns(count, dimension):
    x = identify.centred_samples(count, dimension, seed=3)
    np.testing.assert_allclose(np.sum(x**2, axis=1), 4.0 * count)
    assert identify.plant_relu_network(x, kind="regression").determined
    with pytest.raises(InvalidInputError):
        identify.centred_samples(count, count - 1)
