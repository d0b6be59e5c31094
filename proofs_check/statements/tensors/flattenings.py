"""How many samples data need: flattenings of the tensor, rank of the vectors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.hermite import reduction
from proofs_check import strategies
from proofs_check.arithmetic.integers import powers, rational_rank
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.sources import no_threshold, slope_rounding
from proofs_check.strategies import GradientProblem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# --- flattenings -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class IntegerProblem:
    """Integer samples (n, r) with coefficients (n,) and points (m, r): all ranks are exact."""

    samples: Any
    coefficients: Any
    points: Any
    degree: int
    seed: int

    def __repr__(self) -> str:
        count, dimension = self.samples.shape
        return f"IntegerProblem(n={count}, r={dimension}, degree={self.degree}, seed={self.seed})"

    def rows(self) -> Any:
        """g_j = sum_i b_i (u_j.x_i)^(alpha-1) x_i, shape (m, r)."""
        inner = (self.points @ self.samples.T) ** (self.degree - 1)
        return (inner * self.coefficients) @ self.samples


def flattening(problem: IntegerProblem, order: int) -> Any:
    """sum_i b_i x_i^(k) (x) x_i^(alpha-k) on monomials, k = `order`."""
    left = powers(problem.samples, order)
    right = powers(problem.samples, problem.degree - order)
    return (left * problem.coefficients[:, None]).T @ right


def _integer_problems(
    degrees: tuple[int, ...], *, most: int = 7, plane: bool = False, flat: bool = False
) -> SearchStrategy[IntegerProblem]:
    from hypothesis import strategies as st

    def build(dimension: int, count: int, degree: int, seed: int) -> IntegerProblem:
        rng = np.random.default_rng([seed, count, dimension, 11])
        samples = rng.integers(-4, 5, size=(count, dimension))
        if plane:
            # The other coordinates repeat the first two: all samples lie in a plane.
            samples = samples[:, np.arange(dimension) % 2]
        if flat:
            samples[:, -1] = samples[:, 0]
        coefficients = rng.choice([-2, -1, 1, 2, 3], size=count)
        points = rng.integers(-4, 5, size=(count + dimension + 2, dimension))
        return IntegerProblem(
            samples.astype(object), coefficients.astype(object), points.astype(object), degree, seed
        )

    return st.builds(
        build,
        st.integers(2, 4),
        st.integers(2, most),
        st.sampled_from(degrees),
        st.integers(0, strategies.SEEDS),
    )


def _rows_span(problem: IntegerProblem) -> bool:
    return bool(rational_rank(problem.rows()) == problem.samples.shape[1])


def _first_flattening(problem: IntegerProblem) -> Check:
    return Check.of(rational_rank(flattening(problem, 1)) == problem.samples.shape[1])


def _first_counts_samples(problem: IntegerProblem) -> Check:
    return Check.of(rational_rank(flattening(problem, 1)) == len(problem.samples))


def _one_term() -> AbstractContextManager[object]:
    """A sum over samples that stops after the first."""
    import proofs_check.statements.tensors.flattenings as module

    original = flattening

    def broken(problem: IntegerProblem, order: int) -> Any:
        first = replace(problem, samples=problem.samples[:1], coefficients=problem.coefficients[:1])
        return original(first, order)

    return patch.object(module, "flattening", broken)


FLATTENING = Statement(
    name="first-flattening",
    title="The flattening of vectors says nothing about n",
    sentence=(
        "If the data g_j = T(u_j^(alpha-1), .) span R^r, the flattening of T from R^r to "
        "Sym^(alpha-1) has rank r, for any number n >= r of samples."
    ),
    formula=r"\operatorname{rank}\big(T: \mathbb{R}^r \to \operatorname{Sym}^{\alpha-1}\big) = r",
    source="the g_j lie in the image of the flattening; ours",
    hypotheses=(
        Hypothesis(
            "span",
            "the vectors g_j span R^r: r is the dimension of their span",
            _rows_span,
            lambda: _integer_problems((3, 4, 5), flat=True),
        ),
    ),
    instances=lambda: _integer_problems((3, 4, 5)),
    conclusion=_first_flattening,
    sabotages=(
        Sabotage("count", "the rank is n", conclusion=_first_counts_samples),
        Sabotage("one term", "the sum stops early", construction=_one_term),
    ),
    cost="light",
)


def _has_middle(problem: IntegerProblem) -> bool:
    return problem.degree >= 4


def _independent_powers(problem: IntegerProblem) -> bool:
    half = max(problem.degree // 2, 2)
    return rational_rank(powers(problem.samples, half)) == len(problem.samples)


def _middle_flattening(problem: IntegerProblem) -> Check:
    found = rational_rank(flattening(problem, problem.degree // 2))
    return Check.of(found == len(problem.samples), f"rank {found}")


def _middle_is_dimension(problem: IntegerProblem) -> Check:
    found = rational_rank(flattening(problem, problem.degree // 2))
    return Check.of(found == problem.samples.shape[1])


MIDDLE = Statement(
    name="middle-flattening",
    title="From degree 4 on the middle flattening counts samples",
    sentence=(
        "For alpha >= 4, k = floor(alpha/2) and samples with independent powers x_i^k, the "
        "flattening of T from Sym^k to Sym^(alpha-k) has rank n; in general its rank is at most n."
    ),
    formula=r"\operatorname{rank}\big(T: \operatorname{Sym}^k \to \operatorname{Sym}^{\alpha-k}"
    r"\big) = n,\qquad k = \lfloor \alpha/2 \rfloor \ge 2",
    source="Iarrobino & Kanev 1999 (catalecticant matrices); the use here: ours",
    hypotheses=(
        Hypothesis(
            "degree",
            "alpha >= 4: for alpha = 3 there is only the flattening of vectors",
            _has_middle,
            lambda: _integer_problems((3,)),
        ),
        Hypothesis(
            "powers",
            "the powers x_i^k are linearly independent, so n <= N_k(r)",
            _independent_powers,
            lambda: _integer_problems((4, 5), plane=True),
        ),
    ),
    instances=lambda: _integer_problems((4, 5, 6)),
    conclusion=_middle_flattening,
    sabotages=(
        Sabotage("dimension", "the rank is r", conclusion=_middle_is_dimension),
        Sabotage("one term", "the sum stops early", construction=_one_term),
    ),
    cost="light",
    remark=(
        "A rank above r proves that more than r samples are needed, without any decomposition: "
        "the flattening that is silent about n is that of vectors alone."
    ),
)

# --- at least r samples ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Explained:
    """Gradient data and samples that explain them up to `noise`, relative."""

    problem: GradientProblem
    noise: float

    def __repr__(self) -> str:
        return f"Explained(noise={self.noise:.3g}, {self.problem!r})"

    def data(self) -> HermiteData:
        """The gradient with noise on its first layer."""
        net, batch = self.problem.network, self.problem.data
        found = net.gradient(batch.samples, batch.coefficients)
        rng = np.random.default_rng([batch.seed, 12])
        size = float(np.abs(found.hidden_weight).max())
        errors = self.noise * size * rng.standard_normal(found.hidden_weight.shape)
        moved = TwoLayerNetwork(found.hidden_weight + errors, found.output_weight, net.degree)
        return HermiteData.from_gradient(net, moved)


def _explained(*, noise: float = 0.0) -> SearchStrategy[Explained]:
    problems = strategies.gradient_problems(max_samples=3, max_dimension=6, neurons=(8, 20))
    return problems.map(lambda problem: Explained(problem, noise))


def _is_explained(entry: Explained) -> bool:
    data, batch = entry.data(), entry.problem.data
    exact = entry.problem.network.gradient(batch.samples, batch.coefficients).hidden_weight
    errors = slope_rounding(data.points, batch.samples, batch.coefficients, data.degree)
    gaps = np.linalg.norm(data.rows - exact, axis=1)
    return bool(np.all(gaps <= np.abs(data.scales) * errors))


def _span(entry: Explained) -> int:
    reduced = reduction.reduce_data(entry.data(), 1e-13)
    return reduced.dimension


def _at_least(entry: Explained) -> Check:
    found, count = _span(entry), len(entry.problem.data.samples)
    return Check.of(found <= count, f"r = {found}, n = {count}")


def _fewer(entry: Explained) -> Check:
    return Check.of(_span(entry) < len(entry.problem.data.samples))


AT_LEAST = Statement(
    name="at-least-r",
    title="No explanation has fewer than r samples",
    sentence=(
        "The vectors g_j of data that n samples explain span a space of dimension r <= n, since "
        "the matrix of the g_j is M diag(b) X."
    ),
    formula=r"r = \operatorname{rank}\,[\,(u_j\cdot x_i)^{\alpha-1}]\,\operatorname{diag}(b)\,X"
    r" \le n",
    source="rank of a product; ours",
    hypotheses=(
        Hypothesis(
            "explained",
            "the samples explain the data exactly, up to the rounding of the gradient",
            _is_explained,
            lambda: _explained(noise=1e-3),
        ),
    ),
    instances=_explained,
    conclusion=_at_least,
    sabotages=(
        Sabotage("strict", "fewer than n dimensions", conclusion=_fewer),
        Sabotage("threshold", "every singular value counted", implementation=no_threshold),
    ),
    cost="light",
    code=("identify.hermite.reduction.reduce_data",),
)

STATEMENTS = (FLATTENING, MIDDLE, AT_LEAST)
