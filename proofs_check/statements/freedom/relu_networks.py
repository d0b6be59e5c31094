"""Homogeneous ReLU networks: values, gradients and activation patterns.

Numbers are float64, or fractions in arrays of dtype object.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from identify.arrays import FloatArray

Layers = tuple[FloatArray, ...]


def pattern(layers: Layers, x: FloatArray) -> tuple[bool, ...]:
    """Which neurons are active, all hidden layers in order."""
    found: list[bool] = []
    for weight in layers[:-1]:
        z = weight @ x
        found += (z > 0).tolist()
        x = z * (z > 0)
    return tuple(found)


def value(layers: Layers, x: FloatArray) -> float:
    """f(x) of a network without biases, last layer linear."""
    for weight in layers[:-1]:
        z = weight @ x
        x = z * (z > 0)
    return float((layers[-1] @ x)[0])


def gradients(layers: Layers, x: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """The gradient of f in x (d,), and in every weight matrix.

    Example:
        >>> layers = (np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[2.0, 3.0]]))
        >>> slope, weights = gradients(layers, np.array([0.5, 1.0]))
        >>> slope, weights[1] + 0.0
        (array([2., 0.]), array([[0.5, 0. ]]))
    """
    inputs, masks = [x], []
    for weight in layers[:-1]:
        z = weight @ inputs[-1]
        masks.append(z > 0)
        inputs.append(z * masks[-1])
    back: Any = np.ones(1, dtype=np.int64)
    found = []
    for depth in range(len(layers) - 1, -1, -1):
        found.append(np.outer(back, inputs[depth]))
        back = layers[depth].T @ back
        if depth:
            back = back * masks[depth - 1]
    return back, found[::-1]


def moduli(layers: Layers, x: FloatArray) -> list[FloatArray]:
    """`gradients` in the weights with every number replaced by its modulus."""
    return gradients(tuple(np.abs(weight) for weight in layers), np.abs(x))[1]


def draw_layers(dimension: int, widths: tuple[int, ...], rng: np.random.Generator) -> Layers:
    """Normal weights, one output."""
    sizes = (dimension, *widths, 1)
    return tuple(rng.standard_normal((after, before)) for before, after in pairwise(sizes))


def prove_linear() -> bool:
    """On one pattern gradients and f are linear in x: two layers, d = 2, two active neurons."""
    import sympy as sp

    layers = sp.Matrix(2, 2, sp.symbols("w1:5")), sp.Matrix([sp.symbols("a1:3")])
    first, second = sp.symbols("lambda1:3", positive=True)
    x, y, v = (sp.Matrix(sp.symbols(f"{name}1:3")) for name in "xyv")
    alpha, beta = sp.symbols("alpha beta", positive=True)

    def slopes(sample: sp.Matrix) -> sp.Matrix:
        hidden = layers[0] * sample
        return sp.Matrix([*(layers[1].T * sample.T), *hidden, (layers[1] * hidden)[0]])

    total = first + second
    merged = total * slopes((first * x + second * y) / total)
    apart = (beta * slopes(x + alpha * v) + alpha * slopes(x - beta * v)) / (alpha + beta)
    gaps = (merged - first * slopes(x) - second * slopes(y), apart - slopes(x))
    return all(sp.simplify(entry) == 0 for gap in gaps for entry in gap)
