"""The terms of a report: their residual, the samples they stand for, ties between those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .case import Case, predicted
from .outcome import (
    FLOAT,
    FloatArray,
    RefutedError,
    check_possible,
    finite,
    require,
)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of terms in the scale convention: x_i (n, d), b_i (n,) up to one factor.

    `slopes` (n, r, r) have the norms of dx_i/dz_i, `stretch` (n,) those for a part off V;
    `sizes` (n,) are |z_i|, `slants` (n,) the relative change of the length for each unit that the
    direction moves.
    """

    samples: FloatArray
    coefficients: FloatArray
    slopes: FloatArray
    stretch: FloatArray
    sizes: FloatArray
    slants: FloatArray


def samples_of(case: Case) -> Samples:
    """The samples that the terms stand for, largest term first."""
    terms, signs = case.terms
    scale = case.certificate.assumed.scale
    sizes = np.linalg.norm(terms, axis=1)
    order = np.argsort(-sizes, kind="stable")
    terms, signs, sizes = terms[order], signs[order], sizes[order]
    full = terms @ case.basis.T
    r = case.r
    check_possible(r <= 300, f"{r} terms are too many")
    if scale == "bias":
        last = full[:, -1]
        require(bool(np.all(np.abs(last) > 1e-9 * sizes)), "a sample is infinite under the bias")
        samples = full[:, :-1] / last[:, None]
        slopes = np.empty((r, r, r))
        for i in range(r):
            slope = (case.basis[:-1] - np.outer(samples[i], case.basis[-1])) / last[i]
            triangle = np.linalg.qr(finite(slope), mode="r")
            slopes[i] = 0.0
            slopes[i][: len(triangle)] = triangle
        stretch = np.sqrt(1.0 + np.sum(samples**2, axis=1)) / np.abs(last)
        return Samples(samples, signs * last**case.degree, slopes, stretch, sizes, np.zeros(r))
    unit = full / sizes[:, None]
    if case.certificate.assumed.non_negative:
        flip = np.where(unit.sum(axis=1) < 0.0, -1.0, 1.0)
    else:
        peak = np.take_along_axis(unit, np.abs(unit).argmax(axis=1)[:, None], axis=1)[:, 0]
        flip = np.where(peak < 0.0, -1.0, 1.0)
    unit = unit * flip[:, None]
    lengths = np.ones(r)
    if scale == "margin":
        lengths = np.abs(case.data.outputs(unit)) ** (-1.0 / case.degree)
        lengths = lengths / lengths.max()
    inside = unit @ case.basis
    stretch = lengths / sizes
    slopes = np.eye(r) - inside[:, :, None] * inside[:, None, :]
    slants = np.zeros(r)
    if scale == "margin":
        # The triangle of (P; h^T) has the norms of the movement with that of the length.
        tilts = _tilts(case, unit)
        within = tilts @ case.basis
        beyond = np.linalg.norm(tilts - within @ case.basis.T, axis=1)
        stacked = np.concatenate([slopes, within[:, None, :]], axis=1)
        slopes = np.array([np.linalg.qr(finite(s), mode="r") for s in stacked])
        slants = np.hypot(np.linalg.norm(within, axis=1), beyond)
        stretch = stretch * np.hypot(1.0, beyond)
    heights = signs * (sizes * flip / lengths) ** case.degree
    slopes = slopes * (lengths / sizes)[:, None, None]
    return Samples(unit * lengths[:, None], heights, slopes, stretch, sizes, slants)


def _tilts(case: Case, unit: FloatArray) -> FloatArray:
    """d log |f(u)|^(-1/alpha) along the sphere, at unit vectors u (n, d)."""
    data = case.data
    inner = unit @ data.network_points.T
    slopes = (data.network_heights * inner ** (case.degree - 1)) @ data.network_points
    values = inner**case.degree @ data.network_heights
    check_possible(bool(np.all(values != 0.0)), "f is 0 at a sample, which has no length then")
    # slopes . u = f: what is left is the part along the sphere.
    return np.asarray(-(slopes / values[:, None] - unit))


def sorted_terms(case: Case) -> tuple[FloatArray, FloatArray]:
    """Terms and signs, largest term first."""
    terms, signs = case.terms
    order = np.argsort(-np.linalg.norm(terms, axis=1), kind="stable")
    return terms[order], signs[order]


def jacobian(points: FloatArray, terms: FloatArray, signs: FloatArray, degree: int) -> FloatArray:
    """Derivative of sum_i s_i (p_j.z_i)^(degree-1) z_i by z, shape (k r, n r)."""
    count, r = terms.shape
    inner = points @ terms.T
    high = inner ** (degree - 1) * signs
    low = (degree - 1) * inner ** (degree - 2) * signs
    block = np.einsum("ji,ia,jb->jaib", low, terms, points, optimize=True)
    for axis in range(r):
        block[:, axis, :, axis] += high
    return np.asarray(block.reshape(len(points) * r, count * r))


def check_terms(case: Case) -> tuple[str, str]:
    """The terms satisfy the Hermite equations to ten noise levels and are independent."""
    terms, signs = case.terms
    listed = case.listed
    rows = listed.weights[:, None] * predicted(listed.points, terms, signs, case.degree)
    own = float(np.linalg.norm(rows - listed.sides) / np.linalg.norm(listed.sides))
    merged = case.fit
    limit = 10.0 * case.noise
    require(
        max(own, merged) <= 1.01 * limit + case.blur,
        f"the residual is {max(own, merged):.2e}, above ten noise levels",
    )
    stated = case.report.residuals["samples"][0]
    if stated is not None:
        require(
            case.matches("residuals.samples.value", stated, merged, 0.1, case.blur),
            f"the residual is {merged:.2e}, the report says {stated:.2e}",
        )
    units = terms / np.linalg.norm(terms, axis=1)[:, None]
    smallest = float(np.linalg.svd(finite(units), compute_uv=False)[-1])
    require(smallest > 1e-11, f"the terms are dependent: singular value {smallest:.1e}")
    return FLOAT, f"residual {merged:.1e} over {case.merged.equations} equations, independent"


def is_finite(case: Case) -> bool:
    """Whether every term has a sample: with a bias a term needs a last coordinate."""
    full = case.terms[0] @ case.basis.T
    if case.certificate.assumed.scale != "bias":
        return True
    return bool(np.all(np.abs(full[:, -1]) > 1e-9 * np.linalg.norm(full, axis=1)))


def check_non_negative(case: Case) -> None:
    """Raise RefutedError if a sample is negative beyond its error bound."""
    if negative_entries(case):
        raise RefutedError("a sample has negative entries though they were assumed not to be")


def negative_entries(case: Case) -> bool:
    """Whether a sample is negative beyond its error bound."""
    found = samples_of(case)
    norms = np.linalg.norm(found.samples, axis=1)
    bounds = [b or 0.0 for b in case.report.bounds or [0.0] * case.r]
    margin = np.array(bounds) * norms
    if case.report.absolute is not None:
        margin = np.array([b or 0.0 for b in case.report.absolute])
    return len(margin) != len(found.samples) or bool(
        np.any(found.samples.min(axis=1) < -margin - 1e-12)
    )
