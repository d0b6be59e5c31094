"""Which of a sample and its negative it was, where the hidden layers cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.disaggregation.search.find import Sample
from identify.disaggregation.search.pose import Posed
from identify.disaggregation.search.spaces import Spaces

BoolArray = npt.NDArray[np.bool_]

_DETERMINED = 1e-6
_NEAR_WHOLE = 0.1
_MOST_TRIED = 14
_APART = 1e3


def choose_sides(posed: Posed, spaces: Spaces, samples: list[Sample]) -> tuple[list[Sample], bool]:
    """Turn samples to the side that the output layer's gradient asks for, if it does.

    A sample x with slope p and -x with -p have the same gradients in every hidden layer. In the
    output layer they contribute p h(x)^T and -p h(-x)^T, and p and -p to its bias: the shares of
    the two are the solution of a linear system. Returns the samples, and whether every side is
    still open.

    Cost: C m r^2, and 2^r r^2 for few samples whose shares the system leaves open.
    """
    top = posed.network.depth - 1
    given = posed.gradient.layer(top)
    if not spaces.two_sided or spaces.homogeneous or given is None or not samples:
        return samples, spaces.two_sided
    inputs = np.array([sample.point for sample in samples]) @ spaces.bottom.rows.T
    p = np.array([sample.weight * sample.cotangent for sample in samples])
    lifted = posed.gradient.biases[top] is not None
    sides = []
    for sign in (1.0, -1.0):
        h = posed.network.forward(sign * inputs, spaces.first).inputs[-1]
        h = np.column_stack([h, np.ones(len(h))]) if lifted else h
        sides.append([np.outer(sign * one, value).ravel() for one, value in zip(p, h, strict=True)])
    own, other = (np.column_stack(side) for side in sides)
    chosen = _choose(own - other, given.ravel() - other.sum(axis=1), np.linalg.norm(own, axis=0))
    if chosen is None:
        return samples, True
    return [s if kept else _turned(s) for s, kept in zip(samples, chosen, strict=True)], False


def _choose(change: FloatArray, rest: FloatArray, size: FloatArray) -> BoolArray | None:
    """The 0/1 vector t with change t = rest, or None where it is not the only one.

    By least squares where the columns are independent, else by trying all of few samples.
    """
    count = change.shape[1]
    values = np.linalg.svd(change / np.maximum(size, 1e-300), compute_uv=False)
    if len(change) >= count and values[-1] > _DETERMINED:
        share = np.linalg.lstsq(change, rest, rcond=None)[0]
        return None if np.abs(share - np.round(share)).max() > _NEAR_WHOLE else share > 0.5
    if count > _MOST_TRIED or values[0] <= _DETERMINED:
        return None
    q, r = np.linalg.qr(change)
    inside = q.T @ rest
    tried = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 == 1
    left = np.linalg.norm(tried @ r.T - inside, axis=1)
    first, second = np.partition(left, 1)[:2]
    floor = 1e-13 * float(size.sum())
    return tried[int(left.argmin())] if second > _APART * max(float(first), floor) else None


def _turned(sample: Sample) -> Sample:
    inputs = tuple(None if value is None else -value for value in sample.where.inputs)
    where = replace(sample.where, inputs=inputs, point=-sample.where.point)
    return replace(sample, point=-sample.point, weight=-sample.weight, where=where)
