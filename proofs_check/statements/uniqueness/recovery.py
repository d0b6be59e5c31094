"""From weights to samples: recovery end to end, and who else could have made the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify import HermiteData, Recovery, TwoLayerNetwork, compare_recovery
from identify.alternatives.equations import SetEquations
from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations
from identify.hermite.stationarity import stationarity
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KRUSKAL = "Kruskal 1977 (uniqueness for independent terms)"
DETERMINED = "I-hermite: the matrix H of the Hermite equations on V has rank N"
INDEPENDENT = "the samples are linearly independent"


# --- recovery end to end -----------------------------------------------------------------------


def _problems() -> SearchStrategy[Explained]:
    from hypothesis import strategies as st

    return st.one_of(base.plantings(), base.gradients(counts=(1, 4), unit=True))


def recover(instance: Explained) -> tuple[Recovery | None, float]:
    """What is recovered without the truth, None if nothing is, and the noise level."""
    given = Assumptions(len(instance.samples), "free", False, None)
    findings = measure(instance.data, given, seed=instance.seed)
    found, bounds = findings.samples, findings.bounds
    if found is None or bounds is None:
        return None, findings.noise_level
    return Recovery(found.samples, found.coefficients, bounds.samples, {}), findings.noise_level


def _recovers(instance: Explained) -> Check:
    """Recover, then compare: every sample within its error bound."""
    found, noise = recover(instance)
    if found is None:
        return Check.of(False, "nothing is recovered")
    explained = stationarity(instance.data, found.samples, found.coefficients)
    if not explained <= 10.0 * noise:
        return Check.compare(explained, 10.0 * noise, "the set explains nothing")
    table = compare_recovery(found, instance.samples, instance.data.degree, "unit")
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
    return Check.compare(float(gaps.min(axis=1).max()), 1e-3)


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

    return _problems().map(build)


def _low_power() -> AbstractContextManager[object]:
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
        "If the neurons interpolate on the span of the samples and the samples are independent "
        "unit vectors, then samples and multipliers are found from the weights (a KKT point, a "
        "point stationary under weight decay, or one gradient) up to order and sign."
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
        Hypothesis("independent", INDEPENDENT, base.is_independent, _too_many),
        Hypothesis("unit", "|x_i| = 1", base.has_unit_samples, _longer),
        Hypothesis("exact", "the weights satisfy the equations exactly", base.is_exact, _inexact),
    ),
    instances=_problems,
    conclusion=_recovers,
    sabotages=(
        Sabotage("sign", "with the signs of the samples", conclusion=_recovers_signs),
        Sabotage("power", "Hermite equations of degree alpha - 1", implementation=_low_power),
    ),
    cost="medium",
    code=("identify.assess_identifiability", "identify.plant_network", "identify.HermiteData"),
    remark=(
        "The number of samples is given. Every sample is compared with the error bound that the "
        "report prints. Without unit norms directions are still found, lengths are not."
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


def coplanar_data(count: int, further: int, degree: int, seed: int) -> Explained:
    """One gradient of `count` samples in a plane and `further` independent ones."""
    rng = np.random.default_rng([seed, count, further])
    dimension = 2 + further
    angles = np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    samples = np.zeros((count + further, dimension))
    samples[:count, :2] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    samples[count:] = rng.standard_normal((further, dimension))
    width = base.neurons_needed(degree, dimension) + 1
    b = base.draw_coefficients(count + further, seed)
    turn, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    return base.gradient_data(samples @ turn, b, degree, width, "coplanar", seed)


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


def _only_one(question: Question) -> Check:
    explained = question.explained
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
    ),
    cost="medium",
    code=("identify.alternatives.pairs.search_sets", "identify.verdict.rules.judge"),
    remark=(
        "Sets come from random starts in the whole input space. Without independence three cubes "
        "of a plane may be two others; with one sample more the cubic case has a continuum."
    ),
)


STATEMENTS = (THEOREM, AT_MOST)
