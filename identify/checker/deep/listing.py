"""One output and few neurons: all masks of the column space, listed again, and the choice of r.

diag(1/a) times the column space holds the masks. The values in the r stated pivot rows are
enumerated in two halves and matched on further rows; a mask is left out only by multipliers that
prove that no sample has its signs; then every set of r masks is tried.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from ..outcome import BoolArray, FloatArray, IntArray, NotCheckableError, check_possible, require
from .case import Case

LARGEST_RANK = 46
SUBSETS = 300_000
LARGEST_CHANCE = 1e-2
_USABLE = 0.25
_NORM = 1e6
_PAIRS = 1_000_000
_LONGEST = 20_000
_SUBSET_SECONDS = 1e-4
_EPSILON = 2.0**-52


@dataclass(frozen=True, eq=False)
class _Rows:
    """The neurons that are used: pivots first; T = Y_rest Y_pivots^-1 with tolerances."""

    pivots: IntArray
    rest: IntArray
    transfer: FloatArray
    tolerance: FloatArray

    @property
    def used(self) -> IntArray:
        """Pivots and the other rows."""
        return np.concatenate([self.pivots, self.rest])


def check_listing(case: Case) -> str:
    """Exactly one set of r masks of the complete list satisfies every sign: the stated one."""
    pivots = case.report.pivots
    if pivots is None:
        raise NotCheckableError("the report names no pivots")
    one = case.amplitudes.shape[1] == 1 and case.network.leak == 0.0 and case.has_bias
    require(one, "masks are listed for one slope p a sample, a ReLU and a bias")
    r = case.top.rank
    check_possible(r <= LARGEST_RANK, f"too large: rank {r}")
    check_possible(len(pivots) == r, f"{len(pivots)} pivots for rank {r}")
    rows = _transfer(case, pivots)
    found = _enumerate(case, rows)
    shown: dict[bytes, list[FloatArray]] = {}
    for entry in case.report.excluded:
        shown.setdefault(entry.mask[rows.used].tobytes(), []).append(entry.multipliers[rows.used])
    kept = [mask for mask in found if not _is_excluded(case, rows, mask, shown)]
    count = math.comb(len(kept), r) if len(kept) >= r else 0
    check_possible(0 < count <= SUBSETS, f"{len(kept)} masks are possible, {count} sets of {r}")
    good = _consistent(case, rows, np.array(kept).T, count)
    check_possible(len(good) == 1, f"{len(good)} of {count} sets of masks satisfy every sign")
    chosen = {kept[i].tobytes() for i in good[0]}
    stated = {column.tobytes() for column in np.ascontiguousarray(case.masks[rows.used].T)}
    require(chosen == stated, "the one set of masks is not the stated one")
    return f"{len(found)} masks listed, {len(kept)} possible, 1 of {count} sets"


def _transfer(case: Case, pivots: IntArray) -> _Rows:
    top, a = case.top, case.amplitudes[:, 0]
    r = top.rank
    strength = np.linalg.norm(top.left * top.values, axis=1)
    live = np.abs(a) > 1e-12 * np.abs(a).max()
    live &= strength > 20.0 * top.noise * math.sqrt(r)
    require(live[pivots].all(), "a pivot without a trace in the gradient")
    others = live.copy()
    others[pivots] = False
    rest = np.flatnonzero(others)
    y = top.left / np.where(a == 0.0, 1.0, a)[:, None]
    transfer = np.linalg.solve(y[pivots].T, y[rest].T).T
    size = np.abs(transfer)
    entry = top.noise * (math.sqrt(r) + 4.0) * 2.0
    scale = np.linalg.norm(a[live]) / max(float(top.values[-1]) - top.error, 1e-300)
    tolerance = entry * scale * (1.0 / np.abs(a[rest]) + size @ (1.0 / np.abs(a[pivots])))
    tolerance += r * _EPSILON * size.sum(axis=1)
    usable = tolerance < _USABLE
    rest, transfer, tolerance = rest[usable], transfer[usable], tolerance[usable]
    check_possible(len(rest) > 0, "no row is precise enough")
    first = np.unique(np.round(transfer, 6), axis=0, return_index=True)[1]
    chance = 2.0**r * float(np.prod(np.minimum(1.0, 4.0 * tolerance[first])))
    check_possible(chance <= LARGEST_CHANCE, f"about {chance:.2g} masks by chance")
    mixed = np.linalg.norm(transfer, axis=1) > 0.8
    order = np.argsort(np.where(mixed, tolerance, tolerance + 1.0))
    return _Rows(pivots, rest[order], transfer[order], tolerance[order])


def _enumerate(case: Case, rows: _Rows) -> list[BoolArray]:
    """Every 0/1 vector over the used rows within the tolerances, but for zeros."""
    r = len(rows.pivots)
    low, high = _bits(r // 2), _bits(r - r // 2)
    t, tolerance = rows.transfer, rows.tolerance
    left, right = low @ t[0, : r // 2], high @ t[0, r // 2 :]
    order = np.argsort(right)
    right = right[order]
    found: list[BoolArray] = []
    for target in (0.0, 1.0):
        start = np.searchsorted(right, target - left - tolerance[0], side="left")
        counts = np.searchsorted(right, target - left + tolerance[0], side="right") - start
        begin = 0
        while begin < len(left):
            case.in_time(0.0)
            sums = np.cumsum(counts[begin : begin + _PAIRS])
            end = begin + max(1, int(np.searchsorted(sums, _PAIRS, side="right")))
            some = counts[begin:end]
            i = np.repeat(np.arange(begin, end), some)
            offset = np.arange(len(i)) - np.repeat(np.cumsum(some) - some, some)
            j = order[start[i] + offset]
            found += _sift(t, tolerance, low, high, i, j)
            check_possible(len(found) <= _LONGEST, f"more than {_LONGEST} masks")
            begin = end
    return found


def _sift(
    t: FloatArray,
    tolerance: FloatArray,
    low: FloatArray,
    high: FloatArray,
    i: IntArray,
    j: IntArray,
) -> list[BoolArray]:
    """The pairs that are 0 or 1 within the tolerance in every row."""
    half = low.shape[1]
    for row in range(1, len(t)):
        if len(i) < 100:
            break
        entry = low[i] @ t[row, :half] + high[j] @ t[row, half:]
        keep = np.minimum(np.abs(entry), np.abs(entry - 1.0)) <= tolerance[row]
        i, j = i[keep], j[keep]
    if len(i) == 0:
        return []
    bits = np.hstack([low[i], high[j]])
    entries = bits @ t.T
    keep = (np.minimum(np.abs(entries), np.abs(entries - 1.0)) <= tolerance).all(axis=1)
    masks = np.hstack([bits, entries])[keep & bits.any(axis=1)] > 0.5
    return list(masks)


def _bits(count: int) -> FloatArray:
    numbers = np.arange(2**count)
    return (
        np.array([(numbers >> k) & 1 for k in range(count)], dtype=np.float64).reshape(count, -1).T
    )


def _signs(case: Case) -> tuple[FloatArray, FloatArray, float]:
    """[W, beta] in the row space, its row lengths, and the error of the row space."""
    index = case.network.top
    full = np.column_stack([case.network.weights[index], case.network.bias(index)])
    slack = case.top.error / max(float(case.top.values[-1]) - case.top.error, 1e-300)
    return full @ case.top.right, np.linalg.norm(full, axis=1), slack


def _is_excluded(
    case: Case, rows: _Rows, mask: BoolArray, shown: dict[bytes, list[FloatArray]]
) -> bool:
    """Whether the report's multipliers prove that no sample of norm up to 1e6 has the mask.

    sum_j y_j s_j [w_j, beta_j] is -t [0, 1] on the row space, up to what t outweighs.
    """
    lifted, lengths, slack = _signs(case)
    used = rows.used
    last = case.top.right[-1]
    for y in shown.get(mask.tobytes(), []):
        case.in_time(0.0)
        total = float(y.sum())
        if not (total > 0.0 and math.isfinite(total)):
            continue
        signed = np.where(mask, 1.0, -1.0) / lengths[used] * (y / total)
        sums = signed @ lifted[used]
        level = float(sums @ last) / float(last @ last)
        rest = float(np.linalg.norm(sums - level * last))
        allowance = (rest + 4.0 * slack + len(used) * _EPSILON) * _NORM
        if level < 0.0 and -level > allowance:
            return True
    return False


def _consistent(case: Case, rows: _Rows, masks: BoolArray, count: int) -> list[tuple[int, ...]]:
    """The r-subsets whose samples have these signs, within the errors; undecided ones count."""
    lifted, lengths, slack = _signs(case)
    used, top, r = rows.used, case.top, case.top.rank
    a = case.amplitudes[used, 0]
    z = np.linalg.lstsq(top.left[used], a[:, None] * masks, rcond=None)[0]
    gram = masks.T.astype(np.float64) @ masks
    case.in_time(count * (_SUBSET_SECONDS + (r**3 + r * len(used)) * 1e-8))
    good = []
    for number, subset in enumerate(itertools.combinations(range(masks.shape[1]), r)):
        if number % 1000 == 0:
            case.in_time(0.0)
        spread = np.linalg.eigvalsh(gram[np.ix_(subset, subset)])
        share = float(spread[0] / spread[-1])
        if share <= 1e-10:
            if share > 1e-14:
                good.append(subset)
            continue
        chosen = z[:, subset]
        rows_of = np.linalg.solve(chosen, np.diag(top.values))
        scale = rows_of @ top.right[-1]
        if not np.abs(scale).min() > 1e-14 * np.abs(scale).max():
            continue
        points = rows_of / scale[:, None]
        moved = 10.0 * slack * np.linalg.norm(rows_of / top.values) * np.linalg.norm(chosen)
        heights = points @ lifted[used].T
        error = moved * np.linalg.norm(points, axis=1)[:, None] * lengths[used]
        if (((heights > 0.0) == masks[:, subset].T) | (np.abs(heights) <= error)).all():
            good.append(subset)
    return good
