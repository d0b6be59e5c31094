"""Soundness of `nonidentifiable` for one gradient of a ReLU network, and its completeness.

    python -m tests.benchmarks.second_sets [--seeds 30] [--first 0]

Prints a row for each family. Wrong: two sets are shown where one set explains the gradient, or a
set that is shown does not give the exact gradient to 1e-6 when it is recomputed sample by sample.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import identify
from tests.identify.disaggregation.second_sets import FAMILIES, case, is_wrong

WORDS = ("nonidentifiable", "undecided", "globally", "wrong")


def main() -> None:
    """Print the table, every wrong verdict, and the reasons where two sets are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    notes: list[str] = []
    print(f"| family | {' | '.join(WORDS)} | s |\n" + "|---" * (len(WORDS) + 2) + "|")
    for family, (_, ambiguous) in FAMILIES.items():
        table: Counter[str] = Counter()
        started = time.perf_counter()
        for seed in range(options.first, options.first + options.seeds):
            problem = case(family, seed)
            report = identify.assess_gradient(problem.network, problem.gradient, **problem.options)
            table[report.verdict] += 1
            found = is_wrong(problem, report)
            if found:
                table["wrong"] += 1
                notes.append(f"WRONG {family} seed {seed}: {found}")
            elif ambiguous and report.verdict != "nonidentifiable":
                notes.append(f"missing {family} seed {seed}: {report.reason}")
        cells = " | ".join(str(table[word]) for word in WORDS)
        print(f"| {family} | {cells} | {time.perf_counter() - started:.1f} |", flush=True)
    print("\n".join(notes))


if __name__ == "__main__":
    main()
