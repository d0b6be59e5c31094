"""Whether a problem has an answer that was due: its equations fix the true samples."""

from __future__ import annotations

import numpy as np

from identify import HermiteData
from identify.arrays import FloatArray
from identify.tensors import hermite_matrix
from tests.identify.new_judge import fitted, least_residual, merged_truth, stated_truly
from tests.identify.new_problems import Problem


def is_determined(problem: Problem, accuracy: float = 0.01) -> bool:
    """Whether the equations fix the true samples to `accuracy` at the data's own error.

    True options, n independent samples, rank H = N with N > n^2 (or the number stated, or a lone
    sample), more distinct neurons than samples; |J_i^+| times the error of the data, which is the
    larger of the truth's residual and one rounding, is below `accuracy` of each term.
    """
    data, options = problem.data, problem.options
    if "time_limit" in options or options.get("evidence", "auto") not in ("auto", "numerical"):
        return False
    truth, b = merged_truth(problem)
    n = len(truth)
    if n == 0 or options.get("samples", n) != n or not _true_options(problem, truth):
        return False
    lifted = data.network.lift(truth)
    error = max(least_residual(problem), data.rounding, options.get("noise") or 0.0, 1e-15)
    units = lifted / np.linalg.norm(lifted, axis=1, keepdims=True)
    if problem.coefficients is None:
        b = fitted(data, truth)
    _, sigma, axes = np.linalg.svd(units, full_matrices=False)
    if error > 0.03 or n > lifted.shape[1] or sigma[-1] <= 1e-7:
        return False
    points = data.points @ axes.T
    lengths = np.linalg.norm(points, axis=1)
    live = lengths > 1e-8 * lengths.max()
    directions = points[live] / lengths[live][:, None]
    seen = data.points[np.linalg.norm(data.points, axis=1) > 0.0]
    units = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    distinct = len(_distinct(units, max(10.0 * error, 1e-8)))
    spectrum = np.linalg.svd(hermite_matrix(directions, data.degree), compute_uv=False)
    required = hermite_matrix(directions[:1], data.degree).shape[1]
    if len(spectrum) < required or spectrum[-1] <= 10.0 * max(error, 1e-13) * spectrum[0]:
        return False
    lone = n == 1 and not data.homogeneous and distinct >= 2 and data.network.dimension >= 2
    if required <= n * n and options.get("samples") != n and not lone:
        return False
    if not data.homogeneous and distinct <= n:
        return False
    # With a bias the error of (x, 1) is one of x.
    share = float(np.linalg.norm(lifted, axis=1).max() / np.linalg.norm(truth, axis=1).max())
    return share * _accurate(data, lifted @ axes.T, b, points, error) < accuracy


def _true_options(problem: Problem, truth: FloatArray) -> bool:
    options = problem.options
    if options.get("noise") is not None and not stated_truly(problem):
        return False
    if options.get("non_negative") and truth.min() < 0.0:
        return False
    if problem.data.source == "kkt":
        # Equal margins are asked for where the scale is fixed, their signs always.
        values = problem.data.network.value(truth)
        _, b = merged_truth(problem)
        fixed = options.get("scale") in ("unit", "bias") or problem.data.has_bias
        if np.any(b * values <= 0.0) or (fixed and np.ptp(np.abs(values)) > 1e-9):
            return False
    scale, tolerance = options.get("scale"), 1e-9 + 30.0 * problem.data.rounding
    if scale == "unit":
        return bool(np.allclose(np.linalg.norm(truth, axis=1), 1.0, rtol=0.0, atol=tolerance))
    outputs = np.abs(problem.data.network.value(truth))
    return scale != "margin" or bool(np.ptp(outputs) <= tolerance * outputs.max())


def _distinct(units: FloatArray, gap: float) -> list[int]:
    chosen: list[int] = []
    for k, row in enumerate(units):
        if all(min(np.linalg.norm(row - s * units[c]) for s in (1, -1)) > gap for c in chosen):
            chosen.append(k)
    return chosen


def _accurate(
    data: HermiteData, x: FloatArray, b: FloatArray, points: FloatArray, error: float
) -> float:
    """Largest relative error of a term that data off by `error` |rows| can cause."""
    n, r = x.shape
    power = data.degree - 1
    blocks = []
    for row, height in zip(x, b, strict=True):
        inner = points @ row
        slopes = power * (inner ** (power - 1))[:, None, None] * row[:, None] * points[:, None, :]
        slopes = slopes + (inner**power)[:, None, None] * np.eye(r)
        block = (data.scales[:, None, None] * height * slopes).reshape(-1, r)
        blocks.append(block * float(np.linalg.norm(row)))
    jacobian = np.hstack(blocks)
    sizes = np.linalg.norm(jacobian, axis=0)
    if np.any(sizes == 0.0) or len(jacobian) < n * r:
        return np.inf
    triangle = np.linalg.qr(jacobian / sizes, mode="r")
    if np.linalg.cond(triangle) > 1e14:
        return np.inf
    inverse = (np.linalg.inv(triangle) / sizes[:, None]).reshape(n, r, -1)
    whole = max(float(np.linalg.norm(part, 2)) for part in inverse)
    return whole * error * float(np.linalg.norm(data.rows))
