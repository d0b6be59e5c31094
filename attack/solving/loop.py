"""The loop of an attack: steps, splitting rounds, checkpoints, and why it ended."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.solving.problem import Move, Point, Problem, Solver, State
from attack.solving.reduction import reduce_candidates
from attack.solving.second_order import SecondOrder, check_second_order
from attack.solving.settings import SolveSettings, default_limit
from attack.solving.state import (
    COLUMNS,
    NO_SPLIT,
    LoopState,
    Round,
    Row,
    reduction_round,
    summarised,
)
from attack.splitting.record import SplitRound
from attack.splitting.split_round import split_candidates
from identify.errors import InvalidInputError, KktCertError

__all__ = ["COLUMNS", "Hooks", "LoopState", "Progress", "Round", "Row", "Solution", "solve"]

Progress = Callable[[str, float], None]
_PRUNED = 0.25
"""The largest share of the candidates that a round prunes; the first one prunes none."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Hooks:
    """What a loop calls; none of it changes where the loop goes.

    ``save`` gets a state that is known to be good, at the start, at the end, and at least every
    ``save_seconds`` and ``save_every`` steps; ``log`` one record for the log; ``round`` a round
    with the candidates after it.
    """

    progress: Progress | None = None
    save: Callable[[LoopState], None] | None = None
    log: Callable[[dict[str, Any]], None] | None = None
    round: Callable[[Round, Candidates], None] | None = None
    save_every: int | None = None
    save_seconds: float = 30.0


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a loop ended: `candidates`, `loss`, `data_loss`, why it `stopped`, and the `check`.

    `stopped` is one of "steps", "target loss", "time limit", `NO_SPLIT` (the solver can go no
    further and no split that was tried pays), and with splitting off or no room for more candidates
    "stationary" or "no further decrease". `state` continues the loop, `history` is complete.
    """

    candidates: Candidates
    loss: float
    data_loss: float
    stopped: str
    check: SecondOrder
    state: LoopState
    history: tuple[Row, ...]


def solve(
    objective: Objective,
    start: Candidates | LoopState,
    settings: SolveSettings | None = None,
    *,
    hooks: Hooks | None = None,
    time_limit: float | None = None,
) -> Solution:
    """Minimise an objective over its candidates, splitting them as the settings say.

    The same start and settings lead to the same candidates bit for bit on one machine and number
    of threads, wherever the loop was interrupted and continued from a saved state.

    Args:
        objective: the loss; its schedule follows the steps.
        start: candidates, or a state saved by an earlier loop with the same settings.
        settings: solver, splitting, length.
        hooks: checkpoints, log, progress.
        time_limit: seconds, after which the state reached is returned.

    Raises:
        InvalidInputError: settings that do not suit, or a start with a loss that is not finite.
        KktCertError: the loss became NaN or infinite; ``context["state"]`` is the last good state.

    Cost: per step one gradient for sgd and adam, one or two for lbfgs, one and a factorisation of
    all unknowns for gauss-newton; a round costs what `split_candidates` says.

    Source: the loop of Shen, Wang, Qian & Lei (2026), "Data reconstruction: identifiability and
    optimization with sample splitting", algorithm 1, for "paper"; "auto" is ours.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-20-1,tanh").initialise(seed=0)
        >>> objective = haim_objective(network, normaliser=4)
        >>> start = objective.start(4, seed=0, scale=0.1)
        >>> found = solve(objective, start, SolveSettings("lbfgs", steps=30))
        >>> found.loss < float(objective.value(start)), found.stopped
        (True, 'steps')
    """
    settings = settings or SolveSettings()
    state = start if isinstance(start, LoopState) else LoopState.first(start, settings)
    if time_limit is not None and not time_limit > 0:
        raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
    objective.check(state.candidates)
    if state.step == 0:
        settings.check(objective, state.candidates.count)
    now = time.monotonic()
    loop = _Loop(
        objective=objective,
        settings=settings,
        solver=settings.build(),
        hooks=hooks or Hooks(),
        began=now - state.seconds,
        deadline=math.inf if time_limit is None else now + time_limit,
        state=state,
        good=state,
        history=list(state.history),
    )
    return loop.run()


@dataclass(eq=False)
class _Loop:
    """A loop under way: ``state`` is where it stands, all else that changes is its record.

    ``good`` is the last state with a finite loss, ``history`` its rows, ``saved`` the time of the
    last save.
    """

    objective: Objective
    settings: SolveSettings
    solver: Solver
    hooks: Hooks
    began: float
    deadline: float
    state: LoopState
    good: LoopState
    history: list[Row]
    saved: float = -math.inf

    @property
    def interval(self) -> int:
        return self.settings.interval or self.solver.interval

    @property
    def limit(self) -> int | None:
        """The most candidates; for "auto" there always is a limit."""
        if self.settings.limit is not None or self.settings.splitting != "auto":
            return self.settings.limit
        state = self.state
        return default_limit(
            state.rounds[0].count_before if state.rounds else state.candidates.count
        )

    @property
    def sparse(self) -> bool:
        """Whether multipliers are eliminated in some steps and free in the others."""
        settings = self.settings
        return settings.multipliers == "eliminated" and (settings.eliminate_every or 1) > 1

    def run(self) -> Solution:
        try:
            stopped = self._steps()
            return self._end(stopped)
        except KeyboardInterrupt:
            self._save(self.good)
            raise

    def _end(self, stopped: str) -> Solution:
        state, problem = self.state, self._problem(self.state.step)
        settled = state.candidates
        if self.settings.multipliers == "eliminated":
            settled = problem.eliminated(settled)
        # Measured with every multiplier as it is: eliminated ones have no gradient left.
        point = problem.evaluate(settled)
        self._check_finite(point.loss)
        self.good = state
        self._save(state)
        check = check_second_order(
            problem, settled, seed=self.settings.seed, products=self.settings.products
        )
        row = self._row(state, point, state.evaluations)
        rows = [r for r in self.history if r[0] < state.step]
        return Solution(settled, point.loss, point.data_loss, stopped, check, state, (*rows, row))

    def _steps(self) -> str:
        settings = self.settings
        while True:
            state = self.state
            if state.ended:
                return state.ended
            if state.step >= settings.steps:
                return "steps"
            if time.monotonic() > self.deadline:
                return "time limit"
            fell, state = self._due(state)
            if fell is not None:
                state, outcome = self._round(state, fell)
                if outcome:
                    self.state = replace(state, ended=outcome)
                    return outcome
            problem = self._problem(state.step)
            ready = self._prepared(state, problem)
            move = self.solver.advance(problem, ready.candidates, ready.memory)
            self._check_finite(move.at.loss)
            self.good = state
            self._maybe_save(state)
            if move.at.loss <= settings.target_loss:
                self.state = state
                return "target loss"
            self.state = self._advanced(state, move)
            if move.stuck and settings.splitting == "off":
                self.state = replace(self.state, ended=move.stuck)
                return move.stuck

    def _problem(self, step: int) -> Problem:
        held = step - step % self.solver.hold
        stepped = self.objective.with_step(held)
        treatment = "free" if self.sparse else self.settings.multipliers
        return Problem(stepped, treatment, self.settings.ridge)

    def _prepared(self, state: LoopState, problem: Problem) -> LoopState:
        """Forget what a new temperature or new multipliers have made wrong."""
        fresh = problem.objective is not self.objective and state.step % self.solver.hold == 0
        if self.sparse and state.step % (self.settings.eliminate_every or 1) == 0:
            state = replace(state, candidates=problem.eliminated(state.candidates))
            fresh = True
        return replace(state, memory=self.solver.renewed(state.memory)) if fresh else state

    def _advanced(self, state: LoopState, move: Move) -> LoopState:
        evaluations = state.evaluations + move.evaluations
        if state.step % self.settings.log_every == 0:
            row = self._row(state, move.at, evaluations)
            self.history.append(row)
            if self.hooks.log is not None:
                self.hooks.log(dict(zip(COLUMNS, row, strict=True)))
            self._say(
                f"step {state.step}, loss {move.at.loss:.5g}, {state.candidates.count} candidates"
            )
        return replace(
            state,
            step=state.step + 1,
            candidates=move.candidates,
            memory=move.state,
            best=min(state.best, move.at.loss),
            stuck=move.stuck,
            evaluations=evaluations,
            seconds=self._seconds(),
        )

    def _row(self, state: LoopState, at: Point, evaluations: int) -> Row:
        return (
            float(state.step), at.loss, at.data_loss, float(state.candidates.count),
            float(evaluations), self._seconds(),
        )  # fmt: skip

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _say(self, text: str) -> None:
        _LOG.info("%s", text)
        if self.hooks.progress is not None:
            self.hooks.progress(text, self.state.step / max(1, self.settings.steps))

    def _due(self, state: LoopState) -> tuple[float | None, LoopState]:
        """What a round before this step has to gain, None for no round; the stall test renewed.

        That is what the solver gained over the last window: splits belong where it gains less.
        """
        settings = self.settings
        if settings.splitting == "off" or state.step == 0 or state.last_round == state.step:
            return None, state
        if state.stuck:
            return 0.0, state
        if settings.splitting == "paper":
            return (0.0 if state.step % self.interval == 0 else None), state
        if state.step - state.since < state.wait:
            return None, state
        fell = state.mark - state.best
        stalled = bool(fell < settings.stall * state.mark)
        renewed = replace(state, since=state.step, mark=state.best, best=math.inf)
        return (max(fell, 0.0) if stalled else None), renewed

    def _round(self, state: LoopState, fell: float) -> tuple[LoopState, str]:
        """Run one round; the text is empty, or says why the loop cannot go on."""
        settings, problem, stuck = self.settings, self._problem(state.step), state.stuck
        seed, state = _seeded(state)
        given = state.candidates
        most = self._most_splits(given.count)
        if most < 1:
            return self._ended(replace(state, wait=self.interval), stuck)
        if settings.multipliers == "eliminated":
            given = problem.eliminated(given)
        new, origin, record = split_candidates(
            problem.objective, given, mode="paper" if settings.splitting == "paper" else "auto",
            seed=seed, limit=most, products=settings.products, rollback=settings.rollback,
            prune_share=_PRUNED if state.rounds else 0.0,
        )  # fmt: skip
        refused = self._refused(record, new.count, fell)
        taken = not refused
        if refused:
            new, origin = given, torch.arange(given.count, device=given.x.device)
        new = problem.moved(new, new.x, new.lam)
        summary = summarised(record, state.step, seed, given.count, new.count, origin, refused)
        lower = taken and (record.accepted or record.after < record.before)
        longer = min(2 * state.wait, self.interval)
        state = replace(
            state,
            candidates=new,
            memory=self._carried(state.memory, given, new, origin),
            wait=(settings.window or 1) if lower else longer,
            evaluations=state.evaluations + record.evaluations,
            rounds=(*state.rounds, summary),
        )
        self._tell(summary, new)
        if not stuck or lower or new.count != given.count:
            return state, ""
        measured = taken and settings.splitting == "auto"
        return self._ended(state, NO_SPLIT if measured else stuck)

    def _refused(self, record: SplitRound, count: int, fell: float) -> str:
        """Why the result of a round is not used, empty if it is."""
        if self.limit is not None and count > self.limit:
            return "too many candidates"
        gain = record.before - record.after
        if self.settings.splitting == "auto" and record.accepted and gain <= fell:
            return "the solver gains more"
        return ""

    def _ended(self, state: LoopState, outcome: str) -> tuple[LoopState, str]:
        """End with the outcome, unless the loss vanishes with fewer candidates too."""
        if self.settings.splitting != "auto" or not outcome:
            return state, outcome
        given, problem = state.candidates, self._problem(state.step)
        found = reduce_candidates(problem, self.solver, given)
        state = replace(state, evaluations=state.evaluations + found.evaluations)
        if found.candidates.count == given.count:
            return state, outcome
        summary = reduction_round(state.step, given.count, found)
        moved = problem.moved(found.candidates, found.candidates.x, found.candidates.lam)
        self._tell(summary, moved)
        memory, rounds = self.solver.begin(moved), (*state.rounds, summary)
        return replace(state, candidates=moved, memory=memory, rounds=rounds), ""

    def _carried(self, memory: State, old: Candidates, new: Candidates, origin: Tensor) -> State:
        """The solver's memory after a round; the authors build their solver anew."""
        if self.settings.splitting == "paper" and not self.settings.rollback:
            return self.solver.begin(new)
        return self.solver.carry(memory, old, new, origin)

    def _most_splits(self, count: int) -> int:
        """The most candidates that may be split; 0 where the limit leaves no room."""
        half, limit = max(1, count // 2), self.limit
        if limit is None:
            return half
        if limit <= count:
            return 0
        # A split into opposite signs adds two candidates.
        each = 2 if self.objective.signed and self.settings.splitting == "auto" else 1
        return max(1, min(half, (limit - count) // each))

    def _tell(self, summary: Round, new: Candidates) -> None:
        if self.hooks.log is not None:
            event = {"event": "round", "step": summary.step, "message": summary.message}
            self.hooks.log(event)
        if self.hooks.round is not None:
            self.hooks.round(summary, new)
        self._say(summary.message)

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        step, seen = self.state.step, "NaN" if math.isnan(loss) else "infinity"
        if step == 0:
            raise InvalidInputError(
                "start", "candidates with a finite loss", seen, "lower start_scale"
            )
        if self.saved == -math.inf:
            self._save(self.good)
        settings, at = self.settings, self.state.candidates
        advice = "lower start_scale"
        if settings.rate_x is not None:
            x, lam = (bool(torch.isfinite(t).all()) for t in (at.x, at.lam))
            rates = {"rate_x": settings.rate_x, "rate_lam": settings.rate_lam}
            names = ["rate_lam"] if x and not lam else ["rate_x"] if lam and not x else rates
            advice = "lower " + " or ".join(f"{name}, now {rates[name]:g}," for name in names)
        raise KktCertError(
            f"loss: expected a finite number, got {seen} at step {step}; {advice.rstrip(',')}",
            step=step, state=self.good,
        )  # fmt: skip

    def _maybe_save(self, state: LoopState) -> None:
        every, now = self.hooks.save_every, time.monotonic()
        late = now - self.saved >= self.hooks.save_seconds
        if late or (every and state.step % every == 0):
            self._save(state)

    def _save(self, state: LoopState) -> None:
        if self.hooks.save is not None:
            rows = tuple(row for row in self.history if row[0] < state.step)
            self.hooks.save(replace(state, history=rows))
            self.saved = time.monotonic()


def _seeded(state: LoopState) -> tuple[int, LoopState]:
    """The seed of a round, and the state after it was drawn, its stall test begun anew."""
    generator = torch.Generator()
    generator.set_state(state.generator)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    renewed = replace(
        state, generator=generator.get_state(), last_round=state.step, since=state.step,
        mark=math.inf, best=math.inf, stuck="",
    )  # fmt: skip
    return seed, renewed
