"""Honest reports on weights of ReLU networks are confirmed, forged ones refuted."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import identify
from identify import thresholds
from identify.assess_weights import interrupted_stationary_report
from identify.checker.check import check_report
from identify.checker.outcome import CONFIRMED, OPEN, REFUTED, CheckInputError
from identify.checker.stationary import beside, point
from identify.model.deep import DeepNetwork
from identify.model.two_logits import SUM_LIMIT
from tests.identify.checker.changed_fields import unnamed_changes
from tests.identify.checker.deep_forgeries import with_honest_numbers
from tests.identify.checker.deep_reports import save
from tests.identify.checker.stationary_forgeries import FORGERIES, as_if_unique
from tests.identify.checker.stationary_reports import (
    KINDS,
    float32,
    make,
    planted,
    reported,
    signed,
    two_outputs,
    written,
)
from tests.identify.disaggregation.stationary_families import (
    centred,
    changed,
    determined,
    undetermined,
)

SCHEMA = Draft202012Validator(
    json.loads(resources.files(identify).joinpath("stationary_report.schema.json").read_text())
)


@pytest.fixture(scope="module", params=KINDS)
def honest(request, tmp_path_factory):
    return planted(request.param, tmp_path_factory.mktemp("weights"), 1)


def test_honest_reports_are_confirmed(honest):
    SCHEMA.validate(honest.report)
    assert honest.report["verdict"] == "globally"
    result = honest.check()
    assert result.outcome == CONFIRMED, str(result)
    assert {claim.outcome for claim in result.claims} == {CONFIRMED}
    trained = {"both": "both layers", "hidden": "the hidden layer alone"}
    assert trained[honest.report["problem"]["trained"]] in result["verdict"].detail


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forged_report_is_refuted(honest, forge):
    report = honest.changed()
    forge(report)
    assert report != honest.report
    try:
        assert honest.check(report)["digest"].outcome == REFUTED
    except CheckInputError:
        # Slopes of two outputs are no longer those of one.
        assert report["problem"]["source"] != honest.report["problem"]["source"]
        return
    result = honest.check(signed(report))
    assert result["digest"].outcome == CONFIRMED
    assert result.outcome == REFUTED, str(result)


@pytest.mark.parametrize("seed", range(12))
def test_a_sweep_of_determined_weights(tmp_path, seed):
    found = reported(tmp_path, determined(seed))
    assert found.report["verdict"] == "globally"
    result = found.check()
    assert result.outcome == CONFIRMED, str(result)


@pytest.mark.medium
@pytest.mark.parametrize("seed", range(30))
def test_undetermined_weights_are_neither_refuted_nor_forged(tmp_path, seed):
    found = reported(tmp_path, undetermined(seed))
    result = found.check()
    if found.report["verdict"] == "globally":
        assert result.outcome == CONFIRMED, str(result)
        return
    assert result.outcome == OPEN, str(result)
    lie = found.check(signed(as_if_unique(found.changed())))
    assert lie["verdict"].outcome != CONFIRMED, str(lie)


@pytest.mark.medium
@pytest.mark.parametrize("seed", range(30))
def test_the_measurements_alone_keep_a_lie_from_being_confirmed(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("identify.checker.stationary.rules.check_rules", lambda report: "off")
    found = reported(tmp_path, undetermined(seed))
    if found.report["verdict"] != "globally":
        result = found.check(signed(with_honest_numbers(found.changed())))
        assert result["verdict"].outcome != CONFIRMED, str(result)


def test_layers_that_are_not_balanced_are_refuted_whatever_is_stated(tmp_path):
    """Weights for which the hidden layer alone was trained, as if both were."""
    x = centred(np.random.default_rng(3), 4, 12)
    network = identify.plant_relu_network(x, copies=3).network
    found = make(tmp_path, network, trained="both")
    assert found.report["verdict"] == "undecided"
    assert found.check().outcome == OPEN
    result = found.check(signed(as_if_unique(found.changed())))
    assert (result.outcome, result["balance"].outcome) == (REFUTED, REFUTED)


def test_unequal_margins_are_refuted_whatever_is_stated(tmp_path):
    x = centred(np.random.default_rng(3), 4, 12)
    network = identify.plant_relu_network(x, kind="regression").network
    found = make(tmp_path, network, "kkt", trained="hidden")
    assert found.report["verdict"] == "undecided"
    result = found.check(signed(as_if_unique(found.changed())))
    assert (result.outcome, result["margins"].outcome) == (REFUTED, REFUTED)


def test_the_outcome_names_the_layers_that_were_trained(tmp_path):
    """Of weights of both layers the claim about the hidden one alone is another true one."""
    both = planted("4 samples, 10 patterns", tmp_path)
    hidden = make(tmp_path / "hidden", both.network, trained="hidden")
    assert both.check()["verdict"].detail != hidden.check()["verdict"].detail
    report = hidden.changed()
    report["checks"] = both.report["checks"]
    assert hidden.check(signed(report)).outcome == REFUTED


def test_the_loss_of_weight_decay_is_checked(tmp_path):
    x = centred(np.random.default_rng(3), 4, 12)
    network = identify.plant_relu_network(x, kind="regression").network
    found = make(tmp_path, network, "weight-decay", trained="hidden", loss="logistic")
    assert found.report["verdict"] == "undecided"
    assert found.check().outcome == OPEN
    result = found.check(signed(as_if_unique(found.changed())))
    assert (result.outcome, result["loss"].outcome) == (REFUTED, REFUTED)


def test_a_loss_is_ignored_at_a_kkt_point_and_named(tmp_path):
    network = planted("4 samples, 10 patterns", tmp_path).network
    found = make(tmp_path, network, "kkt", loss="logistic")
    result = found.check()
    assert result.outcome == CONFIRMED, str(result)
    assert "problem.loss" in result.not_checked


def test_several_outputs_with_weight_decay(tmp_path):
    rng = np.random.default_rng(4)
    network = several_outputs(rng)
    found = make(tmp_path, network, "weight-decay", trained="hidden")
    assert found.report["verdict"] == "globally", found.report["reason"]
    result = found.check()
    assert result.outcome == CONFIRMED, str(result)
    report = found.changed()
    report["certificate"]["cotangents"][0][1] *= 1.01
    report["coefficients"][0][1] *= 1.01
    assert found.check(signed(report)).outcome == REFUTED


def several_outputs(rng, count=3, dimension=9, width=60):
    """Three outputs and neurons w_j = sum_i (A_j . b_i) 1_ij [x_i, 1] with their own patterns."""
    x = centred(rng, count, dimension)
    b = rng.normal(size=(count, 3))
    lifted = np.column_stack([x, np.ones(count)])
    rows, heads = [], []
    while len(rows) < width:
        head = rng.normal(size=3)
        on = rng.random(count) < 0.5
        row = (on * (b @ head)) @ lifted
        if on.any() and ((lifted @ row > 0.0) == on).all():
            rows.append(row)
            heads.append(head)
    rows = np.array(rows)
    return DeepNetwork([rows[:, :-1], np.array(heads).T], [rows[:, -1], None], "relu")


@pytest.mark.parametrize(("count", "slope", "seed"), [(4, 0.1, 2), (4, -0.2, 8), (5, 0.3, 10)])
def test_leaky_networks(tmp_path, count, slope, seed):
    network = leaky(np.random.default_rng(seed), count, slope)
    found = make(tmp_path, network, "weight-decay", trained="hidden")
    assert found.report["verdict"] == "globally", found.report["reason"]
    result = found.check()
    assert result.outcome == CONFIRMED, str(result)
    for name in ("relu", "leaky_relu:0.25"):
        assert found.check(activation=name).outcome == REFUTED
    for forge in FORGERIES:
        report = found.changed()
        forge(report)
        if report != found.report:
            assert found.check(signed(report)).outcome == REFUTED, forge.__name__


@pytest.mark.parametrize("seed", range(6))
def test_leaky_networks_with_few_patterns(tmp_path, seed):
    network = leaky(np.random.default_rng(seed), 2 + seed % 3, 0.1)
    found = make(tmp_path, network, "weight-decay", trained="hidden")
    expected = CONFIRMED if found.report["verdict"] == "globally" else OPEN
    assert found.check().outcome == expected


def leaky(rng, count, slope, dimension=12, width=60):
    """Neurons w_j = a_j sum_i b_i s'(z_ij) [x_i, 1] with their own patterns."""
    x = centred(rng, count, dimension)
    b = rng.uniform(0.5, 2.0, count)
    lifted = np.column_stack([x, np.ones(count)])
    rows, heads = [], []
    while len(rows) < width:
        on = rng.random(count) < 0.5
        head = rng.uniform(0.5, 2.0) * rng.choice([-1.0, 1.0])
        row = head * (np.where(on, 1.0, slope) * b) @ lifted
        if ((lifted @ row > 0.0) == on).all():
            rows.append(row)
            heads.append(head)
    rows = np.array(rows)
    kind = f"leaky_relu:{slope}"
    return DeepNetwork([rows[:, :-1], np.array([heads])], [rows[:, -1], None], kind)


def test_other_files_are_refuted_whatever_their_hash(honest, tmp_path):
    network = honest.network
    weights = [network.weights[0], network.weights[1] * np.linspace(0.5, 1.5, network.widths[0])]
    other = DeepNetwork(weights, network.biases, "relu")
    path = save(tmp_path / "other.npz", other)
    assert honest.check(model=path)["inputs"].outcome == REFUTED
    report = honest.changed()
    report["inputs"][0]["sha256"] = other.sha256()
    result = honest.check(signed(report), model=path)
    assert result["inputs"].outcome == CONFIRMED
    assert result.outcome == REFUTED, str(result)


@pytest.mark.parametrize("level", [1e-12, 1e-9])
def test_noisy_weights_are_measured_alike(tmp_path, level):
    clean = planted("hidden trained", tmp_path).network
    rng = np.random.default_rng(0)
    noisy = changed(clean, lambda w: w + level * rng.normal(size=w.shape))
    result = make(tmp_path, noisy, trained="hidden").check()
    assert REFUTED not in {claim.outcome for claim in result.claims}, str(result)


def test_an_activation_or_a_kkt_point_of_another_kind_is_refuted(tmp_path):
    found = planted("4 samples, 10 patterns", tmp_path)
    assert found.check(activation="ReLU").outcome == CONFIRMED
    assert found.check(activation="leaky_relu:0.1")["problem"].outcome == REFUTED
    one = found.network
    pair = [one.weights[0], np.concatenate([one.weights[1]] * 2)]
    two = DeepNetwork(pair, one.biases, "relu")
    honest = make(tmp_path / "two", two_outputs(one))
    report = honest.changed()
    report["inputs"][0]["sha256"] = two.sha256()
    result = honest.check(signed(report), model=save(tmp_path / "equal.npz", two))
    assert result["problem"].outcome == REFUTED


def test_an_interrupted_report_claims_nothing(tmp_path):
    network = planted("4 samples, 10 patterns", tmp_path).network
    report = interrupted_stationary_report(
        network, stage="the kernel", seconds=1.0, source="kkt", trained="both", loss=None,
        samples=None, seed=0,
    )  # fmt: skip
    found = written(tmp_path, network, report)
    SCHEMA.validate(found.report)
    assert found.check().outcome == OPEN


def test_a_report_without_certificate_is_not_checkable(honest):
    report = honest.changed()
    del report["certificate"]
    SCHEMA.validate(report)
    with pytest.raises(CheckInputError, match="not checkable: no certificate"):
        honest.check(report)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(more=1),
        lambda r: r.pop("patterns_needed"),
        lambda r: r.update(verdict="locally"),
        lambda r: r.update(margins=["1"]),
        lambda r: r.update(coefficients=[[1.0], [1.0, 2.0]]),
        lambda r: r["certificate"].pop("trained"),
        lambda r: r["certificate"].update(trained="output"),
        lambda r: r["certificate"].update(format=2),
        lambda r: r["certificate"]["masks"].append(None),
        lambda r: r["problem"].update(sizes=[1, 2]),
        lambda r: r["inputs"].append(r["inputs"][0]),
        lambda r: r["inputs"][0].update(sha256="0"),
    ],
)
def test_reports_of_other_types_are_refused_in_one_line(honest, change):
    report = honest.changed()
    change(report)
    with pytest.raises(CheckInputError) as caught:
        honest.check(report)
    assert "\n" not in str(caught.value)


def test_second_files_and_degrees_are_refused(honest):
    for name in ("gradient", "initial"):
        with pytest.raises(CheckInputError, match=name):
            check_report(honest.report, honest.model_file, **{name: honest.model_file})
    with pytest.raises(CheckInputError, match="degree"):
        honest.check(degree=3)


def test_time_limit(honest):
    result = honest.check(time_limit=1e-9)
    assert (result.outcome, result["inputs"].outcome) == (OPEN, CONFIRMED)
    assert "time limit" in result["kinks"].detail


def test_float32_of_every_size(tmp_path):
    for count, size in ((4, 2), (8, 4)):
        x = identify.equiangular_samples(count, size, count + 3, seed=count)
        network = float32(identify.plant_relu_network(x, trained="both", copies=2).network)
        result = make(tmp_path, network).check()
        assert result.outcome == CONFIRMED, str(result)


def test_thresholds_are_copies():
    assert beside.CONFIDENCE == thresholds.SMALLEST_CONFIDENCE
    assert beside.LOOSEST == thresholds.LOOSEST
    assert beside.ROUNDINGS == thresholds.STATIONARY_ROUNDINGS
    assert beside.PARALLEL == thresholds.PARALLEL_NEURONS
    assert point.SUM_LIMIT == SUM_LIMIT


QUICK = ("hidden trained", "4 samples, 10 patterns")


@pytest.mark.parametrize(
    "honest",
    [*QUICK, *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k not in QUICK)],
    indirect=True,
)
def test_what_is_changed_and_still_confirmed_is_named(honest):
    kept, tried = unnamed_changes(honest)
    assert tried > 150
    assert kept == [], "\n".join(map(str, kept))
