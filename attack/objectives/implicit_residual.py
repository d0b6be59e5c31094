"""The residual c theta - sum_i a_i grad f(x_i) of the parameters, without forming it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attack.networks.network import Network, split_layers
from attack.objectives.closed_form import (
    Backward,
    DenseLayer,
    Direction,
    FactoredLayer,
    Forward,
    summed_layer,
)

#: A layer is formed where m (in + out) exceeds this many times in * out.
FACTORED_LIMIT = 1.25
# Below this share of c^2 |theta|^2 the loss in factors has lost too many digits: R is formed.
_LEAST_SHARE = {torch.float64: 1e-6, torch.float32: 1e-2}


@dataclass(frozen=True, eq=False)
class Sweep:
    """Both passes of one kernel, the residual as a direction, and R^l h^(l-1) + rho^l if known."""

    forward: Forward
    backward: Backward
    direction: Direction
    along: Sequence[Tensor | None] | None


def layer_squares(network: Network) -> list[float]:
    """Return |W^l|^2 + |b^l|^2 for every layer.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-5-1,relu").initialise(seed=0)
        >>> ones = network.with_parameters([p * 0 + 1 for p in network.parameters()])
        >>> layer_squares(ones)
        [25.0, 5.0]
    """
    layers = split_layers(network.parameters(), network)
    return [sum(float(t.double().square().sum()) for t in pair if t is not None) for pair in layers]


def factored_residual(
    network: Network,
    forward: Forward,
    backward: Backward,
    factor: float,
    squares: Sequence[float],
) -> tuple[Tensor, Sweep]:
    """Return |R|^2 and R = c theta - sum_i p_i [h_i, 1]^T as a direction.

    R is formed only in layers where that is less work. Elsewhere S_i = R [h_i, 1] is
    c z_i - sum_j (h_i . h_j + 1) p_j with z_i = W h_i + b from the forward pass, and
    |R|^2 = c^2 |theta|^2 - sum_i p_i . (c z_i + S_i). Where this difference has lost too many
    digits R is formed after all, for the loss alone: the gradients do not suffer.
    """
    m = len(forward.values)
    direction: list[DenseLayer | FactoredLayer] = []
    along: list[Tensor | None] = []
    losses: list[Tensor] = []
    for k, (w, b) in enumerate(zip(network.weights, network.biases, strict=True)):
        rows, columns = w.shape
        if m * (rows + columns) > FACTORED_LIMIT * rows * columns:
            layer = _formed(network, forward, backward, factor, k)
            direction.append(layer)
            along.append(None)
            losses.append(_square(layer))
            continue
        h, p, z = forward.inputs[k], backward.deltas[k], forward.sums[k]
        factors = FactoredLayer(w, factor, h, p, b is not None)
        known = factors.along(h, z)
        direction.append(factors)
        along.append(known)
        size = factor**2 * squares[k]
        loss = size - (p.double() * known.add(z, alpha=factor).double()).sum()
        if not bool(loss >= _LEAST_SHARE.get(network.dtype, 1.0) * size):
            loss = _square(_formed(network, forward, backward, factor, k))
        losses.append(loss)
    total = torch.stack(losses).sum().to(network.dtype)
    return total, Sweep(forward, backward, direction, along)


def _formed(
    network: Network, forward: Forward, backward: Backward, factor: float, k: int
) -> DenseLayer:
    w, b = network.weights[k], network.biases[k]
    matrix, shift = summed_layer(network, forward, backward, k)
    matrix = matrix.mul_(-1).add_(w, alpha=factor)
    if shift is not None and b is not None:
        shift = shift.mul_(-1).add_(b, alpha=factor)
    return DenseLayer(w, matrix, shift)


def _square(layer: DenseLayer) -> Tensor:
    total = layer.matrix.square().sum()
    return (total if layer.shift is None else total + layer.shift.square().sum()).double()
