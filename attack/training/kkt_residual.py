"""How far a trained network is from a stationary point: multipliers and the residual they leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from attack.networks.network import Network
from identify.arrays import FloatArray
from identify.errors import InvalidInputError

MAX_MULTIPLIERS = 2000
_KINK = 1e-4


@dataclass(frozen=True, eq=False)
class KktFit:
    """The best multipliers lambda >= 0 and what they leave of theta.

    `multipliers` (n,), or (n, C - 1) for C outputs, the other classes in ascending order;
    `residual` |theta - sum lambda grad margin| / |theta|; `slackness` the mean of margin/least - 1
    weighted by lambda, 0 where only tight constraints count, None if some margin is not positive;
    `active` how many samples have a multiplier above 1e-6 of the largest.
    """

    multipliers: FloatArray
    residual: float
    slackness: float | None
    active: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy."""
        return {
            "multipliers": self.multipliers.tolist(),
            "residual": self.residual,
            "slackness": self.slackness,
            "active": self.active,
        }


def fit_multipliers(network: Network, samples: Tensor, labels: Tensor) -> KktFit:
    """Fit theta = sum_i lambda_i grad (margin of sample i), lambda >= 0.

    `labels` are +-1 (n,), margins y f, or class indices (n,), one margin f_y - f_k and one
    multiplier for each other class k. The residual is computed from the parameters themselves.

    Raises:
        InvalidInputError: more than 2000 multipliers.

    Cost: N^2 times the widths for N multipliers and N^3 for the least squares, in float64; no
        array of N times the number of parameters.
    Source: stationarity of the margin problem, Lyu & Li (2020), "Gradient descent maximizes the
        margin of homogeneous neural networks"; non-negative least squares, Lawson &
        Hanson (1974), chapter 23.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("3-1,identity,bias=none").initialise(seed=0)
        >>> fit = fit_multipliers(network, torch.eye(3, dtype=torch.float64),
        ...                       torch.sign(network.weights[0][0]))
        >>> fit.residual < 1e-12, fit.active
        (True, 3)
    """
    count, outputs = len(samples), network.outputs
    network, samples = network.to(dtype=torch.float64), samples.to(torch.float64)
    x, cotangents = _constraints(network, samples, labels)
    if len(x) > MAX_MULTIPLIERS:
        raise InvalidInputError(
            "samples", f"at most {MAX_MULTIPLIERS} multipliers", len(x), "use fewer samples"
        )
    values = network.forward(x)
    parameters = [p.clone().requires_grad_() for p in network.parameters()]
    gram, linear = gram_system(network, x, cotangents)
    multipliers = _non_negative(gram, linear)
    weights = torch.as_tensor(multipliers).to(values)
    combined = torch.autograd.grad(
        (weights[:, None] * cotangents * network.forward(x, parameters)).sum(), parameters
    )
    own = network.parameters()
    rest = sum(float((p - g).square().sum()) for p, g in zip(own, combined, strict=True))
    size = sum(float(p.square().sum()) for p in own)
    seen = (cotangents * values).sum(dim=1).cpu().numpy()
    least = float(seen.min())
    slackness = None
    if least > 0.0 and multipliers.any():
        slackness = float(np.average(seen / least - 1.0, weights=multipliers))
    table = multipliers.reshape(count, outputs - 1) if outputs > 1 else multipliers
    per_sample = table.reshape(count, -1).max(axis=1)
    return KktFit(
        multipliers=table,
        residual=float(np.sqrt(rest / size)) if size > 0.0 else 0.0,
        slackness=slackness,
        active=int(np.count_nonzero(per_sample > 1e-6 * per_sample.max())),
    )


def gram_system(
    network: Network, samples: Tensor, cotangents: Tensor
) -> tuple[FloatArray, FloatArray]:
    """K_ij = <g_i, g_j> (N, N) and c_i = <theta, g_i> (N,), g_i = grad_theta <cotangent_i, f(x_i)>.

    The gradient with respect to one weight matrix is an outer product, so K is a sum over the
    layers of entrywise products of two Gram matrices; no gradient is formed.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("3-4-1,tanh").initialise(seed=0)
        >>> x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> K, c = gram_system(network, x, torch.ones(5, 1, dtype=torch.float64))
        >>> K.shape, bool(np.linalg.eigvalsh(K)[0] > 0)
        ((5, 5), True)
    """
    phi = network.activation
    inputs: list[Tensor] = [samples]
    slopes: list[Tensor] = []
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        z = torch.nn.functional.linear(inputs[-1], weight, bias)
        inputs.append(phi.value(z))
        slopes.append(phi.first(z))
    delta = cotangents
    gram = torch.zeros(len(samples), len(samples), dtype=samples.dtype, device=samples.device)
    linear = torch.zeros(len(samples), dtype=samples.dtype, device=samples.device)
    for k in reversed(range(network.depth)):
        weight, bias = network.weights[k], network.biases[k]
        back = delta @ weight
        inner = inputs[k] @ inputs[k].T
        gram += (delta @ delta.T) * (inner if bias is None else inner + 1.0)
        linear += (back * inputs[k]).sum(dim=1)
        if bias is not None:
            linear += delta @ bias
        if k:
            delta = back * slopes[k - 1]
    return gram.cpu().numpy(), linear.cpu().numpy()


def kink_share(network: Network, samples: Tensor) -> float | None:
    """The share of relu units times samples at their kink; None for other activations.

    At the kink means |z| below 1e-4 of the layer's median. The gradient of such a unit is any
    number between two, so that a stationary point of a relu network, where many units sit there,
    need not have a small gradient.

    Source: Clarke (1975), "Generalized gradients and applications".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("3-4-1,relu,bias=none").initialise(seed=0)
        >>> kink_share(network, torch.eye(3, dtype=torch.float64))
        0.0
    """
    if network.activation.name not in ("relu", "soft_relu") or network.depth < 2:
        return None
    near, total, hidden = 0, 0, samples
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        z = torch.nn.functional.linear(hidden, weight, bias)
        small = z.abs() < _KINK * z.abs().median()
        # A unit that is small on all samples is dead, not at a kink.
        near += int((small & ~small.all(dim=0)).sum())
        total += z.numel()
        hidden = torch.relu(z)
    return near / total


def _constraints(network: Network, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One row for each multiplier: its sample, and the cotangent of its margin."""
    if network.outputs == 1:
        return samples, labels.to(samples)[:, None]
    outputs = network.outputs
    x = samples.repeat_interleave(outputs - 1, dim=0)
    every = torch.arange(outputs, device=labels.device).expand(len(labels), outputs)
    others = every[every != labels[:, None]]
    rows = torch.arange(len(x), device=x.device)
    cotangents = torch.zeros(len(x), outputs, dtype=x.dtype, device=x.device)
    cotangents[rows, labels.repeat_interleave(outputs - 1)] = 1.0
    cotangents[rows, others] -= 1.0
    return x, cotangents


def _non_negative(gram: FloatArray, linear: FloatArray) -> FloatArray:
    """argmin over lambda >= 0 of lambda K lambda - 2 c lambda."""
    scale = np.sqrt(np.maximum(gram.diagonal(), 0.0))
    live = np.flatnonzero(scale > 0.0)
    result = np.zeros(len(linear))
    if len(live) == 0:
        return result
    # K = F^T F with columns of unit length: the factor, not K, goes into the least squares.
    unit = gram[np.ix_(live, live)] / np.outer(scale[live], scale[live])
    values, vectors = np.linalg.eigh(unit)
    kept = values > 1e-15 * values[-1] * len(live)
    roots = np.sqrt(values[kept])
    factor = roots[:, None] * vectors[:, kept].T
    target = (vectors[:, kept].T @ (linear[live] / scale[live])) / roots
    solution, _ = scipy.optimize.nnls(factor, target, maxiter=30 * len(live))
    result[live] = solution / scale[live]
    return result
