"""How large a batch comes out of one gradient, how fast, and under how much noise.

    KKTCERT_DATA=DIR python -m tests.benchmarks.disaggregation [--part size depth noise few between]

DIR holds cifar10_subset.npz and mnist_subset.npz. Seconds are those of the process on one thread
(set OMP_NUM_THREADS=1), memory is the largest resident size.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from identify.budget import Budget
from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.records import Disaggregation
from identify.model.deep import DeepGradient
from tests.identify.disaggregation.problems import (
    Planted,
    add_noise,
    change,
    draw_labels,
    initialise,
    plant_batch,
)

FloatArray = npt.NDArray[np.float64]

HEAD = (
    "| problem | gradient | seed | verdict | largest error | median | largest bound | below 1e-3 | "
    "labels | s | GB | reason |\n" + "|---" * 12 + "|"
)


def images(dimension: int) -> tuple[FloatArray, FloatArray]:
    """Standardised training images and labels: CIFAR-10 for 3072, MNIST for 784."""
    name = {3072: "cifar10_subset", 784: "mnist_subset"}[dimension]
    data = np.load(Path(os.environ["KKTCERT_DATA"]) / f"{name}.npz")
    x = data["images"].reshape(-1, dimension) / 255.0
    centre, spread = (0.5, 0.25) if dimension == 3072 else (0.1307, 0.3081)
    return (x - centre) / spread, data["labels"]


def batch(sizes: list[int], count: int, seed: int) -> Planted:
    """The gradient of a batch of images in a network as torch initialises it."""
    rng = np.random.default_rng(seed)
    x, _ = images(sizes[0])
    network = initialise(sizes, rng)
    chosen = x[rng.choice(len(x), count, replace=False)]
    return plant_batch(network, chosen, draw_labels(sizes[-1], count, rng))


def bfloat16(x: FloatArray) -> FloatArray:
    """Round to bfloat16."""
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def spoil(problem: Planted, kind: str, seed: int) -> DeepGradient:
    """The gradient as it would be shared: a dtype, noise, the largest entries, or clipped."""
    rng = np.random.default_rng([7, seed])
    g = problem.gradient
    if kind == "float64":
        return g
    if kind == "float32":
        return change(g, lambda x: x.astype(np.float32).astype(np.float64))
    if kind == "float16":
        return change(g, lambda x: (x * 2.0**14).astype(np.float16).astype(np.float64) / 2.0**14)
    if kind == "bfloat16":
        return change(g, bfloat16)
    if kind == "int8":
        return change(g, lambda x: np.round(x / np.abs(x).max() * 127) / 127 * np.abs(x).max())
    if kind.startswith("top"):
        share = 1.0 - float(kind[3:]) / 100.0
        return change(g, lambda x: np.where(np.abs(x) >= np.quantile(np.abs(x), share), x, 0.0))
    if kind == "clipped":
        return change(g, lambda x: 0.37 * x)
    if kind.startswith("dp"):
        return private(problem, float(kind[2:]), rng)
    return add_noise(g, float(kind), rng)


def private(problem: Planted, sigma: float, rng: np.random.Generator) -> DeepGradient:
    """Samples clipped to norm 1, summed, with noise sigma, divided by the number of samples."""
    n = len(problem.samples)
    run = problem.network.forward(problem.samples)
    deltas = problem.network.backward(run, problem.cotangents)
    squares = sum(
        np.sum(d**2, axis=1) * (np.sum(h**2, axis=1) + 1.0)
        for d, h in zip(deltas, run.inputs, strict=True)
    )
    p = problem.cotangents / np.sqrt(squares)[:, None]
    clipped = problem.network.gradient(problem.samples, p)
    return change(clipped, lambda x: (x + sigma * rng.normal(size=x.shape)) / n)


def errors(problem: Planted, result: Disaggregation) -> tuple[FloatArray, float]:
    """Relative error of every true sample, and the share of labels that are right."""
    count = len(problem.samples)
    if result.samples is None or result.layer != 0:
        return np.full(count, np.inf), 0.0
    apart = np.linalg.norm(result.samples[:, None] - problem.samples[None], axis=2)
    order = apart.argmin(axis=0)
    relative = apart.min(axis=0) / np.linalg.norm(problem.samples, axis=1)
    right = 0.0 if result.labels is None else float(np.mean(result.labels[order] == problem.labels))
    return relative, right


def row(name: str, kind: str, seed: int, problem: Planted, limit: float) -> str:
    """Run one problem and print its row."""
    gradient = spoil(problem, kind, seed)
    started = time.process_time()
    reduction = None if kind.startswith(("clipped", "dp")) else "mean"
    result = disaggregate(
        problem.network, gradient, problem.loss, reduction=reduction, budget=Budget.of(limit)
    )
    seconds = time.process_time() - started
    relative, right = errors(problem, result)
    bound = np.inf if result.error_bounds is None else result.error_bounds.max()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    reason = "" if result.verdict == "globally" else result.reason[-150:]
    text = (
        f"| {name} | {kind} | {seed} | {result.verdict} | {relative.max():.1e} | "
        f"{np.median(relative):.1e} | {bound:.1e} | {np.mean(relative < 1e-3):.2f} | {right:.2f} | "
        f"{seconds:.1f} | {memory:.2f} | {reason} |"
    )
    print(text, flush=True)
    return text


def table(sizes: list[int], count: int, kinds: list[str], seeds: int, limit: float) -> None:
    """One row per seed and kind of gradient."""
    name = f"{'-'.join(map(str, sizes))}, n = {count}"
    for seed in range(seeds):
        problem = batch(sizes, count, seed)
        for kind in kinds:
            row(name, kind, seed, problem, limit)


KINDS = ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "3e-2", "1e-1", "float16", "bfloat16", "int8",
         "top90", "top50", "clipped", "dp1e-4", "dp1e-3", "dp0.01", "dp0.1", "dp1"]  # fmt: skip


def main() -> None:
    """Print the tables of the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ["size", "depth", "noise", "few", "between", "large"]
    parser.add_argument("--part", nargs="+", choices=parts, default=parts[:-1])
    parser.add_argument("--count", type=int, default=1, help="seeds")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a problem")
    options = parser.parse_args()
    count, limit = options.count, options.limit
    print(HEAD)
    if "size" in options.part:
        table([3072, 300, 1], 20, ["float64", "float32"], count, limit)
        table([3072, 1400, 1], 50, ["float64", "float32"], count, limit)
        table([3072, 5400, 1], 100, ["float32"], count, limit)
    if "large" in options.part:
        table([3072, 12000, 1], 150, ["float32"], count, 10 * limit)
    if "depth" in options.part:
        table([3072, 512, 10], 20, ["float64", "float32"], count, limit)
        table([3072, 512, 512, 512, 10], 20, ["float64", "float32"], count, limit)
        table([784, 1024, 1024, 10], 30, ["float64", "float32"], count, limit)
    if "noise" in options.part:
        table([3072, 300, 1], 20, KINDS, count, limit)
        table([3072, 1000, 1], 20, KINDS, count, limit)
        table([3072, 1000, 10], 20, KINDS, count, limit)
    if "few" in options.part:
        for n, width in ((20, 30), (20, 34), (20, 40), (40, 60), (40, 80), (44, 80)):
            table([3072, width, 1], n, ["float64", "float32"], count, limit)
    if "between" in options.part:
        for n, width in ((10, 80), (20, 180), (30, 310)):
            table([3072, width, 10], n, ["float64", "float32", "1e-4"], count, limit)


if __name__ == "__main__":
    main()
