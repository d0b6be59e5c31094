"""Weight decay that is part of a gradient, as optimisers with an L2 term send it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.model.gradients import fill_head
from identify.model.two_layer import Origin, TwoLayerNetwork

OPTION = "--weight-decay-in-gradient"


def without_decay(
    network: TwoLayerNetwork, gradient: TwoLayerNetwork, decay: float | str
) -> TwoLayerNetwork:
    """Subtract decay theta from a gradient, biases included.

    "auto" takes the constant of the least squares mu (alpha |a_j|^2 - |w_j|^2) =
    alpha a_j . (grad_a)_j - w_j . (grad_W)_j over all neurons: a gradient without decay makes the
    right side 0.

    Raises InvalidInputError for a negative constant, and for "auto" where the output layer's
    gradient is missing or the layers are balanced, so that every constant fits.

    Example:
        >>> net = TwoLayerNetwork([[2.0]], [3.0], degree=3)
        >>> batch = net.gradient([[1.0]], [1.0])
        >>> sent = TwoLayerNetwork(batch.hidden_weight + 0.2, batch.output_weight + 0.3, degree=3)
        >>> without_decay(net, sent, "auto").hidden_weight
        array([[36.]])
    """
    filled = gradient.origin is not None and gradient.origin.filled
    if isinstance(decay, str):
        if decay != "auto":
            raise InvalidInputError(OPTION, "a number or auto", repr(decay))
        if filled:
            raise InvalidInputError(
                OPTION, "a number, as the output layer's gradient is missing", "auto"
            )
        decay = _estimate(network, gradient)
    if not 0.0 <= decay < np.inf:
        raise InvalidInputError(OPTION, "a number of at least 0", decay)
    mine, theirs = network.arrays(), gradient.arrays()
    parts = {name: array - decay * mine[name] for name, array in theirs.items() if name in mine}
    before = [np.abs(array) + decay * np.abs(mine[name]) for name, array in theirs.items()
              if name in mine]  # fmt: skip
    size, left = _norm(before), _norm(list(parts.values()))
    wide = max(1.0, size / left) if left > 0.0 else 1.0
    stated, own = gradient.origin or Origin(gradient.sha256()), gradient.dtype_rounding
    clean = TwoLayerNetwork(
        parts["hidden.weight"],
        parts["output.weight"],
        gradient.degree,
        activation=gradient.activation,
        hidden_bias=parts.get("hidden.bias"),
        output_bias=parts.get("output.bias", gradient.output_bias),
        # The difference of two rounded numbers carries their rounding, not its own.
        rounding=min(gradient.rounding * wide, 0.5),
        dtype_rounding=None if own is None else min(own * wide, 0.5),
        origin=replace(stated, decay=float(decay)),
    )
    return fill_head(network, clean) if filled else clean


def _estimate(network: TwoLayerNetwork, gradient: TwoLayerNetwork) -> float:
    points, heights = network.points, np.atleast_2d(network.output_weight)
    rows, values = gradient.points, np.atleast_2d(gradient.output_weight)
    if points.shape != rows.shape or heights.shape != values.shape:
        raise InvalidInputError("gradient", f"shape {points.shape}", rows.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        heavy = network.degree * (heights**2).sum(axis=0)
        wide = (points**2).sum(axis=1)
        share = heavy - wide
        missing = network.degree * (heights * values).sum(axis=0) - (points * rows).sum(axis=1)
        total = float(share @ share)
        found = float(missing @ share) / total if total > 0.0 else np.nan
    if not np.isfinite(found):
        raise InvalidInputError(OPTION, "a number, as the weights do not tell", "auto")
    if float(np.abs(share).sum()) < 1e-6 * float((heavy + wide).sum()):
        raise InvalidInputError(OPTION, "a number, as balanced layers fit every one", "auto")
    return max(found, 0.0)


def _norm(arrays: list[FloatArray]) -> float:
    return float(np.sqrt(sum(float(np.sum(array**2)) for array in arrays)))
