"""Train the networks to attack: to a vanishing loss, to stationarity, or from a saved start."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from attack.networks.network import Network
from attack.networks.spec import NetworkSpec, parse_spec
from attack.training.descent import Descent, DescentSettings, HistoryEntry, Progress
from attack.training.kkt_residual import MAX_MULTIPLIERS, KktFit, fit_multipliers, kink_share
from attack.training.losses import (
    LOSSES,
    MARGIN_LOSSES,
    TrainingProblem,
    margins,
    norm,
    prepare_labels,
)
from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError
from identify.model.losses import read_loss

_LOG = logging.getLogger(__name__)

STATIONARY = 1e-12
"""|grad F| over decay |theta| at which training with weight decay counts as done."""


class TrainingSet(Protocol):
    """Samples (n, D) and labels, as in `attack.ImageData` and `identify.Dataset`."""

    @property
    def samples(self) -> FloatArray: ...
    @property
    def labels(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network, its start, and how far it got.

    `loss` is the mean loss without the decay, 0 where it is too small for a float, `log10_loss`
    its logarithm; `gradient_norm` |grad F|, `stationarity` that over decay |theta| (None without
    decay); `margins` (n,) as in `losses.margins`; `kkt` the best multipliers of a margin loss
    without decay; `kinks` the share of relu units at their kink, where the gradient is not defined
    and neither residual need be small; `stopped` one of "target loss", "stationary", "no further
    decrease", "steps", "time limit"; `settings` all arguments. `str()` is a summary.
    """

    network: Network
    initial: Network
    history: tuple[HistoryEntry, ...]
    loss: float
    log10_loss: float
    gradient_norm: float
    stationarity: float | None
    margins: FloatArray
    steps: int
    stopped: str
    kkt: KktFit | None
    kinks: float | None
    settings: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy without the networks, which are named by their hashes."""
        entries = [[e.step, e.log10_loss, e.gradient_norm, e.rate, e.margin] for e in self.history]
        return {
            "network": repr(self.network),
            "sha256": self.network.sha256(),
            "initial_sha256": self.initial.sha256(),
            "loss": self.loss,
            "log10_loss": _finite(self.log10_loss),
            "gradient_norm": self.gradient_norm,
            "stationarity": self.stationarity,
            "margins": self.margins.tolist(),
            "steps": self.steps,
            "stopped": self.stopped,
            "kkt": None if self.kkt is None else self.kkt.to_dict(),
            "kinks": self.kinks,
            "settings": self.settings,
            "history": {
                "columns": ["step", "log10_loss", "gradient_norm", "rate", "margin"],
                "rows": [[_finite(value) for value in row] for row in entries],
            },
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        low, high = float(self.margins.min()), float(self.margins.max())
        squared = self.settings["loss"] == "squared"
        seen = f"{-high:.3g} to {-low:.3g}" if squared else f"{low:.4g} to {high:.4g}"
        lines = [
            f"{self.network!r}",
            f"loss          {_power(self.log10_loss)} after {self.steps} steps ({self.stopped})",
            f"{'residuals' if squared else 'margins':<14}{seen}",
            f"gradient      {self.gradient_norm:.2e}",
        ]
        if self.stationarity is not None:
            lines.append(f"stationarity  {self.stationarity:.2e}, |gradient| / decay |theta|")
        if self.kkt is not None:
            part = f"{self.kkt.active} of {len(self.margins)} samples active"
            lines.append(f"KKT residual  {self.kkt.residual:.2e}, {part}")
        if self.kinks and (self.kkt is not None or self.stationarity is not None):
            share = f"{self.kinks:.1%} of relu units times samples"
            lines.append(f"at kinks      {share}, where the gradient is not defined")
        return "\n".join(lines)


def train_network(
    network: Network | NetworkSpec | str,
    data: TrainingSet,
    *,
    loss: str = "logistic",
    decay: float = 0.0,
    steps: int = 20_000,
    rate: float = 0.01,
    target_loss: float | None = None,
    normalised: bool | None = None,
    adaptive: bool | None = None,
    momentum: float = 0.0,
    batch: int | None = None,
    scale: float | None = None,
    first_only: bool = True,
    scheme: str = "uniform",
    initial: Network | None = None,
    polishing: bool | None = None,
    tolerance: float = STATIONARY,
    kkt: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    time_limit: float | None = None,
    progress: Progress | None = None,
    interruptible: bool = False,
) -> TrainedNetwork:
    """Minimise F = mean loss + decay/2 |theta|^2 by full-batch descent from a small start.

    Normalised steps move by rate * grad L / L = rate * grad log L, computed from log L, so that
    the loss falls to any size (1e-40, or far below the smallest float). Adaptive steps are taken
    back and halved when F (log L) would rise and grow by 5 % else, and move |theta| by 10 % at
    most. With decay, L-BFGS and Newton's method follow until |grad F| is at the level of rounding.

    Args:
        network: a specification to initialise, or a network to start from.
        data: samples (n, D) and labels: +-1 ("logistic", "exponential"), class indices
            ("cross-entropy"), targets ("squared", half the mean over samples and outputs).
        loss: one of these four words.
        decay: mu. A published one for the mean of (f - y)^2, twice this loss, is to be halved.
        steps: limit.
        rate: first step size, the constant one without `adaptive`.
        target_loss: stop here, 0 for never; by default 1e-40 for a margin loss and 1e-10 for
            "squared", never with decay.
        normalised: default for a margin loss without decay.
        adaptive: default, but not with `batch`.
        momentum: beta of the heavy ball; forgotten when a step is taken back.
        batch: size of minibatches, shuffled by the seed in every epoch.
        scale: of the first layer at the start, weights and bias normal with this deviation;
            `first_only=False` for all weights. `scheme` is that of `NetworkSpec.initialise`.
        initial: a saved start (fine-tuning); `network` must have its form.
        polishing: end with L-BFGS and Newton's method; default with decay.
        tolerance: of |grad F| / (decay |theta|).
        kkt: fit multipliers at the end, for a margin loss without decay and at most 2000 of them.
        seed: of the start and the minibatches.
        dtype: of training; float32 ends at its own rounding.
        device: of training and of the result.
        time_limit: seconds, after which the network is returned as it is.
        progress: called with a stage name and a share in [0, 1].
        interruptible: return what was reached on Ctrl-C, with `stopped` "interrupted".

    Raises:
        InvalidInputError: labels outside the classes, shapes or settings that do not fit.
        KktCertError: the loss became NaN or infinite without `adaptive`; its context holds the
            last good network.

    Cost: 6 n P flops a step for P parameters.
    Source: loss-based step sizes, Lyu & Li (2020), "Gradient descent maximizes the margin of
        homogeneous neural networks"; the victims of Haim et al. (2022) (small first
        layer), Buzaglo et al. (2023) (decay) and Loo et al. (2024) ("squared").

    Example:
        >>> from attack.training.images import load_images
        >>> data = load_images("digits", task="binary", per_class=3)
        >>> result = train_network("64-20-1,relu", data, scale=1e-3, target_loss=1e-10)
        >>> result.stopped, bool(result.margins.min() > 20)
        ('target loss', True)
    """
    started = time.monotonic()
    loss = read_loss(loss, LOSSES)
    settings = DescentSettings(
        loss=loss, decay=decay, steps=steps, rate=rate, target_loss=target_loss,
        normalised=normalised, adaptive=adaptive, momentum=momentum, batch=batch,
        polishing=polishing, tolerance=tolerance, seed=seed,
    )  # fmt: skip
    if time_limit is not None and not time_limit > 0.0:
        raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
    start = _start(network, initial, seed, scale, first_only, scheme).to(device, dtype)
    problem = _problem(start, data, settings)
    _LOG.info("training on %d samples", len(problem.samples))
    run = Descent(
        problem, start.parameters(), settings, progress=progress,
        deadline=None if time_limit is None else started + time_limit,
    )  # fmt: skip
    try:
        stopped = run.run()
        if settings.polishing and stopped != "time limit":
            stopped = run.polish()
    except KeyboardInterrupt:
        if not interruptible:
            raise
        run.settle()
        stopped = "interrupted"
    final = run.network
    with torch.no_grad():
        reached = margins(loss, final.forward(problem.samples), problem.labels)
    count = len(problem.samples) * max(1, start.outputs - 1)
    fits = kkt and loss in MARGIN_LOSSES and decay == 0 and count <= MAX_MULTIPLIERS
    log10_loss = run.log10_loss
    _LOG.info("%s after %d steps, loss 1e%.1f", stopped, run.step, log10_loss)
    return TrainedNetwork(
        network=final,
        initial=start,
        history=tuple(run.history),
        loss=10.0**log10_loss,
        log10_loss=log10_loss,
        gradient_norm=run.gradient_norm,
        stationarity=run.gradient_norm / (decay * norm(run.leaves)) if decay else None,
        margins=reached.cpu().numpy().astype(np.float64),
        steps=run.step,
        stopped=stopped,
        kkt=fit_multipliers(final, problem.samples, problem.labels) if fits else None,
        kinks=kink_share(final, problem.samples),
        settings={
            **dataclasses.asdict(settings),
            "scale": scale,
            "first_only": first_only,
            "scheme": scheme,
            "fine_tuned": initial is not None,
            "dtype": str(dtype).removeprefix("torch."),
            "device": str(device),
        },
        seconds=time.monotonic() - started,
    )


def _start(
    network: Network | NetworkSpec | str,
    initial: Network | None,
    seed: int,
    scale: float | None,
    first_only: bool,
    scheme: str,
) -> Network:
    form = parse_spec(network) if isinstance(network, str) else network
    if initial is None:
        if isinstance(form, NetworkSpec):
            return form.initialise(seed, scale=scale, first_only=first_only, scheme=scheme)
        if scale is not None:
            raise InvalidInputError("scale", "a specification to initialise", "a network")
        return form
    if scale is not None:
        raise InvalidInputError("scale", "none for a saved start", scale)
    # The specification stands for a network of its form; its numbers are not used.
    wanted = form.initialise(seed=0) if isinstance(form, NetworkSpec) else form
    shapes = [[tuple(p.shape) for p in each.parameters()] for each in (wanted, initial)]
    if shapes[0] != shapes[1] or wanted.activation != initial.activation:
        raise InvalidInputError("initial", f"the form {wanted!r}", repr(initial))
    return initial


def _problem(start: Network, data: TrainingSet, settings: DescentSettings) -> TrainingProblem:
    samples = real_array("samples", data.samples)
    if samples.ndim != 2 or samples.shape[1] != start.dimension or len(samples) == 0:
        raise InvalidInputError("samples", f"shape (n, {start.dimension})", samples.shape)
    x = torch.as_tensor(samples).to(start.device, start.dtype)
    labels = prepare_labels(settings.loss, data.labels, len(x), start.outputs, x)
    if settings.batch is not None and settings.batch > len(x):
        raise InvalidInputError("batch", f"at most {len(x)}", settings.batch)
    return TrainingProblem(start, x, labels, settings.loss, settings.decay)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _power(log10: float) -> str:
    """A number by its logarithm, which may be too small for a float."""
    if not math.isfinite(log10):
        return "0"
    whole = math.floor(log10)
    return f"{10.0 ** (log10 - whole):.2f}e{whole:+03d}"
