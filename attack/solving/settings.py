"""What the loop of an attack follows, checked once."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from attack.objectives.base import Objective
from attack.solving.gauss_newton import GaussNewton, check_small
from attack.solving.lbfgs import LimitedMemory
from attack.solving.multipliers import check_eliminable
from attack.solving.problem import MULTIPLIERS, Solver
from attack.solving.solver import Adam, MomentumDescent
from identify.errors import InvalidInputError

GROWTH, FEWEST = 3, 8
SOLVERS = ("sgd", "adam", "lbfgs", "gauss-newton")
SPLITTING = ("off", "paper", "auto")
PENALTIES = ("shared", "whole")
_RATES = {"sgd": (1e-2, 1e-4), "adam": (0.02, 0.02)}


@dataclass(frozen=True)
class SolveSettings:
    """Solver, multipliers and splitting of an attack; None is replaced by the default.

    ``rate_x``, ``rate_lam``, ``momentum`` are those of sgd and adam, ``memory`` the pairs of lbfgs.
    ``multipliers`` are "free", "fixed", or "eliminated" every ``eliminate_every`` steps with a
    relative ``ridge``. ``penalties`` are "shared" by the halves of a candidate, so that a split
    changes none by itself, or "whole" for each, as "paper" has them. ``splitting`` "paper" splits
    every ``interval`` steps; "auto" where the solver is stuck, or where the loss falls by less than
    the share ``stall`` over ``window`` steps, as many as ``interval`` after rounds that gained
    nothing, and by less than the round gains. ``limit`` is the largest number of candidates, for
    "auto" `default_limit` unless given; ``products`` the effort per round. Without ``rollback``
    "paper" keeps rounds that raise the loss and begins the solver anew after each, as the authors
    do. The loop ends after ``steps``, or at a loss of ``target_loss``; it logs every ``log_every``.

    Raises InvalidInputError for values out of range or that contradict one another.

    Example:
        >>> SolveSettings("adam").rate_x, SolveSettings("lbfgs").rate_x
        (0.02, None)
    """

    solver: str = "lbfgs"
    steps: int = 10_000
    rate_x: float | None = None
    rate_lam: float | None = None
    momentum: float | None = None
    memory: int | None = None
    multipliers: str = "free"
    eliminate_every: int | None = None
    ridge: float | None = None
    splitting: str = "auto"
    interval: int | None = None
    window: int | None = None
    stall: float = 0.01
    limit: int | None = None
    penalties: str | None = None
    rollback: bool = True
    products: int = 24
    target_loss: float = 0.0
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, SOLVERS)
        _one_of("splitting", self.splitting, SPLITTING)
        _one_of("multipliers", self.multipliers, MULTIPLIERS)
        if self.penalties is None:
            shared = self.splitting == "auto"
            object.__setattr__(self, "penalties", "shared" if shared else "whole")
        _one_of("penalties", self.penalties, PENALTIES)
        if self.penalties == "shared" and self.splitting == "paper":
            raise InvalidInputError("penalties", "whole with splitting paper", "shared")
        if not isinstance(self.rollback, bool):
            raise InvalidInputError("rollback", "true or false", self.rollback)
        if not self.rollback and self.splitting != "paper":
            raise InvalidInputError("rollback", "splitting paper without it", self.splitting)
        for name, least in (
            ("steps", 0), ("products", 1), ("log_every", 1), ("seed", 0),
        ):  # fmt: skip
            _whole(name, getattr(self, name), least)
        for name in ("memory", "interval", "window", "limit", "eliminate_every"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        rates = self.solver in _RATES
        for name, default in zip(
            ("rate_x", "rate_lam"), _RATES.get(self.solver, (None, None)), strict=True
        ):
            self._default(name, default, rates)
            if rates:
                _positive(name, getattr(self, name))
        self._default("momentum", 0.9, self.solver == "sgd")
        for name in ("momentum", "stall", "target_loss"):
            _number(name, getattr(self, name))
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise InvalidInputError("momentum", "a number in [0, 1)", self.momentum)
        self._default("memory", 10, self.solver == "lbfgs")
        self._default("eliminate_every", 1, self.multipliers == "eliminated")
        if self.ridge is not None:
            _positive("ridge", self.ridge)
            if self.multipliers != "eliminated":
                raise InvalidInputError("ridge", "eliminated multipliers", self.multipliers)
        if not 0 < self.stall < 1:
            raise InvalidInputError("stall", "a share in (0, 1)", self.stall)
        if not 0 <= self.target_loss < math.inf:
            raise InvalidInputError("target_loss", "a finite number >= 0", self.target_loss)
        solver = self.build()
        for name in ("window", "interval"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(solver, name))

    def _default(self, name: str, value: float | None, suits: bool) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value if suits else None)
        elif not suits:
            other = "eliminated multipliers" if name == "eliminate_every" else "another solver"
            got = self.multipliers if name == "eliminate_every" else self.solver
            raise InvalidInputError(name, f"{other} for this setting", got, "leave it out")

    def build(self) -> Solver:
        """Build the solver."""
        if self.solver == "lbfgs":
            return LimitedMemory(self.memory or 10)
        if self.solver == "gauss-newton":
            return GaussNewton()
        default_x, default_lam = _RATES[self.solver]
        rate_x, rate_lam = self.rate_x or default_x, self.rate_lam or default_lam
        if self.solver == "adam":
            return Adam(rate_x, rate_lam)
        return MomentumDescent(rate_x, rate_lam, 0.9 if self.momentum is None else self.momentum)

    def check(self, objective: Objective, count: int) -> None:
        """Raise InvalidInputError unless the settings suit the objective and the count."""
        if self.limit is not None and self.limit < count:
            raise InvalidInputError("limit", f"at least the {count} candidates", self.limit)
        if self.multipliers == "eliminated":
            check_eliminable(objective)
        if self.solver == "gauss-newton":
            check_small(objective, count)

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain values; None stays."""
        return dataclasses.asdict(self)


def default_limit(count: int) -> int:
    """The most candidates of "auto" after a start with `count`: three times as many, at least 8.

    Example:
        >>> default_limit(1), default_limit(40)
        (8, 120)
    """
    return max(GROWTH * count, FEWEST)


def _one_of(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise InvalidInputError(name, f"one of {', '.join(words)}", value)


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInputError(name, f"a whole number >= {least}", value)


def _number(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidInputError(name, "a number", repr(value))


def _positive(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:  # type: ignore[operator]
        raise InvalidInputError(name, "a positive number", value)
