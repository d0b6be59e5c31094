"""What an evaluation holds: settings, scores of pairs, the table, JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from attack.evaluation import metrics
from attack.evaluation.matching import IntArray
from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.markup import Shown

PIPELINES: Mapping[str, tuple[str, str, str]] = {
    "matched_ncc": ("one-to-one", "ncc", "min-max"),
    "matched_l2": ("one-to-one", "l2", "clip"),
    "greedy_l2": ("greedy", "l2", "clip"),
    "nearest_ncc": ("nearest", "ncc", "min-max"),
}
"""Name -> (matching, its distance, how pixels are brought to [0, 1] for SSIM, DSSIM and PSNR)."""
METRICS = ("l2", "correlation", "ssim", "dssim", "psnr")
_HIGHER = ("correlation", "ssim", "psnr")
NULL_NAMES = {
    "held_out": "held-out images",
    "mean_image": "mean image",
    "random": "random images",
    "span_random": "random points of the span",
    "span_held_out": "held-out images projected into the span",
}
_NULLS = {
    "held_out": "held-out",
    "mean_image": "mean image",
    "random": "random",
    "span_random": "span random",
    "span_held_out": "in span",
}
_UNPRINTED = ("median correlation", "median dssim", "median psnr")
_WIDTH = 12


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation depends on beside the images; recorded in its result.

    Attributes:
        ssim_window: "gaussian-3" (the published attacks) or "gaussian-11" (torchmetrics).
        ssim_above: thresholds at which pairs are counted; 0.4 is that of the published attacks.
        l2_below: likewise for the Euclidean distance; by default its square below 10.
        top: how many best pairs enter the means.
        half_size: whether pairs are searched by NCC on images of half size, as published.
        pixel_range: darkest and brightest value of a pixel.
        seed: of the random candidates and the choice of held-out images.

    Raises InvalidInputError for values out of range.

    Example:
        >>> EvaluationSettings(ssim_above=(0.4, 0.6)).top
        10
    """

    ssim_window: str = "gaussian-3"
    ssim_above: tuple[float, ...] = (0.4,)
    l2_below: tuple[float, ...] = (math.sqrt(10.0),)
    top: int = 10
    half_size: bool = True
    pixel_range: tuple[float, float] = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ssim_window not in metrics.SSIM_WINDOWS:
            known = ", ".join(metrics.SSIM_WINDOWS)
            raise InvalidInputError("ssim_window", f"one of {known}", self.ssim_window)
        if self.top < 1:
            raise InvalidInputError("top", "at least 1", self.top)
        if self.seed < 0:
            raise InvalidInputError("seed", "at least 0", self.seed)
        low, high = self.pixel_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InvalidInputError("pixel_range", "LOW < HIGH", self.pixel_range)


@dataclass(frozen=True, eq=False)
class Scores:
    """The pairs of one matching, (n,) each, in the order of the true samples.

    `indices` of the candidates, -1 where there is none and all metrics are NaN; `l2` between
    mean-reduced images as they are; `correlation` the mean over channels of Pearson's, full size;
    `ssim`, `dssim` and `psnr` (dB, at most 200) on pixels in [0, 1] after `pixels`: "clip" to the
    range, or "min-max" of every candidate.
    """

    matching: str
    measure: str
    pixels: str
    indices: IntArray
    l2: FloatArray
    correlation: FloatArray
    ssim: FloatArray
    dssim: FloatArray
    psnr: FloatArray

    @property
    def pairs(self) -> int:
        """How many samples have a candidate."""
        return int(np.count_nonzero(self.indices >= 0))

    @property
    def distinct(self) -> int:
        """How many different candidates serve them."""
        return len(np.unique(self.indices[self.indices >= 0]))

    def best(self, metric: str, count: int) -> FloatArray:
        """The values of the `count` best pairs by that metric, best first."""
        values = np.sort(getattr(self, metric)[self.indices >= 0])
        return np.asarray(values[::-1] if metric in _HIGHER else values)[:count]

    def summary(self, settings: EvaluationSettings) -> dict[str, float | int | None]:
        """Counts at the thresholds, medians over all pairs and means over the best ones."""
        rows: dict[str, float | int | None] = {"pairs": self.pairs, "distinct": self.distinct}
        with np.errstate(invalid="ignore"):
            # Rows of a table have no pixels.
            drawn = bool(np.isfinite(self.ssim).any()) or self.pairs == 0
            for limit in settings.ssim_above:
                above = int(np.count_nonzero(self.ssim > limit))
                rows[f"ssim > {limit:g}"] = above if drawn else None
            for limit in settings.l2_below:
                rows[f"l2 < {limit:g}"] = int(np.count_nonzero(self.l2 < limit))
        for metric in METRICS:
            values = self.best(metric, self.pairs)
            values = values[np.isfinite(values)]
            rows[f"median {metric}"] = float(np.median(values)) if len(values) else None
            top = values[: settings.top]
            rows[f"top {settings.top} {metric}"] = float(top.mean()) if len(top) else None
        return rows


@dataclass(frozen=True, eq=False)
class SetScores:
    """All pipelines on one set of candidates.

    `extraction` holds the score of the published training loops: for every sample the least
    distance of the candidates nearest to it ("ncc", "l2_squared"), mean over the `top` samples
    where it is least; None if fewer samples have one. Lower is better.
    """

    candidates: int
    scores: Mapping[str, Scores]
    extraction: Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Evaluation(Shown):
    """How the candidates score, and how candidates score that know nothing of the samples.

    `null` holds the same pipelines for "held_out" (where images were given), "mean_image" and
    "random". `str()` is a table, `to_dict()` JSON without NaN.
    """

    found: SetScores
    null: Mapping[str, SetScores]
    settings: EvaluationSettings
    samples: int
    image_shape: tuple[int, ...]
    held_out_given: int

    @property
    def curve(self) -> FloatArray:
        """Loo's reconstruction curve: distances of the greedy matching, sorted, one per pair."""
        return self.found.scores["greedy_l2"].best("l2", self.samples)

    def to_dict(self, *, arrays: bool = True) -> dict[str, Any]:
        """A JSON-ready copy; `arrays` adds the values of every pair."""
        return {
            "samples": self.samples,
            "image_shape": list(self.image_shape),
            "held_out_given": self.held_out_given,
            "settings": _plain(dataclasses.asdict(self.settings)),
            "found": self._set_dict(self.found, arrays),
            "null": {name: self._set_dict(part, arrays) for name, part in self.null.items()},
        }

    def _set_dict(self, part: SetScores, arrays: bool) -> dict[str, Any]:
        pipelines: dict[str, Any] = {}
        for name, scores in part.scores.items():
            fields = {key: getattr(scores, key) for key in ("matching", "measure", "pixels")}
            fields["summary"] = scores.summary(self.settings)
            if arrays:
                fields |= {key: getattr(scores, key) for key in ("indices", *METRICS)}
            pipelines[name] = _plain(fields)
        return {
            "candidates": part.candidates,
            "scores": pipelines,
            "extraction": dict(part.extraction),
        }

    def __str__(self) -> str:
        size = " x ".join(map(str, self.image_shape))
        table = len(self.image_shape) == 1
        what = f"rows of {size} numbers" if table else f"images of {size}"
        title = f"{self.found.candidates} candidates against {self.samples} samples, {what}"
        columns = [("candidates", self.found)]
        columns += [(label, self.null[key]) for key, label in _NULLS.items() if key in self.null]
        lines = [title, "=" * len(title), _row("", [label for label, _ in columns])]
        lines.append(_row("count", [part.candidates for _, part in columns]))
        search = "NCC at half size" if self.settings.half_size and not table else "NCC"
        for name, (matching, measure, pixels) in PIPELINES.items():
            scaled = "" if table else f", pixels {pixels}"
            lines += ["", f"{matching} by {search if measure == 'ncc' else 'L2'}{scaled}"]
            tables = [part.scores[name].summary(self.settings) for _, part in columns]
            lines += [
                _row(f"  {self._name(key)}", [table[key] for table in tables])
                for key in tables[0]
                if key not in _UNPRINTED and any(part[key] is not None for part in tables)
            ]
        lines += ["", "candidates to their nearest sample, best per sample"]
        every: list[float | None] = []
        for key in self.found.extraction:
            values = [part.extraction[key] for _, part in columns]
            lines.append(_row(self._name(f"  top {self.settings.top} {key}"), values))
            every += values
        if None in every:
            few = min(self.settings.top, self.samples)
            lines.append(f"  (-: fewer than {few} samples are the nearest one of a candidate)")
        window = "" if table else f"SSIM window {self.settings.ssim_window}, "
        lines += ["", f"{window}seed {self.settings.seed}"]
        if "mean_image" not in self.null:
            lines.append("No mean image: that of the samples would be the truth.")
        if "held_out" not in self.null:
            lines.append("No held-out images given: the strongest null is missing.")
        return "\n".join(lines)

    def _name(self, key: str) -> str:
        """What a row is called: the best of few samples are all of them."""
        best = f"top {self.settings.top} "
        return key if self.samples >= self.settings.top else key.replace(best, "mean ")


def _plain(value: Any) -> Any:
    """The same value made of what JSON has; NaN becomes None."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _row(label: str, values: list[Any]) -> str:
    cells = ["-" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
    return (f"{label:<26}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)).rstrip()
