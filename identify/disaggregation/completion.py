"""Gradients of which only the largest entries were sent, filled in again by their low rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.factor import factor
from identify.model.deep import DeepGradient

BoolArray = npt.NDArray[np.bool_]

_LEAST_SHARE = 0.005
_LEVELS = 1024
_COLUMNS = 500
_SWEEPS = 40
_FINAL = 200
_HELD = 0.03
_FITS = 1e-2
_WORSE = 5.0
_EXACT = 1e-12
_LARGEST_RANK = 64
_SPARE = 3
_FEW = 1000
_EDGE = 0.3
_ABOVE = 1.02
_ROUNDING = 1e-15


@dataclass(frozen=True, eq=False)
class Known:
    """Which entries (m, k) of a layer's gradient were sent, and rows (m,) that they leave open.

    ``filled`` says whether the others were filled in; else they are 0 in the gradient. ``noise`` is
    the root mean square error of an entry of a whole matrix that is as uncertain as the worst row.
    """

    kept: BoolArray
    dropped: BoolArray
    filled: bool
    noise: float = 0.0


def complete(
    gradient: DeepGradient, *, seed: int = 0, budget: Budget = UNLIMITED
) -> tuple[DeepGradient, dict[int, Known]]:
    """Fill in entries that were left out because they are small, layer by layer.

    A layer of more than three rows counts as cut where zeros stand between entries of rows and
    columns that are not 0, the sizes of the others end abruptly, and these are not few, as rounded
    ones are. The rank is the smallest at which entries that were held back come out, to 1 % and
    about as well as at larger ranks;
    alternating least squares then fits the entries that were sent. The answer is taken only if
    those that were not sent are below those that were. Rows with less than twice the rank of
    entries are 0 and left open; where a column has so few, nothing is filled in.

    Returns the gradient and, by layer, what was known of it; nothing for layers that are whole.

    Cost: 2 m k r^2 operations a sweep, some tens of sweeps.

    Source: low-rank matrix completion by alternating minimisation, Jain, Netrapalli & Sanghavi
        (2013). That the largest entries are known, not random ones, has no theorem.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> g = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 50))
        >>> cut = np.where(np.abs(g) > np.quantile(np.abs(g), 0.4), g, 0.0)
        >>> whole, known = complete(DeepGradient((cut,), (None,)))
        >>> known[0].filled, bool(np.abs(whole.weights[0] - g)[~known[0].dropped].max() < 1e-8)
        (True, True)
    """
    weights, biases = list(gradient.weights), list(gradient.biases)
    known: dict[int, Known] = {}
    layers = {i: g for i in range(len(weights)) if (g := gradient.layer(i)) is not None}
    for index, g in layers.items():
        plain = g if biases[index] is None else g[:, :-1]
        if min(g.shape) <= _SPARE or not _is_cut(plain):
            continue
        found = factor(g, seed=seed)
        if found.clear and found.rank <= min(g.shape) // 4:
            continue
        kept = g != 0.0
        filled = _fill(g, kept, seed, budget)
        if filled is None:
            known[index] = Known(kept, np.zeros(len(g), dtype=bool), filled=False)
            continue
        whole, dropped, noise = filled
        known[index] = Known(kept & ~dropped[:, None], dropped, filled=True, noise=noise)
        bias = biases[index] is not None
        weights[index] = whole[:, :-1] if bias else whole
        biases[index] = whole[:, -1] if bias else None
    if known:
        # One or a few rows do not tell what was cut out of them, but the other layers do.
        for index, g in layers.items():
            clear = min(g.shape) > _SPARE and factor(g, seed=seed).clear
            if index not in known and not clear and (g == 0.0).any():
                known[index] = Known(g != 0.0, np.zeros(len(g), dtype=bool), filled=False)
    if not any(part.filled for part in known.values()):
        return gradient, known
    return DeepGradient(tuple(weights), tuple(biases)), known


def _is_cut(g: FloatArray) -> bool:
    live = g[np.ix_(g.any(axis=1), g.any(axis=0))]
    sizes = np.sort(np.abs(live[live != 0.0]))
    if sizes.size < _FEW or 1.0 - sizes.size / live.size < _LEAST_SHARE:
        return False
    # Without a cut the smallest of fifty is that near to the largest by a chance of 2e-8.
    if sizes[0] < _EDGE * sizes[50]:
        return False
    different = 1 + int(np.count_nonzero(np.diff(sizes)))
    return different > min(_LEVELS, sizes.size // 2)


def _fill(
    g: FloatArray, kept: BoolArray, seed: int, budget: Budget
) -> tuple[FloatArray, BoolArray, float] | None:
    """The completed matrix, its open rows and its noise, or None where no low rank fits."""
    rng = np.random.default_rng(seed)
    counts = kept.sum(axis=1)
    columns = np.argsort(-kept.sum(axis=0), kind="stable")[:_COLUMNS]
    part, there = g[:, columns], kept[:, columns]
    held = there & (rng.random(there.shape) < _HELD)
    most = min(_LARGEST_RANK, min(g.shape) // 2, int(np.median(counts[counts > 0])) // 2)
    tried: dict[int, float] = {}

    def misfit(rank: int) -> float:
        if rank not in tried:
            budget.tell("completion", len(tried) / 14)
            rows = there.sum(axis=1) >= 2 * rank + _SPARE
            if rows.sum() < 2 * rank + _SPARE:
                tried[rank] = np.inf
                return np.inf
            u, v = _alternate(part[rows], (there & ~held)[rows], rank, _SWEEPS)
            left = (u @ v.T - part[rows])[held[rows]]
            # Medians: at too large a rank some rows are barely determined.
            size = max(float(np.median(np.abs(part[held]))), 1e-300)
            tried[rank] = float(np.median(np.abs(left))) / size
        return tried[rank]

    high = 1
    while high <= most and misfit(high) > _FITS:
        if budget.expired or high == most:
            return None
        high = min(2 * high, most)
    low = high // 2
    # One sample that is left out may be small, so the rank is that of the best fit.
    limit = min(_FITS, max(_WORSE * misfit(high), _EXACT))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if misfit(middle) <= limit else (middle, high)
        if budget.expired:
            return None
    dropped = counts < 2 * high + _SPARE
    rows = ~dropped
    below = kept[rows].sum(axis=0)
    if ((below > 0) & (below < 2 * high + _SPARE)).any():
        return None
    u, v = _alternate(g[rows], kept[rows], high, _FINAL, budget)
    whole = np.zeros(g.shape)
    whole[rows] = np.where(kept[rows], g[rows], u @ v.T)
    least = _ABOVE * np.array([np.abs(g[:, :-1][kept[:, :-1]]).min(),
                               np.abs(g[:, -1][kept[:, -1]]).min(initial=np.inf)])  # fmt: skip
    above = np.abs(np.where(kept, 0.0, whole)) > np.r_[np.full(g.shape[1] - 1, least[0]), least[1]]
    if above.sum() > 1e-3 * (~kept).sum():
        return None
    return whole, dropped, _noise(g[rows], kept[rows], u, v)


def _noise(g: FloatArray, kept: BoolArray, u: FloatArray, v: FloatArray) -> float:
    """The residual of the entries that were sent, times what the worst row or column makes of it.

    With N the normal matrix of a row on its kept columns and F that on all, its error is
    root(trace(N^-1 F) / r) times that of a whole row.
    """
    rank = u.shape[1]
    residual = float(np.sqrt(np.mean((u @ v.T - g)[kept] ** 2)))
    residual = max(residual, _ROUNDING * float(np.abs(g).max()))
    worst = 1.0
    for there, factors in ((kept, v), (kept.T, u)):
        products = (factors[:, :, None] * factors[:, None, :]).reshape(len(factors), -1)
        normal = (there.astype(np.float64) @ products).reshape(-1, rank, rank)
        whole = factors.T @ factors
        for part in normal[there.any(axis=1)]:
            share = float(np.trace(np.linalg.pinv(part, rcond=1e-14, hermitian=True) @ whole))
            worst = max(worst, share / rank)
    return residual * float(np.sqrt(worst))


def _alternate(
    g: FloatArray, kept: BoolArray, rank: int, sweeps: int, budget: Budget = UNLIMITED
) -> tuple[FloatArray, FloatArray]:
    """U (m, r) and V (k, r) with U V^T near g on the kept entries."""
    weight = kept.astype(np.float64)
    values = g * weight
    left, s, right = np.linalg.svd(values, full_matrices=False)
    u, v = left[:, :rank], right[:rank].T * s[:rank]
    size = float(np.linalg.norm(values))
    before = np.inf
    for _ in range(sweeps):
        if budget.expired:
            break
        u = np.linalg.qr(_solve(weight, values, v))[0]
        v = _solve(weight.T, values.T, u)
        now = float(np.linalg.norm((u @ v.T - values) * weight)) / size
        if now < 1e-14 or now > before * (1.0 - 1e-3):
            break
        before = now
    return u, v


def _solve(weight: FloatArray, values: FloatArray, factors: FloatArray) -> FloatArray:
    """Least squares of every row on the factors (k, r) of its kept entries."""
    rank = factors.shape[1]
    products = (factors[:, :, None] * factors[:, None, :]).reshape(len(factors), -1)
    normal = (weight @ products).reshape(-1, rank, rank)
    trace = np.trace(normal, axis1=1, axis2=2)
    normal[:, np.arange(rank), np.arange(rank)] += 1e-14 * trace[:, None] + 1e-300
    solved = np.linalg.solve(normal, (values @ factors)[:, :, None])[:, :, 0]
    return np.asarray(solved, dtype=np.float64)
