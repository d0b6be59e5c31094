"""What a solver sees: a point, a problem with value and gradient, a move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.objectives.penalties import FloorPenalty
from attack.solving.multipliers import optimal_multipliers
from identify.errors import InvalidInputError

#: What a solver remembers between steps, by name: everything a checkpoint has to hold.
State = dict[str, Tensor]


MULTIPLIERS = ("free", "eliminated", "fixed")


@dataclass(frozen=True, eq=False)
class Point:
    """Candidates with loss and gradients there."""

    candidates: Candidates
    loss: float
    data_loss: float
    grad_x: Tensor
    grad_lam: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """An objective at one step, with the treatment of its multipliers.

    ``multipliers``: "free" are optimised beside the points, "fixed" stay, "eliminated" are the best
    ones at the points whenever these are evaluated (variable projection), so that the loss is a
    function of the points alone. Multipliers of an objective that is not signed and has no penalty
    floor are kept at least 0.

    Raises InvalidInputError for another word, and for an elimination that is not possible.
    """

    objective: Objective
    multipliers: str = "free"
    ridge: float | None = None

    def __post_init__(self) -> None:
        if self.multipliers not in MULTIPLIERS:
            raise InvalidInputError(
                "multipliers", f"one of {', '.join(MULTIPLIERS)}", self.multipliers
            )

    @property
    def bounded(self) -> bool:
        """Whether multipliers move and are kept at least 0 by projection."""
        floors = any(isinstance(p, FloorPenalty) for p in self.objective.penalties)
        return self.multipliers == "free" and not (self.objective.signed or floors)

    def evaluate(self, candidates: Candidates) -> Point:
        """Return loss and gradients, at the best multipliers if these are eliminated.

        The gradient in the points at the best multipliers is that of the least loss over them
        (envelope theorem); the gradient in multipliers that are not free is 0.
        """
        if self.multipliers == "eliminated":
            candidates = self.eliminated(candidates)
        found = self.objective.value_and_gradients(candidates)
        free = self.multipliers == "free"
        return Point(
            candidates,
            float(found.loss),
            float(found.data_loss),
            found.grad_x,
            found.grad_lam if free else torch.zeros_like(found.grad_lam),
        )

    def eliminated(self, candidates: Candidates) -> Candidates:
        """Return the candidates with the multipliers of least loss."""
        lam = optimal_multipliers(self.objective, candidates, ridge=self.ridge)
        return candidates.with_points(candidates.x.detach(), lam)

    def moved(self, candidates: Candidates, x: Tensor, lam: Tensor) -> Candidates:
        """Return candidates at other points, multipliers projected where they are bounded.

        They are in memory of their own: the bits of a product depend on strides and alignment.
        """
        x = x.clone(memory_format=torch.contiguous_format)
        if self.multipliers != "free":
            return candidates.with_points(x, candidates.lam)
        lam = lam.clamp_min(0) if self.bounded else lam
        return candidates.with_points(x, lam.clone(memory_format=torch.contiguous_format))


@dataclass(frozen=True, eq=False)
class Move:
    """One step: where the solver stood (`at`), where it goes, and what it remembers.

    ``stuck`` is empty, or says why the solver can go no further; then ``candidates`` is where it
    stood.
    """

    at: Point
    candidates: Candidates
    state: State
    evaluations: int = 1
    stuck: str = ""


class Solver(ABC):
    """Steps on a problem; all memory is in the state that is passed in and out.

    ``hold`` is the number of steps for which a schedule of the objective stands still, since
    curvature learnt under one temperature is used under the next. ``window`` is the number of
    steps over which a stall of the loss is judged, ``interval`` the default between rounds.
    """

    name: str
    hold: int
    window: int
    interval: int

    @abstractmethod
    def begin(self, candidates: Candidates) -> State:
        """Return the state before the first step."""

    @abstractmethod
    def advance(self, problem: Problem, candidates: Candidates, state: State) -> Move:
        """Take one step; no tensor passed in is changed."""

    @abstractmethod
    def carry(self, state: State, old: Candidates, new: Candidates, origin: Tensor) -> State:
        """Return the state after candidates were split, merged or pruned.

        ``origin`` (m',) gives the old index of every new candidate, as from `split_candidates`.
        """

    def renewed(self, state: State) -> State:
        """Return the state after the objective or the multipliers were changed from outside."""
        return state


def shares(old: Candidates, new: Candidates, origin: Tensor) -> Tensor:
    """Return the share (m', 1) of its parent's multipliers that every new candidate has.

    Example:
        >>> old = Candidates(torch.zeros(1, 2), torch.tensor([[4.0]]))
        >>> new = Candidates(torch.zeros(2, 2), torch.tensor([[2.0], [2.0]]))
        >>> shares(old, new, torch.tensor([0, 0])).flatten()
        tensor([0.5000, 0.5000])
    """
    parent = old.lam[origin]
    square = parent.square().sum(1, keepdim=True)
    product = (new.lam * parent).sum(1, keepdim=True)
    return torch.where(square > 0, product / square.clamp_min(torch.finfo(parent.dtype).tiny), 1.0)
