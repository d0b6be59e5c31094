"""Binary classification: the KKT conditions of the maximum-margin problem."""

from __future__ import annotations

from attack.networks.activations import Activation
from attack.networks.network import Network
from attack.objectives.cotangents import SignReadout
from attack.objectives.penalties import BoxPenalty, FloorPenalty, Penalty
from attack.objectives.residual import Kernel, ResidualObjective
from attack.objectives.schedules import UNIFORM
from identify.errors import InvalidInputError


def haim_objective(
    network: Network,
    *,
    normaliser: float,
    activation: Activation | None = None,
    floor: float | None = 0.05,
    box: tuple[float, float] | None = (-1.0, 1.0),
    image_shape: tuple[int, int, int] | None = None,
) -> ResidualObjective:
    """Build |theta - (1/normaliser) sum_i lam_i y_i grad f(x_i)|^2 with labels -1 and 1.

    ``network`` is the victim, of one output and homogeneous in its parameters if it is to be a KKT
    point; a power activation of degree alpha is as good as relu. ``normaliser`` is the starting
    number of candidates, so that lam is that many times the KKT multiplier. ``activation``
    replaces the victim's in the attack, for instance soft_relu. ``floor`` is the least multiplier
    (penalty 5 max(floor - lam, 0)^2, None for none), ``box`` the range of the pixels. Multipliers
    start uniform on [0, 1).

    Raises InvalidInputError for a network with several outputs.

    Source: Haim, Vardi, Yehudai, Shamir & Irani (2022), "Reconstructing training data from trained
    neural networks"; the KKT system from Lyu & Li (2020), "Gradient descent maximizes the margin of
    homogeneous neural networks".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-6-1,relu").initialise(seed=0)
        >>> objective = haim_objective(network, normaliser=8, activation=Activation("soft_relu"))
        >>> start = objective.start(count=8, seed=0, scale=0.1)
        >>> tuple(objective.value_and_gradients(start).grad_x.shape)
        (8, 4)
    """
    if network.outputs != 1:
        raise InvalidInputError(
            "network", "one output for haim", network.outputs, "use buzaglo for several classes"
        )
    attacked = network.with_activation(activation) if activation else network
    penalties: list[Penalty] = []
    if box is not None:
        penalties.append(BoxPenalty(*box))
    if floor is not None:
        penalties.append(FloorPenalty(floor))
    return ResidualObjective(
        name="haim",
        kernels=(Kernel(attacked),),
        target=tuple(network.parameters()),
        readout=SignReadout(),
        normaliser=normaliser,
        penalties=tuple(penalties),
        image_shape=image_shape,
        multipliers=UNIFORM,
        factor=1.0,
    )
