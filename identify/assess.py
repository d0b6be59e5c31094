"""From Hermite data to a verdict with everything it rests on."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from importlib import metadata

import numpy as np
import scipy

from identify import wording
from identify.certificate import build_certificate, proof_data
from identify.decompose import order_by_size
from identify.errors import InvalidInputError, NotDeterminedError
from identify.hermite import HermiteData
from identify.judge import Outcome, conditions, judge, residuals
from identify.measure import Assumptions, Findings, Progress, measure
from identify.pairs import search_sets
from identify.prove import LEVELS, Proofs, prove
from identify.results import (
    Evidence,
    FloatArray,
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
    evidence: str = "auto",
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
        evidence: "exact" (rank modulo a prime, samples in ball arithmetic), "interval" (both in
            rigorous floating-point and ball arithmetic), "numerical", or "auto": what is proved in
            `time_limit`, or without one in a few seconds a proof. A level that was asked for and
            not reached makes the verdict `undecided`.

    Returns:
        An `IdentifiabilityReport`; a negative verdict is never an exception.

    Raises:
        InvalidInputError: an argument out of range.

    Cost: dense, O(m r N^2), up to 700 unknowns of T; beyond, a few hundred products of 6 m^2 r
        flops. Proofs: see `prove`.
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
    if evidence not in LEVELS:
        raise InvalidInputError("evidence", f"one of {', '.join(LEVELS)}", repr(evidence))
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
    proofs: Proofs | None = None
    if outcome.verdict is Verdict.GLOBALLY and evidence != "numerical" and not findings.timed_out:
        proofs = _prove(data, given, findings, evidence, seed, deadline, progress)
        outcome = _weigh(outcome, proofs, evidence)
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
    seconds = time.monotonic() - started
    return _report(data, given, findings, outcome, sets, proofs, seed, seconds)


def recover_samples(
    data: HermiteData,
    samples: int | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    evidence: str = "numerical",
) -> Recovery:
    """The samples that `assess_identifiability` recovers, if its verdict is `globally`.

    The arguments are the same; proofs are tried only if `evidence` asks for them.

    Raises:
        NotDeterminedError: any other verdict; `.report` holds it, with a recovery if there is one.
    """
    report = assess_identifiability(
        data, samples, scale, non_negative, noise, time_limit, progress, seed, evidence
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


def _prove(
    data: HermiteData,
    given: Assumptions,
    findings: Findings,
    evidence: str,
    seed: int,
    deadline: float | None,
    progress: Progress | None,
) -> Proofs:
    assert findings.reduced is not None
    assert findings.decomposition is not None
    assert findings.bounds is not None
    proofs = prove(
        data,
        findings.reduced,
        findings.decomposition,
        findings.bounds,
        findings.noise_level,
        level=evidence,
        seed=seed,
        deadline=deadline,
        progress=progress,
    )
    r = findings.reduced.dimension
    ties = findings.tie.equations if findings.tie is not None else 0
    alone = (findings.redundancy or 0) - ties < 1
    tied = ties > 0 and alone and given.samples != r and not (r == 1 and not data.homogeneous)
    if tied:
        missing = "a redundant equation of the rank, or --samples: only a tie speaks for the number"
        return replace(proofs, tied=True, strengthen=(*proofs.strengthen, missing))
    return proofs


def _weigh(outcome: Outcome, proofs: Proofs, evidence: str) -> Outcome:
    """The outcome in the light of the proofs: a conflict, or a level that was not reached."""
    if proofs.conflict is not None:
        reason = f"numerical evidence and proof disagree: {proofs.conflict}"
        return Outcome(Verdict.UNDECIDED, reason, None)
    wanted = {
        "exact": (Evidence.PROVED_EXACT,),
        "interval": (Evidence.PROVED_EXACT, Evidence.PROVED_INTERVAL),
    }
    if evidence in wanted and proofs.level not in wanted[evidence]:
        missing = "; ".join(proofs.strengthen) or "a condition is numerical"
        reason = (
            f"--evidence {evidence} is not reached: {missing}. By numerical evidence alone it "
            f"would be {outcome.verdict.value}: {outcome.reason}"
        )
        return Outcome(Verdict.UNDECIDED, reason, None)
    return outcome


def _report(
    data: HermiteData,
    given: Assumptions,
    findings: Findings,
    outcome: Outcome,
    sets: tuple[TrainingSet, ...],
    proofs: Proofs | None,
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
        evidence=proofs.level if proofs is not None and settled else Evidence.NUMERICAL,
        strengthen=_strengthen(outcome, proofs, settled),
        conditions=conditions(data, given, findings, proofs),
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
        certificate=_certificate(data, given, findings, proofs, sets),
        recovery=recovery,
        alternatives=sets,
    )


def _strengthen(outcome: Outcome, proofs: Proofs | None, settled: bool) -> tuple[str, ...]:
    if not settled:
        return ()
    if proofs is None:
        return ("--evidence auto, interval or exact: proofs instead of float64 decisions",)
    return proofs.strengthen


def _certificate(
    data: HermiteData,
    given: Assumptions,
    findings: Findings,
    proofs: Proofs | None,
    sets: tuple[TrainingSet, ...],
) -> dict[str, object]:
    """The certificate of the proofs, or without any of what was recovered."""
    if proofs is not None:
        return build_certificate(
            data,
            given,
            proofs.data,
            rank=proofs.rank,
            singular=proofs.singular,
            terms=(proofs.terms, proofs.signs),
            enclosure=proofs.enclosure,
            sets=sets,
        )
    reduced, found = findings.reduced, findings.decomposition
    if reduced is None or reduced.neurons == 0 or reduced.dimension == 0:
        return build_certificate(data, given, None, sets=sets)
    proof = proof_data(data, reduced)
    terms: tuple[FloatArray, FloatArray] | None = None
    if found is not None and findings.decomposes:
        ordered, signs, _ = order_by_size(found.terms, found.signs, data.degree)
        terms = proof.convert_terms(reduced, ordered), signs
    return build_certificate(data, given, proof, terms=terms, sets=sets)


def _versions() -> dict[str, str]:
    return {
        "kktcert": metadata.version("kktcert"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
