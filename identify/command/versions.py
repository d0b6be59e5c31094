"""What a bug report needs: versions, linear algebra, threads and the machine."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from importlib import metadata

from identify.text import table

LIBRARIES = (
    "numpy", "scipy", "sympy", "python-flint", "tensorly", "safetensors", "typer", "rich",
    "tomli-w", "threadpoolctl", "jinja2", "torch", "torchmetrics", "scikit-learn", "matplotlib",
    "hypothesis", "distributed", "optuna", "huggingface_hub",
)  # fmt: skip
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def versions_text() -> str:
    """Return a table for bug reports; it names no file and nobody.

    Example:
        >>> versions_text().splitlines()[0].split()[0]
        'kktcert'
    """
    rows = [
        ["kktcert", metadata.version("kktcert")],
        ["python", f"{platform.python_version()} ({platform.python_implementation()})"],
        ["platform", platform.platform()],
        ["processors", f"{os.cpu_count()}, {_usable()} of them for this process"],
    ]
    rows += [[name, _version(name)] for name in LIBRARIES]
    rows += _linear_algebra()
    rows += [[name, os.environ.get(name, "not set")] for name in THREADS]
    if importlib.util.find_spec("torch") is not None:
        rows.append(["torch devices", _devices()])
    return "\n".join(table(["", ""], rows, indent=0)[1:])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _usable() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _linear_algebra() -> list[list[str]]:
    """The libraries of linear algebra that numpy and scipy have loaded, with their threads."""
    from threadpoolctl import threadpool_info

    for module in ("numpy", "scipy.linalg"):
        importlib.import_module(module)
    rows = []
    for found in threadpool_info():
        parts = [str(found.get("version") or "unknown version")]
        if found.get("architecture"):
            parts.append(str(found["architecture"]))
        parts.append(f"{found['num_threads']} threads")
        rows.append([f"{found['user_api']} {found['internal_api']}", ", ".join(parts)])
    return rows


def _devices() -> str:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return "cpu"
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return f"cpu, {', '.join(names)} (CUDA {torch.version.cuda})"
