"""Below the linear threshold: when a fit by few samples means something, and when not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify import HermiteData
from identify.alternatives.equations import SetEquations
from identify.arrays import FloatArray
from identify.tensors import hermite_matrix
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.only_explanation import departure
from proofs_check.statements.uniqueness.planes import coplanar_data

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

JACOBIAN = "the equations' derivative in the n terms"


@dataclass(frozen=True, eq=False)
class Slopes:
    """Equations on all of R^d at the true terms (n, d): their values, derivative and H itself.

    `jacobian` (m d, n d) in the terms, in the units of `hermite` (m d, N).
    """

    equations: SetEquations
    terms: FloatArray
    signs: FloatArray
    jacobian: FloatArray
    hermite: FloatArray

    @property
    def rank(self) -> int | None:
        """Rank of the derivative, per relative movement; None if it is not clear."""
        sizes = np.linalg.norm(self.terms, axis=1).repeat(self.terms.shape[1])
        return base.clear_rank(np.linalg.svd(self.jacobian * sizes, compute_uv=False))

    @property
    def hermite_rank(self) -> int | None:
        """Rank of H, None if it is not clear."""
        return base.clear_rank(np.linalg.svd(self.hermite, compute_uv=False))


def linearise(explained: Explained) -> Slopes:
    """The equations at the truth."""
    reduced = base.reduced_data(explained.data)
    equations = SetEquations(explained.data, reduced, "free")
    terms, signs = base.true_terms(explained, reduced)
    jacobian = equations.jacobian(terms[None], signs[None])[0]
    rows = hermite_matrix(reduced.points, reduced.degree)
    weights = np.repeat(reduced.weights / reduced.size, reduced.points.shape[1])
    return Slopes(equations, terms, signs, jacobian, weights[:, None] * rows)


def _has_force(explained: Explained) -> bool:
    """rank H > n r, with V the whole space of the samples."""
    rank = linearise(explained).hermite_rank
    return rank is not None and rank > explained.samples.size


def _is_isolated(explained: Explained) -> bool:
    return linearise(explained).rank == explained.samples.size


def _is_generic(explained: Explained) -> bool:
    """Points drawn at random, those of a gradient at a random network."""
    return not explained.data.homogeneous


# --- more equations than unknowns --------------------------------------------------------------


def batches(
    counts: tuple[int, int],
    degrees: tuple[int, ...],
    *,
    extra: tuple[int, int] = (0, 0),
    width: tuple[int, int] = (1, 3),
    kinds: tuple[str, ...] = ("generic", "orthonormal", "integer", "digits"),
) -> SearchStrategy[Explained]:
    """Gradients of r + extra samples in R^r, with n + width neurons."""
    from hypothesis import strategies as st

    def build(
        kind: str, dimension: int, more: int, wider: int, degree: int, seed: int
    ) -> Explained | None:
        samples = strategies.draw_samples(kind, dimension, dimension, seed)
        rng = np.random.default_rng([seed, dimension, more, 21])
        samples = np.vstack([samples, rng.standard_normal((more, dimension))])
        number = len(samples) + wider
        if number < dimension:
            return None
        b = base.draw_coefficients(len(samples), seed)
        return base.gradient_data(samples, b, degree, number, kind, seed)

    return base.present(
        st.builds(
            build,
            st.sampled_from(strategies.present(kinds)),
            st.integers(*counts),
            st.integers(*extra),
            st.integers(*width),
            st.sampled_from(degrees),
            st.integers(0, strategies.SEEDS),
        )
    )


def _few_neurons() -> SearchStrategy[Explained]:
    from hypothesis import strategies as st

    return st.one_of(
        batches((2, 4), (3, 4, 5)),
        batches((3, 4), (4,), extra=(1, 1), width=(2, 6), kinds=("generic", "digits")),
    )


def _square() -> SearchStrategy[Explained]:
    """As many neurons as samples."""
    return batches((2, 3), (4,), width=(0, 0), kinds=("generic", "digits"))


def _with_plane() -> SearchStrategy[Explained]:
    """Three samples of a plane and another: at degree 4 the three are one of a continuum."""
    from hypothesis import strategies as st

    return st.builds(
        coplanar_data, st.just(3), st.just(1), st.just(4), st.integers(0, strategies.SEEDS)
    )


def _eigenvectors() -> SearchStrategy[Explained]:
    """A few neurons of a stationary network."""

    def build(point: strategies.StationaryPoint) -> Explained | None:
        from identify import TwoLayerNetwork

        net, data = point.network, point.data
        count, dimension = data.samples.shape
        if count != dimension or net.width <= count:
            return None
        kept = np.random.default_rng([data.seed, 22]).permutation(net.width)[: count + 2]
        few = TwoLayerNetwork(net.hidden_weight[kept], net.output_weight[kept], net.degree)
        read = HermiteData.from_weight_decay(few)
        return Explained(read, data.samples, data.coefficients, data.kind, data.seed)

    kinds = ("generic", "orthonormal")
    return base.present(strategies.stationary_points(4, 4, (3,), kinds).map(build))


def _true_one(explained: Explained) -> Check:
    """Whatever random starts converge to is the true set."""
    rivals = base.find_rivals(explained, len(explained.samples), starts=12, steps=150)
    gaps = [departure(terms, rivals.truth, explained.data.degree) for terms in rivals.sets]
    terms = explained.data.rows.size + 4 * explained.data.degree
    error = max((0.0, *rivals.residuals)) + 4.0 * terms * UNIT
    allowed = min(1e-2, 4.0 * error / max(rivals.stiffness, 1e-300))
    return Check.compare(max((0.0, *gaps)), allowed, f"{len(gaps)} converged")


def _never_converges(explained: Explained) -> Check:
    return Check.of(not base.find_rivals(explained, len(explained.samples), starts=12).sets)


def _is_stiff(explained: Explained) -> bool:
    return base.find_rivals(explained, 1, starts=1, steps=1).stiffness > 1e-9


RECOVERY = Statement(
    name="low-rank-recovery",
    title="More equations than unknowns",
    sentence=(
        "With rank H > n r, even where the linear equations leave the tensor open, every set of n "
        "samples in V that explains a gradient is the true one, if that one is isolated."
    ),
    formula=r"\mathrm{rank}\,H > n r \implies "
    r"\{T : T = \textstyle\sum_{i \le n} b_i x_i^{\otimes\alpha},\ H T = g\} = \{T_V\}",
    source=(
        "Breiding, Gesmundo, Michalek & Vannieuwenhoven 2021 for generic linear measurements; "
        "open for Hermite data, an experiment"
    ),
    hypotheses=(
        Hypothesis("force", "rank H > n r", _has_force, _square),
        Hypothesis(
            "isolated",
            JACOBIAN + " has full column rank at the truth",
            _is_isolated,
            _with_plane,
        ),
        Hypothesis(
            "generic-points",
            "the points are those of a random network",
            _is_generic,
            _eigenvectors,
            necessary=None,
        ),
    ),
    instances=lambda: _few_neurons().filter(_is_stiff),
    conclusion=_true_one,
    sabotages=(
        Sabotage("none", "nothing converges", conclusion=_never_converges),
        Sabotage(
            "axis", "a coordinate too large by a hundredth", implementation=base.scaled_search
        ),
    ),
    cost="medium",
    code=("identify.alternatives.solvers.minimise",),
    remark=(
        "About n + 1 neurons in place of N/r. What converges, from random starts, is judged. Three "
        "samples of a plane at degree 4 belong to a continuum although rank H > n r."
    ),
)


# --- as many unknowns as equations -------------------------------------------------------------


def _no_force() -> SearchStrategy[Explained]:
    """m = n = r, fewer neurons than samples, or more samples than T_V has room for."""
    from hypothesis import strategies as st

    return st.one_of(
        batches((2, 4), (3, 4, 5), width=(0, 0)),
        batches((2, 3), (3, 4), extra=(1, 2), width=(-1, -1)),
        batches((2, 3), (3,), extra=(1, 2), width=(0, 3)),
    )


def _onto(explained: Explained) -> bool:
    """Whether the derivative reaches all that H reaches."""
    slopes = linearise(explained)
    return slopes.rank is not None and slopes.rank == slopes.hermite_rank


def solve_from(slopes: Slopes, change: FloatArray, start: FloatArray) -> tuple[FloatArray, float]:
    """Terms (n, d) for a right-hand side that is off by `change`, and the residual left."""
    terms = start.copy()
    sizes = np.linalg.norm(slopes.terms, axis=1).repeat(slopes.terms.shape[1])
    for _ in range(12):
        residual = slopes.equations.residual(terms[None], slopes.signs[None])[0] - change
        matrix = slopes.equations.jacobian(terms[None], slopes.signs[None])[0] * sizes
        move = np.linalg.lstsq(matrix, residual, rcond=1e-9)[0]
        terms = terms - (sizes * move).reshape(terms.shape)
    left = slopes.equations.residual(terms[None], slopes.signs[None])[0] - change
    return terms, float(np.linalg.norm(left))


def _fits(explained: Explained, *, all_data: bool = False) -> Check:
    """Data near by that no n samples made are fitted exactly by n samples.

    The data are changed by H T' with a random tensor T', by as much as moves the terms by about a
    thousandth. With fewer equations than unknowns the set also moves for the same data.
    """
    slopes = linearise(explained)
    rng = np.random.default_rng([explained.seed, 23])
    sizes = np.linalg.norm(slopes.terms, axis=1).repeat(slopes.terms.shape[1])
    _, sigma, right = np.linalg.svd(slopes.jacobian * sizes, full_matrices=True)
    rank = slopes.rank or int(np.count_nonzero(sigma > 1e-9 * sigma[0]))
    change = slopes.hermite @ rng.standard_normal(slopes.hermite.shape[1])
    if all_data:
        change = rng.standard_normal(len(change))
    change *= 1e-3 * float(sigma[rank - 1]) / float(np.linalg.norm(change))
    _, left = solve_from(slopes, change, slopes.terms)
    count = slopes.hermite.size + slopes.jacobian.shape[1]
    # Rounding of the residual; the largest terms before they cancel give its size.
    bulk = float(np.sum(np.linalg.norm(slopes.jacobian * sizes, axis=0)))
    allowed = 4.0 * count * UNIT * (1.0 + bulk)
    if left > allowed:
        return Check.compare(left, allowed, "data near by are not fitted")
    if rank < slopes.terms.size:
        step = (sizes * (right[rank:].T @ rng.standard_normal(len(right) - rank))).reshape(
            slopes.terms.shape
        )
        share = 1e-2 * float(sigma[rank - 1] / sigma[0]) ** 0.5
        start = slopes.terms + share * step
        moved, left = solve_from(slopes, np.zeros(len(change)), start)
        # Near by, sets differ where terms do; scales are not free once b is absorbed.
        apart = float(np.linalg.norm((moved - slopes.terms).ravel() / sizes))
        if apart < 0.1 * share * float(np.linalg.norm(step.ravel() / sizes)):
            return Check.of(False, "the set does not move")
    return Check.compare(left, allowed)


def _fits_everything(explained: Explained) -> Check:
    return _fits(explained, all_data=True)


def _short_slopes() -> AbstractContextManager[object]:
    """Equations without their last term."""
    original = SetEquations.residual

    def broken(self: SetEquations, terms: FloatArray, signs: FloatArray) -> FloatArray:
        return original(self, terms, signs * np.append(np.ones(signs.shape[1] - 1), 0.0))

    return patch.object(SetEquations, "residual", broken)


NO_FORCE = Statement(
    name="fit-without-force",
    title="As many unknowns as equations",
    sentence=(
        "If the derivative in the n terms reaches all that H reaches, in particular rank H <= n r, "
        "then all data near by, of whatever origin, are fitted exactly by n samples, and for "
        "rank H < n r the same data by a continuum of sets: an exact fit says nothing."
    ),
    formula=r"\mathrm{rank}\,\partial(HT)/\partial z = \mathrm{rank}\,H \le n r \implies "
    r"\{H T(z)\}\ \text{contains a neighbourhood in}\ \mathrm{im}\,H",
    source="implicit function theorem; ours",
    hypotheses=(
        Hypothesis(
            "onto",
            JACOBIAN + " has the rank of H",
            _onto,
            lambda: batches((2, 4), (4, 5), width=(1, 3)),
        ),
    ),
    instances=_no_force,
    conclusion=_fits,
    sabotages=(
        Sabotage("all", "changes outside the range of H too", conclusion=_fits_everything),
        Sabotage("term", "equations short of a term", implementation=_short_slopes),
    ),
    cost="light",
    code=("identify.alternatives.equations.SetEquations",),
    remark=(
        "Square systems, m = n = r, need not have a second real solution: two quintic samples "
        "seen by two neurons mostly are the only real fit, although I-hermite fails."
    ),
)

STATEMENTS = (RECOVERY, NO_FORCE)
