"""What repeated splits do to the splitting matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting import problems as base
from proofs_check.statements.splitting.expansion import CODE, Case, halved_cases
from proofs_check.statements.splitting.families import spectrum
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, eq=False)
class Generations:
    """A candidate that is split again and again, with shares `weights` and steps of 0."""

    case: Case
    target: float
    weights: tuple[float, float]

    def __repr__(self) -> str:
        return f"Generations({self.case!r}, gamma={self.target:g}, weights={self.weights})"


def descend(found: Generations, rounds: int) -> tuple[Problem, FloatArray]:
    """The problem after that many rounds, and the positions of the descendants.

    Halves are those of the attack; other weights are none of its.
    """
    problem = found.case.problem
    descendants = np.array([found.case.index])
    along = np.eye(problem.x.shape[1])[:1]
    for _ in range(rounds):
        if found.weights == (0.5, 0.5):
            moves, still = np.repeat(along, len(descendants), axis=0), np.zeros(len(descendants))
            x, lam = by_attack.offspring(problem.x, problem.lam, descendants, moves, still)
            new = np.arange(len(problem.lam), len(lam))
            problem = replace(problem, x=x, lam=lam)
            descendants = np.concatenate([descendants, new])
            continue
        lam = problem.lam.copy()
        parts = [weight * lam[descendants] for weight in found.weights]
        lam[descendants] = parts[0]
        count = len(lam)
        x = np.concatenate([problem.x, problem.x[descendants]])
        problem = replace(problem, x=x, lam=np.concatenate([lam, parts[1]]))
        descendants = np.concatenate([descendants, np.arange(count, len(x))])
    return problem, descendants


def _halving(found: Generations) -> Check:
    """After ceil(log2(-lambda_min / gamma)) rounds nothing has changed but the S_i."""
    problem, index = found.case.problem, found.case.index
    matrix = by_attack.splitting_matrices(problem)[index]
    least = float(spectrum(matrix)[0])
    rounds = max(1, min(6, math.ceil(math.log2(max(-least, found.target) / found.target))))
    reached = max(found.target, -least / 2.0**rounds)
    after, descendants = descend(found, rounds)
    noise = base.matrix_rounding(problem, index) + base.matrix_rounding(after, index) * 2.0**rounds
    moved = abs(float(after.value(after.x, after.lam) - problem.value(problem.x, problem.lam)))
    worst = moved / (problem.value_rounding + after.value_rounding)
    matrices = by_attack.splitting_matrices(after)
    for member in descendants:
        now = matrices[member]
        worst = max(worst, float(np.abs(2.0**rounds * now - matrix).max()) / noise)
        ratio = now / after.lam[member] - matrix / problem.lam[index]
        scale = noise / abs(float(problem.lam[index]))
        worst = max(worst, float(np.abs(ratio).max()) / scale)
        worst = max(worst, (-float(spectrum(now)[0]) - reached) / noise)
    return Check.compare(worst, 1.0, f"{worst:.3g} times the rounding after {rounds} rounds")


def _wrong_ratio(found: Generations) -> Check:
    """S_i itself would be kept by a split."""
    after, descendants = descend(found, 1)
    now = base.splitting_matrix(after, int(descendants[0]))
    then = base.splitting_matrix(found.case.problem, found.case.index)
    noise = base.matrix_rounding(found.case.problem, found.case.index)
    return Check.compare(float(np.abs(now - then).max()), noise)


def _generations(weights: tuple[float, float]) -> SearchStrategy[Generations]:
    from hypothesis import strategies as st

    return st.builds(
        Generations, halved_cases(), st.sampled_from((0.02, 0.1, 0.5)), st.just(weights)
    )


HALVING = Statement(
    name="splitting-halving",
    title="Every split halves the splitting matrix",
    sentence=(
        "Splitting into halves with steps of 0 keeps the loss and all S_i/lam_i and halves S_i: "
        "after ceil(log2(-lambda_min(S_i)/gamma)) rounds every descendant satisfies "
        "lambda_min >= -gamma although nothing has moved, so that only S_i/lam_i tells."
    ),
    formula=r"S_i(x_i, \lambda_i/2) = \tfrac12 S_i(x_i, \lambda_i)",
    source="ours",
    hypotheses=(
        Hypothesis(
            "halves",
            "the offspring are halves",
            lambda found: found.weights == (0.5, 0.5),
            lambda: _generations((0.75, 0.25)),
        ),
    ),
    instances=lambda: _generations((0.5, 0.5)),
    conclusion=_halving,
    sabotages=(
        Sabotage("kept", "S_i stays as it is", conclusion=_wrong_ratio),
        Sabotage(
            "weights",
            "the attack's offspring keep lam_i",
            implementation=by_attack.kept_multipliers,
        ),
    ),
    code=CODE,
)

STATEMENTS = (HALVING,)
