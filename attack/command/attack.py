"""The work of `kktcert attack`: from options to a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attack.command.attack_options import ObjectiveOptions, SearchOptions, parse_assignments
from attack.command.compute import device_and_dtype
from attack.command.training_options import ComputeOptions, FileOptions
from attack.memory import attack_bytes
from attack.networks.files import load_network
from attack.networks.network import Network
from attack.objectives.presets import preset
from attack.reconstruction import reconstruct
from attack.runs.folder import remove_run
from attack.runs.run import Run
from attack.runs.task import DEFAULT_COUNT
from identify.command.inputs import open_mean
from identify.command.limits import refuse_above
from identify.command.options import MemoryOptions, RunOptions
from identify.command.output import check_writable
from identify.errors import FileError, InvalidInputError
from identify.model.dataset import read_labels
from identify.pictures import parse_image_shape


@dataclass(frozen=True)
class Destination:
    """The folder of a run: whether the run in it goes on, or gives way."""

    out: Path
    resume: bool
    force: bool

    def check(self) -> None:
        """Refuse a folder that cannot take a run, before anything is computed."""
        out, hint = self.out, "choose another folder"
        if self.resume and self.force:
            raise InvalidInputError("--resume", "no --force beside it", "both", "drop one of them")
        if self.resume and not out.exists():
            raise InvalidInputError(
                "--resume", "the folder of a run", f"{out}, absent", "drop --resume"
            )
        try:
            if out.exists() and not out.is_dir():
                raise InvalidInputError("--out", "a folder", f"the file {out}", hint)
            self._check_content(hint)
            parent = out
            while not parent.exists():
                parent = parent.parent
            if not parent.is_dir():
                raise InvalidInputError("--out", "a folder", f"{out} below the file {parent}", hint)
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(
                "--out", "a folder that can be written", str(out), hint
            ) from error
        check_writable(parent, "--out", hint)

    def _check_content(self, hint: str) -> None:
        out = self.out
        used = out.is_dir() and next(out.iterdir(), None) is not None
        if self.resume and not used:
            raise InvalidInputError("--resume", "the folder of a run", f"{out}, which is empty")
        if used and self.force and not (out / "config.toml").exists():
            raise InvalidInputError(
                "--force", "the folder of a run", f"{out}, which holds something else", hint
            )
        if used and not self.resume and not self.force:
            raise InvalidInputError(
                "--out", "an absent or empty folder", f"{out}, not empty",
                "add --resume to continue the run in it, or --force to replace it",
            )  # fmt: skip


@dataclass(frozen=True)
class AttackCall:
    """What `kktcert attack` was given: the file of the victim, and its groups of options."""

    model: Path
    aim: ObjectiveOptions
    search: SearchOptions
    file: FileOptions
    compute: ComputeOptions
    run: RunOptions
    memory: MemoryOptions

    def victim(self) -> Network:
        """Load the network, and refuse an attack on it that needs too much memory."""
        file, aim = self.file, self.aim
        network = load_network(
            self.model, layers=file.layers, activation=file.activation, key=file.key
        )
        if self.memory.memory_limit is not None:
            count = self.search.count or _most_candidates(aim, network)
            needed = attack_bytes(network.widths, count)
            refuse_above(self.memory.memory_limit, needed, "lower --count")
        return network

    def beside(self, path: Path | None, network: Network) -> Network | None:
        """Load a network of the victim's form; a file without activation has the victim's."""
        if path is None:
            return None
        file = self.file
        try:
            return load_network(path, layers=file.layers, key=file.key, need_key=False)
        except InvalidInputError as error:
            if error.context["name"] != "activation":
                raise
            return load_network(
                path, layers=file.layers, activation=network.activation, key=file.key,
                need_key=False,
            )  # fmt: skip

    def beginning(self, network: Network) -> dict[str, Any]:
        """Return what `reconstruct` needs of where candidates start and how they look."""
        search, aim = self.search, self.aim
        shape = search.image_shape
        return {
            "image_shape": None if shape is None else parse_image_shape(shape, network.dimension),
            "mean": None if aim.add_mean is None else open_mean(aim.add_mean, network.dimension),
            "labels": None if search.labels is None else read_labels(search.labels),
            "count": search.count,
            "start": search.start,
            "start_scale": search.start_scale,
            "share": search.share,
            "mixture": search.mixture.value,
        }


_OPTIONS = {
    "activation": ("--activation", "give --activation relu, or the one that the network has"),
    "options": ("--option", ""),
    "settings": ("--setting", ""),
    "objective": ("--objective", ""),
    "preset": ("--preset", ""),
    "initial": ("--initial", ""),
    "gradient": ("--gradient", ""),
    "labels": ("--labels", ""),
    "count": ("--count", ""),
    "start": ("--start", ""),
    "start_scale": ("--start-scale", ""),
    "ridge": ("--ridge", ""),
    "span": ("--span", ""),
    "device": ("--device", ""),
}


@contextmanager
def naming_options(settings: list[str] | None = None) -> Iterator[None]:
    """Let what the library refuses name the option that holds it, and how it is given.

    ``settings`` are the texts NAME=VALUE of --setting.

    Example:
        >>> with naming_options():
        ...     raise InvalidInputError("options", "some of floor for haim", "roof")
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: --option: expected some of floor for haim, got roof
    """
    try:
        yield
    except InvalidInputError as error:
        facts = error.context
        name, hint = _OPTIONS.get(facts["name"], (facts["name"], ""))
        hint = facts["hint"] or hint
        if name.startswith("loss of"):
            hint = "give --option loss=cross-entropy, or the loss that it was"
        elif name.startswith("option "):
            name = f"--{name}"
        elif name in [text.partition("=")[0].strip().replace("-", "_") for text in settings or ()]:
            name = f"--setting {name}"
        raise type(error)(name, facts["expected"], facts["got"], hint) from error


def attack_network(
    call: AttackCall, place: Destination, progress: Callable[[str, float], None] | None
) -> Run:
    """Load what the options name and run the attack into the folder."""
    aim, search, run = call.aim, call.search, call.run
    device, dtype = device_and_dtype(call.compute)
    options = parse_assignments("--option", aim.option)
    settings = parse_assignments("--setting", search.setting)
    if aim.preset is not None:
        preset(aim.preset)  # refused before any file is opened
    network = call.victim()
    beginning = call.beginning(network)
    place.check()
    gradient = call.beside(aim.gradient, network)
    initial = call.beside(aim.initial, network)
    if place.force:
        remove_run(place.out)
    return reconstruct(
        network,
        None if aim.objective is None else aim.objective.value,
        initial=initial,
        gradient=gradient,
        options=options or None,
        preset=aim.preset,
        span=aim.span,
        ridge=aim.ridge_value,
        splitting=search.splitting.value,
        solver=None if search.solver is None else search.solver.value,
        steps=search.steps,
        save_seconds=search.save_seconds,
        settings=settings or None,
        seed=run.seed,
        device=device,
        dtype=dtype,
        time_limit=run.time_limit,
        progress=progress,
        out=place.out,
        resume=place.resume,
        **beginning,
    )


def _most_candidates(aim: ObjectiveOptions, network: Network) -> int:
    """How many candidates an attack starts with at most, where no number is given."""
    if aim.preset is not None:
        return preset(aim.preset).candidates * max(2, network.outputs)
    if aim.gradient is not None:
        return min(network.dimension, network.widths[1])
    return DEFAULT_COUNT


def failed_writing(error: FileError) -> bool:
    """Whether a file of the run could not be written: a failed run and no unusable input.

    Example:
        >>> failed_writing(FileError("a", "cannot be written (No space left on device)"))
        True
    """
    return str(error.context.get("problem", "")).startswith(("cannot be written", "cannot be made"))
