"""The commands that show: a demonstration, and what a file holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from identify.command.data_options import ModelOptions
from identify.command.hub import take_model
from identify.command.limits import refuse_above
from identify.command.memory import DEMO, open_within
from identify.command.names import Format
from identify.command.options import LogOptions, MemoryOptions, RunOptions, ThreadOptions
from identify.command.output import (
    OutputFolder,
    require_extra,
)
from identify.command.routing import what_to_run
from identify.errors import (
    InvalidInputError,
)


def demo(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for pictures.")] = Path(
        "demo-output"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run.")] = False,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of digits and networks.")] = 0,
    threads: ThreadOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Show on handwritten digits what weights determine and what they do not."""
    require_extra("demo", "demo", ("matplotlib", "sklearn"))
    if seed < 0:
        raise InvalidInputError("--seed", "at least 0", seed)
    refuse_above(memory.memory_limit, DEMO, "its networks have fixed sizes")
    from identify.demo.demo import run_demo

    with OutputFolder(out, force=force) as folder:
        try:
            with log.log().progress() as show:
                result = run_demo(out, seed=seed, progress=show)
        except OSError as error:
            remove_half_written(error, out)
            raise
        folder.written += [entry.name for entry in out.iterdir()]
        print(result, flush=True)
    return 0


def remove_half_written(error: OSError, folder: Path) -> None:
    """Remove the newest file of a folder after an error of writing without a name, and name it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "half.txt").write_text("ha")
        >>> error = OSError(28, "No space left on device")
        >>> remove_half_written(error, folder)
        >>> Path(error.filename).name, list(folder.iterdir())
        ('half.txt', [])
    """
    found = [path for path in folder.rglob("*") if path.is_file()]
    if error.filename is None and found:
        newest = max(found, key=lambda path: path.stat().st_mtime_ns)
        newest.unlink()
        error.filename = str(newest)


def inspect(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A network or samples.", callback=take_model)
    ],
    layout: ModelOptions,
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Say what a file holds, which sources fit it, and what the verifier would need."""
    from identify.command.inspection import inspect_file

    # Opened once: the headers of thousands of arrays take their time.
    opened = open_within(memory.memory_limit, file, layout.key)
    found = inspect_file(
        opened,
        degree=layout.degree,
        activation=layout.activation,
        layers=layout.layers,
        key=layout.key,
        seed=run.seed,
        head=layout.head,
    )
    found = replace(found, run=what_to_run(found, file, layout, opened))
    if run.format is Format.JSON:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False), flush=True)
    else:
        print(found, flush=True)
    return 0
