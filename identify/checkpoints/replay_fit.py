"""Levenberg-Marquardt on a replayed training run, and the ways around the kinks of ReLUs."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.budget import Budget
from identify.checkpoints.replay_problem import ReplayProblem, typical_distance
from identify.checkpoints.replay_sides import fit_sides
from identify.checkpoints.simulate import SpanNetwork

_REFRESH = 0.3
_WIDTHS = (0.1, 0.03, 0.01)
_STALLED = 0.98


def fit_smooth(
    problem: ReplayProblem,
    u: FloatArray,
    budget: Budget,
    *,
    network: SpanNetwork | None = None,
    most: int = 60,
    until: float = 1e-14,
) -> tuple[FloatArray, float]:
    """Levenberg-Marquardt; a Jacobian serves as long as each step takes the residual below 0.3."""
    if not len(u):
        return u, 0.0
    residual = problem.residual(u, network)
    size = float(residual @ residual)
    damping, sizes = 1e-3, [size]
    while len(sizes) <= most and np.isfinite(size) and size > until**2 and not budget.expired:
        jacobian = problem.jacobian(u, network)
        gram = jacobian.T @ jacobian
        diagonal = np.diag(gram) + 1e-12 * float(np.diag(gram).max())
        if not np.isfinite(gram).all():
            break
        gain, moved = 0.0, False
        while gain < _REFRESH and size > until**2:
            found = _step(problem, u, residual, jacobian, gram, diagonal, damping, network)
            if found is None:
                break
            u, residual, damping = found
            before, size = size, float(residual @ residual)
            gain, moved = size / before, True
            damping = max(damping / (10.0 if gain < 0.5 else 3.0), 1e-13)
            sizes.append(size)
        if not moved or (len(sizes) > 12 and sizes[-1] > _STALLED**2 * sizes[-8]):
            break
    return u, size


def _step(
    problem: ReplayProblem,
    u: FloatArray,
    residual: FloatArray,
    jacobian: FloatArray,
    gram: FloatArray,
    diagonal: FloatArray,
    damping: float,
    network: SpanNetwork | None,
) -> tuple[FloatArray, FloatArray, float] | None:
    """A step that lowers the residual, with its damping, or None."""
    slope = jacobian.T @ residual
    size = float(residual @ residual)
    while damping < 1e6:
        try:
            move = -linalg.solve(gram + np.diag(damping * diagonal), slope, assume_a="pos")
        except linalg.LinAlgError:
            damping = max(5.0 * damping, 1e-10)
            continue
        there = problem.residual(u + move, network)
        if np.isfinite(there).all() and float(there @ there) < size:
            return u + move, there, damping
        damping = max(5.0 * damping, 1e-10)
    return None


def fit_kinked(problem: ReplayProblem, u: FloatArray, budget: Budget, enough: float) -> FloatArray:
    """Two layers with their sides held, up to a residual that is ``enough``.

    Else smoothed runs first, then exact residuals with smoothed slopes, then the sides or rows.
    """
    two = len(problem.start.layers) == 2
    if two:
        found = fit_sides(problem, u, budget)
        if float(np.linalg.norm(problem.residual(found))) <= enough:
            return found
    for width in _WIDTHS:
        tau = width * _spread(problem)
        u, _ = fit_smooth(
            problem, u, budget, network=problem.start.smoothed(tau), most=20, until=1e-4
        )
    u = _fit_by_smoothed_slopes(problem, u, budget)
    return fit_sides(problem, u, budget) if two else _polish(problem, u, budget)


def _spread(problem: ReplayProblem) -> float:
    """The size of a preactivation of the first layer at the typical distance."""
    rows = float(np.sqrt(np.mean(np.sum((problem.start.layers[0] @ problem.frame) ** 2, axis=1))))
    return float(rows * typical_distance(problem) / np.sqrt(problem.frame.shape[1]))


def _fit_by_smoothed_slopes(problem: ReplayProblem, u: FloatArray, budget: Budget) -> FloatArray:
    """Non-monotone Gauss-Newton: exact residuals, slopes with ReLUs as wide as the error."""
    residual = problem.residual(u)
    best, error, bad = (float(np.linalg.norm(residual)), u), 0.1, 0
    while bad < 5 and best[0] > 1e-12 and not budget.expired:
        tau = max(0.1 * error * _spread(problem), 1e-9)
        jacobian = problem.jacobian(u, problem.start.smoothed(tau))
        moves = _moves(jacobian, residual, (1e-1, 1e-2, 1e-3, 1e-4, 1e-6))
        tried = [(u + move, problem.residual(u + move)) for move in moves]
        sizes = [float(np.linalg.norm(r)) if np.isfinite(r).all() else np.inf for _, r in tried]
        chosen = int(np.argmin(sizes))
        if not np.isfinite(sizes[chosen]):
            break
        step = float(np.linalg.norm(moves[chosen])) / max(float(np.linalg.norm(u)), 1e-300)
        u, residual = tried[chosen]
        error = min(max(step, 1e-9), 1.0) if step < error else max(0.7 * error, 1e-9)
        bad = bad + 1 if sizes[chosen] > 0.999 * best[0] else 0
        if sizes[chosen] < best[0]:
            best = (sizes[chosen], u)
    return best[1]


def _polish(problem: ReplayProblem, u: FloatArray, budget: Budget) -> FloatArray:
    """Exact slopes; a neuron with a wrong sign spoils its row alone, so rows count by their fit."""
    rows = problem.start.layers[0].shape

    def weigh(residual: FloatArray) -> FloatArray:
        return np.asarray(np.linalg.norm(residual[: rows[0] * rows[1]].reshape(rows), axis=1))

    residual = problem.residual(u)
    best, bad = (float(np.median(weigh(residual))), float(np.linalg.norm(residual)), u), 0
    while bad < 4 and best[1] > 1e-12 and not budget.expired:
        sizes = weigh(residual)
        weight = np.ones(len(residual))
        share = 1.0 / (1.0 + (sizes / max(float(np.median(sizes)), 1e-17)) ** 2)
        weight[: rows[0] * rows[1]] = np.repeat(np.sqrt(share), rows[1])
        jacobian = problem.jacobian(u) * weight[:, None]
        moves = _moves(jacobian, residual * weight, (1e-1, 1e-2, 1e-4, 1e-9))
        tried = [(u + move, problem.residual(u + move)) for move in moves]
        medians = [float(np.median(weigh(r))) if np.isfinite(r).all() else np.inf for _, r in tried]
        chosen = int(np.argmin(medians))
        u, residual = tried[chosen]
        bad = 0 if medians[chosen] < 0.999 * best[0] else bad + 1
        if medians[chosen] < best[0]:
            best = (medians[chosen], float(np.linalg.norm(residual)), u)
    return best[2]


def _moves(
    jacobian: FloatArray, residual: FloatArray, dampings: tuple[float, ...]
) -> list[FloatArray]:
    gram = jacobian.T @ jacobian
    slope = jacobian.T @ residual
    diagonal = np.diag(gram)
    floor = 1e-13 * float(diagonal.max())
    return [
        np.asarray(-np.linalg.solve(gram + np.diag(damping * diagonal + floor), slope), np.float64)
        for damping in dampings
    ]
