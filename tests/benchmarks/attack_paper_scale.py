"""The published attacks at the size of their papers: 250 images per class, D-1000-1000-1.

Run from the root, one data set at a time. The same command again goes on where the last call ended,
after `--minutes` or a crash; finished runs are kept in the folder:

    KKTCERT_DATA=... python -m tests.benchmarks.attack_paper_scale --out paper-scale --data mnist
                     [--objectives haim] [--modes off auto] [--minutes 25] [--device cuda] [--table]

Victims. haim: the first images of each class, mean image removed, logistic loss, 2,000 normalised
steps from a first layer of 1e-4, then scaled so that the least margin is 12. loo: images drawn at
random, one mean (per channel) removed, LeCun initialisation, momentum 0.9 to a squared loss of
1e-10, or for as many steps as `--training` says; the table says how far it came.

Attacks: the presets `haim-mnist-1`, `haim-cifar-1` and `loo` as published: twice as many candidates
as images, float64 and float32, 50,000 and 80,001 steps, no pilot. Rounds of splitting after each
quarter of the steps. Modes "off" and "auto" (at most three times the candidates) are runs of
`attack.reconstruct`, whose folders `kktcert figures` reads; "paper" follows the authors: a round
that raises the loss is kept, and the optimiser starts afresh after each.

Pieces. On a CPU a run in pieces ends with the same candidates, bit for bit, as one that was not
interrupted. A piece takes its steps within 95 % of the minutes, at least one; the check after
them, a round of splitting and the scores of a finished run are not cut short.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from attack import reconstruct
from attack.arguments import tensors_sha256
from attack.networks.files import save_network
from attack.networks.spec import parse_spec
from attack.objectives import Candidates, ResidualObjective
from attack.objectives.presets import preset
from attack.runs.checkpoints import load_state, pack, save_state, unpack, write_whole
from attack.runs.folder import REPORT, load_run
from attack.solving.loop import Hooks, solve
from attack.solving.settings import SolveSettings
from attack.solving.state import LoopState, Row, summarised
from attack.splitting.split_round import split_candidates
from attack.training.images import ImageData, load_images
from attack.training.train import train_network
from identify.errors import KktCertError
from tests.benchmarks import attack_splitting as paired
from tests.benchmarks.splitting_table import COUNTS, METRICS, NULLS, finished, keep, markdown

OBJECTIVES, DATA = ("haim", "loo"), ("mnist", "cifar10", "digits")
TRAINING = {"haim": 2_000, "loo": 20_000}
CHUNK = 100
"""Training is kept after so many steps; only whole chunks count, so that pieces change nothing."""
SEED, SHARE, SAVE_SECONDS = 0, 0.95, 60.0
Fields = dict[str, Any]


class Job(NamedTuple):
    """One row of the table, and what distinguishes it from others."""

    objective: str
    data: str
    mode: str
    per_class: int
    width: int
    steps: int
    training: int
    dtype: str

    @property
    def victim(self) -> str:
        parts = (self.objective, self.data, self.per_class, self.width, self.training)
        return "-".join(map(str, parts))

    @property
    def folder(self) -> str:
        return f"{self.victim}-{self.mode}-{self.steps}-{self.dtype}"

    @property
    def candidates(self) -> int:
        return paired.CANDIDATES_A_SAMPLE * 2 * self.per_class

    @property
    def pace(self) -> Fields:
        """Rounds after each quarter, rounded up, so that none comes just before the end."""
        interval = max(1, math.ceil(self.steps / 4))
        return {"interval": interval, "window": interval, "log_every": max(1, self.steps // 100)}


@dataclass(eq=False)
class Clock:
    """The time of one piece."""

    minutes: float | None
    started: float = field(default_factory=time.monotonic)
    said: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds that may go into steps, never 0, so that every call gets on."""
        if self.minutes is None:
            return None
        end = self.started + 60 * SHARE * self.minutes
        return max(1e-3, end - time.monotonic())

    def allows(self, seconds: float) -> bool:
        return self.left is None or self.left > seconds

    def say(self, text: str, share: float) -> None:
        """Report progress, once a minute."""
        if time.monotonic() - self.said >= 60:
            self.said = time.monotonic()
            print(f"  {share:6.1%}  {text}", flush=True)


def images(job: Job) -> tuple[ImageData, ImageData]:
    """The training set as published, and held-out images of the same classes."""
    options: Fields = {"task": "binary", "seed": SEED}
    mean = "pixel"
    if job.objective == "loo":
        mean = "channel" if job.data == "cifar10" else "scalar"
        options |= {"task": "regression", "draw": "random"}
        options["positive"] = (0, 1, 8, 9) if job.data == "cifar10" else None
    chosen = load_images(job.data, per_class=job.per_class, mean=mean, **options)
    # As many as there may be candidates: a smaller null would be a weaker one.
    more = paired.GROWTH * paired.CANDIDATES_A_SAMPLE * job.per_class
    others = load_images(job.data, per_class=more, skip=job.per_class, mean=chosen.mean, **options)
    return chosen, others


def victim(job: Job, folder: Path, device: str, clock: Clock) -> tuple[paired.Cell, Fields] | None:
    """Train the victim or take it from the folder; None if the time is over before it is done."""
    data, others = images(job)
    haim = job.objective == "haim"
    sizes = f"{data.samples.shape[1]}-{job.width}-{job.width}-1"
    form = parse_spec(f"{sizes},relu,bias={'first' if haim else 'all'}")
    initial = form.initialise(SEED, scale=1e-4) if haim else form.initialise(SEED, scheme="lecun")
    file = folder / f"{job.victim}.training.safetensors"
    network = initial
    facts: Fields = {"steps": 0, "rate": 0.01, "stopped": "", "seconds": 0.0}
    if file.exists():
        tensors, facts = unpack(file)
        network = initial.with_parameters([tensors[name] for name in initial.names()])
    squared, logistic = {"loss": "squared", "momentum": 0.9}, {"loss": "logistic", "target_loss": 0}
    loss: Fields = logistic if haim else squared
    while facts["steps"] < job.training and facts["stopped"] in ("", "steps"):
        began = time.monotonic()
        trained = train_network(
            network, data, steps=min(CHUNK, job.training - facts["steps"]), rate=facts["rate"],
            kkt=False, device=device, **loss,
        )  # fmt: skip
        network, seconds = trained.network.to("cpu"), time.monotonic() - began
        facts = {
            "steps": facts["steps"] + trained.steps, "rate": trained.history[-1].rate,
            "stopped": trained.stopped, "seconds": facts["seconds"] + seconds,
            "log10_loss": max(trained.log10_loss, -1e6),  # infinity is no JSON
            "least_margin": float(trained.margins.min()),
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        named = zip(network.names(), network.parameters(), strict=True)
        write_whole(file, pack(dict(named), facts))
        share = facts["steps"] / job.training
        clock.say(f"training {job.victim}, loss 1e{facts['log10_loss']:.1f}", share)
        if trained.stopped == "steps" and share < 1 and not clock.allows(seconds):
            return None
    if haim:
        if facts["least_margin"] <= 0:
            raise KktCertError(f"victim {job.victim} does not fit its data; train it longer")
        # Homogeneous of degree 3 in all parameters together.
        factor = (paired.MARGIN / facts["least_margin"]) ** (1 / 3)
        network = network.with_parameters([factor * p for p in network.parameters()])
    for part, which in (("final", network), ("initial", initial)):
        save_network(which, folder / f"{job.victim}.{part}.safetensors")
    data_of = "cifar10" if job.data == "cifar10" else "mnist"
    setting = preset(paired.PRESETS_OF[job.objective, data_of])
    before = None if haim else initial
    return paired.Cell(job.objective, network, before, data, others, setting), facts


Ended = tuple[Candidates, Sequence[Row], Fields] | None
"""A finished attack: candidates, history, and what the row says of it; None if unfinished."""


def by_reconstruct(cell: paired.Cell, job: Job, folder: Path, device: str, clock: Clock) -> Ended:
    """Modes "off" and "auto", as users run them."""
    found = load_run(folder) if (folder / REPORT).exists() else None
    if found is None or found.stopped in ("time limit", "interrupted", "not finite"):
        found = reconstruct(
            cell.network, preset=cell.setting, initial=cell.initial,
            mean=None if cell.initial is None else cell.data.mean, count=job.candidates,
            splitting=job.mode, steps=job.steps, settings=job.pace, device=device,
            image_shape=cell.data.image_shape, seed=SEED, dtype=getattr(torch, job.dtype),
            time_limit=clock.left, progress=clock.say, out=folder, resume=True,
            save_seconds=SAVE_SECONDS,
        )  # fmt: skip
    if found.stopped == "time limit":
        return None
    at = Candidates(torch.from_numpy(found.candidates), torch.from_numpy(found.multipliers))
    fields = {
        "loss": found.loss, "data_loss": found.data_loss, "taken": found.steps,
        "stopped": found.stopped, "seconds": found.history[-1][-1],
        "rounds": [r.message for r in found.rounds],
    }  # fmt: skip
    return at, found.history, fields


def by_authors(cell: paired.Cell, job: Job, folder: Path, device: str, clock: Clock) -> Ended:
    """Mode "paper": rounds are never taken back, and the optimiser starts afresh after each."""
    attacked = objective_of(cell, job, device)
    setting, interval = cell.setting, job.pace["interval"]
    settings = SolveSettings(
        setting.optimiser, rate_x=setting.rate_x, rate_lam=setting.rate_lam, steps=job.steps,
        splitting="off", seed=SEED, **job.pace,
    )  # fmt: skip
    file = folder / "checkpoint.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if file.exists():
        state, _ = load_state(file, attacked.device)
    else:
        start = attacked.start(job.candidates, SEED, setting.start_scale)
        state = LoopState.first(start, settings)

    def save(reached: LoopState) -> None:
        nonlocal state
        state = reached
        save_state(file, reached, {"job": job.folder})

    hooks = Hooks(progress=clock.say, save=save, save_seconds=SAVE_SECONDS)
    stopped = "steps"
    while state.step < job.steps and stopped == "steps":
        if state.step and state.step % interval == 0 and state.last_round < state.step:
            save(split_as_authors(attacked, state, settings))
        end = min((state.step // interval + 1) * interval, job.steps)
        until = replace(settings, steps=end)
        stopped = solve(attacked, state, until, hooks=hooks, time_limit=clock.left).stopped
    if stopped == "time limit":
        return None
    final, at = attacked.with_step(state.step), state.candidates
    fields = {
        "loss": float(final.value(at)), "data_loss": float(final.data_value(at)),
        "taken": state.step, "stopped": stopped, "seconds": state.seconds,
        "rounds": [r.message for r in state.rounds],
    }  # fmt: skip
    return at, state.history, fields


def split_as_authors(
    attacked: ResidualObjective, state: LoopState, settings: SolveSettings
) -> LoopState:
    """One round, kept whatever it does to the loss."""
    at, seed, began = state.step, SEED + state.step, time.monotonic()
    new, origin, record = split_candidates(
        attacked.with_step(at), state.candidates, mode="paper", rollback=False, seed=seed
    )
    done = summarised(record, at, seed, state.candidates.count, new.count, origin, True)
    return replace(
        state, candidates=new, memory=settings.build().begin(new), last_round=at,
        rounds=(*state.rounds, done), seconds=state.seconds + time.monotonic() - began,
    )  # fmt: skip


def objective_of(cell: paired.Cell, job: Job, device: str) -> ResidualObjective:
    """The objective of the preset, as `reconstruct` builds it."""
    place, known = (device, getattr(torch, job.dtype)), cell.initial
    return cell.setting.build(
        cell.network.to(*place), count=job.candidates,
        initial=None if known is None else known.to(*place),
        mean=0.0 if known is None else torch.from_numpy(cell.data.mean).to(*place),
    )  # fmt: skip


def measure(job: Job, folder: Path, device: str, clock: Clock) -> Fields | None:
    """Carry a run on; its row once it is complete, None if the time is over before."""
    head = job._asdict() | about(device)
    try:
        found = victim(job, folder / "victims", device, clock)
        if found is None:
            return None
        cell, training = found
        attack = by_authors if job.mode == "paper" else by_reconstruct
        end = attack(cell, job, folder / "runs" / job.folder, device, clock)
    except KktCertError as error:
        if type(error) is not KktCertError:  # Wrong input and damaged files are no results.
            raise
        return {**head, "failed": str(error)}
    if end is None:
        return None
    at, history, fields = end
    judged = paired.scores(cell, at)
    return {
        **head, **fields, "victim": training, "candidates": at.count,
        "step_seconds": step_seconds(history), "sha256": tensors_sha256([at.x, at.lam]),
        "found": judged.pop("found"), "null": judged,
    }  # fmt: skip


def about(device: str) -> Fields:
    """Where it runs."""
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if cuda else f"cpu, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__}


def step_seconds(history: Sequence[Row]) -> float | None:
    """The time of one step, the median over the logged stretches, so that rounds do not count."""
    steps, seconds = (np.array([row[at] for row in history]) for at in (0, -1))
    return float(np.median(np.diff(seconds) / np.diff(steps))) if len(steps) > 1 else None


def table(rows: Sequence[Fields]) -> str:
    """One line a run; counts with those of the nulls behind them, then what failed."""
    counts = [f"{name} ({', '.join(NULLS).replace('_', ' ')})" for name in COUNTS]
    head = (
        "objective", "data", "mode", "images", "steps", "victim", "loss", "data loss",
        "candidates", *counts, *(f"top 10 {name}" for name in METRICS),
        "ms a step", "hours", "device", "dtype", "torch",
    )  # fmt: skip
    lost = [row for row in rows if "failed" in row]
    notes = [f"{row['objective']} {row['data']} {row['mode']}: {row['failed']}" for row in lost]
    lines = [_line(row) for row in rows if "failed" not in row]
    return "\n\n".join([markdown(head, lines), *notes])


def _victim(row: Fields) -> str:
    facts, haim = row["victim"], row["objective"] == "haim"
    reached = f"least margin {paired.MARGIN:g}" if haim else f"loss 1e{facts['log10_loss']:.1f}"
    return f"{facts['steps']} steps, {reached}"


def _line(row: Fields) -> list[object]:
    found, null, pace = row["found"], row["null"], row["step_seconds"]
    counts = [
        f"{found[kind][name]} ({', '.join(str(null[part][kind][name]) for part in NULLS)})"
        for kind, name in COUNTS.values()
    ]
    metrics = [found[kind][name] for kind, name in METRICS.values()]
    return [
        row["objective"], row["data"], row["mode"], 2 * row["per_class"],
        f"{row['taken']} ({row['stopped']})", _victim(row),
        f"{row['loss']:.5g}", f"{row['data_loss']:.5g}", row["candidates"], *counts,
        *("-" if value is None else f"{value:.3g}" for value in metrics),
        "-" if pace is None else f"{1e3 * pace:.2f}", f"{row['seconds'] / 3600:.2f}",
        row["device"], row["dtype"], row["torch"],
    ]  # fmt: skip


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """What was asked for."""
    for objective in options.objectives:
        published = preset(paired.PRESETS_OF[objective, "mnist"])
        steps = published.steps if options.steps is None else options.steps
        training = TRAINING[objective] if options.training is None else options.training
        sizes = (options.per_class, options.width, steps, max(1, training))
        for mode in options.modes:
            yield Job(objective, options.data, mode, *sizes, options.dtype or published.dtype)


def main(arguments: list[str] | None = None) -> None:
    """Carry on with what is missing until the time is over, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of victims and runs")
    parser.add_argument("--data", required=True, choices=DATA)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--modes", nargs="+", default=list(paired.MODES), choices=paired.MODES)
    parser.add_argument("--per-class", type=int, default=250)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--steps", type=int, help="of the attack; those of the preset")
    parser.add_argument("--training", type=int, help="steps at most; 2,000 and 20,000")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="that of the preset")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, help="of this piece; without it all is done")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    clock, asked = Clock(options.minutes), list(jobs(options))
    target = options.out / "paper_scale.jsonl"
    done = finished(target, *Job._fields)
    missing = [] if options.table else [job for job in asked if job not in done]
    if missing:
        print(", ".join(f"{name} {value}" for name, value in about(options.device).items()))
    for number, job in enumerate(missing):
        goes = number == 0 or clock.allows(10)
        row = measure(job, options.out, options.device, clock) if goes else None
        if row is None:
            print(f"unfinished: {job.folder}; the same command goes on", flush=True)
            break
        keep(target, row)
        done[job] = row
        print(f"finished: {job.folder}", flush=True)
    print(table([done[job] for job in asked if job in done]))


if __name__ == "__main__":
    main()
