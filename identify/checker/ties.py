"""Ties: what the source says about the samples beyond the equations, where the scale is fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bounds import expected_bounds
from .case import NOISE_FLOOR, Case
from .outcome import (
    FLOAT,
    FloatArray,
    NotCheckableError,
    check_possible,
    require,
)
from .terms import samples_of

TIE_LIMIT = 1e-3
"""Largest tolerance, in the logarithm, at which a tie speaks for the number of samples."""
_SMALL = 1e-6


@dataclass(frozen=True, eq=False)
class Tie:
    """`values` (n,) that should agree, each within its `widths`."""

    values: FloatArray
    widths: FloatArray

    @property
    def gap(self) -> float:
        """At most 0 if the values can be equal."""
        return float(np.max(self.values - self.widths) - np.min(self.values + self.widths))


def tie_expected(case: Case) -> bool:
    """Whether the assumptions make the recovered samples obey a tie."""
    assumed = case.certificate.assumed
    if assumed.scale not in ("unit", "bias") or case.r < 2:
        return False
    if case.data.source == "kkt":
        return True
    return case.data.source in ("gradient", "weight-decay") and assumed.loss in (
        "logistic",
        "cross-entropy",
    )


def tie_equations(case: Case) -> int:
    """How many redundant equations the tie of the report stands for: n - 1, or 0 if it is wide."""
    row = case.report.row("tie")
    if row is None:
        return 0
    check_possible(row.required is not None, "the report has no tolerance of the tie")
    assert row.required is not None
    if case.certificate.terms is not None:
        _check_width(case, row.required)
    return case.r - 1 if row.required <= TIE_LIMIT else 0


def _check_width(case: Case, stated: float) -> None:
    width = float(_tie(case).widths.max())
    require(
        case.matches("conditions.tie.required", stated, width, 0.1, _SMALL),
        f"the bounds allow {width:.2e}, the report says {stated:.2e}",
    )


def _tie(case: Case) -> Tie:
    if "tie" not in case.kept:
        case.kept["tie"] = _measure(case)
    found = case.kept["tie"]
    assert isinstance(found, Tie)
    return found


def _measure(case: Case) -> Tie:
    bounds = case.report.bounds
    if bounds is None or None in bounds:
        raise NotCheckableError("there are no error bounds to propagate")
    found, data = samples_of(case), case.data
    lifted = data.lift(found.samples)
    inner = lifted @ data.points.T
    heights = data.scales / data.degree
    outputs = inner**data.degree @ heights
    slopes = (data.scales * inner ** (data.degree - 1)) @ data.points
    norms = np.linalg.norm(lifted, axis=1)
    relative = np.array(bounds, dtype=np.float64)
    bulk = np.abs(inner) ** data.degree @ np.abs(heights)
    error = np.linalg.norm(slopes, axis=1) * norms * relative
    error = error + 10.0 * (data.degree + 1) * case.noise * bulk
    if data.source == "kkt":
        values, widths = np.log(np.abs(outputs)), error / np.abs(outputs)
    else:
        labels = np.sign(found.coefficients) * (-1.0 if data.source == "gradient" else 1.0)
        margins = labels * (outputs + data.offset)
        values = np.log(np.abs(found.coefficients)) + np.logaddexp(0.0, margins)
        widths = error + data.degree * expected_bounds(case)[0][1]
        if case.certificate.assumed.scale == "bias":
            widths = widths + data.degree * relative * norms
    check_possible(
        bool(np.isfinite(values).all() and np.isfinite(widths).all()), "the tie is not finite"
    )
    return Tie(values, widths)


def check_tie(case: Case) -> tuple[str, str]:
    """The tie between the samples holds within the propagated error bounds."""
    row = case.report.row("tie")
    require(row is not None, "the assumptions make a tie that the report does not list")
    assert row is not None
    check_possible(
        row.found is not None and row.required is not None, "the report has no numbers for it"
    )
    assert row.found is not None
    assert row.required is not None
    tie = _tie(case)
    floor = max(10.0 * NOISE_FLOOR, 10.0 * case.noise)
    spread, width = float(np.ptp(tie.values)), float(tie.widths.max())
    require(
        tie.gap <= 0.0 or case.report.verdict != "globally",
        f"the values differ by {spread:.1e}, the bounds allow {width:.1e}",
    )
    require(
        case.matches("conditions.tie.found", row.found, spread, 0.05, floor),
        f"the values differ by {spread:.2e}, the report says {row.found:.2e}",
    )
    _check_width(case, row.required)
    require(row.holds is (tie.gap <= 0.0), "tie: holds is wrong")
    return FLOAT, f"the values differ by {spread:.1e}, the error bounds allow {width:.1e}"
