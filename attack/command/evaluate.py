"""The work of `kktcert evaluate`: from a run folder and files to scores beside their null."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attack.command.attack_options import ScoreOptions
from attack.evaluation import metrics
from attack.evaluation.evaluate import evaluate
from attack.evaluation.scores import Evaluation, EvaluationSettings
from attack.runs.finished import PICTURES, SCORES, RunResult, channels_last, digest, last_shape
from identify.arrays import FloatArray
from identify.command.inputs import check_dimension, open_mean
from identify.command.output import check_writable, replacing
from identify.errors import InvalidInputError
from identify.model.dataset import load_samples
from identify.model.untrusted import read_tensors
from identify.pictures import guess_image_shape, parse_image_shape, parse_range

_SAME_MEAN = 1e-6


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is compared, channels last, the mean removed from all of it."""

    candidates: FloatArray
    start: FloatArray | None
    truth: FloatArray
    held_out: FloatArray | None
    mean: FloatArray
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """The scores of a run, those of its start if it started from images, and remarks."""

    scores: Evaluation
    start: Evaluation | None
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy without the values of single pairs."""
        start = None if self.start is None else self.start.to_dict(arrays=False)
        return {
            **self.scores.to_dict(arrays=False), "start": start, "remarks": list(self.remarks),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [str(self.scores)]
        if self.start is not None:
            lines += ["", "The same for the start, before any step:", str(self.start)]
        return "\n".join([*lines, *self.remarks])


def evaluate_run(
    run: RunResult, truth: Path, held_out: Path | None, options: ScoreOptions, *, seed: int
) -> Judged:
    """Compare the candidates of a run with the truth and write the scores into its folder."""
    settings = EvaluationSettings(
        ssim_window=options.ssim_window.value,
        top=options.top,
        half_size=not options.full_size,
        pixel_range=parse_range(options.range),
        seed=seed,
    )
    check_writable(run.path, "RUN", "scores are written into the run folder")
    given = _open(run, truth, held_out, options)
    scores = _scores(given.candidates, given, settings)
    start = None if given.start is None else _scores(given.start, given, settings)
    judged = Judged(scores, start, _remarks(run, scores, start))
    others = None if held_out is None or given.held_out is None else digest(given.held_out)
    record = record_of(run, judged, truth=digest(given.truth), held_out=others)
    arrays: dict[str, Any] = {
        "truth": given.truth.astype(np.float32),
        "mean": given.mean.astype(np.float32),
    }
    if given.held_out is not None:
        arrays["nearest_held_out"] = _nearest(given).astype(np.float32)
    text = json.dumps(record, allow_nan=False)
    # The pictures first: scores without them still serve, and name their candidates by a hash.
    with replacing(run.path / PICTURES) as path:
        np.savez(path, **arrays)
    with replacing(run.path / SCORES) as path:
        path.write_text(text + "\n", encoding="utf-8")
    return judged


def record_of(
    run: RunResult, judged: Judged, *, truth: str, held_out: str | None
) -> dict[str, Any]:
    """What is written of an evaluation; the hashes say of which arrays."""
    start = judged.start
    return {
        "schema_version": 1,
        "candidates_sha256": digest(run.x),
        "truth": {"sha256": truth},
        "held_out": {"sha256": held_out},
        "remarks": list(judged.remarks),
        "curve": judged.scores.curve.tolist(),
        **judged.scores.to_dict(),
        "start": None if start is None else start.to_dict(),
    }


def _open(run: RunResult, truth: Path, held_out: Path | None, options: ScoreOptions) -> Inputs:
    true = load_samples(truth)
    dimension = run.x.shape[1]
    check_dimension(true.samples, dimension, truth)
    shape = _shape(run, true.image_shape, options, dimension)
    mean = _mean(truth, dimension, options)
    others = None
    if held_out is not None:
        given = load_samples(held_out)
        check_dimension(given.samples, dimension, held_out)
        _check_held_out(given.samples, held_out, true.samples, mean)
        others = channels_last(given.samples, shape)
    return Inputs(
        channels_last(run.x, shape),
        None if run.start is None else channels_last(run.start, shape),
        channels_last(true.samples, shape),
        others,
        channels_last(mean[None], shape)[0],
        last_shape(shape),
    )


def _shape(
    run: RunResult, stored: tuple[int, ...] | None, options: ScoreOptions, dimension: int
) -> tuple[int, ...]:
    if options.image_shape is not None:
        return parse_image_shape(options.image_shape, dimension)
    for shape in (run.image_shape, stored, guess_image_shape(dimension)):
        if shape is not None and math.prod(shape) == dimension:
            return shape
    raise InvalidInputError("--image-shape", f"H,W,C of {dimension} numbers", "none")


def _mean(truth: Path, dimension: int, options: ScoreOptions) -> FloatArray:
    stored = _stored_mean(truth, dimension)
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
    same = sum(row.tobytes() in known for row in samples)
    if same:
        raise InvalidInputError(
            "--held-out", "images that were not trained on", f"{same} of the true samples in {path}"
        )


def _scores(candidates: FloatArray, given: Inputs, settings: EvaluationSettings) -> Evaluation:
    return evaluate(
        candidates,
        given.truth,
        given.shape,
        mean=given.mean,
        held_out=given.held_out,
        settings=settings,
    )


def _nearest(given: Inputs) -> FloatArray:
    """For each true sample the held-out image nearest to it by NCC: what knowing nothing gives."""
    assert given.held_out is not None
    distances = metrics.ncc_matrix(given.truth, given.held_out, given.shape)
    return np.asarray(given.held_out[distances.argmin(axis=1)])


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
