"""One gradient of a batch, and the squared norm of the gradient of the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from attack.networks.activations import Activation
from attack.networks.network import Network, check_like_parameters
from attack.objectives.cotangents import FreeReadout, LossReadout, Readout
from attack.objectives.penalties import BoxPenalty, Penalty
from attack.objectives.residual import Kernel, ResidualObjective, flat_target
from attack.objectives.schedules import StartRange
from identify.errors import InvalidInputError


def gradient_matching_objective(
    network: Network,
    gradient: Network | Sequence[Tensor],
    *,
    normaliser: float,
    loss: str | None = None,
    decay: float = 0.0,
    activation: Activation | None = None,
    box: tuple[float, float] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> ResidualObjective:
    """Build |g - mu theta - (1/normaliser) sum_i lam_i grad_theta loss(f(x_i), y_i)|^2.

    ``gradient`` g holds the shapes of the network's parameters; ``decay`` mu is the weight decay
    inside it. With a known ``loss`` (logistic, squared, cross-entropy) lam_i >= 0 weighs a sample,
    1 for each member of a batch of ``normaliser`` averaged samples, and is started there. Without
    one, lam_ic stands for dloss_i/df_c: signed, one per output, no labels, started uniform on
    [-0.5, 0.5).

    Raises InvalidInputError for a gradient of other shapes, a negative decay, and a loss that does
    not fit the number of outputs.

    Source: Zhu, Liu & Han (2019), "Deep leakage from gradients".

    Example:
        >>> import torch
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-6-1,gelu").initialise(seed=0)
        >>> gradient = [torch.zeros_like(p) for p in network.parameters()]
        >>> objective = gradient_matching_objective(network, gradient, normaliser=2, loss="squared")
        >>> objective.start(2, seed=0, scale=1.0).lam.flatten()
        tensor([1., 1.], dtype=torch.float64)
    """
    tensors = gradient.parameters() if isinstance(gradient, Network) else list(gradient)
    check_like_parameters("gradient", tensors, network)
    if not 0 <= decay < float("inf"):
        raise InvalidInputError("decay", "a finite number >= 0", decay)
    readout: Readout = FreeReadout()
    if loss is not None:
        readout = LossReadout(loss)
        readout.check_outputs(network.outputs)
    given = flat_target(tensors, network)
    target = tuple(g - decay * p for g, p in zip(given, network.parameters(), strict=True))
    penalties: tuple[Penalty, ...] = () if box is None else (BoxPenalty(*box),)
    start = StartRange("constant") if loss else StartRange("uniform", -0.5, 0.5)
    return ResidualObjective(
        name="gradient_matching",
        kernels=(Kernel(network.with_activation(activation) if activation else network),),
        target=target,
        readout=readout,
        normaliser=normaliser,
        penalties=penalties,
        image_shape=image_shape,
        multipliers=start,
    )


def gradient_norm_objective(
    network: Network,
    *,
    normaliser: float,
    loss: str,
    decay: float = 0.0,
    activation: Activation | None = None,
    box: tuple[float, float] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> ResidualObjective:
    """Build |grad_theta E|^2 at the victim, E = (1/normaliser) sum lam_i loss_i + mu/2 |theta|^2.

    It is gradient matching with the zero gradient: the training problem of the candidates has the
    victim as a stationary point. Arguments and errors are those of ``gradient_matching_objective``.

    Source: the comparison method of Runkel, Gandikota, Geiping, Schoenlieb & Moeller (2024),
    "Training data reconstruction: privacy due to uncertainty?", after Buzaglo et al. (2023).

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-6-3,tanh").initialise(seed=0)
        >>> gradient_norm_objective(network, normaliser=3, loss="cross-entropy", decay=0.1).name
        'gradient_norm'
    """
    zero = [0 * p for p in network.parameters()]
    objective = gradient_matching_objective(
        network,
        zero,
        normaliser=normaliser,
        loss=loss,
        decay=decay,
        activation=activation,
        box=box,
        image_shape=image_shape,
    )
    return replace(objective, name="gradient_norm", factor=-decay)
