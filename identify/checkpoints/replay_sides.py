"""The last part of a ReLU replay: which side each neuron is on, step by step.

A neuron that crosses its kink a step early or late spoils its own row of the first layer and
hardly any other. So the sides of all neurons are held while the samples are fitted to the rows
that agree, and the rows that do not are repaired one by one, by single sides near their kink.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import Budget
from identify.checkpoints.replay_problem import ReplayProblem
from identify.checkpoints.simulate import Sides, loss_slopes, take_pass

_ROUNDS = 40
_STEPS = 3
_BAD = 20.0
_QUANTILE = 0.7
_MOST_BAD = 0.4
_NEAR = 24
_BETTER = 0.7
_CHANGES = 8
_DAMPINGS = (1e-1, 1e-3, 1e-6, 1e-9)
_DONE = 1e-13


@dataclass(frozen=True, eq=False)
class Trace:
    """A run of two layers: preactivations (T, n, m), slopes of the loss (T, n, C), the residual."""

    preactivations: FloatArray
    slopes: FloatArray
    residual: FloatArray


def trace(problem: ReplayProblem, u: FloatArray, sides: Sides | None = None) -> Trace:
    """Replay the run with what passes through it; entries of samples out of a batch are 0."""
    network, recipe, points = problem.start, problem.rated(u), problem.points(u)
    wanted = problem.wanted(u)
    layers = [layer.copy() for layer in network.layers]
    speed = [np.zeros_like(layer) for layer in layers]
    z = np.zeros((recipe.steps, len(points), len(layers[0])))
    p = np.zeros((recipe.steps, *wanted.shape))
    with np.errstate(over="ignore", invalid="ignore"):
        for count in range(recipe.steps):
            part = recipe.batch(count)
            held = None if sides is None else sides[count][part]
            z[count, part] = points[part] @ layers[0].T
            step = take_pass(network, layers, points[part], wanted[part], recipe.loss, held)
            p[count, part] = loss_slopes(recipe.loss, step.outputs, wanted[part]) / len(
                points[part]
            )
            for index, layer in enumerate(layers):
                if not network.frozen[index]:
                    speed[index] *= recipe.momentum
                    speed[index] += step.gradient(index) + recipe.decay * layer
                    layers[index] = layer - recipe.rate * speed[index]
    return Trace(z, p, problem.distances(layers))


def fit_sides(problem: ReplayProblem, u: FloatArray, budget: Budget) -> FloatArray:
    """Samples by Gauss-Newton with the sides held and repaired; best by the residual without."""
    best = (np.inf, u)
    jacobian: FloatArray | None = None
    level = np.inf
    for _ in range(_ROUNDS):
        run = trace(problem, u)
        size = float(np.linalg.norm(run.residual))
        if size < best[0]:
            best = (size, u)
        if not np.isfinite(size) or size < _DONE or budget.expired:
            break
        sides = repaired(problem, u, run)
        residual = problem.residual(u, sides=sides)
        before = _level(problem, residual)
        if jacobian is None or before > 0.3 * level:
            jacobian = problem.jacobian(u, sides=sides)
        u, level = _held_steps(problem, u, sides, residual, jacobian)
        if level > 0.999 * before:
            break
        level = before
    return best[1]


def _rows(problem: ReplayProblem, residual: FloatArray) -> FloatArray:
    """The residual of each row of the first layer, (m,)."""
    shape = problem.start.layers[0].shape
    return np.asarray(np.linalg.norm(residual[: shape[0] * shape[1]].reshape(shape), axis=1))


def _level(problem: ReplayProblem, residual: FloatArray) -> float:
    sizes = _rows(problem, residual)
    return float(np.quantile(sizes, _QUANTILE)) if np.isfinite(sizes).all() else np.inf


def _held_steps(
    problem: ReplayProblem,
    u: FloatArray,
    sides: Sides,
    residual: FloatArray,
    jacobian: FloatArray,
) -> tuple[FloatArray, float]:
    """A few Gauss-Newton steps with weights 1 / (1 + (row / level)^2) and the sides held."""
    rows = problem.start.layers[0].shape
    level = _level(problem, residual)
    for _ in range(_STEPS):
        share = 1.0 / (1.0 + (_rows(problem, residual) / max(level, 1e-17)) ** 2)
        weight = np.ones(len(residual))
        weight[: rows[0] * rows[1]] = np.repeat(np.sqrt(share), rows[1])
        weight[rows[0] * rows[1] :] = np.sqrt(float(np.mean(share)))
        weighted = jacobian * weight[:, None]
        gram, slope = weighted.T @ weighted, weighted.T @ (residual * weight)
        diagonal = np.diag(gram)
        found = None
        for damping in _DAMPINGS[::-1]:
            lifted = gram + np.diag(damping * diagonal + 1e-14 * float(diagonal.max()))
            there = u - np.linalg.solve(lifted, slope)
            after = problem.residual(there, sides=sides)
            if _level(problem, after) < level and (
                found is None or _level(problem, after) < found[0]
            ):
                found = (_level(problem, after), there, after)
                break
        if found is None:
            break
        gain = found[0] / level
        level, u, residual = found
        if gain > 0.5:
            break
    return u, level


def repaired(problem: ReplayProblem, u: FloatArray, run: Trace) -> Sides:
    """The sides of a run, where rows far off are changed in up to eight places near the kink."""
    sides: Sides = run.preactivations > 0.0
    sizes = _rows(problem, run.residual)
    level = max(float(np.quantile(sizes, 0.5)), 1e-16)
    order = np.argsort(-sizes)[: int(_MOST_BAD * len(sizes))]
    rows = order[sizes[order] > _BAD * level]
    if not len(rows):
        return sides
    neurons = _Neurons(problem, u, run.slopes)
    shape = run.preactivations.shape[:2]
    flips = np.zeros((len(rows), *shape), dtype=bool)
    size, z = neurons.replay(rows, flips)
    active = np.arange(len(rows))
    for _ in range(_CHANGES):
        near = np.abs(z[active]).reshape(len(active), -1)
        chosen = np.argsort(near, axis=1)[:, :_NEAR]
        width = chosen.shape[1]
        variants = np.repeat(flips[active].reshape(len(active), 1, -1), width, axis=1)
        variants[np.arange(len(active))[:, None], np.arange(width)[None], chosen] ^= True
        left, there = neurons.replay(np.repeat(rows[active], width), variants.reshape(-1, *shape))
        pick = np.argmin(left.reshape(-1, width), axis=1) + width * np.arange(len(active))
        better = left[pick] < _BETTER * size[active]
        pick, active = pick[better], active[better]
        if not len(active):
            break
        flips[active] = variants.reshape(-1, *shape)[pick]
        size[active], z[active] = left[pick], there[pick]
    sides[:, :, rows] = ((z > 0.0) ^ flips).transpose(1, 2, 0)
    return sides


@dataclass(frozen=True, eq=False)
class _Neurons:
    """Single neurons trained on their own, with the loss's slopes (T, n, C) of a whole run."""

    problem: ReplayProblem
    u: FloatArray
    slopes: FloatArray

    def replay(self, rows: npt.NDArray[np.int64], flips: Sides) -> tuple[FloatArray, FloatArray]:
        """How far neurons (B,) end from the final ones, and their preactivations (B, T, n).

        Where ``flips`` (B, T, n) are set a neuron is on the side where its sign is not.
        """
        network, recipe = self.problem.start, self.problem.rated(self.u)
        points = self.problem.points(self.u)
        inner, outer = network.layers[0][rows], network.layers[1][:, rows].T
        leak = getattr(network.activations[0], "kink", None) or 0.0
        inner_speed, outer_speed = np.zeros_like(inner), np.zeros_like(outer)
        z = np.empty(flips.shape)
        for count, p in enumerate(self.slopes):
            z[:, count] = inner @ points.T
            on = np.where((z[:, count] > 0.0) ^ flips[:, count], 1.0, leak)
            inner_slope = (on * (outer @ p.T)) @ points + recipe.decay * inner
            outer_slope = (on * z[:, count]) @ p + recipe.decay * outer
            inner_speed = recipe.momentum * inner_speed + inner_slope
            outer_speed = recipe.momentum * outer_speed + outer_slope
            if not network.frozen[0]:
                inner = inner - recipe.rate * inner_speed
            if not network.frozen[1]:
                outer = outer - recipe.rate * outer_speed
        final, scales = self.problem.final, self.problem.scales
        away = np.sum((inner - final[0][rows]) ** 2, axis=1) * scales[0] ** 2
        away += np.sum((outer - final[1][:, rows].T) ** 2, axis=1) * scales[1] ** 2
        return np.asarray(np.sqrt(away)), z
