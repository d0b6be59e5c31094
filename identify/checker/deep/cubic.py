"""The equations of the last hidden layer times each unknown, and the rank of their integer form.

With v = (z, p) of size k the products of row j of L with v_1 .. v_k are linear in the monomials of
degree 3. They are stored such that the squared norm of a tensor is the sum of those of its k
slices, each in the norm of the quadratic unknowns; an error of L then does the same to it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import flint
import numpy as np

from ..outcome import FloatArray, IntArray
from .kernel import Operator

_ROOT2 = float(np.sqrt(2.0))


def count_unknowns(r: int, q: int, leak: float) -> int:
    """Monomials of degree 3 in z and p; those in p alone only for a leaky ReLU."""
    every = (r + q) * (r + q + 1) * (r + q + 2) // 6
    return every if leak else every - q * (q + 1) * (q + 2) // 6


@dataclass(frozen=True, eq=False)
class Cubic:
    """The operator of degree 3 over the one of degree 2, with what the measure of its cut asks."""

    quadratic: Operator

    @property
    def unknowns(self) -> int:
        """The monomials of degree 3."""
        r, q = self._sizes
        return count_unknowns(r, q, self.quadratic.leak)

    @property
    def rows(self) -> int:
        """One equation for each neuron and unknown."""
        return self.quadratic.rows * sum(self._sizes)

    @property
    def _sizes(self) -> tuple[int, int]:
        return int(self.quadratic.basis.shape[1]), int(self.quadratic.amplitudes.shape[1])

    def _slices(self) -> list[tuple[IntArray, FloatArray]]:
        """For each v_c the numbers of the products with it, and the entry of a slice for one."""
        pairs, numbers = _products(*self._sizes, self.quadratic.leak)
        r = self._sizes[0]
        # z z^T and p p^T are stored with root 2 off the diagonal, z p^T once.
        stored = np.array([_ROOT2 if a < b and (b < r or a >= r) else 1.0 for a, b in pairs])
        weight = np.zeros(self.unknowns)
        for line in numbers:
            weight[line] += stored**2
        return [(line, stored / np.sqrt(weight[line])) for line in numbers]

    def matrix(self) -> FloatArray:
        """Weighted equations, (m k, D)."""
        inner = self.quadratic.matrix()
        blocks = []
        for numbers, scale in self._slices():
            block = np.zeros((len(inner), self.unknowns))
            block[:, numbers] = inner * scale
            blocks.append(block)
        return np.vstack(blocks)

    def form(self) -> FloatArray:
        """C, (D, D): the sum over the slices of the variance of degree 2."""
        inner = self.quadratic.form()
        total = np.zeros((self.unknowns, self.unknowns))
        for numbers, scale in self._slices():
            total[np.ix_(numbers, numbers)] += scale[:, None] * inner * scale
        return total

    def elements(self, z: FloatArray, p: FloatArray) -> FloatArray:
        """The tensors v v v (D, n) of samples with z (n, r) and p (n, q)."""
        v = np.hstack([z, p])
        inner = self.quadratic.elements(z, p)
        total = np.zeros((self.unknowns, len(z)))
        for (numbers, scale), factor in zip(self._slices(), v.T, strict=True):
            total[numbers] += scale[:, None] * inner * factor
        return total


def _products(r: int, q: int, leak: float) -> tuple[list[tuple[int, int]], list[IntArray]]:
    """Pairs of the quadratic unknowns in their order, and the number of each times v_c."""
    inside = list(itertools.combinations_with_replacement(range(r), 2))
    across = [(i, r + c) for i in range(r) for c in range(q)]
    outside = list(itertools.combinations_with_replacement(range(r, r + q), 2)) if leak else []
    pairs = inside + across + outside
    number: dict[tuple[int, ...], int] = {}
    lines = []
    for c in range(r + q):
        names = [tuple(sorted((a, b, c))) for a, b in pairs]
        lines.append(np.array([number.setdefault(name, len(number)) for name in names]))
    return pairs, lines


def has_full_rank(x: IntArray, a: IntArray, slope: int, prime: int) -> bool:
    """Whether the equations with x (m, n) and A (m, q) leave the n samples alone, mod the prime.

    In the basis of the samples' delta they are sum_ik x_i x_k t_i t_k - (1 + s) sum x_i A_c t_i p_c
    + s sum A_c A_d p_c p_d, times each t and p. The cubes t_i^3 are those of the samples.
    """
    n, q = x.shape[1], a.shape[1]
    pairs, lines = _products(n, q, slope)
    line = np.hstack([x, a])
    rows = np.empty((len(x), len(pairs)), dtype=np.int64)
    for at, (i, k) in enumerate(pairs):
        factor = (1 if i == k else 2) if k < n else -(1 + slope)
        if i >= n:
            factor = slope * (1 if i == k else 2)
        rows[:, at] = line[:, i] * line[:, k] % prime * (factor % prime) % prime
    square = {(i, i): at for at, (i, _) in enumerate(pairs)}
    cubes = [int(lines[i][square[i, i]]) for i in range(n)]
    kept = np.delete(np.arange(1 + max(int(line.max()) for line in lines)), cubes)
    small = flint.nmod_mat(len(rows), len(pairs), rows.ravel().tolist(), prime)
    inner = np.array([int(v) for v in (small.transpose() * small).entries()], dtype=np.int64)
    inner = inner.reshape(len(pairs), len(pairs))
    # The rank of a Gram matrix is at most that of its factor.
    gram = np.zeros((len(kept) + n,) * 2, dtype=np.int64)
    for numbers in lines:
        gram[np.ix_(numbers, numbers)] = (gram[np.ix_(numbers, numbers)] + inner) % prime
    entries = gram[np.ix_(kept, kept)].ravel().tolist()
    return bool(flint.nmod_mat(len(kept), len(kept), entries, prime).rank() == len(kept))


def integer_gram(masks: FloatArray) -> FloatArray:
    """The Gram matrix of (M t)^2 - (M t) p times each unknown, without t_i^3; exact counts."""
    n = masks.shape[1]
    pairs, lines = _products(n, 1, 0.0)
    line = np.hstack([masks, np.ones((len(masks), 1))])
    rows = np.stack(
        [line[:, i] * line[:, k] * (-1.0 if k == n else 1.0 + (i < k)) for i, k in pairs], axis=1
    )
    inner = rows.T @ rows
    gram = np.zeros((count_unknowns(n, 1, 0.0),) * 2)
    for numbers in lines:
        gram[np.ix_(numbers, numbers)] += inner
    cubes = [int(lines[i][pairs.index((i, i))]) for i in range(n)]
    kept = np.delete(np.arange(len(gram)), cubes)
    return np.asarray(gram[np.ix_(kept, kept)])
