"""Training losses with their logarithm, which stays exact where the loss itself vanishes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attack.networks.network import Network
from identify.errors import InvalidInputError
from identify.model.losses import read_loss

LOSSES = ("logistic", "squared", "cross-entropy", "exponential")
MARGIN_LOSSES = ("logistic", "cross-entropy", "exponential")
# Above this margin log(softplus(-z)) equals -z - e^-z / 2 to the last bit of float64.
_SWITCH = 20.0


def prepare_labels(loss: str, labels: Any, count: int, outputs: int, like: Tensor) -> Tensor:
    """Labels as the loss needs them, on the device of `like`.

    +-1 (n,) for "logistic" and "exponential" (one output), class indices (n,) for "cross-entropy",
    targets (n, C) for "squared".

    Raises InvalidInputError for an unknown loss, another count, labels that are no such numbers.

    Example:
        >>> prepare_labels("logistic", [1, -1], 2, 1, torch.zeros(1))
        tensor([ 1., -1.])
    """
    loss = read_loss(loss, LOSSES)
    if labels is None:
        raise InvalidInputError("labels", f"targets for the loss {loss}", "none", "choose a task")
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.shape[:1] != (count,) or array.dtype.kind not in "fiu":
        raise InvalidInputError("labels", f"{count} numbers", f"shape {array.shape}, {array.dtype}")
    if not np.isfinite(array).all():
        raise InvalidInputError("labels", "finite numbers", "NaN or infinity")
    if loss == "squared":
        if array.size != count * outputs:
            raise InvalidInputError("labels", f"shape ({count}, {outputs})", array.shape)
        return torch.as_tensor(array).to(like).reshape(count, outputs)
    if array.ndim != 1:
        raise InvalidInputError("labels", f"shape ({count},)", array.shape)
    if loss == "cross-entropy":
        if outputs < 2:
            raise InvalidInputError("network", "2 outputs or more for cross-entropy", outputs)
        if not np.isin(array, np.arange(outputs)).all():
            wrong = array[~np.isin(array, np.arange(outputs))][0]
            raise InvalidInputError("labels", f"classes 0 to {outputs - 1}", wrong)
        return torch.as_tensor(array).to(like.device, torch.int64)
    if outputs != 1:
        raise InvalidInputError("network", f"1 output for the loss {loss}", outputs)
    if not np.isin(array, (-1, 1)).all():
        wrong = array[~np.isin(array, (-1, 1))][0]
        raise InvalidInputError("labels", "+1 and -1", wrong, "choose the task binary")
    return torch.as_tensor(array).to(like)


def margins(loss: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """Margins (n,): y f, f_y minus the largest other output, or minus the largest |f - y|.

    Example:
        >>> margins("cross-entropy", torch.tensor([[1.0, 3.0, 0.5]]), torch.tensor([1]))
        tensor([2.])
    """
    if loss == "squared":
        return -(outputs - labels).abs().amax(dim=1)
    if loss == "cross-entropy":
        own = outputs.gather(1, labels[:, None])
        others = outputs.scatter(1, labels[:, None], -math.inf)
        return own[:, 0] - others.amax(dim=1)
    return labels * outputs[:, 0]


def log_loss(loss: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """log of the mean loss, differentiable; its gradient is that of the loss over the loss.

    Logistic log(1 + e^-z), exponential e^-z, z = y f; cross-entropy log(1 + sum_k e^(f_k - f_y)).
    Exact to rounding for losses of any size, also far below the smallest float.

    Raises InvalidInputError for "squared", whose logarithm is not used.

    Example:
        >>> z = torch.tensor([[1000.0], [2000.0]], dtype=torch.float64)
        >>> round(float(log_loss("logistic", z, torch.ones(2, dtype=torch.float64))), 6)
        -1000.693147
    """
    if loss not in MARGIN_LOSSES:
        raise InvalidInputError("loss", f"one of {', '.join(MARGIN_LOSSES)}", loss)
    if loss == "cross-entropy":
        own = outputs.gather(1, labels[:, None])
        others = outputs.scatter(1, labels[:, None], -math.inf)
        values = _log_softplus(own[:, 0] - torch.logsumexp(others, dim=1))
    elif loss == "exponential":
        values = -labels * outputs[:, 0]
    else:
        values = _log_softplus(labels * outputs[:, 0])
    return torch.logsumexp(values, dim=0) - math.log(len(values))


def mean_loss(loss: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean loss, differentiable; "squared" is half the mean of (f - y)^2 over all outputs.

    Example:
        >>> mean_loss("squared", torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [1.0]]))
        tensor(1.)
    """
    if loss == "squared":
        return 0.5 * (outputs - labels).square().mean()
    return log_loss(loss, outputs, labels).exp()


@dataclass(frozen=True, eq=False)
class TrainingProblem:
    """F(theta) = mean loss + decay/2 |theta|^2 on samples (n, D), labels from `prepare_labels`.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("2-1,identity,bias=none").initialise(seed=0)
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> problem = TrainingProblem(network, x, torch.zeros(2, 1), "squared", 0.1)
        >>> problem.value(network.parameters()).shape
        torch.Size([])
    """

    network: Network
    samples: Tensor
    labels: Tensor
    loss: str
    decay: float = 0.0

    def value(self, parameters: Sequence[Tensor]) -> Tensor:
        """F, differentiable by autograd."""
        outputs = self.network.forward(self.samples, parameters)
        value = mean_loss(self.loss, outputs, self.labels)
        if self.decay:
            squares = torch.stack([p.square().sum() for p in parameters])
            value = value + 0.5 * self.decay * squares.sum()
        return value

    def log_value(self, parameters: Sequence[Tensor]) -> Tensor:
        """log of the mean loss, without the decay, differentiable by autograd."""
        return log_loss(self.loss, self.network.forward(self.samples, parameters), self.labels)

    def part(self, rows: Tensor) -> TrainingProblem:
        """The same problem on some of the samples."""
        return replace(self, samples=self.samples[rows], labels=self.labels[rows])


def norm(tensors: Sequence[Tensor]) -> float:
    """|theta| over a list of tensors."""
    return math.sqrt(sum(float(t.detach().square().sum()) for t in tensors))


def _log_softplus(z: Tensor) -> Tensor:
    """log log(1 + e^-z)."""
    far = z > _SWITCH
    # Both branches are differentiated: each gets arguments that it can bear.
    near = torch.nn.functional.softplus(-z.clamp(max=_SWITCH)).log()
    tail = z.clamp(min=_SWITCH)
    return torch.where(far, -tail - 0.5 * torch.exp(-tail), near)
