"""Statements about the moment tensor and its decompositions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from identify.tensors import monomials
from proofs_check import strategies
from proofs_check.statements.tensors import (
    decomposition,
    flattenings,
    next_decomposition,
)
from proofs_check.statements.tensors import eigenvectors as tensors
from proofs_check.strategies import SampleSet
from tests.proofs_check import helpers


def independent(count=2, degree=4, seed=3):
    """Unit samples that span R^n."""
    drawn = strategies.draw_samples("generic", count, count, seed)
    drawn = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return SampleSet("generic", drawn, np.array([1.0, -0.6, 0.8])[:count], degree, seed)


def test_three_equiangular_samples_give_a_round_tensor():
    data = tensors.equiangular(3, 4, seed=0)
    circle = np.random.default_rng(0).standard_normal((5, 2))
    values = (circle @ data.samples.T) ** 4 @ data.coefficients
    np.testing.assert_allclose(values, 9.0 / 8.0 * np.sum(circle**2, axis=1) ** 2, rtol=1e-13)
    helpers.assert_counterexample(tensors.COUNT, "finite", data)


def test_orthonormal_samples_reach_the_bound():
    data = SampleSet("orthonormal", np.eye(3), np.ones(3), 4, 0)
    assert tensors.count_directions(data) == tensors.eigenvector_bound(4, 3) == 13


@pytest.mark.parametrize("degree", [4, 5, 6])
def test_middle_flattening_counts_four_samples_in_three_dimensions(degree):
    samples = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]], dtype=object)
    points = np.array([[1, 2, 1], [2, 1, 5], [1, 1, 3]], dtype=object)
    entry = flattenings.IntegerProblem(samples, np.ones(4, dtype=object), points, degree, 0)
    helpers.assert_instance(flattenings.MIDDLE, entry)
    helpers.assert_instance(flattenings.FLATTENING, entry)
    cubic = replace(entry, degree=3)
    helpers.assert_counterexample(flattenings.MIDDLE, "degree", cubic)


@pytest.mark.parametrize("degree", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("second", [0.7, -0.7])
def test_two_powers_are_alpha_other_powers(degree, second):
    pair, heights = np.array([[1.0, 0.2], [-0.3, 1.1]]), np.array([0.9, second])
    vectors, found = decomposition.plane_alternative(pair, heights, degree, seed=5)
    assert vectors.shape == (degree, 2)
    expected = heights @ monomials(pair, degree)
    np.testing.assert_allclose(found @ monomials(vectors, degree), expected, atol=1e-12)
    assert decomposition.is_other(pair, vectors, found, degree)


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_search_finds_others_from_r_plus_alpha_minus_2_terms_on(degree):
    data = independent(2, degree)
    target = data.coefficients @ monomials(data.samples, degree)
    others = dict.fromkeys(range(2, degree + 1), 0)
    for count in others:
        for seed in range(12):
            rng = np.random.default_rng([seed, count])
            found = decomposition.search_terms(target, 2, degree, count, rng)
            if found is not None:
                others[count] += decomposition.is_other(data.samples, *found, degree)
    assert others.pop(degree) > 0
    assert set(others.values()) == {0}


def test_exchanged_samples_are_a_counterexample_to_more_than_r():
    data = independent(3, 3)
    other = decomposition._exchange(data, 1)
    pair = decomposition.TwoSets(data, other, "exchange")
    assert len(other.samples) == 4
    helpers.assert_counterexample(decomposition.UNIQUE, "at-most", pair)
    again = decomposition.TwoSets(other, decomposition._exchange(data, 2), "exchange")
    helpers.assert_counterexample(decomposition.UNIQUE, "independent", again)


def test_quadratic_forms_have_many_decompositions():
    data = independent(2, 2)
    pair = decomposition.TwoSets(data, decomposition._exchange(data, 1), "exchange")
    helpers.assert_counterexample(decomposition.UNIQUE, "degree", pair)


def test_three_samples_in_a_plane_have_others_at_degree_four():
    angles = np.array([0.1, 1.2, 2.2])
    samples = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    data = SampleSet("plane", samples, np.array([1.0, -0.8, 1.3]), 4, 7)
    helpers.assert_counterexample(next_decomposition.NEXT, "independent", data)
