"""The conditions of a report: their numbers, and whether their evidence exists."""

from __future__ import annotations

from collections.abc import Mapping

import flint
import numpy as np

from .arithmetic.ranks import ENTRIES, dimension, monomials, root_weights
from .bounds import BOUND_LIMIT, first_order_bound, judged_lengths, stated_bounds
from .case import Case
from .enclosure import box_balls, power_of
from .hidden_share import check_hidden_share
from .leftover import leftover, limit_of
from .lengths import sample_size
from .linear import NOISE_LIMIT
from .outcome import (
    FLOAT,
    TINY,
    Claim,
    FloatArray,
    NotCheckableError,
    RefutedError,
    agrees,
    check_possible,
    finite,
    require,
)
from .premises import BALANCE_LIMIT, lone_sample, span_gap
from .reading.report import Row
from .roundings import moved_points
from .ties import tie_equations, tie_expected

EXACT, INTERVAL, NUMERICAL = "proved_exact", "proved_interval", "numerical"
_KNOWN = (
    "balance", "consistency", "span", "I-hermite", "I-flat", "I-value", "decomposition",
    "second method", "leftover", "redundancy", "hidden share", "tie", "error bounds", "stable rank",
    "first-order bounds", "enclosure",
)  # fmt: skip


def check_conditions(case: Case, claims: Mapping[str, Claim]) -> tuple[str, str]:
    """Every row has the numbers that follow from the files, and the evidence that exists."""
    rows = {row.name: row for row in case.report.rows}
    require(len(rows) == len(case.report.rows), "a condition is listed twice")
    places = [_KNOWN.index(name) for name in rows if name in _KNOWN]
    require(places == sorted(places), "the conditions are not in their order")
    require(
        ("error bounds" in rows) == (case.report.bounds is not None),
        "there are bounds without their condition, or a condition without bounds",
    )
    unknown = [name for name in rows if name not in _KNOWN]
    open_rows = [f"no condition {name} is known"[:80] for name in unknown]
    first = "balance" if case.data.homogeneous else "consistency"
    needed = ["span", "I-hermite", "I-flat", "I-value", "decomposition"]
    needed += [first] * (not case.data.filled)
    if case.report.bounds is not None:
        needed += ["redundancy", "error bounds"]
    if case.report.verdict == "globally":
        certificate = case.certificate
        needed += ["stable rank"] * (certificate.singular is not None)
        needed += ["enclosure"] * (certificate.enclosure is not None)
        needed += ["tie"] * tie_expected(case)
        needed += ["leftover"] * (leftover(case) is not None)
        weighed = case.r >= 2 or not case.data.homogeneous
        if weighed and "hidden share" not in rows:
            open_rows.append("hidden share: the report does not weigh its redundant equations")
        for name in [*needed, "hidden share"]:
            # What a proof adds may fail; and for one sample of a gradient the rank of the rows
            # takes the place of redundancy.
            free = ("redundancy", "I-flat", "I-value", "stable rank", "enclosure")
            if name not in free and name in rows:
                require(rows[name].holds is True, f"{name}: it is not said to hold")
    missing = [name for name in needed if name not in rows]
    require(not missing, f"there is no condition {', '.join(missing)}")
    for name, row in rows.items():
        if name not in _KNOWN:
            continue
        try:
            _check_numbers(case, row)
        except NotCheckableError as error:
            open_rows.append(f"{name}: {error}")
    for name, row in rows.items():
        if name in _KNOWN:
            _check_evidence(case, row, claims)
    if open_rows:
        raise NotCheckableError("; ".join(open_rows))
    return FLOAT, f"{len(rows)} conditions, with the evidence that exists"


def rank_evidence(case: Case) -> str:
    """How the rank is established by what the certificate holds."""
    certificate = case.certificate
    if certificate.rank is not None:
        return EXACT
    if certificate.singular is not None and _stable(case):
        return INTERVAL
    return NUMERICAL


def overall_evidence(case: Case) -> str:
    """The weakest evidence for the rank, the samples and their number."""
    if case.report.verdict != "globally":
        return NUMERICAL
    samples = INTERVAL if enclosed(case) else NUMERICAL
    number = NUMERICAL if tied(case) else rank_evidence(case)
    return max(rank_evidence(case), samples, number, key=(EXACT, INTERVAL, NUMERICAL).index)


def tied(case: Case) -> bool:
    """Whether nothing but a tie, a numerical finding, speaks for the number of samples."""
    if case.report.rank is None or case.report.rank - case.r**2 >= 1:
        return False
    if case.certificate.assumed.samples == case.r or lone_sample(case):
        return False
    return tie_equations(case) > 0


def enclosed(case: Case) -> bool:
    """Whether there is an enclosure that is small enough to be of use."""
    return case.certificate.enclosure is not None and box_size(case) < BOUND_LIMIT


def box_size(case: Case) -> float:
    """The largest relative size of a box, of a term or of the sample that it stands for."""
    box = case.certificate.enclosure
    if box is None:
        return float(np.inf)
    own = float(box.relative.max())
    if case.certificate.assumed.scale != "margin" or case.certificate.assumed.arithmetic is None:
        return own
    if "sizes" not in case.kept:
        case.kept["sizes"] = sample_size(case, box)
    return max(own, float(case.kept["sizes"]))


def _stable(case: Case) -> bool:
    singular = case.certificate.singular
    return singular is not None and singular[2] >= tolerance(case) * (1.0 - 1e-9)


def tolerance(case: Case) -> float:
    """How far the points may be off: by the noise, their own rounding, or that of the integers."""
    singular = case.certificate.singular
    moved = moved_points(case, len(case.neurons) if singular is None else singular[1])
    return max(case.noise, moved, float(2.0**-case.shift * np.sqrt(case.r)))


def _check_evidence(case: Case, row: Row, claims: Mapping[str, Claim]) -> None:
    """The word of a row is that of the proof in the certificate, and no more."""
    by_rank = rank_evidence(case)
    by_box = INTERVAL if enclosed(case) else NUMERICAL
    expected = {
        "I-hermite": by_rank,
        "redundancy": NUMERICAL if tied(case) else by_rank,
        "decomposition": by_box,
        "enclosure": by_box,
        "stable rank": INTERVAL if _stable(case) else NUMERICAL,
    }.get(row.name, NUMERICAL)
    require(row.evidence == expected, f"{row.name}: {row.evidence}, where {expected} is shown")
    proofs = {
        "I-hermite": "rank" if by_rank == EXACT else "singular value",
        "stable rank": "singular value",
        "decomposition": "enclosure",
        "enclosure": "enclosure",
    }
    proof = proofs.get(row.name)
    if row.evidence != NUMERICAL and proof is not None and not claims[proof].holds:
        raise NotCheckableError(f"{row.name}: its proof is {claims[proof].outcome}")


def _check_second(case: Case, row: Row) -> None:
    """A second opinion is not repeated; it decides nothing but where it disagrees."""
    if row.found is None or row.required is None:
        require(row.found is row.required is row.holds is None, f"{row.name}: half a row")
    else:
        require(row.holds is (row.found <= row.required), f"{row.name}: holds is wrong")
    require(
        row.holds is not False or case.report.verdict != "globally", f"{row.name}: it disagrees"
    )
    for part in ("required", "found", "holds"):
        case.not_checked[f"conditions.{row.name}.{part}"] = None


def _check_numbers(case: Case, row: Row) -> None:
    name = row.name
    if name in ("balance", "consistency"):
        own_kind = (name == "balance") == case.data.homogeneous and not case.data.filled
        require(own_kind, f"{name}: not of this source")
        limit = BALANCE_LIMIT if name == "balance" else NOISE_LIMIT
        own = case.data.consistency
        _expect_number(row, row.required, limit, 0.0, "required")
        require(row.holds is (own <= limit), f"{name}: holds is wrong")
        require(row.found == case.report.residuals["balance"][0], f"{name}: two values are given")
    elif name == "span":
        _check_span(case, row)
    elif name == "I-hermite":
        rank, unknowns = case.report.rank, dimension(case.degree, case.r)
        if rank is None:
            raise NotCheckableError("the report states no rank")
        holds = rank == unknowns
        if row.holds is None and holds:
            case.not_checked[f"conditions.{name}.holds"] = None
        _expect(row, unknowns, rank, None if row.holds is None and holds else holds, slack=0.0)
    elif name in ("I-flat", "I-value"):
        _check_spread(case, row)
    elif name == "decomposition":
        _expect_number(row, row.required, 10.0 * case.noise, 1e-6, "required")
        stated, spare = case.report.residuals["samples"]
        require(stated == (row.found if spare else None), f"{name}: two values are given")
        if row.found is None:
            require(row.holds is None and case.certificate.terms is None, f"{name}: no residual")
            return
        holds = row.found <= 10.0 * case.noise
        require(row.holds is holds, f"{name}: holds is wrong")
        if case.certificate.terms is None:
            # What does not fit is not shown, so that nothing follows from its residual.
            require(not holds, f"{name}: there are no terms that fit")
            return
        field = f"conditions.{name}.found"
        fits = case.matches(field, row.found, case.fit, 0.1, case.blur)
        require(fits, f"{name}: it is {case.fit:.2e}")
    elif name == "second method":
        _check_second(case, row)
    elif name == "leftover":
        _check_leftover(case, row)
    elif name == "redundancy":
        stated_count = case.report.redundant
        if stated_count is None:
            raise NotCheckableError("the report does not count them")
        holds = stated_count >= 1 or case.certificate.assumed.samples == case.r
        _expect(row, 1, stated_count, holds, slack=0.0)
    elif name == "hidden share":
        check_hidden_share(case, row)
    elif name == "error bounds":
        _expect_number(row, row.required, BOUND_LIMIT, 0.0, "required")
        below = None if row.found is None else row.found < BOUND_LIMIT
        require(row.holds is below, f"{name}: holds is wrong")
    elif name == "stable rank":
        singular = case.certificate.singular
        _expect_number(row, row.required, tolerance(case), 1e-6, "required")
        _expect_number(row, row.found, 0.0 if singular is None else singular[2], 1e-9, "found")
        require(row.holds is (True if _stable(case) else None), f"{name}: holds is wrong")
    elif name == "first-order bounds":
        _expect_number(row, row.required, BOUND_LIMIT, 0.0, "required")
        own = first_order_bound(case)
        # Where rounding errors decide it, nobody finds the same number.
        if row.found is None or not case.matches(
            f"conditions.{name}.found", row.found, own, 0.05, 0.0
        ):
            _expect_number(row, row.found, own, 0.05 if own > 1e-9 else 0.75, "found")
            case.not_checked[f"conditions.{name}.found"] = None
        require(row.holds is (own < BOUND_LIMIT), f"{name}: holds is wrong")
    elif name == "enclosure":
        box = case.certificate.enclosure
        _expect_number(row, row.required, BOUND_LIMIT, 0.0, "required")
        require(row.holds is (True if enclosed(case) else None), f"{name}: holds is wrong")
        if enclosed(case) and box is not None:
            _expect_number(row, row.found, box_size(case), 1e-6, "found")
        else:
            require(row.found is None, f"{name}: a number was found")
    elif name == "tie":
        require(row.holds is not None, "tie: it is not said whether it holds")


def _check_leftover(case: Case, row: Row) -> None:
    check_possible(case.certificate.terms is not None, "there are no terms")
    found = leftover(case)
    require(found is not None, "leftover: every neuron is in the equations")
    assert found is not None
    _expect_number(row, row.required, limit_of(case, found.count), 1e-6, "required")
    require(
        row.found is not None
        and case.matches("conditions.leftover.found", row.found, found.residual, 0.1, case.blur),
        f"leftover: it is {found.residual:.2e}, not {row.found}",
    )
    assert row.found is not None
    require(row.holds is (row.found <= found.limit), "leftover: holds is wrong")


def _expect(
    row: Row,
    required: float,
    found: float,
    holds: bool | None,
    *,
    slack: float = 0.01,
) -> None:
    _expect_number(row, row.required, required, 0.0, "required")
    require(
        row.found is not None and agrees(row.found, found, slack),
        f"{row.name}: found {found:.4g}, not {row.found}",
    )
    require(row.holds is holds, f"{row.name}: holds is wrong")


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


def check_margins(case: Case) -> tuple[str, str]:
    """KKT: b_i f(x_i) > 0 for every sample, over the whole box where there is one."""
    terms, signs = case.terms
    box = case.certificate.enclosure
    data = case.data
    if box is None:
        bounds = stated_bounds(case)
        if bounds is None:
            raise NotCheckableError("there are no error bounds")
        full = terms @ case.basis.T
        inner = full @ data.points.T
        values = signs * (inner**data.degree @ data.scales)
        bulk = np.abs(inner) ** data.degree @ np.abs(data.scales)
        require(bool(np.all(values > 0.0)), "a sample lies on the wrong side")
        worst = float(np.max(bounds / judged_lengths(case)))
        if not np.all(values > 2.0 * data.degree * (worst + case.noise) * bulk):
            raise NotCheckableError("the error bounds do not exclude the wrong side")
        return FLOAT, "every sample lies on its side beyond the error bounds"
    with flint.ctx.workprec(max(128, box.precision)):
        length = float(np.linalg.norm(data.points, axis=1).max())
        points = flint.arb_mat([[flint.arb(x) / length for x in p] for p in data.points.tolist()])
        frame = points * flint.arb_mat([[flint.arb(x) for x in p] for p in case.basis.tolist()])
        top = float(np.abs(data.scales).max())
        lines = frame.tolist()
        for term, sign in zip(box_balls(box), signs.astype(int).tolist(), strict=True):
            total = flint.arb(0)
            for line, scale in zip(lines, data.scales.tolist(), strict=True):
                inner_ball = sum((a * b for a, b in zip(line, term, strict=True)), flint.arb(0))
                total += flint.arb(scale) / top * power_of(inner_ball, data.degree)
            if total * sign < 0:
                raise RefutedError("a sample lies on the wrong side over the whole box")
            if not total * sign > 0:
                raise NotCheckableError("the box does not exclude the wrong side")
    return "ball arithmetic", "b_i f(x_i) > 0 over the whole box"
