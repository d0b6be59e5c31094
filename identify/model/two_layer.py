"""Two-layer networks: weights, activation, value and gradient."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.layer_names import SCOPE, is_monomial, spell_activation
from identify.model.tensor_file import ROUNDING

MAX_DEGREE = 1000


@dataclass(frozen=True)
class Origin:
    """Where derived arrays come from: the hash of the file's own, and what was done to them.

    ``filled``: the output layer's gradient is not in the file and comes from Euler's identity.
    ``decay``: what was subtracted from a gradient, as a multiple of the weights.

    Example:
        >>> Origin("8ddfca").filled
        False
    """

    sha256: str
    filled: bool = False
    decay: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class TwoLayerNetwork:
    """A two-layer network f_c(x) = sum_j a_cj s(w_j . x + h_j) + e_c in float64.

    ``hidden_weight`` is W (m, d), ``output_weight`` is a, (m,) for one output and (C, m) for more,
    ``hidden_bias`` is h (m,) and ``output_bias`` is e (C,), both optional. The activation is
    s(t) = t^degree, or s(t) = sum_k c_k t^k with the coefficients ``activation`` = (c_0, ...,
    c_degree). ``rounding`` is the unit roundoff of the dtype in which the numbers were stored; an
    array of a coarser dtype raises it. ``dtype_rounding`` is that of the dtype alone where a file
    states a coarser ``rounding``, else None. Arrays are copied and read-only.

    The same container holds a gradient with respect to the parameters. ``origin`` is there if the
    arrays were derived from those of a file; then the hash is that of the file's.

    Raises InvalidInputError for shapes that do not fit, numbers that are not finite or not real,
    and a monomial of degree below 3. The cost is one copy.

    Source: the network of Lyu & Li (2020), "Gradient descent maximizes the margin of homogeneous
    neural networks", specialised to two layers; a bias as the homogeneous coordinate x -> (x, 1).

    Example:
        >>> network = TwoLayerNetwork([[1.0, 0.0], [1.0, 1.0]], [1.0, -1.0], degree=3)
        >>> network
        TwoLayerNetwork(width=2, dimension=2, outputs=1, degree=3)
        >>> network.value(np.array([[2.0, 1.0]]))
        array([-19.])
    """

    hidden_weight: FloatArray
    output_weight: FloatArray
    degree: int
    activation: tuple[float, ...] | None = None
    hidden_bias: FloatArray | None = None
    output_bias: FloatArray | None = None
    rounding: float = ROUNDING["float64"]
    dtype_rounding: float | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        hidden = _frozen("hidden_weight", self.hidden_weight)
        if hidden.ndim != 2 or 0 in hidden.shape:
            raise InvalidInputError("hidden_weight", "shape (m, d), m, d >= 1", hidden.shape)
        width = hidden.shape[0]
        output = _frozen("output_weight", self.output_weight)
        if output.ndim not in (1, 2) or 0 in output.shape or output.shape[-1] != width:
            raise InvalidInputError(
                "output_weight", f"shape ({width},) or (C, {width})", output.shape
            )
        if output.shape == (1, width):
            output = output[0]
        outputs = output.shape[0] if output.ndim == 2 else 1
        degree, coefficients = _activation(self.degree, self.activation)
        given = (self.hidden_weight, self.output_weight, self.hidden_bias, self.output_bias)
        coarsest = max(ROUNDING.get(np.asarray(array).dtype.name, 0.0) for array in given)
        changed: dict[str, object] = {
            "hidden_weight": hidden,
            "output_weight": output,
            "degree": degree,
            "activation": coefficients,
            "hidden_bias": _bias("hidden_bias", self.hidden_bias, width),
            "output_bias": _bias("output_bias", self.output_bias, outputs),
            "rounding": max(_unit_roundoff(self.rounding), coarsest),
        }
        for name, value in changed.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        parts = [f"width={self.width}", f"dimension={self.dimension}", f"outputs={self.outputs}"]
        parts.append(f"degree={self.degree}")
        if self.activation is not None:
            parts.append(f"activation={self.activation}")
        parts += [f"{name}=True" for name in ("hidden_bias", "output_bias")
                  if getattr(self, name) is not None]  # fmt: skip
        return f"TwoLayerNetwork({', '.join(parts)})"

    @property
    def width(self) -> int:
        """The number m of neurons."""
        return len(self.hidden_weight)

    @property
    def dimension(self) -> int:
        """The dimension d of a sample, without the bias coordinate."""
        return int(self.hidden_weight.shape[1])

    @property
    def outputs(self) -> int:
        """The number C of outputs."""
        return len(self.output_weight) if self.output_weight.ndim == 2 else 1

    @property
    def has_bias(self) -> bool:
        """Whether the hidden layer has a bias, so that the scale of a sample is visible."""
        return self.hidden_bias is not None

    @property
    def points(self) -> FloatArray:
        """The rows (w_j, h_j), shape (m, d) or (m, d + 1) with a hidden bias.

        Example:
            >>> TwoLayerNetwork([[2.0]], [1.0], degree=3, hidden_bias=[5.0]).points
            array([[2., 5.]])
        """
        if self.hidden_bias is None:
            return self.hidden_weight
        return np.column_stack([self.hidden_weight, self.hidden_bias])

    def lift(self, samples: npt.ArrayLike) -> FloatArray:
        """Append the coordinate 1 to samples (n, d) if there is a hidden bias.

        Raises InvalidInputError unless the samples are finite and of shape (n, d), n >= 1.

        Example:
            >>> TwoLayerNetwork([[2.0]], [1.0], degree=3, hidden_bias=[5.0]).lift([[7.0]])
            array([[7., 1.]])
        """
        x = self._samples(samples)
        return np.column_stack([x, np.ones(len(x))]) if self.has_bias else x

    def value(self, samples: npt.ArrayLike) -> FloatArray:
        """Evaluate f at samples (n, d): shape (n,) for one output, (n, C) for more.

        Raises InvalidInputError for a wrong shape and for values beyond the range of float64.
        The cost is n m (d + C) multiplications and n m numbers.

        Example:
            >>> TwoLayerNetwork([[2.0]], [3.0], degree=3).value([[1.0], [2.0]])
            array([ 24., 192.])
        """
        x = self._samples(samples)
        with np.errstate(over="ignore", invalid="ignore"):
            values = self._activated(self._preactivation(x)) @ self.output_weight.T
            if self.output_bias is not None:
                values = values + (self.output_bias if self.outputs > 1 else self.output_bias[0])
        return _in_range("value", values)

    def slopes(self, samples: npt.ArrayLike) -> FloatArray:
        """Gradients of f, of one output, by the lifted samples: (n, d), (n, d + 1) with a bias.

        grad f(x) = sum_j a_j s'(z_j) (w_j, h_j). Beyond the range of float64 they are not
        finite. Raises InvalidInputError for a wrong shape. The cost is 2 n m d multiplications.

        Example:
            >>> TwoLayerNetwork([[2.0]], [3.0], degree=3).slopes([[1.0], [2.0]])
            array([[ 72.],
                   [288.]])
        """
        x = self._samples(samples)
        with np.errstate(over="ignore", invalid="ignore"):
            heights = self._slope(self._preactivation(x)) * self.output_weight
            return np.asarray(heights @ self.points)

    def gradient(self, samples: npt.ArrayLike, coefficients: npt.ArrayLike) -> TwoLayerNetwork:
        """Return sum_i c_i grad_theta f(x_i), in a container of the network's shapes.

        With z_ij = w_j . x_i + h_j and delta_ij = s'(z_ij) sum_c c_ic a_cj: the hidden layer is
        sum_i delta_ij (x_i, 1), the output layer sum_i c_ic s(z_ij), the output bias sum_i c_ic.
        ``coefficients`` has shape (n,), or (n, C) for C outputs. For the gradient of a loss give
        its derivatives c_i = d loss_i / d f(x_i).

        Raises InvalidInputError for wrong shapes and for results beyond the range of float64.
        The cost is 2 n m (d + C) multiplications and 2 n m numbers.

        Source: the chain rule; autograd and finite differences agree in the tests.

        Example:
            >>> TwoLayerNetwork([[2.0]], [3.0], degree=3).gradient([[1.0]], [1.0]).hidden_weight
            array([[36.]])
        """
        x = self._samples(samples)
        c = real_array("coefficients", coefficients)
        if c.shape != (len(x), self.outputs) and (c.shape != (len(x),) or self.outputs > 1):
            expected = f"({len(x)},)" if self.outputs == 1 else f"({len(x)}, {self.outputs})"
            raise InvalidInputError("coefficients", f"shape {expected}", c.shape)
        c = c.reshape(len(x), self.outputs)
        a = self.output_weight.reshape(self.outputs, self.width)
        with np.errstate(over="ignore", invalid="ignore"):
            z = self._preactivation(x)
            delta = self._slope(z) * (c @ a)
            hidden = _in_range("gradient", delta.T @ x)
            output = _in_range("gradient", c.T @ self._activated(z))
            bias = _in_range("gradient", delta.sum(axis=0))
        return TwoLayerNetwork(
            hidden_weight=hidden,
            output_weight=output,
            degree=self.degree,
            activation=self.activation,
            hidden_bias=bias if self.has_bias else None,
            output_bias=c.sum(axis=0) if self.output_bias is not None else None,
            rounding=self.rounding,
        )

    def require_supported(self) -> None:
        """Raise NotYetSupportedError unless the activation is a monomial and there is one output.

        Example:
            >>> TwoLayerNetwork([[2.0]], [3.0], degree=3).require_supported()
        """
        if self.activation is not None:
            raise NotYetSupportedError(
                "polynomial activations are not yet supported by the verifier", SCOPE
            )
        if self.outputs > 1:
            raise NotYetSupportedError(
                f"networks with {self.outputs} outputs are not yet supported by the verifier",
                SCOPE,
            )

    def arrays(self) -> dict[str, FloatArray]:
        """Return the parameters by the names under which they are stored.

        Example:
            >>> list(TwoLayerNetwork([[2.0]], [3.0], degree=3).arrays())
            ['hidden.weight', 'output.weight']
        """
        named = {
            "hidden.weight": self.hidden_weight,
            "hidden.bias": self.hidden_bias,
            "output.weight": self.output_weight,
            "output.bias": self.output_bias,
        }
        return {name: array for name, array in named.items() if array is not None}

    def sha256(self, *, without: str | None = None) -> str:
        """Hash activation, degree and every array as little-endian float64, by name.

        With ``without`` the array of that name is left out.

        The hash does not depend on the file format or on the dtype that stored the same numbers.

        Example:
            >>> TwoLayerNetwork([[2.0]], [3.0], degree=3).sha256()[:16]
            '8ddfca6545480a57'
        """
        if self.origin is not None:
            return self.origin.sha256
        digest = hashlib.sha256(
            f"{spell_activation(self.activation or ())} {self.degree}\n".encode()
        )
        for name, array in sorted(self.arrays().items()):
            if name == without:
                continue
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    def _samples(self, samples: npt.ArrayLike) -> FloatArray:
        x = real_array("samples", samples)
        if x.ndim != 2 or len(x) == 0 or x.shape[1] != self.dimension:
            raise InvalidInputError("samples", f"shape (n, {self.dimension}), n >= 1", x.shape)
        return x

    def _preactivation(self, x: FloatArray) -> FloatArray:
        z: FloatArray = x @ self.hidden_weight.T
        return z if self.hidden_bias is None else z + self.hidden_bias

    def _activated(self, z: FloatArray) -> FloatArray:
        if self.activation is None:
            return z**self.degree
        return _horner(self.activation, z)

    def _slope(self, z: FloatArray) -> FloatArray:
        if self.activation is None:
            return self.degree * z ** (self.degree - 1)
        return _horner([k * c for k, c in enumerate(self.activation)][1:], z)


def _frozen(name: str, value: npt.ArrayLike) -> FloatArray:
    array = real_array(name, value).copy()
    array.setflags(write=False)
    return array


def _bias(name: str, value: npt.ArrayLike | None, length: int) -> FloatArray | None:
    if value is None:
        return None
    array = _frozen(name, value)
    if array.shape != (length,):
        raise InvalidInputError(name, f"shape ({length},)", array.shape)
    return array


def _activation(
    degree: int, activation: Sequence[float] | None
) -> tuple[int, tuple[float, ...] | None]:
    if isinstance(degree, bool) or not isinstance(degree, int | np.integer):
        raise InvalidInputError("degree", "an integer", repr(degree))
    coefficients = None if activation is None else tuple(float(c) for c in activation)
    if coefficients is not None and is_monomial(coefficients) and len(coefficients) == degree + 1:
        coefficients = None
    if coefficients is None:
        if not 3 <= degree <= MAX_DEGREE:
            raise InvalidInputError(
                "degree",
                f"3 to {MAX_DEGREE} for a monomial activation",
                degree,
                "degrees 1 and 2 determine at most a span or a quadratic form, never the samples",
            )
    elif len(coefficients) != degree + 1 or not 1 <= degree <= MAX_DEGREE:
        raise InvalidInputError(
            "activation", f"{degree + 1} coefficients for degree {degree}", len(coefficients)
        )
    elif coefficients[-1] == 0 or not all(map(math.isfinite, coefficients)):
        raise InvalidInputError(
            "activation", "finite coefficients, the last one not 0", coefficients
        )
    return int(degree), coefficients


def _unit_roundoff(value: float) -> float:
    if not 0 < value < 1:
        raise InvalidInputError("rounding", "a unit roundoff in (0, 1)", value)
    return float(value)


def _in_range(name: str, array: FloatArray) -> FloatArray:
    if not np.isfinite(array).all():
        raise InvalidInputError(
            name, "numbers in the range of float64", "an overflow", "rescale weights or samples"
        )
    return array


def _horner(coefficients: Sequence[float], z: FloatArray) -> FloatArray:
    result = np.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * z + coefficient
    return result
