"""Hermite data of the moment tensor: one object behind every source.

Each source lists gradients of p(u) = sum_i b_i (x_i . u)^alpha at known points u_j:

    scales_j T(u_j^(alpha-1), .) = rows_j,     T = sum_i b_i x_i^(alpha)

with the measurement noise spread evenly over `rows`, so that row j counts with the weight
|scales_j| |u_j|^(alpha-1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from identify.arrays import FloatArray
from identify.errors import InvalidInputError, NotCoveredError
from identify.hermite.gradient_decay import without_decay
from identify.model.gradients import take_gradient
from identify.model.losses import read_loss
from identify.model.two_layer import TwoLayerNetwork
from identify.model.two_logits import one_output, one_output_head, one_output_pair

SOURCES = ("kkt", "weight-decay", "gradient", "fine-tuning")
LOSSES = ("logistic", "squared", "cross-entropy")
_COMPARABLE = 1e-100


@dataclass(frozen=True, eq=False)
class HermiteData:
    """Points, rows and values that a source gives about the moment tensor.

    `points` (m, D) with D = d, or d + 1 with a hidden bias; `rows` (m, D); `scales` (m,) equal to
    alpha a_j; `values` (m,) with p(u_j), or None; float64, all finite. `consistency` is the
    relative residual of the redundant equations (balance, or Euler's identity), None where the
    source has none. `point` says where fine-tuning is read, "midpoint" or "initial".

    Example:
        >>> import numpy as np
        >>> net = TwoLayerNetwork(np.eye(2), np.ones(2), degree=3)
        >>> HermiteData.from_weight_decay(net).points.shape
        (2, 2)
    """

    source: str
    degree: int
    points: FloatArray
    rows: FloatArray
    scales: FloatArray
    values: FloatArray | None
    consistency: float | None
    rounding: float
    network: TwoLayerNetwork
    loss: str | None = None
    decay: float | None = None
    initial: TwoLayerNetwork | None = None
    target: TwoLayerNetwork | None = None
    point: str | None = None

    @property
    def has_bias(self) -> bool:
        """Whether the last coordinate of every point is a hidden bias."""
        return self.network.has_bias

    @property
    def homogeneous(self) -> bool:
        """Whether the points are eigenvectors of T, as for KKT and weight decay."""
        return self.source in ("kkt", "weight-decay")

    @property
    def gradient_decay(self) -> float | None:
        """What was subtracted from a gradient as weight decay, None if nothing was."""
        origin = None if self.source != "gradient" or self.target is None else self.target.origin
        return None if origin is None else origin.decay

    @property
    def inputs(self) -> tuple[Mapping[str, str], ...]:
        """Role and sha256 of every set of arrays that the data came from."""
        entries = [{"role": "model", "sha256": self.network.sha256()}]
        if self.source == "gradient" and self.target is not None:
            entries.append({"role": "gradient", "sha256": self.target.sha256()})
        if self.source == "fine-tuning" and self.initial is not None:
            entries.append({"role": "initial", "sha256": self.initial.sha256()})
        return tuple(entries)

    @property
    def stated_rounding(self) -> float | None:
        """The coarsest rounding that a file states beyond the type of its numbers, or None."""
        stated = [n.rounding for n in self._networks if n.dtype_rounding is not None]
        return max(stated, default=None)

    @property
    def _networks(self) -> tuple[TwoLayerNetwork, ...]:
        found = (self.network, self.initial, self.target)
        return tuple(network for network in found if network is not None)

    def without_statements(self) -> HermiteData:
        """The same data, their rounding that of the types in which the numbers are stored."""
        before = max(network.rounding for network in self._networks)
        after = max(n.dtype_rounding or n.rounding for n in self._networks)

        def strip(network: TwoLayerNetwork) -> TwoLayerNetwork:
            if network.dtype_rounding is None:
                return network
            return replace(network, rounding=network.dtype_rounding, dtype_rounding=None)

        return replace(
            self,
            rounding=self.rounding * (after / before),
            network=strip(self.network),
            initial=None if self.initial is None else strip(self.initial),
            target=None if self.target is None else strip(self.target),
        )

    @classmethod
    def of(
        cls,
        source: str,
        network: TwoLayerNetwork,
        *,
        gradient: object | None = None,
        initial: TwoLayerNetwork | None = None,
        decay: float | None = None,
        loss: str | None = None,
        gradient_decay: float | str | None = None,
    ) -> HermiteData:
        """Hermite data of one of `SOURCES` by its name, with exactly what that source needs.

        `decay` belongs to "weight-decay", `gradient` and the `gradient_decay` in it to "gradient",
        and `initial` to "fine-tuning", of which `network` is the final one.

        Raises:
            InvalidInputError: an unknown source, something missing, or something of another source.
        """
        if source not in SOURCES:
            raise InvalidInputError("source", f"one of {', '.join(SOURCES)}", source)
        for name, value, needed in (
            ("gradient", gradient, "gradient"),
            ("initial", initial, "fine-tuning"),
        ):
            if (value is not None) != (source == needed):
                found = "none" if value is None else f"one with source {source}"
                raise InvalidInputError(name, f"a network exactly for source {needed}", found)
        for name, constant, needed in (
            ("decay", decay, "weight-decay"),
            ("gradient_decay", gradient_decay, "gradient"),
        ):
            if constant is not None and source != needed:
                raise InvalidInputError(name, f"none unless the source is {needed}", constant)
        if gradient is not None:
            return cls.from_gradient(network, gradient, loss, decay=gradient_decay)
        if initial is not None:
            return cls.from_fine_tuning(initial, network, loss=loss)
        if source == "weight-decay":
            return cls.from_weight_decay(network, decay, loss)
        return cls.from_kkt(network)

    @classmethod
    def from_kkt(cls, network: TwoLayerNetwork) -> HermiteData:
        """Hermite data of a KKT point of the max-margin problem, up to its scale.

        w_j = alpha a_j T(w_j^(alpha-1), .); the consistency residual is the balance
        sum_j ||w_j|^2 - alpha a_j^2| / sum_j (|w_j|^2 + alpha a_j^2), in [0, 1]. Of two outputs
        a_j is the difference over sqrt(2), as `one_output_head` says.

        Raises:
            UnsupportedModelError: polynomial activation, more than two outputs, or two whose
                weights are not opposite.
            InvalidInputError: every neuron is zero, or the output bias is not.

        Source: stationarity of min |theta|^2/2 s.t. y_i f(x_i) >= 1 (Lyu & Li 2020).
        """
        return cls._from_stationary(network, "kkt", None, None)

    @classmethod
    def from_weight_decay(
        cls, network: TwoLayerNetwork, decay: float | None = None, loss: str | None = None
    ) -> HermiteData:
        """Hermite data of a stationary point of loss + decay/2 |theta|^2.

        decay w_j = alpha a_j T(w_j^(alpha-1), .); without `decay` the coefficients are in units
        of it. `loss` ("logistic", "squared", "cross-entropy") names the loss for the ties. Two
        outputs are read as `from_kkt` reads them, with neither `decay` nor `loss`.

        Raises:
            UnsupportedModelError, InvalidInputError: as `from_kkt`; decay not positive.
        """
        if decay is not None and not (np.isfinite(decay) and decay > 0):
            raise InvalidInputError("decay", "a positive number", decay, "leave it out if unknown")
        return cls._from_stationary(network, "weight-decay", decay, check_loss(loss))

    @classmethod
    def _from_stationary(
        cls, network: TwoLayerNetwork, source: str, decay: float | None, loss: str | None
    ) -> HermiteData:
        if _two_logits(network):
            _without_units(decay, loss)
            network = one_output_head(network)
        network.require_supported()
        if source == "kkt" and network.output_bias is not None and np.any(network.output_bias):
            raise InvalidInputError(
                "output.bias",
                "0 for --source kkt",
                float(network.output_bias.ravel()[0]),
                "a network with an output bias is not homogeneous",
            )
        points, output, alpha = network.points, network.output_weight, network.degree
        # One power of two per layer pair keeps the sums of squares in range and loses no bit.
        shift = -max(_exponent(points), _exponent(output))
        near, low = np.ldexp(points, shift), np.ldexp(output, shift)
        norms, heights = np.einsum("jk,jk->j", near, near), alpha * low**2
        total = float(norms.sum() + heights.sum())
        if total == 0.0 or not np.any(norms * heights):
            raise InvalidInputError(
                "model", "at least one live neuron", "all neurons dead", "no sample is visible"
            )
        return cls(
            source=source,
            degree=alpha,
            points=points,
            rows=points * (1.0 if decay is None else decay),
            scales=alpha * output,
            values=None,
            consistency=float(np.abs(norms - heights).sum() / total),
            rounding=network.rounding,
            network=network,
            loss=loss,
            decay=decay,
        )

    @classmethod
    def from_gradient(
        cls,
        network: TwoLayerNetwork,
        gradient: object,
        loss: str | None = None,
        *,
        decay: float | str | None = None,
    ) -> HermiteData:
        """Hermite data of one gradient of a batch's loss, b_i = dloss_i/df_i.

        (grad_W)_j = alpha a_j T(w_j^(alpha-1), .) and (grad_a)_j = p(w_j), so that
        alpha a_j (grad_a)_j = w_j . (grad_W)_j: the consistency residual. A network with two
        outputs stands for the difference of them, as cross-entropy sees it.

        Args:
            network: the weights at which the gradient was taken.
            gradient: a container of the same shapes, a torch module after backward(), arrays by
                name, or a list of them in the order of the parameters; the output layer's may be
                missing.
            loss: "logistic", "squared" or "cross-entropy"; used for ties where the scale is fixed.
            decay: the constant of a weight decay that is part of the gradient, which is then
                subtracted; "auto" for the one that the consistency residual asks for.

        Raises:
            InvalidInputError: shapes differ, the gradient is zero, all output weights are zero.
            NotCoveredError: the gradient is clearly that of a network of another degree.

        Source: Wang, Lee & Lei 2022 for the tensor view of one gradient.
        """
        taken = take_gradient(gradient, network)
        if decay is not None:
            taken = without_decay(network, taken, decay)
        if _two_logits(network):
            _same_shapes(network, taken, "gradient")
            network, taken = one_output(network, taken)
        network.require_supported()
        _same_shapes(network, taken, "gradient")
        rows, values, scales = (
            taken.points,
            taken.output_weight,
            network.degree * network.output_weight,
        )
        filled = taken.origin is not None and taken.origin.filled
        if not np.any(rows) and not np.any(values):
            raise InvalidInputError("gradient", "a non-zero gradient", "all zeros")
        if not np.any(scales):
            raise InvalidInputError(
                "output.weight",
                "at least one non-zero entry",
                "all zeros",
                "the first layer then has no gradient",
            )
        _check_degree(network, rows, scales, values)
        return cls(
            source="gradient",
            degree=network.degree,
            points=network.points,
            rows=rows,
            scales=scales,
            values=values,
            consistency=None if filled else _euler_residual(network.points, rows, scales, values),
            rounding=max(network.rounding, taken.rounding),
            network=network,
            loss=check_loss(loss),
            target=taken,
        )

    @classmethod
    def from_fine_tuning(
        cls,
        initial: TwoLayerNetwork,
        final: TwoLayerNetwork,
        *,
        point: str = "auto",
        loss: str | None = None,
    ) -> HermiteData:
        """Hermite data of a fine-tuned pair, exact to first order in the movement.

        (w_j^T - w_j^0) = alpha a_j T(u_j^(alpha-1), .) + second order, with u_j the midpoint
        (smaller constant for many small steps) or the initial weight (exact for one step).
        Euler's identity holds at the midpoint in the limit of small steps, where
        |w_j|^2 - alpha a_j^2 does not move, and at the initial weight for one step.

        Args:
            initial, final: the networks before and after.
            point: "midpoint", "initial", or "auto": the one that violates Euler's identity less.
            loss: as in `from_gradient`.

        Raises:
            InvalidInputError: shapes or degrees differ, nothing moved, or `point` is unknown.
        """
        _same_shapes(initial, final, "final network")
        if _two_logits(initial) and _two_logits(final):
            _without_units(None, loss)
            initial, final = one_output_pair(initial, final)
        initial.require_supported()
        final.require_supported()
        if initial.degree != final.degree:
            raise InvalidInputError("degree", f"{initial.degree} in both files", final.degree)
        if point not in ("auto", "midpoint", "initial"):
            raise InvalidInputError("point", "'auto', 'midpoint' or 'initial'", point)
        if point == "auto":
            both = [
                cls.from_fine_tuning(initial, final, point=name, loss=loss)
                for name in ("midpoint", "initial")
            ]
            return min(both, key=lambda data: data.consistency or 0.0)
        rows = final.points - initial.points
        values = final.output_weight - initial.output_weight
        if not np.any(rows) and not np.any(values):
            raise InvalidInputError(
                "final network", "weights that differ from the initial ones", "equal weights"
            )
        share = 0.5 if point == "midpoint" else 0.0
        points = initial.points + share * rows
        output = initial.output_weight + share * values
        scales = initial.degree * output
        if not np.any(scales):
            raise InvalidInputError("output.weight", "at least one non-zero entry", "all zeros")
        size = max(float(np.abs(final.points).max()), float(np.abs(initial.points).max()))
        unit = max(initial.rounding, final.rounding)
        moved = float(np.linalg.norm(rows)) / np.sqrt(rows.size)
        return cls(
            source="fine-tuning",
            degree=initial.degree,
            points=points,
            rows=rows,
            scales=scales,
            values=values,
            consistency=_euler_residual(points, rows, scales, values),
            # The difference of two rounded weights carries their rounding, not its own.
            rounding=float(unit * max(1.0, size / moved)) if moved > 0 else unit,
            network=final,
            loss=check_loss(loss),
            initial=initial,
            target=final,
            point=point,
        )


def check_loss(loss: str | None) -> str | None:
    """The loss under its name here, or an error that lists the known ones."""
    return None if loss is None else read_loss(loss, LOSSES)


def _two_logits(network: TwoLayerNetwork) -> bool:
    """Whether the network has two outputs and a power, so that their difference is all of it."""
    return network.outputs == 2 and network.activation is None


def _without_units(decay: float | None, loss: str | None) -> None:
    """Refuse what ties coefficients to outputs: those of the head's difference have other units."""
    for name, value in (("decay", decay), ("loss", loss)):
        if value is not None:
            expected = "none for two outputs and the weights themselves"
            raise InvalidInputError(name, expected, value, f"leave --{name} out")


def _same_shapes(network: TwoLayerNetwork, other: TwoLayerNetwork, name: str) -> None:
    shapes = {
        key: (array.shape, other.arrays()[key].shape if key in other.arrays() else None)
        for key, array in network.arrays().items()
        if key != "output.bias"
    }
    for key, (expected, got) in shapes.items():
        if expected != got:
            raise InvalidInputError(f"{name} {key}", f"shape {expected}", got or "no such array")


def _euler_residual(
    points: FloatArray, rows: FloatArray, scales: FloatArray, values: FloatArray
) -> float:
    """|left - right| / ||left| + |right|| over all neurons, for Euler's identity; in [0, 1]."""
    left, right = euler_sides(points, rows, scales, values)
    total = float(np.linalg.norm(np.abs(left) + np.abs(right)))
    return float(np.linalg.norm(left - right)) / total if total > 0 else 0.0


def euler_sides(
    points: FloatArray, rows: FloatArray, scales: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """scales_j values_j and u_j . rows_j over one power of two, so that neither overflows."""
    tall = [_exponent(array) for array in (points, rows, scales, values)]
    left = np.ldexp(scales, -tall[2]) * np.ldexp(values, -tall[3])
    right = np.einsum("jk,jk->j", np.ldexp(points, -tall[0]), np.ldexp(rows, -tall[1]))
    first, second = tall[2] + tall[3], tall[0] + tall[1]
    top = max(first, second)
    # Beyond 2^-1000 of the other side a side is nothing.
    return np.ldexp(left, max(first - top, -1000)), np.ldexp(right, max(second - top, -1000))


def _exponent(array: FloatArray) -> int:
    """The power of two next above the largest modulus; 0 for zeros."""
    return int(np.frexp(float(np.abs(array).max(initial=0.0)))[1])


def _check_degree(
    network: TwoLayerNetwork, rows: FloatArray, scales: FloatArray, values: FloatArray
) -> None:
    """Refuse a gradient that Euler's identity shows to be of another degree.

    What fits no degree may be noise, clipping or weight decay, and the verdict says so.
    """
    left, right = euler_sides(network.points, rows, scales, values)
    # Sides that are no power of two near each other fit no degree, and their squares may vanish.
    if not min(np.abs(left).max(), np.abs(right).max()) > _COMPARABLE:
        return
    ratio = float(left @ right) / float(left @ left)
    spread = float(np.linalg.norm(right - ratio * left)) / float(np.linalg.norm(right))
    other = network.degree * ratio
    if spread < 1e-3 and abs(ratio - 1.0) > 0.05 and abs(other - round(other)) < 0.02 * other:
        raise NotCoveredError(
            "gradient",
            f"the gradient of a network of degree {network.degree}",
            f"one that fits degree {other:.3g}",
            "check that the activation is a power, and --degree",
        )
