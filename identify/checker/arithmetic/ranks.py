"""Ranks and singular values of Hermite matrices, proved: modulo a prime, and with all roundings.

H maps a symmetric tensor T of order alpha to (T(p_j^(alpha-1), .))_j. In Bombieri-Weyl
coordinates c_k, T(x^alpha) = sum_k c_k sqrt(multinomial(k)) x^k, so that row (j, a) of H has the
entry sqrt(multinomial(k)) (k_a / alpha) p_j^(k - e_a) in column k.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import comb, factorial, isqrt, prod

import flint
import numpy as np

from ..outcome import FloatArray, IntArray, NotCheckableError

UNIT = 2.0**-53
ENTRIES = 40_000_000
"""Numbers in a matrix above which nothing is formed."""
_BALL_COLUMNS = 150
_SAFE = 1.0 + 1e-6
# Underflow of any product or sum of entries stays far below this.
_FLOOR = 1e-280


def dimension(order: int, variables: int) -> int:
    """Dimension of the symmetric tensors, C(variables + order - 1, order).

    Example:
        >>> dimension(3, 4)
        20
    """
    return comb(variables + order - 1, order)


def exponents(order: int, variables: int) -> IntArray:
    """Exponents of all monomials of that order, shape (N, variables)."""
    table = np.zeros((dimension(order, variables), variables), dtype=np.int64)
    for row, axes in enumerate(combinations_with_replacement(range(variables), order)):
        for axis in axes:
            table[row, axis] += 1
    return table


def slopes(order: int, variables: int) -> list[tuple[IntArray, IntArray, IntArray]]:
    """For each axis: monomials k with k_a > 0, the index of k - e_a one order lower, and k_a."""
    high = exponents(order, variables)
    place = {tuple(row): i for i, row in enumerate(exponents(order - 1, variables).tolist())}
    result = []
    for axis in range(variables):
        columns = np.flatnonzero(high[:, axis])
        lower = high[columns]
        factors = lower[:, axis].copy()
        lower[:, axis] -= 1
        targets = np.array([place[tuple(row)] for row in lower.tolist()], dtype=np.int64)
        result.append((columns, targets, factors))
    return result


def roots(order: int, variables: int) -> list[int]:
    """Multinomial coefficients alpha! / prod(k_a!) in exact integers."""
    top = factorial(order)
    return [top // prod(map(factorial, row)) for row in exponents(order, variables).tolist()]


def root_weights(order: int, variables: int) -> FloatArray:
    """Square roots of the multinomial coefficients, rounded to float64."""
    found = roots(order, variables)
    if max(found) < 2**1000:
        return np.sqrt(np.array(found, dtype=np.float64))
    if max(found) > 2**2000:
        raise NotCheckableError("the weights of the monomials leave the range of float64")
    # Integers of more than 1000 bits lose nothing by whole roots.
    return np.array([float(isqrt(v << 128)) * 2.0**-64 for v in found])


def monomials(points: FloatArray, order: int) -> FloatArray:
    """Plain monomials p^k, shape (q, N), by at most `order` - 1 inexact products each."""
    powers = np.ones((order + 1, *points.shape))
    for power in range(1, order + 1):
        powers[power] = powers[power - 1] * points
    table = exponents(order, points.shape[1])
    result = np.ones((len(points), len(table)))
    for axis in range(points.shape[1]):
        result *= powers[table[:, axis], :, axis].T
    return result


def hermite(points: FloatArray, degree: int) -> FloatArray:
    """H of points (q, r), shape (q r, N), relative error of an entry below (degree + 6) units.

    Example:
        >>> hermite(np.eye(2), 3).shape
        (4, 4)
    """
    count, r = points.shape
    scale = root_weights(degree, r)
    low = monomials(points, degree - 1)
    matrix = np.zeros((count, r, len(scale)))
    for axis, (columns, targets, factors) in enumerate(slopes(degree, r)):
        matrix[:, axis, columns] = low[:, targets] * (scale[columns] * factors / degree)
    return matrix.reshape(count * r, -1)


def require_size(count: int, r: int, degree: int) -> None:
    """Raise NotCheckableError before a matrix is formed that would be too large."""
    size = count * r * dimension(degree, r)
    if size > ENTRIES:
        raise NotCheckableError(f"a matrix of {size} numbers is more than the checker forms")


def modular_rank(points: IntArray, degree: int, prime: int) -> int:
    """Rank of H of integer points modulo a prime below 2^63; columns and rows unscaled.

    Row (j, a) has k_a p_j^(k - e_a) in column k: H up to non-zero factors of rows and columns.
    """
    count, r = points.shape
    low_table = exponents(degree - 1, r).tolist()
    steps = [[part.tolist() for part in axis_slopes] for axis_slopes in slopes(degree, r)]
    matrix = flint.nmod_mat(count * r, dimension(degree, r), prime)
    for j, point in enumerate(points.tolist()):
        powers = [[pow(entry, power, prime) for power in range(degree)] for entry in point]
        low = []
        for row in low_table:
            value = 1
            for axis, power in enumerate(row):
                if power:
                    value = value * powers[axis][power] % prime
            low.append(value)
        for axis, (columns, targets, factors) in enumerate(steps):
            line = j * r + axis
            for column, target, factor in zip(columns, targets, factors, strict=True):
                matrix[line, column] = factor * low[target] % prime
    return int(matrix.rank())


def gamma(count: float) -> float:
    """Bound count u / (1 - count u) for `count` roundings, enlarged by a part in a million."""
    return _SAFE * count * UNIT / (1.0 - count * UNIT)


def smallest_above(points: FloatArray, degree: int, bound: float) -> tuple[bool | None, str]:
    """Whether sigma_min(H) >= bound > 0: True proved, False disproved, None neither.

    `points` are taken as exact. With any X, sigma_min(H) >= sigma_min(H X) / |X|_2. X is an
    approximate inverse of the R of a QR decomposition: then H X is nearly orthonormal, and
    |X|_2 <= c is shown by a Cholesky decomposition of c^2 - X^T X. Every rounding is bounded as
    in Higham 2002, theorems 3.5 and 10.3; underflow by an absolute term. Up to 150 columns ball
    arithmetic has the last word.
    """
    matrix = hermite(points, degree)
    rows, columns = matrix.shape
    if rows < columns or degree > 20:
        return None, "float64 with rounding bounds"
    try:
        if not np.isfinite(matrix).all():
            return None, "float64 with rounding bounds"
        inverse = np.linalg.inv(np.linalg.qr(matrix, mode="r"))
        if _above(matrix, inverse, degree, bound):
            return True, "float64 with rounding bounds"
        if _below(matrix, inverse, degree, bound):
            return False, "float64 with rounding bounds"
    except np.linalg.LinAlgError:
        pass
    if columns <= _BALL_COLUMNS and _above_in_balls(points, degree, bound):
        return True, "ball arithmetic"
    return None, "float64 with rounding bounds"


def _above(matrix: FloatArray, inverse: FloatArray, degree: int, bound: float) -> bool:
    rows, columns = matrix.shape
    if not np.isfinite(inverse).all():
        return False
    size = float(np.linalg.norm(matrix)) * _SAFE
    spread = float(np.linalg.norm(inverse)) * _SAFE
    product = matrix @ inverse
    error = gamma(columns + degree + 12) * size * spread + _FLOOR
    total = float(np.linalg.norm(product)) * _SAFE
    gram = product.T @ product
    gram[np.diag_indices(columns)] -= 1.0
    away = float(np.linalg.norm(gram)) * _SAFE + gamma(rows + 4) * (total**2 + columns) + _FLOOR
    if not away < 0.5:
        return False
    lowest = float(np.sqrt(1.0 - away * _SAFE)) * (1.0 - 1e-14) - error
    # |X|_2 <= limit is enough; rounded down, so that lowest / limit >= bound.
    limit = lowest / bound / (1.0 + 1e-14)
    if not (lowest > 0.0 and 0.0 < limit < 1e140):
        return False
    square = limit**2 * (1.0 - 1e-14)
    outer = -(inverse.T @ inverse)
    slack = gamma(columns + 4) * (spread**2 + square)
    slack += 2.0 * gamma(2 * columns + 10) * columns * square + _FLOOR
    outer[np.diag_indices(columns)] += square - slack * _SAFE
    if not np.isfinite(outer).all():
        return False
    try:
        np.linalg.cholesky(outer)
    except np.linalg.LinAlgError:
        return False
    return True


def _below(matrix: FloatArray, inverse: FloatArray, degree: int, bound: float) -> bool:
    """Whether some vector shows that the smallest singular value is below the bound."""
    columns = matrix.shape[1]
    vector = np.ones(columns)
    for _ in range(60):
        vector = inverse @ (inverse.T @ vector)
        vector /= np.linalg.norm(vector)
    if not np.isfinite(vector).all():
        return False
    size = float(np.linalg.norm(matrix)) * _SAFE
    length = float(np.linalg.norm(vector))
    upper = float(np.linalg.norm(matrix @ vector)) * _SAFE
    upper += gamma(columns + degree + 12) * size * length * _SAFE + _FLOOR
    return upper < bound * length / _SAFE


def _above_in_balls(points: FloatArray, degree: int, bound: float) -> bool:
    """Cholesky's test of H^T H - bound^2 in ball arithmetic."""
    r = points.shape[1]
    columns = dimension(degree, r)
    # Intervals widen by a few bits with every elimination step.
    with flint.ctx.workprec(128 + 4 * columns):
        scale = [flint.arb(value).sqrt() for value in roots(degree, r)]
        table = exponents(degree - 1, r).tolist()
        steps = slopes(degree, r)
        lines = []
        for point in points.tolist():
            exact = [flint.arb(entry) for entry in point]
            low = []
            for row in table:
                value = flint.arb(1)
                for axis, power in enumerate(row):
                    if power:
                        value = value * exact[axis] ** power
                low.append(value)
            for columns_of, targets, factors in steps:
                line = [flint.arb(0)] * columns
                for column, target, factor in zip(
                    columns_of.tolist(), targets.tolist(), factors.tolist(), strict=True
                ):
                    line[column] = low[target] * scale[column] * factor / degree
                lines.append(line)
        matrix = flint.arb_mat(lines)
        gram = (matrix.transpose() * matrix).tolist()
        square = flint.arb(bound) ** 2
        for i in range(columns):
            gram[i][i] = gram[i][i] - square
        return positive_definite(gram)


def positive_definite(rows: list[list[flint.arb]]) -> bool:
    """Whether every symmetric matrix in the balls is positive definite, by its pivots."""
    size = len(rows)
    rows = [list(row) for row in rows]
    for i in range(size):
        pivot = rows[i][i]
        if not pivot > 0:
            return False
        for j in range(i + 1, size):
            factor = rows[j][i] / pivot
            target = rows[j]
            for k in range(i + 1, j + 1):
                # Only the lower half is kept: entry (i, k) is entry (k, i).
                target[k] = target[k] - factor * rows[k][i]
    return True
