"""Neurons that the equations leave out, ties without force, scales at the edge of float64."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from identify import Evidence, HermiteData, TwoLayerNetwork, Verdict, assess_identifiability
from identify.exposure.compare import match_samples
from tests.identify.reports import check_report


def far_sample(distance: float, dtype: type) -> tuple[TwoLayerNetwork, np.ndarray]:
    """An exact cubic KKT point: three unit samples, and a far one that one small neuron sees.

    All samples are orthogonal and all margins 1.
    """
    samples = np.eye(6)[:4]
    samples[3] *= distance
    sets = [c for k in (1, 2, 3) for c in combinations(range(3), k)]
    multiplier = 3**-0.75 * np.sqrt(sum(len(c) ** -0.5 for c in sets if 0 in c))
    weights, outputs = [], []
    for support in sets:
        size = (3.0 * len(support) / multiplier**2) ** -0.25
        weight = size * samples[list(support)].sum(axis=0) / multiplier
        weights.append(weight)
        outputs.append(multiplier * np.sum((samples[:3] @ weight) ** 3))
    height = (np.sqrt(3.0) / distance**3) ** 0.25
    weights.append(height * np.eye(6)[3])
    outputs.append(height / np.sqrt(3.0))
    network = TwoLayerNetwork(
        np.array(weights, dtype=dtype).astype(float),
        np.array(outputs, dtype=dtype).astype(float),
        3,
        rounding=float(np.finfo(dtype).eps) / 2.0,
    )
    return network, samples


@pytest.mark.parametrize(
    ("distance", "dtype"),
    [(30.0, np.float32), (300.0, np.float32), (1e4, np.float64), (3e4, np.float64)],
)
def test_a_sample_that_only_a_small_neuron_sees_is_counted(distance, dtype):
    network, samples = far_sample(distance, dtype)
    assert np.allclose(network.value(samples), 1.0, rtol=1e-5)
    report = assess_identifiability(HermiteData.from_kkt(network))
    assert report.verdict is Verdict.GLOBALLY
    assert report.scope is not None
    assert report.scope.samples == 4
    assert report.recovery is not None
    matching = match_samples(report.recovery.samples, samples, up_to_sign=True, up_to_scale=True)
    assert max(matching.errors) < 1e-4


def gradient_pair(seed: int = 0) -> tuple[TwoLayerNetwork, TwoLayerNetwork, np.ndarray]:
    rng = np.random.default_rng(seed)
    network = TwoLayerNetwork(rng.standard_normal((14, 6)), rng.standard_normal(14), 3)
    samples = np.zeros((3, 6))
    samples[:, :4] = rng.standard_normal((3, 4))
    return network, network.gradient(samples, [1.0, -0.8, 1.3]), samples


class TestRowsWithoutAnExplanation:
    def test_a_neuron_orthogonal_to_the_samples(self):
        network, gradient, _ = gradient_pair()
        weights, rows = network.hidden_weight.copy(), gradient.hidden_weight.copy()
        weights[3] = [0, 0, 0, 0, 0, 2.0]
        values = gradient.output_weight.copy()
        values[3] = 0.0
        rows[3] = 0.0
        silent = replace(network, hidden_weight=weights)
        honest = replace(gradient, hidden_weight=rows, output_weight=values)
        report = assess_identifiability(HermiteData.from_gradient(silent, honest))
        assert report.verdict is Verdict.GLOBALLY
        row = next(c for c in report.conditions if c.name == "leftover")
        assert row.holds
        rows = rows.copy()
        rows[3] = 0.05 * rows[0]
        false = replace(honest, hidden_weight=rows)
        report = assess_identifiability(HermiteData.from_gradient(silent, false))
        assert report.verdict is Verdict.UNDECIDED
        assert "do not explain" in report.reason

    def test_a_row_where_the_output_weight_is_zero(self):
        network, gradient, _ = gradient_pair(1)
        outputs, rows = network.output_weight.copy(), gradient.hidden_weight.copy()
        outputs[2], rows[2] = 0.0, 0.0
        silent = replace(network, output_weight=outputs)
        honest = replace(gradient, hidden_weight=rows)
        assert (
            assess_identifiability(HermiteData.from_gradient(silent, honest)).verdict
            is Verdict.GLOBALLY
        )
        rows = rows.copy()
        # Orthogonal to the neuron, so that Euler's identity does not notice.
        along = network.hidden_weight[2]
        rows[2] = 0.1 * (rows[0] - (rows[0] @ along) / (along @ along) * along)
        false = replace(honest, hidden_weight=rows)
        report = assess_identifiability(HermiteData.from_gradient(silent, false))
        assert report.verdict is Verdict.UNDECIDED
        assert "1 neuron that the equations leave out" in report.reason
        check_report(report.to_json())

    def test_a_row_far_too_large_for_its_output_weight(self):
        network, gradient, _ = gradient_pair(2)
        outputs = network.output_weight.copy()
        outputs[2] = 1e-14
        report = assess_identifiability(
            HermiteData.from_gradient(replace(network, output_weight=outputs), gradient)
        )
        assert report.verdict is Verdict.UNDECIDED

    def test_noise_on_dead_rows_is_no_contradiction(self):
        rng = np.random.default_rng(3)
        network = TwoLayerNetwork(rng.standard_normal((40, 300)), rng.standard_normal(40), 3)
        outputs = network.output_weight.copy()
        outputs[:5] = 0.0
        network = replace(network, output_weight=outputs)
        gradient = network.gradient(rng.standard_normal((4, 300)), [1.0, -0.8, 1.3, 0.7])
        rows = gradient.hidden_weight
        noise = 1e-6 * np.linalg.norm(rows) / np.sqrt(rows.size) * rng.standard_normal(rows.shape)
        data = HermiteData.from_gradient(network, replace(gradient, hidden_weight=rows + noise))
        report = assess_identifiability(data)
        assert report.verdict is Verdict.GLOBALLY
        assert next(c for c in report.conditions if c.name == "leftover").holds


class TestTies:
    def data(self, seed: int, count: int = 2) -> HermiteData:
        rng = np.random.default_rng(seed)
        samples = rng.standard_normal((count, 6))
        if count == 3:
            samples[2] = 0.6 * samples[0] - 0.5 * samples[1]
        samples /= np.linalg.norm(samples, axis=1, keepdims=True)
        labels = np.array([1.0, -1.0, 1.0])[:count]
        network = TwoLayerNetwork(rng.standard_normal((12, 6)), rng.standard_normal(12), 3)
        b = -labels / (1.0 + np.exp(labels * network.value(samples)))
        return HermiteData.from_gradient(network, network.gradient(samples, b), loss="logistic")

    def test_a_tie_is_numerical_evidence(self):
        report = assess_identifiability(self.data(0), scale="unit")
        assert report.verdict is Verdict.GLOBALLY
        assert report.redundant_equations == 1
        assert report.evidence is Evidence.NUMERICAL
        assert any("only a tie" in words for words in report.strengthen)
        given = assess_identifiability(self.data(0), scale="unit", samples=2)
        assert given.evidence is Evidence.PROVED_INTERVAL

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("noise", [1e-4, 1e-3])
    def test_a_tie_that_any_samples_would_pass_is_no_support(self, seed, noise):
        # Three coplanar samples look like two; a wide enough tie lets the false ones pass.
        report = assess_identifiability(self.data(seed, 3), scale="unit", noise=noise)
        assert report.verdict is not Verdict.GLOBALLY


class TestScales:
    @pytest.mark.parametrize("factor", [1e-290, 1e-150, 1e150, 1e290])
    @pytest.mark.parametrize("degree", [3, 4, 6])
    def test_gradients_of_any_size(self, factor, degree):
        rng = np.random.default_rng(degree)
        network = TwoLayerNetwork(rng.standard_normal((70, 4)), rng.standard_normal(70), degree)
        gradient = network.gradient(rng.standard_normal((3, 4)), [1.0, -0.8, 1.3])
        large = TwoLayerNetwork(
            gradient.hidden_weight * factor, gradient.output_weight * factor, degree
        )
        data = HermiteData.from_gradient(network, large)
        assert data.consistency is not None
        assert data.consistency < 1e-13
        report = assess_identifiability(data)
        assert report.verdict is Verdict.GLOBALLY
        assert report.noise_level == 1e-13

    @pytest.mark.parametrize("factor", [1e-200, 1e-100, 1e100, 1e150])
    def test_balance_of_weights_of_any_size(self, factor):
        network, _ = far_sample(30.0, np.float64)
        scaled = TwoLayerNetwork(
            network.hidden_weight * factor, network.output_weight * factor, network.degree
        )
        consistency = HermiteData.from_kkt(scaled).consistency
        assert consistency is not None
        assert consistency < 1e-13

    @pytest.mark.parametrize("movement", [1e-2, 1e-4, 1e-6])
    def test_fine_tuning_reports_are_json(self, movement):
        network, gradient, _ = gradient_pair(4)
        moved = TwoLayerNetwork(
            network.hidden_weight - movement * gradient.hidden_weight,
            network.output_weight - movement * gradient.output_weight,
            3,
            rounding=2.0**-24,
        )
        report = assess_identifiability(HermiteData.from_fine_tuning(network, moved))
        check_report(report.to_json())
        assert json.loads(report.to_json())["verdict"] == report.verdict.value
