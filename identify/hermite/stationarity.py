"""How far given samples are from explaining the data."""

from __future__ import annotations

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork


def stationarity(data: HermiteData, samples: FloatArray, coefficients: FloatArray) -> float:
    """Relative residual of a training set, evaluated on the network itself.

    |goal - sum_i b_i grad_theta f(x_i)| / |goal| over both layers, with goal = theta for KKT,
    decay theta for weight decay (decay 1 if unknown), the given gradient, or the movement of the
    weights for fine-tuning (f taken at the points of the data). An output bias does not count.

    Args:
        data: of any source.
        samples: x_i, shape (n, d).
        coefficients: b_i, shape (n,).

    Raises:
        InvalidInputError: wrong shapes, or numbers beyond the range of float64.

    Cost: 2 n m d multiplications.

    Example:
        >>> network = TwoLayerNetwork([[3.0**-0.5]], [3.0**-1], degree=3)
        >>> data = HermiteData.from_weight_decay(network)
        >>> stationarity(data, np.array([[1.0]]), np.array([3.0**0.5])) < 1e-15
        True
    """
    hidden, output = target_of(data)
    gradient = _network(data).gradient(samples, coefficients)
    miss = np.hypot(
        np.linalg.norm(hidden - gradient.points), np.linalg.norm(output - gradient.output_weight)
    )
    return float(miss / np.hypot(np.linalg.norm(hidden), np.linalg.norm(output)))


def target_of(data: HermiteData) -> tuple[FloatArray, FloatArray]:
    """What the gradients have to add up to: vectors (m, D) and numbers (m,)."""
    if data.values is not None:
        return data.rows, data.values
    return data.rows, data.network.output_weight * (1.0 if data.decay is None else data.decay)


def _network(data: HermiteData) -> TwoLayerNetwork:
    """The network whose gradients are summed: for fine-tuning the one at the points of the data."""
    if data.source != "fine-tuning":
        return data.network
    cut = data.network.dimension
    return TwoLayerNetwork(
        data.points[:, :cut],
        data.scales / data.degree,
        data.degree,
        hidden_bias=data.points[:, cut] if data.has_bias else None,
    )
