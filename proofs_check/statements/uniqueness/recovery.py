"""From weights to samples: recovery end to end, and who else could have made the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify import HermiteData, Recovery, TwoLayerNetwork, compare_recovery
from identify.alternatives import pairs
from identify.alternatives.admissible import SetRules
from identify.alternatives.equations import SetEquations
from identify.alternatives.pairs import Pair
from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations
from identify.hermite.reduction import reduce_data
from identify.hermite.stationarity import stationarity
from identify.interpolation.interpolate import interpolate
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.tensors import hermite_matrix
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.planes import coplanar_data, false_set, false_sets, planes

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KRUSKAL = "Kruskal 1977 (uniqueness for independent terms)"
DETERMINED = "I-hermite: the matrix H of the Hermite equations on V has rank N"
INDEPENDENT = "the samples are linearly independent"


# --- recovery end to end -----------------------------------------------------------------------


def _plain() -> SearchStrategy[Explained]:
    from hypothesis import strategies as st

    return st.one_of(base.plantings(), base.gradients(counts=(1, 4), unit=True))


def _problems() -> SearchStrategy[Explained]:
    """Every convention of the lengths, rounded data, and sets that are not the true one."""
    from hypothesis import strategies as st

    plain = _plain()
    fixed = st.builds(replace, plain, scale=st.just("unit"))
    biased = base.gradients(counts=(1, 4)).map(base.with_bias)
    biased = st.builds(replace, biased, scale=st.just("bias"))
    rounded = st.one_of(plain, fixed, biased).filter(_is_stiff).map(base.in_single_precision)
    drawn = (plain, fixed, plain.map(base.with_margins), biased, rounded, false_sets())
    return base.present(st.one_of(*drawn))


def _is_stiff(instance: Explained) -> bool:
    """Whether the rounding of float32 leaves all ranks clear."""
    basis = base.span_of(instance.data.rows)
    if basis is None:
        return False
    points = base.unit_rows(instance.data.points @ basis)
    sigma = np.linalg.svd(hermite_matrix(points, instance.data.degree), compute_uv=False)
    units = base.unit_rows(instance.data.network.lift(instance.samples))
    angle = np.linalg.svd(units, compute_uv=False)[-1]
    return bool(len(sigma) and sigma[-1] > 1e-3 * sigma[0] and angle > 0.05)


def recover(instance: Explained) -> tuple[Recovery | None, float]:
    """What is recovered without the truth, None if nothing is, and the noise level."""
    given = Assumptions(len(instance.samples), instance.scale, False, None)
    findings = measure(instance.data, given, seed=instance.seed)
    found, bounds = findings.samples, findings.bounds
    if found is None or bounds is None:
        return None, findings.noise_level
    return Recovery(found.samples, found.coefficients, bounds.samples, {}), findings.noise_level


def recovers(instance: Explained) -> Check:
    """Recover, then compare: every sample within its error bound."""
    found, noise = recover(instance)
    if found is None:
        return Check.of(False, "nothing is recovered")
    if len(found.samples) != len(instance.samples):
        return Check.of(False, f"{len(found.samples)} samples are found")
    explained = stationarity(instance.data, found.samples, found.coefficients)
    if not explained <= 10.0 * noise:
        return Check.compare(explained, 10.0 * noise, "the set explains nothing")
    # Unit norm is the convention for free lengths: with the hypothesis they count.
    scale = "unit" if instance.scale == "free" else instance.scale
    table = compare_recovery(found, instance.samples, instance.data.degree, scale)
    # The comparison normalises both samples, which moves them by a few roundings.
    bounds = found.error_bounds[table.matching.indices] + 8.0 * UNIT
    ratios = table.matching.errors / bounds
    return Check.compare(float(np.max(ratios)), 1.0, "error over printed bound")


def _recovers_signs(instance: Explained) -> Check:
    """The same with the signs of the samples."""
    found, _ = recover(instance)
    if found is None:
        return Check.of(False, "nothing is recovered")
    gaps = np.linalg.norm(found.samples[:, None] - instance.samples, axis=2)
    sizes = np.linalg.norm(instance.samples, axis=1).max()
    return Check.compare(float(gaps.min(axis=1).max()), 1e-2 * float(sizes), "signs")


def _few(degree: int, count: int) -> tuple[int, int]:
    """Widths at which H lacks rank although V contains the samples."""
    most = max(count, base.neurons_needed(degree, count) - 1)
    return count, most


def _too_many(bound: int = 4) -> SearchStrategy[Explained]:
    """One sample more than dimensions, in general position."""
    from hypothesis import strategies as st

    def build(dimension: int, degree: int, seed: int) -> Explained:
        rng = np.random.default_rng([seed, dimension])
        samples = base.unit_rows(rng.standard_normal((dimension + 1, dimension)))
        width = base.neurons_needed(degree, dimension) + 2
        b = base.draw_coefficients(dimension + 1, seed)
        return base.gradient_data(samples, b, degree, width, "dependent", seed)

    return st.builds(build, st.integers(2, bound), st.sampled_from((3, 4)), st.integers(0, 255))


def _dependent() -> SearchStrategy[Explained]:
    """Too many samples, or samples of a plane, which two false ones explain as well."""
    from hypothesis import strategies as st

    def true_one(explained: Explained) -> Explained | None:
        found = false_set(explained)
        return None if found is None else replace(explained, kind="coplanar")

    return base.present(st.one_of(_too_many(), planes().map(true_one)))


def _has_known_lengths(instance: Explained) -> bool:
    """|x_i| = 1; for margins |f(x_i)| equal and the largest norm 1; with a bias any length."""
    if instance.scale == "bias":
        return True
    if instance.scale == "margin":
        again = base.with_margins(instance)
        if again is None:
            return False
        gaps = np.linalg.norm(again.samples - instance.samples, axis=1)
        return bool(np.all(gaps <= 1e-9))
    return base.has_unit_samples(instance)


def _longer() -> SearchStrategy[Explained]:
    """Samples of other lengths."""
    return base.gradients(kinds=("generic", "digits"))


def _inexact() -> SearchStrategy[Explained]:
    """Data of which every row is off by a tenth."""

    def build(instance: Explained) -> Explained:
        data = instance.data
        rng = np.random.default_rng([instance.seed, 10])
        if data.source != "gradient":
            factor = 1.0 + rng.uniform(0.1, 0.3, size=(data.network.width, 1))
            hidden, output = data.network.hidden_weight * factor, data.network.output_weight
            moved = HermiteData.from_kkt(TwoLayerNetwork(hidden, output, data.degree))
            return replace(instance, data=moved)
        noise = rng.standard_normal(data.rows.shape)
        noise *= 0.1 * np.linalg.norm(data.rows) / np.linalg.norm(noise)
        return replace(instance, data=replace(data, rows=data.rows + noise))

    return _plain().map(build)


def low_power() -> AbstractContextManager[object]:
    """Hermite equations with a power too few."""
    original = HermiteEquations.residual

    def broken(self: HermiteEquations, terms: FloatArray) -> FloatArray:
        self.power -= 1
        try:
            return original(self, terms)
        finally:
            self.power += 1

    return patch.object(HermiteEquations, "residual", broken)


THEOREM = Statement(
    name="recovery",
    title="Weights determine independent samples",
    sentence=(
        "If the neurons interpolate on the span of the samples and the samples are independent, "
        "of unit norm, of equal margins, or seen with a bias, then samples and multipliers are "
        "found from the weights (a KKT point, a point stationary under weight decay, or one "
        "gradient) up to order and, without a bias, sign."
    ),
    formula=r"T = \sum_i b_i x_i^{\otimes\alpha}\ \text{and}\ \{(x_i, b_i)\}\ "
    r"\text{are functions of the weights}",
    source=(
        "Shen, Wang, Qian & Lei 2026 (Theorem 4.1), with the weaker condition I-hermite in place "
        "of interpolation; " + KRUSKAL
    ),
    hypotheses=(
        Hypothesis(
            "I-hermite",
            DETERMINED,
            base.is_determined,
            lambda: base.gradients(counts=(2, 4), kinds=("generic",), width=_few, unit=True),
        ),
        Hypothesis("independent", INDEPENDENT, base.is_independent, _dependent),
        Hypothesis(
            "lengths",
            "|x_i| = 1, or all |f(x_i)| agree and the largest norm is 1, or there is a bias",
            _has_known_lengths,
            _longer,
        ),
        Hypothesis(
            "exact",
            "the weights satisfy the equations, to the rounding of the numbers that are read",
            base.is_exact,
            _inexact,
        ),
    ),
    instances=_problems,
    conclusion=recovers,
    sabotages=(
        Sabotage("sign", "with the signs of the samples", conclusion=_recovers_signs),
        Sabotage("power", "Hermite equations of degree alpha - 1", implementation=low_power),
    ),
    cost="medium",
    code=(
        "identify.recovery.measure.measure",
        "identify.recovery.samples.to_samples",
        "identify.recovery.bounds.bound_errors",
        "identify.exposure.compare.compare_recovery",
    ),
    remark=(
        "The number of samples is given. Every sample is compared with the error bound that the "
        "report prints, in float64 and after rounding to float32. Without a convention for the "
        "lengths directions are still found. The set need not be the true one: two false samples "
        "that explain three of a plane are found in their place."
    ),
)


# --- the only explanation by at most r samples -------------------------------------------------


@dataclass(frozen=True, eq=False)
class Question:
    """Does another set of `count` samples explain the same data?"""

    explained: Explained
    count: int

    def __repr__(self) -> str:
        return f"Question(sets of {self.count}, {self.explained!r})"


def _questions(more: tuple[int, ...] = (-1, 0, 0)) -> SearchStrategy[Question]:
    from hypothesis import strategies as st

    def build(explained: Explained, change: int) -> Question:
        return Question(explained, max(1, len(explained.samples) + change))

    problems = st.one_of(base.gradients(), base.plantings(counts=(2, 3)))
    return st.builds(build, problems, st.sampled_from(more))


def _narrow_questions() -> SearchStrategy[Question]:
    problems = base.gradients(counts=(2, 3), kinds=("generic", "orthonormal"), width=_square)
    return problems.map(lambda explained: Question(explained, len(explained.samples)))


def _square(degree: int, count: int) -> tuple[int, int]:
    return count, count


def _crowded_questions() -> SearchStrategy[Question]:
    problems = base.gradients(counts=(2, 3), degrees=(3,), kinds=("generic", "orthonormal"))
    return problems.map(lambda explained: Question(explained, len(explained.samples) + 1))


def _coplanar_questions() -> SearchStrategy[Question]:
    from hypothesis import strategies as st

    drawn = st.builds(
        coplanar_data, st.integers(3, 5), st.integers(0, 1), st.just(3), st.integers(0, 255)
    )
    return drawn.map(lambda explained: Question(explained, explained.samples.shape[1]))


def departure(terms: FloatArray, truth: FloatArray, degree: int) -> float:
    """How far two sets of terms are apart: the largest sine to the nearest of the other set.

    Parallel terms count as one, and terms below 1e-9 of the largest, |z|^alpha, as none.
    """
    kept = []
    for rows in (terms, truth):
        lengths = np.linalg.norm(rows, axis=1)
        live = (lengths / lengths.max()) ** degree > 1e-9
        kept.append(rows[live] / lengths[live, None])
    cosines = kept[0] @ kept[1].T
    signs = np.where(cosines < 0.0, -1.0, 1.0)
    gaps = np.linalg.norm(kept[0][:, None] - signs[..., None] * kept[1], axis=2)
    return float(max(gaps.min(axis=1).max(), gaps.min(axis=0).max()))


def search(question: Question) -> Pair | None:
    """Two different sets of this size by the search behind `alternatives`, None if none is found.

    It is told that the linear equations leave T open: else it takes this statement for granted.
    """
    explained = question.explained
    reduced = reduce_data(explained.data, base.NOISE)
    linear = interpolate(reduced, base.NOISE, seed=explained.seed)
    return pairs.search_sets(
        explained.data, reduced, replace(linear, determined=False), base.NOISE,
        samples=question.count, scale="free", non_negative=False, seed=explained.seed, starts=6,
    )  # fmt: skip


def _only_one(question: Question) -> Check:
    explained = question.explained
    if search(question) is not None:
        return Check.of(False, f"the search finds two sets of {question.count} samples")
    rivals = base.find_rivals(explained, question.count)
    gaps = [departure(terms, rivals.truth, explained.data.degree) for terms in rivals.sets]
    # A relative residual e moves the terms by e / sigma_min; rounding counts as a residual.
    terms = explained.data.rows.size + 4 * explained.data.degree
    error = max((0.0, *rivals.residuals)) + 4.0 * terms * UNIT
    allowed = min(1e-2, 4.0 * error / max(rivals.stiffness, 1e-300))
    return Check.compare(max((0.0, *gaps)), allowed, f"{len(gaps)} sets found")


def _none_at_all(question: Question) -> Check:
    return Check.of(not base.find_rivals(question.explained, question.count).sets)


def _is_decisive(question: Question) -> bool:
    """Whether a residual of 1e-13 would show a set that differs by a thousandth."""
    explained = question.explained
    return base.find_rivals(explained, 1, starts=1, steps=1).stiffness > 1e-9


def _flat_start() -> AbstractContextManager[object]:
    """Search equations without the dependence on the term itself: (u . z)^(alpha-1) of degree 0."""
    original = SetEquations.residual

    def broken(self: SetEquations, terms: FloatArray, signs: FloatArray) -> FloatArray:
        turned = terms.copy()
        turned[:, :, 0] *= 1.01
        return original(self, turned, signs)

    return patch.object(SetEquations, "residual", broken)


def _always_different() -> AbstractContextManager[object]:
    """A search that takes the same set for another one."""
    return patch.object(SetRules, "difference", lambda self, first, second: 1.0)


AT_MOST = Statement(
    name="only-explanation",
    title="No other set of at most r samples",
    sentence=(
        "If I-hermite holds on V, r = dim V, and r independent samples explain the data, then "
        "they are the only set of at most r samples, anywhere in the input space, that does."
    ),
    formula=r"\textstyle\sum_{i\le k} b'_i (u_j\cdot x'_i)^{\alpha-1} x'_i = g_j\ \forall j,\ "
    r"k \le r \implies \{(x'_i, b'_i)\} = \{(x_i, b_i)\}",
    source=KRUSKAL + "; ours for sets of at most r samples off V",
    hypotheses=(
        Hypothesis(
            "I-hermite",
            DETERMINED,
            lambda question: base.is_determined(question.explained),
            _narrow_questions,
        ),
        Hypothesis(
            "independent",
            "r independent samples explain the data",
            lambda question: base.is_independent(question.explained),
            _coplanar_questions,
        ),
        Hypothesis(
            "at-most",
            "the other set has at most r samples",
            lambda question: question.count <= base.span_rank(question.explained),
            _crowded_questions,
        ),
    ),
    instances=lambda: _questions().filter(_is_decisive),
    conclusion=_only_one,
    sabotages=(
        Sabotage("none", "no set of at most r samples at all", conclusion=_none_at_all),
        Sabotage("axis", "a coordinate too large by a hundredth", implementation=_flat_start),
        Sabotage("same", "a search that takes one set for two", implementation=_always_different),
    ),
    cost="medium",
    code=("identify.alternatives.pairs.search_sets",),
    remark=(
        "Sets come from random starts in the whole input space, and from the search that is shown "
        "to users, which is told that T is open. Without independence three cubes "
        "of a plane may be two others; with one sample more the cubic case has a continuum."
    ),
)


STATEMENTS = (THEOREM, AT_MOST)
