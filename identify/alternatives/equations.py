"""The equations that a training set has to satisfy, for many candidate sets at once."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData
from identify.recovery.ties import tie_kind

_TINY = 1e-300


class SetEquations:
    """Hermite equations, and the ties of a fixed scale, for a stack of candidate sets.

    Sets are terms z (B, n, r) with signs (B, n). Residuals (B, E) hold the weighted rows
    w_j (sum_i s_i (u_j.z_i)^(alpha-1) z_i - g_j) over the norm of the data, the values likewise,
    and with a tie n numbers that vanish where the sets obey it:

    KKT: log |f(x_i)|; logistic loss: log |b_i| + log(1 + exp(y_i f(x_i))); both minus their mean,
    with x_i = z_i / |z_i| (unit) or z_i over its last coordinate (bias). A positive `shrink` adds
    shrink z_n, which drives the last term to zero.

    Cost: B m r n r numbers for the Jacobians.
    """

    def __init__(self, data: HermiteData, reduced: ReducedData, scale: str) -> None:
        self.reduced = reduced
        self.degree = reduced.degree
        self.size = reduced.size
        self.tie = tie_kind(data, scale)
        self.last = reduced.basis[-1] if scale == "bias" else None
        network = data.network
        self.frame = network.points @ reduced.basis
        self.heights = network.output_weight
        self.offset = 0.0 if network.output_bias is None else float(network.output_bias[0])
        if self.tie == "margin":
            # Only ratios of outputs count; large degrees leave the range of float64 otherwise.
            self.frame = self.frame / float(np.abs(self.frame).max())
            self.heights = self.heights / float(np.abs(self.heights).max())
        self.shrink = 0.0
        # b = -loss' for weight decay, +loss' for a gradient; loss' has the sign of -y.
        self.orientation = -1.0 if data.source == "gradient" else 1.0

    def shrinking(self, shrink: float) -> SetEquations:
        """The same equations, and shrink z_n = 0."""
        equations = copy.copy(self)
        equations.shrink = shrink
        return equations

    def rank_of_ties(self, count: int) -> int:
        """Number of independent ties between n samples."""
        return count - 1 if self.tie is not None else 0

    def outputs(self, terms: FloatArray) -> FloatArray:
        """sum_j a_j (w_j . z_i)^alpha, which has the sign of f at the sample, shape (B, n)."""
        values: FloatArray = (terms @ self.frame.T) ** self.degree @ self.heights
        return values

    def residual(self, terms: FloatArray, signs: FloatArray) -> FloatArray:
        """Residuals (B, E)."""
        data = self.reduced
        s = terms @ data.points.T
        high = s ** (self.degree - 1) * signs[:, :, None]
        rows = np.matmul(high.transpose(0, 2, 1), terms) - data.targets
        rows *= data.weights[:, None] / self.size
        parts = [rows.reshape(len(terms), -1)]
        if len(data.value_points):
            powers = (terms @ data.value_points.T) ** self.degree
            values = np.einsum("bnl,bn->bl", powers, signs) - data.value_targets
            parts.append(values * data.value_weights / self.size)
        if self.tie is not None:
            values, _ = self._ties(terms, signs)
            parts.append(values - values.mean(axis=1, keepdims=True))
        if self.shrink > 0.0:
            parts.append(self.shrink * terms[:, -1])
        return np.concatenate(parts, axis=1)

    def jacobian(self, terms: FloatArray, signs: FloatArray) -> FloatArray:
        """Derivatives of the residuals by z flattened, shape (B, E, n r)."""
        data, power = self.reduced, self.degree - 1
        batch, count, r = terms.shape
        s = terms @ data.points.T
        weight = signs[:, :, None] * (data.weights / self.size)
        low = (power * s ** (power - 1) * weight).transpose(0, 2, 1)
        high = (s**power * weight).transpose(0, 2, 1)
        mixed = low[:, :, None, :] * terms.transpose(0, 2, 1)[:, None, :, :]
        block = mixed[..., None] * data.points[None, :, None, None, :]
        diagonal = np.arange(r)
        block[:, :, diagonal, :, diagonal] += high[None]
        parts = [block.reshape(batch, -1, count * r)]
        if len(data.value_points):
            slopes = self.degree * (terms @ data.value_points.T) ** power * signs[:, :, None]
            slopes = (slopes * (data.value_weights / self.size)).transpose(0, 2, 1)
            values = slopes[..., None] * data.value_points[None, :, None, :]
            parts.append(values.reshape(batch, -1, count * r))
        if self.tie is not None:
            _, gradients = self._ties(terms, signs)
            rows = np.zeros((batch, count, count, r))
            index = np.arange(count)
            rows[:, index, index] = gradients
            rows -= gradients[:, None] / count
            parts.append(rows.reshape(batch, count, count * r))
        if self.shrink > 0.0:
            rows = np.zeros((batch, r, count, r))
            rows[:, diagonal, -1, diagonal] = self.shrink
            parts.append(rows.reshape(batch, r, count * r))
        return np.concatenate(parts, axis=1)

    def _ties(self, terms: FloatArray, signs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Logarithms that the ties make equal (B, n), and their derivatives (B, n, r)."""
        alpha = self.degree
        s = terms @ self.frame.T
        f = s**alpha @ self.heights
        df = (alpha * s ** (alpha - 1) * self.heights) @ self.frame
        if self.last is None:
            ref = np.maximum(np.linalg.norm(terms, axis=2), _TINY)
            log_slope = terms / (ref**2)[..., None]
        else:
            ref = terms @ self.last
            ref = np.where(np.abs(ref) > _TINY, ref, _TINY)
            log_slope = self.last / ref[..., None]
        if self.tie == "margin":
            safe = np.where(np.abs(f) > _TINY, f, _TINY)
            values = np.log(np.abs(safe)) - alpha * np.log(np.abs(ref))
            return values, df / safe[..., None] - alpha * log_slope
        label = self.orientation * signs * np.sign(ref) ** alpha
        output = f / ref**alpha
        slope = df / (ref**alpha)[..., None] - alpha * output[..., None] * log_slope
        margin = label * (output + self.offset)
        values = alpha * np.log(np.abs(ref)) + np.logaddexp(0.0, margin)
        logistic = label * np.exp(np.minimum(margin, 0.0) - np.log1p(np.exp(-np.abs(margin))))
        return values, alpha * log_slope + logistic[..., None] * slope


def padded(reduced: ReducedData, directions: FloatArray) -> ReducedData:
    """The same data on V and further directions (D, q), in which all points and rows vanish."""
    extra = directions.shape[1]

    def pad(array: FloatArray) -> FloatArray:
        return np.hstack([array, np.zeros((len(array), extra))])

    return replace(
        reduced,
        points=pad(reduced.points),
        targets=pad(reduced.targets),
        value_points=pad(reduced.value_points),
        basis=np.hstack([reduced.basis, directions]),
    )


def thinned(reduced: ReducedData, neurons: int) -> ReducedData:
    """The data of the neurons of largest weight only, in their order."""
    if reduced.neurons <= neurons:
        return reduced
    chosen = np.sort(np.argsort(-reduced.weights, kind="stable")[:neurons])
    return replace(
        reduced,
        points=reduced.points[chosen],
        targets=reduced.targets[chosen],
        weights=reduced.weights[chosen],
    )
