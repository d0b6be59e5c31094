"""When the linear equations determine the moment tensor."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData
from identify.arrays import FloatArray
from identify.hermite.reduction import ReducedData, reduce_data
from identify.interpolation import interpolate as linear
from identify.interpolation import solvers
from identify.proofs import rank as rank_proofs
from identify.tensors import (
    CoordinateTensor,
    exponents,
    hermite_matrix,
    monomials,
    symmetric_dimension,
)
from proofs_check import strategies
from proofs_check.arithmetic import integers
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.kkt.sources import slope_rounding
from proofs_check.strategies import GradientProblem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# --- I-value, I-flat, I-hermite --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class IntegerPoints:
    """Points with small integer coordinates (m, r)."""

    points: Any
    degree: int
    seed: int

    def __repr__(self) -> str:
        count, dimension = self.points.shape
        return f"IntegerPoints(m={count}, r={dimension}, degree={self.degree}, seed={self.seed})"


def _spans(entry: IntegerPoints, order: int) -> bool:
    """Whether the powers u_j^(order) span Sym^order(R^r), exactly."""
    needed = symmetric_dimension(order, entry.points.shape[1])
    return integers.rational_rank(integers.powers(entry.points, order)) == needed


def _points(*, few: bool = False) -> SearchStrategy[IntegerPoints]:
    """About as many points as I-flat needs, or I-value; with `few`, less."""
    from hypothesis import strategies as st

    def build(dimension: int, degree: int, spare: int, seed: int) -> IntegerPoints:
        low, high = (symmetric_dimension(k, dimension) for k in (degree - 1, degree))
        count = max(1, low - 1 - spare) if few else (low + spare if spare < 3 else high + spare)
        rng = np.random.default_rng([seed, count, dimension, degree, 20])
        return IntegerPoints(rng.integers(-3, 4, size=(count, dimension)), degree, seed)

    return st.builds(
        build,
        st.integers(2 if few else 1, 3),
        st.sampled_from((3, 4, 5)),
        st.integers(0, 5),
        st.integers(0, strategies.SEEDS),
    )


def _one_spans(entry: IntegerPoints) -> bool:
    return _spans(entry, entry.degree) or _spans(entry, entry.degree - 1)


def _chain(entry: IntegerPoints) -> Check:
    needed = symmetric_dimension(entry.degree, entry.points.shape[1])
    if _spans(entry, entry.degree) and not _spans(entry, entry.degree - 1):
        return Check.of(False, "I-value without I-flat")
    found = rank_proofs.prove_rank(entry.points, entry.degree)
    full = found.outcome == "full" and found.rank == needed
    return Check.of(full, f"rank H = {found.rank} of {needed}: {found.outcome}")


def _flat_gives_value(entry: IntegerPoints) -> Check:
    return Check.of(_spans(entry, entry.degree))


def missing_axis() -> AbstractContextManager[object]:
    """H of which the rows of the first coordinate are not filled in."""
    original = rank_proofs._fill

    def broken(matrix: Any, points: Any, *given: Any) -> None:
        original(matrix, points, *given)
        for row in range(0, matrix.nrows(), points.shape[1]):
            for column in range(matrix.ncols()):
                matrix[row, column] = 0

    return patch.object(rank_proofs, "_fill", broken)


def _chain_algebra() -> bool:
    """The maps p to (dp/du_a)_a and q to (u_a q)_a are injective: ranks modulo a prime.

    Row (u, a) of H is the vector of monomials of u, of degree alpha - 1, times the first map, so
    I-flat gives I-hermite; a form q of degree alpha - 1 that vanishes on all points gives forms
    u_a q of degree alpha that do, so I-value gives I-flat.
    """
    prime = integers.PRIMES[0]
    for dimension in range(1, 7):
        for degree in (3, 4, 5, 6):
            high, low = exponents(degree, dimension), exponents(degree - 1, dimension)
            place = {tuple(row): index for index, row in enumerate(high.tolist())}
            slopes = np.zeros((dimension, len(low), len(high)), dtype=np.int64)
            products = np.zeros((dimension, len(high), len(low)), dtype=np.int64)
            for column, row in enumerate(low.tolist()):
                for axis in range(dimension):
                    raised = list(row)
                    raised[axis] += 1
                    index = place[tuple(raised)]
                    slopes[axis, column, index] = raised[axis]
                    products[axis, index, column] = 1
            first = integers.modular_rank(slopes.reshape(-1, len(high)), prime)
            second = integers.modular_rank(products.reshape(-1, len(low)), prime)
            if first != len(high) or second != len(low):
                return False
    return True


CHAIN = Statement(
    name="interpolation-chain",
    title="I-value, I-flat, I-hermite",
    sentence=(
        "If the powers u_j^alpha span Sym^alpha, the powers u_j^(alpha-1) span Sym^(alpha-1); if "
        "those do, the equations T(u_j^(alpha-1), .) = g_j determine T."
    ),
    formula=r"\langle u_j^{\alpha}\rangle = \operatorname{Sym}^{\alpha} \Rightarrow "
    r"\langle u_j^{\alpha-1}\rangle = \operatorname{Sym}^{\alpha-1} \Rightarrow "
    r"\operatorname{rank} H = N",
    source="Shen, Wang, Qian & Lei 2026 (interpolation condition of Theorem 4.1); the chain: ours",
    hypotheses=(
        Hypothesis(
            "spans",
            "the powers of order alpha or those of order alpha - 1 span",
            _one_spans,
            lambda: _points(few=True),
        ),
    ),
    instances=_points,
    conclusion=_chain,
    sabotages=(
        Sabotage("converse", "I-flat gives I-value", conclusion=_flat_gives_value),
        Sabotage("rows", "rows of one coordinate missing", implementation=missing_axis),
    ),
    cost="light",
    algebra=_chain_algebra,
    algebra_note="injectivity of two linear maps for degrees 3 to 6, r <= 6, any points",
    code=("identify.proofs.rank.prove_rank",),
)

# --- I-hermite and uniqueness of T -----------------------------------------------------------


def _reduced(problem: GradientProblem) -> ReducedData:
    net, batch = problem.network, problem.data
    gradient = net.gradient(batch.samples, batch.coefficients)
    return reduce_data(HermiteData.from_gradient(net, gradient), 1e-13)


def _truth(problem: GradientProblem, data: ReducedData) -> FloatArray:
    """Coordinates of T in the basis of V, in the units of the reduced data."""
    samples = problem.data.samples @ data.basis
    coefficients = problem.data.coefficients / data.tensor_scale
    return np.asarray(coefficients @ monomials(samples, data.degree))


def _full_rank(problem: GradientProblem) -> bool:
    """Whether H, by its singular values, has rank N on a V that contains the samples."""
    data = _reduced(problem)
    if data.dimension != len(problem.data.samples):
        return False
    sigma = np.linalg.svd(hermite_matrix(data.points, data.degree), compute_uv=False)
    needed = symmetric_dimension(data.degree, data.dimension)
    return len(sigma) >= needed and float(sigma[needed - 1]) > 1e-6 * float(sigma[0])


def _row_error(problem: GradientProblem, data: ReducedData, weights: FloatArray) -> float:
    """Rounding of the weighted right-hand side: of the gradients, and of the change of units."""
    batch = problem.data
    errors = slope_rounding(problem.network.points, batch.samples, batch.coefficients, data.degree)
    lengths = np.linalg.norm(problem.network.points @ data.basis, axis=1) ** (data.degree - 1)
    kept = data.representatives
    relative = errors[kept] / lengths[kept] / data.tensor_scale
    units = 16.0 * data.degree * UNIT * np.linalg.norm(data.targets, axis=1)
    return float(np.linalg.norm(weights * (relative + units)))


def _recovers_tensor(problem: GradientProblem) -> Check:
    data = _reduced(problem)
    found = linear.interpolate(data, 1e-13, method="dense")
    assert isinstance(found.tensor, CoordinateTensor)
    weights, _, _ = solvers.row_weights(data, 1e-13)
    matrix = hermite_matrix(data.points, data.degree)
    matrix = matrix * np.repeat(weights, data.dimension)[:, None]
    sigma = np.linalg.svd(matrix, compute_uv=False)
    truth = _truth(problem, data)
    size = float(np.linalg.norm(truth))
    needed = symmetric_dimension(data.degree, data.dimension)
    smallest = float(sigma[needed - 1]) if len(sigma) >= needed else 0.0
    if smallest <= 1e-12 * float(sigma[0]):
        smallest = 1e-6 * float(sigma[0])
    # Backward stable least squares: the error of the data, and rounding of H, over sigma_min.
    allowed = _row_error(problem, data, weights) + 8.0 * matrix.shape[0] * UNIT * sigma[0] * size
    gap = float(np.linalg.norm(found.tensor.coordinates - truth))
    return Check.compare(gap / size, 2.0 * allowed / smallest / size)


def _no_tensor_fits(problem: GradientProblem) -> Check:
    """The claim that T is never determined."""
    data = _reduced(problem)
    found = linear.interpolate(data, 1e-13, method="dense")
    assert isinstance(found.tensor, CoordinateTensor)
    truth = _truth(problem, data)
    gap = float(np.linalg.norm(found.tensor.coordinates - truth) / np.linalg.norm(truth))
    return Check.of(gap > 1e-3)


def _wrong_matrix() -> AbstractContextManager[object]:
    """H whose first column lacks a factor."""
    original = hermite_matrix

    def broken(points: FloatArray, degree: int) -> FloatArray:
        matrix = original(points, degree).copy()
        matrix[:, 0] *= 2.0
        return matrix

    return patch.object(solvers, "hermite_matrix", broken)


def _problems(neurons: tuple[int, int]) -> SearchStrategy[GradientProblem]:
    return strategies.gradient_problems(3, 4, (3, 4), neurons=neurons)


UNIQUE_TENSOR = Statement(
    name="tensor-unique",
    title="I-hermite is uniqueness of T",
    sentence=(
        "The equations determine T among all symmetric tensors on V if and only if rank H = N; "
        "otherwise T plus any element of the kernel of H has the same data."
    ),
    formula=r"\operatorname{rank} H = N \iff \big(H T' = H T \Rightarrow T' = T\big)",
    source="linear algebra; Hermite interpolation at double points, Alexander & Hirschowitz 1995",
    hypotheses=(
        Hypothesis(
            "hermite",
            "H has rank N, on a span V that contains the samples",
            _full_rank,
            lambda: _problems((3, 4)).filter(lambda problem: len(problem.data.samples) == 3),
        ),
    ),
    instances=lambda: _problems((8, 24)),
    conclusion=_recovers_tensor,
    sabotages=(
        Sabotage("never", "T is never determined", conclusion=_no_tensor_fits),
        Sabotage("matrix", "a column of H too large", implementation=_wrong_matrix),
    ),
    cost="medium",
    code=("identify.interpolation.interpolate.interpolate",),
    remark=(
        "Uniqueness among all symmetric tensors: where it fails, T may still be the only sum of "
        "few powers with these data."
    ),
)

STATEMENTS = (CHAIN, UNIQUE_TENSOR)
