"""Candidates against the true samples, beside what knows nothing of them.

No solver reads this module: the truth chooses no run, no candidate and no setting, only the
partners in the matchings that are reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attack.evaluation import metrics
from attack.evaluation.matching import IntArray, assign, best_per_sample
from attack.evaluation.scores import (
    METRICS,
    PIPELINES,
    Evaluation,
    EvaluationSettings,
    Scores,
    SetScores,
)
from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError

__all__ = ["Evaluation", "EvaluationSettings", "Scores", "SetScores", "evaluate"]


def evaluate(
    candidates: npt.ArrayLike,
    truth: npt.ArrayLike,
    image_shape: tuple[int, ...],
    *,
    mean: npt.ArrayLike | None = None,
    held_out: npt.ArrayLike | None = None,
    span: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    settings: EvaluationSettings | None = None,
) -> Evaluation:
    """Compare all candidates of a run with the true samples, one to one and with replacement.

    Four pipelines: one-to-one by NCC and by L2; greedy by L2; nearest by NCC with replacement and
    every candidate stretched to [0, 1], the published one, which overstates. Each is run also on
    held-out images, on the mean image once per sample (of the held-out images if given, else of
    the samples), and on noise of the samples' standard deviation around it. Where the mean of the
    samples would be the truth, of one sample or of equal ones, it is left out, and the noise has
    the mean and deviation of uniform pixels. Rows of a table have distances and no pixels.
    Candidates that were kept in a span are compared with two more, which know it too: random points
    of the span with the spread of that noise, and the held-out images projected into it.

    Args:
        candidates: (m, D) or (m, H, W[, C]), in the coordinates of the truth.
        truth: the samples (n, D) or (n, H, W[, C]).
        image_shape: (H, W) or (H, W, C), the order of the pixels in a row; (D,) for a table.
        mean: what was removed from the samples, (D,) or anything that broadcasts to it or to
            `image_shape`; None if nothing. truth + mean must be pixels in the range.
        held_out: images of the same kind that were not trained on, the same mean removed. As many
            as there are candidates are used, chosen by the seed; fewer make a weaker null.
        span: a point (D,) and directions (r, D) of the affine span of the candidates, if any.
        settings: windows, thresholds, seed.

    Raises:
        InvalidInputError: arrays that do not fit or are not finite; truth + mean out of range.

    Cost: for each set 3 products of n m D and two assignments, 10 s in all for m = 1000, n = 500,
        D = 3072 on one core; 3 matrices (n, m).
    Source: Haim et al. (2022), "Reconstructing training data from trained neural networks"
        (nearest, extraction score); Loo et al. (2024), "Understanding reconstruction attacks with
        the neural tangent kernel" (greedy, curve).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth, others = rng.random((6, 8, 8)), rng.random((6, 8, 8))
        >>> result = evaluate(truth[::-1], truth, (8, 8), held_out=others)
        >>> result.found.scores["matched_l2"].indices
        array([5, 4, 3, 2, 1, 0])
        >>> table = result.null["held_out"].scores["nearest_ncc"].summary(result.settings)
        >>> table["pairs"], table["ssim > 0.4"]
        (6, 0)
    """
    settings = settings or EvaluationSettings()
    shape = tuple(int(side) for side in image_shape)
    metrics.check_image_shape(shape)
    dimension = math.prod(shape)
    true = _rows("truth", truth, dimension)
    found = _rows("candidates", candidates, dimension)
    removed = _mean(mean, shape)
    bench = _Bench(true, removed, shape, settings)
    rng = np.random.default_rng(settings.seed)
    others = None if held_out is None else _rows("held_out", held_out, dimension)
    null: dict[str, SetScores] = {}
    if others is not None:
        chosen = np.sort(rng.permutation(len(others))[: len(found)])
        null["held_out"] = bench.measure(others[chosen])
    centre = (true if others is None else others).mean(axis=0)
    spread = float(np.sqrt(np.mean((true - centre) ** 2)))
    known = others is None and spread < 1e-6 * float(np.abs(true).max(initial=0.0))
    if known:
        # The mean of one sample is the sample: a null must not know the truth.
        low, high = settings.pixel_range
        centre, spread = 0.5 * (low + high) - removed, (high - low) / math.sqrt(12.0)
    # The mean of mean-reduced images is rounding noise, which NCC would blow up to an image.
    centre[np.abs(centre) < 1e-12 * (spread or 1.0)] = 0.0
    if not known:
        null["mean_image"] = bench.measure(np.tile(centre, (len(true), 1)))
    noise = rng.standard_normal((len(found), dimension))
    null["random"] = bench.measure(centre + spread * noise)
    if span is not None:
        inside = _Span.of(span, dimension)
        points = inside.random(centre, spread, len(found), rng)
        null["span_random"] = bench.measure(points)
        if others is not None:
            null["span_held_out"] = bench.measure(inside.project(others[chosen]))
    return Evaluation(
        found=bench.measure(found),
        null=null,
        settings=settings,
        samples=len(true),
        image_shape=shape,
        held_out_given=0 if others is None else len(others),
    )


@dataclass(frozen=True, eq=False)
class _Span:
    """The points of an affine span: `point` (D,) plus combinations of orthonormal `rows` (r, D)."""

    point: FloatArray
    rows: FloatArray

    @staticmethod
    def of(given: tuple[npt.ArrayLike, npt.ArrayLike], dimension: int) -> _Span:
        point, rows = (real_array("span", part) for part in given)
        if point.shape != (dimension,) or rows.ndim != 2 or rows.shape[1:] != (dimension,):
            shapes = f"{point.shape}, {rows.shape}"
            raise InvalidInputError("span", f"({dimension},) and (r, {dimension})", shapes)
        return _Span(point, np.linalg.qr(rows.T)[0].T)

    def project(self, samples: FloatArray) -> FloatArray:
        """The nearest points of the span."""
        return np.asarray(self.point + (samples - self.point) @ self.rows.T @ self.rows)

    def random(
        self, centre: FloatArray, spread: float, count: int, rng: np.random.Generator
    ) -> FloatArray:
        """Points whose mean square distance from the centre is that of noise in all pixels."""
        noise = rng.standard_normal((count, len(self.rows))) @ self.rows
        scale = spread * math.sqrt(len(centre) / max(1, len(self.rows)))
        return np.asarray(self.project(centre[None]) + scale * noise)


class _Bench:
    """The truth, prepared once for all sets of candidates."""

    def __init__(
        self, true: FloatArray, mean: FloatArray, shape: metrics.Shape, settings: EvaluationSettings
    ) -> None:
        self.true, self.mean, self.shape, self.settings = true, mean, shape, settings
        low, high = settings.pixel_range
        self.table = len(shape) == 1
        self.pixels = (true + mean - low) / (high - low)
        darkest, brightest = float(self.pixels.min()), float(self.pixels.max())
        # Images that were stored as float32 or float16 may stick out by their rounding.
        if not self.table and (darkest < -1e-3 or brightest > 1.0 + 1e-3):
            raise InvalidInputError(
                "truth", f"pixels in [{low:g}, {high:g}] with the mean added",
                f"{low + darkest * (high - low):.3g} to {low + brightest * (high - low):.3g}",
                "give the mean that was removed, or the pixel range",
            )  # fmt: skip
        norms = np.linalg.norm(true - true.mean(axis=0), axis=1)
        self.norms = np.where(norms > 0.0, norms, float(norms.max()) or 1.0)
        self.halved = settings.half_size and not self.table
        self.small = metrics.half_size(true, shape) if self.halved else (true, shape)

    def measure(self, candidates: FloatArray) -> SetScores:
        """Every pipeline on one set of candidates."""
        small, shape = candidates, self.shape
        if self.halved:
            small, shape = metrics.half_size(candidates, self.shape)
        distances = {
            "l2": metrics.l2_matrix(self.true, candidates),
            "ncc": metrics.ncc_matrix(self.small[0], small, shape),
        }
        height, width, channels = metrics.check_image_shape(shape)
        scales: dict[str, float | FloatArray] = {
            "l2": self.norms,
            "ncc": 2.0 * (height * width - 1) * channels,
        }
        low, high = self.settings.pixel_range
        pixels = {
            "clip": np.clip((candidates + self.mean - low) / (high - low), 0.0, 1.0),
            "min-max": metrics.min_max(candidates + self.mean),
        }
        scores = {
            name: self._score(
                (matching, measure, scaling),
                assign(distances[measure], matching, scales[measure]),
                candidates,
                pixels[scaling],
            )
            for name, (matching, measure, scaling) in PIPELINES.items()
        }
        full = metrics.ncc_matrix(self.true, candidates, self.shape)
        extraction = {"ncc": self._top(full), "l2_squared": self._top(distances["l2"] ** 2)}
        return SetScores(len(candidates), scores, extraction)

    def _score(
        self,
        kind: tuple[str, str, str],
        indices: IntArray,
        candidates: FloatArray,
        pixels: FloatArray,
    ) -> Scores:
        rows = np.flatnonzero(indices >= 0)
        chosen = indices[rows]
        values = {
            "l2": metrics.l2(candidates[chosen], self.true[rows]),
            "correlation": metrics.correlation(candidates[chosen], self.true[rows], self.shape),
        }
        if not self.table:
            clipped = np.clip(self.pixels[rows], 0.0, 1.0)
            window = self.settings.ssim_window
            similarity = metrics.ssim(pixels[chosen], clipped, self.shape, window)
            values |= {
                "ssim": similarity,
                "dssim": metrics.dssim(similarity),
                "psnr": metrics.psnr(pixels[chosen], clipped),
            }
        every = {name: np.full(len(indices), np.nan) for name in METRICS}
        for name, value in values.items():
            every[name][rows] = value
        return Scores(*kind, indices, *(every[name] for name in METRICS))

    def _top(self, distances: FloatArray) -> float | None:
        best = np.sort(best_per_sample(distances))[: self.settings.top]
        return float(best.mean()) if np.isfinite(best).all() else None


def _rows(name: str, value: npt.ArrayLike, dimension: int) -> FloatArray:
    array = real_array(name, value)
    if array.ndim < 2 or len(array) == 0 or math.prod(array.shape[1:]) != dimension:
        raise InvalidInputError(name, f"shape (count, {dimension}), count >= 1", array.shape)
    return array.reshape(len(array), dimension)


def _mean(value: npt.ArrayLike | None, shape: metrics.Shape) -> FloatArray:
    if value is None:
        return np.zeros(math.prod(shape))
    array = real_array("mean", value)
    if array.size == math.prod(shape):
        return array.reshape(-1)
    try:
        return np.broadcast_to(array, shape).reshape(-1)
    except ValueError as error:
        expected = f"{math.prod(shape)} numbers, or fewer that broadcast to {shape}"
        raise InvalidInputError("mean", expected, array.shape) from error
