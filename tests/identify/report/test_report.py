"""The text form of reports, and reports against their schema."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest

from identify.records import Condition, Evidence, Residual, Scope, Verdict
from identify.report.report import format_report, sheet_title
from identify.report.summary import remark_on_conditions, summary
from identify.text import WIDTH, number
from tests.identify.reports import SCHEMA, check_report, report, training_set

GLOBALLY = """\
Identifiability report
======================
in short      2 training samples can be reconstructed from these weights
how exactly   every sample to within 4e-10 % of its length
rests on      the weights being those of a network trained to the end without weight decay; there
              being no more than 2 training samples that left a trace; computation in floating
              point, without a proof
what to do    do not release these weights to anyone who must not see the samples

verdict       GLOBALLY identifiable among all training sets of at most 2 samples
scope         among all training sets of at most 2 samples
reason        the moment tensor is determined on 2 dimensions
evidence      numerical: balance, I-hermite, I-flat, I-value
data          source kkt, degree 3, 7 neurons (5 distinct), 4 inputs, span of dimension 2, not the
              whole input space
recovered     2 samples, largest error bound 4.0e-12 of a sample's norm
rank          10 found, 10 required (singular values)
redundancy    6 equations agree with the number of samples; what would break them: see the caveats
conditioning  123.4 (singular values)
noise level   1.0e-13, relative

Residuals, relative
  balance or consistency  1.2e-15        against 7 redundant equations
  outside the span        not checkable  no redundant equation
  linear equations        3.0e-14        against 1 redundant equation
  recovered samples       2.0e-15        against 17 redundant equations

Conditions
                                        required  found    evidence
  balance    holds                      0.01      1.2e-15  numerical
  I-hermite  holds                      10        10       numerical
  I-flat     fails, not required        6         4        numerical
  I-value    not checked, not required  10        -        numerical
  I-flat is not required: a stronger condition than I-hermite, which holds and is the one that the
  verdict uses; nothing is lost by its failure.

Assumptions
  - the weights are a KKT point

Symmetries
  - order of the samples

Caveats
  - sets of more than 2 samples are never excluded

model sha256 0123456789ab, seed 5, 0.2 s, kktcert 1.2.3"""


def line(text, label):
    (found,) = [row for row in text.splitlines() if row.startswith(label)]
    return found.removeprefix(label).strip()


def test_the_whole_text():
    assert format_report(report()) == GLOBALLY


def first_screen(**changes):
    """The plain words, by their labels."""
    return dict(summary(report(**changes)))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("kkt", "these weights"),
        ("weight-decay", "these weights"),
        ("gradient", "this gradient"),
        ("fine-tuning", "these two checkpoints"),
    ],
)
def test_the_first_lines_name_what_must_not_be_released(source, what):
    words = first_screen(problem={"source": source})
    assert words["in short"] == f"2 training samples can be reconstructed from {what}"
    assert words["what to do"].startswith(f"do not release {what}")
    assert words["how exactly"] == "every sample to within 4e-10 % of its length"
    assert "no more than 2 training samples" in words["rests on"]


@pytest.mark.parametrize("verdict", [Verdict.UNDECIDED, Verdict.NONIDENTIFIABLE])
@pytest.mark.parametrize("recovered", [True, False])
def test_no_other_verdict_is_taken_for_privacy(verdict, recovered):
    changes = {"verdict": verdict, "scope": None, "candidates": recovered}
    if not recovered:
        changes["recovery"] = None
    words = " ".join(first_screen(**changes).values())
    assert "can be reconstructed" not in words or "perhaps among others" in words
    assert "no proof of privacy" in words or "do not release" in words


def test_data_that_are_not_covered_are_not_called_safe():
    words = first_screen(verdict=Verdict.UNDECIDED, scope=None, recovery=None, covered=False)
    assert "does not cover" in words["in short"]
    assert "privacy" in words["what to do"]


def test_bounds_that_are_missing_are_not_passed_over():
    words = first_screen(error_bounds=(1e-3, None))
    assert words["how exactly"].startswith("1 of 2 samples, each to within 0.1 %")
    assert "no error bound" in first_screen(error_bounds=(None, None))["how exactly"]


def test_a_failing_row_has_its_explanation_only_under_a_positive_verdict():
    assert "I-flat is not required" in remark_on_conditions(report())
    assert remark_on_conditions(report(verdict=Verdict.UNDECIDED, scope=None)) == ""
    assert remark_on_conditions(report(conditions=())) == ""


def test_str_is_the_text():
    assert str(report()) == format_report(report())


def test_plain_text_within_the_width():
    long = report(
        reason="words " * 80,
        caveats=("caveat " * 60, "short"),
        inputs=tuple({"role": role, "sha256": "a" * 64} for role in ("model", "gradient")),
    )
    text = format_report(long)
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert not any(row != row.rstrip() for row in text.splitlines())


def test_undecided_claims_nothing():
    text = format_report(
        report(
            verdict=Verdict.UNDECIDED,
            scope=None,
            sample_count=None,
            recovery=None,
            error_bounds=None,
            redundant_equations=None,
            condition_number=None,
            conditions=(),
            caveats=(),
            problem={"source": "kkt", "degree": 3},
        )
    )
    assert line(text, "verdict").startswith("UNDECIDED")
    assert line(text, "scope") == "none: no uniqueness is claimed"
    assert line(text, "evidence") == "none: no condition was checked"
    assert line(text, "recovered") == "no samples"
    assert line(text, "redundancy") == "not known"
    assert line(text, "conditioning") == "not known"
    assert "Caveats" not in text
    assert "GLOBALLY" not in text


def test_undecided_samples_are_not_called_unique():
    text = format_report(report(verdict=Verdict.UNDECIDED, scope=None, redundant_equations=0))
    assert line(text, "recovered").startswith("2 samples, not shown unique")
    assert line(text, "redundancy") == "0: no equation speaks for the number of samples"


def test_nonidentifiable_shows_the_sets():
    text = format_report(
        report(
            verdict=Verdict.NONIDENTIFIABLE,
            scope=Scope("shown", (2, 3)),
            recovery=None,
            alternatives=(training_set(2), training_set(3)),
        )
    )
    assert line(text, "scope") == "shown by one set of 2 and another of 3 samples"
    assert line(text, "recovered") == "no unique samples; sets of 2 and 3 samples are shown"


def test_a_missing_error_bound_is_said():
    text = format_report(report(error_bounds=(None, 1e-9)))
    assert line(text, "recovered") == "2 samples, 1 without an error bound"


def test_conditions_are_listed_by_their_evidence():
    text = format_report(
        report(
            conditions=(
                Condition("a", True, 1, 1, Evidence.PROVED_EXACT),
                Condition("b", True, 1, 1, Evidence.NUMERICAL),
                Condition("c", True, 1, 1, Evidence.NUMERICAL),
            )
        )
    )
    words = "proved in exact arithmetic: a; numerical: b, c"
    assert line(text, "evidence") == words


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (0.03, "0.03"), (12345.0, "1.2e+04"), (7, "7"), ("x", "x"),
     (float("nan"), "-"), (float("inf"), "-"), (-2.5e-9, "-2.5e-09"), (100.0, "100")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_the_title_of_a_sheet_names_verdict_and_scope():
    assert sheet_title(report()).endswith("among all training sets of at most 2 samples")
    undecided = sheet_title(report(verdict=Verdict.UNDECIDED, scope=None))
    assert undecided.startswith("UNDECIDED, no uniqueness")
    shown = report(verdict=Verdict.NONIDENTIFIABLE, scope=Scope("shown", (2, 3)))
    assert "of 2 and of 3 samples, explain the same data" in sheet_title(shown)


EMPTY_CERTIFICATE = {
    "format": 1,
    "assumed": {
        "samples": None,
        "scale": "free",
        "non_negative": False,
        "noise": None,
        "loss": None,
        "decay": None,
    },
    **dict.fromkeys(("basis", "neurons", "shift", "points", "rank", "singular_value")),
    **dict.fromkeys(("terms", "enclosure", "sets")),
}


class TestSchema:
    def test_the_schema_is_one(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"verdict": Verdict.UNDECIDED, "scope": None, "sample_count": None},
            {"verdict": Verdict.LOCALLY, "scope": Scope("exactly", 2)},
            {"verdict": Verdict.NONIDENTIFIABLE, "scope": Scope("shown", (2, 3))},
            {"spans_input_space": None, "error_bounds": None, "condition_number": None},
            {"certificate": EMPTY_CERTIFICATE, "conditions": ()},
        ],
    )
    def test_reports_fit(self, changes):
        check_report(report(**changes).to_json())

    def test_what_is_not_finite_becomes_null(self):
        content = check_report(
            report(
                condition_number=float("inf"),
                error_bounds=(np.float64("nan"), 1e-3),
                residuals={**report().residuals, "linear": Residual(float("nan"), 3)},
                conditions=(Condition("a", None, np.float64("inf"), np.int64(3)),),
            ).to_json()
        )
        assert content["condition_number"] is None
        assert content["error_bounds"] == [None, 1e-3]
        assert content["residuals"]["linear"] == {"value": None, "equations": 3}
        assert (content["conditions"][0]["required"], content["conditions"][0]["found"]) == (
            None,
            3,
        )

    @pytest.mark.parametrize(
        "change",
        [
            {"verdict": "unique"},
            {"verdict": "undecided"},
            {"scope": None},
            {"scope": {"kind": "exactly", "samples": 2}},
            {"scope": {"kind": "at_most", "samples": 0}},
            {"extra": 1},
            {"seconds": None},
            {"reason": ""},
            {"schema_version": 2},
            {"inputs": [{"role": "model", "sha256": "xyz"}]},
            {"residuals": {}},
            {"conditions": [{"name": "a", "holds": True}]},
        ],
    )
    def test_other_content_does_not(self, change):
        content = {**report().to_dict(), **change}
        with pytest.raises(jsonschema.ValidationError):
            check_report(content)

    def test_every_field_is_required(self):
        # Reports of earlier versions do without these.
        later = {"candidates", "covered", "absolute_bounds", "data_error"}
        check_report({k: v for k, v in report().to_dict().items() if k not in later})
        for name in report().to_dict():
            content = {key: value for key, value in report().to_dict().items() if key != name}
            if name in later:
                check_report(content)
                continue
            with pytest.raises(jsonschema.ValidationError):
                check_report(content)
