"""Gradients in untrusted files, and what they say about a network with one output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..outcome import CheckInputError, FloatArray
from .arrays import Arrays, read_arrays
from .files import Network, assemble, find_places, in_order, read_degree

SUM_LIMIT = 0.1


def read_gradient(
    path: object, model: Network, *, layers: object = None, key: str | None = None
) -> Network:
    """Read a gradient by the names of the network, as a list, or of its hidden layer alone.

    Raises CheckInputError for arrays that are not those of the network.
    """
    file = read_arrays(path, key, need_key=False)
    matrices = [name for name, shape in file.shapes.items() if len(shape) >= 2]
    if not in_order(file) and (len(matrices) > 1 or _named(file, layers)):
        place = find_places(file, layers)
    else:
        place = _by_shape(file, model)
    if "hidden.weight" not in place:
        raise CheckInputError(file.path, "the gradient of the hidden layer", "none")
    outputs = len(model.output) if model.output.ndim == 2 else 1
    found = assemble(file, place, read_degree(file, model.degree), outputs)
    for name, mine, own in (
        ("hidden.weight", found.hidden, model.hidden),
        ("output.weight", found.output, model.output),
        ("hidden.bias", found.hidden_bias, model.hidden_bias),
    ):
        shapes = [None if array is None else array.shape for array in (mine, own)]
        if shapes[0] != shapes[1]:
            raise CheckInputError(
                f"{file.path}: {name}", f"the network's shape {shapes[1]}", shapes[0]
            )
    return found


def _named(file: Arrays, layers: object) -> bool:
    names = layers.split(",") if isinstance(layers, str) else layers
    return isinstance(names, list | tuple) and all(
        any(key in (str(name).strip(), f"{name}.weight".strip()) for key in file.shapes)
        for name in names
    )


def _by_shape(file: Arrays, model: Network) -> dict[str, str]:
    """Which parameter each array is; where several have its shape, the first that is left."""
    width = len(model.hidden)
    outputs = len(model.output) if model.output.ndim == 2 else 1
    shapes: dict[str, tuple[int, ...]] = {"hidden.weight": model.hidden.shape}
    if model.hidden_bias is not None:
        shapes["hidden.bias"] = (width,)
    shapes |= {"output.weight": (outputs, width), "output.bias": (outputs,)}
    place: dict[str, str] = {}
    for stored in in_order(file) or file.shapes:
        shape = file.shapes[stored]
        fits = [name for name, own in shapes.items() if name not in place and own == shape]
        flat = shape == (width,) and outputs == 1 and not stored.endswith("bias")
        # Named alike, the flat output layer is no hidden bias, which has its shape.
        if flat and "output.weight" not in place and (not fits or not in_order(file)):
            fits = ["output.weight"]
        if not fits:
            raise CheckInputError(f"{file.path}: {stored}", "a parameter's shape", shape)
        place[fits[0]] = stored
    return place


def one_output(model: Network, gradient: Network, decay: float | None) -> tuple[Network, Network]:
    """The gradient without weight decay, both as of one output, the output layer completed."""
    if decay is not None:
        gradient = _without_decay(model, gradient, decay)
    if model.output.ndim == 2:
        total = float(np.linalg.norm(gradient.output))
        away = float(np.linalg.norm(gradient.output[0] + gradient.output[1])) / 2.0**0.5
        share = away / total if total > 0.0 else 0.0
        if share > SUM_LIMIT:
            raise CheckInputError("gradient", "opposite gradients of two logits", f"{share:.1e}")
        gradient = _difference(gradient, 0.5)
        gradient = replace(gradient, rounding=max(gradient.rounding, share))
        model = _difference(model, 1.0)
    if not gradient.filled:
        return model, gradient
    if np.any(model.output == 0.0):
        raise CheckInputError("gradient", "an output layer", "none, with output weights of 0")
    products = np.sum(model.points * gradient.points, axis=1)
    return model, replace(gradient, output=products / (model.degree * model.output))


def one_output_head(files: Mapping[str, Network]) -> dict[str, Network]:
    """Weights with two outputs as of the one (a_1 - a_0) / sqrt(2); others as they are.

    What the outputs have in common, of the weights or of their movement, is noise.
    """
    model, first = files["model"], files.get("initial")
    if any(net.output.ndim != 2 for net in files.values()):
        if any(net.output.ndim == 2 for net in files.values()):
            raise CheckInputError("initial", "as many outputs as the network", "another number")
        return dict(files)
    heights = model.output if first is None else model.output - first.output
    total, size = float(np.linalg.norm(heights)), float(np.linalg.norm(model.output))
    away = float(np.linalg.norm(heights[0] + heights[1])) / 2.0**0.5
    share = away / total if total > 0.0 else 0.0
    unit = max(net.rounding for net in files.values()) * (size / total if total > 0.0 else 0.0)
    if share > max(SUM_LIMIT, 0.0 if first is None else min(unit, 1.0)):
        raise CheckInputError("model", "opposite weights of two logits", f"{share:.1e}")
    level = share * (total / size if size > 0.0 else 0.0)
    found: dict[str, Network] = {}
    for role, net in files.items():
        one = _difference(net, 0.5**0.5)
        found[role] = replace(one, rounding=min(max(one.rounding, level), 0.5))
    return found


def _without_decay(model: Network, gradient: Network, decay: float) -> Network:
    pairs = {
        "hidden": (gradient.hidden, model.hidden),
        "output": (gradient.output, model.output),
        "hidden_bias": (gradient.hidden_bias, model.hidden_bias),
        "output_bias": (gradient.output_bias, model.output_bias),
    }
    there = {n: (g, w) for n, (g, w) in pairs.items() if g is not None and w is not None}
    if gradient.filled:
        del there["output"]
    clean: dict[str, FloatArray] = {name: g - decay * w for name, (g, w) in there.items()}
    size = _norm([np.abs(g) + decay * np.abs(w) for g, w in there.values()])
    left = _norm(list(clean.values()))
    wide = max(1.0, size / left) if left > 0.0 else 1.0
    return replace(gradient, rounding=min(gradient.rounding * wide, 0.5), **clean)  # type: ignore[arg-type]


def _difference(network: Network, share: float) -> Network:
    first, second = network.output
    gap = second - first
    size, left = float(np.linalg.norm(network.output)), float(np.linalg.norm(gap))
    wide = max(1.0, size / left) if left > 0.0 else 1.0
    bias = network.output_bias
    return replace(
        network,
        output=share * gap,
        output_bias=None if bias is None else share * (bias[1:] - bias[:1]),
        rounding=min(network.rounding * wide, 0.5),
    )


def _norm(arrays: list[FloatArray]) -> float:
    return float(np.sqrt(sum(float(np.sum(array**2)) for array in arrays)))
