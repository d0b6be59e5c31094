"""What the gate words say where the verdict on a gradient is "undecided"."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from identify import DeepNetwork, assess_gradient
from identify.disaggregation.agreement import noisy_rows
from identify.disaggregation.factor import factor
from identify.disaggregation.records import GLOBALLY, UNDECIDED
from identify.model.deep import DeepGradient
from identify.model.losses import loss_slope


def batch(seed, sizes, n, activation="relu", loss="cross_entropy", offset=0.0):
    """A network, a batch, and its gradient."""
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(size=(above, below)) * np.sqrt(2 / below)
        for below, above in itertools.pairwise(sizes)
    ]
    network = DeepNetwork(weights, [0.1 * rng.normal(size=k) for k in sizes[1:]], activation)
    x = rng.normal(size=(n, sizes[0])) + offset
    y = rng.integers(0, sizes[-1], n)
    if loss != "cross_entropy":
        y = rng.choice([-1.0, 1.0], (n, sizes[-1]))
    return network, x, network.gradient(x, loss_slope(loss, network.value(x), y) / n)


def with_noise(gradient, size, seed=0):
    """The gradient with Gaussian noise in every entry."""
    rng = np.random.default_rng(seed)
    return DeepGradient(
        [w + size * rng.normal(size=w.shape) for w in gradient.weights],
        [b + size * rng.normal(size=b.shape) for b in gradient.biases],
    )


@pytest.mark.parametrize(
    ("sizes", "n", "activation"),
    [
        ([20, 36, 2], 12, "relu"),
        ([25, 60, 40, 2], 13, "relu"),
        ([30, 30, 10], 5, "relu"),
        ([30, 100, 30, 10], 5, "relu"),
        ([40, 24, 10], 10, "gelu"),
        ([30, 20, 8], 8, "tanh"),
    ],
)
def test_what_a_named_loss_would_separate_is_a_candidate(sizes, n, activation):
    network, _, gradient = batch(0, sizes, n, activation)
    alone = assess_gradient(network, gradient, prove=False)
    assert (alone.verdict, alone.candidates) == (UNDECIDED, True)
    assert "with --loss cross-entropy" in alone.reason
    assert (
        assess_gradient(network, gradient, "cross-entropy", prove=False).found.samples is not None
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_another_loss_gives_no_candidates(seed):
    """Slopes that do not sum to 0: the zero-sum space explains nothing."""
    network, _, gradient = batch(seed, [30, 60, 4], 12, loss="squared")
    report = assess_gradient(network, gradient, prove=False)
    assert not report.candidates
    assert "--loss" not in report.reason


class Late:
    """A clock that stands still until a stage begins, and is far ahead from then on."""

    def __init__(self, stage):
        self.stage, self.ahead = stage, 0.0
        self.plain = time.monotonic

    def __call__(self):
        return self.plain() + self.ahead

    def progress(self, stage, share):
        if stage == self.stage:
            self.ahead = 1e6


@pytest.mark.parametrize(
    ("sizes", "n", "activation", "stage"),
    [
        ([30, 60, 1], 14, "relu", "masks"),
        ([30, 50, 1], 13, "relu", "linear programs"),
        ([30, 40, 2], 12, "relu", "masks"),
        ([30, 200, 3], 12, "relu", "normal matrix"),
    ],
)
def test_a_stage_that_the_time_cut_is_named_and_not_covered(
    monkeypatch, sizes, n, activation, stage
):
    loss = "logistic" if sizes[-1] == 1 else "cross_entropy"
    network, _, gradient = batch(0, sizes, n, activation, loss)
    clock = Late(stage)
    monkeypatch.setattr(time, "monotonic", clock)
    report = assess_gradient(
        network, gradient, loss, time_limit=1000.0, prove=False, progress=clock.progress
    )
    assert clock.ahead
    assert (report.verdict, report.covered) == (UNDECIDED, False)
    assert "time limit" in report.reason
    assert report.candidates or "time limit" in str(report).split("verdict")[0]


@pytest.mark.parametrize("noise", [1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_of_one_sample_are_seen_through_noise(seed, noise):
    network, x, gradient = batch(seed, [40, 120, 90, 10], 4)
    noisy = with_noise(gradient, noise)
    report = assess_gradient(network, noisy, "cross-entropy", prove=False)
    assert report.verdict == GLOBALLY or report.candidates
    found = noisy_rows(network, noisy, {0: factor(noisy.layer(0))})
    if found is None:
        assert report.found.samples is not None
        return
    off = np.linalg.norm(found[:, None] - x, axis=2) / np.linalg.norm(x, axis=1)
    assert off.min(axis=1).max() < 0.2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4])
def test_averages_of_samples_are_no_rows_of_one(seed, noise):
    """Neurons that are on for every sample agree on the average; it is nobody's sample."""
    network, _, gradient = batch(seed, [30, 100, 1], 10 + 5 * seed, loss="logistic", offset=2.0)
    noisy = with_noise(gradient, noise)
    assert noisy_rows(network, noisy, {0: factor(noisy.layer(0))}) is None


@pytest.mark.parametrize("n", [60, 80, 100])
def test_a_rank_that_is_not_clear_is_not_called_one(n):
    network, _, gradient = batch(n, [64, 128, 96, 10], n, offset=0.6)
    report = assess_gradient(network, gradient, "cross-entropy", prove=False)
    assert "rank one" not in str(report)
