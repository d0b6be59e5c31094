"""Records of a run: what became of a statement, of its hypotheses and of its sabotages."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from proofs_check.statement import Statement

PROVED, HELD, REFUTED, STOPPED = "proved", "no counterexample", "refuted", "not run"
STATUSES = (PROVED, HELD, REFUTED, STOPPED)
NEEDED, NOT_BROKEN, NO_INSTANCE = "counterexample", "none found", "no instance"


@dataclass(frozen=True)
class Necessity:
    """What became of the statement without one hypothesis.

    `outcome` is "counterexample", "none found" in `tries` instances, or "no instance": nothing
    violates it alone, or nothing was tried. `instance` describes the shrunk counterexample.
    """

    hypothesis: str
    outcome: str
    tries: int
    instance: str | None = None
    expected: bool | None = None


@dataclass(frozen=True)
class Found:
    """Whether a sabotage was found, and after how many instances."""

    sabotage: str
    kind: str
    found: bool
    tries: int


@dataclass(frozen=True)
class Result:
    """What a run says about one statement.

    `examples` counts the instances that were judged, `worst` is the largest deviation over its
    tolerance among those that hold, `counterexample` describes the shrunk instance of a refuted
    statement, and `rechecked` says whether exact or high precision confirmed it (None: the
    statement offers neither). `seconds` is all that differs between runs of one seed.

    Example:
        >>> Result("a", "A", HELD, 50, 0.1, 0.2).to_dict()["status"]
        'no counterexample'
    """

    name: str
    title: str
    status: str
    examples: int
    worst: float
    seconds: float
    counterexample: str | None = None
    necessity: tuple[Necessity, ...] = ()
    note: str = ""
    topic: str = ""
    rechecked: bool | None = None

    @classmethod
    def not_run(cls, statement: Statement, note: str = "") -> Result:
        """The result of a statement that was not reached."""
        return cls(
            statement.name, statement.title, STOPPED, 0, 0.0, 0.0, note=note, topic=statement.topic
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "name": self.name,
            "title": self.title,
            "topic": self.topic,
            "status": self.status,
            "examples": self.examples,
            "worst": plain(self.worst),
            "counterexample": self.counterexample,
            "rechecked": self.rechecked,
            "necessity": [dict(vars(entry)) for entry in self.necessity],
            "note": self.note,
            "seconds": plain(self.seconds),
        }


@dataclass(frozen=True)
class Table:
    """Results of a run in the order of the statements; `str()` gives the text form.

    `stopped` is "" or why the run did not reach its end: "time limit" or "interrupted".

    Example:
        >>> Table((Result("a", "A", REFUTED, 1, 0.0, 0.0),), examples=1.0, seed=0).refuted
        ('a',)
    """

    results: tuple[Result, ...]
    examples: float
    seed: int
    stopped: str = ""

    @property
    def refuted(self) -> tuple[str, ...]:
        """Names of refuted statements."""
        return tuple(result.name for result in self.results if result.status == REFUTED)

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """The table as plain data, key `statements`."""
        return {
            "statements": [result.to_dict() for result in self.results],
            "refuted": list(self.refuted),
            "examples_factor": self.examples,
            "seed": self.seed,
            "stopped": self.stopped or None,
        }

    def to_json(self) -> str:
        """The table as JSON; NaN and infinity never occur in it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        from proofs_check.text import format_table

        return format_table(self)


@dataclass(frozen=True)
class SelfTest:
    """What became of the sabotages: pairs of a statement's name and what was found.

    Example:
        >>> SelfTest((("a", (Found("sign", "conclusion", False, 9),)),), 1.0, 0).missed
        ('a: sign',)
    """

    results: tuple[tuple[str, tuple[Found, ...]], ...]
    examples: float
    seed: int
    stopped: str = ""

    @property
    def missed(self) -> tuple[str, ...]:
        """Sabotages that were not found, each with its statement."""
        return tuple(
            f"{name}: {entry.sabotage}"
            for name, entries in self.results
            for entry in entries
            if not entry.found
        )

    def to_dict(self) -> dict[str, Any]:
        """The self-test as plain data, key `statements`."""
        return {
            "statements": [
                {"name": name, "sabotages": [dict(vars(entry)) for entry in entries]}
                for name, entries in self.results
            ],
            "missed": list(self.missed),
            "examples_factor": self.examples,
            "seed": self.seed,
            "stopped": self.stopped or None,
        }

    def to_json(self) -> str:
        """The self-test as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        from proofs_check.text import format_self_test

        return format_self_test(self)


def plain(value: float | None) -> float | None:
    """A number that JSON has, or None.

    Example:
        >>> plain(float("nan")) is None, plain(0.5)
        (True, 0.5)
    """
    return None if value is None or not math.isfinite(value) else float(value)
