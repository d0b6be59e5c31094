"""Fully connected networks as plain tensors."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attack.networks.activations import Activation
from identify.errors import InvalidInputError


@dataclass(frozen=True, eq=False, repr=False)
class Network:
    """A fully connected network f(x) = W^L phi(... phi(W^1 x + b^1) ...) + b^L.

    ``weights`` holds W^l of shape (out, in), ``biases`` holds b^l of shape (out,) or None for each
    layer. All tensors share one floating dtype and device; they are detached, never copied.

    Raises InvalidInputError for shapes that do not chain and tensors that are not finite.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-5-1,relu").initialise(seed=0)
        >>> network
        Network(4-5-1,relu,bias=first)
        >>> network(torch.ones(2, 4, dtype=torch.float64)).shape
        torch.Size([2, 1])
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    activation: Activation

    def __post_init__(self) -> None:
        weights = tuple(w.detach() for w in self.weights)
        biases = tuple(None if b is None else b.detach() for b in self.biases)
        if not weights or len(biases) != len(weights):
            raise InvalidInputError(
                "biases", f"{max(len(weights), 1)} entries, None allowed", len(biases)
            )
        inner = weights[0].shape[-1] if weights[0].ndim == 2 else 0
        for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
            if w.ndim != 2 or w.shape[1] != inner or 0 in w.shape:
                raise InvalidInputError(
                    f"layers.{k}.weight", f"shape (out, {inner or 'in'})", tuple(w.shape)
                )
            if b is not None and b.shape != w.shape[:1]:
                raise InvalidInputError(
                    f"layers.{k}.bias", f"shape ({w.shape[0]},)", tuple(b.shape)
                )
            inner = w.shape[0]
            for tensor in (w, b):
                if tensor is not None:
                    _check_tensor(f"layers.{k}", tensor, weights[0])
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.widths))
        return f"Network({sizes},{self.activation.spec},bias={self.bias_mode})"

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    @property
    def dimension(self) -> int:
        """The dimension D of a sample."""
        return self.weights[0].shape[1]

    @property
    def outputs(self) -> int:
        """The number C of outputs."""
        return self.weights[-1].shape[0]

    @property
    def depth(self) -> int:
        """The number L of weight matrices."""
        return len(self.weights)

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes from input to output, L + 1 numbers."""
        return (self.dimension, *(w.shape[0] for w in self.weights))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all parameters."""
        return self.weights[0].dtype

    @property
    def device(self) -> torch.device:
        """The device of all parameters."""
        return self.weights[0].device

    @property
    def bias_mode(self) -> str:
        """Where the biases are: first, all, none, or the layers by number.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> parse_spec("4-5-1,tanh,bias=all").initialise(seed=0).bias_mode
            'all'
        """
        present = [k for k, b in enumerate(self.biases) if b is not None]
        if not present:
            return "none"
        if len(present) == self.depth:
            return "all"
        return "first" if present == [0] else "+".join(map(str, present))

    @property
    def is_homogeneous(self) -> int | None:
        """The degree of homogeneity in the parameters, or None if there is none.

        With phi(t) = t^p the degree of layer l is p times that of layer l - 1 plus 1; relu counts
        as p = 1. A bias behind the first layer destroys it, and so do the derivatives of soft_relu.

        Source: Lyu & Li (2020), "Gradient descent maximizes the margin of homogeneous neural
        networks"; <theta, grad f> = degree * f by Euler's identity.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> parse_spec("4-5-5-1,power3").initialise(seed=0).is_homogeneous
            13
        """
        if any(b is not None for b in self.biases[1:]):
            return None
        if self.activation.name not in ("relu", "power", "identity") and self.depth > 1:
            return None
        power = int(self.activation.parameter or 1) if self.activation.name == "power" else 1
        degree = 1
        for _ in range(self.depth - 1):
            degree = power * degree + 1
        return degree

    def parameters(self) -> list[Tensor]:
        """Return W^1, b^1, W^2, b^2, ... without the biases that are absent.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> [tuple(p.shape) for p in parse_spec("4-5-1,relu").initialise(seed=0).parameters()]
            [(5, 4), (5,), (1, 5)]
        """
        pairs = zip(self.weights, self.biases, strict=True)
        return [tensor for pair in pairs for tensor in pair if tensor is not None]

    def names(self) -> list[str]:
        """Return the names of ``parameters()`` in files, ``layers.K.weight`` and ``layers.K.bias``.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> parse_spec("4-5-1,relu").initialise(seed=0).names()
            ['layers.0.weight', 'layers.0.bias', 'layers.1.weight']
        """
        return [
            f"layers.{k}.{part}"
            for k in range(self.depth)
            for part in ("weight", "bias")
            if part == "weight" or self.biases[k] is not None
        ]

    def with_parameters(self, parameters: Sequence[Tensor]) -> Network:
        """Return a network of the same form with other parameters, in the order of ``names()``.

        Raises InvalidInputError unless number and shapes agree.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> network = parse_spec("4-5-1,relu").initialise(seed=0)
            >>> zero = network.with_parameters([0 * p for p in network.parameters()])
            >>> float(zero(torch.ones(1, 4, dtype=torch.float64)))
            0.0
        """
        check_like_parameters("parameters", parameters, self)
        layers = split_layers(parameters, self)
        return replace(
            self, weights=tuple(w for w, _ in layers), biases=tuple(b for _, b in layers)
        )

    def with_activation(self, activation: Activation) -> Network:
        """Return the same parameters under another activation, sharing the tensors.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> network = parse_spec("4-5-1,relu").initialise(seed=0)
            >>> network.with_activation(Activation("soft_relu", 50)).activation.name
            'soft_relu'
        """
        # A schedule changes the activation at every step: the tensors are not checked again.
        changed = copy.copy(self)
        object.__setattr__(changed, "activation", activation)
        return changed

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Network:
        """Return the network on another device or in another dtype.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> parse_spec("4-5-1,relu").initialise(seed=0).to(dtype=torch.float32).dtype
            torch.float32
        """

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device=device or tensor.device, dtype=dtype or tensor.dtype)

        return replace(
            self,
            weights=tuple(moved(w) for w in self.weights),
            biases=tuple(None if b is None else moved(b) for b in self.biases),
        )

    def forward(self, x: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """Evaluate f at samples (n, D): shape (n, C), differentiable by autograd.

        ``parameters`` replaces the network's own, in the order of ``names()``. The cost is n times
        the number of weights.

        Raises InvalidInputError for samples of another shape or dtype.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> network = parse_spec("4-5-2,gelu").initialise(seed=0)
            >>> network.forward(torch.zeros(3, 4, dtype=torch.float64)).shape
            torch.Size([3, 2])
        """
        if x.ndim != 2 or x.shape[1] != self.dimension or x.dtype != self.dtype:
            expected = f"shape (n, {self.dimension}) in {self.dtype}"
            raise InvalidInputError("x", expected, f"{tuple(x.shape)} in {x.dtype}")
        phi = self.activation.as_function()
        own = list(zip(self.weights, self.biases, strict=True))
        layers = own if parameters is None else split_layers(parameters, self)
        for k, (w, b) in enumerate(layers):
            x = torch.nn.functional.linear(phi(x) if k else x, w, b)
        return x

    def sha256(self) -> str:
        """Hash activation, names and arrays as little-endian float64.

        The hash depends neither on the file format nor on the dtype that holds the same numbers.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> network = parse_spec("4-5-1,relu").initialise(seed=0, dtype=torch.float32)
            >>> network.sha256() == network.to(dtype=torch.float64).sha256()
            True
        """
        digest = hashlib.sha256(f"{self.activation.to_json()}\n".encode())
        for name, tensor in zip(self.names(), self.parameters(), strict=True):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            array = tensor.to("cpu", torch.float64).numpy()
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


def split_layers(
    parameters: Sequence[Tensor], network: Network
) -> list[tuple[Tensor, Tensor | None]]:
    """Group tensors in the order of ``network.names()`` by layer, as (weight, bias or None).

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-5-1,relu").initialise(seed=0)
        >>> [bias is None for _, bias in split_layers(network.parameters(), network)]
        [False, True]
    """
    left = iter(parameters)
    return [(next(left), None if b is None else next(left)) for b in network.biases]


def check_like_parameters(name: str, tensors: Sequence[Tensor], network: Network) -> None:
    """Raise InvalidInputError unless the tensors have the shapes of the network's parameters.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-5-1,relu").initialise(seed=0)
        >>> check_like_parameters("gradient", network.parameters(), network)
    """
    expected = [tuple(p.shape) for p in network.parameters()]
    got = [tuple(t.shape) for t in tensors]
    if expected != got:
        raise InvalidInputError(
            name, f"shapes {expected}", got, "give the tensors of the same network form"
        )


def _check_tensor(name: str, tensor: Tensor, first: Tensor) -> None:
    if not tensor.dtype.is_floating_point:
        raise InvalidInputError(name, "a floating dtype", tensor.dtype)
    if tensor.dtype != first.dtype or tensor.device != first.device:
        raise InvalidInputError(
            name, f"{first.dtype} on {first.device}", f"{tensor.dtype} on {tensor.device}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidInputError(name, "finite numbers", "NaN or infinity")
