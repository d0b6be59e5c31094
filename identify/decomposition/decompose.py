"""From the moment tensor to the samples: matrix pencil, then Gauss-Newton on the Hermite data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.decomposition.cp import MAX_DIMENSION, cp_starts
from identify.decomposition.pencil import pencil_starts
from identify.decomposition.refine import Decomposition, refine
from identify.errors import InvalidInputError
from identify.hermite.reduction import ReducedData
from identify.tensors import MomentTensor

_SMALL = 12
_AGAIN = 2
"""Further seeds at up to `_SMALL` dimensions: nearly parallel samples need luck."""
_STRIDE = 1000


def decompose_tensor(
    data: ReducedData,
    tensor: MomentTensor,
    *,
    accept: float,
    seed: int = 0,
    budget: Budget = UNLIMITED,
    attempts: int | None = None,
    method: str = "pencil",
) -> Decomposition | None:
    """Decompose T into r independent terms and refine them on the Hermite data.

    Returns the best refinement over a few starts, whatever its residual (judge by the residual,
    never by a rank), or None where no start gave r directions.

    Args:
        data: reduced data; r = dim V terms are sought.
        tensor: the moment tensor on V.
        accept: relative residual below which the first refinement is the answer.
        seed: of the pencils.
        budget: as in `refine`.
        attempts: number of starts that are refined; by default 6, or 2 above 30 dimensions; 12
            for tensorly.
        method: "pencil", or "tensorly" for r up to `cp.MAX_DIMENSION`.

    Raises InvalidInputError for another method, and for tensorly beyond its dimension.
    """
    best: Decomposition | None = None
    again = _AGAIN if attempts is None and data.dimension <= _SMALL else 0
    for extra in range(1 + again):
        for _, terms, signs in _starts(data, tensor, method, seed + _STRIDE * extra, attempts):
            found = refine(data, terms, signs, budget=budget)
            if best is None or found.residual < best.residual:
                best = found
            if best.residual <= accept or budget.expired:
                return best
    return best


def _starts(
    data: ReducedData, tensor: MomentTensor, method: str, seed: int, attempts: int | None
) -> Iterable[tuple[float, FloatArray, FloatArray]]:
    if method == "tensorly":
        if data.dimension > MAX_DIMENSION:
            limit = f"at most {MAX_DIMENSION} dimensions for tensorly"
            raise InvalidInputError("method", limit, data.dimension, "use the pencil")
        return cp_starts(data, tensor, seed=seed, starts=12 if attempts is None else attempts)
    if method != "pencil":
        raise InvalidInputError("method", "pencil or tensorly", repr(method))
    if attempts is None:
        attempts = 6 if data.dimension <= 30 else 2
    return pencil_starts(data, tensor, seed=seed)[:attempts]


def order_by_size(
    terms: FloatArray, signs: FloatArray, degree: int
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.intp]]:
    """Terms and signs by |z_i|^alpha = |b_i| |x_i|^alpha, largest first, and the permutation."""
    order = np.argsort(-np.linalg.norm(terms, axis=1), kind="stable")
    return terms[order], signs[order], order
