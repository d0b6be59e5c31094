"""The checker's limits of time and size, and its solvers for large systems."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from identify.checker import bounds as check_bounds
from identify.checker import enclosure as check_enclosure
from identify.checker import linear as check_linear
from identify.checker.arithmetic.least_squares import least_by_squares, smallest_share
from identify.checker.outcome import decide
from tests.identify.checker.changes import case_of, put
from tests.identify.checker.problems import Problem, claim, outcome


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A problem of three samples at degree 3, its report and its files."""
    problem = Problem(3, 3)
    return problem, problem.certify(), problem.save(tmp_path_factory.mktemp("planted"))


def test_precision_and_work_are_limited(planted, monkeypatch):
    _, report, files = planted
    assert outcome(put(report, ("certificate", "enclosure", "precision"), 849), files) == "input"
    fine = put(report, ("certificate", "enclosure", "precision"), 848)
    assert claim(fine, files, "enclosure").holds
    case = case_of(report, files, deadline=0.0)
    assert decide("x", "y", lambda: check_enclosure.check_enclosure(case)).outcome == (
        "not checkable"
    )
    for name in ("check_conditioning", "check_noise"):
        found = decide("x", "y", lambda name=name: getattr(check_linear, name)(case))
        assert (found.outcome, found.detail) == ("not checkable", "the time limit is reached")
    monkeypatch.setattr(check_enclosure, "_WORK", 1.0)
    assert "more than the checker encloses" in claim(report, files, "enclosure").detail


def test_the_equations_are_formed_once(planted, monkeypatch):
    _, report, files = planted
    calls = []
    form = check_linear.hermite
    monkeypatch.setattr(check_linear, "hermite", lambda *a: calls.append(1) or form(*a))
    assert outcome(report, files) == "confirmed"
    assert len(calls) == 1


def test_large_systems_by_squares(monkeypatch):
    rng = np.random.default_rng(0)
    matrix, aims = rng.normal(size=(900, 600)), rng.normal(size=900)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    assert smallest_share(matrix) == pytest.approx(sigma[-1] / sigma[0], rel=0.05)
    least = np.linalg.norm(aims - matrix @ np.linalg.lstsq(matrix, aims, rcond=None)[0])
    assert least_by_squares(matrix, aims) == pytest.approx(least, rel=1e-9)
    for size in (1e-7, 1e-10):
        bad = matrix.copy()
        bad[:, -1] = bad[:, 0] + size * bad[:, -1]
        sigma = np.linalg.svd(bad, compute_uv=False)
        assert smallest_share(bad) == pytest.approx(sigma[-1] / sigma[0], rel=0.1)
        assert least_by_squares(bad, aims) is None
    bad[:, -1] = bad[:, 0]
    assert smallest_share(bad) < 1e-13


def test_small_and_large_systems_agree(tmp_path, monkeypatch):
    problem = Problem(4, 4)
    files, report = problem.save(tmp_path), problem.certify()
    monkeypatch.setattr(check_linear, "DENSE_COLUMNS", 0)
    assert outcome(report, files) == "confirmed"


def test_bounds_of_many_unknowns(planted, monkeypatch):
    _, report, files = planted
    monkeypatch.setattr(check_bounds, "_SAME_UNKNOWNS", 0)
    assert outcome(report, files) == "confirmed"
    place = next(i for i, row in enumerate(report["conditions"]) if row["name"] == "error bounds")
    for factor, expected in ((0.01, "refuted"), (50.0, "confirmed")):
        forged = copy.deepcopy(report)
        forged["error_bounds"] = [factor * bound for bound in report["error_bounds"]]
        worst = factor * report["conditions"][place]["found"]
        forged["conditions"][place]["found"] = worst
        assert claim(forged, files, "error bounds").outcome == expected
    monkeypatch.setattr(check_bounds, "_DENSE_UNKNOWNS", 0)
    found = claim(report, files, "error bounds")
    assert found.outcome == "not checkable"
    assert "too many" in found.detail
    assert math.isfinite(report["conditions"][place]["found"])
