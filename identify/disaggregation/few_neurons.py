"""One output, few neurons: every mask of the column space, by meeting in the middle.

For one output delta_i = p_i a * mask_i, so that diag(1/a) times the column space contains the
masks. They are all of its 0/1 vectors, a short list that is complete. Linear programs take out
those that no sample of the row space can have, and the signs of W h + beta choose among the sets
of r that are left.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.factor import EPSILON, Factor
from identify.thresholds import LARGEST_CHANCE, NORM_LIMIT, USABLE_ROW

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

LARGEST_RANK = 46
"""The rank above which half of the values no longer fit into memory."""
SUBSETS = 300_000
"""The number of r-subsets of masks up to which all are tried."""
LATE = "the time limit passed"
_BATCH = 2_000_000
_LONGEST = 20_000
_SUBSET_BATCH = 500


@dataclass(frozen=True, eq=False)
class MaskList:
    """The 0/1 vectors near the column space: ``masks`` (m, count) over the rows ``live`` (m,).

    ``complete`` says that no other one lies within the tolerances; ``reason`` why not. ``chance``
    is the number that 2^r random vectors would give, ``tolerance`` the largest one that was used,
    ``rows`` the number of rows that could be used, ``pivots`` (r,) those that were enumerated.
    """

    masks: BoolArray
    live: BoolArray
    complete: bool
    reason: str
    chance: float
    tolerance: float
    rows: int
    pivots: IntArray | None = None


@dataclass(frozen=True, eq=False)
class Selection:
    """What is left of a mask list: ``masks`` (m, r) if exactly one set explains the signs.

    ``realisable`` counts the masks that the linear programs left, ``subsets`` the sets that were
    tried, ``consistent`` those that satisfy every sign. ``excluded`` has the other masks with the
    multipliers (m,) that show that no sample has them.
    """

    masks: BoolArray | None
    realisable: int
    subsets: int
    consistent: int
    decided: bool
    reason: str
    excluded: tuple[tuple[BoolArray, FloatArray], ...] = ()


@dataclass(frozen=True, eq=False)
class _Table:
    """Rows of T = Y_rest inv(Y_pivots), checks first, with their tolerances."""

    pivots: IntArray
    rest: IntArray
    transfer: FloatArray
    tolerance: FloatArray


def list_masks(
    factor: Factor,
    amplitudes: FloatArray,
    *,
    budget: Budget = UNLIMITED,
) -> MaskList:
    """Return every 0/1 vector of diag(1/a) col G.

    The values in r pivot rows are enumerated in two halves, matched on one further row by sorting
    and verified on the rest, with the tolerance of row j

        (e_j / |a_j| + sum_i |T_ji| e_i / |a_i|) |a| / (s_r - e) + r eps sum_i |T_ji|

    Args:
        factor: G = U diag(s) V^T with its noise; rank at most `LARGEST_RANK`.
        amplitudes: a (m,).
        budget: a list that it cuts is not complete.

    Cost: 2^(r/2) numbers, and 2^r times the tolerance of one row candidates.
    """
    live = np.abs(amplitudes) > 1e-12 * np.abs(amplitudes).max()
    strength = np.linalg.norm(factor.columns * factor.values, axis=1)
    live &= strength > 20.0 * factor.noise * math.sqrt(factor.rank)
    r = factor.rank
    empty = np.zeros((len(live), 0), dtype=bool)
    if r > LARGEST_RANK or live.sum() <= r:
        reason = f"rank {r} above {LARGEST_RANK}" if r > LARGEST_RANK else "too few live neurons"
        return MaskList(empty, live, False, reason, math.inf, math.nan, int(live.sum()))
    if np.linalg.matrix_rank(factor.columns[live] / amplitudes[live, None]) < r:
        reason = "the rows above the noise do not reach the rank"
        return MaskList(empty, live, False, reason, math.inf, math.nan, int(live.sum()))
    table = _transfer(factor, amplitudes, np.flatnonzero(live))
    rows = len(table.rest)
    if rows == 0:
        return MaskList(empty, live, False, "no row is precise enough", math.inf, math.nan, r)
    # Copies of a neuron are one chance, not several.
    first = np.unique(np.round(table.transfer, 6), axis=0, return_index=True)[1]
    chance = 2.0**r * float(np.prod(np.minimum(1.0, 4.0 * table.tolerance[first])))
    if chance > LARGEST_CHANCE:
        reason = f"about {chance:.2g} masks by chance"
        return MaskList(empty, live, False, reason, chance, float(table.tolerance.max()), rows + r)
    found, reason = _meet(table, budget)
    masks = np.zeros((len(live), len(found)), dtype=bool)
    for column, (values, others) in enumerate(found):
        masks[table.pivots, column] = values
        masks[table.rest, column] = others
    used = np.zeros(len(live), dtype=bool)
    used[table.pivots] = used[table.rest] = True
    return MaskList(masks, used, not reason, reason, chance, float(table.tolerance.max()),
                    rows + r, table.pivots)  # fmt: skip


def _transfer(factor: Factor, amplitudes: FloatArray, live: IntArray) -> _Table:
    y = factor.columns[live] / amplitudes[live, None]
    r = factor.rank
    order = linalg.qr(y.T, pivoting=True, mode="r")[1]
    pivots, rest = order[:r], order[r:]
    transfer = np.linalg.solve(y[pivots].T, y[rest].T).T
    # Error of one row of U: the noise of that row of G, and its share of the spaces' error.
    entry = factor.noise * (math.sqrt(r) + 4.0) * 2.0
    inverse = 1.0 / np.abs(amplitudes[live])
    scale = np.linalg.norm(amplitudes[live]) / max(factor.values[-1] - factor.error, 1e-300)
    size = np.abs(transfer)
    tolerance = entry * scale * (inverse[rest] + size @ inverse[pivots])
    tolerance += r * EPSILON * size.sum(axis=1)
    usable = tolerance < USABLE_ROW
    rest, transfer, tolerance = rest[usable], transfer[usable], tolerance[usable]
    # First the rows that mix many pivots with a small tolerance: they sift best.
    spread = np.sqrt(np.sum(transfer**2, axis=1))
    key = np.where(spread > 0.8, 0.0, 1.0) + tolerance
    order = np.argsort(key)
    return _Table(live[pivots], live[rest[order]], transfer[order], tolerance[order])


def _meet(table: _Table, budget: Budget) -> tuple[list[tuple[BoolArray, BoolArray]], str]:
    r = len(table.pivots)
    half = r // 2
    lower, upper = _bits(half), _bits(r - half)
    first, tolerance = table.transfer[0], table.tolerance[0]
    left = lower @ first[:half]
    right = upper @ first[half:]
    order = np.argsort(right)
    ordered = right[order]
    found: list[tuple[BoolArray, BoolArray]] = []
    for target in (0.0, 1.0):
        low = np.searchsorted(ordered, target - left - tolerance, side="left")
        counts = np.searchsorted(ordered, target - left + tolerance, side="right") - low
        totals = np.cumsum(counts)
        start = 0
        while start < len(left):
            if budget.expired:
                return found, LATE
            before = totals[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(totals, before + _BATCH, side="right")))
            budget.tell("masks", 0.5 * (target + stop / len(left)))
            some = counts[start:stop]
            i = np.repeat(np.arange(start, stop), some)
            within = np.arange(len(i)) - np.repeat(np.cumsum(some) - some, some)
            j = order[low[i] + within]
            found += _sift(table, lower, upper, i, j, half)
            if len(found) > _LONGEST:
                return found, f"more than {_LONGEST} masks"
            start = stop
    return found, ""


def _sift(
    table: _Table, lower: FloatArray, upper: FloatArray, i: IntArray, j: IntArray, half: int
) -> list[tuple[BoolArray, BoolArray]]:
    """The pairs that are 0 or 1 within the tolerance in every row."""
    kept = []
    for row in range(1, len(table.rest)):
        if len(i) < 200:
            break
        value = lower[i] @ table.transfer[row, :half] + upper[j] @ table.transfer[row, half:]
        near = np.minimum(np.abs(value), np.abs(value - 1.0)) <= table.tolerance[row]
        i, j = i[near], j[near]
    if len(i) == 0:
        return []
    bits = np.hstack([lower[i], upper[j]])
    values = bits @ table.transfer.T
    near = np.minimum(np.abs(values), np.abs(values - 1.0)) <= table.tolerance
    for index in np.flatnonzero(near.all(axis=1) & bits.any(axis=1)):
        kept.append((bits[index] > 0.5, values[index] > 0.5))
    return kept


def _bits(count: int) -> FloatArray:
    result: FloatArray = ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1).astype(float)
    return result


def select_set(
    found: MaskList,
    factor: Factor,
    amplitudes: FloatArray,
    weight: FloatArray,
    bias: FloatArray,
    *,
    budget: Budget = UNLIMITED,
) -> Selection:
    """Find the sets of r masks that explain every sign of W h + beta.

    A mask is taken out only by non-negative multipliers y of its sign conditions, with
    sum_j y_j s_j [w_j, beta_j] [h, 1]^T = -t < 0 on the whole row space, t larger than what the
    error of the row space makes of samples of norm up to `NORM_LIMIT`; they are verified after the
    linear program. Then every r-subset with independent masks and non-zero weights is tried.

    Args:
        found: a complete list.
        factor: G, with the bias as its last column.
        weight: W (m, k).
        bias: beta (m,).
        budget: as in `list_masks`; what is not tried in time leaves nothing decided.

    Cost: one linear program a mask, one r x r solution a subset.
    """
    lifted = np.column_stack([weight, bias]) @ factor.rows
    lengths = np.sqrt(np.sum(weight**2, axis=1) + bias**2)
    live = found.live
    slack = factor.error / max(factor.values[-1] - factor.error, 1e-300)
    kept: list[BoolArray] = []
    excluded: list[tuple[BoolArray, FloatArray]] = []
    for column in range(found.masks.shape[1]):
        if budget.expired:
            return Selection(None, 0, 0, 0, False, LATE)
        budget.tell("linear programs", column / found.masks.shape[1])
        mask = found.masks[:, column]
        shown = _impossible(mask[live], lifted[live], lengths[live], factor.rows[-1], slack)
        if shown is None:
            kept.append(mask)
            continue
        multipliers = np.zeros(len(mask))
        multipliers[live] = shown
        excluded.append((mask, multipliers))
    r, count = factor.rank, len(kept)
    subsets = math.comb(count, r) if count >= r else 0
    if subsets > SUBSETS or subsets == 0:
        reason = f"{count} masks are possible, {r} samples: {subsets} sets"
        return Selection(None, count, subsets, 0, False, reason)
    masks = np.column_stack(kept)
    good = _consistent(masks, live, factor, amplitudes, (lifted, lengths, slack), budget)
    if good is None:
        return Selection(None, count, subsets, 0, False, LATE)
    if len(good) == 1:
        return Selection(masks[:, good[0]], count, subsets, 1, True, "", tuple(excluded))
    reason = f"{len(good)} of {subsets} sets of masks satisfy every sign"
    return Selection(None, count, subsets, len(good), False, reason)


def _impossible(
    mask: BoolArray, lifted: FloatArray, lengths: FloatArray, last: FloatArray, slack: float
) -> FloatArray | None:
    """Verified multipliers that show that no sample of the row space has the mask, or None."""
    signed = np.where(mask, 1.0, -1.0)[:, None] * lifted / lengths[:, None]
    r = signed.shape[1]
    solved: Any = optimize.linprog(
        np.r_[np.zeros(r), -1.0],
        A_ub=np.column_stack([-signed, np.ones(len(signed))]),
        b_ub=np.zeros(len(signed)),
        A_eq=np.r_[last, 0.0][None],
        b_eq=[1.0],
        bounds=[(None, None)] * r + [(None, 1.0)],
        method="highs",
    )
    if solved.status != 0 or solved.x[-1] >= 0.0:
        return None
    multipliers = np.maximum(-np.asarray(solved.ineqlin.marginals), 0.0)
    total = multipliers.sum()
    if not total > 0.0:
        return None
    multipliers = multipliers / total
    combination = multipliers @ signed
    level = float(combination @ last) / float(last @ last)
    rest = float(np.linalg.norm(combination - level * last))
    allowance = (rest + 4.0 * slack + len(signed) * EPSILON) * NORM_LIMIT
    return multipliers if level < 0.0 and -level > allowance else None


def _consistent(
    masks: BoolArray,
    live: BoolArray,
    factor: Factor,
    amplitudes: FloatArray,
    space: tuple[FloatArray, FloatArray, float],
    budget: Budget,
) -> list[tuple[int, ...]] | None:
    """Subsets of r independent masks whose samples have them, up to signs within the error.

    None if the time was over before all were tried.
    """
    lifted, lengths, slack = space
    r, choices = factor.rank, masks[live]
    z = np.linalg.lstsq(factor.columns[live], amplitudes[live, None] * choices, rcond=None)[0]
    gram = choices.T.astype(np.float64) @ choices
    good: list[tuple[int, ...]] = []
    subsets = itertools.combinations(range(masks.shape[1]), r)
    total, tried = math.comb(masks.shape[1], r), 0
    while batch := list(itertools.islice(subsets, _SUBSET_BATCH)):
        if budget.expired:
            return None
        budget.tell("sets of masks", tried / total)
        tried += len(batch)
        index = np.array(batch)
        # 0/1 columns: their Gram matrix is exact, so dependent ones stand out.
        spread = np.linalg.eigvalsh(gram[index[:, :, None], index[:, None, :]])
        share = spread[:, 0] / spread[:, -1]
        good += [tuple(subset) for subset in index[(share > 1e-14) & (share <= 1e-10)].tolist()]
        index = index[share > 1e-10]
        if len(index) == 0:
            continue
        chosen = z[:, index].transpose(1, 0, 2)
        coordinates = np.linalg.solve(chosen, np.broadcast_to(np.diag(factor.values), chosen.shape))
        inverse = np.linalg.norm(coordinates / factor.values, axis=(1, 2))
        moved = 10.0 * slack * inverse * np.linalg.norm(chosen, axis=(1, 2))
        scale = coordinates @ factor.rows[-1]
        # Weights of 0 are refused below; they must not overflow here.
        least = 1e-30 * np.abs(scale).max(axis=1, keepdims=True) + 1e-100
        points = coordinates / np.where(np.abs(scale) < least, least, scale)[:, :, None]
        z_values = points @ lifted[live].T
        error = moved[:, None, None] * np.linalg.norm(points, axis=2)[:, :, None] * lengths[live]
        agree = (z_values > 0.0) == choices.T[index]
        weighted = np.abs(scale).min(axis=1) > 1e-14 * np.abs(scale).max(axis=1)
        fits = (agree | (np.abs(z_values) <= error)).all(axis=(1, 2)) & weighted
        good += [tuple(subset) for subset in index[fits].tolist()]
    return good
