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
_SMALL_FLOPS = 1e9


def always(_seconds: float) -> None:
    """There is time."""


def product(left: flint.arb_mat, right: flint.arb_mat, in_time: InTime = always) -> flint.arb_mat:
    """left right over balls, 128 rows at a time."""
    in_time(0.0)
    if left.nrows() <= _ROWS or right.ncols() < 2:
        return left * right
    lines, result = left.tolist(), []
    for begin in range(0, len(lines), _ROWS):
        in_time(0.0)
        result += (flint.arb_mat(lines[begin : begin + _ROWS]) * right).tolist()
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


def triangle(matrix: FloatArray, in_time: InTime = always) -> FloatArray:
    """R of matrix = Q R up to signs of its rows, from blocks of rows.

    Example:
        >>> bool(np.allclose(abs(triangle(np.array([[3.0], [4.0]]))), 5.0))
        True
    """
    rows, columns = finite(matrix).shape
    height = 2 * columns if rows * columns**2 > _SMALL_FLOPS else max(rows, 1)
    found: FloatArray = np.zeros((0, columns))
    for begin in range(0, rows, height):
        in_time(0.0)
        block = np.vstack([found, matrix[begin : begin + height]])
        found = np.asarray(np.linalg.qr(block, mode="r"), dtype=np.float64)
    return found
