"""The numbers of every condition of a report, recomputed from the files and the certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .arithmetic.ranks import ENTRIES, dimension, monomials, root_weights
from .bounds import BOUND_LIMIT, first_order_bound
from .case import Case
from .hidden_share import check_hidden_share
from .leftover import leftover, limit_of
from .levels import box_size, enclosed, stable, tolerance
from .linear import NOISE_LIMIT
from .outcome import (
    TINY,
    FloatArray,
    NotCheckableError,
    agrees,
    available,
    check_possible,
    finite,
    require,
    required,
)
from .premises import BALANCE_LIMIT, lone_sample, span_gap
from .reading.report import Row
from .terms import is_finite, negative_entries, samples_of

_LARGEST_LOGARITHM = 690.0


def _check_layers(case: Case, row: Row) -> None:
    """Balance, or Euler's identity."""
    own_kind = (row.name == "balance") == case.data.homogeneous and not case.data.filled
    require(own_kind, f"{row.name}: not of this source")
    limit = BALANCE_LIMIT if row.name == "balance" else NOISE_LIMIT
    _expect_number(row, row.required, limit, 0.0, "required")
    _expect_holds(row, case.data.consistency <= limit)
    require(row.found == case.report.residuals["balance"][0], f"{row.name}: two values are given")


def _check_range(case: Case, row: Row) -> None:
    _expect_nothing(row)
    _expect_holds(row, fits_range(case))


def fits_range(case: Case) -> bool:
    """Whether row / (scale |u|^(alpha-1)) and its parts, at their largest, fit in float64."""
    data = case.data
    length = float(np.linalg.norm(data.points, axis=1).max())
    tops = [float(np.abs(data.rows).max()), float(np.abs(data.scales).max()), length]
    fits = True
    if min(tops) > 0.0:
        side, scale, point = np.log(tops)
        power = (data.degree - 1) * point
        parts = (power, side - scale, side - scale - power)
        fits = bool(max(map(abs, parts)) < _LARGEST_LOGARITHM)
    return fits


def _check_noise(case: Case, row: Row) -> None:
    _expect_number(row, row.required, NOISE_LIMIT, 0.0, "required")
    require(row.found == case.noise, f"{row.name}: two values are given")
    _expect_holds(row, case.noise <= NOISE_LIMIT)


def _check_settled(case: Case, row: Row) -> None:
    """A level that did not settle decides nothing."""
    require(row.required == case.noise, f"{row.name}: two values are given")
    require(row.found is None, f"{row.name}: something is left")
    _expect_holds(row, True)


def _check_hermite(case: Case, row: Row) -> None:
    rank = available(case.report.rank, "the report states no rank")
    unknowns = dimension(case.degree, case.r)
    holds = rank == unknowns
    if row.holds is None and holds:
        case.not_checked[f"conditions.{row.name}.holds"] = None
    _expect(row, unknowns, rank, None if row.holds is None and holds else holds)


def _check_number(case: Case, row: Row) -> None:
    """A given number of samples is possible from r on, and covered up to r."""
    samples = required(case.certificate.assumed.samples, f"{row.name}: no number is assumed")
    holds = samples >= case.r if row.name == "number possible" else samples <= case.r
    _expect(row, case.r, samples, holds)


def _check_neurons(case: Case, row: Row) -> None:
    """Parallel inside V, neurons may still differ outside; r + 1 of them are enough."""
    require(not case.data.homogeneous, f"{row.name}: not of this source")
    _expect_number(row, row.required, case.r + 1, 0.0, "required")
    stated, own = required(row.found, f"{row.name}: no number was found"), len(case.neurons)
    _expect_holds(row, stated > case.r)
    if own > case.r:
        require(stated == own, f"{row.name}: {own}, not {stated:g}")
        return
    require(own <= stated <= len(case.live), f"{row.name}: {own} to {len(case.live)}")
    same = stated > case.r if case.directions > case.r else stated == case.directions
    check_possible(same, f"{row.name}: {case.directions} directions, not {stated:g}")
    if stated > case.r:
        case.not_checked[f"conditions.{row.name}.found"] = None


def _check_decomposition(case: Case, row: Row) -> None:
    _expect_number(row, row.required, 10.0 * case.noise, 1e-6, "required")
    stated, spare = case.report.residuals["samples"]
    require(stated == (row.found if spare else None), f"{row.name}: two values are given")
    if row.found is None:
        require(row.holds is None and case.certificate.terms is None, f"{row.name}: no residual")
        return
    holds = row.found <= 10.0 * case.noise
    _expect_holds(row, holds)
    if case.certificate.terms is None:
        # What does not fit is not shown, so that nothing follows from its residual.
        require(not holds, f"{row.name}: there are no terms that fit")
        return
    fits = case.matches(f"conditions.{row.name}.found", row.found, case.fit, 0.1, case.blur)
    require(fits, f"{row.name}: it is {case.fit:.2e}")


def _check_finite(case: Case, row: Row) -> None:
    _expect_nothing(row)
    _expect_holds(row, is_finite(case))


def _check_non_negative(case: Case, row: Row) -> None:
    require(case.certificate.assumed.non_negative, f"{row.name}: it is not assumed")
    _expect_number(row, row.required, 0.0, 0.0, "required")
    lowest = float(samples_of(case).samples.min())
    stated = required(row.found, f"{row.name}: no number was found")
    same = case.matches(f"conditions.{row.name}.found", stated, lowest, 0.01, TINY)
    require(same, f"{row.name}: {lowest:.2e}, not {stated:.2e}")
    _expect_holds(row, not negative_entries(case))


def _check_side(case: Case, row: Row) -> None:
    """b_i f(x_i) > 0, counted but for roundings."""
    require(case.data.source == "kkt", f"{row.name}: not of this source")
    terms, signs = case.terms
    inner = terms @ case.basis.T @ case.data.points.T
    values = signs * (inner**case.degree @ case.data.scales)
    slack = 1e-9 * (np.abs(inner) ** case.degree @ np.abs(case.data.scales))
    low, high = (int(np.count_nonzero(values > way * slack)) for way in (1.0, -1.0))
    _expect_number(row, row.required, case.r, 0.0, "required")
    stated = required(row.found, f"{row.name}: no number was found")
    require(low <= stated <= high, f"{row.name}: {low}, not {stated:g}")
    _expect_holds(row, stated == case.r)


def _check_separate(case: Case, row: Row) -> None:
    """Where all are separated, the claim about margins says so too."""
    require(case.data.source == "kkt", f"{row.name}: not of this source")
    _expect_number(row, row.required, case.r, 0.0, "required")
    stated = required(row.found, f"{row.name}: no number was found")
    require(stated in range(case.r + 1), f"{row.name}: {stated:g} of {case.r}")
    _expect_holds(row, stated == case.r)
    if case.report.verdict != "globally":
        for part in ("found", "holds"):
            case.not_checked[f"conditions.{row.name}.{part}"] = None


def _check_redundancy(case: Case, row: Row) -> None:
    count = available(case.report.redundant, "the report does not count them")
    holds = count >= 1 or case.certificate.assumed.samples == case.r
    if row.needed is not None and not holds:
        # Before rows said what is needed, those of a lone sample stood apart.
        holds = lone_sample(case)
    _expect(row, 1, count, holds)


def _check_bounds(case: Case, row: Row) -> None:
    _expect_number(row, row.required, BOUND_LIMIT, 0.0, "required")
    below = None if row.found is None else row.found < BOUND_LIMIT
    require(row.holds is below, f"{row.name}: holds is wrong")


def _check_stable(case: Case, row: Row) -> None:
    singular = case.certificate.singular
    _expect_number(row, row.required, tolerance(case), 1e-6, "required")
    _expect_number(row, row.found, 0.0 if singular is None else singular[2], 1e-9, "found")
    require(row.holds is (True if stable(case) else None), f"{row.name}: holds is wrong")


def _check_first_order(case: Case, row: Row) -> None:
    _expect_number(row, row.required, BOUND_LIMIT, 0.0, "required")
    own, field = first_order_bound(case), f"conditions.{row.name}.found"
    # Where rounding errors decide it, nobody finds the same number.
    if row.found is None or not case.matches(field, row.found, own, 0.05, 0.0):
        _expect_number(row, row.found, own, 0.05 if own > 1e-9 else 0.75, "found")
        case.not_checked[field] = None
    _expect_holds(row, own < BOUND_LIMIT)


def _check_box(case: Case, row: Row) -> None:
    _expect_number(row, row.required, BOUND_LIMIT, 0.0, "required")
    require(row.holds is (True if enclosed(case) else None), f"{row.name}: holds is wrong")
    if enclosed(case):
        _expect_number(row, row.found, box_size(case), 1e-6, "found")
    else:
        require(row.found is None, f"{row.name}: a number was found")


def _check_tie(case: Case, row: Row) -> None:
    require(row.holds is not None, "tie: it is not said whether it holds")


def _check_proofs(case: Case, row: Row) -> None:
    """What contradicts a proof, or lacks the one that was asked for, is undecided."""
    require(case.report.verdict == "globally", f"{row.name}: nothing is proved")
    _expect_nothing(row)
    _expect_holds(row, True)


def _check_finished(case: Case, row: Row) -> None:
    require(False, f"{row.name}: a run that did not end decides nothing")


def _check_second(case: Case, row: Row) -> None:
    """A second opinion is not repeated; it decides nothing but where it disagrees."""
    if row.found is None or row.required is None:
        require(row.found is row.required is row.holds is None, f"{row.name}: half a row")
    else:
        require(row.holds is (row.found <= row.required), f"{row.name}: holds is wrong")
    agree = row.holds is not False or case.report.verdict != "globally"
    require(agree, f"{row.name}: it disagrees")
    for part in ("required", "found", "holds"):
        case.not_checked[f"conditions.{row.name}.{part}"] = None


def _check_leftover(case: Case, row: Row) -> None:
    check_possible(case.certificate.terms is not None, "there are no terms")
    found = required(leftover(case), "leftover: every neuron is in the equations")
    stated = required(row.found, "leftover: no number was found")
    _expect_number(row, row.required, limit_of(case, found.count), 1e-6, "required")
    require(
        case.matches("conditions.leftover.found", stated, found.residual, 0.1, case.blur),
        f"leftover: it is {found.residual:.2e}, not {stated}",
    )
    _expect_holds(row, stated <= found.limit)


def _expect(
    row: Row,
    required: float,
    found: float,
    holds: bool | None,
) -> None:
    _expect_number(row, row.required, required, 0.0, "required")
    require(
        row.found is not None and row.found == found,
        f"{row.name}: found {found:.4g}, not {row.found}",
    )
    require(row.holds is holds, f"{row.name}: holds is wrong")


def _expect_holds(row: Row, holds: bool | np.bool_) -> None:
    require(row.holds is bool(holds), f"{row.name}: holds is wrong")


def _expect_nothing(row: Row) -> None:
    require(row.required is None and row.found is None, f"{row.name}: there is no such number")


def _expect_number(row: Row, stated: float | None, own: float, slack: float, part: str) -> None:
    require(
        stated is not None and agrees(stated, own, slack),
        f"{row.name}: {part} {own:.4g}, not {stated}",
    )


def _check_span(case: Case, row: Row) -> None:
    _expect_number(row, row.required, 100.0, 0.0, "required")
    smallest, outside = span_gap(case)
    if row.found is None:
        # Nothing was left uncounted.
        require(row.holds is True, "span: holds is wrong")
        require(
            len(case.basis) == case.r or len(case.live) <= case.r or outside < TINY,
            "span: no number was found",
        )
        if outside > 0.0:
            case.not_checked["conditions.span.found"] = None
        return
    require(row.holds is (row.found >= 100.0), "span: holds is wrong")
    field, own = "conditions.span.found", smallest / outside if outside > 0.0 else np.inf
    if agrees(row.found, own, 0.05):
        return
    total = case.off_span[0] * float(np.linalg.norm(case.data.rows[case.live]) / case.units[2])
    sigma = np.linalg.norm(finite(case.data.rows[case.live] / case.units[2]), 2) if total else 1.0
    # What was left of a sketch is bounded by its Frobenius norm; below are rounding errors.
    if outside > 1e-13:
        low = smallest / (total / float(sigma))
        require(0.95 * low <= row.found <= 1.05 * own, f"span: {low:.2e} to {own:.2e}")
    else:
        require(row.found >= 0.01 * smallest / 1e-13, f"span: found {row.found:.2e}")
    case.not_checked[field] = None


def _check_spread(case: Case, row: Row) -> None:
    """Rank of the powers of the points; a count where there are too few of them."""
    order = case.degree - (row.name == "I-flat")
    needed = dimension(order, case.r)
    _expect_number(row, row.required, needed, 0.0, "required")
    points = case.listed.points
    if row.found is None:
        require(row.holds is None, f"{row.name}: holds is wrong")
        return
    own = len(points)
    if own >= needed:
        if own * needed > ENTRIES // 4 or needed > 1500:
            raise NotCheckableError("there are too many powers")
        matrix: FloatArray = monomials(points, order)
        matrix = matrix * root_weights(order, case.r)
        sigma = np.linalg.svd(finite(matrix), compute_uv=False)
        low, own = (int(np.count_nonzero(sigma > f * 1e-12 * sigma[0])) for f in (30.0, 0.03))
        require(low <= row.found <= own, f"{row.name}: found {own}, not {row.found:g}")
    else:
        require(row.found == own, f"{row.name}: found {own}, not {row.found:g}")
    require(row.holds is (row.found >= needed), f"{row.name}: holds is wrong")


CHECKS: Mapping[str, Callable[[Case, Row], None]] = {
    "finished": _check_finished,
    "balance": _check_layers,
    "range": _check_range,
    "consistency": _check_layers,
    "noise level": _check_noise,
    "settled noise": _check_settled,
    "span": _check_span,
    "number possible": _check_number,
    "neurons": _check_neurons,
    "I-hermite": _check_hermite,
    "I-flat": _check_spread,
    "I-value": _check_spread,
    "number covered": _check_number,
    "decomposition": _check_decomposition,
    "finite samples": _check_finite,
    "second method": _check_second,
    "leftover": _check_leftover,
    "tie": _check_tie,
    "non-negative": _check_non_negative,
    "right side": _check_side,
    "redundancy": _check_redundancy,
    "hidden share": check_hidden_share,
    "error bounds": _check_bounds,
    "separate margins": _check_separate,
    "stable rank": _check_stable,
    "first-order bounds": _check_first_order,
    "enclosure": _check_box,
    "agreement": _check_proofs,
    "evidence": _check_proofs,
}
"""Every condition that is known, in the order of the rules of the verdict."""
