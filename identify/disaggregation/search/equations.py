"""F(h, p) of one sample with its Gauss-Newton matrix, and Levenberg-Marquardt on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.disaggregation.search.signals import Signals, maps_at, signals
from identify.disaggregation.search.spaces import View

_TINY = 1e-300
_VANISHED = 1e-140
_LARGEST_DAMPING = 1e9
_SETTLING = 2


@dataclass(frozen=True, eq=False)
class Block:
    """One signal of a sample: its squared residual, relative, and its part of J^T J.

    ``share`` is |(I - Q Q^T) v| / |v|; ``gram`` and ``slope`` are J^T J and J^T r of the residual
    r = (I - Q Q^T) v / D, None where no tangents were asked for.
    """

    cost: float
    share: float
    gram: FloatArray | None
    slope: FloatArray | None


@dataclass(frozen=True, eq=False)
class Point:
    """F and its derivatives at unknowns y = (u, x), x the free numbers of p."""

    y: FloatArray
    blocks: tuple[Block, ...]
    run: Signals

    @property
    def cost(self) -> float:
        """F."""
        return float(sum(block.cost for block in self.blocks))

    @property
    def share(self) -> float:
        """The largest |(I - Q Q^T) v| / |v|."""
        return max(block.share for block in self.blocks)

    def normal(self) -> tuple[FloatArray, FloatArray]:
        """J^T J and J^T r."""
        grams = [block.gram for block in self.blocks if block.gram is not None]
        slopes = [block.slope for block in self.blocks if block.slope is not None]
        return np.sum(grams, axis=0), np.sum(slopes, axis=0)


@dataclass(frozen=True)
class Stop:
    """When a minimisation ends: steps, a value of F, ``patience`` steps that gain too little."""

    steps: int
    cost: float
    gain: float
    patience: int
    damping: float = 1e-2


def evaluate(view: View, y: FloatArray, label: int | None, *, tangents: bool) -> Point:
    """F(h, p) = sum over signals v of |(I - Q Q^T) v|^2 / D^2, with its derivatives in Gram form.

    D = |v - q q^T v| with the references q of the view, or |v| without; F is free of the scale of
    p. With B = Q^T dv, J^T J = (dv^T dv - B^T B) / D^2 - (a b^T + b a^T) + F b b^T, where
    a = r^T dv / D and b = (v - q q^T v)^T dv / D^2.

    Args:
        y: u (k,), then the free numbers of p.
        label: the label that is tried, or None.
        tangents: whether to return derivatives.

    Cost: m k^2 for each signal.
    """
    run, parts = _parts(view, y, label, tangents=tangents)
    return Point(y, tuple(_block(*part) for part in parts), run)


_Part = tuple[FloatArray, FloatArray | None, FloatArray, FloatArray | None]


def _parts(
    view: View, y: FloatArray, label: int | None, *, tangents: bool
) -> tuple[Signals, list[_Part]]:
    """The run of a sample, and of each signal: value, tangents, space, reference."""
    k = view.dimension
    chain = view.spaces.chain
    choice: FloatArray | int = label if label is not None else y[k:] if chain.free else np.ones(1)
    z = view.preactivations(y[:k])
    run = signals(chain, z, view.tangent if tangents else None, choice)
    layers = len(view.left)
    parts: list[_Part] = []
    for i in range(2 * layers - 1):
        upper = i >= layers
        at = i - layers + 1 if upper else i
        space = view.right[at] if upper else view.left[at]
        if space is None:
            continue
        value = view.spaces.lift(at, run.features[at - 1]) if upper else run.deltas[at]
        change = None
        if tangents:
            change = run.feature_tangents[at - 1] if upper else run.delta_tangents[at]
            change = view.spaces.lift(at, change) if upper else change
        reference = None if view.references is None else view.references[i]
        parts.append((value, change, space, reference))
    return run, parts


def linearise(view: View, y: FloatArray, label: int | None) -> list[tuple[FloatArray, FloatArray]]:
    """Residual r (m,) and Jacobian (m, k) of each signal, for a view without references.

    Twice the work of the Gram form, and exact where J^T J has lost what J still knows.
    """
    _, parts = _parts(view, y, label, tangents=True)
    found = []
    for value, change, space, _ in parts:
        assert change is not None
        size = max(float(np.linalg.norm(value)), _TINY)
        r = (value - space @ (space.T @ value)) / size
        moved = (change - space @ (space.T @ change)) / size
        found.append((r, moved - np.outer(r, (value @ change) / size**2)))
    return found


def _block(
    value: FloatArray,
    change: FloatArray | None,
    space: FloatArray,
    reference: FloatArray | None,
) -> Block:
    outside = value - space @ (space.T @ value)
    seen = value if reference is None else value - reference @ (reference.T @ value)
    size = float(np.linalg.norm(seen))
    if not size > _VANISHED:
        # A signal that vanishes explains nothing, whatever its direction.
        return Block(np.inf, np.inf, None, None)
    r = outside / size
    cost = float(r @ r)
    share = float(np.linalg.norm(outside)) / (float(np.linalg.norm(value)) + _TINY)
    if change is None:
        return Block(cost, share, None, None)
    inside = space.T @ change
    a, b = (r @ change) / size, (seen @ change) / size**2
    gram = (change.T @ change - inside.T @ inside) / size**2
    gram -= np.outer(a, b) + np.outer(b, a) - cost * np.outer(b, b)
    return Block(cost, share, gram, a - cost * b)


def start_cotangent(view: View, u: FloatArray) -> FloatArray:
    """The free numbers of p (q,) that fit best at u: the smallest singular vector of all signals.

    Empty where p is not free.
    """
    chain = view.spaces.chain
    if not chain.free:
        return np.zeros(0)
    maps, _ = maps_at(chain, view.preactivations(u))
    stacked, inside = [], []
    for map_, space in zip(maps, view.left, strict=True):
        if space is not None:
            scaled = map_ / max(float(np.linalg.norm(map_)), _TINY)
            stacked.append(scaled)
            inside.append(space.T @ scaled)
    r = np.asarray(np.linalg.qr(np.vstack(stacked))[1], dtype=np.float64)
    found = np.linalg.svd(linalg.lstsq(r.T, np.vstack(inside).T)[0].T)[2][0]
    x = np.asarray(linalg.lstsq(r, found)[0], dtype=np.float64)
    return x / max(float(np.linalg.norm(x)), _TINY)


def minimise(view: View, y: FloatArray, label: int | None, stop: Stop) -> tuple[Point, int]:
    """Levenberg-Marquardt on F from y; the last point, without derivatives, and the steps taken.

    Source: Marquardt (1963), with the diagonal of J^T J as the metric.
    """
    here = evaluate(view, y, label, tangents=True)
    if not np.isfinite(here.cost):
        return here, 0
    damping, idle, steps = stop.damping, 0, 0
    while steps < stop.steps and here.cost > stop.cost and np.isfinite(here.cost):
        steps += 1
        gram, slope = here.normal()
        trial, damping = _step(view, here, label, (gram, slope), damping)
        if trial is None:
            break
        gain = (here.cost - trial.cost) / here.cost
        idle = idle + 1 if gain < stop.gain else 0
        if trial.cost <= stop.cost or idle >= stop.patience or steps == stop.steps:
            return trial, steps
        here = evaluate(view, _renormalised(view, trial.y), label, tangents=True)
        damping = max(damping / 5.0, 1e-12)
    return here, steps


def _step(
    view: View,
    here: Point,
    label: int | None,
    system: tuple[FloatArray, FloatArray],
    damping: float,
) -> tuple[Point | None, float]:
    gram, slope = system
    if gram.size == 0:
        return None, damping
    scale = np.diag(gram).copy()
    largest = float(scale.max())
    if not (largest > 0.0 and np.isfinite(largest)):
        return None, damping
    scale = np.maximum(scale, 1e-12 * largest)
    while damping < _LARGEST_DAMPING:
        matrix = gram + np.diag(damping * scale + 1e-14 * largest)
        try:
            factor = linalg.cho_factor(matrix, check_finite=False, overwrite_a=True)
        except np.linalg.LinAlgError:
            damping = max(10.0 * damping, 1e-10)
            continue
        move = linalg.cho_solve(factor, slope, check_finite=False)
        trial = evaluate(view, here.y - move, label, tangents=False)
        if trial.cost < here.cost:
            return trial, damping
        damping *= 4.0
    return None, damping


def settle(view: View, here: Point, label: int | None) -> Point:
    """Undamped Gauss-Newton steps from a minimum.

    At the floor of rounding F itself no longer tells a better point; the step still does. A step
    that raises F fourfold ends this. Scales that F does not see are 1 in the result.
    """
    for _ in range(_SETTLING):
        y = _renormalised(view, here.y)
        blocks = linearise(view, y, label)
        jacobian = np.vstack([j for _, j in blocks])
        if jacobian.size == 0 or not np.isfinite(jacobian).all():
            break
        scale = np.maximum(np.linalg.norm(jacobian, axis=0), _TINY)
        r = np.concatenate([r for r, _ in blocks])
        move = np.linalg.lstsq(jacobian / scale, r, rcond=1e-12)[0] / scale
        trial = evaluate(view, y - move, label, tangents=False)
        if not trial.cost <= 4.0 * here.cost:
            break
        here = trial
    return evaluate(view, _renormalised(view, here.y), label, tangents=False)


def _renormalised(view: View, y: FloatArray) -> FloatArray:
    """y with the free numbers of p at norm 1, and a homogeneous u too: F does not depend on it."""
    k = view.dimension
    y = y.copy()
    if view.spaces.chain.free:
        y[k:] /= max(float(np.linalg.norm(y[k:])), _TINY)
    if view.spaces.homogeneous:
        y[:k] /= max(float(np.linalg.norm(y[:k])), _TINY)
    return y
