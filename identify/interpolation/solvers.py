"""The two ways to solve the weighted linear equations for T: dense, and by the kernel form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.hermite.reduction import ReducedData
from identify.interpolation.gram import GramOperator, solve_gram
from identify.numerical_rank import RankDecision, decide_rank
from identify.tensors import CoordinateTensor, MomentTensor, hermite_matrix, monomials


@dataclass(frozen=True, eq=False)
class Interpolation:
    """What the linear equations say about T on V.

    `required` N; `rank` of the weighted H (a lower bound where `exact_rank` is False);
    `determined` is I-hermite; `tensor` the minimum-norm solution, None if it was not computed;
    `residual` the relative linear residual, None without redundancy; `redundant` = rows - rank.
    """

    required: int
    rank: int
    decision: RankDecision | None
    determined: bool | None
    method: str
    tensor: MomentTensor | None
    residual: float | None
    redundant: int
    condition_number: float | None
    condition_method: str | None
    flat: tuple[int, int | None]
    value: tuple[int, int | None]
    gram: GramOperator | None = None
    row_noise: float = 0.0


@dataclass(frozen=True, eq=False)
class WeightedEquations:
    """The linear equations with the weights of `row_weights`; ``noise`` is what a row has left."""

    data: ReducedData
    weights: FloatArray
    value_weights: FloatArray
    noise: float

    @classmethod
    def of(cls, data: ReducedData, noise_level: float) -> WeightedEquations:
        """The equations of reduced data at a noise level rho."""
        return cls(data, *row_weights(data, noise_level))

    @property
    def threshold(self) -> float:
        """Singular values below this share of the largest are noise."""
        return max(10.0 * self.noise, 1e-12)

    @property
    def target(self) -> FloatArray:
        """The weighted right-hand side, stacked (m r + l,)."""
        return stacked_target(self.data, self.weights, self.value_weights)

    def matrix(self) -> FloatArray:
        """The weighted Hermite matrix H (m r + l, N), dense."""
        data = self.data
        matrix = hermite_matrix(data.points, data.degree)
        matrix = matrix * np.repeat(self.weights, data.dimension)[:, None]
        if not len(data.value_points):
            return matrix
        extra = monomials(data.value_points, data.degree) * self.value_weights[:, None]
        return np.vstack([matrix, extra])

    def gram(self) -> GramOperator:
        """H H^T without H."""
        data = self.data
        return GramOperator(
            data.degree, data.points, self.weights, data.value_points, self.value_weights
        )


@dataclass(frozen=True, eq=False)
class DenseSolver:
    """Rank of H and the minimum-norm T by a singular value decomposition. Cost: O(m r N^2)."""

    equations: WeightedEquations

    def solve(self, base: Interpolation) -> Interpolation:
        """The facts of `base` with rank, conditioning and T."""
        data, target = self.equations.data, self.equations.target
        matrix = self.equations.matrix()
        left, sigma, right = self._decomposed(matrix)
        decision = decide_rank(sigma, self.equations.threshold)
        rank = decision.rank
        coordinates = right[:rank].T @ ((left[:, :rank].T @ target) / sigma[:rank])
        residual = self._residual(matrix, target - matrix @ coordinates)
        redundant = data.equations - rank
        return replace(
            base,
            rank=rank,
            decision=decision,
            determined=rank == base.required and decision.clear if decision.clear else None,
            method="singular values",
            tensor=CoordinateTensor(coordinates, data.degree, data.dimension),
            residual=residual if redundant > 0 else None,
            redundant=redundant,
            condition_number=float(sigma[0] / sigma[rank - 1]) if rank else None,
            condition_method="singular values of the weighted Hermite matrix",
        )

    def _decomposed(self, matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        if matrix.shape[0] > 1.5 * matrix.shape[1]:
            ortho, triangle = scipy.linalg.qr(matrix, mode="economic", check_finite=False)
            left, sigma, right = scipy.linalg.svd(triangle, check_finite=False)
            return ortho @ left, sigma, right
        left, sigma, right = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
        return left, sigma, right

    def _residual(self, matrix: FloatArray, remainder: FloatArray) -> float:
        """The least residual in the units of the noise: weights w, not the softened ones."""
        data, weighted = self.equations.data, self.equations
        softness = np.concatenate([
            np.repeat(data.weights / weighted.weights, data.dimension),
            data.value_weights / weighted.value_weights,
        ])  # fmt: skip
        remainder = remainder * softness
        if np.linalg.norm(remainder) > 1e-13 * data.size and softness.min() < 0.5 * softness.max():
            # A second solve on what is left.
            heavy = matrix * softness[:, None]
            step = scipy.linalg.lstsq(
                heavy, remainder, cond=weighted.threshold, check_finite=False
            )[0]
            remainder = min(remainder, remainder - heavy @ step, key=np.linalg.norm)
        return float(np.linalg.norm(remainder)) / data.size


@dataclass(frozen=True, eq=False)
class KernelSolver:
    """Rank and T through H H^T alone: a few hundred products of 6 m^2 r flops, O(m^2) memory."""

    equations: WeightedEquations

    @cached_property
    def gram(self) -> GramOperator:
        """The operator, made once."""
        return self.equations.gram()

    def probe(
        self, base: Interpolation, *, seed: int = 0, budget: Budget = UNLIMITED
    ) -> Interpolation:
        """Decide rank H = N by recovering a random tensor from H T_0; see `probe_rank`."""
        return probe_rank(self.gram, base, self.equations.threshold, seed=seed, budget=budget)


def row_weights(data: ReducedData, noise_level: float) -> tuple[FloatArray, FloatArray, float]:
    """Weights of the linear solve, and the noise that they leave, relative to the weighted data.

    Rows count fully where their own noise rho / w_j is below sqrt(rho), and fade beyond: weights
    proportional to w_j alone would waste accurate rows and slow MINRES down.
    """
    soft = float(np.clip(np.sqrt(noise_level), 1e-7, 1.0))
    weights = data.weights / np.hypot(data.weights, soft)
    values = data.value_weights / np.hypot(data.value_weights, soft)
    ratio = np.concatenate([weights / data.weights, values / data.value_weights])
    spread = noise_level * data.size * float(np.sqrt(np.mean(ratio**2)))
    size = float(np.linalg.norm(stacked_target(data, weights, values)))
    return weights, values, spread / size if size > 0.0 else 1.0


def stacked_target(data: ReducedData, weights: FloatArray, values: FloatArray) -> FloatArray:
    """The weighted right-hand side, stacked (m r + l,)."""
    rows = (data.targets * weights[:, None]).ravel()
    return np.concatenate([rows, data.value_targets * values])


def solve_tensor(
    data: ReducedData,
    linear: Interpolation,
    *,
    tolerance: float,
    enough: float = 0.0,
    budget: Budget = UNLIMITED,
) -> Interpolation:
    """The kernel path's T, solved to `tolerance`, with its linear residual."""
    gram = linear.gram
    if gram is None:
        return linear
    target = stacked_target(data, gram.weights, gram.value_weights)
    found = solve_gram(gram, target, tolerance=tolerance, enough=enough, budget=budget)
    remainder = target - gram.apply(found.vector)
    rows, values = gram.split(remainder)
    # The residual in the units of the noise: weights w, not the softened ones.
    rows = rows * (data.weights / gram.weights)[:, None]
    values = values * (data.value_weights / gram.value_weights)
    residual = float(np.hypot(np.linalg.norm(rows), np.linalg.norm(values))) / data.size
    return replace(linear, tensor=gram.tensor(found.vector), residual=residual)


def probe_rank(
    gram: GramOperator,
    base: Interpolation,
    threshold: float,
    *,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> Interpolation:
    """Decide rank H = N by recovering a random tensor from H T_0.

    A kernel leaves |T - T_0|/|T_0| near sqrt(dim ker/N); a missing part below 1e-3/sqrt(N) says
    full rank; a one-dimensional kernel hides from the probe with probability about 1e-3. The
    missing part is a difference of squares and resolves no better than 1e-8. The extreme Ritz
    values of the run estimate the conditioning.

    Cost: one solve with K.
    """
    rng = np.random.default_rng([seed, 0x9E37])
    count = max(gram.points.shape[0] // 2, 4 * gram.dimension)
    centres = rng.standard_normal((count, gram.dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    heights = rng.standard_normal(count)
    goal = 1e-3 / np.sqrt(base.required)
    found = solve_gram(
        gram,
        gram.forward(centres, heights),
        tolerance=max(goal * 1e-6, 1e-15),
        max_products=3000,
        budget=budget,
    )
    tensor = gram.tensor(found.vector)
    whole = float(heights @ (centres @ centres.T) ** gram.degree @ heights)
    inner = float(heights @ tensor.evaluate(centres))
    own = float(found.vector @ gram.apply(found.vector))
    missing = np.sqrt(max(whole - 2.0 * inner + own, 0.0) / whole)
    positive = found.ritz[found.ritz > 0]
    sigma = float(np.sqrt(positive.min() / positive.max()))
    full = bool(missing < goal) and sigma > threshold
    return replace(
        base,
        rank=base.required,
        determined=True if full else None,
        method=f"random tensor recovered to {max(missing, 1e-8):.1e}",
        condition_number=1.0 / sigma,
        condition_method="extreme Ritz values of the Gram operator (an estimate)",
        gram=gram,
    )
