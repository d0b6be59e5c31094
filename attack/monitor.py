"""How many samples of a batch its gradient gives away, told while a network is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from identify.disaggregation.capacity import largest_batch, largest_smooth_batch
from identify.disaggregation.factor import factor
from identify.errors import InvalidInputError, UnsupportableModelError
from identify.markup import Shown

_KINKED = (nn.ReLU, nn.LeakyReLU)
_SPARE = 16


@dataclass(frozen=True)
class LayerShare:
    """What one layer's gradient shows: ``rank``, None where it is not clear; ``rows`` not zero."""

    name: str
    rank: int | None
    rows: int


@dataclass(frozen=True)
class Reading:
    """What the gradient of one step shows of its batch of ``samples``.

    ``shown`` is the largest clear rank of a layer: at least as many samples left a trace of their
    own. ``reach`` is how many the rows of the hidden layers can separate, by counting equations.
    """

    step: int
    samples: int
    layers: tuple[LayerShare, ...]
    reach: int
    seconds: float

    @property
    def shown(self) -> int:
        """Samples with a direction of their own, at least; 0 where no rank is clear."""
        return min(self.samples, max((layer.rank or 0 for layer in self.layers), default=0))

    @property
    def determined(self) -> int:
        """Samples that the equations suffice for: all that are shown, or none of them."""
        return self.shown if self.shown <= self.reach else 0

    def __str__(self) -> str:
        seen = f"step {self.step}: the gradient shows {self.shown} of {self.samples} samples"
        if not self.shown:
            return f"step {self.step}: the number of samples is not clear"
        if self.determined:
            return f"{seen}, and its rows suffice to separate {self.reach}: take them as known"
        return f"{seen}; its rows suffice to separate {self.reach} only: their span is known"


class Monitor(Shown):
    """Say every ``every`` steps of a training loop how many samples the gradient determines.

    Call `step` between ``loss.backward()`` and the next step of the optimiser. The rank of the
    gradient of a linear layer is at most the number of samples (of positions, where a layer sees
    several of a sample). It is read off 2 n + 16 random rows, so that it is a lower bound. r
    samples can be separated if the hidden layers have rows enough: with ReLU
    r (r + 1) / 2 + r (q - 1) <= m of the last one, q = C - 1 or 1, or fewer by the equations of
    degree 3. This counts equations and is no verdict, which takes `kktcert verify`.

    Args:
        module: its `torch.nn.Linear` are looked at, all of them taken to be hidden but the last.
        every: steps between two readings.
        tell: is given each reading; None collects them silently in ``readings``.
        seed: of the choice of rows.

    Raises:
        UnsupportableModelError: a module with fewer than two linear layers.

    Cost: one singular value decomposition of 2 n + 16 rows a hidden layer, every ``every`` steps.

    Source: the gradient of a linear layer is a sum of outer products, one a sample.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(20, 80), nn.ReLU(), nn.Linear(80, 1))
        >>> monitor = Monitor(net, every=1, tell=None)
        >>> net(torch.randn(5, 20)).square().sum().backward()
        >>> reading = monitor.step(5)
        >>> reading.shown, reading.determined
        (5, 5)
    """

    def __init__(
        self,
        module: nn.Module,
        every: int = 100,
        *,
        tell: Callable[[Reading], object] | None = print,
        seed: int = 0,
    ) -> None:
        if every < 1:
            raise InvalidInputError("every", "at least 1", every)
        linear = [(n, part) for n, part in module.named_modules() if isinstance(part, nn.Linear)]
        if len(linear) < 2:
            raise UnsupportableModelError(
                f"{type(module).__name__}: has {len(linear)} linear layers",
                "a monitor needs a hidden one and the output layer",
            )
        self.readings: list[Reading] = []
        self._hidden = [(name, part.weight) for name, part in linear[:-1]]
        self._outputs = linear[-1][1].out_features
        self._kinked = any(isinstance(part, _KINKED) for part in module.modules())
        self._every, self._tell, self._next = every, tell, 0
        self._random = torch.Generator().manual_seed(seed)

    def step(self, samples: int) -> Reading | None:
        """Count a step on a batch of that many samples; the reading, where it is due."""
        index, self._next = self._next, self._next + 1
        if index % self._every:
            return None
        return self.read({name: weight.grad for name, weight in self._hidden}, samples, index)

    def read(self, gradients: Mapping[str, Tensor | None], samples: int, index: int = 0) -> Reading:
        """Read a gradient that came from elsewhere, such as a client's update.

        Args:
            gradients: by the name of the layer or of its weight; what is no hidden layer of the
                module is left out. An update of one step has the ranks of a gradient.
            samples: in the batch.
            index: of the step, for the text.

        Raises InvalidInputError where no hidden layer has a gradient.
        """
        if samples < 1:
            raise InvalidInputError("samples", "at least 1", samples)
        started = time.perf_counter()
        shares = []
        for name, weight in self._hidden:
            given = gradients.get(name, gradients.get(f"{name}.weight"))
            if given is not None:
                if given.shape != weight.shape:
                    raise InvalidInputError(name, str(tuple(weight.shape)), tuple(given.shape))
                shares.append(self._share(name, given.detach(), samples))
        if not shares:
            raise InvalidInputError("gradients", "one of a hidden layer", "none", "call backward")
        reach = self._reach(tuple(share.rows for share in shares))
        seconds = time.perf_counter() - started
        reading = Reading(index, samples, tuple(shares), reach, seconds)
        self.readings.append(reading)
        if self._tell is not None:
            self._tell(reading)
        return reading

    def __str__(self) -> str:
        return "\n".join(map(str, self.readings)) or "nothing was read yet"

    def _share(self, name: str, gradient: Tensor, samples: int) -> LayerShare:
        largest = gradient.abs().amax(dim=1)
        live = torch.nonzero(largest > 0)[:, 0].cpu()
        if len(live) == 0 or not bool(torch.isfinite(largest).all()):
            return LayerShare(name, None, len(live))
        order = torch.randperm(len(live), generator=self._random)
        chosen = live[order[: 2 * samples + _SPARE]]
        rows = gradient[chosen.to(gradient.device)].to("cpu", torch.float64).numpy()
        found = factor(rows)
        return LayerShare(name, found.rank if found.clear else None, len(live))

    def _reach(self, rows: tuple[int, ...]) -> int:
        if self._kinked:
            return largest_batch(rows[-1], self._outputs)
        return largest_smooth_batch(rows, self._outputs) if min(rows) else 0
