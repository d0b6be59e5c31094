"""How well a set explains the data, and the freedom off the span."""

from __future__ import annotations

import numpy as np
import pytest

from identify.alternatives.off_span import nu_pair_alternative, off_span_alternative
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.stationarity import stationarity
from identify.model.two_layer import TwoLayerNetwork
from tests.identify.alternatives.training_sets import (
    batch_gradient,
    orthonormal_kkt,
    plain_residual,
    searched,
    stationary,
    unit_rows,
)


class TestStationarity:
    @pytest.mark.parametrize("decay", [None, 0.3])
    def test_weight_decay(self, decay):
        network, x, b = orthonormal_kkt(3, 5)
        data = HermiteData.from_weight_decay(network, decay)
        share = 1.0 if decay is None else decay
        assert stationarity(data, x, share * b) < 1e-13
        # Without the first sample its neuron is missing: a third of |theta|^2.
        assert stationarity(data, x[1:], share * b[1:]) == pytest.approx(3**-0.5, rel=1e-12)

    @pytest.mark.parametrize("bias", [False, True])
    def test_gradient(self, bias):
        network, x, b, gradient = batch_gradient(5, 3, 4, 4, bias=bias)
        data = HermiteData.from_gradient(network, gradient)
        assert stationarity(data, x, b) < 1e-13
        wrong = plain_residual(network, gradient, x, 1.1 * b)
        assert stationarity(data, x, 1.1 * b) == pytest.approx(wrong, rel=1e-12)
        assert wrong == pytest.approx(0.1)

    @pytest.mark.parametrize("bias", [False, True])
    def test_fine_tuning_at_the_initial_point(self, bias):
        initial, x, b, step = batch_gradient(6, 3, 4, 3, bias=bias)
        final = TwoLayerNetwork(
            initial.hidden_weight + 0.1 * step.hidden_weight,
            initial.output_weight + 0.1 * step.output_weight,
            3,
            hidden_bias=initial.hidden_bias + 0.1 * step.hidden_bias if bias else None,
        )
        data = HermiteData.from_fine_tuning(initial, final, point="initial")
        assert stationarity(data, x, 0.1 * b) < 1e-13
        chosen = HermiteData.from_fine_tuning(initial, final)
        assert stationarity(chosen, x, 0.1 * b) < 1e-13
        middle = HermiteData.from_fine_tuning(initial, final, point="midpoint")
        assert 1e-6 < stationarity(middle, x, 0.1 * b) < 1.0


class TestOffSpan:
    @pytest.fixture
    def planted(self):
        """Six samples on four neurons, with parts off their span that stationarity allows."""
        network, _x, _b = orthonormal_kkt(4, 12)
        data = HermiteData.from_kkt(network)
        sets = searched(data, samples=6)
        start = off_span_alternative(data, sets[0].samples, sets[0].coefficients)
        return network, data, start

    def test_reflection_keeps_everything(self, planted):
        network, data, start = planted
        assert start.stationarity < 1e-13
        outside = start.samples - start.samples @ np.linalg.pinv(network.hidden_weight) @ (
            network.hidden_weight
        )
        assert np.linalg.norm(outside, axis=1).max() > 0.5
        other = off_span_alternative(data, start.samples, start.coefficients)
        np.testing.assert_allclose(other.samples, start.samples - 2.0 * outside, atol=1e-12)
        assert plain_residual(network, network, other.samples, other.coefficients) < 1e-13
        np.testing.assert_allclose(
            network.value(other.samples), network.value(start.samples), rtol=1e-12
        )
        np.testing.assert_allclose(
            np.linalg.norm(other.samples, axis=1), np.linalg.norm(start.samples, axis=1)
        )

    @pytest.mark.parametrize("distance", [0.2, 3.0])
    def test_distance(self, planted, distance):
        network, data, start = planted
        other = off_span_alternative(data, start.samples, start.coefficients, distance=distance)
        moved = np.linalg.norm(other.samples - start.samples, axis=1)
        assert np.max(moved / np.linalg.norm(start.samples, axis=1)) == pytest.approx(distance)
        assert plain_residual(network, network, other.samples, other.coefficients) < 1e-13

    def test_bias_coordinate_is_kept(self):
        rng = np.random.default_rng(4)
        x, b = unit_rows(rng.normal(size=(5, 7))), np.ones(5)
        network = stationary(x, b, 3, neurons=3, bias=True)
        data = HermiteData.from_weight_decay(network)
        other = off_span_alternative(data, x, b)
        np.testing.assert_allclose(network.value(other.samples), network.value(x), rtol=1e-10)
        assert plain_residual(network, network, other.samples, b) < 1e-12
        assert np.linalg.norm(other.samples - x, axis=1).max() > 0.1
        lengths = np.linalg.norm(network.lift(other.samples), axis=1)
        np.testing.assert_allclose(lengths, np.linalg.norm(network.lift(x), axis=1))

    def test_nothing_is_free(self):
        network, x, b = orthonormal_kkt(3, 3)
        data = HermiteData.from_kkt(network)
        assert off_span_alternative(data, x, b) is None
        wide, x, b = orthonormal_kkt(3, 5)  # room, but n = r: the kernel is empty
        assert off_span_alternative(HermiteData.from_kkt(wide), x, b) is None

    def test_gradients_see_all(self):
        network, x, b, gradient = batch_gradient(4, 3, 6, 3)
        data = HermiteData.from_gradient(network, gradient)
        with pytest.raises(InvalidInputError, match="kkt or weight-decay"):
            off_span_alternative(data, x, b)

    @pytest.mark.parametrize("bias", [False, True])
    def test_nu_pair(self, bias):
        rng = np.random.default_rng(6)
        x, b = unit_rows(rng.normal(size=(3, 7))), np.array([1.0, -1.0, 1.0])
        network = stationary(x, b, 4 if bias else 3, neurons=3, bias=bias)
        data = HermiteData.from_weight_decay(network)
        split = nu_pair_alternative(data, x, b)
        assert split.count == 4
        assert plain_residual(network, network, split.samples, split.coefficients) < 1e-12
        kept = nu_pair_alternative(data, x, b, keep_norm=True)
        np.testing.assert_allclose(np.linalg.norm(kept.samples, axis=1), 1.0, rtol=1e-12)
        if not bias:
            assert plain_residual(network, network, kept.samples, kept.coefficients) < 1e-12

    def test_nu_pair_of_a_gradient(self):
        rng = np.random.default_rng(7)
        hidden = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 6))
        network = TwoLayerNetwork(hidden, rng.normal(size=9), 3)
        x, b = rng.normal(size=(3, 6)), rng.normal(size=3)
        gradient = network.gradient(x, b)
        data = HermiteData.from_gradient(network, gradient)
        split = nu_pair_alternative(data, x, b)
        assert plain_residual(network, gradient, split.samples, split.coefficients) < 1e-13
        full, x, b, gradient = batch_gradient(8, 3, 5, 3)
        assert nu_pair_alternative(HermiteData.from_gradient(full, gradient), x, b) is None
