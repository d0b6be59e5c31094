"""The sentences and the text form of an audit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.multipliers import MultiplierFit, fit_multipliers
from identify.records import Verdict
from identify.report.report import IdentifiabilityReport
from identify.text import number

if TYPE_CHECKING:
    from identify.exposure.report import Exposure

EXACT = 1e-6
"""Error below which a sample counts as exposed exactly, whatever its bound."""


def data_notes(
    data: HermiteData,
    fit: MultiplierFit,
    samples: FloatArray,
    labels: FloatArray | None,
    margins: FloatArray,
    active: tuple[int, ...] | None,
    parallel: Sequence[tuple[int, ...]],
    slackness: float | None,
) -> list[str]:
    """What the multipliers, margins and parallels at the true samples show."""
    notes = []
    if active is None and data.source == "kkt" and labels is not None:
        free = fit_multipliers(data, samples).residual
        if free < 0.1 * fit.residual:
            notes.append(
                f"with multipliers of any sign the residual would be {number(free)}: some labels "
                "are wrong, or the source is weight decay"
            )
    if not fit.unique:
        notes.append(
            "the multipliers are not unique: the gradients of these samples are linearly dependent"
        )
    for group in parallel:
        notes.append(
            f"samples {_listed(group)} are parallel and count as one; only the sum of their parts "
            "is determined"
        )
    if slackness is not None and active is not None and slackness > 0.01:
        notes.append(
            f"the margins of the active samples differ by {number(slackness)} (relative): "
            "complementary slackness fails, this is no KKT point of the max-margin problem"
        )
    if data.source == "kkt" and labels is not None and active:
        tight = float(np.median(margins[list(active)]))
        below = [int(i) for i in np.flatnonzero(margins < 0.99 * tight) if i not in active]
        if tight > 0.0 and below:
            notes.append(
                f"inactive samples {_listed(below)} have a smaller margin than the active ones: "
                "the margin constraint is violated, this is no KKT point of the max-margin problem"
            )
        if tight <= 0.0:
            notes.append("active samples are classified wrongly (y_i f(x_i) <= 0)")
    logistic = data.loss in ("logistic", "cross-entropy") and data.source != "fine-tuning"
    if labels is not None and logistic and active:
        expected = -labels if data.source == "gradient" else labels
        wrong = [i for i in active if fit.coefficients[i] * expected[i] < 0.0]
        if wrong:
            notes.append(
                f"the coefficients of samples {_listed(wrong)} have the wrong sign for their label "
                "under the logistic loss"
            )
    return notes


def exposure_notes(
    report: IdentifiabilityReport,
    fit: MultiplierFit,
    exposed: Sequence[Exposure],
    active: tuple[int, ...] | None,
    recovered: int,
    explained: bool,
) -> list[str]:
    """What the recovery means for the owner, beside the list of exposed samples."""
    notes = []
    distinct = len({int(fit.groups[i]) for i in active}) if active is not None else None
    if report.recovery is None:
        notes.append(
            "no set of samples was recovered, so nothing is exposed by this method; another "
            "method, or an attacker who knows more, may still find something"
        )
    elif exposed and report.verdict is not Verdict.GLOBALLY:
        notes.append(
            "the exposed samples stand among candidates: from the data alone it does not follow "
            "that the candidates are the training samples"
        )
    if recovered > len(exposed):
        more = ""
        if distinct is not None and distinct > recovered:
            more = (
                f"; {distinct} distinct samples are active, more than the {recovered} recovered, "
                "which are then mixtures"
            )
        notes.append(
            f"{recovered - len(exposed)} of {recovered} recovered samples are none of yours{more}"
        )
    if report.verdict is Verdict.GLOBALLY and explained and active is not None:
        near = {entry.index for entry in exposed if entry.error <= max(entry.bound or 0.0, EXACT)}
        lost = sorted({int(fit.groups[i]) for i in active} - near)
        if lost and distinct is not None and distinct <= recovered:
            notes.append(
                f"the verdict `globally` is wrong here: active samples {_listed(lost)} are not "
                "recovered within their bounds; please report this as a bug"
            )
    return notes


def _listed(indices: Iterable[int]) -> str:
    every = [str(i) for i in indices]
    return ", ".join(every[:8]) + (f" and {len(every) - 8} more" if len(every) > 8 else "")
