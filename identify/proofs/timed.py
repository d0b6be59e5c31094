"""Matrix work in pieces, each of which looks at the clock before it begins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import flint
import numpy as np
import scipy.linalg

from identify.arrays import FloatArray

Tick = Callable[[float], None]
"""Raises if the time is up, or will be after so many further seconds."""
_ROWS = 128
_WORK = 20_000_000
_SMALL_FLOPS = 3e8
_CLEAR = 1e5


def untimed(_seconds: float) -> None:
    """There is time."""


def product(left: flint.arb_mat, right: flint.arb_mat, tick: Tick = untimed) -> flint.arb_mat:
    """left right over balls, at most 128 rows at a time.

    Example:
        >>> import flint
        >>> square = flint.arb_mat([[1, 2], [0, 1]])
        >>> product(square, square)[0, 1] == 4
        True
    """
    tick(0.0)
    # About a second on a slow machine; a rule of the sizes alone, for the radii depend on it.
    height = min(_ROWS, max(16, _WORK // right.nrows() ** 2))
    if left.nrows() <= height or right.ncols() < 2:
        return left * right
    lines, seconds = left.tolist(), 0.0
    result: list[list[flint.arb]] = []
    for begin in range(0, len(lines), height):
        tick(seconds)
        begun = time.monotonic()
        result += (flint.arb_mat(lines[begin : begin + height]) * right).tolist()
        seconds = time.monotonic() - begun
    return flint.arb_mat(result)


def inverse(matrix: flint.arb_mat, tick: Tick = untimed) -> flint.arb_mat:
    """The inverse in balls; it begins only if a corner of the matrix shows that there is time.

    Raises:
        ZeroDivisionError: the balls hold a singular matrix.
    """
    tick(0.0)
    size = matrix.nrows()
    if size > _ROWS:
        corner = flint.arb_mat([line[:_ROWS] for line in matrix.tolist()[:_ROWS]])
        begun = time.monotonic()
        with contextlib.suppress(ZeroDivisionError):
            corner.inv()
        tick((time.monotonic() - begun) * (size / _ROWS) ** 3)
    return matrix.inv()


def triangle(matrix: FloatArray, tick: Tick = untimed) -> FloatArray:
    """R of matrix = Q R up to signs of its rows; of large matrices from blocks of rows.

    The Cholesky factor of the sum of their squares serves if its condition leaves ten digits.
    Cost: m n^2 flops for m rows and n columns, in products; up to 3 m n^2 if that fails.
    Source: Demmel, Grigori, Hoemmen & Langou 2012 (TSQR).

    Example:
        >>> import numpy as np
        >>> bool(np.allclose(abs(triangle(np.array([[3.0], [4.0]]))), 5.0))
        True
    """
    rows, columns = matrix.shape
    height = max(rows, 1)
    if rows * columns**2 > _SMALL_FLOPS:
        found = _by_squares(matrix, tick)
        if found is not None:
            return found
        height = 2 * columns
    found = np.zeros((0, columns))
    for begin in range(0, rows, height):
        tick(0.0)
        block = np.vstack([found, matrix[begin : begin + height]])
        upper = scipy.linalg.qr(block, mode="r", check_finite=False)[0]
        found = np.asarray(upper[:columns], dtype=np.float64)
    return found


def _by_squares(matrix: FloatArray, tick: Tick) -> FloatArray | None:
    """R from matrix^T matrix, or None where squaring costs too many digits."""
    size: FloatArray = np.linalg.norm(matrix, axis=0)
    if not np.all(size > 0.0):
        return None
    square = np.zeros((len(size), len(size)))
    for begin in range(0, len(matrix), _ROWS):
        tick(0.0)
        block = matrix[begin : begin + _ROWS] / size
        square += block.T @ block
    tick(0.0)
    try:
        upper = np.asarray(scipy.linalg.cholesky(square), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    turned = scipy.linalg.solve_triangular(upper, np.eye(len(size)), check_finite=False)
    if not np.linalg.norm(upper) * np.linalg.norm(turned) < _CLEAR:
        return None
    return upper * size


def independent_rows(matrix: FloatArray, count: int, tick: Tick = untimed) -> list[int]:
    """`count` rows that are as independent as pivoting finds.

    Small matrices by pivoted QR of the transpose, best first. Large ones hold a tournament by
    partial pivoting, several times faster: the best of each block meet those of the next.
    Source: Grigori, Demmel & Xiang 2011 (CALU).

    Example:
        >>> import numpy as np
        >>> independent_rows(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 5.0]]), 2)
        [2, 0]
    """
    rows, columns = matrix.shape
    if rows * columns**2 < _SMALL_FLOPS:
        tick(0.0)
        order = scipy.linalg.qr(matrix.T, mode="r", pivoting=True)[1]
        return [int(index) for index in order[:count]]
    best: list[int] = []
    for begin in range(0, rows, columns):
        tick(0.0)
        entrants = np.array([*best, *range(begin, min(begin + columns, rows))])
        places = scipy.linalg.lu(matrix[entrants], p_indices=True)[0]
        best = [int(index) for index in entrants[np.argsort(places)[:count]]]
    return best
