"""Changes of the weights that leave the equations unchanged."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
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
    broken_gradient,
    is_stationary,
    perturbed,
    rounding,
    stationarity,
)
from proofs_check.strategies import GradientProblem, StationaryPoint

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# --- scale of the weights --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ScaledPoint:
    """A point and the factor s on its weights."""

    point: StationaryPoint
    factor: float

    def __repr__(self) -> str:
        return f"ScaledPoint(s={self.factor:.4g}, {self.point!r})"


def rescale(scaled: ScaledPoint) -> StationaryPoint:
    """s theta with s^(1-alpha) b."""
    point, s = scaled.point, scaled.factor
    net = point.network
    data = replace(point.data, coefficients=point.data.coefficients * s ** float(1 - net.degree))
    weights = TwoLayerNetwork(s * net.hidden_weight, s * net.output_weight, net.degree)
    return replace(point, network=weights, data=data)


def _scaled(
    points: SearchStrategy[StationaryPoint], sign: float = 1.0
) -> SearchStrategy[ScaledPoint]:
    from hypothesis import strategies as st

    factors = st.integers(-20, 20).map(lambda k: sign * 10.0 ** (k / 20.0))
    return st.builds(ScaledPoint, points, factors)


def _scaled_points() -> SearchStrategy[ScaledPoint]:
    return _scaled(strategies.stationary_points())


def _stays_stationary(scaled: ScaledPoint) -> Check:
    moved = rescale(scaled)
    first, second = stationarity(moved)
    net = moved.network
    left = np.max(np.abs(first) / np.abs(net.output_weight))
    right = np.linalg.norm(second, axis=1) / np.linalg.norm(net.hidden_weight, axis=1)
    if np.any(moved.data.coefficients * scaled.point.data.coefficients < 0.0):
        return Check.of(False, "a multiplier becomes negative")
    # The powers of s bring alpha roundings more.
    allowed = net.degree * (rounding(moved) + 8.0 * net.degree * UNIT)
    return Check.compare(max(float(left), float(right.max())), allowed)


def _same_multipliers(scaled: ScaledPoint) -> Check:
    return Check.of(is_stationary(replace(rescale(scaled), data=scaled.point.data)))


def _rescale_one_layer() -> AbstractContextManager[object]:
    """First layer left as it is."""
    import proofs_check.statements.kkt.symmetries as module

    original = module.rescale

    def broken(scaled: ScaledPoint) -> StationaryPoint:
        moved = original(scaled)
        kept = scaled.point.network.hidden_weight
        return replace(moved, network=replace(moved.network, hidden_weight=kept))

    return patch.object(module, "rescale", broken)


def _scale_algebra() -> bool:
    """The equations at (s theta, s^(1-alpha) lambda) are s times those at (theta, lambda)."""
    import sympy

    from identify import kkt_system

    s = sympy.Symbol("s", positive=True)
    for degree in (3, 4, 5):
        system = kkt_system(dimension=2, width=1, samples=2, degree=degree)
        moved = {symbol: s * symbol for symbol in system.parameters}
        moved |= {symbol: s ** (1 - degree) * symbol for symbol in system.symbols["lambda"]}
        for row in system.stationarity:
            if sympy.expand(row.subs(moved, simultaneous=True) - s * row) != 0:
                return False
    return True


SCALE = Statement(
    name="weight-scale",
    title="Scale of the weights",
    sentence=(
        "If theta satisfies the stationarity equations with multipliers lambda, then s theta, "
        "s > 0, satisfies them with s^(1-alpha) lambda, which are non-negative again."
    ),
    formula=r"(\theta, \lambda) \mapsto (s\theta, s^{1-\alpha}\lambda),\ s > 0",
    source="the network is homogeneous of degree alpha + 1 (Lyu & Li 2020, section 2); ours",
    hypotheses=(
        Hypothesis(
            "stationary",
            STATIONARY.sentence,
            lambda scaled: is_stationary(scaled.point),
            lambda: _scaled(perturbed()),
        ),
        Hypothesis(
            "positive",
            "s is positive: for even alpha a negative s makes the multipliers negative",
            lambda scaled: scaled.factor > 0.0,
            lambda: _scaled(strategies.stationary_points(degrees=(4,)), -1.0),
        ),
    ),
    instances=_scaled_points,
    conclusion=_stays_stationary,
    sabotages=(
        Sabotage("multipliers", "lambda unchanged", conclusion=_same_multipliers),
        Sabotage("one layer", "w_j unchanged", construction=_rescale_one_layer),
        Sabotage(
            "gradient",
            "gradient of the first layer too large by 2",
            implementation=lambda: broken_gradient(hidden=2.0),
        ),
    ),
    cost="light",
    algebra=_scale_algebra,
    algebra_note="the symbolic equations of one neuron, degrees 3 to 5, d = n = 2",
    code=("identify.model.two_layer.TwoLayerNetwork.gradient",),
)


# --- signs and order of the neurons ----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Flip:
    """Neurons in another order, some with w_j -> -w_j ("hidden") or both signs changed ("both")."""

    problem: GradientProblem
    layers: Literal["hidden", "both"]

    def __repr__(self) -> str:
        return f"Flip({self.layers}, {self.problem!r})"

    def order(self) -> tuple[Any, FloatArray]:
        """The permutation, and the sign of each neuron before it; the first one is flipped."""
        width = self.problem.network.width
        rng = np.random.default_rng([self.problem.data.seed, width, 4])
        signs = rng.choice([-1.0, 1.0], size=width)
        signs[0] = -1.0
        return rng.permutation(width), signs


def flip_neurons(flip: Flip) -> TwoLayerNetwork:
    """The network after the change."""
    net = flip.problem.network
    order, signs = flip.order()
    outer = signs if flip.layers == "both" else np.ones(net.width)
    return TwoLayerNetwork(
        (signs[:, None] * net.hidden_weight)[order], (outer * net.output_weight)[order], net.degree
    )


def _matching(degree: int) -> Literal["hidden", "both"]:
    return "both" if degree % 2 else "hidden"


def _flips(*, matching: bool) -> SearchStrategy[Flip]:
    def build(problem: GradientProblem) -> Flip:
        degree = problem.network.degree if matching else problem.network.degree + 1
        return Flip(problem, _matching(degree))

    return strategies.gradient_problems(neurons=(1, 12)).map(build)


def _equivariant(flip: Flip) -> Check:
    """f is the same, and its gradient moves with the neurons: so do all equations."""
    net, data = flip.problem.network, flip.problem.data
    other = flip_neurons(flip)
    order, signs = flip.order()
    outer = signs if flip.layers == "both" else np.ones(net.width)
    moduli = (np.abs(data.samples) @ np.abs(net.hidden_weight).T) ** net.degree @ np.abs(
        net.output_weight
    )
    # Signs are exact; sums over neurons run in another order.
    gap = np.abs(net.value(data.samples) - other.value(data.samples)) / moduli
    before = net.gradient(data.samples, data.coefficients)
    after = other.gradient(data.samples, data.coefficients)
    cosines = np.abs(net.hidden_weight) @ np.abs(data.samples).T
    lengths = np.abs(data.coefficients) * np.linalg.norm(data.samples, axis=1)
    reach = net.degree * np.abs(net.output_weight) * (cosines ** (net.degree - 1) @ lengths)
    high = cosines**net.degree @ np.abs(data.coefficients)
    hidden = after.hidden_weight - (signs[:, None] * before.hidden_weight)[order]
    output = after.output_weight - (outer * before.output_weight)[order]
    deviation = max(
        float(gap.max()),
        float(np.max(np.linalg.norm(hidden, axis=1) / reach[order])),
        float(np.max(np.abs(output) / high[order])),
    )
    terms = net.width + len(data.samples) + net.dimension + net.degree
    return Check.compare(deviation, 4.0 * terms * UNIT)


def _recheck_flip(flip: Flip) -> Check:
    """f and the outputs of its gradient in exact arithmetic: no tolerance."""
    net, data = flip.problem.network, flip.problem.data
    other, (order, signs) = flip_neurons(flip), flip.order()
    outer = signs.astype(int) if flip.layers == "both" else 1
    same = np.all(rational.value(net, data.samples) == rational.value(other, data.samples))
    before = rational.gradient(net, data.samples, data.coefficients)
    after = rational.gradient(other, data.samples, data.coefficients)
    same = same and np.all(after[0] == (signs.astype(int)[:, None] * before[0])[order])
    return Check.of(bool(same and np.all(after[1] == (outer * before[1])[order])))


def _value_changes_sign(flip: Flip) -> Check:
    samples = flip.problem.data.samples
    gap = np.abs(flip.problem.network.value(samples) + flip_neurons(flip).value(samples))
    return Check.of(bool(np.all(gap <= 1e-9)))


def _flip_without_outputs() -> AbstractContextManager[object]:
    """Output weights that stay where they were."""
    import proofs_check.statements.kkt.symmetries as module

    original = module.flip_neurons

    def broken(flip: Flip) -> TwoLayerNetwork:
        return replace(original(flip), output_weight=flip.problem.network.output_weight)

    return patch.object(module, "flip_neurons", broken)


def _unsigned_slopes() -> AbstractContextManager[object]:
    original = TwoLayerNetwork.gradient

    def broken(self: TwoLayerNetwork, samples: Any, coefficients: Any) -> TwoLayerNetwork:
        return original(
            replace(self, output_weight=np.abs(self.output_weight)), samples, coefficients
        )

    return patch.object(TwoLayerNetwork, "gradient", broken)


def _flip_algebra() -> bool:
    """The equations of a flipped neuron are those of the neuron, up to the signs of the flip."""
    import sympy

    from identify import kkt_system

    for degree in (3, 4, 5, 6):
        system = kkt_system(dimension=2, width=1, samples=2, degree=degree)
        signs = [-1 if degree % 2 else 1, -1, -1]
        moved = {p: sign * p for p, sign in zip(system.parameters, signs, strict=True)}
        for row, sign in zip(system.stationarity, signs, strict=True):
            if sympy.expand(row.subs(moved, simultaneous=True) - sign * row) != 0:
                return False
    return True


NEURONS = Statement(
    name="neuron-symmetries",
    title="Signs and order of the neurons",
    sentence=(
        "Permuting neurons, (a_j, w_j) -> (-a_j, -w_j) for odd alpha and w_j -> -w_j for even "
        "alpha leave f unchanged and map solutions of the stationarity equations to solutions."
    ),
    formula=r"(-a)((-w)\cdot x)^\alpha = a(w\cdot x)^\alpha\ (\alpha\text{ odd}),\quad "
    r"a((-w)\cdot x)^\alpha = a(w\cdot x)^\alpha\ (\alpha\text{ even})",
    source="parity of the monomial; ours",
    hypotheses=(
        Hypothesis(
            "parity",
            "both signs change for odd alpha, those of the first layer alone for even alpha",
            lambda flip: flip.layers == _matching(flip.problem.network.degree),
            lambda: _flips(matching=False),
        ),
    ),
    instances=lambda: _flips(matching=True),
    conclusion=_equivariant,
    sabotages=(
        Sabotage("value", "f changes its sign", conclusion=_value_changes_sign),
        Sabotage("outputs", "a_j not moved with w_j", construction=_flip_without_outputs),
        Sabotage("sign", "gradient of the first layer with |a_j|", implementation=_unsigned_slopes),
    ),
    cost="light",
    algebra=_flip_algebra,
    algebra_note="signs in the symbolic equations of one neuron, degrees 3 to 6, d = n = 2",
    recheck=_recheck_flip,
    code=("identify.model.two_layer.TwoLayerNetwork.gradient",),
)

STATEMENTS = (SCALE, NEURONS)
