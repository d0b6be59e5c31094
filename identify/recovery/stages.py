"""How far the measurements came: reduced, interpolated, decomposed, recovered.

Each stage is the one before it with what it adds, so that whoever needs a rank asks for an
`Interpolated` and whoever needs samples for a `Recovered`. Measuring may end at any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from identify.decomposition.refine import Decomposition
from identify.hermite.reduction import ReducedData
from identify.interpolation.solvers import Interpolation
from identify.recovery.bounds import ErrorBounds
from identify.recovery.hidden_share import HiddenShare
from identify.recovery.leftover import Leftover
from identify.recovery.samples import Samples
from identify.recovery.second_method import SecondMethod
from identify.recovery.ties import Tie


@dataclass(frozen=True, eq=False)
class Stage:
    """The noise level rho, relative; nothing more where no rank can be told at it."""

    noise_level: float


@dataclass(frozen=True, eq=False)
class Reduced(Stage):
    """The data in V; the last stage where dim V is not clear.

    `neurons` counts the distinct ones, 0 where V is not clear. `unsettled` is the residual that
    the last round left above its noise level, None if rho is stable.
    """

    reduced: ReducedData
    neurons: int
    unsettled: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Interpolated(Reduced):
    """What the linear equations say about T; the last stage where no terms were found.

    `linear_residual` is relative, None without redundant equations; `timed_out` says that the
    deadline passed before the end.
    """

    linear: Interpolation
    linear_residual: float | None
    timed_out: bool = field(default=False, kw_only=True)

    @property
    def surplus(self) -> int:
        """rank H - r^2: equations beyond the unknowns of r samples."""
        return self.linear.rank - self.reduced.dimension**2

    @property
    def truncated(self) -> bool:
        """Whether the rank is open, so that the solve left out directions the data may have."""
        return self.linear.determined is None and self.linear.rank < self.linear.required


@dataclass(frozen=True, eq=False)
class Decomposed(Interpolated):
    """The best set of r terms of T; the last stage where it does not fit to the noise."""

    decomposition: Decomposition

    @property
    def fits(self) -> bool:
        """Whether the terms fit to ten times the noise level."""
        return self.decomposition.residual <= 10.0 * self.noise_level


@dataclass(frozen=True, eq=False)
class Recovered(Decomposed):
    """Samples of terms that fit, their error bounds, and what speaks for their number.

    `leftover`, `tie`, `hidden` and `second` are None where there is nothing of the kind to see.
    """

    samples: Samples
    bounds: ErrorBounds
    leftover: Leftover | None
    tie: Tie | None = None
    hidden: HiddenShare | None = None
    second: SecondMethod | None = None

    @property
    def ties(self) -> int:
        """Equations that a tie adds."""
        return 0 if self.tie is None else self.tie.equations

    @property
    def redundancy(self) -> int:
        """rank H - r^2 + ties."""
        return self.surplus + self.ties

    @property
    def tied(self) -> bool:
        """Whether ties, and no equation of the tensor, are what speaks for the number."""
        return self.ties > 0 >= self.surplus


def redundant_equations(stage: Stage) -> int | None:
    """rank H - r^2 + ties, None before the rank is known."""
    if isinstance(stage, Recovered):
        return stage.redundancy
    return stage.surplus if isinstance(stage, Interpolated) else None
