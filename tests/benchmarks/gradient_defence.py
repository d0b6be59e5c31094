"""What rounding and noise in a gradient leave of its batch: the table of docs/gradient.md.

    python -m tests.benchmarks.gradient_defence [--batches 5] [--activation relu] [--seconds 30]

Ten random digits in a network of 64-128-512-10 as torch initialises it, cross-entropy. One row per
change: verdicts, samples within 10 % of a true one, the median error of those, right labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

import identify
from identify.model.deep import DeepGradient
from tests.identify.disaggregation.problems import initialise, plant_batch

Array = npt.NDArray[np.float64]
Change = Callable[[Array, np.random.Generator], Array]


def _noise(level: float) -> Change:
    def change(array: Array, rng: np.random.Generator) -> Array:
        size = level * np.linalg.norm(array) / np.sqrt(array.size)
        return np.asarray(array + rng.normal(scale=size, size=array.shape))

    return change


def _int8(array: Array, _: np.random.Generator) -> Array:
    step = np.abs(array).max() / 127
    return np.asarray(np.round(array / step) * step)


def _bfloat16(array: Array, _: np.random.Generator) -> Array:
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


CHANGES: dict[str, Change] = {
    "float32": lambda a, _: a.astype(np.float32).astype(np.float64),
    "float16, scaled": lambda a, _: (a / np.abs(a).max()).astype(np.float16) * np.abs(a).max(),
    "bfloat16": _bfloat16,
    "int8 per array": _int8,
    "noise 1e-6": _noise(1e-6),
    "noise 1e-4": _noise(1e-4),
    "noise 1e-3": _noise(1e-3),
    "noise 1e-2": _noise(1e-2),
    "noise 1e-1": _noise(1e-1),
    "noise 1": _noise(1.0),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    word = "globally" if options.activation == "relu" else "locally"
    pixels, classes = load_digits(return_X_y=True)
    print(f"| gradient | `{word}` | samples | median error | labels |\n" + "|---" * 5 + "|")
    for name, change in CHANGES.items():
        sure = found = right = 0
        errors: list[float] = []
        for seed in range(options.batches):
            rng = np.random.default_rng(seed)
            network = initialise([64, 128, 512, 10], rng, options.activation)
            chosen = rng.choice(len(pixels), 10, replace=False)
            x = pixels[chosen] / 16
            exact = plant_batch(network, x, classes[chosen]).gradient
            moved = DeepGradient(
                tuple(change(w, rng) for w in exact.weights if w is not None),
                tuple(change(b, rng) for b in exact.biases if b is not None),
            )
            result = identify.assess_gradient(
                network, moved, "cross-entropy", prove=False, time_limit=options.seconds
            ).found
            sure += result.verdict == word
            if result.samples is None or result.layer != 0:
                continue
            apart = np.linalg.norm(x[:, None] - result.samples, axis=2)
            apart /= np.linalg.norm(x, axis=1)[:, None]
            near = apart.min(axis=1) < 0.1
            found += int(near.sum())
            errors += list(apart.min(axis=1)[near])
            if result.labels is not None:
                match = result.labels[apart.argmin(axis=1)] == classes[chosen]
                right += int((match & near).sum())
        total = 10 * options.batches
        middle = f"{np.median(errors):.0e}" if errors else "-"
        print(f"| {name} | {sure} of {options.batches} | {found} of {total} | {middle} | {right} |")


if __name__ == "__main__":
    main()
