"""How much a split and a gradient step gain where the constants of the problem are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from identify.arrays import FloatArray
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting import problems as base
from proofs_check.statements.splitting.families import Array, Features, Loss
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LADDER: FloatArray = 2.0 ** np.arange(-12.0, 6.0)
SHARE = 5.0 / 24.0
SHEN = "after Shen, Wang, Qian & Lei 2026 (Theorem 5.1); the constant is ours"


@dataclass(frozen=True, eq=False)
class Claimed:
    """Candidates that are split together, and the constants that are claimed for the problem.

    `gamma` with lambda_min(S_i) <= -gamma, `beta` the smoothness of l, `bend` B with
    |lam_i D^2 phi[v, v]| <= B, `twist` rho, the Hessian's Lipschitz constant of
    lam_i <grad l, phi>. `together` is the number that the step allows for.
    """

    problem: Problem
    indices: tuple[int, ...]
    gamma: float
    beta: float
    bend: float
    twist: float
    together: int

    def __repr__(self) -> str:
        return (
            f"Claimed({self.problem!r}, split {list(self.indices)}, gamma={self.gamma:.3g}, "
            f"beta={self.beta:.3g}, B={self.bend:.3g}, rho={self.twist:.3g})"
        )


def least(problem: Problem, index: int) -> tuple[float, FloatArray]:
    """lambda_min(S_i) and its eigenvector."""
    matrix = np.asarray(base.splitting_matrix(problem, index), dtype=np.float64)
    values, vectors = np.linalg.eigh(matrix)
    return float(values[0]), np.asarray(vectors[:, 0])


def constants(problem: Problem, indices: tuple[int, ...]) -> tuple[float, float, float, float]:
    """gamma, beta, B, rho that hold for these candidates."""
    features, slope = problem.features, problem.slope
    largest = max(abs(float(problem.lam[i])) for i in indices)
    return (
        min(-least(problem, i)[0] for i in indices),
        problem.loss.smoothness,
        largest * features.bend,
        largest * features.twist(slope),
    )


def square(claimed: Claimed) -> float:
    """eps^2 = min(gamma^2/rho^2, gamma/(k beta B^2)) for k splits at once."""
    by_twist = (claimed.gamma / claimed.twist) ** 2 if claimed.twist > 0.0 else math.inf
    return min(by_twist, claimed.gamma / (claimed.together * claimed.beta * claimed.bend**2))


def gains(claimed: Claimed, steps: Array) -> FloatArray:
    """L less L after the attack has halved the candidates along eigenvectors, for every step."""
    problem, chosen = claimed.problem, list(claimed.indices)
    directions = by_attack.lowest_pairs(problem)[1][chosen]
    split = [
        by_attack.offspring(problem.x, problem.lam, chosen, directions, np.full(len(chosen), step))
        for step in steps
    ]
    after = problem.value(np.stack([x for x, _ in split]), np.stack([lam for _, lam in split]))
    return np.asarray(problem.value(problem.x, problem.lam) - after, dtype=np.float64)


def found_step(claimed: Claimed) -> float:
    """The one step for all that the attack's search finds, between 1e-5 and 0.02."""
    from attack.splitting import accept

    problem, chosen = claimed.problem, list(claimed.indices)
    plan = by_attack.plan_of(chosen, by_attack.lowest_pairs(problem)[1][chosen])
    found = accept.common_step(by_attack.objective(problem), by_attack.candidates(problem), plan)
    return float(found[0])


def _slack(problem: Problem) -> float:
    """Rounding of two values of L after a split, whose F has at most a few times the terms."""
    return 16.0 * problem.value_rounding


def _single(claimed: Claimed) -> Check:
    """The best step of a wide ladder around the one of the proof gains enough."""
    return _best(claimed, min)


def _best(claimed: Claimed, choose: Callable[[float, float], float]) -> Check:
    gamma, twist = claimed.gamma, claimed.twist
    by_twist = gamma**3 / twist**2 if twist > 0.0 else math.inf
    by_bend = gamma**2 / (claimed.beta * claimed.bend**2)
    bound = SHARE * choose(by_twist, by_bend)
    best = float(gains(claimed, math.sqrt(square(claimed)) * LADDER).max())
    return Check.compare(
        max(0.0, bound - best), _slack(claimed.problem), f"gains {best:.6g}, not {bound:.6g}"
    )


def _together(claimed: Claimed, factor: float = SHARE) -> Check:
    """At the step of the proof, and at a shorter one of the attack, every split pays its share."""
    longest = math.sqrt(square(claimed))
    steps = np.array([longest, min(longest, found_step(claimed))])
    bounds = factor * len(claimed.indices) * claimed.gamma * steps**2
    found = gains(claimed, steps)
    worst = int(np.argmax(bounds - found))
    return Check.compare(
        max(0.0, float(bounds[worst] - found[worst])),
        _slack(claimed.problem),
        f"gains {found[worst]:.6g} at {steps[worst]:.3g}, not {bounds[worst]:.6g}",
    )


def _flatter(problem: Problem, factor: float) -> Problem:
    """A multiple of A, with t moved so that grad l at F stays what it is."""
    if problem.loss.kind not in ("quadratic", "saddle", "cap"):
        return problem
    matrix = factor * problem.loss.matrix
    total = problem.total(problem.x, problem.lam)
    shift = total - np.linalg.solve(matrix, problem.slope)
    return replace(problem, loss=replace(problem.loss, matrix=matrix, shift=shift))


def _claims(
    features: tuple[str, ...] = (*base.BOUNDED, "square"),
    flat: tuple[float, ...] = (1.0, 1e-3),
    losses: tuple[str, ...] = base.LOSSES,
    wrong: dict[str, float] | None = None,
    several: bool = False,
) -> SearchStrategy[Claimed]:
    """Problems with a negative eigenvalue and their constants, some of them times a factor."""
    from hypothesis import strategies as st

    def build(problem: Problem, factor: float) -> Claimed:
        problem = _flatter(problem, factor)
        lows = [least(problem, i)[0] for i in range(len(problem.lam))]
        chosen = tuple(i for i, low in enumerate(lows) if low < -1e-3) if several else ()
        indices = chosen or (int(np.argmin(lows)),)
        found = Claimed(problem, indices, *constants(problem, indices), len(indices))
        changes = {name: getattr(found, name) * scale for name, scale in (wrong or {}).items()}
        return replace(found, **changes)

    drawn = base.problems(losses, features, plant="none", max_candidates=4)
    return st.builds(build, drawn, st.sampled_from(flat)).filter(lambda c: c.gamma > 1e-6)


def _holds(name: str, position: int, above: bool) -> Callable[[Claimed], bool]:
    """Whether a claimed constant is on the safe side of the one that is known to hold."""

    def predicate(claimed: Claimed) -> bool:
        known = constants(claimed.problem, claimed.indices)[position]
        value = getattr(claimed, name)
        slack = 1e-12 * abs(known)
        return bool(value >= known - slack if above else 0.0 < value <= known + slack)

    return predicate


_QUADRATIC: dict[str, Any] = {"features": ("square",), "losses": ("quadratic",), "flat": (1.0,)}
_CONSTANTS = (
    Hypothesis(
        "curvature",
        "0 < gamma <= -lambda_min(S_i)",
        _holds("gamma", 0, above=False),
        lambda: _claims(wrong={"gamma": 30.0}),
    ),
    Hypothesis(
        "beta",
        "l is beta-smooth",
        _holds("beta", 1, above=True),
        lambda: _claims(**_QUADRATIC, wrong={"beta": 1e-4}),
    ),
    Hypothesis(
        "B",
        "|lam_i D^2 phi[v, v]| <= B for unit v",
        _holds("bend", 2, above=True),
        lambda: _claims(**_QUADRATIC, wrong={"bend": 1e-2}),
    ),
    Hypothesis(
        "rho",
        "the Hessian of lam_i <grad l, phi> is rho-Lipschitz",
        _holds("twist", 3, above=True),
        lambda: _claims(base.BOUNDED, flat=(1e-5,), losses=("quadratic",), wrong={"twist": 1e-2}),
    ),
)


def clones(seed: int) -> Claimed:
    """Sixteen equal candidates in one dimension with a quadratic l and phi = z^2/2."""
    rng = np.random.default_rng([seed, 17])
    count = 16
    direction, slope, beta = rng.uniform(0.5, 2.0, size=3)
    lam = np.full(count, -1.0 / count)
    x = np.zeros((count, 1))
    features = Features("square", np.array([[direction]]), np.array([0.3]))
    one = np.ones(1)
    start = Problem(Loss("quadratic", one[:, None], one, one), features, x, lam, "clones", seed)
    shift = start.total(x, lam) - slope / beta
    problem = replace(start, loss=Loss("quadratic", beta * one[:, None], one, shift))
    indices = tuple(range(count))
    return Claimed(problem, indices, *constants(problem, indices), 1)


def _cloned() -> SearchStrategy[Claimed]:
    from hypothesis import strategies as st

    return st.integers(0, 2**20).map(clones)


_CLOSE = Sabotage(
    "distance",
    "the attack's offspring a hundred times too close",
    implementation=lambda: by_attack.close_offspring(0.01),
)

GAIN = Statement(
    name="splitting-gain",
    title="What one split gains",
    sentence=(
        "If l is beta-smooth, |lam_i D^2 phi[v, v]| <= B, the Hessian of lam_i <grad l, phi> is "
        "rho-Lipschitz and lambda_min(S_i) <= -gamma, some split of candidate i lowers L by at "
        "least (5/24) min(gamma^3/rho^2, gamma^2/(beta B^2)), at stationary points or elsewhere."
    ),
    formula=(r"L - L' \ge \tfrac{5}{24} \min(\gamma^3/\rho^2, \gamma^2/(\beta B^2))"),
    source=SHEN,
    hypotheses=_CONSTANTS,
    instances=_claims,
    conclusion=_single,
    sabotages=(
        Sabotage("max", "the larger of the two", conclusion=lambda c: _best(c, max)),
        _CLOSE,
    ),
    code=("attack.splitting.plan.offspring", "attack.splitting.eigenpairs.smallest_eigenpairs"),
    remark=(
        "Without beta nothing is gained for sure: one feature z^2/2 has rho = 0, and with a "
        "quadratic l the best gain is exactly gamma^2/(2 beta B^2), however large beta is."
    ),
)

TOGETHER = Statement(
    name="splitting-gain-together",
    title="What several splits at once gain",
    sentence=(
        "k candidates with lambda_min(S_i) <= -gamma that are halved together with the one step "
        "eps^2 = min(gamma^2/rho^2, gamma/(k beta B^2)), or a shorter one, lower L by at least "
        "(5/24) k gamma eps^2; the step of a single split may raise L."
    ),
    formula=r"L - L' \ge \tfrac{5}{24} k \gamma \epsilon^2, \quad "
    r"\epsilon^2 = \min(\gamma^2/\rho^2, \gamma/(k \beta B^2))",
    source="ours",
    hypotheses=(
        *_CONSTANTS,
        Hypothesis(
            "step",
            "the step allows for all k candidates, not for one",
            lambda claimed: claimed.together >= len(claimed.indices),
            _cloned,
        ),
    ),
    instances=lambda: _claims(several=True),
    conclusion=_together,
    sabotages=(
        Sabotage("half", "gamma eps^2/2 a split", conclusion=lambda c: _together(c, 0.5)),
        _CLOSE,
    ),
    code=("attack.splitting.plan.offspring", "attack.splitting.accept.common_step"),
    remark="One step for all, as in the paper's program, has to shrink like 1/sqrt(k).",
)


@dataclass(frozen=True, eq=False)
class Descent:
    """A gradient step of 1/ell in X with the smoothness `ell` that is claimed."""

    problem: Problem
    ell: float

    def __repr__(self) -> str:
        return f"Descent({self.problem!r}, ell={self.ell:.3g})"


def smoothness(problem: Problem) -> float:
    """max |lam_i| |grad l| |D^2 phi| + beta sum lam_i^2 |D phi|^2, a bound of |Hess_X L|.

    Bounded features only: |F| <= sum |lam_i| sup |phi|.
    """
    features, loss, moduli = problem.features, problem.loss, np.abs(problem.lam)
    steep = loss.steepest(float(moduli.sum()) * features.size)
    bent = float(moduli.max()) * steep * features.bend
    return bent + loss.smoothness * float((moduli**2).sum()) * features.speed**2


def _step(case: Descent, factor: float = 0.5) -> Check:
    problem = case.problem
    slope = by_attack.gradient(problem)
    after = problem.value(problem.x - slope / case.ell, problem.lam)
    gain = float(problem.value(problem.x, problem.lam) - after)
    bound = factor * float(np.sum(slope**2)) / case.ell
    return Check.compare(
        max(0.0, bound - gain), _slack(problem), f"gains {gain:.6g}, not {bound:.6g}"
    )


def _descents(factor: float) -> SearchStrategy[Descent]:
    def build(problem: Problem) -> Descent:
        return Descent(problem, factor * smoothness(problem))

    moving = base.problems(features=base.BOUNDED).map(build)
    return moving.filter(lambda case: float(np.abs(base.gradient_x(case.problem)).max()) > 1e-3)


STEP = Statement(
    name="splitting-gradient-step",
    title="What a gradient step gains",
    sentence=(
        "If L is ell-smooth in X, a gradient step of 1/ell lowers it by at least "
        "|grad L|^2/(2 ell), hence by eps^2/(2 ell) where |grad L| >= eps."
    ),
    formula=r"L(X) - L(X - \tfrac{1}{\ell} \nabla L) \ge \tfrac{1}{2 \ell} |\nabla L|^2",
    source="descent lemma, Nesterov 2004 (Introductory lectures, section 1.2.3)",
    hypotheses=(
        Hypothesis(
            "smooth",
            "ell bounds the Hessian of L in X everywhere",
            lambda case: case.ell >= smoothness(case.problem) * (1.0 - 1e-12),
            lambda: _descents(1e-5),
        ),
    ),
    instances=lambda: _descents(1.0),
    conclusion=_step,
    sabotages=(
        Sabotage("double", "1/ell in place of 1/(2 ell)", conclusion=lambda c: _step(c, 1.0)),
        Sabotage(
            "gradient",
            "the attack's gradient with the wrong sign",
            implementation=lambda: by_attack.broken_gradients(-1.0),
        ),
    ),
    code=("attack.objectives.base.Objective.value_and_gradients",),
)

STATEMENTS = (GAIN, TOGETHER, STEP)
