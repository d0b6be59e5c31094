"""Fewer candidates at a vanishing loss: splitting leaves sets that are larger than necessary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.solving.multipliers import is_eliminable, optimal_multipliers
from attack.solving.problem import Problem, Solver

_ZERO = 1e-2
"""Of one rounding times the size of the loss: below, the equations hold."""
_TRIES = 8
_STEPS = {"gauss-newton": 60}
_MORE_STEPS = 300


@dataclass(frozen=True, eq=False)
class Reduced:
    """Candidates that are left, ``origin`` (m',) their old indices, and the gradients it took."""

    candidates: Candidates
    origin: Tensor
    loss: float
    evaluations: int


def zero_level(objective: Objective, candidates: Candidates) -> float:
    """The loss up to which the equations count as solved, 0 where that cannot be told."""
    if not objective.quadratic:
        return 0.0
    one = candidates.select(torch.zeros(1, dtype=torch.long, device=candidates.x.device))
    eps = torch.finfo(candidates.x.dtype).eps
    return _ZERO * eps * float(objective.multiplier_system(one).constant)


def reduce_candidates(problem: Problem, solver: Solver, candidates: Candidates) -> Reduced:
    """Drop candidates one at a time while the solver brings the others back to a vanishing loss.

    First those without which the loss rises least at the best multipliers of the others, at most 8
    tries for each. Nothing is dropped where the loss does not vanish.

    Cost: a Gram matrix and at most 8 runs of 300 steps (60 of gauss-newton) per candidate dropped.

    Source: a conic combination of moments needs no more terms than the moments have dimensions,
    Caratheodory (1911); here the loss itself is tried.
    """
    objective = problem.objective
    level = zero_level(objective, candidates)
    loss = problem.evaluate(candidates).loss
    origin = torch.arange(candidates.count, device=candidates.x.device)
    used = 1
    while candidates.count > 1 and loss <= level:
        for index in torch.argsort(_rises(objective, candidates))[:_TRIES].tolist():
            rest = (torch.arange(candidates.count, device=origin.device) != index).nonzero()[:, 0]
            found, here, more = _solved(problem, solver, candidates.select(rest), level)
            used += more
            if here <= level:
                candidates, loss, origin = found, here, origin[rest]
                break
        else:
            break
    return Reduced(candidates, origin, loss, used)


def _solved(
    problem: Problem, solver: Solver, start: Candidates, level: float
) -> tuple[Candidates, float, int]:
    """Where the solver gets from the best multipliers, until the loss vanishes."""
    if is_eliminable(problem.objective):
        start = start.with_points(start.x, optimal_multipliers(problem.objective, start))
    at, state, used, loss = start, solver.begin(start), 0, torch.inf
    for _ in range(_STEPS.get(solver.name, _MORE_STEPS)):
        move = solver.advance(problem, at, state)
        used += move.evaluations
        loss = move.at.loss
        if loss <= level or move.stuck:
            return move.at.candidates, loss, used
        at, state = move.candidates, move.state
    return at, loss, used


def _rises(objective: Objective, candidates: Candidates) -> Tensor:
    """How much the loss rises without each candidate, at the best multipliers of the others."""
    system = objective.multiplier_system(candidates)
    gram = system.gram.double()
    scale = gram.diagonal().clamp_min(1e-300).sqrt()
    gram = gram / scale[:, None] / scale
    inverse = torch.linalg.inv(gram + 1e-10 * torch.eye(len(gram)).to(gram))
    rise = (candidates.lam.detach().double().flatten() * scale).square() / inverse.diagonal()
    total: Tensor = rise.reshape(candidates.count, -1).sum(1)
    return total
