"""The data that a report speaks about, rebuilt from the files and the certificate's basis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from identify.check_base import FloatArray, IntArray, NotCheckableError, RefutedError, require
from identify.check_files import Network
from identify.check_read import Certificate, Report

NOISE_FLOOR = 1e-13


@dataclass(frozen=True, eq=False)
class Data:
    """scales_j T(u_j^(alpha-1), .) = rows_j and T(u_j^alpha) = values_j, as the source gives them.

    `output_rows` (m,) is what the network's gradients by the output weights should sum to.
    """

    source: str
    degree: int
    points: FloatArray
    rows: FloatArray
    scales: FloatArray
    values: FloatArray | None
    output_rows: FloatArray
    rounding: float
    biased: bool
    offset: float

    @property
    def homogeneous(self) -> bool:
        """Whether the rows are the points, as for KKT and weight decay."""
        return self.source in ("kkt", "weight-decay")

    @property
    def samples_dimension(self) -> int:
        """d, the dimension of a sample without the bias coordinate."""
        return int(self.points.shape[1]) - self.biased

    @cached_property
    def consistency(self) -> float:
        """Balance of the layers, or Euler's identity |s_j v_j - u_j . g_j|, relative, in [0, 1]."""
        if self.homogeneous:
            norms = np.sum(self.points**2, axis=1)
            # scales = alpha a, so that alpha a^2 = scales^2 / alpha.
            heights = self.degree * (self.scales / self.degree) ** 2
            return float(np.abs(norms - heights).sum() / (norms + heights).sum())
        assert self.values is not None
        left, right = self.scales * self.values, np.sum(self.points * self.rows, axis=1)
        total = float(np.linalg.norm(np.abs(left) + np.abs(right)))
        return float(np.linalg.norm(left - right)) / total if total > 0 else 0.0

    def lift(self, samples: FloatArray) -> FloatArray:
        """Append the coordinate 1 where there is a hidden bias."""
        return np.column_stack([samples, np.ones(len(samples))]) if self.biased else samples

    def outputs(self, samples: FloatArray) -> FloatArray:
        """f(x_i) without the output bias, shape (n,)."""
        inner = self.lift(samples) @ self.points.T
        return np.asarray(inner**self.degree @ (self.scales / self.degree))


def build_data(source: str, files: Mapping[str, Network], decay: float | None) -> Data:
    """The data of one source; `files` by role: model, gradient, initial."""
    model = files["model"]
    degree, offset = model.degree, 0.0
    points, output = model.points, model.output
    rounding = model.rounding
    if model.output_bias is not None:
        offset = float(model.output_bias[0])
    values: FloatArray | None = None
    if source == "gradient":
        gradient = files["gradient"]
        rows, values = gradient.points, gradient.output
        goal = values
        rounding = max(rounding, gradient.rounding)
    elif source == "fine-tuning":
        initial = files["initial"]
        rows, values = points - initial.points, output - initial.output
        goal = values
        size = max(float(np.abs(points).max()), float(np.abs(initial.points).max()))
        points = initial.points + 0.5 * rows
        output = initial.output + 0.5 * values
        moved = float(np.linalg.norm(rows)) / float(np.sqrt(rows.size))
        # The difference of two rounded weights carries their rounding, not its own.
        unit = max(rounding, initial.rounding)
        rounding = unit * max(1.0, size / moved) if moved > 0 else unit
        offset = 0.0
    else:
        share = 1.0 if decay is None else decay
        rows, goal = points * share, output * share
    return Data(
        source=source,
        degree=degree,
        points=points,
        rows=rows,
        scales=degree * output,
        values=values,
        output_rows=goal,
        rounding=rounding,
        biased=model.hidden_bias is not None,
        offset=offset,
    )


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
    """A report with its data: everything that several claims are checked against."""

    def __init__(self, report: Report, data: Data) -> None:
        self.report = report
        self.data = data
        self.degree = data.degree
        self.least: float | None = None

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
        norms = np.linalg.norm(self.data.points[self.neurons], axis=1)
        length, height = float(norms.max()), float(np.abs(self.data.scales[self.neurons]).max())
        row = float(np.abs(self.data.rows[self.neurons]).max())
        require(
            min(length, height, row) > 0.0 and np.isfinite(length * height * row),
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
        norms = np.linalg.norm(self.data.points, axis=1)
        reach = (norms / norms.max()) ** self.degree * np.abs(self.data.scales)
        return np.asarray(reach / reach.max())

    @cached_property
    def live(self) -> IntArray:
        """Neurons that stand out of the noise."""
        return np.flatnonzero(self.reach > 10.0 * self.noise)

    @property
    def tolerance(self) -> float:
        """Directions closer than this are the same at the noise level."""
        return max(10.0 * self.noise, 1e-8)

    @cached_property
    def groups(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Live neurons with a part in V, the listed neuron nearest to each, and how far it is."""
        norms = np.linalg.norm(self.data.points[self.live], axis=1)
        rows = self.rows(self.live)
        inside = rows.lengths * self.units[0] > 1e-12 * norms
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
        total = float(np.linalg.norm(self.data.rows[self.live])) / self.units[2]
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
