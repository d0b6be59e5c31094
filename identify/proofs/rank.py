"""Proofs of the rank of the Hermite matrix of integer points, in exact arithmetic.

The rows of a point u are the gradients of all monomials at u: k_a u^(k - e_a) for axis a and
exponent k. This is H with its columns multiplied by non-zero real numbers, so it has the rank of H
over the reals; its entries are integers, so that rank is also the one over the rational numbers. A
minor that is not 0 modulo a prime is not 0: the rank modulo any prime is a lower bound, and full
rank modulo one prime is a proof. A rank that is too small modulo a prime proves nothing.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import flint
import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.errors import InvalidInputError
from identify.tensors import exponents, symmetric_dimension

IntArray = npt.NDArray[np.int64]
Outcome = Literal["full", "deficient", "undecided"]

EXACT_COLUMNS = 256
"""Number of unknowns above which no rank over the rational numbers is computed."""
_EXACT_ENTRIES = 5_000_000
_THREADS = 8
_SPARE = 2
# Seconds a number to fill in, and seconds a multiplication to eliminate, on one 2020s core.
_FILL, _ELIMINATE = 6e-8, 1.8e-10
# The same over the rational numbers, where Dixon lifting takes N^4 operations a bit.
_EXACT_FILL, _EXACT_ELIMINATE = 2e-6, 1e-11


@dataclass(frozen=True)
class RankProof:
    """What is proved about the rank of H, shape (k r, N), of integer points.

    `rank` is `required` for "full"; an upper bound for "deficient", exact unless it comes from
    counting; a lower bound for "undecided". `prime` is the modulus that shows a full rank or the
    lower bound, None if none does. `neurons` is the number of leading points used, and `method`
    says what was done.
    """

    outcome: Outcome
    rank: int
    required: int
    prime: int | None
    neurons: int
    method: str
    seconds: float


def round_points(points: FloatArray, shift: int) -> IntArray:
    """Integers round(2^shift p), ties to even, of points of norm at most 1, shape as `points`.

    Every entry is off by at most 2^-(shift + 1) in units of p.

    Raises:
        InvalidInputError: not a finite (k, r) array, a norm above 1 + 1e-6, or a shift outside
            0 to 52.

    Example:
        >>> round_points(np.array([[0.6, -0.8]]), 10)
        array([[ 614, -819]])
    """
    if not 0 <= shift <= 52:
        raise InvalidInputError("shift", "0 to 52", shift, "float64 carries 53 bits")
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.size == 0:
        raise InvalidInputError("points", "an array of shape (points, dimension)", points.shape)
    length = float(np.sqrt(np.max(np.sum(points**2, axis=1))))
    if not length <= 1.0 + 1e-6:
        raise InvalidInputError("points", "norms of at most 1", length, "normalise every row")
    return np.rint(np.ldexp(points, shift)).astype(np.int64)


def modular_hermite_matrix(points: IntArray, degree: int, prime: int) -> IntArray:
    """Gradients of all monomials modulo a prime: k_a u^(k - e_a), shape (k r, N), in 0..prime-1.

    The columns follow `identify.tensors.exponents`; row j r + a belongs to point j and axis a. A
    prime above the degree divides no factor k_a, so that no column is lost for nothing.

    Args:
        points: integers, shape (k, r).
        degree: alpha, at least 2.
        prime: degree < prime < 2^31, so that a product of two residues fits in int64.

    Raises:
        InvalidInputError: points that are no integers, a degree below 2, an unsuitable prime.

    Cost: k r N numbers.

    Example:
        >>> modular_hermite_matrix(np.array([[2, -1]]), 3, 7)
        array([[5, 3, 1, 0],
               [0, 4, 3, 3]])
    """
    points = _checked_points(points, degree)
    _check_prime(prime, degree)
    count, r = points.shape
    matrix = np.zeros((count, r, symmetric_dimension(degree, r)), dtype=np.int64)
    for axis, columns, values in _blocks(points, degree, prime):
        matrix[:, axis, columns] = values
    return matrix.reshape(count * r, -1)


def estimate_seconds(rows: int, columns: int) -> float:
    """Seconds of one rank modulo a prime; of more rows than columns only the leading ones count.

    Example:
        >>> bool(estimate_seconds(4960, 4960) > 10 * estimate_seconds(1540, 1540))
        True
    """
    return _seconds(min(rows, columns), columns)


def estimate_bytes(rows: int, columns: int) -> int:
    """Memory of one rank modulo a prime: the matrix, its copy, and products within elimination.

    Example:
        >>> estimate_bytes(4960, 4960) // 2**20
        563
    """
    return 24 * min(rows, columns) * columns


def prove_rank(
    points: IntArray,
    degree: int,
    *,
    primes: Sequence[int] | None = None,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> RankProof:
    """Prove that H, shape (k r, N), of integer points has full column rank, or that it has not.

    Fewer equations than unknowns: deficient. Else the rank modulo a prime, of the leading points
    that give slightly more equations than unknowns, then of twice as many until all are used: N
    proves full rank. Else further primes with all points, then the rank over the rational numbers
    up to `EXACT_COLUMNS` unknowns, which decides; above, "undecided".

    Args:
        points: integers, shape (k, r); scaling a point does not change the rank.
        degree: alpha, at least 2.
        primes: moduli, degree < prime < 2^31; two random ones of 31 bits if left out.
        seed: of the random primes.
        budget: a step cannot be interrupted: one that by its estimate would end too late is left
            out.

    Raises:
        InvalidInputError: points that are no integers, a degree below 2, an unsuitable prime.

    Cost: O(r k N) to fill in, O(N^3) to eliminate, more where leading points do not suffice;
    24 N^2 bytes.

    Source: rank modulo a prime, LU decomposition by blocks (Dumas, Giorgi & Pernet 2008); over the
        rational numbers by lifting (Dixon 1982), with a check that the kernel found is one.

    Example:
        >>> points = np.random.default_rng(0).integers(-99, 99, size=(8, 5))
        >>> prove_rank(points, 3).outcome, prove_rank(points[:7], 3).rank
        ('full', 34)
    """
    start = time.monotonic()
    points = _checked_points(points, degree)
    chosen = _random_primes(seed) if primes is None else [int(prime) for prime in primes]
    if not chosen:
        raise InvalidInputError("primes", "at least one prime", "none", "leave it out")
    for prime in chosen:
        _check_prime(prime, degree)
    outcome, rank, prime_used, neurons, method = _search(points, degree, chosen, budget)
    required = symmetric_dimension(degree, points.shape[1])
    return RankProof(outcome, rank, required, prime_used, neurons, method, time.monotonic() - start)


def _search(
    points: IntArray, degree: int, primes: Sequence[int], budget: Budget
) -> tuple[Outcome, int, int | None, int, str]:
    """The fields of a RankProof, from the outcome to the method."""
    count, r = points.shape
    required = symmetric_dimension(degree, r)
    if count * r < required:
        return (
            "deficient", count * r, None, count, f"{count * r} equations for {required} unknowns"
        )  # fmt: skip
    sizes = _sizes(count, r, required)
    best, best_prime, best_size = 0, None, count
    attempts = [(size, primes[0]) for size in sizes[:-1]] + [(count, prime) for prime in primes]
    failures = []
    for size, prime in attempts:
        seconds = _seconds(size * r, required)
        if not budget.allows(seconds):
            failures.append(
                f"{size * r} equations modulo a prime take about {seconds:.1f} s, "
                "more than the time that is left"
            )
            break
        rank = _modular_rank(points[:size], degree, prime, budget)
        if rank == required:
            method = f"rank {rank} modulo the prime {prime}, {size} of {count} neurons"
            return "full", rank, prime, size, method
        if rank > best:
            best, best_prime, best_size = rank, prime, size
        failures.append(f"rank {rank} modulo the prime {prime}, {size} of {count} neurons")
    seconds = _exact_seconds(points, degree)
    if required > EXACT_COLUMNS or points.size * required > _EXACT_ENTRIES:
        failures.append(f"no rank over the rational numbers for {points.size} x {required}")
    elif not budget.allows(seconds):
        failures.append(
            f"the rank over the rational numbers takes about {seconds:.1f} s, "
            "more than the time that is left"
        )
    else:
        rank = _rational_rank(points, degree, budget)
        method = f"rank {rank} of {required} over the rational numbers, all {count} neurons"
        return ("full" if rank == required else "deficient"), rank, None, count, method
    return "undecided", best, best_prime, best_size, "; ".join(failures)


def _sizes(count: int, r: int, required: int) -> list[int]:
    """Numbers of leading points to try, ending with all of them."""
    sizes = []
    size = -(-required // r) + _SPARE
    while size < count:
        sizes.append(size)
        size *= 2
    return [*sizes, count]


def _modular_rank(points: IntArray, degree: int, prime: int, budget: Budget) -> int:
    stage = "rank modulo a prime"
    columns = symmetric_dimension(degree, points.shape[1])
    share = _FILL * points.size * columns / _seconds(points.size, columns)
    matrix = flint.nmod_mat(points.size, columns, prime)
    _fill(matrix, points, degree, prime, lambda done: budget.tell(stage, share * done))
    with _all_cores():
        rank = int(matrix.rank())
    budget.tell(stage, 1.0)
    return rank


def _rational_rank(points: IntArray, degree: int, budget: Budget) -> int:
    stage = "rank over the rational numbers"
    matrix = flint.fmpz_mat(points.size, symmetric_dimension(degree, points.shape[1]))
    _fill(matrix, points, degree, None, lambda done: budget.tell(stage, 0.5 * done))
    rank = int(matrix.rank())
    budget.tell(stage, 1.0)
    return rank


def _fill(
    matrix: Any, points: IntArray, degree: int, prime: int | None, tell: Callable[[float], None]
) -> None:
    """Set the entries of a flint matrix of zeros.

    Most entries are 0 (all but alpha / (r + alpha - 1) of them), so this is faster and smaller than
    a list of all entries.
    """
    count, r = points.shape
    for axis, columns, values in _blocks(points, degree, prime):
        tell(axis / r)
        places = columns.tolist()
        for j in range(count):
            indices = ((j * r + axis, place) for place in places)
            deque(map(matrix.__setitem__, indices, values[j].tolist()), maxlen=0)


def _blocks(
    points: IntArray, degree: int, prime: int | None
) -> Iterator[tuple[int, IntArray, npt.NDArray[Any]]]:
    """For each axis a: the columns with k_a > 0, and k_a u^(k - e_a) there, shape (k, columns).

    Residues in int64 modulo a prime below 2^31, Python integers without one.
    """
    count, r = points.shape

    def reduce(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values if prime is None else values % prime

    base = reduce(points.astype(object) if prime is None else points)
    powers = [np.ones_like(base)]
    for _ in range(degree - 1):
        powers.append(reduce(powers[-1] * base))
    table = np.stack(powers)
    low = exponents(degree - 1, r)
    products = np.ones((count, len(low)), dtype=base.dtype)
    for axis in range(r):
        present = np.flatnonzero(low[:, axis])
        factor = table[low[present, axis], :, axis].T
        products[:, present] = reduce(products[:, present] * factor)
    position = {row.tobytes(): index for index, row in enumerate(low)}
    high = exponents(degree, r)
    for axis in range(r):
        columns = np.flatnonzero(high[:, axis]).astype(np.int64)
        lowered = high[columns]
        heights = lowered[:, axis].copy()
        lowered[:, axis] -= 1
        target = [position[row.tobytes()] for row in lowered]
        yield axis, columns, reduce(products[:, target] * heights)


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let flint use the cores that this process may use; its answers do not depend on that."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    before = flint.ctx.threads
    flint.ctx.threads = max(before, min(cores or 1, _THREADS))
    try:
        yield
    finally:
        flint.ctx.threads = before


def _seconds(rows: int, columns: int) -> float:
    return rows * columns * (_FILL + _ELIMINATE * min(rows, columns))


def _exact_seconds(points: IntArray, degree: int) -> float:
    columns = symmetric_dimension(degree, points.shape[1])
    bits = (degree - 1) * int(np.abs(points).max()).bit_length()
    return _EXACT_FILL * points.size * columns + _EXACT_ELIMINATE * float(columns) ** 4 * bits


def _random_primes(seed: int) -> list[int]:
    """Two different primes of 31 bits."""
    if seed < 0:
        raise InvalidInputError("seed", "a non-negative integer", seed)
    rng = np.random.default_rng(seed)
    found: list[int] = []
    while len(found) < 2:
        number = int(rng.integers(2**30, 2**31))
        if number not in found and flint.fmpz(number).is_prime():
            found.append(number)
    return found


def _check_prime(prime: int, degree: int) -> None:
    if not (degree < prime < 2**31 and flint.fmpz(int(prime)).is_prime()):
        raise InvalidInputError(
            "prime", f"a prime number above {degree} and below 2^31", prime, "leave it out"
        )


def _checked_points(points: IntArray, degree: int) -> IntArray:
    if degree < 2:
        raise InvalidInputError("degree", "at least 2", degree)
    points = np.asarray(points)
    if points.ndim != 2 or points.size == 0:
        raise InvalidInputError("points", "an array of shape (points, dimension)", points.shape)
    if points.dtype.kind not in "iu" or not np.can_cast(points.dtype, np.int64):
        raise InvalidInputError(
            "points", "integers that fit in int64", points.dtype, "see round_points"
        )
    return points.astype(np.int64)
