"""What a whole round of the attack's splits says about itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting import problems as base
from proofs_check.statements.splitting.families import spectrum
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _gains(problem: Problem, factor: float = 1.0) -> Check:
    """The losses that the round reports, and its gains against undoing each split alone."""
    from attack.splitting.split_round import split_candidates

    given = by_attack.candidates(problem)
    new, origin, record = split_candidates(
        by_attack.objective(problem), given, merge_radius=0.0, seed=problem.seed
    )
    x, lam = new.x.numpy(), new.lam[:, 0].numpy()
    after = float(problem.value(x, lam))
    noise = 64.0 * problem.value_rounding
    worst, detail = abs(after - record.after) / noise, f"{record.after:.9g}, really {after:.9g}"
    if record.accepted and (record.after - record.before) / noise > worst:
        worst = (record.after - record.before) / noise
        detail = f"the loss rises from {record.before:.9g} to {record.after:.9g}"
    together = {i for pair in record.merged for i in pair}
    for i, gain in zip(record.chosen.tolist(), record.gains.tolist(), strict=True):
        if i in together:
            # Undone, it would be what it was merged with: not one of the given candidates.
            continue
        kept = origin.numpy() != i
        points = np.concatenate([x[kept], problem.x[i : i + 1]])
        without = float(problem.value(points, np.append(lam[kept], problem.lam[i])))
        ratio = (factor * gain - (without - after)) / noise
        if ratio > worst:
            worst = ratio
            detail = f"undoing {i} costs {without - after:.6g}, less than {factor * gain:.6g}"
    return Check.compare(worst, 1.0, detail)


def _twice(problem: Problem) -> Check:
    return _gains(problem, 2.0)


def _bent(losses: tuple[str, ...]) -> SearchStrategy[Problem]:
    """Problems of a positive loss with a candidate that asks for a split."""

    def asks(problem: Problem) -> bool:
        lows = [spectrum(base.splitting_matrix(problem, i))[0] for i in range(len(problem.lam))]
        return min(lows) < -1e-2 and float(problem.value(problem.x, problem.lam)) > 1e-2

    return base.problems(losses, max_dimension=4).filter(asks)


def _half_gains() -> AbstractContextManager[object]:
    """Slopes of the data loss in the multipliers too large by two where steps are fitted."""
    from attack.objectives.base import Objective

    right = Objective.data_value_and_gradients

    def wrong(self: Objective, candidates: Any) -> Any:
        loss, grad_x, grad_lam = right(self, candidates)
        return loss, grad_x, 2.0 * grad_lam

    return patch.object(Objective, "data_value_and_gradients", wrong)


ROUND = Statement(
    name="splitting-round",
    title="What a round of splits reports",
    sentence=(
        "After a round of the attack the loss is the reported one and not above that before, and "
        "for convex l undoing any single split costs at least its reported gain, which comes from "
        "one gradient for all of them."
    ),
    formula=(
        r"L(\text{split } i \text{ undone}) - L \ge \langle \nabla l(F), \lambda_i \varphi(x_i) - "
        r"\textstyle\sum_k \lambda_k \varphi(x_k) \rangle"
    ),
    source="a convex function lies above its tangents; ours",
    hypotheses=(
        Hypothesis(
            "convex",
            "l is convex",
            lambda problem: problem.loss.convex,
            lambda: _bent(("saddle", "wave")),
        ),
    ),
    instances=lambda: _bent(base.CONVEX),
    conclusion=_gains,
    sabotages=(
        Sabotage("twice", "twice the gain", conclusion=_twice),
        Sabotage(
            "fitted",
            "the attack fits its steps on offspring at half of their distance",
            implementation=lambda: by_attack.close_offspring(0.5),
        ),
        Sabotage("slopes", "slopes in the multipliers times two", implementation=_half_gains),
    ),
    cost="medium",
    code=(
        "attack.splitting.split_round.split_candidates",
        "attack.splitting.plan.auto_plan",
        "attack.splitting.accept.fit_steps",
        "attack.splitting.eigenpairs.extreme_eigenpairs",
    ),
    remark="Halves and offspring of opposite signs, without penalties.",
)

STATEMENTS = (ROUND,)
