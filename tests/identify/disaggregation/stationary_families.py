"""Weights of ReLU networks whose samples are not determined, or only seem to be, and some that are.

`undetermined` and `determined` draw by a seed; `is_wrong` judges a report against the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.disaggregation.records import GLOBALLY
from identify.model.deep import DeepNetwork
from identify.planting.plant import PlantingError
from identify.planting.relu import (
    PlantedRelu,
    equiangular_samples,
    plant_relu_network,
)
from identify.report.stationary import StationaryReport

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights as an attacker sees them, and the samples with coefficients b behind them."""

    family: str
    network: DeepNetwork
    samples: FloatArray
    coefficients: FloatArray
    source: str
    trained: str
    exact: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def centred(rng: np.random.Generator, count: int, dimension: int) -> FloatArray:
    """Samples of one norm whose mean is almost 0: most inner products are negative."""
    x = rng.normal(size=(count, dimension))
    x -= rng.uniform(0.9, 1.0) * x.mean(axis=0)
    return np.asarray(rng.uniform(3.0, 9.0) * x / np.linalg.norm(x, axis=1, keepdims=True))


def plant(
    rng: np.random.Generator, x: FloatArray | None = None, tries: int = 20, **options: Any
) -> PlantedRelu:
    """A planted network on centred samples, the next draw where none is found."""
    for _ in range(tries):
        count = int(rng.integers(3, 7))
        samples = centred(rng, count, count + int(rng.integers(2, 20))) if x is None else x
        arguments = {"kind": str(rng.choice(["margin", "regression"])), "copies": 2} | options
        try:
            return plant_relu_network(samples, seed=int(rng.integers(1 << 30)), **arguments)
        except PlantingError:
            continue
    return plant_relu_network(
        centred(rng, 4, 12), kind="regression", seed=int(rng.integers(1 << 30))
    )


def case(
    family: str, planted: PlantedRelu, network: DeepNetwork | None = None, **changed: Any
) -> Weights:
    """What is seen of a planted network, or of another one in its place."""
    facts: dict[str, Any] = {
        "source": "kkt" if planted.kind == "margin" else "weight_decay",
        "trained": planted.trained,
    }
    shown = planted.network if network is None else network
    return Weights(family, shown, planted.samples, planted.coefficients, **(facts | changed))


def changed(network: DeepNetwork, change: Callable[[FloatArray], FloatArray]) -> DeepNetwork:
    """The network with a change of every array."""
    biases = [None if b is None else change(b) for b in network.biases]
    return DeepNetwork([change(w) for w in network.weights], biases, network.activations)


def rows_of(network: DeepNetwork, keep: Any, scale: Any = 1.0) -> DeepNetwork:
    """Some hidden neurons, their weights and biases times a factor each."""
    bias = network.biases[0]
    factor = np.broadcast_to(scale, len(network.weights[0]))[keep]
    hidden = network.weights[0][keep] * factor[:, None]
    offsets = None if bias is None else bias[keep] * factor
    return DeepNetwork([hidden, network.weights[1][:, keep]], [offsets, None], network.activations)


def _near(rng: np.random.Generator) -> Weights:
    """Two samples of one label so near that they share all patterns, or one twice."""
    count = int(rng.integers(3, 6))
    x = centred(rng, count, count + 6)
    step = 0.0 if rng.random() < 0.4 else 10.0 ** rng.uniform(-8, -1)
    x = np.vstack([x, x[:1] + step * rng.normal(size=x[:1].shape)])
    name = "duplicated samples" if step == 0.0 else "near-equal samples"
    return case(name, plant(rng, x, tries=3, kind="regression"))


def _few(rng: np.random.Generator) -> Weights:
    """Too few patterns for the kernel."""
    small = None if rng.random() < 0.3 else centred(rng, int(rng.integers(2, 4)), 9)
    planted = plant(rng, small, kind="regression", copies=1)
    needed = len(planted.samples) * (len(planted.samples) + 1) // 2
    most = max(2, min(len(planted.patterns), needed - 1))
    keep = np.sort(rng.choice(len(planted.patterns), int(rng.integers(2, most + 1)), replace=False))
    keep = np.repeat(keep, int(rng.integers(1, 4)))
    jitter = rng.uniform(0.7, 1.4, len(keep))
    network = rows_of(planted.network, keep)
    network = DeepNetwork(
        [network.weights[0] * jitter[:, None], network.weights[1] * jitter],
        [network.biases[0] * jitter, None], "relu",
    )  # fmt: skip
    return case("few patterns", planted, network, exact=True)


def _other_activation(rng: np.random.Generator) -> Weights:
    planted = plant(rng)
    net = planted.network
    kind = f"leaky_relu:{rng.choice([0.01, 0.1, 0.3])}"
    return case("leaky declared", planted, DeepNetwork(net.weights, net.biases, kind))


def _random_weights(rng: np.random.Generator) -> Weights:
    planted = plant(rng)
    shapes = [w.shape for w in planted.network.weights]
    weights = [rng.normal(size=shape) for shape in shapes]
    bias = rng.normal(size=shapes[0][0])
    if rng.random() < 0.5:
        # Low rank by itself: random neurons in the span of the samples.
        lifted = np.column_stack([planted.samples, np.ones(len(planted.samples))])
        rows = rng.normal(size=(shapes[0][0], len(lifted))) @ lifted
        weights[0], bias = rows[:, :-1], rows[:, -1]
    trained = str(rng.choice(["both", "hidden"]))
    if trained == "both":
        size = np.sqrt(np.sum(weights[0] ** 2, axis=1) + bias**2)
        weights[1] = size[None] * rng.choice([-1.0, 1.0], len(size))
    return case("not stationary", planted, DeepNetwork(weights, [bias, None], "relu"),
                trained=trained, source=str(rng.choice(["kkt", "weight_decay"])))  # fmt: skip


def _wrong_layers(rng: np.random.Generator) -> Weights:
    planted = plant(rng)
    return case("both declared", planted, trained="both")


def _wrong_source(rng: np.random.Generator) -> Weights:
    return case("kkt declared", plant(rng, kind="regression"), source="kkt")


def _wrong_scale(rng: np.random.Generator) -> Weights:
    planted = plant(rng)
    level = 10.0 ** rng.uniform(-6, 0)
    scale = np.exp(level * rng.normal(size=planted.network.widths[0]))
    keep = np.arange(planted.network.widths[0])
    return case("neurons rescaled", planted, rows_of(planted.network, keep, scale))


def _noise(rng: np.random.Generator) -> Weights:
    planted = plant(rng)
    level = 10.0 ** rng.uniform(-12, -1)

    def noisy(array: FloatArray) -> FloatArray:
        size = np.linalg.norm(array) / np.sqrt(array.size)
        return np.asarray(array + level * size * rng.normal(size=array.shape))

    return case("noise", planted, changed(planted.network, noisy))


def _quantised(rng: np.random.Generator) -> Weights:
    planted = plant(rng)
    kind = int(rng.integers(3))

    def rounded(array: FloatArray) -> FloatArray:
        if kind < 2:
            return array.astype((np.float32, np.float16)[kind]).astype(np.float64)
        step = np.abs(array).max() / 127.0
        return np.asarray(np.round(array / step) * step)

    name = ("float32", "float16", "int8")[kind]
    return case(f"quantised, {name}", planted, changed(planted.network, rounded))


def _dependent(rng: np.random.Generator) -> Weights:
    """More samples than dimensions, or samples of low rank."""
    count = int(rng.integers(4, 8))
    rank = int(rng.integers(2, count))
    x = centred(rng, count, rank) @ rng.normal(size=(rank, int(rng.integers(rank, 12)))) / rank
    return case("dependent samples", plant(rng, x, tries=3, kind="regression"))


def _free_bias(rng: np.random.Generator) -> Weights:
    """Biases that were not part of the norm: moved as far as the patterns stay."""
    planted = plant(rng)
    net = planted.network
    z = net.forward(planted.samples).preactivations[0]
    room = np.abs(z).min(axis=0)
    bias = net.biases[0] + rng.uniform(-0.9, 0.9, len(room)) * room
    return case("bias not penalised", planted, DeepNetwork(net.weights, [bias, None], "relu"))


def _generic_both(rng: np.random.Generator) -> Weights:
    """Both layers trained and data in general position: one pattern for each sample."""
    count = int(rng.integers(2, 6))
    x = centred(rng, count, count + int(rng.integers(2, 10)))
    lifted = np.column_stack([x, np.ones(count)])
    b = 1.0 / np.linalg.norm(lifted, axis=1)
    gram = lifted @ lifted.T
    alone = [i for i in range(count) if (np.delete(gram[i], i) < 0.0).all()]
    if len(alone) < 2:
        return _few(rng)
    on = np.repeat(np.eye(count)[alone], 3, axis=0)
    a = rng.uniform(0.5, 2.0, len(on))
    rows = a[:, None] * ((on * b) @ lifted)
    network = DeepNetwork([rows[:, :-1], a[None]], [rows[:, -1], None], "relu")
    return Weights("both trained, general data", network, x[alone], b[alone], "weight_decay",
                   "both", exact=True)  # fmt: skip


def _trained(rng: np.random.Generator) -> Weights:
    """Hidden layer trained by descent with weight decay and logistic loss for a finite time."""
    count, width = int(rng.integers(3, 6)), int(rng.integers(30, 80))
    x = centred(rng, count, count + 5) / 4.0
    y = np.ones(count) if rng.random() < 0.5 else rng.choice([-1.0, 1.0], count)
    lifted = np.column_stack([x, np.ones(count)])
    a = rng.choice([-1.0, 1.0], width) / np.sqrt(width)
    w = rng.normal(size=(width, lifted.shape[1]))
    decay, rate = 10.0 ** rng.uniform(-3, -1), 0.2
    for _ in range(int(rng.choice([200, 2000, 8000]))):
        on = lifted @ w.T > 0.0
        f = np.maximum(lifted @ w.T, 0.0) @ a
        b = y / (1.0 + np.exp(np.minimum(y * f, 500.0))) / count
        w += rate * (a[:, None] * ((on * b[:, None]).T @ lifted) - decay * w)
    network = DeepNetwork([w[:, :-1], a[None]], [w[:, -1], None], "relu")
    return Weights("trained for a finite time", network, x, b / decay, "weight_decay", "hidden",
                   options={"loss": str(rng.choice(["logistic", ""])) or None})  # fmt: skip


def _mixed(rng: np.random.Generator) -> Weights:
    """Samples of both labels, which have few patterns in common."""
    count = int(rng.integers(3, 7))
    x = centred(rng, count, count + 6)
    y = rng.choice([-1.0, 1.0], count)
    return case("both labels", plant(rng, x, tries=3, labels=y, kind="regression"))


FAMILIES = (
    _near, _few, _other_activation, _random_weights, _wrong_layers, _wrong_source, _wrong_scale,
    _noise, _quantised, _dependent, _free_bias, _generic_both, _trained, _mixed, _few,
)  # fmt: skip


def undetermined(seed: int) -> Weights:
    """The weights of a seed whose samples are not determined or only seem to be."""
    rng = np.random.default_rng([seed, 31])
    return FAMILIES[seed % len(FAMILIES)](rng)


def determined(seed: int) -> Weights:
    """The weights of a seed whose samples are determined."""
    rng = np.random.default_rng([seed, 32])
    if seed % 5 == 0:
        count, size = [(4, 2), (8, 4), (5, 3), (6, 3)][seed // 5 % 4]
        x = equiangular_samples(count, size, count + int(rng.integers(1, 9)), seed=seed)
        planted = plant_relu_network(x, trained="both", copies=1 + seed % 3, seed=seed)
        return case("both trained, special data", planted)
    for _ in range(200):
        planted = plant(rng, copies=int(rng.integers(2, 5)))
        if planted.determined and len(planted.patterns) > planted_rows(planted):
            break
    network = planted.network
    if seed % 5 == 4:
        network = changed(network, lambda w: w.astype(np.float32).astype(np.float64))
        return case("hidden trained, float32", planted, network)
    return case("hidden trained", planted)


def planted_rows(planted: PlantedRelu) -> int:
    """n (n + 1) / 2 and a few more."""
    n = len(planted.samples)
    return n * (n + 1) // 2 + n


def is_wrong(weights: Weights, report: StationaryReport) -> str:
    """Why a verdict "globally" is wrong, or nothing.

    Right is the true set, or a smaller one that makes the same weights and has the masks that it
    claims: the verdict speaks of sets of at most r samples.
    """
    found = report.found
    if report.verdict != GLOBALLY:
        return ""
    if found.samples is None or found.error_bounds is None or report.coefficients is None:
        return "no samples"
    apart = np.linalg.norm(found.samples[:, None] - weights.samples[None], axis=2)
    relative = apart.min(axis=1) / np.linalg.norm(found.samples, axis=1)
    distinct = len(np.unique(weights.samples, axis=0))
    if (relative <= 5.0 * found.error_bounds + 1e-12).all() and distinct <= found.rank:
        return ""
    # Weights that were trained for a finite time are stationary to an error, also for the truth.
    allowed = max(1e-6, _left(weights.network, weights.samples, weights.coefficients))
    own = _left(weights.network, found.samples, report.coefficients)
    if distinct > found.rank and own <= allowed:
        return ""
    return f"printed {found.rank}, true {distinct}, farthest {relative.max():.1e}"


def is_merged(weights: Weights, report: StationaryReport) -> bool:
    """Whether a verdict "globally" is about fewer samples than the true ones."""
    return report.verdict == GLOBALLY and report.found.rank < len(
        np.unique(weights.samples, axis=0)
    )


def _left(network: DeepNetwork, samples: FloatArray, b: FloatArray) -> float:
    """The largest share of the hidden weights or biases that samples with coefficients b leave."""
    gradient = network.gradient(samples, b[:, None])
    pairs = zip((gradient.weights[0], gradient.biases[0]),
                (network.weights[0], network.biases[0]), strict=True)  # fmt: skip
    return max(
        float(np.linalg.norm(one - two) / np.linalg.norm(two))
        for one, two in pairs
        if one is not None and two is not None
    )


def explains(network: DeepNetwork, samples: FloatArray, b: FloatArray) -> bool:
    """Whether the samples with coefficients b make the hidden weights, up to 1e-6."""
    return _left(network, samples, b) <= 1e-6
