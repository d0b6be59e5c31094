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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attack import reconstruct
from attack.builders import tensors_sha256
from attack.checkpoints import load_state, pack, save_state, unpack, write_whole
from attack.data import ImageData, load_images
from attack.loop_state import LoopState, Row, summarised
from attack.networks import Network, parse_spec, save_network
from attack.objectives import Candidates, ResidualObjective
from attack.presets import preset
from attack.runs import REPORT, load_run
from attack.solve import Hooks, solve
from attack.solve_settings import SolveSettings
from attack.splitting import split_candidates
from attack.train import train_network
from identify.errors import KktCertError
from tests.benchmarks.attack_splitting import (
    CANDIDATES_A_SAMPLE,
    GROWTH,
    MARGIN,
    MODES,
    PRESETS_OF,
    Cell,
    scores,
)
from tests.benchmarks.splitting_table import COUNTS, METRICS, NULLS, finished, keep, markdown

OBJECTIVES, DATA = ("haim", "loo"), ("mnist", "cifar10", "digits")
TRAINING = {"haim": 2_000, "loo": 20_000}
CHUNK = 100
"""Training is kept after so many steps; only whole chunks count, so that pieces change nothing."""
SEED, SHARE, SAVE_SECONDS = 0, 0.95, 60.0
KEYS = ("objective", "data", "mode", "per_class", "width", "steps", "training", "dtype")


@dataclass(frozen=True)
class Job:
    """One row of the table; the fields are `KEYS`."""

    objective: str
    data: str
    mode: str
    per_class: int
    width: int
    steps: int
    training: int
    dtype: str

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in KEYS)

    @property
    def victim(self) -> str:
        """What distinguishes its victim from others."""
        parts = (self.objective, self.data, self.per_class, self.width, self.training)
        return "-".join(map(str, parts))

    @property
    def folder(self) -> str:
        return f"{self.victim}-{self.mode}-{self.steps}-{self.dtype}"

    @property
    def candidates(self) -> int:
        return CANDIDATES_A_SAMPLE * 2 * self.per_class

    @property
    def interval(self) -> int:
        """A quarter of the steps, rounded up: three rounds, none just before the end."""
        return max(1, math.ceil(self.steps / 4))

    @property
    def pace(self) -> dict[str, Any]:
        """Rounds at the same steps in all modes."""
        every = max(1, self.steps // 100)
        return {"interval": self.interval, "window": self.interval, "log_every": every}

    @property
    def precision(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32


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
    options: dict[str, Any] = {"task": "binary", "seed": SEED}
    mean = "pixel"
    if job.objective == "loo":
        mean = "channel" if job.data == "cifar10" else "scalar"
        options |= {"task": "regression", "draw": "random"}
        if job.data == "cifar10":
            options["positive"] = (0, 1, 8, 9)
    chosen = load_images(job.data, per_class=job.per_class, mean=mean, **options)
    # As many as there may be candidates: a smaller null would be a weaker one.
    more = GROWTH * CANDIDATES_A_SAMPLE * job.per_class
    others = load_images(job.data, per_class=more, skip=job.per_class, mean=chosen.mean, **options)
    return chosen, others


def victim(job: Job, folder: Path, device: str, clock: Clock) -> tuple[Cell, dict[str, Any]] | None:
    """Train the victim or take it from the folder; None if the time is over before it is done."""
    data, others = images(job)
    haim = job.objective == "haim"
    sizes = f"{data.samples.shape[1]}-{job.width}-{job.width}-1"
    form = parse_spec(f"{sizes},relu,bias={'first' if haim else 'all'}")
    initial = form.initialise(SEED, scale=1e-4) if haim else form.initialise(SEED, scheme="lecun")
    file = folder / f"{job.victim}.training.safetensors"
    network = initial
    facts: dict[str, Any] = {"steps": 0, "rate": 0.01, "stopped": "", "seconds": 0.0}
    if file.exists():
        tensors, facts = unpack(file)
        network = initial.with_parameters([tensors[name] for name in initial.names()])
    loss: dict[str, Any] = {"loss": "squared", "momentum": 0.9}
    if haim:
        loss = {"loss": "logistic", "target_loss": 0.0}
    while facts["steps"] < job.training and facts["stopped"] in ("", "steps"):
        began = time.monotonic()
        trained = train_network(
            network, data, steps=min(CHUNK, job.training - facts["steps"]), rate=facts["rate"],
            kkt=False, device=device, **loss,
        )  # fmt: skip
        network, seconds = trained.network.to("cpu"), time.monotonic() - began
        facts = {
            "steps": facts["steps"] + trained.steps,
            "rate": trained.history[-1].rate,
            "stopped": trained.stopped,
            "seconds": facts["seconds"] + seconds,
            "log10_loss": max(trained.log10_loss, -1e6),  # infinity is no JSON
            "least_margin": float(trained.margins.min()),
        }
        folder.mkdir(parents=True, exist_ok=True)
        named = zip(network.names(), network.parameters(), strict=True)
        write_whole(file, pack(dict(named), facts))
        share, log10_loss = facts["steps"] / job.training, facts["log10_loss"]
        clock.say(f"training {job.victim}, loss 1e{log10_loss:.2f}", share)
        if trained.stopped == "steps" and share < 1 and not clock.allows(seconds):
            return None
    if haim:
        if facts["least_margin"] <= 0:
            raise KktCertError(f"victim {job.victim} does not fit its data; train it longer")
        # Homogeneous of degree 3 in all parameters together.
        factor = (MARGIN / facts["least_margin"]) ** (1 / 3)
        network = network.with_parameters([factor * p for p in network.parameters()])
    for part, which in (("final", network), ("initial", initial)):
        save_network(which, folder / f"{job.victim}.{part}.safetensors")
    name = "cifar10" if job.data == "cifar10" else "mnist"
    setting = preset(PRESETS_OF[job.objective, name])
    return Cell(job.objective, network, None if haim else initial, data, others, setting), facts


@dataclass(frozen=True, eq=False)
class End:
    """A finished attack; `seconds` are those of steps and rounds."""

    candidates: Candidates
    loss: float
    data_loss: float
    steps: int
    stopped: str
    seconds: float
    history: Sequence[Row]
    rounds: list[str]


def by_reconstruct(cell: Cell, job: Job, folder: Path, device: str, clock: Clock) -> End | None:
    """Modes "off" and "auto", as users run them."""
    found = load_run(folder) if (folder / REPORT).exists() else None
    if found is None or found.stopped in ("time limit", "interrupted"):
        found = reconstruct(
            cell.network, preset=cell.setting, initial=cell.initial,
            mean=None if cell.initial is None else cell.data.mean, count=job.candidates,
            splitting=job.mode, steps=job.steps, settings=job.pace, device=device,
            image_shape=cell.data.image_shape, seed=SEED, dtype=job.precision,
            time_limit=clock.left, progress=clock.say, out=folder, resume=True,
            save_seconds=SAVE_SECONDS,
        )  # fmt: skip
    if found.stopped == "time limit":
        return None
    at = Candidates(torch.from_numpy(found.candidates), torch.from_numpy(found.multipliers))
    return End(
        at, found.loss, found.data_loss, found.steps, found.stopped, found.history[-1][-1],
        found.history, [r.message for r in found.rounds],
    )  # fmt: skip


def by_authors(cell: Cell, job: Job, folder: Path, device: str, clock: Clock) -> End | None:
    """Mode "paper": rounds are never taken back, and the optimiser starts afresh after each."""
    attacked = objective_of(cell, job, device)
    settings = SolveSettings(
        cell.setting.optimiser, rate_x=cell.setting.rate_x, rate_lam=cell.setting.rate_lam,
        steps=job.steps, splitting="off", seed=SEED, **job.pace,
    )  # fmt: skip
    file = folder / "checkpoint.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if file.exists():
        state, _ = load_state(file, attacked.device)
    else:
        start = attacked.start(job.candidates, SEED, cell.setting.start_scale)
        state = LoopState.first(start, settings)

    def save(reached: LoopState) -> None:
        nonlocal state
        state = reached
        save_state(file, reached, {"job": job.folder})

    hooks = Hooks(progress=clock.say, save=save, save_seconds=SAVE_SECONDS)
    stopped = "steps"
    while state.step < job.steps and stopped == "steps":
        if state.step and state.step % job.interval == 0 and state.last_round < state.step:
            save(split_as_authors(attacked, state, settings))
        end = min((state.step // job.interval + 1) * job.interval, job.steps)
        until = replace(settings, steps=end)
        stopped = solve(attacked, state, until, hooks=hooks, time_limit=clock.left).stopped
    if stopped == "time limit":
        return None
    final, at = attacked.with_step(state.step), state.candidates
    return End(
        at, float(final.value(at)), float(final.data_value(at)), state.step, stopped,
        state.seconds, state.history, [r.message for r in state.rounds],
    )  # fmt: skip


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


def objective_of(cell: Cell, job: Job, device: str) -> ResidualObjective:
    """The objective of the preset, as `reconstruct` builds it."""

    def moved(network: Network) -> Network:
        return network.to(device, job.precision)

    before = None if cell.initial is None else moved(cell.initial)
    mean: float | Tensor = 0.0
    if before is not None:
        mean = torch.from_numpy(cell.data.mean).to(device, job.precision)
    return cell.setting.build(moved(cell.network), count=job.candidates, initial=before, mean=mean)


def measure(job: Job, folder: Path, device: str, clock: Clock) -> dict[str, Any] | None:
    """Carry a run on; its row once it is complete, None if the time is over before."""
    head = {name: getattr(job, name) for name in KEYS} | about(device)
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
    judged = scores(cell, end.candidates)
    return {
        **head,
        "victim": training,
        "taken": end.steps,
        "stopped": end.stopped,
        "loss": end.loss,
        "data_loss": end.data_loss,
        "candidates": end.candidates.count,
        "seconds": end.seconds,
        "step_seconds": step_seconds(end.history),
        "sha256": tensors_sha256([end.candidates.x, end.candidates.lam]),
        "rounds": end.rounds,
        "found": judged.pop("found"),
        "null": judged,
    }


def about(device: str) -> dict[str, Any]:
    """Where it runs."""
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if cuda else f"cpu, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__}


def step_seconds(history: Sequence[Row]) -> float | None:
    """The time of one step, the median over the logged stretches, so that rounds do not count."""
    steps, seconds = (np.array([row[at] for row in history]) for at in (0, -1))
    return float(np.median(np.diff(seconds) / np.diff(steps))) if len(steps) > 1 else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a run; counts with those of the nulls behind them, then what failed."""
    counts = [f"{name} ({', '.join(NULLS).replace('_', ' ')})" for name in COUNTS]
    head = (*HEAD, *counts, *(f"top 10 {name}" for name in METRICS), *TAIL)
    good = [row for row in rows if "failed" not in row]
    notes = [
        f"{row['objective']} {row['data']} {row['mode']}: {row['failed']}"
        for row in rows
        if "failed" in row
    ]
    return "\n\n".join([markdown(head, map(_line, good)), *notes])


HEAD = (
    "objective", "data", "mode", "images", "steps", "log10 loss of the victim", "loss",
    "data loss", "candidates",
)  # fmt: skip
TAIL = ("ms a step", "hours", "device", "dtype", "torch")


def _line(row: dict[str, Any]) -> list[object]:
    found, null, pace = row["found"], row["null"], row["step_seconds"]
    counts = [
        f"{found[kind][name]} ({', '.join(str(null[part][kind][name]) for part in NULLS)})"
        for kind, name in COUNTS.values()
    ]
    metrics = [found[kind][name] for kind, name in METRICS.values()]
    return [
        row["objective"], row["data"], row["mode"], 2 * row["per_class"],
        f"{row['taken']} ({row['stopped']})", f"{row['victim']['log10_loss']:.1f}",
        f"{row['loss']:.5g}", f"{row['data_loss']:.5g}", row["candidates"], *counts,
        *("-" if value is None else f"{value:.3g}" for value in metrics),
        "-" if pace is None else f"{1e3 * pace:.2f}", f"{row['seconds'] / 3600:.2f}",
        row["device"], row["dtype"], row["torch"],
    ]  # fmt: skip


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """What was asked for."""
    for objective in options.objectives:
        published = preset(PRESETS_OF[objective, "mnist"])
        steps = published.steps if options.steps is None else options.steps
        training = TRAINING[objective] if options.training is None else options.training
        sizes = (options.per_class, options.width, steps, training)
        for mode in options.modes:
            yield Job(objective, options.data, mode, *sizes, options.dtype or published.dtype)


def main(arguments: list[str] | None = None) -> None:
    """Carry on with what is missing until the time is over, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of victims and runs")
    parser.add_argument("--data", required=True, choices=DATA)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
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
    done = finished(target, *KEYS)
    missing = [] if options.table else [job for job in asked if job.key not in done]
    if missing:
        print(", ".join(f"{name} {value}" for name, value in about(options.device).items()))
    for number, job in enumerate(missing):
        row = None
        if number == 0 or clock.allows(10):
            row = measure(job, options.out, options.device, clock)
        if row is None:
            print(f"unfinished: {job.folder}; the same command goes on", flush=True)
            break
        keep(target, row)
        done[job.key] = row
        print(f"finished: {job.folder}", flush=True)
    print(table([done[job.key] for job in asked if job.key in done]))


if __name__ == "__main__":
    main()
