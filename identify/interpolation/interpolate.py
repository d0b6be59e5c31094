"""When the linear equations determine T: counting, rank, conditioning, the minimum-norm T."""

from __future__ import annotations

import scipy.linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.hermite.reduction import ReducedData
from identify.interpolation.solvers import (
    DenseSolver,
    Interpolation,
    KernelSolver,
    WeightedEquations,
)
from identify.numerical_rank import decide_rank
from identify.tensors import monomials, symmetric_dimension

DENSE_LIMIT = 30_000_000
"""Numbers in H above which no dense matrix is formed."""
DENSE_COLUMNS = 700
"""Columns of H up to which a dense decomposition decides."""


def interpolate(
    data: ReducedData,
    noise_level: float,
    *,
    method: str = "auto",
    seed: int = 0,
    tolerance: float = 1e-12,
    budget: Budget = UNLIMITED,
) -> Interpolation:
    """Rank of H, I-hermite, I-flat, I-value, and the minimum-norm T.

    Counting comes first: rank H <= m r. A dense singular value decomposition serves up to 700
    columns (and as a second opinion up to 3e7 numbers); beyond, T comes from MINRES and the rank
    from `probe_rank`.

    Args:
        data: reduced data.
        noise_level: rho; singular values above max(10 rho, 1e-12) of the largest count, where rho
            is the noise that is left in a weighted row.
        method: "auto", "dense" or "kernel".
        seed: of the probe.
        tolerance: of MINRES; the dense path ignores it.
        budget: as in `solve_gram`.

    Cost: dense O(m r N^2); kernel 6 m^2 r flops a product and O(m^2) memory.
    """
    alpha, r, k = data.degree, data.dimension, data.neurons
    required = symmetric_dimension(alpha, r)
    equations = WeightedEquations.of(data, noise_level)
    fits = data.equations * required <= DENSE_LIMIT
    base = Interpolation(
        required=required,
        rank=min(data.equations, required),
        decision=None,
        determined=False if data.equations < required else None,
        method="counting",
        tensor=None,
        residual=None,
        redundant=max(0, data.equations - required),
        condition_number=None,
        condition_method=None,
        flat=(symmetric_dimension(alpha - 1, r), _spread(data.points, alpha - 1)),
        value=(required, _spread(data.points, alpha)),
        row_noise=equations.noise,
    )
    if method == "dense" or (method == "auto" and fits and required <= DENSE_COLUMNS):
        return DenseSolver(equations).solve(base)
    if data.equations < required or k == 0:
        return base
    result = KernelSolver(equations).probe(base, seed=seed, budget=budget)
    # A second opinion, unless it would outlast the time limit.
    seconds = data.equations * required**2 / 1e9
    if result.determined is None and fits and method == "auto" and budget.allows(seconds):
        return DenseSolver(equations).solve(base)
    return result


def _spread(points: FloatArray, order: int) -> int | None:
    """Rank of {u_j^(order)}; the count of points where that is too few; None if too large."""
    count, dimension = points.shape
    needed = symmetric_dimension(order, dimension)
    if count < needed:
        return int(count)
    if count * needed > DENSE_LIMIT // 4 or needed > 1500:
        return None
    sigma: FloatArray = scipy.linalg.svdvals(monomials(points, order), check_finite=False)
    return int(decide_rank(sigma, 1e-12).rank)
