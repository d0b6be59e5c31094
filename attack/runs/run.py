"""The record of one attack: candidates, history and what they were made from."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attack.objectives.candidates import Candidates
from attack.solving.second_order import SecondOrder
from attack.solving.state import COLUMNS, NO_SPLIT, Round, Row
from identify.markup import pictures_html, terms
from identify.pictures import as_images
from identify.text import counted

SCHEMA_VERSION = 1


Array = npt.NDArray[Any]
_NO_SPLIT = "no step lowers the loss, and no split that was tried"
_ENDS = {
    "steps": "all steps done",
    "time limit": "time limit reached",
    "target loss": "target loss reached",
    "stationary": "the solver stands still",
    "no further decrease": "no step lowers the loss any more",
    NO_SPLIT: _NO_SPLIT,
    # As runs of earlier versions call it, which claimed more than the check at the end did.
    "second-order stationary": _NO_SPLIT,
    "interrupted": "interrupted",
    "not finite": "the loss became infinite or no number",
}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Candidates ``x`` (m, D) with ``multipliers`` (m, K) before a step.

    ``origin`` (m,) gives the index of each in the snapshot before.
    """

    step: int
    x: Array
    multipliers: Array
    origin: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Run:
    """What an attack found: ``candidates`` (m, D), ``multipliers`` (m, K), ``labels`` (m,) or None.

    ``masses`` (m,) are the parts of penalties they bear, None for a whole one each.

    They are in the dtype of the run and the coordinates of the samples, mean removed. ``loss`` and
    ``data_loss`` are those of the candidates; ``history`` has the columns
    `attack.solving.loop.COLUMNS`; ``snapshots`` holds the start and the candidates after every
    round that changed them. ``check`` says how stationary the end is, None where the run broke
    off; ``stopped`` why it ended; ``settings`` what it was asked for, defaults filled in. numpy
    takes a run for its candidates; `str()` is a summary.
    """

    candidates: Array
    multipliers: Array
    labels: Array | None
    loss: float
    data_loss: float
    steps: int
    stopped: str
    check: SecondOrder | None
    history: tuple[Row, ...]
    rounds: tuple[Round, ...]
    snapshots: tuple[Snapshot, ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float
    image_shape: tuple[int, ...] | None = None
    path: Path | None = None
    masses: Array | None = None

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.candidates, dtype=dtype, copy=copy)

    def __str__(self) -> str:
        settings = self.settings
        kept = sum(r.taken and r.accepted for r in self.rounds)
        split = f"{counted(len(self.rounds), 'round')}, {kept} with splits kept"
        if settings["solver"]["splitting"] == "off":
            split = "off"
        lines = [
            f"objective   {settings['objective']['name']} by {settings['solver']['solver']}",
            f"candidates  {len(self.candidates)}, {settings['count']} at the start",
            f"loss        {self.loss:.6g}, without penalties {self.data_loss:.6g}",
            f"steps       {self.steps} in {self.seconds:.1f} s",
            f"splitting   {split}",
            *self._restricted(),
            *self._tidied(),
            f"status      {self.status}",
            f"check       {self.check if self.check is not None else 'none, the run broke off'}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What `str` says, for notebooks, and the candidates where the shape of images is known."""
        said = [(line[:12].strip(), line[12:]) for line in str(self).splitlines()]
        images = ""
        if self.image_shape is not None:
            captions = [f"candidate {k}" for k in range(len(self.candidates))]
            images = pictures_html(as_images(self.candidates, self.image_shape), captions)
        return terms(said) + images

    def as_candidates(self) -> Candidates:
        """Return the candidates as tensors on the CPU, in memory of their own."""
        labels, mass = (
            None if part is None else torch.from_numpy(part.copy())
            for part in (self.labels, self.masses)
        )
        x, lam = torch.from_numpy(self.candidates.copy()), torch.from_numpy(self.multipliers.copy())
        return Candidates(x, lam, labels, mass)

    @property
    def status(self) -> str:
        """Why the run ended, at which loss, and whether the second-order check found a way down.

        The check passes if no negative eigenvalue of a splitting matrix was found: no split leads
        down. It says nothing of whether the candidates are samples.
        """
        why = _ENDS.get(self.stopped, self.stopped)
        rounds = self.rounds[::-1]
        idle = next(
            (k for k, r in enumerate(rounds) if r.taken and r.after < r.before), len(rounds)
        )
        if _ENDS.get(self.stopped) == _NO_SPLIT and idle:
            why = f"no improvement for {idle} round{'' if idle == 1 else 's'}"
        if self.check is None:
            passed = "not done"
        elif self.check.gamma > 0.0:
            passed = "not passed"
        else:
            passed = "passed" if math.isfinite(self.check.margin) else "not decided"
        return f"{why}; loss {self.loss:.3g}; second-order check {passed}"

    def _restricted(self) -> list[str]:
        """Lines on the span and the ridge, where there is something to say."""
        note = self.settings.get("restriction")
        lines = [] if note is None else [f"span        {note}"]
        penalties = self.settings["objective"].get("penalties", ())
        return lines + [
            f"ridge       {p['weight']:.3g} times the sum of the squared multipliers"
            for p in penalties if p["name"] == "ridge"
        ]  # fmt: skip

    def _tidied(self) -> list[str]:
        """A line on candidates that rounds merged or removed, if there are any."""
        taken = [r for r in self.rounds if r.taken]
        merged, pruned = sum(len(r.merged) for r in taken), sum(len(r.pruned) for r in taken)
        if not merged and not pruned:
            return []
        return [
            f"tidied      {merged} merged (two had become one), "
            f"{pruned} removed (the loss is no higher without)"
        ]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy without candidates, the content of report.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "attack",
            "objective": self.settings["objective"]["name"],
            "candidates": len(self.candidates),
            "loss": finite(self.loss),
            "data_loss": finite(self.data_loss),
            "steps": self.steps,
            "stopped": self.stopped,
            "check": None if self.check is None else self.check.to_dict(),
            "image_shape": None if self.image_shape is None else list(self.image_shape),
            "history": {
                "columns": list(COLUMNS),
                "rows": [[finite(v) for v in row] for row in self.history],
            },
            "rounds": [r.to_dict() for r in self.rounds],
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "seconds": self.seconds,
        }


def versions() -> dict[str, str]:
    """The versions that a run depends on."""
    import scipy

    return {
        "kktcert": metadata.version("kktcert"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
