"""Contact sheets: samples drawn as images, on a page that says what the verdict is."""

from __future__ import annotations

import importlib.util
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from identify.errors import InvalidInputError
from identify.markup import square_side
from identify.model.tensor_file import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from identify.arrays import FloatArray

Row = tuple[str, npt.ArrayLike] | tuple[str, npt.ArrayLike, Sequence[str]]
MAX_IMAGES = 100
"""Images of one row that are drawn; a note on the page says how many there are."""
_PER_LINE = 10
_CELL, _LINE, _SIDE, _MARGIN = 1.0, 0.12, 1.25, 0.15


def guess_image_shape(dimension: int) -> tuple[int, ...] | None:
    """The square grey or three-channel image of that many numbers, or None.

    Example:
        >>> guess_image_shape(64), guess_image_shape(3072), guess_image_shape(65)
        ((8, 8), (32, 32, 3), None)
    """
    square = square_side(dimension)
    if square is not None:
        return square, square
    side = math.isqrt(dimension // 3)
    return (side, side, 3) if side >= 8 and 3 * side * side == dimension else None


def recognise_image_shape(samples: npt.ArrayLike) -> tuple[tuple[int, ...] | None, str]:
    """Guess the shape of samples (n, d), with a remark; None where the pixels do not tell.

    Square grey images need no more than their number of pixels. Three channels may stand first or
    last: the order in which neighbouring pixels are more alike is taken if that is clear, by a
    fifth without and at all with the differences between channels.

    Example:
        >>> rows = np.tile(np.linspace(0, 1, 8)[:, None, None], (1, 8, 3)) * [1, 0.5, 0.2]
        >>> recognise_image_shape(rows.reshape(1, -1))[0]
        (8, 8, 3)
        >>> recognise_image_shape(np.moveaxis(rows, 2, 0).reshape(1, -1))[0]
        (3, 8, 8)
        >>> recognise_image_shape(np.random.default_rng(0).random((5, 192)))[0] is None
        True
    """
    rows = np.asarray(samples, dtype=np.float64)
    guess = guess_image_shape(rows.shape[1])
    option = "give --image-shape"
    if guess is None:
        return None, f"{option} for samples of {rows.shape[1]} entries"
    if len(guess) == 2:
        return guess, ""
    side = guess[0]
    rough = {shape: _roughness(rows, shape) for shape in (guess, (3, side, side))}
    for shape, other in (tuple(rough), tuple(rough)[::-1]):
        along, whole = rough[shape], rough[other]
        if along[0] < 0.8 * whole[0] and sum(along) < sum(whole):
            size = ",".join(map(str, shape))
            return shape, f"image shape {size} recognised by the pixels; {option} if it is another"
    orders = f"{side},{side},3 or 3,{side},{side}"
    return None, f"{option} {orders}: the pixels do not tell the order of the channels"


def alike_neighbours(samples: npt.ArrayLike, shape: tuple[int, ...]) -> bool:
    """Whether neighbouring pixels are more alike than others, by a fifth: pictures, and no table.

    Example:
        >>> ramp = np.tile(np.linspace(0, 1, 8), (1, 8))
        >>> mixed = ramp[:, np.random.default_rng(1).permutation(64)]
        >>> alike_neighbours(ramp, (8, 8)), alike_neighbours(mixed, (8, 8))
        (True, False)
    """
    rows = np.asarray(samples, dtype=np.float64)
    mixed = rows[:, np.random.default_rng(0).permutation(rows.shape[1])]
    return _roughness(rows, shape)[0] <= 0.8 * _roughness(mixed, shape)[0]


def _roughness(rows: FloatArray, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean modulus of the differences of neighbours, within channels and between them."""
    images = as_images(rows, shape)
    images = images[..., None] if images.ndim == 3 else images
    inside = [float(np.abs(np.diff(images, axis=axis)).mean()) for axis in (1, 2)]
    between = np.abs(np.diff(images, axis=3))
    return sum(inside), float(between.mean()) if between.size else 0.0


def parse_image_shape(text: str, dimension: int) -> tuple[int, ...]:
    """Read H,W or H,W,C with C = 1 or 3; 3,H,W stands for channels that come first.

    Raises InvalidInputError for anything else and for a product other than `dimension`.

    Example:
        >>> parse_image_shape("32,32,3", 3072), parse_image_shape("3,32,32", 3072)
        ((32, 32, 3), (3, 32, 32))
    """
    option, expected = "--image-shape", "H,W or H,W,C with C = 1 or 3"
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidInputError(option, expected, repr(text)) from None
    if len(shape) not in (2, 3) or min(shape) < 1 or not _channels(shape):
        raise InvalidInputError(option, expected, repr(text))
    if math.prod(shape) != dimension:
        raise InvalidInputError(
            option, f"{dimension} numbers, as a sample has", f"{text} = {math.prod(shape)}"
        )
    return shape


def parse_range(text: str) -> tuple[float, float]:
    """Read LO,HI with LO < HI.

    Example:
        >>> parse_range("-1,1")
        (-1.0, 1.0)
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidInputError("--range", "two numbers LO,HI", repr(text)) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInputError("--range", "finite LO < HI", repr(text))
    return low, high


def can_draw() -> bool:
    """Whether the extra that draws is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_drawing(option: str) -> None:
    """Raise InvalidInputError unless pictures can be drawn."""
    if not can_draw():
        raise InvalidInputError(
            option, "matplotlib, to draw", "no such package", "pip install 'kktcert[demo]'"
        )


def as_images(
    samples: npt.ArrayLike, shape: Sequence[int], mean: npt.ArrayLike | None = None
) -> FloatArray:
    """Turn samples (n, d) into images (n, H, W) or (n, H, W, 3), with the mean (d,) added.

    Raises InvalidInputError if the shapes do not fit. The cost is one copy.

    Example:
        >>> as_images(np.zeros((5, 12)), (3, 2, 2)).shape
        (5, 2, 2, 3)
    """
    rows = np.asarray(samples, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != math.prod(shape):
        raise InvalidInputError("samples", f"rows of {math.prod(shape)} numbers", rows.shape)
    if mean is not None:
        rows = rows + np.asarray(mean, dtype=np.float64).reshape(1, -1)
    images = rows.reshape(len(rows), *shape)
    if len(shape) == 3 and _channels(shape) == "first":
        images = np.moveaxis(images, 1, -1)
    return images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images


def contact_sheet(
    path: PathLike,
    rows: Sequence[Row],
    title: str,
    *,
    limits: tuple[float, float] | None = None,
    footnote: str = "",
) -> None:
    """Draw rows of images under a title and save the page as PNG.

    Each row is (caption, images) or (caption, images, captions of the images), images of shape
    (n, H, W) or (n, H, W, 3). Several rows are drawn in step, ten images a line, so that what
    belongs together stands one above the other. `limits` are the values drawn black and white;
    without them every image uses its own smallest and largest value. At most 100 images of a row
    are drawn.

    Raises InvalidInputError for other shapes, and if matplotlib (extra `demo`) is missing.

    Example:
        >>> import pathlib
        >>> path = pathlib.Path(__import__("tempfile").mkdtemp()) / "sheet.png"
        >>> contact_sheet(path, [("noise", np.random.default_rng(0).random((3, 8, 8)))], "Noise")
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    require_drawing("contact sheet")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = [_row(row) for row in rows]
    longest = max((len(images) for _, images, _ in series), default=0)
    if longest == 0:
        raise InvalidInputError("rows", "at least one image", "none")
    shown = min(longest, MAX_IMAGES)
    if longest > shown:
        footnote = f"{footnote + '; ' if footnote else ''}the first {shown} of {longest} are drawn"
    columns = min(shown, _PER_LINE)
    columns = max(columns, 4)
    blocks = math.ceil(shown / columns)
    heights = [_CELL + 0.08 + _LINE * _lines(labels) for _, _, labels in series]
    width = _SIDE + columns * _CELL + 2 * _MARGIN
    heading = textwrap.wrap(title, max(20, int(width * 11)))
    note = textwrap.wrap(footnote, int(width * 14)) if footnote else []
    top = 0.18 * len(heading) + 0.3
    bottom = 0.15 * len(note) + 0.12
    gap = 0.12 if len(series) > 1 else 0.0
    height = top + blocks * (sum(heights) + gap) + bottom
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    # One pair of axes for all, in inches: axes of their own for every image are slow.
    page = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    page.set_axis_off()
    page.set_autoscale_on(False)
    page.set_xlim(0.0, width)
    page.set_ylim(0.0, height)
    page.text(_MARGIN, height - 0.15, "\n".join(heading), va="top", fontsize=10.5)
    if note:
        page.text(_MARGIN, 0.08, "\n".join(note), va="bottom", fontsize=7.5, color="0.35")
    y = height - top
    for block in range(blocks):
        chosen = slice(block * columns, min((block + 1) * columns, shown))
        for (caption, images, labels), tall in zip(series, heights, strict=True):
            if len(images[chosen]):
                words = "\n".join(textwrap.wrap(caption, 16))
                page.text(_MARGIN, y - _CELL / 2, words, va="center", fontsize=8.5)
            for k, image in enumerate(images[chosen]):
                left = _MARGIN + _SIDE + k * _CELL
                label = labels[chosen][k] if labels else ""
                _draw(page, left, y, image, limits, label)
            y -= tall
        y -= gap
    figure.savefig(path, format="png", metadata={"Software": "kktcert"})


def _draw(
    page: Axes,
    left: float,
    top: float,
    image: FloatArray,
    limits: tuple[float, float] | None,
    label: str,
) -> None:
    """One image and its caption, the corner of its cell at (left, top)."""
    low, high = limits if limits is not None else (float(image.min()), float(image.max()))
    span = high - low if high > low else 1.0
    size = 0.92 * _CELL / max(image.shape[:2])
    tall, wide = size * image.shape[0], size * image.shape[1]
    left += (0.92 * _CELL - wide) / 2
    extent = (left, left + wide, top - tall, top)
    page.imshow(
        np.clip((image - low) / span, 0.0, 1.0),
        cmap="gray",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
        extent=extent,
        aspect="auto",
    )
    edges = [extent[0], extent[1], extent[1], extent[0], extent[0]]
    page.plot(edges, [top, top, top - tall, top - tall, top], color="black", linewidth=0.4)
    if label:
        page.text(left + wide / 2, top - tall - 0.03, label, ha="center", va="top", fontsize=6.5)


def _lines(labels: Sequence[str]) -> int:
    return max((label.count("\n") + 1 for label in labels if label), default=0)


def _row(row: Row) -> tuple[str, FloatArray, Sequence[str]]:
    caption, given = row[0], row[1]
    labels: Sequence[str] = row[2] if len(row) == 3 else ()
    images = np.asarray(given, dtype=np.float64)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise InvalidInputError("images", "shape (n, H, W) or (n, H, W, 3)", images.shape)
    if not np.isfinite(images).all():
        raise InvalidInputError("images", "finite numbers", "NaN or infinity")
    if labels and len(labels) != len(images):
        raise InvalidInputError("captions", f"{len(images)}, one an image", len(labels))
    return caption, images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images, labels


def _channels(shape: Sequence[int]) -> str:
    """Where the channels are: "none", "last", "first", or "" for no image."""
    if len(shape) == 2:
        return "none"
    return "last" if shape[-1] in (1, 3) else "first" if shape[0] in (1, 3) else ""
