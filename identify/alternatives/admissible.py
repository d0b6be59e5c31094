"""Which training sets may be shown: stationary on the network, and true to every assumption."""

from __future__ import annotations

import numpy as np

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData
from identify.hermite.stationarity import stationarity
from identify.records import TrainingSet
from identify.recovery.assumptions import Assumptions
from identify.recovery.samples import to_samples
from identify.recovery.ties import tie_kind

_SMALLEST = 1e-6
_VISIBLE = 2e-8
"""Smaller size times sin^2 of an angle; parallel means a cosine above 1 - 1e-8."""


def largest_difference(first: FloatArray, second: FloatArray, *, directions: bool = True) -> float:
    """Largest difference of two matched samples, for the matching that makes it smallest.

    With `directions` samples count up to sign and scale (the symmetries of networks without a
    bias), as unit vectors; else |x - x'| is relative to the larger of the two norms. Sets of
    different sizes differ by infinity.

    Cost: O(n^3 log n).

    Example:
        >>> largest_difference(np.eye(2), -2.0 * np.eye(2)[::-1])
        0.0
    """
    from scipy.optimize import linear_sum_assignment

    if len(first) != len(second):
        return float("inf")
    if directions:
        first = first / np.linalg.norm(first, axis=1, keepdims=True)
        second = second / np.linalg.norm(second, axis=1, keepdims=True)
        gaps = np.minimum(
            np.linalg.norm(first[:, None] - second, axis=2),
            np.linalg.norm(first[:, None] + second, axis=2),
        )
    else:
        sizes = np.maximum(np.linalg.norm(first, axis=1)[:, None], np.linalg.norm(second, axis=1))
        gaps = np.linalg.norm(first[:, None] - second, axis=2) / np.where(sizes > 0, sizes, 1.0)
    levels = np.unique(gaps)
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        broken = gaps > levels[middle]
        pairs = linear_sum_assignment(broken)
        if broken[pairs].any():
            low = middle + 1
        else:
            high = middle
    return float(levels[low])


class SetRules:
    """What a set must satisfy to be shown, for one source and one list of assumptions.

    `level` is the stationarity demanded, max(1e-10, 2 rho).
    """

    def __init__(self, data: HermiteData, noise_level: float, given: Assumptions) -> None:
        self.data = data
        self.noise_level = noise_level
        self.level = max(1e-10, 2.0 * noise_level)
        self.given = given.resolved(data)
        self.scale, self.non_negative = self.given.scale, self.given.non_negative

    def accept(
        self, reduced: ReducedData, terms: FloatArray, signs: FloatArray
    ) -> TrainingSet | None:
        """The set of terms (n, r) of V, largest first, or None if it breaks a rule.

        No sample vanishes (|b_i| |x_i|^alpha above 1e-6 of the largest), no two are parallel, and
        none hides beside another: the smaller size times sin^2 of the angle is above 10 levels;
        KKT: b_i f(x_i) > 0; ties of a fixed scale hold to 1e-6; entries above -1e-9 of the
        largest if they are known to be non-negative; stationarity at most `level`.
        """
        lengths = np.linalg.norm(terms, axis=1)
        if not np.all(np.isfinite(terms)) or not np.all(lengths > 0.0):
            return None
        heights = (lengths / lengths.max()) ** self.data.degree
        units = terms / lengths[:, None]
        pairs = np.triu_indices(len(units), 1)
        cosines = np.abs(units @ units.T)[pairs]
        if heights.min() < _SMALLEST:
            return None
        # A weak sample beside a strong one changes T by about this much more than one of them.
        seen = np.minimum.outer(heights, heights)[pairs] * (1.0 - cosines**2)
        if np.any(seen < max(_VISIBLE, 10.0 * self.level)):
            return None
        order = np.argsort(-lengths, kind="stable")
        found = to_samples(
            self.data, reduced, terms[order], signs[order], self.scale, self.non_negative
        )
        x, b = found.samples, found.coefficients
        if not found.finite or not np.all(np.isfinite(x)) or not np.all(np.isfinite(b) & (b != 0)):
            return None
        try:
            if self.broken(x, b):
                return None
            residual = stationarity(self.data, x, b)
        except InvalidInputError:  # beyond the range of float64
            return None
        return TrainingSet(x, b, residual) if residual <= self.level else None

    def broken(self, samples: FloatArray, coefficients: FloatArray) -> str:
        """The first assumption that a set breaks, in words; empty if it obeys all of them.

        Raises:
            InvalidInputError: outputs beyond the range of float64.
        """
        lowest, top = float(samples.min()), float(np.abs(samples).max())
        if self.non_negative and lowest < -1e-9 * top:
            return f"an entry of {lowest:.1e}, where none is negative"
        norms = np.linalg.norm(samples, axis=1)
        if self.scale == "unit" and float(np.abs(norms - 1.0).max()) > 1e-9:
            return f"norms from {norms.min():.3g} to {norms.max():.3g}, where all are 1"
        if self.data.source == "kkt" and not self._on_their_side(samples, coefficients):
            return "a sample on the wrong side, or too near to it to tell"
        if self.scale == "margin":
            outputs = np.abs(self.data.network.value(samples))
            if float(np.ptp(np.log(outputs))) > 1e-6:
                return f"|f(x_i)| from {outputs.min():.3g} to {outputs.max():.3g}, where all agree"
        if tie_kind(self.data, self.scale) is not None and not self._tied(samples, coefficients):
            what = "margins" if self.data.source == "kkt" else "slopes of the loss"
            return f"{what} that differ from what the assumptions ask"
        return ""

    def difference(self, first: TrainingSet, second: TrainingSet) -> float:
        """`largest_difference` with the symmetries of the scale."""
        return largest_difference(first.samples, second.samples, directions=self.scale != "bias")

    def _on_their_side(self, samples: FloatArray, coefficients: FloatArray) -> bool:
        """b_i f(x_i) > 0 for all i, beyond what the noise could feign."""
        network = self.data.network
        inner = np.abs(network.lift(samples) @ network.points.T) ** network.degree
        floor = (1e-9 + 10.0 * network.degree * self.noise_level) * (
            inner @ np.abs(network.output_weight)
        )
        values = np.sign(coefficients) * network.value(samples)
        return bool(np.all(values > floor))

    def _tied(self, samples: FloatArray, coefficients: FloatArray) -> bool:
        """Equal margins, or coefficients in the proportion that the logistic loss gives."""
        outputs = self.data.network.value(samples)
        if self.data.source == "kkt":
            values = np.log(np.abs(outputs))
        else:
            labels = np.sign(coefficients) * (-1.0 if self.data.source == "gradient" else 1.0)
            values = np.log(np.abs(coefficients)) + np.logaddexp(0.0, labels * outputs)
        return bool(np.ptp(values) <= max(1e-6, self.level))
