"""Data whose training problem leads to the victim: through its steps, or at its solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attack.networks.activations import Activation
from attack.networks.network import Network, check_like_parameters
from attack.objectives.base import Objective, Products, doubled_products, needs_graph
from attack.objectives.candidates import Candidates
from attack.objectives.cotangents import LossReadout
from attack.objectives.penalties import BoxPenalty, Penalty
from attack.objectives.residual import check_image_shape, check_normaliser
from attack.objectives.schedules import ONES, StartRange
from attack.training.to_stationarity import polish, solve_hessian
from identify.errors import InvalidInputError


@dataclass(frozen=True)
class Unrolled:
    """Gradient descent that is differentiated: ``steps`` at ``rate`` with heavy-ball ``momentum``.

    ``decay`` mu adds mu/2 |theta|^2 to what is minimised.

    Raises InvalidInputError for settings out of range.
    """

    steps: int = 1
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not 1 <= self.steps <= 10_000:
            raise InvalidInputError("steps", "1 to 10000 unrolled steps", self.steps)
        if not 0 < self.rate < float("inf"):
            raise InvalidInputError("rate", "a positive number", self.rate)
        if not 0 <= self.momentum < 1:
            raise InvalidInputError("momentum", "a number in [0, 1)", self.momentum)
        if not 0 <= self.decay < float("inf"):
            raise InvalidInputError("decay", "a finite number >= 0", self.decay)


@dataclass(frozen=True)
class Converged:
    """Training to the end: L-BFGS and Newton's method until |grad E| <= ``tolerance``.

    ``decay`` mu adds mu/2 |theta|^2 to what is minimised; without it a separable training has no
    end. ``limit`` bounds the iterations of L-BFGS.

    Raises InvalidInputError for settings out of range.
    """

    tolerance: float = 1e-8
    decay: float = 0.0
    limit: int = 2000

    def __post_init__(self) -> None:
        for name in ("tolerance", "decay"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InvalidInputError(name, "a positive number", value)
        if isinstance(self.limit, bool) or self.limit < 1:
            raise InvalidInputError("limit", "at least 1 iteration", self.limit)


@dataclass(frozen=True, eq=False)
class _Inner:
    """E as a function of theta at fixed candidates."""

    objective: BilevelObjective
    candidates: Candidates

    def value(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return E."""
        return self.objective.training_loss(self.candidates, list(parameters))


@dataclass(frozen=True, eq=False)
class BilevelObjective(Objective):
    """|theta_v - theta(X)|^2, theta_v the victim, theta(X) trained on the candidates from theta_0.

    E(theta) = (1/normaliser) sum_i lam_i loss(f_theta(x_i), y_i) + decay/2 |theta|^2 is minimised
    by the steps of ``training``; its functions sum_i lam_i loss(f_theta(x_i), y_i) of theta are the
    phi of the protocol, so halves of a candidate leave the training as it is.

    `Unrolled`: all derivatives are those of autograd through the steps, splitting matrices by
    antisymmetric doubling. A gradient costs about five passes over the candidates per step and
    keeps the graph of every step.

    `Converged`: theta(X) is a stationary point, and the gradient the implicit one,
    -(d grad_theta E / dX)^T w with H w = 2 (theta(X) - theta_v), H the Hessian of E. A gradient
    costs the training and one linear system, whatever the number of steps. Autograd knows the
    first derivatives only; splitting matrices are those of -<w, grad_theta E>, which are exact.

    Raises InvalidInputError for networks of two forms.

    Source: Runkel, Gandikota, Geiping, Schoenlieb & Moeller (2024), "Training data reconstruction:
    privacy due to uncertainty?"; unrolling after Maclaurin, Duvenaud & Adams (2015),
    "Gradient-based hyperparameter optimization through reversible learning"; the implicit gradient
    after Pedregosa (2016), "Hyperparameter optimization with approximate gradient".
    """

    initial: Network
    final: Network
    readout: LossReadout
    normaliser: float
    training: Unrolled | Converged
    penalties: tuple[Penalty, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    multipliers: StartRange = ONES
    name: str = "bilevel"

    def __post_init__(self) -> None:
        check_like_parameters("initial", self.initial.parameters(), self.final)
        check_normaliser(self.normaliser)
        check_image_shape(self.image_shape, self.final.dimension)
        self.readout.check_outputs(self.final.outputs)

    @property
    def network(self) -> Network:
        """The victim."""
        return self.final

    @property
    def columns(self) -> int:
        return 1

    @property
    def dimension(self) -> int:
        return self.final.dimension

    @property
    def signed(self) -> bool:
        return False

    @property
    def dtype(self) -> torch.dtype:
        return self.final.dtype

    @property
    def device(self) -> torch.device:
        return self.final.device

    @property
    def quadratic(self) -> bool:
        return False

    def trained_parameters(self, candidates: Candidates) -> list[Tensor]:
        """Train on the candidates and return theta; of unrolled steps with their graph."""
        if isinstance(self.training, Converged):
            return self._converged(candidates.detach(), self.training)
        rate, momentum = self.training.rate, self.training.momentum
        with torch.enable_grad():
            theta = [p.detach().requires_grad_() for p in self.initial.parameters()]
            velocity = [torch.zeros_like(p) for p in theta]
            for _ in range(self.training.steps):
                slope = torch.autograd.grad(
                    self.training_loss(candidates, theta), theta, create_graph=True
                )
                velocity = [momentum * v + g for v, g in zip(velocity, slope, strict=True)]
                theta = [p - rate * v for p, v in zip(theta, velocity, strict=True)]
        return theta if needs_graph(candidates) else [p.detach() for p in theta]

    def training_loss(self, candidates: Candidates, theta: list[Tensor]) -> Tensor:
        """Return E(theta) as a scalar with an autograd graph."""
        if candidates.labels is None:
            raise InvalidInputError("labels", "one per candidate", None)
        values = self.final.forward(candidates.x, theta)
        losses = self.readout.sample_losses(values, candidates.labels)
        total = (candidates.lam[:, 0] * losses).sum() / self.normaliser
        if self.training.decay:
            square = torch.stack([p.square().sum() for p in theta]).sum()
            total = total + 0.5 * self.training.decay * square
        return total

    def data_loss(self, candidates: Candidates) -> Tensor:
        theta = self.trained_parameters(candidates)
        away = [p - q for p, q in zip(theta, self.final.parameters(), strict=True)]
        loss = torch.stack([part.square().sum() for part in away]).sum()
        if isinstance(self.training, Unrolled) or not needs_graph(candidates):
            return loss
        along = self._along(candidates, theta, self._weights(candidates, theta))
        return loss + along.detach() - along

    def splitting_operator(self, candidates: Candidates) -> Products:
        if isinstance(self.training, Unrolled):
            return super().splitting_operator(candidates)
        # Halves move E by the square of the shift, so that theta and w may stay as they are.
        theta = self.trained_parameters(candidates)
        weights = self._weights(candidates, theta)
        return doubled_products(lambda c: -self._along(c, theta, weights), candidates)

    def _converged(self, candidates: Candidates, training: Converged) -> list[Tensor]:
        start = [p.detach() for p in self.initial.parameters()]
        inner = _Inner(self, candidates)
        done = polish(inner, start, tolerance=training.tolerance, limit=training.limit)
        return done.parameters

    def _weights(self, candidates: Candidates, theta: list[Tensor]) -> list[Tensor]:
        """w with H w = 2 (theta - theta_v)."""
        away = [2 * (p - q) for p, q in zip(theta, self.final.parameters(), strict=True)]
        return solve_hessian(_Inner(self, candidates.detach()), theta, away)

    def _along(self, candidates: Candidates, theta: list[Tensor], weights: list[Tensor]) -> Tensor:
        """<w, grad_theta E> at theta, with a graph in x and lam."""
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_() for p in theta]
            slope = torch.autograd.grad(
                self.training_loss(candidates, leaves), leaves, create_graph=True
            )
            parts = [(w * g).sum() for w, g in zip(weights, slope, strict=True)]
            return torch.stack(parts).sum()

    def start_multipliers(self, count: int, generator: torch.Generator) -> Tensor:
        return self.multipliers.draw(count, 1, generator)

    def start_labels(self, count: int) -> Tensor | None:
        return self.readout.start_labels(count, self.final.outputs)

    def check_labels(self, labels: Tensor | None, count: int) -> None:
        self.readout.check_labels(labels, count, self.final.outputs)

    def describe(self) -> dict[str, Any]:
        return {
            "objective": self.name,
            "networks": [self.final.sha256(), self.initial.sha256()],
            "activation": self.final.activation.spec,
            "columns": 1,
            "signed": False,
            "normaliser": self.normaliser,
            "loss": self.readout.loss,
            **self._described(),
            "penalties": [penalty.describe() for penalty in self.penalties],
        }

    def _described(self) -> dict[str, Any]:
        kind = {} if isinstance(self.training, Unrolled) else {"inner": "converged"}
        return {**kind, **vars(self.training)}


def bilevel_objective(
    network: Network,
    initial: Network | None = None,
    *,
    normaliser: float,
    loss: str,
    training: Unrolled | Converged | None = None,
    activation: Activation | None = None,
    box: tuple[float, float] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> BilevelObjective:
    """Build the bilevel objective; without ``initial`` the training starts at the victim itself.

    ``training`` is one step at rate 0.1 unless given. Started at the victim, one step without
    momentum makes it rate^2 times the squared gradient norm of ``gradient_norm_objective``; more
    steps ask that training stays there. Sample weights lam_i start at 1.

    Raises InvalidInputError for networks of two forms.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> spec = parse_spec("4-6-1,tanh")
        >>> first, last = spec.initialise(seed=0), spec.initialise(seed=1)
        >>> objective = bilevel_objective(last, first, normaliser=4, loss="logistic")
        >>> tuple(objective.value_and_gradients(objective.start(4, 0, 1.0)).grad_x.shape)
        (4, 4)
    """
    start = (network if initial is None else initial).to(network.device, network.dtype)
    if activation is not None:
        network, start = network.with_activation(activation), start.with_activation(activation)
    return BilevelObjective(
        initial=start,
        final=network,
        readout=LossReadout(loss),
        normaliser=normaliser,
        training=training or Unrolled(),
        penalties=() if box is None else (BoxPenalty(*box),),
        image_shape=image_shape,
    )
