"""How fast? Each published attack beside ours on one victim; the time of a splitting round.

Run from the root; finished runs are kept in the folder and skipped by the next call:

    KKTCERT_DATA=... OMP_NUM_THREADS=1 python -m tests.benchmarks.attack_speed --out speed
                     [--methods haim] [--round] [--table]

One victim per method with one hidden layer of 500 units, trained on 40 MNIST images as in
`attack_splitting` (haim and buzaglo scaled to a least margin of 12). 80 candidates; both sides
have the same start, one CPU thread, and are timed without what only measures.

The peer is `peers.Peer` with a published preset and all of its steps, in its own dtype. Of several
presets of a method the one is taken whose loss is lowest after 2,000 steps (`pilot`; the same
iteration in float32). Its loss jumps from step to step; asked of ours is the lowest that was
recorded (200 times in all) in the last 5 % of the steps.

Ours is `attack.solve` by L-BFGS in float32 until a tenth of the peer's time, without splitting and
with it (at most 240 candidates, penalties of halves whole or shared), all reported; the temperature
of loo rises 67 times faster, chosen by the loss on this victim. Beside them the published solver in
float32 and closed form with a tenth of its steps, all schedules ten times as fast. "At that loss"
is the first of every 10 steps at which the loss of the preset, in float64 and with the last
temperature of loo, is at most that asked. As the machine may be busier in one run than in the
other, the peer's steps are timed again around ours in the same process; ratios take the fastest.
Only the scores see the truth.

With --round: one splitting round for 500 candidates, after 100, 120 and 140 steps of the method, in
units of the step (sgd or adam, float32) there, in turn in one process; medians. With two hidden
layers too; the victims are trained by 300 steps.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attack import solve
from attack.networks.files import load_network, save_network
from attack.objectives import Candidates
from attack.objectives.presets import preset
from attack.objectives.residual import ResidualObjective
from attack.objectives.schedules import TemperatureSchedule
from attack.solving.loop import Hooks
from attack.solving.settings import SolveSettings
from attack.solving.state import LoopState
from attack.splitting.split_round import split_candidates
from attack.training.train import train_network
from identify.errors import KktCertError
from tests.benchmarks.attack_splitting import MARGIN, Cell, images, scores
from tests.benchmarks.peers import Peer
from tests.benchmarks.splitting_table import NULLS, Row, finished, keep, markdown

PRESETS_OF = {
    "haim": ("haim-mnist-1", "haim-mnist-2"),
    "buzaglo": ("buzaglo-multiclass-1", "buzaglo-multiclass-2"),
    "loo": ("loo",),
}
PUBLISHED = "published, a tenth of the steps"
WAYS: dict[str, dict[str, Any]] = {
    "off": {"splitting": "off"},
    "auto, whole": {"splitting": "auto", "penalties": "whole"},
    "auto, shared": {"splitting": "auto", "penalties": "shared"},
    PUBLISHED: {},
}
GROWTH = 3
PERIOD = 300.0
"""Of our temperature schedule for loo, in steps of lbfgs; the peer's is 20,000 steps of Adam."""
SHARE, PILOT, EVERY, LAST, QUICK = 0.1, 2_000, 10, 10, 300
ROUNDS = {"paper": "paper", "auto, whole": "auto", "auto, shared": "auto"}
KEYS = ("method", "data", "seed", "samples", "width", "steps")


@dataclass(frozen=True)
class Size:
    """How large the experiment is; the defaults are those of the table."""

    samples: int = 40
    width: str = "500"
    steps: int | None = None
    training: int = 2_000
    data: str = "mnist"
    seed: int = 0


def make_cell(method: str, name: str, size: Size, folder: Path) -> Cell:
    """Train the victim, or take it from the folder."""
    chosen, others = images(method, size.data, size.samples, size.seed)
    stem = f"{method}-{size.data}-{size.seed}-{size.samples}-{size.width}-{size.training}"
    files = [folder / f"{stem}-{part}.safetensors" for part in ("final", "initial")]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        shape = f"{chosen.samples.shape[1]}-{size.width}"
        common: dict[str, Any] = {"seed": size.seed, "kkt": False}
        if method == "loo":
            trained = train_network(f"{shape}-1,relu,bias=all", chosen, loss="squared", **common)
            network = trained.network
        else:
            outputs = 10 if method == "buzaglo" else 1
            trained = train_network(
                f"{shape}-{outputs},relu,bias=first", chosen, scale=1e-4, target_loss=0.0,
                loss="cross-entropy" if outputs > 1 else "logistic", steps=size.training, **common,
            )  # fmt: skip
            least = float(trained.margins.min())
            if least <= 0:
                raise KktCertError(f"victim {stem} does not fit its data; train it longer")
            factor = (MARGIN / least) ** (1 / (2 + size.width.count("-")))
            scaled = [factor * p for p in trained.network.parameters()]
            network = trained.network.with_parameters(scaled)
        save_network(trained.initial, files[1])
        save_network(network, files[0])
    initial = load_network(files[1]) if method == "loo" else None
    return Cell(method, load_network(files[0]), initial, chosen, others, preset(name))


def attacked(cell: Cell, dtype: torch.dtype, count: int) -> ResidualObjective:
    """The objective of the preset, multipliers scaled by the number of candidates."""
    initial = None if cell.initial is None else cell.initial.to("cpu", dtype)
    victim, mean = cell.network.to("cpu", dtype), torch.from_numpy(cell.data.mean).to(dtype)
    return cell.setting.build(victim, count=count, initial=initial, mean=mean)


def cast(candidates: Candidates, dtype: torch.dtype) -> Candidates:
    """The candidates in another dtype, each with whole penalties."""
    labels = candidates.labels
    if labels is not None and labels.is_floating_point():
        labels = labels.to(dtype)
    return Candidates(candidates.x.to(dtype), candidates.lam.to(dtype), labels)


def begin(cell: Cell, seed: int, count: int | None = None) -> Candidates:
    """The start of both sides."""
    count = 2 * len(cell.data.samples) if count is None else count
    return attacked(cell, torch.float64, count).start(count, seed, cell.setting.start_scale)


def published(cell: Cell, steps: int) -> SolveSettings:
    """The solver of the preset, as ours."""
    rates = {"rate_x": cell.setting.rate_x, "rate_lam": cell.setting.rate_lam}
    return SolveSettings(cell.setting.optimiser, **rates, splitting="off", steps=steps)


def pilot(method: str, size: Size, steps: int, folder: Path) -> str:
    """Return the preset of the method with the lowest loss after a few steps."""
    names = PRESETS_OF[method]
    file = folder / f"preset-{method}-{size.data}-{size.seed}-{size.samples}-{size.width}.json"
    if file.exists():
        losses = json.loads(file.read_text())
    else:
        losses = {}
        for name in names if len(names) > 1 else ():
            cell = make_cell(method, name, size, folder / "victims")
            start, settings = begin(cell, size.seed), published(cell, min(PILOT, steps))
            objective = attacked(cell, torch.float32, start.count)
            try:
                losses[name] = solve(objective, cast(start, torch.float32), settings).loss
            except KktCertError:
                losses[name] = math.inf
            print(f"pilot {name}: {losses[name]:.5g}", flush=True)
        file.write_text(json.dumps(losses))
    return min(names, key=lambda name: losses.get(name, math.inf))


def total_loss(cell: Cell, candidates: Candidates, count: int, steps: int) -> float:
    """The loss both sides are compared by."""
    objective = attacked(cell, torch.float64, count).with_step(steps)
    return float(objective.value(cast(candidates, torch.float64)))


def peer_run(cell: Cell, peer: Peer, steps: int, file: Path) -> Row:
    """Run the peer, or take its run from the folder; the loss is that of `total_loss`."""
    given, history, wall = peer.kept_run(steps, file)
    found = cast(given, torch.float64)
    if not math.isfinite(history[-1, 2]):
        raise KktCertError(f"{file.stem}: the peer diverged")
    loss = total_loss(cell, found, found.count, steps)
    return {
        "step": steps, "seconds": float(history[-1, 1]), "wall": wall, "loss": loss,
        "lowest": min(loss, float(history[-LAST:, 2].min())), "candidates": found.count,
        "scores": scores(cell, found), "curve": history[::2].tolist(),
    }  # fmt: skip


class Enough(KktCertError):
    """The time is over."""


@dataclass(eq=False)
class Watch:
    """Time of the attack, without that of the measuring, and where it first reached a loss."""

    cell: Cell
    count: int
    steps: int
    target: float
    limit: float
    reached: Row | None = None
    last: Row = field(default_factory=dict)
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0
    since: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self.since = (time.process_time(), time.monotonic())

    def see(self, state: LoopState) -> None:
        self.cpu += time.process_time() - self.since[0]
        self.wall += time.monotonic() - self.since[1]
        if not self.curve or state.step > self.curve[-1][0]:
            loss = total_loss(self.cell, state.candidates, self.count, self.steps)
            self.curve.append((state.step, self.cpu, loss))
            self.last = {
                "step": state.step, "seconds": self.cpu, "wall": self.wall, "loss": loss,
                "candidates": state.candidates.count, "found": state.candidates,
                "evaluations": state.evaluations,
            }  # fmt: skip
            if self.reached is None and loss <= self.target:
                self.reached = self.last
            if self.cpu >= self.limit:
                raise Enough("time")
        self.start()

    def scored(self, row: Row | None) -> Row | None:
        if row is None:
            return None
        rest = {name: value for name, value in row.items() if name != "found"}
        return {**rest, "scores": scores(self.cell, cast(row["found"], torch.float64))}


def our_run(cell: Cell, way: str, start: Candidates, watch: Watch) -> str:
    """Run ours until the time of the watch is over; the text says why it ended."""
    objective = attacked(cell, torch.float32, start.count)
    if objective.schedule:
        period = SHARE * TemperatureSchedule().period if way == PUBLISHED else PERIOD
        objective = replace(objective, schedule=TemperatureSchedule(period=period))
    limit = None if way == "off" else GROWTH * start.count
    settings = published(cell, max(1, round(SHARE * watch.steps)))
    if way != PUBLISHED:
        settings = SolveSettings("lbfgs", **WAYS[way], limit=limit, steps=10**6, log_every=10**6)
    hooks = Hooks(save=watch.see, save_every=EVERY, save_seconds=math.inf)
    watch.start()
    try:
        return solve(objective, cast(start, torch.float32), settings, hooks=hooks).stopped
    except Enough:
        return "time"


def measure(method: str, size: Size, steps: int, folder: Path) -> Row:
    """Both sides of one method as a JSON-ready row."""
    name = pilot(method, size, steps, folder)
    cell = make_cell(method, name, size, folder / "victims")
    start = begin(cell, size.seed)
    stem = f"peer-{name}-{size.data}-{size.seed}-{size.samples}-{size.width}-{steps}"
    peer = Peer(cell.setting, cell.network, cell.initial, torch.from_numpy(cell.data.mean), start)
    theirs = peer_run(cell, peer, steps, folder / f"{stem}.npz")
    print(f"{method} peer: loss {theirs['loss']:.5g}, {theirs['seconds']:.0f} s", flush=True)
    paces = [peer.pace()]
    ours = {}
    for way in WAYS:
        watch = Watch(cell, start.count, steps, theirs["lowest"], SHARE * steps * min(paces))
        stopped = our_run(cell, way, start, watch)
        paces.append(peer.pace())
        ours[way] = {
            "reached": watch.scored(watch.reached), "end": watch.scored(watch.last),
            "stopped": stopped, "curve": watch.curve[:: max(1, len(watch.curve) // 100)],
        }  # fmt: skip
        print(f"{method} {way}: {ours[way]['curve'][-1]}, {stopped}", flush=True)
    return {
        **asdict(size), "method": method, "preset": name, "steps": steps, "peer": theirs,
        "paces": paces, "ours": ours,
    }  # fmt: skip


def measure_round(method: str, width: str, size: Size, folder: Path, count: int) -> Row:
    """Rounds and steps of one method, in turn, as a JSON-ready row."""
    quick = replace(size, width=width, training=min(QUICK, size.training))
    cell = make_cell(method, PRESETS_OF[method][-1], quick, folder / "victims")
    objective = attacked(cell, torch.float32, count)
    state: Candidates | LoopState = cast(begin(cell, size.seed, count), torch.float32)
    steps: list[float] = []
    rounds: dict[str, list[float]] = {name: [] for name in ROUNDS}
    splits: dict[str, list[int]] = {name: [] for name in ROUNDS}
    for repeat in range(3):
        times: list[float] = []
        hooks = Hooks(save=partial(_note, times), save_every=1)
        found = solve(objective, state, published(cell, 100 + 20 * repeat), hooks=hooks)
        # The last interval is the check at the end of the loop.
        steps.extend(np.diff(times)[-21:-1].tolist())
        state = found.state
        at = objective.with_step(state.step)
        for name, mode in ROUNDS.items():
            given = found.candidates.with_mass() if "shared" in name else found.candidates
            began = time.process_time()
            _, _, record = split_candidates(at, given, mode=mode, seed=repeat)
            rounds[name].append(time.process_time() - began)
            splits[name].append(len(record.chosen))
    step = float(np.median(steps))
    return {
        "method": method, "width": width, "candidates": count, "dimension": objective.dimension,
        "step": step, "rounds": {name: float(np.median(t)) for name, t in rounds.items()},
        "splits": {name: float(np.median(n)) for name, n in splits.items()},
    }  # fmt: skip


def _note(times: list[float], _: LoopState) -> None:
    times.append(time.process_time())


def table(rows: list[Row]) -> str:
    """Both sides of each method, one below the other."""
    head = (
        "method", "side", "steps", "CPU s", "sooner", "wall s", "loss", "candidates",
        "L2 < 3.16 (held-out, mean image, random)", "SSIM > 0.4, L2", "SSIM > 0.4, NCC",
        "top 10 L2", "median L2",
    )  # fmt: skip
    lines: list[list[object]] = []
    for row in rows:
        theirs, quickest = row["peer"], row["steps"] * min(row["paces"])
        fair = min(theirs["seconds"], quickest)
        lowest = f"{theirs['loss']:.4g}, lowest {theirs['lowest']:.4g}"
        seconds = f"{theirs['seconds']:.0f}, {fair:.0f} beside ours"
        lines.append([row["method"], f"peer, {row['preset']}", row["steps"], seconds, "",
                      *_cells(theirs, lowest)])  # fmt: skip
        for way, run in row["ours"].items():
            for part, words in ((run["reached"], "at that loss"), (run["end"], "at its end")):
                side = f"ours, {way}, {words}"
                if part is None:
                    lines.append([row["method"], side, "never", *[""] * (len(head) - 3)])
                    continue
                times = f"{part['seconds']:.1f}", f"{fair / part['seconds']:.1f}"
                cells = *times, *_cells(part, f"{part['loss']:.4g}")
                lines.append([row["method"], side, part["step"], *cells])
    return markdown(head, lines)


def _cells(part: Row, loss: str) -> list[str]:
    null, found = part["scores"], part["scores"]["found"]
    cells = [f"{part['wall']:.0f}", loss, str(part["candidates"])]
    for kind, name in (
        ("matched_l2", "l2 < 3.16228"), ("matched_l2", "ssim > 0.4"), ("matched_ncc", "ssim > 0.4"),
    ):  # fmt: skip
        others = ", ".join(str(null[other][kind][name]) for other in NULLS)
        cells.append(f"{found[kind][name]} ({others})")
    return [*cells, *(f"{found['matched_l2'][name]:.2f}" for name in ("top 10 l2", "median l2"))]


def round_table(rows: list[Row]) -> str:
    """Time of a round in steps."""
    head = ("method", "victim", "candidates", "step, CPU ms", *(f"round, {n}" for n in ROUNDS))
    lines = []
    for row in rows:
        first = [row["method"], f"{row['dimension']}-{row['width']}", row["candidates"]]
        parts = [(row["rounds"][name] / row["step"], row["splits"][name]) for name in ROUNDS]
        cells = [f"{ratio:.0f} steps, {split:.0f} split" for ratio, split in parts]
        lines.append([*first, f"{1e3 * row['step']:.1f}", *cells])
    return markdown(head, lines)


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of victims and runs")
    parser.add_argument("--methods", nargs="+", default=list(PRESETS_OF), choices=PRESETS_OF)
    parser.add_argument("--data", default=Size.data, help="mnist, or digits")
    parser.add_argument("--seed", type=int, default=Size.seed)
    parser.add_argument("--samples", type=int, default=Size.samples)
    parser.add_argument("--width", default=Size.width)
    parser.add_argument("--steps", type=int, help="of the peer; those of the preset unless given")
    parser.add_argument("--training", type=int, default=Size.training)
    parser.add_argument("--round", action="store_true", help="time splitting rounds instead")
    parser.add_argument("--candidates", type=int, default=500, help="in a splitting round")
    parser.add_argument("--widths", nargs="+", default=["500", "1000-1000"], help="for --round")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = Size(
        options.samples, options.width, options.steps, options.training, options.data, options.seed
    )
    options.out.mkdir(parents=True, exist_ok=True)
    if options.round:
        target, names = options.out / "rounds.jsonl", ("method", "width", "candidates")
        keys = [(m, w, options.candidates) for m in options.methods for w in options.widths]
    else:
        target, names = options.out / "runs.jsonl", KEYS
        same = (size.data, size.seed, size.samples, size.width)
        lengths = {m: size.steps or preset(PRESETS_OF[m][0]).steps for m in options.methods}
        keys = [(method, *same, steps) for method, steps in lengths.items()]
    done = finished(target, *names)
    for key in [] if options.table else [key for key in keys if key not in done]:
        if options.round:
            done[key] = measure_round(key[0], key[1], size, options.out, options.candidates)
        else:
            done[key] = measure(key[0], size, key[-1], options.out)
        keep(target, done[key])
    print((round_table if options.round else table)([done[key] for key in keys if key in done]))


if __name__ == "__main__":
    main()
