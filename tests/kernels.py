"""Run the numerical tests under every kernel of the linear algebra that the processor has.

OpenBLAS (NumPy, SciPy) and ATen (PyTorch) choose their kernels by the processor, and kernels and
numbers of threads differ in the order of sums. One line for each says what passed.

    python -m tests.kernels
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AVX2 = frozenset({"avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}
ASK_OPENBLAS = """
import numpy, scipy.linalg, threadpoolctl
found = [i for i in threadpoolctl.threadpool_info() if i["internal_api"] == "openblas"]
print(*sorted({i["architecture"] for i in found}))
"""
ASK_ATEN = "import torch; print(torch.backends.cpu.get_cpu_capability())"
NUMPY_PART = ("tests/identify", "tests/proofs_check")
TORCH_PART = ("tests/attack", "tests/benchmarks")


@dataclass(frozen=True)
class Kernel:
    """A value of an environment variable, what it needs and which tests it is for."""

    variable: str
    value: str
    flags: frozenset[str]
    ask: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.variable}={self.value}"


KERNELS = (
    Kernel("OPENBLAS_CORETYPE", "Nehalem", frozenset({"sse4_2"}), ASK_OPENBLAS, NUMPY_PART),
    Kernel("OPENBLAS_CORETYPE", "Haswell", AVX2, ASK_OPENBLAS, NUMPY_PART),
    Kernel("OPENBLAS_CORETYPE", "SkylakeX", AVX512, ASK_OPENBLAS, NUMPY_PART),
    Kernel("OPENBLAS_CORETYPE", "Zen", AVX2, ASK_OPENBLAS, NUMPY_PART),
    Kernel("ATEN_CPU_CAPABILITY", "default", frozenset(), ASK_ATEN, TORCH_PART),
    Kernel("ATEN_CPU_CAPABILITY", "avx2", AVX2, ASK_ATEN, TORCH_PART),
)


def processor_flags() -> set[str]:
    """The instruction sets of this processor (Linux on x86)."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    match = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def environment(kernel: Kernel, threads: int) -> dict[str, str]:
    """The variables of a run; no kernel that the caller has set stays."""
    rest = {k: v for k, v in os.environ.items() if k not in {entry.variable for entry in KERNELS}}
    counts = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)
    )
    return {**rest, **counts, kernel.variable: kernel.value}


def in_use(kernel: Kernel) -> str:
    """The kernels that the libraries name under this value."""
    command = [sys.executable, "-c", kernel.ask]
    done = subprocess.run(
        command, env=environment(kernel, 1), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def run_tests(kernel: Kernel, threads: int, options: list[str]) -> tuple[bool, str]:
    """Whether everything passed, and pytest's last line with the names of what did not."""
    workers = max(1, (os.cpu_count() or 1) // threads)
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider",
        "-n", str(workers), "--dist", "worksteal", "-m", "not slow", *options, *kernel.paths,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment(kernel, threads), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    failed = [f"  {line}" for line in lines if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, "\n".join([lines[-1].strip("= "), *failed])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="values to run, such as Haswell")
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("options", nargs="*", help="options for pytest, after --")
    chosen = parser.parse_args(arguments)
    flags, good = processor_flags(), True
    for kernel in KERNELS:
        if chosen.only and kernel.value not in chosen.only:
            continue
        missing = sorted(kernel.flags - flags)
        if missing:
            print(f"{kernel}: left out, the processor has no {', '.join(missing)}", flush=True)
            continue
        if (used := in_use(kernel)).lower() != kernel.value.lower():
            print(f"{kernel}: left out, the libraries use {used} for it", flush=True)
            continue
        for threads in chosen.threads:
            started = time.monotonic()
            passed, words = run_tests(kernel, threads, chosen.options)
            good &= passed
            seconds = time.monotonic() - started
            print(f"{kernel} OMP_NUM_THREADS={threads}: {words} [{seconds:.0f} s]", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
