"""Soundness over new families: symmetric, structured, rounded, low-precision and tuned problems.

    python -m tests.benchmarks.soundness_families --out FOLDER [--count 5000] [--first 0]

Every problem has a known truth. Finished problems are kept in FOLDER/problems.jsonl, so that a
second call goes on where the first one ended; inputs with a fault go to FOLDER/failures as npz.
`--replay FILE.npz` judges one of them again. The table has one row per family.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from identify import HermiteData, TwoLayerNetwork, assess_identifiability
from identify.errors import KktCertError
from tests.benchmarks.splitting_table import finished, keep, markdown
from tests.identify.new_due import is_determined
from tests.identify.new_judge import FAULTS, faults
from tests.identify.new_problems import Problem
from tests.identify.new_trained import FAMILIES, draw

Row = dict[str, Any]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def assess(problem: Problem, limit: float) -> Any:
    """The report; a problem without a time limit of its own gets the study's."""
    options = {"time_limit": limit, **problem.options}
    return assess_identifiability(problem.data, **options)


def judged(problem: Problem, limit: float) -> tuple[Row, Any]:
    """What one problem adds to the table, and its report."""
    started, worked = time.perf_counter(), time.process_time()
    with np.errstate(all="ignore"):
        report = assess(problem, limit)
    seconds = time.perf_counter() - started
    with np.errstate(all="ignore"):
        # On a busy machine the clock runs while the problem waits.
        found = faults(problem, report, min(seconds, time.process_time() - worked))
        determined = is_determined(problem)
    row = {
        "family": problem.family, "verdict": report.verdict.value, "faults": found,
        "determined": determined, "seconds": seconds, "evidence": report.evidence.value,
        "note": problem.note, "options": problem.options, "source": problem.data.source,
        "reason": report.reason,
    }  # fmt: skip
    return row, report


def measure(seed: int, family: str | None, limit: float, folder: str | None) -> Row:
    """Draw, assess and judge problem number `seed`; a fault is written to the folder."""
    try:
        with np.errstate(all="ignore"):
            problem = draw(seed, family)
    except KktCertError as error:
        name = family or FAMILIES[seed % len(FAMILIES)].__name__
        text = " ".join(str(error).split())
        return {"family": f"({name})", "verdict": "refused", "faults": [f"refused: {text}"],
                "determined": False, "seconds": 0.0, "seed": seed}  # fmt: skip
    row, _ = judged(problem, limit)
    row["seed"] = seed
    if row["faults"] and folder is not None:
        save(Path(folder) / f"{seed:06d}.npz", problem, row)
    return row


# Failing inputs ----------------------------------------------------------------------------------


def save(path: Path, problem: Problem, row: Row) -> None:
    """The arrays, the options and the truth of a problem, and a text file with one line."""
    data = problem.data
    parts: dict[str, Any] = {"samples": problem.samples}
    if problem.coefficients is not None:
        parts["coefficients"] = problem.coefficients
    networks = {"network": data.network, "target": data.target, "initial": data.initial}
    about: Row = {"rounding": {}}
    for role, network in networks.items():
        if network is None:
            continue
        about["rounding"][role] = network.rounding
        parts |= {f"{role}.{name}": array for name, array in network.arrays().items()}
    midpoint = bool(data.initial is not None and np.any(data.points != data.initial.points))
    about |= {
        "source": data.source, "degree": data.degree, "loss": data.loss, "decay": data.decay,
        "point": "midpoint" if midpoint else "initial", "family": problem.family,
        "options": problem.options, "noise": problem.noise, "note": problem.note,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, about=np.array(json.dumps(about)), **parts)
    line = f"{problem.family}: {data.source}, {problem.note}, {problem.options}: {row['faults']}"
    path.with_suffix(".txt").write_text(line + "\n", encoding="utf-8")


def load(path: Path) -> Problem:
    """A problem as `save` wrote it."""
    with np.load(path, allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    about = json.loads(str(parts.pop("about")))

    def network(role: str) -> TwoLayerNetwork:
        return TwoLayerNetwork(
            parts[f"{role}.hidden.weight"], parts[f"{role}.output.weight"], about["degree"],
            hidden_bias=parts.get(f"{role}.hidden.bias"), rounding=about["rounding"][role],
        )  # fmt: skip

    source = about["source"]
    if source == "fine-tuning":
        data = HermiteData.from_fine_tuning(
            network("initial"), network("target"), point=about["point"]
        )
    else:
        data = HermiteData.of(
            source, network("network"), decay=about["decay"], loss=about["loss"],
            gradient=network("target") if source == "gradient" else None,
        )  # fmt: skip
    return Problem(
        about["family"], data, parts["samples"], parts.get("coefficients"), about["options"],
        about["noise"], about["note"],
    )  # fmt: skip


# The study ---------------------------------------------------------------------------------------


def study(
    seeds: Iterable[int], family: str | None, limit: float, out: Path, processes: int
) -> None:
    """Measure the seeds in worker processes; each finished one is on file at once.

    With 0 processes a thread of this one does it.
    """
    folder = str(out / "failures")
    target = out / "problems.jsonl"
    waiting = list(seeds)
    if not waiting:
        return
    for name in THREADS:
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")
    maker = concurrent.futures.ProcessPoolExecutor
    with (
        maker(processes, context) if processes else concurrent.futures.ThreadPoolExecutor(1) as pool
    ):
        jobs = {
            pool.submit(measure, seed, family, limit, folder): (seed, family) for seed in waiting
        }
        for job in concurrent.futures.as_completed(jobs):
            seed, name = jobs[job]
            error = job.exception()
            row = job.result() if error is None else raised(seed, name, error)
            keep(target, {**row, "drawn": family})


def raised(seed: int, family: str | None, error: BaseException) -> Row:
    """The row of a problem that ended in an exception."""
    name = family or FAMILIES[seed % len(FAMILIES)].__name__
    where = "".join(traceback.format_exception(error))[-1500:]
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return {"family": f"({name})", "verdict": "exception", "faults": [f"exception: {text}"],
            "determined": False, "seconds": 0.0, "seed": seed, "note": where}  # fmt: skip


def table(rows: Iterable[Row]) -> str:
    """One line a family: verdicts, every kind of fault, and the share of due answers given."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for name in (row["family"], "all"):
            line = counts[name]
            line["problems"] += 1
            line[row["verdict"]] += row["verdict"] not in FAULTS
            for kind in {text.split(": ")[0] for text in row["faults"]}:
                line[kind] += 1
            line["determined"] += bool(row["determined"])
            line["answered"] += bool(row["determined"]) and row["verdict"] == "globally"
            line["ms"] += round(1000 * row["seconds"])
    head = ["family", "problems", "globally", "nonidentifiable", "undecided", *FAULTS,
            "determined", "called so", "ms a problem"]  # fmt: skip
    lines = []
    order = [*sorted(name for name in counts if name != "all"), *(["all"] if counts else [])]
    for name in order:
        line = counts[name]
        share = (
            "" if not line["determined"] else f"{100 * line['answered'] / line['determined']:.0f} %"
        )
        cells = [line[column] for column in head[1:-2]]
        lines.append([name, *cells, share, round(line["ms"] / line["problems"])])
    return markdown(head, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table and every fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted({make.__name__ for make in FAMILIES})
    parser.add_argument("--out", type=Path, default=Path("soundness-families"))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--family", choices=names)
    parser.add_argument("--time-limit", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args(arguments)
    if options.replay is not None:
        row, report = judged(load(options.replay), options.time_limit)
        print(report)
        print("\n".join(row["faults"]) or "no fault")
        return
    target = options.out / "problems.jsonl"
    wanted = range(options.first, options.first + options.count)

    def rows() -> dict[Any, Row]:
        done = finished(target, "drawn", "seed")
        return {k[1]: row for k, row in done.items() if k[0] == options.family and k[1] in wanted}

    done = rows()
    study(
        [seed for seed in wanted if seed not in done], options.family, options.time_limit,
        options.out, options.processes,
    )  # fmt: skip
    done = rows()
    print(table(done.values()))
    for seed in sorted(done):
        for text in done[seed]["faults"]:
            print(f"- seed {seed}, {done[seed]['family']}: {text}")


if __name__ == "__main__":
    main()
