"""Soundness and completeness of the verdict on gradients of smooth networks.

    python -m tests.benchmarks.smooth_soundness [--count 600] [--first 0] [--seconds 600]

One row a family: verdicts, merged (the true batch is larger, and the printed one has the same
gradient), wrong `locally`, and printed points that are no samples (all, and those
of reports with a power of at least 1). Every wrong verdict, and every determined batch that stays
undecided, is listed with its reason.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict

import identify
from identify.errors import InvalidInputError
from tests.identify.disaggregation.search.families import (
    draw,
    false_points,
    is_merged,
    is_wrong,
)

WORDS = (
    "locally",
    "undecided",
    "refused",
    "merged",
    "wrong",
    "false points",
    "of these R >= 1",
    "open gate",
)


def main() -> None:
    """Print the table and the exceptions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    notes: list[str] = []
    started = time.monotonic()
    seed = options.first
    while seed < options.first + options.count and time.monotonic() - started < options.seconds:
        case = draw(seed)
        table = tables[case.family]
        seed += 1
        try:
            report = identify.assess_gradient(
                case.network, case.gradient, time_limit=20.0, **case.options
            )
        except InvalidInputError as error:
            table["refused"] += 1
            notes.append(f"refused {case.family} seed {seed - 1}: {error}")
            continue
        report.to_json(), str(report)
        table[report.verdict] += 1
        table["merged"] += report.verdict == "locally" and is_merged(case, report)
        false = false_points(case, report)
        table["false points"] += false
        if (report.found.power or 0) >= 1:
            table["of these R >= 1"] += false
            if false:
                notes.append(f"false {case.family} seed {seed - 1}: {false}, {report.reason}")
        if case.samples is None and report.covered and not report.candidates:
            table["open gate"] += 1
        problem = is_wrong(case, report)
        if problem:
            table["wrong"] += 1
            notes.append(f"WRONG {case.family} seed {seed - 1}: {problem}")
        elif case.family in ("plain", "float32") and report.verdict != "locally":
            notes.append(f"missing {case.family} seed {seed - 1}: {report.reason}")
    print(f"{seed - options.first} gradients")
    print(f"| family | {' | '.join(WORDS)} |\n" + "|---" * (len(WORDS) + 1) + "|")
    for family, table in sorted(tables.items()):
        print(f"| {family} | {' | '.join(str(table[word]) for word in WORDS)} |")
    print("\n".join(notes))


if __name__ == "__main__":
    main()
