"""Gradients of which the largest entries were sent: what is filled in, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

import identify
from identify.budget import Budget
from identify.disaggregation.completion import complete
from identify.disaggregation.disaggregate import disaggregate
from identify.model.deep import DeepGradient
from tests.identify.disaggregation.problems import add_noise, change, distances, plant


def largest(gradient, share):
    """Each array with the share of its entries that are largest, the others 0."""
    return change(
        gradient, lambda x: np.where(np.abs(x) >= np.quantile(np.abs(x), 1.0 - share), x, 0.0)
    )


@pytest.mark.parametrize(
    ("sizes", "count", "share"),
    [([120, 90, 1], 5, 0.9), ([120, 90, 1], 5, 0.5), ([60, 150, 4], 4, 0.9),
     ([60, 150, 4], 4, 0.5), ([40, 60, 150, 4], 5, 0.9)],
)  # fmt: skip
def test_the_samples_come_out_to_rounding(sizes, count, share):
    planted = plant(sizes, count, 1)
    sent = largest(planted.gradient, share)
    result = disaggregate(planted.network, sent, planted.loss, reduction="mean")
    assert result.completed
    assert result.verdict == "undecided"
    assert "largest entries" in result.reason
    relative = distances(result.samples, planted.samples)
    assert relative.max() < 1e-8
    order = np.linalg.norm(result.samples[:, None] - planted.samples, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(result.labels, planted.labels[order])
    assert (relative[order] <= result.error_bounds).all()
    assert not [check.name for check in result.checks if check.holds is False]


def test_a_column_with_too_few_entries_is_not_made_up():
    """Features behind a ReLU are mostly 0, and half of the entries leave some of them open."""
    planted = plant([40, 60, 150, 4], 5, 1)
    report = identify.assess_gradient(planted.network, largest(planted.gradient, 0.5))
    assert report.verdict == "undecided"
    assert 1 not in report.found.completed


def test_float32_entries_leave_their_rounding():
    planted = plant([60, 150, 4], 4, 1)
    sent = change(largest(planted.gradient, 0.5), lambda x: x.astype(np.float32).astype(float))
    result = disaggregate(planted.network, sent, planted.loss)
    relative = distances(result.samples, planted.samples)
    order = np.linalg.norm(result.samples[:, None] - planted.samples, axis=2).argmin(axis=1)
    assert relative.max() < 1e-4
    assert (relative[order] <= result.error_bounds).all()


@pytest.mark.parametrize(
    "move",
    [
        lambda x: x,
        lambda x: x.astype(np.float32).astype(float),
        lambda x: np.round(x / np.abs(x).max() * 127) / 127 * np.abs(x).max(),
        lambda x: x.astype(np.float16).astype(float),
    ],
    ids=["whole", "float32", "int8", "float16"],
)
def test_what_is_not_cut_is_left_alone(move):
    planted = plant([60, 150, 4], 4, 1)
    sent = change(planted.gradient, move)
    whole, known = complete(sent)
    assert whole is sent
    assert known == {}


def test_black_pixels_and_dead_neurons_are_no_cut():
    planted = plant([60, 150, 4], 4, 1)
    x = planted.samples * (np.random.default_rng(0).random(planted.samples.shape) < 0.4)
    weights = [np.array(w) for w in planted.network.weights]
    biases = [np.array(b) for b in planted.network.biases]
    biases[0][:30] = -100.0
    network = type(planted.network)(weights, biases, "relu")
    result = disaggregate(network, network.gradient(x, planted.cotangents))
    assert result.completed == ()
    assert result.verdict == "globally"


def test_too_few_entries_are_said_to_be_so():
    planted = plant([60, 150, 4], 4, 1)
    report = identify.assess_gradient(planted.network, largest(planted.gradient, 0.03))
    assert report.verdict == "undecided"
    assert report.found.completed == ()


def test_entries_that_were_cut_at_random_are_not_filled_in():
    planted = plant([60, 150, 4], 4, 1)
    rng = np.random.default_rng(0)
    sent = change(planted.gradient, lambda x: np.where(rng.random(x.shape) < 0.5, x, 0.0))
    _, known = complete(sent)
    assert not any(part.filled for part in known.values())


def test_the_time_limit_ends_it():
    planted = plant([60, 150, 4], 4, 1)
    sent = largest(planted.gradient, 0.5)
    whole, known = complete(sent, budget=Budget(deadline=0.0))
    assert whole is sent
    assert not any(part.filled for part in known.values())


def test_noise_beside_the_cut_gives_candidates():
    planted = plant([120, 90, 1], 5, 1)
    sent = largest(add_noise(planted.gradient, 1e-4, np.random.default_rng(0)), 0.5)
    report = identify.assess_gradient(planted.network, sent, "logistic")
    assert isinstance(sent, DeepGradient)
    assert report.candidates
    assert distances(report.found.samples, planted.samples).max() < 0.1
