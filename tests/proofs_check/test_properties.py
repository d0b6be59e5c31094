"""Properties hold for what they are true of, fail for what they are not, and strategies draw."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identify import HermiteData, TwoLayerNetwork, assess_identifiability, plant_network
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.records import Recovery, Scope, Verdict
from proofs_check import properties, strategies

few = settings(max_examples=40)
sign = st.sampled_from([-1.0, 1.0])


def fails(words):
    return pytest.raises(AssertionError, match=words)


def scaled(network, factor):
    return replace(network, hidden_weight=factor * network.hidden_weight)


# --- drawn instances satisfy them ------------------------------------------------------------


@few
@given(strategies.stationary_points())
def test_stationary_points_are_balanced_and_stationary(point):
    samples, coefficients = point.data.samples, point.data.coefficients
    properties.assert_balance(point.network)
    properties.assert_stationary(point.network, samples, coefficients)
    data = HermiteData.from_weight_decay(point.network)
    properties.assert_explains(data, samples, coefficients)


@few
@given(strategies.gradient_problems(), st.booleans())
def test_batches_explain_their_gradient(problem, biased):
    net, batch = problem.network, problem.data
    if biased:
        net = replace(net, hidden_bias=np.linspace(-1.0, 1.0, net.width))
    data = HermiteData.from_gradient(net, net.gradient(batch.samples, batch.coefficients))
    properties.assert_explains(data, batch.samples, batch.coefficients)


@few
@given(strategies.gradient_problems(), st.floats(1.01, 3.0))
def test_other_coefficients_explain_no_gradient(problem, factor):
    net, batch = problem.network, problem.data
    data = HermiteData.from_gradient(net, net.gradient(batch.samples, batch.coefficients))
    with fails("does not explain the data"):
        properties.assert_explains(data, batch.samples, factor * batch.coefficients)


@few
@given(strategies.stationary_points(), st.floats(1.001, 2.0))
def test_scaled_layers_are_neither_balanced_nor_stationary(point, factor):
    wrong = scaled(point.network, factor)
    with fails("not balanced"):
        properties.assert_balance(wrong)
    with fails("not stationary"):
        properties.assert_stationary(wrong, point.data.samples, point.data.coefficients)


@few
@given(strategies.sample_sets(), sign, st.floats(0.2, 5.0), st.randoms(use_true_random=False))
def test_symmetries_keep_a_training_set(data, flip, length, order):
    rows = list(range(len(data.samples)))
    order.shuffle(rows)
    factor = flip * length
    other = SimpleNamespace(
        samples=factor * data.samples[rows],
        coefficients=data.coefficients[rows] / factor**data.degree,
    )
    properties.assert_same_training_set(data, other, data.degree)
    if length > 1.1:
        with fails("the sets differ: a sample"):
            properties.assert_same_training_set(data, other, data.degree, "unit")


# --- and fail where they should --------------------------------------------------------------


def test_rounding_of_stored_weights_is_allowed():
    planted = plant_network(np.eye(3), degree=3)
    exact = planted.network
    stored = replace(
        exact,
        hidden_weight=exact.hidden_weight.astype(np.float32),
        output_weight=exact.output_weight.astype(np.float32),
    )
    # Numbers that pass for float64 are held to its accuracy.
    passing = TwoLayerNetwork(stored.hidden_weight, stored.output_weight, 3)
    with fails("not stationary"):
        properties.assert_stationary(passing, planted.samples, planted.coefficients)
    single = replace(passing, rounding=2.0**-24)
    properties.assert_stationary(single, planted.samples, planted.coefficients)
    properties.assert_balance(single)
    data = HermiteData.from_weight_decay(single)
    properties.assert_explains(data, planted.samples, planted.coefficients)


def test_kkt_point_needs_signs_and_equal_margins():
    planted = plant_network(np.eye(3), degree=3, stationary="margin")
    network, samples, b = planted.network, planted.samples, planted.coefficients
    properties.assert_kkt_point(network, samples, b)
    properties.assert_kkt_point(
        TwoLayerNetwork(2 * network.hidden_weight, 2 * network.output_weight, 3), samples, b / 4
    )
    longer = samples * np.array([[1.0], [1.0], [1.5]])
    with fails("margins differ"):
        properties.assert_kkt_point(network, longer, b / np.array([1.0, 1.0, 1.5]) ** 3)
    with fails("not stationary"):
        properties.assert_kkt_point(network, samples, -b)
    flipped = TwoLayerNetwork(np.eye(2), [3**-0.5, 3**-0.5], 3)
    with fails("negative multiplier"):
        properties.assert_kkt_point(flipped, np.diag([-1.0, 1.0]), [1.0, 1.0], np.inf)


def test_sets_of_other_size_or_coefficient_differ():
    one = SimpleNamespace(samples=np.eye(2), coefficients=np.array([1.0, 3.0]))
    two = SimpleNamespace(samples=np.eye(2), coefficients=np.array([1.0, 3.1]))
    with fails("a coefficient by"):
        properties.assert_same_training_set(one, two, 3)
    three = SimpleNamespace(samples=np.eye(2)[:1], coefficients=np.ones(1))
    with fails("2 and 1 samples"):
        properties.assert_same_training_set(one, three, 3)


def claim(samples, most, bound=1e-9):
    """The parts of a report that a claim of uniqueness is made of."""
    count = len(samples)
    recovery = Recovery(np.asarray(samples), np.ones(count), np.full(count, bound), {})
    return SimpleNamespace(
        verdict=Verdict.GLOBALLY,
        scope=Scope("at_most", most),
        recovery=recovery,
        problem={"degree": 3, "dimension": len(samples[0])},
    )


def test_wrong_claims_are_unsound():
    properties.assert_sound(claim(np.eye(3), 3), 2 * np.eye(3)[::-1])
    with fails("1 of 3 true ones"):
        properties.assert_sound(claim(np.eye(3), 3), [[1, 0, 0], [0, 1, 0], [0, 1e-6, 1.0]])
    properties.assert_sound(claim(np.eye(3), 3, 1e-5), [[1, 0, 0], [0, 1, 0], [0, 1e-6, 1.0]])
    # Lengths count where the scale is fixed; larger sets are not excluded by the claim.
    with fails("3 of 3 true ones"):
        properties.assert_sound(claim(np.eye(3), 3), 2 * np.eye(3), "bias")
    properties.assert_sound(claim(np.eye(3), 3), np.vstack([np.eye(3), np.ones((1, 3))]))


@pytest.mark.parametrize("count", [4, 9])
def test_reports_are_sound(count):
    rng = np.random.default_rng(count)
    net = TwoLayerNetwork(rng.normal(size=(60, 6)), rng.normal(size=60), degree=3)
    batch = rng.normal(size=(count, 6))
    sent = net.gradient(batch, rng.uniform(0.5, 1.0, size=count))
    report = assess_identifiability(HermiteData.from_gradient(net, sent), evidence="numerical")
    properties.assert_sound(report, batch)
    if count == 4:
        with fails("true ones are not within their bounds"):
            properties.assert_sound(report, rng.normal(size=(4, 6)))


@pytest.mark.parametrize(
    ("samples", "coefficients", "name"),
    [(np.ones(3), np.ones(3), "samples"), (np.ones((2, 4)), np.ones(2), "samples"),
     (np.ones((2, 3)), np.ones(3), "coefficients")],
)  # fmt: skip
def test_shapes_are_checked(samples, coefficients, name):
    network = TwoLayerNetwork(np.eye(3), np.ones(3), 3)
    with pytest.raises(InvalidInputError, match=name):
        properties.assert_stationary(network, samples, coefficients)
    with pytest.raises(InvalidInputError, match=name):
        properties.assert_explains(HermiteData.from_weight_decay(network), samples, coefficients)


def test_polynomial_networks_are_refused():
    network = TwoLayerNetwork(np.eye(3), np.ones(3), 3, activation=(0.0, 1.0, 0.0, 1.0))
    with pytest.raises(NotYetSupportedError):
        properties.assert_balance(network)


# --- strategies ------------------------------------------------------------------------------


@few
@given(strategies.sample_sets(max_samples=5, max_dimension=4))
def test_samples_are_independent_and_described(data):
    count, dimension = data.samples.shape
    assert count <= dimension <= 4
    assert np.linalg.matrix_rank(data.samples) == count
    assert np.all(np.abs(data.coefficients) >= 0.5)
    assert f"seed={data.seed})" in repr(data)
    again = strategies.draw_samples(data.kind, count, dimension, data.seed)
    np.testing.assert_array_equal(data.samples, again)


@pytest.mark.parametrize("kind", strategies.KINDS)
def test_every_kind_can_be_asked_for(kind):
    drawn = strategies.sample_sets(kinds=(kind,))

    @few
    @given(drawn)
    def examine(data):
        assert data.kind == kind

    examine()


def test_digits_are_left_out_where_they_cannot_be_loaded(monkeypatch):
    def missing():
        raise ModuleNotFoundError("sklearn")

    monkeypatch.setattr(strategies, "digits", missing)
    assert strategies.present(("digits",)) == ("generic",)
    assert strategies.present() == strategies.KINDS[:-1]


def test_kept_points_are_told_apart_by_content():
    strategies.forget()
    data = strategies.SampleSet("generic", np.eye(2), np.ones(2), 3, 0)
    first = strategies.stationary_point(data)
    assert strategies.stationary_point(data).network is first.network
    other = strategies.stationary_point(replace(data, coefficients=np.array([1.0, 2.0])))
    assert other.network is not first.network
    strategies.forget()
    again = strategies.stationary_point(data).network
    assert again is not first.network
    np.testing.assert_array_equal(again.hidden_weight, first.network.hidden_weight)
