"""Where a run begins: its first candidates and the settings of its loop."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from attack.arguments import tensors_sha256
from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.objectives.gradient_facts import labels_from_bias
from attack.objectives.presets import Preset
from attack.objectives.spans import SpanObjective
from attack.runs.run import Run
from attack.runs.task import Task
from attack.solving.multipliers import is_eliminable
from attack.solving.settings import SolveSettings, default_limit
from attack.solving.starts import StartImages, load_start, start_candidates
from identify.errors import InvalidInputError

DEFAULT_STEPS = 2_000
_SCALES = {"haim": 0.01, "buzaglo": 0.01, "loo": 0.2}
_ELIMINATED = 2_000
_KNOWN_WEIGHTS = ("bilevel", "gradient_norm")
"""Objectives that name the loss, in which every sample weighs 1; free multipliers drift."""
StartLike = str | os.PathLike[str] | StartImages | Candidates | Run


@dataclass(frozen=True, eq=False, kw_only=True)
class Beginning:
    """Where the candidates start, in the words of `attack.reconstruct`."""

    start: StartLike
    count: int | None
    labels: npt.ArrayLike | None
    scale: float | None
    share: float
    mixture: str
    seed: int

    @property
    def given_count(self) -> int | None:
        """The number of candidates for which multipliers are scaled, if it is said at all."""
        if isinstance(self.start, Run):
            return int(self.start.settings["count"])
        return self.start.count if isinstance(self.start, Candidates) else self._count

    @property
    def _count(self) -> int | None:
        if self.count is None and self.labels is not None:
            return len(np.atleast_1d(np.asarray(self.labels)))
        return self.count

    def candidates(self, task: Task, loss: str | None) -> tuple[Candidates, dict[str, Any]]:
        """Return the first candidates, restricted to the span, and how they were made.

        ``loss`` is the victim's, if it is known: then a gradient tells the labels.
        """
        if isinstance(self.start, Run | Candidates):
            first, about = self._continued(self.start, task.whole)
        else:
            first, about = self._made(task, _images(self.start), loss)
        inside = task.objective
        return inside.dropped(first) if isinstance(inside, SpanObjective) else first, about

    def _continued(
        self, start: Run | Candidates, objective: Objective
    ) -> tuple[Candidates, dict[str, Any]]:
        first = _taken(start, objective)
        if self._count not in (None, first.count):
            raise InvalidInputError("count", f"{first.count}, as the start has", self._count)
        if self.labels is not None or self.share != 1:
            raise InvalidInputError("start", "images beside labels or a share", "candidates")
        parts = [p for p in (first.x, first.lam, first.labels, first.mass) if p is not None]
        return first, {"kind": "candidates", "sha256": tensors_sha256(parts)}

    def _made(
        self, task: Task, images: StartImages | None, loss: str | None
    ) -> tuple[Candidates, dict[str, Any]]:
        if images is None and self.share != 1:
            raise InvalidInputError("share", "a start from images", "noise", "give start")
        scale, labels = self._scale(task), self._labels(task, images, loss)
        first = start_candidates(
            task.whole, task.count, seed=self.seed, scale=scale, images=images, share=self.share,
            mixture=self.mixture, labels=labels,
        )  # fmt: skip
        about: dict[str, Any] = {"kind": "noise", "scale": float(scale)}
        if images is not None:
            mixed = {"share": float(self.share), "mixture": self.mixture}
            about |= {"kind": "images", **mixed, "sha256": images.sha256()}
        if labels is not None:
            about["labels"] = [float(label) for label in np.asarray(labels).ravel()]
        return first, about

    def _scale(self, task: Task) -> float:
        if self.scale is not None:
            return self.scale
        if task.preset is not None:
            return task.preset.start_scale
        unit = 1 / math.sqrt(task.whole.dimension)
        power = task.victim.network.activation.name == "power"
        return unit if power else _SCALES.get(task.whole.name, unit)

    def _labels(
        self, task: Task, images: StartImages | None, loss: str | None
    ) -> npt.ArrayLike | None:
        slopes = task.victim.gradient
        matched = task.whole.name == "gradient_matching" and slopes is not None
        if self.labels is not None or images is not None or slopes is None or not matched:
            return self.labels
        return labels_from_bias(task.victim.network, slopes, loss, task.count)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How the loop is to go, in the words of `attack.reconstruct`."""

    splitting: str
    solver: str | None
    steps: int | None
    more: Mapping[str, Any] | None
    seed: int

    def settings(self, task: Task, count: int) -> SolveSettings:
        """Return the settings of the loop, defaults filled in for the task and its preset.

        Raises InvalidInputError for unknown fields and values out of range.
        """
        own = ("solver", "splitting", "steps", "seed")
        known = {f for f in SolveSettings.__dataclass_fields__ if f not in own}
        fields = dict(self.more or {})
        unknown = sorted(set(fields) - known)
        if unknown:
            raise InvalidInputError(
                "settings", f"some of {', '.join(sorted(known))}", ", ".join(unknown)
            )
        asked = self
        if task.preset is not None:
            asked = self._after(task.preset)
            fields = _published(task.preset, asked.solver) | fields
        if asked.splitting == "auto":
            fields.setdefault("limit", default_limit(count))
        few = count * task.objective.columns <= _ELIMINATED and task.whole.name in _SCALES
        if asked.solver in (None, "lbfgs") and few and is_eliminable(task.whole):
            fields.setdefault("multipliers", "eliminated")
        if task.whole.name in _KNOWN_WEIGHTS:
            fields.setdefault("multipliers", "fixed")
        return SolveSettings(
            solver=asked.solver or "lbfgs",
            splitting=asked.splitting,
            steps=DEFAULT_STEPS if asked.steps is None else asked.steps,
            seed=asked.seed,
            **fields,
        )

    def _after(self, published: Preset) -> Effort:
        """Return the effort with the solver and the steps of a preset where none are given."""
        return replace(
            self,
            solver=self.solver or published.optimiser,
            steps=published.steps if self.steps is None else self.steps,
        )


def _published(preset: Preset, solver: str | None) -> dict[str, Any]:
    """The fields of the settings that a preset has for a solver."""
    fields: dict[str, Any] = {}
    if preset.split_every:
        fields["interval"] = preset.split_every
    if solver == preset.optimiser:
        fields |= {"rate_x": preset.rate_x, "rate_lam": preset.rate_lam}
        if solver == "sgd":
            fields["momentum"] = preset.momentum
    return fields


def _images(start: str | os.PathLike[str] | StartImages) -> StartImages | None:
    if isinstance(start, StartImages):
        return start
    if isinstance(start, str | os.PathLike):
        return None if start == "noise" else load_start(start)
    raise InvalidInputError(
        "start", "noise, a file, images, candidates or a run", type(start).__name__
    )


def _taken(start: Run | Candidates, objective: Objective) -> Candidates:
    """The candidates of a start, in memory of their own, for an objective."""
    given = start.as_candidates() if isinstance(start, Run) else start
    device, dtype = objective.device, objective.dtype
    labels, mass = given.labels, given.mass
    if labels is not None:
        labels = labels.to(device, dtype if labels.dtype.is_floating_point else labels.dtype)
    mass = None if mass is None else mass.to(device, dtype)
    x, lam = (part.clone().to(device, dtype) for part in (given.x, given.lam))
    first = Candidates(x, lam, labels, mass)
    objective.check(first)
    return first.detach()
