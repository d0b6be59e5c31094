"""The command `kktcert sweep`: many runs, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from identify.command.groups import in_panel
from identify.command.names import Format
from identify.command.options import PLAIN_FORMAT, LogOptions
from identify.command.output import INTERRUPTED, check_writable, require_extra
from identify.errors import InvalidInputError, one_line

_sweep, _showing = in_panel("Sweep"), in_panel("Results")
SHOW, SUFFIX = "show", ".sqlite"
PACKAGES = ("distributed",)
FAILED_RUNS = 1


@dataclass(frozen=True)
class SweepOptions:
    """Where runs take place, and what is kept."""

    out: Annotated[
        Path | None,
        _sweep(metavar="FILE", help="Results, one SQLite file; SPEC with .sqlite unless given."),
    ] = None
    resume: Annotated[bool, _sweep("--resume", help="Go on with the runs that are missing.")] = (
        False
    )
    failed: Annotated[
        bool, _sweep("--failed", help="With --resume: run those again that failed.")
    ] = False
    scheduler: Annotated[
        str | None,
        _sweep(metavar="ADDRESS", help="A Dask scheduler, such as tcp://10.0.0.1:8786."),
    ] = None
    workers: Annotated[
        int | None,
        _sweep(min=1, metavar="N", help="Processes here; unless given one a core."),
    ] = None
    threads: Annotated[
        int | None, _sweep(min=1, metavar="N", help="Threads of each process; 1 unless given.")
    ] = None
    keep_files: Annotated[
        bool, _sweep("--keep-files", help="Keep what the runs write in the results.")
    ] = False
    every: Annotated[
        float, _sweep(min=0.1, metavar="S", help="Seconds between checkpoints of a run.")
    ] = 10.0
    time_limit: Annotated[
        float | None,
        _sweep(metavar="S", help="Seconds after which --resume is left to go on."),
    ] = None

    def check(self) -> None:
        """Refuse what does not go together."""
        if self.failed and not self.resume:
            raise InvalidInputError("--failed", "--resume beside it", "none")
        if self.scheduler is not None and self.workers is not None:
            raise InvalidInputError("--workers", "no --scheduler beside it", "both", "drop one")
        if self.time_limit is not None and not self.time_limit > 0:
            raise InvalidInputError("--time-limit", "a positive number of seconds", self.time_limit)


@dataclass(frozen=True)
class ShowOptions:
    """How results are shown."""

    format: Annotated[Format, _showing(**PLAIN_FORMAT)] = Format.TEXT
    columns: Annotated[
        str | None,
        _showing(metavar="A,B,...", help="Results to show, such as verdict,evaluate.found."),
    ] = None
    extract: Annotated[
        Path | None,
        _showing(metavar="DIR", help="With show: write the files that were kept into a folder."),
    ] = None


def sweep(
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC.toml|show RESULTS", help="What to run; or the results to show."
        ),
    ],
    options: SweepOptions,
    showing: ShowOptions,
    log: LogOptions,
) -> int:
    """Run a command over a grid of values or random ones, on all cores or a cluster."""
    if words[0] == SHOW:
        if len(words) != 2:
            raise InvalidInputError("show", "one file of results", len(words) - 1)
        return _show(Path(words[1]), showing)
    if len(words) != 1:
        raise InvalidInputError("SPEC", "one specification, or: show RESULTS", " ".join(words))
    require_extra("sweep", "sweep", PACKAGES)
    return _run(Path(words[0]), options, showing, log)


def _run(spec: Path, options: SweepOptions, showing: ShowOptions, log: LogOptions) -> int:
    from attack.sweep.cluster import Habits, Machines, hashes, inputs_of, run_sweep
    from attack.sweep.spec import read_sweep
    from attack.sweep.store import FAILED, WAITING

    wanted = read_sweep(spec)
    if wanted.search is not None:
        require_extra("sweep", "sweep", ("optuna",))
    inputs = inputs_of(wanted, spec.parent)
    target = options.out or spec.with_suffix(SUFFIX)
    machines = Machines(options.scheduler, options.workers, options.threads)
    habits = Habits(options.time_limit, options.every, options.keep_files, options.failed)
    told, interrupted = log.log(), False
    with _opened(target, wanted, hashes(inputs), resume=options.resume) as results:
        try:
            with told.progress() as show:
                run_sweep(results, inputs, machines, habits, progress=show)
        except KeyboardInterrupt:
            interrupted = True
        rows = results.rows()
    waiting = sum(row.state == WAITING for row in rows)
    if waiting:
        told.note(f"{waiting} of {len(rows)} runs are missing; --resume goes on with them")
    _print(rows, showing)
    if showing.format is Format.TEXT:
        print(f"\nwritten to {one_line(str(target))}", flush=True)
    if interrupted:
        return INTERRUPTED
    return FAILED_RUNS if any(row.state == FAILED for row in rows) else 0


def _opened(
    target: Path, wanted: Any, inputs: dict[str, str], *, resume: bool
) -> AbstractContextManager[Any]:
    from attack.sweep.store import Results

    if resume:
        return Results.resume(target, wanted, inputs)
    if not target.parent.is_dir():
        raise InvalidInputError("--out", "a file in a folder that exists", str(target))
    check_writable(target.parent, "--out", "choose another folder")
    return Results.create(target, wanted, inputs)


def _show(path: Path, showing: ShowOptions) -> int:
    from attack.sweep.store import Results
    from attack.sweep.worker import unpack_folder

    with Results.read(path) as results:
        rows = results.rows()
        if showing.extract is not None:
            for row in rows:
                archive = results.files(row.number)
                if archive is not None:
                    unpack_folder(archive, showing.extract / f"{row.number:05d}")
    _print(rows, showing)
    return 0


def _print(rows: Sequence[Any], showing: ShowOptions) -> None:
    from attack.sweep.show import records_json, sweep_table

    if showing.format is Format.JSON:
        print(records_json(rows), flush=True)
        return
    columns = [name.strip() for name in (showing.columns or "").split(",") if name.strip()]
    title = f"Sweep of {len(rows)} {'run' if len(rows) == 1 else 'runs'}"
    print("\n".join([title, "=" * len(title), *sweep_table(rows, columns)]), flush=True)
