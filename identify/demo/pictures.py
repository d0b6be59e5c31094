"""Pictures of the demonstration: digits beside what the weights say about them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from identify.arrays import FloatArray
from identify.demo.networks import Digits
from identify.pictures import Row, contact_sheet
from identify.records import Verdict
from identify.report.report import IdentifiabilityReport
from identify.text import number

SIDE = 8
Set = tuple[str, FloatArray, float]
"""Caption, samples (n, 64), residual."""
_PIXELS = (0.0, 1.0)


def as_pixels(samples: FloatArray, mean: FloatArray) -> FloatArray:
    """Images (n, 8, 8) of samples from which the mean image was removed."""
    return np.asarray((samples + mean).reshape(-1, SIDE, SIDE))


def like_digits(samples: FloatArray, digits: Digits) -> FloatArray:
    """Samples at the mean length of the digits, each with the sign that fits some digit best.

    The network fixes neither, so a picture may choose them.
    """
    units = samples / np.linalg.norm(samples, axis=1, keepdims=True)
    products = units @ digits.samples.T
    best = np.take_along_axis(products, np.abs(products).argmax(axis=1)[:, None], axis=1)
    length = float(np.mean(np.linalg.norm(digits.samples, axis=1)))
    return np.asarray(length * np.where(best < 0.0, -1.0, 1.0) * units)


def draw_recovery(
    path: Path,
    title: str,
    digits: Digits,
    recovered: FloatArray | None,
    report: IdentifiabilityReport,
) -> None:
    """True digits above recovered ones, each with its error."""
    rows: list[Row] = [("true images", as_pixels(digits.samples, digits.mean))]
    if recovered is not None:
        errors = np.linalg.norm(recovered - digits.samples, axis=1)
        errors = errors / np.linalg.norm(digits.samples, axis=1)
        captions = [f"error {number(float(error))}" for error in errors]
        rows.append(("recovered", as_pixels(recovered, digits.mean), captions))
    scope = f", {report.scope.sentence}" if report.scope is not None else ""
    contact_sheet(
        path,
        rows,
        title,
        limits=_PIXELS,
        footnote=f"Verdict: {report.verdict.value}{scope}. Brightness and sign, which such weights "
        "do not fix, and the mean image are taken from the data. Black 0, white 1; errors are "
        "relative.",
    )


def draw_sets(
    path: Path, title: str, digits: Digits, sets: Sequence[Set], report: IdentifiabilityReport
) -> None:
    """Training sets that explain the same weights, the true one first."""
    rows = [(caption, as_pixels(samples, digits.mean)) for caption, samples, _ in sets]
    worst = max(residual for _, _, residual in sets)
    footnote = (
        f"Verdict: {report.verdict.value}. With each row as its training set the network is "
        f"stationary, up to {worst:.0e}."
    )
    footnote += " Black 0, white 1."
    if report.scope is not None and report.scope.kind == "shown":
        footnote += " The other sets were found from the weights alone."
    if "unseen" in sets[-1][0]:
        footnote += (
            " The last row keeps label, output and length of every digit: only what is orthogonal "
            "to all neurons changed."
        )
    contact_sheet(path, rows, title, limits=_PIXELS, footnote=footnote)


def draw_scales(
    path: Path,
    title: str,
    digits: Digits,
    rows: Sequence[tuple[str, Verdict, FloatArray | None, float]],
) -> None:
    """True digits above those recovered at each output scale."""
    drawn = [("true images", as_pixels(digits.samples, digits.mean))]
    silent = []
    for scale, verdict, recovered, error in rows:
        if recovered is None:
            silent.append(scale)
            continue
        caption = f"scale {scale}: {verdict.value}, error {error:.0e}"
        drawn.append((caption, as_pixels(recovered, digits.mean)))
    footnote = "The larger the output scale, the less the weights move and the smaller the error. "
    footnote += "Black 0, white 1. "
    if silent:
        footnote += f"Scales {' and '.join(silent)}: undecided, nothing is recovered."
    contact_sheet(path, drawn, title, limits=_PIXELS, footnote=footnote)


def draw_overview(
    path: Path,
    known: Digits,
    recovered: FloatArray | None,
    hidden: Digits,
    sets: Sequence[Set],
) -> None:
    """One picture for a README: weights that determine the digits, weights that do not."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left = []
    for half in np.array_split(np.arange(len(known.samples)), 2):
        left.append(("true images", as_pixels(known.samples[half], known.mean)))
        if recovered is not None:
            left.append(("recovered", as_pixels(recovered[half], known.mean)))
    right = [(caption, as_pixels(samples, hidden.mean)) for caption, samples, _ in sets]
    columns = [max(len(images) for _, images in block) for block in (left, right)]
    side, cell, gap, head, margin = 1.15, 0.72, 0.5, 0.72, 0.15
    lines = max(len(left), len(right))
    width = 2 * side + cell * sum(columns) + gap + 2 * margin
    height = head + lines * cell + margin
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    start = margin
    titles = (
        "These weights determine their training digits,\nrecovered here up to brightness and sign",
        "These weights do not: every row of five\nexplains them exactly",
    )
    for block, count, text in zip((left, right), columns, titles, strict=True):
        figure.text(start / width, 1 - 0.13 / height, text, va="top", fontsize=10.5)
        for line, (caption, images) in enumerate(block):
            top = height - head - line * cell
            words = "\n".join(textwrap.wrap(caption, 14))
            figure.text(start / width, (top - cell / 2) / height, words, va="center", fontsize=9)
            for k, image in enumerate(images):
                left_edge, edge = start + side + k * cell, 0.94 * cell
                axes = figure.add_axes(
                    (left_edge / width, (top - edge) / height, edge / width, edge / height)
                )
                axes.imshow(
                    np.clip(image, *_PIXELS), cmap="gray", vmin=0.0, vmax=1.0,
                    interpolation="nearest",
                )  # fmt: skip
                axes.set_axis_off()
        start += side + count * cell + gap
    figure.savefig(path, format="png", metadata={"Software": "kktcert"})
