"""The first layer of any network: rank and row space of its gradient and of its updates."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal
from unittest.mock import patch

import numpy as np

from identify import numerical_rank
from identify.arrays import FloatArray
from identify.numerical_rank import RankDecision, decide_rank
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

ACTIVATIONS = ("relu", "tanh", "softplus", "cubic")
Rule = Literal["descent", "momentum", "mini-batch", "adam"]
OUTER = "gradients of a linear layer are sums of outer products (backpropagation); ours"


def activate(kind: str, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The activation and its derivative."""
    if kind == "relu":
        return np.maximum(z, 0.0), (z > 0.0).astype(np.float64)
    if kind == "tanh":
        return np.tanh(z), 1.0 - np.tanh(z) ** 2
    if kind == "softplus":
        return np.logaddexp(0.0, z), 0.5 * (1.0 + np.tanh(0.5 * z))
    return z**3 / 3.0, z**2


@dataclass(frozen=True, eq=False)
class Batch:
    """A fully connected network with biases, n samples and labels +-1.

    `layers` are matrices (after, before + 1) whose last column is the bias.
    """

    layers: tuple[FloatArray, ...]
    activation: str
    samples: FloatArray
    labels: FloatArray
    kind: str
    seed: int

    def __repr__(self) -> str:
        widths = "-".join(str(layer.shape[1] - 1) for layer in self.layers)
        return (
            f"Batch({self.activation}, {widths}-1, {self.kind}, n={len(self.samples)}, "
            f"seed={self.seed})"
        )


def backpropagate(
    layers: tuple[FloatArray, ...], activation: str, x: FloatArray, labels: FloatArray
) -> tuple[list[FloatArray], FloatArray]:
    """Gradients of the sum of logistic losses, and delta_i of the first layer, shape (n, m)."""
    inputs, slopes = [x], []
    for layer in layers[:-1]:
        value, slope = activate(activation, inputs[-1] @ layer[:, :-1].T + layer[:, -1])
        inputs.append(value)
        slopes.append(slope)
    outputs = inputs[-1] @ layers[-1][:, :-1].T + layers[-1][:, -1]
    margins = np.clip(labels * outputs[:, 0], -500.0, 500.0)
    back = (-labels / (1.0 + np.exp(margins)))[:, None]
    found = []
    for depth in range(len(layers) - 1, -1, -1):
        lifted = np.column_stack([inputs[depth], np.ones(len(x))])
        found.append(back.T @ lifted)
        if depth:
            back = (back @ layers[depth][:, :-1]) * slopes[depth - 1]
    return found[::-1], back


def batches(
    counts: tuple[int, int] = (1, 4),
    widths: tuple[tuple[int, ...], ...] = ((6,), (8,), (6, 5), (7, 4, 3)),
    *,
    dependent: bool = False,
) -> SearchStrategy[Batch]:
    """Batches of independent samples; `dependent` adds one more in their span."""
    from hypothesis import strategies as st

    def build(
        kind: str, count: int, spare: int, sizes: tuple[int, ...], activation: str, seed: int
    ) -> Batch:
        dimension = count + spare
        samples = strategies.draw_samples(kind, count, dimension, seed)
        rng = np.random.default_rng([seed, count, 25])
        if dependent:
            samples = np.vstack([samples, rng.standard_normal(count) @ samples])
        shape = (dimension, *sizes, 1)
        layers = [
            rng.standard_normal((after, before + 1)) / np.sqrt(before)
            for before, after in pairwise(shape)
        ]
        labels = rng.choice([-1.0, 1.0], size=len(samples))
        return Batch(tuple(layers), activation, samples, labels, kind, seed)

    return st.builds(
        build,
        st.sampled_from(strategies.present(("generic", "orthonormal", "integer", "digits"))),
        st.integers(*counts),
        st.integers(1, 3),
        st.sampled_from(widths),
        st.sampled_from(ACTIVATIONS),
        st.integers(0, strategies.SEEDS),
    )


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows of length 1, zero rows as they are."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0.0, lengths, 1.0))


def least_singular_value(rows: FloatArray) -> float:
    """The n-th singular value of n rows, 0 where there are fewer columns."""
    if rows.shape[0] > rows.shape[1]:
        return 0.0
    return float(np.linalg.svd(rows, compute_uv=False)[-1])


# --- one gradient ------------------------------------------------------------------------------

CLEAR = 1e-3
"""Least singular values of unit rows above this count as independent; products reach 1e-7."""


def _rank(batch: Batch, change: int = 0) -> Check:
    """sigma_n >= sigma_n(Delta) sigma_n(X), sigma_(n+1) rounding, and a numerical rank of n."""
    slopes, delta = backpropagate(batch.layers, batch.activation, batch.samples, batch.labels)
    gradient = slopes[0][:, :-1]
    count = len(batch.samples)
    # Samples and delta_i of very different size are no loss of rank: each is scaled by itself.
    units = unit_rows(batch.samples)
    level = unit_rows(delta).T @ units
    rounding = 8.0 * (count + batch.samples.shape[1]) * UNIT
    bulk = float(np.linalg.norm(np.abs(delta).T @ np.abs(batch.samples)))
    gap = float(np.linalg.norm(gradient - delta.T @ batch.samples))
    if gap > rounding * bulk:
        return Check.compare(gap, rounding * bulk, "not the sum of delta_i x_i")
    values = np.linalg.svd(level, compute_uv=False)
    found = numerical_rank.decide_rank(np.asarray(values, dtype=np.float64), CLEAR**3).rank
    if found != count + change:
        return Check.of(False, f"rank {found}, n = {count}")
    low = least_singular_value(unit_rows(delta)) * least_singular_value(units)
    return Check.compare(low - float(values[count - 1]), rounding * count)


def _one_more(batch: Batch) -> Check:
    return _rank(batch, 1)


def _has_independent_samples(batch: Batch) -> bool:
    return least_singular_value(unit_rows(batch.samples)) > CLEAR


def _has_independent_deltas(batch: Batch) -> bool:
    _, delta = backpropagate(batch.layers, batch.activation, batch.samples, batch.labels)
    return least_singular_value(unit_rows(delta)) > CLEAR


def _mean_only() -> AbstractContextManager[object]:
    """A rank that counts singular values above a half only."""
    original = decide_rank

    def broken(values: FloatArray, threshold: float, tail: float = 0.0) -> RankDecision:
        return original(values, 0.5, tail)

    return patch.object(numerical_rank, "decide_rank", broken)


def _independent_batches() -> SearchStrategy[Batch]:
    return batches().filter(_has_independent_deltas)


GRADIENT_RANK = Statement(
    name="gradient-rank",
    title="The rank of a gradient counts the batch",
    sentence=(
        "In any network the rank of the first layer's gradient is at most the size n of the "
        "batch, and it is n if the samples x_i and the back-propagated delta_i are independent."
    ),
    formula=r"\nabla_W = \textstyle\sum_i \delta_i x_i^T,\qquad "
    r"\sigma_n(\nabla_W) \ge \sigma_n(\Delta)\,\sigma_n(X)",
    source=OUTER,
    hypotheses=(
        Hypothesis(
            "samples",
            "the samples are linearly independent",
            _has_independent_samples,
            lambda: batches(counts=(1, 3), dependent=True),
        ),
        Hypothesis(
            "deltas",
            "the delta_i are linearly independent: n <= m, no sample without a gradient",
            _has_independent_deltas,
            lambda: batches(counts=(3, 4), widths=((2,),)),
        ),
    ),
    instances=_independent_batches,
    conclusion=_rank,
    sabotages=(
        Sabotage("more", "rank n + 1", conclusion=_one_more),
        Sabotage("threshold", "a threshold of a half", implementation=_mean_only),
    ),
    cost="light",
    code=("identify.numerical_rank.decide_rank",),
    remark="A lower bound for the batch in every case.",
)


# --- updates -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Update:
    """Steps of a rule on a batch; `decay` of weight decay in every step."""

    batch: Batch
    rule: Rule
    steps: int
    decay: float = 0.0

    def __repr__(self) -> str:
        note = f", decay={self.decay:g}" if self.decay else ""
        return f"Update({self.rule}, {self.steps} steps{note}, {self.batch!r})"


def train(update: Update) -> tuple[FloatArray, float]:
    """[dW1 | db1], shape (m, d + 1), and how far rounding moves an entry."""
    batch = update.batch
    rng = np.random.default_rng([batch.seed, 26])
    layers = list(batch.layers)
    velocity = [np.zeros(layer.shape) for layer in layers]
    squares = [np.zeros(layer.shape) for layer in layers]
    rate, reach = 0.1, float(np.abs(layers[0]).max())
    for step in range(1, update.steps + 1):
        chosen = np.ones(len(batch.samples), dtype=bool)
        if update.rule == "mini-batch":
            chosen = rng.random(len(chosen)) < 0.6
        x, labels = batch.samples[chosen], batch.labels[chosen]
        if not len(x):
            continue
        slopes, _ = backpropagate(tuple(layers), batch.activation, x, labels)
        # Clipping by the norm of the whole gradient is a common factor.
        size = float(np.sqrt(sum(np.sum(slope**2) for slope in slopes)))
        for place, slope in enumerate(slopes):
            move = slope / max(1.0, size) + update.decay * layers[place]
            if update.rule == "momentum":
                velocity[place] = move = 0.9 * velocity[place] + move
            if update.rule == "adam":
                velocity[place] = 0.9 * velocity[place] + 0.1 * move
                squares[place] = 0.99 * squares[place] + 0.01 * move**2
                root = np.sqrt(squares[place] / (1.0 - 0.99**step)) + 1e-8
                move = velocity[place] / (1.0 - 0.9**step) / root
            layers[place] = layers[place] - rate * move
        reach = max(reach, float(np.abs(layers[0]).max()))
    # Every step rounds a weight once, and its move like a sum over the batch.
    noise = 4.0 * update.steps * (len(batch.samples) + 8) * UNIT * (1.0 + reach)
    return layers[0] - batch.layers[0], noise


def _in_span(update: Update, *, biased: bool = True) -> Check:
    change, noise = train(update)
    samples = update.batch.samples
    lifted = np.column_stack([samples, np.ones(len(samples)) if biased else 0.0 * samples[:, 0]])
    basis = numerical_rank.row_space(lifted, 1e-12, update.batch.seed)[0]
    outside = change - (change @ basis) @ basis.T
    allowed = noise * np.sqrt(change.size)
    rank = int(np.count_nonzero(np.linalg.svd(change, compute_uv=False) > allowed))
    if rank > len(samples):
        return Check.of(False, f"rank {rank}, n = {len(samples)}")
    return Check.compare(float(np.linalg.norm(outside)), allowed, "part off span{[x_i, 1]}")


def _in_span_of_samples(update: Update) -> Check:
    return _in_span(update, biased=False)


def _updates(
    rules: tuple[Rule, ...] = ("descent", "momentum", "mini-batch"), decay: float = 0.0
) -> SearchStrategy[Update]:
    from hypothesis import strategies as st

    return st.builds(Update, batches(), st.sampled_from(rules), st.integers(1, 5), st.just(decay))


def _without_bias() -> AbstractContextManager[object]:
    """Gradients in which the bias gets the sum over the layer's inputs."""
    import proofs_check.statements.beyond.finetuning_updates as module

    original = module.backpropagate

    def broken(
        layers: tuple[FloatArray, ...], activation: str, x: FloatArray, labels: FloatArray
    ) -> tuple[list[FloatArray], FloatArray]:
        slopes, delta = original(layers, activation, x, labels)
        slopes[0] = slopes[0].copy()
        slopes[0][:, -1] = np.sum(delta**2, axis=0) + 1.0
        return slopes, delta

    return patch.object(module, "backpropagate", broken)


def _short_span() -> AbstractContextManager[object]:
    original = numerical_rank.row_space

    def broken(rows: FloatArray, threshold: float, seed: int) -> tuple[FloatArray, RankDecision]:
        basis, decision = original(rows, threshold, seed)
        return basis[:, :-1], decision

    return patch.object(numerical_rank, "row_space", broken)


UPDATE_SPAN = Statement(
    name="update-span",
    title="Fine-tuning stays in the span of the samples",
    sentence=(
        "After any number of steps of gradient descent, with momentum or on mini-batches, the "
        "change [dW1 | db1] of the first layer of any network has rank at most n and its rows "
        "lie in the span of the (x_i, 1)."
    ),
    formula=r"[\Delta W_1 \mid \Delta b_1] = \textstyle\sum_{t,i} \eta_t\, \delta_i^{(t)} "
    r"(x_i, 1)^T",
    source=OUTER,
    hypotheses=(
        Hypothesis(
            "linear-rule",
            "a step is a combination of past gradients, the same for every weight",
            lambda update: update.rule != "adam",
            lambda: _updates(("adam",)),
        ),
        Hypothesis(
            "no-decay",
            "there is no weight decay",
            lambda update: update.decay == 0.0,
            lambda: _updates(decay=0.01),
        ),
    ),
    instances=_updates,
    conclusion=_in_span,
    sabotages=(
        Sabotage("bias", "rows in the span of the (x_i, 0)", conclusion=_in_span_of_samples),
        Sabotage("slope", "a wrong slope of the bias", construction=_without_bias),
        Sabotage("span", "a span without its last direction", implementation=_short_span),
    ),
    cost="light",
    code=("identify.numerical_rank.row_space",),
    remark=(
        "One to three hidden layers, rectified or smooth. With weight decay the change holds "
        "a multiple of the initial weights, which can be taken out."
    ),
)

STATEMENTS = (GRADIENT_RANK, UPDATE_SPAN)
