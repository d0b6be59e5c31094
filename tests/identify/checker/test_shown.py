"""Two sets that are shown for one gradient: confirmed, and refuted where one of them is forged."""

from __future__ import annotations

import numpy as np
import pytest

from identify import thresholds
from identify.checker.deep import shown
from identify.checker.outcome import CONFIRMED, OPEN, REFUTED
from tests.identify.checker.deep_reports import make, signed
from tests.identify.disaggregation.second_sets import case

FAMILIES = ("two of one mask", "two of one mask, float32", "three of one mask", "two pairs")


@pytest.fixture(scope="module", params=FAMILIES)
def honest(request, tmp_path_factory):
    problem = case(request.param, 1)
    found = make(tmp_path_factory.mktemp("shown"), problem.network, problem.gradient)
    assert found.report["verdict"] == "nonidentifiable"
    return found


def moved(report):
    sets = report["alternatives"]
    sets[1]["samples"] = [[1.001 * value for value in row] for row in sets[1]["samples"]]


def hardly_moved(report):
    sample = report["alternatives"][1]["samples"][0]
    sample[0] += 1e-4 * float(np.linalg.norm(sample))


def other_slopes(report):
    report["alternatives"][1]["cotangents"] = report["alternatives"][0]["cotangents"]


def twice_the_first(report):
    report["alternatives"][1] = report["alternatives"][0]


def the_first_in_another_order(report):
    one = report["alternatives"][0]
    report["alternatives"][1] = dict(one) | {
        name: one[name][::-1] for name in ("samples", "cotangents", "error_bounds")
    }


def invented(report):
    rng = np.random.default_rng(0)
    one = report["alternatives"][1]
    one["samples"] = rng.normal(size=np.shape(one["samples"])).tolist()


def split(report):
    """One sample more, which explains the gradient too, but not at the smallest size."""
    one = report["alternatives"][1]
    one["samples"].append(one["samples"][-1])
    one["cotangents"][-1] = [0.5 * value for value in one["cotangents"][-1]]
    one["cotangents"].append(one["cotangents"][-1])
    one["error_bounds"].append(one["error_bounds"][-1])
    report["scope"]["samples"][1] += 1


def one_set(report):
    del report["alternatives"][1]


def another_scope(report):
    report["scope"]["samples"][0] -= 1


def at_most(report):
    report["scope"] = {"kind": "at_most", "samples": report["rank"]}


def no_candidates(report):
    report["candidates"] = False


def another_residual(report):
    report["alternatives"][0]["residual"] = 1e-3


def another_bound(report):
    report["alternatives"][1]["error_bounds"][0] = 1e-3


def another_margin(report):
    report["alternatives"][1]["margin"] *= 90.0


def named_loss(report):
    report["problem"]["loss"] = "squared"
    report["assumptions"].append("the loss is squared")


def without_the_assumption(report):
    del report["assumptions"][-1]


def undecided(report):
    report["verdict"], report["scope"] = "undecided", None


def unique(report):
    report["verdict"] = "globally"
    report["scope"] = {"kind": "at_most", "samples": report["rank"]}
    report["candidates"] = False


FORGERIES = (
    moved, hardly_moved, other_slopes, twice_the_first, the_first_in_another_order, invented, split,
    one_set, another_bound, another_margin, another_scope, at_most, no_candidates,
    another_residual, named_loss, without_the_assumption, undecided, unique,
)  # fmt: skip


def test_two_sets_are_confirmed(honest):
    result = honest.check()
    assert result.outcome == CONFIRMED, str(result)
    assert result["second sets"].holds


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forged_pair_is_refuted(honest, forge):
    report = honest.changed()
    forge(report)
    assert report != honest.report
    assert honest.check(report).outcome == REFUTED
    assert honest.check(signed(report)).outcome == REFUTED


@pytest.mark.parametrize("family", ["one neuron apart", "different masks", "known loss"])
def test_two_sets_for_another_gradient_are_not_confirmed(tmp_path, honest, family):
    problem = case(family, 2)
    other = make(tmp_path, problem.network, problem.gradient, **problem.options)
    assert other.report["verdict"] != "nonidentifiable"
    report = other.changed()
    count, width = other.report["rank"], problem.network.dimension
    rng = np.random.default_rng(0)
    report["verdict"] = "nonidentifiable"
    report["scope"] = {"kind": "shown", "samples": [count, count]}
    report["candidates"] = report["covered"] = True
    report["sample_count"] = report["samples_of"] = report["scaled"] = None
    for name in ("labels", "label_confidence", "counts", "error_bounds"):
        report[name] = None
    report["certificate"] |= {"samples": None, "cotangents": None, "masks": []}
    report["alternatives"] = [
        {"samples": (problem.samples[:count] + step * rng.normal(size=(count, width))).tolist(),
         "cotangents": problem.slopes[:count].tolist(), "error_bounds": [1e-14] * count,
         "residual": 1e-15, "margin": 10.0}
        for step in (0.0, 0.1)
    ]  # fmt: skip
    report["assumptions"].append("the slopes of the loss of each sample can be any numbers")
    assert other.check(signed(report)).outcome == REFUTED


def test_a_report_without_the_field_is_as_before(tmp_path):
    problem = case("different masks", 0)
    found = make(tmp_path, problem.network, problem.gradient)
    report = found.changed()
    assert report.pop("alternatives") == []
    assert found.check(signed(report)).outcome == CONFIRMED


def test_no_time_leaves_the_pair_open(honest):
    assert honest.check(time_limit=0.0).outcome == OPEN


def test_thresholds_are_copies():
    for name in ("SECOND_RESIDUAL", "SECOND_NOISE", "SECOND_DISTANCE"):
        assert getattr(shown, name) == getattr(thresholds, name)
