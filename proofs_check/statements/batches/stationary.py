"""Stationary points of two-layer ReLU networks: what patterns cost, and what they determine."""

from __future__ import annotations

import itertools
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.assess_weights import assess_stationary
from identify.model import patterns
from identify.model.deep import DeepNetwork
from identify.planting import relu as planting
from identify.planting.plant import PlantingError
from proofs_check import strategies
from proofs_check.arithmetic.integers import IntegerArray
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.batches.kernel import other_sign
from proofs_check.statements.batches.signals import rank

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KKT = "the KKT system of Lyu & Li 2020; the statement is ours"


# --- what a pattern costs --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Family:
    """Columns b_i [x_i, 1] as a matrix Y (k, n), and patterns (rho, n), integers."""

    columns: IntegerArray
    masks: IntegerArray
    seed: int

    def __repr__(self) -> str:
        (k, n), rho = self.columns.shape, len(self.masks)
        return f"Family(k={k}, n={n}, patterns={rho}, seed={self.seed})"


def _families(kind: str = "independent") -> SearchStrategy[Family]:
    from hypothesis import strategies as st

    def build(count: int, spare: int, share: float, seed: int) -> Family:
        rng = np.random.default_rng([seed, count, spare])
        dimension = max(1, count - 1) if kind == "flat" else count + spare
        columns = rng.integers(-5, 6, (dimension, count))
        every = (np.arange(1, 1 << count)[:, None] >> np.arange(count)) & 1
        chosen: list[IntegerArray] = []
        for row in rng.permutation(every):
            if kind == "any" or rank(_products(np.array([*chosen, row]))) > len(chosen):
                chosen.append(row)
        least = count + 1 if kind == "flat" else 1
        most = len(chosen) if kind != "independent" else max(1, round(share * len(chosen)))
        return Family(columns, np.array(chosen[: max(least, most)]), seed)

    return st.builds(
        build,
        st.integers(2, 5),
        st.integers(0, 3),
        st.floats(0.1, 1.0),
        st.integers(0, strategies.SEEDS),
    )


def _products(masks: IntegerArray) -> IntegerArray:
    """1_S 1_S^T as rows."""
    n = masks.shape[1]
    return (masks[:, :, None] * masks[:, None, :]).reshape(len(masks), n * n)


def _derivatives(family: Family) -> IntegerArray:
    """Y 1_S 1_S^T as rows: half of the gradients of |Y 1_S|^2 in Y."""
    sums = family.masks @ family.columns.T
    return (sums[:, :, None] * family.masks[:, None, :]).reshape(len(family.masks), -1)


def _codimension(family: Family) -> Check:
    found = rank(_derivatives(family))
    counted = patterns.pattern_rank(family.masks > 0)
    rho = len(family.masks)
    return Check.of(found == rho == counted, f"rank {found}, {counted} of {rho} patterns counted")


def _at_most_n(family: Family) -> Check:
    n = family.masks.shape[1]
    return Check.of(rank(_derivatives(family)) <= n, "more than n independent equations")


def _masks_alone() -> AbstractContextManager[object]:
    """The rank of the patterns themselves in the place of that of their products."""
    return patch.object(patterns, "pattern_rank", lambda masks: rank(masks.astype(np.int64)))


CODIMENSION = Statement(
    name="relu-pattern-equations",
    title="Each independent pattern costs one equation",
    sentence=(
        "If the lifted samples are linearly independent, then the equations |v_S|^2 = 1 of "
        "patterns S with linearly independent 1_S 1_S^T have linearly independent derivatives. "
        "So data and multipliers that satisfy rho of them form a set of codimension rho, and data "
        "outside a null set have at most n of them, n being the number of multipliers."
    ),
    formula=r"\partial_Y |Y 1_S|^2 = 2\, Y 1_S 1_S^T,\qquad Y = [x_i, 1]_i\, \mathrm{diag}(b),"
    r"\qquad \dim\mathrm{span}\{1_S 1_S^T : S\ \text{occurs}\} \le n",
    source=KKT,
    hypotheses=(
        Hypothesis(
            "patterns",
            "the matrices 1_S 1_S^T are linearly independent",
            lambda family: rank(_products(family.masks)) == len(family.masks),
            lambda: _families("any"),
        ),
        Hypothesis(
            "samples",
            "the lifted samples are linearly independent",
            lambda family: rank(family.columns) == family.columns.shape[1],
            lambda: _families("flat"),
        ),
    ),
    instances=lambda: _families().filter(
        lambda family: rank(family.columns) == family.columns.shape[1]
    ),
    conclusion=_codimension,
    sabotages=(
        Sabotage("n", "never more than n independent equations", conclusion=_at_most_n),
        Sabotage("masks", "the rank of the patterns themselves", implementation=_masks_alone),
    ),
    code=("identify.model.patterns.pattern_rank",),
    remark=(
        "The kernel asks for n (n + 1) / 2 independent patterns, so for n > 1 it decides about "
        "networks with both layers trained on special data only."
    ),
)


# --- special data ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Equiangular:
    """Samples (n, d) of one label, and the size s that their angles belong to."""

    samples: FloatArray
    size: int
    seed: int

    def __repr__(self) -> str:
        return f"Equiangular(n={len(self.samples)}, s={self.size}, seed={self.seed})"


PAIRS = ((2, 1), (4, 2), (5, 3), (6, 3))


def _equiangular(
    pairs: tuple[tuple[int, int], ...] = PAIRS, noise: float = 0.0
) -> SearchStrategy[Equiangular]:
    from hypothesis import strategies as st

    def build(pair: tuple[int, int], spare: int, seed: int) -> Equiangular:
        n, s = pair
        x = planting.equiangular_samples(n, s, n + 1 + spare, seed=seed)
        x = x + noise * np.random.default_rng([seed, 5]).standard_normal(x.shape)
        return Equiangular(x, s, seed)

    return st.builds(
        build, st.sampled_from(pairs), st.integers(0, 3), st.integers(0, strategies.SEEDS)
    )


def _has_angles(case: Equiangular) -> bool:
    u = np.column_stack([case.samples, np.ones(len(case.samples))])
    gram = u @ u.T
    n = len(gram)
    wanted = gram[0, 0] * (np.eye(n) * (1 + 0.5 / case.size) - 0.5 / case.size)
    return bool(np.abs(gram - wanted).max() < 1e-9 * gram[0, 0])


def _count(case: Equiangular) -> int:
    n, s = len(case.samples), case.size
    return math.comb(n, s) + math.comb(n, s + 1)


def _span(case: Equiangular) -> bool:
    n, s = len(case.samples), case.size
    chosen = [c for k in (s, s + 1) for c in itertools.combinations(range(n), k)]
    masks = np.array([[i in c for i in range(n)] for c in chosen], dtype=np.int64)
    return rank(_products(masks)) == n * (n + 1) // 2


def _special(case: Equiangular) -> Check:
    try:
        planted = planting.plant_relu_network(case.samples, trained="both", seed=case.seed)
    except PlantingError as error:
        return Check.of(False, str(error))
    report = assess_stationary(planted.network, trained="both", seed=case.seed)
    facts, n = report.facts, len(case.samples)
    if facts.directions != _count(case) or report.found.samples is None:
        return Check.of(False, f"{facts.directions} patterns, {report.reason}")
    apart = np.linalg.norm(report.found.samples[:, None] - case.samples, axis=2).min(axis=1)
    near = bool((apart < 1e-6 * np.linalg.norm(case.samples[0])).all())
    full = facts.patterns == n * (n + 1) // 2
    return Check.of(near and full, f"patterns span {facts.patterns}; {report.reason}")


def _n_patterns(case: Equiangular) -> Check:
    planted = planting.plant_relu_network(case.samples, trained="both", seed=case.seed)
    spanned = patterns.pattern_rank(planted.patterns)
    return Check.of(spanned <= len(case.samples), f"the patterns span {spanned}")


SPECIAL = Statement(
    name="relu-kkt-special",
    title="Special data determine themselves with both layers trained",
    sentence=(
        "Samples of one label with equal norms and inner products -1/(2 s) of their square, the "
        "bias counted, are those of a KKT point with margins 1 whose patterns are all sets of s "
        "and s + 1 samples; if these span all symmetric matrices, the weights give the samples "
        "back."
    ),
    formula=r"[x_i, 1]\cdot[x_k, 1] = -\tfrac{1}{2s}\,|[x_i, 1]|^2,\quad 2s > n - 1 \implies "
    r"|v_S| = 1\ \text{for}\ |S| \in \{s, s+1\}",
    source=KKT,
    hypotheses=(
        Hypothesis(
            "angles",
            "all norms are equal, and all inner products -1/(2 s) of their square",
            _has_angles,
            lambda: _equiangular(noise=0.1),
        ),
        Hypothesis(
            "span",
            "the sets of s and s + 1 samples span all symmetric matrices",
            _span,
            lambda: _equiangular(((3, 2), (4, 3), (5, 4), (6, 4))),
        ),
    ),
    instances=_equiangular,
    conclusion=_special,
    sabotages=(
        Sabotage("n", "the patterns span n dimensions at most", conclusion=_n_patterns),
        Sabotage("sign", "slopes with the other sign", implementation=other_sign),
    ),
    cost="heavy",
    code=(
        "identify.planting.relu.plant_relu_network",
        "identify.assess_weights.assess_stationary",
    ),
    remark=(
        "n = 4 has 10 patterns, n = 8 has 126. Their number is not enough: for n = 6 and s = 4 "
        "there are 21, and they span 16 dimensions. Slightly changed data have no such point."
    ),
)


# --- the output layer fixed -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HiddenTrained:
    """A planted network with the output layer fixed, and one that may differ from it."""

    planted: planting.PlantedRelu
    network: DeepNetwork
    masks: FloatArray

    def __repr__(self) -> str:
        return f"HiddenTrained(n={len(self.planted.samples)}, {self.network!r})"


def _hidden(kind: str = "full") -> SearchStrategy[HiddenTrained]:
    from hypothesis import assume
    from hypothesis import strategies as st

    @st.composite
    def cases(draw: st.DrawFn) -> HiddenTrained:
        count, seed = draw(st.integers(3, 5)), draw(st.integers(0, strategies.SEEDS))
        rng = np.random.default_rng([seed, count])
        x = rng.standard_normal((count, count + 6))
        x -= x.mean(axis=0)
        x *= 5.0 / np.linalg.norm(x, axis=1, keepdims=True)
        planted = planting.plant_relu_network(x, kind="regression", copies=2, seed=seed)
        assume(planted.determined)
        keep = np.arange(len(planted.patterns))
        if kind == "few":
            keep = keep[: 2 * count]
        scale = rng.uniform(0.5, 2.0, len(keep)) if kind == "scaled" else np.ones(len(keep))
        hidden, bias = planted.network.weights[0], planted.network.biases[0]
        assert bias is not None
        network = DeepNetwork(
            [hidden[keep] * scale[:, None], planted.network.weights[1][:, keep]],
            [bias[keep] * scale, None],
            "relu",
        )
        return HiddenTrained(planted, network, planted.patterns[keep].astype(float))

    return cases()


def _is_stationary(case: HiddenTrained) -> bool:
    b = case.planted.coefficients[:, None]
    again = case.network.gradient(case.planted.samples, b).weights[0]
    assert again is not None
    gap = np.linalg.norm(again - case.network.weights[0])
    return bool(gap < 1e-9 * np.linalg.norm(again))


def _is_full(case: HiddenTrained) -> bool:
    n = len(case.planted.samples)
    return patterns.pattern_rank(case.masks > 0) == n * (n + 1) // 2


def _kernel_decides(case: HiddenTrained) -> Check:
    report = assess_stationary(case.network, "weight-decay", trained="hidden")
    found, x = report.found, case.planted.samples
    if found.samples is None or found.method != "kernel" or len(found.samples) != len(x):
        return Check.of(False, report.reason)
    apart = np.linalg.norm(found.samples[:, None] - x, axis=2).min(axis=1)
    near = bool((apart < 1e-6 * np.linalg.norm(x[0])).all())
    proved = found.printed is not None and found.printed.holds is True
    return Check.of(near and proved, report.reason)


def _as_both(case: HiddenTrained) -> Check:
    report = assess_stationary(case.network, "weight-decay", trained="both")
    return Check.of(report.verdict == "globally", report.reason)


HIDDEN = Statement(
    name="relu-stationary",
    title="With the output layer fixed, many patterns determine the samples",
    sentence=(
        "At a stationary point in the hidden layer alone the weights are one gradient of "
        "themselves. If the patterns of the neurons span all symmetric n x n matrices, the "
        "kernel of L leaves one set of at most n samples, and gives it."
    ),
    formula=r"[w_j, \beta_j] = a_j \textstyle\sum_{i\in S_j} b_i\, [x_i, 1],\quad "
    r"\mathrm{span}\{1_S 1_S^T\} = \mathrm{Sym}^2(\mathbb{R}^n) \implies \dim\ker L = n",
    source=KKT,
    hypotheses=(
        Hypothesis(
            "stationary",
            "the hidden layer is stationary",
            _is_stationary,
            lambda: _hidden("scaled"),
        ),
        Hypothesis(
            "patterns",
            "the patterns span all symmetric matrices",
            _is_full,
            lambda: _hidden("few"),
        ),
    ),
    instances=_hidden,
    conclusion=_kernel_decides,
    sabotages=(
        Sabotage("both", "with both layers trained as well", conclusion=_as_both),
        Sabotage("sign", "slopes with the other sign", implementation=other_sign),
    ),
    cost="heavy",
    code=("identify.assess_weights.assess_stationary",),
    remark="Samples on the kink of a neuron are outside: a set with one is not excluded.",
)

STATEMENTS = (CODIMENSION, SPECIAL, HIDDEN)
