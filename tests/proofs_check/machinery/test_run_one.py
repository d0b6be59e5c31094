"""Running statements: status, shrinking, rechecks, necessity, limits, processes."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st

from identify.errors import InvalidInputError, KktCertError
from proofs_check import check, check_sabotages
from proofs_check.machinery import parallel, registry, run_one
from proofs_check.machinery import search as search_module
from proofs_check.machinery.results import (
    HELD,
    PROVED,
    REFUTED,
    STOPPED,
    Result,
    Table,
)
from proofs_check.machinery.run_many import Run
from proofs_check.machinery.run_one import count_examples, run_statement
from proofs_check.machinery.search import SHRINKING, search
from proofs_check.machinery.statement import EXAMPLES, Check, Hypothesis
from tests.proofs_check import toy

QUICK = ("kkt-balance", "dead-neurons", "neuron-symmetries")


def small_pairs():
    return toy.pairs(0, 9)


def without_seconds(table):
    found = table.to_dict()
    for entry in found["statements"]:
        entry.pop("seconds", None)
    return found


# --- one statement ---------------------------------------------------------------------------


def test_true_statement_holds_in_as_many_examples_as_its_class_has():
    result = run_statement(toy.statement())
    assert (result.status, result.examples) == (HELD, EXAMPLES["light"])
    assert result.counterexample is None
    assert result.rechecked is None


@pytest.mark.parametrize(
    ("cost", "factor", "count"),
    [("light", 1, 200), ("medium", 1, 50), ("heavy", 1, 10), ("heavy", 0.01, 1), ("light", 3, 600)],
)
def test_examples_scale_with_the_factor(cost, factor, count):
    assert count_examples(toy.statement(cost=cost), factor) == count
    if count < 100:
        assert run_statement(toy.statement(cost=cost), factor).examples == count


def test_false_statement_is_refuted_by_the_smallest_instance():
    result = run_statement(toy.statement(conclusion=toy.at_most(700)))
    assert result.status == REFUTED
    assert result.counterexample == "Pair(701, 0)"
    assert result.note == "701 is above 700"
    assert result.necessity == ()


def test_algebra_proves():
    entry = toy.statement(algebra=lambda: True, algebra_note="all n")
    result = run_statement(entry)
    assert (result.status, result.note, result.examples) == (PROVED, "all n", 200)


def test_algebra_that_does_not_close_refutes():
    result = run_statement(toy.statement(algebra=lambda: False, algebra_note="n = 1"))
    assert result.status == REFUTED
    assert "n = 1" in result.note


def test_a_counterexample_overrules_algebra():
    entry = toy.statement(conclusion=toy.at_most(5), algebra=lambda: True, algebra_note="n <= 5")
    assert run_statement(entry).status == REFUTED


def test_false_alarms_of_float64_do_not_refute_and_are_counted():
    entry = toy.statement(conclusion=toy.at_most(700), recheck=toy.at_most(10**6))
    result = run_statement(entry)
    assert (result.status, result.counterexample, result.examples) == (HELD, None, 200)
    count = int(result.note.split()[0])
    assert 1 <= count <= 200


def test_confirmed_counterexamples_say_so_and_shrink_to_a_confirmed_one():
    entry = toy.statement(conclusion=toy.at_most(700), recheck=toy.at_most(900))
    result = run_statement(entry)
    assert (result.status, result.counterexample) == (REFUTED, "Pair(901, 0)")
    assert result.rechecked is True


def test_nan_is_no_success():
    entry = toy.statement(conclusion=lambda pair: Check.compare(math.nan, 1.0))
    result = run_statement(entry)
    assert result.status == REFUTED
    json.dumps(result.to_dict(), allow_nan=False)


def test_worst_is_the_largest_ratio():
    entry = toy.statement(conclusion=lambda pair: Check.compare(min(pair.number, 3), 4.0))
    assert run_statement(entry).worst == 0.75


def test_statement_without_instances_is_not_run():
    never = Hypothesis("never", "nothing", lambda pair: False)
    result = run_statement(toy.statement(hypotheses=(never,)))
    assert (result.status, result.examples) == (STOPPED, 0)
    assert "no instance" in result.note


def test_missing_package_leaves_a_statement_not_run():
    def conclusion(pair):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    result = run_statement(toy.statement(conclusion=conclusion))
    assert result.status == STOPPED
    assert "torch" in result.note


def test_other_errors_are_not_hidden():
    def conclusion(pair):
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        run_statement(toy.statement(conclusion=conclusion))


# --- hypotheses ------------------------------------------------------------------------------


def test_needed_hypothesis_has_a_shrunk_counterexample():
    (entry,) = run_statement(toy.statement()).necessity
    assert (entry.hypothesis, entry.outcome, entry.expected) == (
        "non-negative",
        "counterexample",
        True,
    )
    assert entry.instance == "Pair(-1, 0)"


def test_superfluous_hypothesis_is_seen():
    small = Hypothesis("small", "n <= 9", lambda p: p.number <= 9, lambda: toy.pairs(10, 99))
    other = Hypothesis("given", "always", lambda p: True, None, None)
    result = run_statement(toy.statement(hypotheses=(small, other), instances=small_pairs))
    first, second = result.necessity
    assert (first.outcome, first.tries, first.instance) == ("none found", 100, None)
    assert (second.outcome, second.tries) == ("no instance", 0)


def test_counterexamples_to_hypotheses_are_rechecked():
    entry = toy.statement(recheck=lambda pair: Check.of(True))
    (found,) = run_statement(entry).necessity
    assert found.outcome == "none found"


def test_violation_of_another_hypothesis_does_not_count():
    mixed = Hypothesis("even", "n even", lambda p: p.number % 2 == 0, lambda: toy.pairs(-9, -1))
    entry = toy.statement(hypotheses=(*toy.statement().hypotheses, mixed))
    assert run_statement(entry).necessity[1].outcome == "no instance"


# --- repeatability and limits ----------------------------------------------------------------


def test_same_seed_same_result_and_another_seed_another_run():
    entry = toy.statement(conclusion=lambda p: Check.compare((p.number * 7919) % 10_007, 1e5))
    runs = [run_statement(entry, 0.1, seed).to_dict() for seed in (0, 0, 1)]
    worst = [run.pop("worst") for run in runs]
    for run in runs:
        run.pop("seconds")
    assert runs[0] == runs[1]
    assert worst[0] == worst[1]
    assert worst[0] != worst[2]


def test_deadline_ends_a_run_and_says_so(monkeypatch):
    now = [0.0]

    def slow(pair):
        now[0] += 0.01
        return Check.of(True)

    for module in (run_one, search_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    result = run_statement(toy.statement(conclusion=slow), deadline=0.105)
    assert 10 <= result.examples <= 11
    assert (result.status, result.note) == (HELD, "time limit")


def test_shrinking_is_bounded():
    calls = []

    def conclusion(numbers):
        calls.append(numbers)
        return Check.of(sum(numbers) < 10)

    trial = search(st.lists(st.integers(0, 10**9), min_size=20), lambda x: True, conclusion, 50, 0)
    assert trial.broken
    assert len(calls) <= 50 + SHRINKING
    assert sum(trial.failing) >= 10


def test_impatient_search_ends_early_also_when_the_strategy_rejects():
    trial = search(
        st.integers().filter(lambda n: False), lambda n: True, lambda n: Check.of(True), 200, 0,
        patience=20,
    )  # fmt: skip
    assert (trial.tries, trial.drawn) == (0, 20)
    trial = search(st.integers(), lambda n: False, lambda n: Check.of(True), 200, 0, patience=20)
    assert (trial.tries, trial.drawn) == (0, 20)


def test_patience_does_not_cut_a_search_that_has_instances():
    trial = search(
        st.integers(0, 9999), lambda n: n % 3 == 0, lambda n: Check.of(True), 60, 0, patience=5
    )
    assert trial.tries == 60


# --- tables ----------------------------------------------------------------------------------


def test_table_keeps_the_order_of_the_names_and_counts():
    table = check(list(QUICK[::-1]), examples=0.05)
    assert [result.name for result in table.results] == list(QUICK[::-1])
    assert table.refuted == ()
    assert table["dead-neurons"].topic == "kkt"
    with pytest.raises(KeyError):
        table["nothing"]


@pytest.mark.medium
def test_same_seed_same_table_in_one_process_and_in_two():
    one, two = (check(QUICK, 0.1, 3, processes=count) for count in (1, 2))
    assert without_seconds(one) == without_seconds(two)
    assert "NaN" not in one.to_json()
    assert json.loads(one.to_json())["statements"][0]["status"] == PROVED


@pytest.mark.medium
def test_self_test_in_two_processes():
    found = check_sabotages(QUICK, processes=2)
    assert found.missed == ()
    assert found == check_sabotages(QUICK)


def test_infinite_numbers_are_null_in_json():
    table = Table((Result("a", "A", HELD, 1, math.inf, math.nan),), 1.0, 0)
    (entry,) = json.loads(table.to_json())["statements"]
    assert entry["worst"] is entry["seconds"] is None


def test_time_limit_gives_a_partial_table():
    table = check("kkt", time_limit=1e-9)
    assert {result.status for result in table.results} == {STOPPED}
    assert table.stopped == "time limit"
    assert "time limit" in str(table)
    assert json.loads(table.to_json())["stopped"] == "time limit"


def test_interrupted_run_keeps_what_it_reached():
    chosen = registry.select(QUICK)
    run = Run(chosen, examples=0.05)

    def stop(name, share):
        if name == QUICK[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.go(stop)
    table = run.table(interrupted=True)
    assert [result.status for result in table.results] == [PROVED, STOPPED, STOPPED]
    assert table.stopped == "interrupted"
    run.go()
    assert [result.status for result in run.table().results] == [PROVED] * 3


def test_progress_ends_at_one():
    seen = []
    check(QUICK[:2], 0.05, progress=lambda name, share: seen.append((name, share)))
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert seen[0] == (QUICK[0], 0.0)
    assert seen[-1] == (QUICK[1], 1.0)


@pytest.mark.medium
def test_dead_process_is_an_error():
    going = parallel.run_parallel(["no-such-name", "kkt-balance"], 0.05, 0, None, 2)
    with pytest.raises(KktCertError, match="no-such-name"):
        list(going)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"examples": 0.0}, "examples"),
        ({"examples": math.nan}, "examples"),
        ({"seed": -1}, "seed"),
        ({"processes": 0}, "processes"),
        ({"time_limit": 0.0}, "time_limit"),
    ],
)
def test_bad_arguments(options, name):
    with pytest.raises(InvalidInputError, match=f"^{name}: expected"):
        check("kkt-balance", **options)


# --- text ------------------------------------------------------------------------------------


def test_text_shows_what_was_refuted():
    result = run_statement(toy.statement(conclusion=toy.at_most(700)))
    text = str(Table((result,), 1.0, 0))
    assert "REFUTED toy: 701 is above 700\n  Pair(701, 0)" in text
    assert text.endswith("1 statement: 1 refuted; seed 0")


def test_text_names_superfluous_hypotheses():
    small = Hypothesis("small", "n <= 9", lambda p: p.number <= 9, lambda: toy.pairs(10, 99))
    entry = toy.statement(hypotheses=(small,), instances=small_pairs)
    text = str(Table((run_statement(entry),), 1.0, 0))
    assert "toy: small, none in 100 tries" in text


def test_text_stays_within_its_width():
    assert max(map(len, str(check(QUICK, 0.05)).splitlines())) <= 100
