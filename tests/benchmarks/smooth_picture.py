"""The picture of docs/gradient.md: digits from one gradient of a GELU network, and under noise.

    python -m tests.benchmarks.smooth_picture docs/images/smooth.png [--seconds 30]

Eight digits in a fresh network of 64-96-96-10, cross-entropy. One row each: the batch, and for some
levels of Gaussian noise, relative to each array's norm, the sample that is nearest to each digit,
empty where none is within 10 %. The levels are those of --what-if noise around the limit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import identify
from identify.pictures import contact_sheet
from tests.identify.disaggregation.problems import add_noise, initialise, plant_batch

LEVELS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
NEAR = 0.1


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    pixels, classes = load_digits(return_X_y=True)
    rng = np.random.default_rng(4)
    network = initialise([64, 96, 96, 10], rng, "gelu")
    chosen = rng.choice(len(pixels), 8, replace=False)
    x = pixels[chosen] / 16
    exact = plant_batch(network, x, classes[chosen]).gradient
    rows = [("the batch", x.reshape(-1, 8, 8), [f"label {label}" for label in classes[chosen]])]
    for level in LEVELS:
        noisy = add_noise(exact, level, np.random.default_rng(5)) if level else exact
        report = identify.assess_gradient(
            network, noisy, "cross-entropy", time_limit=options.seconds
        )
        shown, captions = np.ones_like(x), ["not found"] * len(x)
        found = report.found.samples
        if found is not None:
            apart = np.linalg.norm(x[:, None] - found, axis=2) / np.linalg.norm(x, axis=1)[:, None]
            for i, place in enumerate(apart.argmin(axis=1)):
                if apart[i, place] < NEAR:
                    shown[i], captions[i] = found[place], f"error {apart[i, place]:.0e}"
        title = f"noise {level:.0e}: {report.verdict}" if level else f"no noise: {report.verdict}"
        print(title, captions, flush=True)
        rows.append((title, shown.reshape(-1, 8, 8), captions))
    title = "Eight digits from one gradient of a GELU network, labels unknown"
    contact_sheet(options.out, rows, title, limits=(0.0, 1.0))


if __name__ == "__main__":
    main()
