"""How multipliers start, and how a softplus temperature grows with the steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attack.networks.activations import Activation


@dataclass(frozen=True)
class TemperatureSchedule:
    """Softplus temperature min(start + 10^(step / period), ceiling) at a step.

    Source: the schedule of Loo et al. (2024), "Understanding reconstruction attacks with the neural
    tangent kernel".

    Example:
        >>> [TemperatureSchedule().activation(step).parameter for step in (0, 20_000, 80_000)]
        [11.0, 20.0, 200.0]
    """

    start: float = 10.0
    period: float = 20_000.0
    ceiling: float = 200.0

    def activation(self, step: int) -> Activation:
        """Return the activation at a step >= 0."""
        growth = 10.0 ** min(step / self.period, 30.0)
        return Activation("softplus", min(self.start + growth, self.ceiling))


@dataclass(frozen=True)
class StartRange:
    """How multipliers start: ``uniform`` on [low, high), ``normal``, or ``constant`` = high.

    Example:
        >>> StartRange("constant", 0.0, 1.0).draw(2, 1, torch.Generator())
        tensor([[1.],
                [1.]], dtype=torch.float64)
    """

    kind: str = "uniform"
    low: float = 0.0
    high: float = 1.0

    def draw(self, count: int, columns: int, generator: torch.Generator) -> Tensor:
        """Draw (count, columns) in float64 on the CPU."""
        lam = torch.empty(count, columns, dtype=torch.float64)
        if self.kind == "normal":
            return lam.normal_(generator=generator)
        if self.kind == "constant":
            return lam.fill_(self.high)
        return lam.uniform_(self.low, self.high, generator=generator)


UNIFORM, ONES = StartRange(), StartRange("constant")
