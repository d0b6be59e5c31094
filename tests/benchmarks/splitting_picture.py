"""The runs of `attack_splitting` as a picture: loss and samples found against the steps.

Run from the root, after the runs:

    KKTCERT_DATA=... OMP_NUM_THREADS=1 python -m tests.benchmarks.splitting_picture --out splitting
                     --picture docs/images/splitting.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.attack_splitting import MODES, Size, loss_at_truth, make_cell
from tests.benchmarks.splitting_table import COUNTS, Row, finished

COLOURS = {"off": "0.4", "paper": "tab:orange", "auto": "tab:blue", "wide": "tab:green"}


def draw(rows: Sequence[Row], truth: dict[tuple[str, str, int], float], target: Path) -> None:
    """A column per objective and data set; every seed thin.

    Above the loss over that of the true images, with medians; below the pairs within L2 3.16, with
    means.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys((row["objective"], row["data"]) for row in rows))
    # Nothing but text is to depend on the machine.
    with mpl.rc_context({"svg.hashsalt": "kktcert", "font.size": 8}):
        figure = Figure(figsize=(2.1 * len(columns) + 0.6, 3.6), layout="constrained")
        axes: Any = figure.subplots(2, len(columns), sharex="col", squeeze=False)
        for (above, below), (objective, data) in zip(axes.T, columns, strict=True):
            above.set_title(f"{objective}, {data}")
            for mode in MODES:
                part = [
                    row
                    for row in rows
                    if (row["objective"], row["data"], row["mode"]) == (objective, data, mode)
                ]
                if part:
                    ratio = lambda row, p: p["loss"] / truth[_key(row)]  # noqa: E731
                    _lines(above, part, ratio, mode, np.median)
                    _lines(below, part, lambda row, p: _found(p), mode, np.mean)
            above.set_yscale("log")
            above.axhline(1.0, color="0.8", linewidth=0.8, zorder=0)
            below.set_xlabel("steps")
            below.set_ylim(-0.3, max(3.3, below.get_ylim()[1]))
        axes[0, 0].set_ylabel("loss over that of\nthe true images")
        axes[1, 0].set_ylabel("samples within L2 3.16")
        axes[0, 0].legend(frameon=False)
        figure.savefig(target, dpi=90, metadata={"Software": None})


def _lines(axis: Any, part: list[Row], value: Any, mode: str, middle: Any) -> None:
    curves = []
    for row in part:
        # The first points, at the start, would decide the scale.
        points = [p for p in row["curve"] if p["step"] >= row["curve"][-1]["step"] // 20]
        curves.append(([p["step"] for p in points], [value(row, p) for p in points]))
        axis.plot(*curves[-1], color=COLOURS[mode], linewidth=0.5, alpha=0.35)
    # A run that ended before the others stays where it is.
    shared = sorted({step for steps, _ in curves for step in steps})
    held = [np.interp(shared, steps, values) for steps, values in curves]
    axis.plot(shared, middle(held, axis=0), color=COLOURS[mode], label=mode)


def _key(row: Row) -> tuple[str, str, int]:
    return row["objective"], row["data"], row["seed"]


def _found(point: Row) -> float:
    kind, name = COUNTS["L2 < 3.16"]
    return float(point[kind][name])


def main(arguments: list[str] | None = None) -> None:
    """Read the runs and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of victims and runs")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--training", type=int, default=Size.training)
    options = parser.parse_args(arguments)
    keys = ("objective", "data", "seed", "mode", "steps", "samples", "width")
    found = finished(options.out / "runs.jsonl", *keys).values()
    rows = [r for r in found if "curve" in r and r["data"] in options.data and r["mode"] in MODES]
    rows.sort(key=lambda row: (row["objective"], options.data.index(row["data"])))
    truth = {}
    for row in rows:
        size = Size(row["samples"], row["width"], options.training, row["steps"])
        if _key(row) not in truth:
            cell = make_cell(*_key(row), size, options.out / "victims")
            truth[_key(row)] = loss_at_truth(cell, size, float(row.get("ridge", 0.0)))
    draw(rows, truth, options.picture)
    print(f"{options.picture}: {len(rows)} runs")


if __name__ == "__main__":
    main()
