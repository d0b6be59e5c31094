"""Networks for attacks: specification and initialisation, torch modules, files."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import torch
from torch import Tensor

from attack.networks.activations import Activation, parse_activation
from attack.networks.files import load_network, save_network
from attack.networks.network import Network, check_like_parameters, split_layers
from identify.errors import InvalidInputError, UnsupportedModelError

__all__ = [
    "Activation",
    "Network",
    "NetworkSpec",
    "check_like_parameters",
    "from_module",
    "load_network",
    "parse_activation",
    "parse_spec",
    "save_network",
    "split_layers",
]

BIAS_MODES = ("first", "all", "none")
# The standard deviation of a standard normal variable cut off at -2 and 2.
_TRUNCATED_DEVIATION = 0.87962566103423978


@dataclass(frozen=True)
class NetworkSpec:
    """Sizes, activation and place of the biases of a network.

    Example:
        >>> parse_spec("784-1000-1,relu,bias=first")
        NetworkSpec(sizes=(784, 1000, 1), activation=Activation(name='relu', parameter=None), bias='first')
    """  # noqa: E501

    sizes: tuple[int, ...]
    activation: Activation
    bias: str = "first"

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))},{self.activation.spec},bias={self.bias}"

    def initialise(
        self,
        seed: int,
        scale: float | None = None,
        first_only: bool = True,
        dtype: torch.dtype = torch.float64,
        scheme: str = "uniform",
    ) -> Network:
        """Draw the parameters on the CPU, in float64 whatever ``dtype`` is returned.

        ``scheme="uniform"`` is the default of torch.nn.Linear, U(-1, 1) / sqrt(fan_in) for weights
        and biases; ``"lecun"`` is that of Flax, normal weights cut off at two deviations with
        variance 1 / fan_in and zero biases. ``scale`` replaces the first layer, bias included, by
        scale * N(0, 1); without ``first_only`` also all other weights.

        Raises InvalidInputError for a negative seed, a scale that is not positive, another scheme.

        Source: the small first layer after Haim et al. (2022), "Reconstructing training data from
        trained neural networks".

        Example:
            >>> network = parse_spec("4-5-1,relu").initialise(seed=0, scale=1e-4)
            >>> bool(network.weights[0].abs().max() < 1e-3)
            True
        """
        if isinstance(seed, bool) or seed < 0:
            raise InvalidInputError("seed", "an integer >= 0", seed)
        if scale is not None and not 0 < scale < math.inf:
            raise InvalidInputError("scale", "a positive number", scale)
        if scheme not in ("uniform", "lecun"):
            raise InvalidInputError("scheme", "uniform or lecun", scheme)
        generator = torch.Generator().manual_seed(seed)
        weights: list[Tensor] = []
        biases: list[Tensor | None] = []
        for k, (fan_in, fan_out) in enumerate(pairwise(self.sizes)):
            biased = self.bias == "all" or (self.bias == "first" and k == 0)
            w = torch.empty(fan_out, fan_in, dtype=torch.float64)
            b = torch.zeros(fan_out, dtype=torch.float64) if biased else None
            if scale is not None and (k == 0 or not first_only):
                w.normal_(generator=generator).mul_(scale)
            elif scheme == "lecun":
                deviation = 1 / (math.sqrt(fan_in) * _TRUNCATED_DEVIATION)
                torch.nn.init.trunc_normal_(
                    w, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator
                )
            else:
                w.uniform_(-1, 1, generator=generator).div_(math.sqrt(fan_in))
            if b is not None and scale is not None and k == 0:
                b.normal_(generator=generator).mul_(scale)
            elif b is not None and scheme == "uniform":
                b.uniform_(-1, 1, generator=generator).div_(math.sqrt(fan_in))
            weights.append(w.to(dtype))
            biases.append(None if b is None else b.to(dtype))
        return Network(tuple(weights), tuple(biases), self.activation)


def parse_spec(text: str) -> NetworkSpec:
    """Read a specification such as ``784-1000-1000-1,relu,bias=first``.

    The sizes come first, then the activation (relu, gelu, tanh, softplus20, power3, soft_relu50,
    identity), then optionally ``bias=first`` (default), ``bias=all`` or ``bias=none``.

    Raises InvalidInputError for anything else.

    Example:
        >>> str(parse_spec("64-60-1,power3"))
        '64-60-1,power3,bias=first'
    """
    example = "such as 784-1000-1000-1,relu,bias=first"
    parts = [part.strip() for part in text.split(",")]
    sizes = parts[0].split("-")
    if len(sizes) < 2 or not all(s.isascii() and s.isdigit() and len(s) < 9 for s in sizes):
        raise InvalidInputError("network", f"SIZES,ACTIVATION[,bias=MODE] {example}", text)
    if "0" in {s.lstrip("0") or "0" for s in sizes} or len(parts) not in (2, 3):
        raise InvalidInputError("network", f"positive sizes and an activation {example}", text)
    bias = "first"
    if len(parts) == 3:
        key, _, bias = parts[2].partition("=")
        if key != "bias" or bias not in BIAS_MODES:
            raise InvalidInputError("network", f"bias=first, bias=all or bias=none {example}", text)
    return NetworkSpec(tuple(map(int, sizes)), parse_activation(parts[1]), bias)


def from_module(module: torch.nn.Module, activation: Activation | None = None) -> Network:
    """Take the parameters of a torch module made of Linear layers and one activation.

    The Linear layers are chained in the order of ``module.modules()``; Flatten, Identity and
    Dropout are passed over. An activation that is no torch module is given as ``activation``.
    The result is compared with the module on 256 random inputs.

    Raises UnsupportedModelError for other layers, several activations, and a module that computes
    something else. The cost is one evaluation; the tensors are shared.

    Example:
        >>> linear = torch.nn.Linear
        >>> from_module(torch.nn.Sequential(linear(3, 5), torch.nn.Tanh(), linear(5, 1)))
        Network(3-5-1,tanh,bias=all)
    """
    linear: list[torch.nn.Linear] = []
    found: set[Activation] = set()
    for part in module.modules():
        known = _known_activation(part)
        if isinstance(part, torch.nn.Linear):
            linear.append(part)
        elif known is not None:
            found.add(known)
        elif activation is None and not (list(part.children()) or isinstance(part, _TRANSPARENT)):
            _refuse(type(part).__name__)
    if activation is None and len(found) > 1:
        _refuse(f"several activations ({', '.join(sorted(a.spec for a in found))})")
    if not linear:
        _refuse("no Linear layer")
    chosen = activation or next(iter(found), Activation("identity"))
    biases: list[Tensor | None] = [part.bias for part in linear]  # an absent bias is None
    network = Network(tuple(part.weight for part in linear), tuple(biases), chosen)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(256, network.dimension, generator=generator, dtype=torch.float64)
    probe[::2] *= 10  # beyond the kinks that the biases set
    probe = probe.to(network.device, network.dtype)
    with torch.no_grad():
        expected, got = copy.deepcopy(module).eval()(probe), network.forward(probe)
    tolerance = math.sqrt(torch.finfo(network.dtype).eps)
    if expected.shape != got.shape or not torch.allclose(expected, got, tolerance, tolerance):
        _refuse(f"another function than its Linear layers with {chosen.spec} between them")
    return network


_TRANSPARENT = (torch.nn.Flatten, torch.nn.Identity, torch.nn.Dropout)


def _known_activation(part: torch.nn.Module) -> Activation | None:
    if isinstance(part, torch.nn.ReLU):
        return Activation("relu")
    if isinstance(part, torch.nn.GELU) and part.approximate == "none":
        return Activation("gelu")
    if isinstance(part, torch.nn.Tanh):
        return Activation("tanh")
    return Activation("softplus", part.beta) if isinstance(part, torch.nn.Softplus) else None


def _refuse(what: str) -> NoReturn:
    raise UnsupportedModelError(
        f"the module has {what}",
        "attacks cover Linear layers with one of ReLU, GELU, Tanh, Softplus between them, "
        "or another one given as activation",
    )
