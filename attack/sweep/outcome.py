"""What a run of a sweep left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from platform import python_version
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The end of one run: exit code, what its commands printed as JSON, and where it ran.

    `code` is that of the first command that did not end with 0 or a word of ``--fail-on``, else 0;
    `results` has a record for each command that printed one; `seconds` is wall-clock time on the
    worker, `resumed` the number of checkpoints from which it went on.
    """

    number: int
    code: int
    results: Mapping[str, Any]
    error: str
    seconds: float
    worker: str
    started: str
    resumed: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    files: bytes | None = None


@cache
def versions() -> Mapping[str, str]:
    """Return the versions on which a result depends, without importing anything."""
    found = {"python": python_version()}
    for name in ("kktcert", "numpy", "scipy", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
