"""The checker against a small producer of its own, mutated reports, and damaged files."""

from __future__ import annotations

import ast
import copy
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import identify.checker.check
from identify.checker.arithmetic.ranks import (
    hermite,
    modular_rank,
    positive_definite,
    smallest_above,
)
from identify.checker.check import check_report, main
from identify.checker.linear import linear_residual
from identify.checker.reading.files import read_network
from tests.identify.checker.changes import changes, leaves, put
from tests.identify.checker.problems import Problem, claim, hermite_rows, outcome, sign

FOLDER = Path(identify.checker.check.__file__).parent
PARTS = sorted(FOLDER.rglob("*.py"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A problem of three samples at degree 3, its report and its files."""
    problem = Problem(3, 3)
    return problem, problem.certify(), problem.save(tmp_path_factory.mktemp("planted"))


@pytest.mark.parametrize("degree", [3, 4, 5])
@pytest.mark.parametrize("r", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_true_reports_are_confirmed(degree, r, seed, tmp_path):
    problem = Problem(degree, r, seed)
    model, gradient = problem.save(tmp_path)
    result = check_report(problem.certify(), model, gradient=gradient)
    assert result.outcome == "confirmed", str(result)
    assert all(claim.holds for claim in result.claims), str(result)
    assert result["rank"].how == "exact"
    assert result["enclosure"].how == "ball arithmetic"


def test_the_result_as_text_and_as_data(planted):
    _, report, files = planted
    result = check_report(report, files[0], gradient=files[1])
    assert json.loads(json.dumps(result.to_dict()))["outcome"] == "confirmed"
    lines = str(result).splitlines()
    assert len(lines) == len(result.claims) + 2
    assert lines[-2].startswith("not checked: reason, symmetries")
    assert lines[-1] == "outcome: confirmed"
    with pytest.raises(KeyError):
        result["margins"]


def test_progress_and_time_limit(planted):
    _, report, files = planted
    told = []
    check_report(report, files[0], gradient=files[1], progress=lambda *step: told.append(step))
    assert [share for _, share in told] == sorted(share for _, share in told)
    result = check_report(report, files[0], gradient=files[1], time_limit=1e-9)
    assert result.outcome == "not checkable"
    assert "time limit" in result["enclosure"].detail


@pytest.mark.medium
def test_no_changed_field_is_confirmed(planted):
    _, report, files = planted
    survivors, tried = [], 0
    for path, value in leaves(report):
        for new in changes(path, value):
            if type(new) is type(value) and new == value:
                continue
            tried += 1
            forged = put(report, path, new)
            if tried % 5 == 0:
                assert outcome(forged, files) in ("refuted", "input"), path
            if outcome(sign(forged), files) == "confirmed":
                survivors.append((path, value, new))
    assert survivors == []
    assert tried > 400


def test_changed_notes_keep_the_claims_but_not_the_digest(planted):
    _, report, files = planted
    for path, new in ((("reason",), "other"), (("seed",), 5), (("caveats",), ["x"])):
        forged = put(report, path, new)
        assert outcome(forged, files) == "refuted"
        assert outcome(sign(forged), files) == "confirmed"
    assert outcome(put(report, ("seconds",), 99.0), files) == "confirmed"


def test_missing_fields_are_refused(planted):
    _, report, files = planted
    for key in report:
        if key in ("reason", "symmetries", "caveats", "seed", "versions", "seconds", "strengthen",
                   "condition_number", "condition_method"):  # fmt: skip
            continue
        shorter = {k: v for k, v in report.items() if k != key}
        assert outcome(shorter, files) in ("refuted", "input"), key
    for key in report["certificate"]:
        shorter = copy.deepcopy(report)
        del shorter["certificate"][key]
        assert outcome(shorter, files) == "input", key


def test_without_proofs_the_verdict_is_not_checkable(planted):
    _, report, files = planted
    bare = put(report, ("certificate",), None)
    result = check_report(bare, files[0], gradient=files[1])
    assert result.outcome == "not checkable"
    assert result["inputs"].holds
    # An honest report without one of the proofs: what rested on it is numerical.
    for parts, lowered, gone, word in (
        (("enclosure",), ("decomposition",), ("enclosure",), "enclosure"),
        (("rank", "singular_value"), ("I-hermite", "redundancy"), ("stable rank",), "rank"),
    ):
        honest = copy.deepcopy(report)
        honest["evidence"] = "numerical"
        for part in parts:
            honest["certificate"][part] = None
        for row in honest["conditions"]:
            if row["name"] in lowered:
                row["evidence"] = "numerical"
        honest["conditions"] = [r for r in honest["conditions"] if r["name"] not in gone]
        result = check_report(sign(honest), files[0], gradient=files[1])
        assert result.outcome == result["verdict"].outcome == "not checkable", str(result)
        assert word in result["verdict"].detail
        # And a dishonest one, which still states a proof.
        honest["evidence"] = report["evidence"]
        assert check_report(sign(honest), files[0], gradient=files[1]).outcome == "refuted"


def test_an_interval_proof_of_the_rank_is_enough(planted):
    _, report, files = planted
    other = put(report, ("certificate", "rank"), None)
    other["evidence"] = "proved_interval"
    for row in other["conditions"]:
        row["evidence"] = row["evidence"].replace("exact", "interval")
    result = check_report(sign(other), files[0], gradient=files[1])
    assert result.outcome == "confirmed", str(result)
    assert result["rank"].outcome == "not checkable"


def test_undecided_claims_nothing(planted):
    _, report, files = planted
    other = report | {"verdict": "undecided", "scope": None, "sample_count": None}
    result = check_report(sign(copy.deepcopy(other)), files[0], gradient=files[1])
    assert result.outcome == "not checkable"
    assert result["verdict"].detail == "undecided claims nothing"
    other["scope"] = {"kind": "at_most", "samples": 3}
    assert outcome(sign(copy.deepcopy(other)), files) == "refuted"


# Proofs, one by one.


def test_a_composite_modulus_is_refuted(planted):
    _, report, files = planted
    forged = put(report, ("certificate", "rank", "prime"), (2**31 - 1) * 3)
    assert claim(forged, files, "rank").outcome == "refuted"
    small = put(report, ("certificate", "rank", "prime"), 2)
    assert claim(small, files, "rank").outcome == "not checkable"
    assert claim(put(report, ("certificate", "rank", "prime"), 2**61 - 1), files, "rank").holds


def test_a_larger_singular_value_is_refuted(planted):
    _, report, files = planted
    path = ("certificate", "singular_value", "bound")
    bound = report["certificate"]["singular_value"]["bound"] / 0.9
    for factor, expected in ((1.0001, "refuted"), (0.9999, "confirmed"), (1e-3, "refuted")):
        # Far smaller ones no longer carry the radius.
        assert claim(put(report, path, factor * bound), files, "singular value").outcome == expected


def test_a_box_is_refuted_where_some_data_leave_it(planted):
    _, report, files = planted
    box = report["certificate"]["enclosure"]
    for factor, expected in ((0.1, {"refuted"}), (0.9, {"confirmed", "not checkable"})):
        forged = copy.deepcopy(report)
        radii = np.array(box["radii"]) * factor
        part = forged["certificate"]["enclosure"]
        part["radii"] = radii.tolist()
        lengths = np.linalg.norm(radii, axis=1)
        rest = np.linalg.norm(np.array(box["centres"]), axis=1) - lengths
        part["relative"] = (lengths / rest).tolist()
        assert claim(forged, files, "enclosure").outcome in expected
    forged = put(report, ("certificate", "enclosure", "radius"), 9.0 * box["radius"])
    assert claim(forged, files, "enclosure").outcome == "refuted"
    forged = copy.deepcopy(report)
    centres = np.array(box["centres"])
    centres[0, 0] += 5.0 * box["radii"][0][0]
    forged["certificate"]["enclosure"]["centres"] = centres.tolist()
    assert claim(forged, files, "enclosure").outcome == "refuted"


def test_hermite_matrix_and_its_rank():
    rng = np.random.default_rng(0)
    for degree, r in ((3, 2), (3, 4), (4, 3), (5, 2)):
        points = rng.normal(size=(6, r))
        assert np.allclose(hermite(points, degree), hermite_rows(points, degree))
    # Alexander & Hirschowitz 1995: seven points of five variables miss one cubic.
    points = rng.integers(-(2**40), 2**40, size=(7, 5))
    assert modular_rank(points, 3, 2**61 - 1) == 34
    assert modular_rank(rng.integers(-9, 9, size=(8, 5)), 3, 2**31 - 1) == 35
    assert modular_rank(np.array([[1, 0], [2, 0], [3, 0]]), 3, 2**31 - 1) == 2


def test_singular_values_are_never_overstated():
    rng = np.random.default_rng(1)
    proved = 0
    for trial in range(120):
        degree, r = [(3, 2), (3, 3), (4, 2), (5, 2)][trial % 4]
        points = rng.normal(size=(math.comb(r + degree - 1, degree) // r + 2, r))
        if trial % 3 == 0:  # nearly singular: points that nearly coincide
            points[1:] = points[0] + 10.0 ** rng.uniform(-4, -1) * points[1:]
        points /= np.linalg.norm(points, axis=1)[:, None]
        true = np.linalg.svd(hermite(points, degree), compute_uv=False)[-1]
        if true < 1e-9:
            continue
        margin = 1e-4 + 1e-14 / true
        assert smallest_above(points, degree, true * (1.0 + margin))[0] is not True
        proved += smallest_above(points, degree, true * (1.0 - margin))[0] is True
    assert proved > 60


def test_positive_definite_in_balls():
    import flint

    def balls(matrix):
        return [[flint.arb(x) for x in row] for row in matrix]

    assert positive_definite(balls([[2.0, 1.0], [1.0, 2.0]]))
    assert not positive_definite(balls([[1.0, 2.0], [2.0, 1.0]]))
    assert not positive_definite([[flint.arb(0, 1)]])


# Independence, script, hostile input.


def test_the_checker_imports_nothing_of_ours():
    allowed = {"numpy", "flint", "safetensors"} | sys.stdlib_module_names
    assert len(PARTS) > 5
    for path in PARTS:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                # Relative imports must not climb out of the folder.
                assert node.level <= len(path.relative_to(FOLDER).parts), path.name
                names = [] if node.level else [node.module or ""]
            if path.name == "torch_files.py":
                names = [name for name in names if name != "torch"]  # for its own format
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name}: {name}"
        assert len(path.read_text().splitlines()) <= 400


def test_as_a_copied_folder_without_the_package(planted, tmp_path):
    _, report, files = planted
    shutil.copytree(FOLDER, tmp_path / "copied")
    (tmp_path / "report.json").write_text(json.dumps(report))
    command = [sys.executable, "-W", "error", "-m", "copied"]
    arguments = [tmp_path / "report.json", files[0], "--gradient", files[1]]
    done = subprocess.run(
        [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("outcome: confirmed\n")


def test_exit_codes(planted, tmp_path, capsys):
    _, report, files = planted
    path = tmp_path / "report.json"
    arguments = [str(path), str(files[0]), "--gradient", str(files[1])]
    path.write_text(json.dumps(report | {"seed": 9}))
    assert main(arguments) == 3
    assert main([*arguments, "--require", "confirmed"]) == 3
    capsys.readouterr()
    path.write_text(json.dumps(report | {"certificate": None}))
    assert main(arguments) == 0
    assert main([*arguments, "--require", "confirmed"]) == 4
    path.write_text(json.dumps(report))
    assert main([*arguments, "--require", "confirmed"]) == 0
    capsys.readouterr()
    path.write_text("{")
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["only-one"])
    assert capsys.readouterr().err.count("\n") == 1


def test_the_linear_residual_is_the_least(planted):
    from identify.checker.case import Case
    from identify.checker.reading.report import read_report
    from identify.checker.source import build_data

    _, report, files = planted
    networks = {"model": read_network(files[0]), "gradient": read_network(files[1])}
    case = Case(read_report(report), build_data("gradient", networks, None))
    assert linear_residual(case) < 1e-13
