"""Rank, column space and row space of a layer's gradient, and the gap that decided the rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.thresholds import (
    CLEAR,
    EVEN,
    FLAT,
    LATE_FALL,
    PASSES,
    SEEN,
    TAIL_ENTRIES,
    TAIL_SIGMAS,
)

IntArray = npt.NDArray[np.int64]

EPSILON = float(np.finfo(np.float64).eps)
_FULL = 400
_BLOCK = 48
_SINGLE = 0.4 * 2.0**-24
"""Root mean square of float32's rounding errors, relative to the entries."""
_STORED = 1e-2 * _SINGLE
"""Distance to float32 numbers, relative, up to which a gradient counts as made of them."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A gradient G (m, k) as U diag(s) V^T plus a tail that counts as noise.

    ``columns`` U (m, r) and ``rows`` V (k, r) are orthonormal, ``values`` s (r,) descend.
    ``next_value`` is s_(r+1), ``gap`` s_r / s_(r+1) with s_(r+1) at least what float64 leaves;
    ``noise`` is an upper bound for the root mean square of the error's entries: that of the tail,
    raised for few entries and for rows with equal errors, at least what float64 leaves, or float32
    where every entry is one; ``flat`` says whether the tail is spread over many directions, as
    noise is, whatever its rows' sizes, and not 0 by chance. ``different`` counts
    rows and columns up to a factor.
    """

    columns: FloatArray
    values: FloatArray
    rows: FloatArray
    next_value: float
    gap: float
    noise: float
    flat: bool
    shape: tuple[int, int]
    different: tuple[int, int]

    @property
    def rank(self) -> int:
        """The rank r."""
        return len(self.values)

    @property
    def clear(self) -> bool:
        """Whether the gap is at least `CLEAR` and the tail looks like noise.

        With no more different rows or columns than the rank there is no tail that shows noise.
        """
        return self.gap >= CLEAR and self.flat and self.rank < min(*self.shape, *self.different)

    @property
    def error(self) -> float:
        """A bound for the spectral norm of the gradient's error, if the tail is typical of it."""
        rows, columns = self.shape
        return max(self.next_value, self.noise * float(np.sqrt(rows) + np.sqrt(columns)))


def factor(gradient: FloatArray, *, rank: int | None = None, seed: int = 0) -> Factor:
    """Split G into a part of rank r and noise.

    r is the last place, within nine tenths of the different rows and columns, where the singular
    values fall by `CLEAR` or more to a tail like noise; else the last where they fall by `SEEN`;
    else the place of the largest fall in their first half. Columns that are equal up to a factor
    carry equal rounding errors, so that the tail would end early; they count once. ``rank``
    overrides it.

    Args:
        gradient: G, shape (m, k), finite, not 0.
        rank: r, at most min(m, k), if it is known.
        seed: of the random directions that find the spaces of a large matrix.

    Raises:
        InvalidInputError: not a finite matrix, a matrix of zeros, or an impossible rank.

    Cost: 10 m k (r + 10) operations for a large matrix of small rank, else one full SVD.

    Source: Halko, Martinsson & Tropp (2011), algorithm 4.4, for the large matrix.

    Example:
        >>> found = factor(np.outer(np.sqrt(np.arange(12.0)), np.sqrt(np.arange(12.0))))
        >>> found.rank, found.clear
        (1, True)
    """
    g = np.asarray(gradient, dtype=np.float64)
    if g.ndim != 2 or g.size == 0 or not np.isfinite(g).all():
        raise InvalidInputError("gradient", "a finite matrix", f"shape {g.shape}")
    if not g.any():
        raise InvalidInputError("gradient", "a matrix that is not 0", "zeros")
    if rank is not None and not 1 <= rank <= min(g.shape):
        raise InvalidInputError("rank", f"1 to {min(g.shape)}", rank)
    kinds = _different(g)
    different = (len(kinds[0].first), len(kinds[1].first))
    block = _BLOCK if rank is None else max(_BLOCK, rank + 10)
    while min(g.shape) > _FULL and 3 * block < min(different):
        u, s, v, left = _leading(g, block, seed)
        chosen = _decide(s, different, left, _floor(g, float(s[0]))) if rank is None else rank
        found = _assemble(g, kinds, u, s, v, left, chosen)
        if rank is not None or (chosen <= block - 8 and found.flat and found.gap >= SEEN):
            return found
        block *= 2
    u, s, vt = linalg.svd(g, full_matrices=False, check_finite=False)
    chosen = _decide(s, different, 0.0, _floor(g, float(s[0]))) if rank is None else rank
    return _assemble(g, kinds, u, s, vt.T, 0.0, chosen)


@dataclass(frozen=True, eq=False)
class _Kinds:
    """Rows (m,) by kind, where rows that are equal up to a factor are one; zeros have none.

    ``first`` (K,) is the largest of each kind, ``of`` (m,) the kind of each row, -1 for zeros, and
    ``share`` (m,) its factor over the largest.
    """

    first: IntArray
    of: IntArray
    share: FloatArray

    def repeated(self, basis: FloatArray) -> float:
        """How far equal errors of equal rows add up in a basis (m, r), 1 where none are equal."""
        live = self.of >= 0
        if len(self.first) == int(live.sum()) or basis.shape[1] == 0:
            return 1.0
        gathered = np.zeros((len(self.first), basis.shape[1]))
        np.add.at(gathered, self.of[live], self.share[live, None] * basis[live])
        return max(1.0, float(np.linalg.norm(gathered, 2)))


def _different(g: FloatArray) -> tuple[_Kinds, _Kinds]:
    return _kinds(g), _kinds(g.T)


def _kinds(rows: FloatArray) -> _Kinds:
    """Quotients of exact multiples are rounded alike, so that equal bytes find them."""
    at = np.argmax(np.abs(rows), axis=1)
    pivot = rows[np.arange(len(rows)), at]
    scaled = np.ascontiguousarray(rows / np.where(pivot == 0.0, 1.0, pivot)[:, None] + 0.0)
    kinds: dict[bytes, int] = {}
    of = np.full(len(rows), -1, dtype=np.int64)
    for index in np.flatnonzero(pivot):
        of[index] = kinds.setdefault(scaled[index].tobytes(), len(kinds))
    first = np.zeros(len(kinds), dtype=np.int64)
    order = np.argsort(np.abs(pivot), kind="stable")
    order = order[of[order] >= 0]
    first[of[order]] = order
    share = np.zeros(len(rows))
    share[order] = pivot[order] / pivot[first[of[order]]]
    return _Kinds(first, of, share)


def _single(g: FloatArray) -> float:
    """Spectral norm of float32's rounding errors, 0 where the entries are no float32 numbers.

    They may have passed through float64, as where weight decay was subtracted.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        away = float(np.linalg.norm(g - g.astype(np.float32)))
    if not away <= _STORED * float(np.linalg.norm(g)):
        return 0.0
    norms = (float(np.linalg.norm(g, axis=axis).max()) for axis in (0, 1))
    return _SINGLE * sum(norms)


def _leading(
    g: FloatArray, block: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Leading singular triplets and the Frobenius norm of what they leave."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(g @ rng.normal(size=(g.shape[1], block)))[0]
    for _ in range(2):
        q = np.linalg.qr(g.T @ q)[0]
        q = np.linalg.qr(g @ q)[0]
    small = q.T @ g
    left = 0.0
    for start in range(0, len(g), 1024):
        part = g[start : start + 1024] - q[start : start + 1024] @ small
        left += float(np.sum(part**2))
    u, s, vt = np.linalg.svd(small, full_matrices=False)
    return q @ u, s, vt.T, float(np.sqrt(left))


def _floor(g: FloatArray, largest: float) -> tuple[float, float]:
    """What rounding leaves of a singular value, and up to where a tail need not look like noise."""
    double, single = 8.0 * EPSILON * largest, _single(g)
    return max(double, single), max(10.0 * double, 1.5 * single)


def _decide(
    s: FloatArray, different: tuple[int, int], left: float, floor: tuple[float, float]
) -> int:
    floored = np.maximum(s, floor[0])
    falls = floored[:-1] / floored[1:]
    most = min(different)
    seen = np.flatnonzero(falls[: max(1, most - 3, (9 * most) // 10)] >= SEEN) + 1
    if len(seen):
        clear = [
            i for i in seen
            if falls[i - 1] >= CLEAR and _flat(s, different, left, int(i), floor[1])
        ]  # fmt: skip
        # A later fall down to rounding: what lies between may be a weak sample, and no noise.
        late = [i for i in seen if falls[i - 1] >= LATE_FALL and s[i] <= floor[0]]
        return max(map(int, [clear[-1], *late])) if clear else int(seen[-1])
    if len(falls) < 2:
        return len(s)
    return int(np.argmax(falls[: max(1, len(falls) // 2)])) + 1


def _flat(s: FloatArray, different: tuple[int, int], left: float, rank: int, quiet: float) -> bool:
    """Whether the tail after a rank is spread over many directions, or is what rounding leaves."""
    if rank >= len(s) or s[rank] <= quiet:
        return True
    return _spread(s, different, left, rank) >= FLAT


def _spread(s: FloatArray, different: tuple[int, ...], left: float, rank: int) -> float:
    """Directions of the tail after a rank, over those of independent noise."""
    rows, columns = (max(1, count - rank) for count in different)
    if rank >= len(s) or s[rank] == 0.0:
        return np.inf
    directions = (np.sum(s[rank:] ** 2) + left**2) / s[rank] ** 2
    return float(directions * (np.sqrt(rows) + np.sqrt(columns)) ** 2 / (rows * columns))


def _like_noise(g: FloatArray, u: FloatArray, kinds: tuple[_Kinds, _Kinds]) -> bool:
    """Whether the tail is spread as noise is once rows and columns are scaled to its size there.

    Rounding errors are as uneven as the entries; a sample that was missed is one direction under
    any scaling, and the rank of the others stays. Equal rows and columns, which have equal errors,
    count once.
    """
    rank = u.shape[1]
    rows, columns = kinds[0].first, kinds[1].first
    scaled = g[np.ix_(rows, columns)]
    tail = scaled - u[rows] @ (u.T @ g[:, columns])
    if min(scaled.shape) <= rank:
        return False
    for _ in range(3):
        for axis in (0, 1):
            size = np.asarray(np.sqrt(np.mean(tail**2, axis=axis, keepdims=True)))
            weight = np.where(size > 0.0, 1.0 / np.where(size > 0.0, size, 1.0), 0.0)
            tail, scaled = tail * weight, scaled * weight
    block = min(rank + 10, *scaled.shape)
    _, s, _, left = _leading(scaled, block, 0)
    return _spread(s, scaled.shape, left, rank) >= EVEN


def _assemble(
    g: FloatArray,
    kinds: tuple[_Kinds, _Kinds],
    u: FloatArray,
    s: FloatArray,
    v: FloatArray,
    left: float,
    rank: int,
) -> Factor:
    rows, columns = different = (len(kinds[0].first), len(kinds[1].first))
    tail = float(np.sqrt(np.sum(s[rank:] ** 2) + left**2))
    following = float(s[rank]) if rank < len(s) else 0.0
    floor, quiet = _floor(g, float(s[0]))
    degrees = max(1, rows - rank) * max(1, columns - rank)
    repeated = max(kinds[0].repeated(u[:, :rank]), kinds[1].repeated(v[:, :rank]))
    if repeated > 1.0:
        tail = max(tail, repeated * _core_tail(g, kinds, rank))
    least = floor / (np.sqrt(rows) + np.sqrt(columns))
    if _single(g) > 0.0:
        stored = _SINGLE * float(np.linalg.norm(g)) / np.sqrt(rows * columns)
        least = max(least, PASSES * repeated * stored)
    noise = max(_raised(degrees) * tail / np.sqrt(degrees), least)
    gap = float(s[rank - 1]) / max(following, floor)
    flat = following <= quiet or _spread(s, different, left, rank) >= EVEN
    flat = flat or _like_noise(g, u[:, :rank], kinds)
    flat = flat and (degrees >= TAIL_ENTRIES or tail > 8.0 * EPSILON * float(s[0]))
    shape = (len(g), g.shape[1])
    return Factor(
        u[:, :rank], s[:rank].copy(), v[:, :rank], following, gap, float(noise), flat, shape,
        different,
    )  # fmt: skip


def _core_tail(g: FloatArray, kinds: tuple[_Kinds, _Kinds], rank: int) -> float:
    """Frobenius norm of the tail where every kind of row and column is kept once."""
    core = g[np.ix_(kinds[0].first, kinds[1].first)]
    if min(core.shape) > _FULL:
        _, s, _, left = _leading(core, rank + 10, 0)
        return float(np.sqrt(np.sum(s[rank:] ** 2) + left**2))
    return float(np.linalg.norm(linalg.svdvals(core)[rank:]))


def _raised(degrees: int) -> float:
    """sqrt(d / q) with q the quantile of chi-square at d degrees of freedom, cut where d is small.

    Source: Wilson & Hilferty (1931).
    """
    spread = 2.0 / (9.0 * degrees)
    return float(max(0.05, 1.0 - spread - TAIL_SIGMAS * np.sqrt(spread)) ** -1.5)
