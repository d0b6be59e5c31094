"""Arguments of an attack in the form that the computation needs, or one clear error."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attack.networks.files import load_network
from attack.networks.network import Network
from attack.networks.spec import from_module
from identify.arrays import real_array
from identify.errors import InvalidInputError
from identify.model.tensor_file import PathLike

NetworkLike = Network | torch.nn.Module | PathLike


def tensors_sha256(tensors: Sequence[Tensor]) -> str:
    """Hash tensors as little-endian float64."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}\n".encode())
        array = tensor.detach().to("cpu", torch.float64).numpy()
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def take_network(
    given: NetworkLike,
    device: torch.device,
    dtype: torch.dtype | None,
    like: Network | None = None,
) -> Network:
    """Return a network from a module, a file or a network, in memory of its own.

    ``like`` gives the activation where a file has none.
    """
    if isinstance(given, torch.nn.Module):
        network = from_module(given)
    elif isinstance(given, str | os.PathLike):
        activation = None if like is None else like.activation
        network = load_network(given, activation=activation)
    elif isinstance(given, Network):
        network = given
    else:
        raise InvalidInputError(
            "network", "an attack.Network, a torch module or a file", type(given).__name__
        )
    moved = network.to(device, dtype or network.dtype)
    # Memory that torch allocates is aligned, so that products repeat bit for bit.
    return moved.with_parameters([p.clone() for p in moved.parameters()])


def take_gradient(given: NetworkLike | Sequence[Tensor], network: Network) -> tuple[Tensor, ...]:
    """Return the tensors of a gradient, given as such, as a network, or as a file."""
    if isinstance(given, Network | torch.nn.Module | str | os.PathLike):
        found = take_network(given, network.device, network.dtype, network).parameters()
    else:
        found = [torch.as_tensor(t).to(network.device, network.dtype).clone() for t in given]
    if not all(bool(torch.isfinite(t).all()) for t in found):
        raise InvalidInputError("gradient", "finite numbers", "NaN or infinity")
    if not any(bool(torch.any(t != 0)) for t in found):
        raise InvalidInputError(
            "gradient", "a gradient that is not zero", "zeros alone", "take it before zero_grad()"
        )
    return tuple(found)


def take_mean(mean: float | npt.ArrayLike | None, dimension: int) -> float | Tensor | None:
    """Return a mean as a number or a tensor (D,).

    Example:
        >>> take_mean([[0.25, 0.5]], 2)
        tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    if mean is None:
        return None
    array = real_array("mean", mean)
    if array.ndim == 0:
        return float(array)
    if array.size != dimension:
        raise InvalidInputError("mean", f"a number or {dimension} of them", array.shape)
    return torch.from_numpy(array.reshape(-1).copy())


def take_device(device: str | torch.device) -> torch.device:
    """Return a device that is there, cuda with its number.

    Example:
        >>> take_device("cpu")
        device(type='cpu')
    """
    try:
        place = torch.device(device)
    except RuntimeError:
        raise InvalidInputError("device", "cpu, cuda or cuda:K", device) from None
    if place.type not in ("cpu", "cuda"):
        raise InvalidInputError("device", "cpu, cuda or cuda:K", device)
    if place.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= there:
            raise InvalidInputError("device", f"one of {there} CUDA devices", device, "use cpu")
        return torch.device("cuda", place.index or 0)
    return place


def channels_first(
    shape: tuple[int, ...] | None, dimension: int, options: Mapping[str, Any] | None
) -> tuple[int, int, int] | None:
    """Return the shape (C, H, W) for penalties that look at neighbours, if that is the order.

    Example:
        >>> channels_first((8, 8), 64, None), channels_first((4, 4, 3), 48, None)
        ((1, 8, 8), None)
    """
    if shape is None:
        return None
    sides = tuple(shape)
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sides)
    if len(sides) not in (2, 3) or not whole or math.prod(sides) != dimension:
        raise InvalidInputError(
            "image_shape", f"(H, W), (H, W, C) or (C, H, W) with {dimension} pixels", shape
        )
    if len(sides) == 2:
        return (1, sides[0], sides[1])
    if sides[2] == 1:
        return (1, sides[0], sides[1])
    if sides[2] == 3 and sides[0] != 3:
        if options and options.get("blur"):
            raise InvalidInputError(
                "blur", "pixels in the order (C, H, W)", shape, "move the channels first"
            )
        return None
    return (sides[0], sides[1], sides[2])
