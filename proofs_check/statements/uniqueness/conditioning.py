"""How far a recovered sample can be off: the first-order bound, measured."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData
from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations
from identify.hermite.reduction import reduce_data
from identify.recovery.bounds import ErrorBounds, bound_errors
from identify.recovery.data_error import DataError
from identify.recovery.samples import to_samples
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, eq=False)
class Disturbance:
    """Data to be disturbed in the direction that moves one of the samples the most."""

    explained: Explained
    victim: int

    def __repr__(self) -> str:
        return f"Disturbance(of sample {self.victim}, {self.explained!r})"


def _disturbances() -> SearchStrategy[Disturbance]:
    from hypothesis import strategies as st

    def build(explained: Explained, index: int) -> Disturbance:
        return Disturbance(explained, index % len(explained.samples))

    return st.builds(build, base.gradients(counts=(1, 4)), st.integers(0, 3))


def _parallel() -> SearchStrategy[Disturbance]:
    """Two samples that are parallel."""

    def build(explained: Explained) -> Disturbance:
        x = explained.samples.copy()
        x[1] = 0.7 * x[0]
        data = explained.data
        gradient = data.network.gradient(x, explained.coefficients)
        moved = HermiteData.from_gradient(data.network, gradient)
        return Disturbance(replace(explained, data=moved, samples=x), 0)

    generic = base.gradients(counts=(4, 4), degrees=(3,), kinds=("generic", "orthonormal"))
    return generic.map(build)


def _slopes(disturbance: Disturbance) -> tuple[FloatArray, HermiteEquations, FloatArray]:
    """The Jacobian in the terms at the truth, the equations, the terms."""
    explained = disturbance.explained
    reduced = reduce_data(explained.data, base.NOISE)
    terms, signs = base.true_terms(explained, reduced)
    equations = HermiteEquations(reduced, signs)
    return equations.jacobian(terms), equations, terms


def _is_stiff(disturbance: Disturbance) -> bool:
    jacobian, _, terms = _slopes(disturbance)
    sizes = np.linalg.norm(terms, axis=1).repeat(terms.shape[1])
    values = np.linalg.svd(jacobian * sizes, compute_uv=False)
    return len(values) == len(sizes) and bool(values[-1] > 1e-5 * values[0])


HALVINGS = 4


def _solve(equations: HermiteEquations, terms: FloatArray, change: FloatArray) -> FloatArray:
    """Terms for a right-hand side that is off by `change`, by Gauss-Newton steps."""
    moved = terms.copy()
    for _ in range(6):
        residual = equations.residual(moved) - change
        step = np.linalg.lstsq(equations.jacobian(moved), residual, rcond=1e-10)[0]
        moved = moved - step.reshape(terms.shape)
    return moved


def movement_order(disturbance: Disturbance, share: float = 1.0) -> float:
    """The order in eps of what is left of the movement after its linear part J^+ e.

    In the worst direction of one term that part has to be share kappa_i eps long; the other
    directions are random, both signs. Infinite where rounding hides what is left.
    """
    jacobian, equations, terms = _slopes(disturbance)
    count, victim = len(terms), disturbance.victim
    left, sigma, right = np.linalg.svd(jacobian, full_matrices=False)
    kept = sigma > 1e-10 * sigma[0]
    inverse = (right[kept].T / sigma[kept]) @ left[:, kept].T
    blocks = inverse.reshape(count, terms.shape[1], -1)
    kappas = np.array([np.linalg.norm(block, 2) for block in blocks])
    random = np.random.default_rng(disturbance.explained.seed).standard_normal(len(jacobian))
    random /= np.linalg.norm(random)
    lengths = np.linalg.norm(terms, axis=1)
    largest = float(np.max(kappas / lengths))
    beyond = np.zeros(HALVINGS)
    worst = np.linalg.svd(blocks[victim])[2][0]
    for direction, attained in ((worst, True), (random, False), (-random, False)):
        for halving in range(HALVINGS):
            eps = 1e-2 / largest * 0.5**halving
            linear = eps * (blocks @ direction)
            moved = _solve(equations, terms, eps * direction) - terms
            rest = np.linalg.norm(moved - linear, axis=1)
            rest += np.maximum(np.linalg.norm(linear, axis=1) - share * kappas * eps, 0.0)
            if attained:
                rest[victim] += abs(np.linalg.norm(linear[victim]) - share * kappas[victim] * eps)
            beyond[halving] += float(np.max(rest / lengths))
    # Rounding of the residual, carried by J^+.
    noise = 64.0 * len(jacobian) * UNIT * equations.size * largest
    seen = beyond[beyond > 16.0 * noise][-3:]
    if len(seen) < 2:
        return np.inf
    return float(np.log2(seen[0] / seen[-1]) / (len(seen) - 1))


def printed_share(disturbance: Disturbance) -> float:
    """The least ratio of the printed bound of a term to kappa_i times the error it allows for.

    1 for r = 1 and where as many unknowns as equations leave no bound.
    """
    explained = disturbance.explained
    reduced = reduce_data(explained.data, base.NOISE)
    terms, signs = base.true_terms(explained, reduced)
    found = to_samples(explained.data, reduced, terms, signs, "free")
    exact = DataError(0.0, 0.0, 0.0, np.zeros(len(terms)))
    bounds = bound_errors(reduced, terms, signs, found, base.NOISE, None, base.NOISE, exact)
    if len(terms) == 1 or not np.all(np.isfinite(bounds.terms)):
        return 1.0
    inverse = np.linalg.pinv(HermiteEquations(reduced, signs).jacobian(terms), rcond=1e-10)
    blocks = inverse.reshape(len(terms), terms.shape[1], -1)
    kappas = np.array([np.linalg.norm(block, 2) for block in blocks])
    promised = kappas * bounds.data_error * reduced.size / np.linalg.norm(terms, axis=1)
    return float(np.min(bounds.terms / promised))


def _first_order(disturbance: Disturbance) -> Check:
    share = printed_share(disturbance)
    if share < 1.0 - 1e-4:
        return Check.compare(1.0 - share, 1e-4, "the printed bound is below kappa eps")
    order = movement_order(disturbance)
    return Check.compare(max(0.0, 2.0 - order), 0.5, f"order {order:.2f}, not 2")


def _half_suffices(disturbance: Disturbance) -> Check:
    order = movement_order(disturbance, 0.5)
    return Check.compare(max(0.0, 2.0 - order), 0.5)


def _single_slope() -> AbstractContextManager[object]:
    """The Jacobian of (u . z)^(alpha-1) z without the derivative of the last factor."""
    original = HermiteEquations.jacobian

    def broken(self: HermiteEquations, terms: FloatArray) -> FloatArray:
        found = original(self, terms)
        high = (self.data.points @ terms.T) ** self.power * self.signs * self.data.weights[:, None]
        count, r = terms.shape
        rows = found[: self.data.points.size].reshape(-1, r, count, r)
        rows[:, np.arange(r), :, np.arange(r)] -= high[None]
        return found

    return patch.object(HermiteEquations, "jacobian", broken)


def _short_bounds() -> AbstractContextManager[object]:
    import proofs_check.statements.uniqueness.conditioning as module

    original = bound_errors

    def broken(*arguments: Any, **options: Any) -> ErrorBounds:
        found = original(*arguments, **options)
        return replace(found, terms=0.5 * found.terms)

    return patch.object(module, "bound_errors", broken)


CONDITIONING = Statement(
    name="error-bound",
    title="First-order error of a sample",
    sentence=(
        "If the data are off by eps, the refined term z_i = b_i^(1/alpha) x_i moves by at most "
        "kappa_i eps + O(eps^2), kappa_i the norm of its rows of J^+, and by that much for the "
        "worst data."
    ),
    formula=r"\lvert z_i(\varepsilon) - z_i\rvert \le \lVert J^+_i\rVert_2\, \varepsilon + "
    r"O(\varepsilon^2)",
    source="Breiding & Vannieuwenhoven 2018 (condition number of join decompositions)",
    hypotheses=(
        Hypothesis(
            "full-rank",
            "the Jacobian of the Hermite equations in the terms has full column rank",
            _is_stiff,
            _parallel,
        ),
    ),
    instances=_disturbances,
    conclusion=_first_order,
    sabotages=(
        Sabotage("half", "half of kappa suffices", conclusion=_half_suffices),
        Sabotage("factor", "a factor left undifferentiated", implementation=_single_slope),
        Sabotage("printed", "printed bounds of half the size", implementation=_short_bounds),
    ),
    cost="medium",
    code=(
        "identify.recovery.bounds.bound_errors",
        "identify.decomposition.equations.HermiteEquations.jacobian",
    ),
    remark="I-hermite is not needed for it: full column rank is enough.",
)

STATEMENTS = (CONDITIONING,)
