"""Networks and plain checks for the tests of other training sets."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from identify.alternatives.admissible import SetRules
from identify.alternatives.pairs import search_sets
from identify.model.two_layer import TwoLayerNetwork
from identify.planting.eigenvectors import real_eigenvectors
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.recovery.stages import Recovered


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def orthonormal_kkt(n, d, seed=0):
    """One neuron for each of n orthonormal samples: all margins 1, b_i = +- 3^(-3/4)."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(d, n)))[0].T
    b = 3.0**-0.75 * rng.choice([-1.0, 1.0], n)
    # Q = 1/lambda^2, w = (3 Q)^(-1/4) x/b, a = b (w.x)^3
    size = (3.0 / b**2) ** -0.25
    hidden = (size / b)[:, None] * x
    return TwoLayerNetwork(hidden, b * (size / b) ** 3, degree=3), x, b


def stationary(samples, b, degree, *, neurons=None, seed=0, bias=False):
    """An exact stationary network on some of the real eigenvectors of sum b_i x_i^alpha."""
    lifted = np.column_stack([samples, np.ones(len(samples))]) if bias else samples
    points, values = real_eigenvectors(lifted, b, degree, starts=80, seed=seed)
    live = np.abs(values) > 1e-8 * np.abs(values).max()
    points, values = points[live], values[live]
    if neurons is not None:
        chosen = np.random.default_rng(seed).permutation(len(points))[:neurons]
        points, values = points[chosen], values[chosen]
    heights = np.sign(values) * np.abs(degree ** (degree / 2) * values) ** (-1.0 / (degree - 1))
    hidden = points * (np.sqrt(degree) * np.abs(heights))[:, None]
    if bias:
        return TwoLayerNetwork(hidden[:, :-1], heights, degree, hidden_bias=hidden[:, -1])
    return TwoLayerNetwork(hidden, heights, degree)


def plain_residual(network, goal, samples, coefficients):
    """|goal - sum b grad f| / |goal|, one neuron and one sample at a time."""
    alpha = network.degree
    missed = total = 0.0
    for j in range(network.width):
        w, a = network.points[j], network.output_weight[j]
        g, h = goal.points[j].copy(), goal.output_weight[j]
        total += g @ g + h * h
        for x, b in zip(network.lift(samples), coefficients, strict=True):
            g -= b * alpha * a * (w @ x) ** (alpha - 1) * x
            h -= b * (w @ x) ** alpha
        missed += g @ g + h * h
    return np.sqrt(missed / total)


def plain_difference(first, second):
    """Bottleneck over all matchings of sample directions up to sign."""
    first, second = unit_rows(first), unit_rows(second)
    return min(
        max(
            min(np.linalg.norm(x - second[k]), np.linalg.norm(x + second[k]))
            for x, k in zip(first, order, strict=True)
        )
        for order in permutations(range(len(second)))
    )


def check_pair(sets, network, goal, *, source, counts=None, directions=True):
    """Both explain the network and obey the source's conditions; they differ."""
    assert len(sets) == 2
    first, second = sets
    if counts is not None:
        assert (first.count, second.count) == counts
    for found in sets:
        exact = plain_residual(network, goal, found.samples, found.coefficients)
        assert exact <= 1e-10
        assert found.stationarity == pytest.approx(exact, abs=1e-13)
        lifted = network.lift(found.samples)
        sizes = np.abs(found.coefficients) * np.linalg.norm(lifted, axis=1) ** network.degree
        assert sizes.min() > 1e-6 * sizes.max()
        cosines = np.abs(unit_rows(lifted) @ unit_rows(lifted).T)
        assert np.all(cosines[np.triu_indices(len(lifted), 1)] <= 1.0 - 1e-8)
        if source == "kkt":
            for x, b in zip(found.samples, found.coefficients, strict=True):
                assert b * network.value(x[None])[0] > 0.0
    if first.count == second.count and first.count <= 6 and directions:
        assert plain_difference(first.samples, second.samples) >= 0.1


def searched(data, **options):
    """search_sets on what the assessment measures, and those findings."""
    names = {"samples", "scale", "non_negative"} & options.keys()
    given = Assumptions(**{name: options.pop(name) for name in names}).resolved(data)
    found = measure(data, given)
    return search_sets(
        SetRules(data, found.noise_level, given),
        found.reduced,
        found.linear,
        decomposes=options.pop("decomposes", isinstance(found, Recovered)),
        **options,
    )


def batch_gradient(m, n, d, degree, seed=0, bias=False):
    """A random network, the samples of a batch, its logistic multipliers and gradient."""
    rng = np.random.default_rng([seed, m, n, d])
    network = TwoLayerNetwork(
        rng.normal(size=(m, d)),
        rng.normal(size=m) / np.sqrt(m),
        degree,
        hidden_bias=rng.normal(size=m) if bias else None,
    )
    x = unit_rows(rng.normal(size=(n, d)))
    y = rng.choice([-1.0, 1.0], n)
    b = -y / (1.0 + np.exp(y * network.value(x)))
    return network, x, b, network.gradient(x, b)
