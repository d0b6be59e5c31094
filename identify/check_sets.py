"""Two shown training sets: each explains the data, and they are different."""

from __future__ import annotations

import numpy as np

from identify.check_algebra import dimension
from identify.check_base import (
    FLOAT,
    TINY,
    FloatArray,
    NotCheckableError,
    RefutedError,
    agrees,
    finite,
    require,
)
from identify.check_data import Case
from identify.check_read import ShownSet

DIFFERENT = 0.1
_SMALLEST = 1e-6
_VISIBLE = 1e-9


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
    for number, shown in enumerate(sets, 1):
        _check_one(case, shown, number, level)
    gap = difference(case, sets[0].samples, sets[1].samples)
    require(gap >= DIFFERENT, f"every sample of one set is within {DIFFERENT} of one of the other")
    _check_counts(case, counts, sets[0])
    worst = max(shown.residual for shown in sets)
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


def _check_one(case: Case, shown: ShownSet, number: int, level: float) -> None:
    data, assumed = case.data, case.certificate.assumed
    x, b = shown.samples, shown.coefficients
    name = f"set {number}"
    require(
        x.shape[1] == data.samples_dimension,
        f"{name}: samples of {x.shape[1]} numbers for {data.samples_dimension} inputs",
    )
    lengths = np.linalg.norm(data.lift(x), axis=1)
    require(bool(np.all(lengths > 0.0) and np.all(b != 0.0)), f"{name}: a sample vanishes")
    own = residual_of(case, x, b)
    require(own <= level, f"{name}: the residual is {own:.2e}, above {level:.1e}")
    require(
        agrees(shown.residual, own, 0.5, TINY),
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


def gaps_between(case: Case, first: FloatArray, second: FloatArray) -> FloatArray:
    """Distances of samples relative to their norm, up to sign and scale without a bias."""
    if case.data.biased:
        norms = [np.linalg.norm(x, axis=1) for x in (first, second)]
        sizes = np.maximum(norms[0][:, None], norms[1])
        gaps = np.linalg.norm(first[:, None] - second, axis=2)
        return np.asarray(gaps / np.where(sizes > 0.0, sizes, 1.0))
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    second = second / np.linalg.norm(second, axis=1, keepdims=True)
    gaps = np.linalg.norm(first[:, None] - second, axis=2)
    return np.asarray(np.minimum(gaps, np.linalg.norm(first[:, None] + second, axis=2)))


def difference(case: Case, first: FloatArray, second: FloatArray) -> float:
    """Infinite if no matching brings all samples within the limit, else 0.

    Sets of different sizes have no matching. Two sets are the same if and only if the graph of
    pairs within the limit has a perfect matching (found by augmenting paths).
    """
    if len(first) != len(second):
        return float("inf")
    near = gaps_between(case, first, second) < DIFFERENT
    partner: dict[int, int] = {}

    def assign(i: int, tried: set[int]) -> bool:
        for j in np.flatnonzero(near[i]).tolist():
            if j not in tried:
                tried.add(j)
                if j not in partner or assign(partner[j], tried):
                    partner[j] = i
                    return True
        return False

    return 0.0 if all(assign(i, set()) for i in range(len(first))) else float("inf")


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
    # Any set can be split into more; that proves something only where r are too few.
    if case.report.rank == dimension(case.degree, r) and _decomposes(case, shown):
        raise RefutedError(f"a set of {r} samples explains the data too")


def _decomposes(case: Case, shown: ShownSet) -> bool:
    """Whether the tensor of a set is a sum of r terms on V, by a pencil of two contractions."""
    lifted = case.data.lift(shown.samples) @ case.basis
    norms = np.linalg.norm(lifted, axis=1)
    weights = shown.coefficients * (norms / norms.max()) ** case.degree
    units = lifted / norms[:, None]
    rng = np.random.default_rng(0)
    v = rng.standard_normal((2, case.r))
    first, second = (
        (units.T * (weights * (units @ direction) ** (case.degree - 2))) @ units for direction in v
    )
    try:
        values, vectors = np.linalg.eig(finite(np.linalg.solve(second.T, first.T).T))
    except np.linalg.LinAlgError:
        return False
    if np.abs(vectors.imag).max() > 1e-6 or np.abs(values.imag).max() > 1e-6 * np.abs(values).max():
        return False
    axes = vectors.real / np.linalg.norm(vectors.real, axis=0)
    # <T, y^alpha> for many y: do r powers of the axes reproduce it?
    probes = rng.standard_normal((8 * case.r + 40, case.r))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    wanted = (probes @ units.T) ** case.degree @ weights
    basis = (probes @ axes) ** case.degree
    rest = wanted - basis @ np.linalg.lstsq(finite(basis), wanted, rcond=None)[0]
    accept = max(100.0 * case.noise, 1e-8)
    return float(np.linalg.norm(rest)) <= accept * float(np.linalg.norm(wanted))
