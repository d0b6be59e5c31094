"""Long loops tell how far they are and end when their time is over; rows that are counted."""

from __future__ import annotations

import numpy as np
import pytest

from identify import budget as budget_module
from identify.budget import Budget
from identify.disaggregation.cp import decompose_kernel
from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.factor import factor
from identify.disaggregation.few_neurons import list_masks, select_set
from identify.disaggregation.printed import prove_printed
from identify.model.deep import DeepNetwork
from tests.identify.disaggregation.problems import add_noise, plant


class Listener:
    """Counts the calls of each stage; the time is over after so many calls of one of them."""

    def __init__(self, monkeypatch, stage="", calls=0):
        self.stages: dict[str, list[float]] = {}
        self.stage, self.calls = stage, calls
        monkeypatch.setattr(budget_module.time, "monotonic", self.now)

    def now(self):
        return 2.0 if len(self.stages.get(self.stage, ())) > self.calls else 0.0

    def __call__(self, stage, share):
        assert 0.0 <= share <= 1.0
        self.stages.setdefault(stage, []).append(share)


def few(planted):
    g = planted.gradient.layer(0)
    return factor(g), planted.network.weights[1][0]


def test_the_sets_of_masks_are_left_when_the_time_is_over(monkeypatch):
    planted = plant([20, 14, 1], 6, 3)
    found, a = few(planted)
    masks = list_masks(found, a)
    layer = planted.network.weights[0], planted.network.biases[0]
    assert masks.complete
    listener = Listener(monkeypatch)
    whole = select_set(masks, found, a, *layer, budget=Budget(1.0, listener))
    assert whole.subsets > 1
    assert {"linear programs", "sets of masks"} <= set(listener.stages)
    late = Listener(monkeypatch, "linear programs", masks.masks.shape[1] - 1)
    stopped = select_set(masks, found, a, *layer, budget=Budget(1.0, late))
    assert (stopped.masks, stopped.decided) == (None, False)
    assert "time limit" in stopped.reason


@pytest.mark.parametrize("calls", [0, 5])
def test_sweeps_end_when_the_time_is_over(monkeypatch, calls):
    rng = np.random.default_rng(0)
    e, t = rng.normal(size=(2, 5, 5))
    z = np.einsum("ai,ki,bi->kab", e, t, e) + 1e-3 * rng.normal(size=(5, 5, 5))
    z = z + z.transpose(0, 2, 1)
    p = np.ones((5, 5, 1))
    listener = Listener(monkeypatch)
    whole = decompose_kernel(z, p, budget=Budget(1.0, listener))
    late = Listener(monkeypatch, "alternating least squares", calls)
    stopped = decompose_kernel(z, p, budget=Budget(1.0, late))
    assert stopped.sweeps < whole.sweeps
    assert len(listener.stages["alternating least squares"]) > calls


@pytest.mark.parametrize("calls", [0, 1])
def test_the_proof_ends_when_the_time_is_over(monkeypatch, calls):
    rng = np.random.default_rng(0)
    masks = rng.random((1500, 33)) < 0.5
    a, p = np.ones((1500, 1)), np.ones((33, 1))
    listener = Listener(monkeypatch)
    whole = prove_printed(a, p, masks, 0.0, budget=Budget(1.0, listener))
    assert whole.holds
    late = Listener(monkeypatch, "proof", calls)
    stopped = prove_printed(a, p, masks, 0.0, budget=Budget(1.0, late))
    assert stopped.holds is None
    assert "time limit" in stopped.method or "not left" in stopped.method


def test_the_descent_ends_when_the_time_is_over(monkeypatch):
    planted = plant([16, 24, 40, 150, 4], 5, 0)
    listener = Listener(monkeypatch, "descent", 1)
    result = disaggregate(
        planted.network, planted.gradient, planted.loss, prove=False,
        budget=Budget(1.0, listener),
    )  # fmt: skip
    assert (result.verdict, result.layer) == ("undecided", 1)
    assert "time limit" in result.reason
    assert result.samples is not None


def test_a_late_set_leaves_the_verdict_undecided():
    planted = plant([20, 14, 1], 6, 3)
    result = disaggregate(
        planted.network, planted.gradient, planted.loss, budget=Budget(deadline=0.0)
    )
    assert result.verdict == "undecided"


def mixed_rows(planted):
    on = planted.network.forward(planted.samples).preactivations[-2] > 0.0
    return int((on.any(axis=0) & ~on.all(axis=0)).sum())


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_rows_are_those_that_are_mixed(outputs, noise):
    """Neurons that are on for every sample are no rows, whatever their number."""
    planted = plant([16, 260, outputs], 5, 2)
    biases = np.array(planted.network.biases[0])
    biases[:90] = 50.0
    biases[90:110] = -50.0
    network = DeepNetwork(planted.network.weights, [biases, planted.network.biases[1]], "relu")
    gradient = network.gradient(planted.samples, planted.cotangents)
    if noise:
        gradient = add_noise(gradient, noise, np.random.default_rng(0))
    result = disaggregate(network, gradient, planted.loss)
    changed = type(planted)(
        network, gradient, planted.samples, planted.cotangents, planted.labels, planted.loss
    )
    assert result.samples is not None
    assert result.kernel.rows == mixed_rows(changed)
    assert result.kernel.rows <= 150


def test_an_unseparated_gradient_counts_the_live_rows():
    planted = plant([16, 20, 4], 9, 0)
    result = disaggregate(planted.network, planted.gradient, planted.loss)
    assert result.samples is None
    on = planted.network.forward(planted.samples).preactivations[0] > 0.0
    assert result.kernel.rows == int(on.any(axis=0).sum())
