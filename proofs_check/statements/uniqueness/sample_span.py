"""No explanation by fewer than r samples: the rows of the data and the samples span one space."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify import numerical_rank
from identify.arrays import FloatArray
from identify.numerical_rank import RankDecision
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _batches(*, wide: bool = True) -> SearchStrategy[Explained]:
    """Gradients of any samples, dependent ones too; `wide` for at least n neurons."""
    from hypothesis import strategies as st

    def build(
        count: int, dimension: int, width: int, kind: str, degree: int, seed: int
    ) -> Explained:
        rng = np.random.default_rng([seed, count, dimension, width])
        rank = min(count, dimension)
        basis = strategies.draw_samples(kind, rank, dimension, seed)
        mixed = rng.standard_normal((count - rank, rank)) @ basis
        samples = np.vstack([basis, mixed])
        number = count + width if wide else 1 + width % count
        b = base.draw_coefficients(count, seed)
        return base.gradient_data(samples, b, degree, number, kind, seed)

    return st.builds(
        build,
        st.integers(1, 6),
        st.integers(1, 5),
        st.integers(0, 6),
        st.sampled_from(strategies.present(strategies.KINDS)),
        st.sampled_from((3, 4, 5)),
        st.integers(0, strategies.SEEDS),
    )


def _powers(instance: Explained) -> FloatArray:
    """M = [scale_j (u_j . x_i)^(alpha-1) b_i], shape (m, n), columns for unit samples."""
    data = instance.data
    lengths = np.linalg.norm(instance.samples, axis=1)
    inner = data.points @ instance.samples.T
    matrix = data.scales[:, None] * inner ** (data.degree - 1) * instance.coefficients * lengths
    return np.asarray(matrix)


def _sees_all(instance: Explained) -> bool:
    """Whether M has rank n and rank G is clear."""
    matrix = _powers(instance)
    sizes = np.linalg.norm(matrix, axis=0)
    if not np.all(sizes > 0.0):
        return False
    rank = base.clear_rank(np.linalg.svd(matrix / sizes, compute_uv=False))
    return bool(rank == matrix.shape[1]) and base.span_of(instance.data.rows) is not None


def _span(instance: Explained) -> Check:
    """r <= n, and what sticks out of V of the unit samples."""
    basis, _ = numerical_rank.row_space(instance.data.rows, 1e-9, instance.seed)
    count, matrix = len(instance.samples), _powers(instance)
    if basis.shape[1] > count:
        return Check.of(False, f"dim V = {basis.shape[1]}")
    units = base.unit_rows(instance.samples)
    outside = np.linalg.norm(units - (units @ basis) @ basis.T, axis=1)
    # X = M^+ G: what of G lies outside V, and its rounding, reaches sample i through row i of M^+.
    rows = instance.data.rows
    left = float(np.linalg.norm(rows - (rows @ basis) @ basis.T))
    sums = base.moduli(instance.data.network, instance.samples, instance.coefficients)[0]
    reach = np.linalg.norm(np.linalg.pinv(matrix, rcond=1e-12), axis=1)
    allowed = reach * (left + float(np.linalg.norm(sums))) + 16.0 * len(basis) * UNIT
    return Check.compare(float(np.max(outside / np.minimum(allowed, 0.1))), 1.0)


def _exactly(instance: Explained) -> Check:
    return Check.of(base.span_rank(instance) == len(instance.samples))


def _narrow_span() -> AbstractContextManager[object]:
    """V without its last direction."""
    original = numerical_rank.row_space

    def broken(rows: FloatArray, threshold: float, seed: int) -> tuple[FloatArray, RankDecision]:
        basis, decision = original(rows, threshold, seed)
        return basis[:, : max(1, basis.shape[1] - 1)], decision

    return patch.object(numerical_rank, "row_space", broken)


AT_LEAST = Statement(
    name="span-of-samples",
    title="Rows and samples span the same space",
    sentence=(
        "Every set that explains the data has at least r = dim V samples, V the span of the rows; "
        "V contains the samples if the matrix of the (u_j . x_i)^(alpha-1) has rank n."
    ),
    formula=r"G = M\,\mathrm{diag}(b)\,X,\quad r = \mathrm{rank}\,G \le n,\qquad "
    r"\mathrm{rank}\,M = n \implies x_i \in V",
    source="factorisation of the gradient of the first layer; ours",
    hypotheses=(
        Hypothesis(
            "rank-M",
            "M = [(u_j . x_i)^(alpha-1)] has rank n",
            _sees_all,
            lambda: _batches(wide=False),
        ),
    ),
    instances=_batches,
    conclusion=_span,
    sabotages=(
        Sabotage("equality", "dim V is the number of samples", conclusion=_exactly),
        Sabotage("span", "V without a direction", implementation=_narrow_span),
    ),
    cost="light",
    code=("identify.numerical_rank.row_space",),
    remark="Without the condition the batch is larger than the width, or neurons have collapsed.",
)

STATEMENTS = (AT_LEAST,)
