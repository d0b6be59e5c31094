"""The commands that construct: other training sets, and networks of given samples."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from identify.command.data_options import (
    AssumeOptions,
    ModelArgument,
    ModelOptions,
    SourceOptions,
)
from identify.command.inputs import check_dimension, open_data, search_arguments, two_classes
from identify.command.limits import check_memory, refuse_above
from identify.command.memory import planting_bytes
from identify.command.names import EvidenceName, Format, TrainedName
from identify.command.options import (
    ImageOptions,
    LogOptions,
    MemoryOptions,
    RequiredOutput,
    RunOptions,
)
from identify.command.output import (
    INTERRUPTED,
    OutputFolder,
    check_file_target,
    replacing,
    say_error,
)
from identify.command.page import check_line, write_report
from identify.command.planting import ReluPlan, plant_relu
from identify.command.run import (
    RESULTS,
    assess,
    show_facts,
    show_sets,
    show_written,
    write_alternatives,
)
from identify.command.sheet import Sheet
from identify.errors import (
    InvalidInputError,
)
from identify.model.dataset import Dataset, load_samples


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
    distance: Annotated[
        float | None,
        typer.Option(metavar="X", help="Distance of the two, in norms of the largest sample."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="WORD,...", help="What the second set keeps: norms, box, count, margins."
        ),
    ] = None,
    images: ImageOptions,
    run: RunOptions,
    memory: MemoryOptions,
    output: RequiredOutput,
    log: LogOptions,
) -> int:
    """Find other training sets that explain the same data."""
    from identify.alternatives.constrained import excluded, read_keep
    from identify.alternatives.find import find_alternative

    kept = tuple(word.strip() for word in keep.split(",")) if keep else ()
    read_keep(kept)
    if distance is not None and not 0.0 < distance < float("inf"):
        raise InvalidInputError("--distance", "a positive number", repr(distance))
    asked = distance is not None or bool(kept)
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        data = open_data(model, source, layout)
        check_memory(memory.memory_limit, data, run.seed)
        truth = None if start is None else load_samples(start)
        if truth is not None and start is not None:
            check_dimension(truth.samples, data.network.dimension, start)
        sheet = Sheet.from_options(images, data.network.dimension)
        told = log.log()
        started = time.monotonic()
        report, interrupted = assess(data, assume, run, told, EvidenceName.NUMERICAL)
        sets = () if asked else report.alternatives
        # One search a command, within one time limit.
        left = None if run.time_limit is None else run.time_limit + started - time.monotonic()
        late = left is not None and left <= 0.0
        wanted = asked or truth is not None or not (report.searched or late)
        if not interrupted and wanted:
            arguments = search_arguments(data, assume, run)
            if left is not None:
                arguments["time_limit"] = max(left, 1e-3)
            try:
                with told.progress() as show:
                    sets = find_alternative(
                        data.network,
                        start=truth,
                        distance=distance,
                        keep=kept,
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
        write_report(folder, report, check_line(model, source, layout))
        show_sets(report, sets, run.format)
        if run.format is Format.TEXT:
            show_written(folder)
    if interrupted:
        return INTERRUPTED
    if not sets:
        proved = excluded(distance, kept)
        found = f"; verdict {report.verdict.value}"
        if asked:
            found = ": undecided whether any keeps to --distance and --keep"
        say_error(proved or f"no other training sets found{found}")
        return 1
    return 0


def plant(
    *,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="[DATA.npz]", help="Samples; without them for relu they are drawn."),
    ] = None,
    degree: Annotated[
        int | None, typer.Option(metavar="A", help="Power of the activation.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="relu", help="A ReLU network in place of a power.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="Samples to draw, for relu.")
    ] = None,
    dimension: Annotated[int | None, typer.Option(metavar="D", help="Their dimension.")] = None,
    width: Annotated[int | None, typer.Option(metavar="M", help="Neurons, for relu.")] = None,
    trained: Annotated[
        TrainedName | None, typer.Option(help="Stationary layers, for relu; hidden unless given.")
    ] = None,
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
    check_file_target(out, (".safetensors", ".npz"), force=force)
    truth = out.with_name(out.name + ".truth.npz")
    check_file_target(truth, (".npz",), force=force)
    if stationary not in ("auto", "margin", "regression"):
        raise InvalidInputError("--stationary", "auto, margin or regression", repr(stationary))
    if activation is not None:
        layers = TrainedName.HIDDEN if trained is None else trained
        plan = ReluPlan(data, samples, dimension, width, layers, stationary, determined)
        _check_relu(activation, degree)
        return plant_relu(plan, out, truth, run, memory)
    alone = {"--samples": samples, "--dimension": dimension, "--width": width, "--trained": trained}
    for option, value in alone.items():
        if value is not None:
            raise InvalidInputError(option, "nothing for a power", value, "it is for relu")
    if degree is None or degree < 3:
        raise InvalidInputError("--degree", "at least 3", degree, "or --activation relu")
    if data is None:
        raise InvalidInputError("DATA.npz", "samples for a power", "none")
    power = (degree, stationary, determined)
    return _plant_power(load_samples(data), power, (out, truth), run, memory, log)


def _plant_power(
    given: Dataset,
    wanted: tuple[int, str, bool],
    files: tuple[Path, Path],
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Plant a network with a power, write it with its truth, and say what it is; the exit code."""
    from identify.model.loading import save_network
    from identify.planting.plant import plant_network

    degree, stationary, determined = wanted
    out, truth = files
    needed = planting_bytes(given.samples, degree)
    refuse_above(memory.memory_limit, needed, "plant fewer samples")
    with log.log().progress() as show:
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


def _check_relu(activation: str, degree: int | None) -> None:
    if activation.strip().lower() != "relu":
        raise InvalidInputError(
            "--activation", "relu", repr(activation)[:60], "for a power --degree"
        )
    if degree is not None:
        raise InvalidInputError("--degree", "nothing beside --activation relu", degree)
