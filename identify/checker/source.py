"""The data of a source, rebuilt from the files: points, rows, scales and values of the neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .outcome import CheckInputError, FloatArray
from .reading.files import Network


@dataclass(frozen=True, eq=False)
class Data:
    """scales_j T(u_j^(alpha-1), .) = rows_j and T(u_j^alpha) = values_j, as the source gives them.

    `output_rows` (m,) is what the network's gradients by the output weights should sum to.
    `weight_rounding` and `computed` are the roundoffs of the weights and of the numbers that were
    computed; `network` has the points and output weights of f where they are not those of the
    data, as for fine-tuning.
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
    weight_rounding: float = 0.0
    computed: float = 0.0
    network: tuple[FloatArray, FloatArray] | None = None
    filled: bool = False

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
        if self.values is None:
            outputs = self.scales / self.degree
            unit = -max(_exponent(self.points), _exponent(outputs))
            norms = np.sum(np.ldexp(self.points, unit) ** 2, axis=1)
            heights = self.degree * np.ldexp(outputs, unit) ** 2
            total = float((norms + heights).sum())
            return float(np.abs(norms - heights).sum()) / total if total > 0.0 else 0.0
        if self.filled:
            return 0.0
        left, right, lost = euler_sides(self.points, self.rows, self.scales, self.values)
        total = float(np.linalg.norm(np.abs(left) + np.abs(right)))
        away = np.maximum(np.abs(left - right) - lost, 0.0)
        return float(np.linalg.norm(away)) / total if total > 0.0 else 0.0

    @property
    def network_points(self) -> FloatArray:
        """The points of f, (m, D)."""
        return self.points if self.network is None else self.network[0]

    @property
    def network_heights(self) -> FloatArray:
        """The output weights of f, (m,)."""
        return self.scales / self.degree if self.network is None else self.network[1]

    def lift(self, samples: FloatArray) -> FloatArray:
        """Append the coordinate 1 where there is a hidden bias."""
        return np.column_stack([samples, np.ones(len(samples))]) if self.biased else samples

    def outputs(self, samples: FloatArray) -> FloatArray:
        """f(x_i) without the output bias, shape (n,)."""
        inner = self.lift(samples) @ self.network_points.T
        return np.asarray(inner**self.degree @ self.network_heights)


def _exponent(array: FloatArray) -> int:
    """e with |array| < 2^e; 0 for zeros."""
    return int(np.frexp(np.abs(array).max(initial=0.0))[1])


def euler_sides(
    points: FloatArray, rows: FloatArray, scales: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """s_j v_j and u_j . g_j in one power of two: the largest is near 1 and none overflows.

    Every neuron has exponents of its own, so that no product is lost before it is compared. The
    third array is what the smallest v_j of float64 makes of s_j v_j: a smaller one is stored as 0.
    """
    first, second = np.frexp(scales), np.frexp(values)
    tall, wide = (np.frexp(np.abs(x).max(axis=1))[1] for x in (points, rows))
    left = first[0] * second[0]
    right = np.sum(np.ldexp(points, -tall[:, None]) * np.ldexp(rows, -wide[:, None]), axis=1)
    exponents = [first[1] + second[1], tall + wide]
    known = np.concatenate([e[x != 0.0] for e, x in zip(exponents, (left, right), strict=True)])
    top = int(known.max(initial=-4000))
    left, right = (
        np.ldexp(x, np.maximum(e - top, -1100) * (x != 0.0))
        for e, x in zip(exponents, (left, right), strict=True)
    )
    lost = np.ldexp(np.abs(first[0]), np.clip(first[1] - 1074 - top, -1100, 1000))
    return left, right, lost


def lengths_of(rows: FloatArray) -> FloatArray:
    """Norms of rows over the largest entry, so that no square overflows."""
    top = float(np.abs(rows).max(initial=0.0))
    return np.asarray(np.linalg.norm(rows / top if top > 0.0 else rows, axis=1))


@np.errstate(all="ignore")
def build_data(
    source: str, files: Mapping[str, Network], decay: float | None, point: str | None = None
) -> Data:
    """The data of one source; `files` by role: model, gradient, initial.

    `point` says where fine-tuning is read, at the midpoint or the initial weights.
    """
    model = files["model"]
    degree, offset = model.degree, 0.0
    points, output = model.points, model.output
    rounding = weights = computed = model.rounding
    if model.output_bias is not None:
        offset = float(model.output_bias[0])
    values: FloatArray | None = None
    if source == "gradient":
        gradient = files["gradient"]
        rows, values = gradient.points, gradient.output
        goal = values
        rounding, computed = max(rounding, gradient.rounding), gradient.rounding
    elif source == "fine-tuning":
        initial = files["initial"]
        rows, values = points - initial.points, output - initial.output
        goal = values
        size = max(float(np.abs(points).max()), float(np.abs(initial.points).max()))
        share = 0.0 if point == "initial" else 0.5
        points = initial.points + share * rows
        output = initial.output + share * values
        moved = float(np.linalg.norm(rows)) / float(np.sqrt(rows.size))
        # The difference of two rounded weights carries their rounding, not its own.
        unit = weights = computed = max(rounding, initial.rounding)
        rounding = unit * max(1.0, size / moved) if moved > 0 else unit
        offset = 0.0
    else:
        share = 1.0 if decay is None else decay
        rows, goal = points * share, output * share
    for array in (points, rows, degree * output, goal):
        if not np.isfinite(array).all():
            raise CheckInputError("model", "numbers in the range of float64", "larger ones")
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
        weight_rounding=weights,
        computed=computed,
        network=(model.points, model.output),
        filled=source == "gradient" and files["gradient"].filled,
    )
