"""What a command may take of the machine: threads, memory, and who may read what it writes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from identify.errors import InvalidInputError

if TYPE_CHECKING:
    from identify.hermite.data import HermiteData

OWNER_ONLY = 0o077
"""Bits that no file and no folder of a command has: reports and pictures hold private images."""
PROCESS = 150 * 2**20
"""Bytes that a command takes before it computes: Python, numpy and scipy."""

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4,
          "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def owner_only() -> Iterator[None]:
    """While it lasts new folders are 0700 and new files 0600, whatever the umask was."""
    before = os.umask(OWNER_ONLY)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads while it lasts; None leaves the libraries their choice.

    Libraries that are loaded meanwhile, and processes that are started, get the number from the
    environment.
    """
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, str(count)))
    torch = sys.modules.get("torch")
    own = torch.get_num_threads() if torch is not None else None
    try:
        if torch is not None:
            torch.set_num_threads(count)
        with threadpool_limits(limits=count):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch is not None and own is not None:
            torch.set_num_threads(own)


def parse_bytes(text: str) -> int:
    """Read a size such as 500M, 8GB, 2GiB or a number of bytes.

    Example:
        >>> parse_bytes("500M"), parse_bytes("2 GiB"), parse_bytes("1.5kB")
        (500000000, 2147483648, 1500)
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]I?|)B?\s*", text, re.ASCII | re.I)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise InvalidInputError("--memory-limit", "a size such as 500M or 8GiB", repr(text))
    return size


def spell_bytes(size: int) -> str:
    """A size in the largest fitting unit.

    Example:
        >>> spell_bytes(1_234_567), spell_bytes(8 * 10**9)
        ('1.2 MB', '8 GB')
    """
    for unit, name in ((1000**4, "TB"), (1000**3, "GB"), (1000**2, "MB"), (1000, "kB")):
        if size >= unit:
            return (
                f"{size / unit:.3g} {name}" if size >= 100 * unit else f"{size / unit:.2g} {name}"
            )
    return f"{size} bytes"


def refuse_above(limit: str | None, estimate: int, hint: str) -> None:
    """Refuse work whose estimate is above the limit, before any of it is done.

    Example:
        >>> refuse_above("1GB", 2 * 10**9, "take fewer samples")
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: --memory-limit: expected at least 2 GB, the estimate for this work, got 1 GB; take fewer samples
    """  # noqa: E501
    if limit is None:
        return
    allowed = parse_bytes(limit)
    if estimate > allowed:
        expected = f"at least {spell_bytes(estimate)}, the estimate for this work"
        raise InvalidInputError("--memory-limit", expected, spell_bytes(allowed), hint)


def check_memory(limit: str | None, data: HermiteData, seed: int) -> None:
    """Refuse to verify data that need more memory than allowed.

    The estimate is 8 (4.5 m^2 + 4 m d + 4 m r N) bytes and those of the process, the last term only
    where the dense equations are formed; measured peaks of 400 to 3,000 neurons lie below it.
    """
    if limit is None:
        return
    from identify.hermite.reduction import reduce_data
    from identify.interpolation.interpolate import DENSE_LIMIT
    from identify.tensors import symmetric_dimension
    from identify.thresholds import NOISE_FLOOR

    allowed = parse_bytes(limit)
    neurons, dimension = data.points.shape
    arrays = 4 * neurons * dimension
    refuse_above(limit, PROCESS + 8 * arrays, "the files alone take it")
    level = max(data.network.rounding, NOISE_FLOOR)
    reduced = reduce_data(data, level, seed=seed)
    span = max(1, reduced.dimension)
    numbers = 9 * reduced.neurons**2 // 2 + arrays
    dense = reduced.neurons * span * symmetric_dimension(data.degree, span)
    if dense <= DENSE_LIMIT:
        numbers += 4 * dense
    refuse_above(str(allowed), PROCESS + 8 * numbers, "verify on a machine with more memory")
