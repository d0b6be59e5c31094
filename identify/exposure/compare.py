"""Recovered samples against a known truth; no solver reads this module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize

from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError
from identify.records import Recovery
from identify.thresholds import DIFFERENT

IntArray = npt.NDArray[np.intp]

SCALES = ("free", "unit", "margin", "bias")


@dataclass(frozen=True, eq=False)
class Matching:
    """For each true sample i its recovered partner, x^_{indices[i]} = factors[i] x_i + error.

    `indices` (n,), -1 where there is none; `errors` (n,) relative, inf where there is none;
    `signs` (n,) of the factors, 0 where there is none; `factors` (n,), 0 likewise.
    """

    indices: IntArray
    errors: FloatArray
    signs: FloatArray
    factors: FloatArray


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well a recovery meets the truth.

    `max_error` and `median_error` over the true samples, inf where samples have no partner;
    `recovered` counts errors below 0.1 and `within_bounds` those that the printed bound covers;
    `coefficient_error` is max |b^ - b| / |b| over the recovered ones, None if b was not given.
    """

    matching: Matching
    max_error: float
    median_error: float
    recovered: int
    within_bounds: int
    coefficient_error: float | None


def match_samples(
    recovered: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    up_to_sign: bool,
    up_to_scale: bool,
) -> Matching:
    """Match recovered samples (k, d) one to one with true samples (n, d) and measure the errors.

    The error of a pair is |x^ - c x| / |c x|, with c = 1, the better of +-1 (`up_to_sign`),
    |x^|/|x| (`up_to_scale`), or both. The matching has the least sum of e/(1 + e), so that one
    hopeless pair does not bend the others. k and n may differ, and be 0. A true sample 0 has no
    direction: its error is inf up to scale, else relative to the largest norm in `truth`.

    Raises:
        InvalidInputError: not two-dimensional, not finite, or of different d.

    Cost: O(k n d + (k + n)^3) and O(k d + k n) numbers.
    Source: the linear assignment problem (Kuhn 1955) by `scipy.optimize.linear_sum_assignment`.

    Example:
        >>> found = match_samples([[0, -1.0], [1, 0]], [[5.0, 0], [3, 3], [0, 2]],
        ...                       up_to_sign=True, up_to_scale=True)
        >>> found.indices, found.errors, found.factors
        (array([ 1, -1,  0]), array([ 0., inf,  0.]), array([ 0.2,  0. , -0.5]))
    """
    guesses, true = _rows("recovered", recovered), _rows("truth", truth)
    if guesses.shape[1] != true.shape[1]:
        raise InvalidInputError("recovered", f"shape (k, {true.shape[1]})", guesses.shape)
    factors = np.zeros((len(true), len(guesses)))
    errors = np.full(factors.shape, np.inf)
    sizes, lengths = np.linalg.norm(true, axis=1), np.linalg.norm(guesses, axis=1)
    largest = float(sizes.max(initial=0.0)) or 1.0
    for i, sample in enumerate(true):
        signs = np.where(guesses @ sample < 0.0, -1.0, 1.0) if up_to_sign else 1.0
        if not up_to_scale:
            factors[i] = signs
            gaps = np.linalg.norm(guesses - factors[i][:, None] * sample, axis=1)
            errors[i] = gaps / (sizes[i] or largest)
        elif sizes[i] > 0.0:
            live = lengths > 0.0
            factors[i] = signs * lengths / sizes[i]
            units = guesses[live] / lengths[live, None]
            flips = np.sign(factors[i][live])[:, None]
            errors[i, live] = np.linalg.norm(units - flips * (sample / sizes[i]), axis=1)
    with np.errstate(invalid="ignore"):
        costs = np.where(np.isfinite(errors), errors / (1.0 + errors), 1.0)
    rows, columns = scipy.optimize.linear_sum_assignment(costs)
    paired = np.isfinite(errors[rows, columns])
    rows, columns = rows[paired], columns[paired]
    indices = np.full(len(true), -1, dtype=np.intp)
    indices[rows] = columns
    best, chosen = np.full(len(true), np.inf), np.zeros(len(true))
    best[rows], chosen[rows] = errors[rows, columns], factors[rows, columns]
    return Matching(indices, best, np.sign(chosen), chosen)


def compare_recovery(
    recovery: Recovery,
    truth: npt.ArrayLike,
    degree: int,
    scale: str = "free",
    *,
    coefficients: npt.ArrayLike | None = None,
    non_negative: bool = False,
) -> Comparison:
    """Compare a recovery with the true samples (n, d) under the conventions of its report.

    `scale` is "free" (directions count), "unit" or "bias" (lengths count too), or "margin" (up to
    one factor common to all samples). The sign is free unless "bias" or `non_negative`. A bound
    covers an error if it is not NaN and at least the error; under "bias" both are absolute, and a
    sample counts as recovered if its error is below 0.1 of |(x, 1)|.

    Args:
        recovery: of a report.
        truth: the samples that made the data, parallel ones merged, inactive ones left out.
        degree: alpha, with which (x, b) and (c x, c^-alpha b) are the same.
        scale: the convention in force.
        coefficients: the true b_i (n,), compared as well if given.
        non_negative: whether the signs of the recovery were chosen for non-negative samples.

    Raises:
        InvalidInputError: an unknown scale or arrays that do not fit.

    Cost: that of `match_samples`.

    Example:
        >>> recovery = Recovery(np.eye(2), np.array([3.0, 1.0]), np.full(2, 1e-12), {})
        >>> table = compare_recovery(recovery, [[0, -1.0], [2.0, 0]], 3, coefficients=[-1.0, 0.375])
        >>> table.max_error, table.recovered, table.within_bounds, table.coefficient_error
        (0.0, 2, 2, 0.0)
    """
    if scale not in SCALES:
        raise InvalidInputError("scale", f"one of {', '.join(SCALES)}", scale)
    true = _rows("truth", truth)
    if len(true) == 0:
        raise InvalidInputError("truth", "at least 1 sample", "none")
    up_to_sign = scale != "bias" and not non_negative
    common = _common_factor(recovery.samples, true, up_to_sign) if scale == "margin" else 1.0
    found = match_samples(
        recovery.samples, common * true, up_to_sign=up_to_sign, up_to_scale=scale == "free"
    )
    matched = found.indices >= 0
    bounds = np.full(len(true), np.nan)
    bounds[matched] = recovery.error_bounds[found.indices[matched]]
    near = found.errors < DIFFERENT
    covered = found.errors <= bounds
    if scale == "bias":
        # Lengths are visible, and a sample near 0 is known beside the 1 of the bias.
        bounds[matched] = recovery.absolute_bounds[found.indices[matched]]
        norms = np.linalg.norm(true, axis=1)
        gaps = found.errors * np.where(norms > 0.0, norms, float(norms.max()) or 1.0)
        covered, near = gaps <= bounds, gaps < DIFFERENT * np.hypot(norms, 1.0)
    coefficient_error = None
    if coefficients is not None:
        b = real_array("coefficients", coefficients)
        if b.shape != (len(true),) or not np.all(b):
            raise InvalidInputError("coefficients", f"{len(true)} non-zero numbers", b.shape)
        seen = recovery.coefficients[found.indices[near]]
        share = seen * (found.factors[near] * common) ** degree / b[near]
        coefficient_error = float(np.abs(share - 1.0).max(initial=0.0))
    return Comparison(
        matching=found,
        max_error=float(found.errors.max()),
        median_error=float(np.median(found.errors)),
        recovered=int(np.count_nonzero(near)),
        within_bounds=int(np.count_nonzero(near & covered)),
        coefficient_error=coefficient_error,
    )


def _common_factor(recovered: FloatArray, true: FloatArray, up_to_sign: bool) -> float:
    """The median of |x^|/|x| over samples whose direction was recovered, 1 if there is none."""
    found = match_samples(recovered, true, up_to_sign=up_to_sign, up_to_scale=True)
    near = found.errors < DIFFERENT
    return float(np.median(np.abs(found.factors[near]))) if np.any(near) else 1.0


def _rows(name: str, value: npt.ArrayLike) -> FloatArray:
    array = real_array(name, value)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InvalidInputError(name, "shape (count, d), d >= 1", array.shape)
    return array
