"""What a stationary point shows beside its gradient: balance, kinks, margins, patterns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np

from ..deep.case import Case
from ..deep.cubic import count_unknowns
from ..outcome import FloatArray, check_possible, require, required
from .point import layers_of, lifted
from .report import BALANCE, KINKS, MARGINS, WeightsReport

CONFIDENCE = 3.0
"""Smallest distance from a kink over its error."""
LOOSEST = 0.03
"""Largest spread of the margins that errors may allow, for equal ones to confirm anything."""
ROUNDINGS = 30.0
"""Times the noise up to which layers are balanced and margins equal."""
PARALLEL = 1e-6
_LEAST = 1e-12
_SAMPLE = 1e-14
_PRIME = 2147483629
"""Another prime than the verifier's."""


@dataclass(frozen=True, eq=False)
class Point:
    """A report on weights beside the network that it is about."""

    report: WeightsReport
    case: Case

    @property
    def rows(self) -> FloatArray:
        """[W, beta], (m, d + 1)."""
        return lifted(self.case.network.layers)

    @property
    def output(self) -> FloatArray:
        """A, (C, m)."""
        return layers_of(self.case.network.layers)[1]

    @property
    def noise(self) -> float:
        """The largest relative noise of the layers."""
        return max(found.relative_noise for found in self.case.spectra.values())

    def stated(self, name: str, *, holds: bool | None, equations: int) -> Mapping[str, Any]:
        """The stated check of that name, with that outcome and number of equations."""
        found = required(self.report.check(name), f"no check '{name}' is stated")
        require(found["holds"] is holds, f"the check '{name}' says {found['holds']}, not {holds}")
        require(found["equations"] == equations,
                f"{equations} equations of '{name}', not {found['equations']}")  # fmt: skip
        return found

    def agrees(self, stated: Mapping[str, Any], own: float, floor: float) -> None:
        """The value of a check is the one found here."""
        factor = 4.0 if self.case.top.rounded else 1.5
        close = self.case.is_near("checks.value", stated["value"], own, factor, floor)
        require(close, f"the value of '{stated['name']}' is {own:.2e}, not {stated['value']}")


def check_balance(point: Point) -> str:
    """|w_j|^2 + beta_j^2 = |a_j|^2 for every neuron, both layers being trained."""
    squares = np.sum(point.output**2, axis=0)
    away = np.abs(np.sum(point.rows**2, axis=1) - squares)
    value = float(away.max() / squares.max())
    limit = ROUNDINGS * point.noise + _LEAST
    require(value <= 1.5 * limit,
            f"the layers are not balanced: {value:.1e}, {limit:.1e} is allowed")  # fmt: skip
    stated = point.stated(BALANCE, holds=True, equations=len(squares))
    point.agrees(stated, value, _LEAST)
    check_possible(value <= limit, f"{value:.2e} and {limit:.2e}: a matter of rounding")
    return f"{len(squares)} neurons with equal norms in both layers, to {value:.1e}"


def check_kinks(point: Point) -> str:
    """No sample is nearer to the kink of a neuron than three times its error."""
    case = point.case
    samples = case.answer.samples
    sizes = np.linalg.norm(point.rows, axis=1)
    live = sizes > 1e-12 * sizes.max()
    reach = np.sqrt(np.sum(samples**2, axis=1) + 1.0)[:, None] * sizes[live]
    room = np.abs(case.run.z[0][:, live]) / (reach * (case.bounds[0][:, None] + _SAMPLE))
    ratio = float(room.min())
    require(ratio >= CONFIDENCE / 1.5, f"a sample is {ratio:.2g} times its error off a kink")
    stated = point.stated(KINKS, holds=True, equations=room.size)
    point.agrees(stated, ratio, 0.0)
    check_possible(ratio >= CONFIDENCE, f"{ratio:.2g} times the error off a kink: rounding")
    return f"{room.size} values, the smallest {ratio:.1e} times its error"


def check_margins(point: Point) -> str:
    """At a KKT point label times output is one positive number for all samples with a multiplier.

    What is printed as margins is label times output for weight decay too.
    """
    case, stated = point.case, point.report.raw["margins"]
    labels, outputs = point.report.raw["labels"], case.run.z[-1]
    if not case.answer.scaled or labels is None or outputs.shape[1] != 1:
        require(stated is None, "the scale of the samples is not known, and margins are printed")
        if point.report.margins:
            said = point.stated(MARGINS, holds=None, equations=0)
            require(said["value"] is None, "no value of the margins")
        return "not known"
    margins = np.asarray(labels) * outputs[:, 0]
    fits = stated is not None and len(stated) == len(margins)
    # Sums in another order: relative to the largest terms.
    terms = np.abs(case.run.slopes[0] * case.run.z[0]) @ np.abs(point.output[0])
    allowed = 1e-12 * (terms + np.abs(margins))
    require(fits and (np.abs(np.asarray(stated) - margins) <= allowed).all(),
            "the margins are not label times output of the samples")  # fmt: skip
    if not point.report.margins:
        return f"{len(margins)} printed, and not asked to be equal"
    require(margins.min() > 0.0, "a sample on the wrong side")
    value, limit = _spread(point, margins)
    require(value <= 1.25 * limit, f"the margins differ by {value:.1e}, {limit:.1e} is allowed")
    said = point.stated(MARGINS, holds=True, equations=len(margins) - 1)
    point.agrees(said, value, float(3e-12 * (terms / margins).max()))
    check_possible(value <= limit, f"{value:.2e} and {limit:.2e}: a matter of rounding")
    check_possible(limit <= LOOSEST, f"errors allow a spread of {limit:.1e}")
    return f"{len(margins)} equal margins, to {value:.1e}"


def _spread(point: Point, margins: FloatArray) -> tuple[float, float]:
    """The relative spread of the margins, and what the errors of samples and weights allow."""
    case = point.case
    sizes = np.linalg.norm(point.rows, axis=1)
    reach = np.abs(case.run.slopes[0] * point.output[0]) @ sizes
    lengths = np.sqrt(np.sum(case.answer.samples**2, axis=1) + 1.0)
    error = reach * lengths * (case.bounds[0] + ROUNDINGS * point.noise + _SAMPLE)
    least = float(margins.min())
    return float(np.ptp(margins)) / least, float(3.0 * error.max()) / least


def check_patterns(point: Point) -> str:
    """Directions of neurons, patterns needed and their rank, and b = -p, are those of the files."""
    raw, case = point.report.raw, point.case
    r, outputs = case.top.rank, len(point.output)
    needed = r * (r + 1) // 2 + r * (outputs - 1)
    if case.degree == 3:
        needed = -(-(count_unknowns(r, outputs, case.network.leak) - r) // (r + outputs))
    require(raw["patterns_needed"] == needed, f"{needed} patterns are needed")
    own = None if outputs > 1 else _pattern_rank(case)
    require(raw["pattern_rank"] == own, f"the patterns have rank {own}, not {raw['pattern_rank']}")
    b = -case.answer.cotangents
    said = np.asarray(raw["coefficients"] or [], dtype=np.float64)
    same = np.array_equal(said, b[:, 0] if b.shape[1] == 1 else b)
    require(same, "the coefficients are not minus the slopes of the certificate")
    level = max(PARALLEL, ROUNDINGS * case.top.relative_noise)
    stated = raw["neuron_directions"]
    found = _directions(point.rows, level)
    if stated != found:
        # Nearly parallel neurons are counted in one order or another.
        low, high = _directions(point.rows, 3.0 * level), _directions(point.rows, level / 3.0)
        require(low <= stated <= high, f"the neurons have {found} directions, not {stated}")
        case.not_checked["neuron_directions"] = None
    return f"{found} directions of neurons, {needed} patterns needed"


def _pattern_rank(case: Case) -> int:
    """The dimension of span{1_S 1_S^T} over the patterns S of the neurons."""
    masks = np.unique(case.masks[case.masks.any(axis=1)], axis=0)
    first, second = np.triu_indices(masks.shape[1])
    products = (masks[:, first] & masks[:, second]).astype(int)
    if not products.size:
        return 0
    entries = products.ravel().tolist()
    return int(flint.nmod_mat(len(masks), products.shape[1], entries, _PRIME).rank())


def _directions(rows: FloatArray, level: float) -> int:
    """Neurons that are no positive multiples of earlier ones, to an angle of that sine."""
    lengths = np.linalg.norm(rows, axis=1)
    live = lengths > level * lengths.max()
    units = rows[live] / lengths[live][:, None]
    count, left = 0, units
    while len(left):
        count += 1
        left = left[np.linalg.norm(left - left[0], axis=1) > level]
    return count
