"""Records of a run: what became of a statement and of its hypotheses."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from identify.text import WIDTH, number, table
from proofs_check.machinery.registry import TOPICS, topic_of
from proofs_check.machinery.statement import EXAMPLES, Hypothesis, Statement


def format_table(found: Table) -> str:
    """Write one line a statement, then what was refuted and what no counterexample was found for.

    Example:
        >>> from proofs_check import check
        >>> print(format_table(check("kkt-balance", examples=0.1)).splitlines()[0])
        Statements
    """
    rows = [
        [
            result.name,
            result.status,
            str(result.examples),
            number(result.worst) if result.examples else "-",
            _needed(result),
            f"{result.seconds:.1f}",
        ]
        for result in found.results
    ]
    header = ["statement", "status", "examples", "worst", "hypotheses needed", "s"]
    lines = [*title_lines("Statements"), *table(header, rows, indent=0)]
    for result in found.results:
        if result.status == REFUTED:
            lines += ["", *wrapped(f"REFUTED {result.name}: {result.note or result.title}")]
            lines += wrapped(result.counterexample or "", "  ")
    open_rows = [
        f"{result.name}: {entry.hypothesis}, none in {entry.tries} tries"
        for result in found.results
        for entry in result.necessity
        if entry.outcome == NOT_BROKEN
    ]
    if open_rows:
        lines += ["", "Hypotheses without which no counterexample was found"]
        lines += [line for row in open_rows for line in wrapped(row, "  ")]
    absent = [result for result in found.results if result.note.startswith("needs the package")]
    if absent:
        lines += ["", "Not run"]
        lines += [line for r in absent for line in wrapped(f"{r.name} {r.note}", "  ")]
    counts = {status: 0 for status in STATUSES}
    for result in found.results:
        counts[result.status] += 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    tail = f"{_plural(len(found.results))}: {summary}; seed {found.seed}"
    if found.examples != 1.0:
        tail += f"; examples times {found.examples:g}"
    if found.stopped:
        tail += f"; {found.stopped}"
    return "\n".join([*lines, "", tail])


def format_details(statement: Statement, result: Result) -> str:
    """Write a statement in full, with what a run says about it and each hypothesis.

    Example:
        >>> from proofs_check.machinery.registry import select
        >>> from proofs_check.machinery.run_one import run_statement
        >>> (entry,) = select("kkt-balance")
        >>> print(format_details(entry, run_statement(entry, 0.1)).splitlines()[0])
        kkt-balance: Balance between the layers
    """
    lines = title_lines(f"{statement.name}: {statement.title}")
    lines += [*wrapped(statement.sentence), *labelled("formula", statement.formula)]
    lines += labelled("source", statement.source)
    lines += labelled("status", describe(result))
    if result.counterexample is not None:
        lines += labelled("broken by", result.counterexample)
    for hypothesis in statement.hypotheses:
        lines += labelled("assumes", f"{hypothesis.name}: {hypothesis.sentence}")
        entries = [e for e in result.necessity if e.hypothesis == hypothesis.name]
        lines += [line for e in entries for line in labelled("", without(e, hypothesis))]
    lines += labelled("remark", statement.remark)
    lines += labelled("used in", ", ".join(statement.code))
    return "\n".join(lines)


def describe(result: Result) -> str:
    """The status in one sentence, with its numbers.

    Example:
        >>> from proofs_check.machinery.results import Result
        >>> describe(Result("a", "A", "no counterexample", 50, 0.25, 0.0))
        'no counterexample in 50 examples, largest deviation 0.25 of its tolerance'
    """
    plural = "" if result.examples == 1 else "s"
    words = f"in {result.examples} example{plural}"
    if result.worst:
        words += f", largest deviation {number(result.worst)} of its tolerance"
    if result.status == PROVED:
        return f"proved ({result.note}); no counterexample {words}"
    if result.status == REFUTED:
        again = ", confirmed in exact or high precision" if result.rechecked else ""
        return f"refuted{again}: {result.note}" if result.note else f"refuted{again}"
    note = f"; {result.note}" if result.note else ""
    if not result.examples:
        return result.status + note
    return f"{result.status} {words}{note}"


def without(entry: Necessity, hypothesis: Hypothesis) -> str:
    """What became of the statement without a hypothesis, in one sentence.

    Example:
        >>> from proofs_check.machinery.results import Necessity
        >>> from proofs_check.machinery.registry import select
        >>> (hypothesis,) = select("kkt-balance")[0].hypotheses
        >>> without(Necessity("stationary", "none found", 25), hypothesis)
        'without it: no counterexample in 25 tries'
    """
    if entry.outcome == NEEDED:
        return f"without it: {entry.instance}"
    if entry.outcome == NO_INSTANCE and hypothesis.violating is None:
        return "nothing breaks it alone"
    if entry.outcome == NO_INSTANCE:
        return "without it: nothing was tried"
    plural = "try" if entry.tries == 1 else "tries"
    return f"without it: no counterexample in {entry.tries} {plural}"


def format_list(statements: Sequence[Statement]) -> str:
    """Write names and titles, by topic.

    Example:
        >>> from proofs_check.machinery.registry import select
        >>> print(format_list(select("kkt-balance")).splitlines()[-1])
        1 statement
    """
    lines: list[str] = []
    width = max(len(statement.name) for statement in statements)
    cost = max(len(name) for name in EXAMPLES)
    for topic, heading in TOPICS.items():
        rows = [entry for entry in statements if topic_of(entry.name) == topic]
        if rows:
            lines += [f"{topic}: {heading}"]
            lines += [f"  {s.name:{width}}  {s.cost:{cost}}  {s.title}" for s in rows]
            lines.append("")
    return "\n".join([*lines, _plural(len(statements))])


def _needed(result: Result) -> str:
    """'2 of 3': hypotheses without which a counterexample was found."""
    if not result.necessity:
        return "-"
    needed = sum(entry.outcome == NEEDED for entry in result.necessity)
    return f"{needed} of {len(result.necessity)}"


def _plural(count: int) -> str:
    return f"{count} statement" if count == 1 else f"{count} statements"


def title_lines(text: str) -> list[str]:
    return [text, "=" * len(text)]


def wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def labelled(label: str, text: str) -> list[str]:
    lines = wrapped(text, " " * 10)
    return [label.ljust(10) + lines[0].lstrip(), *lines[1:]] if lines else []


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
    rechecked: bool | None = None

    @classmethod
    def not_run(cls, statement: Statement, note: str = "") -> Result:
        """The result of a statement that was not reached."""
        return cls(statement.name, statement.title, STOPPED, 0, 0.0, 0.0, note=note)

    @property
    def topic(self) -> str:
        """The folder of the statement, "" for one of your own."""
        return topic_of(self.name)

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
        return format_table(self)


def plain(value: float | None) -> float | None:
    """A number that JSON has, or None.

    Example:
        >>> plain(float("nan")) is None, plain(0.5)
        (True, 0.5)
    """
    return None if value is None or not math.isfinite(value) else float(value)
