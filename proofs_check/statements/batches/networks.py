"""Batches of ReLU networks with the gradients that they leave."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from identify.model.deep import DeepGradient, DeepNetwork
from proofs_check import strategies
from proofs_check.machinery.statement import Check
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, eq=False)
class Batch:
    """A network, samples (n, d) and loss slopes p (n, C)."""

    network: DeepNetwork
    samples: FloatArray
    slopes: FloatArray
    seed: int

    def __repr__(self) -> str:
        return f"Batch({self.network!r}, n={len(self.samples)}, seed={self.seed})"

    @property
    def bias(self) -> FloatArray:
        """The biases (m_1,) of the first layer."""
        return _there(self.network.biases[0])

    def gradient(self) -> DeepGradient:
        """The gradient of every layer."""
        return self.network.gradient(self.samples, self.slopes)

    def first_gradient(self) -> FloatArray:
        """[grad_W | grad_beta] of the first layer, (m_1, d + 1)."""
        return _there(self.gradient().layer(0))

    def masks(self, samples: FloatArray | None = None) -> list[FloatArray]:
        """The on-off patterns of every hidden layer, (n, m_l)."""
        run = self.network.forward(self.samples if samples is None else samples)
        return [(z > 0.0).astype(float) for z in run.preactivations[:-1]]


@dataclass(frozen=True, eq=False, repr=False)
class Exchange(Batch):
    """A batch beside `new_samples` (n', d) with `new_slopes` (n', C) that may stand for it."""

    new_samples: FloatArray
    new_slopes: FloatArray

    @classmethod
    def of(cls, batch: Batch, samples: FloatArray, slopes: FloatArray) -> Exchange:
        """Set samples and slopes beside a batch."""
        return cls(batch.network, batch.samples, batch.slopes, batch.seed, samples, slopes)


def _there(part: FloatArray | None) -> FloatArray:
    if part is None:
        raise ValueError("batch: expected a network with biases and a gradient of every layer")
    return part


def draw_network(
    sizes: tuple[int, ...], rng: np.random.Generator, activation: str = "relu"
) -> DeepNetwork:
    """Normal weights over the root of the fan-in, and normal biases."""
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.standard_normal((o, i)) / np.sqrt(i) for i, o in pairs]
    biases = [0.5 * rng.standard_normal(o) for _, o in pairs]
    return DeepNetwork(weights, biases, activation)


def draw_batch(sizes: tuple[int, ...], count: int, seed: int, activation: str = "relu") -> Batch:
    """A network of these sizes with normal samples; slopes of modulus 1/2 to 2."""
    rng = np.random.default_rng([seed, count, *sizes])
    network = draw_network(sizes, rng, activation)
    samples = rng.standard_normal((count, sizes[0]))
    slopes = rng.uniform(0.5, 2.0, (count, sizes[-1])) * rng.choice([-1.0, 1.0], (count, sizes[-1]))
    return Batch(network, samples, slopes, seed)


def drawn(
    sizes: tuple[tuple[int, ...], ...], counts: tuple[int, ...], activation: str = "relu"
) -> SearchStrategy[Batch]:
    """Batches of networks of these sizes."""
    from hypothesis import strategies as st

    return st.builds(
        draw_batch,
        st.sampled_from(sizes),
        st.sampled_from(counts),
        st.integers(0, strategies.SEEDS),
        st.just(activation),
    )


def same_gradient(batch: Batch, samples: FloatArray, slopes: FloatArray) -> Check:
    """Whether other samples and slopes have the gradient of the batch, in every layer."""
    one, two = batch.gradient(), batch.network.gradient(samples, slopes)
    terms = 64.0 * UNIT * sum(batch.network.widths) * (len(samples) + batch.network.depth)
    worst = 0.0
    for index in range(batch.network.depth):
        first, second = _there(one.layer(index)), _there(two.layer(index))
        size = sum(
            float(np.linalg.norm(p) * (1.0 + np.linalg.norm(x)))
            for rows, p_rows in ((batch.samples, batch.slopes), (samples, slopes))
            for x, p in zip(rows, p_rows, strict=True)
        )
        growth = float(np.prod([np.linalg.norm(w) + 1.0 for w in batch.network.weights]))
        worst = max(worst, float(np.linalg.norm(first - second)) / (terms * size * growth))
    return Check.compare(worst, 1.0, "the gradients differ")
