"""The generated page is that of the registry, and says what a run said."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import pytest

from proofs_check import page
from proofs_check.machinery.registry import all_statements
from proofs_check.machinery.results import HELD, NEEDED, PROVED, REFUTED, Necessity, Result, Table
from proofs_check.machinery.run_one import run_statement
from tests.proofs_check import helpers

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the page lists statements that need torch"
)
TEXT = page.PAGE.read_text(encoding="utf-8")
EVERY = all_statements()
HINT = f"run: {page.COMMAND}"


@helpers.for_each(EVERY)
def test_page_says_what_the_statement_says(statement):
    assert "\n".join(page.section(statement)) in TEXT, HINT


@helpers.for_each(EVERY)
def test_page_has_a_result_of_every_statement(statement):
    status = PROVED if statement.algebra is not None else HELD
    assert re.search(rf"^\| \[{statement.name}\]\(#{statement.name}\) \|.*\| {status} \|", TEXT,
                     re.MULTILINE), HINT  # fmt: skip
    below = TEXT.split(f"\n### {statement.name}\n")[1].split("\n##")[0]
    assert f"- *Status:* {status}" in below, HINT
    for hypothesis in statement.hypotheses:
        line = f"- *Assumes* {page.escape(hypothesis.name)}: {page.escape(hypothesis.sentence)}."
        assert line in below, HINT


def test_page_lists_no_other_statement():
    listed = re.findall(r"^### (\S+)$", TEXT, re.MULTILINE)
    assert listed == [statement.name for statement in EVERY], HINT


def test_corrections_name_statements():
    known = {statement.name for statement in EVERY}
    for text, names in page.CORRECTIONS:
        assert set(names) <= known
        assert names
        assert page.escape(text) in TEXT, HINT


@pytest.mark.parametrize("name", ["dead-neurons", "quadratic-rank"])
def test_page_shows_what_a_run_finds_today(name):
    (statement,) = (entry for entry in EVERY if entry.name == name)
    result = run_statement(statement)
    below = TEXT.split(f"\n### {name}\n")[1].split("\n##")[0]
    shown = "\n".join(page.outcome(statement, result))
    # Descriptions of shrunk instances may differ between machines.
    mask = re.compile(r"`[^`]*`")
    assert mask.sub("", shown) in mask.sub("", below), HINT


def rendered(result):
    statement = replace(EVERY[0], remark="", code=())
    result = replace(result, name=statement.name)
    return page.render([statement], Table((result,), 1.0, 0)), statement


def test_refuted_statements_show_their_counterexample():
    result = Result("", "", REFUTED, 3, 0.0, 0.0, counterexample="Pair(1)", note="1 > 0")
    text, _ = rendered(result)
    assert "- *Status:* refuted: 1 \\> 0" in text
    assert "- *Broken by:* `Pair(1)`" in text
    assert "1 statements: 1 refuted." in text


def test_necessity_is_shown():
    statement = EVERY[0]
    hypothesis = statement.hypotheses[0]
    for outcome, words in (
        (NEEDED, "Without it: `Pair(1)`"),
        ("none found", "Without it no counterexample was found in 9 tries."),
    ):
        entry = Necessity(hypothesis.name, outcome, 9, "Pair(1)")
        text, _ = rendered(Result("", "", HELD, 3, 0.0, 0.0, necessity=(entry,)))
        assert words in text


def test_links_lead_to_files():
    for target in set(re.findall(r"\]\((\.\./[^)#]+)\)", TEXT)):
        assert (page.PAGE.parent / target).is_file(), target


def test_code_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="nowhere"):
        page._link("nowhere.at_all", "x")
