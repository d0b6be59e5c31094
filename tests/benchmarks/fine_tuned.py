"""Pairs of checkpoints from ordinary fine-tuning runs, for the benchmarks of two checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from identify.arrays import FloatArray
from identify.model.deep import DeepNetwork
from identify.model.losses import loss_slope
from tests.identify.checkpoints import training

_MOST = 20000


@dataclass(frozen=True)
class Run:
    """How the network is trained: ``batch`` 0 for all samples at once, ``target`` the final loss.

    ``epochs`` overrides the target. With ``clients`` FedAvg over as many parts of the data, each
    of ``local`` epochs.
    """

    rate: float = 0.1
    target: float = 0.1
    momentum: float = 0.0
    batch: int = 0
    local: int = 0
    outputs: int = 1


def digits(count: int, rng: np.random.Generator, *, centred: bool = True) -> tuple[FloatArray, ...]:
    """Images of MNIST (n, 784), centred and of norm 10, or between 0 and 1; with their labels."""
    file = np.load(Path(os.environ["KKTCERT_DATA"]) / "mnist_subset.npz")
    chosen = rng.choice(len(file["test_images"]), count, replace=False)
    x = file["test_images"][chosen].reshape(count, -1) / 255.0
    if centred:
        x = x - x.mean(axis=0)
        x = 10.0 * x / np.linalg.norm(x, axis=1, keepdims=True)
    return x, file["test_labels"][chosen].astype(float)


def fine_tune(
    net: DeepNetwork, x: FloatArray, y: FloatArray, run: Run, rng: np.random.Generator
) -> tuple[DeepNetwork, int, float]:
    """The network after training, the number of steps, and the final loss."""
    kind = "logistic" if net.outputs == 1 else "cross_entropy"
    values = [np.array(w) for pair in zip(net.weights, net.biases, strict=True) for w in pair
              if w is not None]  # fmt: skip
    speed = [np.zeros_like(v) for v in values]
    steps, loss = 0, np.inf
    while steps < _MOST:
        now = training._network(net, values)
        loss = _loss(now.value(x), y)
        if run.local == 0 and loss < run.target:
            break
        order = rng.permutation(len(x)) if run.batch else np.arange(len(x))
        size = run.batch or len(x)
        for begin in range(0, len(x), size):
            part = order[begin : begin + size]
            now = training._network(net, values)
            slopes = loss_slope(kind, now.value(x[part]), y[part]) / len(part)
            gradient = now.gradient(x[part], slopes)
            pairs = zip(gradient.weights, gradient.biases, strict=True)
            for index, slope in enumerate(a for pair in pairs for a in pair):
                speed[index] = run.momentum * speed[index] + slope
                values[index] = values[index] - run.rate * speed[index]
            steps += 1
        if run.local and steps >= run.local * -(-len(x) // size):
            break
    return training._network(net, values), steps, float(_loss(training._network(net, values).value(x), y))


def _loss(outputs: FloatArray, y: FloatArray) -> float:
    if outputs.shape[1] == 1:
        return float(np.mean(np.logaddexp(0.0, -y * outputs[:, 0])))
    top = outputs.max(axis=1, keepdims=True)
    total = np.log(np.sum(np.exp(outputs - top), axis=1)) + top[:, 0]
    return float(np.mean(total - outputs[np.arange(len(y)), y.astype(int)]))


def errors(found: FloatArray, x: FloatArray) -> FloatArray:
    """The distance of each image to the nearest found one, relative to its length."""
    away = np.linalg.norm(found[:, None] - x[None], axis=2).min(axis=0)
    return np.asarray(away / np.linalg.norm(x, axis=1))
