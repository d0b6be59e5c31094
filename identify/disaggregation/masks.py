"""From approximate directions to masks, loss slopes and the inputs of the last hidden layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from identify.arrays import FloatArray
from identify.disaggregation.cp import Terms
from identify.disaggregation.factor import Factor

BoolArray = npt.NDArray[np.bool_]

_ROUNDS = 15
_TURNS = 20
_EXACT = 1e-5
_NO_SCALE = 1e-30


@dataclass(frozen=True, eq=False)
class Layer:
    """The last hidden layer: W (m, k), beta (m,), A (m, q) on the admissible p, the slope s.

    ``has_bias`` says whether the gradient's last column belongs to the bias.
    """

    weight: FloatArray
    bias: FloatArray
    amplitudes: FloatArray
    leak: float
    has_bias: bool

    def slopes(self, masks: BoolArray) -> FloatArray:
        """1 where the mask is set, s elsewhere."""
        return np.where(masks, 1.0, self.leak)

    def cotangents(self, masks: BoolArray, p: FloatArray) -> FloatArray:
        """Delta (m, n) of samples with masks (m, n) and p (n, q)."""
        result: FloatArray = (self.amplitudes @ p.T) * self.slopes(masks)
        return result

    def preactivations(self, features: FloatArray) -> FloatArray:
        """z (m, n) of features (n, k)."""
        result: FloatArray = self.weight @ features.T + self.bias[:, None]
        return result


@dataclass(frozen=True, eq=False)
class Candidates:
    """Samples at the last hidden layer, with what they leave of its gradient.

    ``masks`` (m, n), ``slopes`` p (n, q) with the scale that the bias fixes, ``features`` h (n, k);
    without a bias h has norm 1. ``rounded`` (m, n) are the masks by rounding and ``room`` (m, n)
    how far each entry is from the middle, in units of the distance of the two values.
    """

    masks: BoolArray
    slopes: FloatArray
    features: FloatArray
    residual: float
    rounded: BoolArray
    room: FloatArray


def round_terms(layer: Layer, factor: Factor, terms: Terms) -> tuple[BoolArray, FloatArray]:
    """Masks (m, n) and p (n, q) of the terms, each by alternating rounding and refitting.

    Entry j is set if y_j = (U z)_j is nearer to A_j . p than to s A_j . p.
    """
    count = terms.vectors.shape[1]
    masks = np.zeros((len(layer.weight), count), dtype=bool)
    p = np.zeros((count, layer.amplitudes.shape[1]))
    for i in range(count):
        masks[:, i], p[i] = _round_one(layer, factor, terms.vectors[:, i], terms.cotangents[i])
    return masks, p


def _round_one(
    layer: Layer, factor: Factor, z: FloatArray, p: FloatArray
) -> tuple[BoolArray, FloatArray]:
    mask = np.zeros(len(layer.weight), dtype=bool)
    for turn in range(_ROUNDS):
        new = _share(layer, factor.columns @ z, p) > 0.0
        if not new.any() or (turn and (new == mask).all()):
            break
        mask = new
        p, z = refit(layer, factor, mask)
    return mask, p


def _share(layer: Layer, y: FloatArray, p: FloatArray) -> FloatArray:
    """How far y is on the side of A p from the middle, in units of the distance to s A p."""
    amplitude = layer.amplitudes @ p
    size = np.maximum(np.abs(amplitude), 1e-300)
    result: FloatArray = y * np.sign(amplitude) / size / (1.0 - layer.leak)
    return result - 0.5 * (1.0 + layer.leak) / (1.0 - layer.leak)


def refit(layer: Layer, factor: Factor, mask: BoolArray) -> tuple[FloatArray, FloatArray]:
    """p (q,) of norm 1 and z (r,) that bring slope * A p nearest to the column space.

    The distance is measured against the noise that z would carry.
    """
    target = layer.amplitudes * layer.slopes(mask)[:, None]
    z = factor.columns.T @ target
    if target.shape[1] == 1:
        return np.ones(1), z[:, 0]
    outside = np.asarray(np.linalg.qr(target - factor.columns @ z, mode="r"), dtype=np.float64)
    values, turn = np.linalg.svd(outside)[1:]
    p = turn[-1]
    if values[-1] > _EXACT * values[-2]:
        metric = z / factor.values[:, None]
        form = metric.T @ metric
        form[np.diag_indices(len(form))] += 1e-9 * np.trace(form) + 1e-300
        p = linalg.eigh(outside.T @ outside, form, subset_by_index=[0, 0])[1][:, 0]
        p /= np.linalg.norm(p)
    return p, z @ p


def solve_features(
    layer: Layer, gradient: FloatArray, masks: BoolArray, p: FloatArray
) -> tuple[FloatArray, FloatArray, float] | None:
    """h (n, k) and p (n, q) in scale, and the relative residual of G = Delta [h, 1]^T.

    Without a bias h has norm 1 and the sign that agrees with most of the mask. None if a sample
    has no scale, which happens for wrong masks only.
    """
    delta = layer.cotangents(masks, p)
    lifted = np.linalg.lstsq(delta, gradient, rcond=None)[0]
    residual = float(np.linalg.norm(delta @ lifted - gradient) / np.linalg.norm(gradient))
    if layer.has_bias:
        scale = lifted[:, -1]
        features = lifted[:, :-1]
    else:
        features = lifted
        scale = np.linalg.norm(lifted, axis=1)
        agreeing = np.where(layer.weight @ lifted.T > 0.0, 1.0, -1.0) * np.where(masks, 1.0, -1.0)
        scale = scale * np.where(agreeing.sum(axis=0) < 0.0, -1.0, 1.0)
    if not np.isfinite(lifted).all() or (np.abs(scale) <= _NO_SCALE * np.abs(lifted).max()).any():
        return None
    return features / scale[:, None], p * scale[:, None], residual


def settle(
    layer: Layer, factor: Factor, gradient: FloatArray, masks: BoolArray, p: FloatArray
) -> Candidates | None:
    """Alternate h from masks and masks from the signs of W h + beta; keep the best residual.

    None if the first masks give no samples.
    """
    best: tuple[float, BoolArray, FloatArray, FloatArray] | None = None
    rounded, since = masks, 0
    for _ in range(_TURNS):
        solved = solve_features(layer, gradient, masks, p)
        if solved is None:
            break
        features, scaled, residual = solved
        if best is None or residual < best[0] * (1.0 - 1e-3):
            best, since = (residual, masks, scaled, features), 0
        else:
            since += 1
        signs = layer.preactivations(features) > 0.0
        if since > 3 or (signs == masks).all() or not signs.any(axis=0).all():
            break
        masks = signs
        p = np.array([refit(layer, factor, masks[:, i])[0] for i in range(masks.shape[1])])
    if best is None:
        return None
    residual, masks, scaled, features = best
    room = np.empty(masks.shape)
    for i in range(masks.shape[1]):
        direction, z = refit(layer, factor, rounded[:, i])
        room[:, i] = _share(layer, factor.columns @ z, direction)
    return Candidates(masks, scaled, features, residual, room > 0.0, np.abs(room))
