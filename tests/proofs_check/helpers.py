"""Assertions about statements, shared by the tests of the machinery and of all statements."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import pytest

from proofs_check.machinery import search
from proofs_check.machinery.registry import TOPICS, topic_of
from proofs_check.machinery.results import HELD, PROVED, Necessity, Result
from proofs_check.machinery.run_one import run_statement, self_test
from proofs_check.machinery.statement import Hypothesis, Statement
from tests.proofs_check.reach import unreached

EXAMPLES = 0.1
"""Factor on the number of instances in a test."""
FEW = 0.05
REACH = 12
"""Instances within which a statement has to run all of the code that it names."""
OUTCOMES = {True: "counterexample", False: "none found"}


def for_each(statements: tuple[Statement, ...]) -> pytest.MarkDecorator:
    """One test for every statement."""
    return pytest.mark.parametrize("statement", statements, ids=[s.name for s in statements])


@lru_cache(maxsize=128)
def examined(statement: Statement, examples: float = EXAMPLES, seed: int = 0) -> Result:
    """The result of a run with necessity, computed once; counterexamples are hardly shrunk."""
    with patch.object(search, "SHRINKING", 20):
        result = run_statement(statement, examples, seed)
    if result.note.startswith("needs the package torch"):
        pytest.skip(result.note)
    return result


def assert_complete(statement: Statement) -> None:
    """Everything that the documentation prints is there, and every sabotage is one thing."""
    assert topic_of(statement.name) in TOPICS
    for words in (statement.title, statement.formula, statement.source):
        assert words.strip()
    assert statement.sentence.endswith(".")
    names = [hypothesis.name for hypothesis in statement.hypotheses]
    assert len(set(names)) == len(names)
    kinds = {entry.kind for entry in statement.sabotages}
    assert "conclusion" in kinds
    assert kinds & {"implementation", "construction"}
    if statement.algebra is not None:
        assert statement.algebra_note


def assert_reaches_its_code(statement: Statement) -> None:
    """The conclusion or the algebra runs whatever `code` names, of identify or attack."""
    for place in statement.code:
        assert place.startswith(("identify.", "attack.")), place
    assert unreached(statement, REACH) == ()


def assert_mistakes_are_in_the_product(statement: Statement) -> None:
    """An implementation sabotage replaces code of identify or attack, and nothing of its own."""
    for entry in statement.sabotages:
        if entry.implementation is None:
            continue
        before = ours()
        with entry.context():
            changed = {key for key, value in ours().items() if before.get(key) is not value}
            assert all(is_of_the_product(before[key]) for key in changed), (entry.name, changed)


def ours() -> dict[tuple[str, str], Any]:
    """Everything that modules and classes of this package hold now, by owner and name."""
    found = {}
    for module in [m for n, m in list(sys.modules.items()) if n.startswith("proofs_check.")]:
        for name, value in vars(module).items():
            found[module.__name__, name] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                found |= {(f"{module.__name__}.{name}", k): v for k, v in vars(value).items()}
    return found


def is_of_the_product(thing: Any) -> bool:
    """Whether something is defined in identify or attack."""
    return getattr(thing, "__module__", "").startswith(("identify.", "attack."))


def assert_not_refuted(statement: Statement, examples: float = EXAMPLES) -> None:
    """Some instances were tried and none broke the statement; algebra, where given, closes."""
    result = examined(statement, examples)
    expected = HELD if statement.algebra is None else PROVED
    assert result.status == expected, f"{result.counterexample}: {result.note}"
    assert result.examples >= 1
    assert math.isfinite(result.worst)
    assert result.worst <= 1.0


def assert_necessity(statement: Statement, examples: float = EXAMPLES) -> None:
    """Without each hypothesis the outcome is the expected one, if need be of more instances."""
    entries = examined(statement, examples).necessity
    if not all(is_expected(*pair) for pair in zip(entries, statement.hypotheses, strict=True)):
        entries = examined(statement, 5.0 * examples).necessity
    assert len(entries) == len(statement.hypotheses)
    for entry, hypothesis in zip(entries, statement.hypotheses, strict=True):
        if hypothesis.violating is None:
            assert entry.outcome == "no instance"
            continue
        assert entry.tries >= 1, f"nothing violates '{hypothesis.name}' alone"
        if hypothesis.necessary is not None:
            assert entry.outcome == OUTCOMES[hypothesis.necessary], hypothesis.name
        assert (entry.instance is not None) == (entry.outcome == "counterexample")


def is_expected(entry: Necessity, hypothesis: Hypothesis) -> bool:
    """Whether the outcome is the one that the hypothesis announces."""
    known = hypothesis.violating is not None and hypothesis.necessary is not None
    return not known or entry.outcome == OUTCOMES[hypothesis.necessary is True]


def assert_sabotages_found(statement: Statement, seed: int = 0) -> None:
    """Every deliberate mistake makes a conclusion fail, with few instances or with the default."""
    missed = {}
    for examples in (EXAMPLES, 1.0):
        found = self_test(statement, examples, seed)
        assert all(entry.detail for entry in found)
        missed = {entry.sabotage: entry.detail for entry in found if not entry.found}
        rest = tuple(entry for entry in statement.sabotages if entry.name in missed)
        statement = replace(statement, sabotages=rest)
    assert not missed


def assert_repeatable(statement: Statement) -> None:
    """The same seed gives the same result, but for the time it took.

    A few instances are enough, and none without a hypothesis: they come from the same search.
    """
    plain = replace(statement, algebra=None)
    first, again = (
        run_statement(plain, FEW, 1, necessity=False).to_dict() | {"seconds": None} for _ in "ab"
    )
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
