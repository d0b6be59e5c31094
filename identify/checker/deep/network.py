"""Networks of any depth and their gradients in untrusted files, for the checker."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..outcome import CheckInputError, FloatArray
from ..reading.arrays import ROUNDING, Arrays, read_arrays
from ..reading.files import in_order

Shapes = Mapping[str, tuple[int, ...]]
_DEFAULTS = {"leaky_relu": (0.01,), "elu": (1.0,)}
_SPELLINGS = {"leakyrelu": "leaky_relu", "swish": "silu", "sin": "sine"}
_ORDERS = 10_000


@dataclass(frozen=True, eq=False)
class Layers:
    """Linear layers, first to last: ``weights`` (m, k) and ``biases`` (m,), None where absent.

    A network has every weight; its layers are ``names``. A gradient has some.
    """

    weights: tuple[FloatArray | None, ...]
    biases: tuple[FloatArray | None, ...]
    names: tuple[str, ...] = ()

    def joined(self, index: int) -> FloatArray | None:
        """[weight | bias] of a layer, (m, k + 1), or (m, k) without a bias."""
        weight, bias = self.weights[index], self.biases[index]
        return weight if weight is None or bias is None else np.column_stack([weight, bias])

    def without(self, decay: float, network: Layers) -> Layers:
        """The gradient less weight decay: so many times the weights and biases."""
        parts = []
        for mine, own in ((self.weights, network.weights), (self.biases, network.biases)):
            parts.append(tuple(
                g if g is None or theta is None else g - decay * theta
                for g, theta in zip(mine, own, strict=True)
            ))  # fmt: skip
        return Layers(parts[0], parts[1])

    def sha256(self, head: str) -> str:
        """Hash the head and the arrays as little-endian float64: weights, then biases."""
        digest = hashlib.sha256(f"{head}\n".encode())
        for kind, arrays in (("weight", self.weights), ("bias", self.biases)):
            for index, array in enumerate(arrays):
                if array is not None:
                    digest.update(f"{kind} {index} {array.shape}\n".encode())
                    digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


def spelled(text: str) -> str:
    """The one spelling of an activation: name, or name:number,number.

    Example:
        >>> spelled("LeakyReLU"), spelled("leaky_relu:0.10"), spelled("ReLU")
        ('leaky_relu:0.01', 'leaky_relu:0.1', 'relu')
    """
    name, numbers = parse_activation(text)
    return f"{name}:{','.join(f'{number:g}' for number in numbers)}" if numbers else name


def parse_activation(text: str) -> tuple[str, tuple[float, ...]]:
    """Name and numbers of an activation.

    Raises CheckInputError for numbers that are none, or not finite.
    """
    name, _, rest = text.strip().partition(":")
    name = name.strip().lower().replace("-", "_")
    name = _SPELLINGS.get(name, name)
    try:
        numbers = tuple(float(part) for part in rest.split(",")) if rest else ()
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise CheckInputError("activation", "name:number,number", repr(text)[:60])
    return name, numbers or _DEFAULTS.get(name, ())


def split_activations(text: str) -> list[str]:
    """The names in a list, or the one name.

    Example:
        >>> split_activations("tanh, leaky_relu:0.1"), split_activations("relu")
        (['tanh', 'leaky_relu:0.1'], ['relu'])
    """
    parts = [part.strip() for part in text.split(",")]
    several = all(any(c.isalpha() for c in part.partition(":")[0]) for part in parts)
    return parts if several else [text]


def read_deep_network(
    path: object, *, layers: object = None, key: str | None = None, head: bool = False
) -> tuple[Layers, str | None]:
    """The layers in a file in their order, and the activation that the file names, if it does.

    With ``head`` arrays that are no such layers are left out: they come before the network.

    Raises CheckInputError for what is no chain of linear layers.
    """
    file = read_arrays(path, key)
    found = _chain(file, layers, head)
    weights = tuple(_matrix(file, weight) for weight, _ in found)
    biases = tuple(None if bias is None else _floats(file, bias) for _, bias in found)
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if k and weight.shape[1] != len(weights[k - 1]):
            expected = f"{len(weights[k - 1])} columns"
            raise CheckInputError(f"{file.path}: {found[k][0]}", expected, weight.shape)
        if bias is not None and bias.shape != (len(weight),):
            raise CheckInputError(f"{file.path}: {found[k][1]}", f"shape ({len(weight)},)",
                                  bias.shape)  # fmt: skip
    stored = file.settings.get("activation")
    if isinstance(stored, list) and stored and all(isinstance(part, str) for part in stored):
        stored = ",".join(stored)
    if isinstance(stored, bytes):
        stored = stored.decode("utf-8", "replace")
    names = () if in_order(file) else tuple(w.removesuffix(".weight") for w, _ in found)
    names = names or tuple(f"layers.{k}" for k in range(len(found)))
    return Layers(weights, biases, names), stored if isinstance(stored, str) else None


def read_deep_gradient(
    path: object,
    network: Layers,
    *,
    layers: object = None,
    key: str | None = None,
    head: bool = False,
) -> Layers:
    """The gradient of a network: by the network's names, as a list, or in its shapes.

    Raises CheckInputError for arrays that are not those of the network.
    """
    file = read_arrays(path, key, need_key=False)
    found = _listed(file, network) if in_order(file) else _by_names(file, network, head)
    if not any(weight for weight, _ in found):
        found = [*_chain(file, layers, head)]
    if len(found) != len(network.weights):
        raise CheckInputError(file.path, f"{len(network.weights)} layers", len(found))
    weights = tuple(None if weight is None else _matrix(file, weight) for weight, _ in found)
    biases = tuple(
        None if weight is None or bias is None else _floats(file, bias) for weight, bias in found
    )
    for mine, own in ((weights, network.weights), (biases, network.biases)):
        for array, like in zip(mine, own, strict=True):
            if array is not None and (like is None or array.shape != like.shape):
                expected = "none" if like is None else f"shape {like.shape}"
                raise CheckInputError(file.path, f"{expected}, as the network", array.shape)
    return Layers(weights, biases)


_Found = list[tuple[str | None, str | None]]


def _chain(file: Arrays, layers: object, head: bool) -> list[tuple[str, str | None]]:
    """Names of weight and bias of every layer; without a head nothing may be left over."""
    shapes = file.shapes
    listing = in_order(file)
    if layers is not None:
        names = layers.split(",") if isinstance(layers, str) else layers
        if not isinstance(names, list | tuple) or not names:
            raise CheckInputError("layers", "names A,B,...", repr(layers)[:60])
        found = [_with_bias(_end(shapes, str(name).strip(), file.path), shapes) for name in names]
    elif listing:
        found = []
        for name in listing:
            if len(shapes[name]) == 2:
                found.append((name, None))
            elif len(shapes[name]) == 1 and found and found[-1][1] is None:
                found[-1] = (found[-1][0], name)
    else:
        found = [
            _with_bias(n, shapes) for n in shapes if n.endswith(".weight") and _flat(n, shapes)
        ]
    taken = {name for pair in found for name in pair}
    left = [] if head else [name for name in shapes if name not in taken]
    if not found or left or len({weight for weight, _ in found}) < len(found):
        got = f"{left[0]} besides" if left else "others"
        raise CheckInputError(file.path, "linear layers and nothing else", got)
    if layers is None and not listing:
        found = _ordered(file, found)
    return found


def _flat(name: str, shapes: Shapes) -> bool:
    return len(shapes[name]) == 2 or (name == "output.weight" and len(shapes[name]) == 1)


def _with_bias(weight: str, shapes: Shapes) -> tuple[str, str | None]:
    bias = f"{weight.removesuffix('.weight')}.bias"
    return weight, bias if bias in shapes and bias != weight else None


def _end(shapes: Shapes, name: str, path: str) -> str:
    for wanted in (f"{name}.weight", name):
        ends = [key for key in shapes if key.endswith(f".{wanted}")]
        if wanted in shapes or len(ends) == 1:
            return wanted if wanted in shapes else ends[0]
    raise CheckInputError("layers", f"names of arrays in {path}", repr(name)[:60])


def _ordered(file: Arrays, found: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """The one order in which shapes fit and numbers in like names ascend, else the file's."""
    sizes = {w: (1, *file.shapes[w])[-2:] for w, _ in found}
    keys = {w: (re.sub(r"\d+", "#", w), [int(n[:18]) for n in re.findall(r"\d+", w)])
            for w, _ in found}  # fmt: skip
    orders = []
    for order in _orders(found, sizes, keys):
        orders.append(order)
        if len(orders) > 1 and not file.ordered:
            break
        if len(orders) > _ORDERS:
            raise CheckInputError(file.path, "layers in a known order", "too many orders")
    if len(orders) == 1:
        return orders[0]
    if file.ordered and found in orders:
        return found
    raise CheckInputError(file.path, "layers in a known order", "none or several", "name them")


def _orders(
    left: Sequence[tuple[str, str | None]],
    sizes: Mapping[str, Sequence[int]],
    keys: Mapping[str, tuple[str, list[int]]],
    below: int | None = None,
) -> Iterator[list[tuple[str, str | None]]]:
    if not left:
        yield []
    for layer in left:
        weight = layer[0]
        pattern, numbers = keys[weight]
        earlier = any(keys[w][0] == pattern and keys[w][1] < numbers for w, _ in left)
        if earlier or below not in (None, sizes[weight][1]):
            continue
        rest = [other for other in left if other is not layer]
        for tail in _orders(rest, sizes, keys, sizes[weight][0]):
            yield [layer, *tail]


def _listed(file: Arrays, network: Layers) -> _Found:
    names = in_order(file)
    places = [
        (k, part)
        for k in range(len(network.weights))
        for part in ("weight", "bias")
        if part == "weight" or network.biases[k] is not None
    ]
    if len(names) == len(network.weights):
        places = [place for place in places if place[1] == "weight"]
    if len(names) != len(places):
        raise CheckInputError(file.path, f"{len(places)} arrays", len(names))
    stored = dict(zip(places, names, strict=True))
    return [(stored[k, "weight"], stored.get((k, "bias"))) for k in range(len(network.weights))]


def _by_names(file: Arrays, network: Layers, head: bool) -> _Found:
    found: _Found = []
    for name in network.names:
        weight = _like(file.shapes, f"{name}.weight") or _like(file.shapes, name)
        found.append((weight, _like(file.shapes, f"{name}.bias")))
    taken = {name for pair in found for name in pair if name is not None}
    left = [] if head else [name for name in file.shapes if name not in taken]
    if taken and left:
        raise CheckInputError(file.path, "the network's layers alone", f"{left[0]} besides")
    return found


def _like(shapes: Shapes, name: str) -> str | None:
    if name in shapes:
        return name
    ends = [key for key in shapes if key.endswith(f".{name}") or name.endswith(f".{key}")]
    return ends[0] if len(ends) == 1 else None


def _matrix(file: Arrays, name: str) -> FloatArray:
    array = _floats(file, name)
    array = array[None, :] if array.ndim == 1 else array
    if array.ndim != 2:
        raise CheckInputError(f"{file.path}: {name}", "a matrix", array.shape)
    return array


def _floats(file: Arrays, name: str) -> FloatArray:
    if file.dtypes[name] not in ROUNDING:
        expected = "float64, float32, float16 or bfloat16"
        raise CheckInputError(f"{file.path}: {name}", expected, file.dtypes[name])
    array = np.array(file.read(name), dtype=np.float64, order="C")
    if array.size == 0 or not np.isfinite(array).all():
        raise CheckInputError(f"{file.path}: {name}", "finite numbers", "none, NaN or infinity")
    return array
