"""Soundness over networks that are not determined, completeness over networks that are.

    python -m tests.benchmarks.soundness [--undetermined 2100] [--determined 500]

Prints one row per family; every wrong `globally` and every missing one with its reason.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict

from identify import Verdict, assess_identifiability
from tests.identify.families import Case, determined, undetermined
from tests.identify.judging import is_wrong


def main() -> None:
    """Print the table and the exceptions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--undetermined", type=int, default=2100)
    parser.add_argument("--determined", type=int, default=500)
    options = parser.parse_args()
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    notes: list[str] = []

    def count(seed: int, case: Case, expected: bool) -> None:
        started = time.perf_counter()
        report = assess_identifiability(case.data, **case.options, evidence="numerical")
        tables[case.family]["seconds"] += time.perf_counter() - started  # type: ignore[assignment]
        tables[case.family][report.verdict.value] += 1
        problem = is_wrong(case, report)
        if problem:
            tables[case.family]["wrong"] += 1
            notes.append(f"WRONG {case.family} seed {seed}: {problem}")
        elif expected and report.verdict is not Verdict.GLOBALLY:
            notes.append(f"missing, seed {seed}, {case.note}: {report.reason}")

    for seed in range(options.undetermined):
        count(seed, undetermined(seed), False)
    for seed in range(options.determined):
        count(seed, determined(seed), True)
    words = ["globally", "nonidentifiable", "undecided", "wrong"]
    print("| family | " + " | ".join(words) + " | s |\n|---" * 1 + "|---" * 5 + "|")
    for family, table in tables.items():
        cells = " | ".join(str(table[word]) for word in words)
        print(f"| {family} | {cells} | {table['seconds']:.0f} |")
    print("\n".join(notes))


if __name__ == "__main__":
    main()
