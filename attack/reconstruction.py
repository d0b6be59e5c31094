"""`reconstruct`: from a trained network to candidates for its training data."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attack.arguments import (
    NetworkLike,
    channels_first,
    take_device,
    take_gradient,
    take_mean,
    take_network,
    tensors_sha256,
)
from attack.memory import free_memory
from attack.networks.network import Network
from attack.objectives.base import Objective
from attack.objectives.by_name import Victim, build_objective
from attack.objectives.candidates import Candidates
from attack.objectives.gradient_facts import labels_from_bias, samples_in
from attack.objectives.presets import Preset
from attack.objectives.presets import preset as preset_by_name
from attack.objectives.spans import AffineSpan, SpanObjective, span_objective
from attack.runs.folder import RunFolder
from attack.runs.recorder import Recorder
from attack.runs.run import SCHEMA_VERSION, Run, versions
from attack.solving.loop import Hooks, Progress
from attack.solving.multipliers import check_eliminable
from attack.solving.settings import SolveSettings
from attack.solving.starts import StartImages, load_start, start_candidates
from identify.errors import InvalidInputError
from identify.model.tensor_file import PathLike

DEFAULT_COUNT, DEFAULT_STEPS = 100, 2_000
_SCALES = {"haim": 0.01, "buzaglo": 0.01, "loo": 0.2}
_GROWTH = 3
_ELIMINATED = 2_000
StartLike = str | os.PathLike[str] | StartImages | Candidates | Run


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
    span: AffineSpan | None = None,
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
        objective: a name of `attack.OBJECTIVES` or an objective; "haim" or that of the preset.
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
        span: the affine span in which candidates are kept.
        splitting: "off", "paper" or "auto".
        solver: "lbfgs" (default), "sgd", "adam" or "gauss-newton"; the preset's.
        steps: 2,000 or the preset's.
        settings: further fields of `attack.SolveSettings`. Unless given the limit on candidates is
            three times the start in mode "auto", and lbfgs eliminates the multipliers of "haim",
            "buzaglo" and "loo" if there are at most 2,000.
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
    if labels is not None and count is None:
        count = len(np.atleast_1d(np.asarray(labels)))
    task = _task(
        network, objective, initial, gradient, options, preset, mean,
        _scaled_count(count, start), image_shape, device, dtype, span,
    )  # fmt: skip
    if (
        labels is None
        and isinstance(start, str)
        and start == "noise"
        and task.whole.name == "gradient_matching"
    ):
        assert task.victim.gradient is not None
        loss = (options or {}).get("loss")
        labels = labels_from_bias(task.victim.network, task.victim.gradient, loss, task.count)
    first, about = _start(task, start, count, labels, seed, start_scale, share, mixture)
    chosen = _settings(task, first.count, splitting, solver, steps, settings, seed)
    chosen.check(task.objective, first.count)
    if time_limit is not None and not time_limit > 0:
        raise InvalidInputError("time_limit", "a positive number of seconds", time_limit)
    if save_every is not None and save_every < 1:
        raise InvalidInputError("save_every", "at least 1 step", save_every)
    # In this order a resumed run names what differs: what the caller said before what follows.
    config = {
        "schema_version": SCHEMA_VERSION,
        "preset": None if task.preset is None else task.preset.name,
        "count": first.count,
        "seed": seed,
        "device": str(task.objective.device),
        "dtype": str(task.objective.dtype).removeprefix("torch."),
        "image_shape": None if image_shape is None else list(image_shape),
        **task.victim.hashes(),
        "start": about,
        "solver": chosen.to_dict(),
        "span": None if span is None else {"dimension": span.dimension, "sha256": span.sha256()},
        "objective": {"name": task.objective.name, **_described(task)},
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    if resume and out is None:
        raise InvalidInputError("out", "the folder of the run to resume", "none")
    folder = None
    if out is not None:
        folder = RunFolder.open(out, config, resume=resume, device=task.objective.device)
    hooks = Hooks(progress=progress, save_every=save_every, save_seconds=save_seconds)
    recorder = Recorder(task.objective, config, folder, image_shape)
    return recorder.run(first, chosen, time_limit, hooks)


@dataclass(frozen=True, eq=False)
class _Task:
    objective: Objective
    victim: Victim
    preset: Preset | None
    count: int

    @property
    def whole(self) -> Objective:
        """The objective in pixels, whatever the candidates are restricted to."""
        return self.objective.base if isinstance(self.objective, SpanObjective) else self.objective


def _task(
    network: NetworkLike,
    objective: str | Objective | None,
    initial: NetworkLike | None,
    gradient: NetworkLike | Sequence[Tensor] | None,
    options: Mapping[str, Any] | None,
    preset: str | Preset | None,
    mean: float | npt.ArrayLike | None,
    count: int | None,
    image_shape: tuple[int, ...] | None,
    device: str | torch.device,
    dtype: torch.dtype | None,
    span: AffineSpan | None,
) -> _Task:
    named = preset_by_name(preset) if isinstance(preset, str) else preset
    place = take_device(device)
    if dtype is None and named is not None:
        dtype = getattr(torch, named.dtype)
    if dtype not in (None, torch.float32, torch.float64):
        raise InvalidInputError("dtype", "torch.float32 or torch.float64", dtype)
    victim_network = take_network(network, place, dtype)
    before = None
    if initial is not None:
        before = take_network(initial, place, victim_network.dtype, victim_network)
    slopes = None if gradient is None else take_gradient(gradient, victim_network)
    victim = Victim(victim_network, before, slopes, take_mean(mean, victim_network.dimension))
    number = count
    if number is None:
        number = DEFAULT_COUNT
        if objective == "gradient_matching" and slopes is not None:
            number = samples_in(slopes)
        if named is not None:
            number = named.candidates * max(2, victim_network.outputs)
    _check_memory(number, victim_network)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InvalidInputError("count", "at least 1 candidate", number)
    if isinstance(objective, Objective):
        if options or named is not None:
            raise InvalidInputError("objective", "a name beside options or a preset", "an object")
        if objective.device != place:
            raise InvalidInputError("device", f"{objective.device} of the objective", place)
        built: Objective = objective
    else:
        name = objective or ("haim" if named is None else named.objective)
        built = build_objective(
            name, victim, number, options=options, preset=named,
            image_shape=channels_first(image_shape, victim_network.dimension, options),
        )  # fmt: skip
    if span is not None:
        built = span_objective(built, span)
    return _Task(built, victim, named, number)


def _settings(
    task: _Task,
    count: int,
    splitting: str,
    solver: str | None,
    steps: int | None,
    more: Mapping[str, Any] | None,
    seed: int,
) -> SolveSettings:
    fields = dict(more or {})
    known = {f for f in SolveSettings.__dataclass_fields__ if f not in
             ("solver", "splitting", "steps", "seed")}  # fmt: skip
    unknown = sorted(set(fields) - known)
    if unknown:
        raise InvalidInputError(
            "settings", f"some of {', '.join(sorted(known))}", ", ".join(unknown)
        )
    published = task.preset
    if published is not None:
        solver = solver or published.optimiser
        steps = published.steps if steps is None else steps
        if published.split_every:
            fields.setdefault("interval", published.split_every)
        if solver == published.optimiser:
            fields.setdefault("rate_x", published.rate_x)
            fields.setdefault("rate_lam", published.rate_lam)
            if solver == "sgd":
                fields.setdefault("momentum", published.momentum)
    if splitting == "auto":
        fields.setdefault("limit", _GROWTH * count)
    few = count * task.objective.columns <= _ELIMINATED
    if solver in (None, "lbfgs") and few and task.whole.name in _SCALES and _eliminable(task.whole):
        fields.setdefault("multipliers", "eliminated")
    return SolveSettings(
        solver=solver or "lbfgs",
        splitting=splitting,
        steps=DEFAULT_STEPS if steps is None else steps,
        seed=seed,
        **fields,
    )


def _check_memory(count: object, network: Network) -> None:
    """Refuse candidates that cannot fit: four copies of them are the least that a solver keeps."""
    if not isinstance(count, int) or network.device.type != "cpu":
        return
    needed, free = 4 * count * network.dimension * network.dtype.itemsize, free_memory()
    if free is not None and needed > free:
        raise InvalidInputError(
            "count", f"candidates that fit into the memory of {free / 2**30:.1f} GiB",
            f"{count}, which need at least {needed / 2**30:.1f} GiB", "lower --count",
        )  # fmt: skip


def _eliminable(objective: Objective) -> bool:
    try:
        check_eliminable(objective)
    except InvalidInputError:
        return False
    return True


def _scaled_count(count: int | None, start: StartLike) -> int | None:
    """The number of candidates for which multipliers are scaled."""
    if isinstance(start, Run):
        return int(start.settings["count"])
    return start.count if isinstance(start, Candidates) else count


def _start(
    task: _Task,
    start: StartLike,
    count: int | None,
    labels: npt.ArrayLike | None,
    seed: int,
    scale: float | None,
    share: float,
    mixture: str,
) -> tuple[Candidates, dict[str, Any]]:
    """The first candidates, restricted to the span, and how they were made."""
    whole, inside = task.whole, task.objective
    if scale is None and task.preset is not None:
        scale = task.preset.start_scale
    elif scale is None:
        unit = 1 / math.sqrt(whole.dimension)
        power = task.victim.network.activation.name == "power"
        scale = unit if power else _SCALES.get(whole.name, unit)
    if isinstance(start, Run | Candidates):
        first = _taken(start, whole)
        if count not in (None, first.count):
            raise InvalidInputError("count", f"{first.count}, as the start has", count)
        if labels is not None or share != 1:
            raise InvalidInputError("start", "images beside labels or a share", "candidates")
        parts = [p for p in (first.x, first.lam, first.labels, first.mass) if p is not None]
        about: dict[str, Any] = {"kind": "candidates", "sha256": tensors_sha256(parts)}
    else:
        images = _images(start)
        if images is None and share != 1:
            raise InvalidInputError("share", "a start from images", "noise", "give start")
        first = start_candidates(
            whole, task.count, seed=seed, scale=scale, images=images, share=share,
            mixture=mixture, labels=labels,
        )  # fmt: skip
        about = {"kind": "noise" if images is None else "images", "scale": float(scale)}
        if images is not None:
            about |= {"share": float(share), "mixture": mixture, "sha256": images.sha256()}
        if labels is not None:
            about["labels"] = [float(label) for label in np.asarray(labels).ravel()]
    return inside.dropped(first) if isinstance(inside, SpanObjective) else first, about


def _images(start: str | os.PathLike[str] | StartImages) -> StartImages | None:
    if isinstance(start, StartImages):
        return start
    if isinstance(start, str | os.PathLike):
        return None if start == "noise" else load_start(start)
    raise InvalidInputError(
        "start", "noise, a file, images, candidates or a run", type(start).__name__
    )


def _taken(start: Run | Candidates, objective: Objective) -> Candidates:
    if isinstance(start, Run):
        parts = (start.candidates, start.multipliers, start.labels, start.masses)
        x, lam, labels, mass = (None if p is None else torch.from_numpy(p.copy()) for p in parts)
        assert x is not None
        assert lam is not None
    else:
        x, lam, labels, mass = start.x.clone(), start.lam.clone(), start.labels, start.mass
    device, dtype = objective.device, objective.dtype
    if labels is not None:
        labels = labels.to(device, dtype if labels.dtype.is_floating_point else labels.dtype)
    mass = None if mass is None else mass.to(device, dtype)
    first = Candidates(x.to(device, dtype), lam.to(device, dtype), labels, mass)
    objective.check(first)
    return first.detach()


def _described(task: _Task) -> dict[str, Any]:
    described = dict(task.whole.describe())
    described.pop("objective", None)
    return described
