"""Two different batches of the smallest size with one gradient, where masks repeat.

g samples of one mask may be replaced by affine combinations T x with slopes T^-T p. Any g points
in general position of their affine hull that have the mask will do, so neither set has to be the
true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from identify.arrays import FloatArray
from identify.budget import Budget
from identify.disaggregation.checks import layer_noise
from identify.disaggregation.factor import EPSILON
from identify.disaggregation.groups import Group, find_groups
from identify.disaggregation.problem import Problem
from identify.disaggregation.records import ShownSet
from identify.model.deep import DeepGradient, DeepNetwork
from identify.thresholds import SECOND_DISTANCE, SECOND_NOISE, SECOND_RESIDUAL

BoolArray = npt.NDArray[np.bool_]

_FAR, _NEAR = 0.9, 0.15
_SIGMAS = 4.0


@dataclass(frozen=True, eq=False)
class _Lifted:
    """c (r,) times the samples and their sum, before any choice within a mask.

    ``rows`` (r, k) and ``scale`` (r,): with any S such that S scale = 1 the rows of S ``rows`` are
    samples. ``cotangents`` (r, C); ``patterns`` (r, m_l) of the hidden layers, first to last.
    """

    rows: FloatArray
    scale: FloatArray
    cotangents: FloatArray
    patterns: tuple[BoolArray, ...]


@dataclass(frozen=True, eq=False)
class SecondSets:
    """Two sets, and the values of the kernel in units of the noise, ascending."""

    sets: tuple[ShownSet, ShownSet]
    values: FloatArray


def find_second_sets(problem: Problem, *, seed: int, budget: Budget) -> SecondSets | None:
    """Return two different sets of r samples with the given gradient in every supplied layer.

    The slopes p are free: this is for an unknown loss. None where the kernel of L is not the one
    that repeated masks explain, where the layers below are not ReLU or lack their gradient, and
    where a set fails what is asked of it: its own forward and backward pass gives every layer to
    the larger of 1e-10 and twice the layer's noise, at most 1e-6, every mask is kept beyond the
    errors, and a sample of one set lies 1e-2 of its norm, beyond the errors, from every sample of
    the other.

    Raises:
        BudgetExceededError: the time is up.

    Cost: that of the kernel, and a linear program of g variables and sum m_l rows for each mask.

    Source: the statement `relu-gradient-one-mask` of proofs_check.
    """
    if not _applies(problem):
        return None
    found = find_groups(problem.operator, problem.factor, problem.layer, seed=seed, budget=budget)
    if found is None or sum(group.size for group in found.groups) != problem.factor.rank:
        return None
    groups = found.groups
    lifted = _descend(problem, groups)
    if lifted is None:
        return None
    sets = _choose(problem.network, groups, lifted)
    if sets is None:
        return None
    one, two = (_confirm(problem, lifted, points, p) for points, p in sets)
    if one is None or two is None or not is_different(one, two):
        return None
    return SecondSets((one, two), found.values)


def is_different(one: ShownSet, two: ShownSet) -> bool:
    """Whether each set has a sample that is far from every sample of the other one."""
    apart = np.linalg.norm(one.samples[:, None] - two.samples[None], axis=2)
    sizes = [np.linalg.norm(found.samples, axis=1) for found in (one, two)]
    error = (one.error_bounds * sizes[0])[:, None] + (two.error_bounds * sizes[1])[None]
    beyond = apart - error > SECOND_DISTANCE * np.maximum(sizes[0][:, None], sizes[1][None])
    return bool(beyond.all(axis=1).any() and beyond.all(axis=0).any())


def _applies(problem: Problem) -> bool:
    relu = all(kind.kink == 0.0 for kind in problem.network.activations)
    given = all(weight is not None for weight in problem.gradient.weights[:-1])
    r = problem.factor.rank
    clear = problem.factor.clear and all(rank.rank <= r for rank in problem.ranks)
    seen = problem.space.shape[1] == problem.network.outputs
    return relu and given and clear and seen and problem.layer.has_bias and not problem.known


def _descend(problem: Problem, groups: tuple[Group, ...]) -> _Lifted | None:
    """Least squares layer by layer, linear in the slopes of a mask and so blind to their basis."""
    network, gradient = problem.network, problem.gradient
    p = np.vstack([group.slopes for group in groups]) @ problem.space.T
    owner = np.repeat(np.arange(len(groups)), [group.size for group in groups])
    patterns = [np.array([groups[i].mask for i in owner])]
    delta = patterns[0] * (p @ network.weights[-1])
    top = network.depth - 2
    rows, scale = _solve(gradient, top, delta)
    if scale is None:
        return None
    size = np.abs(scale) * np.linalg.norm(rows, axis=1).max()
    if not np.isfinite(rows).all() or not size.all():
        return None
    first = scale
    for index in range(top - 1, -1, -1):
        pattern = _below(rows, first, owner, problem.factor.noise / problem.factor.values[-1])
        delta = pattern * (delta @ network.weights[index + 1])
        if np.linalg.matrix_rank(delta) < len(delta):
            return None
        rows, _ = _solve(gradient, index, delta)
        patterns.insert(0, pattern)
    return _Lifted(rows, first, p, tuple(patterns))


def _solve(
    gradient: DeepGradient, index: int, delta: FloatArray
) -> tuple[FloatArray, FloatArray | None]:
    g = gradient.layer(index)
    assert g is not None
    found = np.asarray(np.linalg.lstsq(delta.T, g, rcond=None)[0], dtype=np.float64)
    if gradient.biases[index] is None:
        return found, None
    return found[:, :-1], found[:, -1]


def _below(
    rows: FloatArray, scale: FloatArray, owner: npt.NDArray[np.int64], noise: float
) -> BoolArray:
    """Where a ReLU is on: in a group its value is not 0 for all."""
    pattern = np.zeros(rows.shape, dtype=np.bool_)
    for group in np.unique(owner):
        own = rows[owner == group] / np.linalg.norm(scale[owner == group])
        size = np.linalg.norm(own, axis=0)
        pattern[owner == group] = size > max(1e-9, 30.0 * noise) * size.max()
    return pattern


def _choose(
    network: DeepNetwork, groups: tuple[Group, ...], lifted: _Lifted
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]] | None:
    """Samples and slopes of two sets: two simplices in the largest ball of one mask, each."""
    samples: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    slopes: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    start = 0
    for group in groups:
        part = slice(start, start + group.size)
        start += group.size
        rows, scale, p = lifted.rows[part], lifted.scale[part], lifted.cotangents[part]
        masks = [pattern[part][0] for pattern in lifted.patterns]
        turns = _turns(network, rows, scale, masks)
        if turns is None:
            return None
        for which, turn in enumerate(turns):
            samples[which].append(turn @ rows)
            slopes[which].append(np.linalg.solve(turn.T, p))
    one, two = ((np.vstack(x), np.vstack(p)) for x, p in zip(samples, slopes, strict=True))
    return one, two


def _turns(
    network: DeepNetwork, rows: FloatArray, scale: FloatArray, masks: list[BoolArray]
) -> tuple[FloatArray, FloatArray] | None:
    """S (g, g) with S scale = 1 for two choices of points; for one sample there is one choice."""
    g = len(rows)
    if g == 1:
        turn = 1.0 / scale[:, None]
        return turn, turn
    weights = scale / (scale @ scale)
    free = np.linalg.svd(scale[None])[2][1:]
    u, values, directions = np.linalg.svd(free @ rows, full_matrices=False)
    if values[-1] <= 1e-12 * np.linalg.norm(rows):
        return None
    free = (u / values).T @ free
    base = weights @ rows
    moved = -(directions @ base)
    weights, base = weights + moved @ free, base + moved @ directions
    ball = _largest_ball(network, base, directions, masks)
    if ball is None:
        return None
    centre, radius = ball
    corners = _simplex(g)
    outer, inner = (
        weights + (centre + share * radius * corners) @ free for share in (_FAR, -_NEAR)
    )
    return outer, inner


def _simplex(g: int) -> FloatArray:
    """g points (g, g - 1) of norm 1 with sum 0."""
    centred = np.eye(g) - 1.0 / g
    corners = centred @ np.linalg.svd(centred)[2][: g - 1].T
    return np.asarray(corners / np.linalg.norm(corners, axis=1, keepdims=True))


def _largest_ball(
    network: DeepNetwork, base: FloatArray, directions: FloatArray, masks: list[BoolArray]
) -> tuple[FloatArray, float] | None:
    """Centre (g - 1,) and radius of the largest ball of x = base + t directions with the masks.

    A linear program; t stays within the distance of the hull from 0, so that the ball is finite.
    """
    value, slope = base, directions
    left, right = [], []
    for index, mask in enumerate(masks):
        bias = network.biases[index]
        value = network.weights[index] @ value + (0.0 if bias is None else bias)
        slope = slope @ network.weights[index].T
        sign = np.where(mask, 1.0, -1.0)
        left.append(np.column_stack([-(sign * slope).T, np.linalg.norm(slope, axis=0)]))
        right.append(sign * value)
        value, slope = value * mask, slope * mask
    count = len(directions)
    reach = float(np.linalg.norm(base)) + 1e-300
    for side in (1.0, -1.0):
        left.append(np.column_stack([side * np.eye(count), np.ones(count)]))
        right.append(np.full(count, reach))
    found = optimize.linprog(
        np.append(np.zeros(count), -1.0 / reach), A_ub=np.vstack(left), b_ub=np.concatenate(right),
        bounds=[(None, None)] * count + [(0.0, None)], method="highs",
    )  # fmt: skip
    if found.status != 0:
        return None
    solution = np.asarray(found.x, dtype=np.float64)
    return (solution[:-1], float(solution[-1])) if solution[-1] > 0.0 else None


def _confirm(
    problem: Problem, lifted: _Lifted, samples: FloatArray, p: FloatArray
) -> ShownSet | None:
    """The set with its residuals, or None where it does not explain the gradient."""
    network, gradient = problem.network, problem.gradient
    if not (np.isfinite(samples).all() and np.isfinite(p).all()):
        return None
    run = network.forward(samples)
    deltas = network.backward(run, p)
    worst = 0.0
    for index in range(network.depth):
        given = gradient.layer(index)
        if given is None:
            continue
        h = run.inputs[index]
        if gradient.biases[index] is not None:
            h = np.column_stack([h, np.ones(len(h))])
        size = max(float(np.linalg.norm(given)), 1e-300)
        residual = float(np.linalg.norm(given - deltas[index].T @ h)) / size
        limit = max(SECOND_RESIDUAL, 2.0 * layer_noise(index, problem.factors))
        if not residual <= min(limit, SECOND_NOISE):
            return None
        worst = max(worst, residual)
    own = problem.factors[0]
    noise = own.noise * (np.sqrt(own.shape[1]) + _SIGMAS)
    sizes = np.maximum(np.linalg.norm(samples, axis=1), 1e-300)
    bounds = noise * np.linalg.norm(np.linalg.pinv(deltas[0].T), axis=1) / sizes + 16.0 * EPSILON
    margin = np.inf
    for index, pattern in enumerate(lifted.patterns):
        z, bias = run.preactivations[index], network.biases[index]
        lengths = np.sum(network.weights[index] ** 2, axis=1) + (0.0 if bias is None else bias**2)
        reach = np.sqrt(np.sum(run.inputs[index] ** 2, axis=1) + 1.0)[:, None] * np.sqrt(lengths)
        if not np.array_equal(z > 0.0, pattern):
            return None
        seen = reach > 0.0
        room = np.abs(z)[seen] / (reach * (bounds[:, None] + 1e-12))[seen]
        margin = min(margin, float(room.min(initial=np.inf)))
    if not 1.0 < margin < np.inf:
        return None
    return ShownSet(samples, p, bounds, worst, margin)
