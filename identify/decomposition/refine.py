"""Gauss-Newton refinement of a decomposition on the Hermite equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse.linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.decomposition.equations import HermiteEquations, TangentSolver, column_scale
from identify.hermite.reduction import ReducedData

_ITERATIVE = 600
_NORMAL_LIMIT = 3000
_EXACT = 1e-13
_DENSE_UNKNOWNS = 200
_DENSE_NUMBERS = 2_000_000


@dataclass(frozen=True, eq=False)
class Decomposition:
    """T = sum_i s_i z_i^(alpha) in coordinates of V: the refined terms and how well they fit.

    `terms` (n, r), `signs` (n,) +-1 (all +1 at odd degree), `residual` relative to the weighted
    data, `steps` taken; `stalled` says that the last step no longer helped.
    """

    terms: FloatArray
    signs: FloatArray
    residual: float
    steps: int
    stalled: bool = True

    @property
    def count(self) -> int:
        """Number of terms n."""
        return int(self.terms.shape[0])


@np.errstate(all="ignore")  # a step beyond float64 is not finite, and is refused
def refine(
    data: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    *,
    max_steps: int = 60,
    target: float = 0.0,
    budget: Budget = UNLIMITED,
) -> Decomposition:
    """Levenberg-Marquardt on the Hermite equations in z, the answer of the recovery.

    Minimises |w_j (sum_i s_i (u_j.z_i)^(alpha-1) z_i - g_j)|. Steps are dense at small size, by
    normal equations up to 600 unknowns, and by preconditioned conjugate gradients beyond.

    Args:
        data: reduced data.
        terms: start (n, r).
        signs: (n,) signs of the terms; kept.
        max_steps: limit.
        target: relative residual at which to stop at once.
        budget: at whose end the best so far is returned.

    Cost: O(m n r min(n r, 100)) a step.
    """
    equations = HermiteEquations(data, signs)
    terms = terms.copy()
    residual = equations.residual(terms)
    norm = float(np.linalg.norm(residual)) / equations.size
    damping, steps, stalled = 1e-6 if norm < 1e-2 else 1e-3, 0, False
    factored, quiet = False, 0
    while steps < max_steps and norm > target:
        if budget.expired:
            break
        steps += 1
        stepper = _linearised(equations, terms, residual, factored)
        improved = False
        step: FloatArray | None = None
        for _ in range(16):
            step = stepper.step(damping)
            if step is not None and np.all(np.isfinite(step)):
                step = step + stepper.acceleration(step, damping)
                trial = terms + step
                trial_residual = equations.residual(trial)
                trial_norm = float(np.linalg.norm(trial_residual)) / equations.size
                improved = trial_norm < norm
                if improved or norm < _EXACT or relative_change(step, terms) < 1e-13:
                    break
            if not factored and terms.size <= _NORMAL_LIMIT:
                # An iterative step did not help: factor before damping more.
                factored = True
                stepper = _linearised(equations, terms, residual, factored)
                continue
            damping = max(10.0 * damping, 1e-14)
        if not improved or step is None:
            stalled = True
            break
        quiet = quiet + 1 if trial_norm > 0.9 * norm else 0
        small = relative_change(step, terms) <= max(1e-10, 1e-3 * trial_norm)
        terms, residual, norm = trial, trial_residual, trial_norm
        damping = damping * 0.1 if damping > 1e-16 else 0.0
        if quiet >= (2 if small else 25):
            stalled = True
            break
    return Decomposition(terms, signs, norm, steps, stalled)


def relative_change(step: FloatArray, terms: FloatArray) -> float:
    """max_i |dz_i| / |z_i|: small terms count as much as large ones."""
    sizes = np.linalg.norm(terms, axis=1)
    return float(np.max(np.linalg.norm(step, axis=1) / np.where(sizes > 0.0, sizes, 1.0)))


class _Stepper(Protocol):
    """Damped Gauss-Newton steps of the equations linearised at one set of terms."""

    def step(self, damping: float) -> FloatArray | None:
        """-(J^T J + damping D^2)^-1 J^T residual, or None where that is not defined."""

    def acceleration(self, step: FloatArray, damping: float) -> FloatArray:
        """A second-order correction of a step; zero where there is none."""


def _linearised(
    equations: HermiteEquations, terms: FloatArray, residual: FloatArray, factored: bool
) -> _Stepper:
    """The steps at `terms` by the method that fits the size; `factored` asks for no iterative one.

    Dense at small size, by normal equations up to 600 unknowns, and by preconditioned conjugate
    gradients beyond.
    """
    unknowns = terms.size
    scale = column_scale(equations, terms)
    scale = np.maximum(scale, 1e-12 * float(scale.max(initial=1.0)))
    if unknowns <= _DENSE_UNKNOWNS and residual.size * unknowns <= _DENSE_NUMBERS:
        ortho, triangle = np.linalg.qr(equations.jacobian(terms) / scale)
        return _DenseSteps(equations, terms, residual, scale, ortho, triangle)
    if unknowns <= _ITERATIVE or (factored and unknowns <= _NORMAL_LIMIT):
        slope = equations.operator(terms).rmatvec(residual)
        return _NormalSteps(equations.normal_matrix(terms), slope, scale, terms.shape)
    return _IterativeSteps(TangentSolver(equations, terms), residual)


@dataclass(frozen=True, eq=False)
class _DenseSteps:
    """Steps by a QR decomposition J D^-1 = Q R."""

    equations: HermiteEquations
    terms: FloatArray
    residual: FloatArray
    scale: FloatArray
    ortho: FloatArray
    triangle: FloatArray

    def step(self, damping: float) -> FloatArray:
        return self._solve(-(self.ortho.T @ self.residual), damping)

    def acceleration(self, step: FloatArray, damping: float) -> FloatArray:
        """The correction along curved valleys, zero where it is large.

        Correlated samples make narrow curved valleys, along which plain steps creep
        (geodesic acceleration, Transtrum & Sethna 2012).
        """
        h = 0.1
        ahead = self.equations.residual(self.terms + h * step)
        behind = self.equations.residual(self.terms - h * step)
        curvature = (ahead - 2.0 * self.residual + behind) / h**2
        correction = 0.5 * self._solve(-(self.ortho.T @ curvature), damping)
        limit = 0.4 * float(np.linalg.norm(step * self.scale.reshape(step.shape)))
        size = float(np.linalg.norm(correction * self.scale.reshape(step.shape)))
        return correction if size <= limit else np.zeros_like(step)

    def _solve(self, side: FloatArray, damping: float) -> FloatArray:
        """Damped least squares with the QR factor, which does not square the condition of J."""
        scaled = self.triangle
        if damping > 0.0:
            scaled = np.vstack([scaled, np.sqrt(damping) * np.eye(scaled.shape[1])])
            side = np.concatenate([side, np.zeros(scaled.shape[1])])
        solution = scipy.linalg.lstsq(
            scaled, side, cond=1e-15, check_finite=False, lapack_driver="gelsy"
        )[0]
        return np.asarray(solution / self.scale).reshape(self.terms.shape)


@dataclass(frozen=True, eq=False)
class _NormalSteps:
    """Steps by a Cholesky decomposition of the damped J^T J."""

    normal: FloatArray
    slope: FloatArray
    scale: FloatArray
    shape: tuple[int, ...]

    def step(self, damping: float) -> FloatArray | None:
        damped = self.normal + np.diag(max(damping, 1e-15) * self.scale**2)
        damped /= np.outer(self.scale, self.scale)
        try:
            factor = scipy.linalg.cho_factor(damped, check_finite=False)
        except np.linalg.LinAlgError:
            return None
        solution = scipy.linalg.cho_solve(factor, -self.slope / self.scale, check_finite=False)
        return np.asarray(solution / self.scale).reshape(self.shape)

    def acceleration(self, step: FloatArray, damping: float) -> FloatArray:
        return np.zeros_like(step)


@dataclass(frozen=True, eq=False)
class _IterativeSteps:
    """Steps by preconditioned conjugate gradients."""

    tangent: TangentSolver
    residual: FloatArray

    def step(self, damping: float) -> FloatArray:
        return self.tangent.step(self.residual, damping)

    def acceleration(self, step: FloatArray, damping: float) -> FloatArray:
        return np.zeros_like(step)
