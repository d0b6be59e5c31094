"""Networks of linear layers from torch modules, without running their code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from identify.errors import UnsupportableModelError
from identify.model.activations import Activation
from identify.model.deep import DeepNetwork
from identify.model.tensor_file import TensorFile, tensor_array, tensor_dtype

SCOPE = (
    "a Sequential of Linear, activations, Flatten, Dropout in eval mode and Identity is read; "
    "build DeepNetwork from the arrays if the rest changes nothing"
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_PLAIN = {"ReLU": "relu", "SiLU": "silu", "Tanh": "tanh", "Sigmoid": "sigmoid"}


def deep_from_torch(module: Any, *, head: bool = False) -> DeepNetwork:
    """Take the layers of a torch Sequential of Linear and activation modules.

    With ``head`` only what follows the last module that is neither is taken: the samples are then
    the features that leave it. Nothing of the module is called but ``state_dict()``. Sequential modules may be nested.

    Raises UnsupportableModelError, naming the module, for everything else: subclasses, whose
    forward may be another, hooks, parametrisations, Dropout in training mode, and an activation
    before the first or after the last Linear. The cost is one copy.

    Example:
        >>> torch = __import__("pytest").importorskip("torch")
        >>> nn = torch.nn
        >>> deep_from_torch(nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)))
        DeepNetwork(3-5-1, relu)
    """  # noqa: E501
    linear: list[tuple[str, Any]] = []
    kinds: list[Activation | None] = []
    parts = [*_parts("", module)]
    for name, part in parts[_behind(parts) if head else 0 :]:
        kind = _activation(name, part)
        if _class(part) == "torch.nn.modules.linear.Linear":
            linear.append((name, part))
            kinds.append(None)
        elif kind is not None and kind.name != "identity":
            if not kinds or kinds[-1] is not None:
                raise _refused(name, part, "two activations meet, or none precedes the first layer")
            kinds[-1] = kind
    if not linear:
        raise UnsupportableModelError(f"{type(module).__name__}: has no Linear layer", SCOPE)
    if kinds[-1] is not None:
        raise UnsupportableModelError(
            f"{type(module).__name__}: {kinds[-1]} follows the last Linear layer",
            "the network has to end with its logits; leave the last activation to the loss",
        )
    states = {
        f"{name}.{key}" if name else key: tensor
        for name, part in linear
        for key, tensor in part.state_dict().items()
    }
    file = TensorFile(
        path=type(module).__name__,
        shapes={name: tuple(tensor.shape) for name, tensor in states.items()},
        dtypes={name: tensor_dtype(tensor) for name, tensor in states.items()},
        settings={},
        ordered=True,
        read=lambda name: tensor_array(states[name]),
    )
    prefixes = [f"{name}." if name else "" for name, _ in linear]
    weights = [file.floats(f"{prefix}weight") for prefix in prefixes]
    biases = [
        file.floats(f"{prefix}bias") if f"{prefix}bias" in states else None for prefix in prefixes
    ]
    between = [kind or Activation("identity") for kind in kinds[:-1]]
    return DeepNetwork(weights, biases, between, [name for name, _ in linear])


def _class(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _behind(parts: list[tuple[str, Any]]) -> int:
    """The place of the first Linear module after the last one that is not covered."""
    start = 0
    for place, (name, part) in enumerate(parts):
        try:
            _activation(name, part)
        except UnsupportableModelError:
            start = place + 1
    while start < len(parts) and _class(parts[start][1]) != "torch.nn.modules.linear.Linear":
        start += 1
    return start


def _parts(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    if any(getattr(module, hooks, None) for hooks in _HOOKS):
        raise _refused(name, module, "it has hooks, which may change what it computes")
    if _class(module) != "torch.nn.modules.container.Sequential":
        yield name, module
        return
    for child, part in module.named_children():
        yield from _parts(f"{name}.{child}" if name else child, part)


def _activation(name: str, part: Any) -> Activation | None:
    """The activation of a module, identity for what changes nothing, None for Linear."""
    library, _, kind = _class(part).rpartition(".")
    if not library.startswith("torch.nn.modules."):
        raise _refused(name, part, "it is not one of torch's own modules")
    found: Activation | None = None
    if kind in _PLAIN:
        found = Activation(_PLAIN[kind])
    elif kind == "LeakyReLU":
        found = Activation("leaky_relu", (float(part.negative_slope),))
    elif kind == "ELU":
        found = Activation("elu", (float(part.alpha),))
    elif kind == "GELU":
        found = Activation("gelu_tanh" if part.approximate == "tanh" else "gelu")
    elif kind == "Softplus" and float(part.beta) == 1.0:
        found = Activation("softplus")
    elif kind == "Identity" or (kind == "Flatten" and (part.start_dim, part.end_dim) == (1, -1)):
        found = Activation("identity")
    elif kind == "Dropout":
        if part.training and part.p > 0.0:
            raise _refused(name, part, "it is in training mode; call eval() first")
        found = Activation("identity")
    elif kind != "Linear":
        raise _refused(name, part, "it is not covered")
    return found


def _refused(name: str, part: Any, why: str) -> UnsupportableModelError:
    place = f" ({name})" if name else ""
    return UnsupportableModelError(f"{type(part).__name__}{place}: {why}", SCOPE)
