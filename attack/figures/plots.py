"""Pages of panels: curves over runs, pairs of values, and candidates that split, drawn as PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.pictures import require_drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stay apart in grey and for the colour-blind, after Okabe & Ito (2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PANEL = 3.4
_GREY = "0.45"


@dataclass(frozen=True, eq=False)
class Series:
    """Points (x, y) under a name; `null` draws them grey and dashed, as what knows nothing.

    `means` joins the means over equal x by a line and draws the points small; `marks` are positions
    on x that get a tick on the curve.
    """

    name: str
    x: npt.ArrayLike
    y: npt.ArrayLike
    null: bool = False
    line: bool = False
    means: bool = False
    marks: Sequence[float] = ()


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes: title, labels, scales "linear" or "log", and what is drawn in it."""

    title: str
    across: str
    up: str
    series: Sequence[Series]
    scales: tuple[str, str] = ("linear", "linear")
    diagonal: bool = False


@dataclass(frozen=True, eq=False)
class Node:
    """A picture in a tree: column (time), row, image (H, W) or (H, W, 3), caption, its parent."""

    column: int
    row: float
    image: FloatArray = field(repr=False)
    caption: str
    parent: int | None


def panels(path: Path, title: str, drawn: Sequence[Panel], footnote: str = "") -> None:
    """Draw panels side by side, three a line, and save the page as PNG.

    Values that a logarithmic scale cannot show are left out.

    Raises InvalidInputError if matplotlib (extra `demo`) is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "page.png"
        >>> curve = Series("run", [1, 2, 3], [3.0, 2.0, 1.0], line=True)
        >>> panels(path, "Loss", [Panel("loss", "step", "loss", [curve])])
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    columns = min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    figure, top, bottom = _page(columns * _PANEL * 1.25, lines * _PANEL, title, footnote)
    axes = figure.subplots(lines, columns, squeeze=False)
    for place, panel in zip(axes.flat, drawn, strict=False):
        _draw(place, panel)
    for place in axes.flat[len(drawn) :]:
        place.set_axis_off()
    # One legend for all: equal names have equal looks.
    found: dict[str, Any] = {}
    for place in axes.flat:
        for handle, name in zip(*place.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    height = figure.get_figheight()
    room = 0.0
    if len(found) > 1:
        room = 0.22 * -(-len(found) // 4) + 0.1
        figure.legend(
            found.values(), found.keys(), loc="lower center", ncols=min(4, len(found)),
            fontsize=8, frameon=False, bbox_to_anchor=(0.5, bottom / height),
        )  # fmt: skip
    figure.tight_layout(rect=(0.0, (bottom + room) / height, 1.0, 1.0 - top / height))
    _save(figure, path)


def tree(path: Path, title: str, nodes: Sequence[Node], columns: Sequence[str], note: str) -> None:
    """Draw pictures in columns, every one joined to its parent, and save the page as PNG.

    Raises InvalidInputError if matplotlib (extra `demo`) is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tree.png"
        >>> image = np.eye(4)
        >>> nodes = [Node(0, 0.0, image, "start", None), Node(1, 0.0, image, "end", 0)]
        >>> tree(path, "One candidate", nodes, ["step 0", "step 10"], "")
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    rows = max(node.row for node in nodes) + 1.0
    wide, tall = 1.5 * len(columns) + 0.4, 1.35 * rows + 0.4
    figure, top, _ = _page(wide, tall, title, note)
    width, height = figure.get_figwidth(), figure.get_figheight()
    page = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    page.set_axis_off()
    page.set_autoscale_on(False)
    page.set_xlim(0.0, width)
    page.set_ylim(0.0, height)
    start = height - top - 0.3

    def corner(node: Node) -> tuple[float, float]:
        return 0.3 + 1.5 * node.column, start - 1.35 * node.row

    for k, name in enumerate(columns):
        page.text(0.8 + 1.5 * k, start + 0.12, name, ha="center", fontsize=8)
    for node in nodes:
        left, high = corner(node)
        if node.parent is not None:
            other, level = corner(nodes[node.parent])
            if node.column == nodes[node.parent].column + 1:
                way = [other + 1.0, left], [level - 0.5, high - 0.5]
            else:  # below the parent and along the row, so as to cross no picture
                way = [other + 0.5, other + 0.5, left], [level - 1.0, high - 0.5, high - 0.5]
            page.plot(*way, color=_GREY, linewidth=0.9, zorder=0)
        low, span = float(node.image.min()), float(np.ptp(node.image)) or 1.0
        size = 1.0 / max(node.image.shape[:2])
        extent = (left, left + size * node.image.shape[1], high - size * node.image.shape[0], high)
        page.imshow(
            (node.image - low) / span, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest",
            extent=extent, aspect="auto",
        )  # fmt: skip
        page.text(left + 0.5, high - 1.05, node.caption, ha="center", va="top", fontsize=6.5)
    _save(figure, path)


def _page(width: float, height: float, title: str, footnote: str) -> tuple[Figure, float, float]:
    """A figure of that room in inches, and the heights that title and footnote add."""
    require_drawing("figures")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(width, 5.0)
    heading = textwrap.wrap(title, int(width * 11))
    notes = textwrap.wrap(footnote, int(width * 14)) if footnote else []
    top, bottom = 0.19 * len(heading) + 0.15, 0.15 * len(notes) + 0.1
    height += top + bottom
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.12 / width, 1.0 - 0.1 / height, "\n".join(heading), va="top", fontsize=10.5)
    if notes:
        figure.text(
            0.12 / width, 0.08 / height, "\n".join(notes), va="bottom", fontsize=7.5, color="0.35"
        )
    return figure, top, bottom


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.across, fontsize=8)
    axes.set_ylabel(panel.up, fontsize=8)
    axes.tick_params(which="both", labelsize=7)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    seen: list[FloatArray] = []
    number = nulls = 0
    for series in panel.series:
        x, y = _shown(series, panel.scales)
        colour, marker = (_GREY, "") if series.null else (
            COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        )  # fmt: skip
        dashes = ("--", ":", "-.")[nulls % 3] if series.null else "-"
        number += not series.null
        nulls += series.null
        if len(x) == 0:
            continue
        seen += [x, y]
        _series(axes, series, x, y, (colour, marker, dashes))
    # A log scale without anything to show would warn.
    if seen:
        axes.set_xscale(panel.scales[0])
        axes.set_yscale(panel.scales[1])
    if panel.diagonal and seen:
        low, high = min(float(v.min()) for v in seen), max(float(v.max()) for v in seen)
        axes.plot([low, high], [low, high], color=_GREY, linewidth=0.8, zorder=0)


def _series(
    axes: Axes, series: Series, x: FloatArray, y: FloatArray, look: tuple[str, str, str]
) -> None:
    colour, marker, style = look
    if series.means:
        at = np.unique(x)
        means = np.array([y[x == each].mean() for each in at])
        axes.plot(
            at, means, style, color=colour, linewidth=1.2, label=series.name,
            marker=marker, markersize=4,
        )  # fmt: skip
        if marker:
            axes.plot(x, y, ".", color=colour, markersize=3, alpha=0.4)
    elif series.line or series.null:
        axes.plot(x, y, style, color=colour, linewidth=1.1, label=series.name)
    else:
        axes.plot(
            x, y, marker, color=colour, markersize=3.5, alpha=0.75, label=series.name,
            markeredgewidth=0.0,
        )  # fmt: skip
    inside = [mark for mark in series.marks if x.min() <= mark <= x.max()]
    if inside:
        axes.plot(inside, np.interp(inside, x, y), "|", color=colour, markersize=9)


def _shown(series: Series, scales: tuple[str, str]) -> tuple[FloatArray, FloatArray]:
    x = np.asarray(series.x, dtype=np.float64)
    y = np.asarray(series.y, dtype=np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    for values, scale in ((x, scales[0]), (y, scales[1])):
        if scale == "log":
            kept &= values > 0.0
    return x[kept], y[kept]


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": "kktcert"})
