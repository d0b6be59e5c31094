"""Open a torch ``state_dict`` or checkpoint without running code from the file."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

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

_DEPTH = 3
_REMEDY = "save it with torch.save(model.state_dict(), path)"


def read_torch(path: Path, key: str | None = None, *, need_key: bool = True) -> TensorFile:
    """Read names and tensors with ``torch.load(weights_only=True)``.

    The tensors lie in a mapping, or in a list in the order of a module's parameters (then named
    ``arr_0``, ``arr_1``, ...), or in the one mapping of a checkpoint that holds matrices; ``key``
    chooses among several. The caller has checked that the file is an uncompressed zip archive of
    bounded size.

    Raises FileError without torch, for a pickle that needs code, for anything but a state_dict, and
    for tensors that declare more numbers than the file holds. The cost is one pass over the file.
    """
    content = _load(path)
    state, found = _state_dict(path, content, key, need_key)
    tensors = {str(name): value for name, value in state.items() if _is_tensor(value)}

    def read(name: str) -> AnyArray:
        try:
            return tensor_array(tensors[name])
        except (RuntimeError, TypeError, ValueError) as error:
            raise unreadable(path, name, error) from error

    beside = content if isinstance(content, Mapping) else {}
    settings = {name: part[name] for part in (beside, state) for name in SETTINGS if name in part}
    for name, value in settings.items():
        if _is_tensor(value):
            check_setting(path, name, tuple(value.shape))
            settings[name] = tensor_array(value).tolist()
            tensors.pop(name, None)
    if not tensors:
        raise FileError(path, f"holds no tensors but {listed(map(str, state))}", _REMEDY)
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
        key=found,
    )


MOMENTS = ("exp_avg", "momentum_buffer")
"""The first moments that Adam and descent with momentum keep, as torch calls them."""


def torch_moments(path: Path) -> tuple[str, list[AnyArray]]:
    """The first moments in a checkpoint's optimiser state in the order of its parameters, and
    what they are called; none without such a state. Checks as for `read_torch`.
    """
    size = path.stat().st_size
    for part in _states(_load(path), _DEPTH):
        entries = [part[index] for index in sorted(part)]
        for name in MOMENTS:
            if entries and all(_is_tensor(entry.get(name)) for entry in entries):
                tensors = [entry[name] for entry in entries]
                if any(t.numel() * t.element_size() > size for t in tensors):
                    raise FileError(path, f'"{name}" declares more numbers than the file holds')
                return name, [tensor_array(tensor) for tensor in tensors]
    return "", []


def _states(content: object, depth: int) -> list[Mapping[int, Mapping[Any, Any]]]:
    """What optimisers' state_dicts call ``state``, below a checkpoint."""
    found: list[Mapping[int, Mapping[Any, Any]]] = []
    level, seen = [content], set[int]()  # a pickle can hold one mapping many times
    for _ in range(depth):
        below: list[object] = []
        for whole in level:
            if not isinstance(whole, Mapping | list | tuple) or id(whole) in seen:
                continue
            seen.add(id(whole))
            state = whole.get("state") if isinstance(whole, Mapping) else None
            if _is_state(state):
                found.append(state)
            below += whole.values() if isinstance(whole, Mapping) else whole
        level = below
    return found


def _is_state(state: object) -> TypeGuard[Mapping[int, Mapping[Any, Any]]]:
    return (
        isinstance(state, Mapping)
        and bool(state)
        and all(isinstance(i, int) and isinstance(e, Mapping) for i, e in state.items())
    )


def _load(path: Path) -> object:
    try:
        import torch
    except ImportError as error:
        raise FileError(
            path,
            "cannot be read without torch",
            "pip install 'kktcert[attack]', or save the network as .safetensors",
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch names the class that the file asks for; to load it would be to run its code.
        named = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        what = f" ({named[1]})" if named else ""
        raise FileError(
            path,
            f"holds a pickle that is damaged or would run code{what}, and was not run",
            _REMEDY,
        ) from error
    except DAMAGE as error:
        raise FileError(path, f"is unreadable ({first_line(error)})", _REMEDY) from error


def _state_dict(
    path: Path, content: object, key: str | None, need_key: bool
) -> tuple[Mapping[Any, Any], str | None]:
    """The mapping that holds the tensors, and its name in the checkpoint."""
    if key is not None:
        chosen = _at(content, key)
        if chosen is not None:
            return chosen, key
        if need_key:
            there = listed(name for name, _ in _parts(content, _DEPTH))
            raise FileError(path, f'has no state_dict "{key}"', f"it holds {there}")
    top = _as_mapping(content)
    if top is None:
        raise FileError(path, f"holds a {type(content).__name__} and no state_dict", _REMEDY)
    if _has_matrix(top):
        return top, None
    parts = [(name, part) for name, part in _parts(content, _DEPTH) if _has_matrix(part)]
    if len(parts) > 1:
        raise FileError(
            path, f"holds several networks: {listed(name for name, _ in parts)}",
            "choose one with --key NAME",
        )  # fmt: skip
    return (parts[0][1], parts[0][0]) if parts else (top, None)


def _parts(content: object, depth: int) -> list[tuple[str, Mapping[Any, Any]]]:
    """Mappings with tensors below a checkpoint, by dotted name; not those of an optimiser."""
    found: list[tuple[str, Mapping[Any, Any]]] = []
    level: list[tuple[str, object]] = [("", content)]
    seen: set[int] = set()  # a pickle can hold one mapping many times, or in itself
    for _ in range(depth):
        below: list[tuple[str, object]] = []
        for prefix, whole in level:
            if not isinstance(whole, Mapping) or id(whole) in seen:
                continue
            seen.add(id(whole))
            for name, value in whole.items():
                if not isinstance(name, str) or "optim" in name.lower():
                    continue
                part = _as_mapping(value)
                if part is not None and any(map(_is_tensor, part.values())):
                    found.append((prefix + name, part))
                else:
                    below.append((f"{prefix}{name}.", value))
        level = below
    return found


def _at(content: object, key: str) -> Mapping[Any, Any] | None:
    """The mapping or list under a name, or under a dotted path of names."""
    if not isinstance(content, Mapping):
        return None
    if key in content:
        return _as_mapping(content[key])
    first, dot, rest = key.partition(".")
    return _at(content.get(first), rest) if dot else None


def _as_mapping(content: object) -> Mapping[Any, Any] | None:
    """A mapping as it is, a list of tensors under the names that numpy gives to a list."""
    if isinstance(content, Mapping):
        return content
    if isinstance(content, list | tuple) and content and all(map(_is_tensor, content)):
        return {f"arr_{k}": tensor for k, tensor in enumerate(content)}
    return None


def _has_matrix(part: Mapping[Any, Any]) -> bool:
    return any(_is_tensor(value) and value.ndim >= 2 for value in part.values())


def _is_tensor(value: object) -> bool:
    # Only tensors have both among what torch.load builds from weights alone.
    return hasattr(value, "is_sparse") and hasattr(value, "element_size")
