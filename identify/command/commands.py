"""The commands of this package; `kktcert` mounts them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from identify.command.check import check
from identify.command.checkpoints import replay, span
from identify.command.deep import DeepRequest
from identify.command.derive import derive
from identify.command.gate import BLOCKED, Gate, parse_exposed, parse_gate
from identify.command.help import add_command
from identify.command.inputs import check_dimension, open_data, search_arguments, two_classes
from identify.command.limits import check_memory, refuse_above
from identify.command.membership import member
from identify.command.memory import DEMO, open_within, planting_bytes
from identify.command.options import (
    AssumeOptions,
    EvidenceName,
    Format,
    ImageOptions,
    LogOptions,
    MemoryOptions,
    MethodName,
    ModelOptions,
    OutputOptions,
    RequiredOutput,
    RunOptions,
    SourceOptions,
    ThreadOptions,
)
from identify.command.output import (
    Log,
    OutputFolder,
    check_file_target,
    replacing,
    require_extra,
    say_error,
)
from identify.command.routing import attack_line, routed, what_to_run
from identify.command.run import (
    assess,
    show_facts,
    show_report,
    show_sets,
    show_written,
    write_alternatives,
)
from identify.command.sheet import Sheet
from identify.command.stationary import recover_relu, verify_relu
from identify.errors import (
    InvalidInputError,
    NotCoveredError,
    NotYetSupportedError,
    UnsupportedModelError,
)
from identify.hermite.data import HermiteData
from identify.model.dataset import load_samples
from identify.records import Verdict

RESULTS = ("report.json", "samples.npz", "alternatives.npz", "contact.png", "audit.json")
"""Every file that these commands write into a folder."""
INTERRUPTED = 130

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Network: .safetensors, .npz, .pt or a folder.")
]
DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA.npz", help="Samples: .npz with `samples` or `images`.")
]


def mount(app: typer.Typer) -> None:
    """Add the commands of this package to the application."""
    add_command(app, demo, "demo --out demo-output")
    add_command(app, inspect, "inspect model.safetensors")
    add_command(
        app,
        verify,
        "verify model.safetensors --source gradient --gradient gradient.npz",
        "3 a word of --fail-on is met",
    )
    add_command(app, recover, "recover model.safetensors --source weight-decay --out results")
    add_command(
        app,
        audit,
        "audit model.safetensors data.npz --source weight-decay --fail-on exposed",
        "3 a sample is exposed, with --fail-on",
    )
    add_command(app, alternatives, "alternatives model.safetensors --from data.npz --out other")
    add_command(
        app,
        check,
        "check results/report.json model.safetensors --require confirmed",
        "3 a claim is refuted, 4 the verdict is not confirmed, with --require",
    )
    add_command(app, span, "span initial.safetensors final.safetensors --out span.safetensors")
    add_command(
        app,
        replay,
        "replay initial.pt final.pt --activation gelu --recipe steps=40,rate=0.05 "
        "--labels 3,1,4 --out replay",
    )
    add_command(app, member, "member model.pt images.npz --gradient gradient.npz")
    add_command(app, plant, "plant data.npz --degree 3 --out model.safetensors")
    add_command(app, derive, "derive --degree 3 --width 2 --dimension 2 --samples 2")


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
        with _log(log).progress() as show:
            result = run_demo(out, seed=seed, progress=show)
        folder.written += [entry.name for entry in out.iterdir()]
        print(result, flush=True)
    return 0


def inspect(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A network or samples.")],
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
    )
    found = replace(found, run=what_to_run(found, file, layout, opened))
    if run.format is Format.JSON:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False), flush=True)
    else:
        print(found, flush=True)
    return 0


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
    run: RunOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    log: LogOptions,
) -> int:
    """Decide whether the data determine the training samples."""
    gate = parse_gate(fail_on)
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        try:
            deep = DeepRequest(model, source, layout, assume, run, memory, _log(log), evidence)
            if deep.applies():
                with routed(model, source, layout):
                    return verify_relu(deep, gate, folder)
            data = open_data(model, source, layout)
        except (UnsupportedModelError, NotCoveredError) as error:
            if not gate.blocks_uncovered:
                raise
            say_error(f"not covered: {error}")
            return BLOCKED
        check_memory(memory.memory_limit, data, run.seed)
        report, interrupted = assess(data, assume, run, _log(log), evidence)
        if folder:
            write_alternatives(folder, report.alternatives)
            folder.write_text("report.json", report.to_json())
        show_report(report, run.format, folder)
    if interrupted:
        return INTERRUPTED
    line = "" if report.covered else attack_line(model, source, layout)
    if line:
        _log(log).note(f"not covered; try: {line}")
    if gate.why_blocked(report) is not None:
        return BLOCKED
    return 0 if trust_metadata else _gate_without_statements(gate, data, assume, run, _log(log))


def _gate_without_statements(
    gate: Gate, data: HermiteData, assume: AssumeOptions, run: RunOptions, log: Log
) -> int:
    """The exit code by the types of the stored numbers, where a file states a coarser rounding."""
    if not gate.words or data.stated_rounding is None:
        return 0
    numerical = EvidenceName.NUMERICAL
    report, interrupted = assess(data.without_statements(), assume, run, log, numerical)
    word = gate.why_blocked(report)
    if interrupted or word is None:
        return INTERRUPTED if interrupted else 0
    say_error(
        f"--fail-on {word}: only the rounding of {data.stated_rounding:g} that the file states "
        f"keeps the verdict from {report.verdict.value}; --trust-metadata believes it"
    )
    return BLOCKED


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
        deep = DeepRequest(model, source, layout, assume, run, memory, _log(log))
        if deep.applies():
            with routed(model, source, layout):
                return recover_relu(deep, images, folder)
        data = open_data(model, source, layout)
        check_memory(memory.memory_limit, data, run.seed)
        sheet = Sheet.from_options(images, data.network.dimension)
        told = _log(log)
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
        folder.write_text("report.json", report.to_json())
        show_report(report, run.format, folder)
    if interrupted:
        return INTERRUPTED
    if not something:
        say_error(f"no samples to write: {report.verdict.value}: {report.reason}")
        return 1
    return 0


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
    run: RunOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    log: LogOptions,
) -> int:
    """Show the owner of the data which samples the weights expose, and how exactly."""
    from identify.exposure.affine import normalised
    from identify.exposure.audit import audit as audit_samples

    gated = parse_exposed(fail_on)
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        given = open_data(model, source, layout)
        check_memory(memory.memory_limit, given, run.seed)
        truth = load_samples(data)
        check_dimension(truth.samples, given.network.dimension, data)
        with _log(log).progress() as show:
            found = audit_samples(
                given.network,
                normalised(truth, mean, std),
                truth.labels,
                **search_arguments(given, assume, run),
                progress=show,
            )
        if folder:
            folder.write_text("audit.json", found.to_json())
            folder.write_text("report.json", found.identifiability.to_json())
        text = found.to_json() if run.format is Format.JSON else f"{found}\n"
        print(text, end="", flush=True)
        if run.format is Format.TEXT:
            show_written(folder)
    return BLOCKED if gated and found.exposed else 0


def alternatives(
    *,
    model: ModelArgument,
    source: SourceOptions,
    layout: ModelOptions,
    assume: AssumeOptions,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="DATA.npz", help="Data that explain the weights."),
    ] = None,
    distance: Annotated[float | None, typer.Option(metavar="X", hidden=True)] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="norms,box,count,margins", hidden=True)
    ] = None,
    images: ImageOptions,
    run: RunOptions,
    memory: MemoryOptions,
    output: RequiredOutput,
    log: LogOptions,
) -> int:
    """Find other training sets that explain the same data."""
    from identify.alternatives.find import find_alternative

    for name, value in (("--distance", distance), ("--keep", keep)):
        if value is not None:
            raise NotYetSupportedError(f"{name} is not yet supported", "leave it out")
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        data = open_data(model, source, layout)
        check_memory(memory.memory_limit, data, run.seed)
        truth = None if start is None else load_samples(start)
        if truth is not None and start is not None:
            check_dimension(truth.samples, data.network.dimension, start)
        sheet = Sheet.from_options(images, data.network.dimension)
        told = _log(log)
        started = time.monotonic()
        report, interrupted = assess(data, assume, run, told, EvidenceName.NUMERICAL)
        sets = report.alternatives
        # One search a command, within one time limit.
        left = None if run.time_limit is None else run.time_limit + started - time.monotonic()
        wanted = truth is not None or not (report.searched or (left is not None and left <= 0.0))
        if not interrupted and wanted:
            arguments = search_arguments(data, assume, run)
            if left is not None:
                arguments["time_limit"] = max(left, 1e-3)
            try:
                with told.progress() as show:
                    sets = find_alternative(
                        data.network,
                        start=truth,
                        **arguments,
                        progress=show,
                        findings=report.findings,
                    )
            except KeyboardInterrupt:
                interrupted = True
        if sets:
            write_alternatives(folder, sets)
            sheet = sheet.settled(sets[0].samples)
            if sheet.remark:
                told.note(sheet.remark)
            if sheet.shape is not None:
                with folder.writing("contact.png") as path:
                    sheet.draw(path, report, sets, given=truth is not None)
        folder.write_text("report.json", report.to_json())
        show_sets(report, sets, run.format)
        if run.format is Format.TEXT:
            show_written(folder)
    if interrupted:
        return INTERRUPTED
    if not sets:
        say_error(f"no other training sets found; verdict {report.verdict.value}")
        return 1
    return 0


def plant(
    *,
    data: DataArgument,
    degree: Annotated[int, typer.Option(metavar="A", help="Power of the activation.")],
    out: Annotated[
        Path,
        typer.Option(metavar="MODEL", help="Network to write, beside MODEL.truth.npz."),
    ],
    stationary: Annotated[
        str,
        typer.Option(metavar="auto|margin|regression", help="The problem that it is exact for."),
    ] = "auto",
    determined: Annotated[
        bool, typer.Option("--determined", help="Only a network that determines the samples.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Build a network that is exactly stationary for given samples."""
    from identify.model.loading import save_network
    from identify.planting.plant import plant_network

    check_file_target(out, (".safetensors", ".npz"), force=force)
    truth = out.with_name(out.name + ".truth.npz")
    check_file_target(truth, (".npz",), force=force)
    if degree < 3:
        raise InvalidInputError("--degree", "at least 3", degree)
    if stationary not in ("auto", "margin", "regression"):
        raise InvalidInputError("--stationary", "auto, margin or regression", repr(stationary))
    given = load_samples(data)
    needed = planting_bytes(given.samples, degree)
    refuse_above(memory.memory_limit, needed, "plant fewer samples")
    with _log(log).progress() as show:
        planted = plant_network(
            given.samples,
            degree=degree,
            labels=two_classes(given.labels),
            stationary=stationary,
            determined=determined,
            seed=run.seed,
            time_limit=run.time_limit,
            progress=show,
        )
    with replacing(out) as path, replacing(truth) as beside:
        save_network(planted.network, path)
        arrays: dict[str, Any] = dict(planted.truth())
        np.savez(beside, **arrays)
    facts = {
        "model": str(out),
        "truth": str(truth),
        "stationary": planted.kind,
        "neurons": planted.network.width,
        "samples": len(planted.samples),
        "degree": degree,
        "residual": planted.stationarity,
        "rank": planted.rank,
        "required": planted.required,
        "redundant_equations": planted.redundant,
        "determined": planted.determined,
        "condition_number": planted.condition_number,
        "decay": planted.decay,
        "loss": planted.loss,
        "seed": planted.seed,
    }
    show_facts("Planted network", facts, run.format)
    return 0


def _log(options: LogOptions) -> Log:
    return Log(verbose=options.verbose, quiet=options.quiet)
