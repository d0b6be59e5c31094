"""From options to devices and dtypes."""

from __future__ import annotations

import torch

from attack.command.training_options import ComputeOptions
from identify.errors import InvalidInputError


def device_and_dtype(options: ComputeOptions) -> tuple[str, torch.dtype | None]:
    """The device, which is there, and the dtype, None where it is left open.

    Raises InvalidInputError for words that name no device and for a GPU that is not there.

    Example:
        >>> device_and_dtype(ComputeOptions())
        ('cpu', None)
    """
    name, expected = options.device, "cpu, cuda or cuda:K"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidInputError("--device", expected, repr(name)) from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise InvalidInputError("--device", expected, repr(name))
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidInputError(
                "--device", f"one of {count} CUDA devices", name, "use --device cpu"
            )
    return name, None if options.dtype is None else getattr(torch, options.dtype.value)
