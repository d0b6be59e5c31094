"""What penalties add to a split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting.expansion import (
    CODE,
    STEPS,
    Case,
    at_least,
    change,
    halved_cases,
    order,
)
from proofs_check.statements.splitting.families import UNIT, Array

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

FREE = ("well", "box", "blur")
MIXED = ("scaled", "mixed")
TIED = ("floor", "sparse", *MIXED)
EDGE, MARGIN = 0.5, 0.1


@dataclass(frozen=True)
class Penalty:
    """h(x, lam). Free of lam: well |x|_4^4, box max(|x_k| - 1/2, 0)^2, blur (sum_k x_k)^2.

    floor max(3 - lam, 0)^2 and sparse |lam| are free of x; scaled is lam times blur, mixed is
    exp(-lam) times well.
    """

    kind: str

    def value(self, x: Array, lam: Array) -> Array:
        """h for x (..., d) and lam (...)."""
        well, blur = (x**4).sum(axis=-1), x.sum(axis=-1) ** 2
        if self.kind == "box":
            return np.asarray((np.maximum(np.abs(x) - EDGE, 0.0) ** 2).sum(axis=-1))
        if self.kind == "floor":
            return np.asarray(np.maximum(3.0 - lam, 0.0) ** 2 + 0.0 * well)
        if self.kind == "sparse":
            return np.asarray(np.abs(lam) + 0.0 * well)
        if self.kind == "mixed":
            return np.asarray(np.exp(-lam) * well)
        return np.asarray({"well": well, "blur": blur, "scaled": lam * blur}[self.kind])

    def curvature(self, x: Array, lam: float) -> Array:
        """D^2_x h, shape (d, d)."""
        if self.kind == "box":
            return np.asarray(np.diag(2.0 * (np.abs(x) > EDGE)))
        if self.kind in ("floor", "sparse"):
            return np.zeros((len(x), len(x)))
        if self.kind in ("well", "mixed"):
            share = 1.0 if self.kind == "well" else float(np.exp(-lam))
            return np.asarray(share * np.diag(12.0 * x**2))
        return np.asarray(np.full((len(x), len(x)), 2.0 if self.kind == "blur" else 2.0 * lam))


@dataclass(frozen=True, eq=False)
class PenaltyCase:
    """Symmetric halves of a candidate that carries a penalty."""

    case: Case
    penalty: Penalty

    def __repr__(self) -> str:
        return f"PenaltyCase({self.penalty.kind}, {self.case!r})"

    @property
    def point(self) -> Array:
        """The candidate x_i."""
        return np.asarray(self.case.problem.x[self.case.index])

    @property
    def multiplier(self) -> float:
        """Its multiplier lam_i."""
        return float(self.case.problem.lam[self.case.index])


def penalty_change(found: PenaltyCase, mass: float | None = None) -> Array:
    """How the penalty changes when the attack halves its candidate, shape (steps, B)."""
    moves = np.asarray(found.case.displacements[:, 0])
    along = np.broadcast_to(moves, (len(STEPS), *moves.shape)).reshape(-1, moves.shape[1])
    steps = np.repeat(STEPS, len(moves))
    problem, index = found.case.problem, found.case.index
    rises = by_attack.penalty_rises(problem, index, found.penalty, along, steps, mass=mass)
    return rises.reshape(len(STEPS), -1)


def bend(found: PenaltyCase, mass: float | None = None) -> Array:
    """2 D^2_x h at the halved multiplier, or s D^2_x h(x, lam / s) with a mass.

    From the attack but where h has a term in both x and lam: it has no such penalty.
    """
    if found.penalty.kind not in MIXED:
        problem, index = found.case.problem, found.case.index
        return by_attack.penalty_curvature(problem, index, found.penalty, mass=mass)
    if mass is None:
        return np.asarray(2.0 * found.penalty.curvature(found.point, 0.5 * found.multiplier))
    return np.asarray(mass * found.penalty.curvature(found.point, found.multiplier / mass))


def decisive(found: PenaltyCase) -> Array:
    """S_i + 2 D^2_x h at the halved multiplier, whose sign decides."""
    matrix = by_attack.splitting_matrices(found.case.problem)[found.case.index]
    return np.asarray(matrix + bend(found))


def _noise(found: PenaltyCase) -> float:
    size = float(found.penalty.value(found.point, np.asarray(found.multiplier))) + 1.0
    return found.case.problem.value_rounding + 16.0 * len(found.point) * UNIT * size


def _order(found: PenaltyCase, jump: float, matrix: Array) -> float:
    moves = found.case.displacements[:, 0]
    bent = ((moves @ matrix) * moves).sum(axis=-1)
    rest = change(found.case) + penalty_change(found) - jump - 0.5 * STEPS[:, None] ** 2 * bent
    return order(rest, _noise(found))


def _jump(found: PenaltyCase) -> float:
    before = found.penalty.value(found.point, np.asarray(found.multiplier))
    after = found.penalty.value(found.point, np.asarray(0.5 * found.multiplier))
    return float(2.0 * after - before)


def _free(found: PenaltyCase) -> Check:
    """The jump is h(x_i)."""
    jump = float(found.penalty.value(found.point, np.asarray(found.multiplier)))
    return at_least(_order(found, jump, decisive(found)), 4)


def _any(found: PenaltyCase) -> Check:
    return at_least(_order(found, _jump(found), decisive(found)), 4)


def _single(found: PenaltyCase) -> Check:
    """D^2 h counted once, as if only one candidate carried it."""
    once = found.penalty.curvature(found.point, 0.5 * found.multiplier)
    return at_least(_order(found, _jump(found), decisive(found) - once), 4)


def _without_jump(found: PenaltyCase) -> Check:
    return at_least(_order(found, 0.0, decisive(found)), 4)


def _smooth_here(found: PenaltyCase) -> bool:
    """Whether the pieces of h do not change within the largest step."""
    if found.penalty.kind == "box":
        return bool(np.all(np.abs(np.abs(found.point) - EDGE) > MARGIN))
    return True


def _cases(kinds: tuple[str, ...]) -> SearchStrategy[PenaltyCase]:
    from hypothesis import strategies as st

    return st.builds(PenaltyCase, halved_cases(), st.sampled_from(kinds).map(Penalty))


def _moved(found: PenaltyCase, place: Callable[[Array], Array]) -> PenaltyCase:
    problem = found.case.problem
    x = problem.x.copy()
    x[found.case.index] = place(x[found.case.index])
    return replace(found, case=replace(found.case, problem=replace(problem, x=x)))


def _off_edge(found: PenaltyCase) -> PenaltyCase:
    """Coordinates close to the kink of the box moved to 0.2 beyond it."""
    near = np.abs(np.abs(found.point) - EDGE) <= MARGIN
    return _moved(found, lambda x: np.where(near, EDGE + 0.2, x))


def smooth_cases(kinds: tuple[str, ...]) -> SearchStrategy[PenaltyCase]:
    return _cases(kinds).map(_off_edge)


def kinked() -> SearchStrategy[PenaltyCase]:
    """Candidates whose every coordinate lies on the edge of the box."""
    return _cases(("box",)).map(lambda found: _moved(found, lambda x: np.full_like(x, EDGE)))


def _wrong_curvature() -> AbstractContextManager[object]:
    from attack.objectives.base import Objective

    right = Objective.penalty_products
    return patch.object(Objective, "penalty_products", lambda *given: -right(*given))


@dataclass(frozen=True, eq=False)
class Plane:
    """Functions of two variables by their ten Taylor coefficients up to order 3, at eps v."""

    eps: Any
    first: Any
    second: Any

    @property
    def powers(self) -> list[tuple[int, int]]:
        """The powers of the coefficients."""
        return [(i, j) for i in range(4) for j in range(4 - i)]

    def at(self, coefficients: list[Any], sign: int) -> Any:
        """The function at +-eps v."""
        terms = zip(coefficients, self.powers, strict=True)
        v, w = self.eps * self.first * sign, self.eps * self.second * sign
        return sum((c * v**i * w**j for c, (i, j) in terms), start=self.eps * 0)

    def bent(self, coefficients: list[Any]) -> Any:
        """v . D^2 h v at 0."""
        place = dict(zip(self.powers, coefficients, strict=True))
        v, w = self.first, self.second
        return 2 * (place[2, 0] * v**2 + place[1, 1] * v * w + place[0, 2] * w**2)


def _algebra() -> bool:
    """h and <grad l, phi> by their Taylor coefficients to order 3 in two dimensions."""
    from sympy import QQ, ring

    eps, first, second, lam, *rest = ring("e v:2 m h:10 k:1 f:10", QQ)[1:]
    plane = Plane(eps, first, second)
    halved, old, phi = rest[:10], rest[10], rest[11:]
    new = sum(plane.at(halved, sign) for sign in (1, -1))
    shift = sum(plane.at(phi, sign) for sign in (1, -1)) / 2 - phi[0]
    found = new - old + lam * shift
    claim = 2 * halved[0] - old + eps**2 * (lam * plane.bent(phi) + 2 * plane.bent(halved)) / 2
    return bool(found == claim)


SMOOTH = Hypothesis(
    "smooth",
    "h is smooth in x near x_i: no coordinate on the edge of a box",
    _smooth_here,
    kinked,
)
_CODE = (
    *CODE,
    "attack.splitting.plan.penalty_rises",
    "attack.objectives.base.Objective.split_penalty_products",
)
_SABOTAGES = (
    Sabotage("once", "D^2 h counted once", conclusion=_single),
    Sabotage("jump", "the jump is left out", conclusion=_without_jump),
    Sabotage(
        "curvature", "the attack's D^2 h with the wrong sign", implementation=_wrong_curvature
    ),
    Sabotage(
        "rise",
        "half of the rise of the penalties that the attack expects",
        implementation=by_attack.half_rises,
    ),
)

PENALTIES = Statement(
    name="splitting-penalties",
    title="Penalties in a split",
    sentence=(
        "With a penalty h(x_i) that does not depend on lam_i, two halves at x_i +- eps v change "
        "the loss by the jump h(x_i), plus eps^2/2 v . (S_i + 2 D^2 h(x_i)) v, up to O(eps^4)."
    ),
    formula=(r"L' = L + h(x_i) + \tfrac{\epsilon^2}{2} v^T (S_i + 2 D^2 h(x_i)) v + O(\epsilon^4)"),
    source="ours, after Wu, Wang & Liu 2019 (splitting steepest descent, section 3)",
    hypotheses=(
        Hypothesis(
            "independent",
            "h does not depend on the multiplier",
            lambda found: found.penalty.kind in FREE,
            lambda: smooth_cases(TIED),
        ),
        SMOOTH,
    ),
    instances=lambda: smooth_cases(FREE),
    conclusion=_free,
    sabotages=_SABOTAGES,
    code=_CODE,
    remark=(
        "A split with lambda_min(S_i) < 0 can still raise the loss: decide with S_i + 2 D^2 h and "
        "the jump. Penalties that do depend on lam_i: see splitting-penalties-any."
    ),
)

ANY = Statement(
    name="splitting-penalties-any",
    title="Penalties that depend on the multiplier",
    sentence=(
        "With any penalty h(x_i, lam_i), two halves change the loss by the jump "
        "2 h(x_i, lam_i/2) - h(x_i, lam_i), plus eps^2/2 v . (S_i + 2 D^2_x h(x_i, lam_i/2)) v, "
        "up to O(eps^4); the jump is 0 where h is proportional to lam_i."
    ),
    formula=(
        r"L' = L + 2 h(x_i, \tfrac{\lambda_i}{2}) - h(x_i, \lambda_i) + \tfrac{\epsilon^2}{2} "
        r"v^T (S_i + 2 D_x^2 h(x_i, \tfrac{\lambda_i}{2})) v + O(\epsilon^4)"
    ),
    source="ours",
    hypotheses=(SMOOTH,),
    instances=lambda: smooth_cases(FREE + TIED),
    conclusion=_any,
    sabotages=_SABOTAGES,
    algebra=_algebra,
    algebra_note="Taylor polynomials of order 3 in two dimensions with symbolic coefficients",
    code=_CODE,
)

STATEMENTS = (PENALTIES, ANY)
