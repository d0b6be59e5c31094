"""Arguments of an attack in the form that the computation needs, or one clear error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from identify.errors import InvalidInputError
from identify.network import real_array


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
