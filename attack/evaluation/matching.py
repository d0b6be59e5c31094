"""Assignments of candidates to true samples, from a matrix of distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.optimize

from identify.arrays import FloatArray
from identify.errors import InvalidInputError

IntArray = npt.NDArray[np.intp]

MATCHINGS = ("one-to-one", "greedy", "nearest")


def assign(
    distances: FloatArray, matching: str, scale: float | FloatArray | None = None
) -> IntArray:
    """The candidate of each true sample (n,), from distances (n, m); -1 where there is none.

    Raises InvalidInputError for an unknown matching. `scale` is that of `one_to_one`.

    Example:
        >>> d = np.array([[1.0, 2.0], [0.5, 3.0]])
        >>> [assign(d, m).tolist() for m in MATCHINGS]
        [[1, 0], [1, 0], [0, 0]]
    """
    if matching == "one-to-one":
        return one_to_one(distances, scale)
    if matching == "greedy":
        return greedy(distances)
    if matching == "nearest":
        return nearest(distances)
    raise InvalidInputError("matching", f"one of {', '.join(MATCHINGS)}", matching)


def one_to_one(distances: FloatArray, scale: float | FloatArray | None = None) -> IntArray:
    """The one-to-one assignment with the least sum of d/(scale + d), min(n, m) pairs.

    The bounded cost, that of `identify.match_samples`, keeps hopeless pairs from bending good ones.
    `scale` > 0, one number or one per sample (n,), is the distance from which a pair counts as
    hopeless, by default the median of the matrix; the norms of the samples give that function's
    assignment.

    Cost: O((n + m)^3), a tenth of a second for 500 x 1000.
    Source: the linear assignment problem (Kuhn 1955) by `scipy.optimize.linear_sum_assignment`.

    Example:
        >>> one_to_one(np.array([[0.0, 1.4], [94.0, 100.0], [1.0, 1.0]]), scale=1.0).tolist()
        [0, -1, 1]
    """
    d = _matrix(distances)
    if scale is None:
        scale = (float(np.median(d)) if d.size else 0.0) or 1.0
    limits = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(d))
    if not (limits > 0.0).all():
        raise InvalidInputError("scale", "positive numbers", float(limits.min()))
    rows, columns = scipy.optimize.linear_sum_assignment(d / (d + limits[:, None]))
    chosen = np.full(len(d), -1, dtype=np.intp)
    chosen[rows] = columns
    return chosen


def greedy(distances: FloatArray) -> IntArray:
    """One-to-one: the smallest distance of all first, its row and column removed, and so on.

    Equal distances: the first sample, then the first candidate.

    Cost: O(n m log(n m)).
    Source: Loo, Hasani, Lechner, Amini & Rus (2024), "Understanding reconstruction attacks with
        the neural tangent kernel", their reconstruction curves.

    Example:
        >>> greedy(np.array([[1.0, 2.0], [0.5, 3.0]])).tolist()
        [1, 0]
    """
    d = _matrix(distances)
    chosen = np.full(d.shape[0], -1, dtype=np.intp)
    free = np.ones(d.shape[1], dtype=bool)
    left = min(d.shape)
    for entry in np.argsort(d, axis=None, kind="stable").tolist():
        if left == 0:
            break
        row, column = divmod(entry, d.shape[1])
        if chosen[row] < 0 and free[column]:
            chosen[row], free[column] = column, False
            left -= 1
    return chosen


def nearest(distances: FloatArray) -> IntArray:
    """The nearest candidate of each sample, with replacement: one may serve many samples.

    Such counts overstate how many samples were recovered.

    Example:
        >>> nearest(np.array([[1.0, 2.0], [0.5, 3.0]])).tolist()
        [0, 0]
    """
    d = _matrix(distances)
    if d.shape[1] == 0:
        return np.full(d.shape[0], -1, dtype=np.intp)
    return np.asarray(d.argmin(axis=1), dtype=np.intp)


def best_per_sample(distances: FloatArray) -> FloatArray:
    """For each sample the least distance (n,) of the candidates nearest to it, inf if none is.

    Each candidate counts for its own nearest sample only.

    Source: the score in the training loop of Haim et al. (2022), "Reconstructing training data
        from trained neural networks".

    Example:
        >>> best_per_sample(np.array([[1.0, 2.0], [0.5, 3.0]]))
        array([2. , 0.5])
    """
    d = _matrix(distances)
    best = np.full(d.shape[0], np.inf)
    if d.size:
        owner = d.argmin(axis=0)
        np.minimum.at(best, owner, d[owner, np.arange(d.shape[1])])
    return best


def _matrix(distances: FloatArray) -> FloatArray:
    if distances.ndim != 2 or np.isnan(distances).any() or (distances < 0).any():
        raise InvalidInputError("distances", "a matrix of numbers >= 0", distances.shape)
    return distances
