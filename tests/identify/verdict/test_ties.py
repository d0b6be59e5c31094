"""Ties speak for the number of samples only where the network tells the samples apart."""

import numpy as np
import pytest
from scipy.optimize import brentq

from identify import HermiteData, TwoLayerNetwork, Verdict, assess_identifiability
from identify.recovery.ties import sample_classes
from tests.identify.families import stationary_network, unit_rows


def mirrored_margin(share: float, copies: int) -> tuple[TwoLayerNetwork, np.ndarray, np.ndarray]:
    """An exact max-margin point of three mirror-symmetric coplanar samples, all margins equal.

    p = 6 B u^2 v + C v^3 with C = share B; the angle makes the third margin that of the others.
    """

    def build(angle: float) -> tuple[TwoLayerNetwork, np.ndarray, np.ndarray]:
        s, c = np.sin(angle), np.cos(angle)
        first = c * s * s
        last = share * first
        edge = np.sqrt((12 - 3 * share) / 6)
        weights, heights = [], []
        for u in [0.0] + [edge, -edge] * copies:
            w = np.array([u, 1.0])
            slope = np.array([12 * first * u, 6 * first * u * u + 3 * last]) / 3
            value = slope @ w / (w @ w)
            size = (np.sqrt(3) * np.linalg.norm(w) * abs(value)) ** -0.5
            weights.append(size * w)
            heights.append(np.sign(value) * np.linalg.norm(w) * size / np.sqrt(3))
        samples = np.array([[s, c], [-s, c], [0.0, 1.0]])
        b = np.array([1.0, 1.0, last - 2 * c**3])
        return TwoLayerNetwork(np.array(weights), np.array(heights), degree=3), samples, b

    def gap(angle: float) -> float:
        network, samples, _ = build(angle)
        outputs = network.value(samples)
        return float(outputs[0] - outputs[2])

    grid = np.linspace(0.2, 1.5, 200)
    gaps = np.array([gap(t) for t in grid])
    for place in np.flatnonzero(gaps[:-1] * gaps[1:] < 0):
        found = build(brentq(gap, grid[place], grid[place + 1]))
        if found[2][2] > 0.05:
            return found
    raise AssertionError("no angle makes the margins equal")


def mirrored_batch(seed: int, sign: float) -> tuple[HermiteData, np.ndarray]:
    """The logistic gradient of three samples at a network of mirrored pairs of neurons.

    The mirror keeps the output for sign 1 and turns it for sign -1.
    """
    rng = np.random.default_rng([seed, int(sign > 0)])
    half, heights = rng.normal(size=(8, 2)), rng.normal(size=8) / 2
    network = TwoLayerNetwork(
        np.vstack([half, half * [-1.0, 1.0]]), np.concatenate([heights, sign * heights]), degree=3
    )
    angle = rng.uniform(0.4, 1.2)
    third = [0.0, 1.0] if sign > 0 else [1.0, 0.0]
    s, c = np.sin(angle), np.cos(angle)
    samples = np.array([[s, c], [-s, c], third])
    y = np.array([1.0, sign, 1.0])
    b = -y / (1.0 + np.exp(y * network.value(samples)))
    gradient = network.gradient(samples, b)
    return HermiteData.from_gradient(network, gradient, loss="logistic"), samples


@pytest.mark.parametrize(("share", "copies"), [(1.5, 6), (2.0, 5), (2.5, 8), (1.2, 12)])
def test_equal_margins_of_mirrored_samples_are_no_equation(share: float, copies: int) -> None:
    network, samples, b = mirrored_margin(share, copies)
    gradient = network.gradient(samples, b)
    assert np.allclose(gradient.hidden_weight, network.hidden_weight, atol=1e-12)
    report = assess_identifiability(HermiteData.from_kkt(network), scale="unit")
    assert report.verdict is not Verdict.GLOBALLY
    assert report.redundant_equations == 0
    tie = next(row for row in report.conditions if row.name == "tie")
    assert tie.holds
    assert "1 of 2 samples apart" in tie.source


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_known_loss_of_mirrored_samples_is_no_equation(seed: int, sign: float) -> None:
    data, _ = mirrored_batch(seed, sign)
    report = assess_identifiability(data, scale="unit")
    assert report.verdict is not Verdict.GLOBALLY
    assert report.redundant_equations == 0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("seed", [0, 2])
def test_ties_of_samples_in_general_position_count(seed: int, bias: bool) -> None:
    """The counterpart: two samples at degree 3, where nothing but the tie speaks for them."""
    rng = np.random.default_rng([seed, 5])
    samples = unit_rows(rng.normal(size=(2, 5)))
    network = TwoLayerNetwork(
        rng.normal(size=(14, 5)),
        rng.normal(size=14) / 10,
        degree=3,
        hidden_bias=rng.normal(size=14) / 3 if bias else None,
    )
    y = np.array([1.0, -1.0])
    b = -y / (1.0 + np.exp(y * network.value(samples))) / 2
    data = HermiteData.from_gradient(network, network.gradient(samples, b), loss="logistic")
    report = assess_identifiability(data, scale="bias" if bias else "unit")
    assert report.verdict is Verdict.GLOBALLY, report.reason
    assert report.redundant_equations == 1
    assert report.recovery is not None
    off = np.linalg.norm(report.recovery.samples[:, None] - samples[None], axis=2)
    if not bias:
        off = np.minimum(
            off, np.linalg.norm(report.recovery.samples[:, None] + samples[None], axis=2)
        )
    assert off.min(axis=0).max() < 1e-9


@pytest.mark.parametrize("mean", [False, True])
def test_a_known_decay_is_one_more_equation(mean: bool) -> None:
    """Two samples that the network exchanges: the tie is empty, the common factor is not."""
    samples = unit_rows(np.array([[1.0, 0.1, 0.0], [0.1, 1.0, 0.0]]))
    b = np.array([0.7, 0.7])
    network = stationary_network(samples, b, 3, 0)
    assert network is not None
    outputs = network.value(samples)
    decay = float(1.0 / (b[0] * (1.0 + np.exp(outputs[0]))) / (2 if mean else 1))

    def verdict(value: float | None) -> tuple[Verdict, int | None]:
        data = HermiteData.from_weight_decay(network, value, "logistic")
        report = assess_identifiability(data, scale="unit")
        return report.verdict, report.redundant_equations

    assert verdict(decay) == (Verdict.GLOBALLY, 1)
    assert verdict(None)[1] == 0
    assert verdict(None)[0] is not Verdict.GLOBALLY
    assert verdict(1.3 * decay)[0] is not Verdict.GLOBALLY


@pytest.mark.parametrize("degree", [3, 4])
def test_classes_by_a_plain_reference(degree: int) -> None:
    """Samples that a permutation of neurons exchanges, and others, by comparing all lists."""
    rng = np.random.default_rng(degree)
    half, heights = rng.normal(size=(5, 3)), rng.normal(size=5)
    mirror = np.array([-1.0, 1.0, 1.0])
    network = TwoLayerNetwork(
        np.vstack([half, half * mirror]), np.concatenate([heights, heights]), degree=degree
    )
    x = rng.normal(size=3)
    samples = np.array([x, rng.normal(size=3), x * mirror, -x, rng.normal(size=3)])
    data = HermiteData.from_weight_decay(network)
    found = sample_classes(data, samples, np.full(5, 1e-12))
    assert found.tolist() == [0, 1, 0, 0, 2]
    assert len(set(sample_classes(data, samples, np.full(5, 10.0)).tolist())) == 1
