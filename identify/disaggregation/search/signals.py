"""Error signals and features of one sample, with their tangents, from its first preactivations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from identify.arrays import FloatArray
from identify.model.activations import Activation


@dataclass(frozen=True, eq=False)
class Chain:
    """A network above the preactivations z of its first examined layer.

    ``weights[i]`` (m_(i+1), m_i) and ``biases[i]`` follow activation i, the last of them give the
    outputs f (C,). ``space`` (C, q) spans the admissible p = d loss / d f. With ``labelled`` the
    loss is the cross-entropy and p = softmax(f) - e_y for a label y that is tried; else p is
    ``space`` times free numbers, of which one output needs none.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray | None, ...]
    activations: tuple[Activation, ...]
    space: FloatArray
    labelled: bool

    @property
    def free(self) -> int:
        """How many numbers of p are unknowns of the search: q, or 0 where p is known to scale."""
        q = int(self.space.shape[1])
        return 0 if self.labelled or q == 1 else q


@dataclass(frozen=True, eq=False)
class Signals:
    """One sample at every hidden layer: delta_l (m_l,), h_l (m_(l-1),) above the first, and p (C,).

    ``delta_tangents`` (m_l, k) and ``feature_tangents`` along the k directions asked for, then
    along the free numbers of p; empty where no tangents were asked for.
    """

    deltas: tuple[FloatArray, ...]
    features: tuple[FloatArray, ...]
    delta_tangents: tuple[FloatArray, ...]
    feature_tangents: tuple[FloatArray, ...]
    cotangent: FloatArray
    outputs: FloatArray


@dataclass(frozen=True, eq=False)
class _Forward:
    preactivations: list[FloatArray]
    features: list[FloatArray]
    slopes: list[FloatArray]
    tangents: list[FloatArray]
    feature_tangents: list[FloatArray]


def _forward(chain: Chain, z: FloatArray, dz: FloatArray | None) -> _Forward:
    run = _Forward([z], [], [], [] if dz is None else [dz], [])
    for activation, weight, bias in zip(
        chain.activations, chain.weights, chain.biases, strict=True
    ):
        h = activation.value(z)
        run.slopes.append(activation.slope(z))
        z = weight @ h if bias is None else weight @ h + bias
        run.features.append(h)
        run.preactivations.append(z)
        if dz is not None:
            dh = run.slopes[-1][:, None] * dz
            dz = weight @ dh
            run.feature_tangents.append(dh)
            run.tangents.append(dz)
    return run


def signals(
    chain: Chain, z: FloatArray, dz: FloatArray | None, choice: FloatArray | int
) -> Signals:
    """Run one sample up and its error signal down.

    delta_l = s'(z_l) * W_(l+1)^T delta_(l+1), with delta = p at the outputs.

    Args:
        z: preactivations (m,) of the first layer.
        dz: their tangents (m, k), or None for values alone.
        choice: the label y, or the free numbers of p, shape (q,).

    Cost: 4 k sum_l m_l m_(l+1) operations.
    """
    run = _forward(chain, z, dz)
    outputs = run.preactivations[-1]
    moved: FloatArray | None = None
    if chain.labelled:
        share = special.softmax(outputs)
        p = share.copy()
        p[int(choice)] -= 1.0
        if dz is not None:
            change = run.tangents[-1]
            moved = share[:, None] * change - np.outer(share, share @ change)
    else:
        p = chain.space @ choice
        if dz is not None:
            moved = np.zeros((len(p), dz.shape[1]))
    return _backward(chain, run, p, moved, dz is not None)


def _backward(
    chain: Chain, run: _Forward, p: FloatArray, moved: FloatArray | None, tangents: bool
) -> Signals:
    deltas: list[FloatArray] = []
    changes: list[FloatArray] = []
    delta, change = p, moved
    last = len(chain.activations) - 1
    for i in range(last, -1, -1):
        back = chain.weights[i].T @ delta
        delta = run.slopes[i] * back
        deltas.insert(0, delta)
        if tangents and change is not None:
            bend = chain.activations[i].curvature(run.preactivations[i]) * back
            # Of a p that stands still nothing comes down from the outputs.
            below = bend[:, None] * run.tangents[i]
            if i < last or chain.labelled:
                below = below + run.slopes[i][:, None] * (chain.weights[i].T @ change)
            change = below
            changes.insert(0, change)
    feature_tangents = run.feature_tangents[:-1]
    if tangents and chain.free:
        maps = linear_maps(chain, run.slopes)
        changes = [np.hstack([a, b]) for a, b in zip(changes, maps, strict=True)]
        none = chain.free
        feature_tangents = [np.pad(t, ((0, 0), (0, none))) for t in feature_tangents]
    return Signals(
        tuple(deltas), tuple(run.features[:-1]), tuple(changes), tuple(feature_tangents), p,
        run.preactivations[-1],
    )  # fmt: skip


def linear_maps(chain: Chain, slopes: list[FloatArray]) -> list[FloatArray]:
    """M_l (m_l, q) with delta_l = M_l x for p = space x, of every hidden layer."""
    maps: list[FloatArray] = []
    above = chain.space
    for i in range(len(slopes) - 1, -1, -1):
        above = slopes[i][:, None] * (chain.weights[i].T @ above)
        maps.insert(0, above)
    return maps


def maps_at(chain: Chain, z: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
    """The maps M_l at preactivations z (m,), and the features there."""
    run = _forward(chain, z, None)
    return linear_maps(chain, run.slopes), run.features[:-1]
