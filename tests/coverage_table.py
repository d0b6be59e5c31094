"""Print the lines and branches that a measured run of the tests took, by package.

make coverage
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def measured() -> dict[str, dict[str, int]]:
    """Counts by file, of the data that the last measured run left."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "-q", "-o", str(target)]
        subprocess.run(command, check=True)
        files = json.loads(target.read_text(encoding="utf-8"))["files"]
    return {name: entry["summary"] for name, entry in files.items()}


def table(files: dict[str, dict[str, int]]) -> str:
    """Packages with their lines and branches, as Markdown.

    Example:
        >>> counts = dict(zip(COUNTS, (10, 9, 4, 3)))
        >>> print(table({"a/b.py": counts, "a/c/d.py": counts}))
        | package | files | lines | run | branches | taken |
        |---|---|---|---|---|---|
        | a | 1 | 10 | 90.0 % | 4 | 75.0 % |
        | a/c | 1 | 10 | 90.0 % | 4 | 75.0 % |
        | all | 2 | 20 | 90.0 % | 8 | 75.0 % |
    """
    sums: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for name, counts in sorted(files.items()):
        folder = Path(name).parent.as_posix()
        package = Path(name).name if folder == "." else folder
        for key in (package, "all"):
            sums[key].update({"files": 1, **{count: counts[count] for count in COUNTS}})
    lines = ["| package | files | lines | run | branches | taken |", "|---|---|---|---|---|---|"]
    for package in sorted(sums, key=lambda name: (name == "all", name)):
        found = sums[package]
        statements, run, branches, taken = (found[name] for name in COUNTS)
        lines.append(
            f"| {package} | {found['files']} | {statements} | {share(run, statements)} "
            f"| {branches} | {share(taken, branches)} |"
        )
    return "\n".join(lines)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


if __name__ == "__main__":
    print(table(measured()))
