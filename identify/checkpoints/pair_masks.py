"""ReLU pairs: masks of both checkpoints, where an entry that may have flipped is free.

A neuron's row of the change is sum_i D_ji c_i. Where w_j . c_i has one sign in both checkpoints,
by more than the points can be wrong, D_ji is 0 or A_j . p_i; the neuron may have flipped in all
other entries, and then D_ji is anything between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.budget import Budget
from identify.checkpoints.pair_problem import PairProblem
from identify.disaggregation.cp import decompose_kernel
from identify.disaggregation.factor import Factor, IntArray
from identify.disaggregation.masks import BoolArray, Layer, round_terms
from identify.disaggregation.relu import Operator

_LARGEST = 1e3
_SAFETIES = (6.0, 12.0, 3.0)
_REFINING = (12.0, 6.0, 3.0, 6.0, 12.0)
_TURNS = 30
_PATIENCE = 6
_SWEEPS = 8
_OFTEN_FREE = 0.9
_UNSURE = 0.3
_PROMISING = 0.16
_GOOD = 0.012
_MOSTLY_KNOWN = 0.3
_TRIMS = 3
_FAR = 4.0
_RIDGE = 1e-12
STARTS = ((True, 12), (False, 12), (True, 1), (False, 1), (True, 4))
"""Whether the change of the output weights is a second amplitude, and reweightings of the rows."""


@dataclass(frozen=True, eq=False)
class Separated:
    """Cotangents D (m, n) summed over the run, points (n, r), and the residual that they leave.

    ``amplitudes`` (m, n) are the cotangents of neurons that are on all the time; ``free`` counts
    the entries of D that no mask decides.
    """

    cotangents: FloatArray
    points: FloatArray
    amplitudes: FloatArray
    residual: float
    free: int

    @property
    def score(self) -> float:
        """The residual, raised by the share of the entries that were free: less is better."""
        return self.residual * (1.0 + 2.0 * self.free / self.cotangents.size)


def separate_masks(
    problem: PairProblem, leak: float, budget: Budget, seed: int
) -> Separated | None:
    """The best of five starts, refined; the first that leaves about 1 % or less ends the search.

    None if no start gives points.
    """
    best: Separated | None = None
    for index, (moving, rounds) in enumerate(STARTS):
        budget.tell("separating the samples", index / len(STARTS))
        if best is not None and budget.expired:
            break
        layer = _layer(problem, leak, moving)
        try:
            masks, p = _from_kernel(problem, layer, rounds, seed + index)
        except np.linalg.LinAlgError:  # every pencil is singular, or the kernel's form is
            continue
        amplitude = layer.amplitudes @ p.T
        begin = _unfitted(np.where(masks, 1.0, leak) * amplitude, amplitude, problem.count)
        for safety in _SAFETIES:
            found = alternate(problem, layer, begin, safety, bent=False)
            if found is None:
                continue
            refined = _refined(problem, layer, found) if found.residual < _PROMISING else found
            if best is None or refined.score < best.score:
                best = refined
            if best.score < _GOOD and best.free < _MOSTLY_KNOWN * best.cotangents.size:
                return best
    return best


def _refined(problem: PairProblem, layer: Layer, found: Separated) -> Separated:
    """The separation with amplitudes that follow the run, if that leaves less."""
    best = found
    for safety in _REFINING:
        better = alternate(problem, layer, best, safety, bent=True, error=best.residual)
        if better is not None and better.score < best.score:
            best = better
    return best


def _layer(problem: PairProblem, leak: float, moving: bool) -> Layer:
    amplitudes = problem.amplitudes(moving=moving)
    return Layer(problem.before, np.zeros(problem.width), amplitudes, leak, True)


def _from_kernel(
    problem: PairProblem, layer: Layer, rounds: int, seed: int
) -> tuple[BoolArray, FloatArray]:
    """Masks (m, n) and p (n, q) of the terms of the kernel, rows reweighted by what they leave."""
    count = problem.count
    length = np.linalg.norm(layer.amplitudes[:, :1] if layer.amplitudes.shape[1] == 2
                            else layer.amplitudes, axis=1)  # fmt: skip
    length = np.maximum(length, 1e-3 * np.median(length))
    base = np.minimum((np.median(length) / length) ** 2, _LARGEST)
    plain = Operator(
        problem.columns, layer.amplitudes, layer.leak, np.ones(problem.width),
        (problem.values[0] / problem.values) ** 2,
    )  # fmt: skip
    rows = np.concatenate([block for _, block in plain.chunks()])
    form = plain.metric
    share = np.ones(problem.width)
    kept = min(problem.width - 1, max(int(1.2 * plain.unknowns), int(0.3 * problem.width)))
    for _ in range(rounds):
        vectors = _kernel(plain, rows, base * share, count)
        z, p, _ = plain.unpack(vectors)
        slope = 2.0 * np.einsum("kab,jb->jka", z, problem.columns) - (1.0 + layer.leak) * np.einsum(
            "kaq,jq->jka", p, layer.amplitudes
        )
        size = np.sum((rows @ vectors) ** 2, axis=1)
        size /= np.maximum(np.einsum("jka,a->j", slope**2, form), 1e-300)
        level = float(np.partition(size, kept)[kept]) + 1e-300
        new = 1.0 / (1.0 + size / level) ** 2
        if float(np.abs(new - share).max()) < 1e-3:
            break
        share = new
    terms = decompose_kernel(z, p, seed=seed)
    masks, slopes = round_terms(layer, _factor(problem), terms)
    return masks, slopes


def _kernel(operator: Operator, rows: FloatArray, squared: FloatArray, count: int) -> FloatArray:
    """The ``count`` smallest generalised eigenvectors of L^T L against the noise form."""
    weighted = replace(operator, weights=np.sqrt(squared))
    normal = (rows * squared[:, None]).T @ rows
    form = weighted.noise_form(np.eye(operator.unknowns))
    scale = 1.0 / np.sqrt(np.maximum(np.diag(form), 1e-300))
    normal *= scale[:, None] * scale
    form = 0.5 * (form + form.T) * (scale[:, None] * scale)
    form[np.diag_indices(len(form))] += 1e-11
    vectors = linalg.eigh(normal, form, subset_by_index=[0, count - 1])[1]
    return np.asarray(scale[:, None] * vectors, dtype=np.float64)


def _factor(problem: PairProblem) -> Factor:
    shape = (problem.width, problem.count)
    return Factor(
        problem.columns, problem.values, np.eye(problem.count), 0.0, np.inf, 0.0, True, shape, shape
    )


def _unfitted(cotangents: FloatArray, amplitudes: FloatArray, count: int) -> Separated:
    """A start whose points are not known yet."""
    return Separated(cotangents, np.zeros((count, count)), amplitudes, np.inf, cotangents.size)


def alternate(
    problem: PairProblem,
    layer: Layer,
    begin: Separated,
    safety: float,
    *,
    bent: bool,
    error: float = _UNSURE,
) -> Separated | None:
    """Points from cotangents, safe masks and free entries from points; the best residual.

    None if the first cotangents give no points.
    """
    cotangents, amplitudes, free = begin.cotangents, begin.amplitudes, begin.free
    free_rows = np.ones(problem.width)
    best: Separated | None = None
    since = 0
    for _ in range(_TURNS):
        weight = np.where(free_rows <= np.quantile(free_rows, _OFTEN_FREE), 1.1, 0.1)[:, None]
        points = np.linalg.lstsq(cotangents * weight, problem.change * weight, rcond=None)[0]
        size = points @ problem.last
        if not np.isfinite(points).all() or not size.all():
            break
        points, amplitudes, cotangents = (
            points / size[:, None],
            amplitudes * size,
            cotangents * size,
        )
        residual = problem.residual(cotangents, points)
        if best is None or residual < best.residual * (1.0 - 1e-3):
            best, since = Separated(cotangents, points, amplitudes, residual, free), 0
        else:
            since += 1
        if since > _PATIENCE or residual < 1e-10:
            break
        on, off = _safe(problem, points, safety * min(best.residual, error))
        amplitudes = _follow(problem, layer, points, on, amplitudes, bent=bent)
        unsure = ~(on | off)
        cotangents = _between(problem, points, amplitudes, layer.leak, on, unsure)
        free_rows = np.sum(unsure, axis=1).astype(np.float64)
        free = int(free_rows.sum())
    return best


def _safe(problem: PairProblem, points: FloatArray, error: float) -> tuple[BoolArray, BoolArray]:
    """Entries (m, n) that are on, and off, in both checkpoints with room for the error."""
    before, after = problem.before @ points.T, problem.after @ points.T
    room = error * problem.entry * np.linalg.norm(points, axis=1)
    return (before > room) & (after > room), (before < -room) & (after < -room)


def _follow(
    problem: PairProblem,
    layer: Layer,
    points: FloatArray,
    on: BoolArray,
    amplitudes: FloatArray,
    *,
    bent: bool,
) -> FloatArray:
    """Amplitudes (m, n) that fit the entries which are surely on.

    The output weights move by sum_k relu(z_k) times slopes, each sample k at its own pace, so that
    sum_t p_i(t) a(t) lies in the span of their midpoint and the features of all samples; ``bent``
    adds these, of both checkpoints.
    """
    wanted = problem.change @ np.linalg.pinv(points)
    designs = [layer.amplitudes]
    if bent:
        inner = problem.before @ points.T, problem.after @ points.T
        designs.append(
            np.hstack([layer.amplitudes, *(np.maximum(z, layer.leak * z) for z in inner)])
        )
    result = amplitudes.copy()
    for index in range(len(points)):
        rows = np.flatnonzero(on[:, index])
        for design in designs:
            fitted = _trimmed(design, wanted[:, index], rows)
            if fitted is not None:
                result[:, index] = fitted
    return result


def _trimmed(design: FloatArray, wanted: FloatArray, rows: IntArray) -> FloatArray | None:
    """Least squares on rows, twice more without those far off; None with too few of them."""
    size = np.maximum(np.linalg.norm(design, axis=0), 1e-300)
    design = design / size
    kept, x = rows, None
    for _ in range(_TRIMS):
        if len(kept) < 2 * design.shape[1]:
            break
        part = design[kept]
        gram = part.T @ part
        gram[np.diag_indices(len(gram))] += _RIDGE * np.trace(gram)
        x = np.linalg.solve(gram, part.T @ wanted[kept])
        away = np.abs(design[rows] @ x - wanted[rows])
        kept = rows[away <= _FAR * np.median(away)]
    return None if x is None else np.asarray(design @ x)


def _between(
    problem: PairProblem,
    points: FloatArray,
    amplitudes: FloatArray,
    leak: float,
    on: BoolArray,
    free: BoolArray,
) -> FloatArray:
    """D (m, n): A where on, s A where off, and least squares between the two where free.

    Coordinate descent in the box, from the least squares without it, clipped.
    """
    ends = leak * amplitudes, amplitudes
    low, high = np.minimum(*ends), np.maximum(*ends)
    fixed = np.where(free, 0.0, np.where(on, amplitudes, ends[0]))
    gram = points @ points.T
    aim = problem.change @ points.T
    rows = np.flatnonzero(free.any(axis=1))
    some = free[rows]
    systems = gram * some[:, :, None] * some[:, None, :]
    index = np.arange(len(gram))
    systems[:, index, index] += np.where(some, _RIDGE * np.trace(gram), 1.0)
    right = np.where(some, aim[rows] - fixed[rows] @ gram, 0.0)
    solved = np.linalg.solve(systems, right[:, :, None])[:, :, 0]
    result = fixed
    result[rows] = np.where(some, np.clip(solved, low[rows], high[rows]), fixed[rows])
    for _ in range(_SWEEPS):
        for column in range(len(gram)):
            rows = np.flatnonzero(free[:, column])
            step = (aim[rows, column] - result[rows] @ gram[:, column]) / gram[column, column]
            result[rows, column] = np.clip(
                result[rows, column] + step, low[rows, column], high[rows, column]
            )
    return result
