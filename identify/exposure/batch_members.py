"""Which given samples a gradient was computed on, or lie between two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.checkpoints.span import CheckpointSpan
from identify.errors import InvalidInputError
from identify.exposure.membership import (
    LayerMemory,
    MembershipReport,
    Traces,
    find_members,
    with_ones,
)
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope, read_loss


@dataclass(frozen=True, eq=False)
class GivenSamples:
    """Samples (n, d) that may have taken part, and their labels (n,) if known.

    Example:
        >>> GivenSamples(np.zeros((2, 3))).samples.shape
        (2, 3)
    """

    samples: FloatArray
    labels: npt.NDArray[np.float64] | None = None


def gradient_members(
    network: DeepNetwork,
    gradient: DeepGradient,
    candidates: GivenSamples,
    *,
    held_out: GivenSamples | None = None,
    loss: str | None = None,
    first_layer: bool = False,
    noise: float | None = None,
    seed: int = 0,
) -> MembershipReport:
    """Say which samples are in the batch of a gradient; see `find_members` for the test.

    With ``loss``, "cross_entropy", "logistic" or "squared", and labels of all samples the backward
    pass is tested too. Nothing is reconstructed, and the network may be of any activation.

    Args:
        network: the network at which the gradient was computed.
        gradient: of the batch's loss; layers may be missing.
        candidates: the samples in question.
        held_out: samples that surely took no part; they give p-values.
        loss: the loss, if known.
        first_layer: use the first layer alone, where the activation is not known.
        noise: relative error of the gradient's entries, see `find_members`.
        seed: of the range finder for large layers.

    Raises InvalidInputError for shapes that do not fit, and a gradient without the layer asked for.

    Cost: a forward and a backward pass, and a truncated singular value decomposition a layer.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> weights = [rng.normal(size=(20, 9)), rng.normal(size=(3, 20))]
        >>> network = DeepNetwork(weights, None, "tanh")
        >>> x = rng.normal(size=(6, 9))
        >>> gradient = network.gradient(x[:4], rng.normal(size=(4, 3)))
        >>> [a.value for a in gradient_members(network, gradient, GivenSamples(x)).answers]
        ['member', 'member', 'member', 'member', 'no trace', 'no trace']
    """
    if len(gradient.weights) != network.depth:
        raise InvalidInputError("gradient", f"{network.depth} layers", len(gradient.weights))
    loss = None if loss is None else read_loss(loss)
    everyone = [candidates] if held_out is None else [candidates, held_out]
    backward = loss is not None and all(group.labels is not None for group in everyone)
    groups = [_traces(network, gradient, g, loss if backward else None) for g in everyone]
    used = [i for i, weight in enumerate(gradient.weights) if weight is not None]
    used = [i for i in used if i == 0] if first_layer else used
    layers = []
    for index in used:
        change = gradient.layer(index)
        if change is None:
            continue
        held = groups[1][index] if held_out is not None else None
        layers.append(LayerMemory(network.names[index], change, groups[0][index], held))
    if not layers:
        raise InvalidInputError("gradient", "the first layer's gradient", "none")
    return find_members(layers, noise=noise, seed=seed)


def _traces(
    network: DeepNetwork, gradient: DeepGradient, group: GivenSamples, loss: str | None
) -> list[Traces]:
    """What every layer would hold of the samples: [h; 1] where the bias is there, and delta."""
    run = network.forward(group.samples)
    deltas: tuple[FloatArray | None, ...] = (None,) * network.depth
    if loss is not None and group.labels is not None:
        deltas = network.backward(run, loss_slope(loss, run.outputs, group.labels))
    traces = []
    for h, delta, bias in zip(run.inputs, deltas, gradient.biases, strict=True):
        lifted = h[:, None, :] if bias is None else with_ones(h[:, None, :])
        traces.append(Traces(lifted, None if delta is None else delta[:, None, :]))
    return traces


def span_members(
    span: CheckpointSpan,
    samples: FloatArray,
    held_out: FloatArray | None = None,
    seed: int = 0,
) -> MembershipReport:
    """Say which samples (n, d) lie in the span of two checkpoints; see `find_members`.

    Raises InvalidInputError for samples of another dimension. Cost: one truncated singular value
    decomposition.

    Example:
        >>> from identify.checkpoints.span import find_span
        >>> rng = np.random.default_rng(0)
        >>> net = DeepNetwork([rng.normal(size=(20, 9)), rng.normal(size=(1, 20))], None, "relu")
        >>> x = rng.normal(size=(6, 9))
        >>> step = net.gradient(x[:4], rng.normal(size=(4, 1))).weights
        >>> moved = [w - 0.1 * g for w, g in zip(net.weights, step)]
        >>> span_members(find_span(net, DeepNetwork(moved, None, "relu")), x).members
        4
    """
    # The weights alone: a bias may be trained at another rate, and then [x; 1] is not in the span.
    width = span.weights.shape[1]
    held = None if held_out is None else Traces(span.lifted(held_out)[:, None, :width])
    asked = Traces(span.lifted(samples)[:, None, :width])
    return find_members([LayerMemory("first layer", span.weights, asked, held)], seed=seed)
