"""From raw Hermite data to distinct unit points in the span of the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.numerical_rank import RankDecision, row_space
from identify.thresholds import PARALLEL

_BLOCK = 1024
_VANISHING = 1e-150
_LARGEST_LOGARITHM = 690.0


@dataclass(frozen=True, eq=False)
class ReducedData:
    """Hermite data on distinct unit points of V, in an orthonormal basis of V.

    `points` (k, r) unit; `targets` (k, r) = T(u^(alpha-1), .); `weights` (k,) in (0, 1], the
    reciprocal noise of a row; `value_points` (l, r), `value_targets` (l,) = p(u) and
    `value_weights` (l,) for rows without a vector; `basis` (D, r). The tensor of these units
    times `tensor_scale` is T. `off_span` is the part of the rows outside V, relative, and
    `off_span_weighted` its spectral norm in the units of weights * targets; `merge_residual` is
    what merging parallel neurons averaged away. `representatives` (k,) names one neuron of the
    data for each point, the heaviest of those that were merged; `represented` (m,) marks the
    neurons whose row is in the equations.
    """

    degree: int
    points: FloatArray
    targets: FloatArray
    weights: FloatArray
    value_points: FloatArray
    value_targets: FloatArray
    value_weights: FloatArray
    basis: FloatArray
    span: RankDecision
    tensor_scale: float
    off_span: float
    off_span_weighted: float
    merge_residual: float
    dropped: int
    merged: int
    representatives: npt.NDArray[np.intp]
    represented: npt.NDArray[np.bool_]

    @property
    def dimension(self) -> int:
        """r, the dimension of V."""
        return int(self.points.shape[1])

    @property
    def neurons(self) -> int:
        """Number of distinct neurons that give a vector."""
        return int(self.points.shape[0])

    @property
    def equations(self) -> int:
        """Number of scalar equations, k r + l."""
        return int(self.targets.size + self.value_targets.size)

    @property
    def size(self) -> float:
        """Norm of the weighted right-hand side."""
        rows = float(np.linalg.norm(self.weights[:, None] * self.targets))
        return float(np.hypot(rows, np.linalg.norm(self.value_weights * self.value_targets)))


def reduce_data(data: HermiteData, noise_level: float, *, seed: int = 0) -> ReducedData:
    """Drop dead neurons, project to V = span of the rows, merge parallel points.

    Neurons below 10 rho in both |scale_j| |u_j|^alpha and |row_j| are dropped; directions closer
    than max(10 rho, 1e-8), up to sign, count as one. V is the row space, of the numerical rank that
    counts singular values above max(10 rho, 1e-12) of the largest.

    Args:
        data: raw data of any source.
        noise_level: rho, relative, in [1e-13, 1).
        seed: of the random range finder.

    Cost: O(m D r + k^2 r).
    """
    alpha = data.degree
    # Units in which the largest point, row and scale are 1: |u|^alpha leaves float64 otherwise.
    norms = np.linalg.norm(data.points, axis=1)
    length, height = float(norms.max()), float(np.abs(data.scales).max())
    reach = (norms / length) ** alpha * np.abs(data.scales) / height
    # A small neuron may be the only one that sees a sample: its row, if it is clear, has a say.
    tall = _row_sizes(data.rows)
    live = reach > 10.0 * noise_level * float(reach.max())
    live |= (data.scales != 0.0) & (tall > 10.0 * noise_level * float(tall.max()))
    unit = float(np.abs(data.rows[live]).max(initial=0.0)) or 1.0
    rows = data.rows[live] / unit
    basis, span = row_space(rows, max(10.0 * noise_level, 1e-12), seed)
    inside = rows @ basis
    outside = rows - inside @ basis.T
    total = float(np.linalg.norm(rows)) or 1.0

    projected = (data.points[live] / length) @ basis
    lengths = np.linalg.norm(projected, axis=1)
    with np.errstate(under="ignore"):
        seen = np.abs(data.scales[live] / height) * lengths ** (alpha - 1)
    # At high degrees the power of a short neuron leaves float64: its row is left over.
    keep = (lengths > 1e-12 * norms[live] / length) & (seen > _VANISHING)
    projected, lengths, inside = projected[keep], lengths[keep], inside[keep]
    scales = data.scales[live][keep] / height
    weights = np.abs(scales) * lengths ** (alpha - 1)
    points, targets, merged, lost, leaders = _merge(
        projected / lengths[:, None],
        np.sign(scales)[:, None] * inside / weights[:, None],
        weights,
        alpha - 1,
        max(10.0 * noise_level, PARALLEL),
    )
    top = float(merged.max(initial=0.0)) or 1.0
    value_points, value_targets, value_weights = _value_rows(data, basis, length)
    return ReducedData(
        degree=alpha,
        points=points,
        targets=targets,
        weights=merged / top,
        value_points=value_points,
        value_targets=value_targets * height / (length * unit),
        value_weights=value_weights * length / (height * top),
        basis=basis,
        span=span,
        tensor_scale=unit / height / length ** (alpha - 1),
        off_span=float(np.linalg.norm(outside)) / total,
        off_span_weighted=_spectral_norm(outside, seed) / top,
        merge_residual=lost / total,
        dropped=int(np.count_nonzero(~live & (data.scales != 0.0))),
        merged=int(np.count_nonzero(keep)) - int(points.shape[0]),
        representatives=np.flatnonzero(live)[keep][leaders],
        represented=np.isin(np.arange(len(live)), np.flatnonzero(live)[keep]),
    )


def rank_one(data: HermiteData, tolerance: float) -> bool:
    """Whether two or more rows are all parallel: what is outside the largest, relative.

    The gradient of one sample is c_j x^T, whatever the activation: its rows are the sample. The
    cost is O(m D).
    """
    rows = data.rows / (float(np.abs(data.rows).max()) or 1.0)
    sizes = np.linalg.norm(rows, axis=1)
    if np.count_nonzero(sizes > tolerance * sizes.max()) < 2:
        return False
    head = rows[sizes.argmax()] / sizes.max()
    outside = rows - (rows @ head)[:, None] * head
    return bool(np.linalg.norm(outside) <= tolerance * np.linalg.norm(rows))


def in_range(data: HermiteData) -> bool:
    """Whether the unit of T, row / (scale |u|^(alpha-1)) at the largest of each, fits in float64.

    It does at every degree up to 64 for numbers between 1e-4 and 1e3. The cost is one pass.
    """
    length = float(np.linalg.norm(data.points, axis=1).max())
    tops = [float(np.abs(data.rows).max()), float(np.abs(data.scales).max()), length]
    if min(tops) <= 0.0:
        return True
    row, scale, point = np.log(tops)
    power = (data.degree - 1) * point
    return bool(max(abs(power), abs(row - scale), abs(row - scale - power)) < _LARGEST_LOGARITHM)


def distinct_directions(data: HermiteData, noise_level: float) -> int:
    """Number of live neurons with distinct directions in the input space, up to sign.

    In V, of fewer dimensions, more of them may coincide. Cost: O(m^2 D).
    """
    norms = np.linalg.norm(data.points, axis=1)
    reach = (norms / norms.max()) ** data.degree * np.abs(data.scales)
    live = reach > 10.0 * noise_level * float(reach.max())
    tall = _row_sizes(data.rows)
    live |= (data.scales != 0.0) & (tall > 10.0 * noise_level * float(tall.max())) & (norms > 0.0)
    points = data.points[live] / norms[live, None]
    groups, _ = parallel_groups(points, max(10.0 * noise_level, PARALLEL))
    return len(np.unique(groups))


def parallel_groups(unit: FloatArray, tolerance: float) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """For unit rows (n, D): the first row parallel to each up to sign, and that sign.

    Rows count as parallel at a distance of at most `tolerance`. Cost: n^2 D flops.

    Example:
        >>> parallel_groups(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), 1e-8)
        (array([0, 1, 0]), array([ 1.,  1., -1.]))
    """
    count = len(unit)
    groups, flips = np.arange(count), np.ones(count)
    near = 1.0 - max(tolerance**2, 1e-9)
    for start in range(0, count, _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit[start:].T
        for first, second in np.argwhere(np.abs(cosines) >= near) + start:
            if second <= first or groups[first] != first or groups[second] != second:
                continue
            sign = 1.0 if cosines[first - start, second - start] > 0.0 else -1.0
            if np.linalg.norm(unit[first] - sign * unit[second]) <= tolerance:
                groups[second], flips[second] = first, sign
    return groups, flips


def _row_sizes(rows: FloatArray) -> FloatArray:
    """Norms of rows over the largest entry, so that no square overflows."""
    top = float(np.abs(rows).max(initial=0.0)) or 1.0
    sizes: FloatArray = np.linalg.norm(rows / top, axis=1)
    return sizes


def _value_rows(
    data: HermiteData, basis: FloatArray, length: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows p(u_j) of neurons without a vector (a_j = 0), on unit points of V."""
    chosen = data.scales == 0.0
    if data.values is None or not np.any(chosen):
        return np.zeros((0, basis.shape[1])), np.zeros(0), np.zeros(0)
    projected = (data.points[chosen] / length) @ basis
    lengths = np.linalg.norm(projected, axis=1)
    keep = lengths > 1e-12
    lengths = lengths[keep]
    powers = lengths**data.degree
    return projected[keep] / lengths[:, None], data.values[chosen][keep] / powers, powers


def _merge(
    points: FloatArray, targets: FloatArray, weights: FloatArray, power: int, tolerance: float
) -> tuple[FloatArray, FloatArray, FloatArray, float, npt.NDArray[np.intp]]:
    """Average unit points that are parallel up to sign, by weight squared; and what that lost.

    The last result names the heaviest point of each group.
    """
    count = points.shape[0]
    group, flip = parallel_groups(points, tolerance)
    heads = np.flatnonzero(group == np.arange(count))
    if heads.size == count:
        return points, targets, weights, 0.0, heads
    slot = np.zeros(count, dtype=np.intp)
    slot[heads] = np.arange(heads.size)
    member = slot[group]
    squared = weights**2
    sums = np.zeros((heads.size, points.shape[1]))
    np.add.at(sums, member, (squared * flip**power)[:, None] * targets)
    mass = np.bincount(member, squared, heads.size)
    mean = sums / mass[:, None]
    lost = weights[:, None] * (targets - (flip**power)[:, None] * mean[member])
    order = np.argsort(-weights, kind="stable")
    leaders = np.zeros(heads.size, dtype=np.intp)
    leaders[member[order[::-1]]] = order[::-1]
    return points[heads], mean, np.sqrt(mass), float(np.linalg.norm(lost)), leaders


def _spectral_norm(matrix: FloatArray, seed: int, steps: int = 12) -> float:
    """Largest singular value by power iteration, enlarged by a tenth."""
    if matrix.size == 0 or not np.any(matrix):
        return 0.0
    vector: FloatArray = np.random.default_rng(seed).standard_normal((matrix.shape[1],))
    for _ in range(steps):
        vector /= np.linalg.norm(vector)
        np.dot(matrix.T, matrix @ vector, out=vector)
    return 1.1 * float(np.sqrt(np.linalg.norm(vector)))
