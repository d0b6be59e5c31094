"""Penalties that the halves of a candidate share by mass: a split changes none by itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting.expansion import CODE, STEPS, at_least, change, order
from proofs_check.statements.splitting.families import UNIT, Array
from proofs_check.statements.splitting.penalties import (
    FREE,
    SMOOTH,
    TIED,
    PenaltyCase,
    Plane,
    bend,
    kinked,
    penalty_change,
    smooth_cases,
)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from torch import Tensor

    from attack.objectives.candidates import Candidates


@dataclass(frozen=True, eq=False)
class SharedCase:
    """A penalty s h(x, lam / s) of a candidate of mass s, of which the halves get `shares`."""

    one: PenaltyCase
    mass: float
    shares: tuple[float, float] = (0.5, 0.5)

    def __repr__(self) -> str:
        return f"SharedCase(mass={self.mass:g}, shares={self.shares}, {self.one!r})"


def shared(found: SharedCase, x: Array, lam: float, mass: float) -> Array:
    """The penalty s h(x, lam / s)."""
    return np.asarray(mass * found.one.penalty.value(x, np.asarray(lam / mass)))


def shared_change(found: SharedCase) -> Array:
    """How the penalty changes when its candidate becomes two halves, shape (steps, B).

    Even shares are those of the attack; others are none of its.
    """
    one, lam = found.one, found.one.multiplier
    if found.shares == (0.5, 0.5):
        return penalty_change(one, found.mass)
    moved = one.point + STEPS[:, None, None, None] * one.case.displacements
    parts = [
        shared(found, moved[..., k, :], 0.5 * lam, share * found.mass)
        for k, share in enumerate(found.shares)
    ]
    return np.asarray(parts[0] + parts[1] - shared(found, one.point, lam, found.mass))


def decisive(found: SharedCase, factor: float = 1.0) -> Array:
    """S_i + s D^2_x h(x_i, lam_i / s), whose sign decides."""
    matrix = by_attack.splitting_matrices(found.one.case.problem)[found.one.case.index]
    return np.asarray(matrix + factor * bend(found.one, found.mass))


def _check(found: SharedCase, factor: float = 1.0, jump: float = 0.0) -> Check:
    one = found.one
    moves = one.case.displacements[:, 0]
    bent = ((moves @ decisive(found, factor)) * moves).sum(axis=-1)
    rest = change(one.case) + shared_change(found) - jump - 0.5 * STEPS[:, None] ** 2 * bent
    size = float(shared(found, one.point, one.multiplier, found.mass)) + 1.0
    noise = one.case.problem.value_rounding + 16.0 * len(one.point) * UNIT * size
    return at_least(order(rest, noise), 4)


def _whole(found: SharedCase) -> Check:
    """The jump of whole penalties is still there."""
    one = found.one
    return _check(found, jump=float(shared(found, one.point, one.multiplier, found.mass)))


def _cases(kinds: tuple[str, ...], even: bool = True) -> SearchStrategy[SharedCase]:
    from hypothesis import strategies as st

    shares = (0.5, 0.5) if even else (0.8, 0.2)
    masses = st.sampled_from((0.25, 0.5, 1.0, 3.0))
    return st.builds(SharedCase, smooth_cases(kinds), masses, st.just(shares))


def _uneven() -> SearchStrategy[SharedCase]:
    """Uneven shares of a penalty that is not linear in its multiplier jump."""
    return _cases(("floor",), even=False).map(_low)


def _low(found: SharedCase) -> SharedCase:
    # Far below the floor of 3, where the penalty bends.
    problem = found.one.case.problem
    lam = problem.lam.copy()
    lam[found.one.case.index] = 0.5
    case = replace(found.one.case, problem=replace(problem, lam=lam))
    return replace(found, one=replace(found.one, case=case), mass=1.0)


def _kept_mass() -> AbstractContextManager[object]:
    """Both halves keep the mass of their parent."""

    def heavy(old: Candidates, new: Candidates, origin: Tensor) -> Candidates:
        return new if old.mass is None else new.with_mass(old.mass[origin])

    return by_attack.broken_offspring(heavy)


def _algebra() -> bool:
    """h(x, lam / s) and <grad l, phi> by their Taylor coefficients to order 3 in two dimensions."""
    from sympy import QQ, ring

    eps, first, second, lam, mass, *rest = ring("e v:2 m s h:10 f:10", QQ)[1:]
    plane = Plane(eps, first, second)
    # lam / s of the halves is that of the parent, so that all have the same coefficients of h.
    h, phi = rest[:10], rest[10:]
    found = sum(mass / 2 * plane.at(h, sign) for sign in (1, -1)) - mass * h[0]
    found += lam * (sum(plane.at(phi, sign) for sign in (1, -1)) / 2 - phi[0])
    return bool(found == eps**2 * (lam * plane.bent(phi) + mass * plane.bent(h)) / 2)


SHARED = Statement(
    name="splitting-penalties-shared",
    title="Penalties shared by mass",
    sentence=(
        "If a candidate of mass s pays s h(x_i, lam_i / s), two halves with half its multiplier "
        "and half its mass change the loss by eps^2/2 v . (S_i + s D^2_x h(x_i, lam_i / s)) v up "
        "to O(eps^4), whatever h is: nothing jumps."
    ),
    formula=(
        r"L' = L + \tfrac{\epsilon^2}{2} v^T (S_i + s D_x^2 h(x_i, \tfrac{\lambda_i}{s})) v"
        r" + O(\epsilon^4)"
    ),
    source="ours",
    hypotheses=(
        Hypothesis(
            "even",
            "each half takes half of the mass",
            lambda found: found.shares == (0.5, 0.5),
            _uneven,
        ),
        replace(
            SMOOTH,
            predicate=lambda found: SMOOTH.predicate(found.one),
            violating=lambda: _kinked(),
        ),
    ),
    instances=lambda: _cases(FREE + TIED),
    conclusion=_check,
    sabotages=(
        Sabotage("twice", "2 s D^2 h, as for whole penalties", conclusion=lambda f: _check(f, 2.0)),
        Sabotage("jump", "the penalty jumps by s h", conclusion=_whole),
        Sabotage("mass", "the attack's halves keep the mass", implementation=_kept_mass),
    ),
    algebra=_algebra,
    algebra_note="Taylor polynomials of order 3 in two dimensions with symbolic coefficients",
    code=(
        *CODE,
        "attack.splitting.plan.penalty_rises",
        "attack.objectives.base.Objective.split_penalty_products",
    ),
    remark=(
        "Mode auto splits this way: a floor of the multipliers or a box of the pixels no longer "
        "stands in the way of a split that the data loss asks for."
    ),
)


def _kinked() -> SearchStrategy[SharedCase]:
    from hypothesis import strategies as st

    return st.builds(SharedCase, kinked(), st.just(1.0))


STATEMENTS = (SHARED,)
