"""Matrix work in pieces, each of which asks for time before it begins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import flint
import numpy as np

from ..outcome import FloatArray, finite

InTime = Callable[[float], None]
"""Raises if the time is up, or will be after so many further seconds."""
_ROWS = 128
_WORK = 20_000_000
_SMALL_FLOPS = 3e8
_CLEAR = 1e5


def always(_seconds: float) -> None:
    """There is time."""


def product(left: flint.arb_mat, right: flint.arb_mat, in_time: InTime = always) -> flint.arb_mat:
    """left right over balls, at most 128 rows at a time."""
    in_time(0.0)
    # About a second on a slow machine; a rule of the sizes alone, for the radii depend on it.
    height = min(_ROWS, max(16, _WORK // right.nrows() ** 2))
    if left.nrows() <= height or right.ncols() < 2:
        return left * right
    lines, seconds = left.tolist(), 0.0
    result: list[list[flint.arb]] = []
    for begin in range(0, len(lines), height):
        in_time(seconds)
        begun = time.monotonic()
        result += (flint.arb_mat(lines[begin : begin + height]) * right).tolist()
        seconds = time.monotonic() - begun
    return flint.arb_mat(result)


def inverse(matrix: flint.arb_mat, in_time: InTime = always) -> flint.arb_mat:
    """The inverse; it begins only if a corner of the matrix shows that there is time."""
    in_time(0.0)
    size = matrix.nrows()
    if size > _ROWS:
        corner = flint.arb_mat([line[:_ROWS] for line in matrix.tolist()[:_ROWS]])
        begun = time.monotonic()
        with contextlib.suppress(ZeroDivisionError):
            corner.inv()
        in_time((time.monotonic() - begun) * (size / _ROWS) ** 3)
    return matrix.inv()


def triangle(matrix: FloatArray, in_time: InTime = always, *, squares: bool = False) -> FloatArray:
    """R of matrix = Q R up to signs of its rows, from blocks of rows.

    With `squares` the Cholesky factor of matrix^T matrix serves where that leaves ten digits.

    Example:
        >>> bool(np.allclose(abs(triangle(np.array([[3.0], [4.0]]))), 5.0))
        True
    """
    rows, columns = finite(matrix).shape
    height = 2 * columns if rows * columns**2 > _SMALL_FLOPS else max(rows, 1)
    if squares and rows * columns**2 > _SMALL_FLOPS:
        by_squares = _by_squares(matrix, in_time)
        if by_squares is not None:
            return by_squares
    found: FloatArray = np.zeros((0, columns))
    for begin in range(0, rows, height):
        in_time(0.0)
        block = np.vstack([found, matrix[begin : begin + height]])
        found = np.asarray(np.linalg.qr(block, mode="r"), dtype=np.float64)
    return found


def _by_squares(matrix: FloatArray, in_time: InTime) -> FloatArray | None:
    """R from matrix^T matrix, or None where squaring costs too many digits."""
    size: FloatArray = np.linalg.norm(matrix, axis=0)
    if not np.all(size > 0.0):
        return None
    square = np.zeros((len(size), len(size)))
    for begin in range(0, len(matrix), _ROWS):
        in_time(0.0)
        block = matrix[begin : begin + _ROWS] / size
        square += block.T @ block
    in_time(0.0)
    try:
        lower = np.linalg.cholesky(square)
        if np.linalg.norm(lower) * np.linalg.norm(np.linalg.inv(lower)) < _CLEAR:
            return np.asarray(lower.T * size, dtype=np.float64)
    except np.linalg.LinAlgError:
        pass
    return None
