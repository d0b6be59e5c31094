"""Values, parameter gradients and their derivatives in the input, for a fully connected network.

With z^l = W^l h^(l-1) + b^l and h^l = phi(z^l), a direction R in parameter space and a cotangent
a_i (C,) per sample, the central function is g_i(x) = <R, grad_theta sum_c a_ic f_c(x)>, the
derivative of sum_c a_ic f_c(x) along R. It is computed without autograd and without an object of
m times the number of parameters: sums over samples are matrix products.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attack.networks.network import Network, split_layers


@dataclass(frozen=True, eq=False)
class Forward:
    """One forward pass: ``inputs`` h^0 ... h^(L-1), ``sums`` z^1 ... z^L, ``jets`` (phi', ...)."""

    inputs: list[Tensor]
    sums: list[Tensor]
    jets: list[list[Tensor]]

    @property
    def values(self) -> Tensor:
        """The outputs f(x_i), shape (m, C)."""
        return self.sums[-1]


@dataclass(frozen=True, eq=False)
class Backward:
    """``deltas`` p^1 ... p^L with p^L = a, and ``raw`` u^l = W^(l+1)^T p^(l+1), l = 1 ... L-1."""

    deltas: list[Tensor]
    raw: list[Tensor]


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """The part of a direction in one layer, given by its arrays R^l and rho^l (or None)."""

    weight: Tensor
    matrix: Tensor
    shift: Tensor | None

    def along(self, h: Tensor, z: Tensor) -> Tensor:
        """Return R h + rho; ``z`` is W h + b."""
        return torch.nn.functional.linear(h, self.matrix, self.shift)

    def change(self, dh: Tensor, dz: Tensor) -> Tensor:
        """Return R dh; ``dz`` is W dh."""
        return dh @ self.matrix.T

    def transport(self, p: Tensor, q: Tensor | None) -> Tensor:
        """Return R^T p + W^T q, row by row."""
        back = p @ self.matrix
        return back if q is None else back.addmm_(q, self.weight)


@dataclass(frozen=True, eq=False)
class FactoredLayer:
    """The direction R = c [W | b] - sum_i p_i [h_i, 1]^T of one layer, never formed.

    All products reuse those with W and cost m^2 (in + out) beyond them: less than forming R while m
    is below about 1.5 in * out / (in + out).
    """

    weight: Tensor
    factor: float
    inputs: Tensor
    deltas: Tensor
    biased: bool

    def along(self, h: Tensor, z: Tensor) -> Tensor:
        gram = h @ self.inputs.T
        if self.biased:
            gram += 1
        return (gram @ self.deltas).mul_(-1).add_(z, alpha=self.factor)

    def change(self, dh: Tensor, dz: Tensor) -> Tensor:
        return ((dh @ self.inputs.T) @ self.deltas).mul_(-1).add_(dz, alpha=self.factor)

    def transport(self, p: Tensor, q: Tensor | None) -> Tensor:
        top = self.factor * p if q is None else q.add(p, alpha=self.factor)
        return (top @ self.weight).addmm_(p @ self.deltas.T, self.inputs, alpha=-1)


Direction = Sequence[DenseLayer | FactoredLayer]


def dense_direction(network: Network, tensors: Sequence[Tensor]) -> list[DenseLayer]:
    """Take a direction from tensors in the order of ``network.parameters()``."""
    pairs = zip(network.weights, split_layers(tensors, network), strict=True)
    return [DenseLayer(weight, matrix, shift) for weight, (matrix, shift) in pairs]


def forward_pass(network: Network, x: Tensor, order: int) -> Forward:
    """Evaluate the network and phi', ... up to the given derivative at every hidden unit.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-5-2,tanh").initialise(seed=0)
        >>> x = torch.ones(3, 4, dtype=torch.float64)
        >>> bool(torch.equal(forward_pass(network, x, 1).values, network(x)))
        True
    """
    inputs, sums, jets = [x], [], []
    for k, (w, b) in enumerate(zip(network.weights, network.biases, strict=True)):
        sums.append(torch.nn.functional.linear(inputs[-1], w, b))
        if k + 1 < network.depth:
            value, *jet = network.activation.jet(sums[-1], order)
            inputs.append(value)
            jets.append(jet)
    return Forward(inputs, sums, jets)


def backward_pass(network: Network, forward: Forward, cotangent: Tensor) -> Backward:
    """Propagate cotangents a, (m, C) or (m, K, C) for K at once, to every pre-activation."""
    deltas, raw = [cotangent], []
    for k in range(network.depth - 1, 0, -1):
        raw.append(deltas[-1] @ network.weights[k])
        slope = forward.jets[k - 1][0]
        deltas.append((slope if cotangent.ndim == 2 else slope[:, None]) * raw[-1])
    return Backward(deltas[::-1], raw[::-1])


def summed_gradient(network: Network, forward: Forward, backward: Backward) -> list[Tensor]:
    """Return sum_i sum_c a_ic grad_theta f_c(x_i) in the order of ``network.parameters()``.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("1-1,relu,bias=first").initialise(seed=0)
        >>> forward = forward_pass(network, torch.tensor([[2.0], [3.0]]).double(), 1)
        >>> back = backward_pass(network, forward, torch.tensor([[10.0], [100.0]]).double())
        >>> [float(part) for part in summed_gradient(network, forward, back)]
        [320.0, 110.0]
    """
    found: list[Tensor] = []
    for k in range(network.depth):
        found += [t for t in summed_layer(network, forward, backward, k) if t is not None]
    return found


def summed_layer(
    network: Network, forward: Forward, backward: Backward, k: int
) -> tuple[Tensor, Tensor | None]:
    """Return the part of ``summed_gradient`` in layer k: weight, and bias or None."""
    delta = backward.deltas[k]
    return delta.T @ forward.inputs[k], None if network.biases[k] is None else delta.sum(0)


def tangent_pass(
    network: Network,
    forward: Forward,
    direction: Direction,
    along: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Differentiate the forward pass along a direction: zeta^1 ... zeta^L.

    The last, (m, C), is <direction, grad_theta f_c(x_i)>. ``along`` gives R^l h^(l-1) + rho^l where
    it is known.
    """
    slopes: list[Tensor] = []
    for k, layer in enumerate(direction):
        known = None if along is None else along[k]
        slope = layer.along(forward.inputs[k], forward.sums[k]) if known is None else known
        if k:
            slope = slope.addmm(forward.jets[k - 1][0] * slopes[-1], network.weights[k].T)
        slopes.append(slope)
    return slopes


def input_gradient(
    network: Network,
    forward: Forward,
    backward: Backward,
    slopes: Sequence[Tensor],
    direction: Direction,
    pull: Tensor | None = None,
) -> Tensor:
    """Return the gradient (m, D) of g_i(x) at x_i, with phi', phi'' from the forward pass.

    ``slopes`` come from ``tangent_pass``. ``pull`` (m, C) adds the gradient of
    sum_c pull_ic f_c(x_i): the part of a cotangent that depends on x through f.
    """
    q, linear = pull, network.activation.piecewise_linear
    for k in range(network.depth - 1, 0, -1):
        jet = forward.jets[k - 1]
        q = direction[k].transport(backward.deltas[k], q).mul_(jet[0])
        if not linear:
            q.addcmul_(jet[1] * slopes[k - 1], backward.raw[k - 1])
    return direction[0].transport(backward.deltas[0], q)


class InputCurvature:
    """v -> (D^2_x g_i(x_i) v_i), with everything that does not depend on v computed once.

    ``forward`` must hold three derivatives of the activation. At the top the caller gives, for the
    change (df, dzeta) of values and outputs along v, the changes of the cotangent and of ``pull``.
    A product costs 4 matrix products in the first layer and 6 in every other one, or 2 and 4 where
    the layer is factored.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("1-1-1,power2,bias=none").initialise(seed=0)
        >>> network = network.with_parameters([torch.ones(1, 1), torch.ones(1, 1)])
        >>> forward = forward_pass(network, torch.tensor([[5.0]]), 3)  # f = w2 (w1 x)^2
        >>> back = backward_pass(network, forward, torch.ones(1, 1))
        >>> tensors = [torch.tensor([[10.0]]), torch.tensor([[1.0]])]  # g = (2 * 10 + 1) x^2
        >>> curvature = InputCurvature(network, forward, back, dense_direction(network, tensors))
        >>> curvature(torch.ones(1, 1))
        tensor([[42.]])
    """

    def __init__(
        self,
        network: Network,
        forward: Forward,
        backward: Backward,
        direction: Direction,
        slopes: Sequence[Tensor] | None = None,
        pull: Tensor | None = None,
    ) -> None:
        self.network = network
        self.direction = direction
        self.slopes = tangent_pass(network, forward, direction) if slopes is None else slopes
        # Per hidden layer: phi', phi'' u, phi'' w + phi''' zeta u, phi'' zeta.
        self.parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        q = pull
        for k in range(network.depth - 1, 0, -1):
            w = direction[k].transport(backward.deltas[k], q)
            first, second, third = forward.jets[k - 1]
            u, zeta = backward.raw[k - 1], self.slopes[k - 1]
            bent = second * zeta
            self.parts.append((first, second * u, second * w + third * zeta * u, bent))
            q = first * w + bent * u
        self.parts.reverse()

    def lift(self, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the changes (dz^l, dzeta^l) of every layer along v; the last are (df, dD)."""
        weights = self.network.weights
        dz = v @ weights[0].T
        found = [(dz, self.direction[0].change(v, dz))]
        for k, (first, _, _, bent) in enumerate(self.parts, start=1):
            dz, dzeta = found[-1]
            dh = first * dz
            bend = (bent * dz).addcmul_(first, dzeta)
            dz = dh @ weights[k].T
            found.append((dz, self.direction[k].change(dh, dz).addmm_(bend, weights[k].T)))
        return found

    def drop(
        self, lifted: list[tuple[Tensor, Tensor]], top: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Carry the changes back to the input; ``top`` are those of cotangent and ``pull``."""
        weights = self.network.weights
        dp, dq = top if top is not None else (None, None)
        for k in range(self.network.depth - 1, 0, -1):
            first, a, b, bent = self.parts[k - 1]
            dz, dzeta = lifted[k - 1]
            below_p, below_q = a * dz, (b * dz).addcmul_(a, dzeta)
            if dp is not None:
                du = dp @ weights[k]
                below_p.addcmul_(first, du)
                below_q.addcmul_(first, self.direction[k].transport(dp, dq)).addcmul_(bent, du)
            dp, dq = below_p, below_q
        if dp is None:
            return lifted[0][0].new_zeros(len(lifted[0][0]), self.network.dimension)
        return self.direction[0].transport(dp, dq)

    def __call__(self, v: Tensor) -> Tensor:
        return self.drop(self.lift(v), None)


def gradient_gram(
    first: tuple[Forward, Backward], second: tuple[Forward, Backward], network: Network
) -> Tensor:
    """Return <grad_theta f_a(x_i), grad_theta f'_b(x_j)> between two sets of cotangents.

    Each set is a forward pass over m points and a backward pass with K cotangents per point, so the
    result is (m K, m' K'). Only layer Gram matrices are formed: the sum over l of
    (p_i . p'_j) (h_i . h'_j + 1), the 1 with a bias.

    Source: the empirical tangent kernel, Jacot, Gabriel & Hongler (2018), "Neural tangent kernel".
    """

    def layer(k: int) -> Tensor:
        h = first[0].inputs[k] @ second[0].inputs[k].T
        if network.biases[k] is not None:
            h = h + 1
        p, q = (side[1].deltas[k].flatten(0, -2) for side in (first, second))
        rows, columns = len(p) // len(h), len(q) // h.shape[1]
        if rows > 1 or columns > 1:
            h = h.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        return (p @ q.T) * h

    return functools.reduce(operator.add, map(layer, range(network.depth)))
