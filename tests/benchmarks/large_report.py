"""How `check` meets a report of 126 MB: refused within a short limit, read within a long one.

    python -m tests.benchmarks.large_report [--megabytes 126]

A valid report is filled up with alternatives nobody asked for, so that it is parsed whole.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.command_line import gradient_pair, kkt

PROGRAM = Path(sys.executable).parent / "kktcert"


def grown(report: Path, megabytes: float) -> Path:
    """A report with a list of numbers besides, as long as asked for."""
    content = json.loads(report.read_text(encoding="utf-8"))
    row = [0.1234567890123456] * 1000
    count = int(megabytes * 1e6 / len(json.dumps(row)))
    content["certificate"]["sets"] = [{"samples": [row] * count}]
    path = report.with_name("large.json")
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def main() -> None:
    """Print one line a limit: exit code, seconds, what is said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=126.0)
    size = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, gradient, _ = gradient_pair(folder)
        given = [str(model), "--source", "gradient", "--gradient", str(gradient)]
        kkt("verify", *given, "--out", folder / "out")
        report = grown(folder / "out" / "report.json", size)
        print(f"{report.stat().st_size / 1e6:.0f} MB")
        for limit in (1.0, size / 20.0, size / 5.0):
            started = time.monotonic()
            done = subprocess.run(
                [str(PROGRAM), "check", str(report), *given, "--time-limit", f"{limit:g}"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            seconds = time.monotonic() - started
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            print(f"limit {limit:g} s: exit {done.returncode} after {seconds:.1f} s: {said}")


if __name__ == "__main__":
    main()
