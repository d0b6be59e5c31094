"""Read torch checkpoints without running code, for the checker."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..outcome import CheckInputError

Entries = dict[str, np.ndarray[Any, Any]]
OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DEPTH = 3


def read_state_dict(
    path: Path, key: str | None, need_key: bool, damage: tuple[type[Exception], ...]
) -> tuple[Entries, dict[str, str], dict[str, object]]:
    """Arrays, dtypes and other plain values of a state_dict, found in a checkpoint or named by key.

    Raises CheckInputError without torch, and for all that is not uncompressed tensors by name.
    """
    content = _load(path, damage)
    state = None if key is None else _at(content, key)
    if state is None and key is not None and need_key:
        raise CheckInputError(path, f'a state_dict "{key}"', "none of that name")
    state = _only(path, content) if state is None else state
    size = path.stat().st_size
    arrays: Entries = {}
    dtypes: dict[str, str] = {}
    for name, tensor in state.items():
        if not _is_tensor(tensor):
            continue
        # A view can repeat few stored numbers without end.
        if tensor.numel() * tensor.element_size() > size:
            raise CheckInputError(f"{path}: {name}", "no more than the file holds", "a larger view")
        dtypes[str(name)] = str(tensor.dtype).removeprefix("torch.")
        try:
            host = tensor.detach().cpu()
            wide = host.float() if dtypes[str(name)] == "bfloat16" else host
            arrays[str(name)] = np.array(wide.numpy())
        except (RuntimeError, TypeError, ValueError) as error:
            raise CheckInputError(f"{path}: {name}", "a dense tensor", error) from None
    beside = {**(content if isinstance(content, Mapping) else {}), **state}
    plain: dict[str, object] = {}
    plain |= {str(k): v for k, v in beside.items() if isinstance(v, str | bytes | int | float)}
    return arrays, dtypes, plain


def _load(path: Path, damage: tuple[type[Exception], ...]) -> object:
    with path.open("rb") as file:
        if file.read(len(OLD_FORMAT)) == OLD_FORMAT:
            raise CheckInputError(
                path, "torch's zip format", "its old one", "save it again with torch 1.6 or later"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise CheckInputError(path, "an uncompressed torch file", "a compressed one")
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise CheckInputError(
            path, "torch, to read it", "no such package", "or convert it to .safetensors"
        ) from None
    except CheckInputError:
        raise
    except damage as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckInputError(path, "a whole torch file of tensors", reason[0][:120]) from None


def _only(path: Path, content: object) -> Mapping[Any, Any]:
    """The mapping itself if it holds matrices, else the one below it that does."""
    top = _as_mapping(content)
    if top is None:
        raise CheckInputError(path, "a state_dict", type(content).__name__)
    if _has_matrix(top):
        return top
    found: list[Mapping[Any, Any]] = []
    level: list[Mapping[Any, Any]] = [top]
    seen: set[int] = set()
    for _ in range(_DEPTH):
        below: list[Mapping[Any, Any]] = []
        for whole in level:
            if id(whole) in seen:
                continue
            seen.add(id(whole))
            for name, value in whole.items():
                part = _as_mapping(value)
                if part is None or not isinstance(name, str) or "optim" in name.lower():
                    continue
                if not any(map(_is_tensor, part.values())):
                    below.append(part)
                elif _has_matrix(part):
                    found.append(part)
        level = below
    if len(found) > 1:
        raise CheckInputError(path, "one network", "several", "name one with --key")
    return found[0] if found else top


def _at(content: object, key: str) -> Mapping[Any, Any] | None:
    if not isinstance(content, Mapping):
        return None
    if key in content:
        return _as_mapping(content[key])
    first, dot, rest = key.partition(".")
    return _at(content.get(first), rest) if dot else None


def _as_mapping(content: object) -> Mapping[Any, Any] | None:
    if isinstance(content, Mapping):
        return content
    if isinstance(content, list | tuple) and content and all(map(_is_tensor, content)):
        return {f"arr_{k}": tensor for k, tensor in enumerate(content)}
    return None


def _has_matrix(part: Mapping[Any, Any]) -> bool:
    return any(_is_tensor(value) and value.ndim >= 2 for value in part.values())


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "is_sparse") and hasattr(value, "element_size")
