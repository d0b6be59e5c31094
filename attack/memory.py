"""How much memory a run may still take."""

from __future__ import annotations

import sys
from pathlib import Path


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


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch or Python says that memory ran out.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("shape mismatch"))
        False
    """
    text = str(error).lower()
    words = (
        "can't allocate memory",
        "not enough memory",
        "out of memory",
        "cannot allocate memory",
    )
    return isinstance(error, MemoryError) or any(word in text for word in words)
