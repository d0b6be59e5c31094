"""What a second sample could hide behind a lone one: rows of rank one that two samples made.

A lone sample z = c q has no redundant equation. What speaks for it is that the rows are parallel:
a second sample x adds psi_j x with psi_j = s_j (u_j.x)^(alpha-1), which leaves the line of q unless
x is parallel to q or psi to the heights omega_j = s_j (u_j.q)^(alpha-1) that q has itself.
"""

from __future__ import annotations

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData
from identify.recovery.hidden_share import HiddenShare

_DRAWS, _FEWEST, _NUMBERS = 384, 32, 4_000_000
_BLIND = 1e-12
_SEED = 5
_WEAK = 0.01
FURTHEST = 2.0
"""What no distance of two unit vectors exceeds."""


def lone_share(data: HermiteData, reduced: ReducedData, noise_level: float) -> HiddenShare:
    """The share of the data that a second sample next to a lone one could have unseen.

    With P the projection to the line of omega, s(x) = 10 rho |psi| / (|x - (q.x) q| |(I - P) psi|)
    for unit x: what leaves the line of q in the rows must be above 10 rho. `mixtures` are
    (1 - t) q + t v with t uniform in (0, 1) and v uniform on the sphere, by default_rng(5);
    `anywhere` are the v. The directions are those of the whole space. Cost: O(m D P).
    """
    points, scales, head = _parts(data, reduced)
    others, shares = _directions(points.shape[1])
    found = []
    for probes in (_units((1.0 - shares) * head + shares * others), others):
        psi = scales[:, None] * (points @ probes.T) ** (data.degree - 1)
        across = np.linalg.norm(probes - (probes @ head)[:, None] * head, axis=1)
        rest = psi - np.outer(*_along(points, scales, head, data.degree, psi))
        size = np.linalg.norm(psi, axis=0)
        seen = across * np.linalg.norm(rest, axis=0) / np.where(size > 0.0, size, np.inf)
        level = 10.0 * noise_level / np.maximum(seen, _BLIND)
        part = np.minimum(level, 1.0)
        found.append((float(np.median(part)), float(np.quantile(part, 0.9))))
    return HiddenShare(found[0], None, found[1], "rank one of the rows", lone=True)


def pair_distance(data: HermiteData, reduced: ReducedData, level: float) -> float:
    """How far a lone sample may be from one of two that look like it, in units of |x|.

    Two samples at q +- theta v leave theta^2 c(v) of the rows outside the line of q,

        c(v) = (alpha - 1) |(I - P) (s_j (u_j.q)^(alpha-2) (u_j.v))_j| / |omega|,

    and that is at most `level`, what is seen there and the error of the data. The c of one in a
    hundred random directions v is below the one that is taken: neurons may see nothing of a
    difference. The heavier one of two samples of different weight is nearer. Cost: O(m D P).

    Returns:
        theta in [0, 2].
    """
    points, scales, head = _parts(data, reduced)
    others, _ = _directions(points.shape[1])
    across = _units(others - (others @ head)[:, None] * head)
    inner = points @ head
    bends = (scales * inner ** (data.degree - 2))[:, None] * (points @ across.T)
    rest = bends - np.outer(*_along(points, scales, head, data.degree, bends))
    size = float(np.linalg.norm(scales * inner ** (data.degree - 1)))
    curves = (data.degree - 1) * np.linalg.norm(rest, axis=0) / size
    weak = float(np.quantile(curves, _WEAK))
    return min(float(np.sqrt(level / weak)), FURTHEST) if weak > _BLIND else FURTHEST


def _parts(data: HermiteData, reduced: ReducedData) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points (k, D) and scales (k,) of the neurons in the equations, and q, of order 1."""
    points, scales = data.points[reduced.represented], data.scales[reduced.represented]
    length = float(np.linalg.norm(points, axis=1).max())
    return points / length, scales / float(np.abs(scales).max()), reduced.basis[:, 0]


def _directions(dimension: int) -> tuple[FloatArray, FloatArray]:
    """Unit vectors (P, D) and shares (P, 1), the same for everybody."""
    count = int(np.clip(_NUMBERS // dimension, _FEWEST, _DRAWS))
    rng = np.random.default_rng(_SEED)
    return _units(rng.standard_normal((count, dimension))), rng.random((count, 1))


def _along(
    points: FloatArray, scales: FloatArray, head: FloatArray, degree: int, columns: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The unit vector of omega and the parts of the columns along it."""
    omega = scales * (points @ head) ** (degree - 1)
    unit = omega / float(np.linalg.norm(omega))
    return unit, unit @ columns


def _units(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0.0, norms, 1.0))
