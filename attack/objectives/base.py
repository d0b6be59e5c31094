"""What every reconstruction objective offers to solvers, splitting and run folders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attack.objectives.candidates import Candidates
from attack.objectives.penalties import Penalty
from identify.errors import InvalidInputError

#: v (m, D) -> (S_1 v_1, ..., S_m v_m), for the candidates the operator was built at.
Products = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A loss with its gradients: scalars ``loss`` and ``data_loss``, ``grad_x``, ``grad_lam``.

    ``loss`` is ``data_loss`` plus the penalties, and so are the gradients. Nothing carries a graph.
    """

    loss: Tensor
    data_loss: Tensor
    grad_x: Tensor
    grad_lam: Tensor


@dataclass(frozen=True, eq=False)
class MultiplierSystem:
    """The data loss as a quadratic in the multipliers, at fixed points.

    data_loss = ``constant`` - 2 <``linear``, lam> + <lam, ``gram`` lam> with lam (m, K) flattened
    row by row: ``gram`` (mK, mK) symmetric and positive semidefinite, ``linear`` (mK,).
    """

    constant: Tensor
    gram: Tensor
    linear: Tensor


class Objective(ABC):
    """L(X, lam) = l(sum_i lam_i phi(x_i)) + sum_i s_i h(x_i, lam_i / s_i) over m candidates.

    The first part is the data loss, h the penalties, s_i the mass of a candidate, 1 unless it has
    another: halves of a candidate with half its mass each cost what it did. Implementations are
    frozen dataclasses with the fields below. ``normaliser`` is a fixed count (the 1/m of the
    peers): replacing a candidate by two halves leaves sum_i lam_i phi(x_i) as it is only because
    the count does not follow.
    """

    name: str
    normaliser: float
    penalties: tuple[Penalty, ...]
    image_shape: tuple[int, int, int] | None

    @property
    @abstractmethod
    def columns(self) -> int:
        """The number K of multipliers of one candidate."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The dimension D of a candidate."""

    @property
    @abstractmethod
    def signed(self) -> bool:
        """Whether multipliers may be negative."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the computation."""

    @property
    @abstractmethod
    def quadratic(self) -> bool:
        """Whether the data loss is quadratic in the multipliers, so that they can be eliminated."""

    @abstractmethod
    def data_loss(self, candidates: Candidates) -> Tensor:
        """Return l(sum_i lam_i phi(x_i)), the autograd reference, differentiable in x, lam."""

    @abstractmethod
    def start_multipliers(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw multipliers (count, K) in float64 on the CPU."""

    @abstractmethod
    def start_labels(self, count: int) -> Tensor | None:
        """Return labels in equal blocks, or None where the objective has none."""

    @abstractmethod
    def check_labels(self, labels: Tensor | None, count: int) -> None:
        """Raise InvalidInputError unless the labels suit the objective."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold."""

    def loss(self, candidates: Candidates) -> Tensor:
        """Return data loss plus penalties, a scalar differentiable by autograd in x and lam."""
        total = self.data_loss(candidates)
        return total + self.penalty_values(candidates).sum() if self.penalties else total

    def data_value(self, candidates: Candidates) -> Tensor:
        """Return the data loss without a graph, by the cheapest way."""
        return self.data_loss(candidates.detach()).detach()

    def value(self, candidates: Candidates) -> Tensor:
        """Return the loss without a graph, by the cheapest way: for line searches and splits."""
        total = self.data_value(candidates)
        return total + self.penalty_values(candidates.detach()).sum() if self.penalties else total

    def penalty_values(self, candidates: Candidates) -> Tensor:
        """Return the penalties s_i h(x_i, lam_i / s_i), shape (m,), differentiable by autograd."""
        total = candidates.x.new_zeros(candidates.count)
        lam, mass = _unit_multipliers(candidates), candidates.mass
        for penalty in self.penalties:
            total = total + penalty.values(candidates.x, lam)
        return total if mass is None else mass * total

    def penalty_gradients(self, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Return the gradients of the sum of the penalties in x (m, D) and lam (m, K)."""
        x, lam = candidates.x.detach(), _unit_multipliers(candidates).detach()
        grad_x, grad_lam = torch.zeros_like(x), torch.zeros_like(lam)
        for penalty in self.penalties:
            penalty.add_gradients(x, lam, grad_x, grad_lam)
        if candidates.mass is not None:
            grad_x *= candidates.mass[:, None]
        return grad_x, grad_lam

    def penalty_products(self, candidates: Candidates, v: Tensor) -> Tensor:
        """Return s_i D^2_x h(x_i) v_i for v (m, D)."""
        total = torch.zeros_like(v)
        for penalty in self.penalties:
            total += penalty.products(candidates.x.detach(), v)
        return total if candidates.mass is None else candidates.mass[:, None] * total

    def split_penalty_products(self, candidates: Candidates, v: Tensor) -> Tensor:
        """Return P_i v_i: two halves at x_i +- eps v change the penalties by eps^2/2 v.P_i v.

        P_i = s_i D^2 h where they share its mass; 2 D^2 h, after a jump by h, where each bears a
        whole penalty.
        """
        found = self.penalty_products(candidates, v)
        return found if candidates.mass is not None else 2 * found

    def data_value_and_gradients(self, candidates: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        """Return the data loss and its gradients in x and lam, by autograd unless overridden."""
        x = candidates.x.detach().requires_grad_()
        lam = candidates.lam.detach().requires_grad_()
        loss = self.data_loss(candidates.with_points(x, lam))
        grad_x, grad_lam = gradients(loss, [x, lam])
        return loss.detach(), grad_x, grad_lam

    def value_and_gradients(self, candidates: Candidates) -> Evaluation:
        """Return loss and gradients without a graph; in closed form for networks."""
        data, grad_x, grad_lam = self.data_value_and_gradients(candidates)
        if not self.penalties:
            return Evaluation(data, data, grad_x, grad_lam)
        with torch.no_grad():
            total = data + self.penalty_values(candidates.detach()).sum()
            extra_x, extra_lam = self.penalty_gradients(candidates)
            return Evaluation(total, data, grad_x + extra_x, grad_lam + extra_lam)

    def splitting_operator(self, candidates: Candidates) -> Products:
        """Freeze the candidates and return v (m, D) -> (S_i v_i), the splitting matrices at work.

        S_i = lam_i <grad l, D^2 phi(x_i)> of the data loss. In general: the loss of the 2 m
        candidates (x_i + d_i, lam_i / 2), (x_i - d_i, lam_i / 2) is even in every d_i, so its
        Hessian at d = 0 is the block diagonal matrix of the S_i. Build once, apply often.

        Source: splitting steepest descent, Liu, Wu & Wang (2019), "Splitting steepest descent for
        growing neural architectures", with candidates in place of neurons.
        """
        return doubled_products(self.data_loss, candidates)

    def split_operator(self, candidates: Candidates) -> Products:
        """Freeze the candidates and return v -> S_i v_i + P_i v_i, the curvature of halving."""
        data = self.splitting_operator(candidates)
        if not self.penalties:
            return data
        return lambda v: data(v) + self.split_penalty_products(candidates, v)

    def multiplier_system(self, candidates: Candidates) -> MultiplierSystem:
        """Return the quadratic form of the data loss in lam.

        Raises InvalidInputError where it is not quadratic.
        """
        hint = "leave the multipliers free"
        raise InvalidInputError("multipliers", "a loss that is quadratic in them", self.name, hint)

    def with_step(self, step: int) -> Objective:
        """Return the objective at a step of its schedule: itself unless it has one."""
        return self

    def start(
        self,
        count: int,
        seed: int,
        scale: float,
        x: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Candidates:
        """Draw candidates: x = scale * N(0, 1) or the given points, multipliers and labels.

        Everything is drawn on the CPU in float64, so that devices and dtypes start alike.

        Raises InvalidInputError for a count below 1, a negative seed, a scale that is negative or
        not finite, and given points or labels that do not fit.
        """
        if isinstance(count, bool) or count < 1:
            raise InvalidInputError("count", "at least 1 candidate", count)
        if isinstance(seed, bool) or seed < 0:
            raise InvalidInputError("seed", "an integer >= 0", seed)
        if not 0 <= scale < float("inf"):
            raise InvalidInputError("scale", "a finite number >= 0", scale)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, self.dimension, generator=generator, dtype=torch.float64)
        lam = self.start_multipliers(count, generator)
        points = scale * noise if x is None else x.detach()
        chosen = self.start_labels(count) if labels is None else labels
        if chosen is not None:
            kind = self.dtype if chosen.dtype.is_floating_point else chosen.dtype
            chosen = chosen.to(self.device, kind)
        candidates = Candidates(
            points.to(self.device, self.dtype), lam.to(self.device, self.dtype), chosen
        )
        self.check(candidates)
        return candidates

    def check(self, candidates: Candidates) -> None:
        """Raise InvalidInputError unless shapes, dtypes, device, labels and numbers fit."""
        x, lam = candidates.x, candidates.lam
        if x.ndim != 2 or len(x) == 0 or x.shape[1] != self.dimension:
            raise InvalidInputError("x", f"shape (m, {self.dimension}), m >= 1", tuple(x.shape))
        if lam.shape != (len(x), self.columns):
            raise InvalidInputError("lam", f"shape ({len(x)}, {self.columns})", tuple(lam.shape))
        mass = torch.ones_like(x[:, 0]) if candidates.mass is None else candidates.mass
        if mass.shape != (len(x),) or bool((mass <= 0).any()):
            raise InvalidInputError("mass", f"{len(x)} positive numbers", tuple(mass.shape))
        for name, tensor in (("x", x), ("lam", lam), ("mass", mass)):
            if tensor.dtype != self.dtype or tensor.device != self.device:
                raise InvalidInputError(
                    name, f"{self.dtype} on {self.device}", f"{tensor.dtype} on {tensor.device}"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise InvalidInputError(name, "finite numbers", "NaN or infinity")
        self.check_labels(candidates.labels, len(x))


def _unit_multipliers(candidates: Candidates) -> Tensor:
    mass = candidates.mass
    return candidates.lam if mass is None else candidates.lam / mass[:, None]


def needs_graph(candidates: Candidates) -> bool:
    """Whether a derivative in x or lam is wanted."""
    return candidates.x.requires_grad or candidates.lam.requires_grad


def gradients(output: Tensor, inputs: Sequence[Tensor], graph: bool = False) -> list[Tensor]:
    """Differentiate a scalar by autograd; an input that does not matter gets zeros.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> gradients((x * x).sum(), [x])
        [tensor([2., 4.])]
    """
    if not output.requires_grad:
        return [torch.zeros_like(t) for t in inputs]
    found = torch.autograd.grad(output, inputs, create_graph=graph, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True)]


def doubled_products(loss: Callable[[Candidates], Tensor], candidates: Candidates) -> Products:
    """Return v -> (S_i v_i) for any data loss by one Hessian-vector product at d = 0.

    The cost is that of three nested backward passes over 2 m candidates, the first two once.

    Example:
        >>> def moment(c):  # (sum_i lam_i x_i^2)^2, so S_i = 4 lam_i sum_k lam_k x_k^2
        ...     return (c.lam * c.x**2).sum() ** 2
        >>> points = Candidates(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
        >>> doubled_products(moment, points)(torch.ones(2, 1))
        tensor([[ 52.],
                [156.]])
    """
    x, half = candidates.x.detach(), 0.5 * candidates.lam.detach()
    labels = None if candidates.labels is None else torch.cat([candidates.labels] * 2)
    shift = torch.zeros_like(x, requires_grad=True)
    with torch.enable_grad():
        doubled = Candidates(torch.cat([x + shift, x - shift]), torch.cat([half, half]), labels)
        (slope,) = gradients(loss(doubled), [shift], graph=True)

    def products(v: Tensor) -> Tensor:
        if not slope.requires_grad:
            return torch.zeros_like(v)
        (found,) = torch.autograd.grad(slope, shift, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(v) if found is None else found.detach()

    return products
