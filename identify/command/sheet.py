"""Contact sheets as the commands write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from identify.arrays import FloatArray
from identify.command.inputs import open_mean
from identify.command.options import ImageOptions
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
from identify.records import TrainingSet
from identify.report.report import IdentifiabilityReport, sheet_title
from identify.text import number


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
        self, path: Path, report: IdentifiabilityReport, sets: Sequence[TrainingSet] = ()
    ) -> None:
        """Draw the recovery, or the sets that differ, under the verdict."""
        assert self.shape is not None
        shown = tuple(sets) or report.alternatives
        rows: list[Row] = []
        if report.recovery is not None and not shown:
            found = report.recovery
            labels = [
                f"b {'>' if b > 0 else '<'} 0\n"
                + (f"error bound {number(float(e))}" if np.isfinite(e) else "no error bound")
                for b, e in zip(found.coefficients, found.error_bounds, strict=True)
            ]
            rows.append(("recovered", as_images(found.samples, self.shape, self.mean), labels))
        for index, other in enumerate(shown, start=1):
            signs = [f"b {'>' if b > 0 else '<'} 0" for b in other.coefficients]
            caption = f"training set {index}: {other.count} samples"
            rows.append((caption, as_images(other.samples, self.shape, self.mean), signs))
        title = "Training sets that explain the same data" if sets else sheet_title(report)
        contact_sheet(path, rows, title, limits=self.limits, footnote=self._footnote(report))

    def _footnote(self, report: IdentifiabilityReport) -> str:
        parts = []
        if self.limits is None:
            parts.append("every image from its smallest to its largest value")
        else:
            parts.append(f"black {self.limits[0]:g}, white {self.limits[1]:g}")
        if self.mean is not None:
            parts.append("mean image added")
        parts += [
            f"the {word} of an image is not determined"
            for word in ("sign", "scale")
            if any(text.startswith(word) for text in report.symmetries)
        ]
        return "; ".join(parts)
