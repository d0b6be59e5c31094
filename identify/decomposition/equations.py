"""The Hermite equations as a function of the terms of T, and fast solves with their Jacobian."""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg

from identify.arrays import FloatArray
from identify.hermite.reduction import ReducedData


class HermiteEquations:
    """w_j (sum_i s_i (u_j.z_i)^(alpha-1) z_i - g_j) as a function of z, with its derivative.

    Residuals are stacked (m r + l,), unknowns are z flattened (n r,). A product with the Jacobian
    costs 6 m n r flops.
    """

    def __init__(self, data: ReducedData, signs: FloatArray) -> None:
        self.data = data
        self.signs = signs
        self.power = data.degree - 1
        self.size = data.size

    def residual(self, terms: FloatArray) -> FloatArray:
        """Weighted residual, stacked."""
        data = self.data
        s = data.points @ terms.T
        rows = (s**self.power * self.signs) @ terms - data.targets
        values = (data.value_points @ terms.T) ** data.degree @ self.signs - data.value_targets
        return np.concatenate([(rows * data.weights[:, None]).ravel(), values * data.value_weights])

    def relative(self, terms: FloatArray) -> float:
        """Norm of the residual over the norm of the weighted data."""
        return float(np.linalg.norm(self.residual(terms))) / self.size

    def jacobian(self, terms: FloatArray) -> FloatArray:
        """Dense Jacobian (m r + l, n r)."""
        data, power = self.data, self.power
        count, r = terms.shape
        s = data.points @ terms.T
        high = s**power * self.signs * data.weights[:, None]
        low = power * s ** (power - 1) * self.signs * data.weights[:, None]
        block = np.einsum("ji,ia,jb->jaib", low, terms, data.points, optimize=True)
        diagonal = np.arange(r)
        block[:, diagonal, :, diagonal] += high[None]
        values = data.degree * (data.value_points @ terms.T) ** power * self.signs
        values = np.einsum("li,lb->lib", values * data.value_weights[:, None], data.value_points)
        return np.vstack([block.reshape(-1, count * r), values.reshape(-1, count * r)])

    def operator(self, terms: FloatArray) -> scipy.sparse.linalg.LinearOperator:
        """The Jacobian as an operator."""
        data, power = self.data, self.power
        u, v = data.points, data.value_points
        s = u @ terms.T
        high = s**power * self.signs * data.weights[:, None]
        low = power * s ** (power - 1) * self.signs * data.weights[:, None]
        values = data.degree * (v @ terms.T) ** power * self.signs * data.value_weights[:, None]
        cut = u.size

        def forward(x: FloatArray) -> FloatArray:
            step = x.reshape(terms.shape)
            rows = high @ step + (low * (u @ step.T)) @ terms
            return np.concatenate([rows.ravel(), np.sum(values * (v @ step.T), axis=1)])

        def backward(y: FloatArray) -> FloatArray:
            y = y.ravel()
            rows = y[:cut].reshape(u.shape)
            step = high.T @ rows + (low * (rows @ terms.T)).T @ u
            step += (values * y[cut:, None]).T @ v
            return step.ravel()

        return scipy.sparse.linalg.LinearOperator(
            (cut + len(v), terms.size), matvec=forward, rmatvec=backward, dtype=np.float64
        )

    def normal_matrix(self, terms: FloatArray) -> FloatArray:
        """J^T J, shape (n r, n r), assembled from moments. Cost: n^2 m r^2 flops."""
        data, power = self.data, self.power
        u, v = data.points, data.value_points
        count, r = terms.shape
        s = u @ terms.T
        high = s**power * self.signs * data.weights[:, None]
        low = power * s ** (power - 1) * self.signs * data.weights[:, None]
        heads = high.T @ high
        inner = terms @ terms.T
        matrix = np.empty((count, r, count, r))
        identity = np.eye(r)
        for i in range(count):
            for k in range(i, count):
                pair = low[:, i] * low[:, k]
                cell = inner[i, k] * ((u * pair[:, None]).T @ u) + heads[i, k] * identity
                # <d/dz_i, d/dz_k>: mixed terms (u h_i l_k) z_k^T and z_i (u l_i h_k)^T
                cell += np.outer(terms[k], (high[:, i] * low[:, k]) @ u)
                cell += np.outer((low[:, i] * high[:, k]) @ u, terms[i])
                matrix[i, :, k, :] = cell
                if k != i:
                    matrix[k, :, i, :] = cell.T
        flat = matrix.reshape(count * r, count * r)
        if len(v):
            values = data.degree * (v @ terms.T) ** power * self.signs
            rows = np.einsum("li,lb->lib", values * data.value_weights[:, None], v)
            rows = rows.reshape(len(v), -1)
            flat += rows.T @ rows
        return flat


def column_scale(equations: HermiteEquations, terms: FloatArray) -> FloatArray:
    """Norms of the columns of J, averaged over each term, shape (n r,)."""
    return np.repeat(_column_norms(equations, terms), terms.shape[1])


def _column_norms(equations: HermiteEquations, terms: FloatArray) -> FloatArray:
    """Root mean square norm of the columns of J that belong to each term, shape (n,)."""
    data, power = equations.data, equations.power
    s = data.points @ terms.T
    high = s**power * data.weights[:, None]
    low = power * s ** (power - 1) * data.weights[:, None]
    r = terms.shape[1]
    squares = np.sum(terms**2, axis=1)
    total = r * np.sum(high**2, axis=0) + squares * np.sum(low**2, axis=0)
    total += 2.0 * np.sum(high * low * s, axis=0)
    return np.asarray(np.sqrt(np.maximum(total, 0.0) / r))


class TangentSolver:
    """(J^T J + damping) in column-scaled unknowns, solved by preconditioned conjugate gradients.

    For points in general position J^T J is close to the Gram matrix of the tangent vectors
    z_i^(alpha-1) (x) e_a in Sym^alpha,

        P D = (1/alpha) [C^(alpha-1) D + (alpha-1) (C^(alpha-2) o (Z D^T)) Z],     C = Z Z^T,

    whose products cost 6 n^2 r flops, m/n times fewer: P^-1, by a few inner iterations, is the
    preconditioner, which takes the correlation of the samples out of the system.
    """

    def __init__(self, equations: HermiteEquations, terms: FloatArray) -> None:
        self.shape = terms.shape
        self.jacobian = equations.operator(terms)
        norms = np.linalg.norm(terms, axis=1)
        self.scale = np.repeat(equations.signs * norms**equations.power, terms.shape[1])
        self._units = terms / norms[:, None]
        cosines = self._units @ self._units.T
        self._power = equations.power
        self._low = cosines ** (equations.power - 1)
        self._high = self._low * cosines
        self._size = (terms.size, terms.size)

    def _tangent_gram(self, x: FloatArray) -> FloatArray:
        step = x.reshape(self.shape)
        mixed = self._power * (self._low * (self._units @ step.T)) @ self._units
        return np.asarray((self._high @ step + mixed) / (self._power + 1.0)).ravel()

    def _precondition(self, x: FloatArray) -> FloatArray:
        operator = scipy.sparse.linalg.LinearOperator(
            self._size, matvec=self._tangent_gram, dtype=np.float64
        )
        found = scipy.sparse.linalg.cg(operator, x.ravel(), rtol=1e-3, maxiter=100)[0]
        return np.asarray(found, dtype=np.float64)

    def normal_operator(self, damping: float = 0.0) -> scipy.sparse.linalg.LinearOperator:
        """x -> S^-1 J^T J S^-1 x + damping x."""

        def product(x: FloatArray) -> FloatArray:
            inner = self.jacobian.matvec(x.ravel() / self.scale)
            return np.asarray(self.jacobian.rmatvec(inner) / self.scale + damping * x.ravel())

        return scipy.sparse.linalg.LinearOperator(self._size, matvec=product, dtype=np.float64)

    def step(self, residual: FloatArray, damping: float, tolerance: float = 1e-4) -> FloatArray:
        """-(J^T J + damping S^2)^-1 J^T residual, in the shape of the terms."""
        slope = -self.jacobian.rmatvec(residual) / self.scale
        mean = float(slope @ self.normal_operator()(slope)) / max(float(slope @ slope), 1e-300)
        found = scipy.sparse.linalg.cg(
            self.normal_operator(damping * mean),
            slope,
            rtol=tolerance,
            maxiter=120,
            M=scipy.sparse.linalg.LinearOperator(
                self._size, matvec=self._precondition, dtype=np.float64
            ),
        )[0]
        return np.asarray(found / self.scale).reshape(self.shape)

    def smallest_singular_value(self, seed: int = 0) -> float:
        """Smallest singular value of J S^-1, by preconditioned inverse iteration, from above.

        Returns 0 where the iteration does not settle to a tenth. Cost: a few solves.
        """
        vector = np.random.default_rng(seed).standard_normal(self._size[0])
        operator = self.normal_operator()
        precondition = scipy.sparse.linalg.LinearOperator(
            self._size, matvec=self._precondition, dtype=np.float64
        )
        value = np.inf
        for _ in range(12):
            vector /= np.linalg.norm(vector)
            vector = scipy.sparse.linalg.cg(
                operator, vector, rtol=1e-2, maxiter=120, M=precondition
            )[0]
            unit = vector / float(np.linalg.norm(vector))
            before, value = value, float(unit @ operator(unit))
            if value > 0.9 * before:
                return float(np.sqrt(max(value, 0.0)))
        return 0.0
