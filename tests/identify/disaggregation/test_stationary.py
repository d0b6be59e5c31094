"""Weights of two-layer ReLU networks at stationary points: right, and never wrongly unique."""

from __future__ import annotations

import numpy as np
import pytest

import identify
from identify.disaggregation.stationary import stationary_gradient
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.deep import DeepNetwork
from identify.model.patterns import count_directions, pattern_rank
from tests.benchmarks.stationary_soundness import rivals
from tests.identify.disaggregation.stationary_families import (
    centred,
    determined,
    is_wrong,
    undetermined,
)


def assess(weights):
    return identify.assess_stationary(
        weights.network, weights.source, trained=weights.trained, **weights.options
    )


@pytest.mark.parametrize(("count", "size", "patterns"), [(4, 2, 10), (8, 4, 126)])
@pytest.mark.parametrize("trained", ["both", "hidden"])
def test_special_data_are_determined_with_both_layers_trained(count, size, patterns, trained):
    x = identify.equiangular_samples(count, size, count + 5, seed=1)
    planted = identify.plant_relu_network(x, trained="both")
    report = identify.assess_stationary(planted.network, trained=trained)
    assert report.verdict == "globally"
    assert report.found.kernel.gap > 1e3
    assert report.facts.directions == patterns
    assert report.facts.patterns == count * (count + 1) // 2
    assert report.found.printed.holds
    apart = np.abs(report.found.samples[:, None] - x).max(axis=2).min(axis=1)
    assert apart.max() < 1e-10
    np.testing.assert_allclose(report.facts.margins, 1.0, rtol=1e-9)


@pytest.mark.parametrize("seed", range(15))
def test_determined_weights_give_their_samples(seed):
    weights = determined(seed)
    report = assess(weights)
    assert report.verdict == "globally", report.reason
    assert not is_wrong(weights, report)
    b = np.sort(np.abs(report.coefficients))
    np.testing.assert_allclose(b, np.sort(np.abs(weights.coefficients)), rtol=1e-3)


@pytest.mark.medium
@pytest.mark.parametrize("first", [0, 500])
def test_nothing_is_wrongly_unique(first):
    for seed in range(first, first + 30):
        weights = undetermined(seed)
        report = assess(weights)
        assert not is_wrong(weights, report), (weights.family, seed)
        if report.verdict == "globally":
            assert rivals(weights) in (None, 1), (weights.family, seed)


def test_a_wrong_answer_would_be_seen():
    weights = determined(1)
    report = assess(weights)
    moved = weights.samples + 0.1 * np.arange(len(weights.samples))[:, None]
    assert is_wrong(type(weights)(**(vars(weights) | {"samples": moved})), report)


def test_margins_and_layers_are_checked():
    x = centred(np.random.default_rng(3), 4, 12)
    planted = identify.plant_relu_network(x, kind="regression")
    assert identify.assess_stationary(
        planted.network, "weight-decay", trained="hidden"
    ).verdict == ("globally")
    report = identify.assess_stationary(planted.network, "kkt", trained="hidden")
    assert report.verdict == "undecided"
    assert "equal margins" in report.reason
    report = identify.assess_stationary(planted.network, "weight-decay", trained="both")
    assert report.verdict == "undecided"
    assert "--trained hidden" in report.reason


def test_the_loss_of_weight_decay_is_a_check():
    x = centred(np.random.default_rng(3), 4, 12)
    planted = identify.plant_relu_network(x, kind="regression")
    report = identify.assess_stationary(
        planted.network, "weight-decay", trained="hidden", loss="logistic"
    )
    assert report.found.check("known loss").holds is False
    assert report.verdict == "undecided"


def two_logits(network, common):
    """The network with two outputs whose difference over sqrt(2) is its own."""
    u = network.weights[1]
    heads = np.concatenate([common - u, common + u]) / np.sqrt(2.0)
    return DeepNetwork([network.weights[0], heads], [network.biases[0], None], "relu")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("trained", ["both", "hidden"])
def test_two_logits_have_one_margin(trained, seed):
    x = identify.equiangular_samples(4, 2, 9, seed=seed)
    one = identify.plant_relu_network(x, trained="both").network
    # A fixed output layer may have anything in common; with both trained it is 0.
    rng = np.random.default_rng(seed)
    common = rng.normal(size=one.weights[1].shape) if trained == "hidden" else 0.0
    two = two_logits(one, common)
    report = identify.assess_stationary(two, trained=trained)
    plain = identify.assess_stationary(one, trained=trained)
    assert report.verdict == plain.verdict == "globally"
    assert np.abs(report.found.samples[:, None] - x).max(axis=2).min(axis=1).max() < 1e-9
    np.testing.assert_allclose(report.facts.margins, 1.0, rtol=1e-8)
    assert report.inputs[0]["sha256"] == two.sha256()
    assert "difference of the two outputs" in " ".join(report.assumptions)
    labels = np.sign(np.diff(two.value(report.found.samples), axis=1)[:, 0])
    np.testing.assert_array_equal(report.found.labels, labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_logits_that_are_not_opposite_are_refused(seed):
    x = identify.equiangular_samples(4, 2, 9, seed=seed)
    one = identify.plant_relu_network(x, trained="both").network
    common = 0.5 * np.random.default_rng(seed).normal(size=one.weights[1].shape)
    with pytest.raises(NotYetSupportedError, match="--trained hidden"):
        identify.assess_stationary(two_logits(one, common), trained="both")


def test_too_few_patterns_are_named():
    x = centred(np.random.default_rng(4), 8, 20)
    lifted = np.column_stack([x, np.ones(8)])
    b = 1.0 / np.linalg.norm(lifted, axis=1)
    a = np.linspace(0.5, 2.0, 24)
    rows = a[:, None] * np.repeat(b[:, None] * lifted, 3, axis=0)
    network = DeepNetwork([rows[:, :-1], a[None]], [rows[:, -1], None], "relu")
    report = identify.assess_stationary(network, "weight-decay", time_limit=20.0)
    assert report.verdict == "undecided"
    assert "18 different ones are asked for by 8 samples" in report.reason
    assert "8 different directions" in report.reason
    assert "data in general position have at most 8 independent ones" in report.reason


def test_samples_of_one_pattern_with_free_multipliers():
    """Three outputs and no loss: two sets explain the weights, and the gate stays shut."""
    rng = np.random.default_rng(5)
    x = centred(rng, 3, 9)
    x = np.vstack([x, x[:1] + 0.1 * rng.normal(size=(1, 9))])
    lifted = np.column_stack([x, np.ones(4)])
    b = rng.normal(size=(4, 3))
    rows, heads = [], []
    while len(rows) < 80:
        head, on = rng.normal(size=3), rng.random(4) < 0.5
        on[3] = on[0]
        row = (on * (b @ head)) @ lifted
        if on.any() and ((lifted @ row > 0.0) == on).all():
            rows.append(row)
            heads.append(head)
    rows = np.array(rows)
    network = DeepNetwork([rows[:, :-1], np.array(heads).T], [rows[:, -1], None], "relu")
    report = identify.assess_stationary(network, "weight-decay", trained="hidden")
    assert report.verdict == "undecided"
    assert "two different sets of 4 samples explain these weights" in report.reason
    assert report.candidates


def test_a_number_that_contradicts_the_rank():
    planted = identify.plant_relu_network(centred(np.random.default_rng(5), 4, 12))
    report = identify.assess_stationary(planted.network, trained="hidden", samples=3)
    assert report.verdict == "undecided"
    assert "3 samples are assumed" in report.reason


def test_what_is_refused():
    relu = DeepNetwork([np.eye(3), np.ones((1, 3))], [np.ones(3), [0.5]], "relu")
    with pytest.raises(InvalidInputError, match="output bias"):
        identify.assess_stationary(relu)
    for source, trained in (("gradient", "both"), ("kkt", "output")):
        with pytest.raises(InvalidInputError):
            identify.assess_stationary(relu, source, trained=trained)
    for network in (
        DeepNetwork([np.eye(3), np.ones((1, 3))], None, "gelu"),
        DeepNetwork([np.eye(3), np.ones((2, 3))], None, "relu"),
        DeepNetwork([np.eye(3), np.ones((3, 3))], None, "relu"),
        DeepNetwork([np.eye(3), np.eye(3), np.ones((1, 3))], None, "relu"),
    ):
        with pytest.raises(NotYetSupportedError):
            identify.assess_stationary(network)
    with pytest.raises(InvalidInputError, match="not all 0"):
        identify.assess_stationary(DeepNetwork([np.zeros((3, 3)), np.ones((1, 3))], None, "relu"))


def test_the_gradient_leaves_a_fixed_layer_out():
    relu = DeepNetwork([np.eye(3), np.ones((1, 3))], [np.ones(3), [0.0]], "relu")
    assert stationary_gradient(relu, "hidden").weights[1] is None
    assert stationary_gradient(relu, "both").biases[1] is None


def test_ranks_of_patterns_agree_with_singular_values():
    rng = np.random.default_rng(0)
    for count in (1, 2, 4, 6):
        masks = rng.random((30, count)) < rng.uniform(0.2, 0.8)
        i, k = np.triu_indices(count)
        plain = np.linalg.matrix_rank((masks[:, i] & masks[:, k]).astype(float))
        assert pattern_rank(masks) == plain
    assert count_directions(np.vstack([np.eye(3), 2.0 * np.eye(3)]), 1e-9) == 3
