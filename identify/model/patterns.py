"""On-off patterns of neurons, and how much of the symmetric matrices they span."""

from __future__ import annotations

import flint
import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray

_PRIME = 2147483647


def pattern_rank(masks: npt.NDArray[np.bool_]) -> int:
    """The dimension of span{1_S 1_S^T} over the patterns S of the neurons, masks (m, n).

    At most n (n + 1) / 2; from there on the kernel of L of a two-layer network with one output has
    dimension n. A rank modulo a prime: never larger than the true one.

    Cost: k n^4 operations for k different patterns.

    Example:
        >>> pattern_rank(np.array([[True, False], [False, True], [True, True]]))
        3
    """
    different = np.unique(masks[masks.any(axis=1)], axis=0)
    if len(different) == 0:
        return 0
    first, second = np.triu_indices(masks.shape[1])
    entries = (different[:, first] & different[:, second]).astype(int)
    rows, columns = entries.shape
    return int(flint.nmod_mat(rows, columns, entries.ravel().tolist(), _PRIME).rank())


def count_patterns(masks: npt.NDArray[np.bool_]) -> int:
    """How many different patterns that are not empty neurons have, masks (m, n).

    Example:
        >>> count_patterns(np.array([[True, False], [True, False], [False, False]]))
        1
    """
    return len(np.unique(masks[masks.any(axis=1)], axis=0))


def count_directions(rows: FloatArray, tolerance: float) -> int:
    """Different directions among rows (m, k); rows of 0 count for nothing.

    Neurons of one pattern are parallel, so this is the number of patterns that the weights show.

    Example:
        >>> count_directions(np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]), 1e-9)
        2
    """
    lengths = np.linalg.norm(rows, axis=1)
    live = lengths > tolerance * max(float(lengths.max()), 1e-300)
    units = rows[live] / lengths[live, None]
    kept = np.zeros((0, rows.shape[1]))
    for unit in units:
        if len(kept) == 0 or np.linalg.norm(kept - unit, axis=1).min() > tolerance:
            kept = np.vstack([kept, unit])
    return len(kept)
