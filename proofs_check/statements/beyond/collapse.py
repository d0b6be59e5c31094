"""Collapse under weight decay: negative curvature beyond n live neurons."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from unittest.mock import patch

import numpy as np

from identify import TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt import balance as kkt
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.strategies import StationaryPoint

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Loss = Literal["squared", "logistic"]
LOSSES: tuple[Loss, ...] = ("squared", "logistic")
SADDLES = "second variation of homogeneous networks under weight decay; ours"


@dataclass(frozen=True, eq=False)
class Valley:
    """A stationary point of sum_i loss_i(f(x_i)) + decay |theta|^2 / 2 with b_i = -loss_i'/decay.

    squared: (f - t_i)^2/2; logistic: q_i log(1 + exp(-y_i f)), whose weights q_i make the slope
    right. `copies` of its neurons come twice, each a solution of its own; `silent` ones are zero.
    """

    point: StationaryPoint
    loss: Loss
    decay: float
    copies: int = 0
    silent: int = 0

    def __repr__(self) -> str:
        return (
            f"Valley({self.loss}, decay={self.decay:g}, m={self.network.width}, "
            f"silent={self.silent}, {self.point.data!r})"
        )

    @property
    def network(self) -> TwoLayerNetwork:
        """The network with its copies and its zero neurons, stationary for the same T."""
        net = self.point.network
        rows = np.arange(self.copies) % net.width
        hidden = np.vstack(
            [net.hidden_weight, net.hidden_weight[rows], np.zeros((self.silent, net.dimension))]
        )
        output = np.concatenate([net.output_weight, net.output_weight[rows], np.zeros(self.silent)])
        return TwoLayerNetwork(hidden, output, net.degree)

    def curvatures(self) -> FloatArray:
        """loss_i'' at f(x_i), shape (n,)."""
        values = self.network.value(self.point.data.samples)
        if self.loss == "squared":
            return np.ones(len(values))
        slope = self.decay * np.abs(self.point.data.coefficients)
        margins = np.sign(self.point.data.coefficients) * values
        # q / (1 + exp(m)) = |slope| fixes q; loss'' = q s (1 - s) with s = 1 / (1 + exp(m)).
        share = 1.0 / (1.0 + np.exp(np.clip(margins, -30.0, 30.0)))
        return np.asarray(slope * (1.0 - share))


def contributions(network: TwoLayerNetwork, samples: FloatArray) -> FloatArray:
    """phi_j = a_j (w_j . x_i)^alpha, shape (n, m)."""
    inner = samples @ network.hidden_weight.T
    return np.asarray(network.output_weight * inner**network.degree)


def second_derivative(network: TwoLayerNetwork, sample: FloatArray) -> FloatArray:
    """The blocks of D^2 f(x) in (a_j, w_j), shape (m, d + 1, d + 1); the others are zero."""
    alpha, size = network.degree, network.dimension + 1
    z = network.hidden_weight @ sample
    blocks = np.zeros((network.width, size, size))
    mixed = (alpha * z ** (alpha - 1))[:, None] * sample
    blocks[:, 0, 1:] = mixed
    blocks[:, 1:, 0] = mixed
    bent = alpha * (alpha - 1) * network.output_weight * z ** (alpha - 2)
    blocks[:, 1:, 1:] = bent[:, None, None] * np.outer(sample, sample)
    return blocks


def first_derivative(network: TwoLayerNetwork, sample: FloatArray) -> FloatArray:
    """grad f(x) in (a_j, w_j), shape (m, d + 1)."""
    slope = network.gradient(sample[None], np.ones(1))
    return np.column_stack([slope.output_weight, slope.hidden_weight])


def hessian(valley: Valley) -> FloatArray:
    """The Hessian of loss + decay |theta|^2 / 2, shape (m (d + 1), m (d + 1)), neuron by neuron."""
    network, data = valley.network, valley.point.data
    size = network.dimension + 1
    total = valley.decay * np.eye(network.width * size)
    places = np.arange(network.width)[:, None] * size + np.arange(size)
    for x, b, bent in zip(data.samples, data.coefficients, valley.curvatures(), strict=True):
        flat = first_derivative(network, x).ravel()
        total += bent * np.outer(flat, flat)
        blocks = -valley.decay * b * second_derivative(network, x)
        total[places[:, :, None], places[:, None, :]] += blocks
    return np.asarray(total)


def size_of_terms(valley: Valley) -> float:
    """A bound of the sums of moduli that make an entry of the Hessian."""
    network, data = valley.network, valley.point.data
    heights = np.abs(network.output_weight)
    positive = TwoLayerNetwork(np.abs(network.hidden_weight), heights, network.degree)
    total = valley.decay
    bends = valley.curvatures()
    for x, b, bent in zip(np.abs(data.samples), np.abs(data.coefficients), bends, strict=True):
        total += float(bent) * float(np.linalg.norm(first_derivative(positive, x)) ** 2)
        blocks = second_derivative(positive, x)
        total += valley.decay * float(b) * float(np.max(np.linalg.norm(blocks, axis=(1, 2))))
    return total


def rounding(valley: Valley) -> float:
    """How far the Hessian in the norm is off: its own rounding and that of the point."""
    network, data = valley.network, valley.point.data
    terms = 8.0 * (data.samples.size + network.width * (network.dimension + 1)) * UNIT
    slack = 8.0 * network.degree**2 * kkt.rounding(valley.point)
    return (terms + slack) * size_of_terms(valley)


def _valleys(
    *, silent: bool = False, degrees: tuple[int, ...] = (3, 4, 5)
) -> SearchStrategy[Valley]:
    from hypothesis import strategies as st

    kinds = ("generic", "orthonormal", "integer", "digits")
    return st.builds(
        Valley,
        strategies.stationary_points(3, 4, degrees, kinds),
        st.sampled_from(LOSSES),
        st.sampled_from((1.0, 0.1, 1e-3)),
        st.integers(1, 2),
        st.integers(1, 2) if silent else st.just(0),
    )


def _is_stationary(valley: Valley) -> bool:
    return kkt.is_stationary(valley.point)


def _stretch(point: StationaryPoint) -> StationaryPoint:
    """The first layer longer by a tenth."""
    net = point.network
    return replace(point, network=replace(net, hidden_weight=1.1 * net.hidden_weight))


def _moved() -> SearchStrategy[Valley]:
    return _valleys().map(lambda valley: replace(valley, point=_stretch(valley.point)))


STATIONARY = Hypothesis(
    "stationary",
    "the gradient of loss + mu/2 |theta|^2 is zero, the same mu on both layers",
    _is_stationary,
    _moved,
)


# --- the Hessian identity ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stretch:
    """A stationary point and a direction (k_j theta_j); with `level` sum_j k_j phi_j = 0."""

    valley: Valley
    level: bool = True

    def __repr__(self) -> str:
        return f"Stretch({'level' if self.level else 'any'}, {self.valley!r})"

    def factors(self) -> FloatArray:
        """Two random columns k (m, 2), in the kernel of (phi_j) if they are to be level."""
        network, data = self.valley.network, self.valley.point.data
        rng = np.random.default_rng([data.seed, network.width, 18])
        random = rng.standard_normal((network.width, 2))
        if not self.level:
            return random
        phi = contributions(network, data.samples)
        _, sigma, right = np.linalg.svd(phi)
        rank = int(np.count_nonzero(sigma > 1e-9 * sigma[0]))
        kernel = right[rank:]
        return np.asarray(kernel.T @ (kernel @ random))


def _identity(stretch: Stretch, factor: float = 0.0) -> Check:
    """v . Hess u + mu (alpha - 1 + factor) v . u over the sizes, for two directions u and v."""
    valley, factors = stretch.valley, stretch.factors()
    network = valley.network
    theta = np.column_stack([network.output_weight, network.hidden_weight])
    moves = (factors.T[:, :, None] * theta).reshape(2, -1)
    curved = moves @ hessian(valley) @ moves.T
    metric = moves @ moves.T
    expected = -valley.decay * (network.degree - 1 + factor) * metric
    sizes = np.sqrt(np.outer(np.diag(metric), np.diag(metric))) + 1e-300
    return Check.compare(float(np.max(np.abs(curved - expected) / sizes)), rounding(valley))


def _is_level(stretch: Stretch) -> bool:
    """sum_j k_j phi_j = 0 to rounding."""
    valley = stretch.valley
    phi = contributions(valley.network, valley.point.data.samples)
    factors = stretch.factors()
    noise = 64.0 * phi.size * UNIT * float(np.abs(phi).sum()) * float(np.abs(factors).max())
    return bool(np.max(np.abs(phi @ factors)) <= noise + 1e-9 * float(np.abs(phi).max()) * 1e-5)


def _stretches(*, level: bool = True) -> SearchStrategy[Stretch]:
    from hypothesis import strategies as st

    return st.builds(Stretch, _valleys(), st.just(level))


def _one_less(stretch: Stretch) -> Check:
    return _identity(stretch, 1.0)


def _unmixed() -> AbstractContextManager[object]:
    """D^2 f without the part that mixes the layers."""
    import proofs_check.statements.beyond.collapse as module

    original = module.second_derivative

    def broken(network: TwoLayerNetwork, sample: FloatArray) -> FloatArray:
        blocks = original(network, sample)
        blocks[:, 0, 1:] = 0.0
        blocks[:, 1:, 0] = 0.0
        return blocks

    return patch.object(module, "second_derivative", broken)


def _identity_algebra() -> bool:
    """Along theta_j -> (1 + k_j t) theta_j, for three neurons, two outputs and any degree."""
    import sympy as sp

    alpha, t, mu = sp.symbols("alpha t mu", positive=True)
    k = sp.symbols("k1:4")
    phi = sp.Matrix(2, 3, sp.symbols("p1:7"))
    slopes, bends = sp.symbols("l1:3"), sp.symbols("c1:3")
    # Stationary along theta_j: mu |theta_j|^2 = -(alpha + 1) sum_i slope_i phi_ij.
    squares = [-(alpha + 1) * sum(slopes[i] * phi[i, j] for i in range(2)) / mu for j in range(3)]
    total = mu * sum(squares[j] * (1 + k[j] * t) ** 2 for j in range(3)) / 2
    for i in range(2):
        moved = sum(phi[i, j] * (1 + k[j] * t) ** (alpha + 1) for j in range(3))
        change = moved - sum(phi[i, :])
        total += slopes[i] * change + bends[i] * change**2 / 2
    curved = sp.diff(total, t, 2).subs(t, 0)
    level = {phi[i, 2]: -(k[0] * phi[i, 0] + k[1] * phi[i, 1]) / k[2] for i in range(2)}
    expected = -mu * (alpha - 1) * sum(squares[j] * k[j] ** 2 for j in range(3))
    return bool(sp.simplify((curved - expected).subs(level)) == 0)


HESSIAN = Statement(
    name="hessian-identity",
    title="Curvature along rescaled neurons",
    sentence=(
        "At a stationary point of loss + mu/2 |theta|^2 the Hessian on the directions "
        "(k_j theta_j) with sum_j k_j phi_j = 0, phi_j the contributions of neuron j to the n "
        "outputs, is -mu (alpha - 1) times the metric."
    ),
    formula=r"\textstyle\sum_j k_j \varphi_j = 0 \implies "
    r"v^T \nabla^2 L\, u = -\mu(\alpha-1)\, v^T u,\quad v = (k_j\theta_j)",
    source=SADDLES,
    hypotheses=(
        Hypothesis(
            STATIONARY.name,
            STATIONARY.sentence,
            lambda stretch: _is_stationary(stretch.valley),
            lambda: _moved().map(Stretch),
        ),
        Hypothesis(
            "level",
            "sum_j k_j phi_j = 0: no output changes to first order",
            _is_level,
            lambda: _stretches(level=False),
        ),
    ),
    instances=_stretches,
    conclusion=_identity,
    sabotages=(
        Sabotage("factor", "alpha in place of alpha - 1", conclusion=_one_less),
        Sabotage("mixed", "D^2 f without mixed terms", construction=_unmixed),
        Sabotage(
            "gradient",
            "gradient of the first layer without a_j",
            implementation=kkt.gradient_without_outputs,
        ),
    ),
    cost="light",
    algebra=_identity_algebra,
    algebra_note="three neurons, two outputs, symbolic degree, slopes and curvatures of the loss",
    code=("identify.model.two_layer.TwoLayerNetwork.gradient",),
    remark="For every loss; the curvature of the loss does not enter.",
)


# --- saddles -----------------------------------------------------------------------------------


def negative_directions(valley: Valley) -> int:
    """Eigenvalues of the Hessian of at most -mu (alpha - 1), to rounding."""
    values = np.linalg.eigvalsh(hessian(valley))
    bound = -valley.decay * (valley.network.degree - 1) + rounding(valley)
    return int(np.count_nonzero(values <= bound))


def _saddle(valley: Valley) -> Check:
    wanted = valley.network.width - len(valley.point.data.samples)
    found = negative_directions(valley)
    return Check.of(found >= wanted, f"{found} of {wanted} directions")


def _all_neurons(valley: Valley) -> Check:
    return Check.of(negative_directions(valley) >= valley.network.width)


def _has_live_neurons(valley: Valley) -> bool:
    return bool(np.all(valley.network.output_weight))


def _short_of(valley: Valley) -> bool:
    return valley.network.width > len(valley.point.data.samples)


def _shrunk() -> SearchStrategy[Valley]:
    """Weights of a third of the size: no stationary point, and weight decay bends it upwards."""

    def build(valley: Valley) -> Valley:
        net = valley.point.network
        small = TwoLayerNetwork(net.hidden_weight / 3.0, net.output_weight / 3.0, net.degree)
        return replace(valley, point=replace(valley.point, network=small))

    return _valleys().filter(_short_of).map(build)


SADDLE = Statement(
    name="live-neurons",
    title="At most n live neurons at a minimum",
    sentence=(
        "With l live neurons and n samples the Hessian at a stationary point of loss + "
        "mu/2 |theta|^2 has at least l - n eigenvalues of at most -mu (alpha - 1): a local "
        "minimum has at most n live neurons, all other stationary points are strict saddles."
    ),
    formula=r"\#\{\lambda_k(\nabla^2 L) \le -\mu(\alpha-1)\} \ge \ell - n",
    source=SADDLES + " (Courant-Fischer)",
    hypotheses=(
        replace(STATIONARY, violating=_shrunk),
        Hypothesis(
            "live",
            "neurons that are zero do not count",
            _has_live_neurons,
            lambda: _valleys(silent=True).filter(_short_of),
        ),
    ),
    instances=lambda: _valleys().filter(_short_of),
    conclusion=_saddle,
    sabotages=(
        Sabotage("all", "as many directions as neurons", conclusion=_all_neurons),
        Sabotage("mixed", "D^2 f without mixed terms", construction=_unmixed),
    ),
    cost="light",
    code=("identify.model.two_layer.TwoLayerNetwork.gradient",),
    remark="Equal neurons count one by one; with C outputs n is replaced by n C.",
)

STATEMENTS = (HESSIAN, SADDLE)
