"""Sabotages: found, missed or not tried, and what the list says."""

from __future__ import annotations

import json
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import strategies as st

from proofs_check import strategies
from proofs_check.machinery.run_one import self_test
from proofs_check.machinery.self_tests import Found, SelfTest
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage
from proofs_check.strategies import SampleSet
from tests.proofs_check import toy


def test_sabotages_are_found():
    assert [(entry.kind, entry.found) for entry in self_test(toy.statement())] == [
        ("conclusion", True),
        ("implementation", True),
    ]


def test_harmless_sabotage_is_missed():
    harmless = Sabotage("same", "nothing changes", conclusion=toy.is_even)
    (found,) = self_test(toy.statement(sabotages=(harmless,)))
    assert not found.found
    assert found.tries == 200


def test_found_sabotage_says_which_conclusion_failed():
    wrong = Sabotage("limit", "at most 700", conclusion=toy.at_most(700))
    (found,) = self_test(toy.statement(sabotages=(wrong,)))
    assert found.found
    assert "is above 700" in found.detail


def test_instances_and_hypotheses_come_from_sound_code():
    """A mistake that would break hypotheses and generators alone reaches no conclusion."""

    def doubles():
        return st.integers(1, 99).map(lambda n: toy.Pair(toy.Arithmetic.double(n)))

    exact = Hypothesis("even", "n even", lambda p: toy.Arithmetic.double(1) == 2)
    entry = toy.statement(
        hypotheses=(exact,),
        instances=doubles,
        conclusion=lambda pair: Check.of(pair.number % 2 == 0),
        sabotages=toy.statement().sabotages[1:],
    )
    (found,) = self_test(entry)
    assert (found.outcome, found.tries, found.detail) == ("missed", 99, "the conclusion holds")


def test_sabotage_without_any_instance_is_missed():
    never = Hypothesis("never", "nothing", lambda pair: False)
    found = self_test(toy.statement(hypotheses=(never,)))
    assert {(entry.outcome, entry.tries) for entry in found} == {("missed", 0)}
    assert {entry.detail for entry in found} == {"no instance satisfies the hypotheses"}


@pytest.mark.parametrize(
    "error",
    [np.linalg.LinAlgError("singular"), ValueError("a\nb"), AssertionError(), ZeroDivisionError()],
)
def test_sabotage_that_cannot_be_computed_is_missed(error):
    def conclusion(pair):
        raise error

    broken = Sabotage("crash", "no inverse", conclusion=conclusion)
    (found,) = self_test(toy.statement(sabotages=(broken,)))
    assert (found.outcome, found.tries) == ("missed", 0)
    assert found.detail.startswith(type(error).__name__)
    assert "\n" not in found.detail


def test_sabotage_in_an_absent_package_is_not_tried_and_listed():
    def conclusion(pair):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    far = Sabotage("far", "elsewhere", conclusion=conclusion)
    found = self_test(toy.statement(sabotages=(far, *toy.statement().sabotages)))
    assert [entry.outcome for entry in found] == ["not tried", "found", "found"]
    assert "needs the package torch" in found[0].detail
    table = SelfTest((("toy", found),), 1.0, 0)
    assert (table.missed, table.untried) == ((), ("toy: far",))
    assert "NOT TRIED toy: far" in str(table)


def test_sabotages_after_the_deadline_are_not_tried():
    found = self_test(toy.statement(), deadline=-1.0)
    assert [(entry.outcome, entry.detail) for entry in found] == [("not tried", "time limit")] * 2


def test_failure_of_the_sound_conclusion_is_no_find():
    """Where rounding breaks the statement itself, a mistake beside it is not what is seen."""
    harmless = Sabotage("same", "nothing changes", conclusion=toy.at_most(700))
    entry = toy.statement(conclusion=toy.at_most(700), sabotages=(harmless,))
    (found,) = self_test(entry)
    assert (found.outcome, found.tries) == ("missed", 200)


def test_construction_is_a_kind_of_its_own():
    built = Sabotage("built", "three times", construction=toy.statement().sabotages[1].context)
    (found,) = self_test(toy.statement(sabotages=(built,)))
    assert (found.kind, found.outcome) == ("construction", "found")


def test_sabotage_has_exactly_one_kind():
    def conclusion(pair):
        return Check.of(True)

    for given in ({}, {"conclusion": conclusion, "implementation": nullcontext}):
        with pytest.raises(ValueError, match="a conclusion, an implementation or a construction"):
            Sabotage("none", "nothing", **given)


def test_sabotage_neither_sees_nor_leaves_cached_points():
    data = SampleSet("generic", np.eye(2), np.ones(2), 3, 0)
    before = strategies.stationary_point(data)

    def conclusion(pair):
        return Check.of(strategies.stationary_point(data).network.width == before.network.width)

    def one_only(*arguments, **options):
        vectors, values = found(*arguments, **options)
        return vectors[:1], values[:1]

    found = strategies.real_eigenvectors
    fewer = Sabotage(
        "fewer",
        "one eigenvector",
        implementation=lambda: patch.object(strategies, "real_eigenvectors", one_only),
    )
    assert self_test(toy.statement(conclusion=conclusion, sabotages=(fewer,)))[0].found
    assert strategies.stationary_point(data).network.width == before.network.width


def test_self_test_text_names_what_was_missed():
    same = Found("same", "conclusion", "missed", 9, "the conclusion holds")
    found = SelfTest((("toy", (same,)), ("late", ())), 1.0, 0)
    assert "MISSED toy: same" in str(found)
    assert "same (conclusion, missed, 9 tries): the conclusion holds" in str(found)
    assert "late\n  not run" in str(found)
    assert "0 of 1 sabotages found" in str(found)
    assert json.loads(found.to_json())["missed"] == ["toy: same"]
