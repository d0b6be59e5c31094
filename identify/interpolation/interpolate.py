"""When the linear equations determine T: counting, rank, conditioning, the minimum-norm T."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.hermite.reduction import ReducedData
from identify.interpolation.gram import GramOperator, solve_gram
from identify.numerical_rank import RankDecision, decide_rank
from identify.tensors import (
    CoordinateTensor,
    MomentTensor,
    hermite_matrix,
    monomials,
    symmetric_dimension,
)

DENSE_LIMIT = 30_000_000
"""Numbers in H above which no dense matrix is formed."""
_DENSE_COLUMNS = 700


@dataclass(frozen=True, eq=False)
class Interpolation:
    """What the linear equations say about T on V.

    `required` N; `rank` of the weighted H (a lower bound where `exact_rank` is False);
    `determined` is I-hermite; `tensor` the minimum-norm solution, None if it was not computed;
    `residual` the relative linear residual, None without redundancy; `redundant` = rows - rank.
    """

    required: int
    rank: int
    decision: RankDecision | None
    determined: bool | None
    method: str
    tensor: MomentTensor | None
    residual: float | None
    redundant: int
    condition_number: float | None
    condition_method: str | None
    flat: tuple[int, int | None]
    value: tuple[int, int | None]
    gram: GramOperator | None = None
    row_noise: float = 0.0


def row_weights(data: ReducedData, noise_level: float) -> tuple[FloatArray, FloatArray, float]:
    """Weights of the linear solve, and the noise that they leave, relative to the weighted data.

    Rows count fully where their own noise rho / w_j is below sqrt(rho), and fade beyond: weights
    proportional to w_j alone would waste accurate rows and slow MINRES down.
    """
    soft = float(np.clip(np.sqrt(noise_level), 1e-7, 1.0))
    weights = data.weights / np.hypot(data.weights, soft)
    values = data.value_weights / np.hypot(data.value_weights, soft)
    ratio = np.concatenate([weights / data.weights, values / data.value_weights])
    spread = noise_level * data.size * float(np.sqrt(np.mean(ratio**2)))
    size = float(np.linalg.norm(stacked_target(data, weights, values)))
    return weights, values, spread / size if size > 0.0 else 1.0


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
    weights, value_weights, noise = row_weights(data, noise_level)
    threshold = max(10.0 * noise, 1e-12)
    flat = (symmetric_dimension(alpha - 1, r), _spread(data.points, alpha - 1))
    values = (required, _spread(data.points, alpha))
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
        flat=flat,
        value=values,
        row_noise=noise,
    )
    if method == "dense" or (method == "auto" and fits and required <= _DENSE_COLUMNS):
        return _dense(data, base, weights, value_weights, threshold)
    if data.equations < required or k == 0:
        return base
    gram = GramOperator(alpha, data.points, weights, data.value_points, value_weights)
    result = probe_rank(gram, base, threshold, seed=seed, budget=budget)
    # A second opinion, unless it would outlast the time limit.
    seconds = data.equations * required**2 / 1e9
    if result.determined is None and fits and method == "auto" and budget.allows(seconds):
        return _dense(data, base, weights, value_weights, threshold)
    return result


def minimum_norm(data: ReducedData, noise_level: float) -> Interpolation:
    """T without any statement about rank: dense at small size, else ready for `solve_tensor`."""
    required = symmetric_dimension(data.degree, data.dimension)
    if data.equations * required <= DENSE_LIMIT and required <= _DENSE_COLUMNS:
        return interpolate(data, noise_level, method="dense")
    weights, values, noise = row_weights(data, noise_level)
    return Interpolation(
        required=required,
        rank=min(data.equations, required),
        decision=None,
        determined=None,
        method="not decided",
        tensor=None,
        residual=None,
        redundant=max(0, data.equations - required),
        condition_number=None,
        condition_method=None,
        flat=(symmetric_dimension(data.degree - 1, data.dimension), None),
        value=(required, None),
        gram=GramOperator(data.degree, data.points, weights, data.value_points, values),
        row_noise=noise,
    )


def stacked_target(data: ReducedData, weights: FloatArray, values: FloatArray) -> FloatArray:
    """The weighted right-hand side, stacked (m r + l,)."""
    rows = (data.targets * weights[:, None]).ravel()
    return np.concatenate([rows, data.value_targets * values])


def solve_tensor(
    data: ReducedData,
    linear: Interpolation,
    *,
    tolerance: float,
    enough: float = 0.0,
    budget: Budget = UNLIMITED,
) -> Interpolation:
    """The kernel path's T, solved to `tolerance`, with its linear residual."""
    gram = linear.gram
    if gram is None:
        return linear
    target = stacked_target(data, gram.weights, gram.value_weights)
    found = solve_gram(gram, target, tolerance=tolerance, enough=enough, budget=budget)
    remainder = target - gram.apply(found.vector)
    rows, values = gram.split(remainder)
    # The residual in the units of the noise: weights w, not the softened ones.
    rows = rows * (data.weights / gram.weights)[:, None]
    values = values * (data.value_weights / gram.value_weights)
    residual = float(np.hypot(np.linalg.norm(rows), np.linalg.norm(values))) / data.size
    return replace(linear, tensor=gram.tensor(found.vector), residual=residual)


def _dense(
    data: ReducedData,
    base: Interpolation,
    weights: FloatArray,
    value_weights: FloatArray,
    threshold: float,
) -> Interpolation:
    """Rank and T by a singular value decomposition of the weighted H."""
    alpha, r = data.degree, data.dimension
    matrix = hermite_matrix(data.points, alpha) * np.repeat(weights, r)[:, None]
    if len(data.value_points):
        extra = monomials(data.value_points, alpha) * value_weights[:, None]
        matrix = np.vstack([matrix, extra])
    target = stacked_target(data, weights, value_weights)
    if matrix.shape[0] > 1.5 * matrix.shape[1]:
        ortho, triangle = scipy.linalg.qr(matrix, mode="economic", check_finite=False)
        left, sigma, right = scipy.linalg.svd(triangle, check_finite=False)
        left = ortho @ left
    else:
        left, sigma, right = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
    decision = decide_rank(sigma, threshold)
    rank = decision.rank
    coordinates = right[:rank].T @ ((left[:, :rank].T @ target) / sigma[:rank])
    softness = np.concatenate(
        [np.repeat(data.weights / weights, r), data.value_weights / value_weights]
    )
    remainder = (target - matrix @ coordinates) * softness
    if np.linalg.norm(remainder) > 1e-13 * data.size and softness.min() < 0.5 * softness.max():
        # The least residual in the units of the noise: a second solve on what is left.
        heavy = matrix * softness[:, None]
        step = scipy.linalg.lstsq(heavy, remainder, cond=threshold, check_finite=False)[0]
        left = remainder - heavy @ step
        remainder = min(remainder, left, key=np.linalg.norm)
    residual = float(np.linalg.norm(remainder)) / data.size
    redundant = data.equations - rank
    return replace(
        base,
        rank=rank,
        decision=decision,
        determined=rank == base.required and decision.clear if decision.clear else None,
        method="singular values",
        tensor=CoordinateTensor(coordinates, alpha, r),
        residual=residual if redundant > 0 else None,
        redundant=redundant,
        condition_number=float(sigma[0] / sigma[rank - 1]) if rank else None,
        condition_method="singular values of the weighted Hermite matrix",
    )


def probe_rank(
    gram: GramOperator,
    base: Interpolation,
    threshold: float,
    *,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> Interpolation:
    """Decide rank H = N by recovering a random tensor from H T_0.

    A kernel leaves |T - T_0|/|T_0| near sqrt(dim ker/N); a missing part below 1e-3/sqrt(N) says
    full rank; a one-dimensional kernel hides from the probe with probability about 1e-3. The
    missing part is a difference of squares and resolves no better than 1e-8. The extreme Ritz
    values of the run estimate the conditioning.

    Cost: one solve with K.
    """
    rng = np.random.default_rng([seed, 0x9E37])
    count = max(gram.points.shape[0] // 2, 4 * gram.dimension)
    centres = rng.standard_normal((count, gram.dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    heights = rng.standard_normal(count)
    goal = 1e-3 / np.sqrt(base.required)
    found = solve_gram(
        gram,
        gram.forward(centres, heights),
        tolerance=max(goal * 1e-6, 1e-15),
        max_products=3000,
        budget=budget,
    )
    tensor = gram.tensor(found.vector)
    whole = float(heights @ (centres @ centres.T) ** gram.degree @ heights)
    inner = float(heights @ tensor.evaluate(centres))
    own = float(found.vector @ gram.apply(found.vector))
    missing = np.sqrt(max(whole - 2.0 * inner + own, 0.0) / whole)
    positive = found.ritz[found.ritz > 0]
    sigma = float(np.sqrt(positive.min() / positive.max()))
    full = bool(missing < goal) and sigma > threshold
    return replace(
        base,
        rank=base.required,
        determined=True if full else None,
        method=f"random tensor recovered to {max(missing, 1e-8):.1e}",
        condition_number=1.0 / sigma,
        condition_method="extreme Ritz values of the Gram operator (an estimate)",
        gram=gram,
    )


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
