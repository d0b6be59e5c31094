"""From multipliers and labels to the cotangents a_i with which grad_theta f(x_i) enters the sum."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from identify.errors import InvalidInputError
from identify.model.losses import read_loss

LOSSES = ("logistic", "squared", "cross-entropy")


class Readout(ABC):
    """a_i = B(f(x_i), y_i)^T lam_i, linear in the multipliers lam_i (K,), with values a_i (C,).

    ``curved`` says whether B changes smoothly with f; else it is constant or piecewise constant.
    """

    curved: bool = False
    signed: bool = False

    @abstractmethod
    def columns(self, outputs: int) -> int:
        """Return the number K of multipliers per candidate."""

    @abstractmethod
    def cotangent(self, lam: Tensor, values: Tensor, labels: Tensor | None) -> Tensor:
        """Return a (m, C) from lam (m, K), f (m, C) and labels, differentiable by autograd."""

    @abstractmethod
    def basis(self, values: Tensor, labels: Tensor | None) -> Tensor:
        """Return B (m, K, C)."""

    @abstractmethod
    def adjoint(self, sums: Tensor, values: Tensor, labels: Tensor | None) -> Tensor:
        """Return B D (m, K) for D (m, C)."""

    @abstractmethod
    def start_labels(self, count: int, outputs: int) -> Tensor | None:
        """Return labels in equal blocks, or None."""

    @abstractmethod
    def check_labels(self, labels: Tensor | None, count: int, outputs: int) -> None:
        """Raise InvalidInputError for labels that do not suit."""


@dataclass(frozen=True)
class FreeReadout(Readout):
    """a_ic = lam_ic with any sign, one multiplier per output and no labels.

    Example:
        >>> FreeReadout().columns(outputs=10)
        10
    """

    signed: bool = True

    def columns(self, outputs: int) -> int:
        return outputs

    def cotangent(self, lam: Tensor, values: Tensor, labels: Tensor | None) -> Tensor:
        return lam

    def basis(self, values: Tensor, labels: Tensor | None) -> Tensor:
        eye = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
        return eye.expand(len(values), -1, -1)

    def adjoint(self, sums: Tensor, values: Tensor, labels: Tensor | None) -> Tensor:
        return sums

    def start_labels(self, count: int, outputs: int) -> Tensor | None:
        return None

    def check_labels(self, labels: Tensor | None, count: int, outputs: int) -> None:
        if labels is not None:
            raise InvalidInputError("labels", "none for this objective", tuple(labels.shape))


class _OneColumn(Readout):
    """One multiplier per candidate: a_i = lam_i B_i with B_i (C,)."""

    @abstractmethod
    def row(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return B_i, shape (m, C)."""

    def columns(self, outputs: int) -> int:
        return 1

    def cotangent(self, lam: Tensor, values: Tensor, labels: Tensor | None) -> Tensor:
        return lam * self.row(values, _present(labels))

    def basis(self, values: Tensor, labels: Tensor | None) -> Tensor:
        return self.row(values, _present(labels))[:, None]

    def adjoint(self, sums: Tensor, values: Tensor, labels: Tensor | None) -> Tensor:
        return (self.row(values, _present(labels)) * sums).sum(1, keepdim=True)


@dataclass(frozen=True)
class SignReadout(_OneColumn):
    """a_i = lam_i y_i with labels -1 and 1, for a network with one output.

    Example:
        >>> SignReadout().start_labels(4, 1)
        tensor([-1., -1.,  1.,  1.])
    """

    def row(self, values: Tensor, labels: Tensor) -> Tensor:
        return labels[:, None]

    def start_labels(self, count: int, outputs: int) -> Tensor:
        return 2.0 * (torch.arange(count) >= count // 2) - 1

    def check_labels(self, labels: Tensor | None, count: int, outputs: int) -> None:
        _check_signs(labels, count)


@dataclass(frozen=True)
class MarginReadout(_OneColumn):
    """a_i = lam_i (e_y - e_k), k the runner-up: the largest output of another class.

    The runner-up is chosen anew at every evaluation and counts as fixed when differentiating.

    Source: Buzaglo, Haim, Yehudai, Vardi, Oz, Nikankin & Irani (2023), "Deconstructing data
    reconstruction: multiclass, weight decay and general losses".

    Example:
        >>> values = torch.tensor([[5.0, 1.0, 4.0]])
        >>> MarginReadout().row(values, torch.tensor([0]))
        tensor([[ 1.,  0., -1.]])
    """

    def row(self, values: Tensor, labels: Tensor) -> Tensor:
        own = _one_hot(values, labels)
        rest = values.detach().masked_fill(own > 0, -math.inf)
        return own - _one_hot(values, rest.argmax(1))

    def start_labels(self, count: int, outputs: int) -> Tensor:
        return torch.arange(count) * outputs // count

    def check_labels(self, labels: Tensor | None, count: int, outputs: int) -> None:
        _check_classes(labels, count, outputs)


@dataclass(frozen=True)
class LossReadout(_OneColumn):
    """a_i = lam_i d loss(f(x_i), y_i) / df with sample weights lam_i, for a known loss.

    ``logistic``: log(1 + e^(-y f)), labels -1 and 1, one output. ``squared``: |f - t|^2 / 2 with
    targets t for one output, one-hot targets of class numbers for more. ``cross-entropy``: class
    numbers.

    Example:
        >>> LossReadout("squared").row(torch.tensor([[3.0]]), torch.tensor([1.0]))
        tensor([[2.]])
    """

    loss: str
    curved: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", read_loss(self.loss, LOSSES))

    def sample_losses(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return loss(f(x_i), y_i), shape (m,), differentiable by autograd.

        Example:
            >>> LossReadout("squared").sample_losses(torch.tensor([[3.0]]), torch.tensor([1.0]))
            tensor([2.])
        """
        if self.loss == "logistic":
            return -torch.nn.functional.logsigmoid(labels * values[:, 0])
        if self.loss == "squared":
            return 0.5 * (values - self._targets(values, labels)).square().sum(1)
        return torch.nn.functional.cross_entropy(values, labels, reduction="none")

    def row(self, values: Tensor, labels: Tensor) -> Tensor:
        if self.loss == "logistic":
            y = labels[:, None]
            return -y * torch.sigmoid(-y * values)
        if self.loss == "squared":
            return values - self._targets(values, labels)
        return torch.softmax(values, 1) - _one_hot(values, labels)

    def start_labels(self, count: int, outputs: int) -> Tensor:
        if outputs == 1:
            return SignReadout().start_labels(count, 1)
        return MarginReadout().start_labels(count, outputs)

    def check_labels(self, labels: Tensor | None, count: int, outputs: int) -> None:
        if outputs > 1:
            _check_classes(labels, count, outputs)
        elif self.loss == "squared":
            given = _shaped(labels, count, "targets")
            if not given.dtype.is_floating_point or not bool(torch.isfinite(given).all()):
                raise InvalidInputError("labels", "finite floating targets", given.dtype)
        else:
            _check_signs(labels, count)

    def check_outputs(self, outputs: int) -> None:
        """Raise InvalidInputError for a loss that does not fit the number of outputs."""
        if (self.loss == "logistic") != (outputs == 1) and self.loss != "squared":
            wanted = "one output" if self.loss == "logistic" else "at least two outputs"
            raise InvalidInputError(f"loss {self.loss}", wanted, outputs)

    def _targets(self, values: Tensor, labels: Tensor) -> Tensor:
        return labels[:, None] if values.shape[1] == 1 else _one_hot(values, labels)


def _one_hot(values: Tensor, classes: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter_(1, classes[:, None], 1.0)


def _present(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise InvalidInputError("labels", "one per candidate", None)
    return labels


def _shaped(labels: Tensor | None, count: int, what: str) -> Tensor:
    if labels is None or labels.shape != (count,):
        got = None if labels is None else tuple(labels.shape)
        raise InvalidInputError("labels", f"{count} {what}", got)
    return labels


def _check_signs(labels: Tensor | None, count: int) -> None:
    given = _shaped(labels, count, "labels -1 or 1")
    if not given.dtype.is_floating_point or not bool((given.abs() == 1).all()):
        wrong = (
            given.dtype if not given.dtype.is_floating_point else _first(given[given.abs() != 1])
        )
        raise InvalidInputError("labels", "floating numbers -1 and 1", wrong)


def _check_classes(labels: Tensor | None, count: int, outputs: int) -> None:
    given = _shaped(labels, count, "class numbers")
    if given.dtype != torch.int64:
        raise InvalidInputError("labels", "class numbers as int64", given.dtype)
    outside = given[(given < 0) | (given >= outputs)]
    if len(outside):
        raise InvalidInputError("labels", f"classes 0 to {outputs - 1}", _first(outside))


def _first(tensor: Tensor) -> float | int:
    value: float | int = tensor[0].item()
    return value
