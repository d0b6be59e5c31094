"""The smallest noise that leaves a gradient undecided."""

from __future__ import annotations

import time

import numpy as np
import pytest

import identify
from identify.budget import Budget
from identify.exposure.noise_limit import with_noise_limit
from tests.identify.disaggregation.problems import plant


def limit_of(planted, seed=0, budget=None, **options):
    levels = []

    def judge(gradient, seconds):
        levels.append((gradient, seconds))
        return identify.assess_gradient(planted.network, gradient, prove=False, **options)

    report = judge(planted.gradient, None)
    levels.clear()
    options = {} if budget is None else {"budget": budget}
    return with_noise_limit(report, planted.gradient, judge, seed=seed, **options), levels


@pytest.mark.parametrize(
    ("activation", "sizes", "count"),
    [("relu", [16, 60, 1], 3), ("relu", [16, 24, 150, 4], 4), ("gelu", [30, 30, 1], 4)],
)
def test_the_limit_lies_between_a_verdict_and_none(activation, sizes, count):
    planted = plant(sizes, count, 1, activation)
    report, levels = limit_of(planted)
    found = report.noise_limit
    assert report.verdict != "undecided"
    assert found.stopped == ""
    assert 0.0 < found.decided_up_to < found.undecided_from < 1.34 * found.decided_up_to
    verdicts = [trial.verdict == "undecided" for trial in found.trials]
    assert verdicts == sorted(verdicts)
    assert len(levels) == len(found.trials)
    # The noise is what it says: relative to each array.
    for (gradient, _), trial in zip(levels[:1], found.trials[:1], strict=True):
        for own, noisy in zip(planted.gradient.weights, gradient.weights, strict=True):
            apart = np.linalg.norm(noisy - own) / np.linalg.norm(own)
            assert apart == pytest.approx(trial.noise, rel=1e-6)


def test_the_verdict_at_the_limit_is_that_of_the_same_gradient_alone():
    planted = plant([16, 60, 1], 3, 2)
    report, levels = limit_of(planted)
    by_level = {}
    for gradient, _ in levels:
        apart = gradient.weights[0] - planted.gradient.weights[0]
        level = np.linalg.norm(apart) / np.linalg.norm(planted.gradient.weights[0])
        by_level[float(f"{level:.3g}")] = gradient
    for trial in report.noise_limit.trials:
        alone = identify.assess_gradient(
            planted.network, by_level[float(f"{trial.noise:.3g}")], prove=False
        )
        assert alone.verdict == trial.verdict


def test_an_undecided_gradient_needs_no_noise():
    report, levels = limit_of(plant([16, 12, 4], 6, 0))
    assert report.verdict == "undecided"
    assert levels == []
    assert (report.noise_limit.decided_up_to, report.noise_limit.undecided_from) == (0.0, None)
    assert "without added noise" in str(report)


def test_the_time_limit_keeps_what_was_tried():
    planted = plant([16, 60, 1], 3, 1)
    report, levels = limit_of(planted, budget=Budget(time.monotonic() - 1.0))
    assert levels == []
    assert report.noise_limit.stopped == "the time limit ended the trials"
    assert report.noise_limit.undecided_from is None
