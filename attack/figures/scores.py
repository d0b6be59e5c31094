"""Numbers for figures: scores of runs, of their null, of their start; pairs of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from attack.runs.finished import RunResult
from identify.arrays import FloatArray


@dataclass(frozen=True)
class Score:
    """One number of an evaluation: pipeline, key of its summary, how it is called."""

    pipeline: str
    key: str
    name: str

    def found(self, run: RunResult) -> float | None:
        """The score of the candidates; None without an evaluation."""
        return None if run.evaluation is None else self._of(run.evaluation["found"])

    def null(self, run: RunResult) -> float | None:
        """The score of held-out images in place of the candidates."""
        given = (run.evaluation or {}).get("null", {}).get("held_out")
        return None if given is None else self._of(given)

    def start(self, run: RunResult) -> float | None:
        """The score of the start, for runs that started from images."""
        given = (run.evaluation or {}).get("start")
        return None if given is None else self._of(given["found"])

    def _of(self, part: Mapping[str, Any]) -> float | None:
        summary = part["scores"][self.pipeline]["summary"]
        # The number of best pairs is a setting: "top 10 ssim", "top 25 ssim".
        key = self.key
        if key.startswith("top "):
            key = next(k for k in summary if k.startswith("top ") and k.endswith(key[3:]))
        value = summary.get(key)
        return None if value is None else float(value)


RECOVERED = Score("matched_ncc", "ssim > 0.4", "samples with SSIM > 0.4, one to one")
SSIM = Score("matched_ncc", "top ssim", "SSIM, mean of the best")
L2 = Score("matched_l2", "top l2", "L2 distance, mean of the best")
MEDIAN_SSIM = Score("matched_ncc", "median ssim", "SSIM, median of all")
MEDIAN_L2 = Score("matched_l2", "median l2", "L2 distance, median of all")


def mates_of(runs: Iterable[RunResult]) -> list[tuple[RunResult, RunResult]]:
    """Pairs of runs without and with splitting that agree in all else, the truth included."""
    every = list(runs)
    found = []
    for before in every:
        if before.splitting != "off":
            continue
        for after in every:
            same = before.identity == after.identity and _truth(before) == _truth(after)
            if after.splitting != "off" and same:
                found.append((before, after))
    return found


def _truth(run: RunResult) -> Any:
    return None if run.evaluation is None else run.evaluation["truth"]["sha256"]


def pair_values(run: RunResult, pipeline: str, key: str, *, null: bool = False) -> FloatArray:
    """The metric of every true sample, NaN without a pair; with `null` of held-out images.

    One NaN where there is no such comparison.
    """
    evaluation = run.evaluation or {}
    part = evaluation.get("null", {}).get("held_out") if null else evaluation.get("found")
    if part is None:
        return np.array([np.nan])
    return np.array([np.nan if v is None else v for v in part["scores"][pipeline][key]])


def mean_of(values: FloatArray) -> float | None:
    """The mean of what is finite, None if nothing is.

    Example:
        >>> mean_of(np.array([1.0, np.nan, 3.0])), mean_of(np.array([np.nan]))
        (2.0, None)
    """
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else None
