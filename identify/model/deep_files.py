"""Networks of any depth and their gradients: from files and from memory."""

from __future__ import annotations

from identify.arrays import FloatArray
from identify.errors import FileError, InvalidInputError, UnsupportableModelError, listed
from identify.model.activations import Activation, parse_activation, plain_activation
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.deep_layers import StoredLayer, find_deep_layers
from identify.model.gradients import gradient_in_memory
from identify.model.layer_names import in_order
from identify.model.tensor_file import PathLike, TensorFile
from identify.model.untrusted import read_tensors

_SPELLINGS = {"leakyrelu": "leaky_relu", "swish": "silu", "sin": "sine"}


def load_deep_network(
    path: PathLike | TensorFile,
    *,
    activation: str | None = None,
    layers: str | None = None,
    key: str | None = None,
    head: bool = False,
) -> DeepNetwork:
    """Load a network of linear layers from what ``read_tensors`` opens.

    The arrays are ``NAME.weight`` (m, k) and optional ``NAME.bias`` (m,) of every layer, such as a
    state_dict of torch, or a list. ``layers="A,B,..."`` names them first to last;
    `find_deep_layers` says how they are found without. ``activation``, such as "relu" or
    "leaky_relu:0.2", stands between all of them; it comes from the file (metadata or key), the
    argument, or both if they agree; a comma-separated list names one for each layer but the last.
    With ``head`` what is no such layer, or not named in ``layers``, is left out: it comes before
    the network. ``key`` chooses a state_dict in a checkpoint.

    Raises FileError, InvalidInputError or UnsupportableModelError with one line. No file can run
    code; the cost is one pass over it.

    Example:
        >>> import numpy as np
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.npz"
        >>> np.savez(path, **{"net.0.weight": np.ones((4, 3)), "net.2.weight": np.ones((2, 4))})
        >>> load_deep_network(path, activation="relu")
        DeepNetwork(3-4-2, relu)
    """
    file = read_tensors(path, key)
    kind = named_activation(file, activation)
    if kind is None:
        raise InvalidInputError(
            "activation",
            f"the name of the activation, in {file.path} or as an option",
            "none",
            "give --activation relu, or the one that the network has",
        )
    found = find_deep_layers(file.path, file.shapes, layers=layers, ordered=file.ordered, head=head)
    weights = [_matrix(file, layer.weight) for layer in found]
    biases = [None if layer.bias is None else file.floats(layer.bias) for layer in found]
    names = None if in_order(file.shapes) else [layer.name for layer in found]
    kinds = list(kind) if isinstance(kind, tuple) else [kind] * (len(found) - 1)
    return DeepNetwork(weights, biases, kinds, names)


Kinds = Activation | tuple[Activation, ...]


def named_activation(file: TensorFile, activation: str | None) -> Kinds | None:
    """The activation, or one for each layer but the last, that the option and the file name.

    None where neither names one.
    Coefficients and ``monomial`` without a degree are none: such networks have their own reader.
    The option ``monomial:3`` is one, if a degree in the file agrees.

    Raises InvalidInputError where the two contradict each other or the name is unknown.

    Example:
        >>> import numpy as np
        >>> file = TensorFile("a", {}, {}, {"activation": "LeakyReLU:0.2"}, True, np.zeros)
        >>> named_activation(file, None)
        Activation(name='leaky_relu', parameters=(0.2,))
        >>> [kind.name for kind in named_activation(TensorFile("a", {}, {}, {}, True, np.zeros),
        ...                                         "gelu, relu")]
        ['gelu', 'relu']
    """
    stored = file.settings.get("activation")
    if isinstance(stored, list) and stored and all(isinstance(part, str) for part in stored):
        stored = ",".join(stored)
    if isinstance(stored, list) and len(stored) == 1:
        stored = stored[0]
    if isinstance(stored, bytes):
        stored = stored.decode("utf-8", "replace")
    if isinstance(stored, str):
        stored = plain_activation(stored)
    if stored is None and "degree" in file.settings:
        stored = f"a power of degree {file.settings['degree']}"
    degree = file.settings.get("degree")
    if stored in ("monomial", f"a power of degree {degree}") and (activation or "").startswith(
        "monomial:"
    ):
        stored = activation if degree is None else f"monomial:{degree}"
    said = [text for text in (stored, activation) if text is not None]
    kinds = [
        _read_name(text) if isinstance(text, str) and not text.startswith("a power") else None
        for text in said
    ]
    if len(set(kinds)) > 1:
        raise InvalidInputError(
            "activation", f"{_short(stored)} as {file.path} says", _short(activation),
            "leave the option out",
        )  # fmt: skip
    return kinds[0] if kinds else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_name(text: str) -> Kinds | None:
    parts = text.split(",")
    if len(parts) > 1 and all(any(c.isalpha() for c in part.partition(":")[0]) for part in parts):
        kinds = [_read_one(part) for part in parts]
        found = tuple(kind for kind in kinds if kind is not None)
        return found if len(found) == len(kinds) else None
    return _read_one(text)


def _read_one(text: str) -> Activation | None:
    name, colon, rest = text.strip().partition(":")
    name = name.strip().lower().replace("-", "_")
    if not any(c.isalpha() for c in name) or name in ("nan", "inf", "infinity"):
        return None
    if name == "monomial" and not colon:
        return None
    if "," in name:
        return None
    return parse_activation(_SPELLINGS.get(name, name) + colon + rest)


def deep_activation(
    path: PathLike | TensorFile, activation: str | None = None, *, key: str | None = None
) -> Kinds | None:
    """The activation, or the list of them, that the option or the file names.

    None where the readers of this module do not take it.

    Where both name one and they differ, that of the option; the readers refuse this.

    Raises what ``read_tensors`` raises. The cost is that of reading the header of the file.

    Example:
        >>> import numpy as np
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.npz"
        >>> np.savez(path, **{"0.weight": np.ones((4, 3)), "1.weight": np.ones((2, 4))})
        >>> deep_activation(path), deep_activation(path, "relu"), deep_activation(path, "0,0,0,1")
        (None, Activation(name='relu', parameters=()), None)
    """
    file = read_tensors(path, key)
    try:
        return named_activation(file, activation)
    except InvalidInputError:
        # Two names are for the reader to refuse, a name that nobody knows for neither of the two.
        kinds = [_known(text) for text in (activation, file.settings.get("activation"))]
        return kinds[0] if all(kinds) else None


def _known(text: object) -> Kinds | None:
    try:
        return _read_name(plain_activation(text)) if isinstance(text, str) else None
    except InvalidInputError:
        return None


def load_deep_gradient(
    path: PathLike,
    network: DeepNetwork,
    *,
    layers: str | None = None,
    key: str | None = None,
    head: bool = False,
) -> DeepGradient:
    """Load the gradient of a batch's loss from a file.

    The arrays have the names of the network's layers, or are a list in the order of its parameters
    (weights alone, or each with its bias), or have names of their own in shapes that are all those
    of the network. Under the network's names layers may be missing. With ``head`` arrays under
    other names are left out.

    Raises what ``load_deep_network`` raises, and FileError for shapes that are not the network's.

    Example:
        >>> import numpy as np
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "gradient.npz"
        >>> network = DeepNetwork([[[2.0]], [[5.0]]], None, "relu")
        >>> np.savez(path, *network.gradient([[3.0]], [[1.0]]).weights)
        >>> load_deep_gradient(path, network).weights[0]
        array([[15.]])
    """
    file = read_tensors(path, key, need_key=False)
    return read_deep_gradient(file, network, layers=layers, head=head)


def take_deep_gradient(given: object, network: DeepNetwork, *, head: bool = False) -> DeepGradient:
    """Take a gradient in memory: a torch module after backward(), arrays by name, or a list.

    ``head`` as in ``load_deep_gradient``.

    Raises InvalidInputError for other types and parameters without a gradient, FileError for arrays
    that do not fit the network.

    Example:
        >>> network = DeepNetwork([[[2.0]], [[5.0]]], None, "relu")
        >>> take_deep_gradient([[[15.0]], [[6.0]]], network).weights[1]
        array([[6.]])
    """
    if isinstance(given, DeepGradient):
        return given
    return read_deep_gradient(gradient_in_memory(given, "a gradient"), network, head=head)


def read_deep_gradient(
    file: TensorFile, network: DeepNetwork, *, layers: str | None = None, head: bool = False
) -> DeepGradient:
    """Read a gradient of the network from what a file declares; see ``load_deep_gradient``."""
    if in_order(file.shapes) is not None:
        found = _by_list(file, network)
    else:
        found = _by_names(file, network, head=head)
        if not any(found):
            found = [
                *find_deep_layers(
                    file.path, file.shapes, layers=layers, ordered=file.ordered, head=head
                )
            ]
    if len(found) != network.depth:
        raise FileError(
            file.path, f"holds {len(found)} layers, the network has {network.depth}",
            "this is the gradient of another network",
        )  # fmt: skip
    weights: list[FloatArray | None] = []
    biases: list[FloatArray | None] = []
    for index, layer in enumerate(found):
        weight = None if layer is None else _matrix(file, layer.weight)
        bias = None if layer is None or layer.bias is None else file.floats(layer.bias)
        _check_like(file, layer, weight, network.weights[index].shape)
        if bias is not None:
            own = network.biases[index]
            _check_like(file, layer, bias, (0,) if own is None else own.shape)
        weights.append(weight)
        biases.append(bias)
    return DeepGradient(tuple(weights), tuple(biases))


def _by_names(file: TensorFile, network: DeepNetwork, *, head: bool) -> list[StoredLayer | None]:
    """The layers under the network's names; what comes before a name may differ."""
    found: list[StoredLayer | None] = []
    taken: set[str] = set()
    for name in network.names:
        weight = _ending(file, f"{name}.weight") or _ending(file, name)
        bias = _ending(file, f"{name}.bias")
        found.append(None if weight is None else StoredLayer(weight, bias))
        taken |= {part for part in (weight, bias) if part is not None}
    left = [name for name in file.shapes if name not in taken]
    if taken and left and not head:
        raise UnsupportableModelError(
            f"{file.path}: besides the layers of the network it holds {listed(left)}",
            "save the gradients of the network's layers alone",
        )
    return found


def _ending(file: TensorFile, name: str) -> str | None:
    """The array of that name, or the only one whose name ends with it, or that it ends with."""
    if name in file.shapes:
        return name
    ends = [key for key in file.shapes if key.endswith(f".{name}") or name.endswith(f".{key}")]
    return ends[0] if len(ends) == 1 else None


def _by_list(file: TensorFile, network: DeepNetwork) -> list[StoredLayer | None]:
    """Arrays in the order of the parameters: all of them, or the weights alone."""
    names = in_order(file.shapes) or []
    every = [(index, part) for index in range(network.depth) for part in ("weight", "bias")
             if part == "weight" or network.biases[index] is not None]  # fmt: skip
    weights = [(index, "weight") for index in range(network.depth)]
    for places in (every, weights):
        if len(places) == len(names):
            stored = dict(zip(places, names, strict=True))
            return [
                StoredLayer(stored[index, "weight"], stored.get((index, "bias")))
                for index in range(network.depth)
            ]
    raise FileError(
        file.path,
        f"is a list of {len(names)} arrays, the network has {len(every)} parameters",
        "give all gradients in the order of the parameters, or under the network's names",
    )


def _check_like(
    file: TensorFile, layer: StoredLayer | None, array: FloatArray | None, shape: tuple[int, ...]
) -> None:
    if array is not None and layer is not None and array.shape != shape:
        wanted = "none there" if shape == (0,) else f"the shape {shape}"
        raise FileError(
            file.path, f"a gradient of {layer.name} has shape {array.shape}, the network has "
            f"{wanted}", "this is the gradient of another network",
        )  # fmt: skip


def _matrix(file: TensorFile, name: str) -> FloatArray:
    array = file.floats(name)
    return array[None, :] if array.ndim == 1 else array
