"""The command that redoes the proofs of a report."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from identify.checkpoints.pair import KIND as PAIR
from identify.command.data_options import ModelOptions, SourceOptions
from identify.command.formats import show_findings
from identify.command.hub import take_model
from identify.command.memory import refuse_report
from identify.command.names import Format
from identify.command.options import GateOptions, LogOptions, MemoryOptions
from identify.command.output import say_error
from identify.report.findings import check_findings

UNUSABLE = 2
_LARGEST = 100_000_000


class RequireName(StrEnum):
    """What a check may be asked to end with."""

    CONFIRMED = "confirmed"


def check(
    *,
    report: Annotated[
        Path, typer.Argument(metavar="REPORT.json", help="A report that verify or recover wrote.")
    ],
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="The network, as for verify.", callback=take_model),
    ],
    require: Annotated[
        RequireName | None,
        typer.Option(help="End with exit code 4 unless the verdict is confirmed."),
    ] = None,
    source: SourceOptions,
    layout: ModelOptions,
    run: GateOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Redo every proof of a report without the code that made it."""
    from identify.checker.check import check_report, exit_code
    from identify.checker.outcome import CheckInputError

    beside = [path for path in (source.gradient, source.initial) if path is not None]
    refuse_report(memory.memory_limit, report, [model, *beside], layout.key)
    told = log.log()
    try:
        with told.progress() as show:
            result = check_report(
                report,
                model,
                gradient=source.gradient,
                initial=source.initial,
                degree=layout.degree,
                activation=layout.activation,
                layers=layout.layers,
                key=layout.key,
                progress=show,
                time_limit=run.time_limit,
            )
    except CheckInputError as error:
        say_error(_no_checker(report) or str(error))
        return UNUSABLE
    if run.format is Format.JSON:
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False), flush=True)
    elif run.format is Format.TEXT:
        print(result, flush=True)
    else:
        needed = require is not None
        show_findings(check_findings(str(report), result.to_dict(), required=needed), run.format)
    return exit_code(result, required=require is not None)


def _no_checker(report: Path) -> str:
    """The one line on reports that claim nothing, else nothing."""
    try:
        # A pipe would be waited for.
        if not report.is_file() or report.stat().st_size > _LARGEST:
            return ""
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    if isinstance(content, dict) and content.get("kind") == PAIR:
        return f"{report}: reports on two checkpoints claim nothing that could be checked"
    return ""
