"""Where a split is accepted: the common step of all offspring and its trial."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.splitting.plan import SplitPlan, joined, offspring, penalty_rises

PAPER_STEPS = (1e-5, 0.02)


STEP_ACCURACY = 1e-5
"""The default of the bounded search."""


_SEARCH = 6


_PASSES = 14


_FIRST_SHARE = 0.05


_LARGEST_FACTOR = 8.0


@dataclass(frozen=True, eq=False)
class FittedSteps:
    """The splits that remain: `plan`, `steps` (k,) eps, the loss after them, and what was undone.

    `gains` (k,) are lower bounds, for a convex l, of what undoing one split alone would cost;
    `undone` are indices of candidates; `rising` says that the whole round had to be given up.
    """

    plan: SplitPlan
    steps: Tensor
    loss: float
    gains: Tensor
    undone: tuple[int, ...]
    rising: bool
    evaluations: int

    @staticmethod
    def nothing(
        plan: SplitPlan, before: float, undone: tuple[int, ...], rising: bool, evaluations: int
    ) -> FittedSteps:
        """Return the outcome without any split."""
        empty = plan.subset(torch.zeros_like(plan.opposite))
        none = empty.curvatures
        return FittedSteps(empty, none, before, none, undone, rising, evaluations)


def common_step(
    objective: Objective, candidates: Candidates, plan: SplitPlan
) -> tuple[float, float, int]:
    """Search one step for all splits in (1e-5, 0.02) by the loss after them, as the authors do.

    A search that does not converge gives half of the step that it reached.

    Returns the step, the loss there and the number of evaluations.

    Source: as `paper_choice`; bounded scalar search, Brent (1973), "Algorithms for minimization
    without derivatives", chapter 5.
    """
    from scipy.optimize import minimize_scalar

    def after(step: float) -> float:
        steps = torch.full_like(plan.curvatures, step)
        split, _ = offspring(candidates, plan, steps)
        value = float(objective.value_and_gradients(split).loss)
        return value if np.isfinite(value) else np.finfo(np.float64).max

    found = minimize_scalar(
        after, bounds=PAPER_STEPS, method="bounded", options={"xatol": STEP_ACCURACY}
    )
    if found.success:
        return float(found.x), float(found.fun), int(found.nfev)
    step = 0.5 * float(found.x)
    return step, after(step), int(found.nfev) + 1


def fit_steps(
    objective: Objective,
    candidates: Candidates,
    plan: SplitPlan,
    before: float,
    data_loss: float,
    least: float,
    noise: float,
) -> FittedSteps:
    """Find a step for every split, all at once, and undo the splits that do not pay.

    With c_i the change of the loss that undoing split i alone would bring, to first order in
    sum_i lam_i phi(x_i) - a lower bound of it where l is convex -, the steps are scaled until c_i
    is half of the second-order prediction eps_i^2/2 |mu_i| (jumps of the penalties aside), which
    is where c_i is largest. A split with c_i below `least` is undone; a round that does not lower
    the loss by more than `noise` is tried with shorter steps, then given up.

    Cost: at most 14 gradients at m + 2 k (3 k for opposite signs) candidates; usually 6.
    """
    steps2 = torch.full_like(plan.curvatures, 1.0)
    steps2 *= 2 * _FIRST_SHARE * data_loss / float(plan.curvatures.abs().sum())
    undone: list[int] = []
    for attempt in range(_PASSES):
        jumps = penalty_rises(objective, candidates, plan, torch.zeros_like(steps2))
        loss, gains, rises, rounding = _undoing(objective, candidates, plan, steps2.sqrt())
        totals = gains - rises
        enough = totals >= torch.clamp_min(rounding, least)
        lower = loss < before - noise
        good = lower and bool(enough.all())
        ratio = (totals + jumps) / (0.5 * plan.curvatures.abs() * steps2)
        ratio = torch.nan_to_num(ratio, nan=-1e9, posinf=-1e9, neginf=-1e9)
        settled = bool(((ratio > 0.25) & (ratio < 0.75)).all())
        if good and (settled or attempt >= _SEARCH - 1):
            return FittedSteps(plan, steps2.sqrt(), loss, totals, tuple(undone), False, attempt + 1)
        if attempt < _SEARCH - 1:
            factor = 0.5 / (1 - ratio).clamp_min(0.5 / _LARGEST_FACTOR)
            steps2 = steps2 * factor.clamp_min(1 / _LARGEST_FACTOR)
        elif not bool(enough.all()):
            undone += plan.chosen[~enough].tolist()
            plan, steps2 = plan.subset(enough), steps2[enough]
            if len(steps2) == 0:
                return FittedSteps.nothing(plan, before, tuple(undone), False, attempt + 1)
        else:
            steps2 = steps2 / 4
    undone += plan.chosen.tolist()
    return FittedSteps.nothing(plan, before, tuple(undone), True, _PASSES)


def _undoing(
    objective: Objective, candidates: Candidates, plan: SplitPlan, steps: Tensor
) -> tuple[float, Tensor, Tensor, Tensor]:
    """The loss after the splits; what undoing each would add to the data loss and take from h.

    The derivative of the data loss in the multiplier of a candidate is <grad l, phi(x)>. Parents
    are added with multiplier 0, which changes nothing, so that one gradient gives
    <grad l, lam phi(x) - sum over offspring lam_k phi(x_k)> for all. The last item is its rounding.
    """
    split, origin = offspring(candidates, plan, steps)
    chosen = plan.chosen
    parents = candidates.select(chosen).detach()
    pool = joined(split, replace(parents, lam=torch.zeros_like(parents.lam)))
    data, _, slopes = objective.data_value_and_gradients(pool)
    count = split.count
    shares = (split.lam * slopes[:count]).sum(1)
    old = (parents.lam * slopes[count:]).sum(1)
    total = torch.zeros_like(candidates.x[:, 0])
    gains = old - total.index_add(0, origin, shares)[chosen]
    sizes = old.abs() + total.index_add(0, origin, shares.abs())[chosen]
    rises = penalty_rises(objective, candidates, plan, steps)
    with torch.no_grad():
        loss = float(data + objective.penalty_values(split).sum())
    return loss, gains, rises, 16 * torch.finfo(sizes.dtype).eps * sizes
