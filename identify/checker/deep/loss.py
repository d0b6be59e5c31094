"""Labels from the slopes of the loss, and whether the loss gives these slopes at the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..outcome import FloatArray, IntArray, RefutedError, check_possible, require
from .case import Case

CONFIDENT = 3.0
_LOOSE = 0.2
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels (n,) with the margin of each over its error; the slope of the loss at the outputs.

    ``slope`` (n, C) is None where the loss is not known or fits any slope.
    """

    labels: IntArray | None = None
    margins: FloatArray | None = None
    slope: FloatArray | None = None


def read_labels(case: Case) -> Labels:
    """What the slopes p of the samples say under the loss of the report."""
    p, f, loss = case.answer.cotangents, case.run.z[-1], case.report.loss
    error = np.linalg.norm(p, axis=1) * np.maximum(case.slope_bounds, case.bounds[0]) + _TINY
    if loss == "cross_entropy":
        labels = np.argmin(p, axis=1)
        lowest = np.sort(p, axis=1)[:, :2]
        chosen = np.eye(p.shape[1])[labels]
        # softmax - e_k has one negative entry; an update, minus the gradient, all but one.
        if p.shape[1] > 2 and (lowest[:, 1] < -CONFIDENT * error).any():
            return Labels(slope=_softmax(f) - chosen)
        return Labels(labels, (lowest[:, 1] - lowest[:, 0]) / error, _softmax(f) - chosen)
    if p.shape[1] == 1 and loss in (None, "logistic"):
        signs = -np.sign(p)
        slope = None if loss is None or not signs.all() else _logistic(signs, f)
        return Labels(signs[:, 0].astype(np.int64), np.abs(p[:, 0]) / error, slope)
    if loss == "logistic":
        signs = np.where(p < 0.0, 1.0, -1.0)
        slope = _logistic(signs, f)
        if ((signs > 0.0).sum(axis=1) != 1).any():
            return Labels(slope=slope)
        return Labels(np.argmax(signs, axis=1), np.abs(p).min(axis=1) / error, slope)
    if loss == "squared" and p.shape[1] > 1 and case.answer.scaled:
        return _one_hot(case, p, f)
    return Labels()


def _softmax(f: FloatArray) -> FloatArray:
    shifted = np.exp(f - f.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _logistic(signs: FloatArray, f: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.asarray(-signs / (1.0 + np.exp(signs * f)))


def _one_hot(case: Case, p: FloatArray, f: FloatArray) -> Labels:
    """Squared loss of one-hot targets: p_i is a positive multiple of f_i - e_k."""
    count, width = p.shape
    rest = np.ones((count, width))
    for k in range(width):
        slope = f - np.eye(width)[k]
        share = np.sum(p * slope, axis=1) / (np.sum(slope**2, axis=1) + _TINY)
        away = np.linalg.norm(p - share[:, None] * slope, axis=1)
        rest[:, k] = np.where(share > 0.0, away / (np.linalg.norm(p, axis=1) + _TINY), 1.0)
    ordered = np.sort(rest, axis=1)
    if (ordered[:, 0] > _allowed(case)).any():
        return Labels()
    labels = np.argmin(rest, axis=1)
    error = case.slope_bounds + case.bounds[0] + case.bounds[2] + _TINY
    return Labels(labels, (ordered[:, 1] - ordered[:, 0]) / error, f - np.eye(width)[labels])


def _allowed(case: Case) -> FloatArray:
    """How far a slope of the loss may be off, relative, (n,)."""
    return np.asarray(3.0 * (case.slope_bounds + case.bounds[0] + case.bounds[2]) + 1e-9)


def check_labels(case: Case) -> str:
    """The labels are those of the slopes, with their margins."""
    raw = case.report.raw
    stated, margins, own = raw["labels"], raw["label_confidence"], read_labels(case)
    if own.labels is None or own.margins is None:
        require(stated is None and margins is None, "the slopes name no labels")
        return "none: the loss names none"
    require(stated == own.labels.tolist(), "the labels are not those of the slopes")
    require(margins is not None and len(margins) == len(stated), "a margin for each label")
    factor = 4.0 if case.top.rounded else 1.5
    for i, (said, mine) in enumerate(zip(margins, own.margins, strict=True)):
        close = case.is_near("label_confidence", said, float(mine), factor)
        require(close, f"the margin of label {i + 1} is {mine:.1e} times its error, not {said}")
    clear = int((own.margins >= CONFIDENT).sum())
    return f"{clear} of {len(stated)} read clearly"


def check_loss(case: Case) -> str:
    """Check (c): p is the slope of the known loss at the samples' outputs, with one weight.

    Raises NotCheckableError where the loss is known and the errors leave this open.
    """
    loss, reduction = case.report.loss, case.report.raw["problem"]["reduction"]
    slope, stated = read_labels(case).slope, case.report.raw["counts"]
    if slope is None or not case.answer.scaled:
        require(stated is None, "no loss says how often a sample counts")
        said = case.report.check("known loss")
        open_ = said is None or (said["holds"] is said["value"] is None and not said["equations"])
        require(open_, "no equations of the loss")
        return "the loss says nothing about the samples"
    p = case.answer.cotangents
    weights = np.sum(p * slope, axis=1) / (np.sum(slope**2, axis=1) + _TINY)
    rest = np.linalg.norm(p - weights[:, None] * slope, axis=1)
    rest = rest / (np.linalg.norm(p, axis=1) + _TINY) * (p.shape[1] > 1)
    allowed = _allowed(case)
    unit = 1.0 if reduction == "sum" else float(weights.min())
    require(unit > 0.0 and bool(np.isfinite(weights).all()), "a weight that is not positive")
    counts = weights / unit
    _check_counts(stated, counts, allowed)
    off, limits = np.abs(counts - 1.0), allowed + (0.0 if reduction == "sum" else allowed.max())
    i = int(np.argmax(off / limits))
    require((off <= limits).all(), f"sample {i + 1} counts {counts[i]:.3g} times")
    if reduction == "mean":
        total = float(weights.sum())
        require(abs(total - 1.0) <= allowed.max(), f"the weights of a mean sum to {total:.4g}")
    i = int(np.argmax(rest / allowed))
    fits = bool((rest <= allowed).all())
    require(fits, f"the slope of sample {i + 1} is {rest[i]:.1e} off the loss at its outputs")
    each = p.shape[1] - 1 - (loss == "cross_entropy")
    equations = len(p) * each + len(p) - (reduction is None)
    check_possible(equations > 0, "one sample and no reduction: an average would look the same")
    check_possible(allowed.max() <= _LOOSE, "the errors leave the weights open")
    value = max(float(off.max()), float(rest.max()))
    said = case.report.check("known loss")
    if said is None or said["equations"] != equations or said["value"] is None:
        raise RefutedError(f"{equations} equations of the loss")
    if reduction != "mean":
        factor = 4.0 if case.top.rounded else 1.5
        close = case.is_near("checks.value", said["value"], value, factor, 1e-13)
        require(close, f"the loss is off by {value:.1e}, not {said['value']}")
    return f"{equations} equations of the loss, to {value:.1e}"


def _check_counts(stated: object, own: FloatArray, allowed: FloatArray) -> None:
    if not isinstance(stated, list) or len(stated) != len(own):
        raise RefutedError("a count for each sample")
    for i, (said, mine) in enumerate(zip(stated, own, strict=True)):
        # Relative to the weight of another sample, each with its own error.
        close = said is not None and abs(said - mine) <= mine * (allowed[i] + float(allowed.max()))
        require(close, f"sample {i + 1} counts {mine:.4g} times, not {said}")
