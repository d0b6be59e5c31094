"""Measurements behind a verdict: V, rank H, T, the decomposition, its bounds and ties."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.decomposition.decompose import decompose_tensor, order_by_size
from identify.decomposition.refine import Decomposition
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData, distinct_directions, in_range, reduce_data
from identify.interpolation.interpolate import (
    Interpolation,
    interpolate,
    row_weights,
    solve_tensor,
)
from identify.recovery.assumptions import Assumptions
from identify.recovery.bounds import ErrorBounds, bound_errors, no_bounds
from identify.recovery.data_error import DataError, data_error, lone_consistency, movement_error
from identify.recovery.hidden_share import HiddenShare, hidden_share
from identify.recovery.leftover import Leftover, leftover_residual
from identify.recovery.samples import Samples, to_samples
from identify.recovery.second_method import CHEAP_DIMENSION, SecondMethod, second_method
from identify.recovery.second_sample import lone_share, pair_distance
from identify.recovery.ties import Tie, check_ties, tie_rows
from identify.thresholds import BALANCE_LIMIT, NOISE_FLOOR, NOISE_LIMIT, ROUNDS

_CHEAP_PRODUCT = 20_000_000
METHODS = ("auto", "pencil", "tensorly")


@dataclass(frozen=True, eq=False)
class Findings:
    """All measurements that the rules look at.

    `unsettled` is the residual that the last round left above its noise level, if it did.
    """

    noise_level: float
    reduced: ReducedData | None = None
    linear: Interpolation | None = None
    linear_residual: float | None = None
    decomposition: Decomposition | None = None
    samples: Samples | None = None
    bounds: ErrorBounds | None = None
    tie: Tie | None = None
    leftover: Leftover | None = None
    hidden: HiddenShare | None = None
    second: SecondMethod | None = None
    neurons: int = 0
    timed_out: bool = False
    unsettled: float | None = None
    in_range: bool = True

    @property
    def decomposes(self) -> bool:
        """Whether a refined r-term set fits to ten times the noise level."""
        found = self.decomposition
        return found is not None and found.residual <= 10.0 * self.noise_level

    @property
    def redundancy(self) -> int | None:
        """rank H - r^2 + ties, None before the rank is known."""
        if self.linear is None or self.reduced is None:
            return None
        ties = self.tie.equations if self.tie is not None else 0
        return self.linear.rank - self.reduced.dimension**2 + ties

    @property
    def tied(self) -> bool:
        """Whether ties, and no equation of the tensor, are what speaks for the number."""
        ties = self.tie.equations if self.tie is not None else 0
        return ties > 0 and (self.redundancy or 0) <= ties


def measure(
    data: HermiteData,
    given: Assumptions,
    *,
    seed: int = 0,
    budget: Budget = UNLIMITED,
    method: str = "pencil",
) -> Findings:
    """Find V, rank H, T, the decomposition and its bounds at a self-consistent noise level.

    rho starts as the largest of consistency, rounding, stated noise and 1e-13; the linear
    residual joins it and everything is redone until rho is stable, at most `ROUNDS` times. The
    residual of the decomposition never joins. `method` is one of `METHODS`; "auto" is the
    pencil, and where it is cheap tensorly as a second method that must not contradict it.
    """
    rho = max(data.consistency or 0.0, data.rounding, given.noise or 0.0, NOISE_FLOOR)
    findings = Findings(noise_level=rho)
    if not in_range(data):
        return Findings(noise_level=rho, in_range=False)
    previous: Findings | None = None
    for _ in range(ROUNDS):
        if data.homogeneous and (data.consistency or 0.0) > BALANCE_LIMIT:
            return Findings(noise_level=rho)
        if rho > NOISE_LIMIT:
            return Findings(noise_level=rho)
        findings = _measure_once(data, rho, previous, seed, budget, method)
        residual = max(findings.linear_residual or 0.0, _merge_residual(findings))
        if _truncated(findings):
            # What a solve left out is no noise.
            residual = _merge_residual(findings)
        if findings.timed_out or residual <= rho * 1.001:
            break
        rho, previous = residual, findings
    else:
        findings = replace(findings, unsettled=rho)
    findings = _finish(data, given, findings, budget)
    return findings if method != "auto" else _compared(findings, seed, budget)


def _truncated(findings: Findings) -> bool:
    """Whether the rank is open, so that the solve left out directions that the data may have."""
    linear = findings.linear
    return linear is not None and linear.determined is None and linear.rank < linear.required


def _merge_residual(findings: Findings) -> float:
    return 0.0 if findings.reduced is None else findings.reduced.merge_residual


def _measure_once(
    data: HermiteData,
    rho: float,
    previous: Findings | None,
    seed: int,
    budget: Budget,
    method: str,
) -> Findings:
    reduced = reduce_data(data, rho, seed=seed)
    findings = Findings(noise_level=rho, reduced=reduced)
    if not reduced.span.clear or reduced.dimension == 0 or reduced.neurons == 0:
        return findings
    neurons = reduced.neurons
    if neurons <= reduced.dimension:
        neurons = distinct_directions(data, rho)
    findings = replace(findings, neurons=neurons)
    kept = _reuse(previous, reduced, rho)
    if kept is not None:
        return replace(
            findings,
            linear=kept.linear,
            linear_residual=kept.linear_residual,
            decomposition=kept.decomposition,
        )
    linear = interpolate(reduced, rho, seed=seed, budget=budget)
    if linear.gram is not None:
        return measure_large(findings, linear, rho, seed, budget, _first(method))
    decomposition = None
    if linear.tensor is not None and linear.determined is not False:
        decomposition = decompose_tensor(
            reduced,
            linear.tensor,
            accept=10.0 * rho,
            seed=seed,
            budget=budget,
            method=_first(method),
        )
    residual = linear.residual
    if decomposition is not None and residual is not None:
        residual = min(residual, decomposition.residual)
    return replace(
        findings,
        linear=linear,
        linear_residual=residual,
        decomposition=decomposition,
        timed_out=budget.expired,
    )


def _reuse(previous: Findings | None, reduced: ReducedData, rho: float) -> Findings | None:
    """The kernel path's work of the last round, if the new noise level changed no decision."""
    if previous is None or previous.reduced is None or previous.linear is None:
        return None
    before, linear = previous.reduced, previous.linear
    same = before.points.shape == reduced.points.shape and before.dropped == reduced.dropped
    if linear.gram is None or not same or linear.condition_number is None:
        return None
    noise = row_weights(reduced, rho)[2]
    clear = 1.0 / linear.condition_number > max(10.0 * noise, 1e-12)
    linear = replace(linear, determined=linear.determined if clear else None, row_noise=noise)
    return replace(previous, linear=linear)


def measure_large(
    findings: Findings,
    linear: Interpolation,
    rho: float,
    seed: int,
    budget: Budget,
    method: str = "pencil",
) -> Findings:
    """Kernel path: solve as far as the pencil needs, refine, then measure what is left."""
    reduced = findings.reduced
    assert reduced is not None
    decomposition: Decomposition | None = None
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
        assert linear.tensor is not None
        decomposition = decompose_tensor(
            reduced,
            linear.tensor,
            accept=10.0 * rho,
            seed=seed,
            budget=budget,
            method=method,
        )
        if budget.expired or (decomposition is not None and decomposition.residual <= 10.0 * rho):
            break
    residual = linear.residual
    if decomposition is not None and residual is not None:
        # T of the refined terms is one more trial tensor: the least residual is below its own.
        residual = min(residual, decomposition.residual)
    return replace(
        findings,
        linear=linear,
        linear_residual=residual if linear.redundant > 0 else None,
        decomposition=decomposition,
        timed_out=budget.expired,
    )


def _finish(data: HermiteData, given: Assumptions, findings: Findings, budget: Budget) -> Findings:
    """Samples, error bounds, ties and hidden share of an accepted decomposition."""
    reduced, found = findings.reduced, findings.decomposition
    if reduced is None or found is None or not findings.decomposes:
        return findings
    terms, signs, _ = order_by_size(found.terms, found.signs, data.degree)
    samples = to_samples(data, reduced, terms, signs, given.scale, given.non_negative)
    level = max(
        data.consistency or 0.0,
        data.rounding,
        given.noise or 0.0,
        findings.linear_residual or 0.0,
        reduced.merge_residual,
        movement_error(data, reduced, terms, signs),
        lone_consistency(data) if reduced.dimension == 1 else 0.0,
    )
    model = data_error(data, reduced, terms, signs, samples, given.arithmetic, findings.noise_level)
    model = _with_pair(data, given, reduced, model, level)
    count, left = leftover_residual(data, reduced, terms, signs)
    leftover: Leftover | None = None
    if count:
        # Noise spreads evenly over the entries of all rows, of which V holds r of D.
        share = np.sqrt(count * data.rows.shape[1] / (len(data.rows) * reduced.dimension))
        leftover = Leftover(count, left, float(10.0 * findings.noise_level * max(1.0, share)))
    findings = replace(findings, samples=samples, leftover=leftover)
    if findings.linear is None or findings.linear.determined is None:
        # Whether another tensor fits as well is open, so that nothing bounds this one.
        return replace(findings, bounds=no_bounds(len(terms), "none: the rank is not clear"))
    bounds = bound_errors(reduced, terms, signs, samples, found.residual, given.noise, level, model)
    tie = check_ties(data, samples, bounds, given.scale, findings.noise_level)
    findings = replace(findings, bounds=bounds, tie=tie)
    return replace(findings, hidden=_hidden(data, given, findings, (terms, signs), budget))


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
    findings: Findings,
    found: tuple[FloatArray, FloatArray],
    budget: Budget,
) -> HiddenShare | None:
    """What a further sample could hide; next to a lone one it is sought outside V."""
    reduced, samples, linear = findings.reduced, findings.samples, findings.linear
    if reduced is None or samples is None or linear is None or not samples.finite:
        return None
    if reduced.dimension < 2:
        return None if data.homogeneous else lone_share(data, reduced, findings.noise_level)
    rows = None
    if findings.tied and findings.tie is not None:
        rows = tie_rows(data, reduced, found[0], samples, findings.tie, given.scale)
    return hidden_share(
        reduced,
        *found,
        data.network.lift(samples.samples) @ reduced.basis,
        findings.noise_level,
        condition_number=linear.condition_number,
        ties=rows,
        limit=given.hidden_share,
        budget=budget,
    )


def _first(method: str) -> str:
    return "pencil" if method == "auto" else method


def _compared(findings: Findings, seed: int, budget: Budget) -> Findings:
    """The findings with what a second method says, where it is cheap."""
    reduced, linear, found = findings.reduced, findings.linear, findings.decomposition
    if reduced is None or linear is None or found is None or findings.bounds is None:
        return findings
    cheap = 2 <= reduced.dimension <= CHEAP_DIMENSION and linear.tensor is not None
    if not cheap or budget.expired or not findings.decomposes:
        return findings
    assert linear.tensor is not None
    terms, _, _ = order_by_size(found.terms, found.signs, reduced.degree)
    second = second_method(
        reduced,
        linear.tensor,
        terms,
        findings.bounds.terms,
        accept=10.0 * findings.noise_level,
        seed=seed,
        budget=budget,
    )
    return replace(findings, second=second)
