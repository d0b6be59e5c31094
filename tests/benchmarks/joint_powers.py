"""Odd powers with fewer than 2n neurons: samples from their joint equations, and false solutions.

    KKTCERT_DATA=... python -m tests.benchmarks.joint_powers [--rows 5-8 20-30] [--seeds 5]
                                                             [--again 3] [--float32]

A row n-m is a cubic network of width m without bias, one output, torch's default initialisation,
and the gradient of n CIFAR-10 images. Every solution that a start ends in is compared with the
truth: `--again` more solutions are looked for from other starts. A solution is false if a sample of
it is further than 1e-3 from every image, up to sign and length; each is listed below the table.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from identify.budget import Budget
from identify.disaggregation.search.joint import joint_of, joint_power, solve_joint
from identify.disaggregation.search.pose import pose
from tests.benchmarks.smooth import problem, single

ROWS = ("5-6", "5-8", "8-9", "8-12", "10-11", "10-12", "10-15", "20-26", "20-30", "20-39")
FALSE = 1e-3


def furthest(found: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> float:
    """The largest distance of a direction found from the nearest true one, up to sign."""
    found, true = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, true))
    both = np.concatenate([true, -true])
    return float(np.linalg.norm(found[:, None] - both[None], axis=2).min(axis=1).max())


def main() -> None:
    """Print one line a row, then the false solutions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--again", type=int, default=3)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    stored = np.load(Path(os.environ["KKTCERT_DATA"]) / "cifar10_subset.npz")["test_images"]
    images = (stored.reshape(len(stored), -1) / 255.0 - 0.5) / 0.25
    print("| n, m | to spare | found | solutions | false | error | bound | starts | s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    listed: list[str] = []
    for row in options.rows:
        complete = solutions = false = 0
        errors, bounds, starts, times, spare = [], [], [], [], []
        for seed in range(options.seeds):
            network, gradient, batch, _ = problem(f"cubic-{row}", seed, images)
            gradient = single(gradient) if options.float32 else gradient
            spaces = pose(network, gradient, None, samples=None, seed=0).spaces
            joint = joint_of(spaces)
            assert joint is not None
            spare.append(joint_power(joint, spaces.rank))
            for again in range(1 + options.again):
                rng = np.random.default_rng([seed, again])
                started = time.process_time()
                found = solve_joint(joint, spaces.rank, rng, Budget.of(options.seconds))
                if again == 0:
                    times.append(time.process_time() - started)
                    complete += len(found.points) == len(batch)
                    starts.append(found.starts)
                if not len(found.points):
                    continue
                solutions += 1
                apart = furthest(found.points @ spaces.bottom.rows.T, batch)
                if apart > FALSE:
                    false += 1
                    listed.append(f"{row}, seed {seed}, start {again}: {apart:.1e} off")
                    continue
                errors.append(apart)
                bounds.append(float(found.bounds.max()))
        print(
            f"| {row.replace('-', ', ')} | {min(spare)} | {complete} of {options.seeds} "
            f"| {solutions} | {false} | {max(errors, default=np.nan):.0e} "
            f"| {max(bounds, default=np.nan):.0e} | {int(np.median(starts))} "
            f"| {np.median(times):.1f} |",
            flush=True,
        )
    print("\n".join(["", "false solutions:", *(listed or ["none"])]))


if __name__ == "__main__":
    main()
