"""What splitting matrices say about the Hessian of the whole problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting import problems as base
from proofs_check.statements.splitting.families import UNIT, Array, spectrum
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

RANDOM = 2
SHEN = "Shen, Wang, Qian & Lei 2026 (section 5)"


def curvature_along(
    problem: Problem, direction: FloatArray, joint: bool = False
) -> tuple[float, float]:
    """v . (Hess L) v and its error, from values of L: v is (n d) or (n d + n)."""
    n, d = problem.x.shape
    move = direction[: n * d].reshape(n, d)
    lift = direction[n * d :] if joint else np.zeros(n)

    def line(step: Array) -> Array:
        x = problem.x + step[:, None, None] * move
        return problem.value(x, problem.lam + step[:, None] * lift)

    coefficients, errors = base.taylor(line)
    return 2.0 * float(coefficients[2]), 2.0 * float(errors[2])


def _lowest(problem: Problem) -> float:
    """min_i lambda_min(S_i), as the attack finds it."""
    return float(by_attack.lowest_pairs(problem)[0].min())


def _members(problem: Problem) -> range:
    return range(len(problem.lam))


def _rounding(problem: Problem) -> float:
    noise = max(base.matrix_rounding(problem, i) for i in _members(problem))
    return float(problem.x.shape[1] * noise)


def _above(problem: Problem, bound: float, joint: bool, noise: float) -> Check:
    """Whether L bends by at least `bound` along the lowest eigenvector and at random."""
    rng = np.random.default_rng([problem.seed, 13])
    vectors = np.linalg.eigh(base.hessian(problem, joint))[1]
    directions = [vectors[:, 0], *rng.standard_normal((RANDOM, len(vectors)))]
    worst, detail = 0.0, ""
    for direction in directions:
        unit = direction / np.linalg.norm(direction)
        found, error = curvature_along(problem, unit, joint)
        ratio = (bound - found) / (error + noise)
        if ratio > worst:
            worst, detail = ratio, f"L bends by {found:.6g}, less than {bound:.6g}"
    return Check.compare(worst, 1.0, detail)


def _hessian(problem: Problem) -> Check:
    return _above(problem, _lowest(problem), False, _rounding(problem))


def _joint(problem: Problem) -> Check:
    # Where the gradient in X is g, the mixed block D phi^T grad l is g_i / lam_i.
    moduli = np.abs(problem.lam[problem.lam != 0.0])
    mixed = base.gradient_rounding(problem) / float(moduli.min()) if len(moduli) else 0.0
    noise = _rounding(problem) + problem.x.shape[1] * mixed
    return _above(problem, min(0.0, _lowest(problem)), True, noise)


def bordered(problem: Problem) -> FloatArray:
    """[[S_i, D phi(x_i)^T grad l], [., 0]], shape (n, d + 1, d + 1), the parts from the attack."""
    n, d = problem.x.shape
    blocks = np.zeros((n, d + 1, d + 1))
    blocks[:, :d, :d] = by_attack.splitting_matrices(problem)
    blocks[:, :d, d] = blocks[:, d, :d] = by_attack.mixed(problem)
    return blocks


def _bordered(problem: Problem) -> Check:
    """The bound, and where lam_i = 0 that the block says -|D phi^T grad l|."""
    noise = _rounding(problem) + base.mixed_rounding(problem)
    blocks = bordered(problem)
    lows = [float(spectrum(block)[0]) for block in blocks]
    check = _above(problem, min(lows), True, noise)
    worst, detail = check.deviation, check.detail
    for i, block in enumerate(blocks):
        size = float(np.linalg.norm(block[-1, :-1]))
        below = min(0.0, float(spectrum(block[:-1, :-1])[0])) - size - lows[i]
        if problem.lam[i] == 0.0:
            below = abs(size + lows[i])
        if below / noise > worst:
            worst, detail = below / noise, f"block {i}: {lows[i]:.6g} with |mixed| {size:.6g}"
    return Check.compare(worst, 1.0, detail)


def _no_border(problem: Problem) -> Check:
    """Idle candidates would not count: the bound of S_i alone."""
    noise = _rounding(problem) + base.mixed_rounding(problem)
    return _above(problem, min(0.0, _lowest(problem)), True, noise)


def _half(problem: Problem) -> Check:
    return _above(problem, 0.5 * _lowest(problem), False, _rounding(problem))


def _half_joint(problem: Problem) -> Check:
    return _above(problem, 0.5 * min(0.0, _lowest(problem)), True, 2.0 * _rounding(problem))


def _again(conclusion: Callable[[Problem], Check]) -> Callable[[Problem], Check]:
    """The conclusion with L in the longest floating-point type."""
    return lambda problem: conclusion(problem.extended())


def _convex(violating: Callable[[], SearchStrategy[Problem]]) -> Hypothesis:
    return Hypothesis("convex", "l is convex", lambda problem: problem.loss.convex, violating)


def _stationary(losses: tuple[str, ...] = base.CONVEX) -> SearchStrategy[Problem]:
    from hypothesis import strategies as st

    return st.one_of(
        base.problems(losses, plant="x", max_dimension=4),
        base.problems(losses, plant="both", max_dimension=4),
    )


def _anywhere() -> SearchStrategy[Problem]:
    from hypothesis import strategies as st

    return st.one_of(base.problems(base.CONVEX), base.problems(base.CONVEX, idle=True))


def _block_algebra() -> bool:
    """Two candidates in two dimensions, two features, by Taylor coefficients to order 2."""
    from sympy import QQ, ring

    eps, *rest = ring("e m:2 u:2 x:4 p:4 j:8 b:12 g:2 h:3", QQ)[1:]
    take = iter(rest)
    parts = [[next(take) for _ in range(count)] for count in (2, 2, 4, 4, 8, 12, 2, 3)]
    multipliers, lifts, moves, values, slopes, bends, slope, inner = map(np.array, parts)
    moves, values = moves.reshape(2, 2), values.reshape(2, 2)
    slopes, bends = slopes.reshape(2, 2, 2), bends.reshape(2, 2, 3)
    outer = np.array([inner[:2], inner[1:]])
    total, linear, blocks = np.array([eps * 0] * 2), np.array([eps * 0] * 2), eps * 0
    for i, (m, u, v) in enumerate(zip(multipliers, lifts, moves, strict=True)):
        first = slopes[i] @ v
        second = bends[i] @ np.array([v[0] ** 2, 2 * v[0] * v[1], v[1] ** 2])
        there = values[i] + first * eps + second * (eps**2 / 2)
        total = total + there * (m + eps * u) - values[i] * m
        linear = linear + first * m + values[i] * u
        blocks += m * (second @ slope) + 2 * u * (first @ slope)
    grown = total @ slope + (total @ outer @ total) / 2
    claim = eps**2 * (blocks + linear @ outer @ linear) / 2
    return all(power[0] != 2 for power, _ in (grown - claim).terms())


_MATRIX = Sabotage(
    "matrix",
    "the attack's products with the wrong sign",
    implementation=lambda: by_attack.broken_products(-1.0),
)
_SPECTRUM = (
    "attack.splitting.eigenpairs.smallest_eigenpairs",
    "attack.objectives.base.doubled_products",
)
_NOTE = "Hessian less blocks is J^T D^2 l J >= 0 for n = p = d = 2, symbolic derivatives"

HESSIAN = Statement(
    name="splitting-hessian",
    title="Splitting matrices bound the Hessian in X",
    sentence=(
        "For convex l and no penalties the Hessian of L in X satisfies "
        "lambda_min >= min_i lambda_min(S_i), at every point."
    ),
    formula=r"\lambda_{\min}(\nabla_X^2 L) \ge \min_i \lambda_{\min}(S_i)",
    source=SHEN,
    hypotheses=(_convex(lambda: base.problems(("cap", "saddle", "wave"))),),
    instances=lambda: base.problems(base.CONVEX),
    conclusion=_hessian,
    sabotages=(Sabotage("half", "half of the bound", conclusion=_half), _MATRIX),
    algebra=_block_algebra,
    algebra_note=_NOTE,
    recheck=_again(_hessian),
    code=_SPECTRUM,
)

JOINT = Statement(
    name="splitting-hessian-joint",
    title="Splitting matrices bound the Hessian in X and lam",
    sentence=(
        "For convex l and no penalties, where the gradient in X vanishes and every lam_i != 0, "
        "the Hessian in (X, lam) satisfies lambda_min >= min(0, min_i lambda_min(S_i))."
    ),
    formula=r"\lambda_{\min}(\nabla_{X,\lambda}^2 L) \ge \min(0, \min_i \lambda_{\min}(S_i))",
    source="ours, after " + SHEN,
    hypotheses=(
        _convex(lambda: _stationary(("cap", "saddle", "wave"))),
        Hypothesis(
            "stationary",
            "the gradient in X vanishes",
            base.is_stationary,
            lambda: base.problems(base.CONVEX, max_dimension=4),
        ),
        Hypothesis(
            "multipliers",
            "no multiplier is 0",
            lambda problem: bool(np.all(problem.lam != 0.0)),
            lambda: base.problems(base.CONVEX, plant="both", max_dimension=4, idle=True),
        ),
    ),
    instances=_stationary,
    conclusion=_joint,
    sabotages=(Sabotage("half", "half of the bound", conclusion=_half_joint), _MATRIX),
    algebra=_block_algebra,
    algebra_note=_NOTE,
    recheck=_again(_joint),
    code=_SPECTRUM,
    remark=(
        "Stationarity in lam is not needed. At |grad_X L| <= eps the bound loses eps/min |lam_i|: "
        "see splitting-hessian-idle."
    ),
)

IDLE = Statement(
    name="splitting-hessian-idle",
    title="The Hessian in X and lam, idle candidates included",
    sentence=(
        "For convex l and no penalties the Hessian in (X, lam) is at least the smallest "
        "eigenvalue of the blocks [[S_i, D phi(x_i)^T grad l], [., 0]], at every point; where "
        "lam_i = 0 that is -|D phi(x_i)^T grad l|, else at least min(0, lambda_min(S_i)) "
        "- |grad_i L|/|lam_i|."
    ),
    formula=(
        r"\lambda_{\min}(\nabla_{X,\lambda}^2 L) \ge \min_i \lambda_{\min} "
        r"\begin{pmatrix} S_i & D\varphi(x_i)^T \nabla l \\ \cdot & 0 \end{pmatrix}"
    ),
    source="ours",
    hypotheses=(_convex(lambda: base.problems(("cap", "saddle", "wave"))),),
    instances=_anywhere,
    conclusion=_bordered,
    sabotages=(
        Sabotage("border", "S_i alone, idle candidates or not", conclusion=_no_border),
        _MATRIX,
        Sabotage(
            "mixed",
            "half of the gradient that the attack finds for lam_i = 0",
            implementation=lambda: by_attack.broken_gradients(0.5),
        ),
    ),
    algebra=_block_algebra,
    algebra_note=_NOTE,
    recheck=_again(_bordered),
    code=(
        "attack.objectives.base.doubled_products",
        "attack.objectives.base.Objective.data_value_and_gradients",
    ),
)


@dataclass(frozen=True, eq=False)
class Doubling:
    """Candidate `index` is replaced by two halves at the same place."""

    problem: Problem
    index: int
    joint: bool

    def __repr__(self) -> str:
        return f"Doubling({self.problem!r}, candidate {self.index}, joint={self.joint})"


def doubled(case: Doubling) -> Problem:
    """The problem with two halves of the candidate."""
    along = np.eye(case.problem.x.shape[1])[0]
    x, lam = by_attack.split(case.problem, case.index, along, np.asarray(0.0))
    return replace(case.problem, x=x, lam=lam)


def _largest(case: Doubling, factor: float = 1.0) -> Check:
    """L bends upwards by at most max(0, lambda_max) of before, along the steepest direction."""
    before = float(spectrum(base.hessian(case.problem, case.joint))[-1])
    after = doubled(case)
    vector = np.linalg.eigh(base.hessian(after, case.joint))[1][:, -1]
    found, error = curvature_along(after, vector, case.joint)
    jacobian = sum(
        float(np.sum(np.abs(m * case.problem.features.jacobian(p)) ** 2))
        for p, m in zip(case.problem.x, case.problem.lam, strict=True)
    )
    noise = _rounding(case.problem) + 64.0 * UNIT * case.problem.loss.smoothness * jacobian
    allowed = factor * max(0.0, before)
    return Check.compare(max(0.0, found - allowed), error + noise, f"{found:.6g} > {allowed:.6g}")


def _doublings(losses: tuple[str, ...], joint: bool) -> SearchStrategy[Doubling]:
    return base.problems(losses).map(
        lambda problem: Doubling(problem, problem.seed % len(problem.lam), joint)
    )


LARGEST = Statement(
    name="splitting-largest-curvature",
    title="A split does not steepen the problem in X",
    sentence=(
        "For convex l, halving a candidate in place does not raise max(0, lambda_max) of the "
        "Hessian in X, so that a step 1/ell stays safe after any number of splits; in (X, lam) "
        "every further candidate can raise it, and ell must hold for the final number of them."
    ),
    formula=(r"\lambda_{\max}(\nabla_X^2 L') \le \max(0, \lambda_{\max}(\nabla_X^2 L))"),
    source="ours",
    hypotheses=(
        Hypothesis(
            "convex",
            "l is convex",
            lambda case: case.problem.loss.convex,
            lambda: _doublings(("cap", "saddle"), False),
        ),
        Hypothesis(
            "fixed multipliers",
            "X alone varies, not the multipliers",
            lambda case: not case.joint,
            lambda: _doublings(base.CONVEX, True),
        ),
    ),
    instances=lambda: _doublings(base.CONVEX, False),
    conclusion=_largest,
    sabotages=(
        Sabotage("less", "it would always fall to a half", conclusion=lambda c: _largest(c, 0.5)),
        Sabotage(
            "halves",
            "the attack's offspring keep the multiplier",
            implementation=by_attack.kept_multipliers,
        ),
    ),
    code=("attack.splitting.plan.offspring",),
)

STATEMENTS = (HESSIAN, JOINT, IDLE, LARGEST)
