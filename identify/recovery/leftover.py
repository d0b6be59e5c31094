"""Rows that the equations leave out, and what the recovered terms leave of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData


@dataclass(frozen=True)
class Leftover:
    """Rows that the equations leave out: how many, and what the recovered terms leave of them."""

    neurons: int
    residual: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the recovered terms explain these rows to the noise."""
        return self.residual <= self.limit


def leftover(
    data: HermiteData,
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    noise_level: float,
) -> Leftover | None:
    """What the terms leave of the rows outside the equations; None where there are none.

    sum_left |row_j - scale_j sum_i s_i (u_j . Q z_i)^(alpha-1) Q z_i|^2 over sum_all |row_j|^2, its
    root. Rows count in the whole space; those of dead neurons and of neurons orthogonal to V must
    vanish. Cost: O(k D n).
    """
    left = ~reduced.represented
    count = int(np.count_nonzero(left))
    if count == 0:
        return None
    norms = np.linalg.norm(data.points, axis=1)
    length, height = float(norms.max()), float(np.abs(data.scales).max())
    unit = float(np.abs(data.rows).max()) or 1.0
    # The terms are in units of the reduced data: T = tensor_scale * sum of their powers.
    share = reduced.tensor_scale * (height * length ** (data.degree - 1) / unit)
    inner = ((data.points[left] / length) @ reduced.basis) @ terms.T
    heads = (data.scales[left] / height)[:, None] * signs * inner ** (data.degree - 1)
    missing = data.rows[left] / unit - share * (heads @ terms) @ reduced.basis.T
    # Noise spreads evenly over the entries of all rows, of which V holds r of D.
    spread = np.sqrt(count * data.rows.shape[1] / (len(data.rows) * reduced.dimension))
    residual = float(np.linalg.norm(missing) / np.linalg.norm(data.rows / unit))
    return Leftover(count, residual, float(10.0 * noise_level * max(1.0, spread)))
