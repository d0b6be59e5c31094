"""The budget of a call: what is left, what still fits, who is told."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

import identify.budget
from identify.budget import UNLIMITED, Budget
from identify.errors import BudgetExceededError, InvalidInputError


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands at `now`."""
    time = SimpleNamespace(now=100.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(identify.budget, "time", time)
    return time


def test_the_time_that_is_left(clock):
    budget = Budget.of(8.0)
    assert (budget.limited, budget.remaining, budget.expired) == (True, 8.0, False)
    assert (budget.allows(8.0), budget.allows(8.5)) == (True, False)
    clock.now += 6.0
    assert (budget.remaining, budget.allows(2.0), budget.allows(3.0)) == (2.0, True, False)
    clock.now += 2.5
    assert (budget.remaining, budget.expired) == (-0.5, True)


def test_a_part_is_of_what_is_left(clock):
    whole = Budget.of(8.0)
    clock.now += 4.0
    assert whole.part(0.25).remaining == 1.0
    assert whole.part(1.0) == whole
    assert UNLIMITED.part(0.1) is UNLIMITED


@pytest.mark.parametrize("time_limit", [0, -1.0, math.nan, math.inf])
def test_a_limit_is_a_positive_number(time_limit):
    with pytest.raises(InvalidInputError, match="time_limit"):
        Budget.of(time_limit)


def test_no_limit_never_ends():
    for budget in (UNLIMITED, Budget.of(None)):
        assert (budget.limited, budget.remaining, budget.expired) == (False, math.inf, False)
        assert budget.allows(1e300)
        budget.check("any")


def test_check_and_step_raise_after_the_end(clock):
    told = []
    budget = Budget.of(2.0, lambda *what: told.append(what))
    budget.step("first", 0.5)
    with pytest.raises(BudgetExceededError, match="first"):
        budget.check("first", 2.5)
    clock.now += 3.0
    with pytest.raises(BudgetExceededError, match="second"):
        budget.step("second", 1.0)
    assert told == [("first", 0.5), ("second", 1.0)]
    UNLIMITED.tell("nobody", 1.0)
