"""Sets of samples that explain the gradient of a few ReLU neurons, by all masks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.disaggregation import few_neurons
from identify.disaggregation.factor import factor
from identify.model.deep import DeepNetwork
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.batches.networks import Batch, drawn

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Masks = tuple[tuple[bool, ...], ...]
_SMALL = 1e-9


def _explain(batch: Batch, sets: Iterable[tuple[tuple[bool, ...], ...]]) -> list[Masks]:
    """Those sets of masks whose samples, by least squares, have them and the gradient."""
    gradient = batch.first_gradient()
    weight, bias = batch.network.weights[0], batch.bias
    amplitudes = batch.network.weights[1][0]
    rank = int(np.linalg.matrix_rank(gradient, tol=_SMALL * np.linalg.norm(gradient)))
    found = []
    for masks in sets:
        on = np.array(masks).T
        delta = amplitudes[:, None] * on
        if len(masks) < rank or np.linalg.matrix_rank(delta, tol=_SMALL) < len(masks):
            continue
        lifted = np.linalg.lstsq(delta, gradient, rcond=None)[0]
        if np.linalg.norm(delta @ lifted - gradient) > _SMALL * np.linalg.norm(gradient):
            continue
        if np.abs(lifted[:, -1]).min() < _SMALL:
            continue
        samples = lifted[:, :-1] / lifted[:, -1:]
        if ((weight @ samples.T + bias[:, None] > 0.0) == on).all():
            found.append(tuple(sorted(masks)))
    return found


def _every_mask(neurons: int) -> list[tuple[bool, ...]]:
    return [bits for bits in itertools.product((False, True), repeat=neurons) if any(bits)]


@lru_cache(maxsize=512)
def _of_column_space(batch: Batch) -> tuple[Masks, ...]:
    """Sets of r masks of the column space that explain the gradient."""
    gradient = batch.first_gradient()
    rank = int(np.linalg.matrix_rank(gradient, tol=_SMALL * np.linalg.norm(gradient)))
    u = np.linalg.svd(gradient)[0][:, :rank]
    amplitudes = batch.network.weights[1][0]

    def within(mask: tuple[bool, ...]) -> bool:
        signal = amplitudes * np.array(mask)
        return bool(np.linalg.norm(signal - u @ (u.T @ signal)) < _SMALL * np.linalg.norm(signal))

    listed = [mask for mask in _every_mask(len(amplitudes)) if within(mask)]
    return tuple(_explain(batch, itertools.combinations(listed, rank)))


def explaining_sets(batch: Batch) -> list[Masks]:
    """Sets of at most n masks, of all masks, that explain the gradient."""
    every = _every_mask(batch.network.widths[0])
    sizes = range(1, len(batch.samples) + 1)
    return _explain(batch, (s for k in sizes for s in itertools.combinations(every, k)))


def _true(batch: Batch) -> Masks:
    return tuple(sorted(tuple(bool(on) for on in row) for row in batch.masks()[0]))


def _has_own_rank(batch: Batch) -> bool:
    gradient = batch.first_gradient()
    values = np.linalg.svd(gradient, compute_uv=False)
    n = len(batch.samples)
    # Nearly dependent samples are no instance: rounding would decide.
    return bool(n < len(values) and values[n - 1] > 1e-3 * values[0])


def _single(batch: Batch) -> bool:
    return len(_of_column_space(batch)) == 1


def _problems() -> SearchStrategy[Batch]:
    from hypothesis import strategies as st

    pairs = drawn(tuple((3, m, 1) for m in (3, 4, 5)), (1, 2, 2))
    return st.one_of(pairs, drawn(((3, 4, 1),), (3,))).filter(_used)


def _exchangeable() -> SearchStrategy[Batch]:
    """Three samples of disjoint masks, for which -x_1 + x_2 + x_3 and so on may stand."""

    def build(batch: Batch) -> Batch:
        rng = np.random.default_rng([batch.seed, 3])
        groups = np.array([0, 1, 2, int(rng.integers(3))])
        z = np.where(groups[:, None] == np.arange(3), 1.0, -1.0) * rng.uniform(0.5, 1.0, (4, 3))
        lifted = np.column_stack([batch.samples, np.ones(3)])
        rows = np.linalg.lstsq(lifted, z.T, rcond=None)[0].T
        network = DeepNetwork(
            [rows[:, :-1], batch.network.weights[1]], [rows[:, -1], batch.network.biases[1]], "relu"
        )
        return replace(batch, network=network, slopes=np.ones((3, 1)))

    return drawn(((3, 4, 1),), (3,)).map(build)


def _used(batch: Batch) -> bool:
    """No sample is dead, no neuron unused, and none is near a kink."""
    z = batch.network.forward(batch.samples).preactivations[0]
    on = z > 0.0
    return bool(on.any(axis=1).all() and on.any(axis=0).all() and np.abs(z).min() > 1e-3)


def _only_set(batch: Batch) -> Check:
    found = explaining_sets(batch)
    if found != [_true(batch)]:
        return Check.of(False, f"{len(found)} sets of at most {len(batch.samples)} samples")
    return _by_product(batch)


def _by_product(batch: Batch) -> Check:
    """What the product decides from its own list is this set, and it decides where it can."""
    gradient = batch.first_gradient()
    split = factor(gradient, rank=len(batch.samples))
    amplitudes = batch.network.weights[1][0]
    listed = few_neurons.list_masks(split, amplitudes)
    if not listed.complete:
        return Check.of(True)
    weight, bias = batch.network.weights[0], batch.bias
    chosen = few_neurons.select_set(listed, split, amplitudes, weight, bias)
    if chosen.masks is None:
        return Check.of(False, f"the product is left with {chosen.consistent} sets")
    masks = tuple(sorted(tuple(bool(on) for on in row) for row in chosen.masks.T))
    return Check.of(masks == _true(batch), "the product's set is another one")


def _fewer(batch: Batch) -> Check:
    every = _every_mask(batch.network.widths[0])
    n = len(batch.samples)
    sets = itertools.chain.from_iterable(itertools.combinations(every, k) for k in range(1, n))
    return Check.of(n == 1 or bool(_explain(batch, sets)), "no smaller set explains it")


def _equal_masks() -> SearchStrategy[Batch]:
    """Two samples of one mask, which are one."""

    def again(batch: Batch) -> Batch:
        x = batch.samples.copy()
        x[-1] = x[0] + 1e-3 * x[-1]
        slopes = np.abs(batch.slopes)
        return replace(batch, samples=x, slopes=slopes)

    return drawn(tuple((3, m, 1) for m in (3, 4, 5)), (2,)).map(again).filter(_used)


def _unlisted() -> Any:
    """A list that leaves out its last mask."""
    original = few_neurons._meet

    def broken(*arguments: Any) -> tuple[list[tuple[Any, Any]], str]:
        found, reason = original(*arguments)
        return found[:-1], reason

    return patch.object(few_neurons, "_meet", broken)


def _impossible() -> Any:
    """Linear programs that take out masks with more neurons on than off."""

    def broken(mask: Any, *_: Any) -> bool:
        return bool(2 * np.sum(mask) > len(mask))

    return patch.object(few_neurons, "_impossible", broken)


ONLY_SET = Statement(
    name="relu-mask-list",
    title="A complete list of masks leaves one set of samples",
    sentence=(
        "If r samples explain the gradient of a ReLU layer of rank r, then every set of at most r "
        "samples that does has exactly r, each with its error signal in the column space; so if "
        "one choice of r masks of that space agrees with all signs, no other set of at most r "
        "samples explains it."
    ),
    formula=r"G = \Delta\,\mathrm{diag}(c)\,[X, 1],\ |\Delta| \le r = \mathrm{rank}\, G \implies "
    r"\delta_i \in \mathrm{col}\, G",
    source="ours",
    hypotheses=(
        Hypothesis(
            "rank",
            "there are as many samples as the gradient has rank",
            _has_own_rank,
            _equal_masks,
        ),
        Hypothesis(
            "single",
            "one set of r masks of the column space agrees with the signs",
            _single,
            _exchangeable,
        ),
    ),
    instances=_problems,
    conclusion=_only_set,
    sabotages=(
        Sabotage("fewer", "fewer samples explain it too", conclusion=_fewer),
        Sabotage("list", "a mask left out of the list", implementation=_unlisted),
        Sabotage("programs", "masks taken out that are possible", implementation=_impossible),
    ),
    cost="medium",
    code=(
        "identify.disaggregation.few_neurons.list_masks",
        "identify.disaggregation.few_neurons.select_set",
    ),
    remark=(
        "All sets of at most r of all masks are tried, for up to five neurons and three samples. "
        "Two samples never need the second hypothesis: a sample cannot have two masks. The "
        "product may keep a mask that it cannot exclude: it then says undecided, and never "
        "another set."
    ),
)

STATEMENTS = (ONLY_SET,)
