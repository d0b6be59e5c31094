"""From a basis of the kernel to one term a sample: a CP decomposition of rank r.

The kernel is spanned by (z_i z_i^T, z_i p_i^T), so every basis element k has the slices
Z_k = E diag(t_k) E^T and P_k = E diag(t_k) p with the z_i as columns of E.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tensorly.cp_tensor import CPTensor
from tensorly.decomposition import parafac

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget

_STARTS = 12
_GOOD = 1e-5
_SWEEPS = 60


@dataclass(frozen=True, eq=False)
class Terms:
    """One term a sample: ``vectors`` E (r, r), columns z_i of norm 1; ``cotangents`` p (r, q).

    ``residual`` is |Z - sum_i t_i z_i z_i^T| / |Z| over all slices; ``sweeps`` counts the
    alternating least-squares steps.
    """

    vectors: FloatArray
    cotangents: FloatArray
    residual: float
    sweeps: int


def decompose_kernel(
    z: FloatArray,
    p: FloatArray,
    *,
    starts: int = _STARTS,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> Terms:
    """Decompose slices Z (r, r, r) and P (r, r, q) of a kernel basis into r terms.

    The best of ``starts`` random pencils; where it leaves more than rounding, alternating least
    squares from the two best, as far as the budget lets them go.

    Raises numpy.linalg.LinAlgError if every pencil is singular.

    Cost: 4 r^4 operations a pencil, 3 r^4 a step.

    Source: the pencil is Jennrich's algorithm (Harshman 1970; Leurgans, Ross & Abel 1993); the
    alternating least squares are tensorly's.

    Example:
        >>> e = np.array([[1.0, 0.6], [0.0, 0.8]])
        >>> t = np.array([[1.0, 2.0], [1.0, -1.0]])
        >>> z = np.einsum("ai,ki,bi->kab", e, t, e)
        >>> terms = decompose_kernel(z, np.einsum("ai,ki,iq->kaq", e, t, np.ones((2, 1))))
        >>> terms.residual < 1e-12
        True
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[float, FloatArray]] = []
    for start in range(starts):
        budget.tell("pencils", start / starts)
        if found and budget.expired:
            break
        try:
            vectors = _pencil(z, rng)
            found.append((_fit(z, vectors)[1], vectors))
        except np.linalg.LinAlgError:
            continue
        if found[-1][0] < _GOOD:
            break
    if not found:
        raise np.linalg.LinAlgError("every pencil of the kernel is singular")
    found.sort(key=lambda pair: pair[0])
    best, sweeps = found[0], 0
    if best[0] >= _GOOD:
        for _, vectors in found[:2]:
            improved, made = _alternate(z, vectors, budget)
            sweeps += made
            residual = _fit(z, improved)[1]
            if residual < best[0]:
                best = (residual, improved)
    weights, residual, inverse = _fit(z, best[1])
    scaled = np.einsum("ia,kaq->kiq", inverse, p)
    cotangents = np.einsum("ki,kiq->iq", weights, scaled)
    cotangents /= np.sum(weights**2, axis=0)[:, None] + 1e-300
    return Terms(best[1], cotangents, residual, sweeps)


def _pencil(z: FloatArray, rng: np.random.Generator) -> FloatArray:
    first, second = np.tensordot(rng.normal(size=(2, len(z))), z, axes=1)
    values, vectors = np.linalg.eig(np.linalg.solve(second.T, first.T).T)
    # A complex pair stands for two real directions that noise has merged.
    columns = np.where(values.imag < 0.0, vectors.imag, vectors.real)
    length = np.linalg.norm(columns, axis=0)
    if not length.all():
        raise np.linalg.LinAlgError("a pencil without enough directions")
    result: FloatArray = columns / length
    return result


def _fit(z: FloatArray, vectors: FloatArray) -> tuple[FloatArray, float, FloatArray]:
    """Weights t (k, r) of the terms, the relative residual, and the inverse of E."""
    inverse = np.asarray(np.linalg.inv(vectors), dtype=np.float64)
    weights: FloatArray = np.sum((inverse @ z) * inverse, axis=2)
    rest = z - (vectors * weights[:, None, :]) @ vectors.T
    return weights, float(np.linalg.norm(rest) / np.linalg.norm(z)), inverse


def _alternate(z: FloatArray, vectors: FloatArray, budget: Budget) -> tuple[FloatArray, int]:
    """Vectors after alternating least squares, and the number of sweeps."""
    made = -1  # The first call comes before the first sweep.

    def between(*_: object) -> bool:
        nonlocal made
        made += 1
        budget.tell("alternating least squares", max(0, made) / _SWEEPS)
        return budget.expired

    weights = _fit(z, vectors)[0]
    start = CPTensor((np.ones(len(vectors)), [weights, vectors, vectors]))
    _, (_, left, right) = parafac(
        z,
        vectors.shape[1],
        init=start,
        n_iter_max=_SWEEPS,
        tol=1e-10,
        l2_reg=1e-12,
        callback=between,
    )
    left = left / (np.linalg.norm(left, axis=0) + 1e-300)
    right = right / (np.linalg.norm(right, axis=0) + 1e-300)
    both = left + right * np.where(np.sum(left * right, axis=0) < 0.0, -1.0, 1.0)
    result: FloatArray = both / (np.linalg.norm(both, axis=0) + 1e-300)
    return result, max(made, 0)
