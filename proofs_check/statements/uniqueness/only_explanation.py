"""Who else could have made the weights: no other set of at most r samples."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify.alternatives import pairs
from identify.alternatives.admissible import SetRules
from identify.alternatives.pairs import Pair
from identify.arrays import FloatArray
from identify.hermite.reduction import reduce_data
from identify.interpolation.interpolate import interpolate
from identify.recovery.assumptions import Assumptions
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.planes import planes
from proofs_check.statements.uniqueness.recovery import DETERMINED, KRUSKAL

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


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
    return planes().map(lambda explained: Question(explained, explained.samples.shape[1]))


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
        SetRules(explained.data, base.NOISE, Assumptions(samples=question.count, scale="free")),
        reduced, replace(linear, determined=False), seed=explained.seed, starts=6,
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
        Sabotage(
            "axis", "a coordinate too large by a hundredth", implementation=base.scaled_search
        ),
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

STATEMENTS = (AT_MOST,)
