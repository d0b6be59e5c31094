"""Load and save networks of any depth, without running code from a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attack.networks.activations import Activation, parse_activation
from attack.networks.network import Network
from identify.errors import (
    FileError,
    InvalidInputError,
    NotYetSupportedError,
    UnsupportedModelError,
    listed,
)
from identify.model.layer_names import in_order
from identify.model.tensor_file import PathLike, TensorFile, tensor_array
from identify.model.untrusted import read_tensors


def save_network(network: Network, path: PathLike) -> None:
    """Save a network in its own dtype as ``.safetensors`` (with metadata) or ``.npz`` (with keys).

    The names are ``layers.K.weight`` and ``layers.K.bias``, K from 0; ``activation`` is the JSON of
    the activation. bfloat16 is stored as float32, exactly.

    Raises FileError for another suffix and for a path that cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> from attack.networks.spec import parse_spec
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
        >>> network = parse_spec("4-5-1,gelu").initialise(seed=0)
        >>> save_network(network, path)
        >>> load_network(path).sha256() == network.sha256()
        True
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".safetensors", ".npz"):
        raise FileError(path, f'has the suffix "{suffix}"', "expected .safetensors or .npz")
    arrays: dict[str, Any] = {
        name: np.ascontiguousarray(tensor_array(tensor))
        for name, tensor in zip(network.names(), network.parameters(), strict=True)
    }
    spelled = network.activation.to_json()
    try:
        if suffix == ".safetensors":
            from safetensors.numpy import save

            Path(path).write_bytes(save(arrays, metadata={"activation": spelled}))
        else:
            with Path(path).open("wb") as file:
                np.savez(file, **arrays, activation=np.array(spelled))
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror}", "check the path") from error


def load_network(
    path: PathLike,
    *,
    layers: str | None = None,
    activation: Activation | str | None = None,
    dtype: torch.dtype | None = None,
    key: str | None = None,
    need_key: bool = True,
) -> Network:
    """Load a network from what ``read_tensors`` opens: safetensors, npz, checkpoints, folders.

    The layers are ``layers.K.weight`` (out, in) with optional ``layers.K.bias``; or the two layers
    ``hidden``, ``output`` of the verifier, whose degree becomes a power activation; or the names in
    ``layers="A,B,C"``; or all matrices of the file in the only order in which their shapes chain.
    ``activation`` is needed where the file has none. ``dtype`` defaults to float64 if any array has
    it, else to float32; float16 and bfloat16 are read. ``key`` chooses a state_dict in a checkpoint
    that holds several.

    Raises FileError, InvalidInputError or UnsupportedModelError with one line. The cost is one pass
    over the file.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.npz"
        >>> np.savez(path, **{"fc1.weight": np.ones((4, 3)), "fc2.weight": np.ones((1, 4))})
        >>> load_network(path, activation="relu")
        Network(3-4-1,relu,bias=none)
    """
    file = read_tensors(path, key, need_key=need_key)
    names = _layer_names(file, layers)
    chosen = _activation(file, activation, single=len(names) == 1)
    biases = [_bias_name(name, file.shapes, names) for name in names]
    used = {name for name in (*names, *biases) if name}
    left = [name for name in file.shapes if name not in used]
    if left:
        raise UnsupportedModelError(
            f"{file.path}: besides the layers {listed(names)} the network has {listed(left)}",
            "save the layers alone if the rest is no part of the network",
        )
    if dtype is None:
        wide = any(file.dtypes[name] == "float64" for name in used)
        dtype = torch.float64 if wide else torch.float32
    weights: list[Tensor] = []
    for name in names:
        weight = torch.from_numpy(file.floats(name)).to(dtype)
        weights.append(weight if weight.ndim == 2 else weight.reshape(1, -1))
    read = [None if b is None else torch.from_numpy(file.floats(b)).to(dtype) for b in biases]
    try:
        return Network(tuple(weights), tuple(read), chosen)
    except InvalidInputError as error:
        raise FileError(file.path, str(error), "name the layers in order with --layers") from error


def _activation(
    file: TensorFile, given: Activation | str | None, single: bool = False
) -> Activation:
    option = parse_activation(given) if isinstance(given, str) else given
    stored = file.settings.get("activation")
    degree = file.settings.get("degree")
    found: Activation | None = None
    if degree is None and stored is None and option is None and single:
        return parse_activation("identity")  # one layer has no activation
    if degree is not None and stored in (None, "monomial"):
        try:
            found = Activation("power", float(degree))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise FileError(file.path, f"has no whole number as degree ({degree})") from error
    elif stored is not None:
        if not isinstance(stored, str) or re.match(r"\s*[-+.\d]", stored):
            raise NotYetSupportedError(
                f"{file.path}: polynomial activations are not yet supported by the attacks",
                "a single power is, as in power3",
            )
        try:
            found = parse_activation(stored)
        except InvalidInputError as error:
            raise FileError(file.path, f"has an unknown activation ({error})") from error
    chosen = option or found
    if chosen is None:
        raise InvalidInputError(
            "activation",
            f"a word such as relu, as {file.path} names none",
            "none",
        )
    if found is not None and found != chosen:
        raise InvalidInputError(
            "activation", f"{found.spec} as {file.path} says", chosen.spec, "leave the option out"
        )
    return chosen


def _layer_names(file: TensorFile, layers: str | None) -> list[str]:
    shapes = file.shapes
    if layers is not None:
        return [_named(name.strip(), file) for name in layers.split(",")]
    if "hidden.weight" in shapes and "output.weight" in shapes:
        return ["hidden.weight", "output.weight"]
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    kernels = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) > 2]
    if kernels:
        raise UnsupportedModelError(
            f"{file.path}: convolutions are not supported; the network has {listed(kernels)}",
            "fully connected networks are",
        )
    if not matrices:
        raise FileError(file.path, f"holds no matrix, only {listed(shapes)}")
    numbered = [_natural(name) for name in matrices]
    orders = [sorted(matrices, key=_natural)] if len(set(numbered)) == len(matrices) else []
    if file.ordered:
        orders.insert(0, matrices)
    for order in orders:
        chain = [shapes[name] for name in order]
        if all(after[1] == before[0] for before, after in pairwise(chain)):
            return order
    raise FileError(
        file.path,
        f"has the matrices {listed(f'{name} {shapes[name]}' for name in matrices)}, "
        "which do not chain in the order of their names",
        "name the layers in order with --layers",
    )


def _named(name: str, file: TensorFile) -> str:
    for candidate in (name, f"{name}.weight"):
        if candidate in file.shapes:
            return candidate
        ends = [key for key in file.shapes if key.endswith(f".{candidate}")]
        if len(ends) == 1:
            return ends[0]
    raise InvalidInputError("layers", f"names of arrays in {file.path}", name, listed(file.shapes))


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p)) if p.isdigit() else (1, p) for p in parts if p)


def _bias_name(
    weight: str, shapes: Mapping[str, tuple[int, ...]], weights: list[str]
) -> str | None:
    listing = in_order(shapes)
    if listing:
        after = listing[listing.index(weight) + 1 :][:1]
        return (
            after[0] if after and after[0] not in weights and len(shapes[after[0]]) == 1 else None
        )
    name = f"{weight.removesuffix('.weight')}.bias"
    return name if name in shapes and name != weight else None
