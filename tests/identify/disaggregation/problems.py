"""Planted batches: networks as torch initialises them, Gaussian samples, their gradient."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Planted:
    """A network, the gradient of a batch, and the batch with its loss slopes and labels."""

    network: DeepNetwork
    gradient: DeepGradient
    samples: FloatArray
    cotangents: FloatArray
    labels: npt.NDArray[np.int64]
    loss: str


def initialise(
    sizes: list[int], rng: np.random.Generator, activation: str = "relu", bias: bool = True
) -> DeepNetwork:
    """Uniform weights and biases of size 1 / root fan-in, as torch's default."""
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.uniform(-1, 1, (o, i)) / np.sqrt(i) for i, o in pairs]
    biases = [rng.uniform(-1, 1, o) / np.sqrt(i) if bias else None for i, o in pairs]
    return DeepNetwork(weights, biases, activation)


def draw_labels(outputs: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Classes, or signs for one output."""
    if outputs == 1:
        return rng.choice([-1, 1], count).astype(np.int64)
    return rng.integers(0, outputs, count)


def loss_of(network: DeepNetwork) -> str:
    """The loss of a classifier with these outputs."""
    return "logistic" if network.outputs == 1 else "cross_entropy"


def plant(
    sizes: list[int], count: int, seed: int, activation: str = "relu", bias: bool = True
) -> Planted:
    """The mean gradient of a random batch in a random network."""
    rng = np.random.default_rng(seed)
    network = initialise(sizes, rng, activation, bias)
    samples = rng.normal(size=(count, sizes[0]))
    return plant_batch(network, samples, draw_labels(sizes[-1], count, rng))


def plant_batch(
    network: DeepNetwork, samples: FloatArray, labels: npt.NDArray[np.int64]
) -> Planted:
    """The mean gradient of a given batch."""
    loss = loss_of(network)
    p = loss_slope(loss, network.value(samples), labels) / len(samples)
    return Planted(network, network.gradient(samples, p), samples, p, labels, loss)


def change(gradient: DeepGradient, move) -> DeepGradient:
    """Apply a function to every array of a gradient."""
    return DeepGradient(
        tuple(None if w is None else move(w) for w in gradient.weights),
        tuple(None if b is None else move(b) for b in gradient.biases),
    )


def add_noise(gradient: DeepGradient, level: float, rng: np.random.Generator) -> DeepGradient:
    """Independent noise of relative Frobenius norm ``level`` on every array."""
    return change(
        gradient,
        lambda x: x + level * np.linalg.norm(x) / np.sqrt(x.size) * rng.normal(size=x.shape),
    )


def distances(found: FloatArray, true: FloatArray) -> FloatArray:
    """Relative distance of every true sample from the nearest one found."""
    apart = np.linalg.norm(found[:, None] - true[None], axis=2)
    return apart.min(axis=0) / np.linalg.norm(true, axis=1)
