"""Training sets for victims: chosen images, their targets, and the mean that is removed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attack.training.image_files import RawImages, read_images
from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError

TASKS = ("binary", "multiclass", "regression", "one-hot")
REDUCTIONS = ("pixel", "scalar", "channel", "none")
DRAWS = ("first", "random")
POSITIVE: Mapping[str, tuple[int, ...]] = {
    "digits": (1, 3, 5, 7, 9),
    "mnist": (1, 3, 5, 7, 9),
    "cifar10": (2, 3, 4, 5, 6, 7),
}
"""The classes with target +1, all others -1: odd digits; animals against vehicles.

The tasks of Haim et al. (2022) and Buzaglo et al. (2023). Those of Loo et al. (2024) have vehicles
positive, `positive=(0, 1, 8, 9)`.
"""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images (n, *image_shape), pixels in [0, 1] as stored, and what a network is trained on.

    `samples` (n, D) are the images as rows with `mean` (D,) removed, `labels` their targets:
    +-1 (n,) float64 for "binary" and "regression", class indices (n,) int64 for "multiclass",
    one-hot minus 1/C (n, C) for "one-hot", the labels of the file (n,) or None without a task.
    `indices` (n,) are positions in the file, `settings` the choices, for the record.

    Raises InvalidInputError if the shapes do not fit together.

    Example:
        >>> data = load_images("digits", per_class=3, task="binary")
        >>> data.samples.shape, data.image_shape, data.labels.sum()
        ((6, 64), (8, 8), np.float64(0.0))
    """

    images: FloatArray
    labels: npt.NDArray[Any] | None
    image_shape: tuple[int, ...]
    name: str
    mean: FloatArray
    indices: npt.NDArray[np.intp]
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        count = len(self.images)
        if count == 0 or self.images.shape[1:] != self.image_shape:
            raise InvalidInputError("images", f"shape (n, *{self.image_shape})", self.images.shape)
        if self.labels is not None and len(self.labels) != count:
            raise InvalidInputError("labels", f"{count} of them", len(self.labels))
        if self.mean.shape != (math.prod(self.image_shape),):
            raise InvalidInputError("mean", f"{math.prod(self.image_shape)}", self.mean.shape)

    @property
    def samples(self) -> FloatArray:
        """The images as rows (n, D), mean removed: what the network sees."""
        return self.images.reshape(len(self.images), -1) - self.mean

    def describe(self) -> dict[str, Any]:
        """JSON-ready record: name, counts, choices, and a hash of samples and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.samples, dtype="<f8").tobytes())
        record: dict[str, Any] = {
            "name": self.name,
            "count": len(self.images),
            "image_shape": list(self.image_shape),
            **self.settings,
        }
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<f8").tobytes())
            if self.labels.ndim == 1 and len(np.unique(self.labels)) <= 100:
                values, counts = np.unique(self.labels, return_counts=True)
                record["labels"] = {f"{v:g}": int(c) for v, c in zip(values, counts, strict=True)}
        return record | {"mean_of_mean": float(self.mean.mean()), "sha256": digest.hexdigest()}


def load_images(
    spec: str,
    *,
    task: str | None = None,
    per_class: int | None = None,
    count: int | None = None,
    skip: int = 0,
    split: str = "train",
    classes: Sequence[int] | None = None,
    positive: Sequence[int] | None = None,
    mean: str | npt.ArrayLike = "pixel",
    draw: str = "first",
    shuffle: bool = False,
    seed: int = 0,
) -> ImageData:
    """Load images, choose some of each class, set targets, and record the mean to remove.

    The published training sets are `task="binary", per_class=250` (Haim), `task="multiclass",
    per_class=50, shuffle=True` and `task="regression", per_class=250` (Buzaglo), `task="binary",
    draw="random", mean="scalar"` (Loo, MNIST; "channel" for CIFAR-10). Held-out images are the
    next ones: the same call with `skip=per_class` (or `skip=count`) and the first call's mean.

    Args:
        spec: "digits", "mnist[:PATH]", "cifar10[:PATH]", "openml:NAME[:VERSION]" or a PATH; see
            `image_files.read_images`.
        task: the targets, see `ImageData`; None keeps the labels of the file.
        per_class: how many of each target value ("binary", "regression": +1 and -1; else of each
            class), in the order of the file; None for all.
        count: how many at most, after that; without `per_class` in the order of the file.
        skip: how many to pass over first, of each with `per_class`.
        split: "train" or "test".
        classes: use only these, in this order for "multiclass" and "one-hot".
        positive: the classes with target +1; by default odd digits, animals, or the larger of two.
            Elsewhere "regression" keeps the labels of the file unless this is given.
        mean: "pixel" (mean image), "scalar" (one number), "channel" (one per channel), "none", or
            numbers that broadcast to the image shape.
        draw: "first" in the order of the file, or "random" by the seed.
        shuffle: order the chosen images by the seed instead of by the file.
        seed: of `draw` and `shuffle`.

    Raises:
        InvalidInputError: unknown words, classes that are not there, too few images.
        FileError: unreadable or missing files; OpenML without a network.

    Cost: one pass over the file; 8 n D bytes for what is chosen.
    Source: Haim et al. (2022), "Reconstructing training data from trained neural networks";
        Buzaglo et al. (2023), "Deconstructing data reconstruction"; Loo et al. (2024),
        "Understanding reconstruction attacks with the neural tangent kernel".

    Example:
        >>> data = load_images("digits", task="multiclass", per_class=2, mean="scalar")
        >>> data.images.shape, data.labels[:5], len(set(data.mean))
        ((20, 8, 8), array([0, 1, 2, 3, 4]), 1)
        >>> others = load_images("digits", task="binary", per_class=2, skip=2, mean=data.mean)
        >>> others.samples.shape
        (4, 64)
    """
    for name, value, known in (("task", task, (None, *TASKS)), ("draw", draw, DRAWS)):
        if value not in known:
            raise InvalidInputError(name, f"one of {', '.join(map(str, known))}", value)
    if seed < 0 or skip < 0:
        raise InvalidInputError("seed and skip", "at least 0", (seed, skip))
    raw = read_images(spec, split)
    kept = np.arange(len(raw.images))
    if classes is not None:
        kept = np.flatnonzero(np.isin(_whole_labels(raw, "classes"), _present(raw, classes)))
    ones = _positive_classes(raw, task, classes, positive)
    labels = _targets(raw, task, classes, ones)
    rng = np.random.default_rng(seed)
    chosen = _choose(kept, labels, per_class, count, skip, rng if draw == "random" else None)
    if shuffle:
        chosen = rng.permutation(chosen)
    images = np.asarray(raw.images[chosen], dtype=np.float64) / raw.white
    shape = tuple(images.shape[1:])
    removed, reduction = _reduction(images, mean)
    targets = None if labels is None else labels[chosen]
    if task == "one-hot" and targets is not None:
        order = len(_class_order(raw, classes))
        targets = np.eye(order)[targets] - 1.0 / order
    return ImageData(
        images=images,
        labels=targets,
        image_shape=shape,
        name=raw.source,
        mean=removed,
        indices=chosen,
        settings={
            "split": split,
            "task": task,
            "per_class": per_class,
            "skip": skip,
            "classes": None if classes is None else list(map(int, classes)),
            "positive": ones,
            "mean": reduction,
            "draw": draw,
            "shuffle": shuffle,
            "seed": seed,
        },
    )


def _targets(
    raw: RawImages, task: str | None, classes: Sequence[int] | None, ones: list[int] | None
) -> npt.NDArray[Any] | None:
    """One target per stored image; class indices for "one-hot"."""
    if raw.labels is None:
        if task is None:
            return None
        raise InvalidInputError("task", f"labels in {raw.source}", "none", "leave the task out")
    if task in ("multiclass", "one-hot"):
        ranks = {label: rank for rank, label in enumerate(_class_order(raw, classes))}
        every = _whole_labels(raw, "task").tolist()
        return np.array([ranks.get(label, -1) for label in every], dtype=np.int64)
    if ones is not None:
        return np.where(np.isin(raw.labels, ones), 1.0, -1.0)
    return np.asarray(raw.labels, dtype=np.float64)


def _positive_classes(
    raw: RawImages,
    task: str | None,
    classes: Sequence[int] | None,
    positive: Sequence[int] | None,
) -> list[int] | None:
    """The classes with target +1; None if the targets are not +-1."""
    if task not in ("binary", "regression") or raw.labels is None:
        if positive is not None:
            raise InvalidInputError("positive", "the task binary or regression", f"task {task}")
        return None
    if positive is not None:
        return [int(k) for k in _present(raw, positive)]
    if raw.family not in POSITIVE and task == "regression":
        return None
    found = np.unique(_whole_labels(raw, "task"))
    if classes is not None:
        found = found[np.isin(found, list(classes))]
    chosen = [int(k) for k in POSITIVE.get(raw.family or "", ()) if k in found]
    if 0 < len(chosen) < len(found):
        return chosen
    if len(found) != 2:
        raise InvalidInputError(
            "task", "two classes", f"{len(found)}", "name the positive ones with `positive`"
        )
    return [int(found[1])]


def _class_order(raw: RawImages, classes: Sequence[int] | None) -> list[int]:
    if classes is not None:
        return [int(k) for k in classes]
    return [int(k) for k in np.unique(_whole_labels(raw, "task"))]


def _whole_labels(raw: RawImages, name: str) -> npt.NDArray[np.int64]:
    if raw.labels is None:
        raise InvalidInputError(name, f"labels in {raw.source}", "none")
    labels = np.asarray(raw.labels)
    if not np.array_equal(labels, np.round(labels)):
        raise InvalidInputError(name, f"whole numbers as labels in {raw.source}", "fractions")
    return labels.astype(np.int64)


def _present(raw: RawImages, classes: Sequence[int]) -> npt.NDArray[np.int64]:
    wanted = np.asarray(list(classes), dtype=np.int64)
    found = np.unique(_whole_labels(raw, "classes"))
    missing = wanted[~np.isin(wanted, found)]
    if len(wanted) == 0 or len(np.unique(wanted)) < len(wanted) or len(missing):
        known = ", ".join(map(str, found[:20]))
        raise InvalidInputError("classes", f"different ones of {known}", wanted.tolist())
    return wanted


def _choose(
    kept: npt.NDArray[np.intp],
    labels: npt.NDArray[Any] | None,
    per_class: int | None,
    count: int | None,
    skip: int,
    rng: np.random.Generator | None,
) -> npt.NDArray[np.intp]:
    """Positions in the order of the file."""
    for name, value in (("per_class", per_class), ("count", count)):
        if value is not None and value < 1:
            raise InvalidInputError(name, "at least 1", value)
    if rng is not None:
        kept = rng.permutation(kept)
    if per_class is not None and labels is None:
        raise InvalidInputError("per_class", "labels in the file", "none", "use `count`")
    if labels is None or per_class is None:
        chosen = kept[skip:]
    else:
        parts = []
        for label in np.unique(labels[kept]):
            members = kept[labels[kept] == label][skip:]
            if len(members) < per_class:
                raise InvalidInputError(
                    "per_class", f"at most {len(members)}, which class {label:g} has left",
                    per_class, "use fewer, or skip fewer",
                )  # fmt: skip
            parts.append(members[:per_class])
        # The order of the draw, or of the file.
        chosen = kept[np.isin(kept, np.concatenate(parts))]
    if len(chosen) < (count or 1):
        raise InvalidInputError("count", f"at most {len(chosen)}, which are left", count or 1)
    return np.sort(chosen[:count])


def _reduction(images: FloatArray, mean: str | npt.ArrayLike) -> tuple[FloatArray, str]:
    shape = images.shape[1:]
    if isinstance(mean, str):
        if mean not in REDUCTIONS:
            raise InvalidInputError("mean", f"one of {', '.join(REDUCTIONS)}, or numbers", mean)
        if mean == "channel" and len(shape) not in (2, 3):
            raise InvalidInputError("mean", "images for a mean per channel", f"shape {shape}")
        axes = {"pixel": (0,), "channel": (0, 1, 2)}.get(mean)
        value = np.asarray(0.0 if mean == "none" else images.mean(axis=axes), dtype=np.float64)
        word = mean
    else:
        value, word = real_array("mean", mean), "given"
        if value.size == math.prod(shape):
            value = value.reshape(shape)
    try:
        full = np.broadcast_to(value, shape).reshape(-1).copy()
    except ValueError as error:
        raise InvalidInputError(
            "mean", f"numbers that broadcast to {shape}", value.shape
        ) from error
    return full, word
