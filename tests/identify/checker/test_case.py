"""The checker with data that are not what a report says, and with two shown sets."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from identify.alternatives.pairs import _Search
from identify.assess import assess_identifiability
from identify.checker.check import check_report
from identify.model.loading import save_network
from tests.identify.checker.changes import changes, leaves, put
from tests.identify.checker.problems import Problem, claim, outcome, sign
from tests.identify.families import undetermined


def test_a_stationary_network(tmp_path):
    problem = Problem.stationary([1.0, -1.0, 1.0])
    model, _ = problem.save(tmp_path)
    result = check_report(problem.certify(), model)
    assert result.outcome == "confirmed", str(result)
    assert result["margins"].how == "ball arithmetic"
    tied = Problem.stationary([1.0, -1.0, 1.0], "unit")
    result = check_report(tied.certify(), model)
    assert result.outcome == "confirmed", str(result)
    assert result["tie"].holds


def test_a_tie_that_does_not_hold(tmp_path):
    problem = Problem.stationary([1.0, -1.1, 1.2], "unit")
    model, _ = problem.save(tmp_path)
    result = check_report(problem.certify(), model)
    assert result["tie"].outcome == "refuted"
    assert result.outcome == "refuted"
    hidden = problem.certify()
    hidden["conditions"] = [row for row in hidden["conditions"] if row["name"] != "tie"]
    assert check_report(sign(hidden), model).outcome == "refuted"


def test_a_sample_on_the_wrong_side(tmp_path):
    problem = Problem.stationary([1.0, -1.0, 1.0])
    # A negative output weight turns f and the equation of its neuron around.
    problem.scales[-1] *= -1.0
    problem.coefficients = -problem.coefficients
    problem.model["output.weight"] = problem.scales / 3.0
    result = check_report(problem.certify(), problem.save(tmp_path)[0])
    assert result["terms"].outcome == "refuted"
    assert result["margins"].outcome == "refuted"


def test_one_sample_more_than_the_report_says(tmp_path):
    problem = Problem(4, 3, extra=True)
    files, forged = problem.save(tmp_path), problem.certify()
    assert claim(forged, files, "terms").outcome == "refuted"
    # A noise level that would excuse the misfit is not shown by the data.
    rho = 0.5 * forged["residuals"]["samples"]["value"]
    forged["noise_level"] = rho
    forged["certificate"]["enclosure"]["radius"] = rho
    rows = {row["name"]: row for row in forged["conditions"]}
    rows["decomposition"]["required"] = 10.0 * rho
    rows["stable rank"]["required"] = rho
    assert not claim(forged, files, "noise level").holds
    assert outcome(forged, files) != "confirmed"


def test_a_noisy_gradient(tmp_path):
    problem = Problem(3, 3)
    rows = problem.gradient["hidden.weight"]
    noise = np.random.default_rng(0).normal(size=rows.shape)
    problem.gradient["hidden.weight"] = rows + 1e-6 * np.abs(rows).max() * noise
    files = problem.save(tmp_path)
    assert outcome(problem.certify(), files) == "refuted"


def test_neurons_may_not_be_left_out(tmp_path):
    problem = Problem(3, 3)
    files, forged = problem.save(tmp_path), problem.certify()
    part = forged["certificate"]
    part["neurons"], part["points"] = part["neurons"][:-1], part["points"][:-1]
    found = claim(forged, files, "points")
    assert found.outcome == "refuted"
    assert "neither listed nor parallel" in found.detail


# Two sets.


def split_case(folder):
    """One sample that two neurons see in a plane: split into two in many ways."""
    w = np.array([[1.0, 2.0, 0.0], [2.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    a = np.array([1.0, 0.5, -1.5])
    x, b = np.array([0.6, 0.8, 0.0]), 2.0
    inner = w @ x
    rows = 3.0 * a[:, None] * (inner**2 * b)[:, None] * x
    problem = Problem.__new__(Problem)
    problem.degree, problem.r = 3, 1
    problem.u, problem.rows, problem.scales = w, rows, 3.0 * a
    problem.samples, problem.coefficients = x[None], np.array([b])
    problem.model = {"hidden.weight": w, "output.weight": a}
    problem.gradient = {"hidden.weight": rows, "output.weight": inner**3 * b}
    report = problem.certify()
    sets = []
    for height in (0.5, 1.5):
        nu = np.array([0.0, 0.0, height])
        sets.append({
            "samples": [(x + nu).tolist(), (x - nu).tolist()],
            "coefficients": [b / 2.0, b / 2.0],
            "residual": 1e-16,
        })  # fmt: skip
    report["certificate"] |= {"sets": sets, "rank": None, "singular_value": None, "enclosure": None}
    report["certificate"]["assumed"]["samples"] = 2
    report |= {
        "verdict": "nonidentifiable",
        "scope": {"kind": "shown", "samples": [2, 2]},
        "sample_count": None,
        "evidence": "numerical",
        "assumptions": [report["assumptions"][0], "exactly 2 active samples (--samples)"],
    }
    report["conditions"] = [
        row | {"evidence": "numerical", "holds": row["holds"] and row["name"] != "redundancy"}
        for row in report["conditions"]
        if row["name"] not in ("stable rank", "enclosure")
    ]
    return sign(report), problem.save(folder)


def test_two_sets_are_confirmed(tmp_path):
    report, files = split_case(tmp_path)
    result = check_report(report, files[0], gradient=files[1])
    assert result.outcome == "confirmed", str(result)


def test_changed_sets_are_refuted(tmp_path):
    report, files = split_case(tmp_path)
    for path, value in leaves(report["certificate"]["sets"], ("certificate", "sets")):
        for new in changes(path, value):
            assert outcome(sign(put(report, path, new)), files) != "confirmed", (path, new)
    # The same set twice, in another order and length, is one set.
    twice = copy.deepcopy(report)
    first = twice["certificate"]["sets"][0]
    other = {
        "samples": [[-2.0 * v for v in row] for row in reversed(first["samples"])],
        "coefficients": [-b / 8.0 for b in reversed(first["coefficients"])],
        "residual": first["residual"],
    }
    twice["certificate"]["sets"] = [first, other]
    assert "within 0.1" in claim(twice, files, "sets").detail


def test_sets_that_are_only_split_prove_nothing(tmp_path):
    report, files = split_case(tmp_path)
    report["certificate"]["assumed"]["samples"] = None
    report["assumptions"] = report["assumptions"][:1]
    found = claim(report, files, "sets")
    assert found.outcome == "refuted"
    assert "a set of 1 samples explains the data too" in found.detail


def larger_pair(network, data, monkeypatch, tmp_path):
    """A report that shows two sets of more than r samples, whatever they prove, and its claim."""
    monkeypatch.setattr(_Search, "number_open", lambda self, needed: True)
    report = assess_identifiability(data, evidence="numerical")
    monkeypatch.undo()
    assert report.verdict.value == "nonidentifiable"
    assert report.scope.samples[0] > report.problem["span_dimension"]
    save_network(network, tmp_path / "m.npz")
    files = {"gradient": None}
    if data.source == "gradient":
        save_network(data.target, tmp_path / "g.npz")
        files["gradient"] = tmp_path / "g.npz"
    return check_report(json.loads(report.to_json()), tmp_path / "m.npz", **files)


@pytest.mark.parametrize(
    "seed", [619, *(pytest.param(s, marks=pytest.mark.slow) for s in (379, 1114))]
)
def test_larger_sets_beside_a_unique_one_prove_nothing(seed, monkeypatch, tmp_path):
    case = undetermined(seed)
    result = larger_pair(case.data.network, case.data, monkeypatch, tmp_path)
    assert result["sets"].outcome == "not checkable", str(result)
    assert "may be the only one" in result["sets"].detail
    assert result.outcome != "confirmed"


@pytest.mark.parametrize("seed", [253, 1048, 1438])
def test_larger_sets_of_trained_networks_are_confirmed(seed, monkeypatch, tmp_path):
    case = undetermined(seed)
    result = larger_pair(case.data.network, case.data, monkeypatch, tmp_path)
    assert result.outcome == "confirmed", str(result)
