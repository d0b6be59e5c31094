"""The operator whose kernel holds the samples of a ReLU or leaky ReLU layer.

With y = U z in the column space of G and p the loss slope at the outputs, a neuron with slope 1 on
one side and s on the other gives (y_j - A_j . p) (y_j - s A_j . p) = 0. In the unknowns
Z = z z^T, P = z p^T and, for s != 0, Q = p p^T that is linear: row j of L is

    u_j^T Z u_j - (1 + s) u_j^T P A_j + s A_j^T Q A_j.

Symmetric unknowns are stored by rows of their upper triangle, off-diagonal entries times root 2,
so that the Euclidean norm is the Frobenius norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget

_ROOT2 = float(np.sqrt(2.0))
_LARGEST_WEIGHT = 1e3
_CHUNK = 2_000_000
_EXTRA = 8
_HARMLESS = 0.01
_REFINEMENTS = 6


class LinearForm(Protocol):
    """A linear operator with a noise form, as `find_kernel` uses it; D unknowns."""

    @property
    def rank(self) -> int:
        """r, the dimension of the column space."""
        ...

    @property
    def unknowns(self) -> int:
        """D."""
        ...

    def normal(self, budget: Budget) -> FloatArray:
        """L^T L (D, D) with at least its lower triangle, in column order."""
        ...

    def apply(self, vectors: FloatArray) -> FloatArray:
        """L times vectors (D, b)."""
        ...

    def adjoint(self, values: FloatArray) -> FloatArray:
        """L transposed times values."""
        ...

    def noise_form(self, vectors: FloatArray) -> FloatArray:
        """C times vectors (D, b)."""
        ...


@dataclass(frozen=True, eq=False)
class Operator:
    """L of a layer: U (m, r), A (m, q), the slope s, row weights (m,), noise metric (r,).

    ``metric`` is the variance of a coordinate of u_j, up to a common factor: 1 / s_i^2.
    """

    basis: FloatArray
    amplitudes: FloatArray
    leak: float
    weights: FloatArray
    metric: FloatArray

    @property
    def rank(self) -> int:
        """r, the number of columns of U."""
        return int(self.basis.shape[1])

    @property
    def unknowns(self) -> int:
        """D = r (r + 1) / 2 + r q, and q (q + 1) / 2 more for a leaky ReLU."""
        r, q = int(self.basis.shape[1]), int(self.amplitudes.shape[1])
        return r * (r + 1) // 2 + r * q + (q * (q + 1) // 2 if self.leak else 0)

    def chunks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Weighted rows of L, a few at a time."""
        step = max(1, _CHUNK // self.unknowns)
        for start in range(0, len(self.basis), step):
            rows = slice(start, min(start + step, len(self.basis)))
            yield rows, self._rows(rows)

    def _rows(self, rows: slice) -> FloatArray:
        u, a = self.basis[rows], self.amplitudes[rows]
        r, q = u.shape[1], a.shape[1]
        block = np.empty((len(u), self.unknowns))
        at = _fill_products(block, 0, u)
        for i in range(r):
            np.multiply(u[:, i : i + 1], a, out=block[:, at : at + q])
            at += q
        block[:, r * (r + 1) // 2 : at] *= -(1.0 + self.leak)
        if self.leak:
            _fill_products(block, at, a)
            block[:, at:] *= self.leak
        block *= self.weights[rows, None]
        return block

    def normal(self, budget: Budget) -> FloatArray:
        """The lower triangle of L^T L (D, D), in column order."""
        total = np.zeros((self.unknowns, self.unknowns), order="F")
        for rows, block in self.chunks():
            budget.step("normal matrix", rows.stop / len(self.basis))
            total = blas.dsyrk(1.0, block.T, beta=1.0, c=total, lower=1, overwrite_c=1)
        return total

    def apply(self, vectors: FloatArray) -> FloatArray:
        """Weighted L times vectors (D, b), shape (m, b)."""
        return np.concatenate([block @ vectors for _, block in self.chunks()])

    def adjoint(self, values: FloatArray) -> FloatArray:
        """Weighted L transposed times values (m, b), shape (D, b)."""
        total = np.zeros((self.unknowns, values.shape[1]))
        for rows, block in self.chunks():
            total += block.T @ values[rows]
        return total

    def noise_form(self, vectors: FloatArray) -> FloatArray:
        """C times vectors (D, b): <v, C v> is the variance of |L v|^2 caused by noise in U.

        With X = [Z, P] it is the trace of S X K X^T, where K sums w_j^2 f_j f_j^T over the rows
        f_j = (2 u_j, -(1 + s) A_j) and S is the metric.
        """
        z, p, _ = self.unpack(vectors)
        features = np.hstack([2.0 * self.basis, -(1.0 + self.leak) * self.amplitudes])
        features = features * self.weights[:, None]
        moved = np.concatenate([z, p], axis=2) @ (features.T @ features)
        moved *= self.metric[None, :, None]
        r = z.shape[1]
        return self.pack(0.5 * (moved[:, :, :r] + moved[:, :, :r].transpose(0, 2, 1)),
                         moved[:, :, r:])  # fmt: skip

    def unpack(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Z (b, r, r), P (b, r, q) and Q (b, q, q) of vectors (D, b)."""
        r, q = self.basis.shape[1], self.amplitudes.shape[1]
        size = r * (r + 1) // 2
        z = _unpack_symmetric(vectors[:size], r)
        p = vectors[size : size + r * q].T.reshape(-1, r, q)
        if self.leak:
            return z, p, _unpack_symmetric(vectors[size + r * q :], q)
        return z, p, np.zeros((len(z), q, q))

    def pack(self, z: FloatArray, p: FloatArray, quadratic: FloatArray | None = None) -> FloatArray:
        """The inverse of `unpack`; Q is 0 where it is left out."""
        parts = [_pack_symmetric(z), p.reshape(len(p), -1).T]
        if self.leak:
            q = p.shape[2]
            given = np.zeros((len(p), q, q)) if quadratic is None else quadratic
            parts.append(_pack_symmetric(given))
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Kernel:
    """The smallest generalised singular values of L against the noise form, with their vectors.

    ``values`` (b,) ascend: root of |L v|^2 / <v, C v>, in units of the noise of one entry of G.
    ``vectors`` (D, b). ``plain`` is the smallest singular value of L, in the Euclidean norm, that
    is not among the first r.
    """

    values: FloatArray
    vectors: FloatArray
    plain: float
    unknowns: int
    iterations: int


def build_operator(
    basis: FloatArray, values: FloatArray, amplitudes: FloatArray, leak: float
) -> Operator:
    """Return L for U (m, r) with singular values (r,), A (m, q) and the slope on the other side.

    A row's error is its error in U times |A_j|, so it is weighted by 1 / |A_j|, at most
    30 times the median weight. Rows without amplitude have weight 0.

    Example:
        >>> operator = build_operator(np.eye(4, 2), np.ones(2), np.ones((4, 1)), 0.0)
        >>> operator.unknowns
        5
    """
    length = np.linalg.norm(amplitudes, axis=1)
    used = length > 1e-12 * length.max()
    squared = np.zeros(len(length))
    squared[used] = 1.0 / length[used] ** 2
    squared /= np.median(squared[used])
    weights = np.sqrt(np.minimum(squared, _LARGEST_WEIGHT))
    return Operator(basis, amplitudes, leak, weights, 1.0 / values**2)


def find_kernel(
    operator: LinearForm,
    *,
    count: int | None = None,
    wide: int = _EXTRA,
    budget: Budget = UNLIMITED,
    seed: int = 0,
) -> Kernel:
    """Return the count + wide smallest solutions of L^T L v = lambda C v.

    The normal matrix, its Cholesky factorisation, inverse iteration on a block, and Ritz values
    from L itself, so that they are not limited by the square.

    Args:
        operator: L with D unknowns; at least D - r rows are asked for.
        count: how many of them are the kernel; r if it is left out.
        wide: how many more are returned.
        budget: looked at, and told, at each step.
        seed: of the first block.

    Raises:
        BudgetExceededError: the time is up.

    Cost: m D^2 + D^3 / 3 operations, D^2 numbers for the factorisation.

    Source: errors in variables with a noise form, Taubin (1991); the rest is standard.
    """
    r = operator.rank if count is None else count
    block = min(r + wide, operator.unknowns)
    scale, cholesky, shift = _factorise(operator, budget)

    def solve(right: FloatArray) -> FloatArray:
        inner = linalg.cho_solve((cholesky, True), scale[:, None] * right, check_finite=False)
        result: FloatArray = scale[:, None] * inner
        return result

    start = np.random.default_rng(seed).normal(size=(operator.unknowns, block))
    vectors = solve(start / scale[:, None])
    before = np.full(block, np.inf)
    for step in range(1, 31):
        budget.step("kernel", step / 30)
        vectors = _orthonormal(solve(operator.noise_form(vectors)), scale)
        values, vectors = _ritz(operator, vectors)
        settled = np.abs(values - before)[: r + 1] <= 0.01 * values[: r + 1] + 1e-14 * values[-1]
        if settled.all():
            break
        before = values

    def refine(block: FloatArray) -> FloatArray:
        return _refine(operator, solve, scale, shift, block)

    refined = refine(vectors)
    if refined is not vectors:
        values, vectors = _ritz(operator, refined)
    plain = _plain_value(operator, vectors, solve, refine, r)
    return Kernel(values, vectors, plain, operator.unknowns, step)


def _refine(
    operator: LinearForm,
    solve: Callable[[FloatArray], FloatArray],
    scale: FloatArray,
    shift: float,
    vectors: FloatArray,
) -> FloatArray:
    """The block without what is rounding of the normal matrix in its small vectors, by L itself.

    Each step leaves shift / sigma^2 of it, sigma the smallest value off the kernel. Vectors beyond
    the r-th are no less small if they belong to the kernel, and have to be seen as such.
    """
    for _ in range(_REFINEMENTS):
        moved = operator.apply(vectors)
        size = np.linalg.norm(moved, axis=0)
        whole = np.linalg.norm(vectors / scale[:, None], axis=0)
        small = size**2 < _HARMLESS * shift * whole**2
        if not small.any():
            break
        step = solve(operator.adjoint(moved[:, small]))
        better = vectors.copy()
        better[:, small] -= step
        left = np.linalg.norm(operator.apply(better[:, small]), axis=0)
        if not (left < 0.5 * size[small]).any():
            break
        vectors = better
    return vectors


def _factorise(
    operator: LinearForm, budget: Budget, shift: float = 4.0 * float(np.finfo(np.float64).eps)
) -> tuple[FloatArray, FloatArray, float]:
    """Column scale d, the lower Cholesky factor of d L^T L d + t, in place, and t = D shift."""
    size = operator.unknowns
    normal = operator.normal(budget)
    diagonal = np.diag(normal).copy()
    scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-24 * diagonal.max()))
    normal *= scale[:, None]
    normal *= scale[None, :]
    normal[np.diag_indices(size)] += size * shift
    budget.step("Cholesky", 0.0)
    factor, failed = lapack.dpotrf(normal, lower=1, clean=0, overwrite_a=1)
    if failed:
        return _factorise(operator, budget, 100.0 * shift)
    return scale, factor, size * shift


def _orthonormal(vectors: FloatArray, scale: FloatArray) -> FloatArray:
    q: FloatArray = np.linalg.qr(vectors / scale[:, None])[0]
    return scale[:, None] * q


def _ritz(operator: LinearForm, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Generalised singular values within a block, and the block rotated to their vectors."""
    form = vectors.T @ operator.noise_form(vectors)
    size, rotation = np.linalg.eigh(0.5 * (form + form.T))
    size = np.maximum(size, 1e-14 * size[-1])
    balanced = vectors @ (rotation / np.sqrt(size))
    r = np.linalg.qr(operator.apply(balanced), mode="r")
    _, values, turn = np.linalg.svd(r)
    values = np.concatenate([values, np.zeros(len(turn) - len(values))])
    return values[::-1].copy(), balanced @ turn[::-1].T


def _plain_value(
    operator: LinearForm,
    vectors: FloatArray,
    solve: Callable[[FloatArray], FloatArray],
    refine: Callable[[FloatArray], FloatArray],
    r: int,
) -> float:
    """The singular value of L after the r smallest, in the Euclidean norm."""
    block = vectors
    for _ in range(6):
        block = np.linalg.qr(block)[0]
        block = solve(block)
    block = np.linalg.qr(block)[0]
    # Combinations of the block that L makes small, before they are refined.
    block = block @ np.linalg.svd(operator.apply(block), full_matrices=False)[2].T
    block = np.linalg.qr(refine(block))[0]
    values = np.linalg.svd(operator.apply(block), compute_uv=False)
    values = np.concatenate([values, np.zeros(block.shape[1] - len(values))])[::-1]
    return float(values[r])


def _fill_products(block: FloatArray, at: int, u: FloatArray) -> int:
    size = u.shape[1]
    for i in range(size):
        stop = at + size - i
        np.multiply(u[:, i : i + 1], u[:, i:], out=block[:, at:stop])
        block[:, at + 1 : stop] *= _ROOT2
        at = stop
    return at


def _pack_symmetric(matrices: FloatArray) -> FloatArray:
    rows, columns = np.triu_indices(matrices.shape[1])
    factors = np.where(rows == columns, 1.0, _ROOT2)
    result: FloatArray = (matrices[:, rows, columns] * factors).T
    return result


def _unpack_symmetric(vectors: FloatArray, size: int) -> FloatArray:
    rows, columns = np.triu_indices(size)
    entries = vectors.T / np.where(rows == columns, 1.0, _ROOT2)
    matrices = np.zeros((vectors.shape[1], size, size))
    matrices[:, rows, columns] = entries
    matrices[:, columns, rows] = entries
    return matrices
