"""The registry: every statement once, by topic, found by name."""

from __future__ import annotations

import importlib

import pytest

from identify.errors import InvalidInputError
from proofs_check import statements
from proofs_check.machinery import registry
from proofs_check.machinery.registry import TOPICS, all_statements, module_of, select, topic_of
from tests.proofs_check import helpers, toy

EVERY = all_statements()


def test_names_are_unique_and_topics_in_order():
    names = [entry.name for entry in EVERY]
    assert len(set(names)) == len(names)
    order = [list(TOPICS).index(topic_of(entry.name)) for entry in EVERY]
    assert order == sorted(order)
    assert set(order) == set(range(len(TOPICS)))


@helpers.for_each(EVERY)
def test_statement_is_complete(statement):
    helpers.assert_complete(statement)


@helpers.for_each(EVERY)
def test_words_are_plain(statement):
    """One paragraph each, printable, without a name that a command could not take."""
    words = [statement.title, statement.sentence, statement.source, statement.remark]
    words += [entry.sentence for entry in statement.hypotheses]
    words += [entry.sentence for entry in statement.sabotages]
    assert all(text == " ".join(text.split()) for text in words)
    assert all(text.isprintable() for text in words)
    assert statement.name == statement.name.lower()
    assert " " not in statement.name
    assert statement.name not in TOPICS


@helpers.for_each(EVERY)
def test_module_of_a_statement_lists_it(statement):
    assert statement in importlib.import_module(module_of(statement)).STATEMENTS


def test_every_module_of_statements_is_in_use():
    places = {module_of(entry) for entry in EVERY}
    assert all(place.startswith(statements.__name__) for place in places)


def test_select_takes_names_topics_and_all_once():
    assert select("all") == EVERY
    assert select(("kkt-balance", "kkt"))[0].name == "kkt-balance"
    assert len(select(("kkt-balance", "kkt"))) == len(select("kkt"))
    assert {topic_of(entry.name) for entry in select(["splitting", "kkt"])} == {"splitting", "kkt"}
    assert select(["kkt-balance", "all"])[1:] == tuple(
        entry for entry in EVERY if entry.name != "kkt-balance"
    )


def test_select_suggests_a_name():
    with pytest.raises(InvalidInputError, match="did you mean kkt-balance"):
        select("kkt-balanse")
    with pytest.raises(InvalidInputError, match="proofs --list"):
        select("qqqqqq\n")
    with pytest.raises(InvalidInputError):
        select([])


def test_names_that_occur_twice_are_refused(monkeypatch):
    monkeypatch.setattr(registry, "_modules", lambda: [("a", toy.statement())] * 2)
    registry.all_statements.cache_clear()
    try:
        with pytest.raises(ValueError, match="toy"):
            registry.all_statements()
    finally:
        registry.all_statements.cache_clear()
