"""From the moment tensor to the samples: matrix pencil, then Gauss-Newton on the Hermite data."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse.linalg

from identify.equations import HermiteEquations, TangentSolver, column_scale
from identify.reduction import ReducedData
from identify.results import FloatArray
from identify.tensors import MomentTensor

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


def pencil_directions(
    tensor: MomentTensor, frame: FloatArray, rng: np.random.Generator
) -> FloatArray | None:
    """Candidate directions, rows (r, r), of one matrix pencil; None where it is singular.

    With A = T(v^(alpha-2), ., .) and B = T(v'^(alpha-2), ., .) the eigenvectors of A B^-1 are the
    samples when T is a sum of r independent terms. `frame` (rows) holds guesses of the samples:
    v and v' are random in its dual coordinates, and the pencil is solved in the coordinates of
    the frame, in which it is nearly diagonal for a good guess. A start, not an answer.

    Source: Leurgans, Ross & Abel 1993 (Jennrich; Harshman 1970). Cost: O(r^3).
    """
    try:
        dual = np.linalg.inv(frame)
    except np.linalg.LinAlgError:
        return None
    first, second = (dual @ rng.standard_normal((len(frame), 2))).T
    a = dual.T @ tensor.contract(first / np.linalg.norm(first)) @ dual
    b = dual.T @ tensor.contract(second / np.linalg.norm(second)) @ dual
    sizes = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not np.all(np.isfinite(sizes)) or min(sizes) == 0.0:
        return None
    _, vectors = scipy.linalg.eig(a / sizes[0], b / sizes[1], check_finite=False)
    # A v = mu B v: v is dual to the samples, B v is parallel to one of them.
    images = (b @ vectors).T @ frame
    parts = np.stack([images.real, images.imag])
    norms = np.linalg.norm(parts, axis=2)
    rows = np.where((norms[0] >= norms[1])[:, None], parts[0], parts[1])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(rows)) or np.any(lengths == 0.0):
        return None
    return np.asarray(rows / lengths)


def pencil_starts(
    data: ReducedData, tensor: MomentTensor, *, seed: int = 0, rounds: int = 10
) -> list[tuple[float, FloatArray, FloatArray]]:
    """Residual, terms and signs of several pencils, best first.

    The first frames are the axes of the data, plain or whitened: correlated samples are told
    apart by the latter, noise is amplified less by the former. The best directions so far are
    the frame of each further round. The Hermite residual after fitting the coefficients ranks.
    """
    rng = np.random.default_rng([seed, 0x51])
    draws = 30 if data.dimension <= 30 else 9
    weighted = data.targets * data.weights[:, None]
    _, values, axes = np.linalg.svd(weighted, full_matrices=False)
    values = np.maximum(values / values[0], 1e-12)
    frames = [axes * (values ** (0.5 * (draw % 3)))[:, None] for draw in range(draws)]
    starts: list[tuple[float, FloatArray, FloatArray]] = []
    idle = 0
    for _ in range(rounds + 1):
        best = starts[0][0] if starts else np.inf
        for frame in frames:
            directions = pencil_directions(tensor, frame, rng)
            if directions is None:
                continue
            terms, signs = start_terms(data, directions)
            starts.append((HermiteEquations(data, signs).relative(terms), terms, signs))
        starts.sort(key=lambda start: start[0])
        idle = idle + 1 if starts and starts[0][0] > 0.5 * best else 0
        if not starts or idle == 2 or starts[0][0] < 1e-13:
            break
        frames = [
            terms / np.maximum(np.linalg.norm(terms, axis=1, keepdims=True), 1e-300)
            for _, terms, _ in starts[:2]
            for _ in range(2)
        ]
    return starts


def fit_coefficients(data: ReducedData, directions: FloatArray) -> FloatArray:
    """Least-squares b for unit directions x_i: sum_i b_i (u_j.x_i)^(alpha-1) x_i = g_j.

    Through the normal equations (w^2-weighted): cost m n^2 + m n r flops, O(m n) memory.
    """
    power = data.degree - 1
    s = (data.points @ directions.T) ** power * data.weights[:, None]
    gram = (s.T @ s) * (directions @ directions.T)
    rhs = np.sum((s * data.weights[:, None]) * (data.targets @ directions.T), axis=0)
    if len(data.value_points):
        values = (data.value_points @ directions.T) ** data.degree * data.value_weights[:, None]
        gram = gram + values.T @ values
        rhs = rhs + values.T @ (data.value_targets * data.value_weights)
    solution, *_ = scipy.linalg.lstsq(gram, rhs, cond=1e-14)
    return np.asarray(solution, dtype=np.float64)


def start_terms(data: ReducedData, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Terms z_i = |b_i|^(1/alpha) x_i and signs for given directions, b by least squares."""
    b = fit_coefficients(data, directions)
    floor = 1e-12 * float(np.abs(b).max(initial=0.0)) or 1e-300
    size = np.maximum(np.abs(b), floor) ** (1.0 / data.degree)
    signs = np.where(b < 0.0, -1.0, 1.0)
    if data.degree % 2:
        return directions * (signs * size)[:, None], np.ones(len(b))
    return directions * size[:, None], signs


def refine(
    data: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    *,
    max_steps: int = 60,
    target: float = 0.0,
    deadline: float | None = None,
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
        deadline: `time.monotonic()` value at which the best so far is returned.

    Cost: O(m n r min(n r, 100)) a step.
    """
    equations = HermiteEquations(data, signs)
    terms = terms.copy()
    residual = equations.residual(terms)
    norm = float(np.linalg.norm(residual)) / equations.size
    damping, steps, stalled = 1e-6 if norm < 1e-2 else 1e-3, 0, False
    stepper = _Stepper(equations)
    quiet = 0
    while steps < max_steps and norm > target:
        if deadline is not None and time.monotonic() > deadline:
            break
        steps += 1
        stepper.prepare(terms, residual)
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
            if not stepper.factored and terms.size <= _NORMAL_LIMIT:
                # An iterative step did not help: factor before damping more.
                stepper.factored = True
                stepper.prepare(terms, residual)
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


class _Stepper:
    """Damped Gauss-Newton steps by the method that fits the size."""

    def __init__(self, equations: HermiteEquations) -> None:
        self.equations = equations
        self.factored = False

    def prepare(self, terms: FloatArray, residual: FloatArray) -> None:
        """Linearise at `terms`."""
        self.terms, self.residual = terms, residual
        unknowns = terms.size
        self.triangle: FloatArray | None = None
        self.normal: FloatArray | None = None
        self.scale = column_scale(self.equations, terms)
        self.scale = np.maximum(self.scale, 1e-12 * float(self.scale.max(initial=1.0)))
        if unknowns <= _DENSE_UNKNOWNS and residual.size * unknowns <= _DENSE_NUMBERS:
            matrix = self.equations.jacobian(terms) / self.scale
            self.ortho, self.triangle = np.linalg.qr(matrix)
            self.side = -(self.ortho.T @ residual)
        elif unknowns <= _ITERATIVE or (self.factored and unknowns <= _NORMAL_LIMIT):
            self.normal = self.equations.normal_matrix(terms)
            self.slope = self.equations.operator(terms).rmatvec(residual)
        else:
            self.tangent = TangentSolver(self.equations, terms)

    def step(self, damping: float) -> FloatArray | None:
        """-(J^T J + damping D^2)^-1 J^T residual, or None where that is not defined."""
        shape = self.terms.shape
        if self.normal is not None:
            damped = self.normal + np.diag(max(damping, 1e-15) * self.scale**2)
            damped /= np.outer(self.scale, self.scale)
            try:
                factor = scipy.linalg.cho_factor(damped, check_finite=False)
            except np.linalg.LinAlgError:
                return None
            solution = scipy.linalg.cho_solve(factor, -self.slope / self.scale, check_finite=False)
            return np.asarray(solution / self.scale).reshape(shape)
        if self.triangle is not None:
            return self._solve_triangle(self.side, damping)
        return self.tangent.step(self.residual, damping)

    def _solve_triangle(self, side: FloatArray, damping: float) -> FloatArray:
        """Damped least squares with the QR factor, which does not square the condition of J."""
        assert self.triangle is not None
        scaled = self.triangle
        if damping > 0.0:
            scaled = np.vstack([scaled, np.sqrt(damping) * np.eye(scaled.shape[1])])
            side = np.concatenate([side, np.zeros(scaled.shape[1])])
        solution = scipy.linalg.lstsq(
            scaled, side, cond=1e-15, check_finite=False, lapack_driver="gelsy"
        )[0]
        return np.asarray(solution / self.scale).reshape(self.terms.shape)

    def acceleration(self, step: FloatArray, damping: float) -> FloatArray:
        """Second-order correction of a step, zero where it is large or the step is iterative.

        Correlated samples make narrow curved valleys, along which plain steps creep
        (geodesic acceleration, Transtrum & Sethna 2012).
        """
        nothing = np.zeros_like(step)
        if self.triangle is None:
            return nothing
        h = 0.1
        ahead = self.equations.residual(self.terms + h * step)
        behind = self.equations.residual(self.terms - h * step)
        curvature = (ahead - 2.0 * self.residual + behind) / h**2
        correction = 0.5 * self._solve_triangle(-(self.ortho.T @ curvature), damping)
        limit = 0.4 * float(np.linalg.norm(step * self.scale.reshape(step.shape)))
        size = float(np.linalg.norm(correction * self.scale.reshape(step.shape)))
        return correction if size <= limit else nothing


def decompose_tensor(
    data: ReducedData,
    tensor: MomentTensor,
    *,
    accept: float,
    seed: int = 0,
    deadline: float | None = None,
    attempts: int | None = None,
) -> Decomposition | None:
    """Decompose T into r independent terms and refine them on the Hermite data.

    Returns the best refinement over a few pencils, whatever its residual (judge by the residual,
    never by a rank), or None where no pencil gave r directions.

    Args:
        data: reduced data; r = dim V terms are sought.
        tensor: the moment tensor on V.
        accept: relative residual below which the first refinement is the answer.
        seed: of the pencils.
        deadline: as in `refine`.
        attempts: number of starts that are refined; by default 6, or 2 above 30 dimensions.
    """
    if attempts is None:
        attempts = 6 if data.dimension <= 30 else 2
    best: Decomposition | None = None
    for _, terms, signs in pencil_starts(data, tensor, seed=seed)[:attempts]:
        found = refine(data, terms, signs, deadline=deadline)
        if best is None or found.residual < best.residual:
            best = found
        if best.residual <= accept or (deadline is not None and time.monotonic() > deadline):
            break
    return best


def order_by_size(
    terms: FloatArray, signs: FloatArray, degree: int
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.intp]]:
    """Terms and signs by |z_i|^alpha = |b_i| |x_i|^alpha, largest first, and the permutation."""
    order = np.argsort(-np.linalg.norm(terms, axis=1), kind="stable")
    return terms[order], signs[order], order
