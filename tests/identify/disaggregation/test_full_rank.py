"""As many samples as outputs: the output layer's gradient shows no noise of its own."""

from __future__ import annotations

import numpy as np
import pytest

from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.records import GLOBALLY, UNDECIDED
from identify.model.deep import DeepGradient

from .problems import change, distances, plant

SHAPES = [([12, 160, 3], 5, 0), ([16, 24, 150, 2], 4, 1), ([14, 260, 4], 4, 2)]


def check_of(result, layer):
    return next(check for check in result.checks if check.name == f"gradient of layer {layer}")


@pytest.mark.parametrize(("sizes", "count", "seed"), SHAPES)
@pytest.mark.parametrize("rounded", [False, True])
def test_the_output_layer_is_checked_to_the_noise_of_the_others(sizes, count, seed, rounded):
    problem = plant(sizes, count, seed)
    gradient = problem.gradient
    if rounded:
        gradient = change(gradient, lambda x: x.astype(np.float32).astype(np.float64))
    result = disaggregate(problem.network, gradient)
    check = check_of(result, len(sizes) - 1)
    assert check.holds, check
    assert check.limit < 1e-2
    assert result.verdict == GLOBALLY, result.reason
    assert distances(result.samples, problem.samples).max() < 1e-3


@pytest.mark.parametrize(("sizes", "count", "seed"), SHAPES)
def test_an_output_layer_of_another_batch_is_refuted(sizes, count, seed):
    problem = plant(sizes, count, seed)
    weights = list(problem.gradient.weights)
    rng = np.random.default_rng(seed)
    weights[-1] = weights[-1] + 0.05 * np.abs(weights[-1]).max() * rng.normal(
        size=weights[-1].shape
    )
    gradient = DeepGradient(tuple(weights), problem.gradient.biases)
    result = disaggregate(problem.network, gradient)
    assert result.verdict == UNDECIDED
    assert check_of(result, len(sizes) - 1).holds is False


@pytest.mark.parametrize(("sizes", "count", "seed"), SHAPES)
@pytest.mark.parametrize("level", [1e-9, 1e-7])
def test_noise_of_one_size_in_all_layers_is_no_contradiction(sizes, count, seed, level):
    problem = plant(sizes, count, seed)
    rng = np.random.default_rng(seed)
    size = np.abs(problem.gradient.weights[0]).max()
    gradient = change(problem.gradient, lambda x: x + level * size * rng.normal(size=x.shape))
    result = disaggregate(problem.network, gradient)
    assert check_of(result, len(sizes) - 1).holds is not False
