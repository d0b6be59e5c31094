"""Outer functions l and features phi with known derivatives and known bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray

Array = npt.NDArray[Any]

UNIT = 2.0**-53


def spectrum(matrix: Array) -> FloatArray:
    """Eigenvalues in ascending order, in float64."""
    return np.linalg.eigvalsh(np.asarray(matrix, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Loss:
    """l(F) for F in R^p.

    quadratic, saddle, cap: (F - t)^T A (F - t)/2 with A positive definite, indefinite, negative
    definite. logistic: sum_k log(1 + exp(c_k F_k - t_k)).
    wave: sum_k c_k sin(F_k - t_k). `matrix` is A, `scale` c, `shift` t.
    """

    kind: str
    matrix: FloatArray
    scale: FloatArray
    shift: FloatArray

    def value(self, total: Array) -> Array:
        """l at F of shape (..., p), real or complex."""
        if self.kind == "logistic":
            found: Array = np.log1p(np.exp(self.scale * total - self.shift)).sum(axis=-1)
        elif self.kind == "wave":
            found = (self.scale * np.sin(total - self.shift)).sum(axis=-1)
        else:
            rest = total - self.shift
            found = 0.5 * ((rest @ self.matrix) * rest).sum(axis=-1)
        return found

    def gradient(self, total: Array) -> Array:
        """The gradient at F of shape (p,)."""
        if self.kind == "logistic":
            found: Array = self.scale / (1.0 + np.exp(self.shift - self.scale * total))
        elif self.kind == "wave":
            found = self.scale * np.cos(total - self.shift)
        else:
            found = self.matrix @ (total - self.shift)
        return found

    def hessian(self, total: Array) -> Array:
        """The Hessian (p, p) at F of shape (p,)."""
        if self.kind == "logistic":
            share = 1.0 / (1.0 + np.exp(self.shift - self.scale * total))
            return np.diag(self.scale**2 * share * (1.0 - share))
        if self.kind == "wave":
            return np.diag(-self.scale * np.sin(total - self.shift))
        return self.matrix

    @property
    def smoothness(self) -> float:
        """beta: the Lipschitz constant of the gradient."""
        if self.kind == "logistic":
            return float(np.max(self.scale**2)) / 4.0
        if self.kind == "wave":
            return float(np.max(np.abs(self.scale)))
        return float(np.abs(spectrum(self.matrix)).max())

    @property
    def convex(self) -> bool:
        """Whether l is convex, up to the rounding of the eigenvalues of A."""
        if self.kind in ("quadratic", "saddle", "cap"):
            values = spectrum(self.matrix)
            return bool(values[0] >= -len(values) * UNIT * np.abs(values).max())
        return self.kind == "logistic"

    def steepest(self, reach: float) -> float:
        """A bound of |grad l| where |F| <= reach."""
        if self.kind in ("logistic", "wave"):
            return float(np.linalg.norm(self.scale.astype(np.float64)))
        return self.smoothness * (reach + float(np.linalg.norm(self.shift.astype(np.float64))))


@dataclass(frozen=True, eq=False)
class Features:
    """phi: R^d -> R^p. Ridge functions s(u_j . x + c_j), or exp(-|x - u_j|^2/2) for gauss.

    `directions` u (p, d), `offsets` c (p,); s is sin z, z^2/2, z^3/6, z^4/24, or |z|^exponent for
    kink, which is not smooth at 0.
    """

    kind: str
    directions: FloatArray
    offsets: FloatArray
    exponent: float = np.inf

    def _profile(self, z: Array, order: int) -> Array:
        if self.kind == "sine":
            return np.asarray((np.sin, np.cos, lambda t: -np.sin(t))[order](z))
        if self.kind == "kink":
            q = self.exponent
            factor = (1.0, q * np.sign(z), q * (q - 1.0))[order]
            return np.asarray(factor * np.abs(z) ** (q - order))
        power = {"square": 2, "cubic": 3, "quartic": 4}[self.kind] - order
        return np.asarray(z**power / (1.0, 1.0, 2.0, 6.0, 24.0)[power])

    def value(self, x: Array) -> Array:
        """phi at points (..., d), shape (..., p)."""
        if self.kind == "gauss":
            rest = x[..., None, :] - self.directions
            return np.asarray(np.exp(-0.5 * (rest * rest).sum(axis=-1)))
        return self._profile(x @ self.directions.T + self.offsets, 0)

    def jacobian(self, x: Array) -> Array:
        """D phi at one point (d,), shape (p, d)."""
        if self.kind == "gauss":
            return np.asarray(-self.value(x)[:, None] * (x - self.directions))
        return self._profile(self.directions @ x + self.offsets, 1)[:, None] * self.directions

    def curvature(self, x: Array, slope: Array) -> Array:
        """<g, D^2 phi(x)>, shape (d, d)."""
        if self.kind == "gauss":
            rest, share = x - self.directions, slope * self.value(x)
            return np.asarray((rest.T * share) @ rest - share.sum() * np.eye(len(x)))
        bend = slope * self._profile(self.directions @ x + self.offsets, 2)
        return np.asarray((self.directions.T * bend) @ self.directions)

    @property
    def size(self) -> float:
        """A bound of |phi| (bounded kinds)."""
        return float(np.sqrt(len(self.directions)))

    @property
    def speed(self) -> float:
        """A bound of |D phi| (bounded kinds): |U| for sine, sqrt(p/e) for gauss."""
        if self.kind == "gauss":
            return float(np.sqrt(len(self.directions) / np.e))
        return float(np.linalg.norm(self.directions.astype(np.float64), 2))

    @property
    def bend(self) -> float:
        """A bound of |D^2 phi[v, v]| over unit v (sine, gauss, square).

        sum_j (u_j . v)^4 <= sum_j |u_j|^2 (u_j . v)^2; one component of gauss bends by at most 1.
        """
        if self.kind == "gauss":
            return self.size
        rows = self.directions.astype(np.float64)
        return float(np.linalg.norm(np.linalg.norm(rows, axis=1)[:, None] * rows, 2))

    def twist(self, slope: Array) -> float:
        """A bound of |D^3 <g, phi>[v, v, v]| over unit v (sine, gauss, square).

        gauss: the maximum 1.3802 of |(t^3 - 3 t) exp(-t^2/2)| for each component.
        """
        moduli = np.abs(slope).astype(np.float64)
        if self.kind == "square":
            return 0.0
        if self.kind == "gauss":
            return 1.3802 * float(moduli.sum())
        rows = self.directions.astype(np.float64)
        weights = moduli * np.linalg.norm(rows, axis=1)
        return float(np.linalg.norm((rows.T * weights) @ rows, 2))
