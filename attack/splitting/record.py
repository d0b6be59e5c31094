"""What a splitting round did, as a record and as a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class SplitRound:
    """What one round found and did; indices are those of the candidates it was given.

    `before`, `after` the total loss; `eigenvalues`, `residuals`, `gradient_norms` (m,): smallest
    eigenvalue of each splitting matrix (with 2 D^2 h in mode "auto"; NaN for candidates that were
    merged or pruned), |S v - mu v|, and |grad_x L| of the candidate; `smallest` the least
    eigenvalue, `margin` how far below it the spectrum may reach (probability 0.99, infinite where
    unknown), `relative_smallest` the least mu_i / |lam_i|, since every split halves S_i;
    `gradient_norm` |grad L| in x and lam; `idle_gradient` the largest |D phi(x_i)^T grad l| where
    lam_i = 0. `chosen` (k,), `steps` (k,) eps, `gains` (k,) lower bounds (convex l) of the loss
    that undoing the split alone would cost, `opposite` (k,) for offspring of opposite signs;
    `merged` pairs (kept, other), `pruned` and `undone` indices. `accepted`: some split stays;
    `rolled_back`: the whole round of splits was taken back. `products`, `evaluations` the cost.
    """

    mode: str
    before: float
    after: float
    eigenvalues: Tensor
    residuals: Tensor
    gradient_norms: Tensor
    smallest: float
    margin: float
    relative_smallest: float
    gradient_norm: float
    idle_gradient: float
    chosen: Tensor
    steps: Tensor
    gains: Tensor
    opposite: Tensor
    merged: tuple[tuple[int, int], ...]
    pruned: tuple[int, ...]
    undone: tuple[int, ...]
    accepted: bool
    rolled_back: bool
    products: int
    evaluations: int
    message: str


def round_sentence(record: SplitRound, count: int, method: str, flat: bool) -> str:
    """What a round did, or why it did nothing and how stationary the candidates are.

    `flat` says that every splitting matrix is 0.
    """
    tidied = f"{len(record.merged)} merged, {len(record.pruned)} pruned"
    change = f"loss {record.before:.6g} -> {record.after:.6g}"
    if record.accepted:
        opposite = int(record.opposite.sum())
        signs = f" ({opposite} into opposite signs)" if opposite else ""
        return f"{len(record.chosen)} of {count} candidates split{signs}, {tidied}; {change}"
    reason = "no split"
    if record.rolled_back:
        reason = f"{len(record.undone)} splits taken back: they raised the loss"
    elif record.undone:
        reason = f"{len(record.undone)} splits tried, none gains enough"
    elif flat:
        reason = "no split, all S_i are 0 (as for relu; soft_relu or softplus bend)"
    matrix = "S_i" if record.mode == "paper" else "S_i + 2 D^2 h"
    sure = "not certain"
    if method == "exact":
        sure = "exact"
    elif record.margin < math.inf:
        sure = f"with probability 0.99 up to {record.margin:.3g} lower"
    idle = ""
    if record.idle_gradient:
        idle = f"; |D phi^T grad l| up to {record.idle_gradient:.3g} where lam = 0"
    return (
        f"{reason}, {tidied}; {change}; "
        f"(eps, gamma) = ({record.gradient_norm:.3g}, {max(0.0, -record.smallest):.3g}): "
        f"|grad L| = eps, lambda_min({matrix}) >= -gamma "
        f"({sure}; {method}, {record.products} products){idle}"
    )
