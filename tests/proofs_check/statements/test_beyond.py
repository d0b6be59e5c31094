"""Statements about collapse, low rank, fine-tuning and other networks."""

from __future__ import annotations

import numpy as np
import pytest

from identify import TwoLayerNetwork
from proofs_check import strategies
from proofs_check.statements.beyond import (
    collapse,
    collapse_trained,
    finetuning_orders,
    finetuning_updates,
    lowrank,
    random_features,
)
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.planes import coplanar_data
from proofs_check.strategies import GradientProblem, SampleSet
from tests.proofs_check import helpers


def valley(loss="squared", degree=3):
    """A stationary point of two orthonormal samples with all its eigenvectors."""
    samples = strategies.draw_samples("orthonormal", 2, 3, 4)
    data = SampleSet("orthonormal", samples, np.array([0.8, 1.3]), degree, 4)
    return collapse.Valley(strategies.stationary_point(data), loss, 0.1)


def pulled(point, network):
    """The gradient of loss + decay |theta|^2/2, flat, the loss of `point` kept fixed."""
    data, start = point.point.data, point.network
    values, moved = start.value(data.samples), network.value(data.samples)
    slopes = -point.decay * data.coefficients
    if point.loss == "squared":
        slopes = slopes + moved - values
    else:
        labels = np.sign(data.coefficients)
        weights = np.abs(slopes) * (1.0 + np.exp(labels * values))
        slopes = -labels * weights / (1.0 + np.exp(labels * moved))
    found = network.gradient(data.samples, slopes)
    rows = np.column_stack([found.output_weight, found.hidden_weight])
    theta = np.column_stack([network.output_weight, network.hidden_weight])
    return (rows + point.decay * theta).ravel()


@pytest.mark.parametrize("loss", collapse.LOSSES)
@pytest.mark.parametrize("degree", [3, 4])
def test_hessian_agrees_with_differences(loss, degree):
    point = valley(loss, degree)
    net = point.network
    theta = np.column_stack([net.output_weight, net.hidden_weight])
    assert np.linalg.norm(pulled(point, net)) < 1e-13
    rng = np.random.default_rng(0)
    move = rng.standard_normal(theta.shape)
    ends = []
    for sign in (1.0, -1.0):
        moved = theta + sign * 1e-5 * move
        ends.append(pulled(point, TwoLayerNetwork(moved[:, 1:], moved[:, 0], degree)))
    expected = collapse.hessian(point) @ move.ravel()
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, expected, rtol=1e-6, atol=1e-8)


def test_three_neurons_on_two_samples_are_a_saddle():
    point = valley()
    assert point.network.width == 3
    assert collapse.negative_directions(point) >= 1
    helpers.assert_instance(collapse.SADDLE, point)


def training(**changes):
    """Two samples, six neurons."""
    settings = {
        "kind": "generic", "count": 2, "dimension": 3, "width": 6, "degree": 3, "decay": 0.1,
        "loss": "squared", "start": "random", "seed": 5,
    }  # fmt: skip
    return collapse_trained.Training(**{**settings, **changes})


def test_training_collapses_and_equal_neurons_do_not():
    run = training()
    helpers.assert_instance(collapse_trained.COLLAPSE, run)
    assert 1 <= collapse_trained.live_neurons(run) <= 2
    equal = training(start="equal", count=1, decay=0.03, seed=0)
    assert collapse_trained.live_neurons(equal) == 6
    assert equal.end[2] == pytest.approx(-0.03 * (3 - 1), rel=1e-9)
    helpers.assert_counterexample(collapse_trained.COLLAPSE, "minimum", equal)
    helpers.assert_counterexample(collapse_trained.COLLAPSE, "decay", training(decay=0.0))


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_trained_curvature_agrees_with_differences(degree, loss):
    run = training(degree=degree, loss=loss)
    rng = np.random.default_rng(1)
    flat, move = rng.standard_normal((2, 24))
    ahead = collapse_trained.slopes(run, flat + 1e-5 * move)
    behind = collapse_trained.slopes(run, flat - 1e-5 * move)
    bent = collapse_trained.curvature(run, flat) @ move
    np.testing.assert_allclose((ahead[1] - behind[1]) / 2e-5, bent, rtol=1e-5, atol=1e-6)
    rise = (ahead[0] - behind[0]) / 2e-5
    assert rise == pytest.approx(collapse_trained.slopes(run, flat)[1] @ move, rel=1e-6)


def test_few_neurons_have_one_fit():
    few = base.gradient_data(np.eye(4), np.array([1.0, -0.7, 0.9, 1.2]), 3, 5, "given", 1)
    assert base.hermite_rank(few.data) == (20, 20, 4)
    fewer = base.gradient_data(np.eye(4), np.array([1.0, -0.7, 0.9, 1.2]), 4, 5, "given", 1)
    assert base.hermite_rank(fewer.data)[0] == 20
    helpers.assert_instance(lowrank.RECOVERY, fewer)
    assert base.find_rivals(fewer, 4, starts=16, steps=200).sets


def test_coplanar_quartics_are_not_isolated():
    plane = coplanar_data(3, 1, 4, 1)
    assert lowrank._has_force(plane)
    helpers.assert_counterexample(lowrank.RECOVERY, "isolated", plane)


def test_square_systems_fit_data_of_no_samples():
    square = base.gradient_data(np.eye(3), np.array([1.0, -0.7, 0.9]), 4, 3, "given", 2)
    helpers.assert_instance(lowrank.NO_FORCE, square)
    wide = base.gradient_data(np.eye(3), np.array([1.0, -0.7, 0.9]), 4, 5, "given", 2)
    helpers.assert_counterexample(lowrank.NO_FORCE, "onto", wide)


def test_square_quintics_of_two_samples_may_have_a_single_real_fit():
    # Sums c_i t_i^k for k = 0, 1, 4, 5 are all that two neurons see of two quintic samples.
    square = base.gradient_data(
        np.array([[1.0, 0.4], [-0.3, 1.0]]), np.array([1.0, 0.8]), 5, 2, "given", 3
    )
    assert base.hermite_rank(square.data) == (4, 6, 2)
    found = base.find_rivals(square, 2, starts=64, steps=200)
    assert len(found.sets) >= 5
    gaps = [lowrank.departure(terms, found.truth, 5) for terms in found.sets]
    assert max(gaps) < 1e-9


def problem(degree=3, width=6, seed=2):
    """A random network with a batch of three."""
    rng = np.random.default_rng(seed)
    net = TwoLayerNetwork(rng.standard_normal((width, 4)), rng.uniform(0.5, 1, width), degree)
    drawn = strategies.draw_samples("orthonormal", 3, 4, seed)
    return GradientProblem(net, SampleSet("given", drawn, np.array([1.0, -0.7, 0.4]), degree, seed))


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_second_derivatives_agree_with_differences(degree):
    entry = problem(degree)
    x = entry.data.samples
    rng = np.random.default_rng(4)
    theta, move = rng.standard_normal((2, 6, 5))
    ahead = finetuning_orders.slopes(theta + 1e-6 * move, x, degree)[1]
    behind = finetuning_orders.slopes(theta - 1e-6 * move, x, degree)[1]
    bent = finetuning_orders.bends(theta, x, degree, move[None])[:, 0]
    np.testing.assert_allclose((ahead - behind) / 2e-6, bent, rtol=1e-5, atol=1e-6)


def test_midpoint_is_better_by_an_order_in_a_flow_only():
    flow = finetuning_orders.Flow(problem())
    middle, first = finetuning_orders._reading_orders(flow)
    assert middle == pytest.approx(2.0, abs=0.2)
    assert first == pytest.approx(1.0, abs=0.2)
    single = finetuning_orders.Flow(problem(), steps=1)
    helpers.assert_counterexample(finetuning_orders.MIDPOINT, "flow", single)
    _, early, _ = finetuning_orders.reading_errors(single)
    assert max(early) < 1e-10


def test_momentum_keeps_the_second_order_form_and_adam_breaks_it():
    runs = {rule: finetuning_orders.Tuning(problem(), rule, 4) for rule in ("momentum", "adam")}
    helpers.assert_instance(finetuning_orders.SECOND_ORDER, runs["momentum"])
    helpers.assert_counterexample(finetuning_orders.SECOND_ORDER, "linear-rule", runs["adam"])


def batch(activation="relu", count=3, widths=(6, 4)):
    """A network of two hidden layers and independent samples."""
    rng = np.random.default_rng(6)
    shape = (5, *widths, 1)
    layers = tuple(rng.standard_normal((shape[k + 1], shape[k] + 1)) for k in range(len(shape) - 1))
    x = strategies.draw_samples("generic", count, 5, 6)
    return finetuning_updates.Batch(
        layers, activation, x, np.array([1.0, -1.0, 1.0])[:count], "generic", 6
    )


@pytest.mark.parametrize("activation", finetuning_updates.ACTIVATIONS)
def test_backpropagation_agrees_with_differences(activation):
    entry = batch(activation)

    def loss(layers):
        values = entry.samples
        for layer in layers[:-1]:
            values = finetuning_updates.activate(
                activation, values @ layer[:, :-1].T + layer[:, -1]
            )[0]
        outputs = values @ layers[-1][:, :-1].T + layers[-1][:, -1]
        return np.logaddexp(0.0, -entry.labels * outputs[:, 0]).sum()

    slopes, _ = finetuning_updates.backpropagate(
        entry.layers, activation, entry.samples, entry.labels
    )
    rng = np.random.default_rng(7)
    for depth, slope in enumerate(slopes):
        move = rng.standard_normal(slope.shape)
        ends = []
        for sign in (1.0, -1.0):
            layers = list(entry.layers)
            layers[depth] = layers[depth] + sign * 1e-6 * move
            ends.append(loss(layers))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(np.sum(slope * move), rel=1e-4, abs=1e-6)


def test_adam_leaves_the_span():
    entry = batch("tanh")
    helpers.assert_instance(
        finetuning_updates.UPDATE_SPAN, finetuning_updates.Update(entry, "momentum", 4)
    )
    helpers.assert_counterexample(
        finetuning_updates.UPDATE_SPAN, "linear-rule", finetuning_updates.Update(entry, "adam", 2)
    )


def test_square_features_have_other_data():
    square = random_features.draw_features("square", "generic", 2, 2, 24, 0)
    helpers.assert_counterexample(random_features.LAW, "curved", square)
    curved = random_features.draw_features("tanh", "generic", 2, 2, 24, 0)
    helpers.assert_instance(random_features.LAW, curved)
    assert random_features.find_sets(curved)
    assert random_features.law(curved, curved.samples) < 1e-13
    assert random_features.law(curved, curved.samples + 0.1) > 1e-3


def test_derivative_of_the_features_agrees_with_differences():
    features = random_features.draw_features("softplus", "generic", 2, 3, 20, 1)
    x, b = features.samples, features.coefficients
    slopes = random_features.derivative(features, x, b)
    rng = np.random.default_rng(2)
    move, change = rng.standard_normal((2, 3)), rng.standard_normal(2)
    ends = [
        (b + sign * 1e-6 * change) @ random_features.feature_rows(features, x + sign * 1e-6 * move)
        for sign in (1.0, -1.0)
    ]
    expected = slopes @ np.concatenate([move.ravel(), change])
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, expected, rtol=1e-5, atol=1e-8)
