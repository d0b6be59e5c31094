"""Two different batches with one gradient: both are sent through the network again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..outcome import BoolArray, FloatArray, check_possible, require
from .case import Case
from .confirm import layer_noise, near
from .passes import READABLE, slope, value
from .report import Shown

SECOND_RESIDUAL = 1e-10
SECOND_NOISE = 1e-6
SECOND_DISTANCE = 1e-2
_ROOM = 1.1
_LOOSE = 10.0
_SIGMAS = 4.0
_EPSILON = 2.0**-52


@dataclass(frozen=True, eq=False)
class _Pass:
    inputs: list[FloatArray]
    z: list[FloatArray]
    deltas: list[FloatArray]


def check_second_sets(case: Case) -> str:
    """Both sets have r samples, explain every gradient, lie off the kinks, and differ."""
    require(case.report.loss is None, "the loss is named, and the slopes of the sets are free")
    r = case.top.rank
    require(case.top.clear, f"rank {r} is not clear: gap {case.top.gap:.3g}")
    larger = [k for k, found in case.spectra.items() if found.rank > r]
    require(not larger, f"layers {larger} have a larger rank than the last hidden one")
    names = {name for name, _ in case.network.kinds}
    check_possible(names <= set(READABLE), f"activations other than {', '.join(READABLE)}")
    require(len(case.report.shown) == 2, f"{len(case.report.shown)} sets are shown")
    worst = 0.0
    errors = []
    for number, shown in enumerate(case.report.shown, 1):
        require(len(shown.samples) == r, f"set {number} has {len(shown.samples)} samples, not {r}")
        run = _run(case, shown)
        residual = _residual(case, run, number)
        require(near(shown.residual, residual, 3.0, 1e-12),
                f"set {number} leaves {residual:.1e}, not {shown.residual}")  # fmt: skip
        errors.append(_errors(case, shown, run))
        for i, (said, own) in enumerate(zip(shown.error_bounds, errors[-1], strict=True)):
            agree = near(float(said), float(own), _LOOSE, 1e-12)
            require(agree, f"the bound of sample {i + 1} of set {number} is {own:.1e}, not {said}")
        margin = _margin(case, run, errors[-1], number)
        require(near(shown.margin, margin, _LOOSE),
                f"set {number} is {margin:.1e} off the kinks, not {shown.margin}")  # fmt: skip
        worst = max(worst, residual)
    one, two = case.report.shown
    near_one = _beyond(one.samples, two.samples, errors[0], errors[1])
    different = near_one.all(axis=1).any() and near_one.all(axis=0).any()
    require(different, "the two sets are the same, or too near to each other")
    return f"two sets of {r} samples, the largest residual {worst:.1e}"


def _run(case: Case, shown: Shown) -> _Pass:
    """Forward pass of the samples and backward pass of their slopes, without the stated masks."""
    network = case.network
    h, inputs, z = shown.samples, [], []
    for index, weight in enumerate(network.weights):
        inputs.append(h)
        z.append(h @ weight.T + network.bias(index))
        if index <= network.top:
            h = value(network.kinds[index], z[-1])
    deltas = [shown.cotangents]
    for index in range(network.top, -1, -1):
        back = deltas[0] @ network.weights[index + 1]
        deltas.insert(0, slope(network.kinds[index], z[index]) * back)
    finite = all(np.isfinite(part).all() for part in (*z, *deltas))
    require(finite, "the samples leave the range of float64 in the network")
    return _Pass(inputs, z, deltas)


def _residual(case: Case, run: _Pass, number: int) -> float:
    """The largest share that is left of a gradient, each held against its limit."""
    worst = 0.0
    for index in range(len(case.network.weights)):
        g = case.gradient.joined(index)
        if g is None:
            continue
        h = run.inputs[index]
        if g.shape[1] > h.shape[1]:
            h = np.column_stack([h, np.ones(len(h))])
        left = float(np.linalg.norm(g - run.deltas[index].T @ h))
        residual = left / max(float(np.linalg.norm(g)), 1e-300)
        limit = max(SECOND_RESIDUAL, 2.0 * _ROOM * layer_noise(case, index))
        require(residual <= min(limit, _ROOM * SECOND_NOISE),
                f"set {number} leaves {residual:.1e} of the gradient of layer {index + 1}, "
                f"{limit:.1e} is allowed")  # fmt: skip
        worst = max(worst, residual)
    return worst


def _errors(case: Case, shown: Shown, run: _Pass) -> FloatArray:
    """Relative errors that the noise of the first layer's gradient leaves of the samples, (n,)."""
    check_possible(0 in case.spectra, "no gradient of the first layer")
    own = case.spectra[0]
    spread = np.linalg.svd(run.deltas[0], compute_uv=False)
    count, width = run.deltas[0].shape
    require(count <= width and spread[-1] > 1e-13 * spread[0], "the cotangents are dependent")
    noise = own.noise * (np.sqrt(own.shape[1]) + _SIGMAS)
    sizes = np.maximum(np.linalg.norm(shown.samples, axis=1), 1e-300)
    inverse = np.linalg.norm(np.linalg.pinv(run.deltas[0].T), axis=1)
    return np.asarray(noise * inverse / sizes + 16.0 * _EPSILON)


def _margin(case: Case, run: _Pass, errors: FloatArray, number: int) -> float:
    """The smallest distance of a neuron from its kink, over its error; it has to be above 1."""
    least = np.inf
    for index in range(case.network.top + 1):
        if case.network.kink(index) is None:
            continue
        lengths = np.sum(case.network.weights[index] ** 2, axis=1) + case.network.bias(index) ** 2
        reach = np.sqrt(np.sum(run.inputs[index] ** 2, axis=1) + 1.0)[:, None] * np.sqrt(lengths)
        seen = reach > 0.0
        room = np.abs(run.z[index])[seen] / (reach * (errors[:, None] + 1e-12))[seen]
        least = min(least, float(room.min(initial=np.inf)))
    require(least * _ROOM > 1.0, f"set {number} has a sample on the kink of a neuron")
    return least


def _beyond(one: FloatArray, two: FloatArray, first: FloatArray, second: FloatArray) -> BoolArray:
    """Which pairs lie further apart than their errors and 1e-2 of their norms, (n, n)."""
    apart = np.linalg.norm(one[:, None] - two[None], axis=2)
    sizes = np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1)
    error = (first * sizes[0])[:, None] + (second * sizes[1])[None]
    least = SECOND_DISTANCE / _ROOM * np.maximum(sizes[0][:, None], sizes[1][None])
    return np.asarray(apart - error > least)
