"""Measurements behind a verdict: V, rank H, T, the decomposition, its bounds and ties."""

from __future__ import annotations

from dataclasses import replace

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.decomposition.decompose import decompose_tensor, order_by_size
from identify.decomposition.refine import Decomposition
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData, distinct_directions, in_range, reduce_data
from identify.interpolation.interpolate import interpolate
from identify.interpolation.solvers import Interpolation, row_weights, solve_tensor
from identify.recovery.assumptions import Assumptions
from identify.recovery.bounds import bound_errors, no_bounds
from identify.recovery.data_error import DataError, data_error, lone_consistency, movement_error
from identify.recovery.hidden_share import HiddenShare, hidden_share
from identify.recovery.leftover import leftover
from identify.recovery.samples import to_samples
from identify.recovery.second_method import CHEAP_DIMENSION, second_method
from identify.recovery.second_sample import lone_share, pair_distance
from identify.recovery.stages import Decomposed, Interpolated, Recovered, Reduced, Stage
from identify.recovery.ties import check_ties, tie_rows
from identify.thresholds import BALANCE_LIMIT, NOISE_FLOOR, NOISE_LIMIT, ROUNDS

_CHEAP_PRODUCT = 20_000_000
METHODS = ("auto", "pencil", "tensorly")


def measure(
    data: HermiteData,
    given: Assumptions,
    *,
    seed: int = 0,
    budget: Budget = UNLIMITED,
    method: str = "pencil",
) -> Stage:
    """Find V, rank H, T, the decomposition and its bounds at a self-consistent noise level.

    rho starts as the largest of consistency, rounding, stated noise and 1e-13; the linear
    residual joins it and everything is redone until rho is stable, at most `ROUNDS` times. The
    residual of the decomposition never joins. `method` is one of `METHODS`; "auto" is the
    pencil, and where it is cheap tensorly as a second method that must not contradict it.
    """
    rho = max(data.consistency or 0.0, data.rounding, given.noise or 0.0, NOISE_FLOOR)
    unbalanced = data.homogeneous and (data.consistency or 0.0) > BALANCE_LIMIT
    if unbalanced or rho > NOISE_LIMIT or not in_range(data):
        return Stage(rho)
    stage = _measure_once(data, rho, None, seed, budget, method)
    for _ in range(1, ROUNDS):
        if _settled(stage):
            break
        rho = _left(stage)
        if rho > NOISE_LIMIT:
            return Stage(rho)
        stage = _measure_once(data, rho, stage, seed, budget, method)
    if not _settled(stage):
        stage = replace(stage, unsettled=_left(stage))
    if not isinstance(stage, Decomposed) or not stage.fits:
        return stage
    found = _recover(data, given, stage, budget)
    return found if method != "auto" else _compared(found, seed, budget)


def _settled(stage: Reduced) -> bool:
    """Whether the noise level explains what is left, or there is no time to raise it."""
    late = isinstance(stage, Interpolated) and stage.timed_out
    return late or _left(stage) <= stage.noise_level * 1.001


def _left(stage: Reduced) -> float:
    """What the equations and merging leave; what a solve left out is no noise."""
    merged = stage.reduced.merge_residual
    if not isinstance(stage, Interpolated) or stage.truncated:
        return merged
    return max(stage.linear_residual or 0.0, merged)


def _measure_once(
    data: HermiteData,
    rho: float,
    previous: Reduced | None,
    seed: int,
    budget: Budget,
    method: str,
) -> Reduced:
    reduced = reduce_data(data, rho, seed=seed)
    if not reduced.span.clear or reduced.dimension == 0 or reduced.neurons == 0:
        return Reduced(rho, reduced, 0)
    neurons = reduced.neurons
    if neurons <= reduced.dimension:
        neurons = distinct_directions(data, rho)
    stage = Reduced(rho, reduced, neurons)
    kept = _reuse(previous, stage)
    if kept is not None:
        return kept
    linear = interpolate(reduced, rho, seed=seed, budget=budget)
    if linear.gram is not None:
        return measure_large(stage, linear, seed, budget, _first(method))
    found = None
    if linear.determined is not False:
        found = _decompose(stage, linear, seed, budget, _first(method))
    return _solved(stage, linear, linear.residual, found, budget)


def _reuse(previous: Reduced | None, stage: Reduced) -> Interpolated | None:
    """The kernel path's work of the last round, if the new noise level changed no decision."""
    if not isinstance(previous, Interpolated):
        return None
    before, linear, reduced = previous.reduced, previous.linear, stage.reduced
    same = before.points.shape == reduced.points.shape and before.dropped == reduced.dropped
    if linear.gram is None or not same or linear.condition_number is None:
        return None
    noise = row_weights(reduced, stage.noise_level)[2]
    clear = 1.0 / linear.condition_number > max(10.0 * noise, 1e-12)
    linear = replace(linear, determined=linear.determined if clear else None, row_noise=noise)
    return replace(
        previous,
        noise_level=stage.noise_level,
        reduced=reduced,
        neurons=stage.neurons,
        linear=linear,
        timed_out=False,
    )


def measure_large(
    stage: Reduced,
    linear: Interpolation,
    seed: int,
    budget: Budget,
    method: str = "pencil",
) -> Interpolated:
    """Kernel path: solve as far as the pencil needs, refine, then measure what is left."""
    reduced, rho = stage.reduced, stage.noise_level
    found: Decomposition | None = None
    # The weakest direction of V must stand out of the solver's error; cheap products go further.
    cheap = 6 * reduced.neurons**2 * reduced.dimension < _CHEAP_PRODUCT
    weakest = reduced.span.smallest
    for tolerance in (1e-15,) if cheap else (1e-5 * weakest, 1e-9 * weakest):
        linear = solve_tensor(
            reduced,
            linear,
            tolerance=max(tolerance, 1e-3 * rho, 1e-15),
            enough=10.0 * linear.row_noise,
            budget=budget,
        )
        found = _decompose(stage, linear, seed, budget, method)
        if budget.expired or (found is not None and found.residual <= 10.0 * rho):
            break
    residual = linear.residual if linear.redundant > 0 else None
    return _solved(stage, linear, residual, found, budget)


def _decompose(
    stage: Reduced, linear: Interpolation, seed: int, budget: Budget, method: str
) -> Decomposition | None:
    """The best terms of the minimum-norm tensor, None where there is no tensor or no terms."""
    if linear.tensor is None:
        return None
    return decompose_tensor(
        stage.reduced,
        linear.tensor,
        accept=10.0 * stage.noise_level,
        seed=seed,
        budget=budget,
        method=method,
    )


def _solved(
    stage: Reduced,
    linear: Interpolation,
    residual: float | None,
    found: Decomposition | None,
    budget: Budget,
) -> Interpolated:
    late = budget.expired
    if found is None:
        return Interpolated(
            stage.noise_level, stage.reduced, stage.neurons, linear, residual, timed_out=late
        )
    if residual is not None:
        # T of the refined terms is one more trial tensor: the least residual is below its own.
        residual = min(residual, found.residual)
    return Decomposed(
        stage.noise_level, stage.reduced, stage.neurons, linear, residual, found, timed_out=late
    )


def _recover(data: HermiteData, given: Assumptions, stage: Decomposed, budget: Budget) -> Recovered:
    """Samples, error bounds, ties and hidden share of an accepted decomposition."""
    reduced, found = stage.reduced, stage.decomposition
    terms, signs, _ = order_by_size(found.terms, found.signs, data.degree)
    samples = to_samples(data, reduced, terms, signs, given.scale, given.non_negative)
    level = max(
        data.consistency or 0.0,
        data.rounding,
        given.noise or 0.0,
        stage.linear_residual or 0.0,
        reduced.merge_residual,
        movement_error(data, reduced, terms, signs),
        lone_consistency(data) if reduced.dimension == 1 else 0.0,
    )
    model = data_error(data, reduced, terms, signs, samples, given.arithmetic, stage.noise_level)
    model = _with_pair(data, given, reduced, model, level)
    if stage.linear.determined is None:
        # Whether another tensor fits as well is open, so that nothing bounds this one.
        bounds = no_bounds(len(terms), "none: the rank is not clear")
    else:
        bounds = bound_errors(
            reduced, terms, signs, samples, found.residual, given.noise, level, model
        )
    recovered = Recovered(
        stage.noise_level,
        reduced,
        stage.neurons,
        stage.linear,
        stage.linear_residual,
        found,
        samples,
        bounds,
        leftover(data, reduced, terms, signs, stage.noise_level),
        unsettled=stage.unsettled,
        timed_out=stage.timed_out,
    )
    if stage.linear.determined is None:
        return recovered
    tie = check_ties(data, samples, bounds, given.scale, stage.noise_level)
    recovered = replace(recovered, tie=tie)
    return replace(recovered, hidden=_hidden(data, given, recovered, (terms, signs), budget))


def _with_pair(
    data: HermiteData, given: Assumptions, reduced: ReducedData, model: DataError, level: float
) -> DataError:
    """The model with what a second sample next to a lone one adds to its error."""
    if data.homogeneous or reduced.dimension != 1 or given.samples == 1:
        return model
    seen = reduced.off_span + max(level, model.off_span)
    return replace(model, pair=pair_distance(data, reduced, seen))


def _hidden(
    data: HermiteData,
    given: Assumptions,
    stage: Recovered,
    found: tuple[FloatArray, FloatArray],
    budget: Budget,
) -> HiddenShare | None:
    """What a further sample could hide; next to a lone one it is sought outside V."""
    reduced, samples = stage.reduced, stage.samples
    if not samples.finite:
        return None
    if reduced.dimension < 2:
        return None if data.homogeneous else lone_share(data, reduced, stage.noise_level)
    rows = None
    if stage.tied and stage.tie is not None:
        rows = tie_rows(data, reduced, found[0], samples, stage.tie, given.scale)
    return hidden_share(
        reduced,
        found,
        data.network.lift(samples.samples) @ reduced.basis,
        stage.noise_level,
        condition_number=stage.linear.condition_number,
        ties=rows,
        limit=given.hidden_share,
        budget=budget,
    )


def _first(method: str) -> str:
    return "pencil" if method == "auto" else method


def _compared(stage: Recovered, seed: int, budget: Budget) -> Recovered:
    """The findings with what a second method says, where it is cheap."""
    reduced, found, tensor = stage.reduced, stage.decomposition, stage.linear.tensor
    if tensor is None or budget.expired or not 2 <= reduced.dimension <= CHEAP_DIMENSION:
        return stage
    terms, _, _ = order_by_size(found.terms, found.signs, reduced.degree)
    second = second_method(
        reduced,
        tensor,
        terms,
        stage.bounds.terms,
        accept=10.0 * stage.noise_level,
        seed=seed,
        budget=budget,
    )
    return replace(stage, second=second)
