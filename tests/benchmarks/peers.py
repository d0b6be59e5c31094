"""The published attacks written plainly: autograd twice, float64 (loo float32), fixed steps.

Nothing here is shared with `attack` but the numbers of the presets, so that times and losses can be
compared. `Peer.run` returns what a user of those programs would have after the full run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attack.networks.network import Network
from attack.objectives import Candidates
from attack.objectives.presets import Preset
from identify.arrays import FloatArray


class _Gate(torch.autograd.Function):
    """max(z, 0) whose derivative is the logistic function of alpha z wherever it is needed."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.alpha = alpha
        return z.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return slope * torch.sigmoid(ctx.alpha * z), None


@dataclass(eq=False)
class Peer:
    """One published attack on one victim, from given candidates."""

    setting: Preset
    network: Network
    initial: Network | None
    mean: Tensor
    start: Candidates

    def __post_init__(self) -> None:
        self.dtype = getattr(torch, self.setting.dtype)
        self.parameters = [
            p.detach().clone().to(self.dtype).requires_grad_() for p in self.network.parameters()
        ]
        self.target = [p.detach().clone() for p in self.parameters]
        if self.setting.objective == "loo":
            assert self.initial is not None
            before = [p.detach().to(self.dtype) for p in self.initial.parameters()]
            self.target = [p - b for p, b in zip(self.target, before, strict=True)]
        self.biased = [b is not None for b in self.network.biases]
        self.mean = self.mean.to(self.dtype)

    def outputs(self, x: Tensor, step: int) -> Tensor:
        """The network with the activation of the attack."""
        rest = list(self.parameters)
        for layer, biased in enumerate(self.biased):
            weight = rest.pop(0)
            x = torch.nn.functional.linear(x, weight, rest.pop(0) if biased else None)
            if layer < len(self.biased) - 1:
                x = self.activation(x, step)
        return x

    def activation(self, z: Tensor, step: int) -> Tensor:
        if self.setting.objective == "loo":
            beta = min(10 + 10 ** (step / 20_000), 200.0)
            # Linear above 40, exact to rounding; the exponential must not overflow in float32.
            return torch.nn.functional.softplus(z, beta=beta, threshold=40)
        return _Gate.apply(z, float((self.setting.activation or "").removeprefix("soft_relu")))

    def loss(self, x: Tensor, lam: Tensor, step: int) -> Tensor:
        """|target - (1/m) sum_i lam_i grad t_i|^2 and the penalties."""
        f, kind = self.outputs(x, step), self.setting.objective
        labels = self.start.labels
        if kind == "loo":
            t = (lam * f).sum() / f.shape[1]
        elif kind == "haim":
            assert labels is not None
            t = (lam[:, 0] * labels.to(self.dtype) * f[:, 0]).sum()
        else:
            assert labels is not None
            own = torch.nn.functional.one_hot(labels, f.shape[1]).bool()
            t = (lam[:, 0] * (f[own] - f.masked_fill(own, -torch.inf).max(1).values)).sum()
        slopes = torch.autograd.grad(t / len(x), self.parameters, create_graph=True)
        total = sum(
            ((a - b) ** 2).sum() for a, b in zip(self.target, slopes, strict=True)
        ) + torch.zeros((), dtype=self.dtype)
        if kind == "loo":
            above, below = (x - (1 - self.mean)).relu(), (-self.mean - x).relu()
            return total + 0.1 * (above**2 + below**2).mean(1).sum()
        box = ((x - 1).relu() ** 2).sum() + ((-1 - x).relu() ** 2).sum()
        floor = self.setting.floor
        assert floor is not None
        return total + box + 5 * ((floor - lam).relu() ** 2).sum()

    def _begun(self) -> tuple[Tensor, Tensor, torch.optim.Optimizer]:
        """Points and multipliers at the start, and the solver that moves them in place."""
        x = self.start.x.to(self.dtype).clone().requires_grad_()
        lam = self.start.lam.to(self.dtype).clone().requires_grad_()
        setting = self.setting
        rates = [{"params": [x], "lr": setting.rate_x}, {"params": [lam], "lr": setting.rate_lam}]
        if setting.optimiser == "adam":
            return x, lam, torch.optim.Adam(rates)
        return x, lam, torch.optim.SGD(rates, momentum=setting.momentum)

    def _step(self, x: Tensor, lam: Tensor, solver: torch.optim.Optimizer, step: int) -> Tensor:
        solver.zero_grad()
        loss = self.loss(x, lam, step)
        loss.backward()  # type: ignore[no-untyped-call]
        solver.step()
        return loss

    def steps(self) -> Iterator[Candidates]:
        """The candidates after every step, without end; the next step moves them in place."""
        x, lam, solver = self._begun()
        for step in itertools.count():
            self._step(x, lam, solver, step)
            yield Candidates(x.detach(), lam.detach(), self.start.labels)

    def run(self, steps: int, every: int) -> tuple[Candidates, list[tuple[int, float, float]]]:
        """Run; the history has (step, CPU seconds, loss before that step), the end included."""
        x, lam, solver = self._begun()
        history, began = [], time.process_time()
        for step in range(steps):
            loss = self._step(x, lam, solver, step)
            if step % every == 0:
                history.append((step, time.process_time() - began, float(loss.detach())))
        seconds = time.process_time() - began
        history.append((steps, seconds, float(self.loss(x, lam, steps).detach())))
        return Candidates(x.detach(), lam.detach(), self.start.labels), history

    def pace(self, steps: int = 40) -> float:
        """CPU seconds of one step, now."""
        self.run(5, 5)
        return self.run(steps, steps)[1][-1][1] / steps

    def kept_run(self, steps: int, file: Path) -> tuple[Candidates, FloatArray, float]:
        """Run, or take the run from its file: candidates, 200 points of history, wall seconds."""
        if not file.exists():
            self.pace()
            began = time.monotonic()
            found, history = self.run(steps, max(1, steps // 200))
            wall = time.monotonic() - began
            part = file.with_suffix(".part.npz")
            np.savez(part, x=found.x, lam=found.lam, history=np.array(history), wall=wall)
            part.replace(file)
        with np.load(file) as kept:
            x, lam = (torch.from_numpy(kept[name]) for name in ("x", "lam"))
            return Candidates(x, lam, self.start.labels), kept["history"], float(kept["wall"])
