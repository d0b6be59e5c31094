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
    where a term has no finite sample. `slants` (n,) is how far the length of x_i moves for each
    unit that its direction moves, relative to |x_i|: 0 unless the length depends on it, inf where
    it is open.
    """

    samples: FloatArray
    coefficients: FloatArray
    derivatives: FloatArray
    stretch: FloatArray
    finite: bool
    slants: FloatArray

    @property
    def sizes(self) -> FloatArray:
        """Norms |x_i|, shape (n,)."""
        return np.asarray(np.linalg.norm(self.samples, axis=1))


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
        slopes = _bias_slopes(inner, last_row, samples, safe)
        return Samples(samples, heights, slopes, stretch, finite, np.zeros(len(samples)))
    safe = np.where(sizes > 0, sizes, 1.0)
    unit = full / safe[:, None]
    if non_negative:
        flip = np.where(unit.sum(axis=1) < 0, -1.0, 1.0)
    else:
        peak = np.take_along_axis(unit, np.abs(unit).argmax(axis=1)[:, None], axis=1)[:, 0]
        flip = np.where(peak < 0, -1.0, 1.0)
    unit = unit * flip[:, None]
    heights = signs * reduced.tensor_scale * sizes**alpha * flip**alpha
    lengths, slants = np.ones(len(unit)), np.zeros(len(unit))
    inside = unit @ basis
    slopes = np.eye(basis.shape[1]) - inside[:, :, None] * inside[:, None, :]
    off = np.ones(len(unit))
    if scale == "margin":
        outputs, tilts = _tilts(data, unit)
        lengths = np.where(outputs > 0, outputs, 1.0) ** (-1.0 / alpha)
        lengths = lengths / float(lengths.max())
        tilts_inside = tilts @ basis
        outside = np.linalg.norm(tilts - tilts_inside @ basis.T, axis=1)
        slopes = slopes + _radial(tilts_inside)
        slants = np.where(
            outputs > 0, np.hypot(np.linalg.norm(tilts_inside, axis=1), outside), np.inf
        )
        off = np.hypot(1.0, outside)
    stretch = lengths / safe
    slopes = slopes * stretch[:, None, None]
    return Samples(
        unit * lengths[:, None],
        heights / lengths**alpha,
        slopes,
        stretch * off,
        bool(np.all(sizes > 0)),
        slants,
    )


def _tilts(data: HermiteData, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
    """|f(u_i)| without the output bias, (n,), and the relative change of |f(u_i)|^(-1/alpha).

    That is -(grad f(u) - (u . grad f(u)) u)/(alpha f(u)) for a movement of the unit vector u,
    shape (n, d); 0 where f(u) is 0.
    """
    points, heights = data.network.points, data.network.output_weight
    points, heights = points / np.abs(points).max(), heights / np.abs(heights).max()
    inner = unit @ points.T
    outputs = inner**data.degree @ heights
    slopes = (data.degree * heights * inner ** (data.degree - 1)) @ points
    slopes = slopes - np.sum(slopes * unit, axis=1)[:, None] * unit
    safe = np.where(outputs != 0.0, outputs, np.inf)
    return np.abs(outputs), -slopes / (data.degree * safe[:, None])


def _radial(tilts: FloatArray) -> FloatArray:
    """S_i with (P + S_i)^2 = P + h_i h_i^T for a projector P that keeps h_i = tilts[i]."""
    squares = np.sum(tilts**2, axis=1)
    # sqrt(1 + q) - 1 over q, without cancellation.
    factor = 1.0 / (np.sqrt(1.0 + squares) + 1.0)
    return np.asarray(factor[:, None, None] * tilts[:, :, None] * tilts[:, None, :])


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
