"""What a sweep costs beside its runs: throughput of two workers over twice that of one, overhead.

Run from the root on an idle machine:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.sweep_overhead [--tasks 64] [--seconds 2]

Every run keeps one core busy for so many seconds of its own processor time. Overhead is the wall
time of runs that do nothing, divided by their number.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attack.sweep.cluster import Habits, Machines, connected, run_sweep
from attack.sweep.spec import Call, Sweep
from attack.sweep.store import Results

ENTRY = "tests.benchmarks.sweep_overhead:busy"


def busy(words: Sequence[str]) -> int:
    """Keep a core busy for the seconds that follow --noise, and print a result."""
    until = time.process_time() + float(words[words.index("--noise") + 1])
    while time.process_time() < until:
        pass
    print('{"verdict": "undecided"}')
    return 0


def wall(tasks: int, seconds: float, workers: int) -> float:
    """Wall seconds of so many runs on so many workers that are there and warm."""
    sweep = Sweep(Call("verify", ("net",), {"noise": seconds}), grid={"seed": tuple(range(tasks))})
    habits = Habits(entry=ENTRY)
    with (
        connected(Machines(workers=workers, threads=1)) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        there = Machines(scheduler=client.scheduler.address)
        warm = Sweep(Call("verify", ("net",), {"noise": 0.0}), draws=8 * workers)
        with Results.create(Path(folder) / "warm.sqlite", warm) as results:
            run_sweep(results, {}, there, habits)
        with Results.create(Path(folder) / "runs.sqlite", sweep) as results:
            began = time.perf_counter()
            run_sweep(results, {}, there, habits)
            spent = time.perf_counter() - began
            assert {row.state for row in results.rows()} == {"done"}
    return spent


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    one, several = (wall(options.tasks, options.seconds, n) for n in (1, options.workers))
    nothing = wall(options.tasks, 0.0, 1)
    share = one / (options.workers * several)
    print(f"{options.tasks} runs of {options.seconds} s: one worker {one:.1f} s, ", end="")
    print(f"{options.workers} workers {several:.1f} s, {share:.0%} of {options.workers} times one")
    print(f"overhead of a run: {1e3 * nothing / options.tasks:.0f} ms")


if __name__ == "__main__":
    main()
