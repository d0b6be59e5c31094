"""From terms of T to training samples: scale conventions, symmetries, error bounds, ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples (n, d) and coefficients (n,) of terms, in one scale convention.

    `derivatives` (n, r, r) has the norms of dx_i/dz_i: R with R^T R = D^T D, D of shape (d, r).
    `stretch` (n,) is the factor by which a part of z_i outside V reaches x_i; `finite` is False
    where a term has no finite sample.
    """

    samples: FloatArray
    coefficients: FloatArray
    derivatives: FloatArray
    stretch: FloatArray
    finite: bool


def to_samples(
    data: HermiteData,
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    scale: str,
    non_negative: bool = False,
) -> Samples:
    """Samples x_i and b_i with b_i x_i^(alpha) = s_i z_i^(alpha) in the given scale convention.

    free, unit: |x_i| = 1; bias: x_i = (x, 1); margin: |f(x_i)| equal, largest norm 1. Without a
    bias the sign is free and chosen: a non-negative sum where samples are said to be
    non-negative, else the entry of largest modulus positive.
    """
    alpha, basis = data.degree, reduced.basis
    full = terms @ basis.T
    sizes = np.linalg.norm(full, axis=1)
    if scale == "bias":
        last = full[:, -1]
        finite = bool(np.all(np.abs(last) > 1e-9 * sizes))
        safe = np.where(np.abs(last) > 1e-9 * sizes, last, 1e-9 * np.where(sizes > 0, sizes, 1.0))
        samples = full[:, :-1] / safe[:, None]
        heights = signs * reduced.tensor_scale * safe**alpha
        inner, last_row = basis[:-1], basis[-1]
        stretch = np.sqrt(1.0 + np.sum(samples**2, axis=1)) / np.abs(safe)
        return Samples(
            samples, heights, _bias_slopes(inner, last_row, samples, safe), stretch, finite
        )
    safe = np.where(sizes > 0, sizes, 1.0)
    unit = full / safe[:, None]
    if non_negative:
        flip = np.where(unit.sum(axis=1) < 0, -1.0, 1.0)
    else:
        peak = np.take_along_axis(unit, np.abs(unit).argmax(axis=1)[:, None], axis=1)[:, 0]
        flip = np.where(peak < 0, -1.0, 1.0)
    unit = unit * flip[:, None]
    heights = signs * reduced.tensor_scale * sizes**alpha * flip**alpha
    lengths = np.ones(len(unit))
    if scale == "margin":
        outputs = np.abs(data.network.value(unit))
        lengths = np.where(outputs > 0, outputs, 1.0) ** (-1.0 / alpha)
        lengths = lengths / float(lengths.max())
    inside = unit @ basis
    stretch = lengths / safe
    slopes = np.eye(basis.shape[1]) - inside[:, :, None] * inside[:, None, :]
    slopes = slopes * stretch[:, None, None]
    samples = unit * lengths[:, None]
    return Samples(samples, heights / lengths**alpha, slopes, stretch, bool(np.all(sizes > 0)))


def _bias_slopes(
    inner: FloatArray, last: FloatArray, samples: FloatArray, heights: FloatArray
) -> FloatArray:
    """R_i with R^T R = D^T D for D = (Q_inner - x q^T) / height, Q = (Q_inner; q)."""
    plain = inner.T @ inner
    result = np.empty((len(samples), inner.shape[1], inner.shape[1]))
    for i, (x, height) in enumerate(zip(samples, heights, strict=True)):
        mixed = np.outer(inner.T @ x, last)
        gram = (plain - mixed - mixed.T + float(x @ x) * np.outer(last, last)) / height**2
        values, axes = np.linalg.eigh(gram)
        result[i] = np.sqrt(np.maximum(values, 0.0))[:, None] * axes.T
    return result
