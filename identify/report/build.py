"""From a judgement to a report, also where the time ran out before one."""

from __future__ import annotations

import platform
from importlib import metadata

import numpy as np
import scipy

from identify.arrays import FloatArray
from identify.decomposition.decompose import order_by_size
from identify.hermite.data import HermiteData
from identify.proofs.certificate import build_certificate, proof_data
from identify.proofs.prove import Proofs
from identify.records import Evidence, Recovery, TrainingSet, Verdict
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import Findings
from identify.report.report import IdentifiabilityReport
from identify.verdict import sentences
from identify.verdict.conditions import conditions, residuals
from identify.verdict.rules import Outcome, has_candidates, is_covered


def build_report(
    data: HermiteData,
    given: Assumptions,
    findings: Findings,
    outcome: Outcome,
    sets: tuple[TrainingSet, ...],
    proofs: Proofs | None,
    seed: int,
    seconds: float,
    searched: bool = False,
) -> IdentifiabilityReport:
    reduced, linear, found = findings.reduced, findings.linear, findings.samples
    recovery: Recovery | None = None
    if found is not None and findings.bounds is not None and findings.decomposition is not None:
        recovery = Recovery(
            samples=found.samples,
            coefficients=found.coefficients,
            error_bounds=findings.bounds.samples,
            residuals={"samples": findings.decomposition.residual},
            absolute=findings.bounds.absolute,
        )
    bounds = absolute = allowed = None
    if recovery is not None and findings.bounds is not None:
        bounds, absolute = _listed(findings.bounds.samples), _listed(findings.bounds.absolute)
        allowed = findings.bounds.data_error
    r = None if reduced is None else reduced.dimension
    settled = outcome.verdict is Verdict.GLOBALLY
    return IdentifiabilityReport(
        verdict=outcome.verdict,
        reason=outcome.reason,
        scope=outcome.scope,
        spans_input_space=None if reduced is None else r == data.points.shape[1],
        symmetries=sentences.symmetries(data.degree, given.scale, given.non_negative),
        sample_count=r if settled else None,
        evidence=proofs.level if proofs is not None and settled else Evidence.NUMERICAL,
        strengthen=_strengthen(outcome, proofs, settled),
        conditions=conditions(data, given, findings, proofs),
        residuals=residuals(data, findings),
        redundant_equations=findings.redundancy,
        condition_number=None if linear is None else linear.condition_number,
        condition_method=None if linear is None else linear.condition_method,
        error_bounds=bounds,
        absolute_bounds=absolute,
        data_error=allowed,
        assumptions=sentences.assumptions(data, given),
        caveats=sentences.caveats(data, findings, outcome.verdict),
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
        findings=findings,
        searched=searched,
        candidates=has_candidates(data, findings, outcome),
        covered=is_covered(data),
    )


def _listed(bounds: FloatArray) -> tuple[float | None, ...]:
    return tuple(float(b) if np.isfinite(b) else None for b in bounds)


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


def interrupted_report(
    data: HermiteData, given: Assumptions, *, stage: str, seconds: float, seed: int
) -> IdentifiabilityReport:
    """What is known without any work: an `undecided` report with its reason and the inputs.

    `stage` names what was interrupted after `seconds`. The cost is negligible.
    """
    given = given.resolved(data)
    known = Findings(noise_level=max(data.consistency or 0.0, data.rounding, given.noise or 0.0))
    during = f" while {stage}" if stage else ""
    return IdentifiabilityReport(
        verdict=Verdict.UNDECIDED,
        reason=f"interrupted after {seconds:.1f} s{during}: nothing is decided",
        scope=None,
        spans_input_space=None,
        symmetries=sentences.symmetries(data.degree, given.scale, given.non_negative),
        sample_count=None,
        conditions=conditions(data, given, known),
        residuals=residuals(data, known),
        redundant_equations=None,
        condition_number=None,
        condition_method=None,
        error_bounds=None,
        assumptions=sentences.assumptions(data, given),
        caveats=(),
        noise_level=known.noise_level,
        problem={
            "source": data.source,
            "degree": data.degree,
            "width": data.network.width,
            "dimension": data.network.dimension,
        },
        inputs=data.inputs,
        seed=seed,
        versions={"kktcert": metadata.version("kktcert")},
        seconds=seconds,
        covered=is_covered(data),
    )
