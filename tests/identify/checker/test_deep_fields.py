"""Every field of a gradient report: a changed one is refuted, or named as not checked."""

from __future__ import annotations

import pytest

from identify.checker.outcome import CONFIRMED, REFUTED
from tests.identify.checker.changed_fields import unnamed_changes
from tests.identify.checker.deep_reports import KINDS, planted, signed

CHECKS = (
    "masks agree with signs", "masks of the samples", "gradient of layer 1",
    "coefficients of the biases", "known loss", "layers agree",
)  # fmt: skip
SAME = 1.02


@pytest.fixture(scope="module", params=KINDS)
def honest(request, tmp_path_factory):
    reported = planted(request.param, tmp_path_factory.mktemp("deep"))
    assert reported.report["verdict"] == "globally"
    return reported


@pytest.mark.parametrize("name", CHECKS)
def test_no_check_may_be_left_out_or_listed_twice(honest, name):
    report = honest.changed()
    kept = [check for check in report["checks"] if check["name"] != name]
    twice = [check for check in report["checks"] for _ in range(1 + (check["name"] == name))]
    renamed = [
        check | {"name": "another" if check["name"] == name else check["name"]}
        for check in report["checks"]
    ]
    for checks in (kept, twice, renamed, report["checks"][::-1]):
        assert honest.check(signed(honest.changed() | {"checks": checks})).outcome == REFUTED


@pytest.mark.parametrize("change", [lambda n: 0, lambda n: n + 1, lambda n: n - 1, lambda n: 9 * n])
def test_the_entries_of_masks_are_counted(honest, change):
    report = honest.changed()
    check = next(c for c in report["checks"] if c["name"] == "masks of the samples")
    check["equations"] = change(check["equations"])
    assert honest.check(signed(report))["masks"].outcome == REFUTED


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.6])
def test_bounds_that_are_too_small_are_refuted(honest, factor):
    for every in (True, False):
        report = honest.changed()
        bounds = report["error_bounds"]
        report["error_bounds"] = [
            bound * (factor if every or i == 0 else 1.0) for i, bound in enumerate(bounds)
        ]
        assert honest.check(signed(report))["error bounds"].outcome == REFUTED


@pytest.mark.parametrize(
    ("part", "value"),
    [("largest_kernel", -0.1), ("largest_kernel", -1e-9), ("largest_kernel", -9.0),
     ("rows", 1), ("rows", -1), ("rows", 2)],
)  # fmt: skip
def test_the_kernel_has_its_rows_and_no_negative_values(honest, part, value):
    report = honest.changed()
    kernel = report["kernel"]
    kernel[part] = kernel[part] + value if part == "rows" else value
    assert honest.check(signed(report))["kernel"].outcome == REFUTED


def test_the_statement_about_the_data_may_not_be_left_out(honest):
    report = honest.changed() | {"data_statement": None}
    assert honest.check(signed(report)).outcome == REFUTED
    for name in ("error", "eta", "sigma"):
        report = honest.changed()
        report["data_statement"][name] = None
        assert honest.check(signed(report)).outcome == REFUTED, name


def test_a_proof_that_is_left_out_is_named(honest):
    for change in (lambda r: r.update(proof=None), lambda r: r["proof"].update(holds=None)):
        report = honest.changed()
        change(report)
        result = honest.check(signed(report))
        assert result.outcome == CONFIRMED
        assert result["printed answer"].outcome == CONFIRMED
        assert "proof" in result.not_checked
    report = honest.changed()
    report["proof"]["prime"] = None
    assert "proof.prime" in honest.check(signed(report)).not_checked


def test_a_report_of_format_1_may_lack_what_came_later(honest):
    older = honest.changed()
    older["certificate"]["format"] = 1
    older["checks"] = [check for check in older["checks"] if check["name"] != "layers agree"]
    result = honest.check(signed(older))
    assert result.outcome == CONFIRMED, str(result)
    assert {"certificate.format", "checks.layers agree"} <= set(result.not_checked)
    for name in CHECKS[:-1]:
        report = honest.changed()
        report["certificate"]["format"] = 1
        report["checks"] = [check for check in older["checks"] if check["name"] != name]
        assert honest.check(signed(report)).outcome == REFUTED, name


QUICK = ("one output, one hidden layer", "degree 3", "leaky, the loss unknown")


@pytest.mark.parametrize(
    "honest",
    [*QUICK, *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k not in QUICK)],
    indirect=True,
)
def test_what_is_changed_and_still_confirmed_is_named(honest):
    kept, tried = unnamed_changes(honest)
    assert tried > 200
    assert kept == [], "\n".join(map(str, kept))
