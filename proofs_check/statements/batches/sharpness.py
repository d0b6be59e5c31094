"""Other samples with the same gradient in every layer of a ReLU network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.model.activations import Activation
from identify.model.deep import DeepGradient, DeepNetwork
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.batches.networks import Batch, Exchange, drawn, same_gradient
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

SIZES = ((4, 6, 1), (3, 8, 2), (4, 6, 5, 1), (3, 5, 4, 3))


def _same(batch: Exchange) -> Check:
    return same_gradient(batch, batch.new_samples, batch.new_slopes)


def _patterns(batch: Batch, samples: FloatArray) -> FloatArray:
    return np.hstack(batch.masks(samples))


@contextmanager
def _mean_of_biases() -> Iterator[None]:
    """Gradients of biases that are means where the weights' are sums."""
    original: Callable[..., DeepGradient] = DeepNetwork.gradient

    def broken(self: DeepNetwork, samples: FloatArray, cotangents: FloatArray) -> DeepGradient:
        found = original(self, samples, cotangents)
        count = len(samples)
        biases = tuple(None if b is None else b / count for b in found.biases)
        return DeepGradient(found.weights, biases)

    with patch.object(DeepNetwork, "gradient", broken):
        yield


@contextmanager
def _growing_slope() -> Iterator[None]:
    """A slope that grows with z where the neuron is on."""
    original: Callable[..., FloatArray] = Activation.slope

    def broken(self: Activation, z: FloatArray) -> FloatArray:
        return original(self, z) * np.maximum(z, 0.0)

    with patch.object(Activation, "slope", broken):
        yield


# --- halves ------------------------------------------------------------------------------------


def _halves(far: bool = False) -> SearchStrategy[Exchange]:
    def build(batch: Batch) -> Exchange:
        rng = np.random.default_rng([batch.seed, 11])
        x, v = batch.samples[0], rng.standard_normal(batch.samples.shape[1])
        back, size = float(rng.uniform(0.2, 0.8)), 6.0 if far else 1.0
        for _ in range(0 if far else 40):
            pair = np.stack([x + size * v, x - back * size * v])
            if (_patterns(batch, pair) == _patterns(batch, x[None])).all():
                break
            size *= 0.5
        pair = np.stack([x + size * v, x - back * size * v])
        shares = np.array([back, 1.0])[:, None] / (1.0 + back)
        samples = np.vstack([pair, batch.samples[1:]])
        slopes = np.vstack([shares * batch.slopes[0], batch.slopes[1:]])
        return Exchange.of(batch, samples, slopes)

    return drawn(SIZES, (1, 2, 3)).map(build)


def _one_pattern(batch: Exchange) -> bool:
    x = _patterns(batch, batch.samples[:1])
    return bool((_patterns(batch, batch.new_samples[:2]) == x).all() and x.any())


def _equal_halves(batch: Exchange) -> Check:
    samples, slopes = batch.new_samples, batch.new_slopes
    halves = np.vstack([np.repeat(0.5 * batch.slopes[:1], 2, axis=0), slopes[2:]])
    return same_gradient(batch, samples, halves)


HALVES = Statement(
    name="relu-gradient-halves",
    title="One more sample always explains the gradient",
    sentence=(
        "A sample may be replaced by x + alpha v and x - beta v with shares beta / (alpha + beta) "
        "and alpha / (alpha + beta) of its loss slopes, if both have its masks: every gradient of "
        "the network stays, so that no bound on more samples than the rank is possible."
    ),
    formula=r"(x, p) \to (x + \alpha v, \tfrac{\beta}{\alpha+\beta} p),\ "
    r"(x - \beta v, \tfrac{\alpha}{\alpha+\beta} p)",
    source="Refael, Smorodinsky, Lindenbaum & Safran 2026 for KKT points; gradients are ours",
    hypotheses=(
        Hypothesis(
            "masks",
            "both have the masks of the sample in every layer",
            _one_pattern,
            lambda: _halves(far=True),
        ),
    ),
    instances=_halves,
    conclusion=_same,
    sabotages=(
        Sabotage("halves", "half of the slopes each", conclusion=_equal_halves),
        Sabotage("mean", "biases with a mean", implementation=_mean_of_biases),
        Sabotage("slope", "a slope that grows with z", implementation=_growing_slope),
    ),
    code=("identify.model.deep.DeepNetwork.gradient",),
    remark=(
        "The slopes are free here. A known loss ties them to the outputs and excludes most of "
        "these sets. The uniqueness of the other statements is among sets of at most r samples."
    ),
)


# --- samples of one mask -----------------------------------------------------------------------


def _mixtures(kind: str = "same") -> SearchStrategy[Exchange]:
    def build(batch: Batch) -> Exchange:
        rng = np.random.default_rng([batch.seed, 12])
        g = len(batch.samples)
        x = batch.samples[:1] + 0.3 * (batch.samples - batch.samples[:1])
        turn = np.eye(g) + 0.4 * rng.standard_normal((g, g))
        turn /= turn.sum(axis=1, keepdims=True)
        if kind == "rows":
            turn *= rng.uniform(1.2, 1.6, (g, 1))
        if kind != "masks":
            for _ in range(40):
                together = np.vstack([x, turn @ x])
                if (_patterns(batch, together) == _patterns(batch, x[:1])).all():
                    break
                x = x[:1] + 0.5 * (x - x[:1])
        samples = turn @ x
        slopes = np.asarray(np.linalg.solve(turn.T, batch.slopes), dtype=np.float64)
        return Exchange.of(replace(batch, samples=x), samples, slopes)

    sizes = ((4, 5, 3), (5, 6, 4), (4, 5, 4, 3))
    return drawn(sizes, (2, 3)).map(build)


def _one_mask(batch: Exchange) -> bool:
    every = _patterns(batch, np.vstack([batch.samples, batch.new_samples]))
    return bool((every == every[0]).all() and every[0].any())


def _solvable(batch: Exchange) -> bool:
    """Whether the rows of T sum to 1."""
    slopes = batch.new_slopes
    if np.linalg.cond(slopes) > 1e6:
        return False
    # p = T^T p', so T comes from the slopes, which are independent.
    transposed = np.linalg.lstsq(slopes.T, batch.slopes.T, rcond=None)[0].T
    return bool(np.abs(transposed.sum(axis=0) - 1.0).max() < 1e6 * UNIT)


def _moved(batch: Exchange) -> Check:
    """The same gradient, by samples that are others."""
    gap = float(np.linalg.norm(batch.new_samples - batch.samples))
    if gap < 1e-9 * float(np.linalg.norm(batch.samples)):
        return Check.of(False, "the samples are the same")
    return _same(batch)


def _same_slopes(batch: Exchange) -> Check:
    return same_gradient(batch, batch.new_samples, batch.slopes)


MIXTURES = Statement(
    name="relu-gradient-one-mask",
    title="Samples of one mask with free slopes are not determined",
    sentence=(
        "g samples of one mask may be replaced by affine combinations T x of themselves with "
        "slopes T^-T p, T invertible with rows of sum 1, if these have the mask too: every "
        "gradient of the network stays."
    ),
    formula=r"[X, 1] \to T [X, 1],\quad P \to T^{-T} P,\quad T 1 = 1",
    source="ours",
    hypotheses=(
        Hypothesis(
            "mask",
            "old and new samples have one mask in every layer",
            _one_mask,
            lambda: _mixtures("masks"),
        ),
        Hypothesis("rows", "the rows of T have sum 1", _solvable, lambda: _mixtures("rows")),
    ),
    instances=_mixtures,
    conclusion=_moved,
    sabotages=(
        Sabotage("slopes", "the slopes stay", conclusion=_same_slopes),
        Sabotage("slope", "a slope that grows with z", implementation=_growing_slope),
    ),
    code=("identify.model.deep.DeepNetwork.gradient",),
    remark=(
        "With three outputs or more the slopes of two samples are independent and the kernel of L "
        "shows the pair. A known loss ties the slopes to the outputs."
    ),
)

STATEMENTS = (HALVES, MIXTURES)
