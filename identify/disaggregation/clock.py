"""How long a search may last, and who is told how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from identify.errors import BudgetExceededError

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Clock:
    """A `time.monotonic()` value as the deadline, and a listener; both may be absent.

    Example:
        >>> Clock().tell("nothing", 0.5)
        >>> Clock(deadline=0.0).passed
        True
    """

    deadline: float | None = None
    progress: Progress | None = None

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def left(self, seconds: float) -> bool:
        """Whether work that takes about so long ends in time."""
        return self.deadline is None or time.monotonic() + seconds <= self.deadline

    def show(self, stage: str, share: float) -> None:
        """Tell the listener how much of a stage is done."""
        if self.progress is not None:
            self.progress(stage, min(1.0, share))

    def tell(self, stage: str, share: float) -> None:
        """The same; raises BudgetExceededError where the time is over."""
        self.show(stage, share)
        if self.passed:
            raise BudgetExceededError(f"the time limit passed during the stage {stage}")
