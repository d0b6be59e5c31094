"""The linear equations for the moment tensor: their rank at the noise level and their residual."""

from __future__ import annotations

import numpy as np

from .arithmetic.least_squares import least_by_squares, smallest_share
from .arithmetic.ranks import dimension, hermite, monomials, require_size, root_weights
from .arithmetic.timed import triangle
from .case import NOISE_FLOOR, Case
from .leftover import leftover
from .outcome import (
    FloatArray,
    NotCheckableError,
    available,
    check_possible,
    finite,
    require,
)

NOISE_LIMIT = 0.03
DENSE_COLUMNS = 700
_SOLVED_COLUMNS = 5500


def softened(case: Case) -> tuple[FloatArray, float]:
    """Row weights of the rank decision, and the noise that they leave, relative to the rows.

    A row counts fully where its own noise rho / w_j is below sqrt(rho) and fades beyond.
    """
    merged = case.merged
    soft = float(np.clip(np.sqrt(case.noise), 1e-7, 1.0))
    hard = np.concatenate([np.repeat(merged.weights, case.r), merged.value_weights])
    weights = hard / np.hypot(hard, soft)
    aims = np.concatenate([merged.targets.ravel(), merged.value_targets])
    neurons = np.concatenate([merged.weights, merged.value_weights])
    ratio = 1.0 / np.hypot(neurons, soft)
    spread = case.noise * merged.size * float(np.sqrt(np.mean(ratio**2)))
    size = float(np.linalg.norm(weights * aims))
    return weights, spread / size if size > 0.0 else 1.0


def equations(case: Case) -> FloatArray:
    """H of the merged points, and the rows of neurons that give only values."""
    return case.keep("equations", lambda: _equations(case))


def _equations(case: Case) -> FloatArray:
    merged = case.merged
    require_size(len(merged.points) + len(merged.value_points), case.r, case.degree)
    matrix = hermite(merged.points, case.degree)
    if len(merged.value_points):
        root = root_weights(case.degree, case.r)
        matrix = np.vstack([matrix, monomials(merged.value_points, case.degree) * root])
    return matrix


def check_conditioning(case: Case) -> str:
    """The rank of H stands out of the noise, and is the one that the report states."""
    unknowns = dimension(case.degree, case.r)
    stated = case.report.rank
    if stated is None:
        raise NotCheckableError("the report states no rank")
    if case.merged.equations < unknowns:
        require(stated != unknowns, "fewer equations than unknowns have no full rank")
    check_possible(unknowns <= _SOLVED_COLUMNS, f"{unknowns} unknowns are too many")
    weights, noise = softened(case)
    limit = max(10.0 * noise, 1e-12)
    case.in_time()
    matrix = equations(case) * weights[:, None]
    if min(matrix.shape) <= DENSE_COLUMNS:
        if len(matrix) > unknowns:
            matrix = triangle(matrix, case.in_time)
        sigma = np.linalg.svd(finite(matrix), compute_uv=False)
        sigma = sigma / sigma[0]
        low, high = (int(np.count_nonzero(sigma > limit * f)) for f in (1.1, 0.9))
        require(low <= stated <= high, f"rank {low} at the noise level, not {stated}")
        check_possible(low == high, "the rank is not clear at the noise level")
        return f"rank {low}, smallest singular value {sigma[low - 1]:.1e} of the largest"
    require(stated == unknowns, f"rank {stated} of {unknowns}")
    smallest = smallest_share(finite(matrix))
    require(smallest > 0.9 * limit, f"the smallest singular value is {smallest:.1e}")
    check_possible(smallest > 1.1 * limit, "the rank is not clear at the noise level")
    return f"rank {unknowns}, smallest singular value {smallest:.1e} of the largest"


def check_noise(case: Case) -> str:
    """The noise level is the largest of what shows the noise: neither lower nor higher."""
    stated = case.noise
    base = max(
        case.data.consistency,
        case.data.rounding,
        case.certificate.assumed.noise or 0.0,
        NOISE_FLOOR,
    )
    require(stated >= 0.99 * base, f"it is at least {base:.2e}, not {stated:.2e}")
    require(stated <= NOISE_LIMIT, f"{stated:.2e} is above {NOISE_LIMIT}")
    shown = max(base, case.report.residuals["linear"][0] or 0.0, case.merged.lost)
    own = max(base, linear_residual(case), case.merged.lost)
    least = max(shown, own)
    require(stated >= 0.97 * least, f"it is at least {least:.2e}, not {stated:.2e}")
    if stated <= 1.01 * base:
        return f"{stated:.1e}, by consistency, rounding and what was assumed"
    # What is above must be shown by the equations, or by the rows that they leave out: those of
    # small neurons count until the noise that they show hides them.
    if case.certificate.terms is not None:
        left = leftover(case)
        unexplained = 0.0 if left is None else left.residual
        shown, own = max(shown, unexplained), max(own, unexplained)
    # The level is found in rounds, so that the last one may show less than an earlier one did.
    # No uniqueness may rest on that.
    most = 3.0 * own
    if case.report.verdict == "globally" or own <= 1.01 * base:
        most = min(most, 1.03 * shown)
    check_possible(
        stated <= most,
        f"the data show no noise above {most:.2e}, the report says {stated:.2e}",
    )
    if stated > 1.03 * shown:
        case.keep("shown noise", lambda: shown)
        case.not_checked["noise_level"] = None
    return f"{stated:.1e}, by the residual of the linear equations"


def linear_residual(case: Case) -> float:
    """Least weighted residual of the linear equations over all tensors, relative."""
    return case.keep("least", lambda: _least(case))


def hard(case: Case) -> tuple[FloatArray, FloatArray]:
    """The equations, each in its own weight, and their right-hand side."""
    merged = case.merged
    weights = np.concatenate([np.repeat(merged.weights, case.r), merged.value_weights])
    aims = np.concatenate([merged.targets.ravel(), merged.value_targets])
    return finite(equations(case) * weights[:, None]), finite(aims * weights)


def _least(case: Case) -> float:
    unknowns = dimension(case.degree, case.r)
    check_possible(unknowns <= _SOLVED_COLUMNS, f"{unknowns} unknowns are too many to solve for")
    case.in_time()
    matrix, aims = hard(case)
    size = case.merged.size
    if case.report.rank != unknowns or len(matrix) < unknowns:
        rest = aims - matrix @ np.linalg.lstsq(matrix, aims, rcond=1e-13)[0]
        return float(np.linalg.norm(rest)) / size
    if unknowns > DENSE_COLUMNS:
        found = least_by_squares(matrix, aims)
        if found is not None:
            return found / size
    # The last entry of the triangle of [matrix, aims] is the residual.
    upper = triangle(np.column_stack([matrix, aims]), case.in_time)
    return float(abs(upper[-1, -1])) / size if len(upper) > unknowns else 0.0


def check_residuals(case: Case) -> str:
    """Residuals and the numbers of equations that could have failed."""
    report, merged, r = case.report, case.merged, case.r
    width, ambient = case.data.points.shape
    rank = available(report.rank, "the report states no rank")
    counts = {
        "balance": 0 if case.data.filled else width,
        "off_span": width * (ambient - r),
        "linear": max(0, merged.equations - rank),
        "samples": max(0, merged.equations - r * r),
    }
    if report.residuals["samples"][0] is None:
        counts["samples"] = 0
    for name, count in counts.items():
        stated = report.residuals[name][1]
        require(stated == count, f"{name}: {count} equations could have failed, not {stated}")
    value, spare = report.residuals["linear"]
    if value is not None:
        require(spare > 0, "there is a linear residual without spare equations")
        least = linear_residual(case)
        name = "residuals.linear.value"
        if not case.matches(name, value, least, 0.1, case.blur):
            # An iterative solution need not be the least one.
            require(least < value <= 3.0 * least, f"linear: {least:.2e}, not {value:.2e}")
            case.not_checked[name] = None
    else:
        require(spare == 0, "there is no linear residual")
    stated_samples = report.residuals["samples"][0]
    if stated_samples is not None and case.certificate.terms is None:
        require(stated_samples > 10.0 * case.noise, "there are no terms that fit")
    elif stated_samples is not None:
        require(
            case.matches("residuals.samples.value", stated_samples, case.fit, 0.1, case.blur),
            f"samples: {case.fit:.2e}, not {stated_samples:.2e}",
        )
    return "values and numbers of equations agree"
