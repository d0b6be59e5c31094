"""What the commands share between reading files and writing results."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from identify.command.data_options import POWERS, AssumeOptions
from identify.command.names import EvidenceName, Format, MethodName
from identify.command.options import RunOptions
from identify.command.output import Log, OutputFolder
from identify.errors import one_line
from identify.hermite.data import HermiteData
from identify.records import TrainingSet
from identify.report.report import IdentifiabilityReport
from identify.report.summary import headline
from identify.text import number, table

RESULTS = (
    "report.json", "report.html", "samples.npz", "alternatives.npz", "contact.png", "audit.json",
)  # fmt: skip
"""Every file that the commands on a network write into a folder."""


def assess(
    data: HermiteData,
    assume: AssumeOptions,
    run: RunOptions,
    log: Log,
    evidence: EvidenceName = EvidenceName.AUTO,
    method: MethodName = MethodName.AUTO,
) -> tuple[IdentifiabilityReport, bool]:
    """The report, and whether Ctrl-C cut it short."""
    from identify.assess import assess_identifiability

    assume.require_both(POWERS)
    started = time.monotonic()
    try:
        with log.progress() as show:
            report = assess_identifiability(
                data,
                assumptions=assume.assumptions(),
                time_limit=run.time_limit,
                progress=show,
                seed=run.seed,
                evidence=evidence.value,
                method=method.value,
            )
    except KeyboardInterrupt:
        from identify.report.build import interrupted_report

        partial = interrupted_report(
            data,
            assume.assumptions(),
            stage=log.stage,
            seconds=time.monotonic() - started,
            seed=run.seed,
        )
        return partial, True
    return report, False


def show_written(folder: OutputFolder) -> None:
    """Print which files were written."""
    if folder.written:
        where = one_line(str(folder.path))
        print(f"\nwritten to {where}: {', '.join(folder.written)}", flush=True)


def show_sets(report: IdentifiabilityReport, sets: Sequence[TrainingSet], form: Format) -> None:
    """Print the sizes and residuals of training sets, and the verdict on the data."""
    facts = {
        "verdict": report.verdict.value,
        "reason": report.reason,
        "sets": [{"samples": s.count, "stationarity": s.stationarity} for s in sets],
    }
    if form is Format.JSON:
        print(json.dumps(facts, indent=2, allow_nan=False), flush=True)
        return
    title = "Training sets that explain the data"
    rows = [[str(k), str(s.count), number(s.stationarity)] for k, s in enumerate(sets, start=1)]
    lines = [title, "=" * len(title), f"verdict: {headline(report)}"]
    lines += table(["set", "samples", "residual"], rows) if rows else ["none found"]
    print("\n".join(lines), flush=True)


def show_facts(title: str, facts: Mapping[str, Any], form: Format) -> None:
    """Print names and values, aligned or as JSON."""
    if form is Format.JSON:
        print(json.dumps(facts, indent=2, allow_nan=False), flush=True)
        return
    rows = [[name.replace("_", " "), _spell(value)] for name, value in facts.items()]
    print("\n".join([title, "=" * len(title), *table(["", ""], rows, indent=0)[1:]]), flush=True)


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value)


def write_alternatives(folder: OutputFolder, sets: Sequence[TrainingSet]) -> None:
    """Write alternatives.npz if there are any sets."""
    from identify.alternatives.find import save_alternatives

    if sets:
        with folder.writing("alternatives.npz") as path:
            save_alternatives(path, tuple(sets))
