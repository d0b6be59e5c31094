"""Fine-tuning as a source: exact after one step, to first order in the movement after more."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.kkt.sources import slope_rounding, tensor_slopes
from proofs_check.strategies import GradientProblem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, eq=False)
class Descent:
    """Gradient descent on a logistic loss: `steps` steps that move theta by about `movement`.

    `decay` is weight decay, in units of |gradient| / |theta|; `point` where the data are read.
    """

    problem: GradientProblem
    steps: int
    movement: float
    point: str
    decay: float = 0.0

    def __repr__(self) -> str:
        note = f", decay={self.decay:.3g}" if self.decay else ""
        return (
            f"Descent(steps={self.steps}, movement={self.movement:.1g}, {self.point}{note}, "
            f"{self.problem!r})"
        )


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Networks (steps + 1) and the parts of the coefficients (steps, n) that the steps brought."""

    networks: tuple[TwoLayerNetwork, ...]
    shares: FloatArray


def descend(run: Descent) -> Trajectory:
    """Follow theta <- theta - rate (grad loss + decay theta)."""
    net, data = run.problem.network, run.problem.data
    labels = np.sign(data.coefficients)
    networks, shares = [net], []
    rate = decay = 0.0
    for step in range(run.steps):
        pull = labels / (1.0 + np.exp(np.clip(labels * net.value(data.samples), -30.0, 30.0)))
        slope = net.gradient(data.samples, pull)
        if step == 0:
            length = float(np.hypot(np.linalg.norm(slope.hidden_weight),
                                    np.linalg.norm(slope.output_weight)))  # fmt: skip
            size = float(np.hypot(np.linalg.norm(net.hidden_weight),
                                  np.linalg.norm(net.output_weight)))  # fmt: skip
            rate = run.movement * size / length / run.steps
            decay = run.decay * length / size
        net = TwoLayerNetwork(
            net.hidden_weight + rate * (slope.hidden_weight - decay * net.hidden_weight),
            net.output_weight + rate * (slope.output_weight - decay * net.output_weight),
            net.degree,
        )
        networks.append(net)
        shares.append(rate * pull)
    return Trajectory(tuple(networks), np.array(shares))


def first_order_bound(path: Trajectory, data: HermiteData, samples: FloatArray) -> FloatArray:
    """Bound for |rows_j - scales_j T(u_j^(alpha-1), .)|, linear in the movement, shape (m,).

    With s = w . x, |a s^(k) - a' s'^(k)| <= |a - a'| S^k + |a'| k S^(k-1) |x| |w - w'|, S the
    largest |s| on the way, for every step and sample; k = alpha - 1.
    """
    power, points = data.degree - 1, data.points
    heights = data.scales / data.degree
    early = path.networks[:-1]
    away = np.max([np.abs(net.output_weight - heights) for net in early], axis=0)
    moved = np.max([np.linalg.norm(net.hidden_weight - points, axis=1) for net in early], axis=0)
    reach = np.max(
        [np.abs(points @ samples.T)] + [np.abs(net.hidden_weight @ samples.T) for net in early],
        axis=0,
    )
    lengths = np.linalg.norm(samples, axis=1)
    change = away[:, None] * reach**power
    change = change + power * np.abs(heights * moved)[:, None] * reach ** (power - 1) * lengths
    weights = np.sum(np.abs(path.shares), axis=0) * lengths
    bound: FloatArray = data.degree * change @ weights
    return bound


def _deviation(run: Descent, order: int) -> Check:
    path = descend(run)
    net, samples = run.problem.network, run.problem.data.samples
    total = path.shares.sum(axis=0)
    data = HermiteData.from_fine_tuning(path.networks[0], path.networks[-1], point=run.point)
    predicted = data.scales[:, None] * tensor_slopes(data.points, samples, total, data.degree)
    gaps = np.linalg.norm(data.rows - predicted, axis=1)
    bound = first_order_bound(path, data, samples)
    if order == 2:
        bound = bound * run.movement
    # Each step rounds the weights once; the row is a difference of weights.
    stored = 4.0 * (run.steps + 1) * UNIT * np.linalg.norm(net.hidden_weight, axis=1)
    errors = slope_rounding(data.points, samples, total, data.degree)
    # The steps themselves are sums over samples, rounded like one evaluation each.
    allowed = bound + 2.0 * np.abs(data.scales) * errors + stored + 4.0 * UNIT * bound
    return Check.compare(float(np.max(gaps / allowed)), 1.0)


def _first_order(run: Descent) -> Check:
    return _deviation(run, 1)


def _second_order(run: Descent) -> Check:
    return _deviation(run, 2)


def _runs(*, decay: bool = False) -> SearchStrategy[Descent]:
    from hypothesis import strategies as st

    return st.builds(
        Descent,
        strategies.gradient_problems(neurons=(1, 8)),
        st.integers(1, 6),
        st.integers(4, 12).map(lambda k: 10.0 ** (-k / 4.0)),
        st.sampled_from(("initial", "midpoint")),
        st.sampled_from((0.2, 0.5)) if decay else st.just(0.0),
    )


def _endpoint() -> AbstractContextManager[object]:
    """Rows of twice the movement."""
    original = HermiteData.from_fine_tuning

    def broken(initial: TwoLayerNetwork, final: TwoLayerNetwork, **options: Any) -> HermiteData:
        found = original(initial, final, **options)
        return replace(found, rows=2.0 * found.rows)

    return patch.object(HermiteData, "from_fine_tuning", broken)


FINE_TUNING = Statement(
    name="fine-tuning-first-order",
    title="Hermite data of a fine-tuned pair",
    sentence=(
        "After gradient descent (w_j' - w_j)/(alpha a_j) equals T(u_j^(alpha-1), .) to first order "
        "in the movement, T with the summed coefficients, u_j the first weights or the midpoint; "
        "with the first weights and one step it is exact."
    ),
    formula=r"\frac{w_j^{T} - w_j^{0}}{\alpha a_j} = T(u_j^{\alpha-1},\cdot) + "
    r"O(\lVert\theta^{T}-\theta^{0}\rVert)\,\lVert T\rVert,\qquad "
    r"b_i = -\sum_t \eta_t\, \partial\ell_i/\partial f_i",
    source="mean value theorem along the path of gradient descent; ours",
    hypotheses=(
        Hypothesis(
            "no-decay",
            "the steps follow the gradient of the batches' loss alone",
            lambda run: run.decay == 0.0,
            lambda: _runs(decay=True),
        ),
    ),
    instances=_runs,
    conclusion=_first_order,
    sabotages=(
        Sabotage("order", "second order in the movement", conclusion=_second_order),
        Sabotage("rows", "twice the movement", implementation=_endpoint),
    ),
    cost="medium",
    code=("identify.hermite.data.HermiteData.from_fine_tuning",),
    remark=(
        "The bound is computed from the path, not fitted. Where all coefficients have the same "
        "course in time and the steps are small, the midpoint is of second order."
    ),
)

STATEMENTS = (FINE_TUNING,)
