"""`reconstruct`: from a trained network to candidates for its training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from attack.arguments import NetworkLike
from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.objectives.cotangents import LOSSES
from attack.objectives.presets import Preset
from attack.runs.beginning import Beginning, Effort, StartLike
from attack.runs.folder import RunFolder
from attack.runs.recorder import Recorder
from attack.runs.restriction import SpanLike
from attack.runs.ridge import RidgeLike
from attack.runs.run import SCHEMA_VERSION, Run, versions
from attack.runs.task import Target, Task
from attack.solving.loop import Hooks, Progress
from attack.solving.settings import SolveSettings
from identify.errors import InvalidInputError
from identify.model.losses import read_loss
from identify.model.tensor_file import PathLike


def reconstruct(
    network: NetworkLike,
    objective: str | Objective | None = None,
    *,
    initial: NetworkLike | None = None,
    gradient: NetworkLike | Sequence[Tensor] | None = None,
    options: Mapping[str, Any] | None = None,
    preset: str | Preset | None = None,
    mean: float | npt.ArrayLike | None = None,
    count: int | None = None,
    labels: npt.ArrayLike | None = None,
    start: StartLike = "noise",
    start_scale: float | None = None,
    share: float = 1.0,
    mixture: str = "pixel",
    span: SpanLike | None = None,
    ridge: RidgeLike | None = None,
    splitting: str = "auto",
    solver: str | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    image_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    save_every: int | None = None,
    save_seconds: float = 30.0,
) -> Run:
    """Optimise candidates until they explain the parameters of a network.

    The true data are never seen. Everything is decided by the arguments and the seed, so that a run
    that was interrupted, by a time limit or a power cut, and resumed ends with the same candidates
    bit for bit as one that was not, on the same CPU, versions and number of threads.

    Args:
        network: the victim: an `attack.Network`, a torch module, or a file.
        objective: a name of `attack.OBJECTIVES`, an objective, or None for that of the preset or
            the one for what is given: gradient, initial network, one output or several.
        initial: the network before training, for "loo" and "bilevel".
        gradient: of the loss of one batch, for "gradient_matching": tensors, network or file.
        options: of the objective, as in `attack.objectives.by_name.OPTIONS`.
        preset: published settings by name; arguments given beside it replace its parts.
        mean: what was subtracted from pixels in [0, 1], a number or (D,): the box of "loo".
        count: candidates at the start; the preset's; for "gradient_matching" the number of labels
            or the rank of the gradient; else 100.
        labels: (count,) for all candidates; for "gradient_matching" with a known loss read off the
            gradient of the last bias, else in equal blocks unless given.
        start: "noise", an .npz file (also the samples.npz of a recovery), images, candidates, or an
            earlier run; see `attack.solving.starts`.
        start_scale: deviation of the noise; the preset's, else 0.01 for "haim" and "buzaglo", 0.2
            for "loo", and one that makes norms of 1 elsewhere and for powers as activation.
        share: of every image in a mixture with noise.
        mixture: "pixel" or "blend".
        span: in which candidates are kept: "auto", that of the change of the first layer since
            `initial`, if a gap decides it; "off"; a file of `kktcert span`; or an `AffineSpan`.
            "auto" unless given, for a preset "off".
        ridge: weight of the sum of squared multipliers, where they are signed: a number, "auto", at
            which it weighs a quarter of the data loss, or "off". For "loo" without a preset "auto"
            unless given, else "off".
        splitting: "off", "paper" or "auto".
        solver: "lbfgs" (default), "sgd", "adam" or "gauss-newton"; the preset's.
        steps: 2,000 or the preset's.
        settings: further fields of `attack.SolveSettings`. Unless given the limit on candidates is
            three times the start in mode "auto", at least 8, and lbfgs eliminates the multipliers
            of "haim", "buzaglo" and "loo" if there are at most 2,000.
        image_shape: (H, W), (H, W, C) or (3, H, W), the order of pixels in a candidate.
        seed: of every draw.
        device: such as "cpu" or "cuda".
        dtype: of the computation; the preset's, else that of the network.
        time_limit: seconds, after which what was reached is returned.
        progress: called with a line and a share in [0, 1].
        out: folder for configuration, log, checkpoint, candidates and report; absent or empty.
        resume: continue the run in `out`, with the same arguments; `steps` may be larger.
        save_every: steps between checkpoints, beside those every `save_seconds`.
        save_seconds: longest time between checkpoints.

    Returns:
        Run; its `check` says how stationary the candidates are.

    Raises:
        InvalidInputError: arguments that do not fit, or not those of the run to resume.
        FileError: files that cannot be read or written; an existing checkpoint stays intact.
        KktCertError: the loss became NaN or infinite; the message names the setting to change, the
            last good candidates are in `out` and as a Run in ``context["run"]``.

    Cost: that of `attack.solve`, and one (eps, gamma) check.

    Source: the methods are those of the objectives' sources; splitting as in `split_candidates`.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> victim = parse_spec("4-30-1,tanh").initialise(seed=0)
        >>> run = reconstruct(victim, "haim", count=4, steps=20, splitting="off")
        >>> run.candidates.shape, run.stopped
        ((4, 4), 'steps')
    """
    target = Target(
        network=network, objective=objective, initial=initial, gradient=gradient, options=options,
        preset=preset, mean=mean, span=span, ridge=ridge, image_shape=image_shape, device=device,
        dtype=dtype,
    )  # fmt: skip
    beginning = Beginning(
        start=start, count=count, labels=labels, scale=start_scale, share=share, mixture=mixture,
        seed=seed,
    )  # fmt: skip
    effort = Effort(splitting=splitting, solver=solver, steps=steps, more=settings, seed=seed)
    attack = Attack.prepared(target, beginning, effort)
    if time_limit is not None and not time_limit > 0:
        raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
    if save_every is not None and save_every < 1:
        raise InvalidInputError("save_every", "at least 1 step", save_every)
    hooks = Hooks(progress=progress, save_every=save_every, save_seconds=save_seconds)
    return attack.run(out, resume=resume, time_limit=time_limit, hooks=hooks)


@dataclass(frozen=True, eq=False)
class Attack:
    """An attack that is ready to run: its task, first candidates, settings, and what it is called.

    ``about`` says how the candidates were made.
    """

    target: Target
    task: Task
    first: Candidates
    about: Mapping[str, Any]
    settings: SolveSettings

    @staticmethod
    def prepared(target: Target, beginning: Beginning, effort: Effort) -> Attack:
        """Load what is attacked and make what it starts from, before anything is written."""
        task = target.task(beginning.given_count)
        loss = (target.options or {}).get("loss")
        loss = None if loss is None else read_loss(loss, LOSSES)
        first, about = beginning.candidates(task, loss)
        task = task.settled(first)
        settings = effort.settings(task, first.count)
        settings.check(task.objective, first.count)
        return Attack(target, task, first, about, settings)

    def config(self) -> dict[str, Any]:
        """Return what a run folder keeps to recognise the run.

        In this order a resumed run names what differs: what the caller said before what follows.
        """
        task, shape = self.task, self.target.image_shape
        return {
            "schema_version": SCHEMA_VERSION,
            "preset": None if task.preset is None else task.preset.name,
            "count": self.first.count,
            "seed": self.settings.seed,
            "device": str(task.objective.device),
            "dtype": str(task.objective.dtype).removeprefix("torch."),
            "image_shape": None if shape is None else list(shape),
            **task.victim.hashes(),
            "start": dict(self.about),
            "solver": self.settings.to_dict(),
            "span": task.restriction.describe(),
            "restriction": task.restriction.note or None,
            "objective": task.describe(),
            "versions": versions(),
            "threads": torch.get_num_threads(),
        }

    def run(
        self, out: PathLike | None, *, resume: bool, time_limit: float | None, hooks: Hooks
    ) -> Run:
        """Run in memory or into a folder, or continue the run in it."""
        objective, config = self.task.objective, self.config()
        if resume and out is None:
            raise InvalidInputError("out", "the folder of the run to resume", "none")
        folder = None
        if out is not None:
            folder = RunFolder.open(out, config, resume=resume, device=objective.device)
            span = self.task.restriction.span
            if span is not None:
                folder.keep_span(span)
        recorder = Recorder.begin(
            objective, config, folder, self.target.image_shape, self.settings, self.first
        )
        return recorder.run(time_limit, hooks)
