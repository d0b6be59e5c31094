"""Hermite data of stationary points agree with the moment tensor."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify import HermiteData, numerical_rank
from identify.arrays import FloatArray
from identify.tensors import hermite_matrix, monomials, symmetric_dimension
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import STATIONARY, UNIT, is_stationary, perturbed, rounding
from proofs_check.strategies import StationaryPoint

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def no_threshold() -> AbstractContextManager[object]:
    """Ranks that count every singular value."""
    original = numerical_rank.decide_rank

    def broken(
        values: FloatArray, threshold: float, tail: float = 0.0
    ) -> numerical_rank.RankDecision:
        return original(values, 0.0, tail)

    return patch.object(numerical_rank, "decide_rank", broken)


def tensor_slopes(
    points: FloatArray, samples: FloatArray, coefficients: FloatArray, degree: int
) -> FloatArray:
    """T(u_j^(alpha-1), .) by the dense matrix H on the coordinates of T, shape (m, r)."""
    coordinates = coefficients @ monomials(samples, degree)
    rows: FloatArray = hermite_matrix(points, degree) @ coordinates
    return rows.reshape(points.shape)


def slope_rounding(
    points: FloatArray, samples: FloatArray, coefficients: FloatArray, degree: int
) -> FloatArray:
    """Rounding of `tensor_slopes`, shape (m,).

    An entry is a sum over N monomials of sums over n samples, each with about 3 alpha roundings;
    the moduli add up to sum_i |b_i| (|u_j| . |x_i|)^(alpha-1) |x_i| with entrywise moduli.
    """
    size, dimension = samples.shape
    inner = np.abs(points) @ np.abs(samples).T
    moduli = (inner ** (degree - 1) * np.abs(coefficients)) @ np.abs(samples)
    terms = symmetric_dimension(degree, dimension) + size + 3 * degree + dimension
    return np.asarray(2.0 * terms * UNIT * np.linalg.norm(moduli, axis=1))


@dataclass(frozen=True, eq=False)
class DecayPoint:
    """A stationary point of sum_i (f(x_i) - t_i)^2/2 + decay |theta|^2/2."""

    point: StationaryPoint
    decay: float

    def __repr__(self) -> str:
        return f"DecayPoint(decay={self.decay:.3g}, {self.point!r})"

    def targets(self) -> FloatArray:
        """t_i = f(x_i) + decay b_i, shape (n,)."""
        values = self.point.network.value(self.point.data.samples)
        return np.asarray(values + self.decay * self.point.data.coefficients)


def _decay_points(points: SearchStrategy[StationaryPoint]) -> SearchStrategy[DecayPoint]:
    from hypothesis import strategies as st

    return st.builds(DecayPoint, points, st.integers(0, 4).map(lambda k: 10.0**-k))


def data_gap(
    data: HermiteData, samples: FloatArray, coefficients: FloatArray, extra: float = 0.0
) -> Check:
    """|scales_j T(u_j^(alpha-1), .) - rows_j| over its rounding plus `extra` |rows_j|."""
    slopes = tensor_slopes(data.points, samples, coefficients, data.degree)
    errors = slope_rounding(data.points, samples, coefficients, data.degree)
    sizes = np.linalg.norm(data.rows, axis=1)
    gaps = np.linalg.norm(data.scales[:, None] * slopes - data.rows, axis=1)
    allowed = np.abs(data.scales) * errors + (extra + 8.0 * UNIT) * sizes
    if data.values is not None:
        # p(u) = u . T(u^(alpha-1), .) adds |u| times the same rounding.
        values = np.sum(data.points * slopes, axis=1)
        lengths = np.linalg.norm(data.points, axis=1)
        gaps = np.append(gaps, np.abs(values - data.values))
        allowed = np.append(allowed, lengths * errors + 8.0 * UNIT * np.abs(data.values))
    return Check.compare(float(np.max(gaps / allowed)), 1.0)


def _stationary_sources(entry: DecayPoint) -> Check:
    point, decay = entry.point, entry.decay
    net, data = point.network, point.data
    extra = net.degree * rounding(point)
    first = data_gap(HermiteData.from_kkt(net), data.samples, data.coefficients, extra)
    # b_i = -dloss_i/df_i = t_i - f(x_i) cancels where the decay is small.
    residual = entry.targets() - net.value(data.samples)
    lost = UNIT * np.max(np.abs(entry.targets()) / np.abs(decay * data.coefficients))
    second = data_gap(
        HermiteData.from_weight_decay(net, decay),
        data.samples,
        residual,
        extra + 4.0 * len(residual) * float(lost) * _cancellation(point),
    )
    return max(first, second, key=lambda check: check.deviation / check.tolerance)


def _recheck_stationary(entry: DecayPoint) -> Check:
    """Both equations with exact slopes, for the weights as they are."""
    net, data = entry.point.network, entry.point.data
    slopes = rational.slopes(net.hidden_weight, data.samples, data.coefficients, net.degree)
    rows = net.degree * rational.exact(net.output_weight)[:, None] * slopes
    gaps = rational.floats(rows - rational.exact(net.hidden_weight))
    sizes = np.linalg.norm(net.hidden_weight, axis=1)
    # With b_i in exact arithmetic the decay is a common factor of both sides.
    worst = float(np.max(np.linalg.norm(gaps, axis=1) / sizes))
    return Check.compare(worst, net.degree * rounding(entry.point))


def _cancellation(point: StationaryPoint) -> float:
    """Largest sum of |b_i| |x_i.w_j|^(alpha-1) |x_i| over the norm of the sum."""
    net, data = point.network, point.data
    power = np.abs(net.hidden_weight @ data.samples.T) ** (net.degree - 1)
    lengths = np.abs(data.coefficients) * np.linalg.norm(data.samples, axis=1)
    whole = net.degree * np.abs(net.output_weight) * (power @ lengths)
    return float(np.max(whole / np.linalg.norm(net.hidden_weight, axis=1)))


def _stationary_sources_without_scale(entry: DecayPoint) -> Check:
    """The claim that the coefficients of weight decay are those of KKT."""
    point = entry.point
    data = HermiteData.from_weight_decay(point.network, entry.decay)
    extra = point.network.degree * rounding(point)
    return data_gap(data, point.data.samples, point.data.coefficients, extra)


def broken_matrix() -> AbstractContextManager[object]:
    """H with its first columns scaled: a multinomial coefficient forgotten."""
    import proofs_check.statements.kkt.sources as module

    original = hermite_matrix

    def broken(points: FloatArray, degree: int) -> FloatArray:
        matrix = original(points, degree).copy()
        matrix[:, 0] *= degree
        return matrix

    return patch.object(module, "hermite_matrix", broken)


STATIONARY_SOURCES = Statement(
    name="stationary-sources",
    title="Hermite data of KKT points and of weight decay",
    sentence=(
        "At a stationary point T(w_j^(alpha-1), .) = w_j/(alpha a_j) for T = sum_i b_i x_i^alpha; "
        "with weight decay mu and b_i = -dloss_i/df_i it is mu w_j/(alpha a_j)."
    ),
    formula=r"T(w_j^{\alpha-1},\cdot) = \frac{w_j}{\alpha a_j},\qquad "
    r"T_{\mathrm{decay}}(w_j^{\alpha-1},\cdot) = \frac{\mu w_j}{\alpha a_j}",
    source="Shen, Wang, Qian & Lei 2026 (Theorem 4.1) for KKT points; weight decay: ours",
    hypotheses=(
        Hypothesis(
            "stationary",
            STATIONARY.sentence,
            lambda entry: is_stationary(entry.point),
            lambda: _decay_points(perturbed()),
        ),
    ),
    instances=lambda: _decay_points(strategies.stationary_points()),
    conclusion=_stationary_sources,
    sabotages=(
        Sabotage("units", "b without mu", conclusion=_stationary_sources_without_scale),
        Sabotage("multinomial", "a column of H too large", implementation=broken_matrix),
    ),
    cost="light",
    recheck=_recheck_stationary,
    code=("identify.hermite.data.HermiteData.from_kkt", "identify.hermite.data.HermiteData"),
)

STATEMENTS = (STATIONARY_SOURCES,)
