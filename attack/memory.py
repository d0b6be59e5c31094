"""How much memory a run may still take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

TORCH = 400 * 2**20
"""Bytes that a process with torch takes before it computes."""


def free_memory() -> int | None:
    """Return the bytes that this process may still allocate, None where the system does not say.

    The least of what the machine has free and of the limit on the address space (``ulimit -v``).

    Example:
        >>> free = free_memory()
        >>> free is None or free > 0
        True
    """
    found = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            try:
                pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            except (OSError, ValueError, IndexError):
                pages = 0
            found.append(max(1, limit - pages * resource.getpagesize()))
    return min(found) if found else None


def training_bytes(widths: Sequence[int], samples: int) -> int:
    """About what training takes: six copies of the parameters, four of the activations, float64.

    Example:
        >>> training_bytes((784, 1000, 1), 500) > training_bytes((784, 10, 1), 500)
        True
    """
    parameters = sum(a * b for a, b in pairwise(widths))
    return TORCH + 8 * (6 * parameters + 4 * samples * sum(widths))


def attack_bytes(widths: Sequence[int], count: int) -> int:
    """About what an attack takes with so many candidates at the start, float64.

    Candidates double at most once a round; L-BFGS keeps twenty copies of them, and the objective
    eight of the activations and six of the parameters.

    Example:
        >>> attack_bytes((784, 1000, 1), 500) > attack_bytes((784, 1000, 1), 50)
        True
    """
    parameters = sum(a * b for a, b in pairwise(widths))
    return TORCH + 8 * (6 * parameters + 2 * count * (24 * widths[0] + 8 * sum(widths)))
