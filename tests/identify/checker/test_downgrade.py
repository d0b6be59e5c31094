"""Reports that pretend to be of an earlier version, and those that are."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork, assess_identifiability, save_network
from identify.checker import conditions
from identify.checker.check import check_report
from tests.identify.checker.problems import Problem, sign

DROPPED = (
    "range", "noise level", "settled noise", "neurons", "finite samples", "first-order bounds",
    "agreement",
)  # fmt: skip


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A report on a gradient of four samples, and the arguments of its check."""
    folder = tmp_path_factory.mktemp("honest")
    rng = np.random.default_rng(0)
    network = TwoLayerNetwork(rng.normal(size=(40, 8)), rng.normal(size=40), degree=3)
    gradient = network.gradient(rng.normal(size=(4, 8)), rng.uniform(0.5, 2.0, 4))
    save_network(network, folder / "model.npz")
    save_network(gradient, folder / "gradient.npz")
    report = assess_identifiability(HermiteData.from_gradient(network, gradient)).to_dict()
    assert report["verdict"] == "globally"
    assert report["certificate"]["format"] == 2
    assert set(DROPPED) <= {row["name"] for row in report["conditions"]}
    return report, (folder / "model.npz", folder / "gradient.npz")


@pytest.fixture(scope="module")
def margins(tmp_path_factory):
    """A report on a KKT point, whose conditions are on sides and margins too."""
    problem = Problem.stationary([1.0, 1.3, 1.7])
    files = problem.save(tmp_path_factory.mktemp("margins"))
    network = TwoLayerNetwork(problem.u, problem.scales / 3.0, degree=3)
    report = assess_identifiability(HermiteData.from_kkt(network), 3).to_dict()
    assert report["verdict"] == "globally", report["reason"]
    return report, files


def check(report, files):
    gradient = {"gradient": files[1]} if len(files) > 1 else {}
    return check_report(sign(report), files[0], **gradient)


def without(report, *names):
    changed = copy.deepcopy(report)
    changed["conditions"] = [row for row in changed["conditions"] if row["name"] not in names]
    return changed


def stripped(report, format=None):
    """The report without a word on what is needed, as earlier versions wrote it."""
    changed = copy.deepcopy(report)
    for row in changed["conditions"]:
        del row["needed"]
    if format is not None:
        changed["certificate"]["format"] = format
    return changed


@pytest.mark.parametrize("name", DROPPED)
def test_a_row_that_decides_may_not_be_dropped(honest, name):
    report, files = honest
    assert check(copy.deepcopy(report), files).outcome == "confirmed"
    assert check(without(report, name), files)["conditions"].outcome == "refuted"
    assert check(stripped(without(report, name)), files)["conditions"].outcome == "refuted"
    half = without(report, name)
    for row in half["conditions"][1:]:
        del row["needed"]
    for number in (1, 2):
        half["certificate"]["format"] = number
        assert check(copy.deepcopy(half), files)["conditions"].outcome == "refuted"
    named = without(report, name)
    named["certificate"]["format"] = 1
    assert check(named, files)["conditions"].outcome == "refuted"


@pytest.mark.parametrize("name", ["right side", "separate margins", "range"])
def test_sides_and_margins_may_not_be_dropped(margins, name):
    report, files = margins
    assert check(copy.deepcopy(report), files).outcome == "confirmed"
    for changed in (without(report, name), stripped(without(report, name))):
        assert check(changed, files)["conditions"].outcome == "refuted"


def test_a_report_of_format_2_says_what_is_needed(honest):
    report, files = honest
    found = check(stripped(report), files)["conditions"]
    assert found.outcome == "refuted"
    assert "needed" in found.detail


def test_a_report_of_format_1_is_held_to_what_it_listed(honest):
    report, files = honest
    older = without(stripped(report, format=1), *DROPPED)
    assert check(copy.deepcopy(older), files).outcome == "confirmed"
    for name in ("span", "I-hermite", "I-flat", "I-value", "consistency", "decomposition",
                 "redundancy", "error bounds", "stable rank"):  # fmt: skip
        assert check(without(older, name), files)["conditions"].outcome == "refuted", name


def test_a_report_of_format_1_that_says_what_is_needed_stays_valid(honest):
    report, files = honest
    between = copy.deepcopy(report)
    between["certificate"]["format"] = 1
    result = check(between, files)
    assert result.outcome == "confirmed", str(result)
    assert "certificate.format" in result.not_checked


@pytest.mark.parametrize("name", ["fits_range", "is_finite"])
def test_what_a_report_of_format_1_does_not_list_has_to_hold(honest, monkeypatch, name):
    report, files = honest
    older = without(stripped(report, format=1), *DROPPED)
    monkeypatch.setattr(conditions, name, lambda case: False)
    assert check(older, files)["conditions"].outcome == "refuted"


def test_a_second_method_that_is_dropped_is_named(honest):
    report, files = honest
    dropped = without(report, "second method")
    result = check(dropped, files)
    assert result.outcome == "confirmed"
    assert "conditions.second method" in result.not_checked
