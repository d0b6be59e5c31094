"""Statements in several processes: each takes the next name when it has finished one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from identify.errors import KktCertError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_parallel(
    names: Sequence[str],
    examples: float,
    seed: int,
    deadline: float | None,
    processes: int,
    job: Literal["statement", "sabotage"] = "statement",
) -> Iterator[tuple[str, Any]]:
    """Names with their results, as they finish; what is left when the generator closes is ended.

    Names that the deadline leaves out are not given to a process. Each process is started
    afresh and uses one thread for its linear algebra.

    Raises:
        KktCertError: a process died.
    """
    crew = _Crew(list(reversed(names)), deadline)
    try:
        crew.start(min(processes, len(names)), (examples, seed, deadline, job))
        yield from crew.results()
    finally:
        crew.end()


@dataclass
class _Crew:
    """Processes at work: the names that are left, and the process and name behind each channel."""

    waiting: list[str]
    deadline: float | None
    workers: dict[Connection, tuple[Any, str]] = field(default_factory=dict)

    def start(self, processes: int, arguments: tuple[Any, ...]) -> None:
        """Start the processes and give each its first name."""
        context = multiprocessing.get_context("spawn")
        with _quiet_start():
            for _ in range(processes):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, *arguments), daemon=True)
                process.start()
                theirs.close()
                self.workers[ours] = (process, "")
        for channel in list(self.workers):
            self._hand_out(channel)

    def results(self) -> Iterator[tuple[str, Any]]:
        """Names with their results until no process is left."""
        while self.workers:
            for ready in wait(list(self.workers)):
                assert isinstance(ready, Connection)
                process, name = self.workers[ready]
                try:
                    result = ready.recv()
                except EOFError as error:
                    process.join(5.0)
                    raise KktCertError(
                        f"{name}: its process ended with code {process.exitcode}; "
                        "try one process, or fewer statements"
                    ) from error
                if self.deadline is not None and time.monotonic() > self.deadline:
                    self.waiting.clear()
                self._hand_out(ready)
                yield name, result

    def end(self) -> None:
        """End what still works."""
        for channel, (process, _) in self.workers.items():
            channel.close()
            process.terminate()
        for process, _ in self.workers.values():
            process.join()

    def _hand_out(self, channel: Connection) -> None:
        """Give a process its next name, or let it end."""
        process, _ = self.workers[channel]
        if self.waiting:
            name = self.waiting.pop()
            self.workers[channel] = (process, name)
            channel.send(name)
            return
        channel.send(None)
        process.join()
        channel.close()
        del self.workers[channel]


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which is for this one, and use one thread each."""
    ours = threading.current_thread() is threading.main_thread()
    before = {name: os.environ.get(name) for name in _THREADS}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if ours else None
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(
    channel: Connection,
    examples: float,
    seed: int,
    deadline: float | None,
    job: Literal["statement", "sabotage"],
) -> None:
    """Answer each name with its result until there is no more, or nobody to answer."""
    import warnings

    from proofs_check.machinery.registry import select
    from proofs_check.machinery.run_one import run_statement, self_test

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    while True:
        try:
            name = channel.recv()
        except (EOFError, ConnectionResetError):
            return
        if name is None:
            return
        (statement,) = select(name)
        if job == "statement":
            channel.send(run_statement(statement, examples, seed, deadline=deadline))
        else:
            channel.send(self_test(statement, examples, seed, deadline=deadline))
