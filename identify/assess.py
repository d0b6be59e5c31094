"""From Hermite data to a verdict with everything it rests on."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np
import scipy

from identify import wording
from identify.alternatives import search_sets
from identify.decompose import Decomposition, decompose_tensor, order_by_size
from identify.errors import InvalidInputError, NotDeterminedError
from identify.hermite import HermiteData
from identify.interpolation import Interpolation, interpolate, row_weights, solve_tensor
from identify.reduction import ReducedData, distinct_directions, reduce_data
from identify.results import (
    Condition,
    IdentifiabilityReport,
    Recovery,
    Residual,
    Scope,
    TrainingSet,
    Verdict,
)
from identify.samples import (
    ErrorBounds,
    Samples,
    Tie,
    bound_errors,
    check_ties,
    resolve_scale,
    to_samples,
)

Progress = Callable[[str, float], None]
NOISE_FLOOR = 1e-13
BALANCE_LIMIT = 1e-2
NOISE_LIMIT = 0.03
BOUND_LIMIT = 0.1
_CHEAP_PRODUCT = 20_000_000


@dataclass(frozen=True)
class Assumptions:
    """What the caller takes for granted: `scale` resolved to free, unit, margin or bias."""

    samples: int | None
    scale: str
    non_negative: bool
    noise: float | None


@dataclass(frozen=True, eq=False)
class Findings:
    """All measurements that the rules look at."""

    noise_level: float
    reduced: ReducedData | None = None
    linear: Interpolation | None = None
    linear_residual: float | None = None
    decomposition: Decomposition | None = None
    samples: Samples | None = None
    bounds: ErrorBounds | None = None
    tie: Tie | None = None
    neurons: int = 0
    timed_out: bool = False

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


def assess_identifiability(
    data: HermiteData,
    samples: int | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> IdentifiabilityReport:
    """Decide whether the data determine the training samples, and recover them.

    With I-hermite on V, r = dim V, and T_V a sum of r independent terms, every set of at most r
    samples that explains the data is the recovered one, up to the listed symmetries. Nothing is
    said about larger sets; redundant equations are what speaks for r.

    Args:
        data: from one of the constructors of `HermiteData`.
        samples: the number of active samples, if known.
        scale: "auto", "unit", "margin" or "bias"; "unit" and "bias" are assumptions that add ties.
        non_negative: assume that all entries of the samples are non-negative.
        noise: relative size of Gaussian noise in the data, in (0, 1).
        time_limit: seconds; when reached the verdict is `undecided`.
        progress: called with a stage name and a share in [0, 1].
        seed: of every random choice; recorded.

    Returns:
        An `IdentifiabilityReport`; a negative verdict is never an exception.

    Raises:
        InvalidInputError: an argument out of range.

    Cost: dense, O(m r N^2), up to 700 unknowns of T; beyond, a few hundred products of 6 m^2 r
        flops.
    Source: uniqueness of a decomposition into independent terms (Kruskal 1977); interpolation by
        values and gradients of forms (Alexander & Hirschowitz 1995).

    Example:
        >>> import numpy as np
        >>> from identify import HermiteData, TwoLayerNetwork
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> x = rng.normal(size=(4, 6))
        >>> gradient = net.gradient(x, np.array([1.0, -2.0, 0.5, 1.5]))
        >>> assess_identifiability(HermiteData.from_gradient(net, gradient)).verdict.value
        'globally'
    """
    started = time.monotonic()
    given = _check_arguments(data, samples, scale, non_negative, noise, time_limit)
    deadline = None if time_limit is None else started + time_limit
    findings = measure(data, given, seed=seed, deadline=deadline, progress=progress)
    outcome = judge(data, given, findings)
    sets: tuple[TrainingSet, ...] = ()
    if outcome.verdict is Verdict.UNDECIDED and outcome.searchable:
        found = _search(data, given, findings, seed, deadline, progress)
        if found is not None:
            sets = found
            outcome = Outcome(
                Verdict.NONIDENTIFIABLE,
                wording.two_sets(outcome.reason, sets, data),
                Scope("shown", (sets[0].count, sets[1].count)),
            )
    if findings.timed_out or (
        outcome.verdict is Verdict.UNDECIDED
        and deadline is not None
        and time.monotonic() > deadline
    ):
        reason = f"time limit of {time_limit:g} s reached; {outcome.reason}"
        outcome = Outcome(Verdict.UNDECIDED, reason, None)
        sets = ()
    return _report(data, given, findings, outcome, sets, seed, time.monotonic() - started)


def recover_samples(
    data: HermiteData,
    samples: int | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Recovery:
    """The samples that `assess_identifiability` recovers, if its verdict is `globally`.

    Raises:
        NotDeterminedError: any other verdict; `.report` holds it, with a recovery if there is one.
    """
    report = assess_identifiability(
        data, samples, scale, non_negative, noise, time_limit, progress, seed
    )
    if report.verdict is not Verdict.GLOBALLY or report.recovery is None:
        raise NotDeterminedError(f"{report.verdict.value}: {report.reason}", report=report)
    return report.recovery


def _check_arguments(
    data: HermiteData,
    samples: int | None,
    scale: str,
    non_negative: bool,
    noise: float | None,
    time_limit: float | None,
) -> Assumptions:
    if samples is not None and samples < 1:
        raise InvalidInputError("samples", "at least 1", samples, "leave it out if unknown")
    if noise is not None and not 0.0 < noise < 1.0:
        raise InvalidInputError("noise", "a relative size in (0, 1)", noise)
    if time_limit is not None and not time_limit > 0.0:
        raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
    return Assumptions(samples, resolve_scale(data, scale), non_negative, noise)


def measure(
    data: HermiteData,
    given: Assumptions,
    *,
    seed: int = 0,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Find V, rank H, T, the decomposition and its bounds at a self-consistent noise level.

    rho starts as the largest of consistency, rounding, stated noise and 1e-13; the linear
    residual joins it and everything is redone until rho is stable. The residual of the
    decomposition never joins.
    """
    rho = max(data.consistency or 0.0, data.rounding, given.noise or 0.0, NOISE_FLOOR)
    findings = Findings(noise_level=rho)
    previous: Findings | None = None
    for _ in range(12):
        if data.homogeneous and (data.consistency or 0.0) > BALANCE_LIMIT:
            return Findings(noise_level=rho)
        if rho > NOISE_LIMIT:
            return Findings(noise_level=rho)
        findings = _measure_once(data, rho, previous, seed, deadline, progress)
        residual = max(findings.linear_residual or 0.0, _merge_residual(findings))
        if findings.timed_out or residual <= rho * 1.001:
            break
        rho, previous = residual, findings
    return _finish(data, given, findings)


def _merge_residual(findings: Findings) -> float:
    return 0.0 if findings.reduced is None else findings.reduced.merge_residual


def _measure_once(
    data: HermiteData,
    rho: float,
    previous: Findings | None,
    seed: int,
    deadline: float | None,
    progress: Progress | None,
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
    linear = interpolate(reduced, rho, seed=seed, deadline=deadline, progress=progress)
    if linear.gram is not None:
        return _measure_large(findings, linear, rho, seed, deadline, progress)
    decomposition = None
    if linear.tensor is not None and linear.determined is not False:
        decomposition = decompose_tensor(
            reduced, linear.tensor, accept=10.0 * rho, seed=seed, deadline=deadline
        )
    residual = linear.residual
    if decomposition is not None and residual is not None:
        residual = min(residual, decomposition.residual)
    return replace(
        findings,
        linear=linear,
        linear_residual=residual,
        decomposition=decomposition,
        timed_out=deadline is not None and time.monotonic() > deadline,
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


def _measure_large(
    findings: Findings,
    linear: Interpolation,
    rho: float,
    seed: int,
    deadline: float | None,
    progress: Progress | None,
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
            reduced, linear, tolerance=max(tolerance, 1e-15), deadline=deadline, progress=progress
        )
        assert linear.tensor is not None
        decomposition = decompose_tensor(
            reduced, linear.tensor, accept=10.0 * rho, seed=seed, deadline=deadline, attempts=2
        )
        late = deadline is not None and time.monotonic() > deadline
        if late or (decomposition is not None and decomposition.residual <= 10.0 * rho):
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
        timed_out=deadline is not None and time.monotonic() > deadline,
    )


def _finish(data: HermiteData, given: Assumptions, findings: Findings) -> Findings:
    """Samples, error bounds and ties of an accepted decomposition."""
    reduced, found = findings.reduced, findings.decomposition
    if reduced is None or found is None or not findings.decomposes:
        return findings
    terms, signs, _ = order_by_size(found.terms, found.signs, data.degree)
    samples = to_samples(data, reduced, terms, signs, given.scale, given.non_negative)
    bounds = bound_errors(
        reduced, terms, signs, samples, found.residual, given.noise, findings.noise_level
    )
    tie = check_ties(data, samples, bounds, given.scale, findings.noise_level)
    return replace(findings, samples=samples, bounds=bounds, tie=tie)


@dataclass(frozen=True)
class Outcome:
    """Verdict, reason and scope; `searchable` says that other sets are worth looking for."""

    verdict: Verdict
    reason: str
    scope: Scope | None = None
    searchable: bool = False


def judge(data: HermiteData, given: Assumptions, findings: Findings) -> Outcome:
    """The verdict rules in their order; the first that applies decides."""
    reduced, linear = findings.reduced, findings.linear
    if data.homogeneous and (data.consistency or 0.0) > BALANCE_LIMIT:
        return _undecided(wording.not_stationary(data.consistency or 0.0))
    if reduced is None:
        return _undecided(wording.too_noisy(findings.noise_level, NOISE_LIMIT))
    if not reduced.span.clear or reduced.dimension == 0 or linear is None:
        return _undecided(wording.span_unclear(reduced))
    r = reduced.dimension
    if given.samples is not None and given.samples < r:
        return _undecided(
            f"--samples {given.samples} contradicts the data: every set that explains them has "
            f"at least {r} samples"
        )
    if data.homogeneous is False and findings.neurons <= r:
        return _undecided(
            f"the rows of the gradient span {r} dimensions and there are {findings.neurons} "
            "distinct neurons: the batch may be as large as the width or larger, so that samples "
            "outside the span are not excluded",
            searchable=True,
        )
    if linear.determined is None:
        return _undecided(
            "the rank of the Hermite matrix is not clear at noise level "
            f"{findings.noise_level:.1e} ({linear.method})"
        )
    if not linear.determined:
        return _undecided(
            f"I-hermite fails: {findings.neurons} distinct neurons give rank {linear.rank} of the "
            f"{linear.required} that determine the moment tensor on {r} dimensions",
            searchable=True,
        )
    if given.samples is not None and given.samples > r:
        more = (
            "; for a stationary network with linearly independent samples there is no uniqueness"
            if data.homogeneous
            else ""
        )
        return _undecided(
            f"{given.samples} samples in {r} dimensions are more than the theorem covers{more}",
            searchable=True,
        )
    if not findings.decomposes or findings.samples is None:
        found = findings.decomposition
        best = "none was found" if found is None else f"best residual {found.residual:.1e}"
        return _undecided(
            f"the moment tensor is determined but is not a sum of {r} independent terms ({best}): "
            f"the true number of samples exceeds {r}",
            searchable=True,
        )
    return _judge_set(data, given, findings, findings.samples)


def _judge_set(
    data: HermiteData, given: Assumptions, findings: Findings, found: Samples
) -> Outcome:
    """Rules 1 and 2 for a refined set of r samples."""
    reduced, bounds, tie = findings.reduced, findings.bounds, findings.tie
    assert reduced is not None
    assert bounds is not None
    r = reduced.dimension
    redundancy = findings.redundancy
    assert redundancy is not None
    lone = not data.homogeneous and r == 1 and findings.neurons >= 2 and data.network.dimension >= 2
    if not found.finite:
        return _undecided("a recovered sample is infinite under the assumed scale")
    if tie is not None and not tie.holds:
        return _undecided(
            f"the assumption fails: {tie.name} differ by {tie.spread:.1e} (logarithm) where the "
            f"error bounds allow {tie.tolerance:.1e}; the true number of samples exceeds {r}, or "
            "the scale is not as assumed"
        )
    if given.non_negative:
        lowest = found.samples.min(axis=1)
        margin = np.nan_to_num(bounds.samples, nan=0.0) * np.linalg.norm(found.samples, axis=1)
        if np.any(lowest < -margin - 1e-12):
            return _undecided(
                "the assumption fails: a recovered sample has negative entries "
                f"({float(lowest.min()):.1e}) under --non-negative"
            )
    if data.source == "kkt":
        outputs = data.network.value(found.samples)
        if np.any(found.coefficients * outputs <= 0.0):
            count = int(np.count_nonzero(found.coefficients * outputs <= 0.0))
            return _undecided(
                f"{count} of the {r} recovered samples lie on the wrong side of their margin "
                f"(b_i f(x_i) <= 0): the true number of samples exceeds {r}, or the source is "
                "weight decay"
            )
    if redundancy < 1 and given.samples != r and not lone:
        return _undecided(
            f"no redundant equation speaks for {r} sample{'' if r == 1 else 's'}: {r**2} unknowns are "
            f"fitted to {reduced.dimension**2 + redundancy} equations, so the number of samples "
            "itself is open",
            searchable=True,
        )
    worst = float(np.max(bounds.samples)) if np.all(np.isfinite(bounds.samples)) else np.inf
    if not worst < BOUND_LIMIT:
        return _undecided(
            f"the largest error bound of a sample is {worst:.1e} of its norm, above {BOUND_LIMIT}"
            if np.isfinite(worst)
            else f"a sample has no error bound ({bounds.method})"
        )
    support = wording.support(redundancy, given.samples, r, lone)
    return Outcome(
        Verdict.GLOBALLY,
        f"the moment tensor is determined on {r} dimensions, is a sum of {r} independent terms, "
        f"and {support}",
        Scope("at_most", r),
    )


def _undecided(reason: str, searchable: bool = False) -> Outcome:
    return Outcome(Verdict.UNDECIDED, reason, None, searchable)


def _search(
    data: HermiteData,
    given: Assumptions,
    findings: Findings,
    seed: int,
    deadline: float | None,
    progress: Progress | None,
) -> tuple[TrainingSet, TrainingSet] | None:
    if findings.reduced is None or findings.linear is None:
        return None
    return search_sets(
        data,
        findings.reduced,
        findings.linear,
        findings.noise_level,
        samples=given.samples,
        scale=given.scale,
        non_negative=given.non_negative,
        decomposes=findings.decomposes,
        seed=seed,
        deadline=deadline,
        progress=progress,
    )


def _report(
    data: HermiteData,
    given: Assumptions,
    findings: Findings,
    outcome: Outcome,
    sets: tuple[TrainingSet, ...],
    seed: int,
    seconds: float,
) -> IdentifiabilityReport:
    reduced, linear, found = findings.reduced, findings.linear, findings.samples
    recovery: Recovery | None = None
    if found is not None and findings.bounds is not None and findings.decomposition is not None:
        recovery = Recovery(
            samples=found.samples,
            coefficients=found.coefficients,
            error_bounds=findings.bounds.samples,
            residuals={"samples": findings.decomposition.residual},
        )
    bounds = None
    if recovery is not None:
        bounds = tuple(float(b) if np.isfinite(b) else None for b in recovery.error_bounds)
    r = None if reduced is None else reduced.dimension
    settled = outcome.verdict is Verdict.GLOBALLY
    return IdentifiabilityReport(
        verdict=outcome.verdict,
        reason=outcome.reason,
        scope=outcome.scope,
        spans_input_space=None if reduced is None else r == data.points.shape[1],
        symmetries=wording.symmetries(data.degree, given.scale, given.non_negative),
        sample_count=r if settled else None,
        conditions=conditions(data, given, findings),
        residuals=residuals(data, findings),
        redundant_equations=findings.redundancy,
        condition_number=None if linear is None else linear.condition_number,
        condition_method=None if linear is None else linear.condition_method,
        error_bounds=bounds,
        assumptions=wording.assumptions(
            data, given.samples, given.scale, given.non_negative, given.noise
        ),
        caveats=wording.caveats(data, findings, outcome.verdict),
        noise_level=findings.noise_level,
        problem={
            "source": data.source,
            "degree": data.degree,
            "width": data.network.width,
            "dimension": data.network.dimension,
            "distinct_neurons": findings.neurons or None,
            "span_dimension": r,
            "unknowns": None if linear is None else linear.required,
            "rank": None if linear is None else linear.rank,
            "rank_method": None if linear is None else linear.method,
        },
        inputs=data.inputs,
        seed=seed,
        versions=_versions(),
        seconds=seconds,
        recovery=recovery,
        alternatives=sets,
    )


def conditions(data: HermiteData, given: Assumptions, findings: Findings) -> tuple[Condition, ...]:
    """Every condition that was looked at, with what was required and found."""
    rows: list[Condition] = []
    rho, reduced, linear = findings.noise_level, findings.reduced, findings.linear
    if data.homogeneous:
        balance = data.consistency or 0.0
        rows.append(
            Condition(
                "balance",
                balance <= BALANCE_LIMIT,
                BALANCE_LIMIT,
                balance,
                source="|w_j|^2 = alpha a_j^2 at a stationary point",
            )
        )
    elif data.consistency is not None:
        rows.append(
            Condition(
                "consistency",
                data.consistency <= NOISE_LIMIT,
                NOISE_LIMIT,
                data.consistency,
                source="Euler's identity between the two layers",
            )
        )
    if reduced is None:
        return tuple(rows)
    gap = reduced.span
    ratio = None
    if gap.largest_uncounted:
        ratio = gap.smallest / gap.largest_uncounted
    rows.append(
        Condition("span", gap.clear, 100.0, ratio, source="gap in the singular values of the rows")
    )
    if linear is None:
        return tuple(rows)
    rows.append(
        Condition(
            "I-hermite",
            linear.determined,
            linear.required,
            linear.rank,
            source="rank of the Hermite matrix, " + linear.method,
        )
    )
    for name, (needed, rank), meaning in (
        ("I-flat", linear.flat, "points to the power alpha - 1 span"),
        ("I-value", linear.value, "points to the power alpha span"),
    ):
        holds = None if rank is None else rank >= needed
        rows.append(Condition(name, holds, needed, rank, source=meaning + "; not required"))
    found = findings.decomposition
    rows.append(
        Condition(
            "decomposition",
            findings.decomposes if found is not None else None,
            10.0 * rho,
            None if found is None else found.residual,
            source=f"residual of {reduced.dimension} refined terms; independent terms "
            "are unique (Kruskal 1977)",
        )
    )
    redundancy = findings.redundancy
    if found is not None and redundancy is not None:
        rows.append(
            Condition(
                "redundancy",
                redundancy >= 1 or given.samples == reduced.dimension,
                1,
                redundancy,
                source="rank H - r^2 + ties, or the number of samples given",
            )
        )
    if findings.tie is not None:
        tie = findings.tie
        rows.append(Condition("tie", tie.holds, tie.tolerance, tie.spread, source=tie.name))
    if findings.bounds is not None:
        worst = float(np.max(findings.bounds.samples))
        rows.append(
            Condition(
                "error bounds",
                bool(worst < BOUND_LIMIT) if np.isfinite(worst) else None,
                BOUND_LIMIT,
                worst if np.isfinite(worst) else None,
                source=findings.bounds.method,
            )
        )
    return tuple(rows)


def residuals(data: HermiteData, findings: Findings) -> dict[str, Residual]:
    """Relative residuals with the number of equations that could have failed."""
    reduced, linear, found = findings.reduced, findings.linear, findings.decomposition
    checks = data.network.width if data.consistency is not None else 0
    result = {"balance": Residual(data.consistency, checks)}
    off = 0 if reduced is None else data.network.width * (data.points.shape[1] - reduced.dimension)
    result["off_span"] = Residual(reduced.off_span if reduced is not None and off else None, off)
    spare = 0 if linear is None else linear.redundant
    result["linear"] = Residual(findings.linear_residual if spare else None, spare)
    left = 0
    if reduced is not None and found is not None:
        left = max(0, reduced.equations - found.terms.size)
    result["samples"] = Residual(found.residual if found is not None and left else None, left)
    return result


def _versions() -> dict[str, str]:
    return {
        "kktcert": metadata.version("kktcert"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
