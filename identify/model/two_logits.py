"""Two logits with softmax are one output: their difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from identify.arrays import FloatArray
from identify.errors import UnsupportableModelError
from identify.model.two_layer import Origin, TwoLayerNetwork

# Beyond this the loss does not depend on the difference of the outputs alone.
SUM_LIMIT = 0.1
_ORTHONORMAL = 0.5**0.5


def one_output(
    network: TwoLayerNetwork, gradient: TwoLayerNetwork
) -> tuple[TwoLayerNetwork, TwoLayerNetwork]:
    """Reduce a network with two outputs, and a gradient at it, to the difference f_1 - f_0.

    Cross-entropy depends on f_1 - f_0 alone, so that the gradients of the two outputs are opposite,
    and half of their difference is that of the one output with the weights a_1 - a_0. What of their
    sum is not 0 counts as noise.

    Raises UnsupportableModelError where the sum is above a tenth of the whole: another loss.

    Example:
        >>> two = TwoLayerNetwork([[1.0]], [[1.0], [4.0]], degree=3)
        >>> net, gradient = one_output(two, two.gradient([[2.0]], [[-1.0, 1.0]]))
        >>> net.output_weight, gradient.output_weight
        (array([3.]), array([8.]))
    """
    share = common_share(gradient.output_weight)
    if share > SUM_LIMIT:
        raise UnsupportableModelError(
            f"the gradients of the two outputs are not opposite (their sum is {share:.1e} of them)",
            "two outputs are covered with softmax and cross-entropy, where they are",
        )
    loss = replace(_difference(gradient, 0.5), rounding=gradient.rounding)
    stated = gradient.dtype_rounding
    return _difference(network, 1.0), _at_least(replace(loss, dtype_rounding=stated), share)


def one_output_head(network: TwoLayerNetwork) -> TwoLayerNetwork:
    """Reduce stationary weights of two outputs to the one output u = (a_1 - a_0) / sqrt(2).

    u and v = (a_1 + a_0) / sqrt(2) are orthonormal coordinates of the output layer,
    |a_0|^2 + |a_1|^2 = |u|^2 + |v|^2, and f_1 - f_0 = sqrt(2) sum_j u_j s(w_j . x), which is all
    that cross-entropy and margins see. So (W, u) is stationary where (W, a_0, a_1) is, for the same
    decay, with multipliers sqrt(2) times as large, and v = 0. What of v is not 0 counts as noise.

    Raises UnsupportableModelError where v is above a tenth of the whole: no stationary point.

    Example:
        >>> network = TwoLayerNetwork([[1.0]], [[-3.0], [3.0]], degree=3)
        >>> one_output_head(network).output_weight / 2**0.5
        array([3.])
    """
    share = common_share(network.output_weight)
    if share > SUM_LIMIT:
        raise UnsupportableModelError(
            f"the weights of the two outputs are not opposite (their sum is {share:.1e} of them)",
            "trained to the end with softmax they are; --source gradient needs no trained weights",
        )
    return _at_least(_difference(network, _ORTHONORMAL), share)


def one_output_pair(
    initial: TwoLayerNetwork, final: TwoLayerNetwork
) -> tuple[TwoLayerNetwork, TwoLayerNetwork]:
    """Reduce two checkpoints of a network with two outputs to u of `one_output_head`.

    Gradient steps on a loss of f_1 - f_0 move W and u as they would with the one output, and leave
    v. What v moves counts as noise.

    Raises UnsupportableModelError where v moved by above a tenth of the whole.

    Example:
        >>> first = TwoLayerNetwork([[1.0]], [[2.0], [5.0]], degree=3)
        >>> last = TwoLayerNetwork([[1.5]], [[1.0], [6.0]], degree=3)
        >>> [net.output_weight * 2**0.5 for net in one_output_pair(first, last)]
        [array([3.]), array([5.])]
    """
    moved = final.output_weight - initial.output_weight
    # Weights that barely moved are rounded, so that their movement is rounded more.
    size, step = float(np.linalg.norm(final.output_weight)), float(np.linalg.norm(moved))
    unit = max(initial.rounding, final.rounding) * (size / step if step > 0.0 else 0.0)
    share = common_share(moved)
    if share > max(SUM_LIMIT, min(unit, 1.0)):
        raise UnsupportableModelError(
            f"the weights of the two outputs did not move opposite to each other (the sum of their "
            f"movements is {share:.1e} of them)",
            "with softmax, cross-entropy and no weight decay they do",
        )
    level = share * step / size if size > 0.0 else 0.0
    pair = (_difference(initial, _ORTHONORMAL), _difference(final, _ORTHONORMAL))
    first, last = (_at_least(network, level) for network in pair)
    return first, last


def _at_least(network: TwoLayerNetwork, level: float) -> TwoLayerNetwork:
    """The network with at least this noise, whatever its file states."""
    level = min(level, 0.5)
    stated = network.dtype_rounding
    return replace(
        network,
        rounding=max(network.rounding, level),
        dtype_rounding=None if stated is None else max(stated, level),
    )


def common_share(heights: FloatArray) -> float:
    """|v| over |(a_0, a_1)|, the share of weights (2, m) that is common to both outputs.

    Example:
        >>> [round(float(common_share(np.array([[1.0], [b]]))), 6) for b in (-1.0, 1.0)]
        [0.0, 1.0]
    """
    total = float(np.linalg.norm(heights))
    return float(np.linalg.norm(heights.sum(axis=0))) / (np.sqrt(2.0) * total) if total else 0.0


def _difference(network: TwoLayerNetwork, share: float) -> TwoLayerNetwork:
    heights, bias = network.output_weight, network.output_bias
    gap = heights[1] - heights[0]
    size, left = float(np.linalg.norm(heights)), float(np.linalg.norm(gap))
    # The difference of two rounded numbers carries their rounding, not its own.
    wide = max(1.0, size / left) if left > 0.0 else 1.0
    stated = network.dtype_rounding
    return TwoLayerNetwork(
        network.hidden_weight,
        share * gap,
        network.degree,
        hidden_bias=network.hidden_bias,
        output_bias=None if bias is None else share * (bias[1:] - bias[:1]),
        rounding=min(network.rounding * wide, 0.5),
        # What a file states stays a statement.
        dtype_rounding=None if stated is None else min(stated * wide, 0.5),
        origin=network.origin or Origin(network.sha256()),
    )
