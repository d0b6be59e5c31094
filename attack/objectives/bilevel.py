"""Data whose training problem leads to the victim, differentiated through its own steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attack.networks.activations import Activation
from attack.networks.network import Network, check_like_parameters
from attack.objectives.base import Objective, needs_graph
from attack.objectives.candidates import Candidates
from attack.objectives.cotangents import LossReadout
from attack.objectives.penalties import BoxPenalty, Penalty
from attack.objectives.residual import check_image_shape, check_normaliser
from attack.objectives.schedules import ONES, StartRange
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


@dataclass(frozen=True, eq=False)
class BilevelObjective(Objective):
    """|theta* - theta_T|^2 after T steps of training on the candidates, started at theta_0.

    E(theta) = (1/normaliser) sum_i lam_i loss(f_theta(x_i), y_i) + decay/2 |theta|^2 is minimised
    by the steps of ``training``; its functions sum_i lam_i loss(f_theta(x_i), y_i) of theta are the
    phi of the protocol, so halves of a candidate leave the training as it is. All derivatives are
    those of autograd through the steps, splitting matrices by antisymmetric doubling. A gradient
    costs about five passes over the candidates per step and keeps the graph of every step.

    Raises InvalidInputError for networks of two forms.

    Source: Runkel, Gandikota, Geiping, Schoenlieb & Moeller (2024), "Training data reconstruction:
    privacy due to uncertainty?"; unrolling after Maclaurin, Duvenaud & Adams (2015),
    "Gradient-based hyperparameter optimization through reversible learning".
    """

    initial: Network
    final: Network
    readout: LossReadout
    normaliser: float
    training: Unrolled
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
        """Train on the candidates and return theta_T, with the graph of every step."""
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
        pairs = zip(self.trained_parameters(candidates), self.final.parameters(), strict=True)
        return torch.stack([(p - q).square().sum() for p, q in pairs]).sum()

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
            **vars(self.training),
            "penalties": [penalty.describe() for penalty in self.penalties],
        }


def bilevel_objective(
    network: Network,
    initial: Network | None = None,
    *,
    normaliser: float,
    loss: str,
    training: Unrolled | None = None,
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
