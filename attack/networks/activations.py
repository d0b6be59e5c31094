"""Activation functions with their first three derivatives, in closed form and under autograd."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from identify.errors import InvalidInputError

#: The name of the parameter of each activation, its default, and whether it is a whole number.
_PARAMETERS: Mapping[str, tuple[str, float, bool] | None] = {
    "relu": None,
    "soft_relu": ("softness", 50.0, False),
    "gelu": None,
    "tanh": None,
    "softplus": ("temperature", 1.0, False),
    "power": ("power", 3.0, True),
    "identity": None,
}


@dataclass(frozen=True)
class Activation:
    """An activation phi with the derivatives phi', phi'', phi''' that an attack uses.

    ``name`` is one of relu, soft_relu, gelu, tanh, softplus, power, identity; ``parameter`` is the
    softness alpha of soft_relu, the temperature beta of softplus(t) = log(1 + e^(beta t)) / beta,
    the exponent of power. The derivatives need not belong to the function: soft_relu has the value
    max(t, 0) and the derivatives of a softplus, phi'(t) = s(alpha t) with the logistic function s.

    Raises InvalidInputError for an unknown name and a parameter out of range.

    Source: soft_relu after Haim, Vardi, Yehudai, Shamir & Irani (2022), "Reconstructing training
    data from trained neural networks"; the softplus temperature after Loo, Hasani, Lechner, Amini
    & Rus (2024), "Understanding reconstruction attacks with the neural tangent kernel".

    Example:
        >>> Activation("soft_relu", 10.0).first(torch.tensor([0.0]))
        tensor([0.5000])
        >>> Activation("power", 3), Activation("relu").parameters
        (Activation(name='power', parameter=3.0), {})
    """

    name: str
    parameter: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _PARAMETERS:
            raise InvalidInputError("activation", f"one of {', '.join(_PARAMETERS)}", self.name)
        rule = _PARAMETERS[self.name]
        if rule is None:
            if self.parameter is not None:
                raise InvalidInputError("activation", f"{self.name} without a number", self.spec)
            return
        label, default, whole = rule
        value = default if self.parameter is None else float(self.parameter)
        if not (0 < value < math.inf) or (whole and (value != int(value) or value > 1000)):
            kind = "a whole number from 1 to 1000" if whole else "a positive number"
            raise InvalidInputError(label, kind, value)
        object.__setattr__(self, "parameter", value)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameter by its name, or nothing.

        Example:
            >>> Activation("softplus", 20).parameters
            {'temperature': 20.0}
        """
        rule = _PARAMETERS[self.name]
        return {} if rule is None or self.parameter is None else {rule[0]: self.parameter}

    @property
    def spec(self) -> str:
        """The word for this activation in a network specification.

        Example:
            >>> Activation("power", 3).spec, Activation("soft_relu", 19.145).spec
            ('power3', 'soft_relu19.145')
        """
        if self.parameter is None:
            return self.name
        value = self.parameter
        return self.name + (str(int(value)) if value == int(value) else repr(value))

    @property
    def piecewise_linear(self) -> bool:
        """Whether phi'' and phi''' vanish.

        Example:
            >>> Activation("relu").piecewise_linear, Activation("power", 1).piecewise_linear
            (True, True)
        """
        return self.name in ("relu", "identity") or (self.name == "power" and self.parameter == 1)

    def jet(self, z: Tensor, order: int) -> list[Tensor]:
        """Return phi(z), phi'(z), ... up to the order-th derivative (0 to 3), sharing work.

        Raises InvalidInputError for another order. The cost is a few elementwise passes.

        Example:
            >>> [float(part) for part in Activation("power", 2).jet(torch.tensor(3.0), 3)]
            [9.0, 6.0, 2.0, 0.0]
        """
        if order not in (0, 1, 2, 3):
            raise InvalidInputError("order", "0, 1, 2 or 3", order)
        return _JETS[self.name](z, self.parameter or 0.0, order)

    def value(self, z: Tensor) -> Tensor:
        """Return phi(z)."""
        return self.jet(z, 0)[0]

    def first(self, z: Tensor) -> Tensor:
        """Return phi'(z)."""
        return self.jet(z, 1)[1]

    def second(self, z: Tensor) -> Tensor:
        """Return phi''(z)."""
        return self.jet(z, 2)[2]

    def third(self, z: Tensor) -> Tensor:
        """Return phi'''(z)."""
        return self.jet(z, 3)[3]

    def as_function(self) -> Callable[[Tensor], Tensor]:
        """Return a torch function whose derivatives under autograd are phi', phi'', phi'''.

        Example:
            >>> z = torch.tensor(0.0, requires_grad=True)
            >>> torch.autograd.grad(Activation("soft_relu", 4.0).as_function()(z), z)
            (tensor(0.5000),)
        """
        a = self.parameter or 0.0
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": torch.relu,
            "soft_relu": lambda z: _soft_relu(z, a),
            "gelu": torch.nn.functional.gelu,
            "tanh": torch.tanh,
            # torch's softplus turns linear at a threshold, which changes the tenth digit.
            "softplus": lambda z: -torch.nn.functional.logsigmoid(-a * z) / a,
            "power": lambda z: z ** int(a),
            "identity": lambda z: z,
        }
        return functions[self.name]

    def to_json(self) -> str:
        """Write name and parameter as JSON.

        Example:
            >>> Activation("power", 3).to_json()
            '{"name": "power", "power": 3.0}'
        """
        return json.dumps({"name": self.name, **self.parameters})


def parse_activation(text: str) -> Activation:
    """Read an activation from its JSON, or from a word with its parameter behind the name.

    Raises InvalidInputError for anything else.

    Example:
        >>> parse_activation("power3"), parse_activation('{"name": "relu"}')
        (Activation(name='power', parameter=3.0), Activation(name='relu', parameter=None))
    """
    expected = f"one of {', '.join(_PARAMETERS)}, such as relu, power3 or softplus20"
    text = text.strip()
    if text.startswith("{"):
        try:
            fields: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError("activation", "valid JSON", text[:60]) from error
        name = fields.pop("name", None)
        rule = _PARAMETERS.get(name) if isinstance(name, str) else None
        value = fields.pop(rule[0], None) if rule else None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        known = isinstance(name, str) and name in _PARAMETERS
        if not known or fields or not (value is None or number):
            raise InvalidInputError("activation", expected, text[:60])
        return Activation(name, value)
    match = re.fullmatch(r"([a-z_]+?)(\d+(?:\.\d+)?(?:e[+-]?\d+)?)?", text.lower())
    if match is None or match[1] not in _PARAMETERS:
        raise InvalidInputError("activation", expected, text[:60])
    return Activation(match[1], None if match[2] is None else float(match[2]))


class _SoftReLU(torch.autograd.Function):
    """max(z, 0) whose derivative is the logistic function of softness * z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, softness: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.softness = softness
        return z.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return outputs[0] * torch.sigmoid(ctx.softness * z), None


def _soft_relu(z: Tensor, softness: float) -> Tensor:
    result: Tensor = _SoftReLU.apply(z, softness)  # type: ignore[no-untyped-call]
    return result


def _relu_jet(z: Tensor, _: float, order: int) -> list[Tensor]:
    parts = [z.clamp_min(0)]
    if order:
        parts += [(z > 0).to(z.dtype)] + [torch.zeros_like(z) for _ in range(order - 1)]
    return parts


def _sigmoid_jet(s: Tensor, a: float, order: int) -> list[Tensor]:
    # s = s(a z) and its derivatives in z.
    parts = [s]
    if order >= 2:
        parts.append(a * s * (1 - s))
    if order >= 3:
        parts.append(a * parts[1] * (1 - 2 * s))
    return parts


def _soft_relu_jet(z: Tensor, a: float, order: int) -> list[Tensor]:
    value = [z.clamp_min(0)]
    return value + _sigmoid_jet(torch.sigmoid(a * z), a, order) if order else value


def _softplus_jet(z: Tensor, a: float, order: int) -> list[Tensor]:
    value = [-torch.nn.functional.logsigmoid(-a * z) / a]
    return value + _sigmoid_jet(torch.sigmoid(a * z), a, order) if order else value


def _gelu_jet(z: Tensor, _: float, order: int) -> list[Tensor]:
    parts = [torch.nn.functional.gelu(z)]
    if order:
        density = torch.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))
        parts.append(torch.special.ndtr(z) + z * density)
    if order >= 2:
        parts.append(density * (2 - z * z))
    if order >= 3:
        parts.append(density * z * (z * z - 4))
    return parts


def _tanh_jet(z: Tensor, _: float, order: int) -> list[Tensor]:
    t = torch.tanh(z)
    first = 1 - t * t
    return [t, first, -2 * t * first, first * (6 * t * t - 2)][: order + 1]


def _power_jet(z: Tensor, exponent: float, order: int) -> list[Tensor]:
    p, factor, parts = int(exponent), 1, []
    for k in range(order + 1):
        parts.append(factor * z ** (p - k) if k <= p else torch.zeros_like(z))
        factor *= p - k
    return parts


def _identity_jet(z: Tensor, _: float, order: int) -> list[Tensor]:
    return [z, torch.ones_like(z), torch.zeros_like(z), torch.zeros_like(z)][: order + 1]


_JETS: Mapping[str, Callable[[Tensor, float, int], list[Tensor]]] = {
    "relu": _relu_jet,
    "soft_relu": _soft_relu_jet,
    "gelu": _gelu_jet,
    "tanh": _tanh_jet,
    "softplus": _softplus_jet,
    "power": _power_jet,
    "identity": _identity_jet,
}
