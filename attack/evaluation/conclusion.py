"""Whether candidates are nearer to the true samples than what knows nothing of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attack.evaluation.scores import NULL_NAMES, Evaluation, SetScores
from identify.arrays import FloatArray

LEVEL = 0.05
_FEWEST = 6
"""Samples below which no two-sided signed-rank test reaches the level: 2 / 2^5 > 0.05."""


@dataclass(frozen=True)
class Comparison:
    """Candidates against one null over the `samples` that both have a partner for.

    `found` and `null` are the medians of the measure, `better` counts the samples on which the
    candidates are better, and `p` is that of the two-sided Wilcoxon signed-rank test.
    """

    name: str
    samples: int
    found: float
    null: float
    better: int
    p: float
    ahead: bool


@dataclass(frozen=True)
class Conclusion:
    """The comparisons by `measure`, the strongest null first; `word` sums them up.

    "better": than every null at the level; "worse": than some null at the level; "equal": neither.
    """

    word: str
    measure: str
    comparisons: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, with the sentence."""
        return {**asdict(self), "comparisons": [asdict(c) for c in self.comparisons],
                "sentence": str(self)}  # fmt: skip

    def __str__(self) -> str:
        if not self.comparisons:
            return "Conclusion: none: no sample has both a candidate and a null to compare."
        one = self.comparisons[0]
        verdict = {
            "better": "better than everything that knows nothing of the samples",
            "worse": f"worse than the {NULL_NAMES[one.name]}",
            "equal": f"not told apart from the {NULL_NAMES[one.name]}",
        }[self.word]
        knows = "which know the span alone" if "span" in one.name else "which know nothing of them"
        which = "the strongest null" if self.word == "better" else knows
        text = (
            f"Conclusion: {verdict}: median {self.measure} {one.found:.3g} against {one.null:.3g} "
            f"of the {NULL_NAMES[one.name]}, {which}; better on {one.better} of {one.samples} "
            f"samples, p = {one.p:.2g} (Wilcoxon signed-rank test over the samples of this run)."
        )
        if one.samples < _FEWEST:
            text += f" Fewer than {_FEWEST} samples cannot tell them apart."
        return text


def conclude(evaluation: Evaluation) -> Conclusion:
    """Compare one-to-one pairs, sample by sample, with those of every null.

    Images are compared by the correlation of pairs matched by NCC, which no brightness or contrast
    changes; rows of a table by the Euclidean distance of pairs matched by it. The test takes the
    samples as independent, which pairs of one matching are only nearly; it speaks of this run and
    of no other. The cost is one sort for each null.

    Source: Wilcoxon (1945), "Individual comparisons by ranking methods".

    Example:
        >>> from attack.evaluation.evaluate import evaluate
        >>> rng = np.random.default_rng(0)
        >>> truth, others = rng.random((8, 8, 8)), rng.random((8, 8, 8))
        >>> conclude(evaluate(truth, truth, (8, 8), held_out=others)).word
        'better'
        >>> conclude(evaluate(rng.random((8, 8, 8)), truth, (8, 8), held_out=others)).word
        'equal'
    """
    table = len(evaluation.image_shape) == 1
    pipeline, measure = ("matched_l2", "l2") if table else ("matched_ncc", "correlation")
    sign = -1.0 if table else 1.0
    found = _values(evaluation.found, pipeline, measure)
    rows = []
    for name, null in evaluation.null.items():
        other = _values(null, pipeline, measure)
        both = np.isfinite(found) & np.isfinite(other)
        if both.any():
            rows.append(_compare(name, found[both], other[both], sign))
    rows.sort(key=lambda row: (row.ahead, -sign * row.null))
    losing = [row for row in rows if not row.ahead and row.p < LEVEL]
    word = "equal"
    if losing:
        word, rows = "worse", [*losing, *(row for row in rows if row not in losing)]
    elif rows and all(row.ahead and row.p < LEVEL for row in rows):
        word = "better"
    else:
        rows.sort(key=lambda row: row.ahead and row.p < LEVEL)
    return Conclusion(word, "distance" if table else "correlation", tuple(rows))


def _values(part: SetScores, pipeline: str, measure: str) -> FloatArray:
    scores = part.scores[pipeline]
    return np.asarray(np.where(scores.indices >= 0, getattr(scores, measure), np.nan))


def _compare(name: str, found: FloatArray, null: FloatArray, sign: float) -> Comparison:
    from scipy.stats import wilcoxon

    gain = sign * (found - null)
    p = float(wilcoxon(gain, zero_method="pratt").pvalue) if gain.any() else 1.0
    better = int(np.count_nonzero(gain > 0.0))
    ahead = float(np.median(gain)) > 0.0
    return Comparison(
        name, len(gain), float(np.median(found)), float(np.median(null)), better, p, ahead
    )
