"""Symmetric tensors: monomial coordinates, dense Hermite matrix, contractions.

Coordinates are those of the Bombieri-Weyl inner product: the tensor with coordinates t is the
polynomial p(w) = sum_k t_k sqrt(alpha! / k!) w^k, and |t| is its Bombieri-Weyl norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb, factorial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.special

from identify.arrays import FloatArray

_LARGEST_FACTORIAL = 170


class MomentTensor(Protocol):
    """A symmetric tensor of order alpha on R^r that can be contracted."""

    def contract(self, direction: FloatArray) -> FloatArray:
        """T(v^(alpha-2), ., .), shape (r, r)."""
        ...


def symmetric_dimension(order: int, dimension: int) -> int:
    """N_k(r) = C(r + k - 1, k), the dimension of Sym^k(R^r).

    Example:
        >>> symmetric_dimension(3, 8)
        120
    """
    return comb(dimension + order - 1, order)


@lru_cache(maxsize=64)
def exponents(order: int, dimension: int) -> npt.NDArray[np.int64]:
    """Exponents of all monomials, shape (N_order(dimension), dimension), in a fixed order."""
    index = np.array(
        list(combinations_with_replacement(range(dimension), order)), dtype=np.int64
    ).reshape(-1, order)
    table = np.zeros((index.shape[0], dimension), dtype=np.int64)
    for column in range(order):
        np.add.at(table, (np.arange(index.shape[0]), index[:, column]), 1)
    table.setflags(write=False)
    return table


def monomials(points: FloatArray, order: int) -> FloatArray:
    """Bombieri-Weyl coordinates of u_j^(order), shape (m, N_order(r)).

    The inner product of two rows is (u_j . u_k)^order.

    Example:
        >>> import numpy as np
        >>> u = np.array([[0.6, 0.8], [1.0, 0.0]])
        >>> rows = monomials(u, 3)
        >>> bool(np.allclose(rows @ rows.T, (u @ u.T) ** 3))
        True
    """
    return _powers(points, order) * _roots(order, points.shape[1])


def _powers(points: FloatArray, order: int) -> FloatArray:
    """Plain monomials u^k, shape (m, N)."""
    count, dimension = points.shape
    table = np.ones((order + 1, count, dimension))
    for power in range(1, order + 1):
        table[power] = table[power - 1] * points
    product: FloatArray = np.ones((count, symmetric_dimension(order, dimension)))
    for axis, powers in enumerate(exponents(order, dimension).T):
        product *= table[powers, :, axis].T
    return product


@lru_cache(maxsize=64)
def _roots(order: int, dimension: int) -> FloatArray:
    """Square roots of the multinomial coefficients order! / prod(k_a!), shape (N,)."""
    table: FloatArray
    if order > _LARGEST_FACTORIAL:
        logs = scipy.special.gammaln(np.arange(order + 1) + 1.0)
        table = np.exp(0.5 * (logs[order] - np.sum(logs[exponents(order, dimension)], axis=1)))
    else:
        factorials = np.array([factorial(k) for k in range(order + 1)], dtype=np.float64)
        bottom = np.prod(factorials[exponents(order, dimension)], axis=1)
        table = np.sqrt(factorials[order] / bottom)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=16)
def _lowering(order: int, dimension: int) -> tuple[npt.NDArray[np.int64], ...]:
    """For each axis: the monomials with that axis, and where one degree less of it stands."""
    high, low = exponents(order, dimension), exponents(order - 1, dimension)
    position = {tuple(row): index for index, row in enumerate(low.tolist())}
    pairs = []
    for axis in range(dimension):
        columns = np.flatnonzero(high[:, axis])
        lowered = high[columns].copy()
        lowered[:, axis] -= 1
        target = [position[tuple(row)] for row in lowered.tolist()]
        pairs.append(np.array([columns, target], dtype=np.int64))
    return tuple(pairs)


def hermite_matrix(points: FloatArray, degree: int) -> FloatArray:
    """H, shape (m r, N): Bombieri-Weyl coordinates of T to T(u_j^(degree-1), .), row by row.

    Cost: m r N numbers.

    Example:
        >>> import numpy as np
        >>> hermite_matrix(np.eye(2), 3).shape
        (4, 4)
    """
    count, dimension = points.shape
    root = _roots(degree, dimension)
    low = _powers(points, degree - 1)
    matrix = np.zeros((count, dimension, root.size))
    powers = exponents(degree, dimension)
    for axis, (columns, target) in enumerate(_lowering(degree, dimension)):
        matrix[:, axis, columns] = low[:, target] * (powers[columns, axis] * root[columns] / degree)
    return matrix.reshape(count * dimension, root.size)


@dataclass(frozen=True, eq=False)
class CoordinateTensor:
    """A symmetric tensor by its Bombieri-Weyl coordinates, shape (N,)."""

    coordinates: FloatArray
    degree: int
    dimension: int

    def contract(self, direction: FloatArray) -> FloatArray:
        """T(v^(alpha-2), ., .), shape (r, r), by second derivatives of the polynomial."""
        order, dimension = self.degree, self.dimension
        polynomial = self.coordinates * _roots(order, dimension)
        high, middle = exponents(order, dimension), exponents(order - 1, dimension)
        low = _powers(direction[None, :], order - 2)[0]
        result = np.zeros((dimension, dimension))
        size = symmetric_dimension(order - 1, dimension)
        for first, (columns, target) in enumerate(_lowering(order, dimension)):
            slope = np.zeros(size)
            slope[target] = polynomial[columns] * high[columns, first]
            for second, (inner, place) in enumerate(_lowering(order - 1, dimension)):
                result[first, second] = (slope[inner] * middle[inner, second]) @ low[place]
        return result / (order * (order - 1))


@dataclass(frozen=True, eq=False)
class KernelTensor:
    """T = sum_j sym(u_j^(alpha-1) (x) z_j) + sum_l c_l v_l^(alpha): the minimum-norm form."""

    degree: int
    points: FloatArray
    coefficients: FloatArray
    value_points: FloatArray
    value_coefficients: FloatArray

    def contract(self, direction: FloatArray) -> FloatArray:
        """T(v^(alpha-2), ., .), shape (r, r).

        (1/alpha) sum_j s^(alpha-3) [(alpha-2) t u u^T + s (u z^T + z u^T)], s = u_j.v, t = z_j.v.
        """
        u, z, alpha = self.points, self.coefficients, self.degree
        s, t = u @ direction, z @ direction
        mixed = (u * (s ** (alpha - 2))[:, None]).T @ z
        square = (u * ((alpha - 2) * s ** (alpha - 3) * t)[:, None]).T @ u
        along = self.value_coefficients * (self.value_points @ direction) ** (alpha - 2)
        values = (self.value_points * along[:, None]).T @ self.value_points
        return (mixed + mixed.T + square) / alpha + values

    def evaluate(self, vectors: FloatArray) -> FloatArray:
        """T(v^alpha) for each row v, shape (k,)."""
        cosines = vectors @ self.points.T
        result: FloatArray = np.sum(
            cosines ** (self.degree - 1) * (vectors @ self.coefficients.T), axis=1
        )
        return result + (vectors @ self.value_points.T) ** self.degree @ self.value_coefficients
