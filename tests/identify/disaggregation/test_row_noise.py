"""Rows with uneven errors: the exponents, and what they are good for."""

from __future__ import annotations

import numpy as np
import pytest

from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.problem import pose, scale_rows
from identify.disaggregation.row_noise import row_exponents

from .problems import initialise, plant


def low_rank(rng, sizes, rank, columns):
    return sizes[:, None] * rng.normal(size=(len(sizes), rank)) @ rng.normal(size=(rank, columns))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank", [1, 4])
def test_exponents_are_the_sizes_of_the_errors(seed, rank):
    rng = np.random.default_rng(seed)
    size = 2.0 ** rng.integers(-12, 1, 60)
    g = low_rank(rng, size, rank, 80)
    e = row_exponents(g + 1e-5 * size[:, None] * rng.normal(size=g.shape), rank)
    assert np.abs((e - e.mean()) - (np.log2(size) - np.log2(size).mean())).max() <= 2.5


def test_even_errors_stay_as_they_are():
    rng = np.random.default_rng(0)
    g = low_rank(rng, 10.0 ** rng.uniform(-3, 0, 60), 4, 80)
    assert not row_exponents(g + 1e-5 * rng.normal(size=g.shape), 4).any()


def test_a_row_that_the_space_follows_is_not_taken_for_exact():
    """A large row alone in its direction leaves no residual; its error is as large as it is."""
    rng = np.random.default_rng(1)
    g = low_rank(rng, np.ones(60), 3, 80)
    g[0] = 1e4 * rng.normal(size=80)
    size = np.linalg.norm(g, axis=1, keepdims=True)
    e = row_exponents(g + 1e-6 * size * rng.normal(size=g.shape), 4)
    assert e[0] >= e[1:].max() + 8


@pytest.mark.parametrize("shape", [(12, 80), (60, 12)])
def test_too_few_rows_or_columns_say_nothing(shape):
    rng = np.random.default_rng(2)
    g = low_rank(rng, 10.0 ** rng.uniform(-6, 0, shape[0]), 5, shape[1])
    assert not row_exponents(g + 1e-9 * rng.normal(size=g.shape), 5).any()


def test_dead_rows_have_exponent_0():
    rng = np.random.default_rng(3)
    g = low_rank(rng, 10.0 ** rng.uniform(-6, 0, 40), 3, 50)
    g[::4] = 0.0
    assert not row_exponents(g, 3)[::4].any()


def test_scaled_rows_pose_the_same_problem():
    planted = plant([20, 70, 3], 4, 0)
    problem = pose(planted.network, planted.gradient, None, None, samples=None, seed=0)
    e = np.random.default_rng(0).integers(-5, 6, 70)
    scaled = scale_rows(problem, e)
    assert scale_rows(problem, 0 * e) is problem
    np.testing.assert_array_equal(np.ldexp(scaled.top, e[:, None]), problem.top)
    masks = planted.network.forward(planted.samples).preactivations[0].T > 0
    delta = scaled.layer.cotangents(masks, planted.cotangents)
    outside = delta - scaled.factor.columns @ (scaled.factor.columns.T @ delta)
    assert np.abs(outside).max() <= 1e-10 * np.abs(delta).max()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [[40, 260, 10], [40, 200, 260, 10]])
def test_samples_whose_slopes_span_six_decades_come_back_from_float32(sizes, seed):
    """As in a trained classifier; the errors of the largest hide the weakest in common rows."""
    rng = np.random.default_rng(seed)
    network = initialise(sizes, rng)
    x = rng.normal(size=(8, sizes[0]))
    p = rng.normal(size=(8, 10)) * np.geomspace(1.0, 1e-6, 8)[:, None]
    p -= p.mean(axis=1, keepdims=True)
    exact = network.gradient(x, p)
    parts = []
    for index, weight in enumerate(exact.weights):
        g = np.column_stack([weight, exact.biases[index]])
        parts.append(g.astype(np.float32).astype(np.float64))
    noisy = type(exact)([g[:, :-1] for g in parts], [g[:, -1] for g in parts])
    found = disaggregate(network, noisy, "cross_entropy", samples=8, prove=False)
    assert found.samples is not None
    apart = np.linalg.norm(found.samples[:, None] - x, axis=2) / np.linalg.norm(x, axis=1)
    assert (apart.min(axis=0) < 1e-2).sum() >= 7
