"""A proved lower bound for the smallest singular value of the Hermite matrix.

Float64 throughout; every rounding error is bounded, and the bound itself is computed with a margin.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.errors import BudgetExceededError, InvalidInputError
from identify.tensors import hermite_matrix, symmetric_dimension

LARGEST = 2000
"""Largest N for which a bound is computed."""
_UNIT = 2.0**-53
_MARGIN = 1.0 + 2.0**-20
_LARGEST_DEGREE = 20
_MOST_NUMBERS = 2**27
_BLOCK_ROWS = 256
# Shifts tried, as parts of the estimated smallest eigenvalue of the Gram matrix.
_SHIFTS = (0.998, 0.99, 0.97, 0.9, 0.7, 0.4)
_STAGE = "bounding the smallest singular value"
_METHOD = "Cholesky factor of the shifted Gram matrix, all rounding errors bounded"


@dataclass(frozen=True)
class SingularValueBound:
    """What is proved about sigma_min(H); `bound` is 0.0 if nothing is.

    Args:
        bound: sigma_min(H) >= bound.
        estimate: sigma_min(H) in float64, proves nothing; 0.0 where it was not computed.
        error: bound for all rounding errors, in units of sigma^2; 0.0 where nothing was factored.
        neurons: number of points that H was formed from, the first ones of those given.
        radius: H has full rank for every set of points within this distance of these points.
        method: how the bound was found, or why there is none.
        seconds: wall-clock time.
    """

    bound: float
    estimate: float
    error: float
    neurons: int
    radius: float
    method: str
    seconds: float


@dataclass(frozen=True)
class _Attempt:
    """Result of the floating-point work on one matrix, squares of singular values."""

    square: float
    estimate: float
    error: float
    method: str


def bound_smallest_singular_value(
    points: npt.NDArray[np.int64],
    shift: int,
    degree: int,
    *,
    budget: Budget = UNLIMITED,
) -> SingularValueBound:
    """Prove sigma_min(H) >= bound for the Hermite matrix H of the points P_j / 2^shift.

    If the Cholesky factorisation of A = fl(G - s I), G = fl(H~^T H~), ends with finite numbers and
    a positive diagonal, then lambda_min(H^T H) >= s - e with e the sum of

        entries      (2 g + g^2) |||H~|||^2,  g = gamma_c/(1 - gamma_c),  c = 2 alpha + 4
        Gram matrix  gamma_n |||H~|||^2,      n = products in an entry within a block + blocks
        shift        u max_i |a_ii|
        Cholesky     gamma_(N+4) |||L^T|||^2
        underflow    2^-900 k r N (1 + |H~|_F^2)

    u = 2^-53, gamma_n = n u/(1 - n u), H~ the computed H, |||X||| = | |X| |_2, bounded by the least
    of |X|_F^2 and max_i (|X|^T |X| x)_i/x_i for some x > 0 (Collatz & Wielandt; x = 1 gives
    |X|_1 |X|_inf). An entry of H is (k_a/alpha) sqrt(alpha!/k!) p^(k - e_a): 1 + alpha/2 roundings
    in the multinomial, a root, two factors, alpha - 1 products of powers. An entry of G in a block
    of q points has at most q min(alpha, r) products that are not 0. L fulfils
    |L L^T - A| <= gamma_(N+1) |L| |L^T|; three more for a division by way of the reciprocal.
    Sums and products of non-negative numbers that make up e are relatively accurate to far below
    2^-20 and are enlarged by that; the last subtraction and root are rounded down.

    Assumed: IEEE 754 binary64, rounding to nearest, correctly rounded + - * / sqrt (fused or not,
    with or without gradual underflow); BLAS and LAPACK that form inner products in any order, but
    by no fast multiplication (Strassen), and substitute rather than multiply by inverted blocks.

    Args:
        points: P, shape (k, r), int64, entries up to 2^53, |P_j|_inf at most 2^(shift + 1).
        shift: unit points have |P_j| near 2^shift; 0 to 1000.
        degree: alpha, at least 2; nothing is proved above 20.
        budget: after which nothing more is started.

    Raises:
        InvalidInputError: no integer matrix, entries too large, shift or degree out of range.

    Cost: k r N^2 + 2 N^3 flops, k r N + 4 N^2 numbers; nothing is proved for N above `LARGEST`.

    Source: Rump, Verification of positive definiteness, BIT 46 (2006), with the computed factor in
    place of the trace; Higham, Accuracy and Stability of Numerical Algorithms, Theorem 10.3.

    Example:
        >>> import numpy as np
        >>> found = bound_smallest_singular_value(np.array([[4, 0], [0, 4], [3, 3]]), 2, 3)
        >>> 0.4 < found.bound < found.estimate, found.radius > 0.05
        (True, True)
    """
    start = time.monotonic()
    shift = int(shift)
    exact = _check(points, shift, degree)
    dimension = exact.shape[1]
    columns = symmetric_dimension(degree, dimension)
    reason = _refusal(exact.size, columns, degree)
    # Fewer points never have a larger sigma_min: a bound for the first ones is one for all.
    most = len(exact) if reason else _MOST_NUMBERS // (dimension * columns)
    used = np.ldexp(exact[:most].astype(np.float64), -shift)

    def result(attempt: _Attempt) -> SingularValueBound:
        bound = float(np.nextafter(np.sqrt(attempt.square), 0.0)) if attempt.square > 0.0 else 0.0
        radius = reach(np.linalg.norm(used, axis=1), degree, bound) if bound > 0.0 else 0.0
        return SingularValueBound(
            bound, attempt.estimate, attempt.error, len(used), radius, attempt.method,
            time.monotonic() - start,
        )  # fmt: skip

    if reason is None:
        needed = estimate_seconds(used.size, columns)
        if not budget.allows(needed):
            reason = f"time limit: about {needed:.1f} s needed"
    if reason is not None:
        return result(_Attempt(0.0, 0.0, 0.0, reason))
    try:
        return result(_attempt(used, degree, columns, budget))
    except BudgetExceededError:
        return result(_Attempt(0.0, 0.0, 0.0, "time limit reached"))


def estimate_seconds(rows: int, columns: int) -> float:
    """Time for a bound on one slow core, by count of operations; 0.0 where none is tried.

    Example:
        >>> estimate_seconds(1700, 1540) < 2.0
        True
    """
    if columns > LARGEST or rows < columns:
        return 0.0
    return 5e-3 + (8e-11 * rows + 1e-10 * columns) * columns**2


def reach(norms: FloatArray, degree: int, sigma: float) -> float:
    """Largest delta, rounded down, for which H keeps its full rank by a perturbation bound.

    delta fulfils (alpha-1) delta sqrt(sum_j (|p_j|+delta)^(2 alpha-4)) < sigma <= sigma_min(H).
    That is enough: T(p'^(alpha-1), .) - T(p^(alpha-1), .) telescopes into alpha - 1 terms
    T(p'^i, p'-p, p^k, .), i + k = alpha - 2, each at most |T|_op delta (|p|+delta)^(alpha-2), and
    |T|_op <= |T|_BW as T(a, b, ...) is the Bombieri-Weyl product of T with a tensor of norm at most
    |a| |b| ...

    Args:
        norms: |p_j|, shape (k,), relative error up to 1e-9.
        degree: alpha, at least 2.
        sigma: lower bound for sigma_min(H).

    Cost: 60 passes over the norms.

    Example:
        >>> import numpy as np
        >>> 0.09 < reach(np.ones(1), 2, 0.1) < 0.1
        True
    """
    if not (sigma > 0.0 and np.isfinite(sigma)) or norms.size == 0:
        return 0.0
    high = sigma / (degree - 1) / np.sqrt(norms.size)
    high = float(high ** (1.0 / (degree - 1)))
    steady = float(np.linalg.norm(norms ** (degree - 2)))
    if steady > 0.0:
        high = min(high, sigma / (degree - 1) / steady)
    low = 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        change = (degree - 1) * middle * np.linalg.norm((norms + middle) ** (degree - 2))
        if change < sigma:
            low = middle
        else:
            high = middle
    # The change grows at least in proportion to delta: the margin outweighs the rounding above.
    return low / _MARGIN


def _check(points: npt.NDArray[np.int64], shift: int, degree: int) -> npt.NDArray[np.int64]:
    array = np.asarray(points)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind != "i":
        got = f"shape {array.shape} of {array.dtype}"
        raise InvalidInputError("points", "a matrix (k, r) of signed integers", got)
    if not 0 <= shift <= 1000:
        raise InvalidInputError("shift", "0 to 1000", shift)
    if degree < 2:
        raise InvalidInputError("degree", "at least 2", degree)
    exact = array.astype(np.int64)
    limit = min(2**53, 2 ** (shift + 1))
    # Two-sided: the absolute value of -2^63 is negative in int64.
    if exact.size and (int(exact.max()) > limit or int(exact.min()) < -limit):
        worst = max(int(exact.max()), -int(exact.min()))
        raise InvalidInputError("points", f"entries up to {limit} at shift {shift}", worst)
    return exact


def _refusal(rows: int, columns: int, degree: int) -> str | None:
    if columns > LARGEST:
        return f"no bound above {LARGEST} unknowns: {columns} here"
    if degree > _LARGEST_DEGREE:
        return f"no bound above degree {_LARGEST_DEGREE}: {degree} here"
    if rows < columns:
        return f"fewer equations than unknowns: {rows} for {columns}"
    return None


def _attempt(points: FloatArray, degree: int, columns: int, budget: Budget) -> _Attempt:
    budget.step(_STAGE, 0.0)
    gram = np.zeros((columns, columns))
    blocks: list[FloatArray] = []
    for block in _blocks(points, degree):
        gram += block.T @ block
        blocks.append(np.abs(block, out=block))
        budget.step(_STAGE, 0.5 * len(blocks) * blocks[0].size / (points.size * columns))
    squared = _squared_norm_bound(blocks)
    del blocks
    lower = _factor(gram, 0.0)
    forming = _forming_error(points, degree, columns, squared)
    budget.step(_STAGE, 0.6)
    level = 0.0 if lower is None else _smallest_square(lower)
    error = forming
    if level > forming:
        for count, part in enumerate(_SHIFTS):
            budget.step(_STAGE, 0.6 + 0.05 * count)
            trial = part * level
            lower = _factor(gram, trial)
            if lower is None:
                continue
            error = _total_error(forming, gram, trial, lower)
            square = _difference(trial, error)
            if square > 0.0:
                return _Attempt(square, float(np.sqrt(level)), error, _METHOD)
            break
    budget.step(_STAGE, 0.9)
    estimate = _numerical_estimate(points, degree)
    reason = f"about {estimate:.1e}, too near to the rounding errors of {np.sqrt(error):.1e}"
    return _Attempt(0.0, estimate, error if np.isfinite(error) else 0.0, reason)


def _block_points(dimension: int) -> int:
    return max(1, _BLOCK_ROWS // dimension)


def _blocks(points: FloatArray, degree: int) -> Iterator[FloatArray]:
    """H by blocks of points."""
    step = _block_points(points.shape[1])
    for start in range(0, len(points), step):
        yield hermite_matrix(points[start : start + step], degree)


def _forming_error(points: FloatArray, degree: int, columns: int, squared: float) -> float:
    """Bound for |G - H^T H|_2; `squared` bounds |||H~|||^2."""
    count, dimension = points.shape
    step = min(count, _block_points(dimension))
    relative = _gamma(2 * degree + 4) / (1.0 - _gamma(2 * degree + 4))
    gram = _gamma(step * min(degree, dimension) + -(-count // step))
    entries = relative * (2.0 + relative)
    # |H~|_F^2 is at most N |H~|_2^2.
    underflow = 2.0**-900 * points.size * columns * (1.0 + squared * columns)
    return _MARGIN * ((entries + gram) * squared + underflow)


def _total_error(forming: float, gram: FloatArray, shift: float, lower: FloatArray) -> float:
    """Bound for lambda_min(H^T H) >= shift - error, given the factor of fl(G - shift I)."""
    diagonal = float(np.max(np.abs(np.diagonal(gram) - shift)))
    factor = _gamma(len(gram) + 4) * _squared_norm_bound([np.abs(lower.T)])
    return _MARGIN * (forming + _UNIT * diagonal + factor)


def _difference(shift: float, error: float) -> float:
    """shift - error rounded down; 0.0 where that is not positive or not a number."""
    if not np.isfinite(error) or not shift > error:
        return 0.0
    return max(0.0, float(np.nextafter(shift - error, 0.0)))


def _gamma(count: int) -> float:
    return count * _UNIT / (1.0 - count * _UNIT)


def _squared_norm_bound(blocks: list[FloatArray]) -> float:
    """Bound for |A|_2^2 of a non-negative matrix A, given by blocks of rows; rounded up."""
    best = float(sum(np.sum(block * block) for block in blocks))
    x = np.ones(blocks[0].shape[1])
    for _ in range(6):
        y = np.zeros_like(x)
        for block in blocks:
            y += (block @ x) @ block
        largest = float(np.max(y / x))
        if not (np.isfinite(largest) and largest > 0.0):
            break
        best = min(best, largest)
        # Entries far below the largest would only meet underflow.
        x = np.maximum(y / np.max(y), 2.0**-30)
    return best * _MARGIN


def _factor(gram: FloatArray, shift: float) -> FloatArray | None:
    """Lower Cholesky factor of fl(G - shift I), None where there is none."""
    shifted = gram.copy()
    shifted[np.diag_indices_from(shifted)] -= shift
    if not np.all(np.isfinite(shifted)):
        return None
    try:
        lower = scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return None
    # A library may let a pivot that is not a number pass.
    if not (np.all(np.isfinite(lower)) and np.all(np.diagonal(lower) > 0.0)):
        return None
    return np.asarray(lower, dtype=np.float64)


def _smallest_square(lower: FloatArray, rounds: int = 40) -> float:
    """Smallest singular value of L, squared, by inverse iteration on four vectors; not proved."""
    size = len(lower)
    grid = np.arange(1.0, size + 1.0)[:, None] ** 2
    start = np.sin(grid * np.sqrt([2.0, 3.0, 5.0, 7.0])[None, : min(4, size)])
    vectors = np.linalg.qr(start)[0]
    level = 0.0
    for _ in range(rounds):
        with np.errstate(all="ignore"):
            half = scipy.linalg.solve_triangular(lower, vectors, lower=True, check_finite=False)
            full = scipy.linalg.solve_triangular(
                lower, half, lower=True, trans="T", check_finite=False
            )
        if not (np.all(np.isfinite(half)) and np.all(np.isfinite(full))):
            return 0.0
        inverse = float(np.linalg.norm(half, 2))
        before, level = level, 1.0 / inverse / inverse
        if abs(before - level) <= 1e-4 * level:
            break
        vectors = np.linalg.qr(full / np.max(np.abs(full)))[0]
    return level


def _numerical_estimate(points: FloatArray, degree: int) -> float:
    """sigma_min(H) from a QR factorisation: accurate to rounding, where the Gram matrix is not."""
    triangle: FloatArray = np.asarray(np.linalg.qr(hermite_matrix(points, degree), mode="r"))
    lower = np.ascontiguousarray(triangle.T)
    if not np.all(np.abs(np.diagonal(lower)) > 0.0):
        return 0.0
    return float(np.sqrt(_smallest_square(lower)))
