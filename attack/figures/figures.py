"""Figures of finished runs: pairs beside the truth, splitting against none, counts, shares, trees.

They read what `evaluate` wrote beside a run and choose nothing for a run: the truth ranks pairs for
the eye alone, and every score is drawn beside that of candidates that know nothing of the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attack.evaluation import metrics
from attack.figures.plots import Panel, Series, panels
from attack.figures.scores import (
    L2,
    MEDIAN_L2,
    MEDIAN_SSIM,
    RECOVERED,
    SSIM,
    Score,
    mates_of,
    mean_of,
    pair_values,
)
from attack.figures.trajectory import Skipped, trajectory
from attack.runs.finished import RunResult, legend_names
from identify.pictures import Row, as_images, contact_sheet

__all__ = ["FIGURES", "Drawn", "Skipped", "draw_figures"]

_MODES = ("off", "paper", "auto")
_KKT = ("haim", "buzaglo", "gradient_norm")
_PER_RANK = 4
_NULL = "held-out images"


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure that was drawn: file, title, the folders of its runs, the numbers in it."""

    name: str
    title: str
    runs: tuple[str, ...]
    numbers: Any

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy."""
        return {
            "file": self.name, "title": self.title, "runs": list(self.runs),
            "numbers": self.numbers,
        }  # fmt: skip


def draw_figures(
    runs: Sequence[RunResult], writing: Callable[[str], Any]
) -> tuple[list[Drawn], list[Skipped]]:
    """Draw every figure that the runs allow; say of each other one why not.

    `writing(name)` is a context that gives the path for a file of the output folder.

    Cost: about a second a page.
    """
    drawn: list[Drawn] = []
    skipped: list[Skipped] = []
    for kind, draw in FIGURES.items():
        # A figure of one run gets that run first; the others may stand beside it.
        groups = [[run, *runs] for run in runs] if kind in _PER_RUN else [list(runs)]
        for group in groups:
            name = f"{kind}-{group[0].name}.png" if kind in _PER_RUN else f"{kind}.png"
            with _Page(writing, name) as page:
                result = draw(group, page)
            if isinstance(result, Drawn):
                drawn.append(result)
            else:
                skipped.append(result)
    return drawn, skipped


class _Page:
    """A file that is only opened once something is to be drawn on it."""

    def __init__(self, writing: Callable[[str], Any], name: str) -> None:
        self.name, self._writing = name, writing
        self._open: Any = None

    def __enter__(self) -> _Page:
        return self

    def path(self) -> Path:
        """The path to draw to."""
        self._open = self._writing(self.name)
        return Path(self._open.__enter__())

    def __exit__(self, *error: Any) -> None:
        if self._open is not None:
            self._open.__exit__(*error)


def pairs(runs: Sequence[RunResult], page: _Page) -> Drawn | Skipped:
    """Best, median and worst candidates of a run beside the truth and the nearest held-out image.

    Ranked by SSIM of the one-to-one matching by NCC; every image from its least to its largest
    value.
    """
    run = runs[0]
    what = f"pairs beside the truth of {run.name}"
    if run.evaluation is None or run.pictures is None:
        return Skipped(what, "not evaluated as it is now; run kktcert evaluate")
    scores = run.evaluation["found"]["scores"]["matched_ncc"]
    indices = np.array(scores["indices"], dtype=np.intp)
    ssim = np.array([np.nan if v is None else v for v in scores["ssim"]])
    rows = np.flatnonzero(indices >= 0)
    rows = rows[np.argsort(-ssim[rows], kind="stable")]
    chosen = _ranks(len(rows), _PER_RANK)
    order = np.concatenate([rows[part] for part in chosen.values()])
    shape = tuple(run.evaluation["image_shape"])
    if len(shape) < 2:
        return Skipped(what, "the samples are rows of a table and no images")
    mean = run.pictures["mean"].ravel()
    truth, candidates = run.pictures["truth"][order], run.pixels(run.images[indices[order]])
    words = [word for word, part in chosen.items() for _ in part]
    labels = [f"{w}\nSSIM {v:.2f}" for w, v in zip(words, ssim[order], strict=True)]
    sheet: list[Row] = [
        ("true image", as_images(truth, shape, mean)),
        ("found by the attack", as_images(candidates, shape, mean), labels),
    ]
    numbers: dict[str, Any] = {"samples": order.tolist(), "ssim": ssim[order].tolist()}
    note = "mean added; each image is stretched from black to white by itself; "
    if "nearest_held_out" in run.pictures:
        nearest = run.pictures["nearest_held_out"][order]
        stretched = [metrics.min_max(part + mean) for part in (nearest, truth)]
        null = metrics.ssim(stretched[0], np.clip(truth + mean, 0.0, 1.0), shape)
        captions = [f"SSIM {v:.2f}" for v in null]
        sheet.append(("nearest image not trained on", as_images(nearest, shape, mean), captions))
        numbers["held_out_ssim"] = null.tolist()
        note += "images not trained on know nothing of the network, but each is the nearest of many"
    else:
        note += "no held-out images were given: likeness of the kind cannot be told from recovery"
    title = f"{run.label}: best, median and worst of {len(rows)} pairs by SSIM with the truth"
    contact_sheet(page.path(), sheet, title, footnote=note)
    return Drawn(page.name, title, (str(run.path),), numbers)


def curves(runs: Sequence[RunResult], page: _Page) -> Drawn | Skipped:
    """Loo's reconstruction curves: distances of the greedy matching, sorted, beside the null."""
    usable = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    if not usable:
        return Skipped("reconstruction curves", "no run is evaluated")
    numbers = {run.name: evaluation["curve"] for run, evaluation in usable}
    names = legend_names([run for run, _ in usable])
    series = [
        Series(name, np.arange(1, len(found) + 1), found, line=True)
        for name, found in zip(names, numbers.values(), strict=True)
    ]
    for name, words in (("held_out", _NULL), ("mean_image", "mean image")):
        parts = [evaluation["null"].get(name) for _, evaluation in usable]
        first = next((part for part in parts if part is not None), None)
        if first is not None:
            values = np.sort([v for v in first["scores"]["greedy_l2"]["l2"] if v is not None])
            series.append(Series(words, np.arange(1, len(values) + 1), values, null=True))
    title = "Distances of the greedy matching, sorted"
    panels(
        page.path(), title,
        [Panel("reconstruction curve", "pair", "L2 distance to the truth", series)],
        "grey and dashed: the same matching for candidates that know nothing of the samples",
    )  # fmt: skip
    return Drawn(page.name, title, _paths(run for run, _ in usable), numbers)


def losses(runs: Sequence[RunResult], page: _Page) -> Drawn | Skipped:
    """The loss of every run against steps and seconds; rounds of splitting are marked."""
    usable = [run for run in runs if len(run.history.steps) > 1]
    if not usable:
        return Skipped("losses", "no run has a history of its loss")
    drawn = []
    for across, values in (
        ("step", [run.history.steps for run in usable]),
        ("seconds", [run.history.seconds for run in usable]),
    ):
        series = [
            Series(
                name, x, run.history.losses, line=True,
                marks=np.interp(run.split_steps, run.history.steps, x).tolist()
                if len(run.split_steps) else (),
            )
            for run, name, x in zip(usable, legend_names(usable), values, strict=True)
        ]  # fmt: skip
        drawn.append(Panel(f"loss against {across}", across, "loss", series, ("linear", "log")))
    title = "Loss of the attacks"
    panels(page.path(), title, drawn, "ticks: rounds of splitting that were accepted")
    numbers = {run.name: float(run.history.losses[-1]) for run in usable}
    return Drawn(page.name, title, _paths(usable), numbers)


def splitting(runs: Sequence[RunResult], page: _Page) -> Drawn | Skipped:
    """Each sample before and after splitting: two runs that differ in nothing else.

    SSIM of the one-to-one matching by NCC and L2 of that by L2, one point a sample.
    """
    what = "samples with and without splitting"
    mates = mates_of(run for run in runs if run.evaluation is not None)
    if not mates:
        return Skipped(what, "no two evaluated runs differ in --splitting alone, one of them off")
    drawn = []
    numbers: list[dict[str, Any]] = []
    for pipeline, key, name in (("matched_ncc", "ssim", "SSIM"), ("matched_l2", "l2", "L2")):
        series = []
        names = legend_names([after for _, after in mates])
        for (before, after), label in zip(mates, names, strict=True):
            x, y = (pair_values(run, pipeline, key) for run in (before, after))
            series.append(Series(label, x, y))
            both = np.isfinite(x) & np.isfinite(y)
            better = (y > x) if key == "ssim" else (y < x)
            numbers.append(
                {
                    "metric": key, "before": before.name, "after": after.name,
                    "samples": int(both.sum()), "better": int((better & both).sum()),
                    "mean_before": mean_of(x), "mean_after": mean_of(y),
                    "held_out": mean_of(pair_values(after, pipeline, key, null=True)),
                }
            )  # fmt: skip
        level = numbers[-1]["held_out"]
        if level is not None:
            spread = [float(np.nanmin(series[0].x)), float(np.nanmax(series[0].x))]
            series.append(Series(f"{_NULL}, mean", spread, [level, level], null=True))
        good = "above" if key == "ssim" else "below"
        panel = Panel(
            f"{name}: better {good} the diagonal", f"{name} without splitting",
            f"{name} with splitting", series, diagonal=True,
        )  # fmt: skip
        drawn.append(panel)
    title = "Every sample with and without splitting, one-to-one matching"
    panels(page.path(), title, drawn)
    return Drawn(page.name, title, _paths(run for pair in mates for run in pair), numbers)


def counts(runs: Sequence[RunResult], page: _Page) -> Drawn | Skipped:
    """Loss and metrics against the number of candidates at the start, by mode of splitting."""
    what = "loss and metrics against the number of candidates"
    usable = [run for run in runs if run.evaluation is not None and run.share is None]
    if len({run.count for run in usable}) < 2:
        return Skipped(what, "the evaluated runs do not differ in --count")
    groups = _grouped(usable, lambda run: _mode_name(run, usable))
    title = "Loss and metrics against the number of candidates at the start"
    note = "means over runs; grey: as many held-out images in place of the final candidates"
    numbers = _against(
        page, groups, lambda run: float(run.count), "candidates at the start", title, note,
        [RECOVERED, SSIM, L2, MEDIAN_SSIM], start=False,
    )  # fmt: skip
    return Drawn(page.name, title, _paths(usable), numbers)


def shares(runs: Sequence[RunResult], page: _Page) -> Drawn | Skipped:
    """Metrics against the share of true pixels in the start, by objective.

    Source: the sweep of Runkel, Gandikota, Geiping, Schoenlieb & Moeller (2024), "Training data
    reconstruction: privacy due to uncertainty?".
    """
    what = "metrics against the share of given pixels in the start"
    usable = [run for run in runs if run.evaluation is not None and run.share is not None]
    if len({run.share for run in usable}) < 2:
        return Skipped(what, "the evaluated runs do not differ in --share")
    groups = _grouped(usable, lambda run: run.objective)
    missing = []
    if not any(run.objective in _KKT for run in usable):
        missing.append("a KKT objective")
    if not any(run.objective == "bilevel" for run in usable):
        missing.append("bilevel")
    title = "Metrics against the share of given pixels in the start"
    note = "means over runs; grey: the start itself, before any step, and held-out images"
    if missing:
        note += f"; no runs of {' and '.join(missing)} were given"
    numbers = _against(
        page, groups, lambda run: float(run.share or 0.0), "share of given pixels", title, note,
        [MEDIAN_SSIM, MEDIAN_L2, RECOVERED], start=True,
    )  # fmt: skip
    return Drawn(page.name, title, _paths(usable), numbers)


def trees(runs: Sequence[RunResult], page: _Page) -> Drawn | Skipped:
    """The way of one candidate through its splits."""
    run = runs[0]
    mates = (before for before, after in mates_of(runs[1:]) if after is run)
    found = trajectory(run, page.path, next(mates, None))
    if isinstance(found, Skipped):
        return found
    title, numbers = found
    return Drawn(page.name, title, (str(runs[0].path),), numbers)


FIGURES: Mapping[str, Callable[[Sequence[RunResult], _Page], Drawn | Skipped]] = {
    "pairs": pairs,
    "trajectory": trees,
    "loss": losses,
    "curve": curves,
    "splitting": splitting,
    "count": counts,
    "share": shares,
}
"""Every figure by the start of its file name; those of `_PER_RUN` are drawn once a run."""
_PER_RUN = ("pairs", "trajectory")


def _against(
    page: _Page,
    groups: Mapping[str, list[RunResult]],
    position: Callable[[RunResult], float],
    across: str,
    title: str,
    note: str,
    scores: Sequence[Score],
    *,
    start: bool,
) -> list[dict[str, Any]]:
    """Draw loss and scores of groups of runs against one of their settings."""
    every = [run for group in groups.values() for run in group]
    x = np.array([position(run) for run in every])
    drawn = [
        Panel(
            "final loss", across, "",
            [
                Series(
                    name, [position(run) for run in group], [run.loss for run in group], means=True
                )
                for name, group in groups.items()
            ],
            ("linear", "log"),
        )
    ]  # fmt: skip
    for score in scores:
        series = [
            Series(name, [position(run) for run in group], _numbers(score.found, group), means=True)
            for name, group in groups.items()
        ]
        series.append(Series(_NULL, x, _numbers(score.null, every), null=True, means=True))
        if start:
            series.append(Series("the start", x, _numbers(score.start, every), True, means=True))
        drawn.append(Panel(score.name, across, "", series))
    panels(page.path(), title, drawn, note)
    return [
        {
            "run": run.name, "group": name, across: position(run), "loss": run.loss,
            **{score.name: score.found(run) for score in scores},
            **{f"{score.name}, {_NULL}": score.null(run) for score in scores},
            **({f"{score.name}, start": score.start(run) for score in scores} if start else {}),
        }
        for name, group in groups.items()
        for run in group
    ]  # fmt: skip


def _numbers(score: Callable[[RunResult], float | None], group: Sequence[RunResult]) -> list[float]:
    return [np.nan if v is None else v for v in map(score, group)]


def _grouped(
    runs: Sequence[RunResult], name: Callable[[RunResult], str]
) -> dict[str, list[RunResult]]:
    groups: dict[str, list[RunResult]] = {}
    for run in sorted(runs, key=lambda run: _MODES.index(run.splitting)):
        groups.setdefault(name(run), []).append(run)
    return groups


def _mode_name(run: RunResult, runs: Sequence[RunResult]) -> str:
    several = len({other.objective for other in runs}) > 1
    return f"{run.objective}, {run.mode}" if several else run.mode


def _paths(runs: Iterable[RunResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(run.path) for run in runs))


def _ranks(count: int, each: int) -> dict[str, list[int]]:
    """Positions of the best, the median and the worst of a sorted list, none twice.

    Example:
        >>> _ranks(20, 2), _ranks(4, 4)
        ({'best': [0, 1], 'median': [9, 10], 'worst': [18, 19]}, {'best': [0, 1], 'median': [2], 'worst': [3]})
    """  # noqa: E501
    if count <= 3 * each:
        third = -(-count // 3)
        rest = count - third
        middle = third + -(-rest // 2)
        parts = (range(third), range(third, middle), range(middle, count))
    else:
        begin = (count - each) // 2
        parts = (range(each), range(begin, begin + each), range(count - each, count))
    return {word: list(part) for word, part in zip(("best", "median", "worst"), parts, strict=True)}
