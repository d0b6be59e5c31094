"""Data of a source together with samples that explain them; rival sets of samples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from identify import HermiteData, PlantingError, TwoLayerNetwork, plant_network
from identify.alternatives.equations import SetEquations, padded
from identify.alternatives.solvers import draw_starts, minimise, polish
from identify.arrays import FloatArray
from identify.hermite.reduction import ReducedData, reduce_data
from identify.tensors import hermite_matrix, symmetric_dimension
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

NOISE = 1e-13
CLEAR = 1e-6
"""Relative singular values above this count; instances whose rank is less clear are not drawn."""


@dataclass(frozen=True, eq=False)
class Explained:
    """Hermite data and the samples (n, d), coefficients (n,) that they came from.

    `scale` says by which convention the samples have their lengths: "free" (of unit norm),
    "unit", "margin" or "bias".
    """

    data: HermiteData
    samples: FloatArray
    coefficients: FloatArray
    kind: str
    seed: int
    scale: str = "free"

    def __repr__(self) -> str:
        count, dimension = self.samples.shape
        notes = "" if self.scale == "free" else f", {self.scale}"
        notes += ", rounded" if self.data.rounding > UNIT else ""
        return (
            f"Explained({self.data.source}, {self.kind}{notes}, n={count}, d={dimension}, "
            f"m={self.data.network.width}, degree={self.data.degree}, seed={self.seed})"
        )


def gradient_data(
    samples: FloatArray,
    coefficients: FloatArray,
    degree: int,
    width: int,
    kind: str,
    seed: int,
    directions: FloatArray | None = None,
) -> Explained:
    """One gradient of a random network; its neurons lie in the row space of `directions`."""
    rng = np.random.default_rng([seed, width, 8])
    rows = np.eye(samples.shape[1]) if directions is None else directions
    network = TwoLayerNetwork(
        rng.standard_normal((width, len(rows))) @ rows,
        rng.choice([-1.0, 1.0], size=width) * rng.uniform(0.5, 2.0, size=width),
        degree,
    )
    data = HermiteData.from_gradient(network, network.gradient(samples, coefficients))
    return Explained(data, samples, coefficients, kind, seed)


def draw_coefficients(count: int, seed: int) -> FloatArray:
    """Both signs, moduli 1/2 to 2, shape (n,)."""
    rng = np.random.default_rng([seed, 1])
    return rng.choice([-1.0, 1.0], size=count) * rng.uniform(0.5, 2.0, size=count)


def neurons_needed(degree: int, dimension: int) -> int:
    """The fewest neurons with m r >= N whose H has rank N for points in general position.

    Source: Alexander & Hirschowitz 1995, whose exceptions need one neuron more.

    Example:
        >>> neurons_needed(3, 4), neurons_needed(4, 3)
        (5, 6)
    """
    least = -(-symmetric_dimension(degree, dimension) // dimension)
    exceptions = {(4, 3): 5, (4, 4): 9, (4, 5): 14, (3, 5): 7}
    return least + (exceptions.get((degree, dimension)) == least)


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows of length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@lru_cache(maxsize=512)
def planted(source: str, kind: str, count: int, spare: int, seed: int) -> Explained | None:
    """A cubic stationary network of unit samples; for "kkt" all margins are 1."""
    samples = unit_rows(strategies.draw_samples(kind, count, count + spare, seed))
    wanted = "margin" if source == "kkt" else "regression"
    try:
        found = plant_network(samples, stationary=wanted, determined=count > 2, seed=seed)
    except PlantingError:
        return None
    read = HermiteData.from_kkt if source == "kkt" else HermiteData.from_weight_decay
    return Explained(read(found.network), found.samples, found.coefficients, kind, seed)


def plantings(
    sources: tuple[str, ...] = ("kkt", "weight-decay"), counts: tuple[int, int] = (2, 4)
) -> SearchStrategy[Explained]:
    """Planted cubic networks of unit samples, from a small stock."""
    from hypothesis import strategies as st

    drawn = st.builds(
        planted,
        st.sampled_from(sources),
        st.sampled_from(strategies.present(("generic", "orthonormal", "digits"))),
        st.integers(*counts),
        st.integers(0, 2),
        st.integers(0, 1),
    )
    return present(drawn)


def present(drawn: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """The instances that exist."""
    return drawn.filter(lambda instance: instance is not None)


def gradients(
    counts: tuple[int, int] = (1, 3),
    degrees: tuple[int, ...] = (3, 4, 5),
    kinds: tuple[str, ...] = strategies.KINDS,
    *,
    width: Callable[[int, int], tuple[int, int]] | None = None,
    unit: bool = False,
) -> SearchStrategy[Explained]:
    """One gradient with n independent samples in at most n + 1 dimensions.

    `width` gives the range of the number of neurons for a degree and n; by default enough for H
    to have full rank.
    """
    from hypothesis import strategies as st

    def usual(degree: int, count: int) -> tuple[int, int]:
        least = max(neurons_needed(degree, count), count + 1)
        return least, least + 3

    def build(kind: str, count: int, spare: int, degree: int, more: int, seed: int) -> Explained:
        samples = strategies.draw_samples(kind, count, count + spare, seed)
        samples = unit_rows(samples) if unit else samples
        low, high = (width or usual)(degree, count)
        number = low + more % (high - low + 1)
        return gradient_data(samples, draw_coefficients(count, seed), degree, number, kind, seed)

    return st.builds(
        build,
        st.sampled_from(strategies.present(kinds)),
        st.integers(*counts),
        st.integers(0, 1),
        st.sampled_from(degrees),
        st.integers(0, 11),
        st.integers(0, strategies.SEEDS),
    )


def clear_rank(values: npt.NDArray[np.floating[Any]], floor: float = 1e-11) -> int | None:
    """The number of singular values above 1e-6 of the largest, None where one is in between.

    Those that do not count have to be rounding, below `floor`.
    """
    if not values.size or values[0] == 0.0:
        return 0
    share = values / values[0]
    if np.any((share <= CLEAR) & (share > floor)):
        return None
    return int(np.count_nonzero(share > CLEAR))


def span_of(rows: FloatArray) -> FloatArray | None:
    """Orthonormal basis (d, r) of the row space, None where its rank is not clear."""
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    rank = clear_rank(values)
    return None if not rank else np.ascontiguousarray(right[:rank].T)


def span_rank(instance: Explained) -> int:
    """r = dim V, 0 where it is not clear."""
    basis = span_of(instance.data.rows)
    return 0 if basis is None else basis.shape[1]


def hermite_rank(data: HermiteData) -> tuple[int, int, int] | None:
    """(rank H, N, r) on V, None where a rank is not clear."""
    basis = span_of(data.rows)
    if basis is None:
        return None
    points = data.points @ basis
    lengths = np.linalg.norm(points, axis=1)
    kept = lengths > 1e-9 * lengths.max()
    matrix = hermite_matrix(points[kept] / lengths[kept, None], data.degree)
    rank = clear_rank(np.linalg.svd(matrix, compute_uv=False))
    return None if rank is None else (rank, matrix.shape[1], basis.shape[1])


def is_determined(instance: Explained) -> bool:
    """I-hermite: H has full column rank on V."""
    found = hermite_rank(instance.data)
    return found is not None and found[0] == found[1]


def is_independent(instance: Explained) -> bool:
    """Whether the samples (with a bias: lifted) are linearly independent, with a clear margin."""
    units = unit_rows(instance.data.network.lift(instance.samples))
    return clear_rank(np.linalg.svd(units, compute_uv=False)) == len(units)


def has_unit_samples(instance: Explained) -> bool:
    """|x_i| = 1 to rounding."""
    return bool(np.all(np.abs(np.linalg.norm(instance.samples, axis=1) - 1.0) <= 16.0 * UNIT))


def is_exact(instance: Explained) -> bool:
    """Whether the samples explain the data, to the rounding of its numbers."""
    data = instance.data
    sums = data.network.gradient(instance.samples, instance.coefficients)
    hidden, output = moduli(data.network, instance.samples, instance.coefficients)
    values = data.network.output_weight if data.values is None else data.values
    # Planted neurons are eigenvectors up to 1e-12 relative, see PlantedNetwork.
    slack = 1e-12 if data.homogeneous else 0.0
    rows = np.linalg.norm(data.rows, axis=1)
    coarse = max(1.0, data.rounding / UNIT)
    first = np.linalg.norm(sums.points - data.rows, axis=1) <= coarse * hidden + slack * rows
    second = np.abs(sums.output_weight - values) <= coarse * output + slack * np.abs(values)
    return bool(first.all() and second.all())


def moduli(
    network: TwoLayerNetwork, samples: FloatArray, coefficients: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Rounding of sum_i b_i grad f(x_i): for each neuron that of the rows and of the values.

    Sums of moduli times unit roundoff times the number of roundings in a term and of terms.
    """
    lifted = np.abs(network.lift(samples))
    inner = np.abs(network.points) @ lifted.T
    powers = network.activation or (*(0.0,) * network.degree, 1.0)
    weights = np.abs(coefficients)
    slope = sum(k * abs(c) * inner ** (k - 1) for k, c in enumerate(powers) if k)
    value = sum(abs(c) * inner**k for k, c in enumerate(powers))
    lengths = weights * np.linalg.norm(lifted, axis=1)
    unit = 4.0 * (len(samples) + lifted.shape[1] + 4 * network.degree) * UNIT
    hidden = np.abs(network.output_weight) * (np.asarray(slope) @ lengths)
    return unit * hidden, unit * (np.asarray(value) @ weights)


def summed(
    network: TwoLayerNetwork, samples: FloatArray, coefficients: FloatArray, exactly: bool
) -> tuple[Any, Any]:
    """sum_i b_i grad f(x_i): rows (m, D) and outputs (m,), in float64 or in fractions."""
    if exactly:
        return rational.gradient(network, samples, coefficients)
    found = network.gradient(samples, coefficients)
    return found.points, found.output_weight


def compare_sets(
    network: TwoLayerNetwork,
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    amplification: float = 1.0,
    *,
    exactly: bool = False,
) -> Check:
    """Whether two sets give the same sum_i b_i grad f(x_i), over its rounding.

    `amplification` is what rounding in the construction of a set is multiplied by; `exactly`
    evaluates both sums in fractions.
    """
    one, two = summed(network, *first, exactly), summed(network, *second, exactly)
    gaps = [rational.floats(a - b) for a, b in zip(one, two, strict=True)]
    parts = moduli(network, *first), moduli(network, *second)
    hidden, output = parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
    rows = np.linalg.norm(gaps[0], axis=1) / np.maximum(hidden, 1e-300)
    values = np.abs(gaps[1]) / np.maximum(output, 1e-300)
    return Check.compare(max(float(rows.max()), float(values.max())), amplification)


# --- rival sets --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rivals:
    """Sets of `count` samples anywhere in R^d that explain the data, from random starts.

    `sets` are terms (k, d) with b_i = +-1 absorbed, as directions times |b|^(1/alpha); each has a
    relative residual of at most 1e-13 in `residuals`. `truth` (n, d) are the terms of the
    true set in the same units, `stiffness` the smallest singular value of the Jacobian there, per
    relative movement of the terms.
    """

    sets: tuple[FloatArray, ...]
    residuals: tuple[float, ...]
    truth: FloatArray
    stiffness: float


def reduced_data(data: HermiteData) -> ReducedData:
    """Distinct unit points on V, then on all of R^d."""
    reduced = reduce_data(data, NOISE)
    rest = np.linalg.svd(reduced.basis, full_matrices=True)[0][:, reduced.dimension :]
    return padded(reduced, np.ascontiguousarray(rest))


def true_terms(instance: Explained, reduced: ReducedData) -> tuple[FloatArray, FloatArray]:
    """Terms z_i (n, d) with s_i z_i^(alpha) = b_i x_i^(alpha) in reduced units, and signs s_i."""
    degree, b = instance.data.degree, instance.coefficients / reduced.tensor_scale
    size = np.abs(b) ** (1.0 / degree)
    signs = np.sign(b)
    terms = (instance.samples * size[:, None]) @ reduced.basis
    return (terms * signs[:, None], np.ones(len(b))) if degree % 2 else (terms, signs)


def find_rivals(instance: Explained, count: int, *, starts: int = 8, steps: int = 80) -> Rivals:
    """Levenberg-Marquardt in R^d from random starts; what converges explains the data.

    Of sets of n samples a quarter starts near the truth.
    """
    reduced = reduced_data(instance.data)
    equations = SetEquations(instance.data, reduced, "free")
    truth, signs = true_terms(instance, reduced)
    sizes = np.linalg.norm(truth, axis=1).repeat(truth.shape[1])
    jacobian = equations.jacobian(truth[None], signs[None])[0] * sizes
    stiffness = float(np.linalg.svd(jacobian, compute_uv=False)[-1])
    if jacobian.shape[0] < jacobian.shape[1]:
        stiffness = 0.0
    rng = np.random.default_rng([instance.seed, count, 9])
    z, s = draw_starts(equations, count, starts, False, rng)
    if count == len(truth):
        near = starts // 4
        z[:near] = truth * (1.0 + 0.2 * rng.standard_normal((near, *truth.shape)))
        s[:near] = signs
    with np.errstate(all="ignore"):
        z, norms = minimise(equations, z, s, goal=1e-12, max_steps=steps, patience=(15, 0.5))
        ends = [polish(equations, z[k], s[k]) for k in np.flatnonzero(norms < 1e-6)]
    solved = [(terms, norm) for terms, norm in ends if norm <= NOISE]
    return Rivals(
        tuple(terms for terms, _ in solved), tuple(norm for _, norm in solved), truth, stiffness
    )


def scaled_search() -> AbstractContextManager[object]:
    """Equations of a set with a coordinate that is too large by a hundredth."""
    original = SetEquations.residual

    def broken(self: SetEquations, terms: FloatArray, signs: FloatArray) -> FloatArray:
        turned = terms.copy()
        turned[:, :, 0] *= 1.01
        return original(self, turned, signs)

    return patch.object(SetEquations, "residual", broken)
