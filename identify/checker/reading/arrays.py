"""Open untrusted files of arrays, for the checker: safetensors, npz, torch, shards, folders."""

from __future__ import annotations

import json
import math
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..outcome import CheckInputError
from .torch_files import read_state_dict

MAX_BYTES = 4 * 2**30
# A compressed file may grow by this much.
MAX_EXPANSION = 2 * 2**30
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_CODES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SETTINGS = ("activation", "degree", "rounding")
# What the parsers of zip, npy and deflate raise on damaged or hostile bytes.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Arrays:
    """What a file declares: shapes and dtypes by name, settings, and a reader of arrays."""

    path: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    settings: Mapping[str, object]
    ordered: bool
    read: Callable[[str], np.ndarray[Any, Any]]


_TORCH = (".pt", ".pth", ".bin", ".ckpt")
_SUFFIXES = (".safetensors", ".npz", *_TORCH)
_HUB_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_MAX_INDEX, _MAX_SHARDS = 2**26, 1000


def read_arrays(path: object, key: str | None = None, *, need_key: bool = True) -> Arrays:
    """Open a file of arrays, an index of shards, or a folder with one, without trusting it.

    ``key`` names the state_dict of a torch checkpoint that holds several.
    """
    if not isinstance(path, str | Path):
        raise CheckInputError("file", "a path", type(path).__name__)
    location = Path(path)
    try:
        if location.is_dir():
            location = _in_folder(location)
        suffix = location.suffix.lower()
        index = location.name.lower().endswith(".index.json")
        if suffix not in _SUFFIXES and not index:
            raise CheckInputError(path, f"one of {', '.join(_SUFFIXES)}", f'the suffix "{suffix}"')
        status = location.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckInputError(path, "a file", "something else")
        if status.st_size > MAX_BYTES:
            raise CheckInputError(path, f"at most {MAX_BYTES} bytes", status.st_size)
        if suffix in _TORCH:
            return _read_torch(location, key, need_key)
        if key is not None and need_key:
            raise CheckInputError(path, "a torch checkpoint beside --key", f"a {suffix} file")
        if index:
            return _read_index(location)
        return (_read_safetensors if suffix == ".safetensors" else _read_npz)(location)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckInputError):
            raise
        raise CheckInputError(path, "a readable file", _first(error)) from None


def _in_folder(folder: Path) -> Path:
    names = sorted(entry.name for entry in folder.iterdir())
    for name in _HUB_NAMES:
        if name in names:
            return folder / name
    found = [name for name in names if Path(name).suffix.lower() in _SUFFIXES]
    if len(found) != 1:
        raise CheckInputError(folder, "a folder with one file of weights", len(found))
    return folder / found[0]


def _read_torch(path: Path, key: str | None, need_key: bool) -> Arrays:
    arrays, dtypes, plain = read_state_dict(path, key, need_key, _DAMAGE)
    settings: dict[str, object] = {k: plain[k] for k in _SETTINGS if k in plain}
    for name in _SETTINGS:
        if name in arrays:
            settings[name] = arrays.pop(name).tolist()
    return Arrays(
        str(path),
        {name: array.shape for name, array in arrays.items()},
        {name: dtypes[name] for name in arrays},
        settings,
        True,
        arrays.__getitem__,
    )


def _read_index(path: Path) -> Arrays:
    """The arrays of shards that lie beside their index and hold what it says."""
    try:
        if path.stat().st_size > _MAX_INDEX:
            raise CheckInputError(path, f"at most {_MAX_INDEX} bytes", path.stat().st_size)
        content = json.loads(path.read_text(encoding="utf-8"))
    except CheckInputError:
        raise
    except _DAMAGE as error:
        raise CheckInputError(path, "an index of shards", _first(error)) from None
    place = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(place, dict) or not place:
        raise CheckInputError(path, "an index of shards", "something else")
    names = list(dict.fromkeys(map(str, place.values())))
    for name in names:
        plain = Path(name).name == name and "\\" not in name and "\0" not in name
        if not plain or Path(name).suffix.lower() not in (".safetensors", *_TORCH):
            raise CheckInputError(path, "shards beside the index", repr(name))
    if len(names) > _MAX_SHARDS:
        raise CheckInputError(path, f"at most {_MAX_SHARDS} shards", len(names))
    shards = {name: read_arrays(path.with_name(name)) for name in names}
    held = {(key, name) for name, file in shards.items() for key in file.shapes}
    if held != {(key, str(name)) for key, name in place.items()}:
        raise CheckInputError(path, "an index that agrees with its shards", "another")
    settings: dict[str, object] = {}
    for file in shards.values():
        for key, value in file.settings.items():
            if settings.setdefault(key, value) != value:
                raise CheckInputError(path, f"one value of {key}", "two")
    return Arrays(
        str(path),
        {key: shards[str(name)].shapes[key] for key, name in place.items()},
        {key: shards[str(name)].dtypes[key] for key, name in place.items()},
        settings,
        False,
        lambda key: shards[str(place[key])].read(key),
    )


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        entries = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckInputError(path, "a whole safetensors file", _first(error)) from None

    def read(name: str) -> np.ndarray[Any, Any]:
        entry = entries[name]
        if entry["dtype"] == "BF16":
            # numpy has no bfloat16: its 16 bits are the upper half of a float32.
            upper = np.frombuffer(entry["data"], dtype="<u2").astype(np.uint32) << 16
            return upper.view(np.float32).reshape(entry["shape"])
        kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[entry["dtype"]]
        return np.frombuffer(entry["data"], dtype=kind).reshape(entry["shape"])

    return Arrays(
        str(path),
        {name: tuple(entry["shape"]) for name, entry in entries.items()},
        {name: _CODES.get(entry["dtype"], entry["dtype"]) for name, entry in entries.items()},
        {key: metadata[key] for key in _SETTINGS if key in metadata},
        False,
        read,
    )


def _read_npz(path: Path) -> Arrays:
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    try:
        with _open_npz(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name == entry.filename or name in shapes:
                    raise CheckInputError(path, "arrays, each once", repr(entry.filename))
                with archive.open(entry) as member:
                    shapes[name], dtype, _ = _npy_header(member, entry.file_size)
                    dtypes[name] = dtype.name
    except CheckInputError:
        raise
    except _DAMAGE as error:
        raise CheckInputError(path, "a whole .npz file without objects", _first(error)) from None

    def read(name: str) -> np.ndarray[Any, Any]:
        try:
            with _open_npz(path) as archive, archive.open(f"{name}.npy") as member:
                size = archive.getinfo(f"{name}.npy").file_size
                shape, dtype, fortran = _npy_header(member, size)
                data = np.frombuffer(member.read(), dtype=dtype)
                return data.reshape(shape, order="F" if fortran else "C")
        except CheckInputError:
            raise
        except _DAMAGE as error:
            raise CheckInputError(f"{path}: {name}", "a whole array", _first(error)) from None

    settings: dict[str, object] = {}
    for key in _SETTINGS:
        if key in shapes:
            size = math.prod(shapes[key])
            if size > 1000 or (size != 1 and key != "activation"):
                raise CheckInputError(path, "one value of each setting", "an array")
            settings[key] = read(key).tolist()
            del shapes[key], dtypes[key]
    return Arrays(str(path), shapes, dtypes, settings, True, read)


def _open_npz(path: Path) -> zipfile.ZipFile:
    """The archive, unless it declares to grow beyond what is accepted."""
    archive = zipfile.ZipFile(path)
    total = sum(entry.file_size for entry in archive.infolist())
    if total > path.stat().st_size + MAX_EXPANSION:
        archive.close()
        raise CheckInputError(path, f"growth by at most {MAX_EXPANSION} bytes", f"{total} bytes")
    return archive


def _npy_header(member: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    version = np.lib.format.read_magic(member)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"npy format {version}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, fortran, dtype = readers[version](member)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - member.tell():
        raise ValueError(f"shape {str(shape)[:60]} contradicts the size of the array")
    return shape, dtype, fortran


def _first(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
