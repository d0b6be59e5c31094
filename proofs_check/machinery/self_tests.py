"""Records of a self-test: what became of the sabotages, and their list."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from identify.text import number
from proofs_check.machinery.results import title_lines, wrapped
from proofs_check.machinery.statement import Check

FOUND, MISSED, UNTRIED = "found", "missed", "not tried"


@dataclass(frozen=True)
class Found:
    """What became of a sabotage: found, missed or not tried, after how many instances.

    `detail` is what the conclusion that failed says, or why there was none.

    Example:
        >>> Found("sign", "conclusion", MISSED, 9, "the conclusion holds").found
        False
    """

    sabotage: str
    kind: str
    outcome: str
    tries: int
    detail: str = ""

    @property
    def found(self) -> bool:
        """Whether a conclusion failed."""
        return self.outcome == FOUND

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data."""
        return {**vars(self), "found": self.found}


@dataclass(frozen=True)
class SelfTest:
    """What became of the sabotages: pairs of a statement's name and what was found.

    Example:
        >>> SelfTest((("a", (Found("sign", "conclusion", MISSED, 9),)),), 1.0, 0).missed
        ('a: sign',)
    """

    results: tuple[tuple[str, tuple[Found, ...]], ...]
    examples: float
    seed: int
    stopped: str = ""

    @property
    def missed(self) -> tuple[str, ...]:
        """Sabotages that were not found, each with its statement."""
        return self._with(MISSED)

    @property
    def untried(self) -> tuple[str, ...]:
        """Sabotages that were not tried, each with its statement."""
        return self._with(UNTRIED)

    def _with(self, outcome: str) -> tuple[str, ...]:
        return tuple(
            f"{name}: {entry.sabotage}"
            for name, entries in self.results
            for entry in entries
            if entry.outcome == outcome
        )

    def to_dict(self) -> dict[str, Any]:
        """The self-test as plain data, key `statements`."""
        return {
            "statements": [
                {"name": name, "sabotages": [entry.to_dict() for entry in entries]}
                for name, entries in self.results
            ],
            "missed": list(self.missed),
            "not_tried": list(self.untried),
            "examples_factor": self.examples,
            "seed": self.seed,
            "stopped": self.stopped or None,
        }

    def to_json(self) -> str:
        """The self-test as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        return format_self_test(self)


def format_self_test(found: SelfTest) -> str:
    """Write one line a sabotage with the conclusion that failed, then what was missed or not tried.

    Example:
        >>> from proofs_check.machinery.self_tests import FOUND, Found, SelfTest
        >>> sign = Found("sign", "conclusion", FOUND, 1, "2 is not -2")
        >>> print(format_self_test(SelfTest((("a", (sign,)),), 1.0, 0)))
        Self-test
        =========
        a
          sign (conclusion, instance 1): 2 is not -2
        <BLANKLINE>
        1 of 1 sabotages found; seed 0
    """
    lines = title_lines("Self-test")
    for name, entries in found.results:
        lines.append(name)
        lines += [line for entry in entries for line in wrapped(_told(entry), "  ")]
        lines += [] if entries else ["  not run"]
    parts = [entry for _, entries in found.results for entry in entries]
    lines += ["", *(f"MISSED {name}" for name in found.missed)] if found.missed else []
    lines += ["", *(f"NOT TRIED {name}" for name in found.untried)] if found.untried else []
    tail = f"{sum(entry.found for entry in parts)} of {len(parts)} sabotages found"
    tail += f", {len(found.untried)} not tried" if found.untried else ""
    tail += f"; seed {found.seed}"
    return "\n".join([*lines, "", f"{tail}; {found.stopped}" if found.stopped else tail])


def _told(entry: Found) -> str:
    """A sabotage, and the conclusion that failed or why none did."""
    place = f"instance {entry.tries}" if entry.found else f"{entry.outcome}, {entry.tries} tries"
    return f"{entry.sabotage} ({entry.kind}, {place}): {entry.detail}"


def failure(check: Check) -> str:
    """What a failed conclusion says: its detail, or its numbers.

    Example:
        >>> failure(Check.compare(2.0, 1.0)), failure(Check.of(False))
        ('deviation 2, allowed 1', 'false')
    """
    numbers = f"deviation {number(check.deviation)}, allowed {number(check.tolerance)}"
    plain_false = (check.deviation, check.tolerance) == (1.0, 0.5)
    if check.detail:
        return check.detail if plain_false else f"{check.detail} ({numbers})"
    return "false" if plain_false else numbers
