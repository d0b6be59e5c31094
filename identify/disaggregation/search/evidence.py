"""What speaks for the samples of a search: redundancy, error bounds, coverage, permuted nulls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.disaggregation.factor import EPSILON
from identify.disaggregation.search.equations import Point, evaluate, linearise
from identify.disaggregation.search.find import (
    Hunt,
    Sample,
    Search,
    block_noise,
    expected_residual,
    left_over,
    same_as,
    search_view,
    try_start,
    typical_distance,
)
from identify.disaggregation.search.pose import permuted, thinned
from identify.disaggregation.search.signals import signals
from identify.disaggregation.search.spaces import Spaces, View, full_view
from identify.thresholds import SINGULAR

_PROBES = 40
_SIGMAS = 4.0


def power(spaces: Spaces, samples: list[Sample], *, seed: int = 0) -> int:
    """R: equations beyond the unknowns of one sample, by rank and not by counting rows.

    The rank, above the noise, of (I - Q Q^T) v over random h of the affine row space and random p,
    all signals of all layers below each other, minus the unknowns; at most 40, where it is cut.
    For r = 1 the affine row space is a point: then preactivations of the sample's size are drawn.

    Cost: m K^2, K the unknowns plus 40.
    """
    rng = np.random.default_rng(seed)
    view = full_view(spaces)
    count = spaces.unknowns + _PROBES
    columns = [_probe(view, samples, rng) for _ in range(count)]
    values = np.linalg.svd(np.column_stack(columns), compute_uv=False)
    return int((values > 1.0).sum()) - spaces.unknowns


def _probe(view: View, samples: list[Sample], rng: np.random.Generator) -> FloatArray:
    """All signals of a random sample outside their spaces, each in units of what counts as 0."""
    spaces = view.spaces
    chain = spaces.chain
    u = rng.normal(size=view.dimension)
    u *= typical_distance(spaces, samples) / max(float(np.linalg.norm(u)), 1e-300)
    z = view.preactivations(u)
    if view.dimension == 0 or spaces.rank == 1:
        z = rng.normal(size=len(z)) * np.sqrt(np.mean(z**2))
    choice: FloatArray | int = np.asarray(rng.normal(size=chain.space.shape[1]))
    if chain.labelled:
        choice = int(rng.integers(len(chain.space)))
    run = signals(chain, z, None, choice)
    parts = []
    for i, factor in enumerate(spaces.factors):
        if factor is None:
            continue
        level = max(1e-9, 30.0 * factor.error / float(factor.values[-1]))
        pairs = [(run.deltas[i], view.left[i])]
        if i:
            pairs.append((spaces.lift(i, run.features[i - 1]), view.right[i]))
        for value, space in pairs:
            if space is not None:
                unit = value / max(float(np.linalg.norm(value)), 1e-300)
                parts.append((unit - space @ (space.T @ unit)) / level)
    return np.concatenate(parts)


@dataclass(frozen=True)
class SampleBound:
    """Relative error bounds of one sample: of its input, of p, and the Jacobian's condition.

    ``condition`` is the smallest over the largest singular value of the Jacobian with columns of
    norm one.
    """

    input: float
    slope: float
    condition: float


def bound_sample(spaces: Spaces, sample: Sample) -> SampleBound:
    """Bound the error of one sample to first order, at four standard deviations.

    With J the Jacobian of the residual and e_b the noise of an entry of signal b, the unknowns
    have the covariance (J^T J)^-1 (sum_b e_b^2 J_b^T J_b) (J^T J)^-1. What the noise does to the
    row space, noise (root k + 4) |S^-1 c|, is added, and what it does to the row of the bias.
    Infinite where J has no full column rank.

    Cost: m k^2 + k^3.
    """
    view = full_view(spaces)
    y = np.concatenate([view.chart_of(sample.point), sample.choice])
    here = evaluate(view, y, sample.label, tangents=True)
    turn = _moves(view, y)
    # A residual above what the noise explains says how much larger the noise is here.
    noise = block_noise(spaces, sample.where, here, sample.point, sample.label)
    larger = max(1.0, sample.residual / expected_residual(noise))
    levels = [larger * level for level, _ in noise]
    found = _covariance(linearise(view, y, sample.label), turn, levels)
    if found is None:
        return SampleBound(np.inf, np.inf, 0.0)
    covariance, condition = found
    k = view.dimension
    spread = _SIGMAS * float(np.sqrt(max(float(np.trace(covariance[:k, :k])), 0.0)))
    bottom = spaces.bottom
    carried = float(np.linalg.norm(sample.point / bottom.values))
    off_span = bottom.noise * (np.sqrt(bottom.shape[1]) + _SIGMAS) * carried
    last = 0.0
    if spaces.tail is not None:
        last = float(spaces.tail @ sample.point)
        # The row of the bias has its error too, which moves the affine space along ``tail``.
        off_span += _SIGMAS * bottom.noise * carried / float(np.linalg.norm(spaces.tail))
    length = np.sqrt(max(float(sample.point @ sample.point) - last**2, 1e-300))
    direction = _SIGMAS * float(np.sqrt(max(float(np.trace(covariance[k:, k:])), 0.0)))
    slope = direction + _weight_error(view, sample, here, covariance)
    floor = 16.0 * EPSILON
    return SampleBound((spread + off_span) / length + floor, slope + floor, condition)


def _moves(view: View, y: FloatArray) -> FloatArray:
    """An orthonormal basis of the moves of y that F sees: not the scale of p, nor of c."""
    k = view.dimension
    fixed = []
    if len(y) > k:
        fixed.append(np.concatenate([np.zeros(k), y[k:]]))
    if view.spaces.homogeneous:
        fixed.append(np.concatenate([y[:k], np.zeros(len(y) - k)]))
    if not fixed:
        return np.eye(len(y))
    return np.asarray(np.linalg.svd(np.array(fixed))[2][len(fixed) :].T, dtype=np.float64)


def _covariance(
    blocks: list[tuple[FloatArray, FloatArray]], turn: FloatArray, levels: list[float]
) -> tuple[FloatArray, float] | None:
    if turn.shape[1] == 0:
        return np.zeros((len(turn), len(turn))), 1.0
    jacobian = np.vstack([j for _, j in blocks]) @ turn
    scale = np.linalg.norm(jacobian, axis=0)
    if not (np.isfinite(jacobian).all() and scale.min() > 0.0 and jacobian.shape[0] >= len(scale)):
        return None
    q, r = np.linalg.qr(jacobian / scale)
    values = np.linalg.svd(r, compute_uv=False)
    condition = float(values[-1] / values[0])
    if condition < SINGULAR:
        return None
    sizes = np.concatenate(
        [np.full(len(j), level) for (_, j), level in zip(blocks, levels, strict=True)]
    )
    moved = linalg.solve_triangular(r, (q * sizes[:, None]).T) / scale[:, None]
    moved = turn @ moved
    return moved @ moved.T, condition


def _weight_error(view: View, sample: Sample, here: Point, covariance: FloatArray) -> float:
    """Relative error of the weight 1 / (c . S^-1 U^T delta), from the noise and from y."""
    bottom = view.spaces.bottom
    left, right = sample.where.delta / bottom.values, sample.where.point / bottom.values
    k = view.dimension
    slope = (bottom.columns @ right) @ here.run.delta_tangents[0]
    slope[:k] += view.chart.T @ (view.basis.T @ left)
    moved = float(np.sqrt(max(float(slope @ covariance @ slope), 0.0)))
    carried = bottom.noise * float(np.linalg.norm(left) * np.linalg.norm(right))
    return _SIGMAS * abs(sample.weight) * (moved + carried)


@dataclass(frozen=True, eq=False)
class Coverage:
    """Starts in the full spaces: which known samples they find, and zeros that are not known.

    ``hits`` (r,) counts for each known sample.
    """

    starts: int
    hits: tuple[int, ...]
    others: tuple[Sample, ...]


def cover(hunt: Hunt, samples: list[Sample], starts: int) -> Coverage:
    """Search from new starts in the full spaces, where nothing is taken out.

    A zero that is not among the samples is one more point of the solution set.

    Cost: ``starts`` searches of full size.
    """
    state = Search(samples=list(samples))
    view = search_view(hunt, state, [])
    left = left_over(hunt.spaces, [])
    hits = [0] * len(samples)
    others: list[Sample] = []
    done = 0
    while done < starts and not hunt.budget.expired:
        hunt.budget.tell("looking for other samples", done / starts)
        done += 1
        found = try_start(hunt, state, view, left)
        if found is None:
            continue
        place = same_as(found, samples, hunt.spaces)
        if place is not None:
            hits[place] += 1
        elif same_as(found, others, hunt.spaces) is None:
            others.append(found)
    return Coverage(done, tuple(hits), tuple(others))


def null_hits(hunt: Hunt, samples: list[Sample], starts: int) -> tuple[int, int]:
    """Starts and hits of the same search in spaces that no batch explains.

    The rows of U are permuted against the network; what is accepted there is chance.
    """
    spaces = permuted(hunt.spaces, hunt.rng)
    thin = hunt.thin
    if thin.subset is None:
        thin = replace(thin, factors=spaces.factors, columns=spaces.columns)
    else:
        thin = thinned(spaces, hunt.rng)
    other = replace(hunt, spaces=spaces, thin=thin)
    state = Search(samples=list(samples))
    view = search_view(other, state, [])
    left = left_over(spaces, [])
    done = hits = 0
    while done < starts and not hunt.budget.expired:
        hunt.budget.tell("searching permuted spaces", done / starts)
        done += 1
        hits += try_start(other, state, view, left) is not None
    return done, hits
