"""Error bounds of the samples of a report, recomputed by the documented formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arithmetic.least_squares import spectral_norm
from .arithmetic.timed import InTime, always, triangle
from .case import Case
from .outcome import (
    FLOAT,
    TINY,
    FloatArray,
    NotCheckableError,
    agrees,
    check_possible,
    finite,
    require,
    required,
)
from .roundings import (
    chi_squared_quantile,
    lone_consistency,
    movement_error,
    output_errors,
    rounded_errors,
    tilts,
    units_of,
)
from .second_sample import pair_distance
from .terms import Samples, jacobian, samples_of, sorted_terms

BOUND_LIMIT = 0.1
# Up to the first the verifier inverts the Jacobian itself and above uses a cruder bound.
_SAME_UNKNOWNS = 600
_DENSE_UNKNOWNS = 1100
_ENTRIES = 30_000_000
EXACT, ABOVE, WEAK = "exact", "above", "weak"
_UNIT = 2.0**-53
_MANY = 30


@dataclass(frozen=True, eq=False)
class Expected:
    """Bounds of samples, absolute and as they are judged, and of terms, relative; (r,) each."""

    absolute: FloatArray
    judged: FloatArray
    terms: FloatArray


def check_bounds(case: Case) -> tuple[str, str]:
    """The error bounds are those of the documented formula; for `globally` below the limit."""
    report = case.report
    bounds = report.bounds
    require(bounds is not None and len(bounds) == case.r, "there is no bound for every sample")
    row = required(report.row("error bounds"), "there is no condition on the bounds")
    stated = stated_bounds(case)
    if stated is None:
        require(report.verdict != "globally", "a sample has no error bound")
        stated_kinds = set(report.bounds or ()) if report.absolute is None else set(report.absolute)
        require(stated_kinds == {None}, "some samples have a bound and others none")
        try:
            expected_bounds(case)
        except NotCheckableError as error:
            return FLOAT, f"there are none: {error}"
        raise NotCheckableError("a sample has no error bound where there should be one")
    lengths = judged_lengths(case)
    largest = float((stated / lengths).max())
    if report.verdict == "globally":
        require(largest < BOUND_LIMIT, f"the largest bound is {largest:.1e}, not below 0.1")
    if row.found is None:
        raise NotCheckableError("the condition states no largest bound")
    require(
        row.found >= 0.999 * largest,
        f"the condition says {row.found:.3g} where the largest bound is {largest:.3g}",
    )
    ranges = [
        expected_bounds(case, 1.0 / 8.0),
        expected_bounds(case, careful=True),
        expected_bounds(case, 8.0),
    ]
    kind = ranges[0][1]
    (lowest, own, highest), found = ([part for part, _ in ranges], np.array([row.found]))
    worst = [np.array([max(part.judged.max(), part.terms.max())]) for part, _ in ranges]
    absolute = (lowest.absolute, own.absolute, highest.absolute)
    _check_range(case, "error_bounds", stated, absolute, kind)
    _check_range(case, "conditions.error bounds.found", found, worst, kind)
    if report.verdict == "globally":
        check_possible(float(worst[2][0]) < BOUND_LIMIT, "rounding errors decide the bounds")
    _check_allowed(case)
    check_possible(kind != WEAK, f"{case.r**2} unknowns are too many for the error bounds")
    return FLOAT, f"the largest is {largest:.1e}" + ("" if kind == EXACT else ", and no smaller")


def _check_range(
    case: Case, field: str, said: FloatArray, limits: Sequence[FloatArray], kind: str
) -> None:
    """Bounds are those expected; between the outer limits rounding errors decide them."""
    low, own, high = limits
    above = kind != EXACT
    require(
        bool(np.all(said >= 0.95 * low)) and (above or bool(np.all(said <= 1.05 * high))),
        f"{said.max():.3g} where terms and data give {low.max():.3g} to {high.max():.3g}",
    )
    if not (np.all(said >= 0.95 * own) and np.all(said <= 1.05 * own)):
        case.not_checked[field] = None


def _check_allowed(case: Case) -> None:
    """The error of the data that bounds allow for is the one that the report states."""
    stated = case.report.allowed
    if stated is None:
        # Reports that do not name the arithmetic are older, and so are their bounds.
        old = case.certificate.assumed.arithmetic is None
        require(old, "it does not say which error of the data the bounds allow for")
        return
    low, high = data_error(case, 1.0 / 8.0)[0], data_error(case, 8.0)[0]
    require(
        0.95 * low <= stated <= 1.05 * high,
        f"the data may be off by {low:.2e}, the report says {stated:.2e}",
    )


def judged_lengths(case: Case) -> FloatArray:
    """What errors are judged by: |(x_i, 1)| with a hidden bias, |x_i| without."""
    norms = np.linalg.norm(samples_of(case).samples, axis=1)
    return np.asarray(np.hypot(norms, 1.0) if case.data.biased else norms)


def stated_bounds(case: Case) -> FloatArray | None:
    """The absolute bounds that the report states, None where one is missing.

    Reports of earlier versions have relative ones alone.
    """
    relative, absolute = case.report.bounds, case.report.absolute
    if relative is None:
        return None
    norms = np.linalg.norm(samples_of(case).samples, axis=1)
    require(len(relative) == case.r, "there is no bound for every sample")
    if absolute is None:
        if None in relative:
            return None
        return np.asarray(np.array(relative, dtype=np.float64) * norms)
    require(len(absolute) == case.r, "there is no absolute bound for every sample")
    for bound, own, norm in zip(relative, absolute, norms.tolist(), strict=True):
        if bound is None:
            require(own is None or norm == 0.0, "a relative bound is missing")
        else:
            # A sample near 0 is known to its rounding errors alone.
            near = own is not None and (agrees(bound * norm, own, 1e-6) or norm < 1e-9)
            require(near, "a relative bound is not the absolute one over the norm")
    return None if None in absolute else np.asarray(absolute, dtype=np.float64)


def expected_bounds(
    case: Case, blur: float = 1.0, *, careful: bool = False
) -> tuple[Expected, str]:
    """Bounds of samples and of terms, and whether a report's are these or above them.

    |J_i^+| e with e from the residual, at least the data level; the part off V; second order; the
    length where it depends on the direction.
    `blur` multiplies the part of the rows outside V where it is no more than rounding errors.
    Residuals are those stated; a `careful` bound takes none below what is found.
    """
    found, merged, r = samples_of(case), case.merged, case.r
    level = data_level(case, blur, careful=careful)
    lengths = judged_lengths(case)
    outside = _off_span(case, level, blur)
    share, plain = data_error(case, blur, careful=careful)
    if r == 1:
        outside = outside + _pair(case, level) * found.sizes
        relative = outside * found.stretch / lengths
        relative = np.maximum(relative, 8.0 * _UNIT) + units_of(case)[2]
        return _with_lengths(case, found, relative, np.array([share])), EXACT
    error = share * merged.size
    whole, mapped, kind = case.keep("movements", lambda: _movements(case, found))
    noise = case.certificate.assumed.noise
    if noise is None:
        inside, total = mapped[:, 0] * error, whole[:, 0] * error
    else:
        sigma = max(noise, plain, _UNIT) * merged.size / float(np.sqrt(merged.equations))
        inside = sigma * (mapped[:, 1] + 4.0 * mapped[:, 0])
        total = sigma * (whole[:, 1] + 4.0 * whole[:, 0])
    beyond = outside * found.stretch
    # A length that depends on the direction takes both parts in one direction.
    joined = np.where(found.slants > 0.0, inside + beyond, np.hypot(inside, beyond))
    relative = joined / lengths
    terms = np.hypot(total, outside) / found.sizes
    worst = min(float(terms.max()), 10.0)
    relative = relative * (1.0 + 2.0 * np.minimum(relative, 10.0) + 10.0 * worst)
    relative = np.maximum(relative, 8.0 * _UNIT) + units_of(case)[2]
    return _with_lengths(case, found, relative, terms), kind


def _with_lengths(case: Case, found: Samples, relative: FloatArray, terms: FloatArray) -> Expected:
    """Add what |f|^(-1/alpha) is off by, for the sample and for the factor that all share."""
    lengths = judged_lengths(case)
    if np.any(found.slants > 0.0):
        alpha, network = case.degree, output_errors(case)
        total = alpha * relative + network
        check_possible(bool(np.all(total < 1.0)), "f is not separated from 0 at a sample")
        growth = ((1.0 - total) ** (-1.0 / alpha) - 1.0) * alpha / total
        own = growth * (relative + network / alpha)
        radial = growth * (np.minimum(found.slants, 1.0) * relative + network / alpha)
        top = lengths * (1.0 + radial) >= float((lengths * (1.0 - radial)).max())
        relative = own + max(float(radial[top].max()), float(np.sort(radial)[len(radial) // 2]))
    return Expected(relative * lengths, relative, terms)


def data_level(case: Case, blur: float = 1.0, *, careful: bool = False) -> float:
    """The size of the data's error, by everything that shows it."""
    known = case.report.residuals
    stated = known["balance"][0]
    balance = case.data.consistency if stated is None else stated
    return max(
        max(case.data.consistency, case.kept("least", 0.0)) if careful else 0.0,
        # To the last digit as stated: at the level of rounding errors it decides the bounds.
        balance,
        lone_consistency(case, balance),
        case.data.rounding,
        case.certificate.assumed.noise or 0.0,
        known["linear"][0] or 0.0,
        _lost(case, blur),
        movement_error(case),
    )


def _pair(case: Case, level: float) -> float:
    """How far a lone sample may be from one of two that look like it, over |x|.

    Reports that do not name the arithmetic are older and do not ask.
    """
    assumed = case.certificate.assumed
    if case.data.homogeneous or assumed.samples == 1 or assumed.arithmetic is None:
        return 0.0
    stated = case.report.residuals["off_span"][0]
    own = case.off_span[0] if stated is None else stated
    return pair_distance(case, own + max(level, rounded_errors(case)[1]))


def _lost(case: Case, blur: float) -> float:
    """What averaging parallel neurons lost; of rounding errors nobody finds the same."""
    lost = case.merged.lost
    if lost >= TINY or not case.merged.spares:
        return lost
    return blur * (lost if blur <= 1.0 else max(lost, 4.0 * _UNIT))


def data_error(case: Case, blur: float = 1.0, *, careful: bool = False) -> tuple[float, float]:
    """The error of the data that the bounds allow for, relative, and the part the residual shows.

    The residual shows the part in the k dimensions outside the range of the Jacobian: a share of
    chi-squared with k degrees of freedom. What roundings allow counts up to the share of the
    equations that carry them.
    """
    level = data_level(case, blur, careful=careful)
    equations, unknowns = case.merged.equations, case.r**2
    residual, spare = case.report.residuals["samples"][0], equations - unknowns
    if case.r > 1 and (spare <= 0 or residual is None):
        raise NotCheckableError("there are as many unknowns as equations")
    rounded, _, carried = rounded_errors(case)
    tilt = 0.5 * float(np.linalg.norm(tilts(case) * _off_span(case, level, blur)))
    plain = capped = 0.0
    if spare > 0 and residual is not None:
        residual = max(residual, case.fit) if careful else residual
        plain = residual * float(np.sqrt(equations / spare))
        cautious = residual * float(np.sqrt(equations / chi_squared_quantile(spare)))
        capped = min(cautious, max(plain, 4.0 * level))
        tilt = min(tilt, cautious)
        carrying = min(float(equations), carried * case.r)
        if carrying - unknowns >= 1.0:
            share = carrying / chi_squared_quantile(carrying - unknowns)
            rounded = min(rounded, residual * float(np.sqrt(share)))
    return max(capped, rounded, tilt, level, _UNIT), plain


def first_order_bound(case: Case) -> float:
    """Largest |M_i^+| |dT| / |z_i| with |dT| <= e |y| / (sigma_min(H) min w), sigma as claimed.

    M maps the dz_i to dT; M^T M has the blocks s_i s_k alpha [c^(alpha-1) + (alpha-1) c^(alpha-2)
    z_k z_i^T], c = z_i . z_k (Breiding & Vannieuwenhoven 2018).
    """
    singular = case.certificate.singular
    if singular is None:
        raise NotCheckableError("there is no bound for the singular value")
    (terms, signs), r, alpha = case.terms, case.r, case.degree
    check_possible(r * r <= 1100, f"{r * r} unknowns are too many")
    cosines = terms @ terms.T
    pair = np.outer(signs, signs)
    blocks = np.einsum("ik,ab->iakb", pair * cosines ** (alpha - 1), np.eye(r))
    blocks += (alpha - 1) * np.einsum("ik,ka,ib->iakb", pair * cosines ** (alpha - 2), terms, terms)
    values, vectors = np.linalg.eigh(finite(alpha * blocks.reshape(r * r, r * r)))
    check_possible(float(values[0]) > 1e-13 * float(values[-1]), "the terms are dependent")
    inverse = (vectors / np.sqrt(values)).reshape(r, r, r * r)
    norms = np.array([np.linalg.norm(finite(block), 2) for block in inverse])
    weights = case.listed.weights[: singular[1]]
    move = data_error(case)[0] * float(np.linalg.norm(case.listed.sides))
    move /= singular[0] * float(weights.min())
    return float(np.max(norms / np.linalg.norm(terms, axis=1))) * move


def _movements(case: Case, found: Samples) -> tuple[FloatArray, FloatArray, str]:
    """Spectral and Frobenius norms of J_i^+ and of dx_i/dz_i J_i^+, each (n, 2)."""
    terms, signs = sorted_terms(case)
    merged, r = case.merged, case.r
    if r * r > _DENSE_UNKNOWNS or merged.equations * r * r > _ENTRIES:
        # |J_i^+| is at least 1/|J_i|, the columns of one term alone.
        whole, mapped = np.zeros((r, 2)), np.zeros((r, 2))
        for i in range(r):
            block = jacobian(merged.points, terms[i : i + 1], signs[i : i + 1], case.degree)
            size = float(np.linalg.norm(finite(np.repeat(merged.weights, r)[:, None] * block), 2))
            whole[i] = 1.0 / size
            mapped[i] = float(np.linalg.norm(finite(found.slopes[i]), 2)) / size
        return whole, mapped, WEAK
    blocks = inverse_blocks(weighted_jacobian(case), r, case.in_time)
    whole = np.array([_norms(block) for block in blocks])
    mapped = np.array([_norms(found.slopes[i] @ blocks[i]) for i in range(r)])
    return whole, mapped, EXACT if r * r <= _SAME_UNKNOWNS else ABOVE


def weighted_jacobian(case: Case) -> FloatArray:
    """Derivative of the weighted equations by the terms, values included, shape (E, n r)."""
    (terms, signs), merged, r = sorted_terms(case), case.merged, case.r
    matrix = jacobian(merged.points, terms, signs, case.degree)
    matrix = matrix * np.repeat(merged.weights, r)[:, None]
    if len(merged.value_points):
        inner = merged.value_points @ terms.T
        factor = case.degree * inner ** (case.degree - 1) * signs * merged.value_weights[:, None]
        extra = np.einsum("li,lb->lib", factor, merged.value_points).reshape(len(inner), r * r)
        matrix = np.vstack([matrix, extra])
    return matrix


def inverse_blocks(matrix: FloatArray, r: int, in_time: InTime = always) -> FloatArray:
    """The pseudo-inverse of a matrix of full column rank, up to a rotation: (n, r, n r)."""
    scale = np.linalg.norm(matrix, axis=0)
    check_possible(bool(np.all(scale > 0.0)), "the Jacobian is singular")
    upper = triangle(matrix / scale, in_time, squares=True)
    check_possible(np.linalg.cond(upper) < 1e12, "the Jacobian is singular")
    inverse = np.linalg.inv(upper) / scale[:, None]
    return np.asarray(inverse.reshape(-1, r, matrix.shape[1]))


def _off_span(case: Case, level: float, blur: float) -> FloatArray:
    """Bound for the part of each term outside V, from the rows outside it."""
    ambient, r = case.basis.shape
    if ambient == r:
        return np.zeros(r)
    terms, _ = sorted_terms(case)
    merged = case.merged
    spare = (len(merged.points) + merged.spares - r) * (ambient - r)
    top = float(case.listed.weights.max())
    if merged.spares:
        chosen, nearest, _ = case.groups
        top = float(np.sqrt(np.bincount(nearest, case.rows(chosen).weights ** 2).max()))
    seen = spectral_norm(case.off_span[1]) / top
    if case.off_span[0] < TINY:
        seen *= blur
    _, off, carried = rounded_errors(case)
    floor = (4.0 if spare < _MANY else 1.0) * level
    if min(spare, (carried - r) * (ambient - r)) < _MANY:
        floor = max(floor, off)
    error = max(seen, floor * merged.size)
    system = (merged.points @ terms.T) ** (case.degree - 1) * merged.weights[:, None]
    sizes = np.linalg.norm(system, axis=0)
    check_possible(len(system) >= r and bool(np.all(sizes > 0.0)), "V is not seen by the neurons")
    inverse = np.linalg.inv(np.linalg.qr(finite(system / sizes), mode="r"))
    return np.asarray(2.0 * error * np.linalg.norm(inverse, axis=1) / sizes)


def _norms(block: FloatArray) -> tuple[float, float]:
    return float(np.linalg.norm(finite(block), 2)), float(np.linalg.norm(block))
