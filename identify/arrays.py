"""Arrays that every part of the package takes: finite, real, float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from identify.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]


def real_array(name: str, value: npt.ArrayLike) -> FloatArray:
    """Return an array of finite real numbers as float64, without a copy where none is needed.

    Raises InvalidInputError for objects, booleans, text, complex numbers, NaN and infinity.

    Example:
        >>> real_array("x", [1, 2])
        array([1., 2.])
        >>> real_array("x", [1j])
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: x: expected real numbers, got dtype complex128
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(
            name, "a rectangular array of numbers", "rows of several lengths"
        ) from error
    if array.dtype.kind not in "fiu":
        raise InvalidInputError(name, "real numbers", f"dtype {array.dtype}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)
    if not np.isfinite(array).all():
        raise InvalidInputError(name, "finite numbers", "NaN or infinity")
    return array


def zero_share(matrix: FloatArray, *, rows: bool = False) -> float:
    """The share of entries that are exactly 0, columns of zeros left out.

    Rows of zeros count with `rows` only: a power has none, a ReLU of a dead neuron has.

    Example:
        >>> part = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
        >>> zero_share(part), round(zero_share(part, rows=True), 3)
        (0.5, 0.667)
    """
    live = matrix[:, matrix.any(axis=0)]
    live = live if rows else live[live.any(axis=1)]
    return float(np.mean(live == 0.0)) if live.size else 0.0
