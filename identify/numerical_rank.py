"""Numerical rank by a gap between singular values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from identify.arrays import FloatArray
from identify.thresholds import COARSE_NOISE, GAP


@dataclass(frozen=True)
class RankDecision:
    """A numerical rank: `rank` counted values, the two values beside the gap, whether it is clear.

    `smallest` and `largest_uncounted` are relative to the largest singular value.
    """

    rank: int
    smallest: float
    largest_uncounted: float | None
    clear: bool


def decide_rank(singular_values: FloatArray, threshold: float, tail: float = 0.0) -> RankDecision:
    """Count singular values above `threshold` times the largest and say whether a gap decided it.

    `tail` bounds singular values that were not computed. Clear means: the smallest counted is at
    least 100 times the largest uncounted, if any is uncounted.

    Example:
        >>> import numpy as np
        >>> decide_rank(np.array([1.0, 0.5, 1e-15]), 1e-12).rank
        2
    """
    values = np.sort(np.abs(singular_values))[::-1]
    if values.size == 0 or values[0] == 0.0:
        return RankDecision(0, 0.0, None, True)
    relative = values / values[0]
    rank = int(np.count_nonzero(relative > threshold))
    rest = max(float(relative[rank]) if rank < relative.size else 0.0, tail / float(values[0]))
    uncounted = rest if rank < relative.size or tail > 0.0 else None
    clear = uncounted is None or float(relative[rank - 1]) >= GAP * uncounted
    return RankDecision(rank, float(relative[rank - 1]), uncounted, clear)


def row_space(rows: FloatArray, threshold: float, seed: int) -> tuple[FloatArray, RankDecision]:
    """Orthonormal basis (D, r) of the row space of `rows` (m, D) and how r was decided.

    A random range finder with one power step serves first, its remainder computed exactly
    (Halko, Martinsson & Tropp 2011); unless the gap is clear a full decomposition follows.
    Cost: O(m D r), or O(m D min(m, D)).
    """
    count, dimension = rows.shape
    limit = min(count, dimension)
    rng = np.random.default_rng(seed)
    width = 64
    while 3 * width < limit:
        left, _ = np.linalg.qr(rows @ rng.standard_normal((dimension, width)))
        # Orthonormal at every step: weak samples drown in the powers of the strong ones otherwise.
        across, _ = np.linalg.qr(rows.T @ left)
        left, _ = np.linalg.qr(rows @ across)
        core = left.T @ rows
        tail = float(np.linalg.norm(rows - left @ core))
        # Orthogonalising the long side first is several times faster than a wide decomposition.
        across, triangle = np.linalg.qr(core.T)
        _, values, right = scipy.linalg.svd(triangle.T, check_finite=False)
        right = right @ across.T
        decision = decide_rank(values, max(threshold, GAP * tail / float(values[0])), tail)
        # A sample between the threshold and the remainder may not pass for noise.
        noise = np.all(values[decision.rank :] <= threshold * values[0])
        if decision.clear and noise and decision.rank < width - 4:
            return np.ascontiguousarray(right[: decision.rank].T), decision
        width *= 2
    _, values, right = scipy.linalg.svd(rows, full_matrices=False, check_finite=False)
    decision = decide_rank(values, threshold)
    return np.ascontiguousarray(right[: decision.rank].T), decision


def drowned(noise: float) -> str:
    """What may hide samples at the relative noise of float32 and above; nothing below.

    Example:
        >>> drowned(1e-15), "float64" in drowned(1e-7)
        ('', True)
    """
    if noise < COARSE_NOISE:
        return ""
    return (
        f"; at a noise of {noise:.1e} samples that the network is sure of, whose loss hardly "
        "slopes, can drown: the same data computed in float64 may show them"
    )
