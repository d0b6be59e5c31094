"""Rows of a gradient whose errors differ by orders of magnitude, scaled to even ones.

A row of a ReLU layer's gradient sums the samples that activate its neuron, so that its rounding
errors are those of the largest of them: rows that large samples leave off are known far better.
Dividing row j by d_j > 0, and A_j with it, leaves masks, slopes p and inputs h as they are; with
d_j the size of the row's error the column space is as good as the data allow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.disaggregation.factor import factor

IntArray = npt.NDArray[np.int64]

_ROUNDS = 3
_LEAST_FREE = 8
_LOW = 0.1
_LEVERAGE = 0.95
_EVEN = 3
_FURTHEST = 60


def row_exponents(gradient: FloatArray, rank: int, *, seed: int = 0) -> IntArray:
    """Exponents e (m,) such that the errors of the rows G_j / 2^(e_j) have about one size.

    The error of a row is read from what rank r leaves of it, over the root of one minus its
    leverage, and taken as at least the tenth percentile of all rows, absolute and relative to the
    row: a row that the space follows shows no error of its own. All exponents are 0 where they
    would span less than a factor of 8, or where fewer than 8 rows or columns are left.

    Args:
        gradient: G (m, k).
        rank: r.
        seed: of the random directions that find the space of a large matrix.

    Cost: three factorisations.

    Source: iteratively reweighted least squares (Carroll & Ruppert 1988), errors by row.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> size = np.repeat([1.0, 1e-3], 20)[:, None]
        >>> g = size * rng.normal(size=(40, 2)) @ rng.normal(size=(2, 50))
        >>> e = row_exponents(g + 1e-6 * size * rng.normal(size=(40, 50)), 2)
        >>> bool(e[:20].min() - e[20:].max() >= 8)
        True
    """
    exponents = np.zeros(len(gradient), dtype=np.int64)
    length = np.linalg.norm(gradient, axis=1)
    live = np.flatnonzero(length)
    free = gradient.shape[1] - rank
    if free < _LEAST_FREE or len(live) - rank < _LEAST_FREE:
        return exponents
    g, length = gradient[live], length[live]
    scale = np.full(len(live), float(np.median(length)))
    for _ in range(_ROUNDS):
        scaled = g / scale[:, None]
        basis = factor(scaled, rank=rank, seed=seed).columns
        left = np.linalg.norm(scaled - basis @ (basis.T @ scaled), axis=1) / np.sqrt(free)
        leverage = np.minimum(np.sum(basis**2, axis=1), _LEVERAGE)
        error = scale * left / np.sqrt(1.0 - leverage)
        if not error.any():
            return exponents
        scale = np.maximum(error, np.quantile(error / length, _LOW) * length)
        scale = np.maximum(scale, np.quantile(error, _LOW))
        if not scale.all():
            return exponents
    found = np.rint(np.log2(scale / np.median(scale)))
    if found.max() - found.min() < _EVEN:
        return exponents
    exponents[live] = np.clip(found, -_FURTHEST, _FURTHEST).astype(np.int64)
    return exponents
