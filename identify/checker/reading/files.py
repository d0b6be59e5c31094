"""Networks in untrusted files and their hashes, for the checker."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..outcome import CheckInputError, FloatArray
from .arrays import ROUNDING, Arrays, read_arrays

MAX_DEGREE = 1000


@dataclass(frozen=True, eq=False)
class Network:
    """A two-layer monomial network, or a gradient of its shapes, in float64.

    `hidden` (m, d), `output` (m,), `hidden_bias` (m,) or None, `output_bias` (1,) or None;
    `rounding` is the unit roundoff of the coarsest stored dtype. Two outputs, (2, m) and (2,), stay
    so until the data are built. `filled`: a gradient's output layer is in no file.

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
    filled: bool = False

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
            "output.weight": None if self.filled else self.output,
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
    key: str | None = None,
    need_key: bool = True,
    outputs: int = 1,
) -> Network:
    """Read a network from what `read_arrays` opens.

    The arrays are ``hidden.weight``, ``output.weight`` and optional biases, or the two layers
    named in `layers`, or the only two matrices. float64, float32, float16 and bfloat16 are read.
    At most `outputs` outputs are accepted.

    Raises:
        CheckInputError: anything else; no declared size is believed before it is held against
            the size of the file, and nothing in a file is executed.
    """
    file = read_arrays(path, key, need_key=need_key)
    power = read_degree(file, degree)
    return assemble(file, find_places(file, layers), power, outputs)


def find_places(file: Arrays, layers: object) -> dict[str, str]:
    """The names of the arrays in the file, by the names that they have in a network."""
    hidden, output = _find_layers(file, layers)
    names = {
        "hidden.weight": hidden,
        "output.weight": output,
        "hidden.bias": _bias_of(file, hidden, output),
        "output.bias": _bias_of(file, output, hidden),
    }
    left = [name for name in file.shapes if name not in names.values()]
    if left:
        raise CheckInputError(file.path, "two layers and nothing else", f"{left[0]} besides")
    return {name: stored for name, stored in names.items() if stored in file.shapes}


def assemble(file: Arrays, place: Mapping[str, str], degree: int, outputs: int) -> Network:
    """The network of these arrays; an output layer that is missing becomes zeros, and `filled`."""
    values = {name: _floats(file, stored) for name, stored in place.items()}
    weight = values["hidden.weight"]
    if weight.ndim != 2:
        raise CheckInputError(f"{file.path}: hidden.weight", "shape (m, d)", weight.shape)
    width = len(weight)
    flat = np.zeros(width if outputs == 1 else (outputs, width))
    heights = values.get("output.weight", flat)
    if heights.shape == (1, width):
        heights = heights[0]
    if heights.shape not in ((width,), (outputs, width)):
        expected = f"shape ({width},) or (1, {width})"
        raise CheckInputError(f"{file.path}: output.weight", expected, heights.shape)
    count = len(heights) if heights.ndim == 2 else 1
    for name, length in (("hidden.bias", width), ("output.bias", count)):
        if name in values and values[name].shape != (length,):
            raise CheckInputError(f"{file.path}: {name}", f"shape ({length},)", values[name].shape)
    rounding = max(ROUNDING[file.dtypes[stored]] for stored in place.values())
    return Network(
        weight,
        heights,
        values.get("hidden.bias"),
        values.get("output.bias"),
        degree,
        max(rounding, _stored(file)),
        "output.weight" not in place,
    )


def _find_layers(file: Arrays, layers: object) -> tuple[str, str]:
    if layers is not None:
        names = layers.split(",") if isinstance(layers, str) else layers
        if not isinstance(names, list | tuple) or len(names) != 2 or names[0] == names[1]:
            raise CheckInputError("layers", "two names HIDDEN,OUTPUT", repr(layers))
        found = []
        for name in names:
            options = [f"{name}.weight".strip(), str(name).strip()]
            match = [option for option in options if option in file.shapes]
            ends = [key for key in file.shapes for o in options if key.endswith(f".{o}")]
            match = match or (ends if len(ends) == 1 else [])
            if not match:
                raise CheckInputError("layers", f"names of arrays in {file.path}", repr(name))
            found.append(match[0])
        return found[0], found[1]
    if "hidden.weight" in file.shapes and "output.weight" in file.shapes:
        return "hidden.weight", "output.weight"
    listing = in_order(file)
    weights = [
        name
        for name in listing or file.shapes
        if (listing or name.endswith(".weight")) and len(file.shapes[name]) == 2
    ]
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


def in_order(file: Arrays) -> list[str]:
    """The names of a list of arrays, arr_0 to arr_N; nothing for other files."""
    names = [f"arr_{k}" for k in range(len(file.shapes))]
    return names if set(names) == set(file.shapes) else []


def _bias_of(file: Arrays, weight: str, other: str) -> str:
    """The name that the bias of a layer has, or would have."""
    listing = in_order(file)
    if listing:
        after = listing[listing.index(weight) + 1 :][:1]
        wanted = after and after[0] != other and len(file.shapes[after[0]]) == 1
        return after[0] if wanted else ""
    return f"{weight.removesuffix('.weight')}.bias"


def _floats(file: Arrays, name: str) -> FloatArray:
    if file.dtypes[name] not in ROUNDING:
        raise CheckInputError(
            f"{file.path}: {name}", "float64, float32, float16 or bfloat16", file.dtypes[name]
        )
    array = np.array(file.read(name), dtype=np.float64, order="C")
    if array.size == 0 or not np.isfinite(array).all():
        raise CheckInputError(f"{file.path}: {name}", "finite numbers", "NaN or infinity")
    return array


def read_degree(file: Arrays, given: int | None) -> int:
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
