"""Several classes by their margins, and regression or any loss trained with weight decay."""

from __future__ import annotations

from attack.networks.activations import Activation
from attack.networks.network import Network
from attack.objectives.cotangents import FreeReadout, MarginReadout, Readout
from attack.objectives.penalties import BoxPenalty, FloorPenalty, Penalty
from attack.objectives.residual import Kernel, ResidualObjective
from attack.objectives.schedules import StartRange
from identify.errors import InvalidInputError

TASKS = ("multiclass", "regression")


def buzaglo_objective(
    network: Network,
    *,
    normaliser: float,
    task: str = "multiclass",
    activation: Activation | None = None,
    floor: float | None = 0.05,
    box: tuple[float, float] | None = (-1.0, 1.0),
    image_shape: tuple[int, int, int] | None = None,
) -> ResidualObjective:
    """Build |theta - (1/normaliser) sum_i lam_i grad m_i|^2 for multiclass or decayed networks.

    ``task="multiclass"``: m_i = f_y(x_i) - max over k != y of f_k(x_i), class numbers as labels,
    one multiplier per candidate, above ``floor`` by a penalty, started uniform on [0, 1).
    ``task="regression"``, for a stationary point of any loss with weight decay mu: one signed
    multiplier per candidate and output, m_i = f(x_i), no labels and no floor, started N(0, 1); at a
    stationary point of (1/n) sum loss + mu/2 |theta|^2, lam_i = -normaliser / (n mu) dloss_i/df_i.
    The other arguments are those of ``haim_objective``.

    Raises InvalidInputError for another task and for multiclass with one output.

    Source: Buzaglo, Haim, Yehudai, Vardi, Oz, Nikankin & Irani (2023), "Deconstructing data
    reconstruction: multiclass, weight decay and general losses".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> network = parse_spec("4-6-3,relu").initialise(seed=0)
        >>> buzaglo_objective(network, normaliser=6).start(6, seed=0, scale=0.1).labels
        tensor([0, 0, 1, 1, 2, 2])
        >>> buzaglo_objective(network, normaliser=6, task="regression").columns
        3
    """
    if task not in TASKS:
        raise InvalidInputError("task", f"one of {', '.join(TASKS)}", task)
    if task == "multiclass" and network.outputs == 1:
        raise InvalidInputError(
            "network", "at least two outputs for multiclass", 1, "use haim, or task regression"
        )
    attacked = network.with_activation(activation) if activation else network
    penalties: list[Penalty] = []
    if box is not None:
        penalties.append(BoxPenalty(*box))
    if floor is not None and task == "multiclass":
        penalties.append(FloorPenalty(floor))
    readout: Readout = MarginReadout() if task == "multiclass" else FreeReadout()
    return ResidualObjective(
        name="buzaglo",
        kernels=(Kernel(attacked),),
        target=tuple(network.parameters()),
        readout=readout,
        normaliser=normaliser,
        penalties=tuple(penalties),
        image_shape=image_shape,
        multipliers=StartRange("uniform" if task == "multiclass" else "normal"),
        factor=1.0,
    )
