"""Assertions about statements, shared by the tests of the machinery and of all statements."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from proofs_check.machinery.registry import TOPICS, topic_of
from proofs_check.machinery.results import HELD, PROVED, Result
from proofs_check.machinery.run_one import run_statement, self_test
from proofs_check.machinery.statement import Statement

EXAMPLES = 0.2
"""Factor on the number of instances in a test."""
OUTCOMES = {True: "counterexample", False: "none found"}


def for_each(statements: tuple[Statement, ...]) -> pytest.MarkDecorator:
    """One test for every statement."""
    return pytest.mark.parametrize("statement", statements, ids=[s.name for s in statements])


@lru_cache(maxsize=128)
def examined(statement: Statement, examples: float = EXAMPLES, seed: int = 0) -> Result:
    """The result of a run with necessity, computed once."""
    return run_statement(statement, examples, seed)


def assert_complete(statement: Statement) -> None:
    """Everything that the documentation prints is there, and every sabotage is one thing."""
    assert topic_of(statement.name) in TOPICS
    for words in (statement.title, statement.formula, statement.source):
        assert words.strip()
    assert statement.sentence.endswith(".")
    names = [hypothesis.name for hypothesis in statement.hypotheses]
    assert len(set(names)) == len(names)
    assert {entry.kind for entry in statement.sabotages} == {"conclusion", "implementation"}
    for entry in statement.sabotages:
        assert (entry.conclusion is None) != (entry.implementation is None), entry.name
    if statement.algebra is not None:
        assert statement.algebra_note
    for place in statement.code:
        assert_importable(place)


def assert_importable(place: str) -> None:
    """A dotted name leads to a module, or to something in one."""
    parts = place.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name == "torch":
                return  # the module is there, and what it needs is optional
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return
    raise AssertionError(f"{place} does not exist")


def assert_not_refuted(statement: Statement, examples: float = EXAMPLES) -> None:
    """Some instances were tried and none broke the statement; algebra, where given, closes."""
    result = examined(statement, examples)
    expected = HELD if statement.algebra is None else PROVED
    assert result.status == expected, f"{result.counterexample}: {result.note}"
    assert result.examples >= 1
    assert math.isfinite(result.worst)
    assert result.worst <= 1.0


def assert_necessity(statement: Statement, examples: float = EXAMPLES) -> None:
    """Without each hypothesis the outcome is the expected one."""
    entries = examined(statement, examples).necessity
    assert len(entries) == len(statement.hypotheses)
    for entry, hypothesis in zip(entries, statement.hypotheses, strict=True):
        if hypothesis.violating is None:
            assert entry.outcome == "no instance"
            continue
        assert entry.tries >= 1, f"nothing violates '{hypothesis.name}' alone"
        if hypothesis.necessary is not None:
            assert entry.outcome == OUTCOMES[hypothesis.necessary], hypothesis.name
        assert (entry.instance is not None) == (entry.outcome == "counterexample")


def assert_sabotages_found(statement: Statement, seed: int = 0) -> None:
    """The self-test finds every deliberate mistake, with few instances or with the default."""
    missed = set()
    for examples in (EXAMPLES, 1.0):
        found = self_test(statement, examples, seed)
        missed = {entry.sabotage for entry in found if not entry.found}
        rest = tuple(entry for entry in statement.sabotages if entry.name in missed)
        statement = replace(statement, sabotages=rest)
    assert not missed


def assert_repeatable(statement: Statement, examples: float = EXAMPLES) -> None:
    """The same seed gives the same result, but for the time it took."""
    first = examined(statement, examples).to_dict()
    again = run_statement(statement, examples, 0).to_dict()
    first.pop("seconds")
    again.pop("seconds")
    assert again == first


def assert_counterexample(statement: Statement, hypothesis: str, instance: Any) -> None:
    """A stored instance breaks one hypothesis alone, and the conclusion with it."""
    chosen = {entry.name: entry for entry in statement.hypotheses}[hypothesis]
    assert not chosen.predicate(instance)
    assert statement.satisfied(instance, without=hypothesis)
    assert not statement.conclusion(instance).holds
    if statement.recheck is not None:
        assert not statement.recheck(instance).holds


def assert_instance(statement: Statement, instance: Any) -> None:
    """A stored instance satisfies every hypothesis and the conclusion."""
    assert statement.satisfied(instance)
    check = statement.conclusion(instance)
    assert check.holds, check.detail
