"""Two logits with softmax are one output: their difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from identify.errors import UnsupportableModelError
from identify.model.two_layer import Origin, TwoLayerNetwork

# Beyond this the loss does not depend on the difference of the outputs alone.
SUM_LIMIT = 0.1


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
    total = float(np.linalg.norm(gradient.output_weight))
    away = float(np.linalg.norm(gradient.output_weight.sum(axis=0))) / np.sqrt(2.0)
    share = away / total if total > 0.0 else 0.0
    if share > SUM_LIMIT:
        raise UnsupportableModelError(
            f"the gradients of the two outputs are not opposite (their sum is {share:.1e} of them)",
            "two outputs are covered with softmax and cross-entropy, where they are",
        )
    loss = replace(_difference(gradient, 0.5), rounding=max(gradient.rounding, share))
    return _difference(network, 1.0), loss


def _difference(network: TwoLayerNetwork, share: float) -> TwoLayerNetwork:
    heights, bias = network.output_weight, network.output_bias
    gap = heights[1] - heights[0]
    size, left = float(np.linalg.norm(heights)), float(np.linalg.norm(gap))
    # The difference of two rounded numbers carries their rounding, not its own.
    wide = max(1.0, size / left) if left > 0.0 else 1.0
    return TwoLayerNetwork(
        network.hidden_weight,
        share * gap,
        network.degree,
        hidden_bias=network.hidden_bias,
        output_bias=None if bias is None else share * (bias[1:] - bias[:1]),
        rounding=min(network.rounding * wide, 0.5),
        origin=network.origin or Origin(network.sha256()),
    )
