"""Does splitting help? Objectives, data sets and modes, paired by seeds.

Run from the root, whole or in parts, also in two processes side by side; finished runs are kept in
the folder and skipped by the next call:

    KKTCERT_DATA=... OMP_NUM_THREADS=1 python -m tests.benchmarks.attack_splitting --out splitting
                     [--objectives haim] [--data mnist] [--seeds 0 1] [--modes off auto] [--table]

Seed s draws 20 images, balanced, and seeds victim and start; modes share all three. The victim has
two hidden layers of 200 units. For haim and buzaglo it is trained by 2,000 normalised steps from a
first layer of 1e-4, then scaled so that the least margin is 12 (a loss of 6e-6, about where
published training ends; a KKT point stays one), for loo to a squared loss of 1e-10. 40 candidates,
10,000 steps in float32 by the solver of each method (momentum 0.9; Adam for loo), rounds after
2,500, 5,000 and 7,500.

Objective `loo-span` attacks the victims of `loo` as `kktcert attack` does unless told otherwise:
candidates in the span of the first layer's change, averaged features, a ridge chosen from the
start, L-BFGS, and a tenth of the steps.

Softness, floor and temperature are those of the presets in `PRESETS_OF`. So are rates and starting
scale for loo; for haim and buzaglo, whose published ones belong to 1,000 candidates, they are the
best of a grid by the loss alone, in runs without splitting of a quarter of the steps, on a victim
of its own (seed 1000); once for all seeds and modes.

Modes: "off"; "paper", the rule of the authors step by step: rounds are never taken back and the
optimiser starts afresh after each; "auto", at most 120 candidates. At equal time: every run of a
seed at the CPU time at which the shortest of them ended. Beside the losses stands that of the true
images with their best multipliers (`loss_at_truth`), which no run sees. A further mode on demand,
"wide": no splitting, 120 candidates from the start with a third of the multipliers each, a control
for what is due to their number alone. A control of another kind are data `mnist-exact`: the target
of each objective is moved by the residual of the true images, so that these have a data loss of 0
(loo at the temperature of step 10,000), as if the equations held at the victim.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attack import evaluate, solve
from attack.networks.files import load_network, save_network
from attack.networks.network import Network
from attack.objectives import Candidates, Objective
from attack.objectives.by_name import Victim
from attack.objectives.penalties import RidgePenalty
from attack.objectives.presets import Preset, preset
from attack.objectives.residual import ResidualObjective
from attack.objectives.spans import SpanObjective, span_objective
from attack.runs.restriction import take_span
from attack.runs.ridge import choose_ridge, with_ridge
from attack.solving.loop import Hooks
from attack.solving.multipliers import optimal_multipliers
from attack.solving.settings import SolveSettings
from attack.solving.state import LoopState
from attack.splitting.split_round import split_candidates
from attack.training.images import ImageData, load_images
from attack.training.train import train_network
from identify.errors import KktCertError
from tests.benchmarks.splitting_table import finished, keep, tables

OBJECTIVES, DATA = ("haim", "buzaglo", "loo", "loo-span"), ("mnist", "cifar10")
MODES, EXACT, SPAN = ("off", "paper", "auto"), "-exact", "-span"
SAMPLES, CANDIDATES_A_SAMPLE, GROWTH = 20, 2, 3
PILOT_SEED, MARGIN = 1000, 12.0
PRESETS_OF = {
    ("haim", "mnist"): "haim-mnist-1",
    ("haim", "cifar10"): "haim-cifar-1",
    ("buzaglo", "mnist"): "buzaglo-multiclass-2",
    ("buzaglo", "cifar10"): "buzaglo-multiclass-2",
    ("loo", "mnist"): "loo",
    ("loo", "cifar10"): "loo",
}
QUICKER = 10
"""So many times fewer steps of L-BFGS than of Adam."""
GRID = {
    "rate_x": (0.1, 0.3, 1.0, 3.0),
    "rate_lam": (1e-3, 1e-2, 1e-1),
    "start_scale": (1e-3, 3e-2),
}


@dataclass(frozen=True)
class Size:
    """How large the experiment is; the defaults are those of the table."""

    samples: int = SAMPLES
    width: int = 200
    training: int = 2_000
    steps: int = 10_000
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: GRID)

    @property
    def candidates(self) -> int:
        return CANDIDATES_A_SAMPLE * self.samples

    @property
    def interval(self) -> int:
        return max(1, self.steps // 4)


@dataclass(frozen=True, eq=False)
class Cell:
    """One victim: what the attack sees, and the images by which it is judged afterwards."""

    objective: str
    network: Network
    initial: Network | None
    data: ImageData
    held_out: ImageData
    setting: Preset
    exact: bool = False
    spanned: bool = False

    def attacked(self, count: int, device: str = "cpu") -> Objective:
        """The objective in float32."""
        objective = self._attacked(count, device)
        if self.spanned:
            span = take_span("auto", Victim(self.network, self.initial), published=False).span
            return objective if span is None else span_objective(objective, span)
        if not self.exact:
            return objective
        fixed = replace(objective.with_step(Size.steps), schedule=None, factor=None)
        residual = fixed.residual(self.truth(fixed))
        return replace(
            fixed, target=tuple(t - r for t, r in zip(fixed.target, residual, strict=True))
        )

    def truth(self, attacked: Objective) -> Candidates:
        """The true images with their best multipliers."""
        x = torch.from_numpy(self.data.samples).to(attacked.device, attacked.dtype)
        if isinstance(attacked, SpanObjective):
            x = attacked.span.drop(x)
        blank = attacked.start(len(x), 0, 1.0)
        labels = blank.labels
        if labels is not None:
            labels = torch.from_numpy(self.data.labels).to(labels)
        found = Candidates(x, blank.lam, labels)
        return found.with_points(x, optimal_multipliers(attacked, found))

    def _attacked(self, count: int, device: str) -> ResidualObjective:
        network = self.network.to(device, torch.float32)
        before = None if self.initial is None else self.initial.to(device, torch.float32)
        mean = torch.from_numpy(self.data.mean).to(device, torch.float32)
        return self.setting.build(network, count=count, initial=before, mean=mean)


def images(objective: str, data: str, samples: int, seed: int) -> tuple[ImageData, ImageData]:
    """Draw the training set, and held-out images of the same classes."""
    several = objective == "buzaglo"
    classes = 10 if several else 2
    each = max(1, samples // classes)
    reduction = "pixel" if objective != "loo" else "channel" if data == "cifar10" else "scalar"
    task = "multiclass" if several else "regression" if objective == "loo" else "binary"
    options: dict[str, Any] = {"task": task, "draw": "random", "seed": seed}
    chosen = load_images(data, per_class=each, mean=reduction, **options)
    more = 4 * GROWTH * each
    return chosen, load_images(data, per_class=more, skip=each, mean=chosen.mean, **options)


def make_cell(
    objective: str, data: str, seed: int, size: Size, folder: Path, device: str = "cpu"
) -> Cell:
    """Train the victim, or take it from the folder."""
    exact, data = data.endswith(EXACT), data.removesuffix(EXACT)
    spanned, objective = objective.endswith(SPAN), objective.removesuffix(SPAN)
    chosen, others = images(objective, data, size.samples, seed)
    setting = preset(PRESETS_OF[objective, "cifar10" if data == "cifar10" else "mnist"])
    if spanned:
        setting = replace(setting, features="average", optimiser="lbfgs")
    stem = f"{objective}-{data}-{seed}-{size.samples}-{size.width}-{size.training}"
    files = [folder / f"{stem}-{part}.safetensors" for part in ("final", "initial")]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        shape = f"{chosen.samples.shape[1]}-{size.width}-{size.width}"
        common: dict[str, Any] = {"seed": seed, "kkt": False, "device": device}
        if objective == "loo":
            trained = train_network(f"{shape}-1,relu,bias=all", chosen, loss="squared", **common)
            network = trained.network
        else:
            outputs = 10 if objective == "buzaglo" else 1
            loss = "cross-entropy" if objective == "buzaglo" else "logistic"
            trained = train_network(
                f"{shape}-{outputs},relu,bias=first", chosen, loss=loss, scale=1e-4,
                target_loss=0.0, steps=size.training, **common,
            )  # fmt: skip
            least = float(trained.margins.min())
            if size.training and least <= 0:
                raise KktCertError(f"victim {stem} does not fit its data; train it longer")
            # Homogeneous of degree 3 in all parameters together.
            factor = (MARGIN / least) ** (1 / 3) if size.training else 1.0
            network = trained.network.with_parameters(
                [factor * p for p in trained.network.parameters()]
            )
        save_network(trained.initial, files[1])
        save_network(network, files[0])
    network = load_network(files[0])
    initial = load_network(files[1]) if objective == "loo" else None
    return Cell(objective, network, initial, chosen, others, setting, exact, spanned)


def settings_of(cell: Cell, rates: Mapping[str, float], size: Size, **more: Any) -> SolveSettings:
    """The solver of the method."""
    if not cell.spanned:
        more = {**more, "rate_x": rates["rate_x"], "rate_lam": rates["rate_lam"]}
    return SolveSettings(
        cell.setting.optimiser,
        steps=size.steps,
        interval=size.interval,
        window=size.interval,
        log_every=max(1, size.interval),
        **more,
    )


def choose_rates(objective: str, data: str, size: Size, folder: Path) -> dict[str, float]:
    """Rates and starting scale of a cell: of the preset, or the best of the grid by the loss."""
    cell = make_cell(objective, data, PILOT_SEED, size, folder)
    published = {name: float(getattr(cell.setting, name)) for name in GRID}
    if objective.startswith("loo") or not size.grid:
        return published
    best, chosen = math.inf, published
    attacked = cell.attacked(size.candidates)
    for values in itertools.product(*size.grid.values()):
        rates = dict(zip(size.grid, values, strict=True))
        settings = settings_of(cell, rates, replace(size, steps=size.interval), splitting="off")
        start = attacked.start(size.candidates, PILOT_SEED, rates["start_scale"])
        try:
            loss = solve(attacked, start, settings).loss
        except KktCertError:
            continue
        print(f"pilot {objective} {data} {rates}: {loss:.6g}", flush=True)
        if loss < best:
            best, chosen = loss, rates
    return chosen


@dataclass(eq=False)
class Watch:
    """CPU time without what does not belong to the attack, and the candidates now and then."""

    every: int
    shots: list[tuple[int, float, Candidates]] = field(default_factory=list)
    spent: float = 0.0
    since: float = field(default_factory=time.process_time)

    def see(self, state: LoopState) -> None:
        seconds = self.spent + time.process_time() - self.since
        if not self.shots or state.step > self.shots[-1][0]:
            self.shots.append((state.step, seconds, state.candidates))

    def hooks(self) -> Hooks:
        return Hooks(save=self.see, save_every=self.every, save_seconds=math.inf)

    def forget_check(self) -> None:
        """Leave out what came after the last step, the check at the end of the loop."""
        self.spent, self.since = self.shots[-1][1], time.process_time()


def run(
    cell: Cell, mode: str, seed: int, rates: Mapping[str, float], size: Size
) -> tuple[Objective, Watch, list[str]]:
    """One attack; the truth is not seen."""
    attacked = cell.attacked(size.candidates)
    wide = mode == "wide"
    start = attacked.start((GROWTH if wide else 1) * size.candidates, seed, rates["start_scale"])
    if wide:
        start = start.with_points(start.x, start.lam / GROWTH)
    watch = Watch(max(1, size.steps // 40))
    if cell.spanned:
        attacked = with_ridge(attacked, choose_ridge(attacked, start))
    if mode != "paper":
        limit = GROWTH * size.candidates if mode == "auto" else None
        splitting = "off" if wide else mode
        settings = settings_of(cell, rates, size, splitting=splitting, limit=limit, seed=seed)
        found = solve(attacked, start, settings, hooks=watch.hooks())
        return attacked, watch, [r.message for r in found.state.rounds]
    settings = settings_of(cell, rates, size, splitting="off", seed=seed)
    state, messages = LoopState.first(start, settings), []
    while state.step < size.steps:
        end = min(state.step + size.interval, size.steps)
        found = solve(attacked, state, replace(settings, steps=end), hooks=watch.hooks())
        # A solver that is done before the end waits for the round.
        state = replace(found.state, step=end)
        watch.forget_check()
        if end < size.steps:
            new, _, record = split_candidates(
                attacked.with_step(end), state.candidates, mode="paper", rollback=False,
                seed=seed + end,
            )  # fmt: skip
            messages.append(record.message)
            state = replace(state, candidates=new, memory=settings.build().begin(new))
    return attacked, watch, messages


def scores(cell: Cell, candidates: Candidates) -> dict[str, Any]:
    """One-to-one scores by NCC and by L2, and those of the nulls."""
    found = evaluate(
        candidates.x.double().cpu().numpy(), cell.data.samples, cell.data.image_shape,
        mean=cell.data.mean, held_out=cell.held_out.samples,
    )  # fmt: skip
    sets = {"found": found.found, **found.null}
    return {
        name: {kind: part.scores[kind].summary(found.settings) for kind in KINDS}
        for name, part in sets.items()
    }


KINDS = ("matched_ncc", "matched_l2")


def ridge_of(objective: Objective) -> float:
    """The weight on the squares of the multipliers."""
    return sum(p.weight for p in objective.penalties if isinstance(p, RidgePenalty))


def loss_at_truth(cell: Cell, size: Size, ridge: float = 0.0) -> float:
    """The loss of the true images with their best multipliers, which no run has to reach.

    It is not 0: a victim is only near a KKT point, kinks of ReLU have no gradient, and the
    linearisation of loo is not exact. Below it a lower loss no longer tells of better images.
    """
    attacked = cell.attacked(size.candidates).with_step(size.steps)
    if ridge:
        attacked = with_ridge(attacked, ridge)
    return float(attacked.value(cell.truth(attacked)))


def measure(
    objective: str, data: str, mode: str, seed: int, size: Size, rates: Mapping[str, float],
    folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """One run of the table as a JSON-ready row; a run whose loss is lost says so."""
    cell = make_cell(objective, data, seed, size, folder)
    row: dict[str, Any] = {
        "objective": objective, "data": data, "seed": seed, "mode": mode,
        "steps": size.steps, "samples": size.samples, "width": size.width, "rates": dict(rates),
    }  # fmt: skip
    if cell.spanned:
        size = replace(size, steps=max(1, size.steps // QUICKER))
    try:
        attacked, watch, messages = run(cell, mode, seed, rates, size)
    except KktCertError as error:
        return {**row, "failed": str(error)}
    curve = []
    for step, seconds, candidates in watch.shots:
        seen = attacked.lifted(candidates) if isinstance(attacked, SpanObjective) else candidates
        found = scores(cell, seen)
        curve.append(
            {
                "step": step,
                "seconds": seconds,
                "loss": float(attacked.with_step(step).value(candidates)),
                "data_loss": float(attacked.with_step(step).data_value(candidates)),
                "candidates": candidates.count,
                **{kind: found["found"][kind] for kind in KINDS},
            }
        )
    return {**row, "curve": curve, "null": {k: v for k, v in found.items() if k != "found"},
            "rounds": messages, "ridge": ridge_of(attacked)}  # fmt: skip


def hours(cells: list[tuple[str, str, int]], modes: list[str], size: Size, folder: Path) -> float:
    """Estimate of the runs that are missing, from the time of a few steps on untrained victims."""
    total = 0.0
    quick = replace(size, training=0, steps=30)
    for objective, data in sorted({cell[:2] for cell in cells}):
        cell = make_cell(objective, data, 0, quick, folder / "untrained")
        attacked = cell.attacked(size.candidates)
        rates = {name: 1e-6 for name in GRID}
        settings = settings_of(cell, rates, quick, splitting="off")
        seconds = []
        for count in (size.candidates, GROWTH * size.candidates):
            watch = Watch(1)
            solve(attacked, attacked.start(count, 0, 1e-3), settings, hooks=watch.hooks())
            seconds.append(float(np.median(np.diff([shot[1] for shot in watch.shots]))))
        parts = sum(1 for one in cells if one[:2] == (objective, data))
        # Modes that split are taken to work at the largest number after the first quarter.
        split = 0.25 * seconds[0] + 0.75 * seconds[1]
        each = sum(seconds[0] if mode == "off" else split for mode in modes)
        total += parts * size.steps * each / 3600
        print(
            f"{objective} {data}: a step takes {1e3 * seconds[0]:.1f} ms at {size.candidates} "
            f"candidates, {1e3 * seconds[1]:.1f} ms at {GROWTH * size.candidates}",
            flush=True,
        )
    return total


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of victims and runs")
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--data", nargs="+", default=list(DATA), help="also digits, mnist-exact")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=[*MODES, "wide"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--steps", type=int, default=Size.steps)
    parser.add_argument("--samples", type=int, default=Size.samples)
    parser.add_argument("--width", type=int, default=Size.width)
    parser.add_argument("--training", type=int, default=Size.training)
    parser.add_argument("--presets", action="store_true", help="no pilot: published rates as is")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = Size(options.samples, options.width, options.training, options.steps)
    if options.presets:
        size = replace(size, grid={})
    target, victims = options.out / "runs.jsonl", options.out / "victims"
    keys = ("objective", "data", "seed", "mode", "steps", "samples", "width")
    done = finished(target, *keys)
    everything = [
        (objective, data, seed, mode, options.steps, options.samples, options.width)
        for objective in options.objectives
        for data in options.data
        for seed in options.seeds
        for mode in options.modes
    ]
    missing = [] if options.table else [one for one in everything if one not in done]
    if missing:
        cells = sorted({one[:3] for one in missing})
        expected = hours(cells, options.modes, size, victims)
        print(f"{len(missing)} runs missing, about {expected:.2f} hours in one process", flush=True)
    for one in missing:
        objective, data, seed, mode = one[:4]
        real = data.removesuffix(EXACT)
        file = options.out / f"rates-{objective}-{real}-{options.steps}.json"
        if not file.exists():
            file.write_text(json.dumps(choose_rates(objective, real, size, victims)))
        rates = json.loads(file.read_text())
        row = measure(objective, data, mode, seed, size, rates, victims)
        keep(target, row)
        done[one] = row
        last = row["curve"][-1] if "curve" in row else None
        print(f"{one[:4]}: {row.get('failed') or last}", flush=True)
    shown = [one for one in everything if one in done]
    ridges = {key[:3]: float(done[key].get("ridge", 0.0)) for key in shown}
    truth = {
        one: loss_at_truth(make_cell(*one, size, victims), size, ridge)
        for one, ridge in ridges.items()
    }
    print(tables([{**done[one], "at_truth": truth[one[:3]]} for one in shown]))


if __name__ == "__main__":
    main()
