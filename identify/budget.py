"""What a computation may use and whom it tells: the time limit and the progress of one call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from identify.errors import BudgetExceededError, InvalidInputError

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it, in [0, 1], that is done."""


@dataclass(frozen=True)
class Budget:
    """The time until `deadline`, a value of `time.monotonic()`, and who hears of the progress.

    Public functions make it once of their `time_limit` and `progress`; below them only the budget
    travels. Steps are not interrupted: they ask before they begin.

    Example:
        >>> Budget().expired, Budget().remaining
        (False, inf)
        >>> late = Budget(deadline=-math.inf)
        >>> late.expired, late.allows(0.0)
        (True, False)
    """

    deadline: float = math.inf
    progress: Progress | None = None

    @classmethod
    def of(cls, time_limit: float | None, progress: Progress | None = None) -> Budget:
        """The budget of a call that begins now, None for no limit.

        Raises:
            InvalidInputError: a limit that is not a positive number of seconds.
        """
        if time_limit is None:
            return cls(progress=progress)
        if not 0.0 < time_limit < math.inf:
            raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
        return cls(time.monotonic() + time_limit, progress)

    @property
    def limited(self) -> bool:
        """Whether there is a deadline."""
        return self.deadline < math.inf

    @property
    def remaining(self) -> float:
        """Seconds that are left, infinite without a deadline."""
        return self.deadline - time.monotonic() if self.limited else math.inf

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return not self.allows(0.0)

    def allows(self, seconds: float) -> bool:
        """Whether work of so many seconds would end in time."""
        return not self.limited or time.monotonic() + seconds <= self.deadline

    def check(self, stage: str, seconds: float = 0.0) -> None:
        """Go on only where `allows(seconds)`.

        Raises:
            BudgetExceededError: the time is up, or will be after so many seconds.
        """
        if not self.allows(seconds):
            raise BudgetExceededError(f"the time limit passed during the stage {stage}")

    def tell(self, stage: str, share: float) -> None:
        """Report that this share of a stage is done."""
        if self.progress is not None:
            self.progress(stage, share)

    def step(self, stage: str, share: float) -> None:
        """Report a share of a stage, and go on only while there is time: `tell` and `check`."""
        self.tell(stage, share)
        self.check(stage)

    def part(self, share: float) -> Budget:
        """A budget of this share of the time that is left, told to the same listener."""
        if not self.limited:
            return self
        now = time.monotonic()
        return replace(self, deadline=now + share * (self.deadline - now))


UNLIMITED = Budget()
"""No deadline, and nobody who listens."""
