"""Penalties h(x_i, lam_i) of one candidate, with gradients and curvature in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from identify.errors import InvalidInputError


class Penalty(ABC):
    """A penalty h(x_i, lam_i); the objective adds its sum over the candidates."""

    @abstractmethod
    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        """Return h for x (m, D) and lam (m, K), shape (m,), differentiable by autograd."""

    @abstractmethod
    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        """Add the gradients of sum_i h to ``grad_x`` (m, D) and ``grad_lam`` (m, K) in place."""

    @abstractmethod
    def products(self, x: Tensor, v: Tensor) -> Tensor:
        """Return D^2_x h(x_i) v_i for v (m, D)."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold."""


@dataclass(frozen=True, eq=False)
class BoxPenalty(Penalty):
    """weight * sum over pixels of max(x - upper, 0)^2 + max(lower - x, 0)^2.

    The bounds are numbers or tensors (D,), for instance a range of [0, 1] less the mean image.
    ``mean`` divides by the number of pixels.

    Source: Haim et al. (2022), "Reconstructing training data from trained neural networks", with
    bounds -1 and 1; with ``mean``, Loo et al. (2024), "Understanding reconstruction attacks with
    the neural tangent kernel".

    Example:
        >>> BoxPenalty().values(torch.tensor([[3.0, 0.0]]), torch.ones(1, 1))
        tensor([4.])
    """

    lower: float | Tensor = -1.0
    upper: float | Tensor = 1.0
    weight: float = 1.0
    mean: bool = False

    def __post_init__(self) -> None:
        if not bool(torch.all(torch.as_tensor(self.lower) < torch.as_tensor(self.upper))):
            raise InvalidInputError("box", "lower < upper in every pixel", "a crossed box")

    def _scale(self, x: Tensor) -> float:
        return self.weight / x.shape[1] if self.mean else self.weight

    def _excess(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = (
            bound.to(x.device, x.dtype) if isinstance(bound, Tensor) else bound
            for bound in (self.lower, self.upper)
        )
        return (x - upper).clamp_min(0), (lower - x).clamp_min(0)

    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        above, below = self._excess(x)
        return self._scale(x) * (above.square() + below.square()).sum(1)

    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        above, below = self._excess(x)
        grad_x.add_(above - below, alpha=2 * self._scale(x))

    def products(self, x: Tensor, v: Tensor) -> Tensor:
        above, below = self._excess(x)
        return 2 * self._scale(x) * v * ((above > 0) | (below > 0))

    def describe(self) -> dict[str, Any]:
        bounds = {
            name: {"mean": float(bound.mean())} if isinstance(bound, Tensor) else bound
            for name, bound in (("lower", self.lower), ("upper", self.upper))
        }
        return {"name": "box", **bounds, "weight": self.weight, "mean": self.mean}


@dataclass(frozen=True, eq=False)
class FloorPenalty(Penalty):
    """weight * sum over multipliers of max(floor - lam, 0)^2.

    Source: Haim et al. (2022), "Reconstructing training data from trained neural networks".

    Example:
        >>> FloorPenalty(0.5).values(torch.zeros(1, 2), torch.tensor([[0.1]]))
        tensor([0.8000])
    """

    floor: float
    weight: float = 5.0

    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        return self.weight * (self.floor - lam).clamp_min(0).square().sum(1)

    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        grad_lam.add_((self.floor - lam).clamp_min(0), alpha=-2 * self.weight)

    def products(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def describe(self) -> dict[str, Any]:
        return {"name": "floor", "floor": self.floor, "weight": self.weight}


@dataclass(frozen=True, eq=False)
class SignedFloorPenalty(Penalty):
    """weight * sum over multipliers of max(floor - |lam|, 0)^2: multipliers of either sign.

    Source: the objective for known initialisations in Shen, Wang, Qian & Lei (2026), "Data
    reconstruction: identifiability and optimization with sample splitting".

    Example:
        >>> SignedFloorPenalty(0.5).values(torch.zeros(1, 2), torch.tensor([[-0.1, 0.7]]))
        tensor([0.8000])
    """

    floor: float
    weight: float = 5.0

    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        return self.weight * (self.floor - lam.abs()).clamp_min(0).square().sum(1)

    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        short = (self.floor - lam.abs()).clamp_min(0)
        grad_lam.add_(short * lam.sign(), alpha=-2 * self.weight)

    def products(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def describe(self) -> dict[str, Any]:
        return {"name": "signed floor", "floor": self.floor, "weight": self.weight}


@dataclass(frozen=True, eq=False)
class BlurPenalty(Penalty):
    """weight * mean over pixels of (x - blur x)^2, blur the binomial 3 x 3 filter of each channel.

    The candidates are images of ``shape`` (C, H, W), flattened; outside they are 0.

    Source: Loo et al. (2024), "Understanding reconstruction attacks with the neural tangent
    kernel".

    Example:
        >>> BlurPenalty((1, 1, 1), weight=1.0).values(torch.tensor([[4.0]]), torch.ones(1, 1))
        tensor([9.])
    """

    shape: tuple[int, int, int]
    weight: float

    def _rest(self, x: Tensor) -> Tensor:
        channels, height, width = self.shape
        # By shifts: a convolution rounds to TF32 on some devices.
        images = x.reshape(-1, channels, height, width)
        padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
        rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
        blurred = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16
        return x - blurred.reshape(x.shape)

    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        return self.weight * self._rest(x).square().mean(1)

    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        grad_x.add_(self.products(x, x))

    def products(self, x: Tensor, v: Tensor) -> Tensor:
        # x - blur x is linear and symmetric: an even filter with zeros outside.
        return 2 * self.weight / v.shape[1] * self._rest(self._rest(v))

    def describe(self) -> dict[str, Any]:
        return {"name": "blur", "shape": list(self.shape), "weight": self.weight}


@dataclass(frozen=True, eq=False)
class SparsityPenalty(Penalty):
    """weight * sum over multipliers of |lam|; it does not change when a candidate is halved.

    Source: Loo et al. (2024), "Understanding reconstruction attacks with the neural tangent
    kernel", with the fixed count m K inside the weight.

    Example:
        >>> SparsityPenalty(2.0).values(torch.zeros(1, 2), torch.tensor([[-1.0, 3.0]]))
        tensor([8.])
    """

    weight: float

    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        return self.weight * lam.abs().sum(1)

    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        grad_lam.add_(lam.sign(), alpha=self.weight)

    def products(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def describe(self) -> dict[str, Any]:
        return {"name": "sparsity", "weight": self.weight}


@dataclass(frozen=True, eq=False)
class RidgePenalty(Penalty):
    """weight * sum over multipliers of lam^2, against signed multipliers that cancel one another.

    Shared by mass it does not change when a candidate is halved; offspring of opposite signs pay.

    Source: Tikhonov regularisation, Hansen (1998), "Rank-deficient and discrete ill-posed
    problems".

    Example:
        >>> RidgePenalty(0.5).values(torch.zeros(1, 2), torch.tensor([[-1.0, 3.0]]))
        tensor([5.])
    """

    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise InvalidInputError("ridge", "a positive number", self.weight)

    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        return self.weight * lam.square().sum(1)

    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        grad_lam.add_(lam, alpha=2 * self.weight)

    def products(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def describe(self) -> dict[str, Any]:
        return {"name": "ridge", "weight": self.weight}
