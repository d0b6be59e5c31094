"""Identities of stationary points: balance, multipliers, dead neurons."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.strategies import StationaryPoint

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

UNIT = 2.0**-53


def stationarity(point: StationaryPoint) -> tuple[FloatArray, FloatArray]:
    """a_j - dL/da_j and w_j - dL/dw_j for L = sum_i b_i f(x_i): shapes (m,) and (m, d)."""
    gradient = point.network.gradient(point.data.samples, point.data.coefficients)
    return (
        point.network.output_weight - gradient.output_weight,
        point.network.hidden_weight - gradient.hidden_weight,
    )


def rounding(point: StationaryPoint) -> float:
    """Relative rounding of the stationarity equations.

    Unit roundoff times the number of terms and the largest sum of moduli over its result, beside
    what rounding left of the eigenvectors themselves.
    """
    net, data = point.network, point.data
    inner = np.abs(net.hidden_weight) @ np.abs(data.samples).T
    moduli = np.sum(np.abs(data.coefficients) * inner ** (net.degree - 1), axis=1)
    size = np.linalg.norm(net.hidden_weight, axis=1)
    reach = net.degree * np.abs(net.output_weight) * moduli * np.abs(data.samples).max()
    ratio = reach / np.where(size > 0.0, size, 1.0)
    terms = data.samples.size + net.degree + 4
    return float(8.0 * terms * UNIT * max(1.0, float(ratio.max())) + 8.0 * point.residual)


def is_stationary(point: StationaryPoint) -> bool:
    """Whether both families of equations hold to rounding; for a zero neuron exactly."""
    first, second = stationarity(point)
    net = point.network
    allowed = net.degree * rounding(point)
    left = np.abs(first) <= allowed * np.abs(net.output_weight)
    right = np.linalg.norm(second, axis=1) <= allowed * np.linalg.norm(net.hidden_weight, axis=1)
    return bool(left.all() and right.all())


def _move(point: StationaryPoint) -> StationaryPoint:
    """The point with each weight vector of the first layer longer by 5 to 20 percent."""
    rng = np.random.default_rng([point.data.seed, 3])
    factor = 1.0 + rng.uniform(0.05, 0.2, size=(point.network.width, 1))
    net = point.network
    moved = TwoLayerNetwork(net.hidden_weight * factor, net.output_weight, net.degree)
    return replace(point, network=moved)


def perturbed() -> SearchStrategy[StationaryPoint]:
    """Points that are not stationary."""
    return strategies.stationary_points().map(_move)


def margins(point: StationaryPoint) -> FloatArray:
    """y_i f(x_i) with y_i the sign of b_i, shape (n,)."""
    found: FloatArray = np.sign(point.data.coefficients) * point.network.value(point.data.samples)
    return found


def equalise(point: StationaryPoint) -> StationaryPoint | None:
    """The same weights for samples c_i x_i, b_i c_i^(-alpha) whose margins are all 1.

    T, hence stationarity, stays; f(c x) = c^alpha f(x). None where a margin is not positive.
    """
    data, alpha = point.data, point.network.degree
    found = margins(point)
    if found.min() <= 0.0:
        return None
    factors = found ** (-1.0 / alpha)
    scaled = replace(
        data,
        samples=data.samples * factors[:, None],
        coefficients=data.coefficients / factors**alpha,
    )
    return replace(point, data=scaled)


def margin_points(max_samples: int = 4, max_dimension: int = 5) -> SearchStrategy[StationaryPoint]:
    """KKT points of the max-margin problem: stationary, all margins 1, all samples active."""

    def present(point: StationaryPoint | None) -> bool:
        return point is not None

    drawn = strategies.stationary_points(max_samples, max_dimension).map(equalise)
    kept: SearchStrategy[Any] = drawn.filter(present)
    return kept


STATIONARY = Hypothesis(
    "stationary",
    "the weights satisfy a_j = sum_i b_i (w_j . x_i)^alpha and the equations of the first layer",
    is_stationary,
    perturbed,
)


def broken_gradient(*, output: float = 1.0, hidden: float = 1.0) -> AbstractContextManager[object]:
    """Gradients of networks with a wrong factor on a layer."""
    original = TwoLayerNetwork.gradient

    def broken(self: TwoLayerNetwork, samples: Any, coefficients: Any) -> TwoLayerNetwork:
        found = original(self, samples, coefficients)
        return replace(
            found,
            output_weight=output * found.output_weight,
            hidden_weight=hidden * found.hidden_weight,
        )

    return patch.object(TwoLayerNetwork, "gradient", broken)


# --- balance ---------------------------------------------------------------------------------


def _compare_layers(point: StationaryPoint, factor: float) -> Check:
    """Every neuron by itself, and the balance that is reported for all of them together."""
    net = point.network
    allowed = 2.0 * net.degree * rounding(point)
    read = HermiteData.from_kkt(net).consistency or 0.0
    if read > allowed:
        return Check.compare(read, allowed, "the balance that from_kkt finds")
    norms = np.sum(net.hidden_weight**2, axis=1)
    heights = factor * net.output_weight**2
    deviation = float(np.max(np.abs(norms - heights) / (norms + heights)))
    return Check.compare(deviation, allowed)


def _recheck_balance(point: StationaryPoint) -> Check:
    """The two sides exactly, for the weights as they are."""
    net = point.network
    norms = np.sum(rational.exact(net.hidden_weight) ** 2, axis=1)
    heights = net.degree * rational.exact(net.output_weight) ** 2
    gaps = rational.floats(abs(norms - heights) / (norms + heights))
    return Check.compare(float(gaps.max()), 2.0 * net.degree * rounding(point))


def _balance(point: StationaryPoint) -> Check:
    return _compare_layers(point, point.network.degree)


def _wrong_balance(point: StationaryPoint) -> Check:
    return _compare_layers(point, point.network.degree - 1)


def _balance_algebra() -> bool:
    import sympy

    from identify import kkt_system

    for dimension, samples, degree in ((1, 1, 3), (2, 2, 3), (2, 1, 4), (1, 2, 5)):
        system = kkt_system(dimension=dimension, width=1, samples=samples, degree=degree)
        a, *w = system.parameters
        first, *rest = list(system.stationarity)
        left = sum(wk * row for wk, row in zip(w, rest, strict=True)) - degree * a * first
        if sympy.expand(left - sum(wk**2 for wk in w) + degree * a**2) != 0:
            return False
    return True


def _wrong_scaling() -> AbstractContextManager[object]:
    """Networks read with a first layer that is too small by alpha."""
    original = HermiteData.from_kkt

    def broken(network: TwoLayerNetwork) -> HermiteData:
        small = network.hidden_weight / network.degree
        return original(replace(network, hidden_weight=small))

    return patch.object(HermiteData, "from_kkt", broken)


BALANCE = Statement(
    name="kkt-balance",
    title="Balance between the layers",
    sentence="At a stationary point every neuron satisfies |w_j|^2 = alpha a_j^2.",
    formula=r"\lvert w_j\rvert^2 = \alpha a_j^2",
    source="Du, Hu & Lee 2018 (Theorem 2.1), for stationary points of homogeneous networks",
    hypotheses=(STATIONARY,),
    instances=strategies.stationary_points,
    conclusion=_balance,
    sabotages=(
        Sabotage("factor", "alpha - 1 in place of alpha", conclusion=_wrong_balance),
        Sabotage("scaling", "first layer read too small by alpha", implementation=_wrong_scaling),
    ),
    cost="light",
    algebra=_balance_algebra,
    recheck=_recheck_balance,
    algebra_note="w . dL/dw - alpha a dL/da = |w|^2 - alpha a^2 for degrees 3 to 5, d, n <= 2",
    code=("identify.hermite.data.HermiteData.from_kkt",),
)


# --- dead neurons ----------------------------------------------------------------------------


def _append(point: StationaryPoint, first: FloatArray, output: FloatArray) -> StationaryPoint:
    net = point.network
    grown = TwoLayerNetwork(
        np.vstack([net.hidden_weight, first]), np.append(net.output_weight, output), net.degree
    )
    return replace(point, network=grown)


def _with_dead_neurons() -> SearchStrategy[StationaryPoint]:
    def build(point: StationaryPoint) -> StationaryPoint:
        count = 1 + point.data.seed % 3
        return _append(point, np.zeros((count, point.network.dimension)), np.zeros(count))

    return strategies.stationary_points().map(build)


def _half_dead() -> SearchStrategy[StationaryPoint]:
    """One more neuron of which a single layer is zero."""

    def build(point: StationaryPoint) -> StationaryPoint:
        side = float(point.data.seed % 2)
        row = np.full((1, point.network.dimension), side)
        return _append(point, row, np.array([1.0 - side]))

    return strategies.stationary_points().map(build)


def _dead_together(point: StationaryPoint) -> Check:
    net, data = point.network, point.data
    silent = net.output_weight == 0.0
    blind = ~np.any(net.hidden_weight, axis=1)
    # The equations themselves: with one layer zero, what they set the other layer to.
    muted = replace(net, output_weight=np.zeros(net.width))
    left = muted.gradient(data.samples, data.coefficients).hidden_weight
    blinded = replace(net, hidden_weight=np.zeros(net.hidden_weight.shape))
    right = blinded.gradient(data.samples, data.coefficients).output_weight
    return Check.of(np.array_equal(silent, blind) and not np.any(left) and not np.any(right))


def _all_alive(point: StationaryPoint) -> Check:
    return Check.of(bool(np.all(point.network.output_weight)))


def gradient_without_outputs() -> AbstractContextManager[object]:
    """The gradient of the first layer without the factor a_j."""
    original = TwoLayerNetwork.gradient

    def broken(self: TwoLayerNetwork, samples: Any, coefficients: Any) -> TwoLayerNetwork:
        return original(replace(self, output_weight=np.ones(self.width)), samples, coefficients)

    return patch.object(TwoLayerNetwork, "gradient", broken)


def _dead_algebra() -> bool:
    """With a = 0 the equation of w reads w = 0, with w = 0 that of a reads a = 0."""
    from identify import kkt_system

    for degree in (3, 4, 5):
        system = kkt_system(dimension=2, width=1, samples=2, degree=degree)
        a, *w = system.parameters
        first, *rest = list(system.stationarity)
        if any(row.subs(a, 0) != wk for wk, row in zip(w, rest, strict=True)):
            return False
        if first.subs(dict.fromkeys(w, 0)) != a:
            return False
    return True


DEAD = Statement(
    name="dead-neurons",
    title="A neuron dies in both layers",
    sentence="At a stationary point a_j = 0 if and only if w_j = 0.",
    formula=r"a_j = 0 \iff w_j = 0",
    source="the equations of one neuron, alpha >= 2; ours",
    hypotheses=(replace(STATIONARY, violating=_half_dead),),
    instances=_with_dead_neurons,
    conclusion=_dead_together,
    sabotages=(
        Sabotage("alive", "no neuron is dead", conclusion=_all_alive),
        Sabotage("missing factor", "dL/dw without a_j", implementation=gradient_without_outputs),
    ),
    cost="light",
    algebra=_dead_algebra,
    algebra_note="the symbolic equations of one neuron, degrees 3 to 5, d = n = 2",
    code=("identify.model.two_layer.TwoLayerNetwork.gradient",),
)


STATEMENTS = (BALANCE, DEAD)
