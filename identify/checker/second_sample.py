"""What a second sample could hide next to a lone one, and how far two that look like it are."""

from __future__ import annotations

import numpy as np

from .case import Case
from .outcome import FloatArray, check_possible

FURTHEST = 2.0
_DRAWS, _FEWEST, _NUMBERS = 384, 32, 4_000_000
_SEED = 5


def lone_median(case: Case) -> float:
    """Median over mixtures x of 10 rho |psi| / (|x - (q.x) q| |(I - P) psi|), at most 1.

    psi_j = s_j (u_j.x)^(alpha-1) are the heights of the rows of x, P projects to those of q.
    """
    points, scales, head, others, shares = _setting(case)
    mixtures = (1.0 - shares) * head + shares * others
    mixtures /= np.linalg.norm(mixtures, axis=1)[:, None]
    heights = scales * (mixtures @ points.T) ** (case.degree - 1)
    along = mixtures @ head
    across = np.linalg.norm(mixtures - np.outer(along, head), axis=1)
    seen = across * _away(heights, _own(case, points, scales, head))
    sizes = np.linalg.norm(heights, axis=1)
    shares = 10.0 * case.noise / np.maximum(seen / np.where(sizes > 0.0, sizes, np.inf), 1e-12)
    return float(np.median(np.minimum(shares, 1.0)))


def pair_distance(case: Case, level: float) -> float:
    """theta at which q +- theta v leave `level` of the rows outside the line of q, over |x|.

    They leave theta^2 (alpha - 1) |(I - P) (s_j (u_j.q)^(alpha-2) (u_j.v))_j| / |omega|; 99 in a
    hundred random v across q leave more than the v of the result.
    """
    points, scales, head, others, _ = _setting(case)
    across = others - np.outer(others @ head, head)
    norms = np.linalg.norm(across, axis=1)
    across /= np.where(norms > 0.0, norms, 1.0)[:, None]
    own = _own(case, points, scales, head)
    bends = scales * (points @ head) ** (case.degree - 2) * (across @ points.T)
    curves = (case.degree - 1) * _away(bends, own) / np.linalg.norm(own)
    weak = float(np.quantile(curves, 0.01))
    return min(float(np.sqrt(level / weak)), FURTHEST) if weak > 1e-12 else FURTHEST


def _setting(case: Case) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Points and scales of order 1, q, and the directions and shares that everybody takes."""
    chosen = case.groups[0]
    check_possible(len(chosen) > 0, "no neuron stands out of the noise")
    points = case.data.points[chosen] / case.units[0]
    dimension = points.shape[1]
    count = int(min(max(_NUMBERS // dimension, _FEWEST), _DRAWS))
    rng = np.random.default_rng(_SEED)
    others = rng.standard_normal((count, dimension))
    others /= np.linalg.norm(others, axis=1)[:, None]
    shares = rng.random((count, 1))
    return points, case.data.scales[chosen] / case.units[1], case.basis[:, 0], others, shares


def _own(case: Case, points: FloatArray, scales: FloatArray, head: FloatArray) -> FloatArray:
    """omega, the heights of the rows of q."""
    return np.asarray(scales * (points @ head) ** (case.degree - 1))


def _away(rows: FloatArray, own: FloatArray) -> FloatArray:
    """Distance of each row from the line of `own`."""
    unit = own / np.linalg.norm(own)
    return np.asarray(np.linalg.norm(rows - np.outer(rows @ unit, unit), axis=1))
