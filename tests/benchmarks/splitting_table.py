"""Finished runs of `attack_splitting` on file, and the tables that compare them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from identify.arrays import FloatArray

Row = dict[str, Any]
LOSSES = (
    "objective", "data", "at equal", "mode", "runs", "loss, median", "over that of off, median",
    "lower in", "p", "over that of the true images, median", "candidates", "CPU s",
)  # fmt: skip
COUNTS = {
    "SSIM > 0.4, NCC": ("matched_ncc", "ssim > 0.4"),
    "SSIM > 0.4, L2": ("matched_l2", "ssim > 0.4"),
    "L2 < 3.16": ("matched_l2", "l2 < 3.16228"),
}
METRICS = {
    "SSIM": ("matched_l2", "top 10 ssim"),
    "DSSIM, NCC": ("matched_ncc", "top 10 dssim"),
    "L2": ("matched_l2", "top 10 l2"),
    "PSNR": ("matched_l2", "top 10 psnr"),
}
NULLS = ("held_out", "mean_image", "random")


def finished(path: Path, *keys: str) -> dict[Any, Row]:
    """Read finished rows by the values of these fields; a line cut off by a crash is none."""
    rows: dict[Any, Row] = {}
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        key = tuple(row[name] for name in keys)
        rows[key if len(keys) > 1 else key[0]] = row
    return rows


def keep(path: Path, row: Row) -> None:
    """Append one finished row, on a line of its own after one that a crash cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + json.dumps(row) + "\n")


def markdown(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table."""
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*text, *("| " + " | ".join(map(str, line)) + " |" for line in lines)])


def tables(rows: Sequence[Row]) -> str:
    """Losses, then counts and metrics, at equal steps and equal time.

    Tests are paired with "off" by data set and seed: the exact Wilcoxon signed-rank test on the log
    loss, the sign test on counts; two-sided, so that 5 seeds give p = 0.06 at best. Rows "both"
    pool the data sets.
    """
    losses, counts, notes = [], [], []
    good = [r for r in rows if "curve" in r]
    for objective in dict.fromkeys(r["objective"] for r in good):
        names = list(dict.fromkeys(r["data"] for r in good if r["objective"] == objective))
        for data in [*names, *(["both"] if len(names) > 1 else [])]:
            chosen = names if data == "both" else [data]
            part = [r for r in good if r["objective"] == objective and r["data"] in chosen]
            for at in ("steps", "time"):
                ends = _ends(part, at)
                for mode, found in ends.items():
                    pairs = [(e, ends["off"][p]) for p, e in found.items() if p in _off(ends, mode)]
                    head = [objective, data, at, mode, len(found)]
                    losses.append([*head, *_losses(list(found.values()), pairs)])
                    counts.append([*head, *_counts(list(found.values()), pairs)])
    for r in rows:
        if "failed" in r:
            notes.append(f"{r['objective']} {r['data']} {r['seed']} {r['mode']}: {r['failed']}")
    words = [f"{name} (held-out, mean image, random)" for name in COUNTS]
    second = [*LOSSES[:5], *words, *(f"top 10 {name}" for name in METRICS)]
    parts = [markdown(LOSSES, losses), markdown(second, counts), *notes]
    return "\n\n".join(parts)


def _off(ends: dict[str, dict[Any, Row]], mode: str) -> dict[Any, Row]:
    return {} if mode == "off" else ends.get("off", {})


def _ends(part: list[Row], at: str) -> dict[str, dict[tuple[str, int], Row]]:
    """Where every run stood, by mode, data set and seed."""
    shortest: dict[tuple[str, int], float] = {}
    for row in part:
        pair = (row["data"], row["seed"])
        seconds = row["curve"][-1]["seconds"]
        shortest[pair] = min(seconds, shortest.get(pair, seconds))
    ends: dict[str, dict[tuple[str, int], Row]] = {}
    for row in part:
        pair = (row["data"], row["seed"])
        points = row["curve"]
        if at == "time":
            points = [p for p in points if p["seconds"] <= shortest[pair]] or points[:1]
        end = {**points[-1], "null": row["null"], "at_truth": row["at_truth"]}
        ends.setdefault(row["mode"], {})[pair] = end
    return ends


def _losses(ends: list[Row], pairs: list[tuple[Row, Row]]) -> list[str]:
    cells = [f"{np.median([e['loss'] for e in ends]):.4g}"]
    if pairs:
        logs = np.log([e["loss"] / max(o["loss"], 1e-300) for e, o in pairs])
        lower = int(np.count_nonzero(logs < 0))
        cells += [f"{np.exp(np.median(logs)):.3f}", f"{lower} of {len(logs)}", _wilcoxon(logs)]
    else:
        cells += ["", "", ""]
    seconds = np.mean([e["seconds"] for e in ends])
    cells.append(f"{np.median([e['loss'] / e['at_truth'] for e in ends]):.2g}")
    return [*cells, _range([e["candidates"] for e in ends]), f"{seconds:.0f}"]


def _counts(ends: list[Row], pairs: list[tuple[Row, Row]]) -> list[str]:
    cells = []
    for kind, name in COUNTS.values():
        found = np.mean([e[kind][name] for e in ends])
        null = [np.mean([e["null"][part][kind][name] for e in ends]) for part in NULLS]
        cell = f"{found:.1f} ({', '.join(f'{v:.1f}' for v in null)})"
        if pairs:
            changes = np.array([e[kind][name] - o[kind][name] for e, o in pairs])
            more, fewer = int(np.count_nonzero(changes > 0)), int(np.count_nonzero(changes < 0))
            cell += f"; more {more}, fewer {fewer}, p {_sign(more, fewer)}"
        cells.append(cell)
    for kind, name in METRICS.values():
        known = [e[kind][name] for e in ends if e[kind][name] is not None]
        cells.append(f"{np.mean(known):.3g}" if known else "-")
    return cells


def _wilcoxon(differences: FloatArray) -> str:
    from scipy.stats import wilcoxon

    moved = differences[differences != 0]
    if len(moved) == 0:
        return "1"
    ties = len(np.unique(np.abs(moved))) < len(moved)
    return f"{wilcoxon(moved, method='approx' if ties else 'exact').pvalue:.2g}"


def _sign(more: int, fewer: int) -> str:
    from scipy.stats import binomtest

    return f"{binomtest(more, more + fewer).pvalue:.2g}" if more + fewer else "1"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
