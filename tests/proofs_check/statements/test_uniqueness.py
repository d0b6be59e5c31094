"""Statements about recovery, its uniqueness and what speaks for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork
from identify.hermite.stationarity import stationarity
from proofs_check.statements.uniqueness import (
    conditioning,
    margin_ties,
    only_explanation,
    planes,
    redundancy,
    sample_span,
    sharpness,
)
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness import recovery as uniqueness
from tests.proofs_check import helpers


def gradient(samples, coefficients, degree=3, width=8, seed=0):
    """One gradient at a random network."""
    x, b = np.asarray(samples, dtype=np.float64), np.asarray(coefficients, dtype=np.float64)
    return base.gradient_data(x, b, degree, width, "given", seed)


def test_planted_network_is_recovered():
    point = base.planted("kkt", "orthonormal", 3, 1, 0)
    helpers.assert_instance(uniqueness.THEOREM, point)
    assert np.allclose(np.sign(point.coefficients) * point.data.network.value(point.samples), 1.0)


def test_too_few_neurons_recover_nothing():
    few = gradient(np.eye(3), [1.0, -1.0, 0.5], width=3)
    helpers.assert_counterexample(uniqueness.THEOREM, "I-hermite", few)
    found, _ = uniqueness.recover(few)
    assert found is None


def test_search_finds_the_true_set_from_most_starts():
    explained = gradient(np.eye(3), [1.0, -1.0, 0.5])
    rivals = base.find_rivals(explained, 3)
    assert len(rivals.sets) >= 2
    assert rivals.stiffness > 1e-2
    assert max(rivals.residuals) <= base.NOISE
    assert base.find_rivals(explained, 2).sets == ()


def test_departure_counts_parallel_and_vanishing_terms_as_one_and_none():
    truth = np.eye(3)[:2]
    same = np.array([[0.0, -0.5, 0.0], [0.8, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 1e-4]])
    assert only_explanation.departure(same, truth, 3) == 0.0
    assert only_explanation.departure(truth[:1], truth, 3) == pytest.approx(np.sqrt(2.0))


def test_two_of_three_coplanar_cubes_explain_them():
    angles = np.array([0.1, 1.2, 2.2])
    samples = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    explained = gradient(samples, [1.0, 1.0, 1.0])
    helpers.assert_instance(sharpness.COPLANAR, explained)
    question = only_explanation.Question(explained, 2)
    helpers.assert_counterexample(only_explanation.AT_MOST, "independent", question)


def test_three_real_lines_have_no_two_real_cubes():
    # x^3 - 3 x y^2 = Re (x + i y)^3 vanishes on three real lines; x^3 + y^3 on one.
    assert planes.two_cubes(np.array([1.0, 0.0, -1.0, 0.0])) is None
    points, b, _ = planes.two_cubes(np.array([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_allclose(planes.binary_cubic(points, b), [1, 0, 0, 1], atol=1e-12)
    angles = np.pi * np.arange(3) / 3.0
    samples = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    three = gradient(samples, [1.0, -1.0, 1.0])
    helpers.assert_counterexample(sharpness.COPLANAR, "one-line", three)


def test_one_more_sample_keeps_a_kkt_point():
    point = base.planted("kkt", "generic", 3, 0, 1)
    samples, heights, _ = sharpness.one_more(sharpness.Surplus(point, 0.7))
    network = point.data.network
    assert len(samples) == 4
    np.testing.assert_allclose(np.sign(heights) * network.value(samples), 1.0, rtol=1e-10)
    assert stationarity(point.data, samples, heights) < 1e-11


@pytest.mark.parametrize("degree", [4, 5])
def test_one_more_sample_fails_above_degree_three(degree):
    surplus = sharpness.Surplus(gradient(np.eye(2), [1.0, -0.5], degree), 0.7)
    helpers.assert_counterexample(sharpness.ONE_MORE, "cubic", surplus)


@pytest.mark.parametrize("activation", [(0.3, -1.0, 0.5, 1.0, 0.2), (1.0, 0.0, 2.0)])
def test_pairs_off_the_points_for_polynomials(activation):
    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((5, 3)) @ rng.standard_normal((3, 4))
    network = TwoLayerNetwork(
        hidden,
        rng.standard_normal(5),
        degree=len(activation) - 1,
        activation=activation,
        hidden_bias=rng.standard_normal(5),
    )
    nu = np.linalg.svd(hidden)[2][-1]
    x, b = rng.standard_normal((1, 4)), np.array([0.7])
    pair = np.vstack([x + 2.0 * nu, x - 2.0 * nu]), np.array([0.35, 0.35])
    assert base.compare_sets(network, (x, b), pair).holds
    assert base.compare_sets(network, (x, b), pair, 4.0, exactly=True).holds
    assert not base.compare_sets(network, (x, b), (pair[0] + 1e-6, pair[1])).holds


@pytest.mark.parametrize(
    ("count", "degree", "left"), [(1, 3, 0), (2, 3, 0), (3, 3, 1), (1, 5, 0), (2, 4, 1), (3, 4, 6)]
)
def test_redundant_equations(count, degree, left):
    explained = gradient(np.eye(count), np.ones(count), degree, width=12)
    assert redundancy.redundant_equations(explained)[0] == left


def test_single_neurons_of_orthonormal_samples_are_a_kkt_point():
    samples = np.eye(3)
    b = np.array([1.0, -1.0, 1.0]) * 3.0**-0.75
    network = TwoLayerNetwork(3.0**0.125 * samples, 3.0**0.375 * b, 3)
    point = base.Explained(HermiteData.from_kkt(network), samples, b, "orthonormal", 0)
    assert stationarity(point.data, samples, b) < 1e-13
    helpers.assert_counterexample(margin_ties.TIES, "I-hermite", point)


def test_longer_samples_break_the_ties():
    point = base.planted("kkt", "generic", 3, 0, 0)
    helpers.assert_instance(margin_ties.TIES, point)
    factors = np.array([1.0, 1.1, 1.3])
    x, b = point.samples * factors[:, None], point.coefficients / factors**3
    network = point.data.network
    margins = np.sign(b) * network.value(x)
    assert np.ptp(margins) > 0.1
    longer = replace(point, samples=x, coefficients=b)
    assert not margin_ties._has_equal_margins(longer)
    assert stationarity(point.data, x, b) < 1e-11


def test_parallel_samples_have_no_first_order_bound():
    x = np.vstack([np.eye(3), 0.7 * np.eye(3)[:1]])
    explained = gradient(x, [1.0, -0.8, 1.2, 0.9], width=6)
    disturbance = conditioning.Disturbance(explained, 0)
    helpers.assert_counterexample(conditioning.CONDITIONING, "full-rank", disturbance)


def test_batch_larger_than_the_width_leaves_the_span():
    x = np.eye(3)
    wide = gradient(x, [1.0, -1.0, 1.0], width=4)
    helpers.assert_instance(sample_span.AT_LEAST, wide)
    narrow = gradient(x, [1.0, -1.0, 1.0], width=2)
    helpers.assert_counterexample(sample_span.AT_LEAST, "rank-M", narrow)
    assert base.span_rank(narrow) == 2
