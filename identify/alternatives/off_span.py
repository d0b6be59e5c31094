"""How well a training set explains the data, and what the data leave free outside the span."""

from __future__ import annotations

import numpy as np

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.stationarity import stationarity
from identify.numerical_rank import row_space
from identify.records import TrainingSet

_KERNEL = 1e-11
"""Relative singular value below which a column combination counts as zero."""


def free_directions(
    data: HermiteData, basis: FloatArray, count: int, *, seed: int = 0
) -> FloatArray:
    """At most `count` random orthonormal directions (D, q) that no equation sees.

    They are orthogonal to V, to all points u_j, and with a hidden bias to its coordinate.
    """
    fixed = [basis]
    if not data.homogeneous:
        fixed.append(row_space(data.points, 1e-10, seed)[0])
    if data.has_bias:
        fixed.append(np.eye(len(basis))[:, -1:])
    left, sigma, _ = np.linalg.svd(np.hstack(fixed), full_matrices=False)
    # A part of the bias axis that sticks out of V by less leaves no room that is worth using.
    taken = left[:, sigma > 1e-7 * sigma[0]]
    room = len(basis) - taken.shape[1]
    draw = np.random.default_rng([seed, 0xF4]).standard_normal((len(basis), min(count, room)))
    for _ in range(2):
        draw = draw - taken @ (taken.T @ draw)
        draw, _ = np.linalg.qr(draw)
    return draw


def off_span_alternative(
    data: HermiteData,
    samples: FloatArray,
    coefficients: FloatArray,
    *,
    distance: float | None = None,
    basis: FloatArray | None = None,
    noise_level: float = 1e-13,
    seed: int = 0,
) -> TrainingSet | None:
    """Another set of as many samples with the same b_i, f(x_i) and stationarity.

    f and its gradient in V = span{w_j} see only the part of x_i in V, and stationarity is linear
    in the rest: sum_i b_i (w_j . x_i)^(alpha-1) A x_i,perp = 0 for every linear map A. Here A is
    the reflection -1, which keeps all norms, or 1 - t with the t that moves the farthest sample
    by `distance`. With a hidden bias A keeps the bias coordinate. A set without a part off V gets
    one from the kernel of the matrix b_i (w_j . x_i)^(alpha-1), if it has one.

    Args:
        data: KKT or weight-decay data.
        samples: x_i, shape (n, d), a set that explains the data.
        coefficients: b_i, shape (n,).
        distance: largest |x'_i - x_i| / |x_i|; that of the reflection if left out.
        basis: orthonormal basis (D, r) of V, if known.
        noise_level: relative size of the data's error; decides the dimension of V.
        seed: of the directions that the kernel case takes.

    Returns:
        The set, or None where no sample can move by a thousandth of its norm.

    Raises:
        InvalidInputError: another source.

    Cost: O(m D min(m, D) + n m D).
    """
    if not data.homogeneous:
        raise InvalidInputError(
            "source", "kkt or weight-decay", data.source, "gradients see all of a sample"
        )
    if basis is None:
        basis, _ = row_space(data.points, max(10.0 * noise_level, 1e-12), seed)
    lifted = data.network.lift(samples)
    norms = np.linalg.norm(samples, axis=1)
    norms = np.where(norms > 0.0, norms, 1.0)
    outside = lifted - (lifted @ basis) @ basis.T
    fixed = np.zeros_like(outside)
    if data.has_bias:
        axis = -basis @ basis[-1]
        axis[-1] += 1.0
        length = float(np.linalg.norm(axis))
        if length > 1e-9:
            axis /= length
            fixed = np.outer(outside @ axis, axis)
    move = -2.0 * (outside - fixed)
    reach = float(np.max(np.linalg.norm(move, axis=1) / norms))
    if reach < 1e-3:
        move = _kernel_move(data, lifted, coefficients, basis, noise_level, seed)
        reach = float(np.max(np.linalg.norm(move, axis=1) / norms))
        if reach == 0.0:
            return None
        distance = 1.0 if distance is None else distance
    if distance is not None:
        move *= distance / reach
    other = np.ascontiguousarray((lifted + move)[:, : data.network.dimension])
    return TrainingSet(other, coefficients, stationarity(data, other, coefficients))


def _kernel_move(
    data: HermiteData,
    lifted: FloatArray,
    coefficients: FloatArray,
    basis: FloatArray,
    noise_level: float,
    seed: int,
) -> FloatArray:
    """Moves (n, D) off V with sum_i b_i (w_j . x_i)^(alpha-1) move_i = 0; zeros if none."""
    sizes = np.linalg.norm(lifted, axis=1)
    matrix = data.scales[:, None] * (data.points @ lifted.T) ** (data.degree - 1)
    matrix = matrix * (coefficients * sizes)
    top = float(np.linalg.norm(data.rows))
    _, sigma, right = np.linalg.svd(matrix, full_matrices=True)
    rank = int(np.count_nonzero(sigma > max(_KERNEL, noise_level) * top))
    kernel = right[rank:]
    directions = free_directions(data, basis, len(kernel), seed=seed)
    kernel = kernel[: directions.shape[1]]
    move: FloatArray = (kernel.T @ directions.T) * sizes[:, None]
    return move


def nu_pair_alternative(
    data: HermiteData,
    samples: FloatArray,
    coefficients: FloatArray,
    *,
    distance: float | None = None,
    keep_norm: bool = False,
    basis: FloatArray | None = None,
    noise_level: float = 1e-13,
    seed: int = 0,
) -> TrainingSet | None:
    """One sample more: x becomes x + nu and x - nu with half of its coefficient each.

    nu is orthogonal to every point, so that nothing the data see changes. The sample is the one
    of the largest |b_i| |x_i|^alpha.

    Args:
        data: of any source.
        samples, coefficients: a set that explains the data.
        distance: |nu| / |x|, 1/2 if left out; below 1 with `keep_norm`.
        keep_norm: shrink x so that x + nu has its norm.
        basis: orthonormal basis (D, r) of V, if known.
        noise_level, seed: as in `off_span_alternative`.

    Returns:
        The set of n + 1 samples, or None where the points leave no direction free.

    Source: Refael et al. 2025, for any activation.
    """
    if basis is None:
        basis, _ = row_space(data.points, max(10.0 * noise_level, 1e-12), seed)
    free = free_directions(data, basis, 1, seed=seed)
    if free.shape[1] == 0:
        return None
    lifted = data.network.lift(samples)
    sizes = np.linalg.norm(lifted, axis=1)
    index = int(np.argmax(np.abs(coefficients) * (sizes / sizes.max()) ** data.degree))
    x, b = samples[index], float(coefficients[index])
    share = 0.5 if distance is None else distance
    nu = share * float(np.linalg.norm(x)) * free[: data.network.dimension, 0]
    if keep_norm:
        shrink = float(np.sqrt(1.0 - share**2))
        x, b = shrink * x, b / shrink**data.degree
    others = np.arange(len(samples)) != index
    moved = np.vstack([x + nu, x - nu, samples[others]])
    heights = np.concatenate([[0.5 * b, 0.5 * b], coefficients[others]])
    return TrainingSet(moved, heights, stationarity(data, moved, heights))
