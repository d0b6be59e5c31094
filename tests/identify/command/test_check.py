"""`kktcert check` on reports that `kktcert verify` wrote, and mutations of every marked field."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from identify.checker.check import check_report
from identify.report.report import digest
from tests.command_line import gradient_pair, kkt, stored


@pytest.fixture
def proved(pair, tmp_path):
    """Arguments of `check` for a proved report of the batch of 4, and the report."""
    out = tmp_path / "out"
    assert kkt("verify", *pair[0], "--out", out).code == 0
    return (out / "report.json", *pair[0]), json.loads((out / "report.json").read_text())


def outcomes(arguments):
    """Exit code, overall outcome and the outcome of each claim."""
    found = kkt("check", *arguments, "--format", "json")
    content = json.loads(found.out)
    return found.code, content["outcome"], {c["name"]: c["outcome"] for c in content["claims"]}


class TestCommand:
    def test_a_proved_report_is_confirmed(self, proved):
        assert proved[1]["evidence"] == "proved_interval"
        code, outcome, claims = outcomes(proved[0])
        assert (code, outcome) == (0, "confirmed")
        assert set(claims.values()) == {"confirmed"}

    def test_text(self, proved):
        found = kkt("check", *proved[0])
        assert (found.code, found.err) == (0, "")
        assert found.out.rstrip().endswith("outcome: confirmed")

    def test_numerical_evidence_is_not_confirmed(self, pair, tmp_path):
        out = tmp_path / "n"
        kkt("verify", *pair[0], "--evidence", "numerical", "--out", out)
        code, outcome, claims = outcomes((out / "report.json", *pair[0]))
        assert (code, outcome) == (0, "not checkable")
        assert claims["verdict"] == "not checkable"

    def test_two_sets_are_confirmed(self, open_case, tmp_path):
        out = tmp_path / "n"
        kkt("verify", *open_case, "--out", out)
        code, outcome, claims = outcomes((out / "report.json", *open_case))
        assert (code, outcome, claims["sets"]) == (0, "confirmed", "confirmed")

    def test_undecided_claims_nothing(self, random_case, tmp_path):
        out = tmp_path / "n"
        kkt("verify", *random_case, "--out", out)
        code, outcome, _ = outcomes((out / "report.json", *random_case))
        assert (code, outcome) == (0, "not checkable")

    def test_a_confirmed_verdict_may_be_required(self, proved, open_case, tmp_path):
        assert kkt("check", *proved[0], "--require", "confirmed").code == 0
        out = tmp_path / "n"
        kkt("verify", *open_case, "--out", out)
        assert kkt("check", out / "report.json", *open_case, "--require", "confirmed").code == 0

    @pytest.mark.parametrize("kind", ["undecided", "numerical", "no certificate", "late"])
    def test_what_is_not_confirmed_ends_with_4_where_that_is_required(
        self, kind, proved, pair, random_case, tmp_path
    ):
        arguments, more = proved[0], ()
        if kind == "undecided":
            kkt("verify", *random_case, "--out", tmp_path / "n")
            arguments = (tmp_path / "n" / "report.json", *random_case)
        elif kind == "numerical":
            kkt("verify", *pair[0], "--evidence", "numerical", "--out", tmp_path / "n")
            arguments = (tmp_path / "n" / "report.json", *pair[0])
        elif kind == "no certificate":
            (tmp_path / "bare.json").write_text(json.dumps(proved[1] | {"certificate": None}))
            arguments = (tmp_path / "bare.json", *pair[0])
        else:
            more = ("--time-limit", "1e-9")
        assert kkt("check", *arguments, *more).code == 0
        found = kkt("check", *arguments, *more, "--require", "confirmed")
        assert (found.code, found.err) == (4, "")
        assert found.out.rstrip().endswith("outcome: not checkable")

    def test_what_is_refuted_ends_with_3_whatever_is_required(self, proved, tmp_path):
        (tmp_path / "f.json").write_text(json.dumps(proved[1] | {"seed": 7}))
        found = kkt("check", tmp_path / "f.json", *proved[0][1:], "--require", "confirmed")
        assert found.code == 3
        assert kkt("check", *proved[0], "--require", "faith").code == 2

    def test_what_nobody_vouches_for_is_named(self, proved):
        found = kkt("check", *proved[0], "--format", "json")
        assert {"reason", "caveats", "seconds"} <= set(json.loads(found.out)["not_checked"])
        assert "\nnot checked: reason, " in kkt("check", *proved[0]).out

    def test_another_network_is_refuted(self, proved, tmp_path):
        (tmp_path / "other").mkdir()
        model, gradient, _ = gradient_pair(tmp_path / "other", seed=1)
        arguments = (proved[0][0], model, "--source", "gradient", "--gradient", gradient)
        code, outcome, claims = outcomes(arguments)
        assert (code, outcome, claims["inputs"]) == (3, "refuted", "refuted")

    def test_a_false_verdict_is_refuted(self, open_case, tmp_path):
        out = tmp_path / "n"
        kkt("verify", *open_case, "--out", out)
        report = json.loads((out / "report.json").read_text())
        report |= {"verdict": "globally", "scope": {"kind": "at_most", "samples": 2}}
        report["certificate"]["digest"] = digest(report)
        (out / "report.json").write_text(json.dumps(report))
        code, outcome, claims = outcomes((out / "report.json", *open_case))
        assert (code, outcome) == (3, "refuted")
        assert claims["verdict"] != "confirmed"

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"verdict": 1}', "null", "\x00"])
    def test_what_is_no_report_is_refused_in_one_line(self, pair, tmp_path, text):
        path = tmp_path / "r.json"
        path.write_text(text)
        found = kkt("check", path, *pair[0])
        assert (found.code, found.out, len(found.lines)) == (2, "", 1)

    def test_the_source_of_the_report_is_needed(self, proved):
        found = kkt("check", *proved[0][:2])
        assert (found.code, found.out, len(found.lines)) == (2, "", 1)
        assert "gradient" in found.err

    def test_a_bias_and_merged_neurons(self, tmp_path):
        from identify import TwoLayerNetwork

        rng = np.random.default_rng(4)
        weights = rng.standard_normal((14, 4))
        weights[9] = 2.0 * weights[3]
        bias = rng.standard_normal(14)
        bias[9] = 2.0 * bias[3]
        net = TwoLayerNetwork(weights, rng.standard_normal(14), 3, hidden_bias=bias)
        gradient = net.gradient(rng.standard_normal((3, 4)), [1.0, -0.7, 1.3])
        model = stored(net, tmp_path / "m.npz")
        source = ("--source", "gradient", "--gradient", stored(gradient, tmp_path / "g.npz"))
        assert kkt("verify", model, *source, "--out", tmp_path / "o").code == 0
        code, outcome, _ = outcomes((tmp_path / "o" / "report.json", model, *source))
        assert (code, outcome) == (0, "confirmed")

    @pytest.mark.parametrize("degree", [3, 4, 5])
    def test_neurons_orthogonal_to_samples(self, tmp_path, degree):
        from identify import TwoLayerNetwork

        extra = np.random.default_rng(degree).standard_normal((12, 3))
        net = TwoLayerNetwork(np.vstack([np.eye(3), extra]), np.ones(15), degree)
        gradient = net.gradient(np.eye(3), [1.0, 2.0, 0.5])
        model = stored(net, tmp_path / "m.npz")
        source = ("--source", "gradient", "--gradient", stored(gradient, tmp_path / "g.npz"))
        kkt("verify", model, *source, "--out", tmp_path / "o")
        code, outcome, claims = outcomes((tmp_path / "o" / "report.json", model, *source))
        assert (code, outcome) == (0, "confirmed"), claims

    @pytest.mark.parametrize("scale", ["unit", "margin", "auto"])
    def test_scales(self, tmp_path, scale):
        (tmp_path / "f").mkdir()
        model, gradient, _ = gradient_pair(tmp_path / "f", seed=2)
        source = ("--source", "gradient", "--gradient", gradient)
        out = tmp_path / "o"
        kkt("verify", model, *source, "--scale", scale, "--out", out)
        code, outcome, claims = outcomes((out / "report.json", model, *source))
        assert (code, outcome) == (0, "confirmed"), claims

    def test_it_runs_as_a_module_of_its_own(self, proved):
        report, model, _, _, _, gradient = proved[0]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "identify.checker",
                str(report),
                str(model),
                "--gradient",
                str(gradient),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "outcome: confirmed" in done.stdout


def fields(schema, value, path=()):
    """(path, kind) of every value in a report that the schema marks."""
    schema = (
        schema.get("oneOf", [schema])[-1]
        if "oneOf" in schema and "x-kind" not in schema
        else schema
    )
    if "x-kind" in schema:
        yield path, schema["x-kind"]
    elif isinstance(value, dict):
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name)
            if known is not None:
                yield from fields(known, inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:40]):
            yield from fields(schema.get("items", {}), inner, (*path, index))


def mutants(value, depth=0):
    """Other values of the same kind: every number inside changed visibly, or a new length."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield value * 3.0 + 1e-3
    elif isinstance(value, str):
        yield value[:-1] + ("0" if value[-1:] != "0" else "1")
    elif value is None:
        yield 1
    elif isinstance(value, dict):
        for name, inner in value.items():
            for other in mutants(inner, depth + 1):
                yield value | {name: other}
    elif isinstance(value, list):
        yield value[:-1] if value else [1]
        for index in range(0, len(value), max(1, len(value) // 3)):
            for other in list(mutants(value[index], depth + 1))[:1]:
                yield [*value[:index], other, *value[index + 1 :]]


def replaced(report, path, value):
    changed = copy.deepcopy(report)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


class TestMutations:
    """Not one changed claim, evidence or input is still confirmed."""

    @pytest.mark.medium
    def test_every_marked_field(self, proved):
        from identify.checker.outcome import CheckInputError

        (_, model, *rest), report = proved
        gradient = rest[-1]
        schema = json.loads((resources.files("identify") / "report.schema.json").read_text())
        marked = [p for p, kind in fields(schema, report) if kind in ("claim", "evidence")]
        assert len(marked) > 60
        tried, wrong = 0, []
        for spot in marked:
            value = report
            for step in spot:
                value = value[step]
            for other in mutants(value):
                if other == value:
                    continue
                tried += 1
                changed = replaced(report, spot, other)
                for honest in (False, True):
                    if honest:
                        if spot == ("certificate", "digest"):
                            continue
                        changed["certificate"]["digest"] = digest(changed)
                    try:
                        result = check_report(changed, model, gradient=gradient)
                    except CheckInputError:
                        continue
                    # A second opinion is not repeated, and the result says so.
                    second = spot[0] == "conditions" and (
                        report["conditions"][spot[1]]["name"] == "second method"
                    )
                    if second and f"conditions.second method.{spot[-1]}" in result.not_checked:
                        continue
                    true = honest and also_true(report, spot, value, other)
                    if result.outcome == "confirmed" and not true:
                        wrong.append((spot, value, other, honest))
        assert not wrong, "\n".join(map(str, wrong))
        assert tried > 120

    def test_input_files(self, proved, tmp_path):
        (_, model, *rest), report = proved
        gradient = rest[-1]
        from safetensors.numpy import load_file, save_file

        arrays = load_file(model)
        for name, array in arrays.items():
            changed = array.copy()
            changed.flat[0] *= 1.0 + 1e-12
            other = tmp_path / "changed.safetensors"
            save_file(arrays | {name: changed}, other, metadata={"degree": "3"})
            assert check_report(report, other, gradient=gradient).outcome == "refuted"
        stored_gradient = dict(np.load(gradient))
        for name, array in stored_gradient.items():
            if array.dtype.kind != "f" or array.size < 2:
                continue
            changed = array.copy()
            changed.flat[0] *= 1.0 + 1e-12
            other = tmp_path / "changed.npz"
            np.savez(other, **(stored_gradient | {name: changed}))
            assert check_report(report, model, gradient=other).outcome == "refuted"


def also_true(report, spot, value, other):
    """Changes to a statement that is true as well, once the digest is made anew.

    More points have full rank too, and a gap that ends at the rounding level is only known to be
    there.
    """
    return (spot == ("certificate", "rank", "neurons") and other > value) or (
        (spot[0], spot[-1]) == ("conditions", "found")
        and report["conditions"][spot[1]]["name"] == "span"
        and min(value, other) > 1e12
    )
