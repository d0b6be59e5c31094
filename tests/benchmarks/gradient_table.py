"""What a gradient still gives away once it is rounded, thinned out or noised: the defender's table.

    KKTCERT_DATA=DIR python -m tests.benchmarks.gradient_table [--seeds 3] [--out FOLDER]

Twenty CIFAR-10 images in networks 3072-300-1, 3072-1000-1 and 3072-1000-10 as torch initialises
them. A sample counts as found within 10 % of a true one. DP-SGD clips every sample's gradient to
norm 1, sums, adds noise sigma to every entry and divides by 20. With --attack S the last network is
also attacked by gradient matching for so many seconds a row, given the number of samples. With
--out the table is written as CSV, and as a figure if matplotlib is there.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

import identify
from identify.report.gradient import GradientReport
from tests.benchmarks.disaggregation import batch, errors, spoil
from tests.identify.disaggregation.problems import Planted

NETWORKS = ([3072, 300, 1], [3072, 1000, 1], [3072, 1000, 10])
COUNT = 20
NAMES = {
    "float32": "float32", "1e-6": "noise 1e-6", "1e-5": "noise 1e-5", "1e-4": "noise 1e-4",
    "1e-3": "noise 1e-3", "1e-2": "noise 1e-2", "3e-2": "noise 3e-2", "1e-1": "noise 1e-1",
    "float16": "float16", "bfloat16": "bfloat16", "int8": "int8", "top90": "top 90 %",
    "top50": "top 50 %", "clipped": "clipped as a batch", "dp0.01": "DP-SGD, sigma 0.01",
    "dp0.1": "DP-SGD, sigma 0.1", "dp1": "DP-SGD, sigma 1",
}  # fmt: skip
HEAD = ("network", "gradient", "verdict", "found", "median error", "largest error",
        "largest bound", "labels", "s")  # fmt: skip


def solve(problem: Planted, kind: str, seed: int, limit: float) -> tuple[GradientReport, float]:
    """The report on a changed gradient, and its seconds."""
    started = time.process_time()
    reduction = None if kind.startswith(("clipped", "dp")) else "mean"
    report = identify.assess_gradient(
        problem.network, spoil(problem, kind, seed), problem.loss, reduction=reduction,
        time_limit=limit, prove=False,
    )  # fmt: skip
    return report, time.process_time() - started


def measure(sizes: list[int], kind: str, seeds: int, limit: float) -> list[str]:
    """One row: verdicts, samples within 10 %, errors of all, the largest bound, right labels."""
    sure, seconds = 0, 0.0
    relative: list[float] = []
    bounds: list[float] = []
    right = 0
    for seed in range(seeds):
        problem = batch(sizes, COUNT, seed)
        report, spent = solve(problem, kind, seed, limit)
        seconds += spent / seeds
        found = report.found
        sure += report.verdict == "globally"
        error, _ = errors(problem, found)
        relative += error.tolist()
        if found.samples is None or found.layer != 0:
            continue
        if found.error_bounds is not None:
            bounds.append(float(found.error_bounds.max()))
        if found.labels is not None:
            apart = np.linalg.norm(found.samples[:, None] - problem.samples[None], axis=2)
            match = found.labels[apart.argmin(axis=0)] == problem.labels
            right += int((match & (error < 0.1)).sum())
    total = len(relative)
    return [
        "-".join(map(str, sizes)), NAMES[kind], f"{sure} of {seeds} globally",
        f"{int((np.array(relative) < 0.1).sum())} of {total}", _spell(np.median(relative)),
        _spell(np.max(relative)), _spell(max(bounds, default=np.inf)), f"{right} of {total}",
        f"{seconds:.1f}",
    ]  # fmt: skip


def attack(sizes: list[int], kind: str, seconds: float) -> list[str]:
    """Gradient matching by optimisation for so long, from the number of samples and labels."""
    import torch

    from attack.reconstruction import reconstruct

    problem = batch(sizes, COUNT, 0)
    sent = spoil(problem, kind, 0)
    own = problem.network
    tensors = []
    for weight, bias in zip(sent.weights, sent.biases, strict=True):
        tensors += [torch.tensor(np.array(part)) for part in (weight, bias) if part is not None]
    layers: list[torch.nn.Module] = []
    for weight, bias in zip(own.weights, own.biases, strict=True):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(np.array(weight)))
            linear.bias.copy_(torch.tensor(np.array(bias)))
        layers += [linear, torch.nn.ReLU()]
    started = time.process_time()
    run = reconstruct(
        torch.nn.Sequential(*layers[:-1]), "gradient_matching", gradient=tensors,
        options={"loss": "cross-entropy", "normaliser": COUNT}, count=COUNT, start_scale=1.0,
        splitting="off", time_limit=seconds, seed=0,
    )  # fmt: skip
    found = np.asarray(run.candidates).reshape(-1, sizes[0])
    apart = np.linalg.norm(found[:, None] - problem.samples[None], axis=2).min(axis=0)
    relative = apart / np.linalg.norm(problem.samples, axis=1)
    return [
        "-".join(map(str, sizes)), f"{NAMES[kind]}, gradient matching", "-",
        f"{int((relative < 0.1).sum())} of {COUNT}", _spell(np.median(relative)),
        _spell(relative.max()), "-", "-", f"{time.process_time() - started:.1f}",
    ]  # fmt: skip


def _spell(value: float) -> str:
    return f"{value:.0e}" if np.isfinite(value) else "-"


def draw(rows: list[list[str]], path: Path) -> None:
    """Median errors of every network, change by change."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    changes = list(dict.fromkeys(row[1] for row in rows))
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for name in dict.fromkeys(row[0] for row in rows):
        points = {row[1]: float(row[4]) for row in rows if row[0] == name and row[4] != "-"}
        places = [changes.index(change) for change in points]
        axes.plot(places, list(points.values()), "o", label=name, alpha=0.8)
    axes.axhline(0.1, color="grey", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_ylabel("median relative error of the images")
    axes.set_xticks(range(len(changes)), changes, rotation=60, ha="right")
    axes.legend(title="network")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Print the table; write it and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=100.0, help="seconds a problem")
    parser.add_argument("--kinds", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--attack", type=float, help="seconds of gradient matching a row")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n" + "|---" * len(HEAD) + "|", flush=True)
    rows = []
    for sizes in NETWORKS:
        for kind in options.kinds:
            rows.append(measure(list(sizes), kind, options.seeds, options.limit))
            print(f"| {' | '.join(rows[-1])} |", flush=True)
    matched = []
    for kind in options.kinds if options.attack is not None else ():
        matched.append(attack(list(NETWORKS[-1]), kind, options.attack))
        print(f"| {' | '.join(matched[-1])} |", flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / "gradient-table.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEAD, *rows, *matched])
        draw(rows, options.out / "gradient-table.png")


if __name__ == "__main__":
    main()
