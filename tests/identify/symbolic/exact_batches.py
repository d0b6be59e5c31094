"""Exact batches and stationary weights with known samples, and their float versions."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import sympy

from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.symbolic.numbers import is_zero
from identify.symbolic.solve import exact_gradient

ROOT3 = sympy.sqrt(3)
POINTS = {
    1: [[2], [1]],
    2: [[1, 2], [2, -1], [1, 1]],
    3: [[1, 2, 0], [2, -1, 1], [1, 1, -1], [0, 1, 3]],
}
HEIGHTS = [1, Fraction(1, 2), -3, 2]
SAMPLES = {
    1: [[3], [Fraction(-1, 2)]],
    2: [[1, 2], [Fraction(2, 5), -1]],
    3: [[1, 2, -1], [2, Fraction(1, 3), 1]],
}
COEFFICIENTS = [2, Fraction(-3, 4)]


def batch(d, n, degree, bias=False):
    """Points, output weights, samples, coefficients and the exact gradient of a batch."""
    if bias:
        points = [[*u, h] for u, h in zip(POINTS[d], (1, -1, 2, 1), strict=False)]
        points += [] if d > 1 else [[-1, 2]]
    else:
        points = POINTS[d]
    heights, x, b = HEIGHTS[: len(points)], SAMPLES[d][:n], COEFFICIENTS[:n]
    return points, heights, x, b, *exact_gradient(points, heights, x, b, degree, bias=bias)


def moved(matrix, row, column, change):
    table = sympy.Matrix(matrix)
    table[row, column] += change
    return table


def normal(samples, coefficients, degree, bias=False):
    """The set with every first non-zero entry 1, in one order: what the solver lists."""
    rows = []
    for x, b in zip(sympy.Matrix(samples).tolist(), coefficients, strict=True):
        c = sympy.Integer(1) if bias else next(entry for entry in x if entry != 0)
        rows.append((*[sympy.radsimp(e / c) for e in x], sympy.expand(b * c**degree)))
    return rows


def same_set(found, rows):
    listed = [(*x, b) for x, b in zip(found.samples.tolist(), found.coefficients, strict=True)]
    return any(
        all(is_zero(p - q) for x, y in zip(listed, order, strict=True)
            for p, q in zip(x, y, strict=True))
        for order in permutations(rows)
    )  # fmt: skip


def vanish(expressions):
    """Whether all are 0, by arithmetic in their number field."""
    _, elements = sympy.construct_domain(list(expressions), field=True, extension=True)
    return not any(elements)


def as_network(points, heights, degree, bias):
    u = np.array(points, dtype=float)
    weights, shift = (u[:, :-1], u[:, -1]) if bias else (u, None)
    return TwoLayerNetwork(weights, np.array(heights, dtype=float), degree, hidden_bias=shift)


def float_data(points, heights, rows, values, degree, bias=False):
    """The same gradient as the verifier reads it."""
    network = as_network(points, heights, degree, bias)
    g = np.array(rows.tolist(), dtype=float)
    weights, shift = (g[:, :-1], g[:, -1]) if bias else (g, None)
    heights = np.array(values.tolist(), dtype=float).ravel()
    gradient = TwoLayerNetwork(weights, heights, degree, hidden_bias=shift)
    return HermiteData.from_gradient(network, gradient)


def nearest(recovered, exact, bias=False):
    """Largest distance of the best matching, up to length and sign without a bias."""
    samples, _ = exact.to_float()
    if not bias:
        samples = samples / np.linalg.norm(samples, axis=1, keepdims=True)
        recovered = recovered / np.linalg.norm(recovered, axis=1, keepdims=True)
    signs = (1.0,) if bias else (1.0, -1.0)
    return min(
        max(
            min(np.linalg.norm(x - s * samples[k]) for s in signs)
            for x, k in zip(recovered, order, strict=True)
        )
        for order in permutations(range(len(samples)))
    )


def planted(n, degree, largest, turn=None):
    """Unit-margin KKT weights of n orthogonal samples, a neuron for each small set of them.

    On the neurons of k samples w = c k^(-1/(2 degree - 2)) 1_A, with c such that margins are 1.
    """
    supports = [a for k in range(1, largest + 1) for a in combinations(range(n), k)]

    def root(a, p, q):
        return sympy.Integer(len(a)) ** sympy.Rational(p, q)

    total = sum(root(a, -1, degree - 1) for a in supports if 0 in a)
    c = sympy.sqrt(degree) / total
    w = sympy.Matrix(
        [[c * root(a, -1, 2 * degree - 2) * int(k in a) for k in range(n)] for a in supports]
    )
    x = sympy.eye(n) / c
    if turn is not None:
        w, x = (w * turn).applyfunc(sympy.expand), x * turn
    heights = [root(a, degree - 2, 2 * degree - 2) / total for a in supports]
    return w, heights, x, [1 / total] * n
