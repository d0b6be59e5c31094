"""The equations of degree 3: the quadratic ones of every neuron times each of the unknowns."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.disaggregation import cp, cubic, relu
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.batches.kernel import (
    OURS,
    has_own_rank,
    live_rows,
    lost_row,
    merged,
    none_but_first,
    other_sign,
)
from proofs_check.statements.batches.signals import (
    Signals,
    apart,
    basis,
    batches,
    kernel_dimension,
    only_these,
    product_operator,
    rank,
)
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def cubic_dimension(batch: Signals) -> int:
    """The dimension of the kernel of degree 3, from a rank modulo a prime."""
    u, a = basis(batch), batch.amplitudes
    r, k = u.shape[1], u.shape[1] + a.shape[1]
    names = [t for t in itertools.combinations_with_replacement(range(k), 3) if t[0] < r]
    place: dict[tuple[int, ...], int] = {name: at for at, name in enumerate(names)}
    rows = np.zeros((len(u) * k, len(names)), dtype=np.int64)
    line = np.hstack([u, a])
    for c in range(k):
        part = rows[c * len(u) : (c + 1) * len(u)]
        for i, j in itertools.combinations_with_replacement(range(k), 2):
            if i < r:
                factor = (1 if i == j else 2) if j < r else -1
                part[:, place[tuple(sorted((i, j, c)))]] += factor * line[:, i] * line[:, j]
    return len(names) - rank(rows)


def product_cubic_dimension(batch: Signals) -> int:
    """That of the product's operator, by its singular values."""
    operator = cubic.build_cubic(product_operator(batch)[0])
    values = np.linalg.svd(operator.apply(np.eye(operator.unknowns)), compute_uv=False)
    return operator.unknowns - int((values > 1e-9 * values[0]).sum())


# --- one set of samples ------------------------------------------------------------------------


def _has_small_kernel(batch: Signals) -> bool:
    return cubic_dimension(batch) == rank(batch.gradient)


def _undecided_by_squares() -> SearchStrategy[Signals]:
    """Batches that the equations of degree 2 leave open and those of degree 3 do not."""
    return batches((5, 9), (2, 3), (1, 1, 2)).filter(
        lambda batch: (
            has_own_rank(batch)
            and kernel_dimension(batch) > rank(batch.gradient)
            and _has_small_kernel(batch)
        )
    )


def _by_product(batch: Signals) -> Check:
    """Whether the product's kernel of degree 3 gives the batch's (delta_i, p_i)."""
    quadratic, u = product_operator(batch)
    operator = cubic.build_cubic(quadratic)
    kernel = relu.find_kernel(operator)
    elements = operator.to_quadratic(kernel.vectors[:, : u.shape[1]])
    terms = cp.decompose_kernel(*quadratic.unpack(elements)[:2])
    found = np.vstack([u @ terms.vectors, terms.cotangents.T])
    true = np.vstack([batch.delta, batch.slopes.T]).astype(np.float64)
    gaps = [
        min(apart(one / np.linalg.norm(one), other / np.linalg.norm(other)) for other in found.T)
        for one in true.T
    ]
    allowed = min(1e-2, 1e6 * UNIT / max(kernel.plain, 1e-300))
    return Check.compare(max(gaps), allowed, "terms of the kernel")


def _one_set(batch: Signals) -> Check:
    check = only_these(batch)
    return _by_product(batch) if check.holds else check


def _swapped_places() -> Any:
    """Products of three unknowns in the places of others."""
    original = cubic.place_products

    def broken(pairs: cubic.Pairs) -> cubic.IntArray:
        slots = original(pairs).copy()
        slots[0] = slots[0][::-1]
        return slots

    return patch.object(cubic, "place_products", broken)


ONE_SET = Statement(
    name="relu-cubic",
    title="A kernel of degree 3 and dimension r leaves one set of samples",
    sentence=(
        "If r samples explain the gradient of the last hidden ReLU layer, r its rank, and the "
        "equations of the neurons times each unknown leave a kernel of dimension r, then its "
        "column space holds the error signals of these samples and no other one, also where the "
        "kernel of L is larger."
    ),
    formula=r"L_3(T)_{jc} = \langle f_j, T_c\rangle,\ T = v^{(3)},\ v = (z, p),\qquad "
    r"\dim\ker L_3 = r \implies \ker L_3 = \mathrm{span}\{v_i^{(3)}\}",
    source=OURS,
    hypotheses=(
        Hypothesis(
            "rank", "there are as many samples as the gradient has rank", has_own_rank, merged
        ),
        Hypothesis(
            "kernel",
            "the kernel of degree 3 has the dimension of that rank",
            _has_small_kernel,
            lambda: batches((2, 5), (2, 3)),
        ),
    ),
    instances=_undecided_by_squares,
    conclusion=_one_set,
    sabotages=(
        Sabotage("first", "one error signal at most", conclusion=none_but_first),
        Sabotage("places", "products in the places of others", implementation=_swapped_places),
        Sabotage("sign", "slopes with the other sign", implementation=other_sign),
    ),
    cost="medium",
    code=(
        "identify.disaggregation.cubic.build_cubic",
        "identify.disaggregation.relu.find_kernel",
    ),
    remark=(
        "The instances are those that the kernel of degree 2 leaves open. All masks are tried, "
        "for up to nine neurons and two outputs."
    ),
)


# --- never less than degree 2, and how many rows -------------------------------------------------


def _inherits(batch: Signals) -> Check:
    found = cubic_dimension(batch)
    agrees = product_cubic_dimension(batch) == found
    return Check.of(found == rank(batch.gradient) and agrees, f"dimension {found}")


def _larger(batch: Signals) -> Check:
    return Check.of(cubic_dimension(batch) > rank(batch.gradient), "no larger")


INHERITS = Statement(
    name="relu-cubic-inherits",
    title="What degree 2 decides, degree 3 decides",
    sentence=(
        "If the kernel of L has the dimension of the gradient's rank r, then so has the kernel of "
        "degree 3."
    ),
    formula=r"\dim\ker L = r \implies \dim\ker L_3 = r",
    source=OURS,
    hypotheses=(
        Hypothesis(
            "kernel",
            "the kernel of L has dimension r",
            lambda batch: kernel_dimension(batch) == rank(batch.gradient),
            lambda: batches((2, 5), (2, 3)),
        ),
    ),
    instances=lambda: batches((6, 9), (1, 2, 3)),
    conclusion=_inherits,
    sabotages=(
        Sabotage("larger", "a larger kernel", conclusion=_larger),
        Sabotage("places", "products in the places of others", implementation=_swapped_places),
    ),
    code=("identify.disaggregation.cubic.CubicOperator",),
    remark="Every slice of an element of the kernel is in that of L.",
)


def _few_rows(batch: Signals) -> Check:
    r, q = rank(batch.gradient), batch.slopes.shape[1]
    least = cubic.count_unknowns(r, q, leaky=False) - live_rows(batch) * (r + q)
    found = cubic_dimension(batch)
    agrees = product_cubic_dimension(batch) == found
    return Check.of(found >= least and agrees, f"dimension {found}, at least {least} expected")


def _few_rows_less(batch: Signals) -> Check:
    r, q = rank(batch.gradient), batch.slopes.shape[1]
    least = cubic.count_unknowns(r, q, leaky=False) - live_rows(batch) * (r + q)
    return Check.of(cubic_dimension(batch) > least, "the bound is attained")


ROWS = Statement(
    name="relu-cubic-rows",
    title="Neurons that the equations of degree 3 ask for",
    sentence=(
        "The kernel of degree 3 has at least dimension D minus r + q for each live neuron, D the "
        "number of monomials of degree 3 in z and p but not in p alone; with one output neurons of "
        "one mask count once."
    ),
    formula=r"\dim\ker L_3 \ge \tbinom{r+q+2}{3} - \tbinom{q+2}{3} "
    r"- (r + q)\,\#\{j : \exists i\ \delta_{ij} \ne 0\}",
    source=OURS,
    hypotheses=(),
    instances=batches,
    conclusion=_few_rows,
    sabotages=(
        Sabotage("more", "one dimension more", conclusion=_few_rows_less),
        Sabotage("row", "a neuron left out", implementation=lost_row),
    ),
    code=("identify.disaggregation.cubic.build_cubic",),
    remark="The products of different neurons are independent as far as was seen.",
)

STATEMENTS = (ONE_SET, INHERITS, ROWS)
