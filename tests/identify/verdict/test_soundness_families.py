"""The study over new families: a small run of it, and that each of its counters can count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from identify import IdentifiabilityReport, TrainingSet, Verdict, assess_identifiability
from identify.errors import InvalidInputError
from identify.hermite.stationarity import stationarity
from tests.benchmarks import soundness_families as study
from tests.identify.new_due import is_determined
from tests.identify.new_judge import FAULTS, faults, merged_truth, set_residual
from tests.identify.new_problems import (
    EXACT,
    FORMATS,
    Draft,
    Problem,
    Storage,
    fit_range,
    gradient_data,
    gradient_of,
    rounded,
)
from tests.identify.new_trained import FAMILIES, draw


def kinds(found: list[str]) -> set[str]:
    return {text.split(": ")[0] for text in found}


def plain(seed: int = 0, **changes: Any) -> tuple[Problem, IdentifiabilityReport]:
    """Three samples in five dimensions, determined with ease."""
    rng = np.random.default_rng([seed, 77])
    draft = Draft(
        3, rng.normal(size=(20, 5)), rng.normal(size=20), rng.normal(size=(3, 5)),
        np.array([1.0, -0.8, 1.2]),
    )  # fmt: skip
    draft = replace(draft, **changes)
    data = gradient_data(draft, EXACT, rng)
    problem = Problem("plain", data, draft.samples, draft.coefficients)
    return problem, assess_identifiability(data)


# A small run -------------------------------------------------------------------------------------


def test_a_small_run_has_a_row_for_each_problem_and_goes_on(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--out", str(tmp_path), "--processes", "0", "--first", "3"]
    study.main([*arguments, "--count", "12"])
    study.main([*arguments, "--count", "20"])
    text = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == list(range(3, 23))
    last = text[text.rindex("| family |") :].splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in last if line[0] == "|"
    ]
    head, total = cells[0], cells[-1]
    assert total[0] == "all"
    assert int(total[1]) == 20 == sum(int(line[1]) for line in cells[2:-1])
    verdicts = [row["verdict"] for row in rows if row["verdict"] not in FAULTS]
    assert [verdicts.count(word) for word in head[2:5]] == [int(cell) for cell in total[2:5]]
    for kind in FAULTS:
        seen = sum(kind in kinds(row["faults"]) for row in rows)
        assert int(total[head.index(kind)]) == seen
    for row in rows:
        assert (tmp_path / "failures" / f"{row['seed']:06d}.npz").exists() == bool(
            kinds(row["faults"]) - {"refused", "exception"}
        )
    monkeypatch.setattr(study, "measure", None)
    study.main([*arguments, "--count", "20"])
    assert capsys.readouterr().out == text[text.rindex("| family |") :]


def test_the_same_seed_draws_the_same_problem() -> None:
    for seed in range(len(FAMILIES)):
        first, second = draw(seed), draw(seed)
        assert first.data.inputs == second.data.inputs
        assert first.options == second.options


# Each counter can count --------------------------------------------------------------------------


def test_a_true_report_has_no_fault() -> None:
    problem, report = plain()
    assert report.verdict is Verdict.GLOBALLY
    assert report.certificate is not None
    assert report.certificate["enclosure"] is not None
    assert any(row.name == "first-order bounds" for row in report.conditions)
    assert faults(problem, report, 0.0) == []
    assert is_determined(problem)


def test_a_recovery_beyond_its_bound_is_counted() -> None:
    problem, report = plain()
    assert report.recovery is not None
    shift = np.zeros_like(report.recovery.samples)
    shift[1, 2] = 3.0 * report.recovery.error_bounds[1] + 1e-13
    moved = replace(report.recovery, samples=report.recovery.samples + shift)
    false = replace(report, recovery=moved)
    assert kinds(faults(problem, false, 0.0)) == {"wrong", "bound"}
    silent = replace(false, verdict=Verdict.UNDECIDED, scope=None)
    assert kinds(faults(problem, silent, 0.0)) == {"bound, no globally"}
    wide = replace(moved, error_bounds=moved.error_bounds + 1e-9)
    assert faults(problem, replace(report, recovery=wide), 0.0) == []


def test_symmetries_are_no_faults() -> None:
    problem, report = plain()
    order = np.array([2, 0, 1])
    same = replace(
        problem, samples=-2.0 * problem.samples[order],
        coefficients=-np.asarray(problem.coefficients)[order] / 8.0,
    )  # fmt: skip
    split = replace(
        problem, samples=np.vstack([problem.samples, 2.0 * problem.samples[:1]]),
        coefficients=np.append(np.array([0.2, -0.8, 1.2]), 0.1),
    )  # fmt: skip
    for other in (same, split):
        assert len(merged_truth(other)[0]) == 3
        assert faults(other, report, 0.0) == []


def test_a_box_beside_the_truth_is_counted() -> None:
    problem, report = plain()
    box = report.certificate["enclosure"]
    radii = np.array(box["radii"])
    centres = np.array(box["centres"])
    centres[0, 1] += 3.0 * radii[0, 1]
    moved = {**report.certificate, "enclosure": {**box, "centres": centres.tolist()}}
    assert kinds(faults(problem, replace(report, certificate=moved), 0.0)) == {"box"}
    rows = tuple(
        replace(row, found=1e-30) if row.name == "first-order bounds" else row
        for row in report.conditions
    )
    values = np.array(report.certificate["terms"]["values"])
    values[0] *= 1.0 + 1e-6
    terms = {**report.certificate["terms"], "values": values.tolist()}
    moved = {**report.certificate, "terms": terms}
    false = replace(report, conditions=rows, certificate=moved)
    assert kinds(faults(problem, false, 0.0)) == {"movement"}


def test_false_pairs_are_counted() -> None:
    problem, report = plain()
    assert problem.coefficients is not None
    residual = set_residual(problem.data, problem.samples, problem.coefficients)
    true = TrainingSet(problem.samples, problem.coefficients, residual)
    other = TrainingSet(problem.samples + 0.5, problem.coefficients, residual)
    shown = replace(report, verdict=Verdict.NONIDENTIFIABLE, scope=None)
    for sets, word in (((true, true), "equal"), ((true, other), "residual"), ((true,), "1 sets")):
        found = faults(problem, replace(shown, alternatives=sets), 0.0)
        assert kinds(found) == {"false pair"}
        assert word in found[0]


def test_the_residual_of_a_set_is_that_of_the_network() -> None:
    for seed in (17, 18, 20, 0):
        problem = draw(seed)
        rng = np.random.default_rng(seed)
        b = rng.normal(size=len(problem.samples))
        ours = set_residual(problem.data, problem.samples, b)
        assert ours == pytest.approx(stationarity(problem.data, problem.samples, b), rel=1e-9)


def test_a_hidden_sample_of_weight_is_counted() -> None:
    problem, report = plain()
    more = replace(
        problem, samples=np.vstack([problem.samples, np.ones(5)]),
        coefficients=np.append(np.asarray(problem.coefficients), 1.0),
    )  # fmt: skip
    assert kinds(faults(more, report, 0.0)) == {"useless"}
    weak = replace(more, coefficients=np.append(np.asarray(problem.coefficients), 1e-6))
    assert faults(weak, report, 0.0) == []


def test_a_false_reason_is_counted() -> None:
    problem, report = plain()
    for words, number, kind in (
        ("the true number of samples exceeds 3", Verdict.UNDECIDED, {"false reason"}),
        ("the true number of samples exceeds 2", Verdict.UNDECIDED, set()),
        ("the true number of samples exceeds 3, or the scale differs", Verdict.UNDECIDED, set()),
    ):
        said = replace(report, verdict=number, scope=None, reason=words)
        assert kinds(faults(problem, said, 0.0)) == kind


def test_a_late_report_is_counted() -> None:
    problem, report = plain()
    limited = replace(problem, options={"time_limit": 0.5})
    assert faults(limited, report, 1.0) == []
    assert kinds(faults(limited, report, 3.0)) == {"late"}


def test_exceptions_and_refusals_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def failing(seed: int, family: str | None = None) -> Problem:
        if seed == 1:
            raise InvalidInputError("gradient", "a gradient", "none")
        if seed == 2:
            raise ZeroDivisionError("planted")
        return plain()[0]

    monkeypatch.setattr(study, "draw", failing)
    study.main(["--out", str(tmp_path), "--count", "3", "--processes", "0"])
    lines = capsys.readouterr().out.splitlines()
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    total = next(line for line in lines if line.startswith("| all |"))
    cells = dict(zip(head, (cell.strip() for cell in total.strip("|").split("|")), strict=True))
    assert (cells["problems"], cells["globally"]) == ("3", "1")
    assert (cells["refused"], cells["exception"]) == ("1", "1")
    assert cells["called so"] == "100 %"
    assert any("ZeroDivisionError: planted" in line for line in lines)


def test_what_is_not_due_is_not_called_determined() -> None:
    problem, _ = plain()
    for options in ({"samples": 4}, {"noise": 0.2}, {"non_negative": True}, {"time_limit": 9.0}):
        assert not is_determined(replace(problem, options=options))
    rng = np.random.default_rng(1)
    few, _ = plain(hidden=rng.normal(size=(3, 5)), output=np.ones(3))
    assert not is_determined(few)
    close = problem.samples.copy()
    close[1] = close[0] + 1e-9 * close[1]
    assert not is_determined(plain(samples=close)[0])


# The builders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [5, 14, 17, 18, 19, 20, 21])
def test_a_saved_problem_is_the_same(seed: int, tmp_path: Path) -> None:
    problem = draw(seed)
    row, report = study.judged(problem, 10.0)
    study.save(tmp_path / "case.npz", problem, row)
    again = study.load(tmp_path / "case.npz")
    assert again.data.inputs == problem.data.inputs
    assert again.data.source == problem.data.source
    assert np.array_equal(again.data.rows, problem.data.rows)
    assert np.array_equal(again.data.points, problem.data.points)
    assert (again.data.rounding, again.options) == (problem.data.rounding, problem.options)
    assert study.judged(again, 10.0)[1].verdict is report.verdict
    assert problem.family in (tmp_path / "case.txt").read_text()


def test_formats_round_to_the_nearest_number() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.choice([-1.0, 1.0], 1000) * 10.0 ** rng.uniform(-3, 3, 1000)
    for name, unit in FORMATS.items():
        near = rounded(numbers, name)
        assert np.all(np.abs(near - numbers) <= unit * np.abs(numbers))
        assert np.array_equal(rounded(near, name), near)
        if name != "float64":
            assert np.abs(near / numbers - 1.0).max() > 0.3 * unit


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_low_arithmetic_errs_by_its_format_and_not_by_more(name: str) -> None:
    rng = np.random.default_rng(3)
    draft = Draft(
        3, rng.normal(size=(12, 4)), rng.normal(size=12), rng.normal(size=(2, 4)), np.ones(2),
        rng.normal(size=12),
    )  # fmt: skip
    draft = fit_range(draft, Storage(name, name, name))
    data = gradient_data(draft, Storage(name, name, name), rng)
    exact = data.network.gradient(draft.samples, draft.coefficients)
    low = gradient_of(draft, name)
    error = np.linalg.norm(data.rows - exact.points) / np.linalg.norm(exact.points)
    assert 0.1 * FORMATS[name] < error < 10.0 * FORMATS[name]
    assert np.array_equal(rounded(low.points, name), low.points)
