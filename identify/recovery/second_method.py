"""A second, independent way to the terms, beside the pencil: tensorly's CP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.decomposition.decompose import decompose_tensor
from identify.hermite.reduction import ReducedData
from identify.tensors import MomentTensor
from identify.thresholds import SECOND_METHOD

CHEAP_DIMENSION = 8
"""Up to so many terms random starts end in a second or so."""
_STARTS = 6


@dataclass(frozen=True, eq=False)
class SecondMethod:
    """What the second method found of the same tensor.

    `residual` is its relative Hermite residual after refinement, None where no start gave terms;
    `distance` the largest distance of its terms from those of the pencil, over their norms, and
    `allowed` what the error bounds allow; both None where its own residual is above the noise.
    """

    residual: float | None = None
    distance: float | None = None
    allowed: float | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether both found the same terms; None where the second found none that fit."""
        if self.distance is None or self.allowed is None:
            return None
        return self.distance <= self.allowed


def second_method(
    data: ReducedData,
    tensor: MomentTensor,
    terms: FloatArray,
    errors: FloatArray,
    *,
    accept: float,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> SecondMethod:
    """Decompose the tensor by tensorly and compare with `terms` (r, r), known to `errors` (r,).

    `errors` are relative; `accept` is the residual up to which a set explains the data. A set that
    does not fit says nothing: alternating least squares from random starts may stall.

    Cost: six starts of O(r^4) an iteration and a refinement each.
    """
    found = decompose_tensor(
        data, tensor, accept=accept, seed=seed, budget=budget, attempts=_STARTS,
        method="tensorly",
    )  # fmt: skip
    if found is None:
        return SecondMethod()
    if found.residual > accept:
        return SecondMethod(found.residual)
    sizes = np.linalg.norm(terms, axis=1)
    # For even degrees z and -z are one term.
    gaps = np.linalg.norm(terms[:, None] - found.terms[None], axis=2)
    if data.degree % 2 == 0:
        gaps = np.minimum(gaps, np.linalg.norm(terms[:, None] + found.terms[None], axis=2))
    relative = gaps / sizes[:, None]
    rows, columns = linear_sum_assignment(np.minimum(relative, 10.0))
    moved = relative[rows, columns]
    allowed = np.maximum(10.0 * np.nan_to_num(errors, nan=1.0), SECOND_METHOD)
    worst = int(np.argmax(moved / allowed))
    return SecondMethod(found.residual, float(moved[worst]), float(allowed[worst]))
