"""Soundness and completeness of the verdict on weights of two-layer ReLU networks.

    python -m tests.benchmarks.stationary_soundness [--count 450] [--determined 100] [--first 0]

Prints one row per family (merged: globally, and the true set is larger than the printed one, which
makes the same weights; rivals: small exact cases for which all sets of at most r samples were
tried), every wrong `globally`, and every missing one with its reason.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict

import numpy as np

import identify
from identify.disaggregation.records import GLOBALLY
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork
from proofs_check.statements.batches.mask_lists import explaining_sets
from proofs_check.statements.batches.networks import Batch
from tests.identify.disaggregation.stationary_families import (
    Weights,
    determined,
    is_merged,
    is_wrong,
    undetermined,
)

WORDS = ("globally", "undecided", "refused", "merged", "rivals", "wrong")
_MOST_DIRECTIONS = 6
_MOST_SAMPLES = 3


def rivals(weights: Weights) -> int | None:
    """The number of sets of at most n samples that explain exact weights, by trying all masks.

    One neuron of each direction; None where there are too many masks.
    """
    bias = weights.network.biases[0]
    if not weights.exact or bias is None or len(weights.samples) > _MOST_SAMPLES:
        return None
    rows = np.column_stack([weights.network.weights[0], bias])
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first = np.sort(np.unique(np.round(units, 6), axis=0, return_index=True)[1])
    if len(first) > _MOST_DIRECTIONS or len(first) < len(weights.samples):
        return None
    network = DeepNetwork(
        [rows[first, :-1], weights.network.weights[1][:, first]], [rows[first, -1], [0.0]], "relu"
    )
    return len(explaining_sets(Batch(network, weights.samples, weights.coefficients[:, None], 0)))


def main() -> None:
    """Print the table and the exceptions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=450)
    parser.add_argument("--determined", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    notes: list[str] = []

    def count(seed: int, weights: Weights, expected: bool) -> None:
        table = tables[weights.family]
        started = time.perf_counter()
        try:
            report = identify.assess_stationary(
                weights.network, weights.source, trained=weights.trained, time_limit=20.0,
                **weights.options,
            )  # fmt: skip
            report.to_json(), str(report)
        except InvalidInputError as error:
            table["refused"] += 1
            notes.append(f"refused {weights.family} seed {seed}: {error}")
            return
        seconds[weights.family] += time.perf_counter() - started
        table[report.verdict] += 1
        table["merged"] += is_merged(weights, report)
        problem = is_wrong(weights, report)
        if report.verdict == GLOBALLY and not problem:
            others = rivals(weights)
            table["rivals"] += others is not None
            problem = "" if others in (None, 1) else f"{others} sets explain the weights"
        if problem:
            table["wrong"] += 1
            notes.append(f"WRONG {weights.family} seed {seed}: {problem}")
        elif expected and report.verdict != GLOBALLY:
            notes.append(f"missing {weights.family} seed {seed}: {report.reason}")

    for seed in range(options.first, options.first + options.count):
        count(seed, undetermined(seed), False)
    for seed in range(options.first, options.first + options.determined):
        count(seed, determined(seed), True)
    print(f"| family | {' | '.join(WORDS)} | s |\n" + "|---" * (len(WORDS) + 2) + "|")
    for family, table in tables.items():
        cells = " | ".join(str(table[word]) for word in WORDS)
        print(f"| {family} | {cells} | {seconds[family]:.1f} |")
    print("\n".join(notes))


if __name__ == "__main__":
    main()
