"""One attack from its first candidates to its result, in memory and in its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.objectives.spans import SpanObjective
from attack.runs.folder import RunFolder
from attack.runs.run import Run, Snapshot
from attack.runs.toml import without_none
from attack.solving.loop import Hooks, solve
from attack.solving.second_order import SecondOrder
from attack.solving.settings import SolveSettings
from attack.solving.state import LoopState, Round, Row
from identify.errors import KktCertError


@dataclass(eq=False)
class Recorder:
    """Runs the loop and keeps what it leaves behind.

    ``config`` says what the run is; ``folder`` is None for a run in memory. Candidates are kept in
    pixels, whatever span they are restricted to. ``state`` is the last that is known to be good,
    ``began`` when the run would have begun without a break.
    """

    objective: Objective
    config: Mapping[str, Any]
    folder: RunFolder | None
    image_shape: tuple[int, ...] | None
    settings: SolveSettings
    state: LoopState
    snapshots: list[Snapshot]
    began: float

    @staticmethod
    def begin(
        objective: Objective,
        config: Mapping[str, Any],
        folder: RunFolder | None,
        image_shape: tuple[int, ...] | None,
        settings: SolveSettings,
        first: Candidates,
    ) -> Recorder:
        """Begin at the first candidates, or where the folder stands."""
        now = time.monotonic()
        if folder is not None and folder.state is not None:
            state = folder.state
            kept = folder.read_snapshots(1 + sum(r.changed for r in state.rounds))
            began = now - state.seconds
            return Recorder(objective, config, folder, image_shape, settings, state, kept, began)
        state = LoopState.first(first, settings)
        begun = Recorder(objective, config, folder, image_shape, settings, state, [], now)
        begun._keep(0, state.candidates, np.arange(first.count))
        return begun

    def run(self, time_limit: float | None, hooks: Hooks) -> Run:
        """Run the loop to its end and write the result.

        Raises KktCertError if the loss became NaN or infinite, with the last good candidates
        written and as a Run in ``context["run"]``.
        """
        inner = replace(
            hooks,
            save=self._save,
            log=None if self.folder is None else self.folder.log,
            round=self._round,
        )
        try:
            found = solve(
                self.objective, self.state, self.settings, hooks=inner, time_limit=time_limit
            )
        except KeyboardInterrupt:
            self._broken("interrupted")
            raise
        except KktCertError as error:
            if "state" not in error.context:
                raise
            self.state = error.context.pop("state")
            run = self._broken("not finite")
            raise KktCertError(str(error), **error.context, run=run) from error
        return self._finish(
            found.candidates, found.state, found.stopped, (found.loss, found.data_loss),
            found.history, found.check,
        )  # fmt: skip

    def _save(self, state: LoopState) -> None:
        self.state = state
        if self.folder is not None:
            self.folder.save(state)

    def _round(self, found: Round, after: Candidates) -> None:
        if found.changed:
            self._keep(found.step, after, np.asarray(found.origin))

    def _keep(self, step: int, at: Candidates, origin: Any) -> None:
        candidates = self._lifted(at)
        kept = Snapshot(
            step,
            candidates.x.cpu().numpy().copy(),
            candidates.lam.cpu().numpy().copy(),
            origin.astype(np.int64),
        )
        if self.folder is not None:
            self.folder.snapshot(len(self.snapshots), kept)
        self.snapshots.append(kept)

    def _broken(self, reason: str) -> Run:
        state = self.state
        point = self.objective.with_step(state.step).value_and_gradients(state.candidates)
        losses = (float(point.loss), float(point.data_loss))
        return self._finish(state.candidates, state, reason, losses, state.history, None)

    def _finish(
        self,
        candidates: Candidates,
        state: LoopState,
        stopped: str,
        losses: tuple[float, float],
        history: tuple[Row, ...],
        check: SecondOrder | None,
    ) -> Run:
        at = self._lifted(candidates)
        loss, data_loss = (value if math.isfinite(value) else math.nan for value in losses)
        path: Path | None = None if self.folder is None else self.folder.path
        settings = without_none(self.config)
        run = Run(
            candidates=at.x.cpu().numpy().copy(),
            multipliers=at.lam.cpu().numpy().copy(),
            labels=None if at.labels is None else at.labels.cpu().numpy().copy(),
            loss=loss,
            data_loss=data_loss,
            steps=state.step,
            stopped=stopped,
            check=check,
            history=history,
            rounds=state.rounds,
            snapshots=tuple(self.snapshots),
            settings=settings,
            versions=settings["versions"],
            seconds=time.monotonic() - self.began,
            image_shape=self.image_shape,
            path=path,
            masses=None if at.mass is None else at.mass.cpu().numpy().copy(),
        )
        if self.folder is not None:
            self.folder.finish(run)
        return run

    def _lifted(self, candidates: Candidates) -> Candidates:
        if isinstance(self.objective, SpanObjective):
            return self.objective.lifted(candidates)
        return candidates
