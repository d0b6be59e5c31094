"""What every report holds: JSON values, and the versions of what computed it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import scipy


def plain(value: Any) -> Any:
    """A JSON value: arrays as lists, numpy scalars unwrapped, non-finite numbers null.

    Example:
        >>> plain({"a": np.array([1.0, np.nan]), "b": (np.int64(2), "c")})
        {'a': [1.0, None], 'b': [2, 'c']}
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def versions() -> dict[str, str]:
    """Versions of this package and of what its numbers depend on."""
    return {
        "kktcert": metadata.version("kktcert"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
