"""Ranks of the gradients of all layers: singular values, the gap, and what the tail looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..outcome import FloatArray, IntArray, check_possible, finite
from .network import Layers

GAP = 100.0
"""Smallest step of the singular values at a rank that counts as clear."""
_SEEN = 3.0
_LATE = 10.0
_FLAT, _NOISE = 0.1, 0.3
_FULL, _BLOCK = 400, 48
_EPSILON = 2.0**-52
_SINGLE, _HIDDEN = 0.4 * 2.0**-24, 4.0
"""Float32's rounding of an entry, and the passes' over it."""
_CHANCE, _TAIL = 30, 3.1
"""Entries of a tail that is not 0 by chance, and how far the noise of few entries is raised."""
_LARGEST_WORK = 2e12
_RATE = 3e9
_SAME_NOISE = 10.0
_LOW = 300.0
"""Roundings below which the noise of a gradient is that of float64, which nobody reproduces."""

InTime = Callable[[float], None]
"""Raises NotCheckableError if so many further seconds are not left."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A gradient G (m, k) as U diag(s) V^T of rank r, and a tail of noise.

    ``left`` U (m, r), ``values`` (r,), ``right`` V (k, r). ``noise`` bounds the root mean square
    of the error's entries, ``gap`` is s_r / s_(r+1), ``floor`` what float64 leaves of a singular
    value; ``kinds`` counts rows and columns that are no multiples of each other.
    """

    left: FloatArray
    values: FloatArray
    right: FloatArray
    following: float
    gap: float
    noise: float
    floor: float
    flat: bool
    shape: tuple[int, int]
    kinds: tuple[int, int]

    @property
    def rank(self) -> int:
        """The rank r."""
        return len(self.values)

    @property
    def clear(self) -> bool:
        """Whether the gap is large and there is a tail, spread as noise is."""
        return self.gap >= GAP and self.flat and self.rank < min(*self.shape, *self.kinds)

    @property
    def rounded(self) -> bool:
        """Whether the noise is that of float64."""
        rows, columns = self.shape
        return bool(self.noise * (np.sqrt(rows) + np.sqrt(columns)) <= _LOW * self.floor)

    @property
    def error(self) -> float:
        """The spectral norm of the gradient's error, if the tail is typical of it."""
        rows, columns = self.shape
        return max(self.following, self.noise * float(np.sqrt(rows) + np.sqrt(columns)))

    @property
    def relative_noise(self) -> float:
        """Frobenius norm of the noise over that of the gradient."""
        return float(
            self.noise * np.sqrt(self.shape[0] * self.shape[1]) / np.linalg.norm(self.values)
        )


@dataclass(frozen=True, eq=False)
class _Kinds:
    """Rows by kind: ``largest`` of each (K,), all ``members``, their ``kinds`` and ``factors``."""

    largest: IntArray
    members: IntArray
    kinds: IntArray
    factors: FloatArray

    def together(self, basis: FloatArray) -> float:
        """The norm of a basis (m, r) with the members of a kind added up."""
        if len(self.largest) == len(self.members):
            return 1.0
        added = np.zeros((len(self.largest), basis.shape[1]))
        np.add.at(added, self.kinds, self.factors[:, None] * basis[self.members])
        return float(np.linalg.norm(added, 2))


@dataclass(frozen=True, eq=False)
class _Svd:
    g: FloatArray
    u: FloatArray
    s: FloatArray
    v: FloatArray
    row_kinds: _Kinds
    column_kinds: _Kinds
    single: float

    @property
    def rows(self) -> IntArray:
        """The largest row of each kind."""
        return self.row_kinds.largest

    @property
    def columns(self) -> IntArray:
        """The largest column of each kind."""
        return self.column_kinds.largest

    @property
    def kinds(self) -> tuple[int, int]:
        """The number of rows and columns that are not 0 and no multiples of each other."""
        return len(self.rows), len(self.columns)

    @property
    def double(self) -> float:
        """Eight roundings of the largest singular value."""
        return 8.0 * _EPSILON * float(self.s[0])

    @property
    def floor(self) -> float:
        """What rounding leaves of a singular value."""
        return max(self.double, self.single)

    @property
    def quiet(self) -> float:
        """The value up to which a tail need not look like noise."""
        return max(10.0 * self.double, 1.5 * self.single)

    def spread(self, rank: int, count: int, kinds: tuple[int, int]) -> float:
        """Directions of the tail over those of noise; ``count`` values are told apart."""
        if rank >= count or self.s[rank] == 0.0:
            return float("inf")
        rows, columns = (max(1, kind - rank) for kind in kinds)
        directions = float(np.sum((self.s[rank:] / self.s[rank]) ** 2))
        return directions * float(np.sqrt(rows) + np.sqrt(columns)) ** 2 / (rows * columns)

    def decide(self, count: int) -> int:
        """The rank that the first ``count`` singular values show."""
        s = np.maximum(self.s[:count], self.floor)
        falls = s[:-1] / s[1:]
        most = min(self.kinds)
        steps = [k + 1 for k in range(min(len(falls), max(1, most - 3, 9 * most // 10)))
                 if falls[k] >= _SEEN]  # fmt: skip
        clear = [k for k in steps if falls[k - 1] >= GAP and self._ends(k, count)]
        # What lies above a later fall down to rounding may be a weak sample.
        late = [k for k in steps if falls[k - 1] >= _LATE and self.s[k] <= self.floor]
        if steps:
            return max(clear[-1:] + late) if clear else steps[-1]
        if len(falls) < 2:
            return len(s)
        return int(np.argmax(falls[: max(1, len(falls) // 2)])) + 1

    def _ends(self, rank: int, count: int) -> bool:
        small = rank >= count or self.s[rank] <= 10.0 * self.floor
        return bool(small or self.spread(rank, count, self.kinds) >= _FLAT)

    def cut(self, rank: int, count: int) -> Spectrum:
        """The spectrum of that rank."""
        rows, columns = self.kinds
        following = float(self.s[rank]) if rank < len(self.s) else 0.0
        tail = float(np.linalg.norm(self.s[rank:]))
        degrees = max(1, rows - rank) * max(1, columns - rank)
        together = self._together(rank)
        if together > 1.0:
            core = np.linalg.svd(self.g[np.ix_(self.rows, self.columns)], compute_uv=False)
            tail = max(tail, together * float(np.linalg.norm(core[rank:])))
        # Few sums of numbers on a coarse grid can be exact by chance.
        shown = degrees >= _CHANCE or tail > self.double
        # Wilson and Hilferty's quantile of chi-square.
        part = 2.0 / (9.0 * degrees)
        tail *= max(0.05, 1.0 - part - _TAIL * part**0.5) ** -1.5
        lowest = self.floor / (np.sqrt(rows) + np.sqrt(columns))
        if self.single > 0.0:
            entry = float(np.linalg.norm(self.g)) / np.sqrt(rows * columns)
            lowest = max(lowest, _HIDDEN * together * _SINGLE * entry)
        flat = (
            following <= self.quiet
            or self.spread(rank, count, self.kinds) >= _NOISE
            or self._scaled_flat(rank)
        )
        return Spectrum(
            self.u[:, :rank], self.s[:rank], self.v[:, :rank], following,
            float(self.s[rank - 1]) / max(following, self.floor),
            float(max(tail / np.sqrt(degrees), lowest)), self.double, bool(flat and shown),
            (len(self.g), self.g.shape[1]), self.kinds,
        )  # fmt: skip

    def _together(self, rank: int) -> float:
        """How far the equal errors of one kind of rows or columns add up, at least 1."""
        return max(
            1.0,
            self.row_kinds.together(self.u[:, :rank]),
            self.column_kinds.together(self.v[:, :rank]),
        )

    def _scaled_flat(self, rank: int) -> bool:
        """Whether the tail is flat once rows and columns are divided by their size in it."""
        part = self.g[np.ix_(self.rows, self.columns)]
        if min(part.shape) <= rank:
            return False
        tail = part - (self.u[self.rows, :rank] * self.s[:rank]) @ self.v[self.columns, :rank].T
        for _ in range(3):
            for axis in (0, 1):
                size = np.sqrt(np.mean(tail**2, axis=axis, keepdims=True))
                weight = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0.0)
                tail, part = tail * weight, part * weight
        s = np.asarray(np.linalg.svd(part, compute_uv=False), dtype=np.float64)
        scaled = _Svd(part, part, s, part, self.row_kinds, self.column_kinds, 0.0)
        return scaled.spread(rank, len(s), self.kinds) >= _NOISE


def find_spectra(gradient: Layers, top: int, samples: int | None, in_time: InTime) -> dict[
    int, Spectrum
]:  # fmt: skip
    """The spectra of all layers by index; ``samples`` sets the rank of the last hidden one.

    What exceeds that rank elsewhere at the last hidden layer's own level of noise is noise.

    Raises NotCheckableError for a gradient that is too large or 0.
    """
    found: dict[int, Spectrum] = {}
    for index in (top, *(k for k in range(len(gradient.weights)) if k != top)):
        g = gradient.joined(index)
        if g is None or (index != top and not g.any()):
            continue
        parts = _decompose(g, in_time)
        if index == top:
            found[top] = _settle(parts, None if samples is None else min(samples, *g.shape))
            continue
        spectrum = _settle(parts, None)
        if spectrum.rank > found[top].rank:
            trial = parts.cut(found[top].rank, len(parts.s))
            quiet = trial.relative_noise <= _SAME_NOISE * found[top].relative_noise
            spectrum = trial if quiet and trial.gap >= GAP and trial.flat else spectrum
        found[index] = spectrum
    return found


def _decompose(g: FloatArray, in_time: InTime) -> _Svd:
    check_possible(bool(g.any()), "the gradient of a layer is 0")
    work = 8.0 * g.size * min(g.shape)
    check_possible(work <= _LARGEST_WORK, f"too large: a gradient of {g.shape[0]} x {g.shape[1]}")
    in_time(work / _RATE)
    u, s, vt = np.linalg.svd(finite(g), full_matrices=False)
    return _Svd(g, u, s, vt.T, _first(g), _first(g.T), _single(g))


def _first(rows: FloatArray) -> _Kinds:
    """Rows by kind: multiples carry multiples of one error and count once; zeros are of no kind."""
    seen: dict[bytes, list[int]] = {}
    peaks = np.array([row[np.argmax(np.abs(row))] for row in rows])
    for k in np.flatnonzero(peaks):
        seen.setdefault((rows[k] / peaks[k] + 0.0).tobytes(), []).append(int(k))
    groups = list(seen.values())
    largest = np.array([max(group, key=lambda k: abs(peaks[k])) for group in groups])
    members = np.array([k for group in groups for k in group])
    kinds = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return _Kinds(largest, members, kinds, peaks[members] / np.abs(peaks[largest[kinds]]))


def _single(g: FloatArray) -> float:
    """The spectral norm of float32's rounding of float32 numbers, or 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.sqrt(((g - g.astype(np.float32)) ** 2).sum())
    # Two roundings in float64, as of a weight decay that was subtracted, change nothing.
    stored = bool(away <= 0.01 * _SINGLE * np.sqrt((g**2).sum()))
    largest = np.sqrt((g**2).sum(axis=0).max()) + np.sqrt((g**2).sum(axis=1).max())
    return float(_SINGLE * largest) if stored else 0.0


def _settle(parts: _Svd, rank: int | None) -> Spectrum:
    """The rank by the leading values of a large matrix where they are clear, else by all."""
    every = len(parts.s)
    if rank is not None:
        return parts.cut(rank, every)
    block = _BLOCK
    while every > _FULL and 3 * block < min(parts.kinds):
        chosen = parts.decide(block)
        spectrum = parts.cut(chosen, block)
        if chosen <= block - 8 and spectrum.flat and spectrum.gap >= _SEEN:
            return spectrum
        block *= 2
    return parts.cut(parts.decide(every), every)
