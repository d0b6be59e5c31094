"""What confirms recovered samples, and how far the data speak against others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.disaggregation.factor import EPSILON, Factor
from identify.disaggregation.masks import Candidates, Layer
from identify.disaggregation.records import DataStatement
from identify.disaggregation.relu import Operator

BoolArray = npt.NDArray[np.bool_]

_PROBES = 40


@dataclass(frozen=True, eq=False)
class Signs:
    """Masks against the signs of W h + beta: entries that contradict, that agree, that are open.

    ``margin`` is the smallest |z_ij| over its error bound, among the entries decided by sign.
    """

    contradicting: int
    agreeing: int
    open: int
    margin: float


def compare_signs(
    layer: Layer,
    candidates: Candidates,
    features: FloatArray,
    noise: FloatArray,
    bounds: FloatArray,
) -> Signs:
    """Compare masks read from the column space with the signs of W h + beta.

    An entry of the masks is read if its room exceeds 5 times its noise ``noise`` (m, n), which is
    in units of the distance of the two values; a sign is read if |z_ij| exceeds its error
    |(w_j, beta_j)| |(h_i, 1)| bound_i.

    Args:
        features: h (n, k).
        bounds: relative error of every h, (n,).
    """
    z = layer.preactivations(features)
    sizes = np.sqrt(np.sum(layer.weight**2, axis=1) + layer.bias**2)
    lengths = np.sqrt(np.sum(features**2, axis=1) + 1.0)
    error = sizes[:, None] * (lengths * (bounds + 8.0 * EPSILON))
    by_mask = candidates.room > 5.0 * noise
    by_sign = np.abs(z) > error
    different = (z > 0.0) != candidates.rounded
    both = by_mask & by_sign
    margin = float((np.abs(z) / np.maximum(error, 1e-300))[by_sign].min()) if by_sign.any() else 0.0
    return Signs(
        int((different & both).sum()),
        int((~different & both).sum()),
        int((~by_mask & ~by_sign).sum()),
        margin,
    )


def entry_noise(layer: Layer, factor: Factor, masks: BoolArray, p: FloatArray) -> FloatArray:
    """Noise of y_ji = (U z_i)_j over the distance |A_j . p_i| (1 - s) of its two values, (m, n)."""
    delta = layer.cotangents(masks, p)
    z = factor.columns.T @ delta
    carried = factor.noise * np.linalg.norm(z / factor.values[:, None], axis=0)
    apart = np.abs(layer.amplitudes @ p.T) * (1.0 - layer.leak)
    result: FloatArray = carried / np.maximum(apart, 1e-300)
    return result


def power(layer: Layer, factor: Factor, features: FloatArray, *, seed: int = 0) -> int:
    """R: equations beyond the unknowns of one sample, by rank and not by counting rows.

    The rank of (I - U U^T) [delta(h_k, p_k)] over random h_k of the affine row space and random
    p_k, above the noise, minus r - 1 and q - 1; at most 40, where it is cut. For r = 1 the h_k are
    drawn with the norm of h, since the affine row space is a point.

    Cost: m K^2, K the unknowns plus 40.
    """
    rng = np.random.default_rng(seed)
    r, q = factor.rank, int(layer.amplitudes.shape[1])
    unknowns = r - 1 + q - 1
    count = min(len(layer.weight), unknowns + _PROBES)
    weights = rng.normal(size=(count, r)) / np.sqrt(r)
    weights += (1.0 - weights.sum(axis=1, keepdims=True)) / r
    points = weights @ features
    if r == 1:
        # The row space is one point; what else would be seen is asked of points like it.
        points = rng.normal(size=points.shape) * np.linalg.norm(features) / features.shape[1] ** 0.5
    masks = layer.preactivations(points) > 0.0
    delta = layer.cotangents(masks, rng.normal(size=(count, q)))
    delta = delta / np.maximum(np.linalg.norm(delta, axis=0), 1e-300)
    outside = delta - factor.columns @ (factor.columns.T @ delta)
    values = np.linalg.svd(outside, compute_uv=False)
    level = max(1e-9, 30.0 * factor.error / float(factor.values[-1]))
    return int((values > level).sum()) - unknowns


def data_statement(
    operator: Operator, factor: Factor, plain: float, noise: FloatArray
) -> DataStatement:
    """eta < sigma: every gradient within the error has at most one explaining set of r samples.

    eta = tau root(2 r) max_j w_j root((2 |u_j| + root 2 tau)^2 + (1 + s)^2 |A_j|^2), with
    tau = e / (s_r - e), e the error of the gradient and w_j the weight of row j.
    """
    error = factor.error
    room = float(factor.values[-1]) - error
    tau = error / room if room > 0.0 else np.inf
    u = np.linalg.norm(operator.basis, axis=1)
    a = (1.0 + operator.leak) * np.linalg.norm(operator.amplitudes, axis=1)
    with np.errstate(invalid="ignore"):
        rows = operator.weights * np.sqrt((2.0 * u + np.sqrt(2.0) * tau) ** 2 + a**2)
    eta = float(tau * np.sqrt(2.0 * factor.rank) * rows.max()) if np.isfinite(tau) else np.inf
    return DataStatement(eta < plain, error, eta, plain, int((noise * 5.0 > 0.5).sum()))
