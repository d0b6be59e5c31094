"""Run statements: proofs by algebra, random instances, necessity of hypotheses, sabotage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from identify.errors import one_line
from proofs_check import strategies
from proofs_check.machinery.results import (
    HELD,
    NEEDED,
    NO_INSTANCE,
    NOT_BROKEN,
    PROVED,
    REFUTED,
    STOPPED,
    Necessity,
    Result,
    Table,
)
from proofs_check.machinery.search import Trial, search
from proofs_check.machinery.self_tests import FOUND, MISSED, UNTRIED, Found, failure
from proofs_check.machinery.statement import EXAMPLES, Check, Hypothesis, Sabotage, Statement

__all__ = [
    "HELD",
    "PROVED",
    "REFUTED",
    "STOPPED",
    "Found",
    "Necessity",
    "Result",
    "Table",
    "count_examples",
    "run_statement",
    "self_test",
]

_NECESSITY_SHARE, _NECESSITY_LEAST = 0.5, 10
"""Tries without a hypothesis: half of the examples, and at least so many; the first one ends it."""
_PATIENCE = 200
"""A self-test ends after so many instances of which none satisfies the hypotheses."""


def count_examples(statement: Statement, factor: float) -> int:
    """Instances that a run tries, at least one.

    Example:
        >>> from proofs_check.machinery.registry import select
        >>> count_examples(select("kkt-balance")[0], 0.5)
        100
    """
    return max(1, round(EXAMPLES[statement.cost] * factor))


def run_statement(
    statement: Statement,
    examples: float = 1.0,
    seed: int = 0,
    *,
    deadline: float | None = None,
    necessity: bool = True,
) -> Result:
    """Prove a statement by algebra where it can be, and try it on random instances.

    An instance that fails is judged again by `recheck`, where there is one, before it counts, and
    is then shrunk. A package that is missing leaves the statement "not run".

    Args:
        statement: what to check.
        examples: factor on the number of instances of its cost class.
        seed: of the instances; the same seed gives the same result but for `seconds`.
        deadline: a value of `time.monotonic`; instances stop there.
        necessity: also look for counterexamples without each hypothesis.

    Example:
        >>> from proofs_check.machinery.registry import select
        >>> run_statement(select("kkt-balance")[0], examples=0.05).status
        'proved'
    """
    started = time.monotonic()
    try:
        return _run(statement, examples, seed, deadline, necessity, started)
    except ModuleNotFoundError as error:
        return Result.not_run(statement, f"needs the package {error.name}, which is not installed")


def _run(
    statement: Statement,
    examples: float,
    seed: int,
    deadline: float | None,
    necessity: bool,
    started: float,
) -> Result:
    count = count_examples(statement, examples)
    judged = _Judge(statement)
    trial = search(
        statement.instances(), statement.satisfied, judged, count, seed, deadline=deadline
    )
    status, note = _status(statement, trial, deadline)
    if judged.alarms:
        words = f"{judged.alarms} failed in float64 and hold in exact or high precision"
        note = f"{note}; {words}" if note else words
    entries: list[Necessity] = []
    if necessity and status != REFUTED:
        share = max(_NECESSITY_LEAST, round(count * _NECESSITY_SHARE))
        for index, hypothesis in enumerate(statement.hypotheses):
            entries.append(_necessity(statement, hypothesis, share, seed + index + 1, deadline))
    return Result(
        name=statement.name,
        title=statement.title,
        status=status,
        examples=trial.tries,
        worst=trial.worst,
        seconds=time.monotonic() - started,
        counterexample=repr(trial.failing) if trial.broken else None,
        necessity=tuple(entries),
        note=note,
        rechecked=True if trial.broken and statement.recheck is not None else None,
    )


def _status(statement: Statement, trial: Trial, deadline: float | None) -> tuple[str, str]:
    """The status, and what is to be said beside it."""
    if trial.check is not None:
        return REFUTED, trial.check.detail
    late = deadline is not None and time.monotonic() > deadline
    if statement.algebra is not None and not late:
        if statement.algebra():
            return PROVED, statement.algebra_note
        return REFUTED, f"the algebra does not close ({statement.algebra_note})"
    if trial.tries:
        return HELD, "time limit" if late else ""
    return STOPPED, "time limit" if late else "no instance satisfies the hypotheses"


@dataclass
class _Judge:
    """A statement's conclusion, with its recheck for instances that fail."""

    statement: Statement
    alarms: int = 0

    def __call__(self, instance: Any) -> Check:
        check = self.statement.conclusion(instance)
        if check.holds or self.statement.recheck is None:
            return check
        again = self.statement.recheck(instance)
        if again.holds:
            self.alarms += 1
            return again
        return again if again.detail else check


def _necessity(
    statement: Statement, hypothesis: Hypothesis, count: int, seed: int, deadline: float | None
) -> Necessity:
    if hypothesis.violating is None:
        return Necessity(hypothesis.name, NO_INSTANCE, 0, None, hypothesis.necessary)

    def accept(instance: Any) -> bool:
        alone = statement.satisfied(instance, without=hypothesis.name)
        return alone and not hypothesis.predicate(instance)

    trial = search(
        hypothesis.violating(), accept, _Judge(statement), count, seed, deadline=deadline
    )
    outcome = NEEDED if trial.broken else NOT_BROKEN if trial.tries else NO_INSTANCE
    instance = repr(trial.failing) if trial.broken else None
    return Necessity(hypothesis.name, outcome, trial.tries, instance, hypothesis.necessary)


def self_test(
    statement: Statement,
    examples: float = 1.0,
    seed: int = 0,
    *,
    deadline: float | None = None,
) -> tuple[Found, ...]:
    """Try every sabotage of a statement; each has to be found.

    It is found if the conclusion fails on an instance whose hypotheses hold and for which the
    sound conclusion holds. Instances and hypotheses come from sound code: only the conclusion runs
    inside the sabotage. An error, or no instance at all, finds nothing; what the deadline or a
    missing package leaves out is listed as not tried.

    Example:
        >>> from proofs_check.machinery.registry import select
        >>> [entry.outcome for entry in self_test(select("kkt-balance")[0])]
        ['found', 'found']
    """
    count = count_examples(statement, examples)
    found: list[Found] = []
    for entry in statement.sabotages:
        if deadline is not None and time.monotonic() > deadline:
            found.append(Found(entry.name, entry.kind, UNTRIED, 0, "time limit"))
            continue
        try:
            found.append(_sabotaged(statement, entry, count, seed, deadline))
        except ModuleNotFoundError as error:
            reason = f"needs the package {error.name}, which is not installed"
            found.append(Found(entry.name, entry.kind, UNTRIED, 0, reason))
    return tuple(found)


def _sabotaged(
    statement: Statement, entry: Sabotage, count: int, seed: int, deadline: float | None
) -> Found:
    conclusion = entry.conclusion or statement.conclusion

    def judged(instance: Any) -> Check:
        # What sound code has kept must not hide the mistake, nor may the mistake outlive it.
        strategies.forget()
        try:
            with entry.context():
                check = conclusion(instance)
        finally:
            strategies.forget()
        # Where the sound conclusion fails as well, as by rounding, the mistake is not the reason.
        if not check.holds and not statement.conclusion(instance).holds:
            return Check.of(True)
        return check

    reason = "no instance satisfies the hypotheses"
    try:
        trial = search(
            statement.instances(),
            statement.satisfied,
            judged,
            count,
            seed,
            deadline=deadline,
            shrink=False,
            patience=_PATIENCE,
        )
    except (ArithmeticError, AssertionError, ValueError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        return Found(entry.name, entry.kind, MISSED, 0, reason)
    if trial.check is not None:
        return Found(entry.name, entry.kind, FOUND, trial.tries, failure(trial.check))
    if deadline is not None and time.monotonic() > deadline:
        return Found(entry.name, entry.kind, UNTRIED, trial.tries, "time limit")
    if trial.tries:
        reason = "the conclusion holds"
    return Found(entry.name, entry.kind, MISSED, trial.tries, reason)
