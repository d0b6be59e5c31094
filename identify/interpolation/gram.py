"""The Gram operator K = H H^T in kernel form, and MINRES on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.tensors import KernelTensor

_BLOCK = 512


class GramOperator:
    """K = H H^T with row weights, applied without forming H.

    K Z = (1/alpha) [C^(alpha-1) Z + (alpha-1) (C^(alpha-2) o (U Z^T)) U], C = U U^T, powers
    entrywise; value rows are appended. Cost: 6 m^2 r flops a product, two m x m arrays.

    Example:
        >>> import numpy as np
        >>> K = GramOperator(3, np.eye(3))
        >>> K.apply(np.ones(9)).shape
        (9,)
    """

    def __init__(
        self,
        degree: int,
        points: FloatArray,
        weights: FloatArray | None = None,
        value_points: FloatArray | None = None,
        value_weights: FloatArray | None = None,
    ) -> None:
        self.degree = degree
        self.points = np.ascontiguousarray(points)
        count, self.dimension = points.shape
        self.value_points = np.zeros((0, self.dimension)) if value_points is None else value_points
        self.weights = np.ones(count) if weights is None else weights
        self.value_weights = (
            np.ones(len(self.value_points)) if value_weights is None else value_weights
        )
        cosines = self.points @ self.points.T
        self._low = cosines ** (degree - 2) if degree > 3 else cosines
        self._high = self._low * cosines
        self._cross = self.points @ self.value_points.T
        self._between = (self.value_points @ self.value_points.T) ** degree
        self.size = points.size + len(self.value_points)
        self.products = 0

    def split(self, vector: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vector part (m, r) and value part (l,) of a stacked vector."""
        cut = self.points.size
        return vector[:cut].reshape(self.points.shape), vector[cut:]

    def apply(self, vector: FloatArray) -> FloatArray:
        """K times a stacked vector (m r + l,)."""
        self.products += 1
        alpha, u = self.degree, self.points
        z, c = self.split(vector)
        z = z * self.weights[:, None]
        c = c * self.value_weights
        out = np.empty(self.size)
        rows, values = self.split(out)
        transposed: FloatArray = np.ascontiguousarray(z.T)
        for start in range(0, u.shape[0], _BLOCK):
            block = slice(start, start + _BLOCK)
            mixed = u[block] @ transposed
            mixed *= self._low[block]
            part = self._high[block] @ z
            part += (alpha - 1) * (mixed @ u)
            rows[block] = part / alpha
        if c.size:
            power = self._cross ** (alpha - 1)
            rows += (power * c) @ self.value_points
            values[:] = np.sum(power * (z @ self.value_points.T), axis=0) + self._between @ c
        rows *= self.weights[:, None]
        values *= self.value_weights
        return out

    def forward(self, centres: FloatArray, heights: FloatArray) -> FloatArray:
        """H applied to sum_k c_k v_k^(alpha), stacked and weighted. Cost: 4 m k r flops."""
        s = self.points @ centres.T
        rows = (s ** (self.degree - 1) * heights) @ centres * self.weights[:, None]
        values = (self.value_points @ centres.T) ** self.degree @ heights * self.value_weights
        return np.concatenate([rows.ravel(), values])

    def tensor(self, vector: FloatArray) -> KernelTensor:
        """H^T times a stacked vector, in kernel form."""
        z, c = self.split(vector)
        return KernelTensor(
            self.degree,
            self.points,
            z * self.weights[:, None],
            self.value_points,
            c * self.value_weights,
        )


class _Recorder(scipy.sparse.linalg.LinearOperator):
    """The Gram operator as scipy sees it; keeps the Lanczos coefficients that MINRES runs on."""

    def __init__(self, gram: GramOperator) -> None:
        super().__init__(np.dtype(np.float64), (gram.size, gram.size))  # type: ignore[call-arg]
        self.gram = gram
        self.diagonal: list[float] = []
        self.beside: list[float] = []
        self._last: FloatArray | None = None

    def _matvec(self, x: FloatArray) -> FloatArray:
        vector: FloatArray = np.asarray(x, dtype=np.float64).ravel()
        product = self.gram.apply(vector)
        along = float(vector @ product)
        rest = product - along * vector
        if self._last is not None:
            rest = rest - self.beside[-1] * self._last
        self.diagonal.append(along)
        self.beside.append(float(np.linalg.norm(rest)))
        self._last = vector.copy()
        return np.asarray(product, dtype=np.float64)

    def ritz_values(self) -> FloatArray:
        """Eigenvalues of the Lanczos matrix so far."""
        values = scipy.linalg.eigvalsh_tridiagonal(self.diagonal, self.beside[:-1])
        return np.asarray(values, dtype=np.float64)


class _StopSolve(Exception):
    def __init__(self, iterate: FloatArray) -> None:
        super().__init__()
        self.iterate = iterate


@dataclass(frozen=True, eq=False)
class GramSolution:
    """A solution of K Z = G: `vector` stacked, relative `residual`, `ritz` values of K."""

    vector: FloatArray
    residual: float
    normal_residual: float
    products: int
    ritz: FloatArray


def solve_gram(
    gram: GramOperator,
    target: FloatArray,
    *,
    tolerance: float = 1e-12,
    enough: float = 0.0,
    max_products: int = 2000,
    budget: Budget = UNLIMITED,
) -> GramSolution:
    """Solve K Z = G by MINRES with a stop on the normal residual |K r|.

    K is singular where m r > N and the system is inconsistent with noise, where conjugate
    gradients diverge; MINRES converges to a least-squares solution (Paige & Saunders 1975).

    Args:
        gram: the operator.
        target: stacked right-hand side (m r + l,).
        tolerance: on |r|/|G| and on |K r|/(|K| |r|).
        enough: relative residual, such as the noise, below which no second pass is made.
        max_products: limit on products with K.
        budget: at whose end the iterate so far is returned; told every ten products.

    Cost: 6 m^2 r flops a product.
    """
    size = float(np.linalg.norm(target))
    if size == 0.0:
        return GramSolution(np.zeros(gram.size), 0.0, 0.0, 0, np.zeros(0))
    count = 0

    def watch(iterate: FloatArray) -> None:
        nonlocal count
        count += 1
        if count % 10 == 0:
            budget.tell("solving for the moment tensor", count / max_products)
        if budget.expired:
            raise _StopSolve(iterate.copy())

    solution = np.zeros(gram.size)
    remainder, residual = target / size, 1.0
    ritz = np.zeros(0)
    # MINRES loses accuracy to |K| |Z|; solving again for what is left restores it. Where the
    # system is inconsistent, a tolerance that cannot be reached lets the iterate run away in the
    # kernel of K: then the step is refused and taken again with a looser one.
    floor = 1e-15
    for _ in range(8):
        operator = _Recorder(gram)
        try:
            step, _ = scipy.sparse.linalg.minres(
                operator,
                remainder / residual,
                rtol=max(tolerance / residual, floor),
                maxiter=max_products,
                callback=watch,
            )
            late = False
        except _StopSolve as stop:
            step, late = stop.iterate, True
        ritz = operator.ritz_values() if ritz.size == 0 else ritz
        trial = solution + residual * step
        left = target / size - gram.apply(trial)
        before, after = residual, float(np.linalg.norm(left))
        if after < residual:
            solution, remainder, residual = trial, left, after
        if late or residual <= max(tolerance, enough) or floor > 1e-5:
            break
        if after > before:
            floor *= 1e3
        elif residual > 0.1 * before:
            break
    normal = float(np.linalg.norm(gram.apply(remainder))) / float(np.abs(ritz).max())
    return GramSolution(solution * size, residual, normal, gram.products, ritz)
