"""Proved sizes of the boxes of samples whose length is |f|^(-1/alpha)."""

from __future__ import annotations

import flint
import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.proofs.balls import ball_power, exact
from identify.proofs.enclosure import Enclosure

_LARGEST = 100_000_000
"""Products of balls, above which no length is enclosed."""


def sample_sizes(
    data: HermiteData, basis: FloatArray, box: Enclosure, weights: float, level: float
) -> FloatArray:
    """Bounds of |x' - x|/|x| over the box, up to one common factor, shape (r,).

    x = |f(u)|^(-1/alpha) u with u = Q z/|Q z|. f is enclosed over the box in the mean-value form
    f(c) + f'(box)(z - c), for all networks whose weights are within `weights` of the stored ones,
    entry by entry and relative, and for a stationary source within `level` of each neuron.
    Infinite where f is not separated from 0 over the box.

    Cost: k D r products of balls twice.
    """
    network, alpha = data.network, data.degree
    r = len(box.centres)
    relative = np.full(r, np.inf)
    if network.points.size * r > _LARGEST or box.outcome != "proved":
        return relative
    drift = level if data.homogeneous and level > 2.0 * weights else 0.0
    radial = np.zeros(r)
    with flint.ctx.workprec(max(128, box.precision)):
        frame = exact(network.points) * exact(basis)
        sizes = exact(np.abs(network.points))
        heights = network.output_weight.tolist()
        for i in range(r):
            centre, side = box.centres[i], box.radii[i]
            term = flint.arb_mat(r, 1, [flint.arb(c, s) for c, s in zip(centre, side, strict=True)])
            at_centre = (frame * exact(centre[:, None])).entries()
            over = (frame * term).entries()
            sample = exact(basis) * term
            spread = (
                sizes * flint.arb_mat(len(basis), 1, [abs(x) for x in sample.entries()])
            ).entries()
            slopes = [
                h * alpha * ball_power(z, alpha - 1) for h, z in zip(heights, over, strict=True)
            ]
            gradient = flint.arb_mat(1, len(slopes), slopes) * frame
            moves = flint.arb_mat(r, 1, [flint.arb(0, s) for s in side])
            value = sum(
                (h * ball_power(z, alpha) for h, z in zip(heights, at_centre, strict=True)),
                flint.arb(0),
            )
            error = flint.arb(0)
            for h, z, slope, reach in zip(heights, over, slopes, spread, strict=True):
                own = abs(h * ball_power(z, alpha))
                error += abs(slope) * reach * weights + own * (weights + (alpha + 1) * drift)
            length = sum((z**2 for z in term.entries()), flint.arb(0)).sqrt()
            value = (value + (gradient * moves)[0, 0] + flint.arb(0, error.abs_upper())) / (
                ball_power(length, alpha)
            )
            low, high = value.abs_lower(), value.abs_upper()
            radial[i] = np.inf if not low > 0 else float(((high / low).root(alpha) - 1).abs_upper())
    relative = (1.0 + 2.0 * box.relative) * (1.0 + radial) * (1.0 + float(radial.max())) - 1.0
    return np.asarray(np.nextafter(relative * (1.0 + 2.0**-40), np.inf))
