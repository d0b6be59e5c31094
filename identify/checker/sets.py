"""Two shown training sets: each explains the data, and they are different."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from .arithmetic.ranks import dimension
from .case import Case
from .needed import excludes_span_many, flattening_rank
from .outcome import (
    FLOAT,
    TINY,
    FloatArray,
    NotCheckableError,
    RefutedError,
    available,
    check_possible,
    finite,
    require,
)
from .pencil import decomposes
from .reading.report import ShownSet

DIFFERENT = 0.1
MOST_SAMPLES = 4000
_SMALLEST = 1e-6
_VISIBLE = 1e-9
_ROUNDING = 100.0 * 2.0**-53


def check_sets(case: Case) -> tuple[str, str]:
    """Both sets are stationary on the network, obey the assumptions, and differ."""
    sets, scope = case.certificate.sets, case.report.scope
    if sets is None:
        raise NotCheckableError("the certificate shows no sets")
    counts = tuple(len(shown.samples) for shown in sets)
    require(
        scope is not None and scope == ("shown", counts),
        f"the sets have {counts[0]} and {counts[1]} samples, the scope says otherwise",
    )
    level = max(1e-10, 2.0 * case.noise)
    check_possible(max(counts) <= MOST_SAMPLES, f"{max(counts)} samples are too many to compare")
    for number, shown in enumerate(sets):
        _check_one(case, shown, number, level)
    require(
        not same(case, sets[0].samples, sets[1].samples),
        f"every sample of one set is within {DIFFERENT} of one of the other",
    )
    _check_counts(case, counts, sets[0])
    worst = max(shown.residual for shown in sets)
    surely = max(1e-10, 2.0 * case.kept("shown noise", case.noise))
    check_possible(worst <= surely, "the sets fit to a noise that an earlier round may have shown")
    return FLOAT, f"{counts[0]} and {counts[1]} samples, residual at most {worst:.1e}, different"


def residual_of(case: Case, samples: FloatArray, coefficients: FloatArray) -> float:
    """|goal - sum_i b_i grad f(x_i)| / |goal| over both layers of the network."""
    data = case.data
    lifted = data.lift(samples)
    inner = data.points @ lifted.T
    hidden = (data.scales[:, None] * inner ** (data.degree - 1) * coefficients) @ lifted
    output = inner**data.degree @ coefficients
    miss = np.hypot(np.linalg.norm(data.rows - hidden), np.linalg.norm(data.output_rows - output))
    whole = np.hypot(np.linalg.norm(data.rows), np.linalg.norm(data.output_rows))
    return float(miss / whole)


def _cancelled(case: Case, samples: FloatArray, coefficients: FloatArray) -> float:
    """sum_i |b_i grad f(x_i)| / |goal|: how much larger the parts are than what they add up to."""
    data = case.data
    lifted = data.lift(samples)
    inner = data.points @ lifted.T
    hidden = np.linalg.norm(data.scales[:, None] * inner ** (data.degree - 1), axis=0)
    parts = np.hypot(
        hidden * np.linalg.norm(lifted, axis=1), np.linalg.norm(inner**data.degree, axis=0)
    )
    whole = np.hypot(np.linalg.norm(data.rows), np.linalg.norm(data.output_rows))
    return float(np.abs(coefficients) @ parts / whole)


def _check_one(case: Case, shown: ShownSet, number: int, level: float) -> None:
    data, assumed = case.data, case.certificate.assumed
    x, b = shown.samples, shown.coefficients
    name = f"set {number + 1}"
    require(
        x.shape[1] == data.samples_dimension,
        f"{name}: samples of {x.shape[1]} numbers for {data.samples_dimension} inputs",
    )
    lengths = np.linalg.norm(data.lift(x), axis=1)
    require(bool(np.all(lengths > 0.0) and np.all(b != 0.0)), f"{name}: a sample vanishes")
    own = residual_of(case, x, b)
    check_possible(
        bool(np.isfinite(lengths).all() and np.isfinite(own)),
        f"{name}: numbers leave the range of float64",
    )
    require(own <= level, f"{name}: the residual is {own:.2e}, above {level:.1e}")
    floor = max(TINY, _ROUNDING * _cancelled(case, x, b))
    require(
        case.matches(f"certificate.sets.{number}.residual", shown.residual, own, 0.1, floor),
        f"{name}: the residual is {own:.2e}, not {shown.residual:.2e}",
    )
    _check_visible(case, x, b, name)
    outputs = data.outputs(x)
    if data.source == "kkt":
        require(bool(np.all(b * outputs > 0.0)), f"{name}: b_i f(x_i) is not positive")
    if assumed.non_negative:
        require(float(x.min()) >= -1e-9 * float(np.abs(x).max()), f"{name}: an entry is negative")
    if assumed.scale == "unit":
        away = float(np.abs(np.linalg.norm(x, axis=1) - 1.0).max())
        require(away <= 1e-9, f"{name}: a sample has no norm 1")
    if assumed.scale == "margin":
        require(float(np.ptp(np.log(np.abs(outputs)))) <= 1e-6, f"{name}: the |f(x_i)| differ")
    values = None
    if assumed.scale in ("unit", "bias") and len(x) > 1:
        if data.source == "kkt":
            values = np.log(np.abs(outputs))
        elif data.source in ("gradient", "weight-decay") and assumed.loss in (
            "logistic",
            "cross-entropy",
        ):
            labels = np.sign(b) * (-1.0 if data.source == "gradient" else 1.0)
            margins = labels * (outputs + data.offset)
            values = np.log(np.abs(b)) + np.logaddexp(0.0, margins)
    if values is not None:
        require(bool(np.ptp(values) <= 1.01 * max(1e-6, level)), f"{name}: the tie does not hold")


def _check_visible(case: Case, x: FloatArray, b: FloatArray, name: str) -> None:
    """No sample is negligible, and no two are parallel and so count as one."""
    lifted = case.data.lift(x)
    lengths = np.linalg.norm(lifted, axis=1)
    sizes = np.log(np.abs(b)) + case.degree * np.log(lengths)
    heights = np.exp(sizes - sizes.max())
    require(float(heights.min()) >= 0.5 * _SMALLEST, f"{name}: a sample is negligible")
    if len(x) < 2:
        return
    units = lifted / lengths[:, None]
    cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
    require(bool(np.all(1.0 - np.abs(cosines) > _VISIBLE)), f"{name}: two samples are parallel")


def near_pairs(case: Case, first: FloatArray, second: FloatArray) -> list[list[int]]:
    """For each sample of one set those of the other within the limit, relative to their norm.

    Up to sign and scale without a bias.
    """
    if not case.data.biased:
        first = first / np.linalg.norm(first, axis=1, keepdims=True)
        second = second / np.linalg.norm(second, axis=1, keepdims=True)
    norms = [np.linalg.norm(x, axis=1) for x in (first, second)]
    pairs: list[list[int]] = []
    step = max(1, 4_000_000 // max(1, second.size))
    for start in range(0, len(first), step):
        case.in_time()
        part = first[start : start + step, None]
        gaps = np.linalg.norm(part - second, axis=2)
        if case.data.biased:
            sizes = np.maximum(norms[0][start : start + step, None], norms[1])
            gaps = gaps / np.where(sizes > 0.0, sizes, 1.0)
        else:
            gaps = np.minimum(gaps, np.linalg.norm(part + second, axis=2))
        pairs += [np.flatnonzero(line < DIFFERENT).tolist() for line in finite(gaps)]
    return pairs


def matched(case: Case, pairs: Sequence[Sequence[int]]) -> bool:
    """Whether every row finds a partner of its own, by augmenting paths without recursion."""
    partner: dict[int, int] = {}
    for row in range(len(pairs)):
        if row % 64 == 0:
            case.in_time()
        # Breadth first: `came` holds for each column the row that reached it.
        came: dict[int, int] = {}
        queue, end = deque([row]), -1
        while queue and end < 0:
            i = queue.popleft()
            for j in pairs[i]:
                if j not in came:
                    came[j] = i
                    if j not in partner:
                        end = j
                        break
                    queue.append(partner[j])
        if end < 0:
            return False
        taken = {i: j for j, i in partner.items()}
        while end >= 0:
            i = came[end]
            partner[end] = i
            end = taken.get(i, -1) if i != row else -1
    return True


def same(case: Case, first: FloatArray, second: FloatArray) -> bool:
    """Whether a matching brings all samples within the limit; sets of two sizes have none."""
    return len(first) == len(second) and matched(case, near_pairs(case, first, second))


def _check_counts(case: Case, counts: tuple[int, ...], shown: ShownSet) -> None:
    """The sizes are those that the verdict needs, so that no set was only split into more."""
    given, r = case.certificate.assumed.samples, case.report.span
    if given is not None:
        require(counts == (given, given), f"{given} samples are assumed")
        return
    if r is None or case.certificate.basis is None:
        raise NotCheckableError("the certificate does not say how many dimensions are spanned")
    require(min(counts) >= r, f"a set has fewer than {r} samples")
    if counts == (r, r):
        return
    if min(counts) == r:
        require(max(counts) == r + 1, f"{counts[0]} and {counts[1]} samples are no neighbours")
        require(
            case.report.redundant is not None and case.report.redundant < 1,
            f"{r} samples leave redundant equations, so that one more proves nothing",
        )
        return
    require(counts[0] == counts[1], f"{counts[0]} and {counts[1]} samples are not comparable")
    # Any set can be split into more; that proves something only where fewer are too few, or where
    # a set of fewer has larger ones beside it.
    if case.report.rank == dimension(case.degree, r):
        if decomposes(case, shown):
            raise RefutedError(f"a set of {r} samples explains the data too")
        needed = max(r + 1, flattening_rank(case, shown))
    elif _number_open(case, r):
        needed = r
    else:
        needed = r + 1 if excludes_span_many(case) else r
    check_possible(
        (counts[0] == needed > r) or _number_open(case, needed),
        f"a set of {needed} samples or more, but fewer than {counts[0]}, may be the only one",
    )


def _number_open(case: Case, needed: int) -> bool:
    """Whether the equations leave a set of so many samples larger ones, or a continuum.

    Known signs of all entries may cut a continuum down to one point.
    """
    rank = available(case.report.rank, "the report states no rank")
    tied = available(case.report.redundant, "the report does not count redundant equations")
    ties = needed - 1 if tied > rank - case.r**2 else 0
    left = rank + ties - needed * case.r
    return left == 0 or (left < 0 and not case.certificate.assumed.non_negative)
