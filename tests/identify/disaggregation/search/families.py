"""Random gradients of smooth networks that determine their batch, and some that must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope
from identify.report.gradient import GradientReport
from tests.identify.disaggregation.problems import draw_labels, initialise, loss_of

FloatArray = npt.NDArray[np.float64]
Rng = np.random.Generator
ACTIVATIONS = ("gelu", "tanh", "sigmoid", "silu", "softplus", "gelu_tanh", "sine")
NEAR = 0.1


@dataclass(frozen=True, eq=False)
class Case:
    """A network with a gradient and the samples behind it; none if no batch explains it."""

    family: str
    network: DeepNetwork
    gradient: DeepGradient
    samples: FloatArray | None
    options: dict[str, Any] = field(default_factory=dict)


def network_of(rng: Rng, count: int, *, room: float = 1.0) -> DeepNetwork:
    """A random architecture in which a sample of a batch of ``count`` has equations to spare."""
    kind = str(rng.choice(ACTIVATIONS))
    bias = bool(rng.random() < 0.75)
    outputs = int(rng.choice([1, 1, 3, 6]))
    d = int(rng.integers(count + 4, 40))
    width = max(3, int(room * (2 * count + outputs + rng.integers(4, 20))))
    shape = int(rng.integers(3))
    sizes = [[d, width, outputs], [d, width, width, outputs], [d, width, outputs]][shape]
    if shape == 2 and rng.random() < 0.4:
        return initialise([d, width, 1], rng, "monomial:3", False)
    return initialise(sizes, rng, kind, bias)


def backward(
    network: DeepNetwork, samples: FloatArray, rng: Rng, weights: FloatArray | None = None
) -> DeepGradient:
    """The mean gradient of the samples with random labels; ``weights`` (n,) multiply the terms."""
    labels = draw_labels(network.outputs, len(samples), rng)
    p = loss_slope(loss_of(network), network.value(samples), labels) / len(samples)
    return network.gradient(samples, p if weights is None else p * weights[:, None])


def _options(network: DeepNetwork, rng: Rng) -> dict[str, Any]:
    known = rng.random() < 0.5
    return {"loss": loss_of(network)} if known and network.outputs > 1 else {}


def plain(rng: Rng) -> Case:
    """A batch that is determined."""
    count = int(rng.integers(1, 9))
    network = network_of(rng, count)
    samples = rng.normal(size=(count, network.dimension))
    gradient = backward(network, samples, rng)
    return Case("plain", network, gradient, samples, _options(network, rng))


def float32(rng: Rng) -> Case:
    """The same in single precision."""
    case = plain(rng)
    weights = [None if w is None else w.astype(np.float32) for w in case.gradient.weights]
    biases = [None if b is None else b.astype(np.float32) for b in case.gradient.biases]
    return Case("float32", case.network, DeepGradient(weights, biases), case.samples, case.options)


def duplicates(rng: Rng) -> Case:
    """One sample twice, exactly or nearly."""
    count = int(rng.integers(3, 8))
    network = network_of(rng, count)
    samples = rng.normal(size=(count, network.dimension))
    samples[0] = samples[1] + float(rng.choice([0.0, 1e-9, 1e-5, 1e-2])) * samples[2]
    gradient = backward(network, samples, rng)
    return Case("duplicates", network, gradient, samples, _options(network, rng))


def few_neurons(rng: Rng) -> Case:
    """At most about as many neurons as a sample has unknowns."""
    count = int(rng.integers(4, 9))
    network = network_of(rng, count, room=float(rng.uniform(0.4, 0.8)))
    samples = rng.normal(size=(count, network.dimension))
    gradient = backward(network, samples, rng)
    return Case("few neurons", network, gradient, samples, _options(network, rng))


def above_rank(rng: Rng) -> Case:
    """More samples than neurons, or than dimensions."""
    if rng.random() < 0.5:
        network = initialise([30, 8, 1], rng, str(rng.choice(ACTIVATIONS)))
        samples = rng.normal(size=(10, 30))
    else:
        network = initialise([5, 30, 1], rng, str(rng.choice(ACTIVATIONS)))
        samples = rng.normal(size=(9, 5))
    return Case("above rank", network, backward(network, samples, rng), samples)


def noise(rng: Rng) -> Case:
    """Gaussian noise relative to each array, 1e-8 to 1."""
    case = plain(rng)
    level = 10.0 ** rng.uniform(-8, 0)

    def disturb(array: FloatArray | None) -> FloatArray | None:
        if array is None:
            return None
        size = level * np.sqrt(np.mean(array**2))
        return np.asarray(array + size * rng.normal(size=array.shape))

    gradient = DeepGradient(
        [disturb(w) for w in case.gradient.weights], [disturb(b) for b in case.gradient.biases]
    )
    return Case("noise", case.network, gradient, case.samples, case.options)


def saturated(rng: Rng) -> Case:
    """Preactivations at which a saturating activation is nearly flat."""
    count = int(rng.integers(2, 7))
    network = network_of(rng, count)
    samples = float(rng.uniform(5, 30)) * rng.normal(size=(count, network.dimension))
    gradient = backward(network, samples, rng)
    return Case("saturated", network, gradient, samples, _options(network, rng))


def wrong_activation(rng: Rng) -> Case:
    """The gradient of another activation."""
    case = plain(rng)
    names = [str(kind) for kind in case.network.activations]
    other = str(rng.choice([kind for kind in (*ACTIVATIONS, "monomial:3") if kind not in names]))
    network = DeepNetwork(case.network.weights, case.network.biases, other)
    return Case("wrong activation", network, case.gradient, None, case.options)


def permuted(rng: Rng) -> Case:
    """Rows of the hidden layers' gradients in another order."""
    case = plain(rng)
    weights, biases = list(case.gradient.weights), list(case.gradient.biases)
    for index in range(len(weights) - 1):
        weight, bias = weights[index], biases[index]
        assert weight is not None
        order = rng.permutation(len(weight))
        weights[index] = weight[order]
        biases[index] = None if bias is None else bias[order]
    return Case("permuted", case.network, DeepGradient(weights, biases), None, case.options)


def decay(rng: Rng) -> Case:
    """Weight decay inside the gradient."""
    case = plain(rng)
    rate = 10.0 ** rng.uniform(-6, -1)
    pairs = zip(case.gradient.weights, case.network.weights, strict=True)
    weights = [None if g is None else g + rate * w for g, w in pairs]
    return Case(
        "decay",
        case.network,
        DeepGradient(weights, case.gradient.biases),
        case.samples,
        case.options,
    )


def other_weights(rng: Rng) -> Case:
    """The gradient at weights a step away."""
    case = plain(rng)
    step = 10.0 ** rng.uniform(-5, 0)
    weights = [w + step * np.std(w) * rng.normal(size=w.shape) for w in case.network.weights]
    network = DeepNetwork(weights, case.network.biases, case.network.activations)
    return Case("other weights", network, case.gradient, None, case.options)


def mixture(rng: Rng) -> Case:
    """Two batches at two networks of the same shape, summed; one of them is to be found."""
    case = plain(rng)
    other = network_like(case.network, rng)
    samples = rng.normal(size=(2, other.dimension))
    extra = backward(other, samples, rng)
    weights = [
        None if a is None or b is None else a + b
        for a, b in zip(case.gradient.weights, extra.weights, strict=True)
    ]
    biases = [
        None if a is None or b is None else a + b
        for a, b in zip(case.gradient.biases, extra.biases, strict=True)
    ]
    return Case("mixture", case.network, DeepGradient(weights, biases), case.samples, case.options)


def network_like(network: DeepNetwork, rng: Rng) -> DeepNetwork:
    """Random weights of the same shapes."""
    sizes = [network.dimension, *network.widths, network.outputs]
    plain_ = initialise(sizes, rng, "gelu")
    biases = [
        None if own is None else new for own, new in zip(network.biases, plain_.biases, strict=True)
    ]
    return DeepNetwork(plain_.weights, biases, network.activations)


def coplanar(rng: Rng) -> Case:
    """Samples in a plane or a space of few dimensions, cubic or smooth: rows that repeat."""
    count = int(rng.integers(3, 6))
    kind = str(rng.choice(["monomial:3", "monomial:2", "gelu", "tanh"]))
    power = kind.startswith("monomial")
    network = initialise([20, 2 * count + 10, 1], rng, kind, not power)
    basis = rng.normal(size=(int(rng.integers(2, count + 1)), 20))
    samples = rng.normal(size=(count, len(basis))) @ basis
    return Case("coplanar", network, backward(network, samples, rng), samples)


def same_neurons(rng: Rng) -> Case:
    """Neurons that repeat, so that rows are no equations."""
    count = int(rng.integers(3, 6))
    kinds = int(rng.integers(count + 1, 2 * count))
    base = initialise([20, kinds, 1], rng, str(rng.choice(ACTIVATIONS)))
    times = rng.integers(0, kinds, 60)
    bias = base.biases[0]
    assert bias is not None
    network = DeepNetwork(
        [base.weights[0][times], base.weights[1][:, times]], [bias[times], base.biases[1]],
        base.activations,
    )  # fmt: skip
    samples = rng.normal(size=(count, 20))
    return Case("same neurons", network, backward(network, samples, rng), samples)


def unseen(rng: Rng) -> Case:
    """x + v and x - v with v that no neuron of the first layer sees, and others."""
    count = int(rng.integers(2, 5))
    d = 40
    network = initialise([d, 2 * count + 12, 1], rng, str(rng.choice(ACTIVATIONS)))
    samples = rng.normal(size=(count, d))
    free = np.linalg.svd(network.weights[0])[2][-1]
    samples[1] = samples[0] + 3.0 * free
    samples[0] = samples[0] - 3.0 * free
    return Case("unseen", network, backward(network, samples, rng), samples)


def spread(rng: Rng) -> Case:
    """Loss slopes over many decades."""
    case = plain(rng)
    assert case.samples is not None
    weights = 10.0 ** rng.uniform(-8, 0, len(case.samples))
    gradient = backward(case.network, case.samples, rng, weights)
    return Case("spread", case.network, gradient, case.samples)


DETERMINED: tuple[Callable[[Rng], Case], ...] = (plain, float32)
OTHERS: tuple[Callable[[Rng], Case], ...] = (
    duplicates, few_neurons, above_rank, noise, saturated, wrong_activation, permuted, decay,
    other_weights, mixture, coplanar, same_neurons, unseen, spread,
)  # fmt: skip


def draw(seed: int) -> Case:
    """The case of a seed: two of three are of the kinds that must not mislead."""
    rng = np.random.default_rng(seed)
    kinds = DETERMINED if seed % 3 == 0 else OTHERS
    return kinds[(seed // 3) % len(kinds) if seed % 3 == 0 else seed % len(kinds)](rng)


def distances(report: GradientReport, samples: FloatArray) -> FloatArray:
    """The relative distance of every printed sample from the nearest true one, up to its sign.

    Where a sample's length is open directions are compared.
    """
    found = report.found
    assert found.samples is not None
    own, true = found.samples, samples
    if not found.scaled:
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
        true = true / np.linalg.norm(true, axis=1, keepdims=True)
    both = np.concatenate([true, -true]) if _two_sided(report) else true
    apart = np.linalg.norm(own[:, None] - both[None], axis=2).min(axis=1)
    return np.asarray(apart / np.linalg.norm(own, axis=1))


def _two_sided(report: GradientReport) -> bool:
    return not report.found.scaled or any("sign" in line for line in report.found.caveats)


def is_merged(case: Case, report: GradientReport) -> bool:
    """Whether the true batch is larger and the printed one has the same gradient."""
    found = report.found
    if case.samples is None or found.samples is None or found.cotangents is None:
        return False
    if found.layer != 0 or len(case.samples) <= len(found.samples):
        return False
    own = case.network.gradient(found.samples, found.cotangents)
    return all(
        np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b)
        for a, b in zip(own.weights, case.gradient.weights, strict=True)
        if a is not None and b is not None
    )


def false_points(case: Case, report: GradientReport) -> int:
    """Printed points that are no samples of the batch, whatever the verdict."""
    if report.found.samples is None or report.found.layer != 0 or is_merged(case, report):
        return 0
    if case.samples is None:
        return len(report.found.samples)
    return int((distances(report, case.samples) > NEAR).sum())


def is_wrong(case: Case, report: GradientReport) -> str:
    """Why a verdict "locally" is wrong, or nothing."""
    if report.verdict != "locally":
        return ""
    if case.samples is None:
        return "no batch has this gradient"
    if is_merged(case, report):
        return ""
    if report.found.layer != 0:
        return ""
    found = report.found
    assert found.error_bounds is not None
    apart = distances(report, case.samples)
    beyond = apart > 3.0 * found.error_bounds + 1e-12
    if beyond.any():
        worst = int(np.argmax(apart / found.error_bounds))
        return (
            f"sample {worst + 1} is {apart[worst]:.1e} off, bound {found.error_bounds[worst]:.1e}"
        )
    return ""
