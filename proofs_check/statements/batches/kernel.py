"""The kernel of the operator L decides whether a gradient has one explanation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.disaggregation import relu
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.batches.signals import (
    Signals,
    batches,
    by_product,
    draw,
    kernel_dimension,
    only_these,
    product_kernel_dimension,
    rank,
)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

OURS = "ours"


# --- one set of samples ------------------------------------------------------------------------


def has_own_rank(batch: Signals) -> bool:
    return rank(batch.gradient) == len(batch.slopes)


def _has_small_kernel(batch: Signals) -> bool:
    return kernel_dimension(batch) == rank(batch.gradient)


def _determined() -> SearchStrategy[Signals]:
    return batches((6, 9)).filter(_has_small_kernel)


def _one_set(batch: Signals) -> Check:
    check = only_these(batch)
    return by_product(batch) if check.holds else check


def merged() -> SearchStrategy[Signals]:
    """A last sample that has the mask of another one, and a multiple of its slope."""

    def again(batch: Signals) -> Signals:
        masks, slopes = batch.masks.copy(), batch.slopes.copy()
        masks[:, -1], slopes[-1] = masks[:, 0], 2 * slopes[0]
        return replace(batch, masks=masks, slopes=slopes)

    return batches((6, 9), (2, 3)).map(again)


def none_but_first(batch: Signals) -> Check:
    return Check.of(batch.masks.shape[1] < 2, "more than one error signal")


def _products_without_root() -> Any:
    """Off-diagonal products without their factor root 2."""
    return patch.object(relu, "_ROOT2", 1.0)


@contextmanager
def other_sign() -> Iterator[None]:
    """The slopes with the other sign in the operator."""
    original: Callable[..., FloatArray] = relu.Operator._rows

    def broken(self: relu.Operator, rows: slice) -> FloatArray:
        block = original(self, rows).copy()
        r = self.basis.shape[1]
        block[:, r * (r + 1) // 2 :] *= -1.0
        return block

    with patch.object(relu.Operator, "_rows", broken):
        yield


ONE_SET = Statement(
    name="relu-kernel",
    title="A kernel of dimension r leaves one set of samples",
    sentence=(
        "If r samples explain the gradient of the last hidden ReLU layer, r its rank, and the "
        "kernel of L has dimension r, then its column space holds the error signals of these "
        "samples and no other one, so that no other set of at most r samples explains it; a "
        "decomposition of the kernel into r terms gives them with their loss slopes."
    ),
    formula=r"L(Z, P)_j = u_j^T Z u_j - u_j^T P A_j,\qquad \dim\ker L = r \implies "
    r"\ker L = \mathrm{span}\{(z_i z_i^T, z_i p_i^T)\}",
    source=OURS,
    hypotheses=(
        Hypothesis(
            "rank", "there are as many samples as the gradient has rank", has_own_rank, merged
        ),
        Hypothesis(
            "kernel",
            "the kernel of L has the dimension of that rank",
            _has_small_kernel,
            lambda: batches((2, 5), (2, 3)),
        ),
    ),
    instances=_determined,
    conclusion=_one_set,
    sabotages=(
        Sabotage("first", "one error signal at most", conclusion=none_but_first),
        Sabotage("root", "products without root 2", implementation=_products_without_root),
        Sabotage("sign", "slopes with the other sign", implementation=other_sign),
    ),
    cost="medium",
    code=(
        "identify.disaggregation.relu.find_kernel",
        "identify.disaggregation.cp.decompose_kernel",
    ),
    remark=(
        "Masks, amplitudes, slopes and inputs are integers, and both dimensions are exact. All "
        "masks are tried, for up to nine neurons and two outputs. This is about uniqueness "
        "alone: that samples exist is checked apart, by sending them through the network."
    ),
)


# --- how large the kernel has to be ------------------------------------------------------------


def live_rows(batch: Signals) -> int:
    """Rows that some sample uses; for one output those of different masks."""
    live = batch.masks[batch.masks.any(axis=1)]
    return len(np.unique(live, axis=0)) if batch.slopes.shape[1] == 1 else len(live)


def _few_rows(batch: Signals) -> Check:
    least = batch.unknowns - live_rows(batch)
    found = kernel_dimension(batch)
    agrees = product_kernel_dimension(batch) == found
    return Check.of(found >= least and agrees, f"dimension {found}, at least {least} expected")


def _few_rows_less(batch: Signals) -> Check:
    found = kernel_dimension(batch)
    return Check.of(found > batch.unknowns - live_rows(batch), "the bound is attained")


@contextmanager
def lost_row() -> Iterator[None]:
    """An operator that leaves out its last neuron."""
    original: Callable[..., FloatArray] = relu.Operator._rows

    def broken(self: relu.Operator, rows: slice) -> FloatArray:
        block = original(self, rows).copy()
        block[-1] = 0.0
        return block

    with patch.object(relu.Operator, "_rows", broken):
        yield


FEW_ROWS = Statement(
    name="relu-rows",
    title="Too few neurons leave a larger kernel",
    sentence=(
        "The kernel of L has at least D minus the number of live neurons as dimension, "
        "D = r (r + 1) / 2 + r q; with one output neurons of one mask count once, so that r (r + "
        "1) / 2 different masks are needed for a kernel of dimension r."
    ),
    formula=r"\dim\ker L \ge \tfrac{r(r+1)}{2} + r q - \#\{j : \exists i\ \delta_{ij} \ne 0\}",
    source=OURS,
    hypotheses=(),
    instances=batches,
    conclusion=_few_rows,
    sabotages=(
        Sabotage("more", "one dimension more", conclusion=_few_rows_less),
        Sabotage("row", "a neuron left out", implementation=lost_row),
    ),
    code=("identify.disaggregation.relu.Operator",),
    remark=(
        "Generic masks attain the bound. A larger kernel is no proof that there are two sets: "
        "the verdict is undecided."
    ),
)


# --- samples of one mask, and a sample that is always on ----------------------------------------


def _grouped(kind: str) -> SearchStrategy[Signals]:
    from hypothesis import strategies as st

    def build(neurons: int, size: int, others: int, seed: int) -> Signals:
        outputs = max(2, size) if kind != "dependent" else 1
        batch = draw(neurons, size + others, outputs, seed)
        masks = batch.masks.copy()
        if kind != "masks":
            masks[:, :size] = masks[:, :1]
        return replace(batch, masks=masks)

    return st.builds(
        build,
        st.integers(8, 14),
        st.integers(2, 3),
        st.integers(0, 1),
        st.integers(0, strategies.SEEDS),
    )


def _group(batch: Signals) -> int:
    """The number of leading samples that share the first mask."""
    same = (batch.masks == batch.masks[:, :1]).all(axis=0)
    return int(np.argmin(same)) if not same.all() else len(same)


def _one_mask(batch: Signals) -> Check:
    g, r = max(2, _group(batch)), batch.masks.shape[1]
    found = kernel_dimension(batch)
    agrees = product_kernel_dimension(batch) == found
    return Check.of(found >= r + g * (g - 1) and agrees, f"dimension {found}, r={r}, g={g}")


def _one_mask_more(batch: Signals) -> Check:
    g, r = _group(batch), batch.masks.shape[1]
    return Check.of(kernel_dimension(batch) > r + g * (g - 1), "the bound is attained")


ONE_MASK = Statement(
    name="relu-kernel-one-mask",
    title="Samples of one mask enlarge the kernel",
    sentence=(
        "g samples of one mask whose loss slopes are linearly independent add g (g - 1) to the "
        "dimension of the kernel of L."
    ),
    formula=r"\dim\ker L \ge r + g(g-1),\qquad "
    r"(\tfrac{z_i z_k^T + z_k z_i^T}{2},\ z_i p_k^T) \in \ker L",
    source=OURS,
    hypotheses=(
        Hypothesis(
            "mask",
            "the samples have one mask",
            lambda batch: _group(batch) >= 2,
            lambda: _grouped("masks"),
        ),
        Hypothesis(
            "slopes",
            "error signals and loss slopes of these samples are linearly independent",
            lambda batch: (
                rank(batch.gradient) == batch.masks.shape[1]
                and rank(batch.slopes[: max(2, _group(batch))]) == max(2, _group(batch))
            ),
            lambda: _grouped("dependent"),
        ),
    ),
    instances=lambda: _grouped("same"),
    conclusion=_one_mask,
    sabotages=(
        Sabotage("more", "one dimension more", conclusion=_one_mask_more),
        Sabotage("row", "a neuron left out", implementation=lost_row),
    ),
    code=("identify.disaggregation.relu.Operator",),
    remark="With proportional slopes the samples are one, and the rank is smaller.",
)


def _always_on(kind: str = "on") -> SearchStrategy[Signals]:
    def build(batch: Signals) -> Signals:
        masks = batch.masks.copy()
        masks[:, 0] = 1
        if kind == "off":
            masks[0, 0] = 0
        masks[masks.sum(axis=1) == 0, -1] = 1
        return replace(batch, masks=masks)

    return batches((9, 14), (2, 3)).map(build)


def _all_always_on() -> SearchStrategy[Signals]:
    """One output, and the mask of the first sample for all."""

    def build(batch: Signals) -> Signals:
        return replace(batch, masks=np.repeat(batch.masks[:, :1], batch.masks.shape[1], axis=1))

    return batches((9, 14), (2, 3), (1,)).map(build)


def _on_everywhere(batch: Signals) -> Check:
    found, r = kernel_dimension(batch), batch.masks.shape[1]
    agrees = product_kernel_dimension(batch) == found
    return Check.of(found >= 2 * r - 1 and agrees, f"dimension {found} at rank {r}")


def _on_everywhere_more(batch: Signals) -> Check:
    return Check.of(kernel_dimension(batch) > 2 * batch.masks.shape[1] - 1, "attained")


ALWAYS_ON = Statement(
    name="relu-kernel-always-on",
    title="A sample that is on everywhere hides the others",
    sentence=(
        "If one of the samples is active on every live neuron, then the kernel of L has at least "
        "dimension 2 r - 1, so that it never leaves one set by itself for r > 1."
    ),
    formula=r"A p_0 \in \mathrm{col}\, G \implies \dim\ker L \ge 2r - 1",
    source=OURS,
    hypotheses=(
        Hypothesis(
            "on",
            "the first sample is active on every live neuron",
            lambda batch: bool((batch.masks[:, 0] == batch.masks.any(axis=1)).all()),
            lambda: _always_on("off"),
        ),
        Hypothesis(
            "rank",
            "there are as many samples as the gradient has rank",
            has_own_rank,
            _all_always_on,
        ),
    ),
    instances=_always_on,
    conclusion=_on_everywhere,
    sabotages=(
        Sabotage("more", "one dimension more", conclusion=_on_everywhere_more),
        Sabotage("row", "a neuron left out", implementation=lost_row),
    ),
    code=("identify.disaggregation.relu.Operator",),
    remark=(
        "The terms are those of z_i with the always-active sample. For one output and few neurons "
        "the complete list of masks decides such cases."
    ),
)

STATEMENTS = (ONE_SET, FEW_ROWS, ONE_MASK, ALWAYS_ON)
