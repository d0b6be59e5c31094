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
    """How a network is trained, until the mean loss is below ``target``.

    ``batch`` 0 is the full batch; ``epochs`` counts instead of the target, as in a round of FedAvg.
    """

    rate: float = 0.1
    target: float = 0.1
    momentum: float = 0.0
    batch: int = 0
    epochs: int = 0


@dataclass(frozen=True, eq=False)
class Pair:
    """Two checkpoints, and the data between them, which no solver sees."""

    initial: DeepNetwork
    final: DeepNetwork
    x: FloatArray
    y: FloatArray
    steps: int
    loss: float

    @property
    def flips(self) -> float:
        """The share of all neurons and samples whose side differs between the checkpoints."""
        sides = [net.forward(self.x).preactivations[0] > 0.0 for net in (self.initial, self.final)]
        return float(np.mean(sides[0] != sides[1]))


def digits(
    count: int, rng: np.random.Generator, *, centred: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Images of MNIST (n, 784), centred and of norm 10, or between 0 and 1; with their labels."""
    file = np.load(Path(os.environ["KKTCERT_DATA"]) / "mnist_subset.npz")
    chosen = rng.choice(len(file["test_images"]), count, replace=False)
    x = file["test_images"][chosen].reshape(count, -1) / 255.0
    if centred:
        x = x - x.mean(axis=0)
        x = 10.0 * x / np.linalg.norm(x, axis=1, keepdims=True)
    return x, file["test_labels"][chosen].astype(float)


def begin(
    sizes: tuple[int, ...], rng: np.random.Generator, activation: str, kind: str
) -> DeepNetwork:
    """A network as torch initialises it, or with normal weights of variance 1 / fan-in."""
    net = training.start(sizes, rng, activation)
    if kind == "torch":
        return net
    weights = [rng.normal(size=w.shape) / np.sqrt(w.shape[1]) for w in net.weights]
    biases = [0.1 * rng.normal(size=len(w)) for w in weights[:-1]]
    return DeepNetwork(weights, [*biases, np.zeros(len(weights[-1]))], activation)


def make_pair(
    sizes: tuple[int, ...],
    count: int,
    run: Run,
    seed: int,
    *,
    activation: str = "relu",
    kind: str = "torch",
    centred: bool = True,
) -> Pair:
    """Digits, a network, and its fine-tuning; one output has alternating signs as labels."""
    rng = np.random.default_rng(seed)
    x, y = digits(count, rng, centred=centred)
    if sizes[-1] == 1:
        y = np.where(np.arange(count) % 2, 1.0, -1.0)
    initial = begin((784, *sizes), rng, activation, kind)
    return Pair(initial, *fine_tune(initial, x, y, run, rng))


def fine_tune(
    net: DeepNetwork, x: FloatArray, y: FloatArray, run: Run, rng: np.random.Generator
) -> tuple[DeepNetwork, FloatArray, FloatArray, int, float]:
    """The network after training, the data, the number of steps, and the final loss."""
    kind = "logistic" if net.outputs == 1 else "cross_entropy"
    speed: list[FloatArray] = []
    steps, epochs = 0, 0
    while steps < _MOST:
        loss = mean_loss(net, x, y)
        if epochs == run.epochs if run.epochs else loss < run.target:
            break
        order = rng.permutation(len(x)) if run.batch else np.arange(len(x))
        size = run.batch or len(x)
        for first in range(0, len(x), size):
            part = order[first : first + size]
            slopes = loss_slope(kind, net.value(x[part]), y[part]) / len(part)
            gradient = net.gradient(x[part], slopes)
            parts = [a for a in (*gradient.weights, *gradient.biases) if a is not None]
            speed = [run.momentum * v + a for v, a in zip(speed or parts, parts, strict=True)]
            if steps == 0:
                speed = parts
            moved = [
                a - run.rate * v
                for a, v in zip((*net.weights, *net.biases), speed, strict=True)
                if a is not None
            ]
            net = DeepNetwork(moved[: net.depth], moved[net.depth :], net.activations)
            steps += 1
        epochs += 1
    return net, x, y, steps, mean_loss(net, x, y)


def mean_loss(net: DeepNetwork, x: FloatArray, y: FloatArray) -> float:
    """The mean logistic loss or cross-entropy."""
    outputs = net.value(x)
    if net.outputs == 1:
        return float(np.mean(np.logaddexp(0.0, -y * outputs[:, 0])))
    top = outputs.max(axis=1)
    total = np.log(np.sum(np.exp(outputs - top[:, None]), axis=1)) + top
    return float(np.mean(total - outputs[np.arange(len(y)), y.astype(int)]))


def errors(found: FloatArray, x: FloatArray) -> FloatArray:
    """The distance of each image to the nearest found one, relative to its length."""
    away = np.linalg.norm(found[:, None] - x[None], axis=2).min(axis=0)
    return np.asarray(away / np.linalg.norm(x, axis=1))
