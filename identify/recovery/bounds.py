"""First-order error bounds of the recovered samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations, TangentSolver, column_scale
from identify.hermite.reduction import ReducedData
from identify.recovery.samples import Samples

_DENSE_UNKNOWNS = 600


_ROUNDOFF = 2.0**-53


@dataclass(frozen=True, eq=False)
class ErrorBounds:
    """Relative bounds: `samples` (n,) for x_i, `terms` (n,) for z_i; NaN where there is none.

    `data_error` is the error of the data that they allow for, relative to the norm of the data.
    """

    samples: FloatArray
    terms: FloatArray
    smallest_singular_value: float
    method: str
    data_error: float = 0.0


def bound_errors(
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    found: Samples,
    residual: float,
    noise: float | None,
    data_level: float,
) -> ErrorBounds:
    """First-order error bounds of the recovered samples.

    |dz_i| <= |J_i^+|_2 e over all directions the data error of norm e can take. The residual
    shows only the part of e outside the range of J, k = equations - unknowns dimensions of it:
    e = |g| residual sqrt(equations/q), q the 1e-4 quantile of chi-squared with k degrees of
    freedom (about k for large k), but no more than four data levels where k is small, and no
    less than one. With
    stated Gaussian noise of relative size `noise` the 4-sigma bound
    sigma (|J_i^+|_F + 4 |J_i^+|_2). The part of x_i outside the computed V adds |M_i^+| times
    twice the off-span norm of the rows. At large size |J_i^+| is bounded through the smallest
    singular value of the column-scaled J.

    Args:
        residual: relative Hermite residual of the refined terms.
        noise: relative size of stated Gaussian noise, or None.
        data_level: largest of consistency, rounding, linear residual and stated noise: the data
            error is not believed to be below it, whatever the residual says.

    Cost: O((n r)^3) up to 600 unknowns, a Lanczos run of Jacobian products beyond.
    """
    count, r = terms.shape
    equations, unknowns = reduced.equations, terms.size
    nothing = np.full(count, np.nan)
    if r == 1:
        # A line has no direction to get wrong within itself: only V may be off.
        outside = _off_span_errors(reduced, terms, data_level)
        relative = outside * found.stretch / np.linalg.norm(found.samples, axis=1)
        level = np.full(count, max(data_level, _ROUNDOFF))
        return ErrorBounds(
            np.maximum(relative, 8.0 * _ROUNDOFF),
            level,
            1.0,
            "distance of the rows to V",
            max(data_level, _ROUNDOFF),
        )
    if equations <= unknowns:
        return ErrorBounds(nothing, nothing, 0.0, "none: as many unknowns as equations")
    system = HermiteEquations(reduced, signs)
    scale = column_scale(system, terms)
    spare = equations - unknowns
    plain = residual * float(np.sqrt(equations / spare))
    careful = residual * float(np.sqrt(equations / _chi_squared_quantile(spare)))
    capped = min(careful, max(plain, 4.0 * data_level))
    relative_error = max(capped, data_level, _ROUNDOFF)
    error = relative_error * reduced.size
    sizes = np.linalg.norm(terms, axis=1)
    norms = np.linalg.norm(found.samples, axis=1)
    if not np.all(sizes > 0) or not np.all(norms > 0):
        return ErrorBounds(nothing, nothing, 0.0, "none: a term vanished")
    if unknowns <= _DENSE_UNKNOWNS:
        if equations * unknowns <= 4_000_000:
            triangle = np.linalg.qr(system.jacobian(terms) / scale, mode="r")
            sigma = scipy.linalg.svdvals(triangle, check_finite=False)
            smallest = float(sigma[-1])
            if smallest <= 1e-13 * float(sigma[0]):
                return ErrorBounds(nothing, nothing, smallest, "none: singular Jacobian")
            half = scipy.linalg.solve_triangular(triangle, np.eye(unknowns), check_finite=False)
        else:
            normal = system.normal_matrix(terms) / np.outer(scale, scale)
            values, vectors = scipy.linalg.eigh(normal, check_finite=False)
            if values[0] <= 1e-12 * values[-1]:
                return ErrorBounds(nothing, nothing, 0.0, "none: singular Jacobian")
            smallest = float(np.sqrt(values[0]))
            half = vectors / np.sqrt(values)
        half = (half / scale[:, None]).reshape(count, r, unknowns)
        whole = np.array([_norms(block) for block in half])
        mapped = np.array([_norms(found.derivatives[i] @ half[i]) for i in range(count)])
        method = "dense Jacobian"
    else:
        solver = TangentSolver(system, terms)
        # Inverse iteration approaches the smallest value from above, to a few per cent here.
        smallest = 0.8 * solver.smallest_singular_value()
        if smallest <= 1e-6 * float(np.abs(system.data.weights).max()):
            return ErrorBounds(nothing, nothing, 0.0, "none: singular Jacobian")
        each = 1.0 / (smallest * np.abs(solver.scale.reshape(count, r)[:, 0]))
        slopes = np.array([np.linalg.norm(block, 2) for block in found.derivatives])
        root = np.sqrt(r)
        whole = np.stack([each, each * root], axis=1)
        mapped = np.stack([each * slopes, each * slopes * root], axis=1)
        method = "smallest singular value of the scaled Jacobian"
    if noise is None:
        inside, all_of_it = mapped[:, 0] * error, whole[:, 0] * error
    else:
        sigma_noise = max(noise, plain, _ROUNDOFF) * reduced.size / np.sqrt(equations)
        inside = sigma_noise * (mapped[:, 1] + 4.0 * mapped[:, 0])
        all_of_it = sigma_noise * (whole[:, 1] + 4.0 * whole[:, 0])
    outside = _off_span_errors(reduced, terms, data_level)
    relative = np.hypot(inside, outside * found.stretch) / norms
    whole_terms = np.hypot(all_of_it, outside) / sizes
    # Second order: the linearised map holds while all terms, and not only this one, move little.
    worst = float(np.max(whole_terms))
    relative = relative * (1.0 + 2.0 * np.minimum(relative, 10.0) + 10.0 * min(worst, 10.0))
    relative = np.maximum(relative, 8.0 * _ROUNDOFF)
    return ErrorBounds(relative, whole_terms, smallest, method, relative_error)


def _chi_squared_quantile(freedom: int, level: float = 1e-4) -> float:
    return 2.0 * float(scipy.special.gammaincinv(0.5 * freedom, level))


def _norms(block: FloatArray) -> tuple[float, float]:
    return float(np.linalg.norm(block, 2)), float(np.linalg.norm(block))


def _off_span_errors(reduced: ReducedData, terms: FloatArray, data_level: float) -> FloatArray:
    """Bounds for the part of z_i outside the computed V, from the rows' part outside it.

    V is fitted to the same rows, so that the part that is seen can be small by luck where few
    rows are left over: the data level is its floor, four times where they are fewer than 30.
    """
    ambient, r = reduced.basis.shape
    if ambient == r:
        return np.zeros(len(terms))
    spare = (reduced.neurons + reduced.merged - r) * (ambient - r)
    share = 4.0 if spare < 30 else 1.0
    level = max(reduced.off_span_weighted, share * data_level * reduced.size)
    system = (reduced.points @ terms.T) ** (reduced.degree - 1) * reduced.weights[:, None]
    sizes = np.linalg.norm(system, axis=0)
    if np.any(sizes == 0.0) or system.shape[0] < system.shape[1]:
        return np.full(len(terms), np.nan)
    triangle = np.linalg.qr(system / sizes, mode="r")
    if np.linalg.cond(triangle) > 1e13:
        return np.full(len(terms), np.nan)
    inverse = scipy.linalg.solve_triangular(triangle, np.eye(len(terms)), check_finite=False)
    rows = np.linalg.norm(inverse, axis=1) / sizes
    return np.asarray(2.0 * rows * level)
