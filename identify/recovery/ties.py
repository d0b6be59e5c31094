"""Ties: equal margins or a known loss that speak for the number of samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.special

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData
from identify.recovery.bounds import ErrorBounds
from identify.recovery.samples import Samples
from identify.thresholds import TIE_TOLERANCE


@dataclass(frozen=True, eq=False)
class Tie:
    """Redundant equations that the fixed scale gives: their number, and whether they hold.

    `classes` (n,) numbers the samples by what the neurons see of them: between samples of one
    class the tie holds by itself. `widths` (n,) are the propagated errors of the tied values;
    `factor` says that the common factor is known, and is right.
    """

    name: str
    equations: int
    holds: bool
    spread: float
    tolerance: float
    classes: npt.NDArray[np.intp]
    widths: FloatArray
    factor: bool = False


def check_ties(
    data: HermiteData,
    found: Samples,
    bounds: ErrorBounds,
    scale: str,
    noise_level: float,
) -> Tie | None:
    """Equal margins (KKT) or the loss's own coefficients, where the scale is fixed.

    KKT: |f(x_i)| is the same for all samples. Logistic loss: b_i is proportional to
    1/(1 + exp(y_i f(x_i))); with a known decay the factor is 1, or 1/n for a mean. A tie holds if
    the values agree within the propagated error bounds; None where there is no tie. It is one
    equation less than there are classes, and one more where the factor is known.
    """
    kind = tie_kind(data, scale)
    if kind is None or len(found.samples) < 2 or not found.finite:
        return None
    network = data.network
    outputs = network.value(found.samples)
    if network.output_bias is not None and data.source == "kkt":
        outputs = outputs - float(network.output_bias.ravel()[0])
    lifted = network.lift(found.samples)
    inner = lifted @ network.points.T
    heights = network.output_weight
    slopes = network.slopes(found.samples)
    norms = np.linalg.norm(lifted, axis=1)
    bulk = np.abs(inner) ** data.degree @ np.abs(heights)
    error = np.linalg.norm(slopes, axis=1) * bounds.absolute
    error = error + 10.0 * (data.degree + 1) * noise_level * bulk
    if kind == "margin":
        with np.errstate(divide="ignore", invalid="ignore"):
            values, widths = np.log(np.abs(outputs)), error / np.abs(outputs)
    else:
        margins = _labels(data, found) * outputs
        values = np.log(np.abs(found.coefficients)) + np.logaddexp(0.0, margins)
        widths = error + data.degree * bounds.terms
        if scale == "bias":
            # |d log b| = alpha |d last|/|last| <= alpha (|dz|/|z| + |dx|/|(x, 1)|).
            widths = widths + data.degree * bounds.absolute / norms
    known = bool(np.all(np.isfinite(values)) and np.all(np.isfinite(widths)))
    gap = float(np.max(values - widths) - np.min(values + widths)) if known else np.inf
    tolerance = float(np.max(widths)) if known else np.inf
    classes = sample_classes(data, lifted, bounds.judged + 10.0 * noise_level)
    factor = known and kind == "loss" and _known_factor(data, values, widths)
    count = int(classes.max()) + factor
    return Tie(
        name="equal margins" if kind == "margin" else "coefficients of the logistic loss",
        # A tie that would hold for almost any samples speaks for none of them.
        equations=count if tolerance <= TIE_TOLERANCE else 0,
        holds=bool(gap <= 0.0),
        spread=float(np.ptp(values)) if known else np.inf,
        tolerance=tolerance,
        classes=classes,
        widths=widths,
        factor=factor,
    )


def sample_classes(
    data: HermiteData, lifted: FloatArray, errors: FloatArray
) -> npt.NDArray[np.intp]:
    """Number the samples (n, D) by the list of a_j (w_j.x_i)^alpha, up to order and one sign.

    f(x_i) depends only on this list, which no sign symmetry of a neuron changes. A symmetry of the
    network that exchanges two samples makes their lists equal, so that a tie between them is empty.
    Lists are equal unless an entry of the sorted alpha-th roots differs by more than `errors` (n,),
    relative to |x_i|, allow. Cost: O(n m log m + n^2 m).
    """
    network, alpha = data.network, data.degree
    heads = np.abs(network.output_weight) ** (1.0 / alpha)
    inner = lifted @ network.points.T
    roots = np.sign(network.output_weight) * heads * (inner if alpha % 2 else np.abs(inner))
    lists = np.sort(roots, axis=1)
    turned = -lists[:, ::-1]
    reach = float(np.max(heads * np.linalg.norm(network.points, axis=1)))
    widths = reach * np.linalg.norm(lifted, axis=1) * np.nan_to_num(errors, nan=np.inf)
    count = len(lifted)
    classes = np.arange(count)
    for i in range(count):
        for k in range(i):
            away = min(np.abs(lists[i] - lists[k]).max(), np.abs(lists[i] - turned[k]).max())
            if not away > widths[i] + widths[k]:
                classes[classes == classes[i]] = classes[k]
    return np.asarray(np.unique(classes, return_inverse=True)[1]).reshape(count)


def tie_rows(
    data: HermiteData, reduced: ReducedData, terms: FloatArray, found: Samples, tie: Tie, scale: str
) -> FloatArray:
    """Derivatives by the terms of the tie's equations over their widths, shape (k, n r).

    The equations are differences between the first samples of the classes, and the value of the
    first class itself where the factor is known.
    """
    count, r = terms.shape
    full = terms @ reduced.basis.T
    if scale == "bias":
        lengths, slopes = full[:, -1], np.tile(reduced.basis[-1], (count, 1))
    else:
        lengths = np.linalg.norm(terms, axis=1)
        slopes = terms / lengths[:, None]
    network, alpha = data.network, data.degree
    shrink = alpha * slopes / lengths[:, None]
    inner = full @ network.points.T
    # f without its output bias, homogeneous, and the derivative of its logarithm.
    outputs = inner**alpha @ network.output_weight
    rise = (alpha * network.output_weight * inner ** (alpha - 1)) @ network.points @ reduced.basis
    steep = rise / outputs[:, None] - shrink
    if data.source != "kkt":
        labels = _labels(data, found)
        margins = labels * network.value(found.samples)
        pure = labels * outputs / lengths**alpha
        steep = shrink + (scipy.special.expit(margins) * pure)[:, None] * steep
    heads = [int(np.flatnonzero(tie.classes == k)[0]) for k in range(int(tie.classes.max()) + 1)]
    rows = []
    for other in heads[1:]:
        row = np.zeros((count, r))
        row[heads[0]], row[other] = steep[heads[0]], -steep[other]
        rows.append(row.ravel() / (tie.widths[heads[0]] + tie.widths[other]))
    if tie.factor:
        row = np.zeros((count, r))
        row[heads[0]] = steep[heads[0]]
        rows.append(row.ravel() / tie.widths[heads[0]])
    return np.array(rows).reshape(len(rows), count * r)


def tie_kind(data: HermiteData, scale: str) -> str | None:
    """ "margin" or "loss" where a fixed scale gives ties between the samples, else None."""
    if scale not in ("unit", "bias"):
        return None
    if data.source == "kkt":
        return "margin"
    known = data.source in ("weight-decay", "gradient")
    return "loss" if known and data.loss in ("logistic", "cross-entropy") else None


def _labels(data: HermiteData, found: Samples) -> FloatArray:
    """y_i from the sign of b_i."""
    return np.asarray(np.sign(found.coefficients) * (-1.0 if data.source == "gradient" else 1.0))


def _known_factor(data: HermiteData, values: FloatArray, widths: FloatArray) -> bool:
    """Whether a known decay makes b_i the loss's own derivative, of a sum or of a mean."""
    if data.decay is None:
        return False
    aims = (0.0, -float(np.log(len(values))))
    return any(bool(np.all(np.abs(values - aim) <= widths)) for aim in aims)
