"""The change of a first layer between two checkpoints, in the coordinates of the data's span."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.checkpoints.span import CheckpointSpan
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.deep import DeepNetwork

SCOPE = "two linear layers, the first with a bias, and relu or leaky_relu between them"


@dataclass(frozen=True, eq=False)
class PairProblem:
    """dM = sum_i D_i c_i^T with c_i = B [x_i; 1], the rows of B (r, k) an orthonormal basis.

    ``before``, ``after`` (m, r) are the first layers in these coordinates, ``outer_before`` and
    ``outer_after`` (m, C) the output weights of a neuron, ``change`` dM (m, r); ``columns`` U
    (m, r) and ``values`` its left factor and singular values. A sample has ``last`` . c = 1.
    ``entry`` is the root mean square of a weight of the first layer.
    """

    before: FloatArray
    after: FloatArray
    outer_before: FloatArray
    outer_after: FloatArray
    change: FloatArray
    columns: FloatArray
    values: FloatArray
    last: FloatArray
    entry: float

    @property
    def count(self) -> int:
        """The number r of samples."""
        return len(self.last)

    @property
    def width(self) -> int:
        """The number m of neurons."""
        return len(self.change)

    def scaled(self, points: FloatArray) -> FloatArray:
        """Points (n, r) divided so that their last coordinate of [x; 1] is 1."""
        share = points @ self.last
        floor = 1e-12 * np.linalg.norm(points, axis=1)
        share = np.where(np.abs(share) < floor, np.where(share < 0.0, -floor, floor), share)
        return points / share[:, None]

    def residual(self, cotangents: FloatArray, points: FloatArray) -> float:
        """|dM - D C| / |dM| for D (m, n) and C (n, r)."""
        rest = self.change - cotangents @ points
        return float(np.linalg.norm(rest) / np.linalg.norm(self.change))

    def amplitudes(self, *, moving: bool) -> FloatArray:
        """A (m, q): the midpoint of the output weights, and their change if it is to count.

        Softmax outputs have slopes of sum 0, so that a common part of the rows does not act; one
        direction fewer is kept for several outputs.
        """
        centre, moved = (
            _apart(0.5 * (self.outer_before + self.outer_after)),
            _apart(self.outer_after - self.outer_before),
        )
        if not moving or float(np.linalg.norm(moved)) <= 1e-9 * float(np.linalg.norm(centre)):
            return centre
        scale = np.linalg.norm(centre) / np.linalg.norm(moved)
        return np.hstack([centre, moved * scale])


def _apart(outer: FloatArray) -> FloatArray:
    """Output weights (m, C) on the differences of the outputs, (m, C - 1); one output as it is."""
    if outer.shape[1] == 1:
        return outer
    return np.asarray(outer @ linalg.null_space(np.ones((1, outer.shape[1]))))


def pose_pair(initial: DeepNetwork, final: DeepNetwork, span: CheckpointSpan) -> PairProblem:
    """Write a pair of two-layer networks in the coordinates of their span.

    Raises InvalidInputError for a span without a number, NotYetSupportedError for frozen biases.
    """
    if span.samples is None:
        raise InvalidInputError("span", "a span with a number of samples", span.reason)
    if not span.has_bias:
        raise NotYetSupportedError(
            "samples between two networks whose first bias did not move are not yet covered", SCOPE
        )
    basis = span.basis
    inner = []
    for network in (initial, final):
        bias = network.biases[0]
        assert bias is not None
        inner.append(np.column_stack([network.weights[0], bias]) @ basis.T)
    change = span.change @ basis.T
    return PairProblem(
        before=inner[0],
        after=inner[1],
        outer_before=initial.weights[1].T,
        outer_after=final.weights[1].T,
        change=change,
        columns=change / span.singular_values,
        values=span.singular_values,
        last=basis[:, -1].copy(),
        entry=float(np.sqrt(np.mean(initial.weights[0] ** 2))),
    )
