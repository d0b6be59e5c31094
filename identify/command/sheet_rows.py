"""What stands on a contact sheet: partners in two sets, length and sign, the grey scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from identify.arrays import FloatArray

_CLEAR = 0.25
"""Share of its largest entry from which an entry of a sample limits the sample's length."""


def cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosines (n, m) between the rows of two sets, 0 for a row of zeros."""
    units = []
    for rows in (first, second):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        units.append(rows / np.where(norms > 0.0, norms, 1.0))
    return np.asarray(units[0] @ units[1].T)


def partners(
    first: FloatArray, second: FloatArray, *, free_sign: bool, keep_order: bool = False
) -> tuple[npt.NDArray[np.intp], FloatArray, FloatArray]:
    """Order of the second set (m, d) that puts a row below every row of the first (n, d), n <= m.

    One-to-one, with the largest sum of cosines, of their moduli where the sign is free. Rows
    without a partner come last. The order (m,), the signs (m,) that turn rows towards their
    partners, and the cosines (n,) after turning.

    Example:
        >>> order, signs, alike = partners(np.eye(2), -np.eye(2)[::-1], free_sign=True)
        >>> order.tolist(), signs.tolist(), alike.tolist()
        ([1, 0], [-1.0, -1.0], [1.0, 1.0])
    """
    table = cosines(first, second)
    rows = columns = np.arange(len(first))
    if not keep_order:
        rows, columns = linear_sum_assignment(np.abs(table) if free_sign else table, maximize=True)
    order = [*columns, *np.setdiff1d(np.arange(len(second)), columns)]
    alike = table[rows, columns]
    signs = np.ones(len(second))
    if free_sign:
        signs[: len(alike)] = np.where(alike < 0.0, -1.0, 1.0)
        alike = np.abs(alike)
    return np.array(order, dtype=np.intp), signs, alike


def fit_to_pixels(
    samples: FloatArray, mean: FloatArray, limits: tuple[float, float], *, free_sign: bool
) -> FloatArray:
    """The samples (n, d) as long as they can be with mean + sample within the limits.

    Where the sign is free it is the one that allows more length. Entries below a quarter of the
    largest one are not asked, as noise there would shorten the sample. A sample that cannot be
    drawn within the limits at all stays as it is.

    Example:
        >>> mean = np.array([0.5, 0.25])
        >>> fit_to_pixels(np.array([[-10.0, 5.0]]), mean, (0.0, 1.0), free_sign=False)
        array([[-0.5 ,  0.25]])
    """
    low, high = limits
    found = samples.copy()
    for k, row in enumerate(samples):
        asked = np.abs(row) >= _CLEAR * np.abs(row).max(initial=0.0)
        asked &= row != 0.0
        if not asked.any():
            continue
        best = 0.0
        for sign in (1.0, -1.0) if free_sign else (1.0,):
            room = np.where(sign * row > 0.0, high - mean, mean - low)[asked]
            length = float((room / np.abs(row[asked])).min())
            if length > abs(best):
                best = sign * length
        if best != 0.0:
            found[k] = best * row
    return found


def common_limits(rows: Sequence[FloatArray]) -> tuple[float, float] | None:
    """The smallest and the largest value of all images, None if they are equal.

    Example:
        >>> common_limits([np.array([[0.0, 1.0]]), np.array([[-2.0, 0.5]])])
        (-2.0, 1.0)
    """
    low = min((float(part.min()) for part in rows if part.size), default=0.0)
    high = max((float(part.max()) for part in rows if part.size), default=0.0)
    return (low, high) if low < high else None
