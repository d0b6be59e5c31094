"""How many samples two checkpoints show: the table of docs/checkpoints.md.

    [KKTCERT_DATA=DIR] python -m tests.benchmarks.checkpoint_span [--runs 200] [--adam 100]

Networks of 2 to 4 layers fine-tuned on n digits (MNIST where the folder of real data is given, else
random images of 400 pixels), half of them stored in float32: the number of samples that `find_span`
states, beside the true one.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

import numpy as np

from identify.arrays import FloatArray
from identify.checkpoints.span import find_span
from identify.model.deep import DeepNetwork
from tests.identify.checkpoints.training import Recipe, start, train

KINDS = ("plain", "momentum", "decay", "mini-batches")


def images() -> FloatArray:
    """Rows of pixels in [0, 1]."""
    folder = os.environ.get("KKTCERT_DATA")
    if folder is None:
        return np.random.default_rng(0).random((2000, 400))
    pixels = np.load(Path(folder) / "mnist_subset.npz")["images"].astype(np.float64)
    return np.asarray(pixels.reshape(len(pixels), -1) / pixels.max())


def recipe(kind: str, count: int, rng: np.random.Generator) -> Recipe:
    """A training run of one kind."""
    steps = int(rng.integers(5, 60))
    if kind == "adam":
        return Recipe("adam", int(rng.choice([1, 3, 10, 50])), 10.0 ** rng.uniform(-4, -2))
    if kind == "momentum":
        return Recipe("momentum", steps, 0.01)
    if kind == "decay":
        return Recipe("momentum", steps, 0.01, 10.0 ** rng.uniform(-4, -2))
    if kind == "mini-batches":
        return Recipe(
            "plain", max(steps, 8 * count // max(1, count // 4)), 0.05, 0.0, -(-count // 4)
        )
    return Recipe("plain", steps, 0.05)


def pair(kind: str, seed: int, data: FloatArray) -> tuple[DeepNetwork, DeepNetwork, int]:
    """Two checkpoints and the number of samples between them; few samples are the hard ones."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 11 if seed % 2 else 101))
    depth = int(rng.integers(2, 5))
    widths = [int(rng.integers(150, 401)) for _ in range(depth - 1)]
    before = start((data.shape[1], *widths, 10), rng, str(rng.choice(["relu", "gelu", "tanh"])))
    chosen = rng.choice(len(data), count, replace=False)
    labels = rng.integers(0, 10, count).astype(np.float64)
    return before, train(before, data[chosen], labels, recipe(kind, count, rng), rng), count


def single(network: DeepNetwork) -> DeepNetwork:
    """The network as a float32 file holds it."""
    weights = [weight.astype(np.float32) for weight in network.weights]
    biases = [None if bias is None else bias.astype(np.float32) for bias in network.biases]
    return DeepNetwork(weights, biases, network.activations)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--adam", type=int, default=100)
    options = parser.parse_args()
    data = images()
    print("| training | runs | exact | no number | wrong number |\n" + "|---" * 5 + "|")
    for kind in (*KINDS, "adam"):
        runs = options.adam if kind == "adam" else options.runs // len(KINDS)
        ended: Counter[str] = Counter()
        for seed in range(runs):
            before, after, count = pair(kind, seed, data)
            if seed % 4 >= 2:
                before, after = (single(network) for network in (before, after))
            found = find_span(before, after)
            exact = "exact" if found.samples == count else "wrong"
            ended["none" if found.samples is None else exact] += 1
            if found.samples not in (None, count):
                print(kind, seed, found.samples, count, found.gap, found.kept)
        print(
            f"| {kind} | {runs} | {ended['exact']} | {ended['none']} | {ended['wrong']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
