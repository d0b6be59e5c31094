"""The rank of the Hermite matrix at generic points."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.numerical_rank import decide_rank
from identify.proofs import rank as rank_proofs
from identify.tensors import hermite_matrix, symmetric_dimension
from proofs_check import strategies
from proofs_check.arithmetic import integers
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.interpolation.conditions import missing_axis

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EXCEPTIONS = ((4, 3, 5), (4, 4, 9), (4, 5, 14), (3, 5, 7))
"""(alpha, r, m) where the rank is one less than expected."""
_DEGREES, _DIMENSIONS = (3, 4, 5, 6), (1, 2, 3, 4, 5, 6)
_FLOAT_COLUMNS = 130
"""N up to which the rank is also counted in float64."""


def generic_rank(degree: int, dimension: int, count: int) -> int:
    """min(m r, N), one less for the four exceptions; alpha = 2: m r - C(m, 2) for m <= r.

    Example:
        >>> generic_rank(3, 5, 7), generic_rank(4, 3, 6), generic_rank(2, 4, 3)
        (34, 15, 9)
    """
    whole = symmetric_dimension(degree, dimension)
    if degree == 2:
        return count * dimension - comb(count, 2) if count <= dimension else whole
    short = (degree, dimension, count) in EXCEPTIONS
    return min(count * dimension, whole) - int(short)


@dataclass(frozen=True, eq=False)
class PointSet:
    """Integer points (m, r); `random` or `repeated` (half of them twice) or `plane`."""

    degree: int
    points: Any
    kind: str
    seed: int

    def __repr__(self) -> str:
        count, dimension = self.points.shape
        return (
            f"PointSet({self.kind}, degree={self.degree}, r={dimension}, m={count}, "
            f"seed={self.seed})"
        )


def _build(degree: int, dimension: int, count: int, kind: str, seed: int) -> PointSet:
    rng = np.random.default_rng([seed, degree, dimension, count, 40])
    points = rng.integers(-(10**6), 10**6, size=(count, dimension))
    if kind == "repeated":
        points[: count // 2] = points[count // 2 : 2 * (count // 2)]
    if kind == "plane":
        points[:, 2:] = points[:, :1] + 2 * points[:, 1:2]
    return PointSet(degree, points, kind, seed)


def rank_of(entry: PointSet) -> int:
    """Rank over Q, up to a chance of about 1e-12: the larger one of two modular ranks."""
    expected = generic_rank(entry.degree, *reversed(entry.points.shape))
    found = integers.hermite_rank(entry.points, entry.degree, integers.PRIMES[0])
    if found < expected:
        found = max(found, integers.hermite_rank(entry.points, entry.degree, integers.PRIMES[1]))
    return found


def _near(kind: str = "random") -> SearchStrategy[PointSet]:
    """m around N/r, the exceptions among them; some far fewer."""
    from hypothesis import strategies as st

    triples = []
    for degree in _DEGREES:
        for dimension in _DIMENSIONS:
            balanced = symmetric_dimension(degree, dimension) // dimension
            wanted = {max(1, balanced + step) for step in (-1, 0, 1, 2)} | {max(1, balanced // 2)}
            triples += [(degree, dimension, count) for count in sorted(wanted)]
    if kind != "random":
        triples = [triple for triple in triples if triple[1] > 2 and triple[2] > 3]
    chosen = st.one_of(st.sampled_from(triples), st.sampled_from(EXCEPTIONS))

    def build(triple: tuple[int, int, int], seed: int) -> PointSet:
        return _build(*triple, kind, seed)

    return st.builds(build, chosen, st.integers(0, strategies.SEEDS))


def _specials() -> SearchStrategy[PointSet]:
    from hypothesis import strategies as st

    return st.one_of(_near("repeated"), _near("plane"))


def _has_generic_rank(entry: PointSet) -> Check:
    count, dimension = entry.points.shape
    expected = generic_rank(entry.degree, dimension, count)
    found = rank_of(entry)
    if found != expected:
        return Check.of(False, f"rank {found}, expected {expected}")
    whole = symmetric_dimension(entry.degree, dimension)
    if whole <= _FLOAT_COLUMNS:
        proof = rank_proofs.prove_rank(entry.points, entry.degree)
        if (proof.outcome == "full") != (expected == whole):
            return Check.of(False, f"proved {proof.outcome}: {proof.method}, expected {expected}")
        units = entry.points / np.linalg.norm(entry.points, axis=1, keepdims=True)
        matrix = hermite_matrix(units, entry.degree)
        sigma = np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)
        decision = decide_rank(sigma, 1e-12)
        if decision.clear and decision.rank != expected:
            return Check.of(False, f"rank {decision.rank} in float64, expected {expected}")
    return Check.of(True)


def _without_exceptions(entry: PointSet) -> Check:
    count, dimension = entry.points.shape
    return Check.of(
        rank_of(entry) == min(count * dimension, symmetric_dimension(entry.degree, dimension))
    )


def _missing_rows() -> AbstractContextManager[object]:
    """H in float64 without the rows of the first coordinate."""
    import proofs_check.statements.interpolation.generic_rank as module

    original = hermite_matrix

    def broken(points: Any, degree: int) -> Any:
        matrix = original(points, degree).copy()
        matrix[:: points.shape[1]] = 0.0
        return matrix

    return patch.object(module, "hermite_matrix", broken)


@lru_cache(maxsize=1)
def prove_generic_ranks() -> bool:
    """The table for degrees 3 to 6, r <= 6 and every m, each entry proved.

    At least: a modular rank of some integer points bounds the generic rank from below; with m
    independent blocks fewer ones are independent too, and with rank N more ones keep it, so two
    values of m beside N/r (or beside an exception) settle all. At most: min(m r, N), and N - 1 for
    the exceptions by `_kernels_of_exceptions`.
    """
    for degree in _DEGREES:
        for dimension in _DIMENSIONS:
            whole = symmetric_dimension(degree, dimension)
            counts = {whole // dimension, -(-whole // dimension)}
            special = {m for a, r, m in EXCEPTIONS if (a, r) == (degree, dimension)}
            counts |= special | {m + step for m in special for step in (-1, 1)}
            for count in sorted(counts - {0}):
                entry = _build(degree, dimension, count, "random", 0)
                found = rank_of(entry)
                if found != generic_rank(degree, dimension, count):
                    return False
    return _kernels_of_exceptions()


def _kernels_of_exceptions() -> bool:
    """A tensor in the kernel of H for each exception, whatever the points.

    alpha = 4: m = N_2(r) - 1 points lie on a quadric q = 0, and the gradient 2 q grad q of q^2
    vanishes there. (3, 5, 7): seven general points of P^4 lie on a rational normal curve
    (Castelnuovo), in suitable coordinates (1, t, ..., t^4), where the Hankel determinant, a cubic,
    is singular. Every set of points is a limit of general ones, and ranks do not rise in limits.
    """
    import sympy

    for degree, dimension, count in EXCEPTIONS:
        if degree == 4 and count != symmetric_dimension(2, dimension) - 1:
            return False
    x = sympy.symbols("x0:5")
    t = sympy.Symbol("t")
    hankel = sympy.Matrix(3, 3, lambda i, k: x[i + k]).det()
    curve = {symbol: t**k for k, symbol in enumerate(x)}
    return all(sympy.expand(hankel.diff(symbol).subs(curve)) == 0 for symbol in x)


GENERIC = Statement(
    name="generic-rank",
    title="Rank of H at generic points",
    sentence=(
        "For generic points and alpha >= 3, rank H = min(m r, N), but one less for (alpha, r, m) = "
        "(4, 3, 5), (4, 4, 9), (4, 5, 14) and (3, 5, 7)."
    ),
    formula=r"\operatorname{rank} H = \min(mr, N) - [(\alpha, r, m) \in "
    r"\{(4,3,5), (4,4,9), (4,5,14), (3,5,7)\}]",
    source="Alexander & Hirschowitz 1995; Brambilla & Ottaviani 2008 (Theorem 1.1)",
    hypotheses=(
        Hypothesis(
            "generic",
            "the points are generic: here, drawn at random",
            lambda entry: entry.kind == "random",
            _specials,
        ),
    ),
    instances=_near,
    conclusion=_has_generic_rank,
    sabotages=(
        Sabotage("exceptions", "no exceptions", conclusion=_without_exceptions),
        Sabotage("rows", "rows of one coordinate missing", implementation=missing_axis),
    ),
    cost="heavy",
    algebra=prove_generic_ranks,
    algebra_note="degrees 3 to 6, r <= 6, every m: ranks modulo a prime, kernels of the exceptions",
    code=("identify.tensors.hermite_matrix", "identify.proofs.rank.prove_rank"),
)

# --- quadratic forms -------------------------------------------------------------------------


def _few_points(*, dependent: bool = False) -> SearchStrategy[PointSet]:
    from hypothesis import strategies as st

    def build(dimension: int, share: int, seed: int) -> PointSet:
        low = 2 if dependent else 1
        count = low + share % max(1, dimension - low + 1)
        rng = np.random.default_rng([seed, dimension, count, 41])
        points = rng.integers(-5, 6, size=(count, dimension))
        if dependent:
            points[-1] = points[0] * 2 if count < 3 else points[0] - points[1]
        return PointSet(2, points, "dependent" if dependent else "random", seed)

    return st.builds(build, st.integers(2, 7), st.integers(0, 6), st.integers(0, strategies.SEEDS))


def _independent(entry: PointSet) -> bool:
    return integers.rational_rank(entry.points) == len(entry.points)


def _quadratic_rank(entry: PointSet) -> Check:
    found = integers.hermite_rank(entry.points, 2)
    expected = generic_rank(2, entry.points.shape[1], len(entry.points))
    if found != expected:
        return Check.of(False, f"rank {found}, expected {expected}")
    matrix = hermite_matrix(np.asarray(entry.points, dtype=np.float64), 2)
    sigma = np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)
    decision = decide_rank(sigma, 1e-12)
    # Entries of at most 5: a singular value that counts is far above rounding.
    return Check.of(decision.rank == expected, f"rank {decision.rank} in float64, not {expected}")


def _every_equation(entry: PointSet) -> Check:
    found = integers.hermite_rank(entry.points, 2)
    whole = symmetric_dimension(2, entry.points.shape[1])
    return Check.of(found == min(entry.points.size, whole))


def _quadratic_algebra() -> bool:
    """Ranks at the axes e_1, ..., e_m: every set of m independent points is a linear image."""
    for dimension in range(1, 9):
        for count in range(1, dimension + 1):
            axes = np.eye(count, dimension, dtype=np.int64)
            # Over Q: rank modulo a prime is no more than that, and the entries are 0, 1, 2.
            found = integers.rational_rank(integers.hermite_residues(axes, 2, integers.PRIMES[0]))
            if found != generic_rank(2, dimension, count):
                return False
    return True


QUADRATIC = Statement(
    name="quadratic-rank",
    title="Rank of H for quadratic forms",
    sentence=(
        "For alpha = 2 and m <= r linearly independent points, rank H = m r - C(m, 2): two "
        "equations u_j . g_k = u_k . g_j coincide for every pair."
    ),
    formula=r"\operatorname{rank} H = mr - \binom{m}{2},\qquad \alpha = 2,\ m \le r",
    source="symmetric matrices with given products; Brambilla & Ottaviani 2008 (Theorem 1.1)",
    hypotheses=(
        Hypothesis(
            "independent",
            "the points are linearly independent",
            _independent,
            lambda: _few_points(dependent=True),
        ),
    ),
    instances=_few_points,
    conclusion=_quadratic_rank,
    sabotages=(
        Sabotage("pairs", "min(m r, N)", conclusion=_every_equation),
        Sabotage("rows", "rows of one coordinate missing", implementation=_missing_rows),
    ),
    cost="light",
    algebra=_quadratic_algebra,
    algebra_note="r <= 8, every m <= r: exact ranks at the axes, invariance under linear maps",
    code=("identify.tensors.hermite_matrix",),
)

STATEMENTS = (GENERIC, QUADRATIC)
