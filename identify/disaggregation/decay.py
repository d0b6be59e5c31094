"""Weight decay that is part of a deep gradient, subtracted; its constant from the layers."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from identify.arrays import FloatArray
from identify.disaggregation.factor import factor
from identify.errors import InvalidInputError
from identify.model.deep import DeepGradient, DeepNetwork

OPTION = "--weight-decay-in-gradient"
_TURNS = 30
_SETTLED = 1e-13
_TOLD = 1e-6
_PENCIL = 200


def without_decay(
    network: DeepNetwork, gradient: DeepGradient, decay: float | str | None, *, seed: int = 0
) -> tuple[DeepGradient, float | None]:
    """Subtract decay theta from a gradient, biases included; return it and the constant.

    "auto" starts with the least squares of Euler's identity over all pairs of layers l, l + 1 with
    a ReLU or leaky ReLU between them,

        mu (|w_j|^2 + beta_j^2 - sum_c (W_(l+1))_cj^2) = left_j - right_j

    (left and right as in `check_agreement`), and improves it where the last hidden layer's gradient
    has a clear rank r: outside its column and row space U, V the gradient is mu times the weights,
    mu = <(I - U U^T) G (I - V V^T), W> / |(I - U U^T) W (I - V V^T)|^2, repeated. Where Euler's
    identity says nothing, as between smooth activations, it starts with the median eigenvalue of
    the pencil of G and W, compressed to squares of one size s: mu has the multiplicity s - r.

    Raises InvalidInputError for a negative constant and other words, and for "auto" where the
    layers do not tell.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> network = DeepNetwork(rng.normal(size=(2, 8, 8)), None, "relu")
        >>> batch = network.gradient(rng.normal(size=(2, 8)), rng.normal(size=(2, 8)))
        >>> sent = [g + 0.25 * w for g, w in zip(batch.weights, network.weights)]
        >>> round(without_decay(network, DeepGradient(sent, batch.biases), "auto")[1], 9)
        0.25
    """
    if decay is None:
        return gradient, None
    if isinstance(decay, str):
        if decay != "auto":
            raise InvalidInputError(OPTION, "a number or auto", repr(decay))
        decay = _auto(network, gradient, seed)
    if not 0.0 <= decay < np.inf:
        raise InvalidInputError(OPTION, "a number of at least 0", decay)
    return _subtract(network, gradient, decay), float(decay)


def _subtract(network: DeepNetwork, gradient: DeepGradient, decay: float) -> DeepGradient:
    weights = tuple(
        None if g is None else g - decay * own
        for g, own in zip(gradient.weights, network.weights, strict=True)
    )
    biases = tuple(
        g if g is None or own is None else g - decay * own
        for g, own in zip(gradient.biases, network.biases, strict=True)
    )
    return DeepGradient(weights, biases)


def _auto(network: DeepNetwork, gradient: DeepGradient, seed: int) -> float:
    start = _estimate(network, gradient)
    if start is not None:
        return _refine(network, gradient, start, seed)
    start = _by_rank(network, gradient, seed)
    if start is None:
        raise InvalidInputError(OPTION, "a number, as the layers do not tell", "auto")
    return _refine(network, gradient, start, seed)


def _by_rank(network: DeepNetwork, gradient: DeepGradient, seed: int) -> float | None:
    """The constant that leaves the last hidden layer's gradient a rank below half of its sides."""
    pair = _last_hidden(network, gradient)
    if pair is None:
        return None
    g, w = pair
    size = min(*g.shape, _PENCIL)
    rng = np.random.default_rng(seed)
    left, right = (_frame(rng, length, size) for length in g.shape)
    try:
        values = scipy.linalg.eigvals(left.T @ g @ right, left.T @ w @ right)
    except scipy.linalg.LinAlgError:
        return None
    real = np.asarray(values[np.isfinite(values)].real, dtype=np.float64)
    if 2 * len(real) <= size:
        return None
    decay = max(0.0, float(np.median(real)))
    found = factor(g - decay * w, seed=seed)
    return decay if found.clear and 2 * found.rank < size else None


def _frame(rng: np.random.Generator, length: int, size: int) -> FloatArray:
    """Orthonormal columns (length, size)."""
    return np.asarray(np.linalg.qr(rng.normal(size=(length, size)))[0], dtype=np.float64)


def _last_hidden(
    network: DeepNetwork, gradient: DeepGradient
) -> tuple[FloatArray, FloatArray] | None:
    """Gradient and weights of the last hidden layer, each with its bias where it is known."""
    top = network.depth - 2
    g = None if top < 0 else gradient.layer(top)
    if g is None:
        return None
    w, bias = network.weights[top], network.biases[top]
    if gradient.biases[top] is not None and bias is not None:
        w = np.column_stack([w, bias])
    return g, w


def _estimate(network: DeepNetwork, gradient: DeepGradient) -> float | None:
    """The least squares of Euler's identity; None where it does not tell."""
    shares, missing = [], []
    for index in range(network.depth - 1):
        lower, upper = gradient.weights[index], gradient.weights[index + 1]
        own, given = network.biases[index], gradient.biases[index]
        if lower is None or upper is None or network.activations[index].kink is None:
            continue
        if own is not None and own.any() and given is None:
            continue
        weight, above = network.weights[index], network.weights[index + 1]
        share = np.sum(weight**2, axis=1) - np.sum(above**2, axis=0)
        left = np.sum(weight * lower, axis=1) - np.sum(above * upper, axis=0)
        if own is not None and given is not None:
            share = share + own**2
            left = left + own * given
        shares.append(share)
        missing.append(left)
    total = float(sum(share @ share for share in shares))
    size = sum(float(np.sum(weight**2)) for weight in network.weights)
    if not shares or np.sqrt(total) <= _TOLD * size:
        return None
    return float(sum(m @ s for m, s in zip(missing, shares, strict=True)) / total)


def _refine(network: DeepNetwork, gradient: DeepGradient, start: float, seed: int) -> float:
    """Turn by turn from U, V at mu to the mu that they leave; the start where no rank is clear."""
    pair = _last_hidden(network, gradient)
    if pair is None:
        return max(0.0, start)
    g, w = pair
    decay = start
    for _ in range(_TURNS):
        left = g - decay * w
        if not left.any():
            break
        found = factor(left, seed=seed)
        if not found.clear:
            return max(0.0, start)
        outside = _outside(w, found.columns, found.rows)
        size = float(np.sum(outside**2))
        if size <= _TOLD * float(np.sum(w**2)):
            return max(0.0, start)
        step = float(np.sum(_outside(left, found.columns, found.rows) * outside)) / size
        decay += step
        if abs(step) <= _SETTLED * max(abs(decay), 1e-300):
            break
    # A constant below what rounding leaves is none.
    return max(0.0, decay)


def _outside(matrix: FloatArray, columns: FloatArray, rows: FloatArray) -> FloatArray:
    part = matrix - columns @ (columns.T @ matrix)
    return np.asarray(part - (part @ rows) @ rows.T, dtype=np.float64)
