"""Small problems L(X, lam) = l(sum_i lam_i phi(x_i)) of which every derivative is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.statements.splitting.families import UNIT, Array, Features, Loss

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Plant = Literal["none", "x", "both"]

LOSSES = ("quadratic", "logistic", "saddle", "cap", "wave")
CONVEX = ("quadratic", "logistic")
FEATURES = ("sine", "gauss", "square", "cubic", "quartic")
BOUNDED = ("sine", "gauss")
POINTS, RADIUS = 32, 1.0 / 16.0


@dataclass(frozen=True, eq=False)
class Problem:
    """L(X, lam) = l(sum_i lam_i phi(x_i)) at candidates `x` (n, d), multipliers `lam` (n,)."""

    loss: Loss
    features: Features
    x: FloatArray
    lam: FloatArray
    layout: str
    seed: int

    def __repr__(self) -> str:
        n, d = self.x.shape
        return (
            f"Problem({self.loss.kind} of {self.features.kind}, {self.layout}, n={n}, d={d}, "
            f"p={len(self.features.offsets)}, seed={self.seed})"
        )

    def total(self, x: Array, lam: Array) -> Array:
        """F = sum_i lam_i phi(x_i) for x (..., n, d), lam (n,) or (..., n)."""
        return np.asarray((lam[..., None] * self.features.value(x)).sum(axis=-2))

    def value(self, x: Array, lam: Array) -> Array:
        """L for x (..., n, d) and lam (n,) or (..., n)."""
        return self.loss.value(self.total(x, lam))

    @property
    def slope(self) -> Array:
        """Grad l at F, shape (p,)."""
        return self.loss.gradient(self.total(self.x, self.lam))

    @property
    def spread(self) -> float:
        """Sum of moduli of the terms of F, and what l subtracts."""
        terms = np.abs(self.lam[:, None] * self.features.value(self.x)).sum()
        return float(terms + np.abs(self.loss.shift).sum() + 1.0)

    @property
    def slope_rounding(self) -> float:
        """How far rounding moves grad l: beta u times the moduli that enter F, and u |g|."""
        beta, size = self.loss.smoothness, float(np.abs(self.slope).sum())
        steep = float(np.abs(self.loss.scale).max()) if self.loss.kind == "logistic" else 0.0
        count = self.x.size + len(self.slope)
        return count * UNIT * ((beta + steep) * self.spread + size)

    @property
    def value_rounding(self) -> float:
        """How far rounding moves L: |grad l| times the rounding of F, beside that of the sum."""
        slope = float(np.abs(self.slope).max()) + self.slope_rounding
        count = self.x.size + len(self.slope)
        own = abs(float(self.value(self.x, self.lam))) + self.loss.smoothness
        return count * UNIT * (slope * self.spread + own)

    def extended(self) -> Problem:
        """The same numbers in the longest floating-point type of the machine."""
        long = np.longdouble
        loss, features = self.loss, self.features
        return replace(
            self,
            loss=replace(
                loss,
                matrix=loss.matrix.astype(long),
                scale=loss.scale.astype(long),
                shift=loss.shift.astype(long),
            ),
            features=replace(
                features,
                directions=features.directions.astype(long),
                offsets=features.offsets.astype(long),
            ),
            x=self.x.astype(long),
            lam=self.lam.astype(long),
        )


def gradient_x(problem: Problem) -> Array:
    """The gradient of L in X, shape (n, d): lam_i D phi(x_i)^T grad l."""
    slope = problem.slope
    rows = [m * (problem.features.jacobian(p).T @ slope) for p, m in _pairs(problem)]
    return np.asarray(rows)


def splitting_matrix(problem: Problem, index: int) -> Array:
    """S_i = lam_i <grad l, D^2 phi(x_i)>, shape (d, d)."""
    bent = problem.features.curvature(problem.x[index], problem.slope)
    return np.asarray(problem.lam[index] * bent)


def mixed(problem: Problem, index: int) -> Array:
    """D phi(x_i)^T grad l, the block of the Hessian that couples x_i and lam_i, shape (d,)."""
    return np.asarray(problem.features.jacobian(problem.x[index]).T @ problem.slope)


def mixed_rounding(problem: Problem) -> float:
    """How far rounding moves the largest of these blocks."""
    reach = max(float(np.abs(problem.features.jacobian(point)).sum()) for point in problem.x)
    return 8.0 * (reach + UNIT) * problem.slope_rounding


def shared_hessian(problem: Problem, index: int) -> Array:
    """The part lam_i^2 D phi^T D^2 l D phi of the i-th diagonal block of the Hessian in X."""
    jacobian = problem.lam[index] * problem.features.jacobian(problem.x[index])
    inner = problem.loss.hessian(problem.total(problem.x, problem.lam))
    return np.asarray(jacobian.T @ inner @ jacobian)


def own_hessian(problem: Problem, index: int) -> Array:
    """The i-th diagonal block of the Hessian of L in X."""
    return np.asarray(splitting_matrix(problem, index) + shared_hessian(problem, index))


def hessian(problem: Problem, joint: bool = False) -> FloatArray:
    """The Hessian of L in X (n d), or in (X, lam) (n d + n), candidates first."""
    n, d = problem.x.shape
    inner = problem.loss.hessian(problem.total(problem.x, problem.lam))
    columns = [m * problem.features.jacobian(p) for p, m in _pairs(problem)]
    if joint:
        columns.append(problem.features.value(problem.x).T)
    jacobian = np.concatenate(columns, axis=1)
    full = jacobian.T @ inner @ jacobian
    for i in range(n):
        block = slice(i * d, (i + 1) * d)
        full[block, block] += splitting_matrix(problem, i)
        if joint:
            coupling = mixed(problem, i)
            full[block, n * d + i] += coupling
            full[n * d + i, block] += coupling
    return np.asarray(full, dtype=np.float64)


def _pairs(problem: Problem) -> zip[tuple[Any, Any]]:
    return zip(problem.x, problem.lam, strict=True)


def split(
    problem: Problem, index: int, weights: Array, displacements: Array, step: Array
) -> tuple[Array, Array]:
    """Candidates and multipliers after x_i -> (x_i + eps delta_k, w_k lam_i).

    `displacements` (..., K, d) and `step` broadcast against each other's leading axes; the
    offspring come last.
    """
    others = np.delete(problem.x, index, axis=0)
    born = problem.x[index] + step[..., None, None] * displacements
    shape = (*born.shape[:-2], *others.shape)
    x = np.concatenate([np.broadcast_to(others, shape), born], axis=-2)
    lam = np.concatenate([np.delete(problem.lam, index), weights * problem.lam[index]])
    return x, lam


def taylor(function: Callable[[Array], Array]) -> tuple[FloatArray, FloatArray]:
    """Taylor coefficients at 0 up to order 4 with error bounds, from values on a circle.

    The coefficients a_k r^-k are a discrete Fourier transform of values on |z| = r; those of the
    upper half, which should vanish, measure rounding and aliasing together.

    Source: Lyness & Moler (1967), "Numerical differentiation of analytic functions".

    Example:
        >>> coefficients, errors = taylor(np.exp)
        >>> bool(np.all(np.abs(coefficients - [1, 1, 1 / 2, 1 / 6, 1 / 24]) < errors))
        True
    """
    angles = 2.0 * np.pi * np.arange(POINTS) / POINTS
    values = function(RADIUS * np.exp(1j * angles))
    waves = np.exp(-1j * np.outer(np.arange(POINTS), angles)) / POINTS
    raw = np.asarray(waves @ values, dtype=np.complex128)
    level = UNIT * (float(np.abs(values).max()) + UNIT)
    noise = np.abs(raw[POINTS // 2 :]).max() + level
    powers = RADIUS ** -np.arange(5.0)
    return np.asarray(raw[:5].real * powers), np.asarray(16.0 * noise * powers)


def split_taylor(
    problem: Problem, index: int, weights: Array, displacements: Array
) -> tuple[FloatArray, FloatArray]:
    """Taylor coefficients in eps of L after a split, with error bounds; order 0 less L."""

    def change(step: Array) -> Array:
        x, lam = split(problem, index, weights, displacements, step)
        return problem.value(x, lam) - problem.value(problem.x, problem.lam)

    return taylor(change)


def matrix_rounding(problem: Problem, index: int) -> float:
    """How far rounding moves S_i: |lam_i| times |D^2 phi| by moduli, times that of grad l."""
    features = problem.features
    rows, here = features.directions, problem.x[index]
    if features.kind == "gauss":
        size = float(np.sum((here - rows) ** 2) + len(rows))
    else:
        reach = np.abs(rows) @ np.abs(here) + np.abs(features.offsets) + 1.0
        size = float(np.sum(rows**2 * reach[:, None] ** 2))
    slope = float(np.abs(problem.slope).max())
    terms = len(rows) + 4 * len(here)
    noise = problem.slope_rounding + terms * UNIT * slope
    return 8.0 * abs(float(problem.lam[index])) * (size + UNIT) * noise


def gradient_rounding(problem: Problem) -> float:
    """How far from 0 rounding leaves the gradient in X of a planted stationary point.

    |lam_i| times |D phi(x_i)| by moduli times the rounding of grad l; 64 for the condition, at
    most 10, of the quadratic that is solved for t, and for the kernel of the conditions.
    """
    noise = 0.0
    for point, multiplier in _pairs(problem):
        reach = float(np.abs(problem.features.jacobian(point)).sum())
        noise = max(noise, abs(float(multiplier)) * reach * problem.slope_rounding)
    return 64.0 * noise


def is_stationary(problem: Problem) -> bool:
    """Whether the gradient in X is zero to rounding."""
    return float(np.abs(gradient_x(problem)).max()) <= gradient_rounding(problem)


def build_problem(
    loss: str,
    features: str,
    layout: str,
    count: int,
    dimension: int,
    seed: int,
    plant: Plant = "none",
    idle: bool = False,
) -> Problem:
    """Draw a problem; planted ones are stationary in X, or in X and lam.

    The slope g at F is taken from the kernel of all D phi(x_i) (and phi(x_i)), and l is chosen so
    that grad l(F) = g. At least n (d + 1) + 2 features make room for it. `idle` sets the last
    multiplier to 0, which is stationary in X without D phi(x_n)^T g = 0.

    Example:
        >>> is_stationary(build_problem("logistic", "sine", "generic", 2, 3, 0, "both"))
        True
    """
    rng = np.random.default_rng([seed, count, dimension])
    side = max(count, dimension)
    x = strategies.draw_samples(layout, count, side, seed)[:, :dimension]
    x = x / max(1.0, float(np.linalg.norm(x, axis=1).max()) / 1.5)
    lam = rng.choice([-1.0, 1.0], size=count) * rng.uniform(0.5, 2.0, size=count)
    outputs = count * (dimension + 1) + 2 if plant != "none" else int(rng.integers(1, 6))
    rows = rng.standard_normal((outputs, dimension))
    if layout == "integer":
        rows = rng.integers(-2, 3, size=(outputs, dimension)) / 2.0
        lam = np.round(2.0 * lam) / 2.0
    if layout == "orthonormal":
        rows = np.eye(dimension)[rng.integers(0, dimension, size=outputs)]
    if idle:
        lam[-1] = 0.0
    rows = rows / max(1.0, float(np.linalg.norm(rows, axis=1).max()) / 1.5)
    phi = Features(features, rows, rng.uniform(-1.0, 1.0, size=outputs))
    slope = rng.standard_normal(outputs)
    if plant != "none":
        conditions = [phi.jacobian(point).T for point in x[lam != 0.0]]
        if plant == "both":
            conditions.append(phi.value(x))
        kernel = np.linalg.svd(np.concatenate(conditions))[2][sum(map(len, conditions)) :]
        slope = kernel.T @ rng.standard_normal(len(kernel))
    slope = 2.0 * slope / np.linalg.norm(slope)
    total = np.asarray((lam[:, None] * phi.value(x)).sum(axis=0))
    return Problem(_loss(loss, total, slope, rng), phi, x, lam, layout, seed)


def _loss(kind: str, total: FloatArray, slope: FloatArray, rng: np.random.Generator) -> Loss:
    """The loss of this kind with grad l(total) = slope."""
    size = len(total)
    matrix = np.zeros((size, size))
    if kind == "logistic":
        share = rng.uniform(0.3, 0.7, size=size)
        scale = slope / share
        return Loss(kind, matrix, scale, scale * total - np.log(share / (1.0 - share)))
    if kind == "wave":
        angle = rng.uniform(-1.0, 1.0, size=size)
        return Loss(kind, matrix, slope / np.cos(angle), total - angle)
    axes = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = rng.uniform(0.3, 2.0, size=size)
    if kind == "saddle":
        values[rng.integers(0, size)] *= -1.0
        values *= rng.choice([-1.0, 1.0])
    if kind == "cap" or (kind == "saddle" and size == 1):
        values = -np.abs(values)
    matrix = (axes * values) @ axes.T
    matrix = 0.5 * (matrix + matrix.T)
    return Loss(kind, matrix, np.ones(size), total - np.linalg.solve(matrix, slope))


def problems(
    losses: tuple[str, ...] = LOSSES,
    features: tuple[str, ...] = FEATURES,
    plant: Plant = "none",
    max_candidates: int = 3,
    max_dimension: int = 6,
    idle: bool = False,
) -> SearchStrategy[Problem]:
    """Problems of every layout: generic, orthonormal, integer, close candidates, digits.

    Example:
        >>> from hypothesis import find
        >>> find(problems(), lambda p: p.loss.kind == "quadratic")
        Problem(quadratic of sine, generic, n=1, d=1, p=5, seed=0)
    """
    from hypothesis import strategies as st

    return st.builds(
        build_problem,
        st.sampled_from(losses),
        st.sampled_from(features),
        st.sampled_from(strategies.present(strategies.KINDS)),
        st.integers(1, max_candidates),
        st.integers(1, max_dimension),
        st.integers(0, strategies.SEEDS),
        st.just(plant),
        st.just(idle),
    )
