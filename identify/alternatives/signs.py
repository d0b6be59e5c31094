"""A proof by signs that no set of r = dim V samples explains stationary weights of odd degree."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from identify.arrays import FloatArray
from identify.hermite.reduction import ReducedData

_SLACK = 10.0
"""How far the weighted rows may miss by more than the network itself does."""


def no_set_of_dimension(reduced: ReducedData, level: float) -> bool:
    """Whether no r samples explain the data to `level`, by a relation of one sign; odd degree.

    If r samples span V, they are independent, so that a relation sum_j e_j v_j = 0 of the rows
    v_j = w_j sum_i b_i (p_j . x_i)^(alpha-1) x_i holds for each sample by itself:

        sum_j e_j w_j (p_j . x_i)^(alpha-1) = 0.

    For odd alpha and positive e_j that is impossible. To a relative error eta of the rows it stays
    so while sigma_r(v) > eta |v| (1 + sqrt(r) |e| / min e).

    Args:
        reduced: of weights, whose points lie in V.
        level: largest relative residual of a set that counts.

    Cost: a singular value decomposition of m x r numbers and a linear program of m - r unknowns.
    Source: this project; Stiemke 1915 for positive relations.

    Example:
        >>> from identify.alternatives.signs import positive_relation
        >>> positive_relation(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])).round(3)
        array([0.577, 0.577, 0.577])
    """
    if reduced.degree % 2 == 0:
        return False
    rows = reduced.weights[:, None] * reduced.targets
    relation = positive_relation(rows)
    if relation is None:
        return False
    smallest = float(np.linalg.svd(rows, compute_uv=False)[-1]) / float(np.linalg.norm(rows))
    spread = float(np.linalg.norm(relation) / relation.min())
    return bool(smallest > _SLACK * level * (1.0 + np.sqrt(rows.shape[1]) * spread))


def positive_relation(rows: FloatArray) -> FloatArray | None:
    """e > 0 with sum_j e_j rows_j = 0, |e| = 1, its smallest entry as large as can be, or None."""
    r = rows.shape[1]
    if len(rows) <= r:
        return None
    kernel = np.linalg.svd(rows, full_matrices=True)[0][:, r:]
    count = kernel.shape[1]
    # max t with K c >= t and |c_i| <= 1
    found = scipy.optimize.linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.column_stack([-kernel, np.ones(len(rows))]), b_ub=np.zeros(len(rows)),
        bounds=[*[(-1.0, 1.0)] * count, (0.0, None)],
    )  # fmt: skip
    if found.status != 0 or found.x is None:
        return None
    relation: FloatArray = kernel @ found.x[:-1]
    return relation / np.linalg.norm(relation) if relation.min() > 0.0 else None
