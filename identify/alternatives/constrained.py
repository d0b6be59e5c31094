"""A set moved by a wanted distance, and what of it is to be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from identify.alternatives.off_span import (
    free_directions,
    nu_pair_alternative,
    off_span_alternative,
)
from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.stationarity import stationarity
from identify.numerical_rank import row_space
from identify.records import TrainingSet
from identify.thresholds import DIFFERENT

KEEP = ("norms", "box", "count", "margins")
"""What can be kept: |x_i|, the interval of all entries, the number of samples, every f(x_i)."""
_KEPT = 1e-9
_SMALL = 1e-3


def read_keep(keep: Sequence[str]) -> frozenset[str]:
    """The words of `keep`; InvalidInputError for others."""
    unknown = sorted(set(keep) - set(KEEP))
    if unknown:
        raise InvalidInputError("keep", f"words of {', '.join(KEEP)}", ", ".join(unknown))
    return frozenset(keep)


def excluded(distance: float | None, keep: Sequence[str]) -> str | None:
    """Why no set at that distance can exist, as far as that is proved; else None.

    Samples of the same norm are at most two norms apart: |x' - x| <= |x'| + |x| = 2 |x|.

    Example:
        >>> excluded(10.0, ("norms",))
        'none exists: samples of the same norm are at most 2 norms apart'
        >>> excluded(1.0, ("norms",)) is None
        True
    """
    if "norms" in keep and distance is not None and distance > 2.0:
        return "none exists: samples of the same norm are at most 2 norms apart"
    return None


def span_distance(first: FloatArray, second: FloatArray) -> float:
    """max_i |x'_i - x_i| / max_i |x_i| of two sets in one order."""
    gaps = np.linalg.norm(second - first, axis=1)
    return float(gaps.max() / np.linalg.norm(first, axis=1).max())


def moved_set(
    data: HermiteData,
    own: TrainingSet,
    *,
    distance: float | None = None,
    keep: Sequence[str] = (),
    noise_level: float = 1e-13,
    seed: int = 0,
) -> TrainingSet | None:
    """The set of which a sample moved by `distance` norms of the largest one, or None.

    KKT and weight decay: the parts off V go to A x_i,perp, A = 1 - t, or with "norms" a rotation
    by t, which keeps b, the number of samples and every f(x_i). Else, without "count" and "norms",
    one sample x becomes x + nu and x - nu, |nu| the distance. Everything that is to be kept, and
    the stationarity on the network, is measured again on the set.

    Args:
        data: of any source.
        own: a set that explains the data.
        distance: in norms of the largest sample; the reflection's, or what fits, if left out.
        keep: words of `KEEP`.
        noise_level: relative size of the data's error.
        seed: of the directions.

    Raises:
        InvalidInputError: an unknown word, or a distance that is not positive.

    Cost: O(m D min(m, D) + n m D).
    """
    words = read_keep(keep)
    if distance is not None and not (np.isfinite(distance) and distance > 0.0):
        raise InvalidInputError("distance", "a positive number", repr(distance))
    if excluded(distance, keep) is not None:
        return None
    made: list[FloatArray | None] = []
    if data.homogeneous and "norms" in words:
        made.append(_rotated(data, own, distance, noise_level, seed))
    elif data.homogeneous:
        made.append(_stretched(data, own, distance, words, noise_level, seed))
    for samples in made:
        if samples is not None:
            found = TrainingSet(
                samples, own.coefficients, stationarity(data, samples, own.coefficients)
            )
            if _obeys(data, own, found, distance, words, noise_level):
                return found
    if words & {"count", "norms"}:
        return None
    sizes = np.linalg.norm(own.samples, axis=1)
    lifted = np.linalg.norm(data.network.lift(own.samples), axis=1)
    strong = int(np.argmax(np.abs(own.coefficients) * (lifted / lifted.max()) ** data.degree))
    share = None if distance is None else distance * float(sizes.max() / sizes[strong])
    pair = nu_pair_alternative(
        data, own.samples, own.coefficients, distance=share, noise_level=noise_level, seed=seed
    )
    if pair is None or not _obeys(data, own, pair, None, words, noise_level):
        return None
    return pair


def _stretched(
    data: HermiteData,
    own: TrainingSet,
    distance: float | None,
    words: frozenset[str],
    noise_level: float,
    seed: int,
) -> FloatArray | None:
    """x_V + (1 - t) x_perp for the wanted t, in a box the largest that it allows."""
    other = off_span_alternative(
        data, own.samples, own.coefficients, noise_level=noise_level, seed=seed
    )
    if other is None:
        return None
    move = other.samples - own.samples
    if distance is not None:
        return own.samples + move * (distance / span_distance(own.samples, other.samples))
    if "box" not in words:
        return other.samples
    low, high = float(own.samples.min()), float(own.samples.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(move > 0.0, (high - own.samples) / move, (low - own.samples) / move)
    largest = min(1.0, float(np.min(np.where(move == 0.0, np.inf, room))))
    moved = own.samples + largest * move
    # A sample at the edge of the box holds all others back: too little to show.
    return moved if span_distance(own.samples, moved) >= DIFFERENT else None


def _rotated(
    data: HermiteData, own: TrainingSet, distance: float | None, noise_level: float, seed: int
) -> FloatArray | None:
    """x_V + A x_perp with a rotation A of V-perp that moves the farthest sample by `distance`.

    A turns an orthonormal basis E of the parts off V into F orthogonal to them, by one angle:
    |A p - p| = 2 sin(angle / 2) |p|. The reflection, angle pi, moves farthest.
    """
    basis, _ = row_space(data.points, max(10.0 * noise_level, 1e-12), seed)
    fixed = [basis]
    lifted = data.network.lift(own.samples)
    if data.has_bias:
        axis = -basis @ basis[-1]
        axis[-1] += 1.0
        if np.linalg.norm(axis) > 1e-9:
            fixed.append((axis / np.linalg.norm(axis))[:, None])
    seen = np.hstack(fixed)
    outside = lifted - (lifted @ seen) @ seen.T
    outside -= (outside @ seen) @ seen.T
    top = float(np.linalg.norm(own.samples, axis=1).max())
    reach = float(np.linalg.norm(outside, axis=1).max()) / top
    if reach < _SMALL or (distance is not None and distance > 2.0 * reach * (1.0 + _KEPT)):
        return None
    width = data.network.dimension
    if distance is None:
        return (lifted - 2.0 * outside)[:, :width]
    angle = 2.0 * float(np.arcsin(min(1.0, distance / (2.0 * reach))))
    own_basis, _ = row_space(outside, 1e-10, seed)
    turned = free_directions(data, np.hstack([seen, own_basis]), own_basis.shape[1], seed=seed)
    if turned.shape[1] < own_basis.shape[1]:
        return None
    inner = outside @ own_basis
    move = (np.cos(angle) - 1.0) * inner @ own_basis.T + np.sin(angle) * inner @ turned.T
    moved: FloatArray = (lifted + move)[:, :width]
    return moved


def _obeys(
    data: HermiteData,
    own: TrainingSet,
    found: TrainingSet,
    distance: float | None,
    words: frozenset[str],
    noise_level: float,
) -> bool:
    """Whether a set is as stationary as it has to be, and keeps what it has to keep."""
    if not found.stationarity <= max(1e-10, 2.0 * noise_level):
        return False
    x, z = own.samples, found.samples
    top = float(np.linalg.norm(x, axis=1).max())
    slack = _KEPT * float(np.abs(x).max())
    if "box" in words and not (x.min() - slack <= z.min() and z.max() <= x.max() + slack):
        return False
    if len(x) != len(z):
        return not words & {"count", "norms"}
    if distance is not None and abs(span_distance(x, z) - distance) > 1e-6 * distance:
        return False
    if "norms" in words:
        change = np.abs(np.linalg.norm(z, axis=1) - np.linalg.norm(x, axis=1))
        if float(change.max()) > _KEPT * top:
            return False
    if "margins" in words:
        before, after = data.network.value(x), data.network.value(z)
        if float(np.abs(after - before).max()) > 1e-6 * float(np.abs(before).max()):
            return False
    return True
