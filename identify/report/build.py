"""From a judgement to a report, also where the time ran out before one."""

from __future__ import annotations

import numpy as np

from identify.arrays import FloatArray
from identify.decomposition.decompose import order_by_size
from identify.hermite.data import HermiteData
from identify.proofs.certificate import build_certificate, proof_data
from identify.proofs.prove import Proofs
from identify.records import Evidence, Recovery, Residual, TrainingSet, Verdict
from identify.recovery.assumptions import Assumptions
from identify.recovery.stages import (
    Decomposed,
    Interpolated,
    Recovered,
    Reduced,
    Stage,
    redundant_equations,
)
from identify.report.plain import versions
from identify.report.report import IdentifiabilityReport
from identify.verdict import sentences
from identify.verdict.equations import is_covered
from identify.verdict.rule import Grounds
from identify.verdict.rules import Outcome, has_candidates, judge


def build_report(
    grounds: Grounds[Stage],
    outcome: Outcome,
    *,
    seed: int,
    seconds: float,
    sets: tuple[TrainingSet, ...] = (),
    searched: bool = False,
) -> IdentifiabilityReport:
    """The report of an outcome on its grounds, with the `sets` that a search has shown."""
    data, given, stage, proofs = grounds.data, grounds.given, grounds.stage, grounds.proofs
    reduced = stage.reduced if isinstance(stage, Reduced) else None
    linear = stage.linear if isinstance(stage, Interpolated) else None
    found = stage if isinstance(stage, Recovered) else None
    settled = outcome.verdict is Verdict.GLOBALLY
    r = None if reduced is None else reduced.dimension
    return IdentifiabilityReport(
        verdict=outcome.verdict,
        reason=outcome.reason,
        scope=outcome.scope,
        spans_input_space=None if reduced is None else r == data.points.shape[1],
        symmetries=sentences.symmetries(data.degree, given.scale, given.non_negative),
        sample_count=r if settled else None,
        evidence=proofs.level if proofs is not None and settled else Evidence.NUMERICAL,
        strengthen=_strengthen(proofs) if settled else (),
        conditions=outcome.conditions,
        residuals=residuals(data, stage),
        redundant_equations=redundant_equations(stage),
        condition_number=None if linear is None else linear.condition_number,
        condition_method=None if linear is None else linear.condition_method,
        error_bounds=None if found is None else _listed(found.bounds.samples),
        absolute_bounds=None if found is None else _listed(found.bounds.absolute),
        data_error=None if found is None else found.bounds.data_error,
        assumptions=sentences.assumptions(data, given),
        caveats=sentences.caveats(data, found) if settled and found is not None else (),
        noise_level=stage.noise_level,
        problem=_problem(data, stage),
        inputs=data.inputs,
        seed=seed,
        versions=versions(),
        seconds=seconds,
        certificate=_certificate(grounds, sets),
        recovery=None if found is None else _recovery(found),
        alternatives=sets,
        findings=stage,
        searched=searched,
        candidates=has_candidates(grounds, outcome),
        covered=is_covered(data) and not grounds.ended,
    )


def _problem(data: HermiteData, stage: Stage) -> dict[str, object]:
    """Sizes and counts; those of a stage that was not reached are None."""
    reduced = stage if isinstance(stage, Reduced) else None
    linear = stage.linear if isinstance(stage, Interpolated) else None
    return {
        "source": data.source,
        "degree": data.degree,
        "width": data.network.width,
        "dimension": data.network.dimension,
        "distinct_neurons": None if reduced is None else reduced.neurons or None,
        "span_dimension": None if reduced is None else reduced.reduced.dimension,
        "unknowns": None if linear is None else linear.required,
        "rank": None if linear is None else linear.rank,
        "rank_method": None if linear is None else linear.method,
    }


def _recovery(stage: Recovered) -> Recovery:
    return Recovery(
        samples=stage.samples.samples,
        coefficients=stage.samples.coefficients,
        error_bounds=stage.bounds.samples,
        residuals={"samples": stage.decomposition.residual},
        absolute=stage.bounds.absolute,
    )


def residuals(data: HermiteData, stage: Stage) -> dict[str, Residual]:
    """Relative residuals with the number of equations that could have failed."""
    width, ambient = data.points.shape
    off, off_span, spare, linear, left, samples = 0, None, 0, None, 0, None
    if isinstance(stage, Reduced):
        off = width * (ambient - stage.reduced.dimension)
        off_span = stage.reduced.off_span
    if isinstance(stage, Interpolated):
        spare, linear = stage.linear.redundant, stage.linear_residual
    if isinstance(stage, Decomposed):
        left = max(0, stage.reduced.equations - stage.decomposition.terms.size)
        samples = stage.decomposition.residual
    checks = 0 if data.consistency is None else width
    return {
        "balance": Residual(data.consistency, checks),
        "off_span": Residual(off_span if off else None, off),
        "linear": Residual(linear if spare else None, spare),
        "samples": Residual(samples if left else None, left),
    }


def _listed(bounds: FloatArray) -> tuple[float | None, ...]:
    return tuple(float(b) if np.isfinite(b) else None for b in bounds)


def _strengthen(proofs: Proofs | None) -> tuple[str, ...]:
    if proofs is None:
        return ("--evidence auto, interval or exact: proofs instead of float64 decisions",)
    return proofs.strengthen


def _certificate(grounds: Grounds[Stage], sets: tuple[TrainingSet, ...]) -> dict[str, object]:
    """The certificate of the proofs, or without any of what was recovered."""
    data, given, stage, proofs = grounds.data, grounds.given, grounds.stage, grounds.proofs
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
    if not isinstance(stage, Reduced) or stage.reduced.neurons == 0 or stage.reduced.dimension == 0:
        return build_certificate(data, given, None, sets=sets)
    proof = proof_data(data, stage.reduced)
    terms: tuple[FloatArray, FloatArray] | None = None
    if isinstance(stage, Recovered):
        found = stage.decomposition
        ordered, signs, _ = order_by_size(found.terms, found.signs, data.degree)
        terms = proof.convert_terms(stage.reduced, ordered), signs
    return build_certificate(data, given, proof, terms=terms, sets=sets)


def interrupted_report(
    data: HermiteData, given: Assumptions, *, stage: str, seconds: float, seed: int
) -> IdentifiabilityReport:
    """What is known without any work: an `undecided` report with its reason and the inputs.

    `stage` names what was interrupted after `seconds`. The cost is negligible.
    """
    given = given.resolved(data)
    known = Stage(max(data.consistency or 0.0, data.rounding, given.noise or 0.0))
    during = f" while {stage}" if stage else ""
    ended = f"interrupted after {seconds:.1f} s{during}: nothing is decided"
    grounds = Grounds(data, given, known, ended=ended)
    return build_report(grounds, judge(grounds), seed=seed, seconds=seconds)
