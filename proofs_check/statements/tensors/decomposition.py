"""Decompositions of the moment tensor: when they are unique, and the nearest other ones."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import scipy.optimize

from identify.arrays import FloatArray
from identify.decomposition import pencil
from identify.tensors import CoordinateTensor, hermite_matrix, monomials
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.strategies import SampleSet

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_EXACT = 1e-12
"""Relative residual below which two sets count as having the same tensor."""
_NEAR = 1e-6
"""Relative distance of the tensor that a matrix pencil decomposes, however close its terms."""
_APART = 0.03
"""Angle between terms that count as different: terms at such angles that replace one power leave
a residual of at least the fourth power of the angle, far above `_EXACT`."""


def term_tensors(samples: FloatArray, coefficients: FloatArray, degree: int) -> FloatArray:
    """Coordinates of b_i x_i^(alpha), shape (n, N)."""
    rows: FloatArray = coefficients[:, None] * monomials(samples, degree)
    return rows


def plane_alternative(
    first: FloatArray, heights: FloatArray, degree: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """alpha other vectors whose powers add up to b_1 x_1^(alpha) + b_2 x_2^(alpha).

    The vectors x_1 + t_k x_2 serve if prod_k t_k = (-1)^(alpha+1) b_2/b_1: the form that vanishes
    on them is then apolar to the sum (Sylvester). alpha - 1 of the t_k are free.

    Args:
        first: x_1, x_2, shape (2, r), independent.
        heights: b_1, b_2.
        degree: alpha >= 2.
        seed: of the free t_k.
    """
    rng = np.random.default_rng([seed, degree, 13])
    ratio = (-1.0) ** (degree + 1) * heights[1] / heights[0]
    # In units of |b_2/b_1|^(1/alpha) the t_k stay near 1 in size; the last one is forced.
    best, gap = np.ones(degree), -1.0
    for _ in range(40):
        size = np.linspace(0.6, 1.6, degree) * rng.uniform(0.9, 1.1, size=degree)
        t = size * np.where(np.arange(degree) % 2, -1.0, 1.0) * rng.choice([-1.0, 1.0])
        t[-1] = np.sign(ratio) / np.prod(t[:-1])
        nearest = float(np.min(np.abs(t[:, None] - t)[~np.eye(degree, dtype=bool)]))
        if nearest > gap:
            best, gap = t, nearest
        if gap > 0.2:
            break
    vectors = first[0] + np.outer(best * np.abs(ratio) ** (1.0 / degree), first[1])
    target = heights @ monomials(first, degree)
    coefficients, *_ = np.linalg.lstsq(monomials(vectors, degree).T, target, rcond=None)
    return vectors, np.asarray(coefficients)


def search_terms(
    target: FloatArray, dimension: int, degree: int, count: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray] | None:
    """Levenberg-Marquardt for T = sum_k s_k z_k^(alpha) with `count` terms, None if it fails."""
    size = float(np.linalg.norm(target))
    signs = np.ones(count) if degree % 2 else rng.choice([-1.0, 1.0], size=count)
    terms = rng.standard_normal((count, dimension))
    damping, wanted = 1e-2, target / size
    residual = signs @ monomials(terms, degree) - wanted
    for _ in range(120):
        slope = hermite_matrix(terms, degree) * np.repeat(degree * signs, dimension)[:, None]
        stacked = np.vstack([slope.T, np.sqrt(damping) * np.eye(terms.size)])
        side = np.concatenate([-residual, np.zeros(terms.size)])
        step = np.linalg.lstsq(stacked, side, rcond=None)[0].reshape(terms.shape)
        trial = signs @ monomials(terms + step, degree) - wanted
        if np.linalg.norm(trial) < np.linalg.norm(residual):
            terms, residual, damping = terms + step, trial, max(0.2 * damping, 1e-18)
        else:
            damping *= 4.0
        if np.linalg.norm(residual) < 0.01 * _EXACT or damping > 1e8:
            break
    if np.linalg.norm(residual) > _EXACT:
        return None
    return terms, signs * size


def is_other(samples: FloatArray, found: FloatArray, heights: FloatArray, degree: int) -> bool:
    """Whether well separated terms of a found set are no rescaled samples.

    False where the set is `samples` again, or where terms lie too close to one another to tell an
    exact solution from an approximate one.
    """
    sizes = np.linalg.norm(found, axis=1)
    parts = np.abs(heights) * sizes**degree
    live = parts > 1e-6 * parts.max()
    units = found[live] / sizes[live, None]
    cosines = np.abs(units @ units.T) - 2.0 * np.eye(len(units))
    if len(units) > 1 and float(cosines.max()) > 1.0 - 0.5 * _APART**2:
        return False
    truth = samples / np.linalg.norm(samples, axis=1, keepdims=True)
    nearest = np.abs(units @ truth.T).max(axis=1)
    return bool(nearest.min() < 1.0 - 0.5 * _APART**2)


def _independent(samples: FloatArray) -> bool:
    units = samples / np.linalg.norm(samples, axis=1, keepdims=True)
    sigma = np.linalg.svd(units, compute_uv=False)
    return len(samples) <= samples.shape[1] and float(sigma[-1]) > 1e-9


def spanning_sets(most: int = 4, degrees: tuple[int, ...] = (3, 4, 5)) -> SearchStrategy[SampleSet]:
    """n >= 2 independent samples that span R^n, of every kind."""

    def fill(data: SampleSet) -> SampleSet:
        count = len(data.samples)
        samples = strategies.draw_samples(data.kind, count, count, data.seed)
        return replace(data, samples=samples / np.linalg.norm(samples, axis=1, keepdims=True))

    drawn = strategies.sample_sets(most, most, degrees)
    return drawn.filter(lambda data: len(data.samples) >= 2).map(fill)


def _exchange(data: SampleSet, seed: int) -> SampleSet:
    """The set with its first two samples replaced by alpha others."""
    vectors, heights = plane_alternative(data.samples[:2], data.coefficients[:2], data.degree, seed)
    return replace(
        data,
        samples=np.vstack([vectors, data.samples[2:]]),
        coefficients=np.concatenate([heights, data.coefficients[2:]]),
    )


# --- unique among sets of at most r ----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TwoSets:
    """Two sets of samples, to be compared."""

    first: SampleSet
    other: SampleSet
    how: str

    def __repr__(self) -> str:
        return f"TwoSets({self.how}, {self.first!r}, n'={len(self.other.samples)})"

    def distance(self) -> float:
        """Relative distance of the two tensors."""
        left = self.first.coefficients @ monomials(self.first.samples, self.first.degree)
        right = self.other.coefficients @ monomials(self.other.samples, self.other.degree)
        return float(np.linalg.norm(left - right) / np.linalg.norm(left))


def _amplification(data: SampleSet) -> float:
    """First-order change of a term b_i x_i^(alpha) over that of T, in the norm of T's size.

    |dz_i| <= |dT|/sigma_min(J) for z_i = |b_i|^(1/alpha) x_i and J the tangent map, and a term
    changes by alpha |z_i|^(alpha-1) |dz_i|.
    """
    alpha = data.degree
    sizes = np.abs(data.coefficients) ** (1.0 / alpha)
    terms = sizes[:, None] * data.samples
    tangent = alpha * hermite_matrix(terms, alpha)
    sigma = float(np.linalg.svd(tangent, compute_uv=False)[-1])
    reach = alpha * float(np.linalg.norm(terms, axis=1).max()) ** (alpha - 1)
    return reach / sigma if sigma > 0.0 else np.inf


def _resolution(pair: TwoSets) -> tuple[float, float]:
    """How far terms may move, twice the first order, and the size of the smallest term."""
    first = pair.first
    terms = term_tensors(first.samples, first.coefficients, first.degree)
    size = float(np.linalg.norm(terms.sum(axis=0)))
    change = size * (pair.distance() + 8.0 * terms.shape[1] * UNIT)
    return 2.0 * _amplification(first) * change, float(np.linalg.norm(terms, axis=1).min())


def _same_tensor(pair: TwoSets) -> bool:
    if pair.distance() > _EXACT:
        return False
    allowed, smallest = _resolution(pair)
    return not _independent(pair.first.samples) or allowed <= 0.1 * smallest


def _pencil(data: SampleSet, seed: int) -> SampleSet | None:
    """A decomposition into r terms by a matrix pencil of random contractions."""
    target = data.coefficients @ monomials(data.samples, data.degree)
    dimension = data.samples.shape[1]
    rng = np.random.default_rng([seed, 14])
    frame = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    for _ in range(6):
        tensor = CoordinateTensor(target, data.degree, dimension)
        found = pencil.pencil_directions(tensor, frame, rng)
        if found is None or np.linalg.matrix_rank(found) < dimension:
            return None
        # In the frame of a good guess the pencil is nearly diagonal, and more accurate.
        frame = found
    rows = monomials(frame, data.degree)
    heights = np.linalg.lstsq(rows.T, target, rcond=None)[0]
    return replace(data, samples=frame, coefficients=np.asarray(heights))


def _decomposed() -> SearchStrategy[TwoSets]:
    """A set and what a pencil or a search from a random start made of its tensor."""
    from hypothesis import reject
    from hypothesis import strategies as st

    @st.composite
    def pairs(draw: st.DrawFn) -> TwoSets:
        data = draw(spanning_sets())
        seed = draw(st.integers(0, strategies.SEEDS))
        if draw(st.booleans()):
            other, how = _pencil(data, seed), "pencil"
        else:
            target = data.coefficients @ monomials(data.samples, data.degree)
            count = len(data.samples)
            found = search_terms(target, count, data.degree, count, np.random.default_rng(seed))
            other, how = None, "search"
            if found is not None:
                other = replace(data, samples=found[0], coefficients=found[1])
        if other is None:
            reject()
        return TwoSets(data, other, how)

    return pairs()


def _exchanged(degrees: tuple[int, ...], *, both: bool = False) -> SearchStrategy[TwoSets]:
    """A set and an exchanged one, or two exchanged ones."""
    from hypothesis import strategies as st

    def build(data: SampleSet, seed: int) -> TwoSets:
        first = _exchange(data, seed + 1) if both else data
        return TwoSets(first, _exchange(data, seed), "exchange")

    kinds = ("generic", "orthonormal", "integer")
    plain = strategies.sample_sets(3, 3, degrees, kinds)
    drawn = plain.filter(lambda data: len(data.samples) >= 2)
    return st.builds(build, drawn, st.integers(0, strategies.SEEDS))


def _moved() -> SearchStrategy[TwoSets]:
    """Pairs whose second set was turned a little: another tensor."""

    def build(data: SampleSet) -> TwoSets:
        rng = np.random.default_rng([data.seed, 15])
        samples = data.samples + 0.1 * rng.standard_normal(data.samples.shape)
        return TwoSets(data, replace(data, samples=samples), "moved")

    return spanning_sets().map(build)


def _compare(pair: TwoSets, *, coefficients: bool) -> Check:
    """Largest distance of matched terms b_i x_i^(alpha); unmatched ones count whole."""
    first, other = pair.first, pair.other
    left = term_tensors(first.samples, first.coefficients, first.degree)
    heights = other.coefficients if coefficients else np.abs(other.coefficients)
    right = term_tensors(other.samples, heights, other.degree)
    count = max(len(left), len(right))
    left, right = (np.pad(part, ((0, count - len(part)), (0, 0))) for part in (left, right))
    gaps = np.linalg.norm(left[:, None] - right[None], axis=2)
    rows, columns = scipy.optimize.linear_sum_assignment(gaps)
    allowed, smallest = _resolution(pair)
    return Check.compare(float(gaps[rows, columns].max()), min(allowed, 0.1 * smallest))


def _same_terms(pair: TwoSets) -> Check:
    """The two sets, and what the pencil makes of the first one's tensor now."""
    first = pair.first
    fit = first.degree >= 3 and len(first.samples) == first.samples.shape[1]
    again = _pencil(first, first.seed) if fit and _independent(first.samples) else None
    if again is not None:
        other = TwoSets(first, again, "pencil")
        if not other.distance() <= _NEAR:
            return Check.compare(other.distance(), _NEAR, "the pencil's terms are no decomposition")
        if _same_tensor(other):
            found = _compare(other, coefficients=True)
            if not found.holds:
                return found
    return _compare(pair, coefficients=True)


def _same_up_to_sign(pair: TwoSets) -> Check:
    """The claim that coefficients are positive."""
    return _compare(pair, coefficients=False)


def _turned_pencil() -> AbstractContextManager[object]:
    """Directions of the pencil of which the last leans towards the first."""
    original = pencil.pencil_directions

    def broken(tensor: Any, frame: FloatArray, rng: np.random.Generator) -> FloatArray | None:
        found = original(tensor, frame, rng)
        if found is None:
            return None
        leaning = found.copy()
        leaning[-1] += 0.1 * found[0]
        return leaning

    return patch.object(pencil, "pencil_directions", broken)


def _without_coefficients() -> AbstractContextManager[object]:
    """Terms x_i^(alpha) without b_i."""
    import proofs_check.statements.tensors.decomposition as module

    def broken(samples: FloatArray, coefficients: FloatArray, degree: int) -> FloatArray:
        return monomials(samples, degree)

    return patch.object(module, "term_tensors", broken)


UNIQUE = Statement(
    name="decomposition-unique",
    title="A decomposition into independent powers is unique",
    sentence=(
        "For alpha >= 3 a sum T of r powers of linearly independent vectors has no other "
        "decomposition into at most r powers, up to order and scale."
    ),
    formula=r"\sum_{i\le r} b_i x_i^{\alpha} = \sum_{k\le r} c_k z_k^{\alpha} \Rightarrow "
    r"\{c_k z_k^{\alpha}\} = \{b_i x_i^{\alpha}\}",
    source="Kruskal 1977 (Theorem 4a); Harshman 1970, Jennrich's argument by a matrix pencil",
    hypotheses=(
        Hypothesis(
            "independent",
            "the samples are linearly independent",
            lambda pair: _independent(pair.first.samples),
            lambda: _exchanged((3, 4, 5), both=True),
        ),
        Hypothesis(
            "degree",
            "alpha >= 3",
            lambda pair: pair.first.degree >= 3,
            lambda: _exchanged((2,)),
        ),
        Hypothesis(
            "at-most",
            "the other set has at most r members",
            lambda pair: len(pair.other.samples) <= len(pair.first.samples),
            lambda: _exchanged((3, 4, 5)),
        ),
        Hypothesis(
            "same-tensor",
            "both sets have the same T, well enough conditioned to tell in float64",
            _same_tensor,
            _moved,
        ),
    ),
    instances=_decomposed,
    conclusion=_same_terms,
    sabotages=(
        Sabotage("sign", "all coefficients are positive", conclusion=_same_up_to_sign),
        Sabotage("terms", "terms without b_i", construction=_without_coefficients),
        Sabotage("pencil", "a direction of the pencil leans", implementation=_turned_pencil),
    ),
    cost="medium",
    code=("identify.decomposition.pencil.pencil_directions",),
    remark="The other sets come from matrix pencils and from searches at random starts.",
)

STATEMENTS = (UNIQUE,)
