"""Which samples a gradient of a torch module was computed on, by its linear layers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from identify.arrays import FloatArray
from identify.errors import InvalidInputError, UnsupportableModelError
from identify.exposure.membership import (
    LayerMemory,
    MembershipReport,
    Traces,
    find_members,
    with_ones,
)


@dataclass(frozen=True, eq=False)
class GivenInputs:
    """Samples in question and, where known, their labels; whatever the module and the loss take.

    Example:
        >>> GivenInputs(torch.zeros(2, 3)).labels is None
        True
    """

    samples: Tensor
    labels: Tensor | None = None


def module_members(
    module: nn.Module,
    gradient: Mapping[str, Tensor],
    candidates: GivenInputs,
    *,
    held_out: GivenInputs | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    noise: float | None = None,
    seed: int = 0,
) -> MembershipReport:
    """Say which samples are in the batch of a gradient, for any module with linear layers.

    Hooks on every `torch.nn.Linear` take what enters it, and with ``loss`` and labels what comes
    back; `find_members` tests both against the layer's gradient. A layer that sees a sample at
    several positions (tokens, patches) counts positions. The module runs in its own mode and dtype:
    use eval mode, as a batch norm in training mode mixes samples.

    Args:
        module: at the weights of the gradient.
        gradient: of the batch's loss by parameter name, as ``{n: p.grad for n, p in
            module.named_parameters()}``; layers may be missing.
        candidates: the samples in question, first axis n.
        held_out: samples that surely took no part.
        loss: of outputs and labels, summed over the samples, for the backward test.
        noise: relative error of the gradient's entries; float32 is found without it.
        seed: of the range finder for large layers.

    Raises UnsupportableModelError for a module without a linear layer in the gradient,
    InvalidInputError for shapes that do not fit, and layers used more than once in a pass.

    Cost: a forward and a backward pass, and a truncated singular value decomposition a layer.

    Source: any linear layer's gradient is a sum of outer products over samples and positions.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(9, 20), nn.GELU(), nn.Linear(20, 3)).double()
        >>> x = torch.randn(6, 9, dtype=torch.float64)
        >>> nn.functional.cross_entropy(net(x[:4]), torch.tensor([0, 1, 2, 0])).backward()
        >>> gradient = {n: p.grad for n, p in net.named_parameters()}
        >>> found = module_members(net, gradient, GivenInputs(x))
        >>> found.members, [a.value for a in found.answers[4:]]
        (4, ['no trace', 'no trace'])
    """
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and gradient.get(_parameter(name, "weight")) is not None
    ]
    if not names:
        raise UnsupportableModelError(
            f"{type(module).__name__}: the gradient holds no weight of a torch.nn.Linear",
            "give the gradient by the parameters' names",
        )
    groups = [candidates] if held_out is None else [candidates, held_out]
    backward = loss is not None and all(group.labels is not None for group in groups)
    taken = [_record(module, names, group, loss if backward else None) for group in groups]
    layers = []
    for name in names:
        change = _array(gradient[_parameter(name, "weight")])
        bias = gradient.get(_parameter(name, "bias"))
        if bias is not None:
            change = torch.cat([change, _array(bias)[:, None]], dim=1)
        traces = [_traces(seen[name], bias is not None) for seen in taken]
        layers.append(LayerMemory(name or "linear", change.numpy(), traces[0], *traces[1:]))
    return find_members(layers, noise=noise, seed=seed)


def _parameter(layer: str, kind: str) -> str:
    return f"{layer}.{kind}" if layer else kind


@dataclass(frozen=True, eq=False)
class _Seen:
    """What entered a layer (n, ..., k) and, with a loss, the cotangents of what left it."""

    inputs: Tensor
    cotangents: Tensor | None


def _record(
    module: nn.Module,
    names: list[str],
    group: GivenInputs,
    loss: Callable[[Tensor, Tensor], Tensor] | None,
) -> dict[str, _Seen]:
    """One pass with hooks on the layers; the module's own gradients stay as they are."""
    entered: dict[str, Tensor] = {}
    left: dict[str, Tensor] = {}
    parts = dict(module.named_modules())

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, arguments: Any, output: Tensor) -> None:
            if name in entered:
                raise InvalidInputError("module", "layers used once in a pass", f"{name} twice")
            entered[name] = arguments[0].detach()
            left[name] = output

        return hook

    handles = [parts[name].register_forward_hook(watch(name)) for name in names]
    try:
        with torch.set_grad_enabled(loss is not None):
            outputs = module(group.samples)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in names if name not in entered]
    if missing:
        raise InvalidInputError("module", "a pass through every layer", f"{missing[0]} unused")
    slopes: tuple[Tensor | None, ...] = (None,) * len(names)
    if loss is not None and group.labels is not None:
        total = loss(outputs, group.labels)
        slopes = torch.autograd.grad(total, [left[name] for name in names], allow_unused=True)
    count = len(group.samples)
    for name in names:
        if entered[name].ndim < 2 or len(entered[name]) != count:
            raise InvalidInputError(
                name, f"inputs with {count} samples first", tuple(entered[name].shape)
            )
    return {name: _Seen(entered[name], slope) for name, slope in zip(names, slopes, strict=True)}


def _traces(seen: _Seen, has_bias: bool) -> Traces:
    inputs = _positions(seen.inputs)
    return Traces(
        with_ones(inputs) if has_bias else inputs,
        None if seen.cotangents is None else _positions(seen.cotangents),
    )


def _positions(tensor: Tensor) -> FloatArray:
    """(n, ..., k) as (n, t, k) in float64."""
    array: FloatArray = _array(tensor).reshape(len(tensor), -1, tensor.shape[-1]).numpy()
    return array


def _array(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)
