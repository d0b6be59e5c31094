"""More samples than dimensions of V: what stationary weights never tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from identify import HermiteData
from identify.alternatives import off_span as rules
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.freedom.shadows import (
    Shadow,
    cast_shadow,
    explains,
    is_stationary,
    leaves,
    roundings,
    shadows,
    shake,
    short_span,
)
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.strategies import SampleSet

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _another(shadow: Shadow, *, exactly: bool = False) -> Check:
    """A set that differs by a hundredth and agrees in everything that is said to be known."""
    network, b = shadow.network, shadow.data.coefficients
    x = shadow.data.samples
    read = HermiteData.from_weight_decay
    found = rules.off_span_alternative(read(network), x, b)
    if found is None or len(found.samples) != len(x):
        return Check.of(False, "no other set")
    sizes = np.linalg.norm(x, axis=1)
    lifted = np.linalg.norm(network.lift(x), axis=1)
    apart = float(np.max(np.linalg.norm(found.samples - x, axis=1) / lifted))
    if apart < 1e-2:
        return Check.of(False, f"sets differ by {apart:.1e}")
    factor = 4.0 * roundings(shadow)
    x_new, b_new = found.samples, found.coefficients
    explained = explains(network, x_new, b_new, factor, exactly=exactly)
    if not explained.holds:
        return explained
    lengths = np.abs(np.linalg.norm(found.samples, axis=1) - sizes)
    scale = 32.0 * network.dimension * UNIT * lifted
    kept = float(np.max(lengths / scale))
    same = float(np.max(np.abs(found.coefficients - b)))
    return Check.compare(max(kept, explained.deviation), factor if same == 0.0 else -1.0)


def _none_other(shadow: Shadow) -> Check:
    found = rules.off_span_alternative(
        HermiteData.from_weight_decay(shadow.network),
        shadow.data.samples,
        shadow.data.coefficients,
    )
    return Check.of(found is None)


def _has_room(shadow: Shadow) -> bool:
    """Whether a sample leaves V by more than the axis of the bias (always without a bias)."""
    if not shadow.network.has_bias:
        return True
    return leaves(shadow)


def _lifted_independent(shadow: Shadow) -> bool:
    units = base.unit_rows(shadow.network.lift(shadow.data.samples))
    return bool(base.clear_rank(np.linalg.svd(units, compute_uv=False)) == len(units))


def _is_seen_in_part(shadow: Shadow) -> bool:
    return bool(len(shadow.data.samples) > shadow.basis.shape[1])


def _leaving() -> SearchStrategy[Shadow]:
    """Samples of which one leaves V by a hundredth of its norm at least."""

    return shadows().filter(leaves)


def _flat() -> SearchStrategy[Shadow]:
    """More samples than dimensions, all seen: V is the whole space."""
    from hypothesis import strategies as st

    def build(dimension: int, more: int, degree: int, seed: int) -> Shadow | None:
        rng = np.random.default_rng([seed, dimension])
        samples = rng.standard_normal((dimension + more, dimension))
        b = base.draw_coefficients(len(samples), seed)
        data = SampleSet("generic", samples, b, degree, seed)
        found = cast_shadow(data, 60, bias=False)
        whole = found is not None and found.basis.shape[1] == dimension
        return found if whole else None

    return base.present(
        st.builds(
            build,
            st.integers(1, 3),
            st.integers(1, 2),
            st.sampled_from((3, 5)),
            st.integers(0, 255),
        )
    )


def _full() -> SearchStrategy[Shadow]:
    """As many dimensions of V as samples."""
    drawn = shadows(counts=(2, 3), fewer=False, kinds=("generic", "orthonormal"))
    return drawn.filter(lambda shadow: not _is_seen_in_part(shadow))


def _cramped() -> SearchStrategy[Shadow]:
    """d + 1 samples in d dimensions with a bias, d neurons: only the axis of the bias is left."""
    from hypothesis import strategies as st

    def build(dimension: int, degree: int, seed: int) -> Shadow | None:
        rng = np.random.default_rng([seed, dimension])
        samples = rng.standard_normal((dimension + 1, dimension))
        b = base.draw_coefficients(dimension + 1, seed)
        data = SampleSet("generic", samples, b, degree, seed)
        found = cast_shadow(data, dimension, bias=True)
        ample = found is not None and found.basis.shape[1] == dimension
        return found if ample else None

    return base.present(
        st.builds(build, st.integers(1, 3), st.sampled_from((3, 4)), st.integers(0, 255))
    )


NEVER = Statement(
    name="never-identifiable",
    title="More independent samples than dimensions of V",
    sentence=(
        "Independent samples with n > r = dim V are never determined by stationary weights: "
        "another set has the same n, b, norms, outputs and loss (with a bias if some sample "
        "leaves V by more than the direction of the bias)."
    ),
    formula=r"x_i' = x_{i,V} - x_{i,\perp} \ne x_i,\quad b_i' = b_i,\ "
    r"\lvert x_i'\rvert = \lvert x_i\rvert,\ f(x_i') = f(x_i)",
    source="the reflection off V; ours",
    hypotheses=(
        Hypothesis(
            "stationary",
            "the weights are stationary, as for KKT points and weight decay",
            is_stationary,
            lambda: _leaving().map(shake),
        ),
        Hypothesis(
            "independent", "the (lifted) samples are independent", _lifted_independent, _flat
        ),
        Hypothesis("more", "n > r", _is_seen_in_part, _full),
        Hypothesis(
            "room",
            "with a bias: a sample leaves V by more than the part of the bias axis outside V",
            _has_room,
            _cramped,
        ),
    ),
    instances=_leaving,
    conclusion=_another,
    sabotages=(
        Sabotage("unique", "there is no other set", conclusion=_none_other),
        Sabotage("span", "V a direction short", implementation=short_span),
    ),
    cost="light",
    recheck=lambda shadow: _another(shadow, exactly=True),
    code=("identify.alternatives.off_span.off_span_alternative",),
    remark=(
        "With a bias, V of dimension d and d + 1 affinely independent samples the only direction "
        "outside V is that of the bias: this freedom is then empty."
    ),
)

STATEMENTS = (NEVER,)
