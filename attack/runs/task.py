"""What a run attacks: the victim, and the objective built for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from attack.arguments import (
    NetworkLike,
    channels_first,
    take_device,
    take_gradient,
    take_mean,
    take_network,
)
from attack.memory import free_memory
from attack.networks.network import Network
from attack.objectives.base import Objective
from attack.objectives.by_name import Victim, build_objective
from attack.objectives.candidates import Candidates
from attack.objectives.gradient_facts import samples_in
from attack.objectives.presets import Preset
from attack.objectives.presets import preset as preset_by_name
from attack.objectives.spans import SpanObjective, span_objective
from attack.runs.restriction import Restriction, SpanLike, take_span
from attack.runs.ridge import RidgeLike, choose_ridge, take_ridge, with_ridge
from identify.errors import InvalidInputError

DEFAULT_COUNT = 100


@dataclass(frozen=True, eq=False)
class Task:
    """An objective on a victim; ``count`` is the number of candidates it is scaled for.

    ``ridge`` is a weight on the squares of the multipliers, "auto" or "off"; ``restriction`` says
    in which span the candidates are kept.
    """

    objective: Objective
    victim: Victim
    preset: Preset | None
    count: int
    restriction: Restriction
    ridge: float | str

    @property
    def whole(self) -> Objective:
        """The objective in pixels, whatever the candidates are restricted to."""
        return self.objective.base if isinstance(self.objective, SpanObjective) else self.objective

    def settled(self, first: Candidates) -> Task:
        """Return the task with its ridge, chosen from the first candidates if nothing is given."""
        if self.ridge == "off":
            return self
        weight = choose_ridge(self.objective, first) if self.ridge == "auto" else self.ridge
        assert isinstance(weight, float)
        return (
            self if weight == 0.0 else replace(self, objective=with_ridge(self.objective, weight))
        )

    def describe(self) -> dict[str, Any]:
        """Return the objective with its settings, as values that a run folder holds."""
        described = dict(self.whole.describe())
        described.pop("objective", None)
        return {"name": self.objective.name, **described}


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What is to be attacked and how, in the words of `attack.reconstruct`."""

    network: NetworkLike
    objective: str | Objective | None
    initial: NetworkLike | None
    gradient: NetworkLike | Sequence[Tensor] | None
    options: Mapping[str, Any] | None
    preset: str | Preset | None
    mean: float | npt.ArrayLike | None
    span: SpanLike | None
    ridge: RidgeLike | None
    image_shape: tuple[int, ...] | None
    device: str | torch.device
    dtype: torch.dtype | None

    def task(self, count: int | None) -> Task:
        """Load the networks and build the objective for so many candidates.

        Raises InvalidInputError and FileError as `attack.reconstruct`.
        """
        preset = preset_by_name(self.preset) if isinstance(self.preset, str) else self.preset
        place = take_device(self.device)
        victim = self._victim(place, preset)
        number = self._count(victim, preset) if count is None else count
        _check_memory(number, victim.network)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise InvalidInputError("count", "at least 1 candidate", number)
        built = self._objective(victim, preset, number, place)
        ridge = take_ridge(self.ridge, built, preset is not None)
        kept = take_span(self.span, victim, preset is not None)
        if kept.span is not None:
            built = span_objective(built, kept.span)
        return Task(built, victim, preset, number, kept, ridge)

    def _victim(self, place: torch.device, preset: Preset | None) -> Victim:
        dtype = self.dtype
        if dtype is None and preset is not None:
            dtype = getattr(torch, preset.dtype)
        if dtype not in (None, torch.float32, torch.float64):
            raise InvalidInputError("dtype", "torch.float32 or torch.float64", dtype)
        network = take_network(self.network, place, dtype)
        initial = gradient = None
        if self.initial is not None:
            initial = take_network(self.initial, place, network.dtype, network)
        if self.gradient is not None:
            gradient = take_gradient(self.gradient, network)
        return Victim(network, initial, gradient, take_mean(self.mean, network.dimension))

    def _count(self, victim: Victim, preset: Preset | None) -> int:
        if preset is not None:
            return preset.candidates * max(2, victim.network.outputs)
        if self._name(victim, preset) == "gradient_matching" and victim.gradient is not None:
            return samples_in(victim.gradient)
        return DEFAULT_COUNT

    def _name(self, victim: Victim, preset: Preset | None) -> str:
        """The objective that is named, or the one for what is given."""
        if isinstance(self.objective, Objective):
            return self.objective.name
        if self.objective or preset is not None:
            return self.objective or (preset.objective if preset else "")
        if victim.gradient is not None:
            return "gradient_matching"
        if victim.initial is not None:
            return "loo"
        return "haim" if victim.network.outputs == 1 else "buzaglo"

    def _objective(
        self, victim: Victim, preset: Preset | None, count: int, place: torch.device
    ) -> Objective:
        if isinstance(self.objective, Objective):
            if self.options or preset is not None:
                raise InvalidInputError(
                    "objective", "a name beside options or a preset", "an object"
                )
            if self.objective.device != place:
                given = f"{self.objective.device} of the objective"
                raise InvalidInputError("device", given, place)
            return self.objective
        name = self._name(victim, preset)
        shape = channels_first(self.image_shape, victim.network.dimension, self.options)
        return build_objective(
            name, victim, count, options=self.options, preset=preset, image_shape=shape
        )


def _check_memory(count: object, network: Network) -> None:
    """Refuse candidates that cannot fit: four copies of them are the least that a solver keeps."""
    if not isinstance(count, int) or network.device.type != "cpu":
        return
    needed, free = 4 * count * network.dimension * network.dtype.itemsize, free_memory()
    if free is not None and needed > free:
        raise InvalidInputError(
            "count", f"candidates that fit into the memory of {free / 2**30:.1f} GiB",
            f"{count}, which need at least {needed / 2**30:.1f} GiB", "lower --count",
        )  # fmt: skip
