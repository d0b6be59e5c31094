"""The descent that trains a victim: normalised, adaptive or plain steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attack.networks.network import Network
from attack.training.losses import LOSSES, MARGIN_LOSSES, TrainingProblem, margins, norm
from attack.training.to_stationarity import polish
from identify.errors import InvalidInputError, KktCertError
from identify.model.losses import read_loss

Progress = Callable[[str, float], None]
_GROWTH, _SHRINK = 1.05, 0.5
_MAX_MOVE = 0.1
_REJECTIONS = 80
_ENTRIES = 200
_STALL = 200


@dataclass(frozen=True)
class HistoryEntry:
    """One line of a training history; `gradient_norm` is |grad F|, `margin` the least one.

    `log10_loss` is that of the mean loss without the decay.
    """

    step: int
    log10_loss: float
    gradient_norm: float
    rate: float
    margin: float


@dataclass(frozen=True)
class DescentSettings:
    """Arguments of `train_network` that the descent follows; None is replaced by the default.

    Raises InvalidInputError for values out of range or that contradict one another.

    Example:
        >>> settings = DescentSettings("logistic")
        >>> settings.target_loss, settings.normalised, settings.adaptive, settings.polishing
        (1e-40, True, True, False)
    """

    loss: str
    decay: float = 0.0
    steps: int = 20_000
    rate: float = 0.01
    target_loss: float | None = None
    normalised: bool | None = None
    adaptive: bool | None = None
    momentum: float = 0.0
    batch: int | None = None
    polishing: bool | None = None
    tolerance: float = 1e-12
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", read_loss(self.loss, LOSSES))
        if not 0.0 <= self.decay < math.inf:
            raise InvalidInputError("decay", "a number >= 0", self.decay)
        for name in ("rate", "tolerance"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InvalidInputError(name, "a positive number", getattr(self, name))
        if self.target_loss is not None and not 0.0 <= self.target_loss < math.inf:
            raise InvalidInputError("target_loss", "a number >= 0", self.target_loss)
        for name, least in (("steps", 0), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidInputError(name, f"at least {least}", value)
        if not 0.0 <= self.momentum < 1.0:
            raise InvalidInputError("momentum", "from 0 to below 1", self.momentum)
        margin = self.loss in MARGIN_LOSSES and self.decay == 0
        if self.normalised and not margin:
            got = f"{self.loss}, decay {self.decay:g}"
            raise InvalidInputError("normalised", "a margin loss without decay", got)
        if self.polishing and not self.decay:
            raise InvalidInputError("polishing", "a decay > 0", self.decay)
        if self.adaptive and self.batch is not None:
            raise InvalidInputError("adaptive", "full batches", f"batch {self.batch}")
        target = None if self.decay else 1e-40 if margin else 1e-10
        for name, default in (
            ("target_loss", target),
            ("normalised", margin),
            ("adaptive", self.batch is None),
            ("polishing", self.decay > 0),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)


class Descent:
    """The state of a training run: parameters, loss and gradient, rate, history."""

    def __init__(
        self,
        problem: TrainingProblem,
        parameters: Sequence[Tensor],
        settings: DescentSettings,
        *,
        deadline: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.problem, self.settings = problem, settings
        self.deadline, self.progress = deadline, progress
        self.leaves = [p.detach().clone().requires_grad_() for p in parameters]
        self.step = 0
        self.history: list[HistoryEntry] = []
        self._rate = settings.rate
        self._velocity = [torch.zeros_like(p) for p in self.leaves]
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._value, self._gradient = self._evaluate(problem, self.leaves)
        self._first = self.log10_loss
        self._mark = math.inf
        if not math.isfinite(self._value):
            raise self._broken("start")

    @property
    def log10_loss(self) -> float:
        """log10 of the mean loss without the decay; -inf for a squared loss of 0."""
        with torch.no_grad():
            if self.settings.loss in MARGIN_LOSSES:
                return float(self.problem.log_value(self.leaves)) / math.log(10.0)
            loss = float(replace(self.problem, decay=0.0).value(self.leaves))
        return math.log10(loss) if loss > 0.0 else -math.inf

    @property
    def gradient_norm(self) -> float:
        """|grad F|; underflows to 0 with the loss."""
        size = norm(self._gradient)
        return size * math.exp(self._value) if self.settings.normalised else size

    @property
    def network(self) -> Network:
        """The network as it is now."""
        return self.problem.network.with_parameters([p.detach() for p in self.leaves])

    def run(self) -> str:
        """Step until something ends it, and say what."""
        every = max(1, self.settings.steps // _ENTRIES)
        while True:
            logged = self.step % every == 0
            if logged:
                self._log()
            reason = self._reason(logged)
            if reason is None and not self._advance():
                reason = "no further decrease"
            if reason is not None:
                if self.history[-1].step != self.step:
                    self._log()
                return reason

    def polish(self) -> str:
        """Follow with L-BFGS and Newton's method to a stationary point."""
        tolerance = self.settings.tolerance * self.settings.decay * norm(self.leaves)
        found = polish(
            self.problem, self.leaves, tolerance=tolerance, deadline=self.deadline,
            report=None if self.progress is None else self._polishing,
        )  # fmt: skip
        self.leaves = [p.detach().clone().requires_grad_() for p in found.parameters]
        self._value, self._gradient = self._evaluate(self.problem, self.leaves)
        self.step += found.steps
        self._log()
        return found.stopped

    def settle(self) -> None:
        """End here, wherever an interrupt came: loss, gradient and history of the parameters."""
        self.progress = None
        self._value, self._gradient = self._evaluate(self.problem, self.leaves)
        self._log()

    def _reason(self, logged: bool) -> str | None:
        settings = self.settings
        target = settings.target_loss
        if target and (logged or settings.batch is None):
            # The value at hand saves an evaluation where it is the loss or its logarithm.
            if settings.normalised:
                done = self._value <= math.log(target)
            elif settings.decay:
                done = self.log10_loss <= math.log10(target)
            else:
                done = self._value <= target
            if done:
                return "target loss"
        if settings.decay and settings.batch is None:
            # Close enough for the polishing, if there is one, to be much faster.
            limit = max(settings.tolerance, 1e-2 if settings.polishing else 0.0)
            if norm(self._gradient) <= limit * settings.decay * norm(self.leaves):
                return "stationary"
        if self.step >= settings.steps:
            return "steps"
        if settings.decay and settings.adaptive and self.step % _STALL == 0:
            # At a kink of relu the steps shrink to nothing and F stands still.
            if self._mark - self._value <= 1e-15 * abs(self._value):
                return "no further decrease"
            self._mark = self._value
        if self.deadline is not None and time.monotonic() > self.deadline:
            return "time limit"
        return None

    def _advance(self) -> bool:
        """One accepted step; False if no step size lowers F any more."""
        settings, problem = self.settings, self.problem
        if settings.batch is not None and settings.batch < len(problem.samples):
            problem = problem.part(self._rows(settings.batch))
            _, self._gradient = self._evaluate(problem, self.leaves)
        for _ in range(_REJECTIONS):
            moves = [
                settings.momentum * v - self._rate * g
                for v, g in zip(self._velocity, self._gradient, strict=True)
            ]
            if settings.adaptive:
                size, room = norm(moves), _MAX_MOVE * norm(self.leaves)
                if size > room > 0.0:
                    self._rate *= room / size
                    moves = [m * (room / size) for m in moves]
            trial = [
                (p.detach() + m).requires_grad_() for p, m in zip(self.leaves, moves, strict=True)
            ]
            value, gradient = self._evaluate(problem, trial)
            if settings.adaptive and not value <= self._value:
                self._rate *= _SHRINK
                self._velocity = [torch.zeros_like(v) for v in self._velocity]
                continue
            if not math.isfinite(value):
                raise self._broken(f"step {self.step + 1}")
            self.leaves, self._velocity = trial, moves
            self._value, self._gradient = value, gradient
            self._rate *= _GROWTH if settings.adaptive else 1.0
            self.step += 1
            return True
        return False

    def _evaluate(
        self, problem: TrainingProblem, leaves: Sequence[Tensor]
    ) -> tuple[float, list[Tensor]]:
        """What the steps lower: log L if normalised, else F; and its gradient."""
        log = self.settings.normalised
        value = problem.log_value(leaves) if log else problem.value(leaves)
        return float(value.detach()), list(torch.autograd.grad(value, leaves))

    def _rows(self, batch: int) -> Tensor:
        if len(self._order) < batch:
            self._order = torch.randperm(len(self.problem.samples), generator=self._generator)
        rows, self._order = self._order[:batch], self._order[batch:]
        return rows.to(self.problem.samples.device)

    def _log(self) -> None:
        if self.settings.batch is not None:
            self._value, self._gradient = self._evaluate(self.problem, self.leaves)
        problem = self.problem
        with torch.no_grad():
            outputs = problem.network.forward(problem.samples, self.leaves)
            least = float(margins(problem.loss, outputs, problem.labels).min())
        loss = self.log10_loss
        self.history.append(HistoryEntry(self.step, loss, self.gradient_norm, self._rate, least))
        if self.progress is not None:
            done = self.step / max(1, self.settings.steps)
            target = self.settings.target_loss
            if target and self._first > math.log10(target):
                span = self._first - math.log10(target)
                done = max(done, (self._first - loss) / span)
            self.progress(f"training, loss 1e{loss:.1f}", min(1.0, max(0.0, done)))

    def _polishing(self, size: float) -> None:
        if self.progress is not None:
            self.progress(f"polishing, gradient {size:.1e}", 1.0)

    def _broken(self, where: str) -> KktCertError:
        return KktCertError(
            f"training: expected a finite loss, got NaN or infinity at {where}; "
            f"lower the rate, now {self._rate:g}, or the scale of the start",
            network=self.network,
        )
