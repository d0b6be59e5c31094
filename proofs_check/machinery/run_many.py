"""Many statements and their sabotages, in one process or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from identify.errors import InvalidInputError
from proofs_check.machinery.results import Result, Table
from proofs_check.machinery.run_one import run_statement, self_test
from proofs_check.machinery.self_tests import SelfTest
from proofs_check.machinery.statement import EXAMPLES, Statement

Progress = Callable[[str, float], None]


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
            from proofs_check.machinery.parallel import run_parallel

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
    from proofs_check.machinery.registry import select

    if time_limit is not None and not time_limit > 0.0:
        raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
    if processes < 1:
        raise InvalidInputError("processes", "at least 1", processes)
    if seed < 0:
        raise InvalidInputError("seed", "at least 0", seed)
    return Run(select(names, examples), examples, seed, time_limit, processes, job)
