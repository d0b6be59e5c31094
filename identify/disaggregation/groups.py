"""Samples of one mask: the part of the column space that the kernel of L cannot take apart.

g samples of one mask with independent slopes p give the kernel g^2 elements instead of g: with
z = B p on their common mask, (B (p p'^T + p' p^T) B^T / 2, B p p'^T) for every pair p, p'. The
matrices Z of the kernel are then block diagonal by congruence, with one block for each mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import Budget
from identify.disaggregation.factor import Factor
from identify.disaggregation.masks import Layer
from identify.disaggregation.relu import Operator, find_kernel
from identify.thresholds import KERNEL_GAP, KERNEL_NOISE

BoolArray = npt.NDArray[np.bool_]

_PENCILS = 12
_WIDE = 40
_LEAST = 8


@dataclass(frozen=True, eq=False)
class Group:
    """The samples of one mask (m,): a basis (g, q) of the span of their slopes p."""

    mask: BoolArray
    slopes: FloatArray

    @property
    def size(self) -> int:
        """The number g of samples."""
        return len(self.slopes)


@dataclass(frozen=True, eq=False)
class Grouping:
    """The masks of a column space, the largest group first, and the kernel that they explain.

    ``values`` (b,) of the kernel and of what follows it ascend, in units of the noise.
    """

    groups: tuple[Group, ...]
    values: FloatArray


def find_groups(
    operator: Operator, factor: Factor, layer: Layer, *, seed: int, budget: Budget
) -> Grouping | None:
    """Return the masks of the column space with the slopes that each of them carries.

    None unless the kernel of L is cut off after r + sum g (g - 1) > r elements, the number that
    the masks found explain: nested or nearly equal masks give other numbers.

    Args:
        seed: of the kernel's first block and of the pencils.

    Raises:
        BudgetExceededError: the time is up.

    Cost: that of the kernel, and a dozen eigenvalue problems of size r.
    """
    r, q = factor.rank, layer.amplitudes.shape[1]
    if q < 2 or r < 2:
        return None
    most = min(r + min(_WIDE, r * (min(r, q) - 1)), operator.unknowns - 1)
    if most <= r:
        return None
    values = find_kernel(
        operator, count=r, wide=max(_LEAST, most + 1 - r), budget=budget, seed=seed
    ).values
    falls = values[r + 1 : most + 1] / np.maximum(values[r:most], 1e-300)
    count = r + 1 + int(np.argmax(falls))
    kernel = find_kernel(operator, count=count, budget=budget, seed=seed)
    values = kernel.values / factor.noise
    if not _cut(values, count):
        return None
    z, _, _ = operator.unpack(kernel.vectors[:, :count])
    masks = _masks(layer, factor, z, seed)
    if masks is None:
        return None
    groups = _collect(layer, factor, masks)
    explained = r + sum(group.size * (group.size - 1) for group in groups)
    return Grouping(groups, values) if explained == count else None


def _cut(values: FloatArray, count: int) -> bool:
    """Whether the first values, in units of the noise, are 0 and the next one is far from it."""
    last, following = float(values[count - 1]), float(values[count])
    return last <= KERNEL_NOISE and following >= KERNEL_GAP * max(last, 1.0)


def _masks(layer: Layer, factor: Factor, z: FloatArray, seed: int) -> BoolArray | None:
    """Masks (m, r) of r independent directions, each from the block of one mask.

    Every eigenvector of the pencil of two elements lies in one block, and so do the real and the
    imaginary part of a complex one.
    """
    rng = np.random.default_rng(seed)
    best: tuple[float, BoolArray] | None = None
    for _ in range(_PENCILS):
        one, two = np.tensordot(rng.normal(size=(2, len(z))), z, axes=1)
        try:
            values, vectors = np.linalg.eig(np.linalg.solve(two, one))
        except np.linalg.LinAlgError:
            continue
        # Eigenvectors of two^-1 one are those of one two^-1 turned by two^-1.
        turned = two @ vectors
        kept = values.imag >= 0.0
        parts = [turned[:, kept].real, turned[:, values.imag > 0.0].imag]
        y = factor.columns @ np.hstack(parts)
        masks, left = _round(layer, y)
        if best is None or left < best[0]:
            best = left, masks
    if best is None or not best[1].any(axis=0).all():
        return None
    return best[1]


def _round(layer: Layer, y: FloatArray) -> tuple[BoolArray, float]:
    """Masks (m, b) of error signals y (m, b), and the largest relative violation.

    y_j (y_j - A_j . p) = 0 is linear in p.
    """
    masks = np.zeros(y.shape, dtype=np.bool_)
    worst = 0.0
    for i, signal in enumerate(y.T / np.maximum(np.linalg.norm(y, axis=0), 1e-300)[:, None]):
        p = np.linalg.lstsq(signal[:, None] * layer.amplitudes, signal**2, rcond=None)[0]
        amplitude = layer.amplitudes @ p
        masks[:, i] = signal * np.sign(amplitude) > 0.5 * np.abs(amplitude)
        left = signal - np.where(masks[:, i], amplitude, 0.0)
        worst = max(worst, float(np.linalg.norm(left)))
    return masks, worst


def _collect(layer: Layer, factor: Factor, masks: BoolArray) -> tuple[Group, ...]:
    """Equal masks together, with the p whose signals lie nearest to the column space."""
    different, counts = np.unique(masks, axis=1, return_counts=True)
    groups = []
    for mask, count in zip(different.T, counts, strict=True):
        target = layer.amplitudes * mask[:, None]
        outside = target - factor.columns @ (factor.columns.T @ target)
        turn = np.linalg.svd(outside, full_matrices=False)[2]
        groups.append(Group(mask, np.asarray(turn[-min(int(count), len(turn)) :])))
    return tuple(sorted(groups, key=lambda group: -group.size))
