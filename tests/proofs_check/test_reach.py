"""Which code a statement runs."""

from __future__ import annotations

import numpy as np
import pytest

from identify.tensors import monomials
from proofs_check.machinery.statement import Check
from tests.proofs_check import toy
from tests.proofs_check.reach import functions_of, unreached

ONE, PAIR = np.ones((1, 1)), np.ones((1, 2))
POWERS = "identify.tensors.monomials"
RANK = "identify.numerical_rank.decide_rank"


def test_conclusion_reaches_what_it_calls():
    entry = toy.statement(
        code=(POWERS, RANK), conclusion=lambda pair: Check.of(monomials(PAIR, 3).size == 4)
    )
    assert unreached(entry) == (RANK,)


def test_instances_do_not_count():
    def built():
        return toy.pairs(0, 9).map(lambda pair: (monomials(ONE, 3), pair)[1])

    assert unreached(toy.statement(code=(POWERS,), instances=built)) == (POWERS,)


def test_algebra_counts():
    def algebra():
        return monomials(ONE, 3).size == 1

    assert unreached(toy.statement(code=(POWERS,), algebra=algebra, algebra_note="n = 1")) == ()


def test_only_instances_that_satisfy_the_hypotheses_count():
    def conclusion(pair):
        assert pair.number >= 0
        return Check.of(monomials(ONE, 3).size == 1)

    mixed = toy.statement(code=(POWERS,), conclusion=conclusion, instances=lambda: toy.pairs(-9, 9))
    assert unreached(mixed, examples=20) == ()


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("identify.recovery.stages.Recovered.redundancy", {"redundancy"}),
        ("identify.hermite.data.HermiteData.from_kkt", {"from_kkt"}),
        ("identify.numerical_rank", {"decide_rank", "row_space"}),
        ("identify.tensors.CoordinateTensor", {"contract"}),
    ],
)
def test_code_behind_properties_methods_modules_and_classes(place, names):
    assert names <= {code.co_name for code in functions_of(place)}


@pytest.mark.parametrize(
    "place", ["identify.nowhere.at_all", "nowhere", "identify.errors.__name__"]
)
def test_names_without_code_are_refused(place):
    with pytest.raises(ValueError, match="expected the name of a function"):
        functions_of(place)
