"""The networks of the demonstration, trained in plain numpy and scipy on small images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.optimize import minimize
from scipy.special import expit

from identify.arrays import FloatArray
from identify.errors import InvalidInputError, KktCertError
from identify.model.two_layer import TwoLayerNetwork

DEGREE = 3
STATIONARY = 1e-13
"""Largest |gradient| over |decay theta| of a network that counts as trained to the end."""
_DEAD = 1e-3
_STARTS = 8


@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits of 8 x 8 pixels: `samples` (n, 64) in [0, 1] minus `mean` (64,).

    `classes` (n,) holds the digits 0 to 9, even and odd in turn; `labels` (n,) is +1 for even.
    """

    samples: FloatArray
    labels: FloatArray
    classes: tuple[int, ...]
    mean: FloatArray


def all_digits() -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """All handwritten digits, (1797, 64) in [0, 1], and their classes (1797,).

    Raises InvalidInputError if scikit-learn (extra `demo`) is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InvalidInputError(
            "demo", "scikit-learn, which provides the digits", "no such package",
            "pip install 'kktcert[demo]'",
        ) from error  # fmt: skip
    data = load_digits()
    return data.data / 16.0, data.target


def pick_digits(count: int, seed: int) -> Digits:
    """Choose digits of as many classes as possible; the mean of the whole data set is removed.

    Raises InvalidInputError if scikit-learn (extra `demo`) is missing.

    Example:
        >>> pick_digits(8, seed=0).samples.shape
        (8, 64)
    """
    images, target = all_digits()
    rng = np.random.default_rng([seed, count])
    rounds = [(2 * rng.permutation(5), 2 * rng.permutation(5) + 1) for _ in range(-(-count // 10))]
    order = np.concatenate([np.column_stack(pair).ravel() for pair in rounds])[:count]
    pools = [list(rng.permutation(np.flatnonzero(target == k))) for k in range(10)]
    chosen = [pools[k].pop() for k in order]
    mean = images.mean(axis=0)
    return Digits(
        samples=images[chosen] - mean,
        labels=1.0 - 2.0 * (order % 2),
        classes=tuple(int(k) for k in order),
        mean=mean,
    )


def random_network(width: int, dimension: int, seed: int) -> TwoLayerNetwork:
    """A fresh cubic network: w_jk ~ N(0, 1/d), a_j ~ N(0, 1/m)."""
    rng = np.random.default_rng([seed, width, 11])
    hidden = rng.standard_normal((width, dimension)) / np.sqrt(dimension)
    return TwoLayerNetwork(hidden, rng.standard_normal(width) / np.sqrt(width), DEGREE)


def batch_gradient(network: TwoLayerNetwork, digits: Digits) -> tuple[TwoLayerNetwork, FloatArray]:
    """The gradient of sum_i log(1 + exp(-y_i f(x_i))), and b_i = dloss_i/df_i, shape (n,)."""
    y = digits.labels
    coefficients = -y * expit(-y * network.value(digits.samples))
    return network.gradient(digits.samples, coefficients), coefficients


def fine_tune(
    initial: TwoLayerNetwork,
    digits: Digits,
    scale: float,
    *,
    loss: float = 0.3,
    step: float = 0.08,
    max_steps: int = 20_000,
) -> tuple[TwoLayerNetwork, int]:
    """Full-batch gradient descent on the logistic loss of the logits s (f(x) - f_start(x)).

    The logit is the change of the network's output times the output scale s, so every sample
    starts at logit 0 and counts. The weights move by an amount proportional to 1/s, and so does
    the error of every statement that is exact to first order in the movement. Without the
    subtraction, samples that the start already gets right by a margin of 1/s would have no
    influence on the weights.

    Args:
        initial: the network before.
        digits: samples and labels.
        scale: s > 0.
        loss: mean loss at which to stop.
        step: step size times s^2 times the largest eigenvalue of the tangent kernel at the start.
        max_steps: limit.

    Returns:
        The network after, and the number of steps.

    Cost: 4 n m d flops a step.
    Source: lazy training, Chizat, Oyallon & Bach 2019, "On lazy training in differentiable
        programming", section 1.
    """
    x, y = digits.samples, digits.labels
    hidden, output = initial.hidden_weight.copy(), initial.output_weight.copy()
    start = initial.value(x)
    inner = x @ hidden.T
    slopes = DEGREE * inner ** (DEGREE - 1) * output
    kernel = (inner**DEGREE) @ (inner**DEGREE).T + (slopes @ slopes.T) * (x @ x.T)
    rate = step / (scale**2 * float(np.linalg.eigvalsh(kernel)[-1]))
    for count in range(max_steps):
        inner = x @ hidden.T
        margins = scale * y * (inner**DEGREE @ output - start)
        current = float(np.mean(np.logaddexp(0.0, -margins)))
        if current <= loss:
            return TwoLayerNetwork(hidden, output, DEGREE), count
        if not current < 10.0:
            break
        b = scale * y * expit(-margins)
        slopes = DEGREE * inner ** (DEGREE - 1) * output
        output = output + rate * (b @ inner**DEGREE)
        hidden = hidden + rate * ((b[:, None] * slopes).T @ x)
    raise KktCertError(
        f"fine-tuning at output scale {scale:g} did not reach the loss {loss:g}; try a smaller step"
    )


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A cubic network trained with weight decay until nothing moves any more.

    `network` (m neurons, most of them 0), the number of `live` neurons, `coefficients` (n,)
    b_i = y_i / (n decay (1 + exp(y_i f(x_i)))) of the training samples in units of the decay,
    `gradient` the norm of the whole gradient over |decay theta|, `curvature` the smallest
    eigenvalue of the Hessian over the decay (positive: a strict local minimum), `margins` (n,).
    """

    network: TwoLayerNetwork
    live: int
    coefficients: FloatArray
    gradient: float
    curvature: float
    margins: FloatArray
    loss: float
    decay: float


def train_to_stationarity(
    digits: Digits, *, width: int = 40, decay: float = 1e-3, seed: int = 0
) -> TrainedNetwork:
    """Minimise mean logistic loss + decay/2 |theta|^2 from a small random start.

    L-BFGS in all weights; neurons that the decay has brought below 1e-3 of the largest are set to
    0, where their gradient vanishes; Newton steps in the rest. Up to eight starts, until one ends
    at a strict local minimum other than 0.

    Args:
        digits: linearly independent samples, labels.
        width: neurons at the start.
        decay: weight decay of both layers.
        seed: of the starts.

    Raises:
        KktCertError: no start ended there.

    Cost: a few hundred evaluations of 4 n m d flops a start.
    Source: the number of live neurons at a local minimum is at most n (this project).
    """
    rng = np.random.default_rng([seed, 2])
    for _ in range(_STARTS):
        found = _train_once(digits, width, decay, rng)
        if found is not None:
            return found
    raise KktCertError("no start was trained to stationarity; try another seed")


def _train_once(
    digits: Digits, width: int, decay: float, rng: np.random.Generator
) -> TrainedNetwork | None:
    x, y = digits.samples, digits.labels
    dimension = x.shape[1]
    hidden = 0.5 / np.sqrt(dimension) * rng.standard_normal((width, dimension))
    output = 0.5 * rng.standard_normal(width) / np.sqrt(width)
    problem = _Objective(x, y, decay)
    theta = minimize(
        problem.value_and_gradient,
        np.column_stack([hidden, output]).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10_000, "gtol": 1e-9, "ftol": 1e-15, "maxcor": 20},
    ).x.reshape(width, dimension + 1)
    sizes = np.linalg.norm(theta[:, :-1], axis=1)
    live = np.flatnonzero(sizes > _DEAD * sizes.max())
    if sizes.max() < 1e-2 or live.size > 2 * len(x):
        return None
    # At a stationary point the first layer lies in the span of the samples: Newton works there.
    basis, coordinates = np.linalg.qr(x.T)
    inside = _Objective(coordinates.T, y, decay)
    reduced = np.column_stack([theta[live, :-1] @ basis, theta[live, -1]])
    reduced, curvature = inside.newton(reduced)
    whole = np.zeros((width, dimension + 1))
    whole[live] = np.column_stack([reduced[:, :-1] @ basis.T, reduced[:, -1]])
    loss, slope = problem.value_and_gradient(whole.ravel())
    remainder = float(np.linalg.norm(slope)) / (decay * float(np.linalg.norm(whole)))
    if not (curvature > 1e-6 * decay and remainder <= STATIONARY):
        return None
    network = TwoLayerNetwork(whole[:, :-1], whole[:, -1], DEGREE)
    margins = y * network.value(x)
    return TrainedNetwork(
        network=network,
        live=int(live.size),
        coefficients=y * expit(-margins) / (len(y) * decay),
        gradient=remainder,
        curvature=curvature / decay,
        margins=margins,
        loss=float(loss),
        decay=decay,
    )


class _Objective:
    """Mean logistic loss + decay/2 |theta|^2 of rows theta_j = (w_j, a_j), with derivatives."""

    def __init__(self, samples: FloatArray, labels: FloatArray, decay: float) -> None:
        self.x, self.y, self.decay = samples, labels, decay

    def value_and_gradient(self, flat: FloatArray) -> tuple[float, FloatArray]:
        """The objective and its gradient at theta flattened."""
        x, y = self.x, self.y
        theta = flat.reshape(-1, x.shape[1] + 1)
        hidden, output = theta[:, :-1], theta[:, -1]
        inner = x @ hidden.T
        margins = y * (inner**DEGREE @ output)
        g = -y * expit(-margins) / len(y)
        slope = self.decay * theta
        slope[:, :-1] += (g[:, None] * DEGREE * inner ** (DEGREE - 1) * output).T @ x
        slope[:, -1] += g @ inner**DEGREE
        value = float(np.mean(np.logaddexp(0.0, -margins)))
        return value + 0.5 * self.decay * float(flat @ flat), slope.ravel()

    def hessian(self, theta: FloatArray) -> FloatArray:
        """Second derivatives at theta (l, r + 1), shape (l (r + 1), l (r + 1))."""
        x, y = self.x, self.y
        hidden, output = theta[:, :-1], theta[:, -1]
        inner = x @ hidden.T
        p = expit(-y * (inner**DEGREE @ output))
        g, curve = -y * p / len(y), p * (1.0 - p) / len(y)
        first = DEGREE * inner ** (DEGREE - 1)
        rows = np.concatenate(
            [(first * output)[:, :, None] * x[:, None, :], (inner**DEGREE)[:, :, None]], axis=2
        ).reshape(len(x), -1)
        matrix = (rows.T * curve) @ rows + self.decay * np.eye(theta.size)
        size = theta.shape[1]
        for j, height in enumerate(output):
            block = np.zeros((size, size))
            second = DEGREE * (DEGREE - 1) * height * inner[:, j] ** (DEGREE - 2)
            block[:-1, :-1] = (x.T * (g * second)) @ x
            block[:-1, -1] = block[-1, :-1] = (g * first[:, j]) @ x
            part = slice(j * size, (j + 1) * size)
            matrix[part, part] += block
        return np.asarray(matrix)

    def newton(self, theta: FloatArray, steps: int = 30) -> tuple[FloatArray, float]:
        """Newton steps while they reduce the gradient; theta and the smallest curvature."""
        shape = theta.shape
        slope = self.value_and_gradient(theta.ravel())[1]
        for _ in range(steps):
            move = scipy.linalg.solve(self.hessian(theta), -slope, assume_a="sym")
            trial = theta + move.reshape(shape)
            trial_slope = self.value_and_gradient(trial.ravel())[1]
            if not np.linalg.norm(trial_slope) < np.linalg.norm(slope):
                break
            theta, slope = trial, trial_slope
        return theta, float(np.linalg.eigvalsh(self.hessian(theta))[0])
