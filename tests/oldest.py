"""Print constraints with the oldest version that pyproject.toml allows of every requirement.

The other lines of constraints.txt stay. Torch and what needs it are left out.

    python tests/oldest.py > constraints-oldest.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)$")
WITHOUT = {"torch", "torchmetrics"}


def normalised(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lower_bounds(project: dict) -> dict[str, str]:
    """The oldest version by name, of all requirements that state one."""
    optional = project["optional-dependencies"]
    listed = [*project["dependencies"], *(line for part in optional.values() for line in part)]
    found = [REQUIREMENT.match(line) for line in listed]
    return {m[1]: m[2] for m in found if m is not None and m[1] not in WITHOUT}


def constraints(project: dict, pinned: list[str]) -> list[str]:
    """Lower bounds first, then the pinned versions of everything else."""
    oldest = lower_bounds(project)
    lines = [f"{name}=={version}" for name, version in oldest.items()]
    names = {normalised(name) for name in oldest} | WITHOUT
    return lines + [line for line in pinned if normalised(line.split("==")[0]) not in names]


if __name__ == "__main__":
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    sys.stdout.write("\n".join(constraints(declared, [n for n in lines if "==" in n])) + "\n")
