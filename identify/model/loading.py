"""Load and save two-layer networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from identify.arrays import FloatArray
from identify.errors import FileError, InvalidInputError, UnsupportableModelError
from identify.model.deep import DeepNetwork
from identify.model.deep_torch import deep_from_torch
from identify.model.layer_names import (
    SCOPE,
    LayerNames,
    find_layers,
    resolve_activation,
    spell_activation,
)
from identify.model.tensor_file import ROUNDING, PathLike, TensorFile, tensor_array, tensor_dtype
from identify.model.two_layer import TwoLayerNetwork
from identify.model.untrusted import read_tensors


def load_network(
    path: PathLike | TensorFile,
    *,
    degree: int | None = None,
    activation: str | Sequence[float] | None = None,
    layers: str | None = None,
    key: str | None = None,
    need_key: bool = True,
) -> TwoLayerNetwork:
    """Load a two-layer network from what ``read_tensors`` opens: safetensors, npz, checkpoints.

    The arrays are ``hidden.weight`` (m, d), ``output.weight`` (C, m) or (m,), and optional
    ``hidden.bias`` (m,), ``output.bias`` (C,). A file with exactly two other matrices, such as the
    state_dict of two Linear modules, needs no names; ``layers="HIDDEN,OUTPUT"`` gives them.
    float64, float32, float16 and bfloat16 are read. ``activation`` ("monomial" or coefficients)
    and ``degree`` come from the file (metadata or keys), the arguments, or both if they agree.
    ``key`` chooses a state_dict in a checkpoint that holds several.

    Raises FileError, InvalidInputError or UnsupportableModelError with one line. No file can run
    code; the cost is one pass over it.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.npz"
        >>> np.savez(path, **{"fc1.weight": np.ones((4, 3)), "fc2.weight": np.ones((1, 4))})
        >>> load_network(path, degree=3)
        TwoLayerNetwork(width=4, dimension=3, outputs=1, degree=3)
    """
    file = read_tensors(path, key, need_key=need_key)
    # The layers first: no degree helps a network that has three of them.
    names = find_layers(file.path, file.shapes, layers=layers, ordered=file.ordered)
    power, coefficients = resolve_activation(
        file.path, file.settings, degree=degree, activation=activation
    )
    return _assemble(file, names, power, coefficients)


def save_network(network: TwoLayerNetwork, path: PathLike) -> None:
    """Save a network in float64 as ``.safetensors`` (with metadata) or ``.npz`` (with keys).

    ``output.weight`` is stored as (C, m), so that a torch module with the two Linear layers
    ``hidden`` and ``output`` loads the arrays as its state_dict.

    Raises FileError for another suffix and for a path that cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
        >>> network = TwoLayerNetwork([[2.0]], [3.0], degree=3)
        >>> save_network(network, path)
        >>> load_network(path).sha256() == network.sha256()
        True
    """
    arrays: dict[str, Any] = network.arrays()
    arrays["output.weight"] = network.output_weight.reshape(network.outputs, network.width)
    settings = {
        "activation": spell_activation(network.activation or ()),
        "degree": str(network.degree),
    }
    if network.rounding != ROUNDING["float64"]:
        settings["rounding"] = repr(network.rounding)
    _write(path, arrays, settings, {"degree": np.int64(network.degree)})


def save_relu_network(network: DeepNetwork, path: PathLike) -> None:
    """Save a network of two layers in float64 as ``.safetensors`` or ``.npz``, by its activation.

    The names are those of `save_network`.

    Raises InvalidInputError for another depth, FileError as `save_network`.

    Example:
        >>> import pathlib, tempfile
        >>> from identify.model.deep_files import load_deep_network
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
        >>> network = DeepNetwork([[[2.0, 1.0]], [[3.0]]], None, "relu")
        >>> save_relu_network(network, path)
        >>> load_deep_network(path).sha256() == network.sha256()
        True
    """
    if network.depth != 2:
        raise InvalidInputError("network", "two layers", network.depth)
    arrays: dict[str, Any] = {}
    for name, weight, bias in zip(
        ("hidden", "output"), network.weights, network.biases, strict=True
    ):
        arrays[f"{name}.weight"] = np.ascontiguousarray(weight)
        if bias is not None:
            arrays[f"{name}.bias"] = np.ascontiguousarray(bias)
    _write(path, arrays, {"activation": str(network.activations[0])}, {})


def _write(
    path: PathLike, arrays: dict[str, Any], settings: dict[str, str], numbers: dict[str, Any]
) -> None:
    """Arrays with settings as metadata, or with settings and numbers as keys."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".safetensors":
            from safetensors.numpy import save

            Path(path).write_bytes(save(arrays, metadata=settings))
        elif suffix == ".npz":
            with Path(path).open("wb") as file:
                np.savez(file, **arrays, **(settings | numbers))
        else:
            raise FileError(path, f'has the suffix "{suffix}"', "expected .safetensors or .npz")
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror}", "check the path") from error


@overload
def from_torch(module: Any, degree: int) -> TwoLayerNetwork: ...
@overload
def from_torch(module: Any, degree: None = None, *, head: bool = False) -> DeepNetwork: ...


def from_torch(
    module: Any, degree: int | None = None, *, head: bool = False
) -> TwoLayerNetwork | DeepNetwork:
    """Take the weights of a torch module with exactly two Linear layers, in their order.

    Nothing but ``module.state_dict()`` and ``module.modules()`` is used. The activation between the
    layers is assumed to be t^degree, which no state_dict can show; a known other activation of
    torch is refused. Without a degree the module is a Sequential of Linear layers and activations
    of any depth, see `deep_from_torch`, and the result a `DeepNetwork`; ``head`` takes the last
    layers alone.

    Raises UnsupportableModelError for another number of layers or a module such as ReLU,
    FileError for arrays that are not finite or not floating point. The cost is one copy.

    Example:
        >>> torch = __import__("pytest").importorskip("torch")
        >>> linear = torch.nn.Linear
        >>> from_torch(torch.nn.Sequential(linear(3, 5, bias=False), linear(5, 1)), degree=3)
        TwoLayerNetwork(width=5, dimension=3, outputs=1, degree=3, output_bias=True)
    """
    if degree is None:
        return deep_from_torch(module, head=head)
    label = type(module).__name__
    for part in module.modules():
        if type(part).__module__ == "torch.nn.modules.activation":
            raise UnsupportableModelError(
                f"{label}: has the activation {type(part).__name__}", SCOPE
            )
    state = module.state_dict()
    matrices = [name for name, tensor in state.items() if len(tensor.shape) == 2]
    if len(matrices) != 2:
        raise UnsupportableModelError(f"{label}: has {len(matrices)} weight matrices", SCOPE)
    file = TensorFile(
        path=label,
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        dtypes={name: tensor_dtype(tensor) for name, tensor in state.items()},
        settings={},
        ordered=True,
        read=lambda name: tensor_array(state[name]),
    )
    return _assemble(file, find_layers(label, file.shapes), degree, None)


def _assemble(
    file: TensorFile, names: LayerNames, degree: int, activation: tuple[float, ...] | None
) -> TwoLayerNetwork:
    def read(name: str | None) -> FloatArray | None:
        return None if name is None else file.floats(name)

    hidden, output = file.floats(names.hidden), file.floats(names.output)
    hidden_bias, output_bias = read(names.hidden_bias), read(names.output_bias)
    own, stated = file.rounding(*names.present()), file.stated_rounding()
    return TwoLayerNetwork(
        hidden_weight=hidden,
        output_weight=output,
        degree=degree,
        activation=activation,
        hidden_bias=hidden_bias,
        output_bias=output_bias,
        rounding=max(own, stated),
        dtype_rounding=own if stated > own else None,
    )
