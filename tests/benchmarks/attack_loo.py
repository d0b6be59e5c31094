"""What helps `loo`: the span, the ridge, the averaged features, each left out in turn.

Run from the root; finished runs are kept in the folder and skipped by the next call:

    KKTCERT_DATA=... OMP_NUM_THREADS=1 python -m tests.benchmarks.attack_loo --out loo
                     [--data mnist] [--samples 40] [--seeds 0 1] [--ways default] [--table]

The victims are those of `attack_speed`: 784-500-1 (3072-500-1 for CIFAR-10), trained to a squared
loss of 1e-10 on that many images of two classes, drawn by the seed, which seeds the victim and the
start too. Twice as many candidates as samples, float32, L-BFGS, 500 steps. CPU seconds are those of
the whole attack, with the search of span and ridge.

Beside the counts stand what only the owner of the data can know: the data loss of the true images
with their best multipliers, at the last temperature, and their sum of squared multipliers; both are
seen by no run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attack
from attack.objectives import Candidates, LooPenalties, loo_objective, pixel_box
from attack.objectives.by_name import Victim
from attack.objectives.schedules import TemperatureSchedule
from attack.runs.restriction import take_span
from attack.runs.run import Run
from attack.solving.multipliers import optimal_multipliers
from tests.benchmarks.attack_speed import Size, make_cell
from tests.benchmarks.attack_splitting import KINDS, Cell
from tests.benchmarks.splitting_table import Row, finished, keep, markdown

WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "splitting auto": {"splitting": "auto"},
    "without ridge": {"ridge": "off"},
    "without span": {"span": "off"},
    "features final": {"options": {"features": "final"}},
    "none of the three": {"ridge": "off", "span": "off", "options": {"features": "final"}},
}
KEYS = ("data", "samples", "seed", "way", "steps")
NULLS = ("held_out", "mean_image", "random", "span_random", "span_held_out")
COUNTS = {"L2 < 3.16": ("matched_l2", "l2 < 3.16228"), "SSIM > 0.4": ("matched_l2", "ssim > 0.4")}


def truth_of(cell: Cell, features: str) -> tuple[float, float]:
    """Data loss of the true images over |target|^2, and their sum of squared multipliers."""
    assert cell.initial is not None
    x = torch.from_numpy(cell.data.samples)
    mean = torch.from_numpy(cell.data.mean)
    nets = [n.to("cpu", torch.float64) for n in (cell.initial, cell.network)]
    objective = loo_objective(
        *nets, normaliser=2 * len(x), features=features, schedule=TemperatureSchedule(),
        penalties=LooPenalties(box=pixel_box(mean)),
    ).with_step(10**9)  # fmt: skip
    blank = objective.start(len(x), 0, 1.0)
    at = Candidates(x, optimal_multipliers(objective, blank.with_points(x, blank.lam)))
    size = sum(float(t.square().sum()) for t in objective.target)
    return float(objective.data_value(at)) / size, float(at.lam.square().sum())


def scored(cell: Cell, run: Run) -> dict[str, Any]:
    """One-to-one scores of a run and its nulls, those of the span among them."""
    span = take_span("auto", Victim(cell.network, cell.initial), published=False).span
    given = None if span is None else (span.mean.numpy(), span.basis.numpy())
    found = attack.evaluate(
        run.candidates, cell.data.samples, cell.data.image_shape, mean=cell.data.mean,
        held_out=cell.held_out.samples, span=given,
    )  # fmt: skip
    sets = {"found": found.found, **found.null}
    return {
        name: {kind: part.scores[kind].summary(found.settings) for kind in KINDS}
        for name, part in sets.items()
    }


def measure(data: str, samples: int, seed: int, way: str, steps: int, folder: Path) -> Row:
    """One attack as a JSON-ready row."""
    size = Size(samples=samples, data=data, seed=seed)
    cell = make_cell("loo", "loo", size, folder / "victims")
    fields: dict[str, Any] = {"splitting": "off", **WAYS[way]}
    began = time.process_time()
    run = attack.reconstruct(
        cell.network, "loo", initial=cell.initial, mean=cell.data.mean, count=2 * samples,
        steps=steps, seed=seed, dtype=torch.float32, **fields,
    )  # fmt: skip
    seconds = time.process_time() - began
    features = fields.get("options", {}).get("features", "average")
    true_loss, true_sum = truth_of(cell, features)
    pairs = zip(cell.network.parameters(), cell.initial.parameters(), strict=True)  # type: ignore[union-attr]
    target = sum(float((a - b).double().square().sum()) for a, b in pairs)
    ridges = [p for p in run.settings["objective"]["penalties"] if p["name"] == "ridge"]
    return {
        "data": data, "samples": samples, "seed": seed, "way": way, "steps": steps,
        "seconds": seconds, "loss": run.data_loss / target, "true_loss": true_loss,
        "squares": float(np.square(run.multipliers).sum()), "true_squares": true_sum,
        "ridge": ridges[0]["weight"] if ridges else 0.0, "candidates": len(run.candidates),
        "scores": scored(cell, run),
    }  # fmt: skip


def table(rows: Iterable[Row]) -> str:
    """Means over the seeds, one line for each way."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["samples"], row["way"]), []).append(row)
    head = (
        "data", "samples", "way", "runs", *(f"{name}, of samples" for name in COUNTS),
        "least to most", "nulls of L2", "top 10 L2", "median L2", "loss / true", "sum / true",
        "ridge", "candidates", "CPU s",
    )  # fmt: skip
    return markdown(head, [_line(key, part) for key, part in groups.items()])


def _line(key: tuple[Any, ...], rows: list[Row]) -> list[object]:
    def values(name: str, kind: str, label: str) -> list[float]:
        return [row["scores"][name][kind][label] for row in rows if name in row["scores"]]

    first = values("found", *COUNTS["L2 < 3.16"])
    nulls = [values(name, *COUNTS["L2 < 3.16"]) for name in NULLS]
    medians = [
        float(np.median([row[a] / row[b] for row in rows]))
        for a, b in (("loss", "true_loss"), ("squares", "true_squares"))
    ]
    return [
        *key, len(rows),
        *(f"{np.mean(values('found', *count)):.1f}" for count in COUNTS.values()),
        f"{min(first)} to {max(first)}",
        ", ".join(f"{np.mean(part):.1f}" for part in nulls if part),
        *(f"{np.mean(values('found', 'matched_l2', m)):.2f}" for m in ("top 10 l2", "median l2")),
        *(f"{value:.2f}" for value in medians),
        f"{np.median([row['ridge'] for row in rows]):.1e}",
        f"{np.mean([row['candidates'] for row in rows]):.0f}",
        f"{np.mean([row['seconds'] for row in rows]):.0f}",
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of victims and runs")
    parser.add_argument("--data", nargs="+", default=["mnist"], help="mnist, cifar10, digits")
    parser.add_argument("--samples", nargs="+", type=int, default=[40])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    target = options.out / "runs.jsonl"
    done = finished(target, *KEYS)
    wanted = [
        (data, samples, seed, way, options.steps)
        for data in options.data
        for samples in options.samples
        for seed in options.seeds
        for way in options.ways
    ]
    for key in [] if options.table else [key for key in wanted if key not in done]:
        done[key] = measure(*key, options.out)
        keep(target, done[key])
        part = done[key]["scores"]["found"]["matched_l2"]
        print(f"{key}: {part}, {done[key]['seconds']:.0f} s", flush=True)
    print(table(done[key] for key in wanted if key in done))


if __name__ == "__main__":
    main()
