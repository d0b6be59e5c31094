"""Soundness of the verdict on disaggregated gradients, and its completeness.

    python -m tests.benchmarks.disaggregation_soundness [--count 2200] [--determined 500]

Prints one row per family (merged: globally, the true set is larger and the printed one gives the
same gradient), every wrong `globally`, and every missing one with its reason.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict

import identify
from identify.disaggregation.records import GLOBALLY
from identify.errors import InvalidInputError
from tests.identify.disaggregation.families import (
    Case,
    determined,
    is_merged,
    is_wrong,
    undetermined,
)

WORDS = ("globally", "nonidentifiable", "undecided", "refused", "merged", "wrong")


def main() -> None:
    """Print the table and the exceptions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2200)
    parser.add_argument("--determined", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    notes: list[str] = []

    def count(seed: int, case: Case, expected: bool) -> None:
        started = time.perf_counter()
        try:
            report = identify.assess_gradient(
                case.network, case.gradient, time_limit=20.0, **case.options
            )
            result = report.found
            report.to_json(), str(report)
        except InvalidInputError as error:
            tables[case.family]["refused"] += 1
            if "zeros" not in str(error):
                notes.append(f"refused {case.family} seed {seed}: {error}")
            return
        seconds[case.family] += time.perf_counter() - started
        tables[case.family][result.verdict] += 1
        if result.verdict == GLOBALLY and is_merged(case, result):
            tables[case.family]["merged"] += 1
        problem = is_wrong(case, result)
        if problem:
            tables[case.family]["wrong"] += 1
            notes.append(f"WRONG {case.family} seed {seed} {case.options}: {problem}")
        elif expected and result.verdict != GLOBALLY:
            notes.append(f"missing {case.family} seed {seed}: {result.reason}")

    last = options.first + options.count
    for seed in range(options.first, last):
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
