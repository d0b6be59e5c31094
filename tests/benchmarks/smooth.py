"""Batches of CIFAR-10 images from one gradient of a smooth network: share, error, time.

    KKTCERT_DATA=... python -m tests.benchmarks.smooth [--rows gelu-50-200 ...] [--seeds 5]
                                                       [--float32] [--seconds 600]

A row is ACTIVATION-n-m (one output, no loss; cubic without bias) or deep-ACTIVATION-n-WIDTHS
(cross-entropy, ten classes, labels unknown). torch's default initialisation; images (x - 0.5) /
0.25. "search" is the time of rank and search, "whole" with the evidence for the verdict.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

import identify
from identify.disaggregation.search.find import Hunt, search
from identify.disaggregation.search.pose import pose, thinned
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope
from tests.identify.disaggregation.problems import initialise
from tests.identify.disaggregation.search.families import distances

ROWS = (
    "gelu-10-25", "tanh-10-25", "silu-10-25", "sigmoid-10-25", "softplus-10-25",
    "gelu-20-60", "tanh-20-60", "silu-20-60", "sigmoid-20-60", "softplus-20-60",
    "gelu-50-200", "tanh-50-200", "silu-50-200", "sigmoid-50-200", "softplus-50-200",
    "gelu-100-400", "tanh-100-400", "sigmoid-100-400", "gelu-200-800", "tanh-200-800",
    "sigmoid-200-800", "cubic-20-41", "cubic-50-600", "cubic-100-2200",
    "deep-gelu-8-256,256", "deep-gelu-16-256,256", "deep-gelu-32-256,256", "deep-gelu-64-256,256",
    "deep-tanh-8-512,512,512", "deep-tanh-16-512,512,512", "deep-tanh-32-512,512,512",
    "deep-tanh-64-512,512,512",
)  # fmt: skip


def problem(
    row: str, seed: int, images: npt.NDArray[np.float64]
) -> tuple[DeepNetwork, DeepGradient, npt.NDArray[np.float64], str | None]:
    """The network, gradient, batch and loss of a row."""
    rng = np.random.default_rng(seed)
    *head, kind, count, widths = row.split("-")
    n = int(count)
    batch = images[rng.choice(len(images), n, replace=False)]
    d = images.shape[1]
    if head:
        sizes = [d, *map(int, widths.split(",")), 10]
        network = initialise(sizes, rng, kind)
        p = loss_slope("cross_entropy", network.value(batch), rng.integers(0, 10, n)) / n
        return network, network.gradient(batch, p), batch, "cross_entropy"
    cubic = kind == "cubic"
    network = initialise([d, int(widths), 1], rng, "monomial:3" if cubic else kind, not cubic)
    weights = rng.uniform(0.3, 0.7, n) * np.where(np.arange(n) % 2, 1.0, -1.0) / n
    return network, network.gradient(batch, weights[:, None]), batch, None


def single(gradient: DeepGradient) -> DeepGradient:
    """The gradient in float32."""
    return DeepGradient(
        [None if w is None else w.astype(np.float32) for w in gradient.weights],
        [None if b is None else b.astype(np.float32) for b in gradient.biases],
    )


def main() -> None:
    """Print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    stored = np.load(Path(os.environ["KKTCERT_DATA"]) / "cifar10_subset.npz")["test_images"]
    images = (stored.reshape(len(stored), -1) / 255.0 - 0.5) / 0.25
    print("| row | complete | false | `locally` | error | bound | search s | whole s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for row in options.rows:
        complete = false = locally = 0
        errors, bounds, searched, whole = [], [], [], []
        for seed in range(options.seeds):
            network, gradient, batch, loss = problem(row, seed, images)
            gradient = single(gradient) if options.float32 else gradient
            started = time.process_time()
            spaces = pose(network, gradient, loss, samples=None, seed=0).spaces
            rng = np.random.default_rng([0, 1])
            search(Hunt(spaces, thinned(spaces, rng), gradient.biases[-1], rng))
            searched.append(time.process_time() - started)
            started = time.process_time()
            report = identify.assess_gradient(network, gradient, loss, time_limit=options.seconds)
            whole.append(time.process_time() - started)
            locally += report.verdict == "locally"
            found = report.found
            if found.samples is None or found.error_bounds is None:
                continue
            apart = distances(report, batch)
            false += int((apart > 0.1).sum())
            complete += len(apart) == len(batch) and bool((apart <= 0.1).all())
            errors.append(float(apart.max()))
            bounds.append(float(found.error_bounds.max()))
        print(
            f"| {row} | {complete} of {options.seeds} | {false} | {locally} "
            f"| {max(errors, default=np.nan):.0e} | {max(bounds, default=np.nan):.0e} "
            f"| {np.median(searched):.2f} | {np.median(whole):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
