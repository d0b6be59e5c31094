"""Proofs about a printed answer: no second explanation by at most r samples.

In the basis of the printed delta_i the samples are the unit vectors, so that the kernel of L has
dimension r if its matrix has full column rank without the columns of their squares (degree 2) or
cubes (degree 3). Its entries are fractions, and full rank modulo a prime is full rank.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import flint
import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.cubic import Pairs, count_unknowns, list_pairs, place_products
from identify.disaggregation.factor import EPSILON
from identify.disaggregation.records import PrintedProof

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

PRIMES = (2147483647, 2147483629)
_MODULAR_COLUMNS = 500
_MODULAR_SECONDS = 5e-10
_FILL_SECONDS = 4e-7
_ENTRIES = 60_000_000
"""Entries of a matrix modulo a prime, each of which is a number of Python for a while."""
_LATE = "the time limit passed"
_CHOLESKY = "Cholesky decomposition of the exact Gram matrix with a bound for its rounding"
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class _Answer:
    """The printed answer on the live neurons: A (m, C), p (n, C), masks (m, n), the slope s.

    ``free`` is q: C, or C - 1 with p of sum 0.
    """

    amplitudes: FloatArray
    p: FloatArray
    masks: BoolArray
    leak: float
    free: int

    @property
    def single(self) -> bool:
        """One output: divided by a_j and p_i, the numbers are the masks."""
        return bool(self.p.shape[1] == 1)

    def residues(self, prime: int) -> tuple[IntArray, IntArray]:
        """x_ji = (A_j . p_i) s_ji (m, n) and A (m, q) in the free coordinates of p."""
        off = int(_modulo(np.array([self.leak]), prime)[0])
        if self.single:
            return np.where(self.masks, 1, off), np.ones((len(self.masks), 1), dtype=np.int64)
        a = _modulo(self.amplitudes, prime)
        if self.free < a.shape[1]:
            a = (a[:, :-1] - a[:, -1:]) % prime
        x = _product(a, _modulo(self.p[:, : self.free], prime).T, prime)
        return x * np.where(self.masks, 1, off) % prime, a


def prove_printed(
    amplitudes: FloatArray,
    p: FloatArray,
    masks: BoolArray,
    leak: float,
    *,
    zero_sum: bool = False,
    degree: int = 2,
    budget: Budget = UNLIMITED,
) -> PrintedProof:
    """Prove that Delta H as printed has no second explanation by at most r samples.

    With x_ji = (A_j . p_i) s_ji the matrix of the columns x_ji x_jk (i < k), x_ji A_jc and, for a
    leaky ReLU, A_jc A_jd (c <= d) has to have full column rank; for ``degree`` 3 that of the
    equations times each unknown. One output: the columns are divided by a_j^2, so that they depend
    on the masks alone. The numbers are those printed, exact dyadic fractions; full rank modulo a
    prime is full rank. With one output and a ReLU the matrix is of small integers and a Cholesky
    decomposition of its exact Gram matrix, less a bound for its rounding, proves the same at size.

    Args:
        amplitudes: A (m, C).
        p: (n, C).
        masks: (m, n).
        leak: s.
        zero_sum: the admissible p have sum 0, so that A_j . p = sum_(c < C) p_c (A_jc - A_jC);
            then q = C - 1 and the differences are taken modulo the prime, without rounding.
        degree: of the equations, 2 or 3.
        budget: whose time is held against an estimate.

    Source: the theorem of `relu` and of `cubic`; Rump (2006), "Verification of positive
        definiteness", for the Cholesky decomposition.
    """
    live = np.abs(amplitudes).max(axis=1) > 0.0
    answer = _Answer(amplitudes[live], p, masks[live], leak, p.shape[1] - int(zero_sum))
    required = _required(answer, degree)
    rows = len(answer.masks) * (1 if degree == 2 else len(p) + answer.free)
    if rows < required:
        return PrintedProof(False, rows, required, None, "fewer rows than columns")
    if answer.single and leak == 0.0 and required > _MODULAR_COLUMNS:
        return _prove_by_cholesky(answer, required, degree, budget)
    square = rows if degree == 2 else required
    if min(square, required + 50) * required > _ENTRIES:
        return PrintedProof(None, 0, required, None, f"too large: {required} columns")
    seconds = square * required * (_FILL_SECONDS + _MODULAR_SECONDS * required)
    if not budget.allows(seconds):
        method = f"a rank modulo a prime takes about {seconds:.0f} s, more than the time left"
        return PrintedProof(None, 0, required, None, method)
    best = 0
    for turn, prime in enumerate(PRIMES):
        budget.tell("rank modulo a prime", turn / len(PRIMES))
        x, a = answer.residues(prime)
        if degree == 2:
            matrix = _columns(x, a, leak != 0.0, prime)
        else:
            matrix = _cubic_gram(answer, x, a, prime)
        best = max(best, _rank(matrix, prime))
        if best == required:
            return PrintedProof(True, best, required, prime, "rank modulo a prime")
    return PrintedProof(False, best, required, None, "rank modulo two primes")


def _required(answer: _Answer, degree: int) -> int:
    n, q = len(answer.p), answer.free
    if degree == 3:
        return count_unknowns(n, q, leaky=bool(answer.leak)) - n
    return n * (n - 1) // 2 + n * q + (q * (q + 1) // 2 if answer.leak else 0)


def _prove_by_cholesky(answer: _Answer, required: int, degree: int, budget: Budget) -> PrintedProof:
    began = time.monotonic()
    # Entries are sums of small integers over the rows, so the float64 products are exact.
    gram = _squares_gram(answer.masks, required, budget) if degree == 2 else _cubes_gram(answer)
    if gram is None:
        return PrintedProof(None, 0, required, None, f"{_CHOLESKY}: {_LATE}")
    # dpotrf does a third of the multiplications a row of the Gram matrix, and cannot be stopped.
    rows = len(answer.masks) if degree == 2 else required
    seconds = (time.monotonic() - began) * required / (3.0 * rows)
    budget.tell("proof", 0.8)
    if not budget.allows(seconds):
        method = f"{_CHOLESKY} takes about {seconds:.0f} s more, which are not left"
        return PrintedProof(None, 0, required, None, method)
    rounding = (required + 2) * EPSILON / (1.0 - (required + 2) * EPSILON)
    gram[np.diag_indices(required)] -= 2.0 * rounding * float(np.trace(gram)) + 1e-9
    if lapack.dpotrf(gram, lower=1, clean=0, overwrite_a=1)[1]:
        return PrintedProof(None, 0, required, None, _CHOLESKY)
    return PrintedProof(True, required, required, None, _CHOLESKY)


def _squares_gram(masks: BoolArray, required: int, budget: Budget) -> FloatArray | None:
    x = masks.astype(np.float64)
    n = x.shape[1]
    gram = np.zeros((required, required), order="F")
    step = max(1, _CHUNK // required)
    for start in range(0, len(x), step):
        budget.tell("proof", 0.8 * start / len(x))
        if budget.expired:
            return None
        part = x[start : start + step]
        blocks = [part] + [part[:, i : i + 1] * part[:, i + 1 :] for i in range(n - 1)]
        gram = blas.dsyrk(1.0, np.hstack(blocks).T, beta=1.0, c=gram, lower=1, overwrite_c=1)
    return gram


def _cubes_gram(answer: _Answer) -> FloatArray:
    """That of the equations (M_j t)^2 - (M_j t) p times t_i and p, without the columns t_i^3."""
    pairs = list_pairs(len(answer.p), 1, leaky=False)
    x = np.hstack([answer.masks, np.ones((len(answer.masks), 1))]).astype(np.float64)
    rows = x[:, pairs.first] * x[:, pairs.second] * _coefficients(pairs, 1)
    slots, kept = place_products(pairs), _without_cubes(pairs, len(answer.p))
    gram = np.zeros((int(slots.max()) + 1,) * 2)
    inner = rows.T @ rows
    for slot in slots:
        gram[np.ix_(slot, slot)] += inner
    return np.asfortranarray(gram[np.ix_(kept, kept)])


def _cubic_gram(answer: _Answer, x: IntArray, a: IntArray, prime: int) -> IntArray:
    """The Gram matrix, modulo the prime, of the equations of degree 3 without the columns t_i^3.

    Its rank is at most that of the equations, so that full rank of it proves theirs.
    """
    pairs = list_pairs(x.shape[1], a.shape[1], leaky=answer.leak != 0.0)
    slope = int(_modulo(np.array([answer.leak]), prime)[0])
    line = np.hstack([x, a])
    rows = line[:, pairs.first] * line[:, pairs.second] % prime
    both = (pairs.first >= x.shape[1]) & (pairs.second >= x.shape[1])
    factors = _coefficients(pairs, 1 + slope) * np.where(both, slope, 1)
    rows = rows * (factors % prime) % prime
    count, size = rows.shape
    left = flint.nmod_mat(size, count, rows.T.ravel().tolist(), prime)
    right = flint.nmod_mat(count, size, rows.ravel().tolist(), prime)
    inner = np.array([int(v) for v in (left * right).entries()], dtype=np.int64)
    inner = inner.reshape(size, size)
    slots, kept = place_products(pairs), _without_cubes(pairs, x.shape[1])
    gram = np.zeros((int(slots.max()) + 1,) * 2, dtype=np.int64)
    for slot in slots:
        gram[np.ix_(slot, slot)] = (gram[np.ix_(slot, slot)] + inner) % prime
    return np.asarray(gram[np.ix_(kept, kept)])


def _coefficients(pairs: Pairs, slope: int) -> IntArray:
    """1 for squares, 2 for other products within z or p, -(1 + s) for z_i p_c."""
    return np.where(pairs.inner, np.where(pairs.first == pairs.second, 1, 2), -slope)


def _without_cubes(pairs: Pairs, n: int) -> IntArray:
    """The monomials that are not t_i^3."""
    slots = place_products(pairs)
    squares = np.flatnonzero((pairs.first == pairs.second) & (pairs.first < n))
    cubes = slots[pairs.first[squares], squares]
    return np.setdiff1d(np.arange(int(slots.max()) + 1), cubes)


def _modulo(values: FloatArray, prime: int) -> IntArray:
    """Residues of float64 numbers, which are integers times powers of 2."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64) % prime
    powers = {int(e): pow(2, int(e) - 53, prime) for e in np.unique(exponent)}
    factors = np.array([powers[int(e)] for e in exponent.ravel()], dtype=np.int64)
    result: IntArray = whole * factors.reshape(values.shape) % prime
    return result


def _product(left: IntArray, right: IntArray, prime: int) -> IntArray:
    total = np.zeros((left.shape[0], right.shape[1]), dtype=np.int64)
    for c in range(left.shape[1]):
        total = (total + left[:, c : c + 1] * right[c] % prime) % prime
    return total


def _columns(x: IntArray, a: IntArray, leaky: bool, prime: int) -> IntArray:
    n, q = x.shape[1], a.shape[1]
    parts = [x[:, i : i + 1] * x[:, i + 1 :] % prime for i in range(n - 1)]
    parts += [x * a[:, c : c + 1] % prime for c in range(q)]
    if leaky:
        parts += [a[:, c : c + 1] * a[:, c:] % prime for c in range(q)]
    return np.hstack(parts)


def _rank(matrix: IntArray, prime: int) -> int:
    rows, columns = matrix.shape
    most = min(rows, columns + 50)
    for count in dict.fromkeys((most, rows)):
        entries = [int(value) for value in matrix[:count].ravel()]
        rank = int(flint.nmod_mat(count, columns, entries, prime).rank())
        if rank == columns:
            break
    return rank
