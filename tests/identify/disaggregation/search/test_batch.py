"""Batches from one gradient of networks with smooth activations: recovery and verdict."""

from __future__ import annotations

import numpy as np
import pytest

from identify.assess_batch import assess_gradient
from identify.disaggregation.records import LOCALLY, UNDECIDED, Disaggregation
from identify.model.deep import DeepGradient, DeepNetwork
from tests.identify.disaggregation.problems import Planted, plant
from tests.identify.disaggregation.search.families import draw, false_points, is_wrong


def errors(found: Disaggregation, samples: np.ndarray, *, sides: bool = False) -> np.ndarray:
    """Distance of every true sample from the nearest recovered one, relative."""
    assert found.samples is not None
    own, true = found.samples, samples
    if not found.scaled:
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
        true = true / np.linalg.norm(true, axis=1, keepdims=True)
    both = np.concatenate([own, -own]) if sides or not found.scaled else own
    apart = np.linalg.norm(true[:, None] - both[None], axis=2).min(axis=1)
    return np.asarray(apart / np.linalg.norm(true, axis=1))


def single(gradient: DeepGradient) -> DeepGradient:
    """The gradient in float32."""
    return DeepGradient(
        [None if w is None else w.astype(np.float32) for w in gradient.weights],
        [None if b is None else b.astype(np.float32) for b in gradient.biases],
    )


@pytest.mark.parametrize(
    ("activation", "bias"),
    [("gelu", True), ("tanh", True), ("sigmoid", True), ("softplus", True), ("silu", False),
     ("monomial:3", False), ("polynomial:0,1,0.5,-0.2", True)],
)  # fmt: skip
def test_one_output(activation: str, bias: bool) -> None:
    case = plant([30, 24, 1], 6, 1, activation, bias)
    report = assess_gradient(case.network, case.gradient)
    assert report.verdict == LOCALLY, report.reason
    assert report.found.scope == ("exactly", 6)
    assert errors(report.found, case.samples).max() < 1e-7
    assert report.found.error_bounds is not None
    assert report.found.error_bounds.max() < 1e-4
    report.to_json(), str(report)


@pytest.mark.parametrize(
    ("sizes", "activation", "loss"),
    [([30, 40, 4], "gelu", None), ([30, 40, 4], "gelu", "cross-entropy"),
     ([30, 20, 20, 3], "tanh", "cross-entropy"), ([30, 20, 20, 20, 3], "gelu", None)],
)  # fmt: skip
def test_several_outputs_and_depth(sizes: list[int], activation: str, loss: str | None) -> None:
    case = plant(sizes, 5, 2, activation)
    report = assess_gradient(case.network, case.gradient, loss)
    assert report.verdict == LOCALLY, report.reason
    assert errors(report.found, case.samples).max() < 1e-8
    if loss is not None:
        found = report.found
        assert found.samples is not None
        assert found.labels is not None
        order = [int(np.linalg.norm(case.samples - s, axis=1).argmin()) for s in found.samples]
        np.testing.assert_array_equal(found.labels, case.labels[order])


def test_labels_are_tried_where_a_free_slope_leaves_too_few_equations() -> None:
    case = plant([20, 20, 8], 7, 0, "gelu")
    free = assess_gradient(case.network, case.gradient)
    assert free.verdict == UNDECIDED
    tied = assess_gradient(case.network, case.gradient, "cross-entropy")
    assert tied.verdict == LOCALLY, tied.reason
    assert errors(tied.found, case.samples).max() < 1e-7


def test_float32() -> None:
    case = plant([40, 60, 1], 8, 0, "gelu")
    report = assess_gradient(case.network, single(case.gradient))
    assert report.verdict == LOCALLY, report.reason
    found = report.found
    assert found.samples is not None
    assert found.error_bounds is not None
    for sample, bound in zip(found.samples, found.error_bounds, strict=True):
        apart = np.linalg.norm(case.samples - sample, axis=1)
        assert apart.min() / np.linalg.norm(sample) < 2.0 * bound


def test_an_even_slope_without_bias_leaves_the_sign_open() -> None:
    case = plant([30, 24, 1], 5, 0, "tanh", False)
    report = assess_gradient(case.network, case.gradient)
    assert report.verdict == LOCALLY
    assert errors(report.found, case.samples, sides=True).max() < 1e-8
    assert any("sign" in line for line in report.found.caveats)


@pytest.mark.parametrize(("activation", "outputs"), [("sigmoid", 1), ("tanh", 8)])
def test_the_output_layer_tells_the_side_where_it_can(activation: str, outputs: int) -> None:
    """sigma(-z) is no negative of sigma(z); with the output bias the slopes of tanh add up."""
    case = plant([30, 40, outputs], 5, 0, activation, False)
    biases = [None, np.zeros(outputs)]
    network = DeepNetwork(case.network.weights, biases, activation)
    report = assess_gradient(network, network.gradient(case.samples, case.cotangents))
    assert report.verdict == LOCALLY, report.reason
    assert errors(report.found, case.samples).max() < 1e-8
    assert not any("sign" in line for line in report.found.caveats)


def test_one_sample_needs_no_search() -> None:
    case = plant([10, 12, 1], 1, 0, "gelu")
    report = assess_gradient(case.network, case.gradient)
    assert report.verdict == LOCALLY
    assert errors(report.found, case.samples).max() < 1e-12


def _wrong_activation() -> tuple[DeepNetwork, DeepGradient]:
    case = plant([30, 24, 1], 5, 0, "gelu")
    return DeepNetwork(case.network.weights, case.network.biases, "softplus"), case.gradient


def _above_width() -> tuple[DeepNetwork, DeepGradient]:
    case = plant([30, 12, 1], 14, 0, "gelu")
    return case.network, case.gradient


def _too_few_neurons() -> tuple[DeepNetwork, DeepGradient]:
    case = plant([30, 11, 1], 6, 0, "gelu")
    return case.network, case.gradient


def _permuted() -> tuple[DeepNetwork, DeepGradient]:
    case = plant([30, 24, 1], 5, 0, "gelu")
    order = np.random.default_rng(0).permutation(24)
    weights, biases = list(case.gradient.weights), list(case.gradient.biases)
    assert weights[0] is not None
    assert biases[0] is not None
    weights[0], biases[0] = weights[0][order], biases[0][order]
    return case.network, DeepGradient(weights, biases)


def _decayed() -> tuple[DeepNetwork, DeepGradient]:
    case = plant([30, 24, 1], 5, 0, "gelu")
    first = case.gradient.weights[0]
    assert first is not None
    weights = [first + 1e-2 * case.network.weights[0], *case.gradient.weights[1:]]
    return case.network, DeepGradient(weights, case.gradient.biases)


def _linear() -> tuple[DeepNetwork, DeepGradient]:
    case = plant([30, 24, 1], 1, 0, "identity")
    return case.network, case.gradient


@pytest.mark.parametrize(
    "make", [_wrong_activation, _above_width, _too_few_neurons, _permuted, _decayed, _linear]
)
def test_what_is_not_determined_is_undecided(make: object) -> None:
    assert callable(make)
    network, gradient = make()
    report = assess_gradient(network, gradient)
    assert report.verdict == UNDECIDED
    assert report.found.scope is None


def test_a_network_that_does_not_fit_closes_the_gate() -> None:
    report = assess_gradient(*_wrong_activation())
    assert report.candidates or not report.covered


def test_a_time_limit_returns_what_was_found() -> None:
    case: Planted = plant([60, 90, 1], 30, 0, "gelu")
    report = assess_gradient(case.network, case.gradient, time_limit=1e-3)
    assert report.verdict == UNDECIDED
    assert "time limit" in report.reason


def test_results_depend_on_the_seed_alone() -> None:
    case = plant([30, 24, 1], 5, 0, "gelu")
    first, second = (assess_gradient(case.network, case.gradient, seed=3) for _ in range(2))
    assert first.found.search == second.found.search


def test_samples_beside_others_that_do_not_fit_are_returned_alone() -> None:
    """Three samples of this network and two of another one: these are found, those are missing."""
    case, other = plant([30, 40, 1], 3, 0, "gelu"), plant([30, 40, 1], 2, 9, "gelu")
    own, more = case.gradient, other.gradient
    weights = [np.add(a, b) for a, b in zip(own.weights, more.weights, strict=True)]
    biases = [np.add(a, b) for a, b in zip(own.biases, more.biases, strict=True)]
    report = assess_gradient(case.network, DeepGradient(weights, biases))
    found = report.found
    assert (report.verdict, report.candidates) == (UNDECIDED, True)
    assert found.samples is not None
    assert found.search is not None
    assert (found.rank, found.search.found, found.search.missing) == (5, 3, 2)
    assert errors(found, case.samples).max() < 1e-8
    assert "3 of 5 samples" in str(report)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_families_have_no_wrong_verdict(seed: int) -> None:
    drawn = draw(seed)
    report = assess_gradient(drawn.network, drawn.gradient, time_limit=20.0, **drawn.options)
    assert not is_wrong(drawn, report)
    if (report.found.power or 0) >= 1:
        assert not false_points(drawn, report)
