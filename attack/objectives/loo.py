"""Known initialisation: the movement of the parameters as a sum of tangent features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attack.networks.activations import Activation
from attack.networks.network import Network, check_like_parameters
from attack.objectives.cotangents import FreeReadout
from attack.objectives.penalties import (
    BlurPenalty,
    BoxPenalty,
    Penalty,
    SignedFloorPenalty,
    SparsityPenalty,
)
from attack.objectives.residual import Kernel, ResidualObjective, flat_target
from attack.objectives.schedules import StartRange, TemperatureSchedule
from identify.errors import InvalidInputError

FEATURES = ("final", "initial", "both", "average")


@dataclass(frozen=True, eq=False)
class LooPenalties:
    """What a candidate of `loo_objective` pays.

    ``box_weight`` times the mean over pixels (the sum unless ``box_mean``) of the squared excess
    over ``box`` (in pixels [0, 1] less a mean: the bounds -mean and 1 - mean; None for no box),
    ``blur`` times that of the part that a binomial blur removes, ``sparsity`` times the mean of
    |lam|, and 5 max(floor - |lam|, 0)^2 with a ``floor``.
    """

    box: tuple[float | Tensor, float | Tensor] | None = (-1.0, 1.0)
    box_weight: float = 0.1
    blur: float = 0.0
    sparsity: float = 0.0
    box_mean: bool = True
    floor: float | None = None

    def of(
        self, network: Network, multipliers: float, image_shape: tuple[int, int, int] | None
    ) -> tuple[Penalty, ...]:
        """Return the penalties for images of a network, ``multipliers`` in number.

        Raises InvalidInputError for a blur without ``image_shape``.
        """
        found: list[Penalty] = []
        if self.box is not None:
            lower, upper = (
                b.to(network.device, network.dtype) if isinstance(b, Tensor) else b
                for b in self.box
            )
            found.append(BoxPenalty(lower, upper, weight=self.box_weight, mean=self.box_mean))
        if self.blur:
            if image_shape is None:
                raise InvalidInputError("image_shape", "(C, H, W) for the blur penalty", None)
            found.append(BlurPenalty(image_shape, self.blur))
        if self.sparsity:
            found.append(SparsityPenalty(self.sparsity / multipliers))
        if self.floor is not None:
            found.append(SignedFloorPenalty(self.floor))
        return tuple(found)


def loo_objective(
    initial: Network | None,
    final: Network,
    *,
    normaliser: float,
    features: str = "average",
    activation: Activation | None = None,
    schedule: TemperatureSchedule | None = None,
    penalties: LooPenalties | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> ResidualObjective:
    """Build |(theta_f - theta_0) - 1/(normaliser C) sum_ic lam_ic grad f_c(x_i)|^2, lam signed.

    ``features`` says where the gradients are taken: ``final`` at theta_f; ``initial`` at theta_0,
    exact for a network linearised there; ``both`` at both, each with multipliers of its own (2 C
    columns); ``average`` the mean of both with one set of multipliers, whose error is of second
    order in the movement. ``schedule`` raises the
    temperature of a softplus in place of the victim's relu with the steps; ``activation`` fixes
    another one. ``penalties`` are a box of [-1, 1] unless given. Multipliers start uniform on
    [-0.5, 0.5).

    Raises InvalidInputError without an initial network, for networks of two forms, for unknown
    ``features``, and for a blur without ``image_shape``.

    Source: Loo, Hasani, Lechner, Amini & Rus (2024), "Understanding reconstruction attacks with the
    neural tangent kernel and dataset distillation".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> spec = parse_spec("4-6-2,relu,bias=all")
        >>> first, last = spec.initialise(seed=0), spec.initialise(seed=1)
        >>> objective = loo_objective(
        ...     first, last, normaliser=5, features="both", schedule=TemperatureSchedule()
        ... )
        >>> objective.columns, objective.with_step(20_000).network.activation.spec
        (4, 'softplus20')
    """
    if initial is None:
        raise InvalidInputError(
            "initial", "the network before training", "none", "give theta_0 with --initial"
        )
    if features not in FEATURES:
        raise InvalidInputError("features", f"one of {', '.join(FEATURES)}", features)
    check_like_parameters("initial", initial.parameters(), final)
    before = initial.to(final.device, final.dtype)
    target = [b - a for a, b in zip(before.parameters(), final.parameters(), strict=True)]
    attack = activation or (schedule.activation(0) if schedule else final.activation)
    first, last = before.with_activation(attack), final.with_activation(attack)
    kernels = {
        "final": (Kernel(last),),
        "initial": (Kernel(first),),
        "both": (Kernel(last), Kernel(first, block=1)),
        "average": (Kernel(last, weight=0.5), Kernel(first, weight=0.5)),
    }[features]
    columns = final.outputs * (2 if features == "both" else 1)
    return ResidualObjective(
        name="loo",
        kernels=kernels,
        target=flat_target(target, final),
        readout=FreeReadout(),
        normaliser=normaliser * final.outputs,
        penalties=(penalties or LooPenalties()).of(final, normaliser * columns, image_shape),
        image_shape=image_shape,
        multipliers=StartRange("uniform", -0.5, 0.5),
        schedule=schedule if activation is None else None,
    )


def pixel_box(mean: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """Return the bounds of pixels in [0, 1] after ``mean`` (a number or (D,)) was subtracted.

    Example:
        >>> pixel_box(torch.tensor([0.25, 0.5]))
        (tensor([-0.2500, -0.5000]), tensor([0.7500, 0.5000]))
    """
    if isinstance(mean, Tensor) and not bool(torch.isfinite(mean).all()):
        raise InvalidInputError("mean", "finite numbers", "NaN or infinity")
    return -mean, 1.0 - mean
