"""The command of this package. No statement is loaded before it runs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from identify.command.limits import refuse_above
from identify.command.memory import STATEMENTS
from identify.command.names import Format
from identify.command.options import LogOptions, MemoryOptions, RunOptions
from identify.command.output import require_extra, say_error
from identify.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proofs_check.machinery.run_many import Run
    from proofs_check.machinery.statement import Statement

REFUTED, INTERRUPTED = 3, 130
_FEW = 3
"""Statements that are shown in full, and run without further processes."""


def proofs(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Statements or topics; all unless given."),
    ] = None,
    examples: Annotated[
        float,
        typer.Option(metavar="FACTOR", help="Factor on the number of instances of every class."),
    ] = 1.0,
    listed: Annotated[
        bool, typer.Option("--list", help="Only list the statements; nothing is run.")
    ] = False,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Put every deliberate mistake in; each must be found."),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes; unless given 2, or 1 for few statements."),
    ] = None,
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Check every statement of the theory, or those named."""
    if processes is not None and processes < 1:
        raise InvalidInputError("--processes", "at least 1", processes)
    from proofs_check.machinery.registry import select

    chosen = select(names or "all", examples)
    if listed:
        print(_list(chosen, run.format), flush=True)
        return 0
    require_extra("proofs", "proofs", ("hypothesis",))
    from proofs_check.machinery.run_many import Run

    job: Literal["statement", "sabotage"] = "sabotage" if self_test else "statement"
    if processes is None:
        processes = 1 if len(chosen) <= _FEW else min(2, os.cpu_count() or 1)
    refuse_above(memory.memory_limit, processes * STATEMENTS, "give --processes 1")
    going = Run(chosen, examples, run.seed, run.time_limit, processes, job)
    interrupted = False
    try:
        with log.log().progress() as show:
            going.go(show)
    except KeyboardInterrupt:
        interrupted = True
    return (_show_self_test if self_test else _show)(going, run.format, interrupted)


def _show(going: Run, form: Format, interrupted: bool) -> int:
    table = going.table(interrupted=interrupted)
    if form is Format.JSON:
        print(table.to_json(), flush=True)
    else:
        from proofs_check.machinery.results import format_details

        if len(going.statements) <= _FEW:
            for statement in going.statements:
                print(format_details(statement, table[statement.name]), end="\n\n")
        print(table, flush=True)
    return INTERRUPTED if interrupted else REFUTED if table.refuted else 0


def _show_self_test(going: Run, form: Format, interrupted: bool) -> int:
    found = going.self_test(interrupted=interrupted)
    print(found.to_json() if form is Format.JSON else found, flush=True)
    if interrupted:
        return INTERRUPTED
    if found.missed:
        say_error(f"{len(found.missed)} deliberate mistakes were not found")
        return REFUTED
    return 0


def _list(chosen: Sequence[Statement], form: Format) -> str:
    if form is Format.JSON:
        return json.dumps({"statements": [_facts(entry) for entry in chosen]}, indent=2)
    from proofs_check.machinery.results import format_list

    return format_list(chosen)


def _facts(statement: Statement) -> dict[str, Any]:
    """What can be said without a run."""
    from proofs_check.machinery.registry import topic_of

    return {
        "name": statement.name,
        "title": statement.title,
        "topic": topic_of(statement.name),
        "cost": statement.cost,
        "sentence": statement.sentence,
        "formula": statement.formula,
        "source": statement.source,
        "hypotheses": [
            {"name": entry.name, "sentence": entry.sentence} for entry in statement.hypotheses
        ],
        "sabotages": [
            {"name": entry.name, "kind": entry.kind, "sentence": entry.sentence}
            for entry in statement.sabotages
        ],
        "algebra": statement.algebra_note or None,
        "remark": statement.remark,
        "code": list(statement.code),
    }
