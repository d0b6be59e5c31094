"""Starting terms of a decomposition from a random pencil (Jennrich, Harshman)."""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg

from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations
from identify.hermite.reduction import ReducedData
from identify.tensors import MomentTensor


def pencil_directions(
    tensor: MomentTensor, frame: FloatArray, rng: np.random.Generator
) -> FloatArray | None:
    """Candidate directions, rows (r, r), of one matrix pencil; None where it is singular.

    With A = T(v^(alpha-2), ., .) and B = T(v'^(alpha-2), ., .) the eigenvectors of A B^-1 are the
    samples when T is a sum of r independent terms. `frame` (rows) holds guesses of the samples:
    v and v' are random in its dual coordinates, and the pencil is solved in the coordinates of
    the frame, in which it is nearly diagonal for a good guess. A start, not an answer.

    Source: Leurgans, Ross & Abel 1993 (Jennrich; Harshman 1970). Cost: O(r^3).
    """
    try:
        dual = np.linalg.inv(frame)
    except np.linalg.LinAlgError:
        return None
    first, second = (dual @ rng.standard_normal((len(frame), 2))).T
    a = dual.T @ tensor.contract(first / np.linalg.norm(first)) @ dual
    b = dual.T @ tensor.contract(second / np.linalg.norm(second)) @ dual
    sizes = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not np.all(np.isfinite(sizes)) or min(sizes) == 0.0:
        return None
    _, vectors = scipy.linalg.eig(a / sizes[0], b / sizes[1], check_finite=False)
    # A v = mu B v: v is dual to the samples, B v is parallel to one of them.
    images = (b @ vectors).T @ frame
    parts = np.stack([images.real, images.imag])
    norms = np.linalg.norm(parts, axis=2)
    rows = np.where((norms[0] >= norms[1])[:, None], parts[0], parts[1])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(rows)) or np.any(lengths == 0.0):
        return None
    return np.asarray(rows / lengths)


def pencil_starts(
    data: ReducedData, tensor: MomentTensor, *, seed: int = 0, rounds: int = 10
) -> list[tuple[float, FloatArray, FloatArray]]:
    """Residual, terms and signs of several pencils, best first.

    The first frames are the axes of the data, plain or whitened: correlated samples are told
    apart by the latter, noise is amplified less by the former. The best directions so far are
    the frame of each further round. The Hermite residual after fitting the coefficients ranks.
    """
    rng = np.random.default_rng([seed, 0x51])
    draws = 30 if data.dimension <= 30 else 9
    weighted = data.targets * data.weights[:, None]
    _, values, axes = np.linalg.svd(weighted, full_matrices=False)
    values = np.maximum(values / values[0], 1e-12)
    frames = [axes * (values ** (0.5 * (draw % 3)))[:, None] for draw in range(draws)]
    starts: list[tuple[float, FloatArray, FloatArray]] = []
    idle = 0
    for _ in range(rounds + 1):
        best = starts[0][0] if starts else np.inf
        for frame in frames:
            directions = pencil_directions(tensor, frame, rng)
            if directions is None:
                continue
            terms, signs = start_terms(data, directions)
            starts.append((HermiteEquations(data, signs).relative(terms), terms, signs))
        starts.sort(key=lambda start: start[0])
        idle = idle + 1 if starts and starts[0][0] > 0.5 * best else 0
        if not starts or idle == 2 or starts[0][0] < 1e-13:
            break
        frames = [
            terms / np.maximum(np.linalg.norm(terms, axis=1, keepdims=True), 1e-300)
            for _, terms, _ in starts[:2]
            for _ in range(2)
        ]
    return starts


def fit_coefficients(data: ReducedData, directions: FloatArray) -> FloatArray:
    """Least-squares b for unit directions x_i: sum_i b_i (u_j.x_i)^(alpha-1) x_i = g_j.

    Through the normal equations (w^2-weighted): cost m n^2 + m n r flops, O(m n) memory.
    """
    power = data.degree - 1
    s = (data.points @ directions.T) ** power * data.weights[:, None]
    gram = (s.T @ s) * (directions @ directions.T)
    rhs = np.sum((s * data.weights[:, None]) * (data.targets @ directions.T), axis=0)
    if len(data.value_points):
        values = (data.value_points @ directions.T) ** data.degree * data.value_weights[:, None]
        gram = gram + values.T @ values
        rhs = rhs + values.T @ (data.value_targets * data.value_weights)
    solution, *_ = scipy.linalg.lstsq(gram, rhs, cond=1e-14)
    return np.asarray(solution, dtype=np.float64)


def start_terms(data: ReducedData, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Terms z_i = |b_i|^(1/alpha) x_i and signs for given directions, b by least squares."""
    b = fit_coefficients(data, directions)
    floor = 1e-12 * float(np.abs(b).max(initial=0.0)) or 1e-300
    size = np.maximum(np.abs(b), floor) ** (1.0 / data.degree)
    signs = np.where(b < 0.0, -1.0, 1.0)
    if data.degree % 2:
        return directions * (signs * size)[:, None], np.ones(len(b))
    return directions * size[:, None], signs
