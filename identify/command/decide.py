"""The commands with a verdict: on the data, and with the samples."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from identify.command.data_options import AssumeOptions, ModelArgument, ModelOptions, SourceOptions
from identify.command.deep import DeepRequest
from identify.command.formats import show_findings, show_verdict
from identify.command.gate import BLOCKED, Gate, parse_gate
from identify.command.inputs import open_data
from identify.command.limits import check_memory
from identify.command.names import EvidenceName, MethodName, SourceName, WhatIfName
from identify.command.options import (
    GateOptions,
    ImageOptions,
    LogOptions,
    MemoryOptions,
    OutputOptions,
    RequiredOutput,
    RunOptions,
)
from identify.command.output import (
    INTERRUPTED,
    Log,
    OutputFolder,
    say_error,
)
from identify.command.page import check_line, write_report
from identify.command.routing import attack_line, routed
from identify.command.run import (
    RESULTS,
    assess,
    write_alternatives,
)
from identify.command.sheet import Sheet
from identify.command.stationary import recover_relu, verify_relu
from identify.errors import (
    InvalidInputError,
    NotCoveredError,
    UnsupportedModelError,
)
from identify.hermite.data import HermiteData
from identify.records import Verdict
from identify.report.findings import refusal_findings


def verify(
    *,
    model: ModelArgument,
    source: SourceOptions,
    layout: ModelOptions,
    assume: AssumeOptions,
    evidence: Annotated[
        EvidenceName, typer.Option(help="How the conditions are to be established.")
    ] = EvidenceName.AUTO,
    fail_on: Annotated[
        str | None,
        typer.Option(metavar="WORD,...", help="Outcomes that end with exit code 3."),
    ] = None,
    trust_metadata: Annotated[
        bool,
        typer.Option(
            "--trust-metadata", help="Let --fail-on believe the rounding that a file states."
        ),
    ] = False,
    what_if: Annotated[
        WhatIfName | None,
        typer.Option(help="noise: the smallest that leaves a gradient undecided."),
    ] = None,
    run: GateOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    log: LogOptions,
) -> int:
    """Decide whether the data determine the training samples."""
    gate = parse_gate(fail_on)
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        try:
            deep = DeepRequest(
                model, source, layout, assume, run, memory, log.log(), evidence, what_if
            )
            covered = deep.applies() and source.source is SourceName.GRADIENT
            if what_if is not None and not covered:
                raise InvalidInputError(
                    "--what-if",
                    "nothing but for --source gradient of a network with --activation",
                    what_if.value,
                    "leave it out; for powers give levels with --noise",
                )
            if deep.applies():
                with routed(model, source, layout):
                    return verify_relu(deep, gate, folder)
            data = open_data(model, source, layout)
        except (UnsupportedModelError, NotCoveredError) as error:
            if not gate.blocks_uncovered:
                raise
            say_error(f"not covered: {error}")
            show_findings(refusal_findings("verify", str(model), str(error)), run.format)
            return BLOCKED
        check_memory(memory.memory_limit, data, run.seed)
        report, interrupted = assess(data, assume, run, log.log(), evidence)
        if folder:
            write_alternatives(folder, report.alternatives)
            write_report(folder, report, check_line(model, source, layout))
        word, code = gate.why_blocked(report), 0
        if word is None and not trust_metadata and not interrupted:
            word, code = _gate_without_statements(gate, data, assume, run, log.log())
        show_verdict(report, run.format, folder, model, word)
    if interrupted:
        return INTERRUPTED
    line = "" if report.covered else attack_line(model, source, layout)
    if line:
        log.log().note(f"not covered; try: {line}")
    return BLOCKED if word is not None else code


def _gate_without_statements(
    gate: Gate, data: HermiteData, assume: AssumeOptions, run: RunOptions, log: Log
) -> tuple[str | None, int]:
    """Word that is met, and exit code, by the stored types where a file states a rounding."""
    if not gate.words or data.stated_rounding is None:
        return None, 0
    numerical = EvidenceName.NUMERICAL
    report, interrupted = assess(data.without_statements(), assume, run, log, numerical)
    word = gate.why_blocked(report)
    if interrupted or word is None:
        return None, INTERRUPTED if interrupted else 0
    say_error(
        f"--fail-on {word}: only the rounding of {data.stated_rounding:g} that the file states "
        f"keeps the verdict from {report.verdict.value}; --trust-metadata believes it"
    )
    return word, BLOCKED


def recover(
    *,
    model: ModelArgument,
    source: SourceOptions,
    layout: ModelOptions,
    assume: AssumeOptions,
    images: ImageOptions,
    method: Annotated[
        MethodName,
        typer.Option(help="How the tensor is decomposed; auto: the pencil, tensorly beside it."),
    ] = MethodName.AUTO,
    run: RunOptions,
    memory: MemoryOptions,
    output: RequiredOutput,
    log: LogOptions,
) -> int:
    """Recover the training samples and draw them."""
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        deep = DeepRequest(model, source, layout, assume, run, memory, log.log())
        if deep.applies():
            with routed(model, source, layout):
                return recover_relu(deep, images, folder)
        data = open_data(model, source, layout)
        check_memory(memory.memory_limit, data, run.seed)
        sheet = Sheet.from_options(images, data.network.dimension)
        told = log.log()
        report, interrupted = assess(data, assume, run, told, method=method)
        found = report.recovery
        if report.verdict is Verdict.NONIDENTIFIABLE:
            write_alternatives(folder, report.alternatives)
        elif found is not None:
            with folder.writing("samples.npz") as path:
                np.savez(
                    path,
                    samples=found.samples,
                    coefficients=found.coefficients,
                    error_bounds=found.error_bounds,
                    absolute_bounds=found.absolute_bounds,
                )
        something = bool(folder.written)
        if something:
            shown = report.alternatives[0].samples if found is None else found.samples
            sheet = sheet.settled(shown)
            if sheet.remark:
                told.note(sheet.remark)
        if something and sheet.shape is not None:
            with folder.writing("contact.png") as path:
                sheet.draw(path, report)
        write_report(folder, report, check_line(model, source, layout))
        show_verdict(report, run.format, folder, model)
    if interrupted:
        return INTERRUPTED
    if not something:
        say_error(f"no samples to write: {report.verdict.value}: {report.reason}")
        return 1
    return 0
