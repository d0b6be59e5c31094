"""Changes of the samples that leave the data unchanged."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify import TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.strategies import GradientProblem, SampleSet

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

MOVES = ("sign", "scale", "merge")


@dataclass(frozen=True, eq=False)
class SampleMove:
    """A network, samples, and one change of the samples; `mismatched` takes the other parity."""

    network: TwoLayerNetwork
    data: SampleSet
    move: str
    mismatched: bool = False

    def __repr__(self) -> str:
        bias = ", bias" if self.network.has_bias else ""
        wrong = ", wrong sign" if self.mismatched else ""
        return f"SampleMove({self.move}{wrong}{bias}, m={self.network.width}, {self.data!r})"


def move_samples(moved: SampleMove) -> tuple[FloatArray, FloatArray]:
    """Other samples and coefficients with the same moment tensor.

    sign: (-x_i, b_i) for even and (-x_i, -b_i) for odd alpha; scale: (c x_i, c^(-alpha) b_i);
    merge: x_1 split into the parallel samples x_1/2 and -2 x_1 with
    2^(-alpha) b' + (-2)^alpha b'' = b_1.
    """
    data, alpha = moved.data, moved.network.degree
    rng = np.random.default_rng([data.seed, 5])
    x, b = data.samples, data.coefficients
    if moved.move == "sign":
        odd = (alpha % 2 == 1) != moved.mismatched
        return -x, -b if odd else b
    if moved.move == "scale":
        c = rng.choice([-1.0, 1.0], size=len(b)) * rng.uniform(0.5, 2.0, size=len(b))
        return c[:, None] * x, b / c**alpha
    share = rng.uniform(-1.0, 2.0)
    split = np.vstack([0.5 * x[:1], -2.0 * x[:1], x[1:]])
    parts = [share * b[0] * 2.0**alpha, (1.0 - share) * b[0] * (-0.5) ** alpha]
    return split, np.concatenate([parts, b[1:]])


def _moves(
    moves: tuple[str, ...] = MOVES, *, bias: bool = False, mismatched: bool = False
) -> SearchStrategy[SampleMove]:
    from hypothesis import strategies as st

    def build(problem: GradientProblem, move: str) -> SampleMove:
        net = problem.network
        if bias:
            rng = np.random.default_rng([problem.data.seed, 6])
            net = replace(net, hidden_bias=rng.uniform(0.5, 2.0, size=net.width))
        return SampleMove(net, problem.data, move, mismatched)

    return st.builds(build, strategies.gradient_problems(neurons=(1, 8)), st.sampled_from(moves))


def _same_data(moved: SampleMove) -> Check:
    """The gradient of sum_i b_i f(x_i) does not change; it holds all Hermite data."""
    net, data = moved.network, moved.data
    before = net.gradient(data.samples, data.coefficients)
    samples, coefficients = move_samples(moved)
    after = net.gradient(samples, coefficients)
    # Sums of moduli over both sets, neuron by neuron; each product is rounded alpha + d times.
    sizes = [np.zeros(net.width), np.zeros(net.width)]
    for x, b in ((data.samples, data.coefficients), (samples, coefficients)):
        inner = np.abs(net.hidden_weight) @ np.abs(x).T
        sizes[0] += inner**net.degree @ np.abs(b)
        lengths = np.abs(b) * np.linalg.norm(x, axis=1)
        sizes[1] += net.degree * np.abs(net.output_weight) * (inner ** (net.degree - 1) @ lengths)
    output = np.abs(before.output_weight - after.output_weight) / sizes[0]
    hidden = np.linalg.norm(before.hidden_weight - after.hidden_weight, axis=1) / sizes[1]
    terms = len(samples) + net.dimension + 4 * net.degree
    return Check.compare(max(float(output.max()), float(hidden.max())), 4.0 * terms * UNIT)


def _coefficients_kept(moved: SampleMove) -> Check:
    """The claim that b_i stays."""
    samples, _ = move_samples(moved)
    if len(samples) != len(moved.data.samples):
        return Check.of(True)
    net, data = moved.network, moved.data
    before = net.gradient(data.samples, data.coefficients).output_weight
    after = net.gradient(samples, data.coefficients).output_weight
    return Check.of(bool(np.allclose(before, after, rtol=1e-9, atol=0.0)))


def _low_slope() -> AbstractContextManager[object]:
    """alpha z^(alpha-2) as the derivative of z^alpha."""

    def broken(self: TwoLayerNetwork, z: FloatArray) -> FloatArray:
        return self.degree * z ** (self.degree - 2)

    return patch.object(TwoLayerNetwork, "_slope", broken)


def _samples_algebra() -> bool:
    import sympy

    b, c, a, w1, w2, x1, x2 = sympy.symbols("b c a w1 w2 x1 x2", nonzero=True)
    for degree in (3, 4, 5, 6):
        term = b * a * (w1 * x1 + w2 * x2) ** degree
        moved = {b: b * c**-degree, x1: c * x1, x2: c * x2}
        for symbol in (a, w1, w2):
            gap = term.diff(symbol) - term.diff(symbol).subs(moved, simultaneous=True)
            if sympy.simplify(gap) != 0:
                return False
    return True


SAMPLES = Statement(
    name="sample-symmetries",
    title="Samples that say the same",
    sentence=(
        "Without a bias the data do not change under (x_i, b_i) -> (c x_i, c^(-alpha) b_i), c = -1 "
        "included, and parallel samples c_k x count as one sample x with b = sum_k c_k^alpha b_k."
    ),
    formula=r"(cx, c^{-\alpha}b) \sim (x, b),\qquad "
    r"\{(c_k x, b_k)\}_k \sim (x, \textstyle\sum_k c_k^\alpha b_k)",
    source="homogeneity of the moment tensor (Comon, Golub, Lim & Mourrain 2008); ours",
    hypotheses=(
        Hypothesis(
            "parity",
            "the coefficient changes its sign with the sample for odd alpha, and not for even",
            lambda moved: not moved.mismatched,
            lambda: _moves(("sign",), mismatched=True),
        ),
        Hypothesis(
            "no-bias",
            "there is no hidden bias, which would fix the scale of (x, 1)",
            lambda moved: not moved.network.has_bias,
            lambda: _moves(bias=True),
        ),
    ),
    instances=_moves,
    conclusion=_same_data,
    sabotages=(
        Sabotage("coefficient", "b_i is kept", conclusion=_coefficients_kept),
        Sabotage("power", "slope of a power too low", implementation=_low_slope),
    ),
    cost="light",
    algebra=_samples_algebra,
    algebra_note="gradients of b a (w . x)^alpha for symbolic b, c, a, w, x, degrees 3 to 6, d = 2",
    code=("identify.model.two_layer.TwoLayerNetwork.gradient",),
)

STATEMENTS = (SAMPLES,)
