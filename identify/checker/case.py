"""What a report speaks about, rebuilt from the files and the certificate's basis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from .outcome import (
    BoolArray,
    FloatArray,
    IntArray,
    NotCheckableError,
    RefutedError,
    agrees,
    require,
)
from .reading.report import Certificate, Report
from .source import Data, lengths_of

NOISE_FLOOR = 1e-13
T = TypeVar("T")
VANISHING = 1e-150
"""Relative weight of a row below which the power of its point has left float64."""


@dataclass(frozen=True, eq=False)
class Merged:
    """Live neurons with parallel ones averaged by weight, and the neurons that give only values.

    `points` (k, r), `targets` (k, r), `weights` (k,) for the listed neurons; `value_points`
    (l, r), `value_targets`, `value_weights` (l,); the largest weight is 1. `lost` is what
    averaging lost, relative; `spares` counts the neurons that were averaged away.
    """

    points: FloatArray
    targets: FloatArray
    weights: FloatArray
    value_points: FloatArray
    value_targets: FloatArray
    value_weights: FloatArray
    lost: float
    spares: int

    @property
    def size(self) -> float:
        """Norm of the weighted right-hand side."""
        rows = float(np.linalg.norm(self.weights[:, None] * self.targets))
        return float(np.hypot(rows, np.linalg.norm(self.value_weights * self.value_targets)))

    @property
    def equations(self) -> int:
        """Number of scalar equations."""
        return int(self.targets.size + self.value_targets.size)

    def residual(self, terms: FloatArray, signs: FloatArray, degree: int) -> float:
        """Relative weighted residual of T = sum_i s_i z_i^(degree)."""
        rows = predicted(self.points, terms, signs, degree) - self.targets
        values = (self.value_points @ terms.T) ** degree @ signs - self.value_targets
        miss = np.hypot(
            np.linalg.norm(self.weights[:, None] * rows),
            np.linalg.norm(self.value_weights * values),
        )
        return float(miss) / self.size


@dataclass(frozen=True, eq=False)
class Rows:
    """Neurons in the units of the proofs: unit points, weights w_j, weighted rows (n, r).

    `lengths` (n,) are |Q^T u_j| over the unit of length.
    """

    points: FloatArray
    lengths: FloatArray
    weights: FloatArray
    sides: FloatArray


def predicted(points: FloatArray, terms: FloatArray, signs: FloatArray, degree: int) -> FloatArray:
    """T(p_j^(degree - 1), .) for T = sum_i s_i z_i^(degree), shape (k, r)."""
    return np.asarray(((points @ terms.T) ** (degree - 1) * signs) @ terms)


class Case:
    """A report with its data: everything that several claims are checked against.

    `deadline` is of time.monotonic; `not_checked` names the fields whose numbers rounding errors
    decide.
    """

    def __init__(self, report: Report, data: Data, deadline: float | None = None) -> None:
        self.report = report
        self.data = data
        self.degree = data.degree
        self.deadline = deadline
        self._kept: dict[str, Any] = {}
        self.not_checked: dict[str, None] = {}

    def keep(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gave when it was first called under this name."""
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found

    def kept(self, name: str, default: T) -> T:
        """What is kept under that name already, or the default."""
        found: T = self._kept.get(name, default)
        return found

    def matches(
        self, field: str, stated: float, own: float, tolerance: float, floor: float
    ) -> bool:
        """Whether two numbers agree; where both are at most `floor`, the field is not checked."""
        if agrees(stated, own, tolerance):
            return True
        if not agrees(stated, own, tolerance, floor):
            return False
        self.not_checked[field] = None
        return True

    def in_time(self, needed: float = 0.0) -> None:
        """Raise NotCheckableError if the time limit is past, or `needed` seconds would pass it."""
        if self.deadline is not None and time.monotonic() + needed > self.deadline:
            raise NotCheckableError("the time limit is reached")

    @property
    def certificate(self) -> Certificate:
        """The certificate; NotCheckableError if the report has none."""
        if self.report.certificate is None:
            raise NotCheckableError("the report carries no certificate")
        return self.report.certificate

    @property
    def noise(self) -> float:
        """The noise level that the report states."""
        if self.report.noise is None or not self.report.noise >= 0.0:
            raise NotCheckableError("the report states no noise level")
        return self.report.noise

    @cached_property
    def basis(self) -> FloatArray:
        """Q, shape (D, r)."""
        if self.certificate.basis is None:
            raise NotCheckableError("the certificate has no basis")
        if len(self.certificate.basis) != self.data.points.shape[1]:
            raise RefutedError(
                f"the basis has {len(self.certificate.basis)} rows for points of "
                f"{self.data.points.shape[1]} coordinates"
            )
        return self.certificate.basis

    @property
    def r(self) -> int:
        """The dimension of V."""
        return int(self.basis.shape[1])

    @cached_property
    def neurons(self) -> IntArray:
        """The listed neurons."""
        listed = self.certificate.neurons
        if self.basis is None or listed is None:
            raise NotCheckableError("the certificate lists no neurons")
        width = len(self.data.points)
        require(
            bool(np.all((listed >= 0) & (listed < width)))
            and len(set(listed.tolist())) == len(listed),
            f"the listed neurons are not distinct numbers from 0 to {width - 1}",
        )
        return listed

    @property
    def shift(self) -> int:
        """Bits of the integer points."""
        if self.certificate.shift is None:
            raise NotCheckableError("the certificate has no points")
        return self.certificate.shift

    @property
    def integers(self) -> IntArray:
        """The integer points P."""
        points = self.certificate.points
        if points is None:
            raise NotCheckableError("the certificate has no points")
        return points

    @cached_property
    def rounded(self) -> FloatArray:
        """The points P / 2^shift, exact in float64 while |P| is below 2^53."""
        longest = 2 ** (self.shift + 1)
        require(bool(np.all(np.abs(self.integers) <= longest)), "a point is longer than 2")
        return np.asarray(self.integers * 2.0**-self.shift, dtype=np.float64)

    @cached_property
    def units(self) -> tuple[float, float, float]:
        """Units of length, of scales and of rows: the largest among the listed neurons."""
        points = self.data.points[self.neurons]
        top = float(np.abs(points).max())
        length = float(lengths_of(points).max()) * top
        height = float(np.abs(self.data.scales[self.neurons]).max())
        row = float(np.abs(self.data.rows[self.neurons]).max())
        require(
            min(length, height, row) > 0.0 and np.isfinite([length, height, row]).all(),
            "a listed neuron is dead",
        )
        return length, height, row

    def rows(self, chosen: IntArray) -> Rows:
        """The chosen neurons in the units of the proofs."""
        length, height, row = self.units
        projected = (self.data.points[chosen] / length) @ self.basis
        lengths = np.linalg.norm(projected, axis=1)
        scales = self.data.scales[chosen] / height
        weights = np.abs(scales) * lengths ** (self.degree - 1)
        sides = np.sign(scales)[:, None] * ((self.data.rows[chosen] / row) @ self.basis)
        return Rows(projected / lengths[:, None], lengths, weights, sides)

    @cached_property
    def listed(self) -> Rows:
        """The listed neurons in the units of the proofs."""
        found = self.rows(self.neurons)
        require(bool(np.all(found.weights > 0.0)), "a listed neuron is dead or orthogonal to V")
        return found

    @cached_property
    def reach(self) -> FloatArray:
        """|u_j|^alpha |scales_j| relative to the largest: what a neuron contributes."""
        norms = lengths_of(self.data.points)
        heights = np.abs(self.data.scales) / (float(np.abs(self.data.scales).max()) or 1.0)
        reach = (norms / (float(norms.max()) or 1.0)) ** self.degree * heights
        return np.asarray(reach / (float(reach.max()) or 1.0))

    def standing(self, factor: float) -> BoolArray:
        """Neurons that stand out of `factor` times the noise by what they contribute or by row."""
        sizes = lengths_of(self.data.rows)
        limit = factor * self.noise
        # A small neuron may be the only one that sees a sample.
        tall = (self.reach > limit) | (sizes > limit * float(sizes.max()))
        return np.asarray(tall & (self.data.scales != 0.0))

    @cached_property
    def live(self) -> IntArray:
        """Neurons that stand out of the noise."""
        return np.flatnonzero(self.standing(10.0))

    @property
    def tolerance(self) -> float:
        """Directions closer than this are the same at the noise level."""
        return max(10.0 * self.noise, 1e-8)

    @cached_property
    def groups(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Live neurons with a part in V, the listed neuron nearest to each, and how far it is."""
        norms = np.linalg.norm(self.data.points[self.live] / self.units[0], axis=1)
        rows = self.rows(self.live)
        inside = (rows.lengths > 1e-12 * norms) & (rows.weights > VANISHING)
        chosen, points = self.live[inside], rows.points[inside]
        nearest = np.zeros(len(chosen), dtype=np.int64)
        gaps = np.zeros(len(chosen))
        for start in range(0, len(chosen), 512):
            part = slice(start, start + 512)
            cosines = points[part] @ self.listed.points.T
            nearest[part] = np.abs(cosines).argmax(axis=1)
            near = self.listed.points[nearest[part]]
            sign = np.sign(np.take_along_axis(cosines, nearest[part][:, None], axis=1))
            gaps[part] = np.linalg.norm(points[part] - sign * near, axis=1)
        return chosen, nearest, gaps

    @cached_property
    def directions(self) -> int:
        """Number of live neurons with distinct directions in the input space; r + 1 is enough."""
        points = self.data.points[self.live]
        points = points[np.any(points != 0.0, axis=1)]
        points = points / np.abs(points).max(axis=1, keepdims=True)
        units = points / np.linalg.norm(points, axis=1)[:, None]
        heads: list[FloatArray] = []
        for unit in units:
            if heads:
                known = np.array(heads)
                signs = np.where(known @ unit < 0.0, -1.0, 1.0)
                if np.linalg.norm(known - signs[:, None] * unit, axis=1).min() <= self.tolerance:
                    continue
            heads.append(unit)
            if len(heads) > max(self.r, 1):
                break
        return len(heads)

    @property
    def blur(self) -> float:
        """How much a relative residual may depend on which of parallel neurons stands for them."""
        gaps = self.groups[2]
        return 1e-12 + 10.0 * self.degree * float(gaps.max(initial=0.0))

    @cached_property
    def fit(self) -> float:
        """Relative residual of the terms over the merged equations."""
        return self.merged.residual(*self.terms, self.degree)

    @cached_property
    def merged(self) -> Merged:
        """The equations with parallel neurons averaged."""
        chosen, nearest, _ = self.groups
        rows = self.rows(chosen)
        power = self.degree - 1
        cosines = np.sum(rows.points * self.listed.points[nearest], axis=1)
        flip = np.where(cosines < 0.0, -1.0, 1.0) ** power
        count = len(self.neurons)
        mass = np.bincount(nearest, rows.weights**2, count)
        sums = np.zeros((count, self.r))
        np.add.at(sums, nearest, (rows.weights * flip)[:, None] * rows.sides)
        targets = sums / mass[:, None]
        lost = rows.sides - (rows.weights * flip)[:, None] * targets[nearest]
        total = float(np.linalg.norm(self.data.rows[self.live] / self.units[2]))
        top = float(np.sqrt(mass.max()))
        points, aims, weights = self._values()
        return Merged(
            points=self.listed.points,
            targets=targets,
            weights=np.sqrt(mass) / top,
            value_points=points,
            value_targets=aims,
            value_weights=weights / top,
            lost=float(np.linalg.norm(lost)) / total if len(chosen) > count else 0.0,
            spares=len(chosen) - count,
        )

    def _values(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Neurons with a_j = 0 give T(u_j^alpha) alone."""
        chosen = np.flatnonzero(self.data.scales == 0.0)
        if self.data.values is None or not len(chosen):
            return np.zeros((0, self.r)), np.zeros(0), np.zeros(0)
        length, height, row = self.units
        projected = (self.data.points[chosen] / length) @ self.basis
        lengths = np.linalg.norm(projected, axis=1)
        keep = lengths > 1e-12
        projected, lengths, chosen = projected[keep], lengths[keep], chosen[keep]
        powers = lengths**self.degree
        aims = self.data.values[chosen] / powers * (height / (length * row))
        return projected / lengths[:, None], aims, powers * (length / height)

    @cached_property
    def terms(self) -> tuple[FloatArray, FloatArray]:
        """The terms z_i (r, r) and their signs (r,)."""
        values, signs = self.certificate.terms, self.certificate.signs
        if values is None or signs is None:
            raise NotCheckableError("the certificate has no terms")
        require(bool(np.all(np.linalg.norm(values, axis=1) > 0.0)), "a term is zero")
        return values, signs

    @cached_property
    def off_span(self) -> tuple[float, FloatArray]:
        """Part of the live rows outside V, relative, and the rows outside V themselves."""
        rows = self.data.rows[self.live] / self.units[2]
        outside = rows - (rows @ self.basis) @ self.basis.T
        return float(np.linalg.norm(outside)) / float(np.linalg.norm(rows)), outside
