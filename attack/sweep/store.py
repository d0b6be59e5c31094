"""The results of a sweep: one SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attack.sweep.outcome import Outcome, versions
from attack.sweep.spec import Sweep, Task
from identify.errors import FileError, InvalidInputError
from identify.model.tensor_file import PathLike

FORMAT = 1
WAITING, DONE, FAILED = "waiting", "done", "failed"
_TABLES = """
create table facts (name text primary key, value text not null);
create table runs (
    number integer primary key, identity text not null, "values" text not null,
    calls text not null, state text not null, code integer, results text, error text,
    seconds real, worker text, started text, resumed integer, versions text,
    checkpoint blob, files blob
);
"""


@dataclass(frozen=True)
class Row:
    """One run as it is on file; `results` by command, `state` waiting, done or failed."""

    number: int
    values: Mapping[str, Any]
    state: str
    results: Mapping[str, Any]
    error: str
    seconds: float | None
    worker: str
    started: str
    resumed: bool


class Results:
    """An open file of results; the process that opened it is the only one that writes.

    Example:
        >>> import tempfile
        >>> from attack.sweep.spec import Call
        >>> sweep = Sweep(Call("verify", ("net.npz",)), grid={"seed": (0, 1)})
        >>> with Results.create(Path(tempfile.mkdtemp()) / "r.sqlite", sweep) as results:
        ...     [task.number for task in results.missing()]
        [1, 2]
    """

    def __init__(self, path: Path, database: sqlite3.Connection, sweep: Sweep | None) -> None:
        self.path = path
        self._database = database
        self._sweep = sweep

    @staticmethod
    @contextmanager
    def create(
        path: PathLike, sweep: Sweep, inputs: Mapping[str, str] | None = None
    ) -> Iterator[Results]:
        """Make a new file, for its owner only; `inputs` are the hashes of the files that go in.

        Raises FileError if there is one already.
        """
        target = Path(path)
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError as error:
            raise FileError(target, "exists", "add --resume to go on with it") from error
        except OSError as error:
            raise FileError(target, f"cannot be made ({error.strerror})") from error
        with _connection(target) as database:
            database.executescript(_TABLES)
            facts = {
                "format": FORMAT, "sweep": asdict(sweep), "inputs": dict(inputs or {}),
                "versions": dict(versions()),
            }  # fmt: skip
            database.executemany(
                "insert into facts values (?, ?)", [(k, json.dumps(v)) for k, v in facts.items()]
            )
            database.executemany(
                'insert into runs (number, identity, "values", calls, state)'
                " values (?, ?, ?, ?, ?)",
                [_first_row(task) for task in sweep.tasks()],
            )
            database.commit()
            yield Results(target, database, sweep)

    @staticmethod
    @contextmanager
    def resume(
        path: PathLike, sweep: Sweep, inputs: Mapping[str, str] | None = None
    ) -> Iterator[Results]:
        """Open the file of an earlier start of the same sweep on the same input files.

        Raises InvalidInputError if runs or inputs are others, FileError for a file that is none.
        """
        target = Path(path)
        with Results.read(target) as found:
            known = dict(found._database.execute("select number, identity from runs"))
            wanted = {task.number: task.identity for task in sweep.tasks()}
            if known != wanted:
                raise InvalidInputError(
                    "--resume", f"the sweep of {target}", "another one",
                    "give the specification that it was started with, or another file",
                )  # fmt: skip
            if found.fact("inputs") != dict(inputs or {}):
                raise InvalidInputError(
                    "--resume", "the input files of the first start", "other contents",
                    "start anew into another file",
                )  # fmt: skip
            yield Results(target, found._database, sweep)

    @staticmethod
    @contextmanager
    def read(path: PathLike) -> Iterator[Results]:
        """Open a file to look at; raises FileError for a file that is no result of a sweep."""
        target = Path(path)
        if not target.is_file():
            raise FileError(target, "does not exist", "run kktcert sweep first")
        with _connection(target) as database:
            try:
                found = dict(database.execute("select name, value from facts"))
            except sqlite3.DatabaseError as error:
                raise FileError(target, "holds no results of a sweep") from error
            if json.loads(found.get("format", "0")) != FORMAT:
                raise FileError(target, "is of another version of kktcert sweep")
            yield Results(target, database, None)

    def fact(self, name: str) -> Any:
        """Return what is on file about the whole sweep: format, sweep, inputs, versions."""
        found = self._database.execute("select value from facts where name = ?", (name,))
        return json.loads(next(iter(found), ("null",))[0])

    def missing(self, *, failed: bool = False) -> tuple[Task, ...]:
        """Return the tasks without a result, and those that failed if asked for."""
        assert self._sweep is not None
        states = (WAITING, FAILED) if failed else (WAITING,)
        marks = ", ".join("?" * len(states))
        rows = self._database.execute(f"select number from runs where state in ({marks})", states)
        wanted = {number for (number,) in rows}
        return tuple(task for task in self._sweep.tasks() if task.number in wanted)

    def checkpoint(self, number: int) -> bytes | None:
        """Return where a run stood when it was last heard of."""
        found = self._database.execute("select checkpoint from runs where number = ?", (number,))
        return next(iter(found), (None,))[0]

    def keep_checkpoints(self, found: Mapping[int, bytes]) -> None:
        """Write where runs stand."""
        self._database.executemany(
            "update runs set checkpoint = ? where number = ?", [(b, n) for n, b in found.items()]
        )
        self._database.commit()

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Write finished runs; their checkpoints are no longer needed."""
        self._database.executemany(
            "update runs set state = ?, code = ?, results = ?, error = ?, seconds = ?, worker = ?,"
            " started = ?, resumed = ?, versions = ?, files = ?, checkpoint = null"
            " where number = ?",
            [_last_row(outcome) for outcome in outcomes],
        )
        self._database.commit()

    def rows(self) -> list[Row]:
        """Return all runs in their order."""
        found = self._database.execute(
            'select number, "values", state, results, error, seconds, worker, started, resumed'
            " from runs order by number"
        )
        return [
            Row(
                number, json.loads(values), state, json.loads(results or "{}"), error or "",
                seconds, worker or "", started or "", bool(resumed),
            )
            for number, values, state, results, error, seconds, worker, started, resumed in found
        ]  # fmt: skip

    def files(self, number: int) -> bytes | None:
        """Return the archive of what a run wrote, if it was kept."""
        found = self._database.execute("select files from runs where number = ?", (number,))
        return next(iter(found), (None,))[0]


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        database = sqlite3.connect(path)
    except sqlite3.Error as error:
        raise FileError(path, f"cannot be opened ({error})") from error
    try:
        yield database
    except sqlite3.OperationalError as error:
        raise FileError(path, f"cannot be written or read ({error})") from error
    finally:
        database.close()


def _first_row(task: Task) -> tuple[Any, ...]:
    calls = [asdict(call) for call in task.calls]
    return task.number, task.identity, json.dumps(dict(task.values)), json.dumps(calls), WAITING


def _last_row(outcome: Outcome) -> tuple[Any, ...]:
    return (
        FAILED if outcome.code else DONE, outcome.code, json.dumps(outcome.results), outcome.error,
        outcome.seconds, outcome.worker, outcome.started, int(outcome.resumed),
        json.dumps(dict(outcome.versions)), outcome.files, outcome.number,
    )  # fmt: skip
