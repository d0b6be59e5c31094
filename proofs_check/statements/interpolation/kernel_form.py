"""The kernel form of the Hermite equations agrees with the dense one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.interpolation.gram import GramOperator
from identify.tensors import (
    CoordinateTensor,
    KernelTensor,
    exponents,
    hermite_matrix,
    monomials,
    symmetric_dimension,
)
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KINDS = ("generic", "integer", "close", "digits")


@dataclass(frozen=True, eq=False)
class KernelProblem:
    """Points (m, r) and points of values (l, r) with weights, a vector (m r + l,), a direction."""

    kind: str
    degree: int
    points: FloatArray
    weights: FloatArray
    value_points: FloatArray
    value_weights: FloatArray
    vector: FloatArray
    direction: FloatArray
    seed: int

    def __repr__(self) -> str:
        count, dimension = self.points.shape
        return (
            f"KernelProblem({self.kind}, m={count}, l={len(self.value_points)}, r={dimension}, "
            f"degree={self.degree}, seed={self.seed})"
        )

    def operator(self) -> GramOperator:
        """K with the weights."""
        return GramOperator(
            self.degree, self.points, self.weights, self.value_points, self.value_weights
        )

    def dense(self, *, moduli: bool = False) -> FloatArray:
        """Weighted H with the rows of values, or the moduli of its entries."""
        points, values = self.points, self.value_points
        if moduli:
            points, values = np.abs(points), np.abs(values)
        rows = hermite_matrix(points, self.degree)
        rows = rows * np.repeat(self.weights, points.shape[1])[:, None]
        extra = monomials(values, self.degree) * self.value_weights[:, None]
        return np.vstack([rows, extra])

    def rounding(self) -> float:
        """Roundings of a sum over all rows and monomials, relative to the sum of moduli."""
        terms = symmetric_dimension(self.degree, self.points.shape[1]) + self.vector.size
        return 4.0 * (terms + 4 * self.degree) * UNIT


def _draw_points(kind: str, count: int, dimension: int, rng: np.random.Generator) -> FloatArray:
    normal = rng.standard_normal((count, dimension))
    if kind == "integer":
        return rng.integers(-1, 2, size=(count, dimension)).astype(np.float64)
    if kind == "close":
        return np.asarray(normal[:1] + 1e-4 * normal)
    if kind == "digits":
        images = strategies.digits()
        chosen = images[rng.choice(len(images), count)]
        return np.asarray(chosen @ rng.standard_normal((images.shape[1], dimension)))
    return normal


def _problems() -> SearchStrategy[KernelProblem]:
    from hypothesis import strategies as st

    def build(
        kind: str, degree: int, dimension: int, count: int, extra: int, seed: int
    ) -> KernelProblem:
        rng = np.random.default_rng([seed, degree, dimension, count, extra, 30])
        return KernelProblem(
            kind,
            degree,
            _draw_points(kind, count, dimension, rng),
            rng.uniform(0.1, 1.0, size=count),
            _draw_points(kind, extra, dimension, rng),
            rng.uniform(0.1, 1.0, size=extra),
            rng.standard_normal(count * dimension + extra),
            _draw_points(kind, 1, dimension, rng)[0],
            seed,
        )

    return st.builds(
        build,
        st.sampled_from(strategies.present(KINDS)),
        st.sampled_from((3, 4, 5)),
        st.integers(1, 4),
        st.integers(1, 12),
        st.integers(0, 3),
        st.integers(0, strategies.SEEDS),
    )


# --- products with K -------------------------------------------------------------------------


def _gram_gap(problem: KernelProblem, factor: float) -> Check:
    matrix, moduli = problem.dense(), problem.dense(moduli=True)
    dense = matrix @ (matrix.T @ problem.vector)
    sizes = moduli @ (moduli.T @ np.abs(problem.vector))
    kernel = factor * problem.operator().apply(problem.vector)
    largest = float(sizes.max()) or 1.0
    return Check.compare(float(np.abs(dense - kernel).max()) / largest, problem.rounding())


def _same_product(problem: KernelProblem) -> Check:
    return _gram_gap(problem, 1.0)


def _other_factor(problem: KernelProblem) -> Check:
    return _gram_gap(problem, problem.degree / (problem.degree - 1.0))


def _one_term() -> AbstractContextManager[object]:
    """K without the term of C^(alpha-2)."""
    original = GramOperator.apply

    def broken(self: GramOperator, vector: FloatArray) -> FloatArray:
        kept = self._low
        self._low = np.zeros_like(kept)
        found = original(self, vector)
        self._low = kept
        return found

    return patch.object(GramOperator, "apply", broken)


def _gram_algebra() -> bool:
    import sympy

    u, v = sympy.symbols("u1:3"), sympy.symbols("v1:3")
    inner = u[0] * v[0] + u[1] * v[1]
    for degree in (3, 4, 5, 6):
        for a, b in product((0, 1), repeat=2):
            total = 0
            for row in exponents(degree, 2).tolist():
                if row[a] == 0 or row[b] == 0:
                    continue
                left, right = list(row), list(row)
                left[a] -= 1
                right[b] -= 1
                binomial = sympy.Rational(sympy.binomial(degree, row[0]), degree**2)
                total += (
                    binomial * row[a] * row[b]
                    * u[0] ** left[0] * u[1] ** left[1] * v[0] ** right[0] * v[1] ** right[1]
                )  # fmt: skip
            expected = (degree - 1) * inner ** (degree - 2) * v[a] * u[b]
            expected += inner ** (degree - 1) * int(a == b)
            if sympy.expand(degree * total - expected) != 0:
                return False
    return True


GRAM = Statement(
    name="kernel-form",
    title="Kernel form of the Gram matrix",
    sentence=(
        "For any points, H H^T in Bombieri-Weyl coordinates is applied to Z (m, r) by the m x m "
        "matrix C of inner products alone, powers taken entry by entry."
    ),
    formula=r"H H^T Z = \tfrac1\alpha\big[C^{\alpha-1} Z + (\alpha-1)\,"
    r"(C^{\alpha-2} \circ (U Z^T))\,U\big],\quad C = U U^T",
    source="reproducing property of the Bombieri-Weyl product; ours",
    hypotheses=(),
    instances=_problems,
    conclusion=_same_product,
    sabotages=(
        Sabotage("factor", "1/(alpha - 1) in place of 1/alpha", conclusion=_other_factor),
        Sabotage("one term", "the second term missing", implementation=_one_term),
    ),
    cost="light",
    algebra=_gram_algebra,
    algebra_note="blocks of two symbolic points in the plane, degrees 3 to 6",
    code=("identify.interpolation.gram.GramOperator", "identify.tensors.hermite_matrix"),
    remark="Rows of values p(v_l), and weights of rows, are included in the random instances.",
)

# --- contractions ----------------------------------------------------------------------------


def _contraction_gap(problem: KernelProblem, factor: float) -> Check:
    kernel = problem.operator().tensor(problem.vector)
    degree, dimension = problem.degree, problem.points.shape[1]
    dense = CoordinateTensor(problem.dense().T @ problem.vector, degree, dimension)
    upper = CoordinateTensor(
        problem.dense(moduli=True).T @ np.abs(problem.vector), degree, dimension
    )
    left = factor * kernel.contract(problem.direction)
    right = dense.contract(problem.direction)
    largest = float(upper.contract(np.abs(problem.direction)).max()) or 1.0
    return Check.compare(float(np.abs(left - right).max()) / largest, problem.rounding())


def _same_contraction(problem: KernelProblem) -> Check:
    return _contraction_gap(problem, 1.0)


def _derivative(problem: KernelProblem) -> Check:
    """The claim that T(v^(alpha-2), ., .) is the Hessian of p."""
    return _contraction_gap(problem, problem.degree * (problem.degree - 1.0))


def _zero_to_zero() -> AbstractContextManager[object]:
    """(u.v)^0 = 0 where u.v = 0, at degree 3."""
    original = KernelTensor.contract

    def broken(self: KernelTensor, direction: FloatArray) -> FloatArray:
        found = original(self, direction)
        if self.degree != 3:
            return found
        silent = self.points @ direction == 0.0
        points, heights = self.points[silent], self.coefficients[silent] @ direction
        return np.asarray(found - (points * heights[:, None]).T @ points / 3.0)

    return patch.object(KernelTensor, "contract", broken)


def _contraction_algebra() -> bool:
    import sympy

    u, z, v = (sympy.symbols(f"{name}1:3") for name in "uzv")
    s, t = (sum(p * q for p, q in zip(w, v, strict=True)) for w in (u, z))
    for degree in (3, 4, 5, 6):
        form = s ** (degree - 1) * t
        for a, b in product((0, 1), repeat=2):
            second = form.diff(v[a]).diff(v[b]) / (degree * (degree - 1))
            expected = (degree - 2) * t * u[a] * u[b] + s * (u[a] * z[b] + z[a] * u[b])
            if sympy.expand(second - s ** (degree - 3) * expected / degree) != 0:
                return False
    return True


CONTRACTION = Statement(
    name="kernel-contraction",
    title="Contractions of the minimum-norm tensor",
    sentence=(
        "For T = sum_j sym(u_j^(alpha-1) z_j) the matrix T(v^(alpha-2), ., .) follows from the "
        "u_j and z_j, with (u.v)^0 = 1 also where u.v = 0."
    ),
    formula=r"T(v^{\alpha-2},\cdot,\cdot) = \tfrac1\alpha \sum_j (u_j\cdot v)^{\alpha-3}\big["
    r"(\alpha-2)(z_j\cdot v)\,u_j u_j^T + (u_j\cdot v)(u_j z_j^T + z_j u_j^T)\big]",
    source="second derivatives of (u.v)^(alpha-1) (z.v); ours",
    hypotheses=(),
    instances=_problems,
    conclusion=_same_contraction,
    sabotages=(
        Sabotage("Hessian", "without 1/(alpha (alpha-1))", conclusion=_derivative),
        Sabotage("0^0", "(u.v)^0 = 0 at u.v = 0", implementation=_zero_to_zero),
    ),
    cost="light",
    algebra=_contraction_algebra,
    algebra_note="one symbolic term in the plane, degrees 3 to 6",
    code=("identify.tensors.KernelTensor.contract", "identify.tensors.CoordinateTensor.contract"),
)

STATEMENTS = (GRAM, CONTRACTION)
