"""Networks, gradients and moment tensors in exact rational arithmetic: float64 numbers as they are.

Arrays have dtype object and hold `fractions.Fraction`; products and sums of numpy work on them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from identify import TwoLayerNetwork


def exact(array: npt.ArrayLike) -> Any:
    """The numbers of an array as fractions.

    Example:
        >>> exact([0.5, 3.0])[0]
        Fraction(1, 2)
    """
    values = np.asarray(array, dtype=np.float64)
    rows = [Fraction(float(value)) for value in values.ravel()]
    return np.array([*rows, None], dtype=object)[:-1].reshape(values.shape)


def _lifted(network: TwoLayerNetwork, samples: npt.ArrayLike) -> Any:
    return exact(network.lift(np.asarray(samples, dtype=np.float64)))


def _activated(network: TwoLayerNetwork, z: Any, derivative: bool) -> Any:
    if network.activation is None:
        degree = network.degree
        return degree * z ** (degree - 1) if derivative else z**degree
    powers = [Fraction(c) for c in network.activation]
    if derivative:
        return sum((k * c * z ** (k - 1) for k, c in enumerate(powers) if k > 0), start=0 * z)
    return sum((c * z**k for k, c in enumerate(powers)), start=0 * z)


def value(network: TwoLayerNetwork, samples: npt.ArrayLike) -> Any:
    """f(x_i), shape (n,), for one output.

    Example:
        >>> net = TwoLayerNetwork([[0.5]], [1.0], degree=3)
        >>> value(net, [[1.0]])[0]
        Fraction(1, 8)
    """
    z = _lifted(network, samples) @ exact(network.points).T
    return _activated(network, z, derivative=False) @ exact(network.output_weight)


def gradient(
    network: TwoLayerNetwork, samples: npt.ArrayLike, coefficients: npt.ArrayLike
) -> tuple[Any, Any]:
    """sum_i b_i grad f(x_i): rows of the first layer (m, D), a bias last, and outputs (m,).

    Example:
        >>> net = TwoLayerNetwork([[0.5]], [1.0], degree=3)
        >>> gradient(net, [[1.0]], [2.0])[1][0]
        Fraction(1, 4)
    """
    x, b, a = _lifted(network, samples), exact(coefficients), exact(network.output_weight)
    z = exact(network.points) @ x.T
    hidden = (_activated(network, z, derivative=True) * b * a[:, None]) @ x
    return hidden, _activated(network, z, derivative=False) @ b


def slopes(
    points: npt.ArrayLike, samples: npt.ArrayLike, coefficients: npt.ArrayLike, degree: int
) -> Any:
    """T(u_j^(alpha-1), .) for T = sum_i b_i x_i^(alpha), shape (m, r).

    Example:
        >>> slopes([[2.0]], [[1.0]], [1.0], 3)[0, 0]
        Fraction(4, 1)
    """
    u, x, b = exact(points), exact(samples), exact(coefficients)
    return ((u @ x.T) ** (degree - 1) * b) @ x


def floats(array: Any) -> npt.NDArray[np.float64]:
    """Nearest float64 numbers.

    Example:
        >>> floats(exact([0.1]))
        array([0.1])
    """
    return np.asarray(array, dtype=object).astype(np.float64)
