"""Elementwise activations: value, slope, and the slope read from the value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from identify.arrays import FloatArray
from identify.errors import InvalidInputError

_ROOT_2_PI = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715


@dataclass(frozen=True)
class Activation:
    """An elementwise activation s(t): a name and its parameters.

    ======================== =====================================================
    name                     s(t)
    ======================== =====================================================
    ``relu``                 max(t, 0)
    ``leaky_relu`` (slope,)  t for t > 0, slope t otherwise; slope defaults to 0.01
    ``gelu``                 t Phi(t), Phi the normal distribution function
    ``gelu_tanh``            its form with tanh
    ``silu``                 t / (1 + exp(-t))
    ``tanh``, ``sigmoid``    as named
    ``softplus``             log(1 + exp(t))
    ``elu`` (alpha,)         t for t > 0, alpha (exp(t) - 1) otherwise; alpha defaults to 1
    ``sine``                 sin(t)
    ``monomial`` (degree,)   t^degree, degree an integer from 1 to 1000
    ``polynomial`` (c_0,..)  sum_k c_k t^k
    ``identity``             t
    ======================== =====================================================

    The slope at a kink is that of the left side, as in torch.

    Raises InvalidInputError for an unknown name or parameters that do not fit it.

    Source: the definitions of torch.nn.functional, against which the tests compare.

    Example:
        >>> Activation("leaky_relu", (0.1,)).value(np.array([-2.0, 3.0]))
        array([-0.2,  3. ])
        >>> Activation("monomial", (3,)).slope(np.array([2.0]))
        array([12.])
    """

    name: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _FUNCTIONS:
            raise InvalidInputError("activation", f"one of {', '.join(_FUNCTIONS)}", self.name)
        numbers = tuple(float(value) for value in self.parameters)
        default = _DEFAULTS.get(self.name)
        if not numbers and default is not None:
            numbers = default
        _check_parameters(self.name, numbers)
        object.__setattr__(self, "parameters", numbers)

    def __str__(self) -> str:
        numbers = ",".join(f"{value:g}" for value in self.parameters)
        return f"{self.name}:{numbers}" if numbers else self.name

    def value(self, z: FloatArray) -> FloatArray:
        """Return s(z), same shape, float64.

        Example:
            >>> Activation("relu").value(np.array([-1.0, 2.0]))
            array([0., 2.])
        """
        return _FUNCTIONS[self.name][0](z, self.parameters)

    def slope(self, z: FloatArray) -> FloatArray:
        """Return s'(z), same shape, float64.

        Example:
            >>> Activation("relu").slope(np.array([-1.0, 0.0, 2.0]))
            array([0., 0., 1.])
        """
        return _FUNCTIONS[self.name][1](z, self.parameters)

    def curvature(self, z: FloatArray) -> FloatArray:
        """Return s''(z), same shape, float64; 0 at a kink.

        Example:
            >>> Activation("monomial", (3,)).curvature(np.array([2.0]))
            array([12.])
        """
        return _CURVATURES[self.name](z, self.parameters)

    @property
    def kink(self) -> float | None:
        """The slope on the negative side if s' is that there and 1 elsewhere, else None.

        Example:
            >>> Activation("relu").kink, Activation("leaky_relu").kink, Activation("tanh").kink
            (0.0, 0.01, None)
        """
        if self.name == "relu":
            return 0.0
        return self.parameters[0] if self.name == "leaky_relu" else None

    def slope_from_value(self, h: FloatArray, margin: float = 0.0) -> FloatArray | None:
        """Return s'(z) from h = s(z), or None where the value does not determine the slope.

        Values of a kinked activation count as positive above ``margin``.

        Example:
            >>> Activation("tanh").slope_from_value(np.array([0.5]))
            array([0.75])
            >>> Activation("gelu").slope_from_value(np.array([0.5])) is None
            True
        """
        inverse = _FROM_VALUE.get(self.name)
        if inverse is None or (self.kink or 0.0) < 0.0:
            return None
        return inverse(h, self.parameters, margin)


def parse_activation(text: str) -> Activation:
    """Read ``name`` or ``name:number,number``, as `str` of an Activation writes it.

    Raises InvalidInputError for anything else.

    Example:
        >>> parse_activation("leaky_relu:0.2")
        Activation(name='leaky_relu', parameters=(0.2,))
    """
    name, _, rest = text.partition(":")
    try:
        numbers = tuple(float(part) for part in rest.split(",")) if rest else ()
    except ValueError as error:
        raise InvalidInputError("activation", "name:number,number", repr(text)) from error
    return Activation(name.strip().lower(), numbers)


def plain_activation(text: str) -> str:
    """The name in JSON such as ``{"name": "gelu"}``, with its numbers; other text as it is.

    Example:
        >>> plain_activation('{"name": "gelu"}'), plain_activation('{"name": "power", "power": 3}')
        ('gelu', 'monomial:3')
        >>> plain_activation('{"name": "elu", "alpha": 0.5}'), plain_activation("relu")
        ('elu:0.5', 'relu')
    """
    if not text.strip().startswith("{"):
        return text
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return text
    name = fields.pop("name", None)
    numbers = [value for value in fields.values() if value is not None]
    if not isinstance(name, str) or not all(isinstance(v, int | float) for v in numbers):
        return text
    if name == "softplus" and numbers == [1.0]:
        return name  # the temperature that the word stands for
    spelled = ",".join(f"{value:g}" for value in numbers)
    name = "monomial" if name == "power" else name
    return f"{name}:{spelled}" if spelled else name


_Pair = tuple[
    Callable[[FloatArray, Sequence[float]], FloatArray],
    Callable[[FloatArray, Sequence[float]], FloatArray],
]


def _polynomial(z: FloatArray, c: Sequence[float]) -> FloatArray:
    result = np.full_like(z, c[-1])
    for coefficient in reversed(c[:-1]):
        result = result * z + coefficient
    return result


def _polynomial_slope(z: FloatArray, c: Sequence[float]) -> FloatArray:
    slope = [k * value for k, value in enumerate(c)][1:]
    return _polynomial(z, slope) if slope else np.zeros_like(z)


def _gelu_tanh_slope(z: FloatArray, _: Sequence[float]) -> FloatArray:
    t = np.tanh(_ROOT_2_PI * (z + _CUBIC * z**3))
    inner = _ROOT_2_PI * (1.0 + 3.0 * _CUBIC * z**2)
    result: FloatArray = 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t**2) * inner
    return result


def _gelu_slope(z: FloatArray, _: Sequence[float]) -> FloatArray:
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    result: FloatArray = special.ndtr(z) + z * density
    return result


def _sigmoid(z: FloatArray) -> FloatArray:
    result: FloatArray = special.expit(z)
    return result


def _silu_slope(z: FloatArray, _: Sequence[float]) -> FloatArray:
    share = _sigmoid(z)
    return share * (1.0 + z * (1.0 - share))


def _softplus(z: FloatArray, _: Sequence[float]) -> FloatArray:
    result: FloatArray = np.logaddexp(z, 0.0)
    return result


def _gelu_tanh(z: FloatArray, _: Sequence[float]) -> FloatArray:
    result: FloatArray = 0.5 * z * (1.0 + np.tanh(_ROOT_2_PI * (z + _CUBIC * z**3)))
    return result


def _polynomial_curvature(z: FloatArray, c: Sequence[float]) -> FloatArray:
    slope = [k * value for k, value in enumerate(c)][1:]
    return _polynomial_slope(z, slope) if slope else np.zeros_like(z)


def _gelu_tanh_curvature(z: FloatArray, _: Sequence[float]) -> FloatArray:
    t = np.tanh(_ROOT_2_PI * (z + _CUBIC * z**3))
    inner = _ROOT_2_PI * (1.0 + 3.0 * _CUBIC * z**2)
    bend = 6.0 * _ROOT_2_PI * _CUBIC * z
    result: FloatArray = (1.0 - t**2) * (inner + 0.5 * z * (bend - 2.0 * t * inner**2))
    return result


def _gelu_curvature(z: FloatArray, _: Sequence[float]) -> FloatArray:
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    result: FloatArray = density * (2.0 - z**2)
    return result


def _tanh_curvature(z: FloatArray, _: Sequence[float]) -> FloatArray:
    t = np.tanh(z)
    result: FloatArray = -2.0 * t * (1.0 - t**2)
    return result


def _sigmoid_curvature(z: FloatArray, _: Sequence[float]) -> FloatArray:
    return _sigmoid(z) * _sigmoid(-z) * (_sigmoid(-z) - _sigmoid(z))


def _silu_curvature(z: FloatArray, _: Sequence[float]) -> FloatArray:
    share, rest = _sigmoid(z), _sigmoid(-z)
    return share * rest * (2.0 + z * (rest - share))


def _monomial_curvature(z: FloatArray, p: Sequence[float]) -> FloatArray:
    degree = int(p[0])
    if degree < 2:
        return np.zeros_like(z)
    result: FloatArray = degree * (degree - 1.0) * z ** (degree - 2)
    return result


_FUNCTIONS: dict[str, _Pair] = {
    "relu": (lambda z, p: np.maximum(z, 0.0), lambda z, p: (z > 0.0).astype(np.float64)),
    "leaky_relu": (
        lambda z, p: np.where(z > 0.0, z, p[0] * z),
        lambda z, p: np.where(z > 0.0, 1.0, p[0]),
    ),
    "gelu": (lambda z, p: z * special.ndtr(z), _gelu_slope),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_slope),
    "silu": (lambda z, p: z * _sigmoid(z), _silu_slope),
    "tanh": (lambda z, p: np.tanh(z), lambda z, p: 1.0 - np.tanh(z) ** 2),
    "sigmoid": (lambda z, p: _sigmoid(z), lambda z, p: _sigmoid(z) * _sigmoid(-z)),
    "softplus": (_softplus, lambda z, p: _sigmoid(z)),
    "elu": (
        lambda z, p: np.where(z > 0.0, z, p[0] * np.expm1(np.minimum(z, 0.0))),
        lambda z, p: np.where(z > 0.0, 1.0, p[0] * np.exp(np.minimum(z, 0.0))),
    ),
    "sine": (lambda z, p: np.sin(z), lambda z, p: np.cos(z)),
    "monomial": (lambda z, p: z ** int(p[0]), lambda z, p: p[0] * z ** (int(p[0]) - 1)),
    "polynomial": (_polynomial, _polynomial_slope),
    "identity": (lambda z, p: z.copy(), lambda z, p: np.ones_like(z)),
}
_CURVATURES: dict[str, Callable[[FloatArray, Sequence[float]], FloatArray]] = {
    "relu": lambda z, p: np.zeros_like(z),
    "leaky_relu": lambda z, p: np.zeros_like(z),
    "gelu": _gelu_curvature,
    "gelu_tanh": _gelu_tanh_curvature,
    "silu": _silu_curvature,
    "tanh": _tanh_curvature,
    "sigmoid": _sigmoid_curvature,
    "softplus": lambda z, p: _sigmoid(z) * _sigmoid(-z),
    "elu": lambda z, p: np.where(z > 0.0, 0.0, p[0] * np.exp(np.minimum(z, 0.0))),
    "sine": lambda z, p: -np.sin(z),
    "monomial": _monomial_curvature,
    "polynomial": _polynomial_curvature,
    "identity": lambda z, p: np.zeros_like(z),
}
_DEFAULTS = {"leaky_relu": (0.01,), "elu": (1.0,)}
_COUNTS = {"leaky_relu": 1, "elu": 1, "monomial": 1}
_FROM_VALUE: dict[str, Callable[[FloatArray, Sequence[float], float], FloatArray]] = {
    "relu": lambda h, p, margin: (h > margin).astype(np.float64),
    "leaky_relu": lambda h, p, margin: np.where(h > margin, 1.0, p[0]),
    "tanh": lambda h, p, margin: 1.0 - h**2,
    "sigmoid": lambda h, p, margin: h * (1.0 - h),
    "softplus": lambda h, p, margin: -np.expm1(-h),
    "elu": lambda h, p, margin: np.where(h > 0.0, 1.0, h + p[0]),
    "identity": lambda h, p, margin: np.ones_like(h),
}


def _check_parameters(name: str, numbers: tuple[float, ...]) -> None:
    if name == "polynomial":
        if len(numbers) < 2 or numbers[-1] == 0.0:
            raise InvalidInputError(
                "activation", "coefficients c_0, c_1, ..., the last one not 0", numbers
            )
    elif len(numbers) != _COUNTS.get(name, 0):
        expected = f"{_COUNTS.get(name, 0)} parameters of {name}"
        raise InvalidInputError("activation", expected, len(numbers))
    if not all(map(math.isfinite, numbers)):
        raise InvalidInputError("activation", "finite parameters", numbers)
    if name == "monomial" and not (numbers[0].is_integer() and 1 <= numbers[0] <= 1000):
        raise InvalidInputError("degree", "an integer from 1 to 1000", numbers[0])
