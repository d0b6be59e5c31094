"""Every training set that explains exact data of a small network, by Groebner bases.

sympy is imported when a system is solved, not with this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from identify.budget import Budget
from identify.errors import InvalidInputError
from identify.symbolic.charts import explanations
from identify.symbolic.moment_equations import Problem
from identify.symbolic.numbers import exact_column, exact_matrix, is_zero, tidy
from identify.symbolic.solution_set import Chart, ExactTrainingSet, SolutionSet
from identify.symbolic.system import affine, check_whole

if TYPE_CHECKING:
    import sympy

__all__ = [
    "Chart",
    "ExactTrainingSet",
    "SolutionSet",
    "exact_gradient",
    "solve_gradient",
    "solve_stationary",
    "three_cubes",
]

MAX_POINT_DIMENSION = 4
MAX_SAMPLES = 3
MAX_DEGREE = 8
MAX_WIDTH = 64


def exact_gradient(
    points: Any,
    output_weights: Any,
    samples: Any,
    coefficients: Any,
    degree: int,
    *,
    bias: bool = False,
) -> tuple[sympy.ImmutableMatrix, sympy.ImmutableMatrix]:
    """The gradient sum_i b_i grad f(x_i) of f(x) = sum_j a_j (u_j . x)^degree, exactly.

    rows_j = degree a_j sum_i b_i (u_j . x_i)^(degree-1) x_i (m, r) and values_j =
    sum_i b_i (u_j . x_i)^degree (m, 1) for points (m, r), output weights (m), samples (n, d) and
    coefficients (n). With ``bias`` the last entry of a point is the hidden bias, r = d + 1, and
    x_i stands for (x_i, 1). Samples, coefficients and all else may contain symbols, so that a
    family of training sets is checked at once. A set explains the data iff it gives the same.

    Raises InvalidInputError for floats and for shapes that do not fit.
    Cost: m n r products.

    Source: the chain rule; Wang, Lee & Lei (2022), "Reconstructing training data from model
    gradient, provably", for the use of one gradient.

    Example:
        >>> rows, values = exact_gradient([[1, 1]], [1], [[1, 2], [1, -3]], [1, 1], 3)
        >>> rows, values
        (Matrix([[39, 18]]), Matrix([[19]]))
    """
    import sympy

    u = exact_matrix("points", points, symbols=True)
    m, r = len(u), len(u[0])
    a = exact_column("output_weights", output_weights, m, symbols=True)
    x = exact_matrix("samples", samples, columns=r - bool(bias), symbols=True)
    b = exact_column("coefficients", coefficients, len(x), symbols=True)
    check_whole("degree", degree, 1, MAX_DEGREE)
    lifted = [[*row, sympy.Integer(1)] if bias else row for row in x]
    rows, values = [], []
    for point, output in zip(u, a, strict=True):
        slopes = [affine(point, row) for row in lifted]
        powers = [c * s ** (degree - 1) for c, s in zip(b, slopes, strict=True)]
        parts = [sympy.Add(*(p * row[k] for p, row in zip(powers, lifted, strict=True)))
                 for k in range(r)]  # fmt: skip
        rows.append([sympy.expand(degree * output * part) for part in parts])
        value = sympy.Add(*(p * s for p, s in zip(powers, slopes, strict=True)))
        values.append([sympy.expand(value)])
    return sympy.ImmutableMatrix(rows), sympy.ImmutableMatrix(values)


def solve_gradient(
    points: Any,
    output_weights: Any,
    rows: Any,
    values: Any = None,
    *,
    samples: int,
    degree: int,
    bias: bool = False,
    time_limit: float | None = None,
) -> SolutionSet:
    """All sets of ``samples`` samples that have this gradient, proved to be all.

    Solves degree a_j sum_i b_i (u_j . x_i)^(degree-1) x_i = rows_j and, with ``values``,
    sum_i b_i (u_j . x_i)^degree = values_j for the b_i and x_i: points (m, r), output weights (m),
    rows (m, r), values (m); the last entry of a point is the hidden bias with ``bias``. Numbers are
    integers, fractions or real algebraic numbers of sympy.

    The equations are linear in T = sum_i b_i x_i^(degree), so they are brought to echelon form
    first. The directions of the samples are covered by disjoint charts: entries before the c-th are
    0, the c-th is 1; with a bias the last is 1. Samples of the same chart differ in a first entry.
    In each part a Groebner basis gives the dimension of the solution set and, if it is finite, its
    number of points and the points.

    Raises InvalidInputError for floats, shapes that do not fit, more than 4 entries a point,
    3 samples, 64 neurons or degree 8, fields of degree above 16; BudgetExceededError when
    ``time_limit`` (seconds) is over. The limit is looked at between the reductions of a Groebner
    basis and not within one. Cost: under 1 s for 2 samples of 3 entries, degree 5 and 2 neurons;
    far below the rank that determines T, or for 3 samples there, it can outgrow any limit.

    Source: Cox, Little & O'Shea, "Ideals, Varieties, and Algorithms", chapters 2, 5.3 and 9.3.

    Example:
        >>> from fractions import Fraction
        >>> u, a = [[1, 0], [0, 1]], [1, Fraction(1, 2)]
        >>> rows, values = exact_gradient(u, a, [[1, 2], [1, -1]], [1, -3], 3)
        >>> found = solve_gradient(u, a, rows, values, samples=2, degree=3)
        >>> found.unique, found.complex_count
        (True, 1)
        >>> print(found.solutions[0])
        x = (1, -1), b = -3
        x = (1, 2), b = 1
    """
    check_whole("samples", samples, 1, MAX_SAMPLES)
    check_whole("degree", degree, 3, MAX_DEGREE)
    u = exact_matrix("points", points)
    m, r = len(u), len(u[0])
    check_whole("width", m, 1, MAX_WIDTH)
    check_whole("entries of a point", r, 1 + bool(bias), MAX_POINT_DIMENSION)
    problem = Problem(
        points=u,
        outputs=exact_column("output_weights", output_weights, m),
        rows=exact_matrix("rows", rows, m, r),
        values=None if values is None else exact_column("values", values, m),
        degree=degree,
        bias=bool(bias),
    )
    return explanations(problem, samples, Budget.of(time_limit))


def solve_stationary(
    hidden_weight: Any,
    output_weight: Any,
    *,
    samples: int,
    degree: int,
    bias: bool = False,
    time_limit: float | None = None,
) -> SolutionSet:
    """All sets of ``samples`` samples for which these weights are stationary, proved to be all.

    Solves a_j = sum_i b_i (w_j . x_i)^degree, w_j = degree a_j sum_i b_i (w_j . x_i)^(degree-1) x_i
    for weights (m, r) and (m): a gradient that equals the weights, see ``solve_gradient`` for
    methods, errors and cost. They satisfy |w_j|^2 = degree a_j^2, so they are numbers like
    sqrt(3). The ``feasible`` solutions satisfy all KKT conditions of max-margin training.

    Source: Lyu & Li (2020), "Gradient descent maximizes the margin of homogeneous neural
    networks", for the conditions.

    Example:
        >>> from sympy import sqrt
        >>> found = solve_stationary([[sqrt(3), 0], [0, sqrt(3)]], [1, 1], samples=2, degree=3)
        >>> found.unique, len(found.feasible)
        (True, 1)
        >>> print(found.solutions[0])
        x = (1, 0), b = sqrt(3)/9
        x = (0, 1), b = sqrt(3)/9
        >>> found.solutions[0].multipliers
        (1, 1)
    """
    found = solve_gradient(
        hidden_weight, output_weight, hidden_weight, output_weight,
        samples=samples, degree=degree, bias=bias, time_limit=time_limit,
    )  # fmt: skip
    points = exact_matrix("hidden_weight", hidden_weight)
    heights = exact_column("output_weight", output_weight, len(points))

    def with_outputs(solution: ExactTrainingSet) -> ExactTrainingSet:
        outputs = [
            tidy(sum(a * affine(w, x) ** degree for w, a in zip(points, heights, strict=True)))
            for x in solution.samples.tolist()
        ]
        return replace(solution, outputs=tuple(outputs))

    return replace(found, solutions=tuple(map(with_outputs, found.solutions)))


def three_cubes(
    x1: Sequence[Any], b1: Any, x2: Sequence[Any], b2: Any, s: Any, t: Any
) -> ExactTrainingSet:
    """Three samples in the plane of two that explain the same data at degree 3.

    b1 x1^(3) + b2 x2^(3) = sum_k c_k y_k^(3) with y_k = x1 + m_k x2, m = (s, t, b2/(b1 s t)) and
    c_k = b1 prod_(j != k) m_j / (m_j - m_k). In the coordinates of the plane, the cubic forms that
    annihilate the left side are spanned by b2 X^3 - b1 Y^3, X^2 Y and X Y^2, and three cubes sum to
    it iff the form with these three roots is one of them: the product of the m_k is b2/b1. The
    c_k are Lagrange's interpolation at 0. So every other set of three pairwise non-parallel
    samples of the plane is (c y_k, c_k/c^3) for some s, t. Arguments may contain symbols.

    Raises InvalidInputError for floats, for a zero coefficient or parallel samples, and where two
    of the m_k agree or vanish.

    Source: Iarrobino & Kanev (1999), "Power Sums, Gorenstein Algebras, and Determinantal Loci",
    section 1.1 (apolarity).

    Example:
        >>> print(three_cubes([1, 0], 1, [0, 1], 1, -2, 1))
        x = (1, -2), b = -1/9
        x = (1, 1), b = 2/9
        x = (1, -1/2), b = 8/9
    """
    import sympy

    rows = exact_matrix("samples", [x1, x2], symbols=True)
    first, second, s, t = exact_column("b1, b2, s, t", [b1, b2, s, t], 4, symbols=True)
    minors = [
        rows[0][k] * rows[1][j] - rows[0][j] * rows[1][k] for k in range(len(x1)) for j in range(k)
    ]
    if is_zero(first * second) or all(map(is_zero, minors)):
        raise InvalidInputError(
            "samples", "two that are not parallel, with b1 and b2 not 0", f"{x1}, {x2}, {b1}, {b2}"
        )
    if is_zero(s * t):
        raise InvalidInputError("s, t", "numbers other than 0", f"{s}, {t}")
    m = [s, t, sympy.cancel(second / (first * s * t))]
    gaps = [m[0] - m[1], m[1] - m[2], m[2] - m[0]]
    if any(map(is_zero, gaps)):
        raise InvalidInputError("s, t", "s, t and b2/(b1 s t) different", f"{s}, {t}, {m[2]}")
    c = [
        sympy.cancel(first * m[1] * m[2] / ((m[1] - m[0]) * (m[2] - m[0]))),
        sympy.cancel(first * m[0] * m[2] / ((m[0] - m[1]) * (m[2] - m[1]))),
        sympy.cancel(first * m[0] * m[1] / ((m[0] - m[2]) * (m[1] - m[2]))),
    ]
    samples = [[sympy.cancel(p + k * q) for p, q in zip(*rows, strict=True)] for k in m]
    return ExactTrainingSet(sympy.ImmutableMatrix(samples), tuple(c))
