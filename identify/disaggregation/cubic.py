"""The quadratic equations of a ReLU layer times each of their unknowns, as a linear operator.

f_j(z, p) = (y_j - A_j . p) (y_j - s A_j . p) with y = U z vanishes for every sample, and so do its
products with z_i and with p_c. In the entries of the symmetric tensor T = v^(3), v = (z, p), they
are linear: m (r + q) equations instead of m, for about (r + q) / 3 times as many unknowns. So a
third of the neurons is enough where `Operator` asks for r (r + 1) / 2 + r q - r of them.

Every sample of an explaining set of r samples gives an element of the kernel, and these are
independent as the z_i are. If the kernel has dimension r, an element with z part
sum_i t_i z_i^(3) is of rank one only if one t_i is not 0, so that no other sample is in it.

Entries are stored such that the squared norm of T is the sum over c of that of the slice
T_c = (Z_c, P_c), in the norm of `Operator`: what bounds an error of L bounds that of this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import Budget
from identify.disaggregation.relu import Operator

IntArray = npt.NDArray[np.int64]

LARGEST_UNKNOWNS = 11_000
"""The number of unknowns above which the operator is not formed: twice 1 GB."""


@dataclass(frozen=True, eq=False)
class CubicOperator:
    """L (f_j times each unknown) on symmetric tensors T, stored by monomials.

    ``slots`` (k, D2) says where the entries of slice c of T, which are unknowns of ``quadratic``,
    are stored, ``scales`` (k, D2) by what they are multiplied; k = r + q.
    """

    quadratic: Operator
    slots: IntArray
    scales: FloatArray

    @property
    def rank(self) -> int:
        """r, the dimension of the column space."""
        return self.quadratic.rank

    @property
    def unknowns(self) -> int:
        """D, see `count_unknowns`."""
        return int(self.slots.max()) + 1

    def slices(self, vectors: FloatArray) -> FloatArray:
        """The slices (D2, k, b) of tensors (D, b)."""
        return (vectors[self.slots] * self.scales[:, :, None]).transpose(1, 0, 2)

    def _collect(self, slices: FloatArray) -> FloatArray:
        """The transpose of `slices`."""
        total = np.zeros((self.unknowns, slices.shape[2]))
        for c, (slot, scale) in enumerate(zip(self.slots, self.scales, strict=True)):
            total[slot] += scale[:, None] * slices[:, c]
        return total

    def apply(self, vectors: FloatArray) -> FloatArray:
        """Weighted L times tensors (D, b), shape (m k, b)."""
        return self.quadratic.apply(self._flat(vectors)).reshape(-1, vectors.shape[1])

    def adjoint(self, values: FloatArray) -> FloatArray:
        """Weighted L transposed times values (m k, b), shape (D, b)."""
        count, k = values.shape[1], len(self.slots)
        slices = self.quadratic.adjoint(values.reshape(-1, k * count))
        return self._collect(slices.reshape(-1, k, count))

    def noise_form(self, vectors: FloatArray) -> FloatArray:
        """C times tensors (D, b): <T, C T> is the variance of |L T|^2 caused by noise in U."""
        slices = self.quadratic.noise_form(self._flat(vectors))
        return self._collect(slices.reshape(-1, len(self.slots), vectors.shape[1]))

    def normal(self, budget: Budget) -> FloatArray:
        """L^T L (D, D), in column order, from that of the quadratic equations."""
        lower = np.tril(self.quadratic.normal(budget))
        inner = lower + np.tril(lower, -1).T
        total = np.zeros((self.unknowns, self.unknowns), order="F")
        for c, (slot, scale) in enumerate(zip(self.slots, self.scales, strict=True)):
            budget.step("normal matrix", c / len(self.slots))
            total[np.ix_(slot, slot)] += scale[:, None] * inner * scale
        return total

    def _flat(self, vectors: FloatArray) -> FloatArray:
        return self.slices(vectors).reshape(self.quadratic.unknowns, -1)

    def to_quadratic(self, vectors: FloatArray) -> FloatArray:
        """The r directions (D2, r) that the slices of kernel elements (D, r) span.

        A slice of sum_i t_i v_i^(3) is a combination of the r elements (z_i z_i^T, z_i p_i^T).
        They are compared in units of what noise of U does to an entry.
        """
        metric, q = self.quadratic.metric, self.quadratic.amplitudes.shape[1]
        r = len(metric)
        rows, columns = np.triu_indices(r)
        noise = np.concatenate([metric[rows] + metric[columns], np.repeat(metric, q)])
        size = np.sqrt(noise / noise.min())
        if self.quadratic.leak:
            size = np.concatenate([size, np.ones(q * (q + 1) // 2)])
        spanned = np.linalg.svd(size[:, None] * self._flat(vectors), full_matrices=False)[0][:, :r]
        result: FloatArray = spanned / size[:, None]
        return result


def count_unknowns(r: int, q: int, *, leaky: bool) -> int:
    """The monomials of degree 3 in z (r) and p (q), without those in p alone unless leaky.

    Example:
        >>> count_unknowns(14, 1, leaky=False), count_unknowns(20, 9, leaky=False)
        (679, 4330)
    """
    return math.comb(r + q + 2, 3) - (0 if leaky else math.comb(q + 2, 3))


def count_rows(r: int, q: int, *, leaky: bool) -> int:
    """The neurons that a kernel of dimension r asks for: D - r over r + q, rounded up.

    Example:
        >>> count_rows(14, 1, leaky=False), count_rows(20, 9, leaky=False)
        (45, 149)
    """
    return -(-(count_unknowns(r, q, leaky=leaky) - r) // (r + q))


def build_cubic(quadratic: Operator) -> CubicOperator:
    """The operator of degree 3 over one of degree 2.

    Cost: (r + q) times the unknowns of the quadratic one.

    Example:
        >>> from identify.disaggregation.relu import build_operator
        >>> build_cubic(build_operator(np.eye(9, 3), np.ones(3), np.ones((9, 1)), 0.0)).unknowns
        19
    """
    pairs = list_pairs(quadratic.rank, quadratic.amplitudes.shape[1], leaky=bool(quadratic.leak))
    slots = place_products(pairs)
    stored = np.where(pairs.inner & (pairs.first != pairs.second), np.sqrt(2.0), 1.0)
    squares = np.zeros(int(slots.max()) + 1)
    np.add.at(squares, slots, np.broadcast_to(stored**2, slots.shape))
    return CubicOperator(quadratic, slots, stored / np.sqrt(squares[slots]))


@dataclass(frozen=True, eq=False)
class Pairs:
    """The monomials v_a v_b of degree 2, in the order of `Operator`, v = (z, p) of ``size`` k.

    ``first`` and ``second`` (D2,) are the indices a <= b; ``inner`` (D2,) is False for z_i p_c,
    which is stored once where Z and Q are stored as symmetric matrices.
    """

    first: IntArray
    second: IntArray
    inner: npt.NDArray[np.bool_]
    size: int


def list_pairs(r: int, q: int, *, leaky: bool) -> Pairs:
    """The pairs of z (r) and p (q): both in z, one in each, and both in p if leaky."""
    rows, columns = np.triu_indices(r)
    first = [rows, np.repeat(np.arange(r), q)]
    second = [columns, r + np.tile(np.arange(q), r)]
    if leaky:
        rows, columns = np.triu_indices(q)
        first.append(r + rows)
        second.append(r + columns)
    a, b = np.concatenate(first), np.concatenate(second)
    return Pairs(a, b, (a >= r) | (b < r), r + q)


def place_products(pairs: Pairs) -> IntArray:
    """Numbers (k, D2) of the monomials of degree 3: that of pair n times v_c at [c, n].

    Example:
        >>> place_products(list_pairs(1, 1, leaky=False)).tolist()
        [[0, 1], [1, 2]]
    """
    k = pairs.size
    triples = np.empty((k, len(pairs.first), 3), dtype=np.int64)
    triples[:, :, 0], triples[:, :, 1] = pairs.first, pairs.second
    triples[:, :, 2] = np.arange(k)[:, None]
    triples.sort(axis=2)
    codes = (triples[:, :, 0] * k + triples[:, :, 1]) * k + triples[:, :, 2]
    return np.asarray(np.unique(codes.ravel(), return_inverse=True)[1].reshape(codes.shape))
