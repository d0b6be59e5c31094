"""Random problems with samples of one mask, with near-equal masks, and with none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from identify.arrays import FloatArray
from identify.disaggregation.records import GLOBALLY, NONIDENTIFIABLE
from identify.model.deep import DeepGradient, DeepNetwork
from identify.report.gradient import GradientReport
from tests.identify.disaggregation.problems import change, initialise

SIZES = (([8, 80, 4], 3), ([5, 40, 3], 2), ([12, 30, 110, 5], 3), ([6, 50, 3], 0))


@dataclass(frozen=True, eq=False)
class Case:
    """A network with the gradient of a batch; whether two sets may be shown for it.

    ``exact`` is the gradient before any rounding.
    """

    family: str
    network: DeepNetwork
    gradient: DeepGradient
    exact: DeepGradient
    samples: FloatArray
    slopes: FloatArray
    ambiguous: bool
    options: dict[str, Any]


def one_mask(
    rng: np.random.Generator, sizes: list[int], others: int, size: int = 2
) -> tuple[DeepNetwork, FloatArray, FloatArray]:
    """A network, ``size`` samples with one mask in every layer and ``others`` more, and slopes."""
    network = initialise(sizes, rng)
    centre, step = rng.normal(size=sizes[0]), rng.normal(size=(size, sizes[0]))
    while True:
        x = centre + step
        z = network.forward(x).preactivations[:-1]
        if all(((part > 0) == (part[0] > 0)).all() for part in z):
            break
        step *= 0.8
    samples = np.vstack([x, rng.normal(size=(others, sizes[0]))])
    return network, samples, rng.normal(size=(len(samples), sizes[-1]))


def case(family: str, seed: int) -> Case:
    """One of the `FAMILIES`."""
    rng = np.random.default_rng([seed, list(FAMILIES).index(family)])
    make, ambiguous = FAMILIES[family]
    network, samples, slopes, move, options = make(rng)
    exact = network.gradient(samples, slopes)
    gradient = exact if move is None else change(exact, move)
    return Case(family, network, gradient, exact, samples, slopes, ambiguous, options)


def plain_gradient(network: DeepNetwork, x: FloatArray, p: FloatArray) -> list[FloatArray]:
    """[grad_W, grad_beta] of every layer of a ReLU network, sample by sample."""
    total = [np.zeros((len(w), w.shape[1] + 1)) for w in network.weights]
    for sample, slope in zip(x, p, strict=True):
        inputs, z = [], []
        h = sample
        for w, b in zip(network.weights, network.biases, strict=True):
            inputs.append(np.append(h, 1.0))
            z.append(w @ h + (0.0 if b is None else b))
            h = np.where(z[-1] > 0, z[-1], 0.0)
        delta = slope
        for k in range(len(z) - 1, -1, -1):
            total[k] += np.outer(delta, inputs[k])
            if k:
                delta = (network.weights[k].T @ delta) * (z[k - 1] > 0)
    return total


def left(network: DeepNetwork, exact: DeepGradient, x: FloatArray, p: FloatArray) -> float:
    """The largest share of a layer's gradient that a set leaves, recomputed here."""
    worst = 0.0
    for k, own in enumerate(plain_gradient(network, x, p)):
        given = exact.layer(k)
        if given is not None:
            own = own[:, : given.shape[1]]
            worst = max(worst, float(np.linalg.norm(own - given) / np.linalg.norm(given)))
    return worst


def is_wrong(case: Case, report: GradientReport, tolerance: float = 1e-6) -> str:
    """Why a verdict "nonidentifiable" or "globally" is wrong, or nothing."""
    if report.verdict == GLOBALLY:
        return _overlooked(case, report)
    if report.verdict != NONIDENTIFIABLE:
        return ""
    if not case.ambiguous:
        return "one set explains the gradient"
    one, two = report.found.alternatives
    for found in (one, two):
        residual = left(case.network, case.exact, found.samples, found.cotangents)
        if not residual <= tolerance:
            return f"a set leaves {residual:.1e}"
    apart = np.linalg.norm(one.samples[:, None] - two.samples[None], axis=2).min(axis=1)
    if not (apart > 0.01 * np.linalg.norm(one.samples, axis=1)).any():
        return "the sets are the same"
    return ""


def _overlooked(case: Case, report: GradientReport) -> str:
    """Another set than the printed one, or a printed set of that size that is not the true one."""
    found = report.found
    if case.ambiguous:
        return "two sets explain the gradient"
    if found.samples is None or found.error_bounds is None:
        return "no samples"
    if len(found.samples) < len(case.samples):
        return ""  # Samples of one mask and proportional slopes are one, as the caveats say.
    apart = np.linalg.norm(found.samples[:, None] - case.samples[None], axis=2).min(axis=1)
    reach = 5.0 * found.error_bounds * np.linalg.norm(found.samples, axis=1)
    return "" if (apart <= reach + 1e-12).all() else "the printed samples are not the true ones"


Made = tuple[
    DeepNetwork, FloatArray, FloatArray, Callable[[FloatArray], FloatArray] | None, dict[str, Any]
]


def _float32(x: FloatArray) -> FloatArray:
    return x.astype(np.float32).astype(np.float64)


def _two(rng: np.random.Generator) -> Made:
    sizes, others = SIZES[rng.integers(len(SIZES))]
    return *one_mask(rng, sizes, others), None, {}


def _two_rounded(rng: np.random.Generator) -> Made:
    sizes, others = SIZES[rng.integers(len(SIZES))]
    return *one_mask(rng, sizes, others), _float32, {}


def _three(rng: np.random.Generator) -> Made:
    return *one_mask(rng, [9, 90, 5], 2, 3), None, {}


def _two_pairs(rng: np.random.Generator) -> Made:
    network, x, p = one_mask(rng, [8, 120, 4], 1)
    far, step = rng.normal(size=8), rng.normal(size=(2, 8))
    while True:
        z = network.forward(far + step).preactivations[0]
        if ((z > 0) == (z[0] > 0)).all():
            break
        step *= 0.8
    return network, np.vstack([x, far + step]), np.vstack([p, rng.normal(size=(2, 4))]), None, {}


def _apart(rng: np.random.Generator, scale: float = 1.0) -> Made:
    """One neuron of the last hidden layer tells the two samples apart."""
    sizes, others = SIZES[rng.integers(len(SIZES))]
    network, x, p = one_mask(rng, sizes, others)
    h = network.forward(x[:2]).inputs[-2]
    weights, biases = [w.copy() for w in network.weights], [np.array(b) for b in network.biases]
    heights = weights[-2] @ (h[0] - h[1])
    j = int(np.argmax(np.abs(heights)))
    biases[-2][j] = -weights[-2][j] @ (h[0] + h[1]) / 2
    weights[-1][:, j] *= scale
    return DeepNetwork(weights, biases, "relu"), x, p, None, {}


def _hardly_apart(rng: np.random.Generator) -> Made:
    return _apart(rng, 1e-4)


def _below(rng: np.random.Generator) -> Made:
    """One mask in the last hidden layer; a neuron of the layer below tells the two apart."""
    network, x, p = one_mask(rng, [12, 30, 110, 5], 2)
    weights, biases = [w.copy() for w in network.weights], [np.array(b) for b in network.biases]
    j = int(np.argmax(np.abs(weights[0] @ (x[0] - x[1]))))
    biases[0][j] = -weights[0][j] @ (x[0] + x[1]) / 2
    return DeepNetwork(weights, biases, "relu"), x, p, None, {}


def _duplicates(rng: np.random.Generator) -> Made:
    network, x, p = one_mask(rng, [8, 80, 4], 3)
    x[1] = x[0]
    return network, x, p, None, {}


def _proportional(rng: np.random.Generator) -> Made:
    network, x, p = one_mask(rng, [8, 80, 4], 3)
    p[1] = rng.uniform(0.3, 2.0) * p[0]
    return network, x, p, None, {}


def _known_loss(rng: np.random.Generator) -> Made:
    network, x, p = one_mask(rng, [8, 80, 4], 3)
    outputs = network.forward(x).outputs
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    p[np.arange(len(x)), rng.integers(4, size=len(x))] -= 1.0
    return network, x, p, None, {"loss": "cross-entropy"}


def _named(rng: np.random.Generator) -> Made:
    network, x, p = one_mask(rng, [8, 80, 4], 3)
    return network, x, p, None, {"loss": ("squared", "logistic")[rng.integers(2)]}


def _different(rng: np.random.Generator) -> Made:
    network = initialise([8, 100, 4], rng)
    return network, rng.normal(size=(4, 8)), rng.normal(size=(4, 4)), None, {}


#: Builders, and whether the gradient has several explanations of the smallest size.
FAMILIES: dict[str, tuple[Callable[[np.random.Generator], Made], bool]] = {
    "two of one mask": (_two, True),
    "two of one mask, float32": (_two_rounded, True),
    "three of one mask": (_three, True),
    "two pairs": (_two_pairs, True),
    "one neuron apart": (_apart, False),
    "one weak neuron apart": (_hardly_apart, False),
    "apart in the layer below": (_below, False),
    "duplicates": (_duplicates, False),
    "proportional slopes": (_proportional, False),
    "known loss": (_known_loss, False),
    "another loss named": (_named, False),
    "different masks": (_different, False),
}
