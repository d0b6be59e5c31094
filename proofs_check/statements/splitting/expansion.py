"""What a split does to the loss, to second order, with the order of the remainder measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from identify.arrays import FloatArray
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting import problems as base
from proofs_check.statements.splitting.families import Array, Features
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

STEPS: FloatArray = 2.0 ** -np.arange(4.0, 10.0)
BUNDLE = 8
SURE = 64.0
WU = (
    "Wu, Wang & Liu 2019 (splitting steepest descent, section 3), with candidates for neurons; "
    "Shen, Wang, Qian & Lei 2026 (Lemma B.1)"
)
CODE = ("attack.splitting.plan.offspring", "attack.objectives.base.doubled_products")
Scheme = Literal["any", "halves", "opposite"]


@dataclass(frozen=True, eq=False)
class Case:
    """A split of one candidate: `weights` (K,) and a bundle of `displacements` (B, K, d).

    With a scheme other than "any" the offspring are those of the attack, which weights and
    displacements then describe: two halves, or three of opposite signs.

    A bundle with both signs, because a single remainder a eps^3 + b eps^4 may vanish at some
    step; in the norm over the two signs the two terms cannot cancel.
    """

    problem: Problem
    index: int
    weights: FloatArray
    displacements: FloatArray
    scheme: Scheme = "any"

    def __repr__(self) -> str:
        note = "" if self.scheme == "any" else f", {self.scheme}"
        count = len(self.weights)
        return f"Case({self.problem!r}, candidate {self.index}, {count} offspring{note})"


def order(remainder: Array, noise: float) -> float:
    """The exponent q of |remainder| ~ eps^q over `STEPS`, infinite where rounding hides it.

    `remainder` (steps, B); steps count from the largest down to where the norm over the bundle
    sinks below 64 times the rounding.
    """
    sizes = np.linalg.norm(np.asarray(remainder, dtype=np.float64), axis=1)
    hidden = sizes < SURE * noise * np.sqrt(remainder.shape[1])
    kept = int(np.argmax(hidden)) if hidden.any() else len(sizes)
    if kept < 2:
        return np.inf
    return float(np.log(sizes[0] / sizes[kept - 1]) / np.log(STEPS[0] / STEPS[kept - 1]))


def at_least(found: float, expected: int) -> Check:
    """Whether a measured exponent rounds to the expected integer or to a larger one."""
    return Check.compare(max(0.0, expected - found), 0.5, f"order {found:.2f}, not {expected}")


def first_order(problem: Problem, index: int, weights: Array, displacements: Array) -> Array:
    """<grad_i L, dbar>, shape (B,)."""
    mean = np.einsum("k,...kd->...d", weights, displacements)
    return np.asarray(mean @ base.gradient_x(problem)[index])


def bending(problem: Problem, index: int, weights: Array, displacements: Array) -> Array:
    """sum_k w_k delta_k . S_i delta_k, shape (B,)."""
    matrix = by_attack.splitting_matrices(problem)[index]
    return np.asarray(((displacements @ matrix) * displacements).sum(axis=-1) @ weights)


def second_order(problem: Problem, index: int, weights: Array, displacements: Array) -> Array:
    """dbar . Hess_ii dbar + sum_k w_k (delta_k - dbar) . S_i (delta_k - dbar), shape (B,)."""
    mean = np.einsum("k,...kd->...d", weights, displacements)
    own = by_attack.splitting_matrices(problem)[index] + base.shared_hessian(problem, index)
    together = ((mean @ own) * mean).sum(axis=-1)
    apart = bending(problem, index, weights, displacements - mean[..., None, :])
    return np.asarray(together + apart)


def change(case: Case) -> Array:
    """L after the split less L, shape (steps, B)."""
    problem = case.problem
    moves, steps = case.displacements[None], STEPS[:, None]
    if case.scheme == "any":
        x, lam = base.split(problem, case.index, case.weights, moves, steps)
    else:
        opposite = case.scheme == "opposite"
        # The first offspring is at x + eps v, or for opposite signs the last one.
        along = moves[..., -1 if opposite else 0, :]
        x, lam = by_attack.split(problem, case.index, along, steps, opposite=opposite)
    return np.asarray(problem.value(x, lam) - problem.value(problem.x, problem.lam))


def precise(conclusion: Callable[[Case], Check]) -> Callable[[Case], Check]:
    """The same conclusion in the longest floating-point type of the machine."""
    return lambda case: conclusion(replace(case, problem=case.problem.extended()))


def _draw(problem: Problem, count: int, total: float = 1.0) -> Case:
    rng = np.random.default_rng([problem.seed, count, 7])
    n, d = problem.x.shape
    weights = rng.uniform(-1.0, 2.0, size=count)
    weights[-1] = 1.0 - weights[:-1].sum()
    moves = rng.standard_normal((BUNDLE // 2, count, d))
    moves /= np.maximum(1.0, np.linalg.norm(moves, axis=-1, keepdims=True))
    moves = np.concatenate([moves, -moves])
    return Case(problem, problem.seed % n, total * weights, moves)


def _cases(total: float = 1.0) -> SearchStrategy[Case]:
    from hypothesis import strategies as st

    return st.builds(_draw, base.problems(), st.integers(1, 6), st.just(total))


def halved_case(problem: Problem) -> Case:
    case = _draw(problem, 1)
    both = np.concatenate([case.displacements, -case.displacements], axis=1)
    return replace(case, weights=np.array([0.5, 0.5]), displacements=both, scheme="halves")


def halved_cases() -> SearchStrategy[Case]:
    """Splits into symmetric halves of candidates of any problem."""
    return base.problems().map(halved_case)


def _lopsided(problem: Problem) -> Case:
    """Weights 2/3 and 1/3 at v/2 and -v: mean zero, and not symmetric."""
    case = halved_case(problem)
    weights = np.array([2.0, 1.0]) / 3.0
    moves = case.displacements * np.array([0.5, 1.0])[:, None]
    return replace(case, weights=weights, displacements=moves, scheme="any")


def _opposite(problem: Problem) -> Case:
    """Weights 2, -1/2, -1/2 at 0, -v, v: the attack's offspring of opposite signs."""
    case = _draw(problem, 1)
    three = case.displacements * np.array([0.0, -1.0, 1.0])[:, None]
    weights = np.array([2.0, -0.5, -0.5])
    return replace(case, weights=weights, displacements=three, scheme="opposite")


def _expanded() -> SearchStrategy[Case]:
    """Any weights and displacements, and the two schemes of the attack."""
    from hypothesis import strategies as st

    return st.one_of(_cases(), halved_cases(), base.problems().map(_opposite))


def _kinked(exponent: float) -> Callable[[Case], Case]:
    """Features |u . (x - x_i)|^exponent, not smooth at the candidate that is split."""

    def kink(case: Case) -> Case:
        rows = case.problem.features.directions
        features = Features("kink", rows, -rows @ case.problem.x[case.index], exponent)
        return replace(case, problem=replace(case.problem, features=features))

    return kink


def smooth(times: int, exponent: float, cases: Callable[[], SearchStrategy[Case]]) -> Hypothesis:
    """phi has that many continuous derivatives; features of a smaller exponent break it."""
    return Hypothesis(
        f"C^{times}",
        f"phi is {times} times continuously differentiable",
        lambda case: bool(case.problem.features.exponent >= times),
        lambda: cases().map(_kinked(exponent)),
    )


def _expansion(case: Case) -> Check:
    arguments = (case.problem, case.index, case.weights, case.displacements)
    predicted = STEPS[:, None] * first_order(*arguments)
    predicted = predicted + 0.5 * STEPS[:, None] ** 2 * second_order(*arguments)
    return at_least(order(change(case) - predicted, case.problem.value_rounding), 3)


def _without_mean(case: Case) -> Check:
    """Every offspring bends by S_i alone: the coupling of the mean through D^2 l is left out."""
    arguments = (case.problem, case.index, case.weights, case.displacements)
    predicted = STEPS[:, None] * first_order(*arguments)
    predicted = predicted + 0.5 * STEPS[:, None] ** 2 * bending(*arguments)
    return at_least(order(change(case) - predicted, case.problem.value_rounding), 3)


def _halves_order(case: Case) -> float:
    bent = bending(case.problem, case.index, case.weights, case.displacements)
    rest = change(case) - 0.5 * STEPS[:, None] ** 2 * bent
    return order(rest, case.problem.value_rounding)


def _halves(case: Case) -> Check:
    return at_least(_halves_order(case), 4)


def _expansion_algebra() -> bool:
    """Two dimensions, two features, three offspring; l and phi by their Taylor coefficients."""
    from sympy import QQ, ring

    names = "e m g:2 h:3 j:4 b:6 w:2 v:6"
    eps, lam, *rest = ring(names, QQ)[1:]
    slope, inner, (first, second) = rest[:2], rest[2:5], rest[15:17]
    jacobian = np.array(rest[5:9]).reshape(2, 2)
    bends = [np.array([[p, q], [q, r]]) for p, q, r in (rest[9:12], rest[12:15])]
    hessian = np.array([inner[:2], inner[1:]])
    weights = np.array([first, second, 1 - first - second])
    moves = np.array(rest[17:]).reshape(3, 2)
    mean = weights @ moves
    bent = np.array(
        [sum(w * (v @ m @ v) for w, v in zip(weights, moves, strict=True)) for m in bends]
    )
    # Arrays stand on the left: an element of the ring would not know how to multiply them.
    total = (jacobian @ mean) * (lam * eps) + bent * (lam * eps**2 / 2)
    grown = total @ slope + (total @ hessian @ total) / 2
    matrix = (bends[0] * slope[0] + bends[1] * slope[1]) * lam
    own = matrix + (jacobian.T @ hessian @ jacobian) * lam**2
    apart = sum(w * ((v - mean) @ matrix @ (v - mean)) for w, v in zip(weights, moves, strict=True))
    claim = lam * eps * (jacobian @ mean @ slope) + eps**2 * (mean @ own @ mean + apart) / 2
    return all(power[0] > 2 for power, _ in (grown - claim).terms())


def _halves_algebra() -> bool:
    """One feature in two dimensions: odd orders up to the fifth cancel, the second is v . S v."""
    import sympy as sp

    eps, lam, slope, inner = sp.symbols("epsilon lambda g h")
    v = sp.symbols("v1 v2")
    taylor, changes = sp.Integer(0), []
    for degree in range(1, 6):
        for power in range(degree + 1):
            name = sp.Symbol(f"t{degree}_{power}")
            taylor += name * v[0] ** power * v[1] ** (degree - power) * eps**degree
    changes = [taylor, taylor.subs(eps, -eps)]
    total = lam * sp.expand(sum(changes) / 2)
    grown = sp.Poly(sp.expand(slope * total + inner * total**2 / 2), eps)
    bent = sp.diff(taylor, eps, 2).subs(eps, 0) * lam * slope / 2
    odd = all(grown.coeff_monomial(eps**k) == 0 for k in (1, 3, 5))
    return odd and sp.expand(grown.coeff_monomial(eps**2) - bent) == 0


EXPANSION = Statement(
    name="splitting-expansion",
    title="Expansion of a split",
    sentence=(
        "Replacing (x_i, lam_i) by (x_i + eps delta_k, w_k lam_i) changes the loss by the "
        "gradient along the mean displacement, half of its Hessian block there and half of S_i "
        "on the deviations from the mean, up to O(eps^3), whatever the signs of the w_k."
    ),
    formula=(
        r"L' = L + \epsilon \langle \nabla_i L, \bar\delta \rangle + \tfrac{\epsilon^2}{2} "
        r"[\bar\delta^T H_{ii} \bar\delta + \sum_k w_k (\delta_k - \bar\delta)^T S_i "
        r"(\delta_k - \bar\delta)] + O(\epsilon^3)"
    ),
    source=WU,
    hypotheses=(
        Hypothesis(
            "weights",
            "the weights of the offspring sum to 1",
            lambda case: bool(abs(case.weights.sum() - 1.0) <= 1e-12),
            lambda: _cases(1.1),
        ),
        smooth(3, 2.2, _cases),
    ),
    instances=_expanded,
    conclusion=_expansion,
    sabotages=(
        Sabotage("mean", "S_i in place of the Hessian at the mean", conclusion=_without_mean),
        Sabotage(
            "multipliers",
            "the attack's offspring keep lam_i",
            implementation=by_attack.kept_multipliers,
        ),
        Sabotage(
            "matrix",
            "the attack's products with half of S_i",
            implementation=lambda: by_attack.broken_products(0.5),
        ),
    ),
    algebra=_expansion_algebra,
    algebra_note="orders 0 to 2 for d = 2, two features, three offspring, symbolic derivatives",
    recheck=precise(_expansion),
    code=CODE,
    remark="Penalties are not part of it: see splitting-penalties.",
)

HALVES = Statement(
    name="splitting-halves",
    title="Symmetric halves",
    sentence=(
        "Two halves at x_i + eps v and x_i - eps v change the loss by eps^2/2 v . S_i v "
        "up to O(eps^4), at stationary points and elsewhere."
    ),
    formula=r"L' = L + \tfrac{\epsilon^2}{2} v^T S_i v + O(\epsilon^4)",
    source=WU,
    hypotheses=(
        Hypothesis(
            "symmetric",
            "the offspring are two halves at opposite displacements",
            lambda case: bool(
                np.array_equal(case.displacements[:, 0], -case.displacements[:, 1])
                and np.array_equal(case.weights, [0.5, 0.5])
            ),
            lambda: base.problems(features=("sine", "gauss", "cubic")).map(_lopsided),
        ),
        smooth(4, 3.2, halved_cases),
    ),
    instances=halved_cases,
    conclusion=_halves,
    sabotages=(
        Sabotage(
            "order",
            "a remainder of order 5",
            conclusion=lambda case: at_least(_halves_order(case), 5),
        ),
        Sabotage(
            "multiplier",
            "the attack's products with the wrong sign",
            implementation=lambda: by_attack.broken_products(-1.0),
        ),
        Sabotage(
            "distance",
            "the attack's offspring at half of their distance",
            implementation=lambda: by_attack.close_offspring(0.5),
        ),
    ),
    algebra=_halves_algebra,
    algebra_note="orders 1 to 3 and 5 for d = 2, one feature, symbolic derivatives to order 5",
    recheck=precise(_halves),
    code=CODE,
)

STATEMENTS = (EXPANSION, HALVES)
