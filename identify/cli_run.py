"""What the commands share between reading files and writing results."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from identify.cli_inputs import open_mean
from identify.cli_options import AssumeOptions, EvidenceName, Format, ImageOptions, RunOptions
from identify.cli_output import Log, OutputFolder
from identify.errors import InvalidInputError
from identify.hermite import HermiteData
from identify.pictures import (
    FloatArray,
    Row,
    as_images,
    can_draw,
    contact_sheet,
    guess_image_shape,
    parse_image_shape,
    parse_range,
    require_drawing,
)
from identify.results import IdentifiabilityReport, TrainingSet
from identify.text import number, sheet_title, table


def assess(
    data: HermiteData,
    assume: AssumeOptions,
    run: RunOptions,
    log: Log,
    evidence: EvidenceName = EvidenceName.AUTO,
) -> tuple[IdentifiabilityReport, bool]:
    """The report, and whether Ctrl-C cut it short."""
    from identify.assess import assess_identifiability

    started = time.monotonic()
    try:
        with log.progress() as show:
            report = assess_identifiability(
                data,
                samples=assume.samples,
                scale=assume.scale.value,
                non_negative=assume.non_negative,
                noise=assume.noise,
                time_limit=run.time_limit,
                progress=show,
                seed=run.seed,
                evidence=evidence.value,
            )
    except KeyboardInterrupt:
        from identify.interrupted import interrupted_report

        partial = interrupted_report(
            data,
            stage=log.stage,
            seconds=time.monotonic() - started,
            seed=run.seed,
            samples=assume.samples,
            scale=assume.scale.value,
            non_negative=assume.non_negative,
            noise=assume.noise,
        )
        return partial, True
    return report, False


def show_report(report: IdentifiabilityReport, form: Format, folder: OutputFolder) -> None:
    """Print a report, and in text form what was written."""
    if form is Format.JSON:
        print(report.to_json(), end="", flush=True)
        return
    print(report)
    show_written(folder)


def show_written(folder: OutputFolder) -> None:
    """Print which files were written."""
    if folder.written:
        print(f"\nwritten to {folder.path}: {', '.join(folder.written)}", flush=True)


def show_sets(report: IdentifiabilityReport, sets: Sequence[TrainingSet], form: Format) -> None:
    """Print the sizes and residuals of training sets, and the verdict on the data."""
    facts = {
        "verdict": report.verdict.value,
        "reason": report.reason,
        "sets": [{"samples": s.count, "stationarity": s.stationarity} for s in sets],
    }
    if form is Format.JSON:
        print(json.dumps(facts, indent=2, allow_nan=False), flush=True)
        return
    title = "Training sets that explain the data"
    rows = [[str(k), str(s.count), number(s.stationarity)] for k, s in enumerate(sets, start=1)]
    lines = [title, "=" * len(title), f"verdict: {report.verdict.sentence}"]
    lines += table(["set", "samples", "residual"], rows) if rows else ["none found"]
    print("\n".join(lines), flush=True)


def show_facts(title: str, facts: Mapping[str, Any], form: Format) -> None:
    """Print names and values, aligned or as JSON."""
    if form is Format.JSON:
        print(json.dumps(facts, indent=2, allow_nan=False), flush=True)
        return
    rows = [[name.replace("_", " "), _spell(value)] for name, value in facts.items()]
    print("\n".join([title, "=" * len(title), *table(["", ""], rows, indent=0)[1:]]), flush=True)


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value)


def write_alternatives(folder: OutputFolder, sets: Sequence[TrainingSet]) -> None:
    """Write alternatives.npz if there are any sets."""
    from identify.alternatives import save_alternatives

    if sets:
        with folder.writing("alternatives.npz") as path:
            save_alternatives(path, tuple(sets))


@dataclass(frozen=True, eq=False)
class Sheet:
    """How samples become pictures; without `shape` there is none, and `remark` says why."""

    shape: tuple[int, ...] | None
    remark: str = ""
    mean: FloatArray | None = None
    limits: tuple[float, float] | None = None

    @classmethod
    def from_options(cls, options: ImageOptions, dimension: int) -> Sheet:
        """Check the options against the number of entries of a sample.

        A shape that was asked for must be drawn; one that was guessed is drawn if it can be.
        """
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
        return cls(guess, "", mean, limits)

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
