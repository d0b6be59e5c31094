"""Error bounds of the samples of a report, recomputed by the documented formula."""

from __future__ import annotations

from math import exp, lgamma, log

import numpy as np

from .arithmetic.least_squares import spectral_norm
from .case import Case
from .outcome import (
    FLOAT,
    TINY,
    FloatArray,
    NotCheckableError,
    check_possible,
    finite,
    require,
)
from .terms import Samples, jacobian, samples_of

BOUND_LIMIT = 0.1
# Up to the first the verifier inverts the Jacobian itself and above uses a cruder bound.
_SAME_UNKNOWNS = 600
_DENSE_UNKNOWNS = 1100
_ENTRIES = 30_000_000
EXACT, ABOVE, WEAK = "exact", "above", "weak"
_UNIT = 2.0**-53


def check_bounds(case: Case) -> tuple[str, str]:
    """The error bounds are those of the documented formula; for `globally` below the limit."""
    report = case.report
    bounds, row = report.bounds, report.row("error bounds")
    require(bounds is not None and len(bounds) == case.r, "there is no bound for every sample")
    require(row is not None, "there is no condition on the bounds")
    assert bounds is not None
    assert row is not None
    if None in bounds:
        require(report.verdict != "globally", "a sample has no error bound")
        try:
            expected_bounds(case)
        except NotCheckableError as error:
            return FLOAT, f"there are none: {error}"
        raise NotCheckableError("a sample has no error bound where there should be one")
    stated = np.array(bounds, dtype=np.float64)
    largest = float(stated.max())
    if report.verdict == "globally":
        require(largest < BOUND_LIMIT, f"the largest bound is {largest:.1e}, not below 0.1")
    if row.found is None:
        raise NotCheckableError("the condition states no largest bound")
    require(
        row.found >= 0.999 * largest,
        f"the condition says {row.found:.3g} where the largest bound is {largest:.3g}",
    )
    lowest, kind = expected_bounds(case, 1.0 / 8.0)
    highest, _ = expected_bounds(case, 8.0)
    worst = [float(max(map(np.max, part))) for part in (lowest, highest)]
    for said, low, high in (
        (stated, lowest[0], highest[0]),
        (np.array([row.found]), np.array(worst[:1]), np.array(worst[1:])),
    ):
        require(
            bool(np.all(said >= 0.95 * low))
            and (kind != EXACT or bool(np.all(said <= 1.05 * high))),
            f"{said.max():.3g} where terms and data give {low.max():.3g} to {high.max():.3g}",
        )
    check_possible(kind != WEAK, f"{case.r**2} unknowns are too many for the error bounds")
    return FLOAT, f"the largest is {largest:.1e}" + ("" if kind == EXACT else ", and no smaller")


def expected_bounds(case: Case, blur: float = 1.0) -> tuple[tuple[FloatArray, FloatArray], str]:
    """Bounds of samples and of terms, relative, and whether a report's are these or above them.

    |J_i^+| e with e from the residual, at least the data level; the part off V; second order.
    `blur` multiplies the part of the rows outside V where it is no more than rounding errors.
    """
    found, merged, r = samples_of(case), case.merged, case.r
    level = data_level(case, blur)
    norms = np.linalg.norm(found.samples, axis=1)
    outside = _off_span(case, level, blur)
    if r == 1:
        relative = np.maximum(outside * found.stretch / norms, 8.0 * _UNIT)
        return (relative, np.array([max(level, _UNIT)])), EXACT
    share, plain = data_error(case, blur)
    error = share * merged.size
    if "movements" not in case.kept:
        case.kept["movements"] = _movements(case, found)
    whole, mapped, kind = case.kept["movements"]
    noise = case.certificate.assumed.noise
    if noise is None:
        inside, total = mapped[:, 0] * error, whole[:, 0] * error
    else:
        sigma = max(noise, plain, _UNIT) * merged.size / float(np.sqrt(merged.equations))
        inside = sigma * (mapped[:, 1] + 4.0 * mapped[:, 0])
        total = sigma * (whole[:, 1] + 4.0 * whole[:, 0])
    relative = np.hypot(inside, outside * found.stretch) / norms
    terms = np.hypot(total, outside) / found.sizes
    worst = min(float(terms.max()), 10.0)
    relative = relative * (1.0 + 2.0 * np.minimum(relative, 10.0) + 10.0 * worst)
    relative = np.maximum(relative, 8.0 * _UNIT)
    return (relative, terms), kind


def data_level(case: Case, blur: float = 1.0) -> float:
    """The size of the data's error, by everything that shows it."""
    known = case.report.residuals
    stated = known["balance"][0]
    return max(
        # To the last digit as stated: at the level of rounding errors it decides the bounds.
        case.data.consistency if stated is None else stated,
        case.data.rounding,
        case.certificate.assumed.noise or 0.0,
        known["linear"][0] or 0.0,
        _lost(case, blur),
    )


def _lost(case: Case, blur: float) -> float:
    """What averaging parallel neurons lost; of rounding errors nobody finds the same."""
    lost = case.merged.lost
    if lost >= TINY or not case.merged.spares:
        return lost
    return blur * (lost if blur <= 1.0 else max(lost, 4.0 * _UNIT))


def data_error(case: Case, blur: float = 1.0) -> tuple[float, float]:
    """The error of the data that the bounds allow for, relative, and the part the residual shows.

    The residual shows the part in the k dimensions outside the range of the Jacobian: a share of
    chi-squared with k degrees of freedom.
    """
    level, equations, unknowns = data_level(case, blur), case.merged.equations, case.r**2
    if case.r == 1:
        return max(level, _UNIT), 0.0
    residual = case.report.residuals["samples"][0]
    if equations <= unknowns or residual is None:
        raise NotCheckableError("there are as many unknowns as equations")
    spare = equations - unknowns
    plain = residual * float(np.sqrt(equations / spare))
    careful = residual * float(np.sqrt(equations / chi_squared_quantile(spare)))
    return max(min(careful, max(plain, 4.0 * level)), level, _UNIT), plain


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
    terms, signs = ordered(case)
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
    blocks = inverse_blocks(weighted_jacobian(case), r)
    whole = np.array([_norms(block) for block in blocks])
    mapped = np.array([_norms(found.slopes[i] @ blocks[i]) for i in range(r)])
    return whole, mapped, EXACT if r * r <= _SAME_UNKNOWNS else ABOVE


def weighted_jacobian(case: Case) -> FloatArray:
    """Derivative of the weighted equations by the terms, values included, shape (E, n r)."""
    (terms, signs), merged, r = ordered(case), case.merged, case.r
    matrix = jacobian(merged.points, terms, signs, case.degree)
    matrix = matrix * np.repeat(merged.weights, r)[:, None]
    if len(merged.value_points):
        inner = merged.value_points @ terms.T
        factor = case.degree * inner ** (case.degree - 1) * signs * merged.value_weights[:, None]
        extra = np.einsum("li,lb->lib", factor, merged.value_points).reshape(len(inner), r * r)
        matrix = np.vstack([matrix, extra])
    return matrix


def inverse_blocks(matrix: FloatArray, r: int) -> FloatArray:
    """The pseudo-inverse of a matrix of full column rank, up to a rotation: (n, r, n r)."""
    scale = np.linalg.norm(matrix, axis=0)
    check_possible(bool(np.all(scale > 0.0)), "the Jacobian is singular")
    triangle = np.linalg.qr(finite(matrix / scale), mode="r")
    check_possible(np.linalg.cond(triangle) < 1e12, "the Jacobian is singular")
    inverse = np.linalg.inv(triangle) / scale[:, None]
    return np.asarray(inverse.reshape(-1, r, matrix.shape[1]))


def _off_span(case: Case, level: float, blur: float) -> FloatArray:
    """Bound for the part of each term outside V, from the rows outside it."""
    ambient, r = case.basis.shape
    if ambient == r:
        return np.zeros(r)
    terms, _ = ordered(case)
    merged = case.merged
    spare = (len(merged.points) + merged.spares - r) * (ambient - r)
    top = float(case.listed.weights.max())
    if merged.spares:
        chosen, nearest, _ = case.groups
        top = float(np.sqrt(np.bincount(nearest, case.rows(chosen).weights ** 2).max()))
    seen = spectral_norm(case.off_span[1]) / top
    if case.off_span[0] < TINY:
        seen *= blur
    error = max(seen, (4.0 if spare < 30 else 1.0) * level * merged.size)
    system = (merged.points @ terms.T) ** (case.degree - 1) * merged.weights[:, None]
    sizes = np.linalg.norm(system, axis=0)
    check_possible(len(system) >= r and bool(np.all(sizes > 0.0)), "V is not seen by the neurons")
    inverse = np.linalg.inv(np.linalg.qr(finite(system / sizes), mode="r"))
    return np.asarray(2.0 * error * np.linalg.norm(inverse, axis=1) / sizes)


def chi_squared_quantile(freedom: int, level: float = 1e-4) -> float:
    """The q with P(chi^2 < q) = level, by bisection of the series of the incomplete gamma.

    Example:
        >>> round(chi_squared_quantile(10), 4)
        0.8889
    """
    shape = 0.5 * freedom

    def share(x: float) -> float:
        term = total = 1.0 / shape
        step = shape
        while term > 1e-17 * total:
            step += 1.0
            term *= x / step
            total += term
        return total * exp(shape * log(x) - x - lgamma(shape))

    low, high = 0.0, shape
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle > 0.0 and share(middle) > level:
            high = middle
        else:
            low = middle
    return high + low


def ordered(case: Case) -> tuple[FloatArray, FloatArray]:
    """Terms and signs in the order of the samples, the largest term first."""
    terms, signs = case.terms
    order = np.argsort(-np.linalg.norm(terms, axis=1), kind="stable")
    return terms[order], signs[order]


def _norms(block: FloatArray) -> tuple[float, float]:
    return float(np.linalg.norm(finite(block), 2)), float(np.linalg.norm(block))
