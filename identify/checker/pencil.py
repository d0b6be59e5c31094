"""Whether the tensor of a shown set is a sum of r powers, which would make a set of r samples.

On V, T contracted alpha - 2 times with a direction v is Y D(v) Y^T if T = sum_j c_j y_j^alpha with
independent y_j: the eigenvalues of A = M(v) M(v')^-1 are real and its eigenvectors are the y_j.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .arithmetic.least_squares import smallest_share, spectral_norm
from .case import Case, Merged, predicted
from .linear import hard
from .outcome import FloatArray, NotCheckableError, check_possible, finite
from .reading.report import ShownSet

_PENCILS = 8


def decomposes(case: Case, shown: ShownSet) -> bool:
    """Whether r powers explain the data that the set explains; NotCheckableError if it is open.

    The directions are drawn in the whole space, by the hash of the files, so that neither the
    basis nor anything else in a report decides them. One pencil that gives r powers is enough for
    yes. For no the eigenvalues of one pencil have to be complex, or so far apart that its
    eigenvectors would have to explain the data, beyond what the noise can do (Bauer & Fike 1960).
    """
    units, weights = _terms(case, shown)
    matrix, _ = hard(case)
    check_possible(len(matrix) >= matrix.shape[1], "the tensor is not determined")
    case.in_time()
    largest = spectral_norm(matrix)
    smallest = largest / 1.1 * smallest_share(matrix) / 1.1
    check_possible(smallest > 0.0, "the tensor is not determined")
    heights = np.abs(weights) ** (1.0 / case.degree)
    own = case.merged.residual(heights[:, None] * units, np.sign(weights), case.degree)
    # How far the tensor of r samples that explain the data could be from that of the set.
    away = (own + 10.0 * case.noise) * case.merged.size / smallest
    away += 1e-14 * float(np.abs(weights).sum())
    reach = largest / case.merged.size
    seed = hashlib.sha256("".join(sorted(case.report.inputs.values())).encode()).digest()
    rng = np.random.default_rng(list(seed))
    excluded = False
    for _ in range(_PENCILS):
        case.in_time()
        directions = rng.standard_normal((2, len(case.basis))) @ case.basis
        directions /= np.linalg.norm(directions, axis=1)[:, None]
        outcome = _one_pencil(case, units, weights, directions, away, reach)
        if outcome is True:
            return True
        excluded |= outcome is False
    if not excluded:
        raise NotCheckableError(f"whether {case.r} samples explain the data too is open")
    return False


def _terms(case: Case, shown: ShownSet) -> tuple[FloatArray, FloatArray]:
    """Unit directions (n, r) and weights (n,) of the set on V, in the units of the proofs."""
    lifted = case.data.lift(shown.samples) @ case.basis
    norms = np.linalg.norm(finite(lifted), axis=1)
    seen = norms > 0.0
    lifted, norms, factors = lifted[seen], norms[seen], shown.coefficients[seen]
    length, height, row = case.units
    logs = np.log(np.abs(factors)) + case.degree * np.log(norms)
    logs -= np.log(row) - np.log(height) - (case.degree - 1) * np.log(length)
    weights = np.sign(factors) * np.exp(logs)
    return lifted / norms[:, None], finite(weights)


def _one_pencil(
    case: Case,
    units: FloatArray,
    weights: FloatArray,
    directions: FloatArray,
    away: float,
    reach: float,
) -> bool | None:
    """True if its eigenvectors explain the data, False if they would have to, None if open."""
    first, second = (
        (units.T * (weights * (units @ direction) ** (case.degree - 2))) @ units
        for direction in directions
    )
    try:
        least = float(np.linalg.svd(finite(second), compute_uv=False)[-1])
        quotient = finite(np.linalg.solve(second.T, first.T).T)
        values, vectors = np.linalg.eig(quotient)
        spread = float(np.linalg.cond(vectors))
    except np.linalg.LinAlgError:
        return None
    error = np.inf
    if least > 2.0 * away:
        error = away * (1.0 + float(np.linalg.norm(quotient, 2))) / (least - away)
    move = spread * error
    if float(np.abs(values.imag).max()) > 2.0 * move:
        return False
    gaps = np.abs(values[:, None] - values) + np.diag(np.full(len(values), np.inf))
    gap = float(gaps.min()) if len(values) > 1 else np.inf
    sizes = np.linalg.norm(vectors.real, axis=0)
    if not np.all(sizes > 0.0):
        return None
    axes = vectors.real / sizes
    misfit, total = _misfit(case.merged, axes.T, case.degree)
    accept = max(10.0 * case.noise, 1e-10)
    if misfit <= accept:
        return True
    if not gap > 8.0 * move:
        return None
    # Each axis is that of a true term up to move / gap.
    slack = 10.0 * case.degree * (2.0 * move / gap) * total * reach
    return False if misfit > 2.0 * (accept + slack) else None


def _misfit(merged: Merged, axes: FloatArray, degree: int) -> tuple[float, float]:
    """Relative residual of the best sum of powers of the axes, and the sum of its moduli."""
    columns = []
    for axis in axes:
        rows = predicted(merged.points, axis[None], np.ones(1), degree) * merged.weights[:, None]
        values = merged.value_weights * (merged.value_points @ axis) ** degree
        columns.append(np.concatenate([rows.ravel(), values]))
    matrix = finite(np.stack(columns, axis=1))
    aims = np.concatenate(
        [(merged.weights[:, None] * merged.targets).ravel(),
         merged.value_weights * merged.value_targets]
    )  # fmt: skip
    factors = np.linalg.lstsq(matrix, aims, rcond=None)[0]
    miss = float(np.linalg.norm(aims - matrix @ factors)) / merged.size
    return miss, float(np.abs(factors).sum())
