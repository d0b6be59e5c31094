"""Pairs of checkpoints: networks trained for a few steps by the rules of the usual optimisers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from identify.arrays import FloatArray
from identify.model.deep import DeepNetwork
from identify.model.losses import loss_slope


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: `rule` is "plain", "momentum" or "adam"."""

    rule: str = "plain"
    steps: int = 30
    rate: float = 0.05
    decay: float = 0.0
    batch: int | None = None


def start(
    sizes: tuple[int, ...], rng: np.random.Generator, activation: str = "relu"
) -> DeepNetwork:
    """A network as torch initialises it."""
    weights, biases = [], []
    for inner, outer in itertools.pairwise(sizes):
        bound = 1.0 / np.sqrt(inner)
        weights.append(rng.uniform(-bound, bound, (outer, inner)))
        biases.append(rng.uniform(-bound, bound, outer))
    return DeepNetwork(weights, biases, activation)


def train(
    network: DeepNetwork, x: FloatArray, y: FloatArray, recipe: Recipe, rng: np.random.Generator
) -> DeepNetwork:
    """The network after the recipe's steps on the mean cross-entropy."""
    values = [np.array(p) for p in _parameters(network)]
    first = [np.zeros_like(p) for p in values]
    second = [np.zeros_like(p) for p in values]
    for step in range(1, recipe.steps + 1):
        chosen = slice(None)
        if recipe.batch is not None:
            chosen = rng.choice(len(x), min(recipe.batch, len(x)), replace=False)  # type: ignore[assignment]
        now = _network(network, values)
        slopes = loss_slope("cross_entropy", now.value(x[chosen]), y[chosen])
        gradient = now.gradient(x[chosen], slopes / len(x[chosen]))
        parts = [a for pair in zip(gradient.weights, gradient.biases, strict=True) for a in pair]
        for index, part in enumerate(parts):
            assert part is not None
            slope = part + recipe.decay * values[index]
            if recipe.rule == "adam":
                first[index] = 0.9 * first[index] + 0.1 * slope
                second[index] = 0.999 * second[index] + 0.001 * slope**2
                mean, square = first[index] / (1 - 0.9**step), second[index] / (1 - 0.999**step)
                values[index] = values[index] - recipe.rate * mean / (np.sqrt(square) + 1e-8)
            else:
                momentum = 0.9 if recipe.rule == "momentum" else 0.0
                first[index] = momentum * first[index] + slope
                values[index] = values[index] - recipe.rate * first[index]
    return _network(network, values)


def _parameters(network: DeepNetwork) -> list[FloatArray]:
    pairs = zip(network.weights, network.biases, strict=True)
    return [array for pair in pairs for array in pair if array is not None]


def _network(network: DeepNetwork, values: list[FloatArray]) -> DeepNetwork:
    return DeepNetwork(values[::2], values[1::2], network.activations)
