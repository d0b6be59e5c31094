"""The parts of a splitting round: who is split, into what, and how far apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.splitting.eigenpairs import Eigenpairs

PAPER_THRESHOLD = -0.1
PAPER_LIMIT = 150


@dataclass(frozen=True, eq=False)
class SplitPlan:
    """Which candidates are split, and along what.

    `chosen` (k,) indices; `directions` (k, D) unit; `curvatures` (k,) the negative numbers mu with
    a second-order change eps^2/2 mu; `opposite` (k,) whether the offspring take opposite signs.
    """

    chosen: Tensor
    directions: Tensor
    curvatures: Tensor
    opposite: Tensor

    def subset(self, mask: Tensor) -> SplitPlan:
        """Return the plan of some of the candidates, mask (k,)."""
        return SplitPlan(
            self.chosen[mask], self.directions[mask], self.curvatures[mask], self.opposite[mask]
        )


def offspring(candidates: Candidates, plan: SplitPlan, steps: Tensor) -> tuple[Candidates, Tensor]:
    """Replace each chosen (x, lam) by its offspring and say where every candidate comes from.

    Halves: (x + eps v, lam/2), (x - eps v, lam/2). With opposite signs: (x, 2 lam),
    (x + eps v, -lam/2), (x - eps v, -lam/2). The first of them keeps the place of its parent, the
    others are appended. Both keep sum_i lam_i phi(x_i) up to eps^2 and are even in eps. A mass is
    halved; of opposite signs the first takes half of it, the others a quarter each.

    Args:
        candidates: m candidates.
        plan: k distinct indices with unit directions.
        steps: eps >= 0, shape (k,).

    Returns:
        The new candidates, and `origin` (m',) int64: new index -> old index.

    Source: Wu, Wang & Liu (2019), "Splitting steepest descent for growing neural architectures",
    section 3, with candidates in place of neurons; opposite signs after Wu, Ye, Lei, Lee & Liu
    (2020), "Steepest descent neural architecture optimization: escaping local optimum with signed
    neural splitting".

    Example:
        >>> plan = SplitPlan(torch.tensor([1]), torch.eye(2)[:1], torch.tensor([-1.0]),
        ...                  torch.tensor([False]))
        >>> new, origin = offspring(
        ...     Candidates(torch.zeros(2, 2), torch.ones(2, 1)), plan, torch.tensor([0.5])
        ... )
        >>> new.x[:, 0].tolist(), new.lam[:, 0].tolist(), origin.tolist()
        ([0.0, 0.5, -0.5], [1.0, 0.5, 0.5], [0, 1, 1])
    """
    chosen, opposite = plan.chosen, plan.opposite
    shift = steps[:, None] * plan.directions
    x, lam = candidates.x.detach(), candidates.lam.detach()
    start, weight = x[chosen], lam[chosen]
    first, first_lam = x.clone(), lam.clone()
    first[chosen] = torch.where(opposite[:, None], start, start + shift)
    first_lam[chosen] = torch.where(opposite[:, None], 2 * weight, weight / 2)
    side = torch.where(opposite[:, None], -weight / 2, weight / 2)
    origin = torch.cat([torch.arange(len(x), device=x.device), chosen, chosen[opposite]])
    points = torch.cat([first, start - shift, (start + shift)[opposite]])
    multipliers = torch.cat([first_lam, side, side[opposite]])
    new = candidates.select(origin).with_points(points, multipliers)
    if new.mass is not None:
        part = torch.where(opposite, 0.25, 0.5).to(x)
        factor = torch.ones_like(x[:, 0])
        factor[chosen] = 0.5
        new = new.with_mass(new.mass * torch.cat([factor, part, part[opposite]]))
    return new, origin


def paper_choice(values: Tensor) -> Tensor:
    """Choose candidates as the authors of sample splitting do.

    With growth rate g = 0.3 below 1000 candidates and 0.1 from there on: if the share of negative
    eigenvalues is below g, all of those; else of the lowest ceil(m / 2) those below -0.1, at most
    150.

    Args:
        values: smallest eigenvalues (m,) of -2 D^2_x (lam_i y_i <grad f(x_i), r>), that is of
            the splitting matrices without the 1/m of the residual.

    Returns:
        Indices (k,) int64, lowest eigenvalue first.

    Source: Shen, Wang, Qian & Lei (2026), "Data reconstruction: identifiability and optimization
    with sample splitting", algorithm 1 as their program runs it.

    Example:
        >>> paper_choice(torch.tensor([-0.05, 1.0, -2.0, -0.3])).tolist()
        [2, 3]
        >>> paper_choice(torch.tensor([-0.05, 1.0, 2.0, 3.0])).tolist()
        [0]
    """
    count = len(values)
    growth = 0.3 if count < 1000 else 0.1
    order = torch.argsort(values, stable=True)
    negative = int((values < 0).sum())
    if negative < growth * count:
        return order[:negative]
    lowest = order[: (count + 1) // 2]
    return lowest[values[lowest] < PAPER_THRESHOLD][:PAPER_LIMIT]


def auto_plan(
    objective: Objective,
    candidates: Candidates,
    low: Eigenpairs,
    high: Eigenpairs | None,
    data_loss: float,
    limit: int,
) -> SplitPlan:
    """Choose every candidate whose split can pay, the most negative curvature first.

    Halves change the loss by a jump of the penalties plus eps^2/2 v.(S_i + 2 D^2 h)v; offspring of
    opposite signs, where `high` allows them, by another jump plus eps^2/2 v.(-S_i + 2 D^2 h)v,
    and must be twice as good, since they cost two candidates. Where penalties are shared by mass s,
    nothing jumps and s D^2 h takes the place of 2 D^2 h, half of it for opposite signs. A split
    whose jump exceeds the whole data loss cannot pay.
    """
    eps = torch.finfo(low.values.dtype).eps
    values, directions = low.values, low.vectors
    opposite = torch.zeros_like(values, dtype=torch.bool)
    if high is not None:
        bend = objective.split_penalty_products(candidates, high.vectors)
        bend = (high.vectors * bend).sum(1)
        turned = (2.0 if candidates.mass is None else 1.5) * bend - high.values
        opposite = turned < 2 * values.clamp_max(0)
        values = torch.where(opposite, turned, values)
        directions = torch.where(opposite[:, None], high.vectors, directions)
    everyone = torch.arange(candidates.count, device=values.device)
    whole = SplitPlan(everyone, directions, values, opposite)
    jumps = penalty_rises(objective, candidates, whole, torch.zeros_like(values))
    useful = (values < -32 * eps * low.scales) & (jumps < data_loss)
    order = torch.argsort(values, stable=True)
    order = order[useful[order]][:limit]
    return whole.subset(order)


def penalty_rises(
    objective: Objective, candidates: Candidates, plan: SplitPlan, steps: Tensor
) -> Tensor:
    """How much the penalties of each chosen candidate grow by its split, shape (k,)."""
    if not objective.penalties:
        return torch.zeros_like(steps)
    with torch.no_grad():
        split, origin = offspring(candidates, plan, steps)
        now = torch.zeros_like(candidates.x[:, 0])
        now.index_add_(0, origin, objective.penalty_values(split))
        return (now - objective.penalty_values(candidates.detach()))[plan.chosen]


def joined(first: Candidates, second: Candidates) -> Candidates:
    """Put two sets of candidates into one.

    Example:
        >>> one = Candidates(torch.zeros(1, 2), torch.ones(1, 1))
        >>> joined(one, one).count
        2
    """
    labels = mass = None
    if first.labels is not None and second.labels is not None:
        labels = torch.cat([first.labels, second.labels])
    if first.mass is not None and second.mass is not None:
        mass = torch.cat([first.mass, second.mass])
    points, multipliers = torch.cat([first.x, second.x]), torch.cat([first.lam, second.lam])
    return Candidates(points, multipliers, labels, mass)
