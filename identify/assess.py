"""From Hermite data to a verdict with everything it rests on."""

from __future__ import annotations

import platform
import time
from importlib import metadata

import numpy as np
import scipy

from identify import wording
from identify.errors import InvalidInputError, NotDeterminedError
from identify.hermite import HermiteData
from identify.judge import Outcome, conditions, judge, residuals
from identify.measure import Assumptions, Findings, Progress, measure
from identify.pairs import search_sets
from identify.results import (
    IdentifiabilityReport,
    Recovery,
    Scope,
    TrainingSet,
    Verdict,
)
from identify.samples import resolve_scale


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
        reason = f"time limit of {time_limit:g} s reached"
        if not findings.timed_out:
            reason += f"; {outcome.reason}"
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


def _versions() -> dict[str, str]:
    return {
        "kktcert": metadata.version("kktcert"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
