"""Redo the proved size of samples whose length is |f|^(-1/alpha), from the box of the terms."""

from __future__ import annotations

import flint
import numpy as np

from .case import Case
from .enclosure import box_balls, exact, power_of
from .outcome import check_possible
from .reading.report import Enclosure
from .roundings import units_of

_LARGEST = 100_000_000


def sample_size(case: Case, box: Enclosure) -> float:
    """The largest |x' - x|/|x| over the box, up to one common factor; infinite where f may be 0.

    f over the box is f(c) + f'(box)(z - c), with a ball for networks whose weights are off by
    their rounding and, where a stationary source is off by more than that, by the noise level.
    """
    data, r, alpha = case.data, case.r, case.degree
    check_possible(
        data.network_points.size * r <= _LARGEST, "the network is too large for balls of f"
    )
    weights = units_of(case)[1]
    drift = case.noise if data.homogeneous and case.noise > 2.0 * weights else 0.0
    heights = [flint.arb(a) for a in data.network_heights.tolist()]
    radial = []
    with flint.ctx.workprec(max(128, box.precision)):
        basis = exact(case.basis)
        frame = exact(data.network_points) * basis
        sizes = exact(np.abs(data.network_points))
        for term, centre, radii in zip(
            box_balls(box), box.centres.tolist(), box.radii.tolist(), strict=True
        ):
            ball = flint.arb_mat([[x] for x in term])
            middle = (frame * flint.arb_mat([[flint.arb(x)] for x in centre])).entries()
            inner = (frame * ball).entries()
            reach = (sizes * flint.arb_mat([[abs(x)] for x in (basis * ball).entries()])).entries()
            total, error = flint.arb(0), flint.arb(0)
            slopes = []
            for a, c, z, size in zip(heights, middle, inner, reach, strict=True):
                total += a * power_of(c, alpha)
                slopes.append(a * alpha * power_of(z, alpha - 1))
                error += abs(slopes[-1]) * size * weights
                error += abs(a * power_of(z, alpha)) * (weights + (alpha + 1) * drift)
            moves = (flint.arb_mat([slopes]) * frame).entries()
            for slope, rad in zip(moves, radii, strict=True):
                total += slope * flint.arb(0, rad)
            norm = sum((x * x for x in term), flint.arb(0)).sqrt()
            value = (total + flint.arb(0, error.abs_upper())) / power_of(norm, alpha)
            low, high = value.abs_lower(), value.abs_upper()
            if not low > 0:
                return float(np.inf)
            radial.append(float(((high / low).root(alpha) - 1).abs_upper()))
    spread = np.array(radial)
    own = (1.0 + 2.0 * box.relative) * (1.0 + spread) * (1.0 + spread.max()) - 1.0
    return float(own.max())
