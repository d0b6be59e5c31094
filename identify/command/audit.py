"""The command for the owner of the data."""

from __future__ import annotations

from typing import Annotated

import typer

from identify.command.data_options import (
    AssumeOptions,
    DataArgument,
    ModelArgument,
    ModelOptions,
    SourceOptions,
)
from identify.command.deep import DeepRequest
from identify.command.formats import show_audit
from identify.command.gate import BLOCKED, parse_exposed
from identify.command.inputs import check_dimension, open_data, search_arguments
from identify.command.limits import check_memory
from identify.command.options import GateOptions, LogOptions, MemoryOptions, OutputOptions
from identify.command.output import (
    OutputFolder,
)
from identify.command.page import AUDIT, check_line, write_page
from identify.command.routing import routed
from identify.command.run import RESULTS
from identify.command.stationary import audit_relu
from identify.model.dataset import load_samples


def audit(
    *,
    model: ModelArgument,
    data: DataArgument,
    source: SourceOptions,
    layout: ModelOptions,
    assume: AssumeOptions,
    fail_on: Annotated[
        str | None,
        typer.Option(metavar="exposed", help="End with exit code 3 if a sample is exposed."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="M", help="Mean that the network's inputs had removed."),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(metavar="S", help="What they were divided by: (x - M) / S is audited."),
    ] = None,
    run: GateOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    log: LogOptions,
) -> int:
    """Show the owner of the data which samples the weights expose, and how exactly."""
    from identify.exposure.affine import normalised
    from identify.exposure.audit import audit as audit_samples

    gated = parse_exposed(fail_on)
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        deep = DeepRequest(model, source, layout, assume, run, memory, log.log())
        if deep.applies():
            with routed(model, source, layout):
                return audit_relu(deep, data, (mean, std), folder, gated=gated)
        given = open_data(model, source, layout)
        check_memory(memory.memory_limit, given, run.seed)
        truth = load_samples(data)
        check_dimension(truth.samples, given.network.dimension, data)
        with log.log().progress() as show:
            found = audit_samples(
                given.network,
                normalised(truth, mean, std),
                truth.labels,
                **search_arguments(given, assume, run),
                progress=show,
            )
        if folder:
            folder.write_text("audit.json", found.to_json())
            report = found.identifiability
            folder.write_text("report.json", report.to_json())
            recheck = check_line(model, source, layout)
            write_page(folder, report.to_dict(), str(found), recheck, AUDIT)
        show_audit(found, run.format, folder, model, len(truth.samples))
    return BLOCKED if gated and found.exposed else 0
