"""Every degree that a network may have ends in a verdict."""

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork, Verdict, assess_identifiability
from identify.tensors import monomials
from tests.identify.families import Case, unit_rows
from tests.identify.judging import is_wrong


def data_of(degree: int, r: int, source: str, length: float) -> tuple[HermiteData, np.ndarray]:
    rng = np.random.default_rng([degree, r])
    hidden = length * unit_rows(rng.normal(size=(12, 4)))
    samples = unit_rows(rng.normal(size=(r, 4)))
    network = TwoLayerNetwork(hidden, rng.normal(size=12), degree=degree)
    if source == "gradient":
        gradient = network.gradient(samples, np.ones(r))
        return HermiteData.from_gradient(network, gradient), samples
    heights = np.linalg.norm(hidden, axis=1) / np.sqrt(degree)
    balanced = TwoLayerNetwork(hidden, heights, degree=degree)
    if source == "kkt":
        return HermiteData.from_kkt(balanced), samples
    return HermiteData.from_weight_decay(balanced), samples


@pytest.mark.parametrize("source", ["gradient", "kkt", "weight-decay"])
@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("degree", [64, 65, 171, 333, 1000])
def test_a_verdict_at_every_degree(degree: int, r: int, source: str) -> None:
    data, samples = data_of(degree, r, source, 1.0)
    report = assess_identifiability(data, time_limit=20.0)
    truth = samples if source == "gradient" else None
    assert is_wrong(Case("high", data, truth, np.ones(r)), report) == ""
    assert report.to_json()
    if r == 1 and source == "gradient":
        if degree == 1000:
            # One neuron outweighs all others: what two samples make of its row is a row.
            assert report.verdict is Verdict.UNDECIDED
            assert "single sample" in report.reason
            report = assess_identifiability(data, samples=1, time_limit=20.0)
        assert report.verdict is Verdict.GLOBALLY
        assert report.recovery is not None
        assert abs(report.recovery.samples @ samples[0])[0] > 1 - 1e-9


def test_beyond_the_range_of_numbers_is_said() -> None:
    data, _ = data_of(700, 2, "kkt", 3.0)
    report = assess_identifiability(data)
    assert report.verdict is Verdict.UNDECIDED
    assert "range of float64" in report.reason


@pytest.mark.parametrize("order", [170, 171, 400])
def test_monomials_of_high_order(order: int) -> None:
    points = unit_rows(np.random.default_rng(order).normal(size=(3, 2)))
    rows = monomials(points, order)
    assert np.allclose(rows @ rows.T, (points @ points.T) ** order, rtol=1e-9, atol=1e-14)
