"""Exact ranks of the matrices that integer samples and points give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from identify.tensors import exponents

IntegerArray = npt.NDArray[np.int64]
PRIMES = (2**31 - 1, 2147483629)


def powers(points: npt.ArrayLike, order: int) -> npt.NDArray[Any]:
    """Monomials u^k of integer points (m, r) without multinomials, Python integers (m, N).

    Example:
        >>> powers([[2, 3]], 2)
        array([[4, 6, 9]], dtype=object)
    """
    rows = np.asarray(points, dtype=object)
    table = exponents(order, rows.shape[1])
    values = [_monomial(row, exponent) for row in rows.tolist() for exponent in table.tolist()]
    return np.array(values, dtype=object).reshape(len(rows), len(table))


def _monomial(row: list[int], exponent: list[int]) -> int:
    result = 1
    for value, power in zip(row, exponent, strict=True):
        result *= int(value) ** power
    return result


def rational_rank(matrix: npt.NDArray[Any]) -> int:
    """Rank over Q of a matrix of integers.

    Example:
        >>> rational_rank(np.array([[1, 2], [2, 4]]))
        1
    """
    from flint import fmpz_mat

    if matrix.size == 0:
        return 0
    return int(fmpz_mat([[int(value) for value in row] for row in matrix.tolist()]).rank())


def modular_rank(matrix: IntegerArray, prime: int) -> int:
    """Rank modulo a prime of residues (rows, columns), at most the rank over Q.

    Example:
        >>> modular_rank(np.array([[1, 2], [2, 4]]), 7)
        1
    """
    from flint import nmod_mat

    if matrix.size == 0:
        return 0
    rows, columns = matrix.shape
    return int(nmod_mat(rows, columns, matrix.ravel().tolist(), prime).rank())


def hermite_residues(points: IntegerArray, degree: int, prime: int) -> IntegerArray:
    """The matrix of T to T(u_j^(degree-1), .) up to factors of columns, modulo a prime < 2^31.

    Row (j, a) holds k_a u_j^(k - e_a) for every exponent k: the partial derivatives of the
    monomials. The factors, multinomials over alpha, vanish modulo no prime above the degree.

    Example:
        >>> hermite_residues(np.array([[2, 3]]), 2, 7)
        array([[4, 3, 0],
               [0, 2, 6]])
    """
    residues = np.asarray(points, dtype=np.int64) % prime
    count, dimension = residues.shape
    table = exponents(degree, dimension)
    ladder = np.ones((degree + 1, count, dimension), dtype=np.int64)
    for power in range(1, degree + 1):
        ladder[power] = ladder[power - 1] * residues % prime
    matrix = np.zeros((count, dimension, len(table)), dtype=np.int64)
    for axis in range(dimension):
        row = np.broadcast_to(table[:, axis], (count, len(table))).copy()
        for other in range(dimension):
            lowered = np.maximum(table[:, other] - (other == axis), 0)
            row = row * ladder[lowered, :, other].T % prime
        matrix[:, axis] = row
    return matrix.reshape(count * dimension, len(table))


def hermite_rank(points: IntegerArray, degree: int, prime: int = PRIMES[0]) -> int:
    """Rank of the Hermite matrix of integer points modulo a prime.

    Example:
        >>> hermite_rank(np.eye(2, dtype=np.int64), 3)
        4
    """
    return modular_rank(hermite_residues(points, degree, prime), prime)
