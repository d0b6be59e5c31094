"""Small statements about integers, true and false ones, for tests of the machinery."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

from hypothesis import strategies as st

from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement


class Arithmetic:
    """What the statements below rely on, and what is sabotaged."""

    @staticmethod
    def double(number):
        return 2 * number


@dataclass(frozen=True)
class Pair:
    """An instance with a description of its own."""

    number: int
    other: int = 0

    def __repr__(self):
        return f"Pair({self.number}, {self.other})"


def pairs(low=0, high=10_000):
    return st.builds(Pair, st.integers(low, high), st.integers(0, 10_000))


def is_even(pair):
    return Check.of(Arithmetic.double(pair.number) % 2 == 0)


def statement(**changes):
    """'Twice a non-negative number is even and at least the number', with changes."""

    def conclusion(pair):
        twice = Arithmetic.double(pair.number)
        return Check.compare(max(0, pair.number - twice) + twice % 2, 0.5)

    facts = {
        "name": "toy",
        "title": "Toy",
        "sentence": "Twice a number is even and not less.",
        "formula": "2n \\ge n",
        "source": "school",
        "hypotheses": (
            Hypothesis(
                "non-negative", "n >= 0", lambda p: p.number >= 0, lambda: pairs(-10_000, -1)
            ),
        ),
        "instances": pairs,
        "conclusion": conclusion,
        "sabotages": (
            Sabotage("odd", "it is odd", conclusion=lambda p: Check.of(2 * p.number % 2 == 1)),
            Sabotage(
                "triple",
                "three times",
                implementation=lambda: patch.object(Arithmetic, "double", lambda n: 3 * n),
            ),
        ),
    }
    return Statement(**{**facts, **changes})


def at_most(limit):
    """A conclusion that is false above a number."""
    return lambda pair: Check.of(pair.number <= limit, f"{pair.number} is above {limit}")
