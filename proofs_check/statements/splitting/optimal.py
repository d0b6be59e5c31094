"""The best split of one candidate, with and without opposite signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting import problems as base
from proofs_check.statements.splitting.expansion import CODE
from proofs_check.statements.splitting.families import Array, spectrum
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

STARTS, ROUNDS, RANDOM = 12, 25, 3
NOTE = "d = 2, three offspring: the change less lambda_min is a sum of squares, halves attain it"


@dataclass(frozen=True, eq=False)
class Plan:
    """Which splits of candidate `index` are tried, and the budget they are compared with.

    `count` offspring at distance at most `radius`, weights with sum 1 and sum of moduli `total`;
    `centred` means that the mean displacement is 0. `allowed` is the budget of the statement.
    """

    problem: Problem
    index: int
    count: int
    centred: bool
    total: float
    allowed: float
    radius: float

    def __repr__(self) -> str:
        return (
            f"Plan({self.problem!r}, candidate {self.index}, {self.count} offspring, "
            f"centred={self.centred}, total={self.total:g} of {self.allowed:g}, "
            f"radius={self.radius:g})"
        )


def claim(plan: Plan) -> float:
    """(c + 1)/2 min(0, lambda_min(S_i)) - (c - 1)/2 max(0, lambda_max(S_i)) for the budget c."""
    low = float(by_attack.lowest_pairs(plan.problem)[0][plan.index])
    high = float(by_attack.lowest_pairs(plan.problem, largest=True)[0][plan.index])
    gain, loss = min(0.0, low), max(0.0, high)
    return 0.5 * (plan.allowed + 1.0) * gain - 0.5 * (plan.allowed - 1.0) * loss


def attack_changes(plan: Plan) -> list[tuple[str, float, float, FloatArray, FloatArray]]:
    """What the attack's splits change: (name, moduli of the weights, curvature, Taylor, errors).

    Halves along v_min change L by eps^2/2 lambda_min, opposite signs along v_max by
    -eps^2/2 lambda_max.
    """
    problem, index = plan.problem, plan.index
    before = problem.value(problem.x, problem.lam)
    changes = []
    for opposite, total, name in ((False, 1.0, "halves"), (True, 3.0, "opposite signs")):
        values, vectors = by_attack.lowest_pairs(problem, largest=opposite)

        def line(step: Array, along: Array = vectors[index], turned: bool = opposite) -> Array:
            x, lam = by_attack.split(problem, index, along, step, opposite=turned)
            return np.asarray(problem.value(x, lam) - before)

        bend = float(-values[index] if opposite else values[index])
        changes.append((name, total, bend, *base.taylor(line)))
    return changes


def best_split(plan: Plan) -> tuple[FloatArray, FloatArray]:
    """Two offspring along +-v_min, and two of opposite sign along +-v_max where c > 1."""
    matrix = np.asarray(base.splitting_matrix(plan.problem, plan.index), dtype=np.float64)
    values, vectors = np.linalg.eigh(matrix)
    low = vectors[:, 0] * (values[0] < 0.0)
    high = vectors[:, -1] * (values[-1] > 0.0)
    plus, minus = 0.25 * (plan.allowed + 1.0), 0.25 * (plan.allowed - 1.0)
    return np.array([plus, plus, -minus, -minus]), np.stack([low, -low, high, -high])


def centre(weights: FloatArray, moves: FloatArray, plan: Plan) -> FloatArray:
    """Bring displacements (B, K, d) into the ball, and their mean to 0 where it has to be."""
    if plan.centred:
        moves = moves - np.einsum("bk,bkd->bd", weights, moves)[:, None]
        largest = np.linalg.norm(moves, axis=2).max(axis=1)[:, None, None]
        return np.asarray(moves / np.maximum(1.0, largest / plan.radius))
    sizes = np.linalg.norm(moves, axis=2, keepdims=True)
    return np.asarray(moves / np.maximum(1.0, sizes / plan.radius))


def _weights(logits: FloatArray, plan: Plan) -> FloatArray:
    """Weights (B, K): positive ones with sum (c + 1)/2, the last ones negative if c > 1."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    positive = plan.count - (plan.count // 2 if plan.total > 1.0 else 0)
    plus, minus = 0.5 * (plan.total + 1.0), 0.5 * (plan.total - 1.0)
    first, last = shares[:, :positive], shares[:, positive:]
    parts = [plus * first / first.sum(axis=1, keepdims=True)]
    if last.shape[1]:
        parts.append(-minus * last / last.sum(axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)


def tried(plan: Plan) -> list[tuple[FloatArray, FloatArray]]:
    """Random splits, the best of projected gradient descent from random starts, plain moves."""
    problem, index = plan.problem, plan.index
    rng = np.random.default_rng([problem.seed, plan.count, 11])
    d = problem.x.shape[1]
    own = np.asarray(base.own_hessian(problem, index), dtype=np.float64)
    apart = np.asarray(base.splitting_matrix(problem, index), dtype=np.float64)
    shared = own - apart
    logits = rng.standard_normal((STARTS, plan.count))
    weights = _weights(logits, plan)
    moves = centre(weights, plan.radius * rng.standard_normal((STARTS, plan.count, d)), plan)
    found = [(weights[k], moves[k]) for k in range(RANDOM)]
    speed = np.linalg.norm(apart, 2) + plan.total * np.linalg.norm(shared, 2) + 1e-300
    for _ in range(ROUNDS):
        mean = np.einsum("bk,bkd->bd", weights, moves) @ shared
        pull = moves @ apart
        terms = (pull * moves).sum(axis=2) + 2.0 * (moves * mean[:, None]).sum(axis=2)
        logits = logits - np.sign(weights) * terms / speed
        moves = moves - np.sign(weights)[..., None] * (pull + mean[:, None]) / speed
        weights = _weights(logits, plan)
        moves = centre(weights, moves, plan)
    mean = np.einsum("bk,bkd->bd", weights, moves)
    change = np.einsum("bk,bkd,de,bke->b", weights, moves, apart, moves)
    change = change + np.einsum("bd,de,be->b", mean, shared, mean)
    best = int(np.argmin(change))
    found.append((weights[best], moves[best]))
    if not plan.centred:
        slope = np.asarray(base.gradient_x(problem)[index], dtype=np.float64)
        directions = [np.linalg.eigh(own)[1][:, 0]]
        if np.any(slope):
            directions.append(-slope / np.linalg.norm(slope))
        found += [(np.ones(1), plan.radius * v[None]) for v in directions]
    return found


def _optimal(plan: Plan) -> Check:
    return _compare(plan, claim(plan))


def _compare(plan: Plan, best: float) -> Check:
    """No split falls in first order, none below `best` in second, and one attains it."""
    noise = base.matrix_rounding(plan.problem, plan.index)
    steep = base.gradient_rounding(plan.problem) * np.sqrt(plan.problem.x.shape[1])
    worst, detail = 0.0, "no split is better"
    for weights, moves in tried(plan):
        slopes, errors = base.split_taylor(plan.problem, plan.index, weights, moves)
        reach = float(np.abs(weights).sum()) * plan.radius
        ratio = -slopes[1] / (errors[1] + reach * steep)
        if ratio > worst:
            worst, detail = float(ratio), f"first-order change {slopes[1]:.3g} < 0"
        ratio = (best - 2.0 * slopes[2]) / (2.0 * errors[2] + reach**2 * noise)
        if ratio > worst:
            worst, detail = float(ratio), f"second-order change {2 * slopes[2]:.6g} < {best:.6g}"
    slopes, errors = base.split_taylor(plan.problem, plan.index, *best_split(plan))
    ratio = abs(2.0 * slopes[2] - best) / (2.0 * errors[2] + plan.allowed * noise)
    if ratio > worst:
        worst, detail = float(ratio), f"the best split gives {2 * slopes[2]:.6g}, not {best:.6g}"
    for name, total, bend, slopes, errors in attack_changes(plan):
        allowed = 2.0 * errors[2] + total * noise
        ratio = abs(2.0 * slopes[2] - bend) / allowed
        if total <= plan.allowed:
            ratio = max(ratio, (best - 2.0 * slopes[2]) / allowed)
        if ratio > worst:
            worst = float(ratio)
            detail = f"{name} of the attack give {2 * slopes[2]:.6g}, not {bend:.6g}"
    return Check.compare(worst, 1.0, detail)


def _precise(plan: Plan) -> Check:
    return _optimal(replace(plan, problem=plan.problem.extended()))


def _own_curvature(plan: Plan) -> Check:
    """The Hessian block of the candidate would decide."""
    least = float(spectrum(base.own_hessian(plan.problem, plan.index))[0])
    return _compare(plan, min(0.0, least) * (plan.allowed + 1.0) / 2.0)


def _one_sided(plan: Plan) -> Check:
    """Negative curvature alone would count, whatever the signs."""
    least = float(spectrum(base.splitting_matrix(plan.problem, plan.index))[0])
    return _compare(plan, min(0.0, least) * (plan.allowed + 1.0) / 2.0)


def _plans(
    losses: tuple[str, ...] = base.CONVEX,
    plant: base.Plant = "x",
    centred: bool | None = None,
    totals: tuple[float, ...] = (1.0,),
    allowed: float | None = None,
    radius: float = 1.0,
) -> SearchStrategy[Plan]:
    """Plans; `allowed` None compares with the budget that is used."""
    from hypothesis import strategies as st

    def build(problem: Problem, count: int, middle: bool, total: float) -> Plan:
        index = problem.seed % len(problem.x)
        number = max(count, 2) if total > 1.0 else count
        budget = total if allowed is None else allowed
        return Plan(problem, index, number, middle, total, budget, radius)

    middles = st.booleans() if centred is None else st.just(centred)
    drawn = base.problems(losses, plant=plant, max_dimension=5)
    return st.builds(build, drawn, st.integers(1, 6), middles, st.sampled_from(totals))


def _allowed(totals: tuple[float, ...]) -> Callable[[], SearchStrategy[Plan]]:
    """Convex and stationary, or centred with any loss anywhere."""

    def plans() -> SearchStrategy[Plan]:
        from hypothesis import strategies as st

        return st.one_of(
            _plans(totals=totals),
            _plans(losses=base.LOSSES, plant="none", centred=True, totals=totals),
        )

    return plans


def _conditions(totals: tuple[float, ...]) -> tuple[Hypothesis, ...]:
    return (
        Hypothesis(
            "stationary",
            "the gradient in X vanishes, or the mean displacement does",
            lambda plan: plan.centred or base.is_stationary(plan.problem),
            lambda: _plans(plant="none", centred=False, totals=totals),
        ),
        Hypothesis(
            "convex",
            "l is convex, or the mean displacement vanishes",
            lambda plan: plan.centred or plan.problem.loss.convex,
            lambda: _plans(losses=("cap", "saddle", "wave"), centred=False, totals=totals),
        ),
        Hypothesis(
            "distance",
            "the displacements are at most 1 (times eps)",
            lambda plan: plan.radius <= 1.0,
            lambda: _plans(radius=2.0, totals=totals),
        ),
    )


def _algebra(signed: bool) -> Callable[[], bool]:
    """The argument by eigenvalues in the eigenbasis of S = diag(p, p + q), G = A^T A."""

    def proof() -> bool:
        from sympy import QQ, ring

        low, gap, *rest = ring("p q a:4 w:2 v:6", QQ)[1:]
        matrix = np.array([[low, low * 0], [low * 0, low + gap]])
        root = np.array(rest[:4]).reshape(2, 2)
        first, second = rest[4:6]
        weights = np.array([first, second, 1 - first - second])
        moves = np.array(rest[6:]).reshape(3, 2)
        mean = weights @ moves
        off = moves - mean
        own = matrix + root.T @ root
        pairs = list(zip(weights, moves, strict=True))
        change = mean @ own @ mean
        change += sum(w * (v @ matrix @ v) for w, v in zip(weights, off, strict=True))
        squares = sum(c**2 for c in root @ mean)
        lengths = sum(w * (v @ v) for w, v in pairs)
        bound = low * lengths + gap * sum(w * v[1] ** 2 for w, v in pairs)
        # Weights of the other sign are bounded from above by the other eigenvalue.
        other = (low + gap) * lengths - gap * sum(w * v[0] ** 2 for w, v in pairs)
        same = bool(change == bound + squares)
        return same and (not signed or bool(change == other + squares))

    return proof


_MATRIX = Sabotage(
    "matrix",
    "the attack's products with the wrong sign",
    implementation=lambda: by_attack.broken_products(-1.0),
)
_MULTIPLIERS = Sabotage(
    "multipliers",
    "the attack's offspring keep lam_i",
    implementation=by_attack.kept_multipliers,
)

OPTIMAL = Statement(
    name="splitting-optimal",
    title="Optimal split",
    sentence=(
        "Where the gradient vanishes and l is convex, or the mean displacement is 0, no split "
        "with weights >= 0 and displacements of at most eps changes the loss by less than "
        "eps^2/2 min(0, lambda_min(S_i)) to second order, and halves x_i +- eps v_min attain it."
    ),
    formula=r"\min_{w, \delta} \, L' - L = \tfrac{\epsilon^2}{2} \min(0, \lambda_{\min}(S_i))",
    source=(
        "Wu, Wang & Liu 2019 (splitting steepest descent, theorem on optimal splits); "
        "Shen, Wang, Qian & Lei 2026 (Theorem B.1)"
    ),
    hypotheses=(
        *_conditions((1.0,)),
        Hypothesis(
            "weights",
            "the weights of the offspring are not negative",
            lambda plan: plan.total == 1.0,
            lambda: _plans(totals=(3.0,), allowed=1.0),
        ),
    ),
    instances=_allowed((1.0,)),
    conclusion=_optimal,
    sabotages=(
        Sabotage("own", "the Hessian block in place of S_i", conclusion=_own_curvature),
        _MATRIX,
        _MULTIPLIERS,
    ),
    algebra=_algebra(signed=False),
    algebra_note=NOTE,
    recheck=_precise,
    code=(*CODE, "attack.splitting.eigenpairs.smallest_eigenpairs"),
    remark="With mean displacement 0 neither a stationary point nor a convex l is needed.",
)

SIGNED = Statement(
    name="splitting-signed",
    title="Optimal split with opposite signs",
    sentence=(
        "If weights may be negative with sum_k |w_k| <= c, the best second-order change is "
        "eps^2/2 [(c + 1)/2 min(0, lambda_min(S_i)) - (c - 1)/2 max(0, lambda_max(S_i))], attained "
        "by four offspring: positive curvature is used by those of opposite sign."
    ),
    formula=(
        r"\tfrac{\epsilon^2}{2} [\tfrac{c+1}{2} \min(0, \lambda_{\min}(S_i)) - "
        r"\tfrac{c-1}{2} \max(0, \lambda_{\max}(S_i))]"
    ),
    source=(
        "after Wu, Ye, Lei, Lee & Liu 2020 (signed neural splitting); the constant for a budget c "
        "is ours"
    ),
    hypotheses=(
        *_conditions((1.0, 2.0, 3.0, 5.0)),
        Hypothesis(
            "budget",
            "the moduli of the weights sum to at most c",
            lambda plan: plan.total <= plan.allowed,
            lambda: _plans(totals=(5.0,), allowed=2.0),
        ),
    ),
    instances=_allowed((1.0, 2.0, 3.0, 5.0)),
    conclusion=_optimal,
    sabotages=(
        Sabotage("one-sided", "positive curvature is useless", conclusion=_one_sided),
        _MATRIX,
        _MULTIPLIERS,
    ),
    algebra=_algebra(signed=True),
    algebra_note=NOTE,
    recheck=_precise,
    code=(*CODE, "attack.splitting.eigenpairs.extreme_eigenpairs"),
)

STATEMENTS = (OPTIMAL, SIGNED)
