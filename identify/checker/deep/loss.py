"""Labels from the slopes of the loss, and whether the loss gives these slopes at the samples."""

from __future__ import annotations

import numpy as np

from ..outcome import FloatArray, IntArray, RefutedError, check_possible, require
from .case import Case
from .confirm import CONFIDENT, near

_LOOSE = 0.2
_TINY = 1e-300


def read_labels(case: Case) -> tuple[IntArray, FloatArray] | None:
    """Labels and the margin of each over its error, or None where p has none."""
    p, loss = case.answer.cotangents, case.report.loss
    error = np.linalg.norm(p, axis=1) * np.maximum(case.slope_bounds, case.bounds[0]) + _TINY
    if loss == "cross_entropy" and p.shape[1] > 1:
        lowest = np.sort(p, axis=1)[:, :2]
        return np.argmin(p, axis=1).astype(np.int64), (lowest[:, 1] - lowest[:, 0]) / error
    if p.shape[1] == 1 and loss in (None, "logistic"):
        return np.where(p[:, 0] > 0.0, -1, np.where(p[:, 0] < 0.0, 1, 0)), np.abs(p[:, 0]) / error
    return None


def check_labels(case: Case) -> str:
    """The labels are those of the slopes, with their margins."""
    raw = case.report.raw
    stated, margins, own = raw["labels"], raw["label_confidence"], read_labels(case)
    if own is None:
        require(stated is None and margins is None, "the slopes name no labels")
        return "none: the loss names none"
    labels, confidence = own
    require(stated == labels.tolist(), "the labels are not those of the slopes")
    require(margins is not None and len(margins) == len(labels), "a margin for each label")
    for i, (said, mine) in enumerate(zip(margins, confidence, strict=True)):
        close = near(said, float(mine), 4.0 if case.top.rounded else 1.5)
        require(close, f"the margin of label {i + 1} is {mine:.1e} times its error, not {said}")
    clear = int((confidence >= CONFIDENT).sum())
    return f"{clear} of {len(labels)} read clearly"


def _slope(case: Case, labels: IntArray) -> FloatArray:
    f = case.run.z[-1]
    if case.report.loss == "cross_entropy":
        shifted = np.exp(f - f.max(axis=1, keepdims=True))
        p = shifted / shifted.sum(axis=1, keepdims=True)
        p[np.arange(len(p)), labels] -= 1.0
        return np.asarray(p)
    y = labels[:, None].astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(-y / (1.0 + np.exp(y * f)))


def check_loss(case: Case) -> str:
    """Check (c): p is the slope of the known loss at the samples' outputs, with one weight.

    Raises NotCheckableError where the loss is known and the errors leave this open.
    """
    loss, reduction = case.report.loss, case.report.raw["problem"]["reduction"]
    own, counts = read_labels(case), case.report.raw["counts"]
    p = case.answer.cotangents
    width = p.shape[1]
    usable = loss in ("cross_entropy", "logistic") and own is not None and case.answer.scaled
    if (
        not usable
        or own is None
        or not (width == 1 or loss == "cross_entropy")
        or (loss == "logistic" and not own[0].all())
    ):
        require(counts is None, "no loss says how often a sample counts")
        return "the loss says nothing about the samples"
    slope = _slope(case, own[0])
    weights = np.sum(p * slope, axis=1) / (np.sum(slope**2, axis=1) + _TINY)
    rest = np.linalg.norm(p - weights[:, None] * slope, axis=1)
    rest /= np.linalg.norm(p, axis=1) + _TINY
    allowed = 3.0 * (case.slope_bounds + case.bounds[0] + case.bounds[2]) + 1e-9
    unit = 1.0 if reduction == "sum" else float(weights.min())
    require(unit > 0.0 and bool(np.isfinite(weights).all()), "a weight that is not positive")
    found = weights / unit
    _check_counts(counts, found, allowed)
    off, limits = np.abs(found - 1.0), allowed + (0.0 if reduction == "sum" else allowed.max())
    i = int(np.argmax(off / limits))
    require((off <= limits).all(), f"sample {i + 1} counts {found[i]:.3g} times")
    if reduction == "mean":
        total = float(weights.sum())
        require(abs(total - 1.0) <= allowed.max(), f"the weights of a mean sum to {total:.4g}")
    i = int(np.argmax(rest / allowed))
    fits = width == 1 or bool((rest <= allowed).all())
    require(fits, f"the slope of sample {i + 1} is {rest[i]:.1e} off the loss at its outputs")
    equations = len(p) * max(0, width - 2) + len(p) - (reduction is None)
    check_possible(equations > 0, "one sample and no reduction: an average would look the same")
    check_possible(allowed.max() <= _LOOSE, "the errors leave the weights open")
    return f"{equations} equations of the loss, to {max(off.max(), rest.max()):.1e}"


def _check_counts(stated: object, own: FloatArray, allowed: FloatArray) -> None:
    if not isinstance(stated, list) or len(stated) != len(own):
        raise RefutedError("a count for each sample")
    for i, (said, mine) in enumerate(zip(stated, own, strict=True)):
        # Relative to the weight of another sample, each with its own error.
        slack = mine * (allowed[i] + float(allowed.max()))
        require(said is not None and abs(said - mine) <= slack,
                f"sample {i + 1} counts {mine:.4g} times, not {said}")  # fmt: skip
