"""Part e of the demonstration: one gradient of a trained ReLU classifier gives its batch."""

from __future__ import annotations

import itertools
import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.assess_batch import assess_gradient
from identify.checker.check import check_report
from identify.demo.networks import all_digits
from identify.disaggregation.records import GLOBALLY
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope
from identify.pictures import contact_sheet
from identify.report.gradient import GradientReport
from identify.text import number

SIZES = (64, 128, 512, 10)
_EPOCHS, _STEP, _MINI_BATCH = 3, 1e-3, 64
_COUNT = 10


@dataclass(frozen=True, eq=False)
class BatchPart:
    """The line of part e: a trained classifier, the gradient of ten of its images, the truth.

    ``errors`` (n,) are the relative distances of the true images from the recovered ones, infinite
    where nothing was recovered; ``labels_right`` counts labels. ``checked`` is what `kktcert check`
    says of the report.
    """

    report: GradientReport
    images: FloatArray
    classes: npt.NDArray[np.int64]
    accuracy: float
    errors: FloatArray
    labels_right: int
    order: npt.NDArray[np.int64] | None
    seconds: float
    command: str
    checked: str
    name: str = "e"

    @property
    def question(self) -> str:
        """What was asked."""
        return f"{len(self.images)} digits, ReLU network"

    @property
    def recovered(self) -> int:
        """True images within their error bound, at least 1 %."""
        return int((self.errors <= 0.01).sum())

    @property
    def bound(self) -> float | None:
        """The largest error bound that the report prints."""
        bounds = self.report.found.error_bounds
        return None if bounds is None else float(bounds.max())

    def cells(self) -> list[str]:
        """The line of the table."""
        found, count = self.report.found, len(self.images)
        sure = found.verdict == GLOBALLY
        return [
            self.name,
            self.question,
            found.verdict,
            f"at most {found.rank}" if sure else "-",
            # Uniqueness is proved for the printed answer alone; that it is the batch is checked.
            "numerical" if sure else "-",
            f"{self.recovered} of {count}",
            number(float(self.errors.max())) if self.recovered == count else "-",
            number(self.bound),
        ]


def batch_part(out: Path, seed: int) -> BatchPart:
    """(e): the float32 gradient of ten training images in a classifier of 64-128-512-10."""
    started = time.monotonic()
    images, classes = all_digits()
    network, accuracy = train_classifier(images, classes, seed)
    rng = np.random.default_rng([seed, 17])
    chosen = rng.choice(len(images), _COUNT, replace=False)
    x, y = images[chosen], classes[chosen]
    slopes = loss_slope("cross_entropy", network.value(x), y) / _COUNT
    gradient = _float32(network.gradient(x, slopes))
    report = assess_gradient(network, gradient, "cross-entropy", seed=seed)
    folder = out / "e"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    np.savez(folder / "model.npz", allow_pickle=False, **dict(_named(network)))
    sent = {name: array.astype(np.float32) for name, array in _named(gradient)}
    np.savez(folder / "gradient.npz", allow_pickle=False, **sent)
    np.savez(folder / "truth.npz", allow_pickle=False, samples=x, labels=y)
    checked = check_report(
        json.loads(report.to_json()), folder / "model.npz", gradient=folder / "gradient.npz"
    ).outcome
    found = report.found
    errors, right, order = np.full(_COUNT, np.inf), 0, None
    if found.samples is not None and found.layer == 0:
        apart = np.linalg.norm(x[:, None] - found.samples, axis=2)
        apart = apart / np.linalg.norm(x, axis=1)[:, None]
        order = apart.argmin(axis=1)
        errors = apart.min(axis=1)
        right = 0 if found.labels is None else int((found.labels[order] == y).sum())
    command = (
        f"kktcert recover {shlex.quote(str(folder / 'model.npz'))} --source gradient --gradient "
        f"{shlex.quote(str(folder / 'gradient.npz'))} --activation relu --loss cross-entropy "
        f"--out {shlex.quote(str(out / 'e-recovered'))}"
    )
    seconds = time.monotonic() - started
    return BatchPart(report, x, y, accuracy, errors, right, order, seconds, command, checked)


def train_classifier(
    images: FloatArray, classes: npt.NDArray[np.int64], seed: int
) -> tuple[DeepNetwork, float]:
    """Train 64-128-512-10 with Adam on the cross-entropy for three epochs; network and accuracy.

    Source: Kingma & Ba (2015), "Adam: A method for stochastic optimization", with its constants.
    """
    rng = np.random.default_rng([seed, 16])
    pairs = list(itertools.pairwise(SIZES))
    weights = [rng.uniform(-1, 1, (o, i)) / np.sqrt(i) for i, o in pairs]
    biases = [rng.uniform(-1, 1, o) / np.sqrt(i) for i, o in pairs]
    parameters = [*weights, *biases]
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    step = 0
    for _ in range(_EPOCHS):
        order = rng.permutation(len(images))
        for start in range(0, len(order), _MINI_BATCH):
            chosen = order[start : start + _MINI_BATCH]
            network = DeepNetwork(weights, biases, "relu")
            f = network.value(images[chosen])
            slopes = loss_slope("cross_entropy", f, classes[chosen]) / len(chosen)
            gradient = network.gradient(images[chosen], slopes)
            step += 1
            parts = (*gradient.weights, *gradient.biases)
            for p, g, (mean, square) in zip(parameters, parts, moments, strict=True):
                if g is None:
                    continue
                mean += 0.1 * (g - mean)
                square += 0.001 * (g**2 - square)
                scale = np.sqrt(square / (1 - 0.999**step)) + 1e-8
                p -= _STEP * mean / (1 - 0.9**step) / scale
    network = DeepNetwork(weights, biases, "relu")
    return network, float((network.value(images).argmax(axis=1) == classes).mean())


def draw_batch(path: Path, part: BatchPart) -> None:
    """True digits above recovered ones, each with its label."""
    side = (8, 8)
    captions = [f"label {int(k)}" for k in part.classes]
    rows: list[tuple[str, FloatArray, list[str]]] = [
        ("true images", part.images.reshape(-1, *side), captions)
    ]
    found = part.report.found
    if found.samples is not None and part.order is not None:
        shown = found.samples[part.order]
        labels = [""] * len(shown)
        if found.labels is not None:
            labels = [f"label {int(k)}" for k in found.labels[part.order]]
        labels = [
            f"{label}\nerror {number(float(error))}".lstrip()
            for label, error in zip(labels, part.errors, strict=True)
        ]
        rows.append(("recovered from the gradient", shown.reshape(-1, *side), labels))
    sizes = "-".join(map(str, SIZES))
    contact_sheet(
        path,
        rows,
        "Ten digits of one batch with their labels, from one gradient of a trained ReLU network",
        limits=(0.0, 1.0),
        footnote=f"Verdict: {part.report.verdict}, {part.report.scope_sentence}. {sizes}, "
        f"cross-entropy, right on {part.accuracy:.0%} of its training images; the gradient in "
        "float32 is all that was used. Black 0, white 1.",
    )


def _float32(gradient: DeepGradient) -> DeepGradient:
    return DeepGradient(
        tuple(None if w is None else w.astype(np.float32) for w in gradient.weights),
        tuple(None if b is None else b.astype(np.float32) for b in gradient.biases),
    )


def _named(part: DeepNetwork | DeepGradient) -> Iterator[tuple[str, FloatArray]]:
    for index, (weight, bias) in enumerate(zip(part.weights, part.biases, strict=True)):
        for kind, array in (("weight", weight), ("bias", bias)):
            if array is not None:
                yield f"layers.{index}.{kind}", array
