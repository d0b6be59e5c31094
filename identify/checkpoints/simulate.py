"""Training in the span of the data, and its exact tangents along directions of the samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from identify.arrays import FloatArray
from identify.checkpoints.recipe import Recipe
from identify.model.activations import Activation
from identify.model.losses import loss_slope

_CHUNK = 4_000_000
Reals = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Smoothed:
    """A ReLU of the width tau: tau log(1 + exp(z / tau)), for starts far from the answer.

    Example:
        >>> round(float(Smoothed(0.1).value(np.array([1.0]))[0]), 3)
        1.0
    """

    tau: float

    def value(self, z: FloatArray) -> FloatArray:
        """The value s(z)."""
        return np.asarray(self.tau * np.logaddexp(0.0, z / self.tau))

    def slope(self, z: FloatArray) -> FloatArray:
        """The slope s'(z)."""
        return np.asarray(special.expit(z / self.tau))

    def curvature(self, z: FloatArray) -> FloatArray:
        """The second derivative s''(z)."""
        slope = special.expit(z / self.tau)
        return np.asarray(slope * (1.0 - slope) / self.tau)


@dataclass(frozen=True, eq=False)
class SpanNetwork:
    """A network whose first layer acts on coordinates c of [x; 1] = basis^T c.

    ``layers[0]`` is (m, r); the others are (m, k), with their bias as a last column where
    ``biased``. Layers that are ``frozen`` are not trained.
    """

    layers: tuple[FloatArray, ...]
    biased: tuple[bool, ...]
    activations: tuple[Activation | Smoothed, ...]
    frozen: tuple[bool, ...]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(layer.size for layer in self.layers)

    def smoothed(self, tau: float) -> SpanNetwork:
        """The network with ReLUs of the width tau, others as they are."""
        kinds = tuple(
            Smoothed(tau) if isinstance(kind, Activation) and kind.name == "relu" else kind
            for kind in self.activations
        )
        return SpanNetwork(self.layers, self.biased, kinds, self.frozen)


@dataclass(frozen=True, eq=False)
class Step:
    """One pass: inputs of the layers with their 1, preactivations, and slopes of the mean loss."""

    inputs: tuple[Reals, ...]
    slopes: tuple[Reals, ...]
    curvatures: tuple[Reals, ...]
    outputs: Reals
    cotangents: tuple[Reals, ...]

    def gradient(self, layer: int) -> Reals:
        """The gradient of the mean loss by one layer's matrix."""
        product: Reals = self.cotangents[layer].T @ self.inputs[layer]
        return product


def train(
    network: SpanNetwork, points: FloatArray, labels: FloatArray, recipe: Recipe
) -> tuple[FloatArray, ...]:
    """The layers after the recipe's steps on points (n, r) with their labels.

    Training that diverges ends in infinite layers. Cost: 6 n sizes a step.
    """
    layers = [layer.copy() for layer in network.layers]
    speed = [np.zeros_like(layer) for layer in layers]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(recipe.steps):
            step = _pass(network, layers, points, labels, recipe.loss)
            for index, layer in enumerate(layers):
                if network.frozen[index]:
                    continue
                speed[index] *= recipe.momentum
                speed[index] += step.gradient(index) + recipe.decay * layer
                layers[index] = layer - recipe.rate * speed[index]
    return tuple(layers)


def tangents(
    network: SpanNetwork,
    points: FloatArray,
    labels: FloatArray,
    recipe: Recipe,
    directions: FloatArray,
    *,
    rate: bool = False,
) -> Iterator[tuple[Reals, ...]]:
    """Derivatives of the trained layers along directions (D, n, r) of the points, in float32.

    Chunks of directions come one after the other, each layer as (D', m, k). With ``rate`` the last
    of all is the derivative by the logarithm of the rate.

    Cost: about 12 n sizes for a step and a direction.
    """
    chunk = max(4, _CHUNK // max(network.size, points.shape[0] * max(map(len, network.layers))))
    total = len(directions) + rate
    for begin in range(0, total, chunk):
        part = directions[begin : begin + chunk]
        last = rate and begin + chunk >= total
        with np.errstate(over="ignore", invalid="ignore"):
            found = _run_tangents(network, points, labels, recipe, part, rate=last)
        yield found


def _run_tangents(
    network: SpanNetwork,
    points: FloatArray,
    labels: FloatArray,
    recipe: Recipe,
    directions: FloatArray,
    *,
    rate: bool,
) -> tuple[Reals, ...]:
    kind = np.float32
    if rate:
        directions = np.concatenate([directions, np.zeros((1, *points.shape))])
    moved = directions.astype(kind)
    layers: list[Reals] = [layer.astype(kind) for layer in network.layers]
    speed = [np.zeros_like(layer) for layer in layers]
    along = [np.zeros((len(moved), *layer.shape), kind) for layer in layers]
    along_speed = [np.zeros_like(part) for part in along]
    for count in range(recipe.steps):
        step = _pass(network, layers, points.astype(kind), labels, recipe.loss)
        changes = _along(network, layers, along if count else None, step, moved, recipe.loss)
        for index, layer in enumerate(layers):
            if network.frozen[index]:
                continue
            speed[index] *= kind(recipe.momentum)
            speed[index] += step.gradient(index) + kind(recipe.decay) * layer
            along_speed[index] *= kind(recipe.momentum)
            along_speed[index] += changes[index] + kind(recipe.decay) * along[index]
            layers[index] = layer - kind(recipe.rate) * speed[index]
            along[index] -= kind(recipe.rate) * along_speed[index]
            if rate:
                along[index][-1] -= kind(recipe.rate) * speed[index]
    return tuple(along)


def _pass(
    network: SpanNetwork, layers: Sequence[Reals], points: Reals, labels: FloatArray, loss: str
) -> Step:
    """Forward and backward, in the precision of the layers."""
    kind = layers[0].dtype
    inputs, slopes, curvatures = [points], [], []
    for index, activation in enumerate(network.activations):
        z = inputs[-1] @ layers[index].T
        wide = z.astype(np.float64)
        slopes.append(activation.slope(wide).astype(kind))
        if kind == np.float32:
            curvatures.append(activation.curvature(wide).astype(kind))
        inputs.append(_with_one(activation.value(wide).astype(kind), network.biased[index + 1]))
    outputs = inputs[-1] @ layers[-1].T
    delta = loss_slope(loss, outputs.astype(np.float64), labels).astype(kind) / kind.type(
        len(points)
    )
    cotangents = [delta]
    for index in range(len(layers) - 1, 0, -1):
        delta = slopes[index - 1] * (delta @ _plain(layers[index], network.biased[index]))
        cotangents.append(delta)
    return Step(
        tuple(inputs), tuple(slopes), tuple(curvatures), outputs, tuple(reversed(cotangents))
    )


def _along(
    network: SpanNetwork,
    layers: Sequence[Reals],
    along: Sequence[Reals] | None,
    step: Step,
    moved: Reals,
    loss: str,
) -> list[Reals]:
    """The derivative of the gradient along the directions; ``along`` None while nothing moved."""
    inside = [moved]
    bends: list[Reals] = []
    for index in range(len(network.activations)):
        dz = inside[-1] @ layers[index].T
        if along is not None:
            dz += np.matmul(step.inputs[index], along[index].transpose(0, 2, 1))
        bends.append(step.curvatures[index] * dz)
        dh = step.slopes[index] * dz
        if network.biased[index + 1]:
            dh = np.concatenate([dh, np.zeros((*dh.shape[:2], 1), dh.dtype)], axis=2)
        inside.append(dh)
    df = inside[-1] @ layers[-1].T
    if along is not None:
        df += np.matmul(step.inputs[-1], along[-1].transpose(0, 2, 1))
    ddelta = _loss_curvature(loss, step.outputs, df) / df.dtype.type(len(step.outputs))
    found: list[Reals] = []
    for index in range(len(layers) - 1, -1, -1):
        delta = step.cotangents[index]
        found.append(
            np.matmul(ddelta.transpose(0, 2, 1), step.inputs[index])
            + np.matmul(delta.T, inside[index])
        )
        if index:
            back = ddelta @ _plain(layers[index], network.biased[index])
            if along is not None:
                back += np.matmul(delta, _plain(along[index], network.biased[index]))
            down = delta @ _plain(layers[index], network.biased[index])
            ddelta = step.slopes[index - 1] * back + down * bends[index - 1]
    return found[::-1]


def _loss_curvature(loss: str, outputs: Reals, change: Reals) -> Reals:
    """The derivative of the loss's slope along changes (D, n, C) of the outputs."""
    if loss == "squared":
        return change
    wide = outputs.astype(np.float64)
    if loss == "logistic":
        share = special.expit(wide)
        return np.asarray((share * (1.0 - share)).astype(change.dtype) * change)
    share = special.softmax(wide, axis=1).astype(change.dtype)
    return np.asarray(share * (change - np.sum(share * change, axis=2, keepdims=True)))


def _with_one(h: Reals, biased: bool) -> Reals:
    return np.column_stack([h, np.ones(len(h), h.dtype)]) if biased else h


def _plain(layer: Reals, biased: bool) -> Reals:
    return layer[..., :-1] if biased else layer
