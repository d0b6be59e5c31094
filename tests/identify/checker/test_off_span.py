"""A further sample outside the claimed span, at every level between the noise and the gap."""

from __future__ import annotations

import json

import numpy as np
import pytest

from identify.assess import assess_identifiability
from identify.checker.case import Case
from identify.checker.check import check_report
from identify.checker.outcome import decide
from identify.checker.premises import check_basis, span_gap
from identify.checker.reading.files import Network
from identify.checker.reading.report import read_report
from identify.checker.source import build_data
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.numerical_rank import row_space
from identify.planting.plant import plant_network
from tests.identify.checker.problems import Problem, claim, outcome

LEVELS = (1e-11, 1e-10, 1e-8, 1e-6, 1e-5)


def hidden(problem, share):
    """The problem with one more sample, orthogonal to the others, of that share of the rows."""
    x = np.linalg.svd(problem.samples)[2][-1]
    inner = problem.u @ x
    row = problem.scales[:, None] * inner[:, None] ** (problem.degree - 1) * x
    b = share * np.linalg.norm(problem.rows, 2) / np.linalg.norm(row, 2)
    problem.rows = problem.rows + b * row
    values = problem.gradient["output.weight"] + b * inner**problem.degree
    problem.gradient = {"hidden.weight": problem.rows, "output.weight": values}
    return problem


@pytest.mark.parametrize("share", LEVELS)
@pytest.mark.parametrize(("degree", "r", "seed"), [(3, 3, 0), (3, 4, 1), (4, 3, 2), (5, 2, 3)])
def test_a_forged_report_of_a_gradient(share, degree, r, seed, tmp_path):
    problem = hidden(Problem(degree, r, seed), share)
    files, report = problem.save(tmp_path), problem.certify()
    found = claim(report, files, "basis")
    assert found.outcome == "refuted"
    assert "the rows span more dimensions" in found.detail
    assert outcome(report, files) == "refuted"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_below_the_noise_is_no_sample(seed, tmp_path):
    problem = hidden(Problem(3, 3, seed), 1e-13)
    assert claim(problem.certify(), problem.save(tmp_path), "basis").holds


def as_network(network):
    bias = network.hidden_bias
    return Network(
        np.asarray(network.hidden_weight), np.asarray(network.output_weight).ravel(),
        None if bias is None else np.asarray(bias), None, network.degree, 2.0**-53,
    )  # fmt: skip


def honest(source, seed):
    """A true report of a source, and the networks that it is about by role."""
    rng = np.random.default_rng([7, seed])
    if source in ("kkt", "weight-decay"):
        x = np.linalg.qr(rng.normal(size=(9, 4)))[0].T
        stationary = "margin" if source == "kkt" else "regression"
        model = plant_network(x, degree=3, stationary=stationary, seed=seed).network
        build = HermiteData.from_kkt if source == "kkt" else HermiteData.from_weight_decay
        return assess_identifiability(build(model), evidence="numerical"), {"model": model}
    start = TwoLayerNetwork(rng.normal(size=(14, 7)), rng.normal(size=14), 3)
    gradient = start.gradient(rng.normal(size=(4, 7)), rng.uniform(1.0, 2.0, 4))
    if source == "gradient":
        data, files = (
            HermiteData.from_gradient(start, gradient),
            {"model": start, "gradient": gradient},
        )
    else:
        model = TwoLayerNetwork(
            start.hidden_weight - 1e-7 * gradient.hidden_weight,
            start.output_weight - 1e-7 * gradient.output_weight,
            3,
        )
        data, files = HermiteData.from_fine_tuning(start, model), {"initial": start, "model": model}
    return assess_identifiability(data, evidence="numerical"), files


def with_more_rows(source, network, change):
    """The network whose rows, as the source takes them, are changed."""
    weight = np.asarray(network.hidden_weight) + change
    return TwoLayerNetwork(weight, network.output_weight, network.degree)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("source", ["kkt", "weight-decay", "gradient", "fine-tuning"])
def test_every_source(source, seed):
    report, files = honest(source, seed)
    content = read_report(json.loads(report.to_json()))
    role = "gradient" if source == "gradient" else "model"

    def case(**changed):
        networks = {name: as_network(net) for name, net in {**files, **changed}.items()}
        return Case(content, build_data(source, networks, None))

    true = case()
    assert decide("basis", "", lambda: check_basis(true)).holds
    basis = true.basis
    rng = np.random.default_rng(seed)
    away = rng.normal(size=len(basis))
    away -= basis @ (basis.T @ away)
    row = rng.normal(size=(len(true.data.points), 1)) * (away / np.linalg.norm(away))
    size = np.linalg.norm(true.data.rows, 2) / np.linalg.norm(row, 2)
    tried = 0
    for share in np.geomspace(20.0 * content.noise, 5e-3 * span_gap(true)[0], 6):
        if share < 20.0 * content.noise:
            continue
        tried += 1
        changed = with_more_rows(source, files[role], share * size * row)
        found = decide("basis", "", lambda changed=changed: check_basis(case(**{role: changed})))
        assert found.outcome == "refuted", (share, found)
    assert tried >= 3


@pytest.mark.parametrize("seed", range(3))
def test_no_start_of_a_power_iteration_hides_a_sample(seed, tmp_path):
    """The direction outside V is orthogonal to what a generator of seed 0 draws first."""
    problem = Problem(3, 3, seed, d=6)
    start = np.random.default_rng(0).standard_normal(6)
    plane = np.linalg.svd(np.vstack([problem.samples, start]))[2][4:]
    row = np.ones((len(problem.u), 1)) * plane[0]
    share = 30e-13 * np.linalg.norm(problem.rows, 2) / np.linalg.norm(row, 2)
    report = problem.certify()
    problem.rows = problem.rows + share * row
    problem.gradient["hidden.weight"] = problem.rows
    report["inputs"] = problem.certify()["inputs"]
    assert claim(report, problem.save(tmp_path), "basis").outcome == "refuted"


@pytest.mark.parametrize("share", [3e-11, 1e-9, 1e-7])
def test_the_verifier_counts_it_also_where_it_only_sketches(share):
    """230 rows are sketched; what the sketch leaves is larger than the further sample."""
    rng = np.random.default_rng(5)
    frame = np.linalg.qr(rng.normal(size=(240, 240)))[0]
    sizes = np.full(230, 0.3 * share)
    sizes[:8] = np.geomspace(1.0, 0.2, 8)
    sizes[8] = 5.0 * share
    left = np.linalg.qr(rng.normal(size=(230, 230)))[0]
    _, decision = row_space((left * sizes) @ frame[:, :230].T, share, 0)
    assert decision.rank == 9 or not decision.clear


def test_an_honest_report_is_still_confirmed(tmp_path):
    problem = hidden(Problem(3, 3), 1e-6)
    files = problem.save(tmp_path)
    network = TwoLayerNetwork(problem.u, problem.model["output.weight"], 3)
    gradient = TwoLayerNetwork(problem.rows, problem.gradient["output.weight"], 3)
    report = assess_identifiability(HermiteData.from_gradient(network, gradient))
    assert report.scope.samples == 4
    result = check_report(json.loads(report.to_json()), files[0], gradient=files[1])
    assert result.outcome == "confirmed", str(result)
