"""HTML for notebooks: tables, pictures and text, all of it escaped."""

from __future__ import annotations

import base64
import html
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHOWN = 24
"""Pictures and rows of one object that a notebook shows; a note says how many there are."""
_CELL = 72
_LARGE = 60


class Shown:
    """An object whose text a notebook shows in place of its fields.

    Example:
        >>> class Answer(Shown):
        ...     def __str__(self):
        ...         return "a < b"
        >>> Answer()._repr_html_()
        '<pre>a &lt; b</pre>'
    """

    def _repr_html_(self) -> str:
        return preformatted(str(self))


def preformatted(text: str) -> str:
    """Return text as it stands, escaped."""
    return f"<pre>{html.escape(text)}</pre>"


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and what is said of each as a list of terms.

    Example:
        >>> terms([("loss", "<1")])
        '<dl><dt>loss</dt><dd>&lt;1</dd></dl>'
    """
    rows = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(said)}</dd>" for name, said in pairs)
    return f"<dl>{''.join(rows)}</dl>"


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of escaped cells, cut after ``SHOWN`` rows."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows[:SHOWN]
    )
    more = f"<p>{len(rows) - SHOWN} more rows</p>" if len(rows) > SHOWN else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def pictures_html(images: npt.ArrayLike, captions: Sequence[str]) -> str:
    """Return images (n, H, W) or (n, H, W, 3) side by side, each from its darkest to its lightest.

    The first ``SHOWN`` of them, with their captions, which stand for them where they are not seen.

    Example:
        >>> pictures_html(np.eye(4)[None], ["a < b"]).count("&lt;")
        2
    """
    array = np.asarray(images, dtype=np.float64)
    figures = []
    for image, caption in zip(array[:SHOWN], captions, strict=False):
        data = base64.b64encode(png(image)).decode("ascii")
        said = html.escape(caption)
        figures.append(
            '<figure style="display:inline-block;margin:4px">'
            f'<img src="data:image/png;base64,{data}" alt="{said}" width="{_CELL}" '
            f'style="image-rendering:pixelated"><figcaption>{said}</figcaption></figure>'
        )
    more = f"<p>{len(array) - SHOWN} more</p>" if len(array) > SHOWN else ""
    return "".join(figures) + more


def square_side(dimension: int) -> int | None:
    """The side of a square grey image of that many numbers, from 4 on, else None.

    Example:
        >>> square_side(64), square_side(65), square_side(9)
        (8, None, None)
    """
    side = math.isqrt(max(dimension, 0))
    return side if side >= 4 and side * side == dimension else None


def png(image: npt.NDArray[Any]) -> bytes:
    """Return an image (H, W) or (H, W, 3) as PNG, its values stretched to the range of grey.

    Example:
        >>> png(np.eye(4))[:4]
        b'\\x89PNG'
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    pixels = np.rint(255.0 * scaled).astype(np.uint8)
    height, width = pixels.shape[:2]
    lines = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()
    kind = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def sheet(images: npt.ArrayLike, columns: int = 10) -> bytes:
    """Return images (n, H, W) or (n, H, W, 3) as one PNG, each stretched to the range of grey.

    Rows of ``columns`` with a light line between them, small images enlarged to some 60 pixels.

    Example:
        >>> sheet(np.ones((3, 4, 4)))[:4]
        b'\\x89PNG'
    """
    array = np.asarray(images, dtype=np.float64)
    count, high, wide = array.shape[:3]
    scale = max(1, round(_LARGE / max(high, wide)))
    low = array.min(axis=tuple(range(1, array.ndim)), keepdims=True)
    top = array.max(axis=tuple(range(1, array.ndim)), keepdims=True)
    grey = (array - low) / np.where(top > low, top - low, 1.0)
    grey = grey.repeat(scale, axis=1).repeat(scale, axis=2)
    across = min(columns, count)
    down = math.ceil(count / across)
    height, width = scale * high + 2, scale * wide + 2
    page = np.ones((down * height, across * width, *array.shape[3:]))
    for index, image in enumerate(grey):
        y, x = height * (index // across), width * (index % across)
        page[y : y + height - 2, x : x + width - 2] = image
    # Both ends of the range, so that nothing is stretched once more.
    page.flat[-1] = 1.0
    page.flat[0] = page.flat[0] if page.min() == 0.0 else 0.0
    return png(page)
