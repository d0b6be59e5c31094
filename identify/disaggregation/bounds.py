"""Error bounds of recovered samples, to first order in the gradient's noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.disaggregation.depth import Descent
from identify.disaggregation.factor import EPSILON, Factor
from identify.disaggregation.masks import Layer
from identify.model.deep import DeepNetwork

BoolArray = npt.NDArray[np.bool_]

_SIGMAS = 4.0
_MOST_OUTPUTS = 32


@dataclass(frozen=True, eq=False)
class Bounds:
    """Relative error bounds: ``samples`` (n,) and ``features`` (n,), ``slopes`` (n,) of p.

    ``outputs`` (n,) is what the sample's error does to the outputs, absolute.
    """

    samples: FloatArray
    features: FloatArray
    slopes: FloatArray
    outputs: FloatArray


def slope_errors(layer: Layer, factor: Factor, masks: BoolArray, p: FloatArray) -> FloatArray:
    """Relative error of p (n, q), up to scale: noise of one row over what moves p costs, (n,)."""
    count, q = p.shape
    errors = np.zeros(count)
    if q == 1:
        return errors
    for i in range(count):
        target = layer.amplitudes * layer.slopes(masks[:, i])[:, None]
        z = factor.columns.T @ target
        values = np.linalg.svd(target - factor.columns @ z, compute_uv=False)
        direction = p[i] / max(float(np.linalg.norm(p[i])), 1e-300)
        carried = factor.noise * float(np.linalg.norm((z @ direction) / factor.values))
        errors[i] = _SIGMAS * carried * np.sqrt(np.sum(np.maximum(values[:-1], 1e-300) ** -2.0))
    return errors


def bound_errors(
    network: DeepNetwork,
    factors: dict[int, Factor],
    descent: Descent,
    features: FloatArray,
    slopes: FloatArray,
) -> Bounds:
    """Bound the errors of samples that solve G_l = Delta_l [h, 1]^T at the layer reached.

    With D the pseudo-inverse of Delta_l, h_i moves by D_i times the noise of G_l, and by
    sum_j (D_i . d delta_j) h_j, where d delta_j is what the error of p_j makes of delta_j; with a
    bias that fixes the scale of p_i the error of its coefficient is added. At 4 standard
    deviations of independent noise, to first order.

    Args:
        factors: of the layers, by index.
        features: h (n, k) of the last hidden layer.
        slopes: relative error of p, (n,).
    """
    units = _unit_cotangents(network, descent)
    top = network.depth - 2
    size = np.linalg.norm(descent.cotangents, axis=1)
    inverse = np.linalg.pinv(descent.deltas[-1].T)
    scale = _SIGMAS * factors[top].noise * np.linalg.norm(inverse, axis=1)
    found = {}
    for index, inputs in ((top, features), (descent.layer, descent.inputs)):
        at = index - descent.layer
        inverse = np.linalg.pinv(descent.deltas[at].T)
        turned = np.sqrt(sum((inverse @ unit[at].T) ** 2 for unit in units))
        lifted = np.sqrt(np.sum(inputs**2, axis=1) + 1.0)
        relative = slopes + (0.0 if index == top else scale)
        moved = np.sqrt(np.sum((turned * (relative * size * lifted)) ** 2, axis=1))
        factor = factors[index]
        noise = factor.noise * (np.sqrt(factor.shape[1]) + _SIGMAS)
        absolute = np.linalg.norm(inverse, axis=1) * noise + moved + scale * lifted
        length = np.maximum(np.linalg.norm(inputs, axis=1), 1e-300)
        found[index] = absolute / length + 16.0 * EPSILON
    samples = found[descent.layer]
    weight = network.weights[descent.layer]
    gain = np.sqrt(sum(np.sum((unit[0] @ weight) ** 2, axis=1) for unit in units))
    outputs = samples * np.linalg.norm(descent.inputs, axis=1) * gain
    return Bounds(samples, found[top], slopes, outputs)


def _unit_cotangents(network: DeepNetwork, descent: Descent) -> list[tuple[FloatArray, ...]]:
    """delta of every layer for unit vectors p that span all p, or for p itself if C is large."""
    run = network.forward(descent.inputs, descent.layer)
    if run.outputs.shape[1] > _MOST_OUTPUTS:
        length = np.maximum(np.linalg.norm(descent.cotangents, axis=1), 1e-300)[:, None]
        return [tuple(delta / length for delta in descent.deltas)]
    units = []
    for c in range(run.outputs.shape[1]):
        unit = np.zeros(run.outputs.shape)
        unit[:, c] = 1.0
        units.append(network.backward(run, unit)[:-1])
    return units
