"""Sample after sample: starts, minimisation, acceptance, deflation, back-tracking."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.factor import EPSILON, Factor
from identify.disaggregation.search.equations import (
    Point,
    Stop,
    evaluate,
    minimise,
    settle,
    start_cotangent,
)
from identify.disaggregation.search.signals import Signals, signals
from identify.disaggregation.search.spaces import (
    Coordinates,
    Spaces,
    View,
    coordinates,
    deflated_view,
    full_view,
    with_references,
)

STAGE = "searching samples"
_SEARCH = Stop(steps=50, cost=1e-13, gain=1e-2, patience=3)
_POLISH = Stop(steps=25, cost=1e-30, gain=0.5, patience=2, damping=1e-6)
_NEAR = (1e-3, 0.1)
_AMPLIFIED = 1e3
_SAME = 1e-3
_WIDE = (0.3, 3.0)
_REACH = (0.3, 1.5)
_LEAST_WEIGHT, _MOST_WEIGHT = 0.05, 20.0
_STALLED = 60
_ROUNDING = 4e-16
_DRAWS = 8


@dataclass(frozen=True, eq=False)
class Sample:
    """One accepted zero of F in the full spaces.

    ``point`` c (r,), ``choice`` the free numbers of p or none, ``label`` the label that fits, both
    with weight c: delta_i = weight * (delta of the run). ``residual`` |r| against ``tolerance``.
    """

    point: FloatArray
    choice: FloatArray
    label: int | None
    where: Coordinates
    weight: float
    cotangent: FloatArray
    outputs: FloatArray
    residual: float
    tolerance: float


@dataclass(eq=False)
class Search:
    """The state of a search: samples, zeros that were taken back, and what it cost."""

    samples: list[Sample] = field(default_factory=list)
    doubtful: list[Sample] = field(default_factory=list)
    starts: int = 0
    steps: int = 0
    near_misses: int = 0
    stopped: str = ""


@dataclass(frozen=True, eq=False)
class Hunt:
    """What stays fixed during a search.

    ``thin`` are the spaces of a part of the neurons, in which starts are followed; samples are
    polished and accepted in ``spaces``. ``bias_slope`` (C,) is the output bias's gradient, from
    which the labels that are still missing are told. ``kappa`` times the expected residual is
    accepted, never more than ``cap``.
    """

    spaces: Spaces
    thin: Spaces
    bias_slope: FloatArray | None
    rng: np.random.Generator
    budget: Budget = UNLIMITED
    most_starts: int = 3000
    kappa: float = 5.0
    cap: float = 0.03


def search(hunt: Hunt) -> Search:
    """Find the samples one after another, each in the spaces that the others leave.

    A search that stalls takes back the sample with the largest residual for its tolerance, once
    for every four samples at the most, and goes on.

    Cost: r searches of some ten steps of 2 m k^2 operations, k falling from r to 1.
    """
    state = Search()
    rank = hunt.spaces.rank
    budget = rank // 4 + 2
    most: list[Sample] = []
    while len(state.samples) < rank:
        hunt.budget.tell(STAGE, len(state.samples) / rank)
        limit = _STALLED + 10 * (rank - len(state.samples))
        found = _next(hunt, state, limit)
        if found is not None:
            state.samples.append(found)
            continue
        if hunt.budget.expired:
            state.stopped = "the time limit ended the search"
            break
        if budget == 0 or not state.samples or state.starts >= hunt.most_starts:
            state.stopped = f"no further sample in {limit} starts"
            break
        budget -= 1
        if len(state.samples) > len(most):
            most = list(state.samples)
        _take_back(state)
    if len(state.samples) < len(most):
        # What was taken back was not to blame.
        state.samples = most
    state.doubtful = [s for s in state.doubtful if same_as(s, state.samples, hunt.spaces) is None]
    return state


def _take_back(state: Search) -> None:
    worst = max(
        range(len(state.samples)),
        key=lambda i: state.samples[i].residual / state.samples[i].tolerance,
    )
    state.doubtful.append(state.samples.pop(worst))


def _next(hunt: Hunt, state: Search, limit: int) -> Sample | None:
    """The next sample, or None after ``limit`` starts."""
    view = search_view(hunt, state, state.samples)
    left = left_over(hunt.spaces, state.samples) @ view.basis
    # What was taken back last would only be found again; with another one gone it may be right.
    known = [*state.samples, *state.doubtful[-1:]]
    for _ in range(limit):
        if hunt.budget.expired or state.starts >= hunt.most_starts:
            return None
        state.starts += 1
        found = try_start(hunt, state, view, left)
        if found is None:
            continue
        if same_as(found, known, hunt.spaces) is None:
            return found
        state.near_misses += 1
    return None


def left_over(spaces: Spaces, samples: list[Sample]) -> FloatArray:
    """U^T G V less the samples' share, (r, r), at the first layer."""
    matrix = np.diag(spaces.bottom.values)
    for sample in samples:
        matrix = matrix - sample.weight * np.outer(sample.where.delta, sample.where.point)
    return matrix


def search_view(hunt: Hunt, state: Search, taken: list[Sample]) -> View:
    """The view of the starts after samples have been taken out, with its denominator."""
    view = deflated_view(hunt.thin, [sample.where for sample in taken])
    # With one direction left, or two, the centre is too near to the samples to be left out.
    if view.basis.shape[1] <= 2:
        return view
    if not hunt.spaces.homogeneous:
        return with_references(view)
    left = left_over(hunt.spaces, taken) @ view.basis
    draws = [start(hunt, state, view, left) for _ in range(20)]
    return with_references(view, draws=draws)


def start(hunt: Hunt, state: Search, view: View, left: FloatArray) -> FloatArray:
    """A start u: a random combination of the rows of what is left of G, at a sample's distance."""
    spaces, rng = hunt.spaces, hunt.rng
    u: FloatArray = view.chart.T @ (left.T @ rng.normal(size=len(left)))
    size = float(np.linalg.norm(u))
    if size == 0.0:
        u = rng.normal(size=view.dimension)
        size = max(float(np.linalg.norm(u)), 1e-300)
    if spaces.homogeneous:
        return u / size
    distance = typical_distance(spaces, state.samples)
    if state.samples:
        distance *= rng.uniform(*_REACH)
    else:
        distance *= float(np.exp(rng.uniform(*np.log(_WIDE))))
        if spaces.tail is None:
            # Without a bias the scale is that of preactivations at which s' bends.
            reach = np.linalg.norm(view.tangent @ (u / size)) / np.sqrt(len(view.tangent))
            distance /= max(float(reach), 1e-300)
    return u * (distance / size)


def typical_distance(spaces: Spaces, samples: list[Sample]) -> float:
    """How far samples lie from the centre of the affine row space, the known ones or a guess.

    n independent samples of length l have a smallest affine combination of length l / root n.
    """
    if spaces.homogeneous:
        return 1.0
    if samples:
        return float(np.median([np.linalg.norm(_from_centre(spaces, s.point)) for s in samples]))
    if spaces.tail is not None:
        return float(np.sqrt(spaces.rank) / np.linalg.norm(spaces.tail))
    return 1.0


def _from_centre(spaces: Spaces, point: FloatArray) -> FloatArray:
    if spaces.tail is None:
        return point
    return point - spaces.tail / (spaces.tail @ spaces.tail)


def try_start(hunt: Hunt, state: Search, view: View, left: FloatArray) -> Sample | None:
    """Follow one start to a minimum and accept what is a zero in the full spaces."""
    u = np.ones(1) if hunt.spaces.homogeneous and view.dimension == 1 else None
    u = start(hunt, state, view, left) if u is None and view.dimension else u
    u = np.zeros(0) if u is None else u
    label = draw_label(hunt, state)
    y = np.concatenate([u, start_cotangent(view, u)])
    here = evaluate(view, y, label, tangents=False)
    if len(y) and view.basis.shape[1] > 1:
        here, steps = minimise(view, y, label, _SEARCH)
        state.steps += steps
    last = view.basis.shape[1] == 1
    if not np.isfinite(here.share) or (here.share > near_zero(hunt.spaces) and not last):
        return None
    point = view.point(here.y[: view.dimension])
    labels = [label]
    if last and label is not None:
        labels = list(_by_fit(hunt, point))
    return next(
        (s for s in (polish(hunt, state, point, here, y) for y in labels) if s is not None), None
    )


def near_zero(spaces: Spaces) -> float:
    """The residual from which on a minimum is worth a polish: what is taken out leaves errors."""
    bottom = spaces.bottom
    return float(np.clip(_AMPLIFIED * bottom.error / bottom.values[-1], *_NEAR))


def _by_fit(hunt: Hunt, point: FloatArray) -> list[int]:
    """The three labels that fit best at a point."""
    view = full_view(hunt.spaces)
    u = view.chart_of(point)
    count = len(hunt.spaces.chain.space)
    shares = [evaluate(view, u, y, tangents=False).share for y in range(count)]
    return [int(y) for y in np.argsort(shares)[:3]]


def draw_label(hunt: Hunt, state: Search) -> int | None:
    """A label to try, None where labels are not tried.

    sum_i c_i (p_i - e_(y_i)) is the gradient of the output bias: what is missing there says which
    labels are left.
    """
    chain = hunt.spaces.chain
    if not chain.labelled:
        return None
    count = len(chain.space)
    expected = np.full(count, 1.0)
    if hunt.bias_slope is not None:
        rest = hunt.bias_slope.copy()
        typical, weight = np.full(count, 1.0 / count), 1.0 / hunt.spaces.rank
        if np.abs(rest).max() > 1.0:
            weight = 1.0
        if state.samples:
            weight = float(np.mean([s.weight for s in state.samples]))
            for s in state.samples:
                rest -= s.weight * s.cotangent
            shares = [
                s.cotangent + np.eye(count)[0 if s.label is None else s.label]
                for s in state.samples
            ]
            typical = np.mean(shares, axis=0)
        missing = hunt.spaces.rank - len(state.samples)
        expected = np.maximum(missing * typical - rest / weight, 0.05)
    return int(hunt.rng.choice(count, p=expected / expected.sum()))


def polish(
    hunt: Hunt, state: Search, point: FloatArray, near: Point, label: int | None
) -> Sample | None:
    """Minimise F in the full spaces from c and accept the result if the noise allows it."""
    spaces = hunt.spaces
    view = full_view(spaces)
    free = near.y[len(near.y) - spaces.chain.free :] if spaces.chain.free else np.zeros(0)
    y = np.concatenate([view.chart_of(point), free])
    here, steps = minimise(view, y, label, _POLISH)
    state.steps += steps
    if not np.isfinite(here.cost) or here.share > hunt.cap:
        return None
    return accept(hunt, settle(view, here, label), label)


def accept(hunt: Hunt, here: Point, label: int | None) -> Sample | None:
    """The sample at a point of the full spaces, if the noise allows its residual."""
    spaces = hunt.spaces
    view = full_view(spaces)
    found = view.point(here.y[: view.dimension])
    where = coordinates(spaces, found, here.run)
    noise = block_noise(spaces, where, here, found, label)
    tolerance = expected_residual(noise) * hunt.kappa
    residual = float(np.sqrt(here.cost))
    if tolerance > hunt.cap or residual > tolerance:
        return None
    weight = weight_of(spaces, where)
    if not np.isfinite(weight) or weight == 0.0:
        return None
    if label is not None and not _LEAST_WEIGHT / spaces.rank < weight < _MOST_WEIGHT:
        return None
    return Sample(
        found, here.y[view.dimension :], label, where, weight, here.run.cotangent,
        here.run.outputs, residual, tolerance,
    )  # fmt: skip


def weight_of(spaces: Spaces, where: Coordinates) -> float:
    """c_i = 1 / (h_i^T G^+ delta_i) at the first layer: the factor of the sample's term in G."""
    product = float(where.point @ (where.delta / spaces.bottom.values))
    return 1.0 / product if product != 0.0 else float("inf")


def block_noise(
    spaces: Spaces, where: Coordinates, here: Point, point: FloatArray, label: int | None
) -> list[tuple[float, int]]:
    """What the noise of G does to an entry of each residual of F, and the number of entries.

    An error E of G moves (I - U U^T) delta by -(I - U U^T) E G^+ delta, whose entries have the
    size noise |G^+ delta|; the same for the rows. It moves the row space too, and z_j by
    noise |S^-1 c| |w_j|, which the tangents carry to all signals. Rounding is added.
    """
    levels = []
    moved = _moved_by_rows(spaces, here, point, label)
    for i, factor in enumerate(spaces.factors):
        inside = where.deltas[i]
        if factor is not None and inside is not None:
            levels.append(_level(factor, inside, here.run.deltas[i], moved.delta_tangents[i]))
    for i, factor in enumerate(spaces.factors[1:], start=1):
        inside = where.inputs[i]
        if factor is not None and inside is not None:
            value = spaces.lift(i, here.run.features[i - 1])
            levels.append(_level(factor, inside, value, moved.feature_tangents[i - 1]))
    return levels


def _moved_by_rows(spaces: Spaces, here: Point, point: FloatArray, label: int | None) -> Signals:
    """Tangents of the signals along a few random errors of z that the row space may have."""
    bottom = spaces.bottom
    size = bottom.noise * float(np.linalg.norm(point / bottom.values))
    errors = np.random.default_rng(0).normal(size=(len(spaces.row_sizes), _DRAWS))
    free = spaces.chain.free
    choice: FloatArray | int = np.ones(1) if label is None else label
    if free:
        choice = here.y[len(here.y) - free :]
    z = spaces.offset + spaces.rows_map @ point
    return signals(spaces.chain, z, size * spaces.row_sizes[:, None] * errors, choice)


def _level(
    factor: Factor, inside: FloatArray, value: FloatArray, moved: FloatArray
) -> tuple[float, int]:
    size = max(float(np.linalg.norm(value)), 1e-300)
    entries = len(value)
    own = _entry_noise(factor, entries) * float(np.linalg.norm(inside / factor.values))
    rows = float(np.linalg.norm(moved[:, :_DRAWS])) / np.sqrt(_DRAWS * entries)
    return float(np.hypot(own, rows)) / size + _ROUNDING, entries


def _entry_noise(factor: Factor, entries: int) -> float:
    """The noise of an entry, at least what the backward error of the singular vectors leaves."""
    return max(factor.noise, 8.0 * EPSILON * float(factor.values[0]) / float(np.sqrt(entries)))


def expected_residual(levels: list[tuple[float, int]]) -> float:
    """root F that the noise of G leaves at a true sample."""
    return float(np.sqrt(sum(level**2 * entries for level, entries in levels)))


def same_as(sample: Sample, known: list[Sample], spaces: Spaces) -> int | None:
    """The place of the sample among the known ones, or None."""
    for index, other in enumerate(known):
        apart = float(np.linalg.norm(sample.point - other.point))
        if spaces.homogeneous or spaces.two_sided:
            apart = min(apart, float(np.linalg.norm(sample.point + other.point)))
        if apart < _SAME * float(np.linalg.norm(other.point)):
            return index
    return None
