"""The slow plain form of F and of its derivative, layer by layer, without Gram matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from identify.disaggregation.search.spaces import View
from identify.model.deep import DeepNetwork

FloatArray = npt.NDArray[np.float64]


def residual(view: View, network: DeepNetwork, y: FloatArray, label: int | None) -> FloatArray:
    """All (I - Q Q^T) v / D below each other, v from the network's own forward pass.

    The sample is sent through the network from layer ``first`` as an input vector.
    """
    spaces = view.spaces
    k = view.dimension
    point = view.basis @ (view.centre + view.chart @ y[:k])
    h = spaces.bottom.rows @ point
    h = h[:-1] if spaces.tail is not None else h
    run = network.forward(h[None], spaces.first)
    if label is None:
        free = y[k:] if spaces.chain.free else np.ones(1)
        p = spaces.chain.space @ free
    else:
        p = special.softmax(run.outputs[0])
        p[label] -= 1.0
    deltas = network.backward(run, p[None])[:-1]
    parts = [(d[0], view.left[i]) for i, d in enumerate(deltas)]
    for i in range(1, len(deltas)):
        lifted = run.inputs[i][0]
        parts.append((np.append(lifted, 1.0) if spaces.lifted[i] else lifted, view.right[i]))
    found = []
    for index, (value, space) in enumerate(parts):
        if space is None:
            continue
        seen = value
        if view.references is not None and view.references[index] is not None:
            q = view.references[index]
            seen = value - q @ (q.T @ value)
        found.append((value - space @ (space.T @ value)) / np.linalg.norm(seen))
    return np.concatenate(found)


def jacobian(view: View, network: DeepNetwork, y: FloatArray, label: int | None) -> FloatArray:
    """Central differences of `residual`."""
    step = 1e-6
    columns = []
    for k in range(len(y)):
        move = np.zeros(len(y))
        move[k] = step
        ahead = residual(view, network, y + move, label)
        columns.append((ahead - residual(view, network, y - move, label)) / (2.0 * step))
    return np.column_stack(columns)
