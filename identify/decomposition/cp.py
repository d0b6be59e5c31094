"""Starting terms of a decomposition from tensorly's CP: a second way, independent of the pencil."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations
from identify.decomposition.pencil import start_terms
from identify.hermite.reduction import ReducedData
from identify.tensors import MomentTensor

MAX_DIMENSION = 20
"""Largest r: alternating least squares on r^3 numbers from random starts rarely ends beyond."""

_ITERATIONS, _STALLED = 300, 1e-9


def slices(tensor: MomentTensor, frame: FloatArray, degree: int, seed: int) -> FloatArray:
    """T(v_k^(alpha-2), ., .) in the dual coordinates of a frame, shape (r, r, K).

    sum_i b_i (v_k.x_i)^(alpha-2) x_i x_i^T: a tensor of CP rank r with two equal factors. The v_k
    are the dual frame at degree 3, where the slices are T itself, and 2 r random vectors beyond.
    """
    dual = np.linalg.inv(frame)
    directions = dual.T
    if degree > 3:
        rng = np.random.default_rng([seed, 0xC9])
        directions = rng.standard_normal((2 * len(frame), len(frame))) @ dual.T
    return np.stack([dual.T @ tensor.contract(v) @ dual for v in directions], axis=2)


def cp_starts(
    data: ReducedData, tensor: MomentTensor, *, seed: int = 0, starts: int = 12
) -> Iterator[tuple[float, FloatArray, FloatArray]]:
    """Residual, terms and signs of several CP decompositions, in the order in which they are drawn.

    Each start draws its factors at random, in the axes of the data, plain or whitened. Alternating
    least squares can stall without a word, so the Hermite residual after fitting the coefficients
    judges, never tensorly's own error; a start whose factors collapse gives nothing.

    Source: Kossaifi, Panagakis, Anandkumar & Pantic 2019 (tensorly). Cost: O(r^4) an iteration.
    """
    from tensorly.decomposition import parafac

    _, values, axes = np.linalg.svd(data.targets * data.weights[:, None], full_matrices=False)
    values = np.maximum(values / values[0], 1e-12)
    for start in range(starts):
        frame = axes * (values ** (0.5 * (start % 3)))[:, None]
        block = slices(tensor, frame, data.degree, seed)
        size = float(np.linalg.norm(block))
        if not np.isfinite(size) or size == 0.0:
            continue
        state = np.random.SeedSequence([seed, start]).generate_state(4)
        try:
            _, factors = parafac(
                block / size,
                data.dimension,
                n_iter_max=_ITERATIONS,
                init="random",
                tol=_STALLED,
                random_state=np.random.RandomState(state),
                linesearch=True,
                normalize_factors=True,
            )
        except np.linalg.LinAlgError:
            continue
        directions = np.asarray(factors[0]).T @ frame
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        if not np.all(np.isfinite(directions)) or np.any(lengths == 0.0):
            continue
        terms, signs = start_terms(data, directions / lengths)
        yield HermiteEquations(data, signs).relative(terms), terms, signs
