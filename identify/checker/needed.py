"""How many samples every set needs that explains the data, beyond the dimension of the span."""

from __future__ import annotations

import numpy as np

from .arithmetic.least_squares import smallest_share
from .arithmetic.ranks import monomials
from .case import Case
from .linear import hard
from .outcome import FloatArray, finite
from .reading.report import ShownSet

_ROUNDS = 3000


def flattening_rank(case: Case, shown: ShownSet) -> int:
    """Rank of the moment tensor as a matrix, which no set of fewer samples has.

    The tensor is that of a shown set, so that this is a bound where the data determine it.
    """
    inside = case.data.lift(shown.samples) @ case.basis
    norms = np.linalg.norm(finite(inside), axis=1)
    seen = norms > 0.0
    units = inside[seen] / norms[seen, None]
    sizes = shown.coefficients[seen] * (norms[seen] / norms.max()) ** case.degree
    half = case.degree // 2
    left, right = monomials(units, half), monomials(units, case.degree - half)
    sigma = np.linalg.svd(finite(left.T @ (sizes[:, None] * right)), compute_uv=False)
    reach = 1.0 / max(smallest_share(hard(case)[0]), 1e-300)
    error = 100.0 * max(1e-10, 2.0 * case.noise) * reach
    return int(np.count_nonzero(sigma > max(1e-6, error) * sigma[0]))


def excludes_span_many(case: Case) -> bool:
    """Whether a relation of one sign between the rows excludes every set of r samples.

    For odd degree and weights, whose points lie in V: independent samples obey a relation of the
    rows one by one, and sum_j e_j w_j (p_j . x)^(degree - 1) has no zero for positive e_j.
    """
    if case.degree % 2 == 0 or not case.data.homogeneous:
        return False
    rows = case.merged.weights[:, None] * case.merged.targets
    left, sigma, _ = np.linalg.svd(finite(rows), full_matrices=True)
    kernel = left[:, rows.shape[1] :]
    relation = _positive(kernel) if kernel.shape[1] else None
    if relation is None:
        return False
    error = 10.0 * max(1e-10, 2.0 * case.noise) * float(np.linalg.norm(sigma))
    spread = float(np.linalg.norm(relation) / relation.min())
    return bool(sigma[-1] > error * (1.0 + np.sqrt(rows.shape[1]) * spread))


def _positive(kernel: FloatArray) -> FloatArray | None:
    """A vector of the span of orthonormal columns with positive entries, or None if none is met.

    Projections in turn to the span and to the vectors with entries of at least 1.
    """
    for sign in (1.0, -1.0):
        point = kernel @ (kernel.T @ np.full(len(kernel), sign))
        if kernel.shape[1] == 1:
            point = kernel[:, 0] * sign
        for _ in range(_ROUNDS):
            if float(point.min()) > 0.0:
                return np.asarray(point)
            point = kernel @ (kernel.T @ np.maximum(point, 1.0))
    return None
