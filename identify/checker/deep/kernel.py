"""The operator L of the last hidden layer: its kernel against the noise, and what follows for it.

Row j of L, times its weight, takes symmetric Z (r, r), P (r, q) and, for a leaky ReLU of slope s,
symmetric Q (q, q) to u_j^T Z u_j - (1 + s) u_j^T P A_j + s A_j^T Q A_j. The samples' (z z^T, z p^T,
p p^T) are in its kernel. Off-diagonal entries are stored times root 2, so that norms are those of
matrices.

The generalised singular values are |L v| over the root of <v, C v>, the variance of |L v|^2 that
noise of size 1 in the gradient causes. By the minimum-maximum principle the r samples bound the
r-th from above, and any subspace of codimension r bounds the next one from below: taken is the one
that is C-orthogonal to the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..arithmetic.timed import triangle
from ..outcome import FloatArray, check_possible, finite
from .spectra import InTime, Spectrum

LARGEST = 4500
"""Unknowns of L above which nothing is formed: a dozen matrices of that size."""
_RATE = 2e9
_ENTRIES = 60_000_000
_WEIGHT = 1e3
_ROOT2 = float(np.sqrt(2.0))


@dataclass(frozen=True, eq=False)
class Operator:
    """U (m, r), A (m, q) on the admissible p, the slope s and the weights (m,) of the rows."""

    basis: FloatArray
    amplitudes: FloatArray
    leak: float
    weights: FloatArray
    values: FloatArray

    @property
    def rows(self) -> int:
        """One equation for each neuron."""
        return len(self.basis)

    @property
    def unknowns(self) -> int:
        """r (r + 1) / 2 + r q, and q (q + 1) / 2 more for a leaky ReLU."""
        r, q = int(self.basis.shape[1]), int(self.amplitudes.shape[1])
        return r * (r + 1) // 2 + r * q + (q * (q + 1) // 2 if self.leak else 0)

    def matrix(self) -> FloatArray:
        """Weighted L, (m, D)."""
        u, a = self.basis, self.amplitudes
        parts = [_squares(u), -(1.0 + self.leak) * (u[:, :, None] * a[:, None]).reshape(len(u), -1)]
        if self.leak:
            parts.append(self.leak * _squares(a))
        return np.hstack(parts) * self.weights[:, None]

    def form(self) -> FloatArray:
        """C, (D, D): L at u_j + e has the error e^T [2 Z u_j - (1 + s) P A_j], e ~ S^-1 noise."""
        r, q = self.basis.shape[1], self.amplitudes.shape[1]
        lines = np.hstack([2.0 * self.basis, -(1.0 + self.leak) * self.amplitudes])
        lines = lines * self.weights[:, None]
        gram = lines.T @ lines
        rows, columns = np.triu_indices(r)
        scale = np.where(rows == columns, 0.5, 1.0 / _ROOT2)
        products = r * (r + 1) // 2
        form = np.zeros((self.unknowns, self.unknowns))
        for axis in range(r):
            # The unknowns as the row "axis" of [Z, P]: which of them stand in it, and where.
            line = np.zeros((self.unknowns, r + q))
            for at, other in ((rows, columns), (columns, rows)):
                here = np.flatnonzero(at == axis)
                line[here, other[here]] += scale[here]
            for c in range(q):
                line[products + axis * q + c, r + c] = 1.0
            used = np.flatnonzero(line.any(axis=1))
            part = line[used]
            form[np.ix_(used, used)] += part @ gram @ part.T / self.values[axis] ** 2
        return form

    def elements(self, z: FloatArray, p: FloatArray) -> FloatArray:
        """The unknowns (D, n) of samples with z (n, r) and p (n, q)."""
        parts = [_squares(z), (z[:, :, None] * p[:, None]).reshape(len(z), -1)]
        if self.leak:
            parts.append(_squares(p))
        return np.hstack(parts).T


class Equations(Protocol):
    """What `cut_kernel` asks of the operator, of degree 2 or 3."""

    @property
    def unknowns(self) -> int:
        """D."""
        ...

    @property
    def rows(self) -> int:
        """The number of equations."""
        ...

    def matrix(self) -> FloatArray:
        """Weighted equations, (rows, D)."""
        ...

    def form(self) -> FloatArray:
        """The noise form C, (D, D)."""
        ...

    def elements(self, z: FloatArray, p: FloatArray) -> FloatArray:
        """The unknowns (D, n) of samples."""
        ...


def build_operator(spectrum: Spectrum, amplitudes: FloatArray, leak: float) -> Operator:
    """L with rows weighted by 1 / |A_j|, at most 30 times the median; none without amplitude."""
    size = np.linalg.norm(amplitudes, axis=1)
    used = size > 1e-12 * size.max()
    squares = np.zeros(len(size))
    squares[used] = size[used] ** -2.0
    squares /= np.median(squares[used])
    weights = np.sqrt(np.minimum(squares, _WEIGHT))
    return Operator(spectrum.left, amplitudes, leak, weights, spectrum.values)


@dataclass(frozen=True)
class Cut:
    """The kernel's largest value, the next one, their gap, all in units of the noise; sigma.

    ``sigma`` is the smallest singular value of L off the kernel in the Euclidean norm.
    """

    largest: float
    other: float
    gap: float
    sigma: float


def cut_kernel(
    operator: Equations, z: FloatArray, p: FloatArray, noise: float, in_time: InTime
) -> Cut:
    """Measure how the kernel that the samples span is cut off from the rest.

    Args:
        z: coordinates of the samples' delta in U, (r, r), one row a sample.
        p: (r, q).
        noise: root mean square of the errors of the gradient's entries.

    Raises NotCheckableError above `LARGEST` unknowns, for dependent samples, and out of time.

    Cost: 2 m D^2 + 12 D^3 operations, eight matrices of D^2 numbers.
    """
    size, rows = operator.unknowns, operator.rows
    check_possible(
        size <= LARGEST and size * rows <= _ENTRIES,
        f"too large: {size} unknowns in {rows} rows, {LARGEST} unknowns are formed",
    )
    in_time((2.0 * rows * size**2 + 12.0 * size**3) / _RATE)
    form = finite(operator.form())
    kernel = operator.elements(z, p)
    kernel = kernel / np.linalg.norm(kernel, axis=0)
    rest = _complement(form @ kernel)
    matrix = operator.matrix()
    count = rest.shape[1]
    if count == 0:
        return Cut(_largest(matrix @ kernel, kernel, form) / noise, np.inf, np.inf, 0.0)
    if rows < count:
        return Cut(_largest(matrix @ kernel, kernel, form) / noise, 0.0, 0.0, 0.0)
    # [L N | L K] = Q R: the last columns of R hold what of L K lies in the range of L N.
    both = triangle(np.hstack([matrix @ rest, matrix @ kernel]), in_time)
    upper, across = both[:count, :count], both[:count, count:]
    in_time(8.0 * size**3 / _RATE)
    inverse = finite(np.asarray(np.linalg.inv(upper), dtype=np.float64))
    kernel = kernel - rest @ (inverse @ across)
    largest = _largest(both[count:, count:], kernel, form) / noise
    moved = rest @ inverse
    other = _top(moved.T @ form @ moved) ** -0.5 / noise
    basis = np.linalg.qr(kernel)[0]
    flat = moved - basis @ (basis.T @ moved)
    sigma = _top(flat.T @ flat) ** -0.5
    return Cut(largest, other, other / max(largest, 1.0), sigma)


def _complement(vectors: FloatArray) -> FloatArray:
    """An orthonormal basis of what is orthogonal to independent vectors (D, r)."""
    dependent = "the samples are not independent in the noise form"
    lengths = np.linalg.norm(vectors, axis=0)
    check_possible(bool(np.all(lengths > 0.0)), dependent)
    full, small = np.linalg.qr(vectors / lengths, mode="complete")
    steps = np.abs(np.diag(small))
    check_possible(steps.min() > 1e-13 * steps.max(), dependent)
    return np.asarray(full[:, vectors.shape[1] :])


def _largest(moved: FloatArray, kernel: FloatArray, form: FloatArray) -> float:
    """The largest |L v| over the root of <v, C v> on the span of the kernel's elements."""
    if len(moved) == 0:
        return 0.0
    metric = np.linalg.cholesky(kernel.T @ form @ kernel)
    return float(np.linalg.norm(np.linalg.solve(metric, moved.T), 2))


def _top(matrix: FloatArray) -> float:
    """The largest eigenvalue of a symmetric matrix, at least the smallest positive number."""
    values = np.linalg.eigvalsh(finite(0.5 * (matrix + matrix.T)))
    return max(float(values[-1]), 1e-300)


def _squares(vectors: FloatArray) -> FloatArray:
    """v_i v_k of every row v for i <= k, those of i < k times root 2."""
    rows, columns = np.triu_indices(vectors.shape[1])
    scale = np.where(rows == columns, 1.0, _ROOT2)
    return np.asarray(vectors[:, rows] * vectors[:, columns] * scale)
