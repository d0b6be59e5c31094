"""verify --what-if noise: the levels, the report, the checker, and where it means nothing."""

from __future__ import annotations

import json

import pytest

from tests.command_line import kkt
from tests.identify.command.test_deep import SCHEMA, stored
from tests.identify.disaggregation.problems import plant


@pytest.fixture(scope="module")
def batch():
    return plant([16, 60, 1], 3, 1)


def test_the_report_has_the_levels_and_the_checker_reads_them(tmp_path, batch):
    arguments = stored(tmp_path, batch)
    outcome = kkt("verify", *arguments, "--what-if", "noise", "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads((tmp_path / "out/report.json").read_text())
    SCHEMA.validate(report)
    found = report["what_if_noise"]
    assert report["verdict"] == "globally"
    assert 0.0 < found["decided_up_to"] < found["undecided_from"] < 1.0
    levels = [trial["noise"] for trial in found["trials"]]
    assert levels == sorted(levels)
    text = " ".join(outcome.out.split())
    assert "the smallest noise that leaves this gradient undecided is" in text
    checked = kkt("check", tmp_path / "out/report.json", *arguments[:-2])
    assert checked.code == 0, checked.err
    assert "confirmed" in checked.out


def test_nothing_is_asked_unless_it_is_named(tmp_path, batch):
    outcome = kkt("verify", *stored(tmp_path, batch), "--format", "json")
    report = json.loads(outcome.out)
    SCHEMA.validate(report)
    assert report["what_if_noise"] is None


def test_a_report_without_the_field_is_an_earlier_one(tmp_path, batch):
    report = json.loads(kkt("verify", *stored(tmp_path, batch), "--format", "json").out)
    del report["what_if_noise"]
    SCHEMA.validate(report)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--source", "weight-decay", "--activation", "relu"),
        ("--source", "kkt", "--degree", "3"),
    ],
)
def test_it_means_nothing_for_weights(tmp_path, batch, arguments):
    model = stored(tmp_path, batch)[0]
    outcome = kkt("verify", model, *arguments, "--what-if", "noise")
    assert outcome.code == 2
    assert "--what-if" in outcome.err
