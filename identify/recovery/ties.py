"""Ties: equal margins or a known loss that speak for the number of samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify.hermite.data import HermiteData
from identify.recovery.bounds import ErrorBounds
from identify.recovery.samples import Samples

TIE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Tie:
    """Redundant equations that the fixed scale gives: their number, and whether they hold."""

    name: str
    equations: int
    holds: bool
    spread: float
    tolerance: float


def check_ties(
    data: HermiteData,
    found: Samples,
    bounds: ErrorBounds,
    scale: str,
    noise_level: float,
) -> Tie | None:
    """Equal margins (KKT) or the loss's own coefficients, where the scale is fixed.

    KKT: |f(x_i)| is the same for all samples, n - 1 equations. Logistic loss: b_i is
    proportional to 1/(1 + exp(y_i f(x_i))), n - 1 equations, the common factor unknown. A tie
    holds if the values agree within the propagated error bounds; None where there is no tie.
    """
    count = len(found.samples)
    if scale not in ("unit", "bias") or count < 2 or not found.finite:
        return None
    network = data.network
    if data.source == "gradient" or data.source == "weight-decay":
        if data.loss not in ("logistic", "cross-entropy"):
            return None
        name = "coefficients of the logistic loss"
    elif data.source == "kkt":
        name = "equal margins"
    else:
        return None
    outputs = network.value(found.samples)
    if network.output_bias is not None and data.source == "kkt":
        outputs = outputs - float(network.output_bias.ravel()[0])
    lifted = network.lift(found.samples)
    inner = lifted @ network.points.T
    heights = network.output_weight
    slopes = (data.degree * heights * inner ** (data.degree - 1)) @ network.points
    norms = np.linalg.norm(lifted, axis=1)
    bulk = np.abs(inner) ** data.degree @ np.abs(heights)
    error = np.linalg.norm(slopes, axis=1) * bounds.absolute
    error = error + 10.0 * (data.degree + 1) * noise_level * bulk
    if data.source == "kkt":
        with np.errstate(divide="ignore", invalid="ignore"):
            values, widths = np.log(np.abs(outputs)), error / np.abs(outputs)
    else:
        labels = np.sign(found.coefficients) * (-1.0 if data.source == "gradient" else 1.0)
        margins = labels * outputs
        values = np.log(np.abs(found.coefficients)) + np.logaddexp(0.0, margins)
        widths = error + data.degree * bounds.terms
        if scale == "bias":
            # |d log b| = alpha |d last|/|last| <= alpha (|dz|/|z| + |dx|/|(x, 1)|).
            widths = widths + data.degree * bounds.absolute / norms
    known = np.all(np.isfinite(values)) and np.all(np.isfinite(widths))
    gap = float(np.max(values - widths) - np.min(values + widths)) if known else np.inf
    tolerance = float(np.max(widths)) if known else np.inf
    return Tie(
        name=name,
        # A tie that would hold for almost any samples speaks for none of them.
        equations=count - 1 if tolerance <= TIE_TOLERANCE else 0,
        holds=bool(gap <= 0.0),
        spread=float(np.ptp(values)) if known else np.inf,
        tolerance=tolerance,
    )


def tie_kind(data: HermiteData, scale: str) -> str | None:
    """ "margin" or "loss" where a fixed scale gives ties between the samples, else None."""
    if scale not in ("unit", "bias"):
        return None
    if data.source == "kkt":
        return "margin"
    known = data.source in ("weight-decay", "gradient")
    return "loss" if known and data.loss in ("logistic", "cross-entropy") else None
