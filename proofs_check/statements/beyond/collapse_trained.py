"""Trained networks: what is left of their neurons at a minimum under weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from identify import TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import broken_gradient
from proofs_check.statements.uniqueness.explanations import unit_rows

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LIVE = 1e-3
"""Neurons longer than this are live; dead ones end below |gradient|/mu = 1e-6."""


@dataclass(frozen=True, eq=False)
class Training:
    """sum_i loss(f(x_i), y_i) + decay/2 |theta|^2 of m neurons a (w . x)^degree, trained.

    `start` is random, or has all neurons equal, which descent then keeps.
    """

    kind: str
    count: int
    dimension: int
    width: int
    degree: int
    decay: float
    loss: Literal["squared", "logistic"]
    start: Literal["random", "equal"]
    seed: int

    def __repr__(self) -> str:
        return (
            f"Training({self.loss}, {self.kind}, {self.start} start, n={self.count}, "
            f"d={self.dimension}, m={self.width}, degree={self.degree}, decay={self.decay:g}, "
            f"seed={self.seed})"
        )

    @cached_property
    def data(self) -> tuple[FloatArray, FloatArray]:
        """Unit samples (n, d), and targets or labels (n,)."""
        side = max(self.count, self.dimension)
        x = strategies.draw_samples(self.kind, self.count, side, self.seed)[:, : self.dimension]
        rng = np.random.default_rng([self.seed, 19])
        signs = rng.choice([-1.0, 1.0], size=self.count)
        sizes = np.ones(self.count) if self.loss == "logistic" else rng.uniform(1, 2, self.count)
        return unit_rows(x), signs * sizes

    @cached_property
    def end(self) -> tuple[FloatArray, float, float]:
        """theta (m, d + 1) at the end, the norm of the gradient, the least eigenvalue."""
        from scipy.optimize import fmin_l_bfgs_b

        rng = np.random.default_rng([self.seed, 20])
        theta = 1.5 * rng.standard_normal((self.width, self.dimension + 1))
        if self.start == "equal":
            theta[1:] = theta[0]
        found = fmin_l_bfgs_b(
            lambda flat: slopes(self, flat),
            theta.ravel(),
            m=30,
            factr=0.0,
            pgtol=1e-10,
            maxfun=6000,
            maxiter=3000,
        )
        flat = np.asarray(found[0], dtype=np.float64)
        for _ in range(6):
            step = np.linalg.lstsq(curvature(self, flat), slopes(self, flat)[1], rcond=1e-9)[0]
            if not np.linalg.norm(step) < 0.1 * np.linalg.norm(flat):
                break
            flat = flat - step
        least = float(np.linalg.eigvalsh(curvature(self, flat))[0])
        gradient = float(np.linalg.norm(slopes(self, flat)[1]))
        return flat.reshape(self.width, -1), gradient, least


def _losses(training: Training, outputs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Loss, first and second derivative for every sample."""
    targets = training.data[1]
    if training.loss == "squared":
        gap = outputs - targets
        return 0.5 * gap**2, gap, np.ones(len(gap))
    margins = np.clip(targets * outputs, -500.0, 500.0)
    share = 1.0 / (1.0 + np.exp(margins))
    return np.logaddexp(0.0, -margins), -targets * share, share * (1.0 - share)


def slopes(training: Training, flat: FloatArray) -> tuple[float, FloatArray]:
    """The objective and its gradient (m (d + 1),); theta_j = (a_j, w_j)."""
    x, degree = training.data[0], training.degree
    theta = flat.reshape(training.width, -1)
    z = x @ theta[:, 1:].T
    value, first, _ = _losses(training, z**degree @ theta[:, 0])
    gradient = training.decay * theta
    gradient[:, 0] += first @ z**degree
    gradient[:, 1:] += ((first[:, None] * z ** (degree - 1)) * (degree * theta[:, 0])).T @ x
    return float(value.sum() + 0.5 * training.decay * flat @ flat), gradient.ravel()


def curvature(training: Training, flat: FloatArray) -> FloatArray:
    """The Hessian, shape (m (d + 1), m (d + 1))."""
    x, degree = training.data[0], training.degree
    theta = flat.reshape(training.width, -1)
    a, size = theta[:, 0], theta.shape[1]
    z = x @ theta[:, 1:].T
    _, first, second = _losses(training, z**degree @ a)
    total = training.decay * np.eye(flat.size)
    lowered = z ** (degree - 2) if degree > 1 else np.zeros_like(z)
    for i, sample in enumerate(x):
        slope = np.empty(theta.shape)
        slope[:, 0] = z[i] ** degree
        slope[:, 1:] = (degree * a * z[i] ** (degree - 1))[:, None] * sample
        total += second[i] * np.outer(slope, slope)
        for j in range(training.width):
            place = slice(j * size, (j + 1) * size)
            block = np.zeros((size, size))
            block[0, 1:] = block[1:, 0] = degree * z[i, j] ** (degree - 1) * sample
            bent = degree * (degree - 1) * a[j] * lowered[i, j]
            block[1:, 1:] = bent * np.outer(sample, sample)
            total[place, place] += first[i] * block
    return np.asarray(total)


def live_neurons(training: Training) -> int:
    """Neurons that are not zero at the end."""
    return int(np.count_nonzero(np.linalg.norm(training.end[0], axis=1) > LIVE))


def _trainings(
    degrees: tuple[int, ...] = (2, 3, 4, 5),
    decays: tuple[float, ...] = (0.3, 0.1, 0.03),
    start: Literal["random", "equal"] = "random",
) -> SearchStrategy[Training]:
    from hypothesis import strategies as st

    return st.builds(
        Training,
        st.sampled_from(strategies.present(strategies.KINDS)),
        st.integers(1, 3),
        st.integers(2, 4),
        st.integers(5, 8),
        st.sampled_from(degrees),
        st.sampled_from(decays),
        st.sampled_from(("squared", "logistic") if decays[0] else ("squared",)),
        st.just(start),
        st.integers(0, 255),
    )


def _is_minimum(training: Training) -> bool:
    """Converged, and no negative curvature beyond rounding."""
    _, gradient, least = training.end
    return gradient <= 1e-8 and least >= -1e-6


def slope_gap(training: Training) -> float:
    """|mu theta - sum_i b_i grad f(x_i)| with the gradients of identify, b_i = -loss_i'.

    0 at degree 2, of which identify has no networks.
    """
    if training.degree < 3:
        return 0.0
    theta = training.end[0]
    network = TwoLayerNetwork(theta[:, 1:], theta[:, 0], training.degree)
    x = training.data[0]
    slopes = network.gradient(x, -_losses(training, network.value(x))[1])
    pull = np.column_stack([slopes.output_weight, slopes.hidden_weight])
    return float(np.linalg.norm(training.decay * theta - pull))


def _collapsed(training: Training) -> Check:
    gap = slope_gap(training)
    if gap > 1e-6:
        return Check.compare(gap, 1e-6, "not stationary by the gradients of identify")
    found = live_neurons(training)
    return Check.of(found <= training.count, f"{found} live neurons")


def _to_one(training: Training) -> Check:
    return Check.of(live_neurons(training) <= 1)


COLLAPSE = Statement(
    name="trained-collapse",
    title="Training leaves at most n neurons",
    sentence=(
        "Networks trained with weight decay to a local minimum have at most n live neurons, "
        "however wide they are."
    ),
    formula=r"\#\{j : \theta_j \ne 0\} \le n\ \text{at local minima},\quad \alpha \ge 2,\ \mu > 0",
    source="second variation of homogeneous networks under weight decay; ours",
    hypotheses=(
        Hypothesis(
            "decay",
            "mu > 0",
            lambda training: training.decay > 0.0,
            lambda: _trainings(decays=(0.0,)),
        ),
        Hypothesis(
            "degree",
            "alpha >= 2",
            lambda training: training.degree >= 2,
            lambda: _trainings(degrees=(1,)),
        ),
        Hypothesis(
            "minimum",
            "training ends at a local minimum and not at a saddle",
            _is_minimum,
            lambda: _trainings(start="equal"),
        ),
    ),
    instances=_trainings,
    conclusion=_collapsed,
    sabotages=(
        Sabotage("one", "a single live neuron", conclusion=_to_one),
        Sabotage(
            "gradient",
            "gradient of the first layer too small by a tenth",
            implementation=lambda: broken_gradient(hidden=0.9),
        ),
    ),
    cost="heavy",
    code=(
        "identify.model.two_layer.TwoLayerNetwork.gradient",
        "identify.model.two_layer.TwoLayerNetwork.value",
    ),
    remark="From 5 to 8 neurons, 1 to 3 samples; a start with equal neurons ends at a saddle.",
)

STATEMENTS = (COLLAPSE,)
