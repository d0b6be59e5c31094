"""Open a torch ``state_dict`` without running code from the file."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

from identify.errors import FileError, listed
from identify.model.tensor_file import (
    DAMAGE,
    SETTINGS,
    AnyArray,
    TensorFile,
    check_setting,
    first_line,
    short,
    tensor_array,
    tensor_dtype,
    unreadable,
)


def read_torch(path: Path) -> TensorFile:
    """Read a mapping of names to tensors with ``torch.load(weights_only=True)``.

    The caller has checked that the file is an uncompressed zip archive of bounded size.

    Raises FileError without torch, for a pickle that needs code, for anything but a state_dict, and
    for tensors that declare more numbers than the file holds. The cost is one pass over the file.
    """
    try:
        import torch
    except ImportError as error:
        raise FileError(
            path,
            "cannot be read without torch",
            "pip install 'kktcert[attack]', or save the network as .safetensors",
        ) from error
    remedy = "save it with torch.save(model.state_dict(), path)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FileError(
            path, "holds a pickle that is damaged or would run code, and was not run", remedy
        ) from error
    except DAMAGE as error:
        raise FileError(path, f"is unreadable ({first_line(error)})", remedy) from error
    if not isinstance(content, Mapping):
        raise FileError(path, f"holds a {type(content).__name__} and no state_dict", remedy)
    tensors = {str(name): value for name, value in content.items() if torch.is_tensor(value)}

    def read(name: str) -> AnyArray:
        try:
            return tensor_array(tensors[name])
        except (RuntimeError, TypeError, ValueError) as error:
            raise unreadable(path, name, error) from error

    settings = {key: content[key] for key in SETTINGS if key in content}
    for key in settings:
        if key in tensors:
            check_setting(path, key, tuple(tensors[key].shape))
            settings[key] = read(key).tolist()
            del tensors[key]
    if not tensors:
        raise FileError(path, f"holds no tensors but {listed(map(str, content))}", remedy)
    size = path.stat().st_size
    for name, tensor in tensors.items():
        # A view can repeat few stored numbers without end.
        if tensor.numel() * tensor.element_size() > size:
            raise FileError(
                path,
                f'"{name}" declares shape {short(tuple(tensor.shape))}, more than the file holds',
                "save a contiguous copy",
            )

    return TensorFile(
        str(path),
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: tensor_dtype(tensor) for name, tensor in tensors.items()},
        settings,
        ordered=True,
        read=read,
    )
