"""The check of gradient reports: honest ones, forged ones, and how long it takes.

    python -m tests.benchmarks.gradient_check [--honest 40] [--forged 40] [--lies 440]

Honest: batches that one gradient determines must be confirmed, the others must not be refuted.
Forged: every kind of change to a confirmed report must be refuted. Lies: reports on gradients that
determine nothing whose every field says `globally`; none may be confirmed, nor, in a second round
with honest numbers and the checker's rules switched off, where its own measurements have to say it.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from identify.checker.outcome import CheckResult
from identify.errors import InvalidInputError
from tests.identify.checker.deep_forgeries import FORGERIES, as_if_unique, with_honest_numbers
from tests.identify.checker.deep_reports import Reported, float32, make, signed
from tests.identify.disaggregation.families import Case, determined, undetermined
from tests.identify.disaggregation.problems import plant

SIZES = (
    ([64, 128, 512, 10], 10),
    ([784, 512, 10], 10),
    ([784, 512, 10], 20),
    ([784, 512, 512, 512, 10], 20),
    ([784, 700, 1], 30),
    ([784, 1400, 1], 50),
)

RULES = "identify.checker.deep.rules.check_rules"


def report_on(case: Case, folder: Path) -> Reported | None:
    """The verifier's report, or None for a gradient that it refuses."""
    options = dict(case.options)
    try:
        return make(folder, case.network, case.gradient, options.pop("loss", None), **options)
    except InvalidInputError:
        return None


def show(name: str, found: Counter[str], notes: list[str]) -> None:
    """One line of counts, and what should not be."""
    print(f"{name}: " + ", ".join(f"{count} {word}" for word, count in found.most_common()))
    for note in notes:
        print(f"  {note}")


def failing(result: CheckResult) -> str:
    """The claims that are not confirmed."""
    return "; ".join(f"{c.name} {c.outcome}: {c.detail}" for c in result.claims if not c.holds)


def honest(count: int, folder: Path) -> None:
    """Both kinds of batches, unchanged."""
    for name, draw in (("determined", determined), ("undetermined", undetermined)):
        found: Counter[str] = Counter()
        notes = []
        for seed in range(count):
            reported = report_on(draw(seed), folder)
            if reported is None:
                found["refused by the verifier"] += 1
                continue
            verdict, result = reported.report["verdict"], reported.check()
            found[f"{verdict} {result.outcome}"] += 1
            shown = verdict in ("globally", "nonidentifiable")
            good = result.outcome == ("confirmed" if shown else "not checkable")
            if not good:
                notes.append(f"WRONG seed {seed}, {verdict}: {failing(result)}")
        show(f"honest, {name}", found, notes)


def forged(count: int, folder: Path) -> None:
    """Every kind of change to reports that are confirmed."""
    found: Counter[str] = Counter()
    notes = []
    for seed in range(count):
        case = determined(seed)
        # As it is sent; of a float64 gradient rounding decides the smallest numbers.
        case = replace(case, gradient=float32(case.gradient))
        reported = report_on(case, folder)
        if reported is None or reported.check().outcome != "confirmed":
            continue
        if reported.report["rank"] < 2 or reported.report["method"] == "masks":
            continue
        for forge in FORGERIES:
            report = reported.changed()
            forge(report)
            if report == reported.report:
                continue
            result = reported.check(signed(report))
            found[result.outcome] += 1
            if result.outcome != "refuted":
                notes.append(f"WRONG seed {seed}, {forge.__name__}: {result.outcome}")
    show("forged", found, notes)


def lies(count: int, folder: Path) -> None:
    """Gradients that determine nothing, and reports that say otherwise."""
    for name, lie, off in (("lies", as_if_unique, False), ("no rules", with_honest_numbers, True)):
        found: Counter[str] = Counter()
        notes = []
        for seed in range(count):
            reported = report_on(undetermined(seed), folder)
            if reported is None or reported.report["verdict"] == "globally":
                continue
            content = signed(lie(reported.changed()))
            with mock.patch(RULES, return_value="off") if off else contextlib.nullcontext():
                result = reported.check(content)
            found[result.outcome] += 1
            if result.outcome == "confirmed":
                notes.append(f"WRONG seed {seed}: {reported.report['reason']}")
        show(name, found, notes)


def sizes(folder: Path) -> None:
    """CPU seconds of the verifier and of the checker."""
    for layers, count in SIZES:
        problem = plant(layers, count, 0)
        started = time.process_time()
        reported = make(folder, problem.network, float32(problem.gradient), problem.loss)
        middle = time.process_time()
        result = reported.check()
        ended = time.process_time()
        unknowns = reported.report["kernel"]["unknowns"]
        print(
            f"{'-'.join(map(str, layers))}, n = {count}, {unknowns} unknowns: "
            f"{reported.report['verdict']} in {middle - started:.1f} s, {result.outcome} in "
            f"{ended - middle:.1f} s {'' if result.outcome == 'confirmed' else failing(result)}"
        )


def main() -> None:
    """Print the counts and everything that is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--honest", type=int, default=40)
    parser.add_argument("--forged", type=int, default=40)
    parser.add_argument("--lies", type=int, default=440)
    parser.add_argument("--no-sizes", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, np.errstate(all="ignore"):
        folder = Path(name)
        honest(options.honest, folder)
        forged(options.forged, folder)
        lies(options.lies, folder)
        if not options.no_sizes:
            sizes(folder)


if __name__ == "__main__":
    main()
