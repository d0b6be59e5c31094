"""The commands of this package but for sweep. Importing this imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from attack.command.attack_options import NullOptions, ObjectiveOptions, ScoreOptions, SearchOptions
from attack.command.training_options import (
    ComputeOptions,
    DataOptions,
    FileOptions,
    TrainingOptions,
)
from identify.command.config import write_config
from identify.command.hub import take_model
from identify.command.limits import refuse_above
from identify.command.memory import figures_bytes
from identify.command.names import Format
from identify.command.options import (
    LogOptions,
    MemoryOptions,
    RequiredOutput,
    RunOptions,
    ThreadOptions,
)
from identify.command.output import INTERRUPTED, OutputFolder, require_extra, say_error
from identify.errors import FileError, is_out_of_memory, one_line

PACKAGES = ("torch",)
INDEX = "figures.json"

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a run of kktcert attack.")
]


def train(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="digits, mnist[:PATH], cifar10[:PATH], openml:NAME, or a file or folder.",
        ),
    ],
    training: TrainingOptions,
    out: Annotated[
        Path,
        typer.Option(metavar="MODEL", help="Network to write; start, truth and record beside it."),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    chosen: DataOptions,
    file: FileOptions,
    compute: ComputeOptions,
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Train a network to attack, and keep its start and its data."""
    require_extra("train", "attack", PACKAGES)
    from attack.command.train import (
        TrainingCall,
        VictimFiles,
        summary,
        train_victim,
        write_victim,
    )

    files = VictimFiles.beside(out)
    files.check(force=force)
    told = log.log()
    with told.progress() as show:
        call = TrainingCall(source, chosen, training, file, compute, run, memory)
        victim = train_victim(call, show)
    written = write_victim(victim, files)
    if victim.held_out is None:
        told.note("no held-out images: none are left of what was asked for")
    if run.format is Format.JSON:
        facts = summary(victim, files, written)
        print(json.dumps(facts, indent=2, allow_nan=False), flush=True)
    else:
        title = "Trained network"
        print(f"{title}\n{'=' * len(title)}\n{victim.trained}")
        print(f"\nwritten to {files.model.parent}: {', '.join(written)}", flush=True)
    if victim.trained.stopped == "interrupted":
        told.note(f"what was reached is in {files.model}; --initial continues from it")
        return INTERRUPTED
    return 0


def attack(
    *,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Network: .safetensors, .npz or .pt.", callback=take_model
        ),
    ],
    aim: ObjectiveOptions,
    search: SearchOptions,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run; absent or empty.")],
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in the folder, with the same options."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that is in the folder.")
    ] = False,
    file: FileOptions,
    compute: ComputeOptions,
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Reconstruct training data by optimisation, splitting candidates where it pays."""
    require_extra("attack", "attack", PACKAGES)
    from attack.command.attack import (
        AttackCall,
        Destination,
        attack_network,
        failed_writing,
        naming_options,
    )
    from attack.command.page import write_run_page
    from identify.pictures import as_images

    told = log.log()
    try:
        with told.progress() as show, naming_options(search.setting):
            call = AttackCall(model, aim, search, file, compute, run, memory)
            found = attack_network(call, Destination(out, resume, force), show)
    except KeyboardInterrupt:
        told.note(f"what was reached is in {out}; the same command with --resume goes on")
        return INTERRUPTED
    except FileError as error:
        if not failed_writing(error):
            raise
        say_error(str(error))
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        say_error("not enough memory; lower --count, or use --solver adam, --dtype float32")
        return 1
    write_config(out)
    shape = found.image_shape
    images = {} if shape is None else {"candidates": as_images(found.candidates, shape)}
    write_run_page(out, str(found), images)
    if run.format is Format.JSON:
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False), flush=True)
    else:
        title = "Attack"
        print(
            f"{title}\n{'=' * len(title)}\n{found}\n\nwritten to {one_line(str(out))}", flush=True
        )
    return 0


def evaluate(
    *,
    folder: RunArgument,
    truth: Annotated[
        Path, typer.Option(metavar="DATA.npz", help="The true samples; train writes them.")
    ],
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="DATA.npz", help="Images of the kind that were not trained on."),
    ] = None,
    score: ScoreOptions,
    null: NullOptions,
    memory: MemoryOptions,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Keep no image of the truth.")
    ] = False,
    log: LogOptions,
) -> int:
    """Compare the candidates of a run with the truth, beside what knows nothing of it."""
    require_extra("evaluate", "attack", PACKAGES)
    from attack.command.evaluate import evaluate_run
    from attack.runs.finished import PICTURES, SCORES, read_results

    with log.log().progress() as show:
        show("comparing", 0.0)
        judged = evaluate_run(
            read_results([folder])[0],
            truth,
            held_out,
            score,
            seed=null.seed,
            images=not no_images,
            memory_limit=memory.memory_limit,
        )
    if null.format is Format.JSON:
        print(json.dumps(judged.to_dict(), indent=1, allow_nan=False), flush=True)
    else:
        written = SCORES if no_images else f"{SCORES}, {PICTURES}"
        print(f"{judged}\n\nwritten to {folder}: {written}", flush=True)
    return 0


def figures(
    *,
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs of kktcert attack.")
    ],
    output: RequiredOutput,
    threads: ThreadOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Draw finished runs: pairs beside the truth, splitting, counts, shares, trajectories."""
    require_extra("figures", "attack", PACKAGES)
    require_extra("figures", "demo", ("matplotlib",))
    from attack.figures.figures import draw_figures
    from attack.runs.finished import read_results

    refuse_above(memory.memory_limit, figures_bytes(folders), "draw fewer runs")
    told = log.log()
    earlier = _earlier_figures(output.out)
    with OutputFolder(output.out, force=output.force, names=earlier) as folder:
        with told.progress() as show:
            show("drawing", 0.0)
            drawn, skipped = draw_figures(read_results(folders), folder.writing)
        for missing in skipped:
            told.note(f"{missing.what}: not drawn: {missing.reason}")
        if not drawn:
            say_error("no figure to draw; see kktcert figures --help")
            return 1
        index = {
            "figures": [part.to_dict() for part in drawn],
            "not_drawn": [missing.to_dict() for missing in skipped],
        }
        folder.write_text(INDEX, json.dumps(index, indent=1, allow_nan=False) + "\n")
        print(f"Figures of {len(folders)} {'run' if len(folders) == 1 else 'runs'}")
        width = max(len(part.name) for part in drawn)
        for part in drawn:
            print(f"  {part.name:<{width}}  {part.title}")
        print(f"\nwritten to {output.out}, the numbers in {INDEX}", flush=True)
    return 0


def _earlier_figures(folder: Path) -> tuple[str, ...]:
    """The files that an earlier run of the command left in the folder, to be replaced."""
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))["figures"]
        return tuple(Path(part["file"]).name for part in found)
    except (OSError, ValueError, KeyError, TypeError):
        return ()
