"""Runs of an attack: the result, and the folder that keeps it."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attack.objectives.spans import AffineSpan
from attack.runs.checkpoints import load_state, pack, save_state, unpack, write_whole
from attack.runs.run import SCHEMA_VERSION, Run, Snapshot, finite
from attack.runs.toml import to_toml, without_none
from attack.solving.second_order import SecondOrder
from attack.solving.state import LoopState, Round
from identify.errors import FileError, InvalidInputError, listed
from identify.model.tensor_file import PathLike, first_line

CONFIG, REPORT, CANDIDATES = "config.toml", "report.json", "candidates.safetensors"
CHECKPOINT, LOG, SNAPSHOTS = "checkpoint.safetensors", "log.jsonl", "snapshots"
SPAN = "span.safetensors"
#: Facts in a configuration that do not decide what a run computes.
_FREE = ("versions", "threads")


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A folder in which a run writes; `state` is where it stands, None at the start.

    Example:
        >>> import tempfile
        >>> folder = RunFolder.open(Path(tempfile.mkdtemp()) / "run", {"seed": 0}, resume=False)
        >>> RunFolder.open(folder.path, {"seed": 1}, resume=True)
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: seed: expected 0, with which the run was started, got 1; leave it as it was, or start a run in another folder
    """  # noqa: E501

    path: Path
    state: LoopState | None

    @staticmethod
    def open(
        path: PathLike,
        config: Mapping[str, Any],
        *,
        resume: bool,
        device: torch.device | str = "cpu",
    ) -> RunFolder:
        """Start a folder, or continue one that was started with the same configuration.

        With `resume` an absent or empty folder starts a run. The number of steps may be larger than
        it was; everything else must be the same, but for versions and threads.

        Raises FileError for a folder that is not empty (without `resume`), damaged, or no run;
        InvalidInputError for another configuration. Nothing in the folder is changed then.
        """
        folder = Path(path)
        wanted = without_none(config)
        used = _entries(folder)
        if used and not resume:
            raise FileError(folder, "is not empty", "resume the run, or choose another folder")
        state = None
        if used:
            stored = _read_config(folder)
            _check_same(stored, wanted)
            if (folder / CHECKPOINT).exists():
                state, _ = load_state(folder / CHECKPOINT, torch.device(device))
        else:
            try:
                # Candidates are private images: nobody else may look.
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(folder, f"cannot be made ({error.strerror})") from error
        write_whole(folder / CONFIG, to_toml(wanted).encode())
        opened = RunFolder(folder, state)
        opened._trim_log()
        return opened

    def save(self, state: LoopState) -> None:
        """Replace the checkpoint; raises FileError, and the old one stays, if that fails."""
        save_state(self.path / CHECKPOINT, state, {"schema_version": SCHEMA_VERSION})

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to the log; raises FileError if that fails."""
        plain = {k: finite(v) if isinstance(v, float) else v for k, v in record.items()}
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain) + "\n")
        except OSError as error:
            hint = "make room or check access, then resume"
            raise FileError(
                self.path / LOG, f"cannot be written ({error.strerror})", hint
            ) from error

    def snapshot(self, number: int, at: Snapshot) -> None:
        """Write the snapshot of that number."""
        tensors = {
            "candidates": torch.from_numpy(at.x),
            "multipliers": torch.from_numpy(at.multipliers),
            "origin": torch.from_numpy(at.origin),
        }
        target = self._snapshot(number)
        try:
            target.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(target.parent, f"cannot be made ({error.strerror})") from error
        write_whole(target, pack(tensors, {"step": at.step}))

    def keep_span(self, span: AffineSpan) -> None:
        """Write the point and the directions of the span that the candidates are kept in."""
        write_whole(self.path / SPAN, pack({"mean": span.mean, "basis": span.basis}, {}))

    def read_snapshots(self, count: int) -> list[Snapshot]:
        """Read the first snapshots; raises FileError for a missing or damaged one."""
        return [_read_snapshot(self._snapshot(number)) for number in range(count)]

    def _snapshot(self, number: int) -> Path:
        return self.path / SNAPSHOTS / f"{number:04d}.safetensors"

    def finish(self, run: Run) -> None:
        """Write the candidates, then the report."""
        tensors = {"candidates": run.candidates, "multipliers": run.multipliers}
        if run.labels is not None:
            tensors["labels"] = run.labels
        if run.masses is not None:
            tensors["masses"] = run.masses
        shape = None if run.image_shape is None else list(run.image_shape)
        content = pack({k: torch.from_numpy(v) for k, v in tensors.items()}, {"image_shape": shape})
        write_whole(self.path / CANDIDATES, content)
        text = json.dumps(run.to_dict(), indent=1, allow_nan=False)
        write_whole(self.path / REPORT, f"{text}\n".encode())

    def _trim_log(self) -> None:
        """Drop what was logged after the checkpoint: it is going to be logged again."""
        target = self.path / LOG
        if not target.exists():
            return
        kept = []
        try:
            lines = target.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise FileError(target, f"cannot be read ({error.strerror})") from error
        for line in lines:
            try:
                record = json.loads(line)
                step, event = record["step"], "event" in record
            except (ValueError, KeyError, TypeError):
                continue
            if self.state is None:
                continue
            if step < self.state.step or (event and step <= self.state.last_round):
                kept.append(line)
        write_whole(target, "".join(f"{line}\n" for line in kept).encode())


def load_run(path: PathLike) -> Run:
    """Read the run that a folder holds.

    Raises FileError with one line for a folder that is no run, damaged, or has no result yet.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileError(folder, "is no folder", "give the folder of a run")
    settings = _read_config(folder)
    if not (folder / CANDIDATES).exists():
        raise FileError(folder, "holds no result yet", "finish the run by resuming it")
    tensors, facts = unpack(folder / CANDIDATES)
    report = _read_report(folder / REPORT)
    snapshots = tuple(_read_snapshot(p) for p in sorted((folder / SNAPSHOTS).glob("*.safetensors")))
    try:
        check = report["check"]
        if check is not None:
            margin = math.inf if check["margin"] is None else check["margin"]
            check = SecondOrder(**{**check, "margin": margin})
        shape = facts["image_shape"]
        rounds = tuple(Round.from_dict(fields) for fields in report["rounds"])
        taken = 1 + sum(r.changed for r in rounds)
        return Run(
            candidates=tensors["candidates"].numpy(),
            multipliers=tensors["multipliers"].numpy(),
            labels=None if "labels" not in tensors else tensors["labels"].numpy(),
            masses=None if "masses" not in tensors else tensors["masses"].numpy(),
            loss=_number(report["loss"]),
            data_loss=_number(report["data_loss"]),
            steps=int(report["steps"]),
            stopped=str(report["stopped"]),
            check=check,
            history=tuple(tuple(map(_number, row)) for row in report["history"]["rows"]),
            rounds=rounds,
            snapshots=snapshots[:taken],
            settings=settings,
            versions=dict(report["versions"]),
            seconds=float(report["seconds"]),
            image_shape=None if shape is None else tuple(int(side) for side in shape),
            path=folder,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            folder, f"is no whole run ({first_line(error)})", "resume it to write it again"
        ) from error


def load_kept_span(path: PathLike) -> tuple[Any, Any] | None:
    """Read the point (D,) and directions (r, D) of a run's span, None for a run in all pixels."""
    target = Path(path) / SPAN
    if not target.exists():
        return None
    tensors, _ = unpack(target)
    try:
        return tensors["mean"].numpy(), tensors["basis"].numpy()
    except KeyError as error:
        raise FileError(target, "holds no span", "resume the run to write it again") from error


def remove_run(path: PathLike) -> None:
    """Remove the files of a run from its folder, and nothing else.

    Raises FileError for other files in it, and for what cannot be removed.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    names = (
        CONFIG, REPORT, CANDIDATES, CHECKPOINT, LOG, SPAN, "evaluation.json", "evaluation.npz",
    )  # fmt: skip
    own = [folder / name for name in names if (folder / name).is_file()]
    snapshots = folder / SNAPSHOTS
    if snapshots.is_dir():
        own += sorted(snapshots.glob("[0-9]*.safetensors"))
    others = sorted(
        str(entry.relative_to(folder)) for entry in folder.rglob("*")
        if entry not in own and entry != snapshots
    )  # fmt: skip
    if others:
        hint = "choose another folder"
        raise FileError(folder, f"holds {listed(others)}, which are no files of a run", hint)
    try:
        for file in own:
            file.unlink()
        if snapshots.is_dir():
            snapshots.rmdir()
    except OSError as error:
        raise FileError(folder, f"cannot be replaced ({error.strerror})") from error


def _entries(folder: Path) -> bool:
    try:
        return folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise FileError(folder, f"is no folder to write to ({error.strerror})") from error


def _read_config(folder: Path) -> dict[str, Any]:
    target = folder / CONFIG
    try:
        return tomllib.loads(target.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(folder, f"holds no {CONFIG}: it is no run", "choose a run") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(
            target, f"cannot be read ({first_line(error)})", "the file is damaged"
        ) from error


def _read_report(target: Path) -> dict[str, Any]:
    try:
        report = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(
            target, f"cannot be read ({first_line(error)})", "resume the run to write it again"
        ) from error
    if not isinstance(report, dict):
        raise FileError(target, "holds no report", "resume the run to write it again")
    return report


def _read_snapshot(target: Path) -> Snapshot:
    tensors, facts = unpack(target)
    try:
        return Snapshot(
            int(facts["step"]),
            tensors["candidates"].numpy(),
            tensors["multipliers"].numpy(),
            tensors["origin"].numpy(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(target, f"is no snapshot ({first_line(error)})", "delete it") from error


def _check_same(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InvalidInputError naming the first setting that differs."""

    def compare(old: Any, new: Any, path: tuple[str, ...]) -> None:
        name = ".".join(path)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for key in dict.fromkeys((*new, *old)):
                if path or key not in _FREE:
                    compare(old.get(key), new.get(key), (*path, key))
        elif name == "solver.steps" and isinstance(old, int) and isinstance(new, int):
            if new < old:
                _refuse("steps", old, new)
        elif old != new:
            _refuse(_option(path), old, new)

    compare(stored, wanted, ())


def _option(path: tuple[str, ...]) -> str:
    # The hash of a network is no option: the network is.
    shown = path[:-1] if path[-1] == "sha256" else path
    return ".".join(shown[1:] if shown[0] == "solver" and len(shown) > 1 else shown)


def _refuse(name: str, old: Any, new: Any) -> None:
    expected, got = ("none" if v is None else str(v) for v in (old, new))
    short = [text if len(text) <= 60 else f"{text[:57]}..." for text in (expected, got)]
    raise InvalidInputError(
        name, f"{short[0]}, with which the run was started", short[1],
        "leave it as it was, or start a run in another folder",
    )  # fmt: skip


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
