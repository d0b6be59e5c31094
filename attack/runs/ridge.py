"""The ridge on signed multipliers: given, or where it weighs a quarter of the residual."""

from __future__ import annotations

import math
from dataclasses import replace

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.objectives.penalties import RidgePenalty
from attack.objectives.residual import ResidualObjective
from attack.objectives.spans import SpanObjective, span_objective
from attack.solving.loop import solve
from attack.solving.settings import SolveSettings
from identify.errors import InvalidInputError

AUTO, OFF = "auto", "off"
RidgeLike = float | str
_PILOTS = 4
_PILOT_STEPS = 60
_FIRST = 1e-3
"""Of the mean square norm of a gradient: where the search begins."""
_SHARE = 0.25
_LAST_STEP = 10**9
_ROUNDING = 1e-12


def take_ridge(given: RidgeLike | None, objective: Objective, published: bool) -> float | str:
    """Return a weight, "auto" or "off"; None is "auto" for "loo" unless `published`.

    Raises InvalidInputError for another value, and for multipliers that are not signed.
    """
    if given is None:
        return AUTO if objective.name == "loo" and not published else OFF
    if given == OFF:
        return OFF
    if not objective.signed or not isinstance(_base(objective), ResidualObjective):
        raise InvalidInputError(
            "ridge", "an objective with signed multipliers, such as loo", objective.name
        )
    if given == AUTO:
        return AUTO
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 < given < math.inf:  # type: ignore[operator]
        raise InvalidInputError("ridge", "a positive number, auto or off", given)
    return float(given)


def with_ridge(objective: Objective, weight: float) -> Objective:
    """Return the objective with weight * sum lam^2 added.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import loo_objective
        >>> nets = [parse_spec("4-6-1,tanh").initialise(seed=s) for s in (0, 1)]
        >>> plain = loo_objective(*nets, normaliser=3)
        >>> at = plain.start(3, seed=0, scale=0.1)
        >>> more = with_ridge(plain, 0.5).value(at) - plain.value(at)
        >>> bool(abs(more - 0.5 * at.lam.square().sum()) < 1e-6)
        True
    """
    base = _base(objective)
    assert isinstance(base, ResidualObjective)
    heavier = replace(base, penalties=(*base.penalties, RidgePenalty(weight)))
    return _kept(heavier, objective)


def choose_ridge(objective: Objective, start: Candidates) -> float:
    """Choose the weight w at which w sum lam^2 is a quarter of the data loss, by four short runs.

    Each run of 60 steps of L-BFGS goes on where the last one ended, with the w that holds there;
    schedules are at their end. The fixed point is where the curve of log data loss against
    log sum lam^2 has the slope -1/4, before a smaller sum costs more of the residual. It depends
    on no scale of the network or of the multipliers, and no truth enters.

    Returns:
        w > 0, or 0 where the equations hold exactly.

    Source: Reginska (1996), "A regularization parameter in discrete ill-posed problems"; the
    iteration is that of Bazan (2008), "Fixed-point iterations in determining the Tikhonov
    regularization parameter".
    """
    base = _base(objective.with_step(_LAST_STEP))
    assert isinstance(base, ResidualObjective)
    late = _kept(replace(base, schedule=None), objective)
    target = sum(float(t.square().sum()) for t in base.target)
    at = start.with_mass()
    weight = _FIRST * float(late.multiplier_system(at).gram.diagonal().mean())
    if weight == 0.0:
        return 0.0
    for _ in range(_PILOTS):
        settings = SolveSettings("lbfgs", steps=_PILOT_STEPS, splitting="off", products=1)
        found = solve(with_ridge(late, weight), at, settings)
        at, size = found.candidates, float(found.candidates.lam.square().sum())
        data = float(late.data_value(at))
        if size == 0.0 or data <= _ROUNDING * target:
            return 0.0
        weight = _SHARE * data / size
    return weight


def _kept(base: Objective, like: Objective) -> Objective:
    """The objective in the span of another one, if that is in one."""
    return span_objective(base, like.span) if isinstance(like, SpanObjective) else base


def _base(objective: Objective) -> Objective:
    return objective.base if isinstance(objective, SpanObjective) else objective
