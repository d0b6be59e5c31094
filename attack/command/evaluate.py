"""The work of `kktcert evaluate`: from a run folder and files to scores beside their null."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attack.command.attack_options import ScoreOptions
from attack.command.page import write_run_page
from attack.evaluation import metrics
from attack.evaluation.conclusion import Conclusion, conclude
from attack.evaluation.evaluate import evaluate
from attack.evaluation.scores import Evaluation, EvaluationSettings
from attack.memory import TORCH
from attack.runs.finished import (
    PICTURES,
    SCORES,
    RunResult,
    channels_last,
    digest,
    in_order,
    last_shape,
)
from identify.arrays import FloatArray
from identify.command.inputs import check_dimension, open_mean
from identify.command.limits import refuse_above
from identify.command.output import check_writable, replacing
from identify.errors import InvalidInputError, listed
from identify.exposure.affine import match_affinely, pixel_values
from identify.model.dataset import Dataset, load_samples
from identify.model.untrusted import read_tensors
from identify.pictures import (
    alike_neighbours,
    guess_image_shape,
    parse_image_shape,
    parse_range,
    recognise_image_shape,
)
from identify.text import wrapped

TABLE = "none"
"""The word for rows of a table, in place of the shape of an image."""
_SAME_MEAN = 1e-6


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is compared, channels last, the mean removed from all of it.

    `unit` (D,) is what the inputs of the network were divided by: candidates and start are
    multiplied by it.
    """

    candidates: FloatArray
    start: FloatArray | None
    truth: FloatArray
    held_out: FloatArray | None
    mean: FloatArray
    unit: FloatArray
    shape: tuple[int, ...]
    order: tuple[int, ...]
    span: tuple[FloatArray, FloatArray] | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """The scores of a run, those of its start if it started from images, and remarks."""

    scores: Evaluation
    start: Evaluation | None
    remarks: tuple[str, ...]

    @property
    def conclusion(self) -> Conclusion:
        """The scores against their null, in one sentence."""
        return conclude(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy without the values of single pairs."""
        start = None if self.start is None else self.start.to_dict(arrays=False)
        return {
            **self.scores.to_dict(arrays=False), "start": start, "remarks": list(self.remarks),
            "conclusion": self.conclusion.to_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [str(self.scores)]
        if self.start is not None:
            lines += ["", "The same for the start, before any step:", str(self.start)]
        conclusion = wrapped(str(self.conclusion))
        return "\n".join([*lines, *self.remarks, "", *conclusion])


def evaluate_run(
    run: RunResult,
    truth: Path,
    held_out: Path | None,
    options: ScoreOptions,
    *,
    seed: int,
    images: bool = True,
    memory_limit: str | None = None,
) -> Judged:
    """Compare the candidates of a run with the truth and write the scores into its folder.

    Without `images` no picture of the truth is kept there, and that of an earlier call is removed.
    """
    settings = EvaluationSettings(
        ssim_window=options.ssim_window.value,
        top=options.top,
        half_size=not options.full_size,
        pixel_range=parse_range(options.range),
        seed=seed,
    )
    check_writable(run.path, "RUN", "scores are written into the run folder")
    given = _open(run, truth, held_out, options)
    refuse_above(memory_limit, _bytes(given), "evaluate fewer candidates")
    scores = _scores(given.candidates, given, settings)
    start = None if given.start is None else _scores(given.start, given, settings)
    judged = Judged(scores, start, (*given.remarks, *_remarks(run, scores, start)))
    others = None if held_out is None or given.held_out is None else digest(given.held_out)
    record = record_of(run, judged, truth=digest(given.truth), held_out=others, order=given.order)
    arrays: dict[str, Any] = {
        "truth": given.truth.astype(np.float32),
        "mean": given.mean.astype(np.float32),
        "unit": given.unit.astype(np.float32),
    }
    if given.held_out is not None:
        nearest = _nearest(given.truth, given.held_out, given.shape)
        arrays["nearest_held_out"] = nearest.astype(np.float32)
    text = json.dumps(record, allow_nan=False)
    # The pictures first: scores without them still serve, and name their candidates by a hash.
    if images:
        with replacing(run.path / PICTURES) as path:
            np.savez(path, **arrays)
    else:
        (run.path / PICTURES).unlink(missing_ok=True)
    with replacing(run.path / SCORES) as path:
        path.write_text(text + "\n", encoding="utf-8")
    drawn = {}
    if images and len(given.shape) > 1:
        drawn["candidates"] = given.candidates.reshape(-1, *given.shape)
        drawn["true samples"] = given.truth.reshape(-1, *given.shape)
    write_run_page(run.path, str(judged), drawn, record)
    return judged


def _bytes(given: Inputs) -> int:
    """The memory of the scores: matrices of distances, and copies of the images."""
    samples, most = len(given.truth), len(given.candidates)
    return TORCH + 8 * (6 * samples * most + 8 * (samples + 3 * most) * given.mean.size)


def record_of(
    run: RunResult,
    judged: Judged,
    *,
    truth: str,
    held_out: str | None,
    order: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """What is written of an evaluation; the hashes say of which arrays."""
    start = judged.start
    return {
        "schema_version": 1,
        "candidates_sha256": digest(run.x),
        "truth": {"sha256": truth},
        "held_out": {"sha256": held_out},
        "remarks": list(judged.remarks),
        "conclusion": judged.conclusion.to_dict(),
        "curve": judged.scores.curve.tolist(),
        "candidate_order": None if order is None else list(order),
        **judged.scores.to_dict(),
        "start": None if start is None else start.to_dict(),
    }


def _open(run: RunResult, truth: Path, held_out: Path | None, options: ScoreOptions) -> Inputs:
    true = load_samples(truth, with_labels=False)
    dimension = run.x.shape[1]
    check_dimension(true.samples, dimension, truth)
    mean = _mean(truth, dimension, options)
    centre, unit = pixel_values(true, options.mean, options.std)
    if options.mean is not None:
        mean = centre
        true = replace(true, samples=true.samples - centre)
    shape, remarks = _shape(run, true, mean, options)
    samples = in_order(true.samples, true.image_shape, shape)
    if samples is not true.samples:
        mean = in_order(mean[None], true.image_shape, shape)[0]
        unit = in_order(unit[None], true.image_shape, shape)[0]
        stored, own = (",".join(map(str, size)) for size in (true.image_shape or (), shape))
        remarks.append(f"The truth is stored as {stored} and was brought to the run's {own}.")
    others = None
    if held_out is not None:
        given = load_samples(held_out, with_labels=False)
        check_dimension(given.samples, dimension, held_out)
        rows = given.samples if options.mean is None else given.samples - centre
        _check_held_out(rows, held_out, true.samples, _mean(truth, dimension, options))
        others = channels_last(in_order(rows, given.image_shape, shape), shape)
    remarks += _scaled(run.x * unit, samples)
    return Inputs(
        channels_last(run.x * unit, shape),
        None if run.start is None else channels_last(run.start * unit, shape),
        channels_last(samples, shape),
        others,
        channels_last(mean[None], shape)[0],
        channels_last(unit[None], shape)[0],
        last_shape(shape),
        shape,
        _span(run, unit, shape),
        tuple(remarks),
    )


def _span(
    run: RunResult, unit: FloatArray, shape: tuple[int, ...]
) -> tuple[FloatArray, FloatArray] | None:
    """The span of the candidates in the coordinates in which they are compared."""
    if run.span is None:
        return None
    point, rows = run.span
    return channels_last(point[None] * unit, shape)[0], channels_last(rows * unit, shape)


def _shape(
    run: RunResult, true: Dataset, mean: FloatArray, options: ScoreOptions
) -> tuple[tuple[int, ...], list[str]]:
    """The shape of a candidate as it is stored, (D,) for rows of a table; and a remark."""
    dimension = run.x.shape[1]
    if options.image_shape == TABLE:
        return (dimension,), []
    if options.image_shape is not None:
        return parse_image_shape(options.image_shape, dimension), []
    for shape in (run.image_shape, true.image_shape):
        if shape is not None and math.prod(shape) == dimension:
            return shape, []
    if guess_image_shape(dimension) is None:
        return (dimension,), []
    pixels = true.samples + mean
    found, remark = recognise_image_shape(pixels)
    remarks = [f"{remark[0].upper()}{remark[1:]}."] if remark and found else []
    if found is not None and alike_neighbours(pixels, found):
        return found, remarks
    # Nothing says that these rows, whose number of entries is a square, are pictures.
    low, high = parse_range(options.range)
    if pixels.min() < low or pixels.max() > high:
        said = "--image-shape H,W compares them as pictures"
        return (dimension,), [f"Rows of {dimension} numbers are taken for rows of a table; {said}."]
    if found is None:
        raise InvalidInputError(
            "--image-shape", "the order of the pixels", "none",
            f"the pixels do not tell it; give --image-shape {TABLE} for rows of a table",
        )  # fmt: skip
    said = f"--image-shape {TABLE} compares them as rows of a table"
    size = " x ".join(map(str, found))
    return found, [*remarks, f"Rows of {dimension} numbers are taken for images of {size}; {said}."]


def _scaled(candidates: FloatArray, truth: FloatArray) -> list[str]:
    """Say when candidates are samples with other pixel values."""
    found = match_affinely(candidates, truth, fixed_scale=True)
    if found is None:
        return []
    if found.hardly_moves(truth):
        return []
    plus = f" plus {found.shift:.4g}" if found.shift else ""
    verb = "candidates are" if found.count > 1 else "candidate is"
    return [
        f"{found.count} {verb} the truth times {found.scale:.4g}{plus}: the file of the truth has "
        "other pixel values than the network saw; --mean and --std say what was done to them."
    ]


def _mean(truth: Path, dimension: int, options: ScoreOptions) -> FloatArray:
    stored = _stored_mean(truth, dimension)
    told = [n for n, v in (("--mean", options.mean), ("--std", options.std)) if v is not None]
    beside = "--add-mean" if options.add_mean is not None else f"the mean in {truth}"
    if told and (stored is not None or options.add_mean is not None):
        raise InvalidInputError(
            told[0], f"pixels as they are in {truth}", beside, "leave one of them out"
        )
    if options.add_mean is None:
        return np.zeros(dimension) if stored is None else stored
    given = open_mean(options.add_mean, dimension)
    if stored is not None and np.abs(stored - given).max() > _SAME_MEAN:
        raise InvalidInputError(
            "--add-mean", f"the mean in {truth}", "another one", "leave the option out"
        )
    return given


def _stored_mean(path: Path, dimension: int) -> FloatArray | None:
    file = read_tensors(path)
    if "mean" not in file.shapes:
        return None
    mean = file.floats("mean").reshape(-1)
    if mean.size != dimension:
        raise InvalidInputError(str(path), f"a mean of {dimension} numbers", mean.size)
    return mean


def _check_held_out(samples: FloatArray, path: Path, truth: FloatArray, mean: FloatArray) -> None:
    """Refuse held-out images with another mean removed, or that were trained on."""
    stored = _stored_mean(path, len(mean))
    if stored is not None and np.abs(stored - mean).max() > _SAME_MEAN:
        raise InvalidInputError(
            "--held-out", "images with the mean of the truth removed", f"another mean in {path}"
        )
    known = {row.tobytes() for row in truth}
    same = [str(index) for index, row in enumerate(samples) if row.tobytes() in known]
    if same:
        raise InvalidInputError(
            "--held-out",
            "images that were not trained on",
            f"{len(same)} of the true samples in {path}, counted from 0 at {listed(same)}",
        )


def _scores(candidates: FloatArray, given: Inputs, settings: EvaluationSettings) -> Evaluation:
    try:
        return evaluate(
            candidates,
            given.truth,
            given.shape,
            mean=given.mean,
            held_out=given.held_out,
            span=given.span,
            settings=settings,
        )
    except InvalidInputError as error:
        if error.context["name"] != "truth" or not given.remarks:
            raise
        # Such as pixels 0..255 where the network saw 0..1.
        facts = error.context
        hint = f"{facts['hint']}; {' '.join(given.remarks)}"
        raise InvalidInputError("truth", facts["expected"], facts["got"], hint) from error


def _nearest(truth: FloatArray, held_out: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """For each true sample the held-out image nearest to it by NCC: what knowing nothing gives."""
    distances = metrics.ncc_matrix(truth, held_out, shape)
    return np.asarray(held_out[distances.argmin(axis=1)])


def _remarks(run: RunResult, scores: Evaluation, start: Evaluation | None) -> tuple[str, ...]:
    remarks = []
    if 0 < scores.held_out_given < scores.found.candidates:
        remarks.append(
            f"Only {scores.held_out_given} held-out images for {scores.found.candidates} "
            "candidates: more of them would score better."
        )
    if start is not None:
        remarks.append(
            f"The run started from given images, share {run.share:g}: only what it gains over its "
            "start comes from the network."
        )
    return tuple(remarks)
