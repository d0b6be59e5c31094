"""Proved boxes around the terms of the moment tensor, for all data within a radius."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Literal

import flint
import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.errors import BudgetExceededError, InvalidInputError
from identify.proofs.balls import (
    LOWEST,
    BallEquations,
    IntArray,
    column,
    contraction,
    exact,
    krawczyk_image,
    middles,
    pick,
    preconditioner,
    relative_radii,
    require,
    spread,
    uppers,
    widths,
)
from identify.proofs.timed import Tick, independent_rows, product, untimed

PRECISIONS = (LOWEST, 106, 212, 424, 848)
FAR = 0.1
_INFLATION = 1.1
_ROUNDS = 8
_STEPS = 8
# The image must lie inside the box with room for another inverse than ours in a later check.
_ROOM = 1.0 + 2.0**-10
_FLOOR = 2.0**-1000
# Share of an error below which it is not what stands in the way.
_SMALL = 0.1
_LATE = "the time limit was reached"

Limit = Literal["none", "data", "precision", "singular", "start"]


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Box centres +- radii around the terms, and what is proved about it.

    `outcome` is 'proved': for every choice of data within the radius exactly one solution of the
    pivot equations lies in the box, and the range of every other equation over it contains 0;
    'contradicted': the first half holds and some other equation has no zero in the box, so that
    the data have no common solution there; 'undecided' otherwise, with infinite `radii` if the
    first half is not proved.

    `precision` in bits, `radius` = rho, `pivots` (r r,) rows j r + axis, `centres`, `radii` (r, r)
    exact float64, `relative` (r,) at least |radii_i|/(|centres_i| - |radii_i|), `conditions` (r,)
    relative movement of each term per relative movement of all data, `attempts` boxes tried.
    """

    outcome: Literal["proved", "undecided", "contradicted"]
    reason: str
    precision: int
    radius: float
    pivots: IntArray
    centres: FloatArray
    radii: FloatArray
    relative: FloatArray
    conditions: FloatArray
    attempts: int
    seconds: float


@dataclass
class _Watch:
    budget: Budget
    attempts: int = 0
    begun: float = field(default_factory=time.monotonic)

    def step(self, stage: str, share: float) -> None:
        self.budget.step(stage, share)

    def tick(self, seconds: float) -> None:
        """Raise if the time is up, or will be after so many further seconds."""
        self.budget.check("enclosing the samples", seconds)


@dataclass(frozen=True, eq=False)
class _Attempt:
    """One rung: the box it ended with, and what stood in the way."""

    limit: Limit
    precision: int
    centres: FloatArray
    radii: FloatArray
    inverse: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    pivots: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def _stopped(limit: Limit, precision: int, centres: FloatArray) -> _Attempt:
    """A rung that ended without a box."""
    return _Attempt(limit, precision, centres, np.full(centres.shape, np.inf))


def enclose_terms(
    points: IntArray,
    shift: int,
    rhs: FloatArray,
    weights: FloatArray,
    degree: int,
    terms: FloatArray,
    signs: FloatArray,
    rho: float,
    *,
    max_precision: int = PRECISIONS[-1],
    budget: Budget = UNLIMITED,
) -> Enclosure:
    """Enclose the terms z_i of w_j sum_i s_i (p_j . z_i)^(alpha-1) z_i = rhs_j for all data near.

    r r pivot equations F are chosen by pivoted QR. With C close to the inverse of F', X a box with
    centre x and K(X) = x - C F(x) + (I - C F'(X)) (X - x) inside the interior of X for balls of
    data, each choice of data has exactly one solution in X. Any other equation g then has the value
    g(x) - G F(x) + (g'(X) - G F'(X)) (z - x) at the solution z, for every matrix G; G = g' C keeps
    the common error out of it. Precision rises while rounding, not the data, is in the way.

    Args:
        points: integers P_j, int64 (k, r); p_j is known to 2^-shift around P_j / 2^shift per entry.
        shift: from 1 to 62.
        rhs: right-hand sides (k, r), each entry known to rho |rhs|_F.
        weights: w_j > 0, shape (k,), taken as exact.
        degree: alpha, at least 3.
        terms: approximate z_i, shape (r, r).
        signs: s_i = +-1, shape (r,).
        rho: radius of the data relative to |rhs|_F.
        max_precision: highest precision in bits, at least 53.
        budget: after which the outcome is 'undecided'.

    Raises:
        InvalidInputError: shapes, dtypes or values that break the contract, k < r among them.

    Cost: a few products of r^2 x r^2 ball matrices, and one for every r^2 further equations.
    Source: Moore, A test for existence of solutions to nonlinear systems (1977),
    doi:10.1137/0714040; uniqueness by strict inclusion: Rump, Verification methods (2010),
    section 13, doi:10.1017/S096249291000005X.

    Example:
        >>> import numpy as np
        >>> p = np.array([[3, 4], [4, -3], [5, 0]]) / 5
        >>> z = np.array([[1.0, 0.5], [-0.2, 1.0]])
        >>> rhs = (p @ z.T) ** 2 @ z
        >>> P = np.rint(p * 2**44).astype(np.int64)
        >>> box = enclose_terms(P, 44, rhs, np.ones(3), 3, z, np.ones(2), 1e-10)
        >>> box.outcome, box.precision, bool(np.all(box.relative < 1e-8))
        ('proved', 53, True)
    """
    watch = _Watch(budget)
    equations = BallEquations(points, shift, rhs, weights, degree, signs, rho)
    r = equations.dimension
    if max_precision < LOWEST:
        raise InvalidInputError("max_precision", f"at least {LOWEST}", max_precision)
    given: FloatArray = np.array(terms, dtype=np.float64)
    require("terms", given, (r, r), "no row of zeros", lambda z: bool(np.all(np.any(z, axis=1))))
    with np.errstate(all="ignore"):
        attempt, outcome, reason = _climb(equations, given, max_precision, watch)
        centres = attempt.centres
        radii = attempt.radii
        relative = relative_radii(centres, radii)
        if outcome == "proved" and not np.all(np.isfinite(relative)):
            outcome, reason = "undecided", "the box is proved, but as wide as one of the terms"
        conditions = np.full(r, np.inf)
        try:
            conditions = equations.condition_numbers(centres, watch.tick)
        except BudgetExceededError:
            if outcome == "proved":
                outcome, reason = "undecided", _LATE
        return Enclosure(
            outcome=outcome,
            reason=reason,
            precision=attempt.precision,
            radius=float(rho),
            pivots=attempt.pivots,
            centres=centres,
            radii=radii,
            relative=relative,
            conditions=conditions,
            attempts=watch.attempts,
            seconds=time.monotonic() - watch.begun,
        )


def choose_pivots(equations: BallEquations, terms: FloatArray, tick: Tick = untimed) -> IntArray:
    """r r rows of the Jacobian, as independent as pivoted QR of its transpose finds, sorted.

    Columns are brought to norm 1 first, so that small terms have a say.

    Raises:
        InvalidInputError: the derivatives overflow at these terms.
    """
    jacobian = equations.jacobian(terms)
    size: FloatArray = np.linalg.norm(jacobian, axis=0)
    scaled = jacobian / np.where(size > 0.0, size, 1.0)
    if not np.all(np.isfinite(scaled)):
        raise InvalidInputError("terms", "sizes whose powers are float64", "an overflow")
    return np.sort(independent_rows(scaled, equations.size, tick)).astype(np.int64)


def estimate_seconds(r: int, k: int) -> float:
    """Rough time of `enclose_terms` at the first precision on one core, in seconds.

    Example:
        >>> estimate_seconds(5, 20) < 0.1 < estimate_seconds(20, 300) < 60
        True
    """
    size = r * r
    rest = max(k * r - size, 0)
    return 0.002 + 3.5e-6 * size**2 + rest * size * (1e-6 + 2.8e-9 * size)


def _climb(
    equations: BallEquations,
    terms: FloatArray,
    max_precision: int,
    watch: _Watch,
) -> tuple[_Attempt, Literal["proved", "undecided", "contradicted"], str]:
    """The ladder of precisions, then the other equations."""
    attempt = _stopped("precision", LOWEST, terms)
    try:
        watch.tick(0.0)
        pivots = choose_pivots(equations, terms, watch.tick)
        for precision in PRECISIONS:
            if precision > max_precision:
                break
            watch.step(f"enclosing the samples at {precision} bits", 0.0)
            with flint.ctx.workprec(precision):
                found = _attempt(equations, pivots, terms, watch)
            attempt = replace(found, pivots=pivots)
            # Points known to 2^-62 at best leave nothing to gain where 106 bits find no inverse.
            first = precision == LOWEST
            if not (attempt.limit == "precision" or (first and attempt.limit == "singular")):
                break
        if attempt.limit != "none":
            return attempt, "undecided", _obstacle(attempt, equations, max_precision)
        with flint.ctx.workprec(attempt.precision):
            row = _first_excluded(equations, pivots, attempt, watch)
    except BudgetExceededError:
        return attempt, "undecided", _LATE
    one = f"exactly one solution of {pivots.size} pivot equations lies in the box"
    rest = equations.count * equations.dimension - pivots.size
    if row is None:
        return attempt, "proved", f"{one}; the other {rest} contain 0 over it"
    j, axis = divmod(row, equations.dimension)
    reason = f"{one}, but equation {axis} of point {j} has no zero there: no common solution"
    return attempt, "contradicted", reason


def _obstacle(attempt: _Attempt, equations: BallEquations, max_precision: int) -> str:
    """Why no box was proved."""
    if attempt.limit == "data":
        return (
            "the radius of the data is the limit, not the precision: the system is too badly "
            f"conditioned for right-hand sides known to {float(equations.rhs_radius):.1e} and "
            f"points known to {2.0**-equations.shift:.1e}"
        )
    if attempt.limit == "start":
        return f"no solution of the pivot equations was found within {FAR} of the terms given"
    if attempt.limit == "singular":
        return "the Jacobian of the pivot equations is singular: the terms are not isolated"
    return f"rounding is the limit, and the precision may not exceed {max_precision} bits"


def _attempt(
    equations: BallEquations, pivots: IntArray, terms: FloatArray, watch: _Watch
) -> _Attempt:
    """Polish the centre by Newton's method in ball arithmetic, then look for a box around it."""
    precision: int = flint.ctx.prec
    size = np.linalg.norm(terms, axis=1)
    centres, before = terms, np.inf
    inverse = preconditioner(equations, pivots, centres, watch.tick)
    for _ in range(_STEPS):
        watch.step("solving the pivot equations", 0.2)
        if inverse is None:
            return _stopped("singular", precision, centres)
        now = equations.over(centres, data=False, tick=watch.tick)
        residual = pick(now.residual(), pivots)
        step = middles(inverse * residual).reshape(terms.shape)
        moved = np.linalg.norm(centres - step - terms, axis=1) / size
        if not np.all(moved <= FAR):
            each = np.repeat(size, size.size)
            left = contraction(equations, pivots, centres, inverse, each, watch.tick)
            return _stopped("start" if left < _SMALL else "precision", precision, centres)
        centres = centres - step
        inverse = preconditioner(equations, pivots, centres, watch.tick)
        length = float(np.max(np.linalg.norm(step, axis=1) / size))
        if length <= 2.0**-50 or length > before / 4:
            break
        before = length
    if inverse is None:
        return _stopped("singular", precision, centres)
    return _inflate(equations, pivots, centres, inverse, watch)


def _inflate(
    equations: BallEquations,
    pivots: IntArray,
    centres: FloatArray,
    inverse: flint.arb_mat,
    watch: _Watch,
) -> _Attempt:
    """Widen a box around the centre until its image fits inside, or say what is in the way."""
    precision: int = flint.ctx.prec
    size = np.repeat(np.linalg.norm(centres, axis=1), len(centres))
    shift = inverse * pick(equations.over(centres, tick=watch.tick).residual(), pivots)
    first = _INFLATION * uppers(shift) + _FLOOR
    wide = first
    for _ in range(_ROUNDS):
        watch.step("testing a box", 0.4)
        watch.attempts += 1
        radii = wide.reshape(centres.shape)
        image = krawczyk_image(equations, pivots, centres, radii, inverse, shift, watch.tick)
        if np.all(image * _ROOM < wide):
            return _Attempt("none", precision, centres, radii, middles(inverse))
        if not np.all(image <= size):
            break
        wide = _INFLATION * image + _FLOOR
    still = inverse * pick(equations.over(centres, data=False).residual(), pivots)
    if np.any(widths(still) > _SMALL * uppers(shift)):
        return _stopped("precision", precision, centres)
    if not contraction(equations, pivots, centres, inverse, first, watch.tick) < _SMALL:
        return _stopped("precision", precision, centres)
    return _stopped("data", precision, centres)


def _first_excluded(
    equations: BallEquations, pivots: IntArray, attempt: _Attempt, watch: _Watch
) -> int | None:
    """The first equation other than the pivots whose range over the box excludes 0."""
    centres, radii = attempt.centres, attempt.radii
    jacobian = equations.jacobian(centres)
    rest = np.setdiff1d(np.arange(jacobian.shape[0]), pivots)
    # The pivot equations vanish at the solution: mixing them in takes the common error out.
    combination = jacobian[rest] @ attempt.inverse
    values = equations.over(centres, tick=watch.tick).residual()
    residuals = values.entries()
    box = equations.over(centres, radii, tick=watch.tick)
    slope, sides = box.jacobian(pivots.tolist()), spread(radii)
    at_pivots = pick(values, pivots)
    for begin in range(0, rest.size, equations.size):
        watch.step("checking the other equations", 0.5 + 0.5 * begin / rest.size)
        rows = rest[begin : begin + equations.size].tolist()
        mixed = exact(combination[begin : begin + equations.size])
        left = (box.jacobian(rows) - product(mixed, slope, watch.tick)) * sides
        left += column([residuals[row] for row in rows]) - mixed * at_pivots
        for row, value in zip(rows, left.entries(), strict=True):
            if value.is_finite() and not value.contains(0):
                return int(row)
    return None
