"""From the last hidden layer down to the network's input, every layer exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.model.deep import DeepGradient, DeepNetwork

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_TURNS = 6
_DEPENDENT = 1e-11
_LATE = "the time limit passed"


@dataclass(frozen=True, eq=False)
class Descent:
    """How far down the samples could be followed, and what was found there.

    ``inputs`` (n, k) enter linear layer ``layer``; 0 is the network's input. ``cotangents`` p
    (n, C), in scale if ``scaled``. ``ones[l]`` is the largest distance from 1 of the coefficient
    that the bias of layer l makes 1, NaN where there is none. ``deltas`` (n, m_l) and ``slopes``
    s'(z_l) (n, m_l) belong to the hidden layers from ``layer`` upwards. ``stopped`` says why the
    descent ended above the input, or is empty.
    """

    layer: int
    inputs: FloatArray
    cotangents: FloatArray
    scaled: bool
    ones: tuple[float, ...]
    deltas: tuple[FloatArray, ...]
    slopes: tuple[FloatArray, ...]
    stopped: str


@dataclass(frozen=True, eq=False)
class AtTheTop:
    """Samples at the last hidden layer, from which `descend` sets out.

    ``features`` h (n, k) enter the layer, ``cotangents`` p (n, C) the outputs, ``slopes`` are s'(z)
    (n, m). ``scaled`` says that the scale of h and p is known; a bias on the way fixes it.
    ``accuracy`` is the relative error of h, one for all or (n,); values below it count as 0.
    """

    features: FloatArray
    cotangents: FloatArray
    slopes: FloatArray
    scaled: bool
    accuracy: float | FloatArray


@dataclass(frozen=True, eq=False)
class _Rows:
    """By layer: rows (m,) that are unknown, and exponents (m,) of the sizes of their errors."""

    unknown: Mapping[int, BoolArray]
    exponents: Mapping[int, IntArray]

    def used(self, index: int, count: int) -> BoolArray:
        """The rows (count,) that are known."""
        return ~self.unknown[index] if index in self.unknown else np.ones(count, dtype=np.bool_)

    def even(self, index: int, rows: FloatArray) -> FloatArray:
        """Rows (m, k) over the sizes of their errors."""
        if index not in self.exponents:
            return rows
        return np.ldexp(rows, -self.exponents[index][:, None])


def descend(
    network: DeepNetwork,
    gradient: DeepGradient,
    top: AtTheTop,
    *,
    open_rows: Mapping[int, BoolArray] | None = None,
    exponents: Mapping[int, IntArray] | None = None,
    budget: Budget = UNLIMITED,
) -> Descent:
    """Follow samples from the last hidden layer's input down to the network's input.

    With delta_l known, [h_l, 1] is the least-squares solution of G_l = Delta_l [h_l, 1]^T, and
    delta_(l-1) = s'(z_(l-1)) * delta_l W_l with the slope read from h_l. At the end the samples'
    own forward pass replaces the slopes, until they agree.

    Args:
        top: the samples at the last hidden layer.
        open_rows: by layer, rows (m,) of its gradient that are not known.
        exponents: by layer, the sizes 2^e (m,) of its rows' errors where they are uneven.
        budget: after whose time the samples stay where they are.

    Cost: 3 n sum_l m_l k_l multiplications and a QR decomposition a layer.
    """
    at = network.depth - 2
    deltas = [top.slopes * (top.cotangents @ network.weights[-1])]
    ones = [float("nan")] * network.depth
    kept = [top.slopes]
    h, p, scaled, stopped = top.features, top.cotangents, top.scaled, ""
    rows = _Rows(open_rows or {}, exponents or {})
    while at > 0:
        budget.tell("descent", 1.0 - at / network.depth)
        stopped = _LATE if budget.expired else _obstacle(network, gradient, at - 1)
        if stopped:
            break
        margin = np.reshape(top.accuracy, (-1, 1)) * np.abs(h).max(axis=1, keepdims=True)
        slope = _slope(network, at - 1, h, margin)
        below = slope * (deltas[0] @ network.weights[at])
        if not _independent(below):
            stopped = f"the samples' cotangents at layer {at} are linearly dependent"
            break
        h, last = _solve(gradient, at - 1, below, rows)
        at -= 1
        deltas.insert(0, below)
        kept.insert(0, slope)
        if last is not None and not scaled:
            h, p, scaled = h / last[:, None], p * last[:, None], True
            deltas = [delta * last[:, None] for delta in deltas]
        elif last is not None:
            ones[at] = float(np.abs(last - 1.0).max())
    reached = Descent(at, h, p, scaled, tuple(ones), tuple(deltas), tuple(kept), stopped)
    return _settle(network, gradient, reached, rows, budget)


def _settle(
    network: DeepNetwork, gradient: DeepGradient, found: Descent, rows: _Rows, budget: Budget
) -> Descent:
    """Replace slopes by those of the forward pass while that leaves no more of the gradient."""
    residual = _left(gradient, found, rows)
    for _ in range(_TURNS):
        if budget.expired:
            break
        run = network.forward(found.inputs, found.layer)
        slopes = tuple(
            network.activations[found.layer + index].slope(z)
            for index, z in enumerate(run.preactivations[:-1])
        )
        deltas = network.backward(run, found.cotangents)[:-1]
        if not _independent(deltas[0]):
            break
        h, last = _solve(gradient, found.layer, deltas[0], rows)
        if not found.scaled:
            sides = np.sign(np.sum(h * found.inputs, axis=1, keepdims=True))
            h = np.asarray(h * sides, dtype=np.float64)
        ones = list(found.ones)
        if last is not None and found.scaled:
            ones[found.layer] = float(np.abs(last - 1.0).max())
        trial = replace(found, inputs=h, ones=tuple(ones), deltas=deltas, slopes=slopes)
        now = _left(gradient, trial, rows)
        if now > residual * (1.0 + 1e-3) + 1e-14:
            break
        same = all(map(np.array_equal, found.slopes, trial.slopes))
        found, residual = trial, min(now, residual)
        if same:
            break
    return found


def _left(gradient: DeepGradient, found: Descent, rows: _Rows) -> float:
    """What the samples leave of the gradient of the layer reached, relative."""
    g = gradient.weights[found.layer]
    if g is None:
        return float("inf")
    used = rows.used(found.layer, len(g))
    left = np.linalg.norm((found.deltas[0].T @ found.inputs - g)[used])
    return float(left / max(float(np.linalg.norm(g)), 1e-300))


def _slope(network: DeepNetwork, index: int, h: FloatArray, margin: FloatArray) -> FloatArray:
    """s'(z) from h = s(z); a kinked activation is on where h exceeds the margin."""
    activation = network.activations[index]
    if activation.kink is not None:
        return np.where(h > margin, 1.0, activation.kink)
    slope = activation.slope_from_value(h)
    if slope is None:
        raise ValueError(f"{activation.name} has no inverse")
    return slope


def _obstacle(network: DeepNetwork, gradient: DeepGradient, below: int) -> str:
    activation = network.activations[below]
    if gradient.weights[below] is None:
        return f"the gradient of layer {below + 1} is not supplied"
    joined = gradient.layer(below)
    if joined is None or not joined.any():
        # Its rank, its noise and the length of what enters it are unknown.
        return f"the gradient of layer {below + 1} is 0"
    if activation.slope_from_value(np.zeros((1, 1))) is None:
        return f"values of {activation.name} do not determine its slope"
    return ""


def _independent(delta: FloatArray) -> bool:
    length = np.linalg.norm(delta, axis=1)
    if len(delta) > delta.shape[1] or not length.all():
        return False
    values = np.linalg.svd(delta / length[:, None], compute_uv=False)
    return bool(values[-1] > _DEPENDENT * values[0])


def _solve(
    gradient: DeepGradient, index: int, delta: FloatArray, rows: _Rows
) -> tuple[FloatArray, FloatArray | None]:
    """h (n, k) and, with a bias, the coefficients (n,) that should be 1."""
    g = gradient.layer(index)
    if g is None:
        raise ValueError("a layer without its gradient")
    used, left, right = rows.used(index, len(g)), rows.even(index, delta.T), rows.even(index, g)
    lifted = np.asarray(np.linalg.lstsq(left[used], right[used], rcond=None)[0], dtype=np.float64)
    if gradient.biases[index] is None:
        return lifted, None
    return lifted[:, :-1], lifted[:, -1]
