"""Forward and backward passes through linear layers with the activations of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..outcome import BoolArray, CheckInputError, FloatArray
from .network import Layers, parse_activation
from .report import Answer

READABLE = (
    "relu", "leaky_relu", "tanh", "sigmoid", "softplus", "elu", "identity", "gelu", "gelu_tanh",
    "silu", "sine", "monomial",
)  # fmt: skip
"""Activations that are computed here."""
_ROOT = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715


@dataclass(frozen=True, eq=False)
class Network:
    """Layers with the activations between them, as name and number."""

    layers: Layers
    weights: tuple[FloatArray, ...]
    kinds: tuple[tuple[str, float], ...]

    @property
    def top(self) -> int:
        """The index of the last hidden layer."""
        return len(self.weights) - 2

    @property
    def leak(self) -> float:
        """The slope of the last hidden activation on the negative side."""
        return self.kink(self.top) or 0.0

    def kink(self, index: int) -> float | None:
        """The slope below 0 of a kinked activation, else None."""
        name, number = self.kinds[index]
        return {"relu": 0.0, "leaky_relu": number}.get(name)

    def bias(self, index: int) -> FloatArray:
        """The bias of a layer, zeros without one."""
        bias = self.layers.biases[index]
        return np.zeros(len(self.weights[index])) if bias is None else bias


def build_network(layers: Layers, activations: list[str]) -> Network:
    """Put activations between layers.

    Raises CheckInputError for a weight that is missing, or fewer than two layers.
    """
    weights = [weight for weight in layers.weights if weight is not None]
    if len(weights) != len(layers.weights) or len(weights) < 2:
        raise CheckInputError("network", "two or more layers", len(weights))
    kinds = []
    for text in activations:
        name, numbers = parse_activation(text)
        kinds.append((name, numbers[0] if numbers else 0.0))
    return Network(layers, tuple(weights), tuple(kinds))


def value(kind: tuple[str, float], z: FloatArray) -> FloatArray:
    """The activation of z."""
    name, number = kind
    if name == "relu":
        return np.where(z > 0.0, z, 0.0)
    if name == "leaky_relu":
        return np.where(z > 0.0, z, number * z)
    if name == "tanh":
        return np.tanh(z)
    if name == "sigmoid":
        return _sigmoid(z)
    if name == "softplus":
        return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))
    if name == "elu":
        return np.where(z > 0.0, z, number * np.expm1(np.minimum(z, 0.0)))
    return _further(name, number, z)[0]


def slope(kind: tuple[str, float], z: FloatArray) -> FloatArray:
    """The derivative of the activation at z; at a kink that of the left side."""
    name, number = kind
    if name in ("relu", "leaky_relu"):
        return np.where(z > 0.0, 1.0, number)
    if name == "tanh":
        return np.asarray(1.0 / np.cosh(np.clip(z, -300.0, 300.0)) ** 2, dtype=np.float64)
    if name == "sigmoid":
        return _sigmoid(z) * _sigmoid(-z)
    if name == "softplus":
        return _sigmoid(z)
    if name == "elu":
        return np.where(z > 0.0, 1.0, number * np.exp(np.minimum(z, 0.0)))
    return _further(name, number, z)[1]


def _further(name: str, number: float, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Value and slope of gelu, silu, sine and powers; of the identity for any other name."""
    if name == "gelu":
        density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
        return z * _normal(z), _normal(z) + z * density
    if name == "gelu_tanh":
        t = np.tanh(_ROOT * (z + _CUBIC * z**3))
        inner = _ROOT * (1.0 + 3.0 * _CUBIC * z**2)
        return 0.5 * z * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t**2) * inner
    if name == "silu":
        return z * _sigmoid(z), _sigmoid(z) * (1.0 + z * _sigmoid(-z))
    if name == "sine":
        return np.sin(z), np.cos(z)
    if name == "monomial":
        return z ** int(number), number * z ** (int(number) - 1)
    return z, np.ones_like(z)


def _normal(z: FloatArray) -> FloatArray:
    """The normal distribution function."""
    flat = [0.5 * math.erfc(-x / math.sqrt(2.0)) for x in z.ravel().tolist()]
    return np.array(flat).reshape(z.shape)


def _sigmoid(z: FloatArray) -> FloatArray:
    small = np.exp(-np.abs(z))
    return np.where(z > 0.0, 1.0, small) / (1.0 + small)


@dataclass(frozen=True, eq=False)
class Run:
    """The samples sent through the network and their cotangents sent back.

    ``inputs``, ``z`` and ``deltas`` belong to the layers from the one that the samples enter; the
    slopes behind the deltas are those of the stated masks, or for smooth activations of z.
    """

    inputs: tuple[FloatArray, ...]
    z: tuple[FloatArray, ...]
    slopes: tuple[FloatArray, ...]
    deltas: tuple[FloatArray, ...]


def run_answer(network: Network, answer: Answer) -> Run:
    """Forward pass of the samples and backward pass of their cotangents."""
    h, inputs, z = answer.samples, [], []
    for index in range(answer.layer, len(network.weights)):
        inputs.append(h)
        z.append(h @ network.weights[index].T + network.bias(index))
        if index <= network.top:
            h = value(network.kinds[index], z[-1])
    slopes = tuple(
        _slopes(network, answer.layer + k, mask, z[k]) for k, mask in enumerate(answer.masks)
    )
    deltas = [answer.cotangents]
    for k in range(len(slopes) - 1, -1, -1):
        deltas.insert(0, slopes[k] * (deltas[0] @ network.weights[answer.layer + k + 1]))
    return Run(tuple(inputs), tuple(z), slopes, tuple(deltas))


def _slopes(network: Network, index: int, mask: BoolArray | None, z: FloatArray) -> FloatArray:
    kink = network.kink(index)
    if mask is None or kink is None:
        if mask is not None or kink is not None:
            raise CheckInputError("certificate.masks", "masks of the kinked layers", "others")
        return slope(network.kinds[index], z)
    return np.where(mask, 1.0, kink)
