"""Large least-squares problems by Cholesky and orthogonal decompositions, in numpy alone."""

from __future__ import annotations

import numpy as np

from ..outcome import FloatArray


def spectral_norm(matrix: FloatArray) -> float:
    """Largest singular value, a few per cent too large."""
    if not matrix.size or not np.any(matrix):
        return 0.0
    vector: FloatArray = np.random.default_rng(0).standard_normal((matrix.shape[1],))
    for _ in range(12):
        vector = np.asarray(matrix.T @ (matrix @ (vector / np.linalg.norm(vector))))
    return 1.1 * float(np.sqrt(np.linalg.norm(vector)))


_BLOCK = 256
# Below this share of the largest, squared singular values drown in rounding errors.
_CLEAR = 3e-5


class Triangle:
    """Solves with a lower triangular matrix and its transpose, block by block: 2 n^2 operations.

    Example:
        >>> Triangle(np.array([[2.0, 0.0], [1.0, 1.0]])).solve_normal(np.array([4.0, 3.0]))
        array([0.5, 1. ])
    """

    def __init__(self, lower: FloatArray) -> None:
        self.lower = lower
        self.starts = range(0, len(lower), _BLOCK)
        self.inverses = [np.linalg.inv(lower[s : s + _BLOCK, s : s + _BLOCK]) for s in self.starts]

    def solve_normal(self, vector: FloatArray) -> FloatArray:
        """(L L^T)^-1 v."""
        result = vector.copy()
        blocks = list(zip(self.starts, self.inverses, strict=True))
        for s, inverse in blocks:
            part = slice(s, s + _BLOCK)
            result[part] = inverse @ (result[part] - self.lower[part, :s] @ result[:s])
        for s, inverse in reversed(blocks):
            part, rest = slice(s, s + _BLOCK), slice(s + _BLOCK, None)
            result[part] = inverse.T @ (result[part] - self.lower[rest, part].T @ result[rest])
        return result


def _root(matrix: FloatArray) -> FloatArray:
    """L with L L^T = M^T M."""
    return np.asarray(np.linalg.cholesky(matrix.T @ matrix), dtype=np.float64)


def smallest_share(matrix: FloatArray) -> float:
    """Smallest singular value over the largest, by inverse iteration, to a few per cent."""
    top = spectral_norm(matrix) / 1.1
    try:
        share = _inverse_iteration(Triangle(_root(matrix))) / top
        if share > _CLEAR:
            return share
    except np.linalg.LinAlgError:
        pass
    try:
        triangle = np.asarray(np.linalg.qr(matrix, mode="r"), dtype=np.float64)
        return _inverse_iteration(Triangle(triangle.T)) / top
    except np.linalg.LinAlgError:
        return 0.0


def _inverse_iteration(triangle: Triangle) -> float:
    """Smallest singular value of L, from above; 0 where the iteration overflows."""
    vector: FloatArray = np.random.default_rng(0).standard_normal(len(triangle.lower))
    for _ in range(20):
        vector = triangle.solve_normal(vector / np.linalg.norm(vector))
    growth = float(np.linalg.norm(vector))
    return float(growth**-0.5) if np.isfinite(growth) and growth > 0.0 else 0.0


def least_by_squares(matrix: FloatArray, aims: FloatArray) -> float | None:
    """|matrix x - aims| for the best x by refined normal equations; None if they do not settle."""
    top = spectral_norm(matrix) / 1.1
    try:
        triangle = Triangle(_root(matrix))
    except np.linalg.LinAlgError:
        return None
    if not _inverse_iteration(triangle) > _CLEAR * top:
        return None
    rest, previous = aims, np.inf
    solution = np.zeros(matrix.shape[1])
    for _ in range(30):
        solution = solution + triangle.solve_normal(matrix.T @ rest)
        rest = aims - matrix @ solution
        size = float(np.linalg.norm(rest))
        if size > 0.999 * previous:
            return min(size, previous)
        previous = size
    return None
