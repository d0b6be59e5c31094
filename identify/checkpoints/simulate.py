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
    curvatures: tuple[Reals | None, ...]
    outputs: Reals
    cotangents: tuple[Reals, ...]

    def gradient(self, layer: int) -> Reals:
        """The gradient of the mean loss by one layer's matrix."""
        product: Reals = self.cotangents[layer].T @ self.inputs[layer]
        return product


Sides = npt.NDArray[np.bool_]
"""Of every step, sample and neuron of the first hidden layer (T, n, m): whether it is on."""


def targets(labels: FloatArray, loss: str, outputs: int) -> FloatArray:
    """T (n, C) with slopes link(f) - T: one row a sample, of classes, of -1 and 1, or as it is.

    Rows (n, C) of other numbers are taken as they are, as soft labels.

    Example:
        >>> targets(np.array([1.0]), "cross_entropy", 3), targets(np.array([-1.0]), "logistic", 1)
        (array([[0., 1., 0.]]), array([[0.]]))
    """
    if labels.ndim == 2 and loss == "cross_entropy":
        return labels
    if loss == "cross_entropy":
        return np.asarray(np.eye(outputs)[labels.astype(np.int64)])
    wanted = labels[:, None] if labels.ndim == 1 else labels
    if loss == "logistic" and bool((np.abs(wanted) == 1.0).all()):
        return np.asarray(0.5 + 0.5 * wanted)
    return wanted


def loss_slopes(loss: str, outputs: FloatArray, wanted: FloatArray) -> FloatArray:
    """p = link(f) - T, (n, C)."""
    if loss == "cross_entropy":
        return np.asarray(special.softmax(outputs, axis=1) - wanted)
    if loss == "logistic":
        return np.asarray(special.expit(outputs) - wanted)
    return np.asarray(outputs - wanted)


def train(
    network: SpanNetwork,
    points: FloatArray,
    labels: FloatArray,
    recipe: Recipe,
    sides: Sides | None = None,
) -> tuple[FloatArray, ...]:
    """The layers after the recipe's steps on points (n, r) with their labels.

    ``sides`` hold the neurons of the first hidden layer to one side, whatever their sign; the
    activation there is then linear. Training that diverges ends in infinite layers. Cost: 6 n
    sizes a step.
    """
    wanted = targets(labels, recipe.loss, len(network.layers[-1]))
    layers = [layer.copy() for layer in network.layers]
    speed = [np.zeros_like(layer) for layer in layers]
    with np.errstate(over="ignore", invalid="ignore"):
        for count in range(recipe.steps):
            part = recipe.batch(count)
            held = None if sides is None else sides[count][part]
            step = take_pass(network, layers, points[part], wanted[part], recipe.loss, held)
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
    sides: Sides | None = None,
    turns: FloatArray | None = None,
) -> Iterator[tuple[Reals, ...]]:
    """Derivatives of the trained layers along directions (D, n, r) of the points, in float32.

    Chunks of directions come one after the other, each layer as (D', m, k). ``turns`` (D, n, C)
    are the directions' parts in the targets. With ``rate`` the last of all is the derivative by
    the logarithm of the rate. ``sides`` as for `train`.

    Cost: about 12 n sizes for a step and a direction.
    """
    chunk = max(4, _CHUNK // max(network.size, points.shape[0] * max(map(len, network.layers))))
    total = len(directions) + rate
    for begin in range(0, total, chunk):
        part = directions[begin : begin + chunk]
        turned = None if turns is None else turns[begin : begin + chunk]
        last = rate and begin + chunk >= total
        with np.errstate(over="ignore", invalid="ignore"):
            found = _run_tangents(
                network, points, labels, recipe, (part, turned), rate=last, sides=sides
            )
        yield found


def _run_tangents(
    network: SpanNetwork,
    points: FloatArray,
    labels: FloatArray,
    recipe: Recipe,
    along_all: tuple[FloatArray, FloatArray | None],
    *,
    rate: bool,
    sides: Sides | None,
) -> tuple[Reals, ...]:
    kind = np.float32
    wanted = targets(labels, recipe.loss, len(network.layers[-1]))
    moved, turned = along_all[0].astype(kind), along_all[1]
    turned = None if turned is None else turned.astype(kind)
    if rate:
        moved = np.concatenate([moved, np.zeros((1, *points.shape), kind)])
        if turned is not None:
            turned = np.concatenate([turned, np.zeros((1, *wanted.shape), kind)])
    layers: list[Reals] = [layer.astype(kind) for layer in network.layers]
    speed = [np.zeros_like(layer) for layer in layers]
    along = [np.zeros((len(moved), *layer.shape), kind) for layer in layers]
    along_speed = [np.zeros_like(part) for part in along]
    for count in range(recipe.steps):
        part = recipe.batch(count)
        held = None if sides is None else sides[count][part]
        step = take_pass(
            network, layers, points[part].astype(kind), wanted[part], recipe.loss, held
        )
        changes = _along(
            network, layers, along if count else None, step,
            (moved[:, part], None if turned is None else turned[:, part]), recipe.loss,
        )  # fmt: skip
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


def take_pass(
    network: SpanNetwork,
    layers: Sequence[Reals],
    points: Reals,
    wanted: FloatArray,
    loss: str,
    sides: Sides | None = None,
) -> Step:
    """Forward and backward, in the precision of the layers; ``sides`` (n, m) hold the first."""
    kind = layers[0].dtype
    inputs, slopes = [points], []
    curvatures: list[Reals | None] = []
    for index, activation in enumerate(network.activations):
        z = inputs[-1] @ layers[index].T
        wide = z.astype(np.float64)
        if sides is not None and index == 0:
            slope = np.where(sides, 1.0, getattr(activation, "kink", None) or 0.0)
            value = slope * wide
        else:
            slope, value = activation.slope(wide), activation.value(wide)
        slopes.append(slope.astype(kind))
        if kind == np.float32:
            # Kinked activations have no curvature, and nothing is to be added.
            straight = getattr(activation, "kink", None) is not None
            curvatures.append(None if straight else activation.curvature(wide).astype(kind))
        inputs.append(_with_one(value.astype(kind), network.biased[index + 1]))
    outputs = inputs[-1] @ layers[-1].T
    delta = loss_slopes(loss, outputs.astype(np.float64), wanted).astype(kind) / kind.type(
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
    directions: tuple[Reals, Reals | None],
    loss: str,
) -> list[Reals]:
    """The derivative of the gradient along the directions; ``along`` None while nothing moved."""
    inside = [directions[0]]
    bends: list[Reals | None] = []
    for index in range(len(network.activations)):
        dz = inside[-1] @ layers[index].T
        if along is not None:
            dz += np.matmul(step.inputs[index], along[index].transpose(0, 2, 1))
        curvature = step.curvatures[index]
        bends.append(None if curvature is None else curvature * dz)
        dh = step.slopes[index] * dz
        if network.biased[index + 1]:
            dh = np.concatenate([dh, np.zeros((*dh.shape[:2], 1), dh.dtype)], axis=2)
        inside.append(dh)
    df = inside[-1] @ layers[-1].T
    if along is not None:
        df += np.matmul(step.inputs[-1], along[-1].transpose(0, 2, 1))
    ddelta = _loss_curvature(loss, step.outputs, df)
    if directions[1] is not None:
        ddelta = ddelta - directions[1]
    ddelta = ddelta / df.dtype.type(len(step.outputs))
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
            ddelta = step.slopes[index - 1] * back
            bend = bends[index - 1]
            if bend is not None:
                ddelta += (delta @ _plain(layers[index], network.biased[index])) * bend
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
