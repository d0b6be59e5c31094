"""Settings of published attacks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from attack.networks.activations import parse_activation
from attack.networks.network import Network
from attack.objectives import (
    LooPenalties,
    ResidualObjective,
    StartRange,
    TemperatureSchedule,
    buzaglo_objective,
    haim_objective,
    loo_objective,
    pixel_box,
)
from identify.errors import InvalidInputError, listed


@dataclass(frozen=True)
class Preset:
    """One published setting: numbers only, independent of data and device.

    ``rate_x``, ``rate_lam`` are the optimiser's rates; ``start_scale`` multiplies the N(0, 1) of
    the starting points; ``candidates`` counts per class and ``activation`` replaces the victim's
    relu; ``network`` is the victim with D for the dimension. ``split_every`` is 0 where the source
    does not split. ``pixel_box`` asks for the box of loo in pixels of [0, 1], a mean of weight 0.1;
    else it is a sum over [-1, 1] of weight 1. ``remark`` says what is uncertain.

    Example:
        >>> preset("haim-mnist-1").rate_x
        0.030524
    """

    name: str
    source: str
    objective: str
    task: str | None
    network: str
    optimiser: str
    rate_x: float
    rate_lam: float
    momentum: float
    steps: int
    start_scale: float
    multipliers: StartRange
    activation: str | None
    floor: float | None
    candidates: int
    dtype: str = "float64"
    features: str | None = None
    split_every: int = 0
    pixel_box: bool = False
    remark: str = ""

    def build(
        self,
        network: Network,
        *,
        count: int,
        initial: Network | None = None,
        mean: float | Tensor = 0.0,
        image_shape: tuple[int, int, int] | None = None,
    ) -> ResidualObjective:
        """Build the objective for a victim, its multipliers scaled by ``count`` candidates.

        ``initial`` is theta_0, which loo needs; ``mean`` was subtracted from pixels in [0, 1] and
        moves the box of loo.

        Raises InvalidInputError where the objective does not suit the network.

        Example:
            >>> from attack.networks.spec import parse_spec
            >>> network = parse_spec("4-6-1,relu").initialise(seed=0)
            >>> preset("haim-mnist-1").build(network, count=8).network.activation.spec
            'soft_relu149.866'
        """
        activation = None if self.activation is None else parse_activation(self.activation)
        if self.objective == "loo":
            objective = loo_objective(
                initial,
                network,
                normaliser=count,
                features=self.features or "final",
                activation=activation,
                schedule=TemperatureSchedule() if activation is None else None,
                penalties=self._loo_penalties(mean),
                image_shape=image_shape,
            )
        elif self.objective == "haim":
            objective = haim_objective(
                network,
                normaliser=count,
                activation=activation,
                floor=self.floor,
                image_shape=image_shape,
            )
        else:
            objective = buzaglo_objective(
                network,
                normaliser=count,
                task=self.task or "multiclass",
                activation=activation,
                floor=self.floor,
                image_shape=image_shape,
            )
        return replace(objective, multipliers=self.multipliers)

    def _loo_penalties(self, mean: float | Tensor) -> LooPenalties:
        if self.pixel_box:
            return LooPenalties(box=pixel_box(mean))
        return LooPenalties(box_weight=1.0, box_mean=False, floor=self.floor)


def preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises InvalidInputError for an unknown name.

    Example:
        >>> preset("haim")
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: preset: expected one of buzaglo-multiclass-1, buzaglo-multiclass-2, buzaglo-regression-1, buzaglo-regression-2, buzaglo-regression-3, haim-cifar-1, haim-cifar-2, haim-mnist-1, haim-mnist-2, loo, sample-splitting-buzaglo, sample-splitting-haim, sample-splitting-loo, got haim
    """  # noqa: E501
    if name not in PRESETS:
        known = listed(sorted(PRESETS), limit=len(PRESETS)).replace(" and ", ", ")
        raise InvalidInputError("preset", f"one of {known}", name)
    return PRESETS[name]


_HAIM = "Haim et al. (2022), Reconstructing training data from trained neural networks"
_BUZAGLO = "Buzaglo et al. (2023), Deconstructing data reconstruction"
_LOO = "Loo et al. (2024), Understanding reconstruction attacks with the neural tangent kernel"
_SHEN = "Shen et al. (2026), Data reconstruction: identifiability and optimization"
# Gradient descent with momentum 0.9 for 50,000 steps in float64: the solver of both families.
_BINARY = Preset(
    name="",
    source=_HAIM,
    objective="haim",
    task=None,
    network="D-1000-1000-1,relu,bias=first",
    optimiser="sgd",
    rate_x=1e-4,
    rate_lam=1e-4,
    momentum=0.9,
    steps=50_000,
    start_scale=1e-9,
    multipliers=StartRange("uniform", 0.0, 1.0),
    activation="soft_relu300.0",
    floor=0.05,
    candidates=500,
)
_MULTICLASS = replace(
    _BINARY,
    source=_BUZAGLO,
    objective="buzaglo",
    task="multiclass",
    network="D-1000-1000-10,relu,bias=first",
    candidates=100,
)
_REGRESSION = replace(
    _BINARY,
    source=_BUZAGLO,
    objective="buzaglo",
    task="regression",
    multipliers=StartRange("normal"),
    floor=None,
)
_NTK = Preset(
    name="loo",
    source=_LOO,
    objective="loo",
    task=None,
    network="D-1000-1000-1,relu,bias=all",
    optimiser="adam",
    rate_x=0.02,
    rate_lam=0.02,
    momentum=0.9,
    steps=80_001,
    start_scale=0.2,
    multipliers=StartRange("uniform", -0.5, 0.5),
    activation=None,
    floor=None,
    candidates=500,
    dtype="float32",
    features="final",
    pixel_box=True,
    remark="two candidates per training image; candidates counts 250 images per class",
)
# The published defaults, of which the source then draws scale, rates and softness at random.
_SPLITTING = replace(
    _BINARY,
    source=f"{_SHEN}, default settings",
    rate_x=1e-2,
    steps=200_000,
    start_scale=1e-4,
    activation="soft_relu50.0",
    floor=0.1,
    split_every=50_000,
    remark="the source searches start_scale, rate_x, floor and softness at random",
)


def _run(base: Preset, name: str, run: str, scale: float, rate: float, softness: float) -> Preset:
    return replace(
        base,
        name=name,
        source=f"{base.source}, {run}",
        start_scale=scale,
        rate_x=rate,
        activation=f"soft_relu{softness}",
    )


def _haim(name: str, run: str, scale: float, rate: float, floor: float, softness: float) -> Preset:
    return replace(_run(_BINARY, name, f"run {run}", scale, rate, softness), floor=floor)


PRESETS: Mapping[str, Preset] = {
    p.name: p
    for p in (
        _haim("haim-cifar-1", "b9dfyspx", 8.857e-4, 0.55492, 0.49830, 19.145),
        _haim("haim-cifar-2", "k60fvjdy", 4.474e-3, 0.34621, 0.49359, 21.679),
        _haim("haim-mnist-1", "kcf9bhbi", 3.498e-2, 0.030524, 0.44705, 149.866),
        _haim("haim-mnist-2", "rbijxft7", 1.742e-3, 0.28212, 0.41527, 19.215),
        replace(
            _run(
                _MULTICLASS, "buzaglo-multiclass-1", "multiclass sweep", 3.605e-4, 2.420e-4, 326.466
            ),
            rate_lam=0.95128,
            floor=0.040118,
            remark="probably the first multiclass run; the file published for it is another one",
        ),
        replace(
            _run(
                _MULTICLASS, "buzaglo-multiclass-2", "multiclass run 2", 6.228e-5, 1.362e-3, 39.517
            ),
            rate_lam=0.47933,
            floor=0.20321,
        ),
        _run(_REGRESSION, "buzaglo-regression-1", "regression run 1", 1.975e-2, 0.95175, 90.289),
        _run(_REGRESSION, "buzaglo-regression-2", "regression run 2", 1.365e-2, 0.87155, 107.413),
        _run(_REGRESSION, "buzaglo-regression-3", "regression sweep", 3.504e-6, 0.94914, 103.717),
        _NTK,
        replace(_SPLITTING, name="sample-splitting-haim"),
        replace(
            _SPLITTING,
            name="sample-splitting-buzaglo",
            objective="buzaglo",
            task="multiclass",
            network=_MULTICLASS.network,
        ),
        replace(
            _SPLITTING,
            name="sample-splitting-loo",
            objective="loo",
            multipliers=StartRange("uniform", -1.0, 1.0),
            features="average",
            remark="the source states no more for this objective than these defaults",
        ),
    )
}
