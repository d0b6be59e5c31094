"""How far the data may be off: stored digits, rounded weights, the arithmetic of the source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData, euler_sides
from identify.hermite.reduction import ReducedData
from identify.model.tensor_file import ROUNDING
from identify.recovery.samples import Samples

ARITHMETIC = ("auto", "exact", *ROUNDING)
_PATH = 1.5
"""Reading a movement at one point erred by at most 0.94 of the estimate in tests."""
_LUCK = 100.0
SPREAD = 2.0
"""Rounding errors of one row, over their root mean square at full size: never seen above."""


@dataclass(frozen=True)
class Roundings:
    """Unit roundoffs of what made the data, relative: 0 where nothing was rounded.

    `rows` of the stored rows, `weights` of the stored points and scales, `products` of the
    products of the source's arithmetic, `sums` of its sums.
    """

    rows: float
    weights: float
    products: float
    sums: float


@dataclass(frozen=True, eq=False)
class DataError:
    """Error of the data by the model of their roundings, relative to the weighted data.

    `inside` in V, `off_span` outside it, `sample` of a sample as the arithmetic held it;
    `outputs` (n,) the network's own relative error of f(x_i), 0 where nothing needs it, `rows` the
    number of rows that carry the error: fewer than all where a few heavy neurons outweigh the rest.
    `pair` is how far a lone sample may be from one of two that look like it, over |x|. `tilts`
    (n,) is the error in V per unit that the part of z_i outside the computed V has.
    """

    inside: float
    off_span: float
    sample: float
    outputs: FloatArray
    rows: float = np.inf
    pair: float = 0.0
    tilts: FloatArray | None = None


def roundings(data: HermiteData, arithmetic: str) -> Roundings:
    """The roundings behind data, of an arithmetic named in `ARITHMETIC`.

    auto: the format of the numbers that were computed, the gradient for that source, else the
    weights. exact: only the stored rows were rounded, and weights are taken as exact. Formats of
    16 bits are taken to sum in float32, as hardware does.

    Example:
        >>> from identify.model.two_layer import TwoLayerNetwork
        >>> data = HermiteData.from_kkt(TwoLayerNetwork(np.eye(2), np.ones(2), degree=3))
        >>> roundings(data, "float32").sums == 2.0**-24, roundings(data, "exact").weights
        (True, 0.0)
    """
    if arithmetic == "exact":
        return Roundings(data.rounding, 0.0, 0.0, 0.0)
    weights = data.network.rounding
    if data.initial is not None:
        weights = max(weights, data.initial.rounding)
    computed = data.target.rounding if data.source == "gradient" and data.target else weights
    products = ROUNDING.get(arithmetic, computed)
    return Roundings(data.rounding, weights, products, min(products, ROUNDING["float32"]))


def model_error(
    data: HermiteData,
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    unit: Roundings,
) -> tuple[float, float, float]:
    """Norms of the errors of the weighted rows in V and outside it, over the norm of the rows.

    The third number is (sum_j E_j^2)^2 / sum_j E_j^4 for errors E_j of rows: how many carry them.

    With s = p_j.z_i, D the number of inputs and u the roundoffs, row j errs in V by the root of
    the sum of squares of

        sums       (alpha-1) |s|^(alpha-2) |z_i| sqrt(D) u (|p_j o z_i| + |s|)     for every i
        products   |s|^(alpha-1) |z_i| ((alpha+1) u' + sqrt(n) u)                  for every i
        weights    |T(p_j^(alpha-2), ., .)| times the movement of p_j, and u |row_j|
        rows       u |row_j|

    since errors of different entries are independent; a dot product of D terms errs by sqrt(D) u
    (Higham & Mary 2019). Rounded points so weigh alpha - 1 times. Cost: O(k D n + k n^2).
    """
    alpha, basis = data.degree, reduced.basis
    longest = float(np.linalg.norm(data.points, axis=1).max())
    points = data.points[reduced.representatives] / longest
    points = points / np.linalg.norm(points @ basis, axis=1)[:, None]
    inside, off = _row_errors(points, basis, terms, signs, alpha - 1, alpha, unit)
    squares = (reduced.weights * inside) ** 2
    outer = float(np.sum((reduced.weights * off) ** 2))
    if len(reduced.value_points):
        points = data.points[data.scales == 0.0] / longest
        lengths = np.linalg.norm(points @ basis, axis=1)
        points = points[lengths > 1e-12] / lengths[lengths > 1e-12, None]
        inside, _ = _row_errors(points, basis, terms, signs, alpha, alpha, unit)
        squares = np.concatenate([squares, (reduced.value_weights * inside) ** 2])
    total = float(np.sum(squares))
    carried = total**2 / float(np.sum(squares**2)) if total > 0.0 else np.inf
    return float(np.sqrt(total)) / reduced.size, float(np.sqrt(outer)) / reduced.size, carried


def tilt_error(data: HermiteData, reduced: ReducedData, terms: FloatArray) -> FloatArray:
    """Error of the weighted rows in V per unit of z_i outside the computed V, relative, (n,).

    Points and samples are projected to V. What is lost of p.z is the product of their parts
    outside, and row j loses (alpha-1) |s|^(alpha-2) |z_i| |p_j - Q Q^T p_j| of each unit, or the
    share 2/sqrt(D - r) of it, as two directions of D - r dimensions meet. Cost: O(k D r).
    """
    basis, ambient = reduced.basis, len(reduced.basis)
    if ambient == reduced.dimension:
        return np.zeros(len(terms))
    points = data.points[reduced.representatives]
    points = points / float(np.linalg.norm(points, axis=1).max())
    inside = points @ basis
    lengths = np.linalg.norm(inside, axis=1)
    outer = np.linalg.norm(points - inside @ basis.T, axis=1) / lengths
    s = np.abs(inside / lengths[:, None] @ terms.T)
    rows = (reduced.weights * outer)[:, None] * (data.degree - 1) * s ** (data.degree - 2)
    share = min(1.0, 2.0 / np.sqrt(ambient - reduced.dimension))
    sizes = np.linalg.norm(terms, axis=1)
    return np.asarray(share * np.linalg.norm(rows, axis=0) * sizes / reduced.size)


def lone_consistency(data: HermiteData) -> float:
    """Euler's residual of a gradient, enlarged to what it may be by luck; 0 within its rounding.

    With one sample nothing else shows the error of the data. A few heavy neurons carry the
    identity, k = (sum L^2)^2 / sum L^4 for their sides L, so that it shows the share q/k of the
    error, q the 1e-4 quantile of chi-squared with k degrees of freedom; at most a hundredfold.
    """
    found = data.consistency or 0.0
    if data.values is None or found <= 4.0 * data.rounding:
        return 0.0
    left, right = euler_sides(data.points, data.rows, data.scales, data.values)
    squares = (np.abs(left) + np.abs(right)) ** 2
    squares = squares / (float(squares.max()) or 1.0)
    count = max(float(np.sum(squares)) ** 2 / float(np.sum(squares**2)), 1.0)
    quantile = 2.0 * float(scipy.special.gammaincinv(0.5 * count, 1e-4))
    return found * min(float(np.sqrt(count / quantile)), _LUCK)


def _row_errors(
    points: FloatArray,
    basis: FloatArray,
    terms: FloatArray,
    signs: FloatArray,
    power: int,
    degree: int,
    unit: Roundings,
) -> tuple[FloatArray, FloatArray]:
    """Errors (k,) in V and outside of rows at points whose part in V has norm 1.

    `power` is alpha - 1 for vectors and alpha for values, of which a term counts without |z_i|.
    """
    ambient, count = len(basis), len(terms)
    vector = power < degree
    s = (points @ basis) @ terms.T
    sizes = np.linalg.norm(terms, axis=1) if vector else np.ones(count)
    heads = np.abs(s) ** power * sizes
    slopes = power * np.abs(s) ** (power - 1) * sizes
    each = np.sqrt(points**2 @ (terms @ basis.T).T ** 2) + np.abs(s)
    summed = np.sum((slopes * np.sqrt(ambient) * unit.sums * each) ** 2, axis=1)
    factor = (degree + 1) * unit.products + np.sqrt(count) * unit.sums
    formed = np.sum((factor * heads) ** 2, axis=1)
    bends = signs * power * s ** (power - 1)
    gram = terms @ terms.T
    inner = gram**2 if vector else gram
    bent = np.maximum(np.sum((bends @ inner) * bends, axis=1), 0.0)
    moved = points**2 @ np.sum(basis**2, axis=1)
    row = (signs * s**power) @ (terms if vector else np.ones((count, 1)))
    stored = (unit.rows**2 + unit.weights**2) * np.sum(row**2, axis=1)
    inside = np.sqrt(summed + formed + (SPREAD * unit.weights) ** 2 * bent * moved + stored)
    outer = ((2.0 + np.sqrt(count)) * unit.sums) ** 2 * np.sum(heads**2, axis=1)
    return inside, np.sqrt(outer + unit.rows**2 * np.sum(row**2, axis=1))


def point_movement(points: FloatArray, basis: FloatArray, unit: Roundings) -> float:
    """How far rounding may have moved the unit points of V along Q^T u_j/|Q^T u_j|, at most.

    Example:
        >>> u = Roundings(0.0, 2.0**-24, 0.0, 0.0)
        >>> point_movement(np.array([[3.0, 4.0]]), np.eye(2), u) / 2.0**-24
        2.0
    """
    points = points / np.abs(points).max()
    lengths = np.linalg.norm(points @ basis, axis=1)
    moved = np.sqrt(points**2 @ np.sum(basis**2, axis=1))
    return SPREAD * unit.weights * float(np.max(moved / lengths))


def output_error(
    data: HermiteData, found: Samples, unit: Roundings, noise_level: float
) -> FloatArray:
    """The network's own error of f(x_i) over |f(x_i)|, shape (n,), inf where f(x_i) is 0.

    Rounded weights and the evaluation in float64 err independently,
    |df|^2 = sum_j a_j^2 [(alpha |z|^(alpha-1) 2 u |w_j o x_i|)^2 + (u |z|^alpha)^2], z = w_j.x_i.
    Weights of a stationary point that was not reached, which a noise level above their rounding
    shows, err systematically as well, by at most (alpha+1) rho sum_j |a_j| |z|^alpha.
    """
    alpha, network = data.degree, data.network
    points = network.points / float(np.abs(network.points).max())
    heights = network.output_weight / float(np.abs(network.output_weight).max())
    x = network.lift(found.samples)
    x = x / np.linalg.norm(x, axis=1)[:, None]
    z = x @ points.T
    u = max(unit.weights, ROUNDING["float64"])
    moved = np.sqrt(x**2 @ points.T**2)
    parts = (alpha * np.abs(z) ** (alpha - 1) * SPREAD * u * moved) ** 2 + (u * z**alpha) ** 2
    error = np.sqrt(parts @ heights**2)
    if data.homogeneous and noise_level > 2.0 * unit.weights:
        error = error + (alpha + 1) * noise_level * (np.abs(z) ** alpha @ np.abs(heights))
    value = np.abs(z**alpha @ heights)
    return np.where(value > 0.0, error / np.where(value > 0.0, value, 1.0), np.inf)


def movement_error(
    data: HermiteData, reduced: ReducedData, terms: FloatArray, signs: FloatArray
) -> float:
    """What reading a movement at one point leaves, relative to the rows; 0 for other sources.

    Most of that error is in the range of J, where no residual shows it. Euler's identity fails by
    e(s) = e(0) + s (e(1) - e(0)) at the weights before (s = 0) and at the midpoint (s = 1), least
    at some s*. The found terms say by how much the rows differ between the two, and |s - s*| of it,
    half as much again, is the error. Cost: O(m D n).

    Source: the movement is the sum of gradients along the path, whose mean the point stands for.
    """
    if data.source != "fine-tuning" or data.initial is None:
        return 0.0
    half = 0.5 * data.rows
    before = data.initial.points
    heights = data.degree * data.initial.output_weight
    values = np.zeros(len(heights)) if data.values is None else data.values
    later = heights + 0.5 * data.degree * values
    length = float(np.abs(before).max()) or 1.0
    full = terms @ reduced.basis.T

    def predicted(points: FloatArray, scales: FloatArray) -> FloatArray:
        inner = (points / length) @ full.T
        return np.asarray((scales[:, None] * signs * inner ** (data.degree - 1)) @ terms)

    first, second = predicted(before, heights), predicted(before + half, later)
    missed = heights * values - np.sum(before * data.rows, axis=1)
    change = later * values - np.sum((before + half) * data.rows, axis=1) - missed
    square = float(change @ change)
    best = float(np.clip(-(missed @ change) / square, -1.0, 2.0)) if square > 0.0 else -1.0
    away = abs(best - (1.0 if data.point == "midpoint" else 0.0))
    size = float(np.linalg.norm(second if data.point == "midpoint" else first)) or 1.0
    return _PATH * away * float(np.linalg.norm(second - first)) / size


def data_error(
    data: HermiteData,
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    found: Samples,
    arithmetic: str,
    noise_level: float,
) -> DataError:
    """Everything that bounds have to allow for beside what residuals show."""
    unit = roundings(data, arithmetic)
    inside, off, rows = model_error(data, reduced, terms, signs, unit)
    outputs = np.zeros(len(terms))
    if np.any(found.slants) or data.source == "kkt":
        outputs = output_error(data, found, unit, noise_level)
    tilts = tilt_error(data, reduced, terms)
    return DataError(inside, off, unit.products, outputs, rows, tilts=tilts)
