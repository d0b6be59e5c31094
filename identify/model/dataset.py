"""Samples and labels from a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from identify.arrays import FloatArray
from identify.errors import FileError, InvalidInputError, listed
from identify.model.tensor_file import PathLike
from identify.model.untrusted import read_tensors


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples (n, d) in float64, their labels (n,) if known, and the shape of one image if any.

    Raises InvalidInputError if the shapes do not fit together.

    Example:
        >>> import numpy as np
        >>> Dataset(np.zeros((5, 12)), None, (2, 2, 3)).image_shape
        (2, 2, 3)
    """

    samples: FloatArray
    labels: FloatArray | None = None
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        shape = self.samples.shape
        if len(shape) != 2 or 0 in shape:
            raise InvalidInputError("samples", "shape (n, d), n, d >= 1", shape)
        if self.labels is not None and self.labels.shape != shape[:1]:
            raise InvalidInputError("labels", f"shape ({shape[0]},)", self.labels.shape)
        if self.image_shape is not None and math.prod(self.image_shape) != shape[1]:
            raise InvalidInputError("image_shape", f"{shape[1]} numbers", self.image_shape)


def load_samples(path: PathLike) -> Dataset:
    """Load ``samples`` or ``images`` (n, ...) and optional ``labels`` (n,) from an ``.npz`` file.

    Images (n, H, W) or (n, H, W, C) are flattened to rows, as they are: no rescaling, no mean
    removed. Images may be uint8 and labels of any integer dtype; other keys are not read.

    Raises FileError with one line for anything else. The cost is one pass over the arrays used.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.npz"
        >>> np.savez(path, images=np.full((4, 2, 3), 255, dtype=np.uint8), labels=[0, 1, 0, 1])
        >>> data = load_samples(path)
        >>> data.samples.shape, data.image_shape, data.labels
        ((4, 6), (2, 3), array([0., 1., 0., 1.]))
    """
    if Path(path).suffix.lower() != ".npz":
        raise FileError(path, "is no .npz file", "save samples with np.savez(path, samples=...)")
    file = read_tensors(path)
    keys = [key for key in ("samples", "images") if key in file.shapes]
    if len(keys) != 1:
        problem = "has both samples and images" if keys else "has neither samples nor images"
        raise FileError(path, problem, f"expected one of them; it holds {listed(file.shapes)}")
    key, shape = keys[0], file.shapes[keys[0]]
    if len(shape) < 2:
        raise FileError(path, f'"{key}" has shape {shape}', "expected (n, d) or (n, H, W, C)")
    array = file.floats(key, integers=key == "images" and file.dtypes[key] == "uint8")
    labels = None
    if "labels" in file.shapes:
        if file.shapes["labels"] != shape[:1]:
            raise FileError(
                path, f'"labels" has shape {file.shapes["labels"]}', f"expected ({shape[0]},)"
            )
        labels = file.floats("labels", integers=True)
    return Dataset(
        array.reshape(shape[0], -1), labels, tuple(shape[1:]) if len(shape) > 2 else None
    )
