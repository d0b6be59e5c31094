"""Forged gradient reports are refuted, each with a digest that fits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from identify.checker.outcome import CONFIRMED, OPEN, REFUTED, CheckInputError
from tests.identify.checker.deep_forgeries import (
    FORGERIES,
    another_mask,
    as_if_unique,
    hidden_sample,
    merged_pair,
    moved_sample,
    swapped_slopes,
    with_honest_numbers,
)
from tests.identify.checker.deep_reports import (
    KINDS,
    as_read,
    few_neurons,
    float32,
    make,
    other_network,
    planted,
    save,
    signed,
)
from tests.identify.disaggregation import families


@pytest.fixture(scope="module", params=KINDS)
def honest(request, tmp_path_factory):
    return planted(request.param, tmp_path_factory.mktemp("deep"))


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forged_report_is_refuted(honest, forge):
    report = honest.changed()
    forge(report)
    assert report != honest.report
    assert honest.check(report)["digest"].outcome == REFUTED
    result = honest.check(signed(report))
    assert result["digest"].outcome == CONFIRMED
    assert result.outcome == REFUTED, str(result)


def test_changed_labels_and_counts_are_refuted(tmp_path):
    honest = planted("ten outputs, two hidden layers", tmp_path)
    for name in ("labels", "counts", "label_confidence"):
        report = honest.changed()
        report[name][0] = 3 * report[name][0] + 1
        assert honest.check(signed(report)).outcome == REFUTED, name


@pytest.mark.parametrize("role", ["network", "gradient"])
def test_other_files_are_refuted_whatever_their_hash(honest, tmp_path, role):
    network = other_network(77, honest.network)
    slopes = np.array(honest.report["certificate"]["cotangents"])
    samples = np.array(honest.report["certificate"]["samples"])
    part = network if role == "network" else network.gradient(samples, slopes)
    path = save(tmp_path / "other.npz", part)
    option = {"model" if role == "network" else role: path}
    assert honest.check(**option)["inputs"].outcome == REFUTED
    report = honest.changed()
    as_read(report, role, part.sha256())
    result = honest.check(signed(report), **option)
    assert result["inputs"].outcome == CONFIRMED
    assert result.outcome == REFUTED


def test_another_output_layer_is_refuted_whatever_its_hash(honest, tmp_path):
    weights = [w.copy() for w in honest.network.weights]
    weights[-1][0, :] *= np.linspace(0.5, 1.5, weights[-1].shape[1])
    network = type(honest.network)(weights, honest.network.biases, honest.network.activations)
    report = honest.changed()
    as_read(report, "network", network.sha256())
    result = honest.check(signed(report), model=save(tmp_path / "other.npz", network))
    assert result["inputs"].outcome == CONFIRMED
    assert result.outcome == REFUTED


def test_another_activation_is_refuted_whatever_its_hash(honest):
    report = honest.changed()
    kinds = ["leaky_relu:0.3"] * len(report["problem"]["activations"])
    report["problem"]["activations"] = kinds
    network = type(honest.network)(honest.network.weights, honest.network.biases, kinds)
    as_read(report, "network", network.sha256())
    assert honest.check(signed(report)).outcome == REFUTED
    assert honest.check(activation="leaky_relu:0.3")["problem"].outcome == REFUTED


def test_a_batch_of_more_samples_than_the_last_layer_shows_is_refuted(tmp_path):
    """Two samples with one mask above: the honest report is undecided, the forged one is not."""
    case = families._merged_above(np.random.default_rng(3))
    honest = make(tmp_path, case.network, case.gradient)
    assert honest.report["verdict"] == "undecided"
    assert max(rank["rank"] for rank in honest.report["ranks"]) > honest.report["rank"]
    for hide in (False, True):
        report = as_if_unique(honest.changed())
        for entry in report["ranks"]:
            entry["rank"] = min(entry["rank"], report["rank"]) if hide else entry["rank"]
        assert honest.check(signed(report)).outcome == REFUTED


@pytest.mark.parametrize("seed", range(22))
def test_no_undetermined_gradient_is_confirmed(tmp_path, seed):
    case = families.undetermined(seed)
    options = dict(case.options)
    honest = make(tmp_path, case.network, case.gradient, options.pop("loss", None), **options)
    if honest.report["verdict"] == "globally":
        assert honest.check().outcome == CONFIRMED
        return
    assert honest.check().outcome == OPEN
    result = honest.check(signed(as_if_unique(honest.changed())))
    assert result.outcome in (REFUTED, OPEN)
    assert result["verdict"].outcome != CONFIRMED


@pytest.mark.parametrize("seed", range(22))
def test_the_measurements_alone_keep_a_lie_from_being_confirmed(tmp_path, monkeypatch, seed):
    """The numbers of the report are honest, only its verdict is not, and no rule looks at them."""
    monkeypatch.setattr("identify.checker.deep.rules.check_rules", lambda report: "off")
    case = families.undetermined(seed)
    honest = make(tmp_path, case.network, case.gradient)
    if honest.report["verdict"] == "globally":
        return
    result = honest.check(signed(with_honest_numbers(honest.changed())))
    assert result["verdict"].outcome != CONFIRMED, str(result)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    return few_neurons(tmp_path_factory.mktemp("few"))


def test_a_list_of_masks_is_made_again(listed):
    assert (listed.report["verdict"], listed.report["method"]) == ("globally", "masks")
    result = listed.check()
    assert result.outcome == CONFIRMED, str(result)
    assert "1 of" in result["mask list"].detail


def test_a_forged_list_of_masks_is_not_confirmed(listed):
    certificate = listed.report["certificate"]
    for name in (another_mask, moved_sample, swapped_slopes, hidden_sample, merged_pair):
        report = listed.changed()
        name(report)
        assert listed.check(signed(report)).outcome == REFUTED, name
    report = listed.changed()
    report["certificate"]["pivots"] = None
    assert listed.check(signed(report)).outcome == OPEN
    if certificate["excluded"]:
        report = listed.changed()
        report["certificate"]["excluded"] = []
        assert listed.check(signed(report))["mask list"].outcome == OPEN
    report = listed.changed()
    true = report["certificate"]["masks"][-1][0]
    report["certificate"]["excluded"].append(
        {"mask": true, "neurons": [0, 1], "multipliers": [1.0, 1.0]}
    )
    assert listed.check(signed(report)).outcome == CONFIRMED, "multipliers that prove nothing"


def test_json_of_the_report_is_what_is_checked(listed, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(listed.report))
    assert listed.check(path).outcome == CONFIRMED


def test_noise_is_no_excuse(tmp_path):
    """A second sample of a hundredth of the size below the gap is seen by its one direction."""
    honest = planted("one output, one hidden layer", tmp_path)
    x = np.array(honest.report["certificate"]["samples"])
    p = np.array(honest.report["certificate"]["cotangents"])
    rng = np.random.default_rng(0)
    more = np.vstack([x, rng.normal(size=x[:1].shape)])
    gradient = honest.network.gradient(more, np.vstack([p, 1e-5 * p[:1]]))
    hidden = make(tmp_path / "hidden", honest.network, float32(gradient), "logistic")
    assert hidden.report["rank"] == len(x) + 1
    report = as_if_unique(hidden.changed())
    hidden_sample(report)
    assert hidden.check(signed(report)).outcome == REFUTED


FREE = (
    "reason", "smallest_visible_slope", "limit", "note", "method", "seed", "seconds", "versions",
    "caveats", "digest",
)  # fmt: skip
"""Notes, and limits that the checker computes for itself."""


def leaves(part, path=()):
    """Paths to the first and the last number, flag or text of everything in a report."""
    if isinstance(part, dict):
        for name, inner in part.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(part, list):
        for k in sorted({0, len(part) - 1}) if part else ():
            yield from leaves(part[k], (*path, k))
    else:
        yield path, part


def test_every_number_that_is_no_note_is_checked(tmp_path):
    honest = planted("ten outputs, two hidden layers", tmp_path)
    kept = []
    for path, value in leaves(honest.report):
        if set(path) & set(FREE) or not isinstance(value, bool | int | float):
            continue
        report = honest.changed()
        place = report
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = not value if isinstance(value, bool) else 5 * value + 9
        try:
            result = honest.check(signed(report))
        except CheckInputError:
            continue
        if result.outcome != REFUTED and not (path[0] == "checks" and value == 0.0):
            kept.append((path, value))
    assert kept == []
