"""Run statements: proofs by algebra, random instances, necessity of hypotheses, sabotage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from identify.errors import InvalidInputError
from proofs_check import strategies
from proofs_check.engine import Trial, search
from proofs_check.results import (
    HELD,
    NEEDED,
    NO_INSTANCE,
    NOT_BROKEN,
    PROVED,
    REFUTED,
    STOPPED,
    Found,
    Necessity,
    Result,
    SelfTest,
    Table,
)
from proofs_check.statement import EXAMPLES, Check, Hypothesis, Sabotage, Statement

__all__ = [
    "HELD",
    "PROVED",
    "REFUTED",
    "STOPPED",
    "Found",
    "Necessity",
    "Result",
    "Run",
    "Table",
    "check",
    "check_sabotages",
    "count_examples",
    "run_statement",
    "self_test",
]

Progress = Callable[[str, float], None]
_NECESSITY_SHARE, _NECESSITY_LEAST = 0.5, 10
"""Tries without a hypothesis: half of the examples, and at least so many; the first one ends it."""
_PATIENCE = 20
"""A sabotage that leaves no instance in so many is found: the statement is not confirmed."""


def count_examples(statement: Statement, factor: float) -> int:
    """Instances that a run tries, at least one.

    Example:
        >>> from proofs_check.registry import select
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
        >>> from proofs_check.registry import select
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
        topic=statement.topic,
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

    It is found if the conclusion fails, cannot be computed, or if nothing satisfies the
    hypotheses any more. Sabotages that the deadline or a missing package leaves untried are not
    listed.

    Example:
        >>> from proofs_check.registry import select
        >>> [entry.found for entry in self_test(select("kkt-balance")[0])]
        [True, True]
    """
    count = count_examples(statement, examples)
    found: list[Found] = []
    for entry in statement.sabotages:
        if deadline is not None and time.monotonic() > deadline:
            break
        try:
            found.append(_sabotaged(statement, entry, count, seed))
        except ModuleNotFoundError:
            continue
    return tuple(found)


def _sabotaged(statement: Statement, entry: Sabotage, count: int, seed: int) -> Found:
    conclusion = entry.conclusion or statement.conclusion
    # What was built by sound code must not hide the mistake, nor outlive it.
    strategies.forget()
    try:
        with entry.implementation() if entry.implementation is not None else nullcontext():
            trial = search(
                statement.instances(),
                statement.satisfied,
                conclusion,
                count,
                seed,
                shrink=False,
                patience=_PATIENCE,
            )
    except (ArithmeticError, AssertionError, ValueError):
        return Found(entry.name, entry.kind, True, 1)
    finally:
        strategies.forget()
    return Found(entry.name, entry.kind, trial.broken or trial.tries == 0, trial.tries)


@dataclass
class Run:
    """A run of several statements that keeps what it reached, also when it is interrupted.

    `results` maps names to a `Result`, or to what was found of the sabotages.
    """

    statements: tuple[Statement, ...]
    examples: float = 1.0
    seed: int = 0
    time_limit: float | None = None
    processes: int = 1
    job: Literal["statement", "sabotage"] = "statement"
    results: dict[str, Any] = field(default_factory=dict)
    late: bool = False

    def go(self, progress: Progress | None = None) -> None:
        """Run what has no result yet."""
        deadline = None if self.time_limit is None else time.monotonic() + self.time_limit
        for name, result in self._finished(deadline, progress):
            self.results[name] = result
            if progress is not None:
                progress(name, len(self.results) / len(self.statements))
        self.late = deadline is not None and time.monotonic() > deadline

    def _finished(
        self, deadline: float | None, progress: Progress | None
    ) -> Iterator[tuple[str, Any]]:
        todo = [entry for entry in self.statements if entry.name not in self.results]
        if self.processes > 1 and len(todo) > 1:
            from proofs_check.parallel import run_parallel

            # The longest first, so that no process ends with one alone; with a limit as listed.
            if deadline is None:
                todo.sort(key=lambda entry: EXAMPLES[entry.cost])
            names = [entry.name for entry in todo]
            count = min(self.processes, len(names))
            yield from run_parallel(names, self.examples, self.seed, deadline, count, self.job)
            return
        run: Callable[..., Any] = run_statement if self.job == "statement" else self_test
        for entry in todo:
            if deadline is not None and time.monotonic() > deadline:
                return
            if progress is not None:
                progress(entry.name, len(self.results) / len(self.statements))
            yield entry.name, run(entry, self.examples, self.seed, deadline=deadline)

    def table(self, *, interrupted: bool = False) -> Table:
        """The statements in their order, with what was reached."""
        reason = self._stopped(interrupted)
        rows = tuple(
            self.results.get(entry.name) or Result.not_run(entry, reason)
            for entry in self.statements
        )
        return Table(rows, self.examples, self.seed, reason)

    def self_test(self, *, interrupted: bool = False) -> SelfTest:
        """The sabotages in the order of their statements, with what was reached."""
        rows = [(entry.name, self.results.get(entry.name, ())) for entry in self.statements]
        return SelfTest(tuple(rows), self.examples, self.seed, self._stopped(interrupted))

    def _stopped(self, interrupted: bool) -> str:
        return "interrupted" if interrupted else "time limit" if self.late else ""


def check(
    names: str | Sequence[str] = "all",
    examples: float = 1.0,
    seed: int = 0,
    *,
    time_limit: float | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Table:
    """Check statements by name.

    Args:
        names: "all", or names of statements or topics.
        examples: factor on the number of instances of every cost class.
        seed: of the instances; the same seed gives the same table but for `seconds`, however many
            processes there are.
        time_limit: seconds; statements that are not reached have the status "not run".
        processes: with more than one, a script needs its `if __name__ == "__main__"`.
        progress: called with a name and a share in [0, 1].

    Raises:
        InvalidInputError: an unknown name, or a number out of range.

    Example:
        >>> check(["kkt-balance"], examples=0.1).refuted
        ()
    """
    run = _prepare(names, examples, seed, time_limit, processes, "statement")
    run.go(progress)
    return run.table()


def check_sabotages(
    names: str | Sequence[str] = "all",
    examples: float = 1.0,
    seed: int = 0,
    *,
    time_limit: float | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> SelfTest:
    """Put every deliberate mistake in, one at a time, and see whether the statement finds it.

    The arguments are those of `check`.

    Example:
        >>> check_sabotages(["kkt-balance"], examples=0.1).missed
        ()
    """
    run = _prepare(names, examples, seed, time_limit, processes, "sabotage")
    run.go(progress)
    return run.self_test()


def _prepare(
    names: str | Sequence[str],
    examples: float,
    seed: int,
    time_limit: float | None,
    processes: int,
    job: Literal["statement", "sabotage"],
) -> Run:
    from proofs_check.registry import select

    if time_limit is not None and not time_limit > 0.0:
        raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
    if processes < 1:
        raise InvalidInputError("processes", "at least 1", processes)
    if seed < 0:
        raise InvalidInputError("seed", "at least 0", seed)
    return Run(select(names, examples), examples, seed, time_limit, processes, job)
