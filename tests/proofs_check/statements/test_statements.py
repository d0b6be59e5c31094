"""What holds for every statement: complete, not refuted, necessary hypotheses, found sabotages."""

from __future__ import annotations

import pytest

from proofs_check.machinery.registry import all_statements
from tests.proofs_check import helpers


# In the scope of the module, so that the tests of one statement follow each other: they share
# the result of one run.
@pytest.fixture(scope="module", params=all_statements(), ids=lambda statement: statement.name)
def statement(request):
    chosen = request.param
    if any(place.startswith("attack.") for place in chosen.code):
        pytest.importorskip("torch")
    return chosen


def test_is_complete(statement):
    helpers.assert_complete(statement)


@pytest.mark.medium
def test_is_not_refuted(statement):
    helpers.assert_not_refuted(statement)


@pytest.mark.medium
def test_hypotheses_are_as_necessary_as_expected(statement):
    helpers.assert_necessity(statement)


@pytest.mark.medium
def test_sabotages_are_found(statement):
    helpers.assert_sabotages_found(statement)


@pytest.mark.medium
def test_runs_the_code_that_it_names(statement):
    helpers.assert_reaches_its_code(statement)


def test_mistakes_in_code_are_in_that_of_the_product(statement):
    helpers.assert_mistakes_are_in_the_product(statement)


@pytest.mark.medium
def test_same_seed_same_result(statement):
    helpers.assert_repeatable(statement)
