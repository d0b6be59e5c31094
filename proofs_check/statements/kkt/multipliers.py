"""The sum of the multipliers of a KKT point."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import (
    STATIONARY,
    UNIT,
    equalise,
    margin_points,
    margins,
    rounding,
)
from proofs_check.strategies import GradientProblem, StationaryPoint

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _margin_rounding(point: StationaryPoint) -> float:
    """Relative rounding of the margins: terms times unit roundoff times moduli over margin."""
    net, data = point.network, point.data
    inner = np.abs(data.samples) @ np.abs(net.hidden_weight).T
    moduli = inner**net.degree @ np.abs(net.output_weight)
    worst = float(np.max(moduli / np.abs(net.value(data.samples))))
    return 8.0 * (net.width + net.dimension + net.degree) * UNIT * worst


def _has_equal_margins(point: StationaryPoint) -> bool:
    found = margins(point)
    spread = float(found.max() - found.min())
    return bool(found.min() > 0.0 and spread <= 2.0 * _margin_rounding(point) * found.min())


def _multiplier_sum(point: StationaryPoint, power: float = 1.0) -> Check:
    total = float(np.sum(point.network.output_weight**2))
    expected = float(margins(point).min()) ** power
    expected *= float(np.sum(np.abs(point.data.coefficients)))
    tolerance = point.network.degree * rounding(point) + 4.0 * _margin_rounding(point)
    return Check.compare(abs(total - expected) / total, tolerance)


def _recheck_multipliers(point: StationaryPoint) -> Check:
    """The two sides exactly, for weights, samples and multipliers as they are."""
    net, data = point.network, point.data
    b = rational.exact(data.coefficients)
    found = rational.value(net, data.samples) * np.sign(data.coefficients).astype(int)
    total = np.sum(rational.exact(net.output_weight) ** 2)
    gap = abs(total - min(found) * np.sum(abs(b))) / total
    return Check.compare(float(gap), net.degree * rounding(point) + 4.0 * _margin_rounding(point))


def _wrong_multiplier_sum(point: StationaryPoint) -> Check:
    net = point.network
    total = float(np.sum(net.hidden_weight**2))
    expected = float(np.sum(np.abs(point.data.coefficients)))
    return Check.compare(abs(total - expected) / total, net.degree * rounding(point))


def _labelled_by_chance() -> SearchStrategy[StationaryPoint]:
    """Random networks, samples of margin 1 with the labels that the network gives."""

    def build(problem: GradientProblem) -> StationaryPoint | None:
        data, net = problem.data, problem.network
        labels = np.sign(net.value(data.samples))
        chosen = replace(data, coefficients=labels * np.abs(data.coefficients))
        return equalise(StationaryPoint(net, chosen, 0.0))

    drawn = strategies.gradient_problems().map(build)
    kept: SearchStrategy[Any] = drawn.filter(lambda point: point is not None)
    return kept


def _broken_value() -> AbstractContextManager[object]:
    original = TwoLayerNetwork.value

    def broken(self: TwoLayerNetwork, samples: Any) -> FloatArray:
        return 2.0 * original(self, samples)

    return patch.object(TwoLayerNetwork, "value", broken)


def _algebra() -> bool:
    """sum_j a_j (a_j - dL/da_j) = sum_j a_j^2 - sum_i lambda_i y_i f(x_i)."""
    import sympy

    from identify import kkt_system

    for width, samples, degree in ((1, 2, 3), (2, 2, 3), (2, 1, 4), (1, 2, 5)):
        system = kkt_system(dimension=2, width=width, samples=samples, degree=degree)
        outputs = system.parameters[:width]
        rows = list(system.stationarity)[:width]
        left = sum(a * (row - a) for a, row in zip(outputs, rows, strict=True))
        pairs = zip(system.symbols["lambda"], system.primal, strict=True)
        if sympy.expand(left + sum(factor * (gap + 1) for factor, gap in pairs)) != 0:
            return False
    return True


MULTIPLIERS = Statement(
    name="multiplier-sum",
    title="Sum of the multipliers",
    sentence=(
        "At a KKT point whose active samples all have the margin gamma, the squares of the output "
        "weights add up to gamma times the sum of the multipliers."
    ),
    formula=r"\sum_j a_j^2 = \gamma \sum_i \lambda_i",
    source="Lyu & Li 2020 (KKT conditions), Euler's identity in the output layer; ours",
    hypotheses=(
        replace(STATIONARY, violating=_labelled_by_chance),
        Hypothesis(
            "equal-margins",
            "y_i f(x_i) = gamma > 0 for every sample with lambda_i > 0",
            _has_equal_margins,
            strategies.stationary_points,
        ),
    ),
    instances=margin_points,
    conclusion=_multiplier_sum,
    sabotages=(
        Sabotage("layer", "first layer in place of the second", conclusion=_wrong_multiplier_sum),
        Sabotage("outputs", "f too large by 2", implementation=_broken_value),
    ),
    cost="light",
    algebra=_algebra,
    algebra_note="sum_j a_j dL/da_j = sum_i lambda_i y_i f(x_i), degrees 3 to 5, m, d, n <= 2",
    recheck=_recheck_multipliers,
    code=("identify.model.two_layer.TwoLayerNetwork.value",),
    remark=(
        "Every stationary point with positive margins becomes one with margins 1 when the samples "
        "are rescaled: weights alone never tell the norms."
    ),
)

STATEMENTS = (MULTIPLIERS,)
