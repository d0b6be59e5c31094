"""Read images as their publishers store them: digits, MNIST idx, CIFAR-10 binary, .npz, OpenML."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.errors import FileError, InvalidInputError
from identify.model.dataset import find_samples, flat_labels, label_array
from identify.model.untrusted import read_tensors

AnyArray = npt.NDArray[Any]
SPLITS = ("train", "test")
FAMILIES = ("digits", "mnist", "cifar10")
VARIABLE = "KKTCERT_DATA"
MAX_BYTES = 2 * 2**30
_CIFAR_RECORD = 1 + 3072
_OPENML_FAMILIES = {"mnist_784": "mnist", "cifar_10": "cifar10", "cifar_10_small": "cifar10"}
_MNIST = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class RawImages:
    """Images (n, *shape) as stored, labels (n,) if any, the value of a white pixel, the family.

    `shape` is (H, W), (H, W, C), or (d,) for samples that are no images.
    """

    images: AnyArray
    labels: AnyArray | None
    white: float
    family: str | None
    source: str


def read_images(spec: str, split: str = "train") -> RawImages:
    """Read ``digits``, ``[FAMILY:]PATH``, ``FAMILY`` or ``openml:NAME[:VERSION]``.

    FAMILY is mnist or cifar10 and says what the classes mean; without a path it is looked for in
    the folder that the environment variable KKTCERT_DATA names. PATH is an ``.npz`` file, an idx
    file of images (``.gz`` or not), a CIFAR-10 ``.bin`` batch, or a folder of idx files or batches.
    ``split="test"`` takes t10k, test_batch, or ``test_images`` and ``test_labels`` of an ``.npz``.

    Raises:
        InvalidInputError: unknown split, or scikit-learn is missing.
        FileError: one line for everything that cannot be read or fetched.

    Cost: one pass over the files; 8-bit images stay 8-bit.

    Example:
        >>> raw = read_images("digits")
        >>> raw.images.shape, raw.white, raw.family
        ((1797, 8, 8), 16.0, 'digits')
    """
    if split not in SPLITS:
        raise InvalidInputError("split", "train or test", split)
    head, colon, tail = spec.partition(":")
    if spec == "digits":
        return _digits(split)
    if head == "openml" and colon:
        return _openml(tail, split)
    family = head if head in FAMILIES[1:] and (colon or not Path(spec).exists()) else None
    if family is None:
        return _read_path(Path(spec), split, None)
    return _read_path(Path(tail) if tail else _from_folder(family), split, family)


def read_idx(path: Path) -> AnyArray:
    """Read an idx file of unsigned bytes, plain or gzip-compressed.

    Raises FileError for another type, and sizes that contradict the header.

    Source: the format of the MNIST files, LeCun, Cortes & Burges.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        >>> read_idx(path)
        array([7, 9], dtype=uint8)
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or not 1 <= magic[3] <= 4:
                raise FileError(path, "is no idx file", "expected one of MNIST, .gz or unpacked")
            if magic[2] != 8:
                raise FileError(path, f"holds idx type {magic[2]:#04x}", "expected unsigned bytes")
            header = file.read(4 * magic[3])
            words = np.frombuffer(header[: len(header) // 4 * 4], dtype=">u4")
            shape = tuple(int(word) for word in words)
            size = math.prod(shape)
            if len(shape) != magic[3] or not 0 < size <= MAX_BYTES:
                raise FileError(path, f"declares shape {shape}", "it may be damaged")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    if len(content) != size:
        found = "more" if len(content) > size else f"only {len(content)}"
        raise FileError(
            path, f"declares {size} bytes of shape {shape} and holds {found}", "download it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_cifar_batches(paths: Sequence[Path]) -> tuple[AnyArray, AnyArray]:
    """Read CIFAR-10 binary batches: images (n, 32, 32, 3) channel last, classes (n,), uint8.

    Raises FileError for sizes that are no multiple of 3073 bytes and classes above 9.

    Source: the binary version of CIFAR-10 by Krizhevsky (2009), records of a class and 3 planes.
    """
    batches = []
    for path in paths:
        try:
            size = path.stat().st_size
            if size == 0 or size % _CIFAR_RECORD or size > MAX_BYTES:
                raise FileError(
                    path, f"has {size} bytes", "expected records of 3073, as in data_batch_1.bin"
                )
            batch = np.fromfile(path, dtype=np.uint8).reshape(-1, _CIFAR_RECORD)
        except OSError as error:
            raise _unreadable(path, error) from error
        wrong = np.flatnonzero(batch[:, 0] > 9)
        if len(wrong):
            raise FileError(
                path, f"has class {batch[wrong[0], 0]} in record {wrong[0]}",
                "expected 0 to 9: is this the binary version of CIFAR-10?",
            )  # fmt: skip
        batches.append(batch)
    records = np.concatenate(batches)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].copy()


def _read_path(path: Path, split: str, family: str | None) -> RawImages:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, split, family)
    if path.is_dir():
        return _folder(path, split, family)
    if not path.exists():
        raise FileError(
            path, "does not exist",
            "expected digits, mnist, cifar10, openml:NAME, or a file or folder of images",
        )  # fmt: skip
    if suffix == ".bin":
        images, labels = read_cifar_batches([path])
        return RawImages(images, labels, 255.0, "cifar10", str(path))
    if suffix == ".gz" or "idx" in path.name:
        return _idx_pair(path, family)
    raise FileError(path, f'has the unknown suffix "{suffix}"', "expected .npz, .bin or idx, .gz")


def _folder(path: Path, split: str, family: str | None) -> RawImages:
    if family != "cifar10":
        for name in (f"{_MNIST[split]}-images-idx3-ubyte", f"{_MNIST[split]}-images.idx3-ubyte"):
            for end in ("", ".gz"):
                if (path / (name + end)).exists():
                    return _idx_pair(path / (name + end), family)
    if family != "mnist":
        names = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else None
        batches = [path / name for name in names or ["test_batch.bin"]]
        while batches and not batches[-1].exists():
            batches.pop()
        if batches:
            images, labels = read_cifar_batches(batches)
            return RawImages(images, labels, 255.0, "cifar10", str(path))
    kind = "idx files of MNIST" if family == "mnist" else "data_batch_1.bin to data_batch_5.bin"
    raise FileError(path, f"holds no {split} images", f"expected {kind}, unpacked from the archive")


def _idx_pair(path: Path, family: str | None) -> RawImages:
    images = read_idx(path)
    if images.ndim != 3:
        raise FileError(path, f"holds an array of shape {images.shape}", "expected (n, H, W)")
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    others = [beside, beside.with_suffix(""), beside.with_name(beside.name + ".gz")]
    found = next((other for other in others if other != path and other.is_file()), None)
    if found is None:
        return RawImages(images, None, 255.0, family or "mnist", str(path))
    labels = read_idx(found)
    if labels.shape != images.shape[:1]:
        raise FileError(found, f"holds {labels.size} labels", f"expected {len(images)}")
    return RawImages(images, labels, 255.0, family or "mnist", str(path))


def _npz(path: Path, split: str, family: str | None) -> RawImages:
    file = read_tensors(path)
    start = "" if split == "train" else "test_"
    key, names = find_samples(file, start)
    shape = file.shapes[key]
    if len(shape) < 2:
        raise FileError(path, f'"{key}" has shape {shape}', "expected (n, d) or (n, H, W, C)")
    bytes_ = file.dtypes[key] == "uint8" and not key.endswith("samples")
    images = file.read(key) if bytes_ and 0 not in shape else file.floats(key, integers=True)
    labels = None
    found = [name for name in names if name in file.shapes]
    if found:
        try:
            labels = flat_labels(label_array(file, found[0]), shape[0])
        except InvalidInputError as error:
            problem = f'"{found[0]}" has shape {file.shapes[found[0]]}'
            expected = str(error.context["expected"]).removeprefix("shape ")
            raise FileError(path, problem, f"expected {expected}") from error
    return RawImages(images, labels, 255.0 if bytes_ else 1.0, family, str(path))


def _digits(split: str) -> RawImages:
    if split != "train":
        raise InvalidInputError("split", "train for digits, which have one", split)
    data = _sklearn("the digits").load_digits()
    return RawImages(data.images, data.target, 16.0, "digits", "digits")


def _openml(text: str, split: str) -> RawImages:
    name, _, version = text.partition(":")
    if not name or (version and not (version.isascii() and version.isdigit())):
        raise InvalidInputError("data", "openml:NAME or openml:NAME:VERSION", f"openml:{text}")
    if split != "train":
        raise InvalidInputError("split", "train for OpenML, which has one", split)
    # The loader raises OSError (urllib, http) without a network, ValueError for unknown names.
    try:
        table = _sklearn("OpenML").fetch_openml(
            name, version=int(version) if version else "active", as_frame=False, parser="liac-arff",
            n_retries=1, delay=0.1,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise FileError(
            f"openml:{text}", f"cannot be fetched: {reason[0]}",
            "check the name and the network, or give a file",
        ) from error  # fmt: skip
    values = np.asarray(table.data)
    if values.dtype.kind not in "fiub" or values.ndim != 2 or not np.isfinite(values).all():
        raise FileError(f"openml:{text}", "is no table of finite numbers", "expected images")
    family = _OPENML_FAMILIES.get(name.lower())
    if family == "mnist":
        values = values.reshape(-1, 28, 28)
    elif family == "cifar10":
        values = values.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    white = 255.0 if float(values.max(initial=0.0)) > 1.0 else 1.0
    return RawImages(values, _numbered(table.target), white, family, f"openml:{text}")


def _numbered(target: Any) -> AnyArray | None:
    """Labels as numbers; names are numbered in alphabetical order."""
    if target is None:
        return None
    labels = np.asarray(target)
    try:
        return labels.astype(np.float64)
    except ValueError:
        return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.float64)


def _from_folder(family: str) -> Path:
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise FileError(
            family, f"has no path, and {VARIABLE} is not set", f"give {family}:PATH or set it"
        )
    subset = Path(folder) / f"{family}_subset.npz"
    return subset if subset.exists() else Path(folder)


def _sklearn(what: str) -> Any:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InvalidInputError(
            "data", f"scikit-learn, which provides {what}", "no such package",
            "pip install 'kktcert[demo]'",
        ) from error  # fmt: skip
    return datasets


def _unreadable(path: Path, error: Exception) -> FileError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return FileError(path, f"cannot be read: {reason}", "it may be truncated or no gzip file")
