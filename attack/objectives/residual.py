"""The one class behind every objective |T - sum_i sum_c a_ic grad_theta f_c(x_i)|^2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attack.networks.network import Network, check_like_parameters
from attack.objectives.base import MultiplierSystem, Objective, Products, gradients, needs_graph
from attack.objectives.candidates import Candidates
from attack.objectives.closed_form import (
    InputCurvature,
    backward_pass,
    dense_direction,
    forward_pass,
    gradient_gram,
    input_gradient,
    summed_gradient,
    tangent_pass,
)
from attack.objectives.cotangents import Readout
from attack.objectives.implicit_residual import Sweep, factored_residual, layer_squares
from attack.objectives.penalties import Penalty
from attack.objectives.schedules import UNIFORM, StartRange, TemperatureSchedule
from identify.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class Kernel:
    """One network whose parameter gradients enter the sum, with its share of the multipliers.

    The cotangents are ``weight`` times the readout of the columns ``block`` * K ... of lam.
    """

    network: Network
    block: int = 0
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class ResidualObjective(Objective):
    """J = |R|^2 with R = T - (1 / normaliser) sum over kernels, i, c of a_ic grad_theta f_c(x_i).

    ``target`` T has the shapes of the network's parameters; the cotangents a come from the
    multipliers through ``readout``. Each kernel is a network of one form with its own parameters.
    ``factor`` c states that T = c theta for the parameters theta of the only kernel.

    Loss, gradients, splitting matrices and multiplier system are closed forms: a gradient costs 5
    matrix products of m samples in the first layer and 7 in every other one, a splitting product 4
    and 6; with a ``factor`` and few candidates 2 and 4, and 2 and 4. Nothing of size m times the
    number of parameters is formed.

    Raises InvalidInputError for a target or kernels that do not fit together.

    Source: the objective of Haim et al. (2022), "Reconstructing training data from trained neural
    networks"; with the empirical tangent kernel, Loo et al. (2024).
    """

    name: str
    kernels: tuple[Kernel, ...]
    target: tuple[Tensor, ...]
    readout: Readout
    normaliser: float
    penalties: tuple[Penalty, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    multipliers: StartRange = UNIFORM
    schedule: TemperatureSchedule | None = None
    factor: float | None = None

    def __post_init__(self) -> None:
        network = self.network
        for kernel in self.kernels:
            check_like_parameters("kernel", kernel.network.parameters(), network)
        check_like_parameters("target", self.target, network)
        if self.factor is not None and len(self.kernels) > 1:
            raise InvalidInputError("factor", "one kernel", len(self.kernels))
        check_normaliser(self.normaliser)
        check_image_shape(self.image_shape, network.dimension)

    @property
    def network(self) -> Network:
        """The network of the first kernel."""
        return self.kernels[0].network

    @property
    def columns(self) -> int:
        return self._per_block * (1 + max(kernel.block for kernel in self.kernels))

    @property
    def dimension(self) -> int:
        return self.network.dimension

    @property
    def signed(self) -> bool:
        return self.readout.signed

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def quadratic(self) -> bool:
        return True

    @property
    def _per_block(self) -> int:
        return self.readout.columns(self.network.outputs)

    def residual(self, candidates: Candidates) -> list[Tensor]:
        """Return R in the order of ``network.parameters()``, with a graph if x or lam has one."""
        rest = list(self.target)
        with torch.enable_grad():
            for kernel in self.kernels:
                parameters = [p.detach().requires_grad_() for p in kernel.network.parameters()]
                values = kernel.network.forward(candidates.x, parameters)
                # The derivative in theta is at fixed cotangents: those of a second forward pass.
                frozen = kernel.network.forward(candidates.x) if self.readout.curved else values
                a = self._cotangent(kernel, candidates.lam, frozen, candidates.labels)
                terms = torch.autograd.grad((a * values).sum(), parameters, create_graph=True)
                rest = [r - t for r, t in zip(rest, terms, strict=True)]
        return rest if needs_graph(candidates) else [r.detach() for r in rest]

    def data_loss(self, candidates: Candidates) -> Tensor:
        return torch.stack([r.square().sum() for r in self.residual(candidates)]).sum()

    def data_value(self, candidates: Candidates) -> Tensor:
        with torch.no_grad():
            return self._sweep(candidates, 1)[0]

    def data_value_and_gradients(self, candidates: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        x, lam, labels = candidates.x.detach(), candidates.lam.detach(), candidates.labels
        with torch.no_grad():
            order = 1 if self.network.activation.piecewise_linear else 2
            loss, sweeps = self._sweep(candidates, order)
            grad_x, grad_lam = torch.zeros_like(x), torch.zeros_like(lam)
            for kernel, at in zip(self.kernels, sweeps, strict=True):
                network, values = kernel.network, at.forward.values
                slopes = tangent_pass(network, at.forward, at.direction, at.along)
                pull = self._pull(kernel, lam, values, slopes[-1], labels)
                grad_x += input_gradient(
                    network, at.forward, at.backward, slopes, at.direction, pull
                )
                share = kernel.weight / self.normaliser
                block = grad_lam[:, self._slice(kernel)]
                block += share * self.readout.adjoint(slopes[-1], values, labels)
            return loss, grad_x.mul_(-2), grad_lam.mul_(-2)

    def splitting_operator(self, candidates: Candidates) -> Products:
        lam, labels, curved = candidates.lam.detach(), candidates.labels, self.readout.curved
        if self.network.activation.piecewise_linear and not curved:
            return torch.zeros_like
        parts = []
        with torch.no_grad():
            for kernel, at in zip(self.kernels, self._sweep(candidates, 3)[1], strict=True):
                network, values = kernel.network, at.forward.values
                slopes = tangent_pass(network, at.forward, at.direction, at.along)
                pull = self._pull(kernel, lam, values, slopes[-1], labels)
                curvature = InputCurvature(
                    network, at.forward, at.backward, at.direction, slopes, pull
                )
                parts.append((kernel, (values, slopes[-1]), curvature))

        def products(v: Tensor) -> Tensor:
            total = torch.zeros_like(v)
            with torch.no_grad():
                for kernel, at, curvature in parts:
                    lifted = curvature.lift(v)
                    top = self._top(kernel, lam, at, lifted[-1], labels) if curved else None
                    total += curvature.drop(lifted, top)
            return total.mul_(-2)

        return products

    def multiplier_system(self, candidates: Candidates) -> MultiplierSystem:
        labels, width, m = candidates.labels, self.columns, candidates.count
        with torch.no_grad():
            linear = candidates.x.new_zeros(m, width)
            sides = []
            for kernel in self.kernels:
                forward = forward_pass(kernel.network, candidates.x.detach(), 1)
                basis = self.readout.basis(forward.values, labels) * (
                    kernel.weight / self.normaliser
                )
                sides.append((forward, backward_pass(kernel.network, forward, basis)))
                toward, along = dense_direction(kernel.network, self.target), None
                if self.factor is not None:
                    along = [self.factor * z for z in forward.sums]
                outputs = tangent_pass(kernel.network, forward, toward, along)[-1]
                linear[:, self._slice(kernel)] += (basis * outputs[:, None]).sum(2)
            gram = candidates.x.new_zeros(m, width, m, width)
            for first, side in zip(self.kernels, sides, strict=True):
                for second, other in zip(self.kernels, sides, strict=True):
                    part = gradient_gram(side, other, self.network)
                    shape = (m, self._per_block, m, self._per_block)
                    gram[:, self._slice(first), :, self._slice(second)] += part.reshape(shape)
            constant = torch.stack([t.square().sum() for t in self.target]).sum()
            square = gram.reshape(m * width, m * width)
            return MultiplierSystem(constant, 0.5 * (square + square.T), linear.reshape(-1))

    def with_step(self, step: int) -> ResidualObjective:
        if self.schedule is None:
            return self
        activation = self.schedule.activation(step)
        if activation == self.network.activation:
            return self
        changed = tuple(
            replace(k, network=k.network.with_activation(activation)) for k in self.kernels
        )
        return replace(self, kernels=changed)

    def start_multipliers(self, count: int, generator: torch.Generator) -> Tensor:
        return self.multipliers.draw(count, self.columns, generator)

    def start_labels(self, count: int) -> Tensor | None:
        return self.readout.start_labels(count, self.network.outputs)

    def check_labels(self, labels: Tensor | None, count: int) -> None:
        self.readout.check_labels(labels, count, self.network.outputs)

    def describe(self) -> dict[str, Any]:
        return {
            "objective": self.name,
            "networks": [kernel.network.sha256() for kernel in self.kernels],
            "activation": self.network.activation.spec,
            "columns": self.columns,
            "signed": self.signed,
            "normaliser": self.normaliser,
            "readout": repr(self.readout),
            "penalties": [penalty.describe() for penalty in self.penalties],
            "schedule": None if self.schedule is None else vars(self.schedule).copy(),
        }

    def _slice(self, kernel: Kernel) -> slice:
        return slice(kernel.block * self._per_block, (kernel.block + 1) * self._per_block)

    def _cotangent(
        self, kernel: Kernel, lam: Tensor, values: Tensor, labels: Tensor | None
    ) -> Tensor:
        share = kernel.weight / self.normaliser
        return share * self.readout.cotangent(lam[:, self._slice(kernel)], values, labels)

    def _sweep(self, candidates: Candidates, order: int) -> tuple[Tensor, list[Sweep]]:
        """Return the data loss and, per kernel, both passes and the residual as a direction."""
        x, lam = candidates.x.detach(), candidates.lam.detach()
        passes = []
        for kernel in self.kernels:
            forward = forward_pass(kernel.network, x, order)
            a = self._cotangent(kernel, lam, forward.values, candidates.labels)
            passes.append((forward, backward_pass(kernel.network, forward, a)))
        if self.factor is not None:
            loss, sweep = factored_residual(self.network, *passes[0], self.factor, self._squares)
            return loss, [sweep]
        rest = list(self.target)
        for kernel, (forward, backward) in zip(self.kernels, passes, strict=True):
            terms = summed_gradient(kernel.network, forward, backward)
            rest = [r - t for r, t in zip(rest, terms, strict=True)]
        loss = torch.stack([r.square().sum() for r in rest]).sum()
        return loss, [
            Sweep(*both, dense_direction(kernel.network, rest), None)
            for kernel, both in zip(self.kernels, passes, strict=True)
        ]

    @cached_property
    def _squares(self) -> list[float]:
        return layer_squares(self.network)

    def _pull(
        self, kernel: Kernel, lam: Tensor, values: Tensor, outputs: Tensor, labels: Tensor | None
    ) -> Tensor | None:
        # The gradient of sum_c a_c(f) D_c in f: autograd on (m, C) numbers only.
        if not self.readout.curved:
            return None
        with torch.enable_grad():
            f = values.detach().requires_grad_()
            return gradients((self._cotangent(kernel, lam, f, labels) * outputs).sum(), [f])[0]

    def _top(
        self,
        kernel: Kernel,
        lam: Tensor,
        at: tuple[Tensor, Tensor],
        change: tuple[Tensor, Tensor],
        labels: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        # The change of (a(f), pull(f, D)) along (df, dD): a Hessian-vector product in (f, D).
        with torch.enable_grad():
            f, d = (part.detach().requires_grad_() for part in at)
            product = (self._cotangent(kernel, lam, f, labels) * d).sum()
            pull, a = gradients(product, [f, d], graph=True)
            along = (pull * change[0]).sum() + (a * change[1]).sum()
            d_pull, d_a = gradients(along, [f, d])
        return d_a, d_pull


def flat_target(tensors: Sequence[Tensor], network: Network) -> tuple[Tensor, ...]:
    """Bring target tensors to the dtype and device of the network."""
    return tuple(t.detach().to(network.device, network.dtype) for t in tensors)


def check_normaliser(value: float) -> None:
    """Raise InvalidInputError unless the fixed count is a positive number."""
    if not 0 < value < float("inf"):
        raise InvalidInputError("normaliser", "a positive count", value)


def check_image_shape(shape: tuple[int, int, int] | None, dimension: int) -> None:
    """Raise InvalidInputError unless (C, H, W) holds ``dimension`` numbers."""
    if shape is not None and shape[0] * shape[1] * shape[2] != dimension:
        raise InvalidInputError("image_shape", f"(C, H, W) with {dimension} numbers", shape)
