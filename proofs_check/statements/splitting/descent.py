"""Descent with splits: the number of steps to a second-order stationary point."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting import problems as base
from proofs_check.statements.splitting.families import Features, Loss
from proofs_check.statements.splitting.gain import SHARE
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

DIMENSIONS = (2, 3, 10, 100, 500, 2000)
EPSILON, GAMMA = 0.1, 0.25
PROMISED = 1.0 - 1e-9


@dataclass(frozen=True, eq=False)
class Run:
    """A problem with unit sine features, and factors on the constants that are claimed for it.

    `margin` multiplies ell, rho and B; `lower` is the share of L_0 claimed as a bound below L.
    """

    problem: Problem
    margin: float
    lower: float

    def __repr__(self) -> str:
        return f"Run({self.problem!r}, constants x {self.margin:g}, L_* = {self.lower:g} L_0)"


@dataclass(frozen=True)
class Constants:
    """ell, rho, B and beta; none of them knows the dimension."""

    ell: float
    twist: float
    bend: float
    beta: float

    @property
    def square(self) -> float:
        """eps^2 = min(gamma^2/rho^2, gamma/(beta B^2)) of a split."""
        return min((GAMMA / self.twist) ** 2, GAMMA / (self.beta * self.bend**2))

    @property
    def price(self) -> float:
        """Steps for each unit of L: max(2 ell/eps^2, 4.8 rho^2/gamma^3, 4.8 beta B^2/gamma^2)."""
        return max(
            2.0 * self.ell / EPSILON**2,
            4.8 * self.twist**2 / GAMMA**3,
            4.8 * self.beta * self.bend**2 / GAMMA**2,
        )


def start_value(problem: Problem) -> float:
    """L_0."""
    return float(problem.value(problem.x, problem.lam))


def constants(problem: Problem) -> Constants:
    """Bounds along every descent from here, for p unit directions.

    |D phi|, |D^2 phi[v, v]| and |D^3 phi[v, v, v]| are at most sqrt(p); L does not rise, so
    |grad l| <= sqrt(2 beta L_0) stays true; sum lam_i^2 falls with every split.
    """
    root = math.sqrt(len(problem.features.offsets))
    beta = problem.loss.smoothness
    largest = float(np.abs(problem.lam).max())
    steep = math.sqrt(2.0 * beta * start_value(problem))
    ell = largest * steep * root + beta * float(np.sum(problem.lam**2)) * root**2
    return Constants(ell, largest * steep * root, largest * root, beta)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Where a run ended: steps of both kinds, and the smallest gain over what was promised."""

    problem: Problem
    steps: int
    splits: int
    worst: float
    gradient: float
    lowest: float


def lowest(problem: Problem) -> tuple[int, float, FloatArray]:
    """The candidate with the least eigenvalue of S_i, that eigenvalue, its eigenvector (d,).

    S_i lies in the span of the directions: with U^T = Q R it is Q (R D R^T) Q^T, so that the cost
    is that of p x p matrices in any dimension. Where d > p, 0 is an eigenvalue as well.
    """
    rows = problem.features.directions
    frame = np.linalg.qr(rows.T)[0]
    small = replace(problem, features=replace(problem.features, directions=rows @ frame))
    small = replace(small, x=problem.x @ frame)
    matrices = np.stack([base.splitting_matrix(small, i) for i in range(len(problem.lam))])
    values, vectors = np.linalg.eigh(matrices)
    index = int(np.argmin(values[:, 0]))
    return index, float(values[index, 0]), np.asarray(frame @ vectors[index, :, 0])


def descend(problem: Problem, known: Constants, limit: int) -> Outcome:
    """Gradient steps of 1/ell while |grad L| > eps, then splits one by one, until neither helps.

    A step that gains less than was promised ends the run.
    """
    value, steps, splits, worst = start_value(problem), 0, 0, math.inf
    size, low = math.inf, -math.inf
    while steps <= limit and worst >= PROMISED:
        slope = base.gradient_x(problem)
        size = float(np.linalg.norm(slope))
        if size > EPSILON:
            moved = replace(problem, x=problem.x - slope / known.ell)
            promised = EPSILON**2 / (2.0 * known.ell)
        else:
            index, low, direction = lowest(problem)
            if low >= -GAMMA:
                break
            step = np.asarray(math.sqrt(known.square))
            x, lam = by_attack.split(problem, index, direction, step)
            moved = replace(problem, x=x, lam=lam)
            promised, splits = SHARE * GAMMA * known.square, splits + 1
        now = start_value(moved)
        worst = min(worst, (value - now) / promised)
        problem, value, steps = moved, now, steps + 1
    return Outcome(problem, steps, splits, worst, size, low)


def _claimed(run: Run) -> Constants:
    known, margin = constants(run.problem), run.margin
    return Constants(margin * known.ell, margin * known.twist, margin * known.bend, known.beta)


def _converges(run: Run, gamma: float = GAMMA) -> Check:
    """Within the bound, every step as good as promised; also in the span, in as many steps."""
    known = _claimed(run)
    bound = (1.0 - run.lower) * start_value(run.problem) * known.price
    found = descend(run.problem, known, int(bound))
    if found.steps and found.worst < PROMISED:
        return Check.of(False, f"a step gained {found.worst:.3g} of what was promised")
    if found.steps > bound:
        return Check.of(False, f"{found.steps} steps, bound {bound:.0f}")
    if found.gradient > EPSILON or found.lowest < -gamma:
        return Check.of(False, f"ends at |grad| {found.gradient:.3g}, {found.lowest:.3g}")
    frame = np.linalg.qr(run.problem.features.directions.T)[0]
    features = replace(run.problem.features, directions=run.problem.features.directions @ frame)
    inside = replace(run.problem, features=features, x=run.problem.x @ frame)
    other = descend(inside, known, int(bound))
    if run.problem.layout == "stuck":
        # Leaving a saddle is unstable: rounding decides by which way, and so the number of steps.
        detail = f"{other.steps} steps in the span, bound {bound:.0f}"
        return Check.of(other.steps <= bound and other.worst >= PROMISED, detail)
    # Rounding can move the crossing of a threshold by a step of either kind.
    apart = abs(other.steps - found.steps)
    return Check.compare(apart, 2.0, f"{found.steps} steps, {other.steps} in the span")


def build_run(
    dimension: int, count: int, outputs: int, stuck: bool, seed: int, margin: float, lower: float
) -> Run:
    """Sine features along random unit directions, l = |F - t|^2/2.

    `stuck` puts all candidates at one point where every cos(u_j . x + c_j) is 0: the gradient
    vanishes there and only splits lead away.

    Example:
        >>> build_run(2000, 1, 4, True, 0, 1.0, 0.0).problem.x.shape
        (1, 2000)
    """
    rng = np.random.default_rng([seed, dimension, count, outputs])
    rows = rng.standard_normal((outputs, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    x = rng.standard_normal((count, dimension))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    offsets = rng.uniform(-1.0, 1.0, size=outputs)
    if stuck:
        x = np.repeat(x[:1], count, axis=0)
        offsets = 0.5 * np.pi * rng.choice([-1.0, 1.0], size=outputs) - rows @ x[0]
    lam = rng.uniform(0.4, 1.0, size=count)
    target = lam.sum() * rng.uniform(-0.9, 0.9, size=outputs)
    loss = Loss("quadratic", np.eye(outputs), np.ones(outputs), target)
    layout = "stuck" if stuck else "generic"
    problem = Problem(loss, Features("sine", rows, offsets), x, lam, layout, seed)
    return Run(problem, margin, lower)


def _runs(margin: float = 1.0, lower: float = 0.0) -> SearchStrategy[Run]:
    from hypothesis import strategies as st

    return st.builds(
        build_run,
        st.sampled_from(DIMENSIONS),
        st.integers(1, 3),
        st.integers(2, 5),
        st.booleans(),
        st.integers(0, strategies.SEEDS),
        st.just(margin),
        st.just(lower),
    )


CONVERGENCE = Statement(
    name="splitting-convergence",
    title="Steps to a second-order stationary point",
    sentence=(
        "Gradient steps of 1/ell in X while |grad L| > eps, and else one split at a time, reach "
        "|grad L| <= eps and lambda_min(S_i) >= -gamma for all i after at most (L_0 - L_*) "
        "max(2 ell/eps^2, 4.8 rho^2/gamma^3, 4.8 beta B^2/gamma^2) steps, in any dimension."
    ),
    formula=(
        r"N \le (L_0 - L_*) \max(2 \ell/\epsilon^2, 4.8 \rho^2/\gamma^3, "
        r"4.8 \beta B^2/\gamma^2)"
    ),
    source="after Shen, Wang, Qian & Lei 2026 (Theorem 5.1); the constants are ours",
    hypotheses=(
        Hypothesis(
            "constants",
            "ell, rho, B and beta hold along the whole run, for every number of candidates",
            lambda run: run.margin >= 1.0,
            lambda: _runs(margin=0.02),
        ),
        Hypothesis(
            "bounded",
            "L >= L_* everywhere",
            lambda run: run.lower <= 0.0,
            lambda: _runs(lower=0.9999),
        ),
    ),
    instances=_runs,
    conclusion=_converges,
    sabotages=(
        Sabotage(
            "gamma", "a hundredth of gamma", conclusion=lambda run: _converges(run, GAMMA / 100.0)
        ),
        Sabotage(
            "still",
            "the attack's offspring stay where they are",
            implementation=lambda: by_attack.close_offspring(0.0),
        ),
    ),
    cost="medium",
    code=("attack.splitting.plan.offspring",),
    remark=(
        "In X alone ell stays valid under splits (splitting-largest-curvature). In (X, lam) it "
        "grows with the number of candidates, and B and rho with |lam_i|: the bound then needs "
        "constants for the final number. The end point says little: splits that go nowhere reach "
        "lambda_min(S_i) >= -gamma too (splitting-halving)."
    ),
)

STATEMENTS = (CONVERGENCE,)
