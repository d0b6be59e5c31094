"""The runs of a sweep on Dask: a cluster inside this machine, or one that is there."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attack.sweep.outcome import Outcome
from attack.sweep.spec import FOLDER, RESUMABLE, Sweep, Task
from attack.sweep.store import Results
from attack.sweep.worker import ENTRY, pack_folder, run_task
from identify.errors import FileError, InvalidInputError, KktCertError, one_line

if TYPE_CHECKING:
    from distributed import Client, Future

Progress = Callable[[str, float], None]
_POLL = 0.25
"""Seconds between two looks at what has ended."""
_STALE = 0.02
"""Seconds that a worker waits for a checkpoint that may not be there."""


@dataclass(frozen=True)
class Machines:
    """Where runs take place: at `scheduler`, or in so many processes of this machine.

    `workers` and `threads` are chosen so that their product is the number of cores, unless given;
    every library of a worker computes with `threads` threads.

    Example:
        >>> Machines(workers=3, threads=2).shape()
        (3, 2)
    """

    scheduler: str | None = None
    workers: int | None = None
    threads: int | None = None

    def shape(self) -> tuple[int, int]:
        """Return the numbers of workers and of threads of each."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = self.threads or 1
        return self.workers or max(1, (cores or 1) // threads), threads


@dataclass(frozen=True)
class Habits:
    """How a sweep runs: limits, what is kept, and what happens to runs that failed.

    `every` seconds a run hands on its checkpoint; `files` keeps what runs wrote; `failed` runs
    those again that failed; `entry` is the function that runs a command line.
    """

    time_limit: float | None = None
    every: float = 10.0
    files: bool = False
    failed: bool = False
    entry: str = ENTRY


def inputs_of(sweep: Sweep, folder: Path) -> dict[str, bytes]:
    """Pack the files and folders that the runs name, relative to the specification's folder.

    A word counts as a name if it has a suffix or a separator and something of that name exists.

    Raises FileError for one that cannot be read.
    """
    words = {
        word
        for task in sweep.tasks()
        for call in task.calls
        for word in call.filled({**task.values, FOLDER: f"{{{FOLDER}}}"})[1:]
    }
    found = {}
    for word in sorted(words):
        path = folder / word
        try:
            if (Path(word).suffix or os.sep in word) and path.exists():
                found[word] = pack_folder(path)
        except OSError as error:
            raise FileError(path, error.strerror or "cannot be read") from error
    return found


def hashes(inputs: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of every input."""
    return {word: hashlib.sha256(data).hexdigest() for word, data in inputs.items()}


def run_sweep(
    results: Results,
    inputs: Mapping[str, bytes],
    machines: Machines | None = None,
    habits: Habits | None = None,
    *,
    progress: Progress | None = None,
) -> None:
    """Run what is missing in a file of results.

    A worker that is lost costs the time since the last checkpoint of its run, which goes on from
    there on another one. If the scheduler is lost, what was known is on file, and the next call
    goes on. At the time limit a cluster of this machine ends; one that was there before goes on
    with the runs that it has begun, in vain.

    Raises:
        InvalidInputError: no scheduler at that address.
        KktCertError: the scheduler was lost.

    Cost: that of the runs, divided among the workers; about 10 ms of this process for each.
    """
    machines, habits = machines or Machines(), habits or Habits()
    tasks = results.missing(failed=habits.failed)
    if not tasks:
        return
    told = progress or (lambda stage, share: None)
    told("starting workers", 0.0)
    with connected(machines) as client:
        _Round(client, results, machines, habits, told).run(tasks, inputs)


@contextmanager
def connected(machines: Machines) -> Iterator[Client]:
    """Connect to the scheduler, or start a cluster of processes for as long as it lasts."""
    import dask
    from distributed import Client, LocalCluster

    workers, threads = machines.shape()
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    quiet = {
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads),
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.large-graph-warning-threshold": "1 TB",
    }
    with dask.config.set(quiet):
        if machines.scheduler is not None:
            try:
                client = Client(machines.scheduler, timeout="10s", set_as_default=False)
            except (OSError, ValueError, TimeoutError) as error:
                raise InvalidInputError(
                    "--scheduler", "the address of a Dask scheduler that answers",
                    machines.scheduler, one_line(str(error)) or "start one with dask scheduler",
                ) from error  # fmt: skip
            with client:
                yield client
            return
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, silence_logs=50,
                dashboard_address="127.0.0.1:0", memory_limit=0,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):  # fmt: skip
            yield client


@dataclass(frozen=True, eq=False)
class _Round:
    """One go at the tasks that are missing."""

    client: Client
    results: Results
    machines: Machines
    habits: Habits
    progress: Progress

    def run(self, tasks: tuple[Task, ...], inputs: Mapping[str, bytes]) -> None:
        """Submit all, and write what ends."""
        began, limit = time.monotonic(), self.habits.time_limit
        deadline = math.inf if limit is None else began + limit
        waiting = self._submitted(tasks, inputs)
        total, heard = len(waiting), time.monotonic()
        try:
            while waiting and time.monotonic() < deadline:
                self._check_connection()
                ended = [future for future in waiting if future.done()]
                self.results.record(_outcome(future, waiting.pop(future)) for future in ended)
                if time.monotonic() - heard > self.habits.every:
                    self._hear(waiting.values())
                    heard = time.monotonic()
                done = total - len(waiting)
                self.progress(f"{done} of {total} runs", done / total)
                if not ended:
                    time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))
        finally:
            if waiting and self.client.status == "running":
                self._hear(waiting.values())
                self.client.cancel(list(waiting), force=True)

    def _submitted(
        self, tasks: tuple[Task, ...], inputs: Mapping[str, bytes]
    ) -> dict[Future[Any], Task]:
        # As results of tasks, the inputs outlive a worker that held them.
        held = {
            word: self.client.submit(bytes, data, key=f"kktcert-input-{name}")
            for (word, data), name in zip(inputs.items(), hashes(inputs).values(), strict=True)
        }
        threads = self.machines.threads if self.machines.scheduler else self.machines.shape()[1]
        work = partial(
            _work, count=threads, every=self.habits.every, with_files=self.habits.files,
            entry=self.habits.entry,
        )  # fmt: skip
        started = time.time_ns()
        return {
            self.client.submit(
                work, task, held, self.results.checkpoint(task.number), _name(started, task),
                key=f"{_name(started, task)}", pure=False,
            ): task
            for task in tasks
        }  # fmt: skip

    def _hear(self, tasks: Any) -> None:
        """Write where runs stand."""
        found = self.client.run_on_scheduler(_variables)
        numbers = {task.identity: task.number for task in tasks}
        heard = {
            numbers[identity]: data
            for name, data in found.items()
            if (identity := name.rpartition("-")[2]) in numbers
        }
        self.results.keep_checkpoints(heard)

    def _check_connection(self) -> None:
        if self.client.status != "running":
            raise KktCertError(
                "the scheduler is lost; what had ended is on file, and --resume goes on"
            )


def _name(started: int, task: Task) -> str:
    return f"kktcert-run-{started}-{task.identity}"


def _work(
    task: Task,
    files: Mapping[str, bytes],
    checkpoint: bytes | None,
    name: str,
    **habits: Any,
) -> Outcome:
    """One run on a worker; an earlier attempt of it may have left a checkpoint."""
    if task.calls[0].command not in RESUMABLE:
        return run_task(task, files, **habits)
    from distributed import Variable, get_client

    place = Variable(name, client=get_client())
    with suppress(TimeoutError):
        checkpoint = place.get(timeout=_STALE)
    outcome = run_task(task, files, checkpoint=checkpoint, keep=place.set, **habits)
    place.delete()
    return outcome


def _variables(dask_scheduler: Any) -> dict[str, bytes]:
    """All checkpoints that the scheduler holds; runs there."""
    held = dask_scheduler.extensions["variables"].variables
    return {
        name: record["value"]
        for name, record in held.items()
        if isinstance(name, str) and name.startswith("kktcert-run-") and record["type"] == "msgpack"
    }


def _outcome(future: Future[Any], task: Task) -> Outcome:
    """The outcome of a run that ended, whichever way."""
    if future.status == "finished":
        done: Outcome = future.result()
        return done
    error = future.exception() if future.status == "error" else None
    text = one_line(f"{type(error).__name__}: {error}" if error else f"the run was {future.status}")
    lost = Outcome(task.number, 1, {}, text, 0.0, "", "")
    return replace(lost, error=text[:500])
