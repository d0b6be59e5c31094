"""Gradients as files and in memory: by name, as a list in order, or of some layers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from identify.errors import FileError, InvalidInputError, listed
from identify.model.layer_names import LayerNames, find_layers, in_order, resolve_activation
from identify.model.tensor_file import PathLike, TensorFile, tensor_array, tensor_dtype
from identify.model.two_layer import Origin, TwoLayerNetwork
from identify.model.untrusted import read_tensors

HEAD = "output.weight"


def load_gradient(
    path: PathLike,
    network: TwoLayerNetwork,
    *,
    layers: str | None = None,
    key: str | None = None,
) -> TwoLayerNetwork:
    """Load the gradient of a loss from a file, in the shapes of the network.

    The arrays have the names of the network, or are a list (``arr_0``, ``arr_1``, ... as numpy
    names it) in the order of the network's parameters. A gradient of the hidden layer alone is
    completed: alpha a_j (grad_a)_j = w_j . (grad_W)_j gives that of the output layer. An
    ``output.bias`` may be missing, and one that the network lacks is kept.

    Raises what ``load_network`` raises, and FileError if shapes, biases, degree or activation are
    not those of the network, or if an output weight of 0 leaves its gradient open.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "gradient.npz"
        >>> network = TwoLayerNetwork([[2.0]], [3.0], degree=3)
        >>> np.savez(path, network.gradient([[1.0]], [1.0]).hidden_weight)
        >>> load_gradient(path, network).output_weight
        array([8.])
    """
    return read_gradient(read_tensors(path, key, need_key=False), network, layers=layers)


def take_gradient(given: object, network: TwoLayerNetwork) -> TwoLayerNetwork:
    """Take a gradient in memory: a torch module after backward(), arrays by name, or a list.

    Arrays may be torch tensors. A module gives the ``grad`` of its parameters; names and lists are
    read as ``load_gradient`` reads them.

    Raises InvalidInputError for other types and parameters without a gradient, FileError for arrays
    that do not fit the network.

    Example:
        >>> network = TwoLayerNetwork([[2.0]], [3.0], degree=3)
        >>> take_gradient([[[36.0]], [[8.0]]], network).output_weight
        array([8.])
    """
    if isinstance(given, TwoLayerNetwork):
        return given
    return read_gradient(gradient_in_memory(given, "a network"), network)


def gradient_in_memory(given: object, own: str) -> TensorFile:
    """Arrays in memory as what a file declares; `own` names the container that needs no reading.

    Raises InvalidInputError for other types and parameters without a gradient.
    """
    if hasattr(given, "named_parameters"):
        named: dict[str, Any] = {name: p.grad for name, p in given.named_parameters()}
        given = {name: gradient for name, gradient in named.items() if gradient is not None}
        if not given:
            raise InvalidInputError("gradient", "a module after backward()", "no gradient in it")
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        given = {f"arr_{k}": array for k, array in enumerate(given)}
    if not isinstance(given, Mapping) or any(array is None for array in given.values()):
        kind = "None among them" if isinstance(given, Mapping) else type(given).__name__
        raise InvalidInputError("gradient", f"{own}, a module, arrays by name or a list", kind)
    arrays = {
        str(name): array if hasattr(array, "detach") else np.asarray(array)
        for name, array in given.items()
    }
    return TensorFile(
        path="gradient",
        shapes={name: tuple(array.shape) for name, array in arrays.items()},
        dtypes={name: tensor_dtype(array) for name, array in arrays.items()},
        settings={},
        ordered=True,
        read=lambda name: _host(arrays[name]),
    )


def read_gradient(
    file: TensorFile, network: TwoLayerNetwork, *, layers: str | None = None
) -> TwoLayerNetwork:
    """Read a gradient of the network from what a file declares; see ``load_gradient``."""
    resolve_activation(
        file.path,
        file.settings,
        degree=network.degree,
        activation="monomial" if network.activation is None else network.activation,
    )
    place = _places(file, network, layers)
    expected = network.arrays()
    missing = [name for name in expected if name not in place and name not in (HEAD, "output.bias")]
    if missing:
        raise FileError(
            file.path, f"holds no gradient of {listed(missing)}",
            "the gradient of the whole hidden layer is needed",
        )  # fmt: skip
    arrays = {name: file.floats(stored) for name, stored in place.items()}
    for name, array in arrays.items():
        shape = expected[name].shape if name in expected else array.shape
        if array.size != np.prod(shape) or (array.ndim != len(shape) and name != HEAD):
            raise FileError(
                file.path,
                f"{name} has shape {array.shape}, the network's has {shape}",
                "this is the gradient of another network",
            )
    own, stated = file.rounding(*place.values()), file.stated_rounding()
    gradient = TwoLayerNetwork(
        arrays["hidden.weight"],
        arrays.get(HEAD, np.zeros(network.output_weight.shape)),
        network.degree,
        activation=network.activation,
        hidden_bias=arrays.get("hidden.bias"),
        output_bias=arrays.get("output.bias"),
        rounding=max(own, stated),
        dtype_rounding=own if stated > own else None,
    )
    if HEAD in arrays:
        return gradient
    # The zeros stand for what is missing; the hash is of the arrays that are there.
    digest = replace(gradient, origin=None).sha256(without=HEAD)
    return fill_head(network, replace(gradient, origin=Origin(digest, filled=True)))


def fill_head(network: TwoLayerNetwork, gradient: TwoLayerNetwork) -> TwoLayerNetwork:
    """Give a gradient the output layer that Euler's identity names.

    alpha a_j (grad_a)_j = w_j . (grad_W)_j, for two outputs with (grad_a)_0 = -(grad_a)_1.

    Raises InvalidInputError where an output weight of 0 leaves it open.

    Example:
        >>> network = TwoLayerNetwork([[2.0]], [3.0], degree=3)
        >>> gradient = TwoLayerNetwork([[36.0]], [0.0], degree=3)
        >>> fill_head(network, gradient).output_weight
        array([8.])
    """
    heights = network.output_weight
    if network.outputs == 2 and network.activation is None:
        heights = heights[1] - heights[0]
    else:
        network.require_supported()
    dead = np.flatnonzero(heights == 0.0)
    if len(dead):
        raise InvalidInputError(
            "gradient", f"{HEAD}, as neuron {dead[0]} has output weight 0", "none",
            "remove such neurons from both files, they do not change the network",
        )  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        products = np.einsum("jk,jk->j", network.points, gradient.points)
        head = np.asarray(products / heights / network.degree)
    if not np.isfinite(head).all():
        raise InvalidInputError("gradient", "numbers in the range of float64", "larger ones")
    return replace(
        gradient, output_weight=np.stack([-head, head]) if network.outputs == 2 else head
    )


def _places(file: TensorFile, network: TwoLayerNetwork, layers: str | None) -> dict[str, str]:
    """The names in the file by those of the network."""
    weights = [name for name, shape in file.shapes.items() if len(shape) >= 2]
    if in_order(file.shapes) is None and (len(weights) > 1 or _named(file, layers)):
        found = find_layers(file.path, file.shapes, layers=layers, ordered=file.ordered)
        return _as_places(found, file, network)
    # A list, or a part of the layers: the shapes tell the parameters apart, then their order.
    place: dict[str, str] = {}
    shapes = {name: array.shape for name, array in network.arrays().items()}
    shapes[HEAD] = (network.outputs, network.width)
    shapes.setdefault("output.bias", (network.outputs,))
    named = in_order(file.shapes) is None
    for stored in in_order(file.shapes) or file.shapes:
        fits = [name for name, shape in shapes.items()
                if name not in place and shape == file.shapes[stored]]  # fmt: skip
        flat = file.shapes[stored] == (network.width,) and not stored.endswith("bias")
        # A flat output layer has the shape of the hidden bias: its name, or the order, tells.
        if flat and network.outputs == 1 and HEAD not in place and (named or not fits):
            fits = [HEAD]
        if not fits:
            has = {**network.arrays(), HEAD: None}
            known = ", ".join(f"{name} {shapes[name]}" for name in has)
            raise FileError(
                file.path, f'"{stored}" has shape {file.shapes[stored]}, the network has {known}',
                "this is the gradient of another network",
            )  # fmt: skip
        place[fits[0]] = stored
    return place


def _named(file: TensorFile, layers: str | None) -> bool:
    """Whether the option names two layers that the file has."""
    names = [] if layers is None else [name.strip() for name in layers.split(",")]
    return len(names) == 2 and all(
        any(key in (name, f"{name}.weight") for key in file.shapes) for name in names
    )


def _as_places(found: LayerNames, file: TensorFile, network: TwoLayerNetwork) -> dict[str, str]:
    pairs = {
        "hidden.weight": found.hidden,
        "hidden.bias": found.hidden_bias,
        HEAD: found.output,
        "output.bias": found.output_bias,
    }
    place = {name: stored for name, stored in pairs.items() if stored is not None}
    if "hidden.bias" in place and not network.has_bias:
        shape = file.shapes[place["hidden.bias"]]
        raise FileError(
            file.path, f"hidden.bias has shape {shape}, the network's has none",
            "this is the gradient of another network",
        )  # fmt: skip
    return place


def _host(array: Any) -> Any:
    return tensor_array(array) if hasattr(array, "detach") else array
