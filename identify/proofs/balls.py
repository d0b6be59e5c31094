"""The Hermite equations of the terms in ball arithmetic (arb), and their Krawczyk operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flint
import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.proofs.timed import Tick, inverse, product, triangle, untimed

IntArray = npt.NDArray[np.int64]
LOWEST = 53
MAX_SHIFT = 62
MAX_DEGREE = 64


def column(values: Sequence[flint.arb]) -> flint.arb_mat:
    """A column vector of balls."""
    return flint.arb_mat(len(values), 1, values)


def exact(values: FloatArray) -> flint.arb_mat:
    """A float64 matrix as balls of radius 0."""
    rows, columns = values.shape
    return flint.arb_mat(rows, columns, values.ravel().tolist())


def middles(matrix: flint.arb_mat) -> FloatArray:
    """Midpoints rounded to float64, in the shape of the matrix."""
    values = [float(entry.mid()) for entry in matrix.entries()]
    return np.array(values).reshape(matrix.nrows(), matrix.ncols())


def uppers(matrix: flint.arb_mat) -> FloatArray:
    """Float64 numbers that no element of the balls exceeds in absolute value, flattened."""
    values = np.array([float(entry.abs_upper()) for entry in matrix.entries()])
    # float() rounds to nearest: one step up makes it a bound.
    result: FloatArray = np.nextafter(values, np.inf)
    return result


def widths(matrix: flint.arb_mat) -> FloatArray:
    """Radii of the balls, rounded up, flattened."""
    values = np.array([float(entry.rad()) for entry in matrix.entries()])
    result: FloatArray = np.nextafter(values, np.inf)
    return result


def ball_power(ball: flint.arb, exponent: int) -> flint.arb:
    """ball^exponent by multiplication; python-flint's ** gives NaN where a ball contains 0.

    Example:
        >>> import flint
        >>> bool(ball_power(flint.arb(0, 0.5), 3).contains(0.1))
        True
    """
    result = flint.arb(1)
    for _ in range(exponent):
        result = result * ball
    return result


class BallEquations:
    """w_j sum_i s_i (p_j . z_i)^(alpha-1) z_i = rhs_j with p_j and rhs_j known in balls.

    Row j r + axis is axis `axis` of the equation of point j; column i r + axis is that axis of
    term i. All inputs are held exactly, so that the same object serves every precision.

    Args:
        points: integers P_j, shape (k, r); p_j lies within 2^-shift of P_j / 2^shift per entry.
        shift: from 1 to 62.
        rhs: right-hand sides, shape (k, r).
        weights: w_j > 0, shape (k,).
        degree: alpha, at least 3.
        signs: s_i = +-1, shape (r,).
        rho: radius of every entry of `rhs` over its Frobenius norm.

    Raises:
        InvalidInputError: a shape, a sign, a weight or a radius that breaks this contract.

    Example:
        >>> import numpy as np
        >>> p = np.array([[1024, 0], [0, 1024]])
        >>> equations = BallEquations(p, 10, np.eye(2), np.ones(2), 3, np.ones(2), 0.0)
        >>> bool(equations.over(np.eye(2)).residual()[0, 0].contains(0))
        True
    """

    def __init__(
        self,
        points: IntArray,
        shift: int,
        rhs: FloatArray,
        weights: FloatArray,
        degree: int,
        signs: FloatArray,
        rho: float,
    ) -> None:
        _check(points, shift, rhs, weights, degree, signs, rho)
        self.count, self.dimension = points.shape
        self.size = self.dimension**2
        self.shift, self.degree = shift, degree
        self.signs: FloatArray = np.asarray(signs, dtype=np.float64)
        self.weights: FloatArray = np.asarray(weights, dtype=np.float64)
        self.middle: FloatArray = np.ldexp(points.astype(np.float64), -shift)
        flat = [int(entry) for entry in points.ravel()]
        k, r = points.shape
        self.exact_points = flint.arb_mat(k, r, [flint.arb((entry, -shift)) for entry in flat])
        slack = 2.0**-shift
        self.ball_points = flint.arb_mat(
            k, r, [flint.arb((entry, -shift), slack) for entry in flat]
        )
        sides = np.asarray(rhs, dtype=np.float64).ravel().tolist()
        squares = sum((flint.arb(side) ** 2 for side in sides), flint.arb(0))
        self.rhs_norm = float(np.linalg.norm(rhs))
        self.rhs_radius = (squares.sqrt() * flint.arb(rho)).upper()
        self.exact_rhs = flint.arb_mat(k, r, sides)
        self.ball_rhs = flint.arb_mat(k, r, [flint.arb(side, self.rhs_radius) for side in sides])

    def over(
        self,
        centres: FloatArray,
        radii: FloatArray | None = None,
        *,
        data: bool = True,
        tick: Tick = untimed,
    ) -> Field:
        """The equations over the box centres +- radii; `data=False` takes the data as exact."""
        return Field(self, centres, radii, data, tick)

    def jacobian(self, terms: FloatArray) -> FloatArray:
        """Dense float64 Jacobian at the middle of the data, shape (k r, r r)."""
        power, r = self.degree - 1, self.dimension
        s = self.middle @ terms.T
        heads = self.signs * self.weights[:, None]
        slopes = power * s ** (power - 1) * heads
        matrix = np.einsum("ji,ia,jb->jaib", slopes, terms, self.middle, optimize=True)
        axes = np.arange(r)
        matrix[:, axes, :, axes] += (s**power * heads)[None]
        result: FloatArray = matrix.reshape(self.count * r, self.size)
        return result

    def condition_numbers(self, terms: FloatArray, tick: Tick = untimed) -> FloatArray:
        """|rows i of J^+|_2 |rhs|_F / |z_i| in float64, shape (r,); inf where J is singular.

        J = Q R with orthonormal Q, so rows of J^+ and of R^-1 have the same norm.
        """
        r = self.dimension
        jacobian = self.jacobian(terms)
        if not np.all(np.isfinite(jacobian)):
            return np.full(r, np.inf)
        upper = triangle(jacobian, tick)
        try:
            blocks = np.linalg.inv(upper).reshape(r, r, self.size)
        except np.linalg.LinAlgError:
            return np.full(r, np.inf)
        if not np.all(np.isfinite(blocks)):
            return np.full(r, np.inf)
        spectral = np.linalg.norm(blocks, ord=2, axis=(1, 2))
        result: FloatArray = spectral * self.rhs_norm / np.linalg.norm(terms, axis=1)
        return result


class Field:
    """Values and derivatives of the equations over one box, at the precision in force."""

    def __init__(
        self,
        equations: BallEquations,
        centres: FloatArray,
        radii: FloatArray | None,
        data: bool,
        tick: Tick,
    ) -> None:
        self._tick = tick
        self._rhs = equations.ball_rhs if data else equations.exact_rhs
        points = equations.ball_points if data else equations.exact_points
        self._points = points.tolist()
        r, power = equations.dimension, equations.degree - 1
        flat: Sequence[float | flint.arb] = centres.ravel().tolist()
        if radii is not None:
            pairs = zip(centres.ravel().tolist(), radii.ravel().tolist(), strict=True)
            flat = [flint.arb(centre, radius) for centre, radius in pairs]
        self._values = flint.arb_mat(r, r, flat)
        self._terms = self._values.tolist()
        signs = equations.signs.tolist()
        self._high, self._low = [], []
        for weight, row in zip(
            equations.weights.tolist(), (points * self._values.transpose()).tolist(), strict=True
        ):
            tick(0.0)
            heads = [flint.arb(weight * sign) for sign in signs]
            lower = [ball_power(s, power - 1) for s in row]
            self._low.append([c * (low * power) for c, low in zip(heads, lower, strict=True)])
            self._high.append([c * (low * s) for c, low, s in zip(heads, lower, row, strict=True)])

    def residual(self) -> flint.arb_mat:
        """w_j sum_i s_i (p_j . z_i)^(alpha-1) z_i - rhs_j, shape (k, r)."""
        result: flint.arb_mat = flint.arb_mat(self._high) * self._values - self._rhs
        return result

    def jacobian(self, rows: Sequence[int]) -> flint.arb_mat:
        """Rows of w_j s_i [(alpha-1) (p_j . z_i)^(alpha-2) z_i p_j^T + (p_j . z_i)^(alpha-1) I]."""
        r = len(self._terms)
        table = []
        for row in rows:
            self._tick(0.0)
            j, axis = divmod(row, r)
            point = self._points[j]
            slopes = [low * term[axis] for low, term in zip(self._low[j], self._terms, strict=True)]
            entries = [slope * coordinate for slope in slopes for coordinate in point]
            for i, high in enumerate(self._high[j]):
                entries[i * r + axis] += high
            table.append(entries)
        return flint.arb_mat(table)


def preconditioner(
    equations: BallEquations, pivots: IntArray, centres: FloatArray, tick: Tick = untimed
) -> flint.arb_mat | None:
    """An approximate inverse of the pivot rows of the Jacobian, or None if there is none."""
    if flint.ctx.prec > LOWEST:
        try:
            slope = equations.over(centres, data=False, tick=tick).jacobian(pivots.tolist())
            return inverse(slope, tick).mid()
        except ZeroDivisionError:
            return None
    tick(0.0)
    try:
        found = np.linalg.inv(equations.jacobian(centres)[pivots])
    except np.linalg.LinAlgError:
        return None
    return exact(found.astype(np.float64)) if np.all(np.isfinite(found)) else None


def pick(values: flint.arb_mat, rows: IntArray) -> flint.arb_mat:
    """Chosen rows of the stacked equations, as a column."""
    entries = values.entries()
    return column([entries[row] for row in rows.tolist()])


def spread(radii: FloatArray) -> flint.arb_mat:
    """The column of balls 0 +- radii."""
    return column([flint.arb(0, radius) for radius in radii.ravel().tolist()])


def _identity(size: int) -> flint.arb_mat:
    return flint.arb_mat(size, size, np.eye(size).ravel().tolist())


def krawczyk_image(
    equations: BallEquations,
    pivots: IntArray,
    centres: FloatArray,
    radii: FloatArray,
    inverse: flint.arb_mat,
    shift: flint.arb_mat,
    tick: Tick = untimed,
) -> FloatArray:
    """Upper bounds of |K(X) - x|, flattened, with shift = C F(x)."""
    slope = equations.over(centres, radii, tick=tick).jacobian(pivots.tolist())
    left = _identity(slope.nrows()) - product(inverse, slope, tick)
    return uppers(left * spread(radii) - shift)


def contraction(
    equations: BallEquations,
    pivots: IntArray,
    centres: FloatArray,
    inverse: flint.arb_mat,
    scale: FloatArray,
    tick: Tick = untimed,
) -> float:
    """Norm of I - C F'(x) for exact data, in the maximum norm that `scale` weights."""
    slope = equations.over(centres, data=False, tick=tick).jacobian(pivots.tolist())
    away = _identity(slope.nrows()) - product(inverse, slope, tick)
    left = uppers(away).reshape(-1, scale.size)
    return float(np.max(left @ scale / scale))


def verify_box(
    equations: BallEquations,
    pivots: IntArray,
    centres: FloatArray,
    radii: FloatArray,
    precision: int,
) -> bool:
    """Redo the test of one box: True proves exactly one solution of the pivot equations in it.

    Example:
        >>> import numpy as np
        >>> p = np.array([[1024]])
        >>> equations = BallEquations(p, 10, np.ones((1, 1)), np.ones(1), 3, np.ones(1), 0.01)
        >>> one = np.ones((1, 1))
        >>> [verify_box(equations, np.zeros(1, int), one, w * one, 53) for w in (0.003, 0.01)]
        [False, True]
    """
    with flint.ctx.workprec(precision):
        inverse = preconditioner(equations, pivots, centres)
        if inverse is None or not np.all(radii > 0):
            return False
        shift = inverse * pick(equations.over(centres).residual(), pivots)
        image = krawczyk_image(equations, pivots, centres, radii, inverse, shift)
    return bool(np.all(image < radii.ravel()))


def relative_radii(centres: FloatArray, radii: FloatArray) -> FloatArray:
    """Upper bounds of |radii_i| / (|centres_i| - |radii_i|), shape (r,); inf if not positive."""
    result = np.full(len(centres), np.inf)
    if not np.all(np.isfinite(radii)):
        return result
    with flint.ctx.workprec(LOWEST):
        for i, (centre, radius) in enumerate(zip(centres.tolist(), radii.tolist(), strict=True)):
            away = sum((flint.arb(c) ** 2 for c in centre), flint.arb(0)).sqrt()
            wide = sum((flint.arb(c) ** 2 for c in radius), flint.arb(0)).sqrt()
            if away > wide:
                # The factor leaves room for a check in plain float64.
                bound = (wide / (away - wide)).upper() * (1.0 + 2.0**-40)
                result[i] = np.nextafter(float(bound.upper()), np.inf)
    return result


def _check(
    points: IntArray,
    shift: int,
    rhs: FloatArray,
    weights: FloatArray,
    degree: int,
    signs: FloatArray,
    rho: float,
) -> None:
    if points.ndim != 2 or points.dtype != np.int64 or points.shape[1] < 1:
        got = f"{points.dtype} of shape {points.shape}"
        raise InvalidInputError("points", "int64 of shape (k, r)", got)
    count, r = points.shape
    if count < r:
        hint = "there are fewer equations than unknowns"
        raise InvalidInputError("points", f"at least r = {r} rows", count, hint)
    if not 1 <= shift <= MAX_SHIFT:
        raise InvalidInputError("shift", f"1 to {MAX_SHIFT}", shift)
    if not 3 <= degree <= MAX_DEGREE:
        raise InvalidInputError("degree", f"3 to {MAX_DEGREE}", degree)
    if not 0.0 <= rho < np.inf:
        raise InvalidInputError("rho", "a finite number >= 0", rho)
    require("rhs", rhs, (count, r), "not all 0", lambda array: bool(np.any(array)))
    require("weights", weights, (count,), "positive", lambda array: bool(np.all(array > 0)))
    require("signs", signs, (r,), "+-1", lambda array: bool(np.all(np.abs(array) == 1)))


def require(
    name: str,
    array: FloatArray,
    shape: tuple[int, ...],
    words: str,
    holds: Callable[[FloatArray], bool],
) -> None:
    """Refuse an array of another shape, with an entry that is not finite, or without a property.

    Raises:
        InvalidInputError: with the name and what was expected.
    """
    if array.shape != shape:
        raise InvalidInputError(name, f"shape {shape}", array.shape)
    if not np.all(np.isfinite(array)):
        raise InvalidInputError(name, "finite numbers", "nan or inf")
    if not holds(array):
        raise InvalidInputError(name, words, "other values")
