"""Samples and labels from a file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray, real_array
from identify.errors import FileError, InvalidInputError, listed
from identify.model.tensor_file import ROUNDING, PathLike, TensorFile
from identify.model.untrusted import read_npy, read_tensors

SAMPLES = ("samples", "images")
LABELS = ("labels", "y_train", "train_labels", "y", "label", "targets", "target")
_OTHER_SAMPLES = ("x_train", "train_images", "x", "data", "inputs", "features")


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


def load_samples(path: PathLike, *, with_labels: bool = True) -> Dataset:
    """Load samples (n, ...) and optional labels from an ``.npz`` file, or samples from ``.npy``.

    The arrays are ``samples`` or ``images`` and ``labels``, or what other tools call them
    (``x_train``, ``y_train``, ``x``, ``y``, ``data``, ..., in any case). Images (n, H, W),
    (n, H, W, C) or (n, C, H, W) are flattened to rows, as they are: no rescaling, no mean removed.
    Samples may be integers. Labels (n,) or (n, 1) are taken as they are, one-hot ones (n, C) become
    class numbers; other keys are not read. Without `with_labels` labels are not read either.

    Raises FileError with one line for anything else. The cost is one pass over the arrays used.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.npz"
        >>> np.savez(path, images=np.full((4, 2, 3), 255, dtype=np.uint8), labels=[0, 1, 0, 1])
        >>> data = load_samples(path)
        >>> data.samples.shape, data.image_shape, data.labels
        ((4, 6), (2, 3), array([0., 1., 0., 1.]))
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".npz", ".npy"):
        raise FileError(path, "is no .npz file", "save samples with np.savez(path, samples=...)")
    file = read_npy(path, "samples") if suffix == ".npy" else read_tensors(path)
    key, names = find_samples(file)
    shape = file.shapes[key]
    if len(shape) < 2:
        raise FileError(path, f'"{key}" has shape {shape}', "expected (n, d) or (n, H, W, C)")
    array = file.floats(key, integers=True)
    labels = None
    found = [name for name in names if with_labels and name in file.shapes]
    if found:
        given = label_array(file, found[0])
        try:
            labels = flat_labels(given, shape[0])
        except InvalidInputError as error:
            problem = f'"{found[0]}" has shape {given.shape}'
            expected = str(error.context["expected"]).removeprefix("shape ")
            raise FileError(path, problem, f"expected {expected}") from error
    return Dataset(
        array.reshape(shape[0], -1), labels, tuple(shape[1:]) if len(shape) > 2 else None
    )


def find_samples(file: TensorFile, start: str = "") -> tuple[str, tuple[str, ...]]:
    """Find the key of the samples in a file, and the keys under which its labels may stand.

    Raises FileError if there is none, or several.

    Example:
        >>> file = TensorFile("a", {"X_train": (2, 3)}, {}, {}, True, np.zeros)
        >>> find_samples(file)[0]
        'X_train'
    """
    keys = [start + key for key in SAMPLES if start + key in file.shapes]
    if len(keys) == 1:
        return keys[0], (f"{start}labels",)
    lower: dict[str, str] = {}
    for name in file.shapes:
        lower.setdefault(name.lower(), name)
    if not keys and not start:
        keys = [lower[key] for key in _OTHER_SAMPLES if key in lower][:1]
        if keys:
            return keys[0], tuple(lower[key] for key in LABELS if key in lower)
    if not keys and start == "test_":
        keys = [lower[key] for key in ("x_test", "test_x") if key in lower][:1]
        if keys:
            return keys[0], tuple(lower[key] for key in ("y_test", "test_y") if key in lower)
    wanted = [start + key for key in SAMPLES]
    problem = f"has both {' and '.join(wanted)}" if keys else f"has neither {' nor '.join(wanted)}"
    raise FileError(file.path, problem, f"expected one of them; it holds {listed(file.shapes)}")


def read_labels(text: str) -> FloatArray:
    """Labels from a file (.npz with labels, .npy) or as numbers with commas between them.

    Raises InvalidInputError for other text, FileError for a file without labels.

    Example:
        >>> read_labels("0,3,7")
        array([0., 3., 7.])
    """
    suffix = Path(text).suffix.lower()
    if suffix not in (".npz", ".npy"):
        try:
            return np.array([float(part) for part in text.split(",")])
        except ValueError:
            raise InvalidInputError(
                "--labels", "an .npz or .npy file, or numbers such as 0,3,7", repr(text)
            ) from None
    file = read_npy(text, "labels") if suffix == ".npy" else read_tensors(text)
    name = next((name for name in LABELS if name in file.shapes), None)
    if name is None:
        raise FileError(text, "holds no labels", f"it holds {listed(file.shapes)}")
    return flat_labels(label_array(file, name), (file.shapes[name] or (1,))[0])


def label_array(file: TensorFile, name: str) -> FloatArray:
    """Read labels as they are stored.

    Raises FileError for what is no number, such as names of classes.

    Example:
        >>> file = TensorFile("a.npz", {"labels": (1,)}, {"labels": "str32"}, {}, True, np.zeros)
        >>> label_array(file, "labels")
        Traceback (most recent call last):
        ...
        identify.errors.FileError: a.npz: "labels" holds str32; labels are numbers, one for each sample, such as the classes 0, 1, 2; np.unique(names, return_inverse=True)[1] makes them of names
    """  # noqa: E501
    dtype = file.dtypes[name]
    if dtype not in ROUNDING and dtype != "bool" and not dtype.startswith(("int", "uint")):
        raise FileError(
            file.path,
            f'"{name}" holds {dtype}',
            "labels are numbers, one for each sample, such as the classes 0, 1, 2; "
            "np.unique(names, return_inverse=True)[1] makes them of names",
        )
    return file.floats(name, integers=True)


def equal_rows(samples: npt.ArrayLike) -> tuple[tuple[int, ...], ...]:
    """The indices of equal samples, from 0, one group for each that occurs more than once.

    Example:
        >>> equal_rows([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [1, 2]])
        ((0, 2, 5), (1, 4))
    """
    array = np.asarray(samples)
    rows = np.ascontiguousarray(array.reshape(len(array), -1)) + 0.0  # -0 is 0
    places: dict[bytes, list[int]] = {}
    for index, row in enumerate(rows):
        places.setdefault(row.tobytes(), []).append(index)
    return tuple(tuple(group) for group in places.values() if len(group) > 1)


def spell_groups(groups: Iterable[Sequence[int]]) -> str:
    """Groups of indices in words, at most eight of them.

    Example:
        >>> spell_groups([(0, 2, 5), (1, 4)])
        '0 = 2 = 5, 1 = 4'
    """
    return listed([" = ".join(map(str, group[:8])) for group in groups])


def read_order(path: str) -> npt.NDArray[np.int64]:
    """Indices (T, b) of the samples of each step, from .npy, or .npz with ``order``.

    Raises FileError for a file without them, InvalidInputError for other numbers.
    """
    file = read_npy(path, "order") if Path(path).suffix.lower() == ".npy" else read_tensors(path)
    if "order" not in file.shapes:
        raise FileError(path, "has no 'order'", f"it holds {listed(file.shapes)}")
    order = file.floats("order", integers=True)
    if order.ndim != 2 or order.size == 0 or (order != np.floor(order)).any():
        raise InvalidInputError("--order", "integers of shape (steps, batch)", order.shape)
    return order.astype(np.int64)


def flat_samples(samples: npt.ArrayLike, dimension: int) -> FloatArray:
    """Samples (n, ...) as rows (n, d), float64.

    Raises InvalidInputError for samples of another size, and none at all.

    Example:
        >>> flat_samples(np.zeros((2, 3, 4)), 12).shape
        (2, 12)
    """
    array = real_array("samples", samples)
    if array.ndim < 2 or len(array) == 0 or array[0].size != dimension:
        raise InvalidInputError(
            "samples",
            f"shape (n, ...), n >= 1, with {dimension} numbers a sample",
            f"shape {array.shape}",
            "the network and the data must belong together",
        )
    return array.reshape(len(array), -1)


def flat_labels(labels: npt.ArrayLike, count: int) -> FloatArray:
    """Bring labels to the shape (n,): a column is flattened, one-hot rows become class numbers.

    Raises InvalidInputError for other shapes, and for rows that are not one-hot.

    Example:
        >>> flat_labels([[0, 1], [1, 0]], 2), flat_labels([[3], [4]], 2)
        (array([1., 0.]), array([3., 4.]))
    """
    array = np.asarray(labels, dtype=np.float64)
    if array.ndim == 2 and len(array) == count and array.shape[1] > 1:
        high = array == array.max()
        plain = bool(np.all(high.sum(axis=1) == 1)) and len(np.unique(array)) == 2
        if plain:
            return np.asarray(high.argmax(axis=1), dtype=np.float64)
    if array.shape not in ((count,), (count, 1)):
        raise InvalidInputError(
            "labels", f"shape ({count},), ({count}, 1) or one-hot rows", array.shape
        )
    return array.reshape(count)


def as_signs(labels: npt.ArrayLike) -> FloatArray | None:
    """Turn labels of two classes, in any spelling, to -1 and 1, the smaller to -1; None for more.

    Labels that are all -1 or 1 keep their sign; of one class alone 0 is -1 and others are 1.

    Example:
        >>> as_signs([1, 2, 2]), as_signs([0, 1]), as_signs([0, 1, 2]) is None
        (array([-1.,  1.,  1.]), array([-1.,  1.]), True)
    """
    array = np.asarray(labels, dtype=np.float64)
    values = np.unique(array)
    if len(values) > 2:
        return None
    if len(values) == 2:
        return np.where(array == values[1], 1.0, -1.0)
    return np.full(array.shape, -1.0 if values[0] <= 0.0 else 1.0)
