"""Whole batches from one gradient, and gradients that must not be called determined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from identify.budget import Budget
from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.records import GLOBALLY, UNDECIDED
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.deep import DeepGradient, DeepNetwork

from .families import UNDETERMINED, Case, determined, is_merged, is_wrong, undetermined
from .problems import add_noise, change, distances, plant, plant_batch

SHAPES = [
    ([12, 60, 1], 5, "relu"),
    ([20, 120, 10], 4, "relu"),
    ([20, 90, 2], 5, "relu"),
    ([16, 24, 80, 1], 5, "relu"),
    ([16, 24, 24, 90, 3], 4, "relu"),
    ([16, 24, 24, 24, 200, 1], 3, "relu"),
    ([12, 90, 1], 5, "leaky_relu:0.2"),
    ([12, 24, 160, 3], 4, "leaky_relu:0.1"),
    ([12, 60, 1], 1, "relu"),
]


@pytest.mark.parametrize(("sizes", "count", "activation"), SHAPES)
@pytest.mark.parametrize("rounded", [False, True])
def test_recovers_a_batch(sizes, count, activation, rounded):
    problem = plant(sizes, count, 2, activation)
    gradient = problem.gradient
    if rounded:
        gradient = change(gradient, lambda x: x.astype(np.float32).astype(np.float64))
    result = disaggregate(problem.network, gradient, problem.loss, reduction="mean")
    assert result.verdict == GLOBALLY, result.reason
    assert result.scope == ("at_most", count)
    assert result.layer == 0
    apart = np.linalg.norm(result.samples[:, None] - problem.samples, axis=2)
    order = apart.argmin(axis=0)
    assert sorted(order) == list(range(count))
    relative = apart.min(axis=0) / np.linalg.norm(problem.samples, axis=1)
    assert (relative <= result.error_bounds[order]).all()
    assert result.error_bounds.max() < 1e-3
    assert (result.labels[order] == problem.labels).all()
    assert result.label_confidence.min() > 3
    np.testing.assert_allclose(result.cotangents[order], problem.cotangents, rtol=1e-2, atol=1e-6)
    masks = problem.network.forward(problem.samples).preactivations[-2] > 0
    assert np.array_equal(result.masks[:, order].T, masks)
    np.testing.assert_allclose(result.counts, 1.0, rtol=1e-2)
    assert result.printed.holds
    assert result.data.holds
    assert all(check.holds is not False for check in result.checks)


def test_lower_activations_may_be_others():
    rng = np.random.default_rng(0)
    network = DeepNetwork(
        [rng.normal(size=(20, 9)) / 3, rng.normal(size=(60, 20)) / 4, rng.normal(size=(1, 60)) / 8],
        [rng.normal(size=20), rng.normal(size=60), [0.1]],
        ["tanh", "relu"],
    )
    problem = plant_batch(network, rng.normal(size=(4, 9)), np.array([1, -1, 1, -1]))
    result = disaggregate(network, problem.gradient, "logistic")
    assert result.verdict == GLOBALLY, result.reason
    assert distances(result.samples, problem.samples).max() < 1e-8


def test_without_biases_the_directions_are_determined():
    problem = plant([12, 24, 90, 1], 4, 0, bias=False)
    result = disaggregate(problem.network, problem.gradient)
    assert result.verdict == GLOBALLY, result.reason
    assert not result.scaled
    shown = result.samples / np.linalg.norm(result.samples, axis=1, keepdims=True)
    true = problem.samples / np.linalg.norm(problem.samples, axis=1, keepdims=True)
    assert distances(shown, true).max() < 1e-8


def test_few_neurons_by_the_list_of_masks():
    problem = plant([20, 24, 1], 8, 0)
    result = disaggregate(problem.network, problem.gradient, "logistic", reduction="mean")
    assert result.method == "masks"
    assert result.verdict == GLOBALLY, result.reason
    assert distances(result.samples, problem.samples).max() < 1e-8


@pytest.mark.parametrize("noise", [1e-2, 1e-1])
def test_noise_blurs_the_samples_and_forbids_the_verdict(noise):
    problem = plant([300, 120, 1], 5, 0)
    noisy = add_noise(problem.gradient, noise, np.random.default_rng(0))
    result = disaggregate(problem.network, noisy, problem.loss)
    assert result.verdict == UNDECIDED
    assert np.median(distances(result.samples, problem.samples)) < 2 * noise


def test_a_sample_that_counts_twice_is_said():
    problem = plant([12, 80, 1], 4, 0)
    x, labels = problem.samples, problem.labels
    twice = plant_batch(problem.network, np.concatenate([x, x[:1]]), np.append(labels, labels[0]))
    result = disaggregate(problem.network, twice.gradient, "logistic")
    assert result.verdict == UNDECIDED
    assert "counts 2 times" in result.reason
    heavy = int(np.argmax(result.counts))
    assert np.linalg.norm(result.samples[heavy] - x[0]) < 1e-8
    # Without the loss the four images are the only set of at most four.
    assert disaggregate(problem.network, twice.gradient).verdict == GLOBALLY


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"reduction": "mean"}, {"reduction": "sum"}])
@pytest.mark.parametrize("seed", range(3))
def test_a_known_loss_does_not_take_an_average_for_a_sample(outputs, options, seed):
    """Two samples on which every neuron is on give one gradient of rank 1 or, more outputs, 2."""
    rng = np.random.default_rng(seed)
    network = DeepNetwork(
        [rng.normal(size=(40, 6)), rng.normal(size=(outputs, 40)) / 300],
        [30 + rng.normal(size=40), np.zeros(outputs)],
        "relu",
    )
    labels = np.ones(2, dtype=np.int64) if outputs == 1 else np.array([0, outputs - 1])
    problem = plant_batch(network, rng.normal(size=(2, 6)), labels)
    assert (network.forward(problem.samples).preactivations[0] > 0).all()
    result = disaggregate(network, problem.gradient, problem.loss, **options)
    assert result.verdict == UNDECIDED


def test_a_larger_rank_below_forbids_the_verdict():
    """Two samples with one mask above, told apart below: the last layer alone sees one."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(12, 8))
    second, third = rng.normal(size=(60, 12)), rng.normal(size=(1, 60)) / 1e3
    bias = 50 * rng.choice([-1.0, 1.0], 60)
    network = DeepNetwork([first, second, third], [rng.normal(size=12), bias, [0.0]], "relu")
    problem = plant_batch(network, rng.normal(size=(2, 8)), np.array([1, -1]))
    assert np.linalg.matrix_rank(problem.gradient.layer(1)) == 1
    result = disaggregate(network, problem.gradient)
    assert (result.verdict, result.rank) == (UNDECIDED, 1)
    assert "at least 2 samples" in result.reason


def test_missing_rows_are_counted():
    problem = plant([20, 40, 10], 8, 0)
    result = disaggregate(problem.network, problem.gradient, problem.loss)
    assert result.verdict == UNDECIDED
    assert f"{result.kernel.rows_needed - result.kernel.rows} are missing" in result.reason
    assert result.samples is None


def test_time_limit_is_said():
    problem = plant([20, 120, 1], 6, 0)
    result = disaggregate(problem.network, problem.gradient, budget=Budget(-math.inf))
    assert result.verdict == UNDECIDED
    assert "time limit" in result.reason


@pytest.mark.parametrize("family", range(len(UNDETERMINED)))
def test_no_wrong_verdict(family):
    for turn in range(3):
        case = undetermined(family + turn * len(UNDETERMINED))
        try:
            result = disaggregate(
                case.network, case.gradient, budget=Budget.of(5.0), **case.options
            )
        except InvalidInputError as error:
            assert "zeros" in str(error)  # noqa: PT017
            continue
        assert is_wrong(case, result) == ""


def test_determined_batches_are_called_so():
    verdicts = []
    for seed in range(12):
        case = determined(seed)
        result = disaggregate(case.network, case.gradient, **case.options)
        assert is_wrong(case, result) == ""
        verdicts.append(result.verdict)
    assert verdicts.count(GLOBALLY) >= 11


def test_a_wrong_printed_set_is_noticed():
    """The judge of these tests refuses a set that is not the true one."""
    case = determined(0)
    result = disaggregate(case.network, case.gradient, **case.options)
    assert is_wrong(case, result) == ""
    result.samples[0] += 1.0
    assert is_wrong(case, result) != ""


def test_a_larger_true_set_excuses_only_a_set_with_its_gradient():
    """Six images, one of them twice, loss unknown: five are printed; no other five are excused."""
    problem = plant([12, 120, 1], 5, 1)
    twice = np.concatenate([problem.samples, problem.samples[:1] + 1e-3])
    batch = plant_batch(problem.network, twice, np.append(problem.labels, problem.labels[0]))
    masks = problem.network.forward(twice).preactivations[0] > 0
    assert (masks[0] == masks[5]).all()
    case = Case("merged", problem.network, batch.gradient, batch.samples, batch.cotangents)
    result = disaggregate(case.network, case.gradient)
    assert (result.verdict, result.rank) == (GLOBALLY, 5)
    assert is_merged(case, result)
    assert is_wrong(case, result) == ""
    result.samples[0] *= 1.001
    assert not is_merged(case, result)
    assert is_wrong(case, result) != ""


@pytest.mark.parametrize(
    ("options", "word"),
    [({"loss": "hinge"}, "one of"), ({"reduction": "max"}, "one of"),
     ({"loss": "cross_entropy"}, "2 outputs")],
)  # fmt: skip
def test_refuses_options(options, word):
    problem = plant([6, 20, 1], 2, 0)
    with pytest.raises(InvalidInputError, match=word):
        disaggregate(problem.network, problem.gradient, **options)


def test_refuses_other_networks_and_gradients():
    problem = plant([6, 20, 1], 2, 0)
    network = DeepNetwork(problem.network.weights, problem.network.biases, "gelu")
    with pytest.raises(NotYetSupportedError, match="gelu"):
        disaggregate(network, problem.gradient)
    with pytest.raises(NotYetSupportedError, match="hidden"):
        disaggregate(DeepNetwork([np.ones((2, 3))], None, "relu"), problem.gradient)
    short = DeepGradient(problem.gradient.weights[1:], problem.gradient.biases[1:])
    with pytest.raises(InvalidInputError, match="layers"):
        disaggregate(problem.network, short)
    zero = change(problem.gradient, np.zeros_like)
    with pytest.raises(InvalidInputError, match="zeros"):
        disaggregate(problem.network, zero)
