"""Ties: what the source says about the samples beyond the equations, where the scale is fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bounds import expected_bounds, stated_bounds
from .case import NOISE_FLOOR, Case
from .outcome import (
    FLOAT,
    FloatArray,
    NotCheckableError,
    available,
    check_possible,
    require,
    required,
)
from .terms import samples_of

TIE_LIMIT = 1e-3
"""Largest tolerance, in the logarithm, at which a tie speaks for the number of samples."""
_SMALL = 1e-6


@dataclass(frozen=True, eq=False)
class Tie:
    """`values` (n,) that should agree, each within its `widths`.

    `classes` names for every sample a first one that it may be exchanged with; `factor` says
    whether the values are what a known decay makes them.
    """

    values: FloatArray
    widths: FloatArray
    classes: tuple[int, ...]
    factor: bool

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
    """How many redundant equations the tie of the report stands for; 0 if it is wide.

    One less than there are classes of samples that the neurons tell apart, and one more where a
    known decay fixes the common factor.
    """
    row = case.report.row("tie")
    if row is None:
        return 0
    tolerance = available(row.required, "the report has no tolerance of the tie")
    if case.certificate.terms is not None:
        _check_width(case, tolerance)
    if tolerance > TIE_LIMIT:
        return 0
    tie = _tie(case)
    return len(set(tie.classes)) - 1 + tie.factor


def tie_slopes(case: Case, terms: FloatArray, signs: FloatArray) -> FloatArray:
    """Derivatives of the tie's equations by the terms, over their widths, by differences."""
    tie, count = _tie(case), terms.size
    slopes = np.zeros((len(terms), count))
    for place in range(count):
        step = np.zeros(count)
        step[place] = 1e-5 * float(np.linalg.norm(terms[place // terms.shape[1]]))
        move = step.reshape(terms.shape)
        ahead, behind = (_tied_values(case, terms + way * move, signs) for way in (1.0, -1.0))
        slopes[:, place] = (ahead - behind) / (2.0 * step[place])
    first = [tie.classes.index(name) for name in dict.fromkeys(tie.classes)]
    head = first[0]
    rows = [(slopes[head] - slopes[k]) / (tie.widths[head] + tie.widths[k]) for k in first[1:]]
    if tie.factor:
        rows.append(slopes[head] / tie.widths[head])
    return np.array(rows)


def _tied_values(case: Case, terms: FloatArray, signs: FloatArray) -> FloatArray:
    """The values that a tie makes equal, but for a constant, as functions of the terms."""
    data, full = case.data, terms @ case.basis.T
    if case.certificate.assumed.scale == "bias":
        lengths = full[:, -1]
        samples = full[:, :-1] / lengths[:, None]
    else:
        lengths = np.linalg.norm(full, axis=1)
        samples = full / lengths[:, None]
    outputs = data.outputs(samples)
    if data.source == "kkt":
        return np.asarray(np.log(np.abs(outputs)))
    labels = np.sign(signs * lengths**data.degree) * (-1.0 if data.source == "gradient" else 1.0)
    rise = np.logaddexp(0.0, labels * (outputs + data.offset))
    return np.asarray(data.degree * np.log(np.abs(lengths)) + rise)


def _classes(case: Case, lifted: FloatArray, relative: FloatArray) -> tuple[int, ...]:
    """For every sample the first one that a symmetry of the network might exchange it with.

    Such a symmetry permutes the numbers a_j (w_j.x)^alpha, or turns all their signs, so that the
    sorted alpha-th roots are equal to the errors.
    """
    data = case.data
    outputs = data.scales / data.degree
    sizes = np.abs(outputs) ** (1.0 / data.degree)
    inner = lifted @ data.points.T
    if data.degree % 2 == 0:
        inner = np.abs(inner)
    lists = np.sort(np.copysign(sizes, outputs) * inner, axis=1)
    reach = float(np.max(sizes * np.linalg.norm(data.points, axis=1)))
    width = reach * np.linalg.norm(lifted, axis=1) * (relative + 10.0 * case.noise)
    leader = list(range(len(lifted)))
    for i in range(len(lifted)):
        for k in range(i):
            same = np.abs(lists[i] - lists[k]).max(), np.abs(lists[i] + lists[k][::-1]).max()
            if min(same) <= width[i] + width[k]:
                old, new = leader[i], leader[k]
                leader = [new if name == old else name for name in leader]
    return tuple(leader)


def _check_width(case: Case, stated: float) -> None:
    width = float(_tie(case).widths.max())
    require(
        case.matches("conditions.tie.required", stated, width, 0.1, _SMALL),
        f"the bounds allow {width:.2e}, the report says {stated:.2e}",
    )


def _tie(case: Case) -> Tie:
    return case.keep("tie", lambda: _measure(case))


def _measure(case: Case) -> Tie:
    bounds = stated_bounds(case)
    if bounds is None:
        raise NotCheckableError("there are no error bounds to propagate")
    found, data = samples_of(case), case.data
    lifted = data.lift(found.samples)
    inner = lifted @ data.points.T
    heights = data.scales / data.degree
    outputs = inner**data.degree @ heights
    slopes = (data.scales * inner ** (data.degree - 1)) @ data.points
    norms = np.linalg.norm(lifted, axis=1)
    bulk = np.abs(inner) ** data.degree @ np.abs(heights)
    error = np.linalg.norm(slopes, axis=1) * bounds
    error = error + 10.0 * (data.degree + 1) * case.noise * bulk
    if data.source == "kkt":
        values, widths = np.log(np.abs(outputs)), error / np.abs(outputs)
    else:
        labels = np.sign(found.coefficients) * (-1.0 if data.source == "gradient" else 1.0)
        margins = labels * (outputs + data.offset)
        values = np.log(np.abs(found.coefficients)) + np.logaddexp(0.0, margins)
        widths = error + data.degree * expected_bounds(case)[0].terms
        if case.certificate.assumed.scale == "bias":
            widths = widths + data.degree * bounds / norms
    check_possible(
        bool(np.isfinite(values).all() and np.isfinite(widths).all()), "the tie is not finite"
    )
    factor = False
    if data.source == "weight-decay" and case.certificate.assumed.decay is not None:
        # The derivative of the loss itself, of its sum or of its mean.
        aims = (0.0, -float(np.log(len(values))))
        factor = any(bool(np.all(np.abs(values - aim) <= widths)) for aim in aims)
    return Tie(values, widths, _classes(case, lifted, bounds / norms), factor)


def check_tie(case: Case) -> tuple[str, str]:
    """The tie between the samples holds within the propagated error bounds."""
    detail = "the assumptions make a tie that the report does not list"
    row = required(case.report.row("tie"), detail)
    found = available(row.found, "the report has no numbers for it")
    tolerance = available(row.required, "the report has no numbers for it")
    tie = _tie(case)
    floor = max(10.0 * NOISE_FLOOR, 10.0 * case.noise)
    spread, width = float(np.ptp(tie.values)), float(tie.widths.max())
    require(
        tie.gap <= 0.0 or case.report.verdict != "globally",
        f"the values differ by {spread:.1e}, the bounds allow {width:.1e}",
    )
    require(
        case.matches("conditions.tie.found", found, spread, 0.05, floor),
        f"the values differ by {spread:.2e}, the report says {found:.2e}",
    )
    _check_width(case, tolerance)
    require(row.holds is (tie.gap <= 0.0), "tie: holds is wrong")
    return FLOAT, f"the values differ by {spread:.1e}, the error bounds allow {width:.1e}"
