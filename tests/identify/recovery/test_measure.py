"""The noise level: it settles, or the verdict says that it does not."""

from __future__ import annotations

import numpy as np
import pytest

from identify.assess import assess_identifiability
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.records import Verdict
from identify.recovery import measure as measuring
from identify.recovery.assumptions import Assumptions
from identify.verdict import equations


def noisy(seed, noise=1e-6, width=16, degree=3, source="gradient"):
    """Data whose linear residual is far above what the files show at first."""
    rng = np.random.default_rng([11, seed])
    network = TwoLayerNetwork(rng.normal(size=(width, 5)), rng.normal(size=width), degree)
    gradient = network.gradient(rng.normal(size=(3, 5)), rng.uniform(1.0, 2.0, 3))
    points = np.asarray(network.hidden_weight)
    rows = np.asarray(gradient.hidden_weight)
    change = noise * np.abs(rows).max() * rng.normal(size=rows.shape)
    # Orthogonal to the points: the second layer does not show it.
    change -= points * (np.sum(points * change, axis=1) / np.sum(points**2, axis=1))[:, None]
    parts = TwoLayerNetwork(rows + change, gradient.output_weight, degree)
    if source == "gradient":
        return HermiteData.from_gradient(network, parts)
    final = TwoLayerNetwork(
        points + 1e-9 * parts.hidden_weight,
        network.output_weight + 1e-9 * parts.output_weight,
        degree,
    )
    return HermiteData.from_fine_tuning(network, final)


@pytest.mark.parametrize("source", ["gradient", "fine-tuning"])
@pytest.mark.parametrize(("seed", "noise", "degree"), [(0, 1e-6, 3), (1, 1e-5, 3), (2, 1e-6, 4)])
def test_a_level_that_does_not_settle_is_undecided(source, seed, noise, degree, monkeypatch):
    data = noisy(seed, noise, 20, degree, source)
    settled = assess_identifiability(data, evidence="numerical")
    assert settled.verdict is Verdict.GLOBALLY
    assert settled.noise_level >= 0.99 * settled.residuals["linear"].value
    for module in (measuring, equations):
        monkeypatch.setattr(module, "ROUNDS", 1)
    report = assess_identifiability(data)
    assert report.verdict is Verdict.UNDECIDED
    assert report.scope is None
    assert report.reason.startswith("the noise level does not settle: in 1 rounds it came to")
    assert report.residuals["linear"].value > report.noise_level


@pytest.mark.parametrize("growth", [1.01, 1.5, 3.0])
def test_a_residual_that_grows_with_every_round(growth, monkeypatch):
    """Twelve rounds, each with a residual above the level that it was given."""
    levels = []
    real = measuring._measure_once

    def growing(data, rho, *rest):
        levels.append(rho)
        found = real(data, rho, *rest)
        return measuring.replace(found, linear_residual=growth * rho)

    monkeypatch.setattr(measuring, "_measure_once", growing)
    found = measuring.measure(noisy(0, 1e-13), Assumptions(scale="free"))
    assert len(levels) == measuring.ROUNDS
    assert found.unsettled == pytest.approx(growth * levels[-1])
    assert found.unsettled > found.noise_level


@pytest.mark.parametrize("seed", range(4))
def test_what_settles_has_no_residual_above_its_level(seed):
    found = measuring.measure(noisy(seed), Assumptions(scale="free"))
    assert found.unsettled is None
    assert found.linear_residual <= 1.001 * found.noise_level
