"""First-order error bounds of the recovered samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations, TangentSolver, column_scale
from identify.hermite.reduction import ReducedData
from identify.recovery.data_error import DataError
from identify.recovery.samples import Samples

_DENSE_UNKNOWNS = 600


_ROUNDOFF = 2.0**-53


_MANY = 30
"""Equations beyond the unknowns from which on what they leave shows the size of the error."""


@dataclass(frozen=True, eq=False)
class ErrorBounds:
    """Bounds of the recovered samples and terms; NaN where there is none.

    `absolute` (n,) of |dx_i| in the printed scale, `samples` (n,) the same over |x_i|, `judged`
    (n,) the same over |(x_i, 1)| with a hidden bias and |x_i| without, `terms` (n,) of |dz_i| over
    |z_i|. `data_error` is the error of the data that they allow for, over the norm of the data;
    `outputs` (n,) that of f(x_i) by the network's own weights, over |f(x_i)|.
    """

    absolute: FloatArray
    samples: FloatArray
    judged: FloatArray
    terms: FloatArray
    smallest_singular_value: float
    method: str
    data_error: float = 0.0
    outputs: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class _Movements:
    """Spectral and Frobenius norms of J_i^+ (`whole`) and of dx_i/dz_i J_i^+ (`mapped`), (n, 2)."""

    whole: FloatArray
    mapped: FloatArray
    smallest: float
    method: str


def bound_errors(
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    found: Samples,
    residual: float,
    noise: float | None,
    data_level: float,
    model: DataError,
) -> ErrorBounds:
    """First-order error bounds of the recovered samples.

    |dz_i| <= |J_i^+|_2 e over all directions the data error of norm e can take. The residual
    shows only the part of e outside the range of J, k = equations - unknowns dimensions of it:
    e = |g| residual sqrt(equations/q), q the 1e-4 quantile of chi-squared with k degrees of
    freedom (about k for large k), but no more than four data levels where k is small, and no less
    than one data level. What the roundings behind the data allow counts as well, up to the same
    quantile for the equations that carry them. With
    stated Gaussian noise of relative size `noise` the 4-sigma bound
    sigma (|J_i^+|_F + 4 |J_i^+|_2). The part of x_i outside the computed V adds |M_i^+| times
    twice the off-span norm of the rows. At large size |J_i^+| is bounded through the smallest
    singular value of the column-scaled J. Where the length of a sample depends on its direction
    its own derivative is part of dx_i/dz_i, and the error of f(x_i) joins. A lone sample that
    nobody says is one may be one of two that look like it: `model.pair` joins.

    Args:
        residual: relative Hermite residual of the refined terms.
        noise: relative size of stated Gaussian noise, or None.
        data_level: largest of consistency, rounding, linear residual and stated noise: the data
            error is not believed to be below it, whatever the residual says.
        model: what the roundings behind the data allow.

    Cost: O((n r)^3) up to 600 unknowns, a Lanczos run of Jacobian products beyond.
    """
    count, r = terms.shape
    if r > 1 and reduced.equations <= terms.size:
        return no_bounds(count, "none: as many unknowns as equations")
    sizes = np.linalg.norm(terms, axis=1)
    if not np.all(sizes > 0) or not found.finite:
        return no_bounds(count, "none: a term vanished")
    outside = _off_span_errors(reduced, terms, data_level, model)
    tilt = 0.0 if model.tilts is None else 0.5 * float(np.linalg.norm(model.tilts * outside))
    share, plain = _data_error(reduced, terms.size, residual, data_level, model, tilt)
    outside = outside + model.pair * sizes
    if r == 1:
        # A line has no direction to get wrong within itself: only V may be off.
        moves = _Movements(np.zeros((1, 2)), np.zeros((1, 2)), 1.0, "distance of the rows to V")
        inside, total = np.zeros(1), share * sizes
    else:
        moves = _movements(reduced, terms, signs, found)
        if not moves.smallest > 0.0:
            return no_bounds(count, "none: singular Jacobian")
        inside, total = (
            _propagated(part, reduced, noise, share, plain) for part in (moves.mapped, moves.whole)
        )
    whole_terms = np.hypot(total, outside) / sizes if r > 1 else total / sizes
    lengths = _lengths(found, reduced)
    relative = _joined(inside, outside * found.stretch, found) / lengths
    if r > 1:
        # Second order: the linearised map holds while all terms, and not only this one, move
        # little.
        worst = float(np.max(whole_terms))
        relative = relative * (1.0 + 2.0 * np.minimum(relative, 10.0) + 10.0 * min(worst, 10.0))
    relative = np.maximum(relative, 8.0 * _ROUNDOFF) + model.sample
    relative, method = _with_lengths(relative, found, model, reduced.degree, moves.method)
    absolute = relative * lengths
    norms = found.sizes
    samples = np.where(norms > 0.0, absolute / np.where(norms > 0.0, norms, 1.0), np.nan)
    return ErrorBounds(
        absolute, samples, relative, whole_terms, moves.smallest, method, share, model.outputs
    )


def no_bounds(count: int, method: str) -> ErrorBounds:
    """Bounds of `count` samples where there is none; `method` says why, as "none: ..."."""
    empty = np.full(count, np.nan)
    return ErrorBounds(empty, empty, empty, empty, 0.0, method)


def _data_error(
    reduced: ReducedData,
    unknowns: int,
    residual: float,
    data_level: float,
    model: DataError,
    tilt: float,
) -> tuple[float, float]:
    """The relative error of the data that bounds allow for, and what the residual shows of it.

    `tilt` is what a computed V off the true one adds; it spreads over all equations.
    """
    equations = reduced.equations
    spare = equations - unknowns
    plain = careful = 0.0
    if spare > 0:
        plain = residual * float(np.sqrt(equations / spare))
        careful = residual * float(np.sqrt(equations / _chi_squared_quantile(spare)))
    # Few equations, or few heavy ones, can all fall where the terms absorb the error: the
    # roundings then decide.
    rounded, carrying = model.inside, min(float(equations), model.rows * reduced.dimension)
    if carrying - unknowns >= 1.0:
        quantile = _chi_squared_quantile(carrying - unknowns)
        rounded = min(rounded, residual * float(np.sqrt(carrying / quantile)))
    capped = min(careful, max(plain, 4.0 * data_level)) if spare > 0 else 0.0
    tilted = min(tilt, careful) if spare > 0 else tilt
    return max(capped, rounded, tilted, data_level, _ROUNDOFF), plain


def _propagated(
    norms: FloatArray, reduced: ReducedData, noise: float | None, share: float, plain: float
) -> FloatArray:
    """What an error of the data becomes under maps of the given norms (n, 2)."""
    if noise is None:
        return np.asarray(norms[:, 0] * share * reduced.size)
    sigma = max(noise, plain, _ROUNDOFF) * reduced.size / np.sqrt(reduced.equations)
    return np.asarray(sigma * (norms[:, 1] + 4.0 * norms[:, 0]))


def _lengths(found: Samples, reduced: ReducedData) -> FloatArray:
    """What errors are judged by: |(x_i, 1)| with a hidden bias, |x_i| without; shape (n,)."""
    lifted = len(reduced.basis) > found.samples.shape[1]
    return np.hypot(found.sizes, 1.0) if lifted else found.sizes


def _joined(inside: FloatArray, outside: FloatArray, found: Samples) -> FloatArray:
    """Errors in V and outside it are orthogonal, but for what they do to the length."""
    return np.asarray(np.where(found.slants > 0.0, inside + outside, np.hypot(inside, outside)))


def _with_lengths(
    relative: FloatArray, found: Samples, model: DataError, degree: int, method: str
) -> tuple[FloatArray, str]:
    """Bounds of samples whose length is |f|^(-1/alpha), up to one common factor.

    With e = alpha `relative` + the network's own error of f, the length is known to
    (1 - e)^(-1/alpha), and to nothing where e reaches 1. The printed factor is that of the
    longest sample, whose error every sample shares.
    """
    if not np.any(found.slants):
        return relative, method
    total = degree * relative + model.outputs
    if not np.all(total < 1.0):
        words = "none: f is not separated from 0 at a recovered sample, which has no length then"
        return np.full(len(relative), np.nan), words
    growth = ((1.0 - total) ** (-1.0 / degree) - 1.0) * degree / total
    radial = growth * (np.minimum(found.slants, 1.0) * relative + model.outputs / degree)
    norms = found.sizes
    longest = norms * (1.0 + radial) >= float(np.max(norms * (1.0 - radial)))
    # Whoever compares may take the median factor instead of the longest.
    common = max(float(radial[longest].max()), float(np.sort(radial)[len(radial) // 2]))
    return growth * (relative + model.outputs / degree) + common, method


def _movements(
    reduced: ReducedData, terms: FloatArray, signs: FloatArray, found: Samples
) -> _Movements:
    """How far terms and samples move for each unit of the weighted data."""
    count, r = terms.shape
    system = HermiteEquations(reduced, signs)
    if terms.size <= _DENSE_UNKNOWNS:
        half, smallest = _inverse(system, terms)
        if half is None:
            return _Movements(np.zeros((0, 2)), np.zeros((0, 2)), 0.0, "")
        half = half.reshape(count, r, -1)
        whole = np.array([_norms(block) for block in half])
        mapped = np.array([_norms(found.derivatives[i] @ half[i]) for i in range(count)])
        return _Movements(whole, mapped, smallest, "dense Jacobian")
    solver = TangentSolver(system, terms)
    # Inverse iteration approaches the smallest value from above, to a few per cent here.
    smallest = 0.8 * solver.smallest_singular_value()
    if smallest <= 1e-6 * float(np.abs(system.data.weights).max()):
        return _Movements(np.zeros((0, 2)), np.zeros((0, 2)), 0.0, "")
    each = 1.0 / (smallest * np.abs(solver.scale.reshape(count, r)[:, 0]))
    slopes = np.array([np.linalg.norm(block, 2) for block in found.derivatives])
    root = np.sqrt(r)
    whole = np.stack([each, each * root], axis=1)
    mapped = np.stack([each * slopes, each * slopes * root], axis=1)
    return _Movements(whole, mapped, smallest, "smallest singular value of the scaled Jacobian")


def _inverse(system: HermiteEquations, terms: FloatArray) -> tuple[FloatArray | None, float]:
    """A factor of the pseudo-inverse of J, (n r, n r), and the smallest singular value scaled."""
    unknowns = terms.size
    scale = column_scale(system, terms)
    if system.data.equations * unknowns <= 4_000_000:
        triangle = np.linalg.qr(system.jacobian(terms) / scale, mode="r")
        sigma = scipy.linalg.svdvals(triangle, check_finite=False)
        if sigma[-1] <= 1e-13 * float(sigma[0]):
            return None, 0.0
        half = scipy.linalg.solve_triangular(triangle, np.eye(unknowns), check_finite=False)
        return np.asarray(half / scale[:, None]), float(sigma[-1])
    normal = system.normal_matrix(terms) / np.outer(scale, scale)
    values, vectors = scipy.linalg.eigh(normal, check_finite=False)
    if values[0] <= 1e-12 * values[-1]:
        return None, 0.0
    return np.asarray(vectors / np.sqrt(values) / scale[:, None]), float(np.sqrt(values[0]))


def _chi_squared_quantile(freedom: float, level: float = 1e-4) -> float:
    return 2.0 * float(scipy.special.gammaincinv(0.5 * freedom, level))


def _norms(block: FloatArray) -> tuple[float, float]:
    return float(np.linalg.norm(block, 2)), float(np.linalg.norm(block))


def _off_span_errors(
    reduced: ReducedData, terms: FloatArray, data_level: float, model: DataError
) -> FloatArray:
    """Bounds for the part of z_i outside the computed V, from the rows' part outside it.

    V is fitted to the same rows, so that the part that is seen can be small by luck where few
    rows are left over: the data level is its floor, four times where they are fewer than 30, and
    what the roundings behind the data allow where fewer than 30 carry those.
    """
    ambient, r = reduced.basis.shape
    if ambient == r:
        return np.zeros(len(terms))
    spare = (reduced.neurons + reduced.merged - r) * (ambient - r)
    shown = min(spare, (model.rows - r) * (ambient - r))
    floor = (4.0 if spare < _MANY else 1.0) * data_level
    if shown < _MANY:
        floor = max(floor, model.off_span)
    level = max(reduced.off_span_weighted, floor * reduced.size)
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
