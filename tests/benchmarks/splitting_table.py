"""Finished runs of `attack_splitting` on file, and the table that compares them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
COLUMNS = (
    "objective", "data", "mode", "at", "seeds", "loss, median", "ratio to off, median",
    "lower than off", "p", "candidates", "SSIM > 0.4", "held-out, mean, random",
    "more than off", "fewer", "p of counts", "top 10 SSIM", "top 10 DSSIM", "top 10 L2",
    "top 10 PSNR", "CPU s",
)  # fmt: skip
_KIND = {"haim": "matched_ncc", "buzaglo": "matched_ncc", "loo": "matched_l2"}


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
    """Append one finished row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def table(rows: Sequence[Row]) -> str:
    """Markdown: modes at equal steps and at equal time, and all cells of an objective together.

    Counts are one to one, by NCC with pixels stretched (haim, buzaglo) or by L2 with pixels clipped
    (loo), each as published; beside them those of the nulls, means over seeds. Tests are paired by
    seeds: the exact Wilcoxon signed-rank test on log loss, the sign test on counts; two-sided, so
    that 5 seeds give p = 0.0625 at best. Rows "all" pool data sets and seeds.
    """
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    failed = [r for r in rows if "failed" in r]
    good = [r for r in rows if "curve" in r]
    cells = list(dict.fromkeys((r["objective"], r["data"]) for r in good))
    for objective in dict.fromkeys(o for o, _ in cells):
        names = [d for o, d in cells if o == objective]
        for data in [*names, *(["all"] if len(names) > 1 else [])]:
            part = [r for r in good if r["objective"] == objective and data in (r["data"], "all")]
            for at in ("steps", "time"):
                lines += _modes(part, objective, data, at)
    for row in failed:
        lines.append(
            f"\n{row['objective']} {row['data']} seed {row['seed']} {row['mode']}: {row['failed']}"
        )
    return "\n".join(lines)


def _modes(part: list[Row], objective: str, data: str, at: str) -> list[str]:
    """One line for every mode."""
    ends: dict[str, dict[tuple[str, int], Row]] = {}
    pairs = {(r["data"], r["seed"]) for r in part}
    shortest = {
        pair: min(r["curve"][-1]["seconds"] for r in part if (r["data"], r["seed"]) == pair)
        for pair in pairs
    }
    for row in part:
        pair = (row["data"], row["seed"])
        points = row["curve"]
        if at == "time":
            points = [p for p in points if p["seconds"] <= shortest[pair]] or points[:1]
        point = {**points[-1], **points[-1][_KIND[objective]], "null": row["null"]}
        ends.setdefault(row["mode"], {})[pair] = point
    lines = []
    for mode, found in ends.items():
        off = {p: ends["off"][p] for p in found if p in ends.get("off", {})}
        both = [] if mode == "off" else sorted(off)
        cells = [objective, data, mode, f"equal {at}", str(len(found))]
        cells += _losses([found[p] for p in found], [(found[p], off[p]) for p in both])
        cells.append(_range([e["candidates"] for e in found.values()]))
        cells += _counts(list(found.values()), [(found[p], off[p]) for p in both], objective)
        for metric in ("ssim", "dssim", "l2", "psnr"):
            values = [e[f"top 10 {metric}"] for e in found.values()]
            known = [v for v in values if v is not None]
            cells.append(f"{np.mean(known):.3g}" if known else "-")
        cells.append(f"{np.mean([e['seconds'] for e in found.values()]):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _losses(ends: list[Row], pairs: list[tuple[Row, Row]]) -> list[str]:
    cells = [f"{np.median([e['loss'] for e in ends]):.4g}"]
    if not pairs:
        return [*cells, "", "", ""]
    logs = np.log([e["loss"] / max(o["loss"], 1e-300) for e, o in pairs])
    lower = f"{int(np.count_nonzero(logs < 0))} of {len(logs)}"
    return [*cells, f"{np.exp(np.median(logs)):.3f}", lower, _wilcoxon(logs)]


def _counts(ends: list[Row], pairs: list[tuple[Row, Row]], objective: str) -> list[str]:
    name = "ssim > 0.4"
    kind = _KIND[objective]
    counts = [e[name] for e in ends]
    nulls = [
        np.mean([e["null"][null][kind][name] for e in ends])
        for null in ("held_out", "mean_image", "random")
    ]
    cells = [f"{np.mean(counts):.1f} ({_range(counts)})", ", ".join(f"{v:.1f}" for v in nulls)]
    if not pairs:
        return [*cells, "", "", ""]
    changes = np.array([e[name] - o[name] for e, o in pairs])
    more, fewer = int(np.count_nonzero(changes > 0)), int(np.count_nonzero(changes < 0))
    return [*cells, str(more), str(fewer), _sign(more, fewer)]


def _wilcoxon(differences: np.ndarray) -> str:
    from scipy.stats import wilcoxon

    moved = differences[differences != 0]
    if not len(moved):
        return "1"
    method = "exact" if len(moved) == len(set(np.abs(moved).tolist())) else "approx"
    return f"{wilcoxon(moved, method=method).pvalue:.2g}"


def _sign(more: int, fewer: int) -> str:
    from scipy.stats import binomtest

    return f"{binomtest(more, more + fewer).pvalue:.2g}" if more + fewer else "1"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
