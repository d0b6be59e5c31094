"""How often digits can be planted so that the weights determine them.

Run from the root, for one degree at a time:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.planting --degrees 3 --sizes 6 8 10

Choice s of n digits (scikit-learn, mean of all digits removed) is drawn with seed s, and planted
with seed s. A network counts if the rank of its Hermite equations is N with redundant equations.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from identify.arrays import FloatArray
from identify.errors import KktCertError
from identify.planting.plant import PlantedNetwork, plant_network
from identify.tensors import symmetric_dimension

COLUMNS = (
    "degree", "n", "N", "kind", "determined", "kept from the first try", "neurons",
    "condition number", "largest residual", "seconds",
)  # fmt: skip


def digits() -> FloatArray:
    """The 1797 digits (8 x 8), mean removed, shape (1797, 64)."""
    from sklearn.datasets import load_digits

    images = np.asarray(load_digits().data, dtype=np.float64)
    centred: FloatArray = images - images.mean(axis=0)
    return centred


def measure(
    images: FloatArray, degree: int, count: int, kind: str, seeds: range, limit: float
) -> list[str]:
    """One row of the table; ranges are median and worst."""
    found: list[PlantedNetwork] = []
    seconds = []
    for seed in seeds:
        chosen = np.random.default_rng(seed).choice(len(images), size=count, replace=False)
        start = time.perf_counter()
        try:
            planted = plant_network(
                images[chosen],
                degree=degree,
                stationary=kind,
                determined=True,
                seed=seed,
                time_limit=limit,
            )
        except KktCertError as error:
            print(f"degree {degree}, n {count}, {kind}, seed {seed}: {error}")
        else:
            found.append(planted)
        seconds.append(time.perf_counter() - start)
    conditions = [p.condition_number or np.inf for p in found] or [np.nan]
    widths = [p.network.width for p in found] or [0]
    residual = max((p.stationarity for p in found), default=np.nan)
    if kind == "margin":
        residual = max([residual, *(float(np.max(np.abs(p.margins - 1))) for p in found)])
    return [
        str(degree),
        str(count),
        str(symmetric_dimension(degree, count)),
        kind,
        f"{len(found)}/{len(seeds)}",
        f"{sum(p.tries == 1 for p in found)}/{len(seeds)}",
        f"{min(widths)} to {max(widths)}",
        f"{np.median(conditions):.0e}, {np.max(conditions):.0e}",
        f"{residual:.0e}",
        f"{np.median(seconds):.1f}, {np.max(seconds):.1f}",
    ]


def main() -> None:
    """Print the table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--degrees", type=int, nargs="+", default=[3])
    parser.add_argument("--sizes", type=int, nargs="+", default=[6, 8, 10])
    parser.add_argument("--kinds", nargs="+", default=["regression", "margin"])
    parser.add_argument("--choices", type=int, default=20, help="seeds 0 to CHOICES - 1")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds a network")
    options = parser.parse_args()
    images = digits()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    for degree in options.degrees:
        for count in options.sizes:
            for kind in options.kinds:
                row = measure(
                    images, degree, count, kind, range(options.choices), options.time_limit
                )
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
