"""The check of reports on weights of ReLU networks: honest and forged ones, and its time.

    python -m tests.benchmarks.stationary_check [--honest 300] [--forged 60] [--lies 450]
        [--first 0]

Honest: weights that determine their samples must be confirmed, the others must not be refuted.
Forged: every kind of change to a confirmed report must be refuted. Lies: reports on weights that
determine nothing whose every field says `globally`; none may be confirmed, nor, in a second round
with honest numbers and the checker's rules switched off, where its own measurements have to say it.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np

import identify
from identify.checker.outcome import CheckInputError
from identify.errors import InvalidInputError
from tests.benchmarks.gradient_check import failing, show
from tests.identify.checker.deep_forgeries import with_honest_numbers
from tests.identify.checker.stationary_forgeries import FORGERIES, as_if_unique
from tests.identify.checker.stationary_reports import Reported, make, reported, signed
from tests.identify.disaggregation.stationary_families import Weights, determined, undetermined

RULES = "identify.checker.stationary.rules.check_rules"
SIZES = ((4, 2, 8), (8, 4, 64), (8, 4, 784), (12, 6, 784))


def report_on(weights: Weights, folder: Path) -> Reported | None:
    """The verifier's report, or None for weights that it refuses."""
    try:
        return reported(folder, weights, time_limit=20.0)
    except InvalidInputError:
        return None


def honest(seeds: range, folder: Path) -> None:
    """Both kinds of weights, unchanged."""
    for name, draw in (("determined", determined), ("undetermined", undetermined)):
        found: Counter[str] = Counter()
        notes = []
        for seed in seeds:
            one = report_on(draw(seed), folder)
            if one is None:
                found["refused by the verifier"] += 1
                continue
            verdict, result = one.report["verdict"], one.check()
            found[f"{verdict} {result.outcome}"] += 1
            if result.outcome == "refuted":
                notes.append(f"WRONG seed {seed}, {verdict}: {failing(result)}")
            elif verdict == "globally" and result.outcome != "confirmed":
                notes.append(f"open, seed {seed}: {failing(result)}")
        show(f"honest, {name}", found, notes)


def forged(seeds: range, folder: Path) -> None:
    """Every kind of change to reports that are confirmed."""
    found: Counter[str] = Counter()
    notes = []
    for seed in seeds:
        one = report_on(determined(seed), folder)
        if one is None or one.check().outcome != "confirmed" or one.report["method"] == "masks":
            continue
        for forge in FORGERIES:
            report = one.changed()
            forge(report)
            if report == one.report:
                continue
            try:
                outcome = one.check(signed(report)).outcome
            except CheckInputError:
                outcome = "unusable"
            found[outcome] += 1
            if outcome in ("confirmed", "not checkable"):
                notes.append(f"WRONG seed {seed}, {forge.__name__}: {outcome}")
    show("forged", found, notes)


def lies(seeds: range, folder: Path) -> None:
    """Weights that determine nothing, and reports that say otherwise."""
    for name, lie, off in (("lies", as_if_unique, False), ("no rules", with_honest_numbers, True)):
        found: Counter[str] = Counter()
        notes = []
        for seed in seeds:
            one = report_on(undetermined(seed), folder)
            if one is None or one.report["verdict"] == "globally":
                continue
            content = signed(lie(one.changed()))
            with mock.patch(RULES, return_value="off") if off else contextlib.nullcontext():
                result = one.check(content)
            found[result.outcome] += 1
            if result.outcome == "confirmed":
                notes.append(f"WRONG seed {seed}: {one.report['reason']}")
        show(name, found, notes)


def sizes(folder: Path) -> None:
    """CPU seconds of the verifier and of the checker, both layers trained."""
    for count, size, dimension in SIZES:
        x = identify.equiangular_samples(count, size, dimension, seed=1)
        network = identify.plant_relu_network(x, trained="both").network
        started = time.process_time()
        one = make(folder, network, trained="both")
        middle = time.process_time()
        result = one.check()
        ended = time.process_time()
        print(
            f"{dimension}-{network.widths[0]}-1, n = {count}: {one.report['verdict']} in "
            f"{middle - started:.1f} s, {result.outcome} in {ended - middle:.1f} s "
            f"{'' if result.outcome == 'confirmed' else failing(result)}"
        )


def main() -> None:
    """Print the counts and everything that is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--honest", type=int, default=300)
    parser.add_argument("--forged", type=int, default=60)
    parser.add_argument("--lies", type=int, default=450)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--no-sizes", action="store_true")
    options = parser.parse_args()
    first = options.first
    with tempfile.TemporaryDirectory() as name, np.errstate(all="ignore"):
        folder = Path(name)
        honest(range(first, first + options.honest), folder)
        forged(range(first, first + options.forged), folder)
        lies(range(first, first + options.lies), folder)
        if not options.no_sizes:
            sizes(folder)


if __name__ == "__main__":
    main()
