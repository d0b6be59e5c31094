"""Contact sheets as the commands write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from identify.arrays import FloatArray
from identify.command.inputs import open_mean
from identify.command.options import ImageOptions
from identify.command.sheet_rows import common_limits, fit_to_pixels, partners
from identify.errors import InvalidInputError
from identify.pictures import (
    Row,
    as_images,
    can_draw,
    contact_sheet,
    guess_image_shape,
    parse_image_shape,
    parse_range,
    recognise_image_shape,
    require_drawing,
)
from identify.records import Recovery, TrainingSet
from identify.report.report import IdentifiabilityReport, sheet_title
from identify.text import counted, number

_SAME = {
    "kkt": "weights",
    "weight-decay": "weights",
    "gradient": "gradient",
    "fine-tuning": "checkpoints",
}
_SETS = "samples are numbered as in alternatives.npz; cosine 1: alike in all but length"
_ERRORS = "error: bound relative to the length of the sample"


@dataclass(frozen=True, eq=False)
class Sheet:
    """How samples become pictures; without `shape` there is none, and `remark` says why."""

    shape: tuple[int, ...] | None
    remark: str = ""
    mean: FloatArray | None = None
    limits: tuple[float, float] | None = None
    guessed: bool = False

    @classmethod
    def from_options(cls, options: ImageOptions, dimension: int) -> Sheet:
        """Check the options against the number of entries of a sample.

        A shape that was asked for must be drawn; one that was guessed is drawn if it can be.
        """
        if options.no_images:
            return cls(None)
        limits = None if options.range is None else parse_range(options.range)
        mean = None if options.add_mean is None else open_mean(options.add_mean, dimension)
        wanted = {"--image-shape": options.image_shape, "--add-mean": mean, "--range": limits}
        asked = [name for name, value in wanted.items() if value is not None]
        if asked:
            require_drawing(asked[0])
        if options.image_shape is not None:
            return cls(parse_image_shape(options.image_shape, dimension), "", mean, limits)
        guess = guess_image_shape(dimension)
        if guess is None:
            if asked:
                raise InvalidInputError("--image-shape", f"H,W,C beside {asked[0]}", "none")
            return cls(None, f"no picture: give --image-shape for samples of {dimension} entries")
        if not can_draw():
            return cls(None, "no picture without matplotlib; pip install 'kktcert[demo]'")
        return cls(guess, "", mean, limits, guessed=True)

    def settled(self, samples: FloatArray) -> Sheet:
        """The sheet once samples are there that show the order of the channels."""
        if not self.guessed:
            return self
        rows = samples if self.mean is None else samples + self.mean
        shape, remark = recognise_image_shape(rows)
        return replace(self, shape=shape, remark=remark if shape else f"no picture: {remark}")

    def draw(
        self,
        path: Path,
        report: IdentifiabilityReport,
        sets: Sequence[TrainingSet] = (),
        *,
        given: bool = False,
    ) -> None:
        """Draw the recovery, or the sets that differ, under the verdict.

        With `given` the first set is the user's own: lengths and signs are kept.
        """
        shown, found = tuple(sets) or report.alternatives, report.recovery
        free_sign = any(text.startswith("sign") for text in report.symmetries) and not given
        free_length = any(text.startswith("scale") for text in report.symmetries) and not given
        samples = [other.samples for other in shown]
        if found is not None and not shown:
            samples = [found.samples]
        pixels, fitted = self._pixels(), False
        if self.mean is not None and free_length and pixels is not None:
            fitted = True
            samples = [fit_to_pixels(x, self.mean, pixels, free_sign=free_sign) for x in samples]
        rows: list[Row] = []
        if shown:
            # Signs that fit the pixels stand.
            rows = self._sets(samples, report, free_sign and not fitted, given)
        elif found is not None:
            rows = [("recovered", self.images(samples[0]), _bounds(found))]
        title = two_sets_title(report, sets) if sets else sheet_title(report)
        images = [np.asarray(row[1]) for row in rows]
        limits, words = self.grey(images, free_length=free_length, fitted=fitted)
        notes = [words, *self._notes(free_sign, free_length, fitted)]
        notes.append(_SETS if shown else _ERRORS)
        contact_sheet(path, rows, title, limits=limits, footnote="; ".join(notes))

    def images(self, samples: FloatArray) -> FloatArray:
        """Images of samples (n, d), with the mean if there is one."""
        if self.shape is None:
            raise InvalidInputError("--image-shape", "H,W,C", "none")
        return as_images(samples, self.shape, self.mean)

    def grey(
        self, images: Sequence[FloatArray], *, free_length: bool, fitted: bool = False
    ) -> tuple[tuple[float, float] | None, str]:
        """The values drawn black and white, None for those of each image, and words for them."""
        limits = self._pixels() if fitted else self.limits
        if limits is None and not free_length:
            limits = common_limits(images)
        if limits is None:
            return None, (
                "each image is stretched from black to white by itself: grey levels of two "
                "images do not compare"
            )
        return limits, f"one grey scale for all: black {limits[0]:.3g}, white {limits[1]:.3g}"

    def _pixels(self) -> tuple[float, float] | None:
        """The range that pixels have: the one given, or 0 to 1 if the mean image lies in it."""
        if self.limits is not None or self.mean is None:
            return self.limits
        inside = self.mean.min() >= 0.0 and self.mean.max() <= 1.0
        return (0.0, 1.0) if inside else None

    def _sets(
        self, samples: list[FloatArray], report: IdentifiabilityReport, free_sign: bool, given: bool
    ) -> list[Row]:
        """A row for each set, with like samples one above the other."""
        what = _SAME.get(str(report.problem.get("source")), "data")
        own = "your samples" if given else "one training set"
        # Every sample of the smallest set has a partner in each other set.
        fewest = min(samples, key=len)
        rows: list[Row] = []
        for each in samples:
            order, signs, alike = partners(
                # What is made of given samples, one of each, stays below them.
                fewest,
                each,
                free_sign=free_sign,
                keep_order=given and len(each) == len(fewest),
            )
            names = [f"sample {k + 1}" for k in order]
            if each is not fewest:
                for k, cosine in enumerate(alike):
                    names[k] += f"\ncosine {cosine:.2f}"
            count = counted(len(each), "sample")
            text = f"another training set with the same {what}" if rows else own
            rows.append((f"{text}: {count}", self.images(signs[:, None] * each[order]), names))
        return rows

    def _notes(self, free_sign: bool, free_length: bool, fitted: bool) -> list[str]:
        parts = [] if self.mean is None else ["mean image added"]
        words = [word for word, free in (("sign", free_sign), ("length", free_length)) if free]
        if fitted:
            left = " and ".join(words)
            parts.append(f"{left} of an image, which nothing fixes, such that the pixels fit")
        elif words:
            parts.append(f"not determined: {' and '.join(words)} of an image")
        return parts


def two_sets_title(report: IdentifiabilityReport, sets: Sequence[TrainingSet]) -> str:
    """The title over sets that explain the same data."""
    what = _SAME.get(str(report.problem.get("source")), "data")
    return f"{len(sets)} training sets that explain the same {what} equally well"


def _bounds(found: Recovery) -> list[str]:
    """A caption for every recovered image."""
    return [
        f"sample {k}\n" + (f"error < {number(float(e))}" if np.isfinite(e) else "no error bound")
        for k, e in enumerate(found.error_bounds, start=1)
    ]
