"""A finished run as files show it: settings, candidates, history, snapshots, scores."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.errors import FileError
from identify.model.tensor_file import first_line
from identify.model.untrusted import read_tensors
from identify.pictures import recognise_image_shape

if TYPE_CHECKING:
    from attack.runs.run import Run

IntArray = npt.NDArray[np.intp]
SCORES, PICTURES = "evaluation.json", "evaluation.npz"
# Settings that a run without splitting has no use for, and facts that decide nothing.
_OF_SPLITTING = (
    "splitting", "interval", "window", "stall", "limit", "penalties", "rollback", "products",
    "log_every",
)  # fmt: skip
_FREE = ("versions", "threads", "solver")


@dataclass(frozen=True, eq=False)
class History:
    """The loss along a run: steps, seconds and losses, one entry per line of the log."""

    steps: FloatArray
    seconds: FloatArray
    losses: FloatArray


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Candidates (m, D) at a step; `origin` (m,) gives the index of each in the one before."""

    step: int
    x: FloatArray
    origin: IntArray


@dataclass(frozen=True, eq=False)
class RunResult:
    """What the figures and the evaluation take from a run folder.

    `x` (m, D) are the final candidates, `weights` (m,) the norms of their multipliers, `count` the
    number at the start, `share` that of given pixels in a start from images, else None; `start`
    those candidates; `span` a point (D,) and directions (r, D) if they were kept in one. `identity`
    are the settings but for splitting and what no result depends on.
    """

    path: Path
    name: str
    objective: str
    splitting: str
    seed: int
    count: int
    share: float | None
    image_shape: tuple[int, ...] | None
    loss: float
    steps: int
    x: FloatArray
    weights: FloatArray
    start: FloatArray | None
    history: History
    split_steps: tuple[int, ...]
    rounds: int
    snapshots: tuple[Snapshot, ...]
    identity: str
    evaluation: Mapping[str, Any] | None = None
    pictures: Mapping[str, FloatArray] | None = None
    span: tuple[FloatArray, FloatArray] | None = None

    @property
    def label(self) -> str:
        """How figures call the run."""
        return f"{self.name} ({self.objective}, {self.mode})"

    @property
    def mode(self) -> str:
        """The mode of splitting in words."""
        return "without splitting" if self.splitting == "off" else f"splitting {self.splitting}"

    @property
    def accepted(self) -> int:
        """The number of rounds in which splits were kept."""
        return len(self.split_steps)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape H,W or H,W,C of an image; None for samples that are none."""
        if self.evaluation is not None:
            shape = tuple(self.evaluation["image_shape"])
            return shape if len(shape) > 1 else None
        return None if self._order is None else last_shape(self._order)

    @cached_property
    def _order(self) -> tuple[int, ...] | None:
        """The shape of a candidate as it is stored, channels first or last."""
        if self.evaluation is not None and self.evaluation.get("candidate_order"):
            return tuple(self.evaluation["candidate_order"])
        return self.image_shape or recognise_image_shape(self.x)[0]

    @cached_property
    def images(self) -> FloatArray:
        """The final candidates, channels last."""
        return self.ordered(self.x)

    def pixels(self, rows: FloatArray) -> FloatArray:
        """Rows, channels last, in units of pixels: times what the inputs were divided by."""
        unit = None if self.pictures is None else self.pictures.get("unit")
        return rows if unit is None else np.asarray(rows * unit.ravel())

    def ordered(self, rows: FloatArray) -> FloatArray:
        """Rows in the order of the run's images, channels last."""
        return rows if self._order is None else channels_last(rows, self._order)

    def renamed(self, name: str) -> RunResult:
        """The same run under another name."""
        return replace(self, name=name)


def legend_names(runs: Sequence[RunResult]) -> list[str]:
    """What tells runs apart in a legend: the mode of splitting, and what else differs.

    Runs that differ in none of objective, candidates, share and seed have their folders named.
    """
    facts = [
        ("", [run.objective for run in runs]),
        ("candidates ", [f"{run.count:,}" for run in runs]),
        ("share ", ["none" if run.share is None else f"{run.share:g}" for run in runs]),
        ("seed ", [str(run.seed) for run in runs]),
    ]
    parts = [[run.mode] for run in runs]
    for word, values in facts:
        if len(set(values)) > 1:
            for own, value in zip(parts, values, strict=True):
                own.append(f"{word}{value}")
    names = [", ".join(own) for own in parts]
    return [
        name if names.count(name) == 1 else f"{name} ({run.name})"
        for name, run in zip(names, runs, strict=True)
    ]


def read_results(paths: list[Path]) -> list[RunResult]:
    """Read run folders and what `evaluate` wrote into them, under names that differ.

    Raises FileError with one line for a folder that is no run, has no result yet, or is damaged.
    Scores of other candidates than those of the run are left out.
    """
    from attack.runs.folder import load_kept_span, load_run

    names = [path.resolve().name for path in paths]
    found = []
    for path, name in zip(paths, names, strict=True):
        plain = name if names.count(name) == 1 else f"{path.resolve().parent.name}-{name}"
        run = load_run(path)
        try:
            result = _result(run, path, plain)
        except (KeyError, TypeError, ValueError) as error:
            hint = "its config.toml may be damaged"
            raise FileError(path, f"is no whole run ({first_line(error)})", hint) from error
        found.append(_with_scores(replace(result, span=load_kept_span(path))))
    names = [run.name for run in found]
    return [
        run if names.count(run.name) == 1 else run.renamed(f"{run.name}-{k}")
        for k, run in enumerate(found, start=1)
    ]


def _result(run: Run, path: Path, name: str) -> RunResult:
    settings, solver = run.settings, run.settings["solver"]
    x = np.asarray(run.candidates, dtype=np.float64)
    rows = np.asarray(run.history, dtype=np.float64).reshape(-1, 6)
    snapshots = [
        Snapshot(s.step, np.asarray(s.x, dtype=np.float64), np.asarray(s.origin, dtype=np.intp))
        for s in run.snapshots
    ]
    given = settings["start"].get("kind") == "images"
    kept = {k: v for k, v in solver.items() if k not in _OF_SPLITTING}
    identity = {k: v for k, v in settings.items() if k not in _FREE} | {"solver": kept}
    return RunResult(
        path=path,
        name=name,
        objective=str(settings["objective"]["name"]),
        splitting=str(solver["splitting"]),
        seed=int(settings["seed"]),
        count=int(settings["count"]),
        share=float(settings["start"]["share"]) if given else None,
        image_shape=run.image_shape,
        loss=run.loss,
        steps=run.steps,
        x=x,
        weights=np.linalg.norm(np.asarray(run.multipliers, dtype=np.float64), axis=1),
        start=snapshots[0].x if given and snapshots else None,
        history=History(rows[:, 0], rows[:, 5], rows[:, 1]),
        split_steps=tuple(r.step for r in run.rounds if r.taken and r.accepted),
        rounds=len(run.rounds),
        snapshots=(*snapshots, Snapshot(run.steps, x, np.arange(len(x)))),
        identity=json.dumps(identity, sort_keys=True, default=str),
    )


def _with_scores(run: RunResult) -> RunResult:
    scores, pictures = run.path / SCORES, run.path / PICTURES
    if not scores.exists():
        return run
    hint = "run kktcert evaluate again"
    try:
        record = json.loads(scores.read_text(encoding="utf-8"))
        current = record["candidates_sha256"] == digest(run.x)
        record["found"]["scores"]["matched_ncc"]["summary"], record["null"], record["curve"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(scores, f"cannot be read ({first_line(error)})", hint) from error
    if not current:
        return run
    arrays = None
    if pictures.exists():
        file = read_tensors(pictures)
        arrays = {name: file.floats(name) for name in file.shapes}
    return replace(run, evaluation=record, pictures=arrays)


def channels_last(rows: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Rows (n, D) of images of a shape H,W or H,W,C or 3,H,W in the order H,W,C.

    Example:
        >>> channels_last(np.arange(12.0)[None], (3, 2, 2))[0, :3]
        array([0., 4., 8.])
    """
    if last_shape(shape) == shape:
        return rows
    images = np.moveaxis(rows.reshape(len(rows), *shape), 1, -1)
    return np.ascontiguousarray(images.reshape(len(rows), math.prod(shape)))


def in_order(
    rows: FloatArray, stored: tuple[int, ...] | None, shape: tuple[int, ...]
) -> FloatArray:
    """Rows (n, D) of images stored as H,W,C or C,H,W in the order of `shape`, the other of the two.

    Rows whose stored shape is another or none are returned as they are.

    Example:
        >>> in_order(np.arange(12.0)[None], (2, 2, 3), (3, 2, 2))[0, :4]
        array([0., 3., 6., 9.])
    """
    if stored is None or len(stored) != 3 or len(shape) != 3 or stored == shape:
        return rows
    images = rows.reshape(len(rows), *stored)
    if stored[2] in (1, 3) and (stored[2], *stored[:2]) == shape:
        return np.ascontiguousarray(np.moveaxis(images, 3, 1).reshape(rows.shape))
    if stored[0] in (1, 3) and (*stored[1:], stored[0]) == shape:
        return np.ascontiguousarray(np.moveaxis(images, 1, 3).reshape(rows.shape))
    return rows


def last_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape H,W or H,W,C of images after `channels_last`.

    Example:
        >>> last_shape((3, 32, 30)), last_shape((8, 8))
        ((32, 30, 3), (8, 8))
    """
    return (*shape[1:], shape[0]) if len(shape) == 3 and shape[2] not in (1, 3) else shape


def digest(array: FloatArray) -> str:
    """The SHA-256 of an array as little-endian float64.

    Example:
        >>> digest(np.zeros(2)) == digest(np.zeros(2, dtype=np.float32))
        True
    """
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f8").tobytes()).hexdigest()
