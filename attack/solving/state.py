"""What a loop passes on: rounds of splitting, and the state between two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attack.objectives.candidates import Candidates
from attack.solving.problem import State
from attack.solving.reduction import Reduced
from attack.solving.settings import SolveSettings
from attack.splitting.record import SplitRound

COLUMNS = ("step", "loss", "data_loss", "candidates", "evaluations", "seconds")
"""Of the history; the loss is that before the step, evaluations are gradients."""
NO_SPLIT = "no split lowers the loss"
"""Why a loop ended whose solver could go no further, after a round of splitting."""
Row = tuple[float, ...]


@dataclass(frozen=True)
class Round:
    """What one splitting round did, as plain values.

    ``chosen``, ``merged``, ``pruned``, ``undone`` are indices before the round, ``origin`` the old
    index of every candidate after it, ``offsets`` the step eps of every split; ``eigenvalues`` the
    smallest of every splitting matrix before it, None where a candidate was merged or pruned.
    ``taken`` says that the result was used; the other fields are those of `SplitRound`.
    """

    step: int
    mode: str
    seed: int
    before: float
    after: float
    count_before: int
    count_after: int
    chosen: tuple[int, ...]
    offsets: tuple[float, ...]
    merged: tuple[tuple[int, int], ...]
    pruned: tuple[int, ...]
    undone: tuple[int, ...]
    origin: tuple[int, ...]
    eigenvalues: tuple[float | None, ...]
    smallest: float
    relative_smallest: float
    gradient_norm: float
    accepted: bool
    rolled_back: bool
    taken: bool
    products: int
    evaluations: int
    message: str

    @property
    def changed(self) -> bool:
        """Whether the candidates after the round are not those before it."""
        return self.taken and bool(self.chosen or self.merged or self.pruned)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy."""
        return dict(vars(self))

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> Round:
        """Read `to_dict` back; lists become tuples. Raises TypeError for other fields."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        plain["merged"] = tuple((int(a), int(b)) for a, b in fields["merged"])
        return Round(**plain)


@dataclass(frozen=True, eq=False)
class LoopState:
    """Everything that decides how a loop goes on, between two steps.

    ``memory`` is the solver's, ``generator`` the state of the random stream, ``wait`` the window of
    the stall test that began at ``since`` with the best loss ``mark``; ``best`` is that since then;
    ``stuck`` is what the solver said if it could go no further, ``ended`` why the loop cannot.
    """

    step: int
    candidates: Candidates
    memory: State
    generator: Tensor
    last_round: int = -1
    wait: int = 0
    since: int = 0
    mark: float = math.inf
    best: float = math.inf
    stuck: str = ""
    ended: str = ""
    evaluations: int = 0
    seconds: float = 0.0
    rounds: tuple[Round, ...] = ()
    history: tuple[Row, ...] = ()

    @staticmethod
    def first(candidates: Candidates, settings: SolveSettings) -> LoopState:
        """Return the state before the first step."""
        generator = torch.Generator().manual_seed(settings.seed)
        if settings.penalties == "whole":
            candidates = Candidates(candidates.x, candidates.lam, candidates.labels)
        elif candidates.mass is None:
            candidates = candidates.with_mass()
        memory = settings.build().begin(candidates)
        return LoopState(
            0, candidates.detach(), memory, generator.get_state(), wait=settings.window or 1
        )


def summarised(
    record: SplitRound, step: int, seed: int, before: int, after: int, origin: Tensor, refused: str
) -> Round:
    """Return what a round did as plain values; `refused` says why it was not used, if so."""
    taken = not refused
    values = record.eigenvalues.tolist()
    message = record.message if taken else f"not taken, {refused}: {record.message}"
    return Round(
        step=step,
        mode=record.mode,
        seed=seed,
        before=record.before,
        after=record.after,
        count_before=before,
        count_after=after,
        chosen=tuple(record.chosen.tolist()),
        offsets=tuple(record.steps.tolist()),
        merged=tuple((int(a), int(b)) for a, b in record.merged),
        pruned=tuple(int(i) for i in record.pruned),
        undone=tuple(int(i) for i in record.undone),
        origin=tuple(origin.tolist()),
        eigenvalues=tuple(v if math.isfinite(v) else None for v in values),
        smallest=record.smallest,
        relative_smallest=record.relative_smallest,
        gradient_norm=record.gradient_norm,
        accepted=record.accepted,
        rolled_back=record.rolled_back,
        taken=taken,
        products=record.products,
        evaluations=record.evaluations,
        message=message,
    )


def reduction_round(step: int, before: int, found: Reduced) -> Round:
    """Return what a reduction did as plain values."""
    kept = tuple(found.origin.tolist())
    gone = tuple(i for i in range(before) if i not in kept)
    return Round(
        step=step,
        mode="reduction",
        seed=0,
        before=found.loss,
        after=found.loss,
        count_before=before,
        count_after=len(kept),
        chosen=(),
        offsets=(),
        merged=(),
        pruned=gone,
        undone=(),
        origin=kept,
        eigenvalues=(None,) * before,
        smallest=0.0,
        relative_smallest=0.0,
        gradient_norm=0.0,
        accepted=False,
        rolled_back=False,
        taken=True,
        products=0,
        evaluations=found.evaluations,
        message=f"reduced to {len(kept)} of {before} candidates: the loss vanishes without others",
    )
