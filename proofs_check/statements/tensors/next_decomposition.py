"""How many terms the nearest other decomposition has."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import combinations
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.tensors import monomials
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.tensors import decomposition
from proofs_check.strategies import SampleSet

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_STARTS = 4
"""Random starts of the search for each number of terms."""


def _is_independent(data: SampleSet) -> bool:
    sigma = np.linalg.svd(data.samples, compute_uv=False)
    count, dimension = data.samples.shape
    return count <= dimension and float(sigma[-1]) > 1e-9 * float(sigma[0])


def _sets() -> SearchStrategy[SampleSet]:
    """Independent samples at large angles: a search tells their decompositions apart."""

    def wide(data: SampleSet) -> bool:
        cosines = np.abs(data.samples @ data.samples.T) - np.eye(len(data.samples))
        return float(cosines.max()) < 0.9

    return decomposition.spanning_sets(3).filter(wide)


def _planes() -> SearchStrategy[SampleSet]:
    """alpha - 1 samples in a plane for alpha = 4 and 5, three for alpha = 3: dependent."""
    from hypothesis import strategies as st

    def build(degree: int, seed: int) -> SampleSet:
        rng = np.random.default_rng([seed, degree, 16])
        count = 3 if degree == 3 else degree - 1
        angles = np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, size=count)) / count
        samples = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        coefficients = rng.choice([-1.0, 1.0], size=count) * rng.uniform(0.5, 2.0, size=count)
        return SampleSet("plane", samples, coefficients, degree, seed)

    return st.builds(build, st.sampled_from((3, 4, 5)), st.integers(0, strategies.SEEDS))


def _found_other(data: SampleSet, count: int) -> bool:
    """Whether a search finds well separated terms with the tensor of the data, but not them."""
    target = data.coefficients @ monomials(data.samples, data.degree)
    for start in range(_STARTS):
        rng = np.random.default_rng([data.seed, count, start, 17])
        found = decomposition.search_terms(target, data.samples.shape[1], data.degree, count, rng)
        if found is not None and decomposition.is_other(data.samples, *found, data.degree):
            return True
    return False


def _gap(data: SampleSet, excess: int) -> Check:
    """No other set below n + alpha - 2 + excess, and one of n + alpha - 2."""
    first = len(data.samples)
    for count in range(first, first + data.degree - 2 + excess):
        if _found_other(data, count):
            return Check.of(False, f"another decomposition into {count} powers")
    if not _is_independent(data):
        return Check.of(True)
    vectors, heights = decomposition.plane_alternative(
        data.samples[:2], data.coefficients[:2], data.degree, data.seed
    )
    left = data.coefficients[:2] @ monomials(data.samples[:2], data.degree)
    parts = decomposition.term_tensors(vectors, heights, data.degree)
    # A least-squares fit leaves rounding of its terms, which may be larger than their sum.
    size = float(np.linalg.norm(parts, axis=1).sum() + np.linalg.norm(left))
    left_over = float(np.linalg.norm(parts.sum(axis=0) - left))
    return Check.compare(left_over, 1e-13 * size, "the set of n + alpha - 2 does not fit")


def _next_is_far(data: SampleSet) -> Check:
    return _gap(data, 0)


def _next_is_farther(data: SampleSet) -> Check:
    return _gap(data, 1)


def _wrong_sign() -> AbstractContextManager[object]:
    original = decomposition.plane_alternative

    def broken(
        first: FloatArray, heights: FloatArray, degree: int, seed: int
    ) -> tuple[FloatArray, FloatArray]:
        vectors, _ = original(first, heights * np.array([1.0, -1.0]), degree, seed)
        target = heights @ monomials(first, degree)
        fit = np.linalg.lstsq(monomials(vectors, degree).T, target, rcond=None)[0]
        return vectors, np.asarray(fit)

    return patch.object(decomposition, "plane_alternative", broken)


def _wrong_monomials() -> AbstractContextManager[object]:
    """Monomials of which the second lacks its multinomial factor, where powers are fitted."""

    def broken(points: FloatArray, degree: int) -> FloatArray:
        found = monomials(points, degree).copy()
        if found.shape[1] > 1:
            found[:, 1] = np.abs(found[:, 1]) / degree
        return found

    return patch.object(decomposition, "monomials", broken)


def _plane_algebra() -> bool:
    """r = 2: powers of x + t_k y with b_1 x^alpha + b_2 y^alpha, as determinants in t_k.

    alpha + 1 distinct powers are independent (Vandermonde), so 2 + n' >= alpha + 2; alpha powers
    with the sum have the determinant V(t) (b_2 - (-1)^(alpha+1) b_1 prod t_k), up to its sign.
    """
    from math import prod

    from sympy import ZZ, ring
    from sympy.polys.matrices import DomainMatrix

    for degree in (3, 4, 5):
        names = [f"t{k}" for k in range(degree + 1)]
        polynomials, *symbols = ring([*names, "b1", "b2"], ZZ)
        t, (b1, b2) = symbols[:-2], symbols[-2:]
        one, zero = polynomials.one, polynomials.zero

        def spread(values: list[Any], start: Any = one) -> Any:
            pairs = combinations(range(len(values)), 2)
            return prod((values[k] - values[j] for j, k in pairs), start=start)

        # Coefficients of (x + t y)^alpha without its binomials, and of the sum.
        free = [[one, *(value**k for k in range(1, degree + 1))] for value in t]
        total = [b1, *[zero] * (degree - 1), b2]
        field, shape = polynomials.to_domain(), (degree + 1, degree + 1)
        if DomainMatrix(free, shape, field).det() != spread(t):
            return False
        wanted = spread(t[:-1]) * (b2 + (-1) ** degree * b1 * prod(t[:-1], start=one))
        if DomainMatrix([*free[:-1], total], shape, field).det() != wanted:
            return False
    return True


NEXT = Statement(
    name="next-decomposition",
    title="The next decomposition has alpha - 2 terms more",
    sentence=(
        "Every other decomposition of a sum of r >= 2 powers of independent vectors has at least "
        "r + alpha - 2 terms, none parallel, and some have exactly so many: alpha powers in the "
        "plane of two samples replace those two."
    ),
    formula=r"\sum_{i\le r} b_i x_i^\alpha = \sum_{k\le n'} c_k z_k^\alpha,\ "
    r"\{z_k\}\not\sim\{x_i\} \Rightarrow n' \ge r + \alpha - 2",
    source=(
        "ours, by Hilbert functions of points (Iarrobino & Kanev 1999); the plane: Sylvester 1851"
    ),
    hypotheses=(
        Hypothesis(
            "independent",
            "the samples are linearly independent",
            _is_independent,
            _planes,
        ),
    ),
    instances=_sets,
    conclusion=_next_is_far,
    sabotages=(
        Sabotage("one more", "r + alpha - 1 terms", conclusion=_next_is_farther),
        Sabotage("sign", "the other sign of prod t_k", construction=_wrong_sign),
        Sabotage("monomials", "monomials without a factor", implementation=_wrong_monomials),
    ),
    cost="heavy",
    algebra=_plane_algebra,
    algebra_note="r = 2, degrees 3 to 5: determinants in symbolic t_k",
    code=("identify.tensors.monomials",),
    remark=(
        "Let Z be the points of the other set, I their ideal, h its Hilbert function. The forms "
        "apolar to T have codimension r in degrees 1 to alpha - 1, and there they are spanned by "
        "the products y_i y_j, i < j. If h reached n' in a degree up to alpha - 2, I would be "
        "generated by such products and Z would contain the samples. So h grows strictly up to "
        "degree alpha - 1: n' >= r + alpha - 2. For alpha = 3 this is r + 1."
    ),
)

STATEMENTS = (NEXT,)
