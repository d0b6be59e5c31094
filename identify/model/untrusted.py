"""Open untrusted files of arrays: safetensors, npz, torch checkpoints, shards, folders.

Nothing here runs code from a file, and no declared size is believed before it is held against the
size of the file itself.
"""

from __future__ import annotations

import math
import os
import stat
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from identify.errors import FileError
from identify.model.shards import read_index, weights_in
from identify.model.tensor_file import (
    DAMAGE,
    SETTINGS,
    AnyArray,
    PathLike,
    TensorFile,
    check_setting,
    first_line,
    short,
    unreadable,
)
from identify.model.untrusted_torch import read_torch, torch_moments

MAX_FILE_BYTES = 16 * 2**30
# A compressed file may grow by this much: enough for any data set this project is made for.
MAX_EXPANSION_BYTES = 2 * 2**30
_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint"))
       for bits in (8, 16, 32, 64)},
}  # fmt: skip


TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", ".npz", *TORCH_SUFFIXES)
# The first bytes of torch's pickled format, the default before torch 1.6.
_ZIP = b"PK"
_MAGIC = {
    b"\x89HDF": "an HDF5 file, as Keras writes,",
    b"\x93NUMPY": "a .npy array",
    b"\x80": "a plain pickle, which could run code,",
    b"\x1f\x8b": "a gzip file",
    b"\x89PNG": "a picture",
    _ZIP: "a zip archive",
}
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_tensors(
    path: PathLike | TensorFile, key: str | None = None, *, need_key: bool = True
) -> TensorFile:
    """Open a file of arrays without trusting it.

    Read are ``.safetensors``; ``.npz`` without pickles; torch files ``.pt``, ``.pth``, ``.bin`` and
    ``.ckpt`` with ``weights_only=True`` and only in the zip format (torch 1.6 or later); an index
    ``.safetensors.index.json`` of shards; and a folder with one of them. The declared shapes are
    compared with the size of the file first; compressed files may grow by 2 GiB in all. ``key``
    names the state_dict in a checkpoint that holds several, as A or A.B; without ``need_key`` a
    file that lacks it is read as if there were none. A file that is open already is taken as it is.

    Raises FileError with one line for everything that cannot be read. The cost is one pass over
    a torch file; the other formats read headers now and arrays when asked.

    Example:
        >>> read_tensors("weights.pickle")
        Traceback (most recent call last):
        ...
        identify.errors.FileError: weights.pickle: has the unknown suffix ".pickle"; expected .safetensors, .npz, .pt, .pth, .bin, .ckpt or a folder
    """  # noqa: E501
    if isinstance(path, TensorFile):
        return path
    location = Path(path)
    status = None
    try:
        if location.is_dir():
            location = weights_in(location, SUFFIXES)
        suffix = location.suffix.lower()
        if suffix not in SUFFIXES and not location.name.lower().endswith(".index.json"):
            expected = f"expected {', '.join(SUFFIXES)} or a folder"
            raise FileError(path, f'has the unknown suffix "{suffix}"', expected)
        status = location.stat()
    except (OSError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileError(location, f"cannot be opened: {reason}", "check the path") from error
    _check_regular(location, status)
    if suffix in TORCH_SUFFIXES:
        return _torch_file(location, key, need_key)
    if key is not None and need_key:
        raise FileError(location, "has no parts to choose from", "leave --key out")
    if suffix == ".json":
        return read_index(location, read_tensors)
    return _read_safetensors(location) if suffix == ".safetensors" else _read_npz(location)


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileError(path, "is no regular file", f"expected a {path.suffix} file")
    if status.st_size == 0:
        raise FileError(path, "is empty", "write it again")
    if status.st_size > MAX_FILE_BYTES:
        raise FileError(
            path, f"has {status.st_size} bytes", f"at most {MAX_FILE_BYTES} can be read"
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise FileError(path, f"cannot be opened: {error.strerror}", "check access") from error


def _read_safetensors(path: Path) -> TensorFile:
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            codes = {name: part.get_dtype() for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, "safetensors", error) from error

    # Opened once: thousands of arrays are read one by one.
    opened: list[Any] = []
    coarse: dict[str, Any] = {}

    def read(name: str) -> AnyArray:
        try:
            if codes[name] != "BF16":
                if not opened:
                    opened.append(safe_open(path, framework="numpy"))
                array: AnyArray = opened[0].get_tensor(name)
                return array
            if not coarse:
                coarse.update(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
            entry = coarse[name]
        except (SafetensorError, OSError, KeyError) as error:
            raise FileError(path, f"changed while it was read ({error})") from error
        # numpy has no bfloat16: its 16 bits are the upper half of a float32.
        upper = np.frombuffer(entry["data"], dtype="<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shapes[name])

    return TensorFile(
        str(path),
        shapes,
        {name: _SAFETENSORS_DTYPES.get(code, code) for name, code in codes.items()},
        {key: metadata[key] for key in SETTINGS if key in metadata},
        ordered=False,
        read=read,
    )


def _read_npz(path: Path) -> TensorFile:
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    with _open_zip(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                raise FileError(path, f'holds "{name}", which is no array', "save it with np.savez")
            if name in shapes:
                raise FileError(path, f'holds "{name}" twice', "save it again")
            try:
                with archive.open(entry) as member:
                    shapes[name], dtype = _npy_header(member)
                    declared = math.prod(shapes[name]) * dtype.itemsize
                    if not dtype.hasobject and declared != entry.file_size - member.tell():
                        raise FileError(
                            path,
                            f'"{name}" declares shape {short(shapes[name])}, '
                            "which its size contradicts",
                            "the file is damaged",
                        )
            except FileError:
                raise
            except DAMAGE as error:
                raise unreadable(path, name, error) from error
            dtypes[name] = "object" if dtype.hasobject else dtype.name

    opened: list[zipfile.ZipFile] = []  # once: thousands of arrays are read one by one

    def read(name: str) -> AnyArray:
        if dtypes[name] == "object":
            raise FileError(path, f'"{name}" is an array of objects', "objects can run code")
        try:
            if not opened:
                opened.append(_open_zip(path))
            with opened[0].open(f"{name}.npy") as member:
                return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
        except FileError:
            raise
        except DAMAGE as error:
            raise unreadable(path, name, error) from error

    settings: dict[str, object] = {}
    for key in SETTINGS:
        if key in shapes:
            check_setting(path, key, shapes[key])
            settings[key] = read(key).tolist()
    names = [name for name in shapes if name not in settings]
    return TensorFile(
        str(path),
        {name: shapes[name] for name in names},
        {name: dtypes[name] for name in names},
        settings,
        ordered=True,
        read=read,
    )


def read_npy(path: PathLike, name: str) -> TensorFile:
    """Open an ``.npy`` file, one array without objects, under a name.

    Raises FileError for everything that cannot be read, and for a size that contradicts the header.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(path, np.ones((2, 3)))
        >>> read_npy(path, "samples").shapes
        {'samples': (2, 3)}
    """
    location = Path(path)
    try:
        status = location.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileError(path, f"cannot be opened: {reason}", "check the path") from error
    _check_regular(location, status)
    try:
        with location.open("rb") as file:
            shape, dtype = _npy_header(file)
            left = status.st_size - file.tell()
    except DAMAGE as error:
        raise unreadable(path, name, error) from error
    if dtype.hasobject:
        raise FileError(path, "is an array of objects", "objects can run code")
    if math.prod(shape) * dtype.itemsize != left:
        problem = f"declares shape {short(shape)}, which its size contradicts"
        raise FileError(path, problem, "the file is damaged")

    def read(_: str) -> AnyArray:
        try:
            return np.asarray(np.load(location, allow_pickle=False))
        except DAMAGE as error:
            raise unreadable(path, name, error) from error

    return TensorFile(str(path), {name: shape}, {name: dtype.name}, {}, ordered=True, read=read)


def read_moments(path: PathLike) -> tuple[str, list[AnyArray]]:
    """The first moments of the optimiser in a torch checkpoint, and their name; none elsewhere.

    They are in the order of the parameters. Raises FileError as `read_tensors` does.

    Example:
        >>> read_moments("weights.npz")
        ('', [])
    """
    location = Path(path)
    if location.suffix.lower() not in TORCH_SUFFIXES:
        return "", []
    try:
        status = location.stat()
    except OSError as error:
        raise FileError(
            location, f"cannot be opened: {error.strerror}", "check the path"
        ) from error
    _check_regular(location, status)
    _check_torch(location)
    return torch_moments(location)


def _torch_file(path: Path, key: str | None, need_key: bool) -> TensorFile:
    _check_torch(path)
    return read_torch(path, key, need_key=need_key)


def _check_torch(path: Path) -> None:
    """Refuse torch's old format and compressed archives."""
    with path.open("rb") as file:
        start = file.read(len(_OLD_TORCH))
    if start == _OLD_TORCH:
        raise FileError(
            path,
            "is in torch's old format, which is not read",
            "save it again with torch 1.6 or later: "
            "torch.save(torch.load(path, weights_only=True), new_path)",
        )
    with _open_zip(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise FileError(path, "is compressed, as torch.save never does", "save it again")


def _unreadable(path: Path, kind: str, error: Exception) -> FileError:
    """What a file is that its reader refuses, as far as its first bytes tell."""
    with path.open("rb") as file:
        start = file.read(64)
    wrong = f"give the file that {'torch.save' if kind in TORCH_SUFFIXES else 'the trainer'} wrote"
    whole = start[8:9] == b"{" if kind == "safetensors" else start.startswith(_ZIP)
    for magic, what in () if whole else _MAGIC.items():
        if start.startswith(magic):
            return FileError(path, f"is {what} and no readable {kind} file", wrong)
    if start.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in start):
        return FileError(path, f"holds text and is no readable {kind} file", wrong)
    problem = f"is no readable {kind} file ({first_line(error)})"
    return FileError(path, problem, "it may be truncated")


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise _unreadable(path, path.suffix, error) from error
    size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size + MAX_EXPANSION_BYTES:
        archive.close()
        raise FileError(
            path,
            f"would grow to {size} bytes",
            f"a file may grow by at most {MAX_EXPANSION_BYTES}",
        )
    return archive


def _npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy format {version[0]}.{version[1]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # written by Python 2, or with non-ASCII fields
        reader = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = reader(member)
    if any(length < 0 for length in shape):
        raise ValueError(f"negative length in shape {short(shape)}")
    return shape, dtype
