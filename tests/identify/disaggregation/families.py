"""Gradients whose batch is not determined, or only seems to be, and some whose batch is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.disaggregation.cubic import count_rows
from identify.disaggregation.records import GLOBALLY, Disaggregation
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope

from .problems import add_noise, change, draw_labels, initialise, loss_of

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Case:
    """A gradient as an attacker sees it, and the batch behind it.

    ``network`` is the network that is declared.
    """

    family: str
    network: DeepNetwork
    gradient: DeepGradient
    samples: FloatArray
    cotangents: FloatArray
    options: dict[str, Any] = field(default_factory=dict)


def is_wrong(case: Case, result: Disaggregation) -> str:
    """Why a verdict "globally" is wrong, or nothing.

    Wrong is a printed set that is not the true one, unless `is_merged`: the verdict speaks of sets
    of at most r samples.
    """
    if result.verdict != GLOBALLY:
        return ""
    if result.samples is None or result.error_bounds is None or result.cotangents is None:
        return "no samples"
    apart = np.linalg.norm(result.samples[:, None] - case.samples[None], axis=2)
    relative = apart.min(axis=1) / np.linalg.norm(result.samples, axis=1)
    distinct = _distinct(case, result)
    right = (relative <= 5.0 * result.error_bounds + 1e-12).all()
    if (right and distinct <= result.rank) or is_merged(case, result):
        return ""
    return f"printed {result.rank}, true {distinct}, farthest {relative.max():.1e}"


def is_merged(case: Case, result: Disaggregation) -> bool:
    """Whether the true set is larger than the printed one, which gives the same gradient.

    With the loss given, the printed samples are taken as a batch of that loss and reduction, with
    one weight for all; so nobody who is shown the gradient can tell the two sets apart.
    """
    if result.samples is None or _distinct(case, result) <= result.rank:
        return False
    p = result.cotangents
    if "loss" in case.options:
        outputs = case.network.value(result.samples)
        slope = loss_slope(case.options["loss"], outputs, result.labels)
        free = float(np.sum(slope * p) / np.sum(slope**2))
        scale = {"mean": 1.0 / result.rank, "sum": 1.0}.get(case.options.get("reduction"), free)
        p = scale * slope
    again = case.network.gradient(result.samples, p)
    return all(
        given is None or np.linalg.norm(mine - given) <= 1e-6 * np.linalg.norm(given)
        for mine, given in zip(again.weights, case.gradient.weights, strict=True)
    )


def _distinct(case: Case, result: Disaggregation) -> int:
    """Different true samples above what the result says could be seen."""
    seen = np.linalg.norm(case.cotangents, axis=1) > 20.0 * (result.visible or 0.0)
    return len(np.unique(case.samples[seen], axis=0))


def _sizes(rng: np.random.Generator) -> tuple[list[int], int]:
    """Layer sizes and a batch with enough neurons in the last hidden layer.

    In a third of the cases they are enough for the equations of degree 3 only.
    """
    outputs = int(rng.choice([1, 1, 2, 4]))
    count = int(rng.integers(2, 7))
    unknown = count * (count + 1) // 2 + count * max(1, outputs - 1)
    last = int(unknown * rng.uniform(2.0, 4.0)) + 12
    if rng.random() < 1 / 3:
        count += int(rng.integers(0, 6))
        last = int(1.6 * count_rows(count, outputs, leaky=False)) + 8
    below = [int(rng.integers(2 * count + 4, 40)) for _ in range(int(rng.integers(0, 3)))]
    return [int(rng.integers(count + 3, 30)), *below, last, outputs], count


def _options(network: DeepNetwork, rng: np.random.Generator) -> dict[str, Any]:
    """The loss in two of three cases, its reduction in half of those."""
    if rng.random() < 1 / 3:
        return {}
    options: dict[str, Any] = {"loss": loss_of(network)}
    return options | ({"reduction": "mean"} if rng.random() < 0.5 else {})


def _case(
    family: str,
    network: DeepNetwork,
    samples: FloatArray,
    rng: np.random.Generator,
    *,
    labels: npt.NDArray[np.int64] | None = None,
    move: Callable[[DeepGradient], DeepGradient] | None = None,
    declared: DeepNetwork | None = None,
) -> Case:
    labels = draw_labels(network.outputs, len(samples), rng) if labels is None else labels
    p = loss_slope(loss_of(network), network.value(samples), labels) / len(samples)
    gradient = network.gradient(samples, p)
    gradient = gradient if move is None else move(gradient)
    shown = network if declared is None else declared
    return Case(family, shown, gradient, samples, p, _options(network, rng))


def _rounded(g: DeepGradient) -> DeepGradient:
    return change(g, lambda x: x.astype(np.float32).astype(np.float64))


def _plain(rng: np.random.Generator) -> tuple[DeepNetwork, FloatArray]:
    sizes, count = _sizes(rng)
    return initialise(sizes, rng), rng.normal(size=(count, sizes[0]))


def _with(network: DeepNetwork, **changed: Any) -> DeepNetwork:
    parts = {
        "weights": network.weights, "biases": network.biases, "activations": network.activations
    }  # fmt: skip
    return DeepNetwork(**(parts | changed))


def _last_hidden(network: DeepNetwork, weight: FloatArray, bias: FloatArray) -> DeepNetwork:
    return _with(
        network,
        weights=[*network.weights[:-2], weight, network.weights[-1]],
        biases=[*network.biases[:-2], bias, network.biases[-1]],
    )


def _duplicates(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    labels = draw_labels(network.outputs, len(x), rng)
    again = rng.integers(0, len(x), int(rng.integers(1, 3)))
    x, labels = np.concatenate([x, x[again]]), np.concatenate([labels, labels[again]])
    return _case("duplicated images", network, x, rng, labels=labels)


def _near(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    moved = x[:1] + 10.0 ** rng.uniform(-10, -2) * rng.normal(size=x[:1].shape)
    labels = draw_labels(network.outputs, len(x), rng)
    labels = np.concatenate([labels, labels[:1]])
    return _case("near-equal images", network, np.concatenate([x, moved]), rng, labels=labels)


def _equal_masks(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    masks = [z[0] > 0 for z in network.forward(x[:1]).preactivations[:-1]]
    step = rng.normal(size=x[:1].shape)
    while not all(
        ((z[0] > 0) == mask).all()
        for z, mask in zip(network.forward(x[:1] + step).preactivations[:-1], masks, strict=True)
    ):
        step *= 0.8
    return _case("equal masks", network, np.concatenate([x, x[:1] + step]), rng)


def _low_rank(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    keep = int(rng.integers(1, len(x)))
    x = rng.normal(size=(len(x), keep)) @ rng.normal(size=(keep, x.shape[1]))
    if network.depth == 2 and rng.random() < 0.5:
        x[-1] = x[0] + x[1 % len(x)] - x[2 % len(x)]
    return _case("batch above the rank", network, x, rng)


def _above_width(rng: np.random.Generator) -> Case:
    sizes, count = _sizes(rng)
    sizes[int(rng.integers(0, len(sizes) - 1))] = int(rng.integers(2, count + 3))
    network = initialise(sizes, rng)
    return _case("batch above a width", network, rng.normal(size=(count + 3, sizes[0])), rng)


def _few_rows(rng: np.random.Generator) -> Case:
    sizes, count = _sizes(rng)
    sizes[-2] = int(rng.integers(count, 3 * count + 4))
    if rng.random() < 0.5:
        # One output and more samples: the list of masks decides, or does not.
        count = int(rng.integers(6, 12))
        sizes = [count + 8, int(rng.integers(count + 1, 2 * count + 4)), 1]
    network, move = initialise(sizes, rng), None
    level = 10.0 ** rng.uniform(-12, -3)
    if rng.random() < 0.5:
        move = _rounded if rng.random() < 0.5 else lambda g: add_noise(g, level, rng)
    x = rng.normal(size=(count, sizes[0]))
    return _case("too few rows", network, x, rng, move=move)


def _dead(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    weight, bias = network.weights[-2].copy(), np.array(network.biases[-2])
    bias[rng.random(len(bias)) < rng.uniform(0.3, 0.9)] = -1e3
    return _case("dead neurons", _last_hidden(network, weight, bias), x, rng)


def _always_active(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    weight, bias = network.weights[-2].copy(), np.array(network.biases[-2])
    bias[rng.random(len(bias)) < rng.uniform(0.3, 1.0)] = 1e2
    return _case("always-active neurons", _last_hidden(network, weight, bias), x, rng)


def _repeated(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    chosen = rng.integers(0, max(2, len(x) + 2), len(network.weights[-2]))
    weight, bias = network.weights[-2][chosen], np.array(network.biases[-2])[chosen]
    return _case("repeated neurons", _last_hidden(network, weight, bias), x, rng)


def _quantised(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    step = 10.0 ** rng.uniform(-2, 0)
    weights = [np.round(w / np.abs(w).max() / step) * step for w in network.weights]
    if not all(w.any() for w in weights):
        weights = list(network.weights)
    return _case("quantised weights", _with(network, weights=weights), x, rng)


def _leaky_for_relu(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    leak = 10.0 ** rng.uniform(-4, -0.3)
    true = _with(network, activations=[f"leaky_relu:{leak}"] * (network.depth - 1))
    if rng.random() < 0.5:
        wrong = _with(network, activations=[f"leaky_relu:{leak * 1.1}"] * (network.depth - 1))
        return _case("leaky with another slope", true, x, rng, declared=wrong)
    return _case("leaky taken for ReLU", true, x, rng, declared=network)


def _wrong_output(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    a = network.weights[-1]
    level = 10.0 ** rng.uniform(-4, 0)
    moved = a + level * rng.normal(size=a.shape) / np.sqrt(a.shape[1])
    shown = _with(network, weights=[*network.weights[:-1], moved])
    return _case("wrong output layer", network, x, rng, declared=shown)


def _decay(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    level = 10.0 ** rng.uniform(-8, -1)

    def move(g: DeepGradient) -> DeepGradient:
        weights = [w + level * v for w, v in zip(g.weights, network.weights, strict=True)]
        return DeepGradient(tuple(weights), g.biases)

    return _case("weight decay inside", network, x, rng, move=move)


def _two_steps(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    level = 10.0 ** rng.uniform(-6, -1)
    moved = _with(
        network, weights=[w + level * rng.normal(size=w.shape) / 5 for w in network.weights]
    )
    first = _case("two batches at two weights", network, x, rng)
    other = moved.gradient(x[::-1] * 0.7 + 0.3, first.cotangents)
    both = DeepGradient(
        tuple(a + b for a, b in zip(first.gradient.weights, other.weights, strict=True)),
        tuple(a + b for a, b in zip(first.gradient.biases, other.biases, strict=True)),
    )
    samples = np.concatenate([x, x[::-1] * 0.7 + 0.3])
    cotangents = np.concatenate([first.cotangents] * 2)
    return Case(first.family, network, both, samples, cotangents, first.options)


def _dropout(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    labels, rate = draw_labels(network.outputs, len(x), rng), rng.uniform(0.02, 0.5)
    masks = [(rng.random((len(x), w)) >= rate) / (1 - rate) for w in network.widths]
    h, run = x, []
    for index in range(network.depth):
        z = h @ network.weights[index].T + np.array(network.biases[index])
        run.append((h, z))
        h = np.maximum(z, 0) * masks[index] if index < network.depth - 1 else z
    p = delta = loss_slope(loss_of(network), h, labels) / len(x)
    weights, biases = [], []
    for index in range(network.depth - 1, -1, -1):
        weights.insert(0, delta.T @ run[index][0])
        biases.insert(0, delta.sum(axis=0))
        if index:
            delta = (delta @ network.weights[index]) * masks[index - 1] * (run[index - 1][1] > 0)
    gradient = DeepGradient(tuple(weights), tuple(biases))
    return Case("dropout", network, gradient, x, p, _options(network, rng))


def _batch_norm(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    w, b = network.weights[-2], np.array(network.biases[-2])
    below = network.forward(x).inputs[-2]
    z = below @ w.T + b
    spread = z.std(axis=0) + 1e-5
    normal = (z - z.mean(axis=0)) / spread
    f = np.maximum(normal, 0) @ network.weights[-1].T + np.array(network.biases[-1])
    p = loss_slope(loss_of(network), f, draw_labels(network.outputs, len(x), rng)) / len(x)
    d = (p @ network.weights[-1]) * (normal > 0)
    delta = (d - d.mean(axis=0) - normal * (d * normal).mean(axis=0)) / spread
    head = p.T @ np.maximum(normal, 0)
    none = [None] * (network.depth - 2)
    gradient = DeepGradient(
        (*none, delta.T @ below, head), (*none, delta.sum(axis=0), p.sum(axis=0))
    )
    return Case("batch normalisation", network, gradient, x, p, _options(network, rng))


def _saturated(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    case = _case("saturated samples", network, x, rng)
    p = case.cotangents * 10.0 ** rng.uniform(-18, 0, (len(x), 1))
    gradient = network.gradient(x, p)
    if rng.random() < 0.5:
        gradient = change(gradient, lambda g: g.astype(np.float32).astype(np.float64))
    return Case(case.family, network, gradient, x, p)


def _noise(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    level = 10.0 ** rng.uniform(-12, -1)
    return _case("noise 1e-12 to 1e-1", network, x, rng, move=lambda g: add_noise(g, level, rng))


def _cut(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    share = rng.uniform(0.01, 0.9)

    def keep(g: FloatArray) -> FloatArray:
        return np.where(np.abs(g) >= np.quantile(np.abs(g), share), g, 0.0)

    return _case("largest entries only", network, x, rng, move=lambda g: change(g, keep))


def _union(rng: np.random.Generator) -> Case:
    """Two samples with disjoint masks and a third with their union: z_3 = z_1 + z_2."""
    count, dimension = int(rng.integers(3, 6)), 12
    width = 16 * count
    x = rng.normal(size=(count, dimension))
    masks = rng.random((width, count)) < 0.5
    masks[:, 1] &= ~masks[:, 0]
    masks[:, 2] = masks[:, 0] | masks[:, 1]
    targets = np.where(masks, 1.0, -1.0) * rng.uniform(0.5, 1.5, masks.shape)
    weight = targets @ np.linalg.pinv(np.column_stack([x, np.ones(count)]).T)
    network = DeepNetwork(
        [weight[:, :-1], rng.normal(size=(1, width)) / 4], [weight[:, -1], [0.1]], "relu"
    )
    return _case("one mask the union of two", network, x, rng)


def _skip(rng: np.random.Generator) -> Case:
    network, x = _plain(rng)
    case = _case("unknown skip connection", network, x, rng)
    extra = rng.normal(size=(len(network.weights[-2]), network.outputs)) * 10.0 ** rng.uniform(
        -3, 0
    )
    run = network.forward(x)
    delta = network.backward(run, case.cotangents)[-2] + case.cotangents @ extra.T / 5
    weights, biases = list(case.gradient.weights), list(case.gradient.biases)
    weights[-2], biases[-2] = delta.T @ run.inputs[-2], delta.sum(axis=0)
    gradient = DeepGradient(tuple(weights), tuple(biases))
    return Case(case.family, network, gradient, x, case.cotangents, case.options)


def _merged_above(rng: np.random.Generator) -> Case:
    """Two samples with one mask in the last hidden layer, told apart by the layer below."""
    count = int(rng.integers(2, 5))
    network = initialise([14, 3 * count + 14, 24 * count, 1], rng)
    weight, bias = network.weights[1] * 0.02, np.array(network.biases[1])
    network = _last_hidden(network, weight, bias)
    return _case("merged in the last layer", network, rng.normal(size=(count, 14)), rng)


UNDETERMINED = (
    _duplicates, _near, _equal_masks, _low_rank, _above_width, _few_rows, _dead, _always_active,
    _repeated, _quantised, _leaky_for_relu, _wrong_output, _decay, _two_steps, _dropout,
    _batch_norm, _saturated, _noise, _cut, _union, _skip, _merged_above,
)  # fmt: skip


def undetermined(seed: int) -> Case:
    """Problem ``seed``: the families in turn."""
    return UNDETERMINED[seed % len(UNDETERMINED)](np.random.default_rng([41, seed]))


def determined(seed: int) -> Case:
    """A batch that one gradient determines: exact, or rounded to float32; ReLU or leaky ReLU."""
    rng = np.random.default_rng([43, seed])
    sizes, count = _sizes(rng)
    activation = str(rng.choice(["relu", "relu", "leaky_relu:0.1"]))
    outputs = max(1, sizes[-1] - 1)
    unknown = count * (count + 1) // 2 + count * outputs + outputs * (outputs + 1) // 2
    sizes[-2] = 4 * unknown + 30
    sizes[1:-2] = [4 * count + 20] * (len(sizes) - 3)
    network = initialise(sizes, rng, activation)
    move = _rounded if rng.random() < 0.5 else None
    return _case(f"determined, {activation}", network, rng.normal(size=(count, sizes[0])), rng,
                 move=move)  # fmt: skip
