"""Real eigenvectors of a sum of powers T = sum_i b_i x_i^(alpha), by batched Newton steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice, product

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError

_STARTS_PER_SAMPLE = 400
_STEPS = 40
_CHUNK = 2_000_000
"""Numbers in the Jacobians of one batch."""
_ISOLATED = 1e-6
"""Eigenvectors closer than this count as one; flatter ones are not isolated in float64."""


@dataclass(frozen=True, eq=False)
class EigenSystem:
    """Approximate eigenvectors of T and what one Newton step needs.

    `vectors` (k, r) unit, `values` (k,) T(v^alpha), `products` (k, n) x_i . v, `defects` (k, r)
    T(v^(alpha-1), .) - value v, `jacobians` (k, r + 1, r + 1) of the defects and of
    (1 - |v|^2)/2 in (v, value), which are symmetric.
    """

    vectors: FloatArray
    values: FloatArray
    products: FloatArray
    defects: FloatArray
    jacobians: FloatArray

    @property
    def residuals(self) -> FloatArray:
        """|defect| / |value|, shape (k,)."""
        size = np.maximum(np.abs(self.values), np.finfo(np.float64).tiny)
        ratio: FloatArray = np.linalg.norm(self.defects, axis=1) / size
        return ratio

    @property
    def gaps(self) -> FloatArray:
        """Smallest |eigenvalue| of (alpha-1) T(v^(alpha-2), ., .) - value, over |value|.

        It vanishes where two eigenvectors merge; v itself contributes alpha - 2.
        """
        size = np.maximum(np.abs(self.values), np.finfo(np.float64).tiny)
        spectrum = np.linalg.eigvalsh(self.jacobians[:, :-1, :-1])
        smallest: FloatArray = np.min(np.abs(spectrum), axis=1) / size
        return smallest

    def subset(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> EigenSystem:
        """The system of some of the vectors."""
        return EigenSystem(
            self.vectors[chosen],
            self.values[chosen],
            self.products[chosen],
            self.defects[chosen],
            self.jacobians[chosen],
        )


def real_eigenvectors(
    samples: npt.ArrayLike,
    coefficients: npt.ArrayLike,
    degree: int,
    *,
    starts: int | None = None,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Find the real eigenvectors v of T = sum_i b_i x_i^(alpha): T(v^(alpha-1), .) = value v.

    Newton steps on the unit sphere start at random directions and at combinations of the samples
    that are eigenvectors if the samples are orthogonal. Vectors outside the span of the
    samples (value 0) and eigenvectors that are not isolated are left out. The search is random:
    nothing proves that the list is complete.

    Args:
        samples: x_i, shape (n, d), not all zero.
        coefficients: b_i, shape (n,), none of them zero.
        degree: alpha >= 3.
        starts: number of random starts; at most half as many others; 400 n unless given.
        seed: of the starts.

    Returns:
        Unit vectors (k, d), distinct up to sign, and their values (k,), |value| descending; for
        odd degree the signs make the values positive.

    Raises:
        InvalidInputError: shapes, zero coefficients, degree below 3.

    Cost: about 20 linear solves of size r + 1 a start, r the rank of the samples.

    Source: Newton corrections for symmetric tensors, Jaffe, Weiss & Nadler (2018), "Newton
    correction methods for computing real eigenpairs of symmetric tensors"; at most
    ((alpha-1)^r - 1)/(alpha-2) directions by Cartwright & Sturmfels (2013), Theorem 1.2.

    Example:
        >>> vectors, values = real_eigenvectors(np.eye(3), np.ones(3), 3)
        >>> vectors.shape
        (7, 3)
        >>> bool(np.allclose(values[3:], [0.5**0.5] * 3 + [3**-0.5]))
        True
    """
    x = real_array("samples", samples)
    if x.ndim != 2 or x.size == 0 or not np.any(x):
        raise InvalidInputError("samples", "shape (n, d) with a row that is not zero", x.shape)
    b = real_array("coefficients", coefficients)
    if b.shape != (len(x),) or not np.all(b):
        raise InvalidInputError("coefficients", f"{len(x)} numbers, none of them 0", b.shape)
    if degree < 3:
        raise InvalidInputError("degree", "at least 3", degree)
    # Unit samples and coefficients near 1: the powers stay in the range of float64.
    norms = np.linalg.norm(x, axis=1)
    top = float(norms.max())
    _, sigma, right = np.linalg.svd(x / top, full_matrices=False)
    basis = right[sigma > 1e-12 * sigma[0]]
    scale = float(np.max(np.abs(b) * (norms / top) ** degree))
    found = search((x / top) @ basis.T, b / scale, degree, starts=starts, seed=seed)
    return found.vectors @ basis, found.values * scale * top**degree


def search(
    samples: FloatArray,
    coefficients: FloatArray,
    degree: int,
    *,
    starts: int | None = None,
    seed: int = 0,
) -> EigenSystem:
    """`real_eigenvectors` for samples (n, r) that span R^r, of norm about 1."""
    count, dimension = samples.shape
    rng = np.random.default_rng(seed)
    number = _STARTS_PER_SAMPLE * count if starts is None else starts
    first = np.vstack(
        [
            _combinations(samples, coefficients, degree, number // 2),
            rng.standard_normal((number, dimension)),
        ]
    )
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    size = max(1, _CHUNK // (dimension + 1) ** 2)
    ends = np.vstack(
        [
            _newton(samples, coefficients, degree, first[start : start + size])
            for start in range(0, len(first), size)
        ]
    )
    system = refine(samples, coefficients, degree, ends[distinct(ends)])
    clean = (system.residuals < 1e-10) & (system.gaps > _ISOLATED)
    system = system.subset(clean)
    order = np.lexsort((system.vectors[:, 0], -np.round(np.abs(system.values), 9)))
    system = system.subset(order)
    return _oriented(samples, coefficients, degree, system)


def refine(
    samples: FloatArray,
    coefficients: FloatArray,
    degree: int,
    vectors: FloatArray,
    *,
    tolerance: float = 1e-15,
    steps: int = 8,
) -> EigenSystem:
    """Newton steps from `vectors` until the residuals are below `tolerance` or stop falling."""
    system = eigen_system(samples, coefficients, degree, vectors)
    worst = np.inf
    for _ in range(steps):
        residual = float(np.max(system.residuals, initial=0.0))
        if residual < tolerance or (worst < 1e-10 and residual > 0.5 * worst):
            break
        worst = residual
        move = _solve(system.jacobians, _bordered(-system.defects))[:, :-1, 0]
        # Far from a solution the step may be anything; the caller sees a large residual.
        move /= np.maximum(1.0, np.linalg.norm(move, axis=1, keepdims=True))
        moved = system.vectors + move
        moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-300)
        system = eigen_system(samples, coefficients, degree, moved)
    return system


def eigen_system(
    samples: FloatArray, coefficients: FloatArray, degree: int, vectors: FloatArray
) -> EigenSystem:
    """Values, defects and Jacobians at unit vectors (k, r)."""
    dimension = samples.shape[1]
    products = vectors @ samples.T
    low = coefficients * products ** (degree - 2)
    slopes = (low * products) @ samples
    values = np.sum(slopes * vectors, axis=1)
    jacobians = np.zeros((len(vectors), dimension + 1, dimension + 1))
    jacobians[:, :-1, :-1] = np.matmul((degree - 1) * low[:, None, :] * samples.T, samples)
    diagonal = np.arange(dimension)
    jacobians[:, diagonal, diagonal] -= values[:, None]
    jacobians[:, :-1, -1] = -vectors
    jacobians[:, -1, :-1] = -vectors
    defects = slopes - values[:, None] * vectors
    return EigenSystem(vectors, values, products, defects, jacobians)


def sensitivity(samples: FloatArray, degree: int, system: EigenSystem) -> FloatArray:
    """dv/db_i of every eigenvector, shape (k, r, n)."""
    sides = -(system.products ** (degree - 1))[:, None, :] * samples.T
    columns = np.concatenate([sides, np.zeros((len(sides), 1, len(samples)))], axis=1)
    return _solve(system.jacobians, columns)[:, :-1]


def _newton(
    samples: FloatArray, coefficients: FloatArray, degree: int, vectors: FloatArray
) -> FloatArray:
    """Ends of those Newton runs that converged."""
    ends = [np.zeros((0, samples.shape[1]))]
    for _ in range(_STEPS):
        system = eigen_system(samples, coefficients, degree, vectors)
        done = system.residuals < 1e-9
        ends.append(system.vectors[done])
        system = system.subset(~done)
        if not len(system.values):
            break
        move = _solve(system.jacobians, _bordered(-system.defects))[:, :-1, 0]
        move /= np.maximum(1.0, 2.0 * np.linalg.norm(move, axis=1, keepdims=True))
        vectors = system.vectors + move
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.vstack(ends)


def _combinations(
    samples: FloatArray, coefficients: FloatArray, degree: int, limit: int
) -> FloatArray:
    """Directions with x_i . v = +- b_i^(-1/(alpha-2)) on a support and 0 elsewhere.

    They are the eigenvectors for orthogonal samples; small supports come first. Signs are free
    for even degree and those of b_i for odd degree.
    """
    count = len(samples)
    heights = np.sign(coefficients) * np.abs(coefficients) ** (-1.0 / (degree - 2))
    single = np.linalg.pinv(samples).T * heights[:, None]
    free = (1.0, -1.0) if degree % 2 == 0 else (1.0,)
    patterns = (
        (support, (1.0, *signs))
        for size in range(1, count + 1)
        for support in combinations(range(count), size)
        for signs in product(free, repeat=size - 1)
    )
    rows = np.array(
        [np.array(signs) @ single[list(support)] for support, signs in islice(patterns, limit)]
    ).reshape(-1, samples.shape[1])
    kept: FloatArray = rows[np.linalg.norm(rows, axis=1) > 1e-12]
    return kept


def distinct(vectors: FloatArray) -> npt.NDArray[np.intp]:
    """Indices of unit vectors that differ by more than the tolerance, up to sign."""
    if not len(vectors):
        return np.zeros(0, dtype=np.intp)
    largest = np.argmax(np.abs(vectors), axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    # Rounding first leaves a few copies of each; the exact comparison then runs on those.
    _, first = np.unique(np.round(vectors * signs[:, None], 7), axis=0, return_index=True)
    kept: list[int] = []
    for index in np.sort(first):
        gap = 1.0 - np.abs(vectors[kept] @ vectors[index])
        if not kept or np.min(gap) > 0.5 * _ISOLATED**2:
            kept.append(int(index))
    return np.array(kept, dtype=np.intp)


def _oriented(
    samples: FloatArray, coefficients: FloatArray, degree: int, system: EigenSystem
) -> EigenSystem:
    """Positive values for odd degree, a positive largest entry for even degree."""
    if not len(system.values):
        return system
    largest = np.argmax(np.abs(system.vectors), axis=1)
    entries = system.vectors[np.arange(len(largest)), largest]
    signs = np.sign(system.values if degree % 2 else entries)
    return eigen_system(samples, coefficients, degree, system.vectors * signs[:, None])


def _bordered(rows: FloatArray) -> FloatArray:
    """Right-hand sides (k, r + 1, 1): the last equation is |v| = 1."""
    return np.concatenate([rows, np.zeros((len(rows), 1))], axis=1)[:, :, None]


def _solve(matrices: FloatArray, sides: FloatArray) -> FloatArray:
    """Batched solve; where a matrix is singular all are shifted slightly."""
    try:
        solution = np.linalg.solve(matrices, sides)
    except np.linalg.LinAlgError:
        size = matrices.shape[-1]
        shift = 1e-10 * np.max(np.abs(matrices), axis=(1, 2), keepdims=True)
        solution = np.linalg.solve(matrices + shift * np.diag(np.arange(1.0, size + 1)), sides)
    result: FloatArray = np.asarray(solution, dtype=np.float64)
    return result
