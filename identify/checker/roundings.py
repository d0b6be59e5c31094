"""What rounding may have done to the data: stored digits, rounded weights, the arithmetic."""

from __future__ import annotations

from math import exp, lgamma, log

import numpy as np

from .case import Case
from .outcome import FloatArray
from .source import euler_sides
from .terms import samples_of, sorted_terms

UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_SPREAD = 2.0


def units_of(case: Case) -> tuple[float, float, float, float]:
    """Roundoffs of stored rows, of weights, and of the products and the sums behind the data."""
    assumed, data = case.certificate.assumed.arithmetic, case.data
    if assumed in (None, "exact"):
        return data.rounding, 0.0, 0.0, 0.0
    product = data.computed if assumed == "auto" else UNITS[assumed]
    return data.rounding, data.weight_rounding, product, min(product, UNITS["float32"])


def rounded_errors(case: Case) -> tuple[float, float, float]:
    """Errors of the merged rows in V and outside, over their norm, as roundings allow.

    The third number says how many rows carry the error, (sum E^2)^2 / sum E^4; earlier versions
    took all of them to.
    """
    return case.keep("rounded", lambda: _rounded(case))


def _rounded(case: Case) -> tuple[float, float, float]:
    merged, alpha = case.merged, case.degree
    rows, off = _errors(case, case.data.points[case.neurons], alpha - 1)
    squares = (merged.weights * rows) ** 2
    if len(merged.value_points):
        lone = case.data.points[case.data.scales == 0.0]
        keep = np.linalg.norm((lone / case.units[0]) @ case.basis, axis=1) > 1e-12
        values, _ = _errors(case, lone[keep], alpha)
        squares = np.concatenate([squares, (merged.value_weights * values) ** 2])
    outer = np.linalg.norm(merged.weights * off)
    total, fourth = float(squares.sum()), float((squares**2).sum())
    old = case.certificate.assumed.arithmetic is None
    carried = np.inf if old or not fourth > 0.0 else total**2 / fourth
    return float(np.sqrt(total)) / merged.size, float(outer) / merged.size, carried


def _errors(case: Case, points: FloatArray, power: int) -> tuple[FloatArray, FloatArray]:
    """Errors of T(p^power, ...) in V and outside it for points scaled to |Q^T p| = 1."""
    stored, weights, product, total = units_of(case)
    terms, signs = sorted_terms(case)
    points = points / case.units[0]
    points = points / np.linalg.norm(points @ case.basis, axis=1)[:, None]
    count, ambient = len(terms), len(case.basis)
    lengths = np.linalg.norm(terms, axis=1) if power < case.degree else np.ones(count)
    directions = terms if power < case.degree else np.ones((count, 1))
    inner = points @ case.basis @ terms.T
    low = power * inner ** (power - 1) * signs
    reach = np.sqrt(points**2 @ ((terms @ case.basis.T) ** 2).T) + np.abs(inner)
    size = np.abs(inner**power) * lengths
    square = np.sum((low * lengths * reach) ** 2, axis=1) * ambient * total**2
    square += np.sum(size**2, axis=1) * ((case.degree + 1) * product + count**0.5 * total) ** 2
    gram = (terms @ terms.T) * (directions @ directions.T)
    bend = np.maximum(np.einsum("ji,ik,jk->j", low, gram, low, optimize=True), 0.0)
    square += (_SPREAD * weights) ** 2 * bend * (points**2 @ np.sum(case.basis**2, axis=1))
    row = np.sum(((inner**power * signs) @ directions) ** 2, axis=1)
    outer = ((2.0 + count**0.5) * total) ** 2 * np.sum(size**2, axis=1) + stored**2 * row
    return np.sqrt(square + (stored**2 + weights**2) * row), np.sqrt(outer)


def moved_points(case: Case, count: int) -> float:
    """How far rounding may have moved one of the first `count` unit points."""
    points = case.data.points[case.neurons[:count]] / case.units[0]
    lengths = np.linalg.norm(points @ case.basis, axis=1)
    moved = np.sqrt(points**2 @ np.sum(case.basis**2, axis=1)) / lengths
    return _SPREAD * units_of(case)[1] * float(moved.max())


def output_errors(case: Case) -> FloatArray:
    """The network's own error of f over |f| at the samples, largest term first."""
    data, alpha = case.data, case.degree
    weights = units_of(case)[1]
    unit = max(weights, UNITS["float64"])
    points, heights = data.network_points, data.network_heights
    points, heights = points / np.abs(points).max(), heights / np.abs(heights).max()
    x = data.lift(samples_of(case).samples)
    x = x / np.linalg.norm(x, axis=1)[:, None]
    inner = x @ points.T
    reach = np.sqrt(x**2 @ (points**2).T)
    moves = (_SPREAD * unit * alpha * inner ** (alpha - 1) * reach) ** 2
    moves += (unit * inner**alpha) ** 2
    error = np.sqrt(moves @ heights**2)
    if data.homogeneous and case.noise > 2.0 * weights:
        error += (alpha + 1) * case.noise * (np.abs(inner) ** alpha @ np.abs(heights))
    return np.asarray(error / np.abs(inner**alpha @ heights))


def movement_error(case: Case) -> float:
    """What the mean of a path loses where it is read at one point, relative to the rows.

    The found terms predict the rows at the weights before and at the midpoint. Euler's identity,
    linear between them, is least violated at some s; the error is 1.5 times the change of the rows
    from there to the point that was read.
    """
    data = case.data
    final, moved = data.network, data.values
    if data.source != "fine-tuning" or final is None or moved is None:
        return 0.0
    if case.certificate.assumed.arithmetic is None or case.certificate.terms is None:
        return 0.0
    return case.keep("path", lambda: _path(case, final, moved))


def _path(case: Case, final: tuple[FloatArray, FloatArray], moved: FloatArray) -> float:
    data, (terms, signs) = case.data, case.terms
    start, heights = final[0] - data.rows, final[1] - moved
    unit = float(np.abs(start).max()) or 1.0
    directions = case.basis @ terms.T
    predicted, violations = [], []
    for share in (0.0, 0.5):
        points = start + share * data.rows
        scales = data.degree * (heights + share * moved)
        factors = scales[:, None] * ((points / unit) @ directions) ** (data.degree - 1)
        predicted.append((factors * signs) @ terms)
        violations.append(scales * moved - np.sum(points * data.rows, axis=1))
    slope = violations[1] - violations[0]
    steep = float(slope @ slope)
    least = -float(violations[0] @ slope) / steep if steep > 0.0 else -1.0
    middle = bool(np.linalg.norm(data.points - start) > 0.25 * np.linalg.norm(data.rows))
    size = float(np.linalg.norm(predicted[middle]))
    change = float(np.linalg.norm(predicted[1] - predicted[0])) / (size or 1.0)
    return 1.5 * abs(min(max(least, -1.0), 2.0) - middle) * change


def tilts(case: Case) -> FloatArray:
    """Error in V, relative to the rows, per unit that z_i reaches out of V; (n,).

    (alpha-1) |s|^(alpha-2) |z_i| times the part of the unit point outside V, of which a share
    2/sqrt(D - r) meets the sample. Reports that do not name the arithmetic do not count it.
    """
    terms, _ = sorted_terms(case)
    free = len(case.basis) - case.r
    if free == 0 or case.certificate.assumed.arithmetic is None:
        return np.zeros(len(terms))
    points = case.data.points[case.neurons] / case.units[0]
    projected = points @ case.basis
    lengths = np.linalg.norm(projected, axis=1)
    beyond = np.linalg.norm(points - projected @ case.basis.T, axis=1) / lengths
    inner = np.abs(projected @ terms.T) / lengths[:, None]
    slopes = (case.degree - 1) * inner ** (case.degree - 2) * beyond[:, None]
    lost = np.linalg.norm(case.merged.weights[:, None] * slopes, axis=0)
    share = min(1.0, 2.0 / free**0.5) / case.merged.size
    return np.asarray(share * lost * np.linalg.norm(terms, axis=1))


def lone_consistency(case: Case, found: float) -> float:
    """What Euler's residual of one sample may stand for, where a few neurons carry it.

    A share of chi-squared with (sum L^2)^2 / sum L^4 degrees of freedom, L the sides of the
    neurons; a residual within four roundings shows no error.
    """
    data = case.data
    if case.r != 1 or data.values is None or found <= 4.0 * data.rounding:
        return 0.0
    if data.filled or data.homogeneous or case.certificate.assumed.arithmetic is None:
        return 0.0
    left, right, _ = euler_sides(data.points, data.rows, data.scales, data.values)
    sizes = (np.abs(left) + np.abs(right)) ** 2
    sizes /= float(sizes.max()) or 1.0
    freedom = max(float(sizes.sum()) ** 2 / float((sizes**2).sum()), 1.0)
    return found * min(float(np.sqrt(freedom / chi_squared_quantile(freedom))), 100.0)


def chi_squared_quantile(freedom: float, level: float = 1e-4) -> float:
    """The q with P(chi^2 < q) = level, by bisection of the series of the incomplete gamma.

    Example:
        >>> round(chi_squared_quantile(10), 4)
        0.8889
    """
    shape = 0.5 * freedom

    def share(x: float) -> float:
        term = total = 1.0 / shape
        step = shape
        while term > 1e-17 * total:
            step += 1.0
            term *= x / step
            total += term
        return total * exp(shape * log(x) - x - lgamma(shape))

    low, high = 0.0, shape
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle > 0.0 and share(middle) > level:
            high = middle
        else:
            low = middle
    return high + low
