"""When the span of a gradient contains the samples."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.hermite.reduction import reduce_data
from proofs_check import strategies
from proofs_check.arithmetic import integers
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.sources import no_threshold

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, eq=False)
class IntegerBatch:
    """Integer points (m, d) and samples (n, d) with coefficients (n,)."""

    points: Any
    samples: Any
    coefficients: Any
    degree: int
    seed: int

    def __repr__(self) -> str:
        count, dimension = self.samples.shape
        return (
            f"IntegerBatch(m={len(self.points)}, n={count}, d={dimension}, "
            f"degree={self.degree}, seed={self.seed})"
        )


def power_matrix(batch: IntegerBatch) -> Any:
    """M = [(u_j . x_i)^(alpha-1)], shape (m, n)."""
    return (batch.points @ batch.samples.T) ** (batch.degree - 1)


def _batches(*, dependent: bool = False) -> SearchStrategy[IntegerBatch]:
    from hypothesis import strategies as st

    def build(count: int, spare: int, width: int, degree: int, seed: int) -> IntegerBatch:
        dimension = max(1, count - 1 - spare % 2) if dependent else count + spare
        rng = np.random.default_rng([seed, count, dimension, width, 21])
        shapes = ((width, dimension), (count, dimension))
        # Small entries make M deficient now and then though there are enough neurons.
        reach = 1 + seed % 3
        points, samples = (
            rng.integers(-reach, reach + 1, size=shape).astype(object) for shape in shapes
        )
        coefficients = rng.choice([-2, -1, 1, 2, 3], size=count).astype(object)
        return IntegerBatch(points, samples, coefficients, degree, seed)

    return st.builds(
        build,
        st.integers(2 if dependent else 1, 4),
        st.integers(0, 2),
        st.integers(1, 6),
        st.sampled_from((3, 4, 5)),
        st.integers(0, strategies.SEEDS),
    )


def _independent_batch(batch: IntegerBatch) -> bool:
    return integers.rational_rank(batch.samples) == len(batch.samples)


def rows_of(batch: IntegerBatch) -> Any:
    """The rows sum_i b_i (u_j.x_i)^(alpha-1) x_i, shape (m, d), exact."""
    inner = (batch.points @ batch.samples.T) ** (batch.degree - 1)
    return (inner * batch.coefficients) @ batch.samples


def _span_contains(batch: IntegerBatch) -> bool:
    """Whether the samples lie in the span of the rows sum_i b_i (u_j.x_i)^(alpha-1) x_i."""
    rows = rows_of(batch)
    both = np.vstack([rows, batch.samples])
    return integers.rational_rank(both) == integers.rational_rank(rows)


def _reduced_dimension(batch: IntegerBatch) -> int | None:
    """dim V as it is found in float64; None without a gradient, or if the rank is not clear."""
    points, samples = (np.asarray(part, dtype=np.float64) for part in (batch.points, batch.samples))
    network = TwoLayerNetwork(points, np.ones(len(points)), batch.degree)
    slope = network.gradient(samples, np.asarray(batch.coefficients, dtype=np.float64))
    if not np.any(slope.hidden_weight):
        return None
    found = reduce_data(HermiteData.from_gradient(network, slope), 1e-13)
    return found.dimension if found.span.clear else None


def _contains_iff_rank(batch: IntegerBatch) -> Check:
    full = integers.rational_rank(power_matrix(batch)) == len(batch.samples)
    found = _reduced_dimension(batch)
    exact = integers.rational_rank(rows_of(batch))
    if found is not None and found != exact:
        return Check.of(False, f"dim V is {found} in float64, {exact} over the rational numbers")
    return Check.of(full == _span_contains(batch), f"rank of M full: {full}")


def _contains_if_wide(batch: IntegerBatch) -> Check:
    """The claim that m >= n neurons are enough."""
    wide = len(batch.points) >= len(batch.samples)
    return Check.of(wide == _span_contains(batch))


def _equal_columns() -> AbstractContextManager[object]:
    """M with its last column in the place of the first."""
    import proofs_check.statements.interpolation.gradient_span as module

    original = power_matrix

    def broken(batch: IntegerBatch) -> Any:
        matrix = original(batch).copy()
        matrix[:, 0] = matrix[:, -1]
        return matrix

    return patch.object(module, "power_matrix", broken)


SPAN = Statement(
    name="gradient-span",
    title="When the span of a gradient contains the samples",
    sentence=(
        "For linearly independent samples the span V of the rows of a gradient contains all "
        "samples if and only if M = [(u_j . x_i)^(alpha-1)] has rank n, so never for n > m."
    ),
    formula=r"x_1,\dots,x_n \in V = \operatorname{row}(M \operatorname{diag}(b) X) \iff "
    r"\operatorname{rank} M = n",
    source="rank of a product; ours",
    hypotheses=(
        Hypothesis(
            "independent",
            "the samples are linearly independent (needed from left to right alone)",
            _independent_batch,
            lambda: _batches(dependent=True),
        ),
    ),
    instances=_batches,
    conclusion=_contains_iff_rank,
    sabotages=(
        Sabotage("width", "m >= n in place of the rank", conclusion=_contains_if_wide),
        Sabotage("columns", "two equal columns in M", construction=_equal_columns),
        Sabotage("threshold", "every singular value counted", implementation=no_threshold),
    ),
    cost="light",
    code=("identify.hermite.reduction.reduce_data",),
    remark="Dependent samples can lie in V though M has rank below n: five samples in a plane.",
)

STATEMENTS = (SPAN,)
