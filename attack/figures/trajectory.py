"""The way of one candidate through its splits, drawn as a tree of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attack.evaluation import metrics
from attack.figures.plots import Node, tree
from attack.runs.finished import RunResult, Snapshot
from identify.arrays import FloatArray
from identify.pictures import as_images

IntArray = npt.NDArray[np.intp]
MOST_LEAVES = 6


@dataclass(frozen=True)
class Skipped:
    """A figure that was not drawn, and why."""

    what: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """A JSON-ready copy."""
        return {"figure": self.what, "reason": self.reason}


def trajectory(
    run: RunResult, path: Callable[[], Path], other: RunResult | None = None
) -> Skipped | tuple[str, dict[str, Any]]:
    """Draw the starting candidate with the most splits and all its offspring to the end.

    The choice looks at splits alone, never at the truth; equal numbers: the first candidate. With
    more than six final candidates those of the largest multipliers are followed. `other` is the
    same run without splitting: its end of the same candidate stands beside. Where the run was
    evaluated, the true sample nearest to each end by NCC stands in the last column.
    """
    what = f"trajectory of {run.name}"
    if run.splitting == "off":
        return Skipped(what, "the run does not split")
    if not run.accepted:
        return Skipped(what, "no round of the run kept a split")
    shape = run.shape
    if shape is None:
        return Skipped(what, "samples are no images; give --image-shape to attack")
    root, splits = _most_split(run.snapshots)
    if root is None:
        return Skipped(what, "no split led to a candidate that is there at the end")
    leaves = _leaves(run.snapshots, root, run.weights)
    mean = None if run.pictures is None else run.pictures["mean"].ravel()
    nodes, columns = _nodes(run, shape, mean, leaves)
    last = len(nodes) - len(leaves)
    extra: dict[str, Any] = {}
    if other is not None and len(other.images) > root:
        image = as_images(run.pixels(other.images[root][None]), shape, mean)[0]
        nodes.append(Node(len(columns) - 1, float(len(leaves)), image, "without splitting", 0))
        extra["without"] = other.name
    if run.evaluation is not None and run.pictures is not None:
        columns.append("nearest sample")
        ends = run.pixels(run.images[leaves])
        truth = run.pictures["truth"]
        distances = metrics.ncc_matrix(ends, truth, shape)
        nearest = distances.argmin(axis=1)
        likeness = metrics.correlation(ends, truth[nearest], shape)
        pictures = as_images(truth[nearest], shape, mean)
        for k, image in enumerate(pictures):
            caption = f"correlation {likeness[k]:.2f}"
            nodes.append(Node(len(columns) - 1, float(k), image, caption, last + k))
        extra["correlation"] = likeness.tolist()
    title = f"{run.label}: candidate {root}, split in {splits} of {run.accepted} rounds"
    added = "" if mean is None else "mean added, "
    note = f"{added}each image is stretched from black to white by itself; "
    note += "the candidate with the most splits"
    if len(leaves) == MOST_LEAVES:
        note += f"; at most {MOST_LEAVES} of its offspring, those of the largest multipliers"
    tree(path(), title, nodes, columns, note)
    return title, {"candidate": root, "splits": splits, "ends": leaves.tolist(), **extra}


def ancestry(snapshots: tuple[Snapshot, ...], leaves: IntArray) -> list[IntArray]:
    """The index of each leaf's ancestor in every snapshot, first to last.

    Example:
        >>> points = np.zeros((2, 1))
        >>> first = Snapshot(0, points, np.arange(2))
        >>> last = Snapshot(5, np.zeros((3, 1)), np.array([0, 1, 1]))
        >>> [indices.tolist() for indices in ancestry((first, last), np.array([1, 2]))]
        [[1, 1], [1, 2]]
    """
    rows = [leaves]
    for snapshot in snapshots[:0:-1]:
        rows.append(snapshot.origin[rows[-1]])
    return rows[::-1]


def _most_split(snapshots: tuple[Snapshot, ...]) -> tuple[int | None, int]:
    """The first candidate with offspring at the end and the most rounds in which some was split."""
    ends = np.arange(len(snapshots[-1].x))
    rows = ancestry(snapshots, ends)
    counts = np.zeros(len(snapshots[0].x), dtype=int)
    for before, after in pairwise(rows):
        # A parent of two different candidates was split in that round.
        family = np.unique(np.stack([rows[0], before, after]), axis=1)
        parents, offspring = np.unique(family[:2], axis=1, return_counts=True)
        counts[np.unique(parents[0][offspring > 1])] += 1
    best = int(counts.argmax())
    return (best, int(counts[best])) if counts[best] else (None, 0)


def _leaves(snapshots: tuple[Snapshot, ...], root: int, weights: FloatArray) -> IntArray:
    """The final candidates that come from `root`, in the order of the tree."""
    rows = ancestry(snapshots, np.arange(len(snapshots[-1].x)))
    found = np.flatnonzero(rows[0] == root)
    if len(found) > MOST_LEAVES:
        found = found[np.argsort(-weights[found], kind="stable")[:MOST_LEAVES]]
    keys = [row[found] for row in rows[::-1]]
    return found[np.lexsort(keys)]


def _nodes(
    run: RunResult, shape: tuple[int, ...], mean: FloatArray | None, leaves: IntArray
) -> tuple[list[Node], list[str]]:
    """One node for every ancestor of the leaves, the leaves themselves last."""
    rows = ancestry(run.snapshots, leaves)
    nodes: list[Node] = []
    above: dict[int, int] = {}
    last = len(rows) - 1
    for column, (snapshot, indices) in enumerate(zip(run.snapshots, rows, strict=True)):
        here: dict[int, int] = {}
        for k, index in enumerate(indices.tolist()):
            if index in here:
                continue
            parent = above[int(rows[column - 1][k])] if column else None
            image = as_images(run.pixels(run.ordered(snapshot.x[index][None])), shape, mean)[0]
            caption = f"multiplier {run.weights[index]:.2g}" if column == last else ""
            here[index] = len(nodes)
            nodes.append(Node(column, float(k), image, caption, parent))
        above = here
    return nodes, [f"step {snapshot.step}" for snapshot in run.snapshots]
