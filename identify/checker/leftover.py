"""Rows that no equation holds: the recovered terms have to explain them as well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .case import Case
from .outcome import FLOAT, TINY, FloatArray, IntArray, check_possible, require
from .source import lengths_of


@dataclass(frozen=True)
class Leftover:
    """`count` rows outside the equations, what the terms leave of them, and how much may be left.

    `residual` is relative to all rows, `values` the same for the gradient by the output weights.
    """

    count: int
    residual: float
    limit: float
    values: float


def left_out(case: Case) -> IntArray:
    """Neurons whose rows are in no equation: dead, too small, or without a part in V."""
    return np.setdiff1d(np.arange(len(case.data.points)), case.groups[0])


def leftover(case: Case) -> Leftover | None:
    """|rows - scale_j T(u_j^(alpha-1), .)| over the neurons left out; None if there are none."""
    return case.keep("leftover", lambda: _measure(case))


def limit_of(case: Case, count: int) -> float:
    """Noise spreads evenly over the entries of all rows, of which V holds r of D."""
    width, ambient = case.data.points.shape
    return 10.0 * case.noise * max(1.0, float(np.sqrt(count * ambient / (width * case.r))))


def _measure(case: Case) -> Leftover | None:
    left = left_out(case)
    if not len(left):
        return None
    data, power = case.data, case.degree - 1
    terms, signs = case.terms
    length, height, row = case.units
    full = terms @ case.basis.T
    # Logarithms: a power of the length of a small or a large neuron leaves float64.
    points = data.points[left]
    tops = np.abs(points).max(axis=1)
    seen = (tops > 0.0) & (data.scales[left] != 0.0)
    tops = np.where(tops > 0.0, tops, 1.0)
    norms = lengths_of_each(points / tops[:, None])
    inner = (points / (tops * norms)[:, None]) @ full.T
    sizes = np.log(norms) + np.log(tops) - np.log(length)
    heights = np.log(np.abs(np.where(seen, data.scales[left], 1.0))) - np.log(height)
    weights = np.where(seen, np.sign(data.scales[left]) * np.exp(heights + power * sizes), 0.0)
    unit = float(np.abs(data.rows).max())
    miss = data.rows[left] / unit - (
        weights[:, None] * ((inner**power * signs) @ full) * (row / unit)
    )
    whole = float(np.linalg.norm(lengths_of(data.rows)))
    count = len(left)
    residual = float(np.linalg.norm(miss)) / whole
    values = 0.0
    if data.values is not None and np.any(data.values):
        top = float(np.abs(data.values).max())
        factor = np.exp(case.degree * sizes + np.log(length) + np.log(row) - np.log(height))
        own = np.where(np.any(points != 0.0, axis=1), factor, 0.0) * (inner**case.degree @ signs)
        size = float(np.linalg.norm(data.values / top))
        values = float(np.linalg.norm(data.values[left] / top - own / top)) / size
    return Leftover(count, residual, limit_of(case, count), values)


def lengths_of_each(rows: FloatArray) -> FloatArray:
    """Norms of rows of moderate size; 1 for rows of zeros."""
    norms = np.linalg.norm(rows, axis=1)
    return np.asarray(np.where(norms > 0.0, norms, 1.0))


def check_leftover(case: Case) -> tuple[str, str]:
    """The terms explain the rows that are in no equation, to the noise."""
    found = leftover(case)
    if found is None:
        return FLOAT, "every neuron is in the equations"
    plural = "1 neuron" if found.count == 1 else f"{found.count} neurons"
    require(
        found.residual <= 1.01 * found.limit + TINY,
        f"the terms leave {found.residual:.2e} of the rows of {plural} outside the equations, "
        f"above {found.limit:.1e}",
    )
    check_possible(
        found.values <= max(0.03, 10.0 * found.limit),
        f"the terms leave {found.values:.2e} of the values of {plural} outside the equations",
    )
    return FLOAT, f"{plural} outside the equations, {found.residual:.1e} of the rows unexplained"
