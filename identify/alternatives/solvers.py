"""Other solutions of the Hermite equations: many random starts at once, walks along a continuum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from identify.alternatives.equations import SetEquations
from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget

_CHUNK = 3_000_000
"""Numbers in the Jacobians of one batch."""
_TINY = 1e-300
FAR = 0.5
"""Difference of two sets at which a walk is content."""


def draw_starts(
    equations: SetEquations, count: int, batch: int, oriented: bool, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Random starts: terms (B, n, r) and signs (B, n).

    Directions are uniform, coefficients by least squares with none of them tiny; for even degree
    every other start has random signs. `oriented` turns terms towards s_i f(z_i) > 0, which a KKT
    point demands.
    """
    data, alpha = equations.reduced, equations.degree
    directions = rng.standard_normal((batch, count, data.dimension))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    s = (directions @ data.points.T) ** (alpha - 1) * data.weights
    gram = np.matmul(s, s.transpose(0, 2, 1))
    gram *= np.matmul(directions, directions.transpose(0, 2, 1))
    along = np.matmul(directions, (data.targets * data.weights[:, None]).T)
    rhs = np.sum(s * along, axis=2)
    trace = np.einsum("bii->b", gram)[:, None, None] + _TINY
    b = np.linalg.solve(gram + 1e-8 * trace * np.eye(count), rhs[..., None])[..., 0]
    size = np.abs(b)
    floor = 0.05 * size.max(axis=1, keepdims=True) + _TINY
    sign = np.where(b < 0.0, -1.0, 1.0)
    random = rng.choice([-1.0, 1.0], sign.shape)
    sign[1::2] = random[1::2]
    if oriented:
        outputs = equations.outputs(directions)
        share = slice(None, None, 4)
        kept = sign[share].copy()
        sign = np.where(outputs < 0.0, -1.0, 1.0)
        sign[share] = kept
    lengths = np.maximum(size, floor) ** (1.0 / alpha)
    if alpha % 2:
        return directions * (sign * lengths)[..., None], np.ones_like(sign)
    return directions * lengths[..., None], sign


def minimise(
    equations: SetEquations,
    terms: FloatArray,
    signs: FloatArray,
    *,
    goal: float,
    max_steps: int = 400,
    patience: tuple[int, float] = (25, 0.9),
    budget: Budget = UNLIMITED,
) -> tuple[FloatArray, FloatArray]:
    """Levenberg-Marquardt from all starts at once: terms (B, n, r) and relative residuals (B,).

    A start is given up when the steps of `patience` pass without a gain by its factor. Steps go
    through the normal equations, which find a solution but leave its last digits to `polish`.

    Cost: E (n r)^2 + (n r)^3 flops a step and start.
    """
    batch, count, r = terms.shape
    unknowns = count * r
    terms = terms.copy()
    norms = np.linalg.norm(equations.residual(terms, signs), axis=1)
    norms[~np.isfinite(norms)] = np.inf
    damping = np.full(batch, 1e-2)
    alive = np.isfinite(norms)
    reference = norms.copy()
    diagonal = np.arange(unknowns)
    for step in range(1, max_steps + 1):
        active = np.flatnonzero(alive & (norms > goal))
        if active.size == 0 or budget.expired:
            break
        z, s = terms[active], signs[active]
        jacobian = equations.jacobian(z, s)
        residual = equations.residual(z, s)
        transposed = jacobian.transpose(0, 2, 1)
        normal = np.matmul(transposed, jacobian)
        slope = np.matmul(transposed, residual[..., None])[..., 0]
        # One unit for all unknowns: a unit for each of them would let small terms run away.
        width = np.sqrt(np.mean(normal[:, diagonal, diagonal], axis=1, keepdims=True)) + _TINY
        normal /= (width**2)[:, :, None]
        normal[:, diagonal, diagonal] += damping[active, None]
        with np.errstate(all="ignore"):
            move = np.linalg.solve(normal, (slope / width**2)[..., None])[..., 0]
            trial = z - move.reshape(z.shape)
            size = np.linalg.norm(equations.residual(trial, s), axis=1)
        better = size < norms[active]
        chosen = active[better]
        terms[chosen], norms[chosen] = trial[better], size[better]
        damping[active] = np.where(
            better, np.maximum(0.2 * damping[active], 1e-13), 6.0 * damping[active]
        )
        alive &= damping < 1e6
        if step % patience[0] == 0:
            alive &= norms < patience[1] * reference
            reference = norms.copy()
    return terms, norms


def polish(
    equations: SetEquations,
    terms: FloatArray,
    signs: FloatArray,
    *,
    cut: float = 1e-12,
    max_steps: int = 10,
) -> tuple[FloatArray, float]:
    """Shortest Gauss-Newton steps, relative to the size of each term, to the last digits.

    Singular values of the Jacobian below `cut` are left alone, so that a continuum of solutions
    (or of near solutions) is approached and not slid along.
    """
    norm = float(np.linalg.norm(equations.residual(terms[None], signs[None])[0]))
    for _ in range(max_steps):
        sizes = np.linalg.norm(terms, axis=1).repeat(terms.shape[1])
        jacobian = equations.jacobian(terms[None], signs[None])[0] * sizes
        residual = equations.residual(terms[None], signs[None])[0]
        if not (np.all(np.isfinite(jacobian)) and np.all(np.isfinite(residual))):
            break
        top = float(np.linalg.norm(jacobian)) + _TINY
        move = scipy.linalg.lstsq(jacobian, residual, cond=cut / top, check_finite=False)[0]
        trial = terms - (sizes * move).reshape(terms.shape)
        with np.errstate(all="ignore"):
            size = float(np.linalg.norm(equations.residual(trial[None], signs[None])[0]))
        if not size < norm:
            break
        slow = size > 0.3 * norm
        terms, norm = trial, size
        if norm < 1e-15 or (norm < 1e-11 and slow):
            break
    return terms, norm


def tangents(
    equations: SetEquations, terms: FloatArray, signs: FloatArray, cut: float
) -> FloatArray:
    """Orthonormal relative moves dz_i / |z_i| that keep the equations, shape (q, n, r).

    Null space of the Jacobian, singular values up to `cut` included: a move by 1 then changes
    the relative residual by less than `cut`. Cost: O(E (n r)^2).
    """
    sizes = np.linalg.norm(terms, axis=1).repeat(terms.shape[1])
    jacobian = equations.jacobian(terms[None], signs[None])[0] * sizes
    if not np.all(np.isfinite(jacobian)):
        return np.zeros((0, *terms.shape))
    if jacobian.shape[0] > jacobian.shape[1]:
        jacobian = np.linalg.qr(jacobian, mode="r")
    _, sigma, right = np.linalg.svd(jacobian, full_matrices=True)
    kept = right[int(np.count_nonzero(sigma > cut)) :]
    return np.ascontiguousarray(kept).reshape(-1, *terms.shape)


@dataclass(frozen=True, eq=False)
class Walk:
    """The farthest valid set that a walk reached: its terms and its difference to the start."""

    terms: FloatArray
    difference: float


def walk(
    equations: SetEquations,
    terms: FloatArray,
    signs: FloatArray,
    examine: Callable[[FloatArray], float],
    *,
    cut: float,
    seed: int = 0,
    tries: int = 6,
    budget: Budget = UNLIMITED,
) -> Walk | None:
    """Move along the continuum of solutions through `terms`, back to the equations at each step.

    `examine(terms)` is the difference to the start, or a negative number for a set that breaks
    an assumption, where the walk turns back. Returns the farthest set seen, or None where no
    direction leads away: predictor and corrector of numerical continuation (Allgower & Georg
    1990).
    """
    moves = tangents(equations, terms, signs, cut)
    if len(moves) == 0:
        return None
    units = terms / np.linalg.norm(terms, axis=1, keepdims=True)
    sideways = moves - np.sum(moves * units, axis=2, keepdims=True) * units
    left, sigma, _ = np.linalg.svd(sideways.reshape(len(moves), -1), full_matrices=False)
    useful = left[:, sigma > 1e-6]
    if useful.shape[1] == 0:
        return None
    best: Walk | None = None
    rng = np.random.default_rng([seed, 0x77])
    for attempt in range(tries):
        mix = rng.standard_normal(useful.shape[1])
        if attempt == 0:
            mix = np.eye(useful.shape[1])[0]
        direction = np.tensordot(useful @ mix, moves, axes=1)
        for sense in (1.0, -1.0):
            found = _march(equations, terms, signs, sense * direction, examine, cut, budget)
            if found is not None and (best is None or found.difference > best.difference):
                best = found
            if budget.expired or (best is not None and best.difference >= FAR):
                return best
        if useful.shape[1] == 1 or (attempt == 1 and best is not None and best.difference > 0.2):
            break
    return best


def _march(
    equations: SetEquations,
    start: FloatArray,
    signs: FloatArray,
    direction: FloatArray,
    examine: Callable[[FloatArray], float],
    cut: float,
    budget: Budget,
) -> Walk | None:
    """One walk; the direction follows the secant and the step halves where Newton fails."""
    best: Walk | None = None
    current, stride = start, 0.25
    for _ in range(16):
        if budget.expired:
            break
        direction = direction / float(np.linalg.norm(direction, axis=1).max())
        sizes = np.linalg.norm(current, axis=1, keepdims=True)
        trial, norm = polish(
            equations, current + stride * sizes * direction, signs, cut=max(cut, 1e-12)
        )
        shift = (trial - current) / sizes
        fits = norm <= max(1e-11, cut) and float(np.abs(shift).max()) < 3.0 * stride
        difference = examine(trial) if fits else -1.0
        if difference < 0.0:
            stride *= 0.4
            if stride < 0.03:
                break
            continue
        if best is None or difference > best.difference:
            best = Walk(trial, difference)
        if best.difference >= FAR:
            break
        current, direction = trial, shift
    return best


def batch_size(equations: SetEquations, count: int) -> int:
    """How many starts of n terms fit into one batch."""
    data = equations.reduced
    unknowns = count * data.dimension
    rows = data.equations + count
    return max(1, _CHUNK // (unknowns * (rows + unknowns)))


def start_cost(equations: SetEquations, count: int) -> float:
    """Flops of one start of `minimise`, for budgets."""
    data = equations.reduced
    unknowns = float(count * data.dimension)
    return 150.0 * unknowns**2 * (2.0 * data.equations + unknowns)


def eliminate(
    equations: SetEquations,
    terms: FloatArray,
    signs: FloatArray,
    *,
    limit: int,
    rng: np.random.Generator,
    budget: Budget = UNLIMITED,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sets of n terms from sets of n + 1: each term in turn is driven to zero along the continuum.

    Where there are as many equations as unknowns this reaches solutions that random starts of n
    terms miss. Returns terms (B, n, r), signs (B, n) and relative residuals (B,).
    """
    batch, count, _ = terms.shape
    sets, chosen = np.divmod(rng.permutation(batch * count)[:limit], count)
    order = np.argsort(np.arange(count) == chosen[:, None], axis=1, kind="stable")
    z = np.take_along_axis(terms[sets], order[:, :, None], axis=1)
    s = np.take_along_axis(signs[sets], order, axis=1)
    typical = float(np.median(np.linalg.norm(terms, axis=2))) + _TINY
    for share in (0.03, 0.003):
        shrinking = equations.shrinking(share / typical)
        z, _ = minimise(shrinking, z, s, goal=1e-14, max_steps=60, budget=budget)
    z, s = np.ascontiguousarray(z[:, :-1]), np.ascontiguousarray(s[:, :-1])
    z, norms = minimise(equations, z, s, goal=1e-13, budget=budget)
    return z, s, norms
