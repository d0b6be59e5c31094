"""The report of a run that was interrupted."""

from __future__ import annotations

from importlib import metadata

from identify import wording
from identify.hermite import HermiteData
from identify.judge import conditions, residuals
from identify.measure import Assumptions, Findings
from identify.results import IdentifiabilityReport, Verdict
from identify.samples import resolve_scale


def interrupted_report(
    data: HermiteData,
    *,
    stage: str,
    seconds: float,
    seed: int,
    samples: int | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
) -> IdentifiabilityReport:
    """What is known without any work: an `undecided` report with its reason and the inputs.

    `stage` names what was interrupted after `seconds`; the other arguments are those of
    `assess_identifiability`. The cost is negligible.
    """
    given = Assumptions(samples, resolve_scale(data, scale), non_negative, noise)
    known = Findings(noise_level=max(data.consistency or 0.0, data.rounding, noise or 0.0))
    during = f" while {stage}" if stage else ""
    return IdentifiabilityReport(
        verdict=Verdict.UNDECIDED,
        reason=f"interrupted after {seconds:.1f} s{during}: nothing is decided",
        scope=None,
        spans_input_space=None,
        symmetries=wording.symmetries(data.degree, given.scale, non_negative),
        sample_count=None,
        conditions=conditions(data, given, known),
        residuals=residuals(data, known),
        redundant_equations=None,
        condition_number=None,
        condition_method=None,
        error_bounds=None,
        assumptions=wording.assumptions(data, samples, given.scale, non_negative, noise),
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
    )
