"""Read untrusted weight files and hash what they hold, for the checker."""

from __future__ import annotations

import hashlib
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

from ..outcome import CheckInputError, FloatArray

MAX_BYTES = 4 * 2**30
MAX_DEGREE = 1000
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


@dataclass(frozen=True, eq=False)
class Network:
    """A two-layer monomial network, or a gradient of its shapes, in float64.

    `hidden` (m, d), `output` (m,), `hidden_bias` (m,) or None, `output_bias` (1,) or None;
    `rounding` is the unit roundoff of the coarsest stored dtype.

    Example:
        >>> net = Network(np.array([[2.0]]), np.array([3.0]), None, None, 3, 2.0**-53)
        >>> net.sha256()[:16]
        '8ddfca6545480a57'
    """

    hidden: FloatArray
    output: FloatArray
    hidden_bias: FloatArray | None
    output_bias: FloatArray | None
    degree: int
    rounding: float

    @property
    def points(self) -> FloatArray:
        """The rows (w_j, h_j), shape (m, d) or (m, d + 1)."""
        if self.hidden_bias is None:
            return self.hidden
        return np.column_stack([self.hidden, self.hidden_bias])

    def sha256(self) -> str:
        """Hash degree and arrays as little-endian float64, sorted by name."""
        named = {
            "hidden.weight": self.hidden,
            "hidden.bias": self.hidden_bias,
            "output.weight": self.output,
            "output.bias": self.output_bias,
        }
        digest = hashlib.sha256(f"monomial {self.degree}\n".encode())
        for name in sorted(named):
            array = named[name]
            if array is not None:
                digest.update(f"{name} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


def read_network(
    path: object,
    *,
    degree: int | None = None,
    layers: object = None,
    like: Network | None = None,
) -> Network:
    """Read a network from ``.safetensors`` or ``.npz``; with `like` a file of the same shapes.

    The arrays are ``hidden.weight``, ``output.weight`` and optional biases, or the two layers
    named in `layers`, or the only two matrices. float64, float32, float16 and bfloat16 are read.

    Raises:
        CheckInputError: anything else; no declared size is believed before it is held against
            the size of the file, and nothing in a file is executed.
    """
    file = read_arrays(path)
    hidden, output = _find_layers(file, layers)
    names = [hidden, output, _bias_of(hidden), _bias_of(output)]
    left = [name for name in file.shapes if name not in names]
    if left:
        raise CheckInputError(file.path, "two layers and nothing else", f"{left[0]} besides")
    power = _degree(file, like.degree if like is not None else degree)
    present = [name for name in names if name in file.shapes]
    values = {name: _floats(file, name) for name in present}
    weight, heights = values[hidden], values[output]
    if weight.ndim != 2:
        raise CheckInputError(f"{file.path}: {hidden}", "shape (m, d)", weight.shape)
    width = len(weight)
    if heights.shape not in ((width,), (1, width)):
        raise CheckInputError(
            f"{file.path}: {output}", f"shape ({width},) or (1, {width})", heights.shape
        )
    biases = [values.get(names[2]), values.get(names[3])]
    for name, bias, length in zip(names[2:], biases, (width, 1), strict=True):
        if bias is not None and bias.shape != (length,):
            raise CheckInputError(f"{file.path}: {name}", f"shape ({length},)", bias.shape)
    if like is not None:
        _same_shapes(file.path, like, weight, biases[0])
    rounding = max(ROUNDING[file.dtypes[name]] for name in present)
    return Network(
        weight, heights.reshape(width), biases[0], biases[1], power, max(rounding, _stored(file))
    )


def read_arrays(path: object) -> Arrays:
    """Open a ``.safetensors`` or ``.npz`` file without trusting it."""
    if not isinstance(path, str | Path):
        raise CheckInputError("file", "a path", type(path).__name__)
    location = Path(path)
    suffix = location.suffix.lower()
    if suffix not in (".safetensors", ".npz"):
        hint = "convert it to .safetensors" if suffix in (".pt", ".pth") else ""
        raise CheckInputError(path, "a .safetensors or .npz file", f'the suffix "{suffix}"', hint)
    try:
        status = location.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckInputError(path, "a file", "something else")
        if status.st_size > MAX_BYTES:
            raise CheckInputError(path, f"at most {MAX_BYTES} bytes", status.st_size)
        return (_read_safetensors if suffix == ".safetensors" else _read_npz)(location)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckInputError):
            raise
        raise CheckInputError(path, "a readable file", _first(error)) from None


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
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
            if total > MAX_BYTES:
                raise CheckInputError(path, f"at most {MAX_BYTES} bytes of arrays", total)
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name == entry.filename or name in arrays:
                    raise CheckInputError(path, "arrays, each once", repr(entry.filename))
                with archive.open(entry) as member:
                    arrays[name] = _read_npy(member, entry.file_size)
    except CheckInputError:
        raise
    except _DAMAGE as error:
        raise CheckInputError(path, "a whole .npz file without objects", _first(error)) from None
    settings = {key: arrays.pop(key) for key in _SETTINGS if key in arrays}
    if any((array.size != 1 and key != "activation") or array.size > 1000
           for key, array in settings.items()):  # fmt: skip
        raise CheckInputError(path, "one value of each setting", "an array")
    return Arrays(
        str(path),
        {name: array.shape for name, array in arrays.items()},
        {name: array.dtype.name for name, array in arrays.items()},
        {key: array.tolist() for key, array in settings.items()},
        True,
        arrays.__getitem__,
    )


def _read_npy(member: IO[bytes], size: int) -> np.ndarray[Any, Any]:
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
    data = np.frombuffer(member.read(), dtype=dtype)
    return data.reshape(shape, order="F" if fortran else "C")


def _find_layers(file: Arrays, layers: object) -> tuple[str, str]:
    if layers is not None:
        names = layers.split(",") if isinstance(layers, str) else layers
        if not isinstance(names, list | tuple) or len(names) != 2 or names[0] == names[1]:
            raise CheckInputError("layers", "two names HIDDEN,OUTPUT", repr(layers))
        found = []
        for name in names:
            options = [f"{name}.weight".strip(), str(name).strip()]
            match = [option for option in options if option in file.shapes]
            if not match:
                raise CheckInputError("layers", f"names of arrays in {file.path}", repr(name))
            found.append(match[0])
        return found[0], found[1]
    if "hidden.weight" in file.shapes and "output.weight" in file.shapes:
        return "hidden.weight", "output.weight"
    weights = [n for n, shape in file.shapes.items() if n.endswith(".weight") and len(shape) == 2]
    if len(weights) != 2:
        raise CheckInputError(
            file.path, "hidden.weight and output.weight", "other arrays", "name the layers"
        )
    first, second = weights
    forward = file.shapes[second][1] == file.shapes[first][0]
    backward = file.shapes[first][1] == file.shapes[second][0]
    if forward and backward and not file.ordered:
        raise CheckInputError(file.path, "layers in a known order", "two that fit both ways")
    return (second, first) if backward and not forward else (first, second)


def _bias_of(weight: str) -> str:
    return f"{weight.removesuffix('.weight')}.bias"


def _floats(file: Arrays, name: str) -> FloatArray:
    if file.dtypes[name] not in ROUNDING:
        raise CheckInputError(
            f"{file.path}: {name}", "float64, float32, float16 or bfloat16", file.dtypes[name]
        )
    array = np.array(file.read(name), dtype=np.float64, order="C")
    if array.size == 0 or not np.isfinite(array).all():
        raise CheckInputError(f"{file.path}: {name}", "finite numbers", "none, NaN or infinity")
    return array


def _degree(file: Arrays, given: int | None) -> int:
    """The one degree that option, setting and activation agree on."""
    stated = [] if given is None else [given]
    try:
        if "degree" in file.settings:
            value = _single(file.settings["degree"])
            stated.append(int(value))  # type: ignore[call-overload]
            if not isinstance(value, str | bytes) and value != stated[-1]:
                raise ValueError
        activation = _single(file.settings.get("activation", "monomial"))
        if isinstance(activation, bytes):
            activation = activation.decode("utf-8", "replace")
        if isinstance(activation, str) and activation.strip().lower() != "monomial":
            activation = activation.split(",")
        if not isinstance(activation, str):
            numbers = [float(part) for part in activation]  # type: ignore[attr-defined]
            if len(numbers) < 4 or numbers[-1] != 1.0 or any(numbers[:-1]):
                raise ValueError
            stated.append(len(numbers) - 1)
    except (TypeError, ValueError, OverflowError):
        raise CheckInputError(
            file.path, "a monomial activation and its degree", "another"
        ) from None
    if len(set(stated)) != 1:
        got = "none" if not stated else " and ".join(map(str, stated))
        raise CheckInputError(f"{file.path}: degree", "one value", got, "give or correct it")
    if isinstance(stated[0], bool) or not 3 <= stated[0] <= MAX_DEGREE:
        raise CheckInputError(f"{file.path}: degree", f"3 to {MAX_DEGREE}", stated[0])
    return stated[0]


def _stored(file: Arrays) -> float:
    """The rounding that a file states, of numbers that were coarser before they were saved."""
    if "rounding" not in file.settings:
        return 0.0
    try:
        value = float(_single(file.settings["rounding"]))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0.0 < value < 1.0:
        raise CheckInputError(f"{file.path}: rounding", "a number in (0, 1)", "another")
    return value


def _single(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _same_shapes(path: str, like: Network, weight: FloatArray, bias: FloatArray | None) -> None:
    if weight.shape != like.hidden.shape:
        raise CheckInputError(
            f"{path}: hidden.weight", f"the network's shape {like.hidden.shape}", weight.shape
        )
    if (bias is None) != (like.hidden_bias is None):
        raise CheckInputError(f"{path}: hidden.bias", "as in the network", "another")


def _first(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
