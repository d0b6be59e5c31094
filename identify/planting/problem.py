"""The input of planting: samples in their span, and the coefficients to try."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError
from identify.model.dataset import equal_rows, spell_groups
from identify.planting.eigenvectors import EigenSystem, search
from identify.tensors import symmetric_dimension

TRIES = 24
_SIGNS = 8
_INDEPENDENT = 1e-7
_SHALLOW = 1e-3
"""Eigenvectors with a smaller gap are too flat to be planted."""
_AMPLIFICATION = 1e3
"""Largest cancellation in T(v^(alpha-1), .) = value v, a loss of three digits."""
_NEURONS = 200
_SPREADS = (0.25, 0.5, 1.0)
"""Standard deviations of log |b_i|, in turn, once every sign vector was tried with |b_i| = 1."""


@dataclass(frozen=True, eq=False)
class PlantingProblem:
    """Validated input: unit samples in an orthonormal basis of their span, and their norms."""

    samples: FloatArray
    norms: FloatArray
    basis: FloatArray
    coordinates: FloatArray
    labels: FloatArray | None
    degree: int
    decay: float
    required: int

    @classmethod
    def from_input(
        cls, samples: npt.ArrayLike, degree: int, labels: npt.ArrayLike | None, decay: float
    ) -> PlantingProblem:
        if isinstance(degree, bool) or not isinstance(degree, int | np.integer) or degree < 3:
            raise InvalidInputError("degree", "an integer of at least 3", repr(degree))
        x = real_array("samples", samples).copy()
        if x.ndim != 2 or 0 in x.shape:
            raise InvalidInputError("samples", "shape (n, d), n, d >= 1", x.shape)
        norms = np.linalg.norm(x, axis=1)
        if not np.all(norms > 0):
            raise InvalidInputError("samples", "linearly independent rows", "a row of zeros")
        unit = x / norms[:, None]
        sigma = np.linalg.svd(unit, compute_uv=False)
        rank = int(np.count_nonzero(sigma > _INDEPENDENT * sigma[0]))
        if rank < len(x):
            same = spell_groups(equal_rows(x)) if equal_rows(x) else ""
            raise InvalidInputError(
                "samples",
                "linearly independent rows",
                f"rank {rank} for {len(x)} rows"
                + (f" (counted from 0, equal rows are {same})" if same else ""),
                "leave out repeated and dependent samples, or use fewer than the dimension",
            )
        y = None if labels is None else real_array("labels", labels).copy()
        if y is not None and y.shape != (len(x),):
            raise InvalidInputError("labels", f"shape ({len(x)},)", y.shape)
        if y is not None and not np.all(np.abs(y) == 1.0):
            raise InvalidInputError("labels", "-1 and 1 only", np.unique(y)[:5].tolist())
        if not (np.isfinite(decay) and decay > 0):
            raise InvalidInputError("decay", "a positive number", decay)
        ortho, triangle = np.linalg.qr(unit.T)
        required = symmetric_dimension(int(degree), len(x))
        return cls(x, norms, ortho, triangle.T.copy(), y, int(degree), float(decay), required)

    def choices(self, seed: int) -> Iterator[tuple[FloatArray, int]]:
        """Coefficients of the unit samples, and a seed, for one try after the other."""
        rng = np.random.default_rng(seed)
        count = len(self.samples)
        if self.labels is not None:
            signs = self.labels[None, :]
        elif self.degree % 2 == 0:
            # Orthogonal samples of both labels never share a neuron of even degree.
            signs = np.ones((1, count))
        else:
            signs = _negative_signs(self.coordinates @ self.coordinates.T, rng)
        for index in range(TRIES):
            spread = 0.0 if index < len(signs) else _SPREADS[index % len(_SPREADS)]
            size = np.exp(spread * rng.standard_normal(count))
            yield signs[index % len(signs)] * size, seed + index

    @property
    def count(self) -> int:
        """n, the number of samples."""
        return len(self.samples)

    @property
    def unit_targets(self) -> FloatArray:
        """Margins of the unit samples that make those of the samples equal, shape (n,)."""
        logs = -self.degree * np.log(self.norms)
        targets: FloatArray = np.exp(logs - np.mean(logs))
        return targets

    def eigenvectors(self, b: FloatArray, seed: int, most: int | None) -> EigenSystem:
        """Eigenvectors of T(b) that stay accurate in float64, at most `most`, best isolated."""
        system = search(self.coordinates, b, self.degree, seed=seed)
        amplified = np.sum(np.abs(b * system.products ** (self.degree - 2)), axis=1)
        gaps = system.gaps
        accurate = (gaps > _SHALLOW) & (amplified < _AMPLIFICATION * np.abs(system.values))
        kept = np.flatnonzero(accurate)
        enough = max(_NEURONS, 3 * self.required // self.count)
        limit = enough if most is None else min(most, enough)
        if len(kept) > limit:
            kept = np.sort(kept[np.argsort(-gaps[kept], kind="stable")[:limit]])
        return system.subset(kept)


def _negative_signs(cosines: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Sign vectors of small sum_{i<k} s_i s_k cos_ik, the smallest first, s_1 = 1.

    Single flips lead from random starts to local minima; their neighbours follow them.
    """
    count = len(cosines)
    coupling = cosines - np.diag(np.diag(cosines))
    signs = np.where(rng.standard_normal((256, count)) < 0, -1.0, 1.0)
    rows = np.arange(len(signs))
    for _ in range(20 * count):
        gain = signs * (signs @ coupling)
        worst = np.argmax(gain, axis=1)
        positive = gain[rows, worst] > 1e-12
        if not np.any(positive):
            break
        signs[rows[positive], worst[positive]] *= -1.0
    minima = np.unique(signs * signs[:, :1], axis=0)
    flips = np.where(np.eye(count, dtype=bool), -1.0, 1.0)
    near = (minima[:, None, :] * flips).reshape(-1, count)
    everything = np.unique(np.vstack([minima, near * near[:, :1]]), axis=0)
    energy = np.einsum("ki,ij,kj->k", everything, coupling, everything)
    chosen: FloatArray = everything[np.argsort(energy, kind="stable")[:_SIGNS]]
    return chosen
