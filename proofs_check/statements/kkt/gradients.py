"""One gradient: Euler's identity, and its Hermite data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from identify import HermiteData, InvalidInputError, TwoLayerNetwork, UnsupportedModelError
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT, broken_gradient
from proofs_check.statements.kkt.sources import broken_matrix, data_gap
from proofs_check.strategies import GradientProblem, SampleSet

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# --- Euler's identity ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reading:
    """A gradient as an observer gets it: network, batch, and weight decay mixed in."""

    network: TwoLayerNetwork
    data: SampleSet
    decay: float = 0.0

    def __repr__(self) -> str:
        notes = ", bias" if self.network.has_bias else ""
        notes += ", polynomial" if self.network.activation is not None else ""
        notes += f", decay={self.decay:.3g}" if self.decay else ""
        return f"Reading(m={self.network.width}{notes}, {self.data!r})"

    def gradient(self) -> TwoLayerNetwork:
        """sum_i b_i grad f(x_i) + decay theta."""
        net = self.network
        found = net.gradient(self.data.samples, self.data.coefficients)
        bias = found.hidden_bias
        if bias is not None and net.hidden_bias is not None:
            bias = bias + self.decay * net.hidden_bias
        return replace(
            found,
            hidden_weight=found.hidden_weight + self.decay * net.hidden_weight,
            output_weight=found.output_weight + self.decay * net.output_weight,
            hidden_bias=bias,
        )


def _readings(*, decay: bool = False, polynomial: bool = False) -> SearchStrategy[Reading]:
    from hypothesis import strategies as st

    def build(problem: GradientProblem, bias: bool, strength: int) -> Reading:
        net = problem.network
        rng = np.random.default_rng([problem.data.seed, 7])
        if bias:
            net = replace(net, hidden_bias=rng.standard_normal(net.width))
        if polynomial:
            powers = (*rng.uniform(0.5, 1.0, size=net.degree), 1.0)
            net = replace(net, activation=tuple(float(c) for c in powers))
        return Reading(net, problem.data, 10.0**-strength if decay else 0.0)

    return st.builds(
        build, strategies.gradient_problems(neurons=(1, 8)), st.booleans(), st.integers(0, 3)
    )


def _euler_gap(reading: Reading, factor: float) -> Check:
    """Largest |factor a_j (grad_a)_j - w_j . (grad_W)_j| over moduli; also as it is read."""
    net, data = reading.network, reading.data
    found = reading.gradient()
    left = factor * net.output_weight * found.output_weight
    right = np.sum(net.points * found.points, axis=1)
    samples = np.abs(net.lift(data.samples))
    inner = np.abs(net.points) @ samples.T
    moduli = inner**net.degree @ np.abs(data.coefficients)
    moduli = net.degree * np.abs(net.output_weight) * moduli
    allowed = 4.0 * (len(samples) + net.dimension + net.degree + 6) * UNIT
    try:
        read = HermiteData.from_gradient(net, found).consistency or 0.0
    except (InvalidInputError, UnsupportedModelError) as error:
        return Check.of(False, f"refused: {error}")
    # The residual that is read is relative to the sides, which may cancel.
    read *= float(np.linalg.norm(np.abs(left) + np.abs(right)) / np.linalg.norm(moduli))
    if read > 2.0 * allowed:
        return Check.compare(read, 2.0 * allowed, "Euler's identity as from_gradient finds it")
    return Check.compare(float(np.max(np.abs(left - right) / moduli)), allowed)


def _recheck_euler(reading: Reading) -> Check:
    """The identity in exact arithmetic: no tolerance."""
    net, decay = reading.network, rational.exact(reading.decay)
    hidden, output = rational.gradient(net, reading.data.samples, reading.data.coefficients)
    points, heights = rational.exact(net.points), rational.exact(net.output_weight)
    left = net.degree * heights * (output + decay * heights)
    right = np.sum(points * (hidden + decay * points), axis=1)
    return Check.of(bool(np.all(left == right)))


def _euler(reading: Reading) -> Check:
    return _euler_gap(reading, reading.network.degree)


def _euler_of_next_degree(reading: Reading) -> Check:
    return _euler_gap(reading, reading.network.degree + 1)


def _euler_algebra() -> bool:
    import sympy

    for degree, dimension in product((3, 4, 5), (1, 2, 3)):
        a, *w = sympy.symbols(f"a w1:{dimension + 1}")
        terms = []
        for i in (1, 2):
            x = sympy.symbols(f"x{i}_1:{dimension + 1}")
            inner = sum(p * q for p, q in zip(w, x, strict=True))
            terms.append(sympy.Symbol(f"b{i}") * a * inner**degree)
        total = sympy.Add(*terms)
        gap = degree * a * total.diff(a) - sum(p * total.diff(p) for p in w)
        if sympy.expand(gap) != 0:
            return False
    return True


NO_DECAY = Hypothesis(
    "no-decay",
    "the gradient is that of the batch's loss alone, without weight decay",
    lambda reading: reading.decay == 0.0,
    lambda: _readings(decay=True),
)

EULER = Statement(
    name="gradient-euler",
    title="Euler's identity of a gradient",
    sentence=(
        "In a gradient of a monomial network's loss, alpha a_j (grad_a)_j = w_j . (grad_W)_j "
        "holds for every neuron, a hidden bias counted as a coordinate."
    ),
    formula=r"\alpha\, a_j\, (\nabla_a)_j = w_j \cdot (\nabla_W)_j",
    source="Euler's theorem on homogeneous functions",
    hypotheses=(
        NO_DECAY,
        Hypothesis(
            "monomial",
            "the activation is z^alpha",
            lambda reading: reading.network.activation is None,
            lambda: _readings(polynomial=True),
        ),
    ),
    instances=_readings,
    conclusion=_euler,
    sabotages=(
        Sabotage("degree", "alpha + 1 in place of alpha", conclusion=_euler_of_next_degree),
        Sabotage(
            "sign",
            "output gradient with the wrong sign",
            implementation=lambda: broken_gradient(output=-1.0),
        ),
    ),
    cost="light",
    algebra=_euler_algebra,
    recheck=_recheck_euler,
    algebra_note="symbolic a, w, x, b for degrees 3 to 5, d <= 3, n = 2",
    code=("identify.hermite.data.HermiteData.from_gradient",),
)


# --- Hermite data of one gradient ------------------------------------------------------------


def _gradient_source(reading: Reading) -> Check:
    net = reading.network
    found = reading.gradient()
    data = HermiteData(
        source="gradient",
        degree=net.degree,
        points=net.points,
        rows=found.points,
        scales=net.degree * net.output_weight,
        values=found.output_weight,
        consistency=None,
        rounding=UNIT,
        network=net,
    )
    if reading.decay == 0.0:
        data = HermiteData.from_gradient(net, found)
    return data_gap(data, net.lift(reading.data.samples), reading.data.coefficients)


def _recheck_gradient(reading: Reading) -> Check:
    """Both equations in exact arithmetic: no tolerance."""
    net, data, decay = reading.network, reading.data, rational.exact(reading.decay)
    hidden, output = rational.gradient(net, data.samples, data.coefficients)
    points, heights = rational.exact(net.points), rational.exact(net.output_weight)
    slopes = rational.slopes(net.points, net.lift(data.samples), data.coefficients, net.degree)
    rows = net.degree * heights[:, None] * slopes
    first = np.all(rows == hidden + decay * points)
    second = np.all(np.sum(points * slopes, axis=1) == output + decay * heights)
    return Check.of(bool(first and second))


def _gradient_of_mean(reading: Reading) -> Check:
    """The claim that b_i are the derivatives of the mean loss."""
    net, data = reading.network, reading.data
    found = HermiteData.from_gradient(net, reading.gradient())
    return data_gap(found, net.lift(data.samples), data.coefficients / (len(data.samples) + 1))


def _gradient_algebra() -> bool:
    import sympy

    for degree in (3, 4, 5):
        a, w1, w2 = sympy.symbols("a w1 w2")
        w = (w1, w2)
        b = sympy.symbols("b1:3")
        x = [sympy.symbols(f"x{i}_1:3") for i in (1, 2)]
        p = sum(bi * (xi[0] * w1 + xi[1] * w2) ** degree for bi, xi in zip(b, x, strict=True))
        for axis in (0, 1):
            slope: Any = 0
            for index in product((0, 1), repeat=degree - 1):
                entry = sum(
                    bi * xi[axis] * sympy.prod(xi[k] for k in index)
                    for bi, xi in zip(b, x, strict=True)
                )
                slope += entry * sympy.prod(w[k] for k in index)
            if sympy.expand((a * p).diff(w[axis]) - degree * a * slope) != 0:
                return False
    return True


GRADIENT_SOURCE = Statement(
    name="gradient-source",
    title="Hermite data of one gradient",
    sentence=(
        "For the gradient of a batch's loss, with or without a hidden bias, "
        "T(w_j^(alpha-1), .) = (grad_W)_j/(alpha a_j) and (grad_a)_j = T(w_j^alpha)."
    ),
    formula=r"(\nabla_W)_j = \alpha a_j T(w_j^{\alpha-1},\cdot),\qquad "
    r"(\nabla_a)_j = T(w_j^{\alpha}),\qquad b_i = \partial \ell_i/\partial f_i",
    source="Wang, Lee & Lei 2022 for the tensor view of one gradient",
    hypotheses=(NO_DECAY,),
    instances=_readings,
    conclusion=_gradient_source,
    sabotages=(
        Sabotage("mean", "b divided by a count", conclusion=_gradient_of_mean),
        Sabotage("multinomial", "a column of H too large", implementation=broken_matrix),
    ),
    cost="light",
    algebra=_gradient_algebra,
    recheck=_recheck_gradient,
    algebra_note="entries of T contracted with symbolic w for degrees 3 to 5, d = n = 2",
    code=("identify.hermite.data.HermiteData.from_gradient", "identify.tensors.hermite_matrix"),
)

STATEMENTS = (EULER, GRADIENT_SOURCE)
