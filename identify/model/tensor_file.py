"""What a file of arrays declares, and the rules for reading it as float64."""

from __future__ import annotations

import lzma
import math
import os
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.errors import FileError, listed

PathLike = str | os.PathLike[str]
AnyArray = npt.NDArray[Any]

#: Unit roundoff (half a unit in the last place of 1) of the accepted dtypes.
ROUNDING: Mapping[str, float] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
#: Keys that describe the network and are no arrays of weights.
SETTINGS = ("activation", "degree", "rounding")
# What the parsers of zip, npy, deflate and pickle raise on damaged or hostile bytes.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    pickle.PickleError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class TensorFile:
    """What a file declares, with arrays that are read when they are asked for.

    ``shapes`` and ``dtypes`` are by name, in the order of the file; ``ordered`` says whether that
    order is the writer's own (safetensors sorts). ``settings`` holds ``activation``, ``degree`` and
    ``rounding`` as plain Python values where the file has them. ``key`` is the part of a checkpoint
    that was read.

    Example:
        >>> import pathlib, tempfile
        >>> from identify.model.untrusted import read_tensors
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.npz"
        >>> np.savez(path, w=np.ones((2, 3), dtype=np.float32), degree=3)
        >>> file = read_tensors(path)
        >>> file.shapes, file.dtypes, file.settings
        ({'w': (2, 3)}, {'w': 'float32'}, {'degree': 3})
        >>> file.floats("w").dtype
        dtype('float64')
    """

    path: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    settings: Mapping[str, object]
    ordered: bool
    read: Callable[[str], AnyArray] = field(repr=False)
    key: str | None = None

    def floats(self, name: str, *, integers: bool = False) -> npt.NDArray[np.float64]:
        """Read one array as finite float64; integers and booleans only where they are allowed.

        Raises FileError for a name that is absent, a dtype that is not accepted, an empty array,
        NaN and infinity.

        Example:
            >>> file = TensorFile("a", {"w": (1,)}, {"w": "int64"}, {}, True, lambda name: np.ones(1))
            >>> file.floats("w")
            Traceback (most recent call last):
            ...
            identify.errors.FileError: a: "w" has dtype int64; expected float64, float32, float16 or bfloat16
        """  # noqa: E501
        if name not in self.shapes:
            raise FileError(self.path, f'has no array "{name}"', f"it holds {listed(self.shapes)}")
        dtype, shape = self.dtypes[name], self.shapes[name]
        whole = dtype == "bool" or dtype.startswith(("int", "uint"))
        if dtype not in ROUNDING and not (integers and whole):
            raise FileError(
                self.path,
                f'"{name}" has dtype {dtype}',
                f"expected {', '.join(list(ROUNDING)[:-1])} or bfloat16",
            )
        if math.prod(shape) == 0:
            raise FileError(self.path, f'"{name}" is empty, of shape {shape}', "save it again")
        array = np.asarray(self.read(name), dtype=np.float64, order="C")
        finite = np.isfinite(array)
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise FileError(
                self.path,
                f'"{name}" holds NaN or infinity, first at index {where}',
                "only finite numbers can be verified",
            )
        return array

    def rounding(self, *names: str) -> float:
        """Return the coarsest unit roundoff among the named arrays.

        Example:
            >>> TensorFile("a", {}, {"w": "bfloat16"}, {}, True, np.zeros).rounding("w")
            0.00390625
        """
        return max(ROUNDING[self.dtypes[name]] for name in names)

    def stated_rounding(self) -> float:
        """The unit roundoff that the metadata state, 0 without.

        A network that was read in a coarse dtype and saved in float64 keeps its rounding.

        Raises FileError for what is no number in (0, 1).
        """
        stored = self.settings.get("rounding")
        if stored is None:
            return 0.0
        try:
            value = float(stored)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not 0 < value < 1:
            raise FileError(self.path, "has no unit roundoff in (0, 1) as rounding", "leave it out")
        return value


def tensor_dtype(tensor: Any) -> str:
    """Name the dtype of a torch tensor as numpy would.

    Example:
        >>> tensor_dtype(np.ones(2, dtype=np.float32))
        'float32'
    """
    return str(tensor.dtype).removeprefix("torch.")


def tensor_array(tensor: Any) -> AnyArray:
    """Copy a torch tensor to the host as a numpy array; bfloat16 becomes float32, exactly.

    Raises TypeError or RuntimeError, from torch, for sparse, quantised and meta tensors.
    """
    host = tensor.detach().cpu()
    return np.array((host.float() if tensor_dtype(host) == "bfloat16" else host).numpy())


def check_setting(path: PathLike, key: str, shape: tuple[int, ...]) -> None:
    """Refuse a setting that is no single value or short list."""
    if math.prod(shape) > 1000:
        raise FileError(path, f'"{key}" has shape {short(shape)}', "expected one value")


def unreadable(path: PathLike, name: str, error: BaseException) -> FileError:
    """Build the error for one damaged array."""
    return FileError(
        path, f'"{name}" is unreadable ({first_line(error)})', "the file may be damaged"
    )


def short(shape: tuple[int, ...]) -> str:
    """Write a shape in at most 60 characters."""
    text = str(shape)
    return text if len(text) <= 60 else text[:57] + "..."


def first_line(error: BaseException) -> str:
    """Take the first line of a foreign error message, at most 160 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
