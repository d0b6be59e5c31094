"""What the commands take of the memory, about, before they take it.

``python -m tests.benchmarks.memory`` sets each estimate beside the measured peak.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from identify.arrays import FloatArray
from identify.command.limits import PROCESS, refuse_above
from identify.disaggregation.cubic import LARGEST_UNKNOWNS, count_unknowns
from identify.disaggregation.factor import factor
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.tensor_file import TensorFile
from identify.model.untrusted import TORCH_SUFFIXES, read_tensors

DERIVE = 200 * 2**20
"""Bytes of `derive` with sympy and the largest system that it takes."""
DEMO = 300 * 2**20
"""Bytes of the demonstration, whose networks have fixed sizes."""
STATEMENTS = 520 * 2**20
"""Bytes of one process that checks statements, torch among what it loads."""
PICTURES = 450 * 2**20
"""Bytes of torch and matplotlib before anything is drawn."""
_TORCH = 350 * 2**20
_COPIES, _JSON, _DENSE = 3, 7, 5
_EXACT = 4
"""The checker holds weights as whole numbers beside float64: so many times the copies."""
_LARGEST_REPORT = 2**28
_MIB = 2**20


def stored_bytes(file: TensorFile) -> int:
    """The numbers of an open file as float64, three copies of them.

    Example:
        >>> stored_bytes(TensorFile("a", {"w": (10, 10)}, {"w": "float32"}, {}, True, np.zeros))
        2400
    """
    return 8 * _COPIES * sum(math.prod(shape) for shape in file.shapes.values())


def refuse_file(limit: str | None, path: Path) -> None:
    """Refuse a torch file that alone is above the limit: unlike the others it is read whole."""
    if limit is not None and path.suffix.lower() in TORCH_SUFFIXES and path.is_file():
        refuse_above(limit, PROCESS + _TORCH + path.stat().st_size, "the file alone takes it")


def open_within(limit: str | None, path: Path, key: str | None) -> TensorFile:
    """Open a file whose numbers, all read, stay below the limit.

    Raises what `read_tensors` raises, and InvalidInputError above the limit.
    """
    refuse_file(limit, path)
    file = read_tensors(path, key)
    refuse_above(limit, PROCESS + stored_bytes(file), "the numbers alone take it")
    return file


def refuse_files(
    limit: str | None,
    paths: Sequence[Path],
    key: str | None,
    hint: str,
    *,
    times: int = 1,
    beside: int = 0,
) -> None:
    """Refuse files whose numbers, so many ``times``, are above the limit; headers are read.

    ``beside`` is what is taken besides them.

    Raises what `read_tensors` raises.
    """
    if limit is None:
        return
    total = PROCESS + beside
    for path in paths:
        refuse_file(limit, path)
        torch = _TORCH if path.suffix.lower() in TORCH_SUFFIXES else 0
        total = max(total, PROCESS + beside + torch)
        total += times * stored_bytes(read_tensors(path, key, need_key=False))
    refuse_above(limit, total, hint)


def refuse_report(limit: str | None, report: Path, paths: Sequence[Path], key: str | None) -> None:
    """Refuse to check a report that, with its equations and files, is above the limit.

    The report is parsed for its numbers of equations once reading it is known to be allowed.
    """
    if limit is None or not report.is_file():
        return
    size = report.stat().st_size
    hint = "check on a machine with more memory"
    refuse_above(limit, PROCESS + _JSON * size, hint)
    beside = _JSON * size + (_equations(report) if size <= _LARGEST_REPORT else 0)
    refuse_files(limit, paths, key, hint, times=_EXACT, beside=beside)


def _equations(report: Path) -> int:
    """The bytes of the dense equations that a report says it has; 0 where it says nothing."""
    try:
        problem = json.loads(report.read_text(encoding="utf-8"))["problem"]
        sizes = [problem[name] for name in ("distinct_neurons", "span_dimension", "unknowns")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    if not all(isinstance(size, int) and 0 <= size < 2**31 for size in sizes):
        return 0
    from identify.interpolation.interpolate import DENSE_LIMIT

    return int(8 * _DENSE * min(math.prod(sizes), DENSE_LIMIT))


def refuse_gradient(limit: str | None, network: DeepNetwork, gradient: DeepGradient) -> None:
    """Refuse to take a gradient apart that needs more memory than allowed.

    The estimate is that of the normal matrix of L, D = r (r + 1) / 2 + r q unknowns with the rank r
    of the last hidden layer's gradient, three times, and eight copies of the arrays; with fewer
    than 2 D neurons D is that of the equations of degree 3, where they are formed.
    """
    if limit is None:
        return
    numbers = sum(weight.size for weight in network.weights)
    estimate = PROCESS + 8 * 8 * numbers + 64 * _MIB
    hint = "take a smaller batch"
    refuse_above(limit, estimate, hint)
    last = gradient.weights[-2] if len(gradient.weights) > 1 else None
    if last is not None and np.any(last):
        r, q = factor(last).rank, max(1, network.outputs)
        unknowns = r * (r + 1) // 2 + r * q
        cubic = count_unknowns(r, q, leaky=False)
        if len(last) < 2 * unknowns and cubic <= LARGEST_UNKNOWNS:
            unknowns = max(unknowns, cubic)
        refuse_above(limit, estimate + 8 * 3 * unknowns**2, hint)


def figures_bytes(folders: Sequence[Path]) -> int:
    """Torch, matplotlib, and six copies of what the runs hold."""
    held = sum(
        path.stat().st_size
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".npz") and path.is_file()
    )
    return PICTURES + 6 * held


def planting_bytes(samples: FloatArray, degree: int) -> int:
    """The memory that the equations of a planted network take, about; they are dense."""
    from identify.planting.plant import DENSE_LIMIT
    from identify.tensors import symmetric_dimension

    unknowns = symmetric_dimension(degree, max(1, min(samples.shape)))
    return PROCESS + 32 * _MIB + 8 * 8 * (min(unknowns**2, DENSE_LIMIT) + samples.size)
