"""The commands on two checkpoints: the span of the data, and the training replayed in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from identify.checkpoints.recipe import OpenRecipe, Recipe, parse_open_recipe
from identify.checkpoints.replay import Replay, jacobian_numbers, replay_samples
from identify.checkpoints.replay_search import search_recipe
from identify.checkpoints.span import find_span, first_moments, save_span
from identify.command.data_options import ModelOptions
from identify.command.hub import take_model
from identify.command.limits import PROCESS, refuse_above
from identify.command.membership import HeldOut, PixelOptions, open_any
from identify.command.memory import refuse_files
from identify.command.names import Format
from identify.command.options import (
    ImageOptions,
    LogOptions,
    MemoryOptions,
    RequiredOutput,
    RunOptions,
)
from identify.command.output import (
    OutputFolder,
    check_file_target,
    replacing,
    say_error,
)
from identify.command.page import REPLAY, write_replay_page
from identify.command.run import show_written
from identify.command.sheet import Sheet
from identify.errors import InvalidInputError
from identify.exposure.batch_members import span_members
from identify.model.dataset import load_samples, read_labels, read_order
from identify.model.untrusted import read_moments
from identify.pictures import contact_sheet
from identify.text import number

_JACOBIANS = 4
RESULTS = ("replay.json", "report.html", "samples.npz", "contact.png")
Initial = Annotated[
    Path, typer.Argument(metavar="INITIAL", help="The earlier checkpoint.", callback=take_model)
]
Final = Annotated[
    Path, typer.Argument(metavar="FINAL", help="The later checkpoint.", callback=take_model)
]


def span(
    *,
    initial: Initial,
    final: Final,
    kept: Annotated[
        float | None,
        typer.Option(
            metavar="C", help="Share of INITIAL that weight decay left; found unless given."
        ),
    ] = None,
    member: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Samples: do they lie in the span?")
    ] = None,
    held_out: HeldOut = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Where to write the span.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    pixels: PixelOptions,
    layout: ModelOptions,
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Say how many samples two checkpoints show at least, and in which space they lie."""
    if out is not None:
        check_file_target(out, (".safetensors",), force=force)
    if held_out is not None and member is None:
        raise InvalidInputError("--held-out", "--member beside it", "no --member")
    files = [path for path in (initial, final, member, held_out) if path is not None]
    refuse_files(memory.memory_limit, files, layout.key, "the files alone take it")
    before, after = open_any(initial, layout)[0], open_any(final, layout)[0]
    moments = first_moments(*read_moments(final), after)
    found = find_span(before, after, kept=kept, moments=moments, seed=run.seed)
    inside = None
    if member is not None:
        asked = pixels.read(member, before.dimension)
        others = None if held_out is None else pixels.read(held_out, before.dimension).samples
        inside = span_members(found, asked.samples, others, seed=run.seed)
    if out is not None and found.samples is not None:
        with replacing(out) as path:
            save_span(path, found)
    if run.format is Format.JSON:
        facts = found.to_dict() | ({} if inside is None else {"membership": inside.to_dict()})
        print(json.dumps(facts, indent=2, allow_nan=False), flush=True)
    else:
        print(found, *([] if inside is None else [inside]), sep="\n", flush=True)
    return 0 if found.samples is not None else 1


def replay(
    *,
    initial: Initial,
    final: Final,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="steps=T,rate=ETA,...",
            help="Descent: steps or A-B, rate, momentum, decay, loss; what lacks is found.",
        ),
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|Y,Y,...",
            help="The label of each sample: .npz, .npy or numbers; found unless given.",
        ),
    ] = None,
    order: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Mini-batches: indices into the labels, a row a step."),
    ] = None,
    fit_rate: Annotated[
        bool, typer.Option("--fit-rate", help="Fit the rate too, from the one given.")
    ] = False,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Samples to begin from.")
    ] = None,
    starts: Annotated[int, typer.Option(min=1, metavar="N", help="Random starts at most.")] = 6,
    layout: ModelOptions,
    images: ImageOptions,
    run: RunOptions,
    memory: MemoryOptions,
    output: RequiredOutput,
    log: LogOptions,
) -> int:
    """Find the samples whose training by a known recipe leads from INITIAL to FINAL."""
    asked = parse_open_recipe(recipe)
    steps = _ordered(asked, order)
    values = None if labels is None else read_labels(labels)
    if order is not None and values is None:
        raise InvalidInputError("--order", "--labels beside it", "no --labels")
    refuse_files(memory.memory_limit, [initial, final], layout.key, "the files alone take it")
    (before, known), (after, _) = open_any(initial, layout), open_any(final, layout)
    if not known:
        raise InvalidInputError("--activation", "the name of the activation", "none")
    told = log.log()
    sheet = Sheet.from_options(images, before.dimension)
    with OutputFolder(output.out, force=output.force, names=RESULTS) as folder:
        found = find_span(before, after, kept=None if asked.decay else 1.0, seed=run.seed)
        if found.samples is None:
            say_error(f"no span: {found.reason}")
            return 1
        refuse_above(
            memory.memory_limit,
            PROCESS + 8 * _JACOBIANS * jacobian_numbers(before, found.samples),
            "the derivative of the training run takes it",
        )
        with told.progress() as show:
            begin = None if start is None else load_samples(start).samples
            if steps is None:
                result = search_recipe(
                    before, after, found, replace(asked, fit_rate=fit_rate or asked.rate is None),
                    values, start=begin, starts=starts, seed=run.seed,
                    time_limit=run.time_limit, progress=show,
                )  # fmt: skip
            else:
                result = replay_samples(
                    before, after, found, steps, values, fit_rate=fit_rate, start=begin,
                    starts=starts, seed=run.seed, time_limit=run.time_limit, progress=show,
                )  # fmt: skip
        with folder.writing("samples.npz") as path:
            np.savez(
                path,
                samples=result.samples,
                labels=result.labels,
                error_bounds=result.error_bounds,
            )
        facts = json.dumps(result.to_dict(), indent=2, allow_nan=False)
        folder.write_text(REPLAY, facts)
        _draw(sheet.settled(result.samples), folder, result)
        write_replay_page(folder, result.to_dict(), str(result))
        print(facts if run.format is Format.JSON else result, flush=True)
        if run.format is Format.TEXT:
            show_written(folder)
    return 0


def _ordered(asked: OpenRecipe, order: Path | None) -> Recipe | None:
    """The recipe with its mini-batches, or None where something of it is to be found."""
    if order is None:
        return asked.with_steps(asked.steps[0]) if asked.complete else None
    if asked.rate is None:
        raise InvalidInputError("--recipe", "a rate, beside --order", "none")
    rows = read_order(str(order))
    if asked.steps[0] == asked.steps[1] != len(rows):
        raise InvalidInputError("--order", f"{asked.steps[0]} rows, as many as steps", len(rows))
    return replace(asked.with_steps(len(rows)), order=rows)


def _draw(sheet: Sheet, folder: OutputFolder, result: Replay) -> None:
    if sheet.shape is None:
        return
    pictures = sheet.images(result.samples)
    limits, words = sheet.grey([pictures], free_length=False)
    captions = []
    for label, bound in zip(result.labels, result.error_bounds, strict=True):
        word = f"label {number(float(label))}" if label.ndim == 0 else "no label"
        captions.append(f"{word}, error at most {number(float(bound))}")
    title = str(result).splitlines()[0]
    with folder.writing("contact.png") as path:
        contact_sheet(
            path, [("found by replaying the training", pictures, captions)], title,
            limits=limits, footnote=words,
        )  # fmt: skip
