"""Results of solving exactly: training sets of exact numbers and the set of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from identify.symbolic.numbers import is_positive, is_zero, tidy

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True, eq=False)
class ExactTrainingSet:
    """Samples (n, d) and coefficients (n) as exact numbers.

    ``outputs`` are the f(x_i) of the network for solutions of ``solve_stationary``, else None.

    Example:
        >>> from identify.symbolic.solve import three_cubes
        >>> three_cubes([1, 0], 1, [0, 1], 1, 2, -1).coefficients
        (1/15, -2/3, 8/5)
    """

    samples: sympy.ImmutableMatrix
    coefficients: tuple[sympy.Expr, ...]
    outputs: tuple[sympy.Expr, ...] | None = None

    @property
    def multipliers(self) -> tuple[sympy.Expr, ...] | None:
        """The products b_i f(x_i), independent of the length and sign of x_i.

        They are the multipliers lambda_i once every x_i is scaled to |f(x_i)| = 1.
        """
        if self.outputs is None:
            return None
        pairs = zip(self.coefficients, self.outputs, strict=True)
        return tuple(tidy(b * f) for b, f in pairs)

    def to_float(self) -> tuple[FloatArray, FloatArray]:
        """Samples and coefficients rounded to float64, each from 30 digits."""

        def rounded(value: sympy.Expr) -> float:
            return float(value.evalf(30))

        samples = [[rounded(x) for x in row] for row in self.samples.tolist()]
        return np.array(samples), np.array([rounded(b) for b in self.coefficients])

    def __str__(self) -> str:
        rows = zip(self.samples.tolist(), self.coefficients, strict=True)
        return "\n".join(f"x = ({', '.join(map(str, x))}), b = {b}" for x, b in rows)


@dataclass(frozen=True, eq=False, repr=False)
class Chart:
    """One part of the space of n unordered samples, and the system there.

    ``samples`` shows the entries; ``unknowns`` are the b[i], the free x[i,k], an auxiliary t and,
    over a field Q(theta), theta. ``generators`` vanish exactly on the explanations in this part,
    with t defined by the last of them (t times the product of what must not be 0, minus 1).
    ``groebner_basis`` is reduced and degree reverse lexicographic. ``solution_count`` are the
    complex solutions with the samples in order, None if there are infinitely many.
    """

    samples: tuple[tuple[sympy.Expr, ...], ...]
    unknowns: tuple[sympy.Symbol, ...]
    generators: tuple[sympy.Expr, ...]
    groebner_basis: tuple[sympy.Expr, ...]
    dimension: int
    solution_count: int | None

    def __repr__(self) -> str:
        return f"Chart(samples={self.samples}, dimension={self.dimension})"


@dataclass(frozen=True, eq=False, repr=False)
class SolutionSet:
    """All sets of ``samples`` pairwise non-parallel samples with b_i != 0 that explain the data.

    ``dimension`` is that of the complex set: -1 without a solution, 0 for finitely many. Then
    ``solutions`` are all real ones, up to ``symmetries``, ``complex_count`` the number of complex
    ones and ``multiplicity`` the same with multiplicities (equal: each is a simple zero, so the
    equations have full rank there); else (), None and None. ``span`` is the dimension of the span
    of the rows; every explanation has at least so many samples, and one of just as many lies in it.
    ``rank`` counts the linear equations for the ``entries`` of the moment tensor, on the span if
    it has ``samples`` dimensions; ``consistent`` says whether any tensor at all obeys them.
    ``fewer`` lists the smaller numbers of samples that also explain the data.
    ``charts`` are disjoint and cover everything but what ``excluded`` names. A coefficient b[i] of
    a chart is to be multiplied by ``unit``; theta stands for ``generator``, None over Q.

    Example:
        >>> from identify.symbolic.solve import exact_gradient, solve_gradient
        >>> rows, values = exact_gradient([[1, 0], [0, 1]], [1, 1], [[1, 2]], [3], 3)
        >>> found = solve_gradient([[1, 0], [0, 1]], [1, 1], rows, values, samples=1, degree=3)
        >>> print(found)
        samples 1, degree 3: 1 real, 1 complex, multiplicity 1
        rows of rank 1, equations of rank 1 of 1
        x = (1, 2), b = 3
    """

    degree: int
    samples: int
    dimension: int
    solutions: tuple[ExactTrainingSet, ...]
    complex_count: int | None
    multiplicity: int | None
    span: int
    rank: int
    entries: int
    consistent: bool
    fewer: tuple[int, ...]
    charts: tuple[Chart, ...]
    unit: sympy.Expr
    generator: sympy.Expr | None
    has_bias: bool

    @property
    def unique(self) -> bool:
        """Whether exactly one real set of at most ``samples`` samples explains the data."""
        return self.dimension == 0 and len(self.solutions) == 1 and not self.fewer

    @property
    def feasible(self) -> tuple[ExactTrainingSet, ...]:
        """The solutions that satisfy the KKT conditions, up to the scale of weights and samples.

        b_i f(x_i) > 0 for every sample: the label is the sign of both. With a hidden bias the
        length of a sample is fixed, and all |f(x_i)| have to be equal too.
        """
        return tuple(found for found in self.solutions if self._is_feasible(found))

    @property
    def symmetries(self) -> tuple[str, ...]:
        """What the data cannot tell apart; each class is listed once."""
        names = ["order of the samples"]
        if not self.has_bias:
            names.append(
                "length and sign of a sample: (x, b) and (c x, b / c^degree) for real c != 0; "
                "listed with first non-zero entry 1"
            )
        return tuple(names)

    @property
    def excluded(self) -> tuple[str, ...]:
        """What is not searched: sets that are, or merge to, sets of fewer samples."""
        same = "equal samples, and samples with b = 0"
        if not self.has_bias:
            same = "parallel samples, and samples with b = 0 or x = 0"
        what = f"{same}: they merge to fewer than {self.samples}"
        if self.fewer:
            listed = " and ".join(map(str, self.fewer))
            return (f"{what}; sets of {listed} explain the data too",)
        return (f"{what}; none such explains the data",)

    def _is_feasible(self, found: ExactTrainingSet) -> bool:
        if found.outputs is None or found.multipliers is None:
            return False
        equal = not self.has_bias or all(
            is_zero(f**2 - found.outputs[0] ** 2) for f in found.outputs
        )
        return equal and all(is_positive(product) for product in found.multipliers)

    def __repr__(self) -> str:
        return f"SolutionSet(samples={self.samples}, dimension={self.dimension})"

    def __str__(self) -> str:
        head = f"samples {self.samples}, degree {self.degree}: "
        if self.dimension < 0:
            head += "none"
        elif self.dimension > 0:
            head += f"infinitely many, dimension {self.dimension}"
        else:
            head += f"{len(self.solutions)} real, {self.complex_count} complex, "
            head += f"multiplicity {self.multiplicity}"
        linear = f"rows of rank {self.span}, equations of rank {self.rank} of {self.entries}"
        if not self.consistent:
            linear += ", contradictory"
        return "\n".join([head, linear, *"\n\n".join(map(str, self.solutions)).splitlines()])
