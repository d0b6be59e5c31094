"""The samples between two checkpoints without a recipe: share of the images that come back.

`KKTCERT_DATA=DIR python -m tests.benchmarks.two_checkpoints --samples 20 --width 1000` prints one
row for each way of training and final loss.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from identify.checkpoints.pair import separate_pair
from identify.checkpoints.span import find_span
from tests.benchmarks.fine_tuned import Run, errors, make_pair

WAYS = {
    "plain": Run(),
    "momentum": Run(rate=0.02, momentum=0.9),
    "mini-batches of 5": Run(batch=5),
    "FedAvg, 5 epochs of batch 5": Run(batch=5, epochs=5),
}


def row(options: argparse.Namespace, way: str, target: float) -> str:
    """One row: shares over all images of all seeds, and the worst seed's residual."""
    shares, residuals, flips, seconds, complete, labels = [], [], [], [], 0, []
    for seed in range(options.seeds):
        pair = make_pair(
            (options.width, options.outputs), options.samples, replace(WAYS[way], target=target),
            seed, activation=options.activation, kind=options.start, centred=not options.raw,
        )  # fmt: skip
        started = time.monotonic()
        found = separate_pair(
            pair.initial, pair.final, find_span(pair.initial, pair.final), time_limit=options.limit
        )
        seconds.append(time.monotonic() - started)
        residuals.append(found.residual)
        flips.append(pair.flips)
        if found.samples is None or found.labels is None:
            shares.append(np.full(len(pair.x), np.inf))
            continue
        away = errors(found.samples, pair.x)
        nearest = np.linalg.norm(found.samples[:, None] - pair.x, axis=2).argmin(axis=0)
        labels.append(np.mean(found.labels[nearest] == pair.y))
        shares.append(away)
        complete += bool(np.all(away < 0.05))
    all_of = np.concatenate(shares)
    parts = " / ".join(f"{np.mean(all_of < level):.2f}" for level in (0.01, 0.05, 0.3))
    return (
        f"| {options.samples}, {options.width}, {options.outputs} | {way} | {target:g} | "
        f"{np.mean(flips):.3f} | {complete} of {options.seeds} | {parts} | "
        f"{np.mean(labels) if labels else 0.0:.2f} | {np.median(residuals):.1e} to "
        f"{max(residuals):.1e} | {np.median(seconds):.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--outputs", type=int, default=1)
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--start", choices=["torch", "normal"], default="torch")
    parser.add_argument("--raw", action="store_true", help="pixels from 0 to 1, not centred")
    parser.add_argument("--losses", type=float, nargs="+", default=[0.3, 0.1, 0.01])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["plain"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--limit", type=float, default=120.0)
    options = parser.parse_args()
    print(
        "| n, width, outputs | training | loss | flips | all within 5 % | images within "
        "1 / 5 / 30 % | labels | residual | seconds |"
    )
    print("|---" * 9 + "|")
    for way in options.ways:
        for target in options.losses:
            print(row(options, way, target), flush=True)


if __name__ == "__main__":
    main()
