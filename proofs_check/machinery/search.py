"""The search for an instance that breaks a conclusion, by the engine of hypothesis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from proofs_check.machinery.statement import Check

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

SHRINKING = 250
"""Instances that may be tried to make a counterexample smaller; a count, so that runs repeat."""


@dataclass
class Trial:
    """What a search saw.

    `tries` counts judged instances up to the first failing one, `drawn` all that were asked for,
    `worst` is the largest deviation over tolerance of those that hold; `failing` is the smallest
    failing instance, with its `check`.
    """

    tries: int = 0
    drawn: int = 0
    worst: float = 0.0
    failing: Any = None
    check: Check | None = None

    @property
    def broken(self) -> bool:
        """Whether an instance failed."""
        return self.check is not None


class _Counterexample(AssertionError):
    """Raised inside the engine by an instance for which the conclusion fails."""


class _Enough(BaseException):
    """Raised inside the engine to end the search; passes its handlers."""


@contextmanager
def _same_everywhere() -> Iterator[None]:
    """Draws that follow from the seed alone.

    The engine mixes in constants from the source of all modules that happen to be loaded, so that
    the same seed would draw something else in another process, or after another statement.
    """
    provider, name = None, "_maybe_draw_constant"
    with suppress(ImportError):
        from hypothesis.internal.conjecture import providers

        provider = getattr(providers, "HypothesisProvider", None)
    if not hasattr(provider, name):
        yield
        return
    with patch.object(provider, name, lambda *arguments, **options: None):
        yield


@dataclass
class _Hunt:
    """A search under way: its rules, what it has seen, and the draws `after` the first failure."""

    accept: Callable[[Any], bool]
    conclusion: Callable[[Any], Check]
    deadline: float | None
    patience: int | None
    trial: Trial = field(default_factory=Trial)
    after: int = 0
    ended: bool = False

    def _over(self) -> bool:
        if self.deadline is not None and time.monotonic() > self.deadline:
            return True
        if self.trial.broken:
            return self.after >= SHRINKING
        patience, trial = self.patience, self.trial
        return patience is not None and trial.tries == 0 and trial.drawn >= patience

    def count(self) -> None:
        """Count a draw, or end the search before it."""
        if self._over():
            self.ended = True
            raise _Enough
        self.after += self.trial.broken
        self.trial.drawn += 1

    def examine(self, instance: Any) -> None:
        """Judge an instance if it counts; raise where it breaks the conclusion."""
        from hypothesis import assume

        trial = self.trial
        assume(self.accept(instance))
        check = self.conclusion(instance)
        if not trial.broken:
            trial.tries += 1
        if check.holds:
            if check.tolerance > 0.0:
                trial.worst = max(trial.worst, check.deviation / check.tolerance)
            return
        trial.failing, trial.check = instance, check
        raise _Counterexample(check.detail)


def search(
    instances: SearchStrategy[Any],
    accept: Callable[[Any], bool],
    conclusion: Callable[[Any], Check],
    count: int,
    seed: int,
    *,
    deadline: float | None = None,
    shrink: bool = True,
    patience: int | None = None,
) -> Trial:
    """Look for an accepted instance that breaks the conclusion, and shrink it.

    Args:
        instances: what to draw from.
        accept: whether an instance counts.
        conclusion: judges an accepted instance.
        count: accepted instances to judge at most; small spaces have fewer.
        seed: the same seed gives the same search.
        deadline: a value of `time.monotonic` at which the search ends.
        shrink: make a failing instance smaller.
        patience: end after so many instances if none of them was accepted.

    Example:
        >>> from hypothesis import strategies as st
        >>> trial = search(st.integers(0, 999), lambda n: n % 2 == 0,
        ...                lambda n: Check.of(n < 10), 200, 0)
        >>> trial.failing
        10
    """
    import hypothesis
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import strategies as st

    hunt = _Hunt(accept, conclusion, deadline, patience)

    @st.composite
    def counted(draw: DrawFn) -> Any:
        hunt.count()
        return draw(instances)

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
    )
    @given(counted())
    def examine(instance: Any) -> None:
        hunt.examine(instance)

    try:
        with _same_everywhere():
            examine()
    except (_Counterexample, _Enough):
        pass
    except hypothesis.errors.Flaky:
        # Raised in place of _Enough, which looks like a draw that ended too early. Otherwise an
        # instance failed once and not again: it stays a failing one.
        if not (hunt.ended or hunt.trial.broken):
            raise
    except hypothesis.errors.Unsatisfiable:
        hunt.trial.tries = 0
    return hunt.trial
