"""Pairs off the points: one sample becomes two, whatever the activation."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.alternatives import off_span as freedom
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness import readings
from proofs_check.statements.uniqueness.explanations import Explained

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

PAIRS = "Refael, Smorodinsky, Lindenbaum & Safran 2026 (splitting off the span), any activation"


@dataclass(frozen=True, eq=False)
class Pair:
    """Data, and how far the two halves of a sample are moved apart, relative to its norm."""

    explained: Explained
    distance: float

    def __repr__(self) -> str:
        return f"Pair(distance={self.distance:g}, {self.explained!r})"


def _confined(*, room: bool = True) -> SearchStrategy[Explained]:
    """One gradient whose neurons lie in a proper subspace, or with `room` False in none."""
    from hypothesis import strategies as st

    def build(count: int, width: int, kind: str, degree: int, bias: bool, seed: int) -> Explained:
        samples = strategies.draw_samples(kind, count, count + 1, seed)
        rng = np.random.default_rng([seed, 12])
        kept = rng.standard_normal((count, count + 1)) if room else None
        number = width if room else width + count + 2
        b = base.draw_coefficients(count, seed)
        found = base.gradient_data(samples, b, degree, number, kind, seed, kept)
        return readings.with_bias(found) if bias else found

    return st.builds(
        build,
        st.integers(1, 4),
        st.integers(1, 8),
        st.sampled_from(strategies.present(strategies.KINDS)),
        st.sampled_from((3, 4, 5)),
        st.booleans(),
        st.integers(0, strategies.SEEDS),
    )


def _stationary() -> SearchStrategy[Explained]:
    """Points stationary under weight decay, in one dimension more than their samples."""

    def build(point: strategies.StationaryPoint) -> Explained:
        net, data = point.network, point.data
        wide = TwoLayerNetwork(
            np.pad(net.hidden_weight, ((0, 0), (0, 1))), net.output_weight, net.degree
        )
        return Explained(
            HermiteData.from_weight_decay(wide),
            np.pad(data.samples, ((0, 0), (0, 1))),
            data.coefficients,
            data.kind,
            data.seed,
        )

    return strategies.stationary_points(3, 4).map(build)


def _pairs(*, room: bool = True) -> SearchStrategy[Pair]:
    from hypothesis import strategies as st

    drawn = st.one_of(_confined(), _stationary()) if room else _confined(room=False)
    return st.builds(Pair, drawn, st.sampled_from((1e-3, 0.5, 1.0, 30.0)))


def _has_room(pair: Pair) -> bool:
    points = pair.explained.data.network.hidden_weight
    rank = base.clear_rank(np.linalg.svd(points, compute_uv=False))
    return rank is not None and rank < points.shape[1]


def _two_for_one(pair: Pair, share: float = 1.0, *, exactly: bool = False) -> Check:
    explained = pair.explained
    before = explained.samples, explained.coefficients
    found = freedom.nu_pair_alternative(
        explained.data, *before, distance=pair.distance, seed=explained.seed
    )
    if found is None:
        return Check.of(False, "no direction is free")
    after = found.samples, share * found.coefficients
    # (nu, 0) is orthogonal to the points up to their own rounding, the bias's included, and to
    # a weak direction among them, or of the bias's axis off them, up to that of the strongest.
    points = np.linalg.norm(explained.data.points, axis=1)
    lengths = np.linalg.norm(explained.data.network.hidden_weight, axis=1)
    values = np.linalg.svd(explained.data.points, compute_uv=False)
    values = values[values > 1e-9 * values[0]]
    grown = float(np.max(points / lengths) * values[0] / values[-1])
    # The rounding of w . nu is that of |w| |nu|, whatever the zeros of w.
    hidden, sizes = explained.data.network.hidden_weight, np.linalg.norm(found.samples, axis=1)
    inner = np.abs(hidden) @ np.abs(found.samples).T
    grown *= float(np.max(np.outer(lengths, sizes) / np.maximum(inner, 1e-300)))
    if explained.data.has_bias:
        basis = np.linalg.svd(explained.data.points)[2][: len(values)]
        outside = float(np.sqrt(max(0.0, 1.0 - np.sum(basis[:, -1] ** 2))))
        grown /= max(outside, 1e-8) if outside > 1e-7 else 1.0
    return base.compare_sets(explained.data.network, before, after, grown, exactly=exactly)


def _full_coefficients(pair: Pair) -> Check:
    return _two_for_one(pair, 2.0)


def _seen_directions() -> AbstractContextManager[object]:
    """Directions with a part that the neurons see."""
    original = freedom.free_directions

    def broken(data: Any, basis: FloatArray, count: int, **options: Any) -> FloatArray:
        return original(data, basis, count, **options) + 0.1 * basis[:, :1]

    return patch.object(freedom, "free_directions", broken)


def _pair_algebra() -> bool:
    """One neuron with a bias and an arbitrary activation; every neuron stands for itself."""
    import sympy as sp

    s = sp.Function("s")
    a, b, h, t = sp.symbols("a b h t")
    w = sp.Matrix(sp.symbols("w1:3"))
    x = sp.Matrix(sp.symbols("x1:3"))
    nu = t * sp.Matrix([-w[1], w[0]])

    def slopes(sample: sp.Matrix) -> list[sp.Expr]:
        z = sp.expand((w.T * sample)[0]) + h
        return [s(z), *(a * s(z).diff(h) * entry for entry in sample), a * s(z).diff(h)]

    one, plus, minus = slopes(x), slopes(x + nu), slopes(x - nu)
    rows = zip(one, plus, minus, strict=True)
    return all(sp.simplify(b * p - b * q / 2 - b * r / 2) == 0 for p, q, r in rows)


NU_PAIRS = Statement(
    name="pairs-off-the-points",
    title="One sample becomes two",
    sentence=(
        "If nu is orthogonal to every point, then x_i + nu and x_i - nu with half of b_i each "
        "explain whatever x_i explains, for any nu (with a bias: for (nu, 0))."
    ),
    formula=r"\nu \perp u_j\ \forall j \implies \{(x_i, b_i)\} \sim "
    r"\{(x_i \pm \nu, b_i/2)\}",
    source=PAIRS,
    hypotheses=(
        Hypothesis(
            "room",
            "the points do not span the input space",
            _has_room,
            lambda: _pairs(room=False),
        ),
    ),
    instances=_pairs,
    conclusion=_two_for_one,
    sabotages=(
        Sabotage("halves", "both with the whole of b_i", conclusion=_full_coefficients),
        Sabotage("direction", "nu that a neuron sees", implementation=_seen_directions),
    ),
    cost="light",
    algebra=_pair_algebra,
    recheck=lambda pair: _two_for_one(pair, exactly=True),
    algebra_note="gradients of a s(w . x + h) for any activation s, d = 2, nu orthogonal to w",
    code=("identify.alternatives.off_span.nu_pair_alternative",),
)

STATEMENTS = (NU_PAIRS,)
