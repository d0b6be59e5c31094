"""SARIF and JUnit: what CI systems read, beside the exit code of the same run."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import jsonschema
import numpy as np
import pytest

from identify.report.findings import Finding, Findings, Severity
from identify.report.junit import to_junit
from identify.report.sarif import to_sarif
from tests.command_line import gradient_pair, kkt, refused

# What the standard (SARIF 2.1.0, OASIS) asks for, as far as it is used, and what forges need.
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
RESULT = {
    "type": "object",
    "required": ["ruleId", "ruleIndex", "message", "locations", "level", "kind"],
    "properties": {
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "kind": {"enum": ["pass", "open", "informational", "notApplicable", "review", "fail"]},
        "message": TEXT,
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
        "locations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["physicalLocation"],
                "properties": {
                    "physicalLocation": {
                        "type": "object",
                        "required": ["artifactLocation", "region"],
                        "properties": {
                            "artifactLocation": {
                                "properties": {"uri": {"type": "string", "pattern": r"^[!-~]+$"}}
                            },
                            "region": {"properties": {"startLine": {"const": 1}}},
                        },
                    }
                },
            },
        },
    },
    # Every kind but fail has the level none.
    "if": {"properties": {"kind": {"const": "fail"}}},
    "then": {"properties": {"level": {"enum": ["note", "warning", "error"]}}},
    "else": {"properties": {"level": {"const": "none"}}},
}
SARIF = {
    "type": "object",
    "required": ["version", "$schema", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name", "version", "rules"],
                                "properties": {
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "required": ["id", "shortDescription"],
                                            "properties": {"shortDescription": TEXT},
                                        },
                                    }
                                },
                            }
                        },
                    },
                    "results": {"type": "array", "items": RESULT},
                    "invocations": {
                        "type": "array",
                        "items": {"required": ["executionSuccessful"]},
                    },
                },
            },
        },
    },
}


def results(text):
    """The results of a SARIF log that is as the standard asks."""
    log = json.loads(text)
    jsonschema.validate(log, SARIF)
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    return run["results"]


def cases(text):
    """Outcome of every test of a JUnit file, by name, with the counts of its suite."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    suite = root.find("testsuite")
    found = {}
    for case in suite.findall("testcase"):
        kinds = [child.tag for child in case]
        found[case.get("name")] = kinds[0] if kinds else "passed"
    told = [int(suite.get(name)) for name in ("tests", "failures", "skipped", "errors")]
    outcomes = list(found.values())
    assert told == [len(outcomes), outcomes.count("failure"), outcomes.count("skipped"), 0]
    return found


def levels(text):
    return [(r["ruleId"], r["level"]) for r in results(text)]


def test_a_determined_batch_is_an_error_for_each_sample(pair):
    arguments, samples = pair
    found = kkt("verify", *arguments, "--format", "sarif")
    assert found.code == 0
    assert levels(found.out) == [("verdict", "error")] + [("exposed-sample", "error")] * 4
    tests = cases(kkt("verify", *arguments, "--format", "junit").out)
    assert tests == {"verdict": "failure"} | {f"sample {k}": "failure" for k in range(len(samples))}


def test_two_sets_are_skipped_and_no_pass(open_case):
    assert levels(kkt("verify", *open_case, "--format", "sarif").out)[0] == ("verdict", "note")
    found = kkt("verify", *open_case, "--format", "junit", "--fail-on", "globally")
    assert cases(found.out)["verdict"] == "skipped"
    assert "passed" not in cases(found.out).values()
    stopped = kkt("verify", *open_case, "--format", "junit", "--fail-on", "nonidentifiable")
    assert (stopped.code, cases(stopped.out)["verdict"]) == (3, "failure")


def test_what_is_not_covered_fails_where_the_gate_names_it(random_case, tmp_path):
    words = ("--format", "junit", "--fail-on")
    open_gate = kkt("verify", *random_case, *words, "globally")
    assert (open_gate.code, cases(open_gate.out)["coverage"]) == (0, "skipped")
    closed = kkt("verify", *random_case, *words, "not-covered")
    assert (closed.code, cases(closed.out)["coverage"]) == (3, "failure")
    other = tmp_path / "m.npz"
    np.savez(other, **{"hidden.weight": np.eye(2), "output.weight": np.ones(2)},
             activation="tanh", degree=3)  # fmt: skip
    refusal = kkt("verify", other, *words, "not-covered")
    assert refusal.code == 3
    assert cases(refusal.out) == {"coverage": "failure"}
    # Without the word it is unusable input: one line, and no document.
    refused(tmp_path, "verify", other, *words, "globally")


@pytest.mark.parametrize(("noise", "outcome"), [(0.0, "failure"), (5.0, "passed")])
def test_an_audit_has_a_test_for_each_sample_of_the_owner(tmp_path, noise, outcome):
    model, gradient, samples = gradient_pair(tmp_path)
    other = samples + noise * np.random.default_rng(0).normal(size=samples.shape)
    np.savez(tmp_path / "data.npz", samples=other)
    arguments = ("audit", model, tmp_path / "data.npz", "--source", "gradient", "--gradient",
                 gradient)  # fmt: skip
    found = kkt(*arguments, "--format", "junit", "--fail-on", "exposed")
    assert found.code == (3 if outcome == "failure" else 0)
    assert cases(found.out) == {f"sample {k}": outcome for k in range(4)}
    level = "error" if outcome == "failure" else "none"
    rows = levels(kkt(*arguments, "--format", "sarif").out)
    assert rows == [("exposed-sample", level)] * 4


def test_an_audit_that_decides_nothing_passes_no_sample(random_case, tmp_path):
    np.savez(tmp_path / "data.npz", samples=np.random.default_rng(0).normal(size=(3, 6)))
    found = kkt("audit", *random_case, tmp_path / "data.npz", "--format", "junit")
    assert cases(found.out) == {f"sample {k}": "skipped" for k in range(3)}


def test_a_check_has_a_test_for_each_claim(pair, tmp_path):
    (model, *options), _ = pair
    assert kkt("verify", model, *options, "--out", tmp_path / "out").code == 0
    report = tmp_path / "out" / "report.json"
    sound = kkt("check", report, model, *options, "--format", "junit")
    assert sound.code == 0
    assert cases(sound.out)["verdict"] == "passed"
    assert "failure" not in cases(sound.out).values()
    content = json.loads(report.read_text())
    report.write_text(json.dumps(content | {"sample_count": 3}))
    false = kkt("check", report, model, *options, "--format", "junit")
    assert false.code == 3
    assert "failure" in cases(false.out).values()
    rows = levels(kkt("check", report, model, *options, "--format", "sarif").out)
    assert ("claim", "error") in rows


def test_a_claim_that_was_asked_for_and_not_confirmed_fails(random_case, tmp_path):
    assert kkt("verify", *random_case, "--out", tmp_path / "out").code == 0
    given = ("check", tmp_path / "out" / "report.json", *random_case, "--format", "junit")
    assert cases(kkt(*given).out)["verdict"] == "skipped"
    strict = kkt(*given, "--require", "confirmed")
    assert (strict.code, cases(strict.out)["verdict"]) == (4, "failure")


def test_commands_without_a_gate_refuse_both(random_case, tmp_path):
    for form in ("sarif", "junit"):
        refused(tmp_path, "inspect", *random_case, "--format", form, words="text, json")


@pytest.mark.parametrize("name", ["a\x00b\x1b[1m\ud800.npz", "<&\">'", "Grüße und 样本"])
def test_hostile_names_make_no_broken_document(name):
    items = tuple(Finding("claim", name, severity, name) for severity in Severity)
    found = Findings("check", name, items)
    assert len(ET.fromstring(to_junit(found)).findall("testsuite/testcase")) == len(items)
    assert len(results(to_sarif(found))) == len(items)


def test_a_forge_knows_a_result_again():
    def marks(message):
        item = Finding("claim", "verdict", Severity.ERROR, message)
        return [r["partialFingerprints"] for r in results(to_sarif(Findings("c", "m", (item,))))]

    assert marks("one") == marks("another")
