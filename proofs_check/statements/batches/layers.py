"""From the last hidden layer down to the input, and what lower layers say about the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.disaggregation import depth, disaggregate, verdict
from identify.disaggregation.factor import factor
from identify.model.deep import DeepNetwork
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.batches.networks import Batch, drawn
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

SIZES = ((4, 6, 8, 1), (3, 8, 6, 2), (3, 5, 7, 6, 1))
_ALMOST = 1e-4


# --- one step down -------------------------------------------------------------------------------


def _signals(batch: Batch) -> tuple[FloatArray, ...]:
    run = batch.network.forward(batch.samples)
    return batch.network.backward(run, batch.slopes)[:-1]


def _smallest(batch: Batch) -> float:
    """The smallest singular value of the samples' error signals of norm 1, over all layers."""
    least = 1.0
    for delta in _signals(batch):
        lengths = np.linalg.norm(delta, axis=1)
        if not lengths.all() or len(delta) > delta.shape[1]:
            return 0.0
        least = min(least, float(np.linalg.svd(delta / lengths[:, None], compute_uv=False)[-1]))
    return least


def _told(batch: Batch) -> bool:
    """Whether the value of every activation below the last tells its slope."""
    kinds = batch.network.activations[:-1]
    return all(kind.slope_from_value(np.zeros((1, 1))) is not None for kind in kinds)


def _away_from_kinks(batch: Batch) -> bool:
    run = batch.network.forward(batch.samples)
    return all(np.abs(z).min() > 1e-3 for z in run.preactivations[:-1])


def _steps() -> SearchStrategy[Batch]:
    return drawn(SIZES, (1, 2, 3)).filter(_away_from_kinks)


def _smooth() -> SearchStrategy[Batch]:
    """A first layer with GELU, whose value does not tell its slope."""

    def change(batch: Batch) -> Batch:
        net = batch.network
        kinds = ["gelu", *(["relu"] * (net.depth - 2))]
        return replace(batch, network=DeepNetwork(net.weights, net.biases, kinds))

    return drawn(SIZES, (1, 2, 3)).map(change)


def _narrow() -> SearchStrategy[Batch]:
    return drawn(((3, 2, 8, 1), (3, 1, 6, 2)), (3,))


def _followed(batch: Batch) -> depth.Descent:
    """The product's descent from what the last hidden layer gives."""
    net = batch.network
    run = net.forward(batch.samples)
    top = net.depth - 2
    slopes = net.activations[top].slope(run.preactivations[top])
    known = depth.AtTheTop(run.inputs[top], batch.slopes, slopes, scaled=True, accuracy=1e-9)
    return depth.descend(net, batch.gradient(), known)


def _reaches_the_input(batch: Batch) -> Check:
    found = _followed(batch)
    if found.layer > 0:
        return Check.of(False, f"it ends at layer {found.layer + 1}: {found.stopped}")
    gap = float(np.linalg.norm(found.inputs - batch.samples) / np.linalg.norm(batch.samples))
    growth = float(np.prod([np.linalg.norm(w) + 1.0 for w in batch.network.weights]))
    allowed = 256.0 * UNIT * growth / max(_smallest(batch), _ALMOST) ** batch.network.depth
    return Check.compare(gap, min(1e-2, allowed), "the samples")


def _last_layer_only(batch: Batch) -> Check:
    found = _followed(batch)
    return Check.of(found.layer == batch.network.depth - 2, "it goes further down")


@contextmanager
def _all_on() -> Iterator[None]:
    """A step down that lets every neuron through."""
    original: Callable[..., FloatArray] = depth._slope

    def broken(*arguments: Any) -> FloatArray:
        return np.ones_like(original(*arguments))

    def kept(*arguments: Any) -> Any:
        return arguments[2]

    with patch.object(depth, "_slope", broken), patch.object(depth, "_settle", kept):
        yield


STEP = Statement(
    name="relu-depth",
    title="One layer gives the next below",
    sentence=(
        "If error signal and input of every sample at a hidden layer are known, and the error "
        "signals of the layer below are linearly independent, then least squares on that "
        "layer's gradient gives the inputs there, down to the samples; the coefficient of the "
        "bias comes back as 1."
    ),
    formula=r"\delta^{(l)}_i = \sigma'(z^{(l)}_i)\circ W_{l+1}^T\delta^{(l+1)}_i,\qquad "
    r"[H^{(l-1)}, 1] = (\Delta^{(l)})^+ G^{(l)}",
    source="ours",
    hypotheses=(
        Hypothesis(
            "signals",
            "the samples' error signals are linearly independent at every layer",
            lambda batch: _smallest(batch) > _ALMOST,
            _narrow,
        ),
        Hypothesis("slopes", "the value of an activation tells its slope", _told, _smooth),
    ),
    instances=_steps,
    conclusion=_reaches_the_input,
    sabotages=(
        Sabotage("stop", "the last hidden layer is the end", conclusion=_last_layer_only),
        Sabotage("on", "every neuron lets the error signal through", implementation=_all_on),
    ),
    code=("identify.disaggregation.depth.descend",),
    remark=(
        "Uniqueness passes down: each step is a function of the layer above. Where the signals "
        "below are dependent the product ends above them and says so."
    ),
)


# --- ranks of all layers -----------------------------------------------------------------------


def _hidden_pair() -> SearchStrategy[Batch]:
    """Five samples, the last two of one mask at the last hidden layer, and one output."""

    def build(batch: Batch) -> Batch:
        x, slopes = batch.samples.copy(), batch.slopes.copy()
        step = x[-1] - x[0]
        for _ in range(20):
            x[-1] = x[0] + step
            masks = batch.masks(x)
            if (masks[-1][-1] == masks[-1][0]).all():
                break
            step = 0.7 * step
        slopes[-1] = np.sign(slopes[0]) * np.abs(slopes[-1])
        return replace(batch, samples=x, slopes=slopes)

    return drawn(((8, 40, 24, 1), (6, 30, 30, 1)), (3, 4)).map(build)


def _merges_above(batch: Batch) -> bool:
    """Whether two samples share the last mask, and none is lost in the first layer."""
    last, below = batch.masks()[-1], _signals(batch)[0]
    same = bool((last[-1] == last[0]).all())
    values = np.linalg.svd(below, compute_uv=False)
    return same and bool(values[-1] > 1e-3 * values[0])


def _counts(batch: Batch) -> list[int]:
    gradient = batch.gradient()
    layers = [gradient.layer(index) for index in range(batch.network.depth - 1)]
    return [factor(g).rank for g in layers if g is not None]


def _not_globally(batch: Batch) -> Check:
    n, ranks = len(batch.samples), _counts(batch)
    if max(ranks) != n or ranks[-1] >= n:
        return Check.of(False, f"ranks {ranks} of {n} samples")
    found = disaggregate.disaggregate(batch.network, batch.gradient(), prove=False)
    said = f"{found.verdict} among at most {found.rank}: {found.reason}"
    return Check.of(found.verdict != "globally" and f"at least {n}" in found.reason, said)


def _last_rank_counts(batch: Batch) -> Check:
    return Check.of(_counts(batch)[-1] == len(batch.samples), "the last hidden layer sees fewer")


def _upper_layer_only() -> Any:
    """A verdict that looks at the last hidden layer alone."""
    return patch.object(verdict, "_layers", lambda findings: "")


LOWER = Statement(
    name="relu-lower-ranks",
    title="Samples that merge above are seen below",
    sentence=(
        "Two samples with one mask at the last hidden layer and proportional slopes are one "
        "there, and no set of as many samples as its gradient's rank explains the layers below "
        "if these have a larger rank: the verdict is not globally and names the larger number."
    ),
    formula=r"n \ge \max_l\, \mathrm{rank}\, G^{(l)},\qquad "
    r"\mathrm{rank}\, G^{(L-1)} < n = \mathrm{rank}\, G^{(1)}",
    source="ours",
    hypotheses=(
        Hypothesis(
            "pair",
            "two samples share the last mask, and the error signals of the first layer are "
            "linearly independent",
            _merges_above,
            lambda: drawn(((8, 40, 24, 1),), (3, 4)),
        ),
    ),
    instances=lambda: _hidden_pair().filter(_away_from_kinks),
    conclusion=_not_globally,
    sabotages=(
        Sabotage("last", "the last hidden layer sees all samples", conclusion=_last_rank_counts),
        Sabotage("ranks", "ranks of lower layers ignored", implementation=_upper_layer_only),
    ),
    cost="medium",
    code=(
        "identify.disaggregation.factor.factor",
        "identify.disaggregation.disaggregate.disaggregate",
    ),
    remark="The kernel of the last hidden layer has the dimension of its rank here all the same.",
)

STATEMENTS = (STEP, LOWER)
