"""The proved bound for sigma_min(H), against ball arithmetic on the exact points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import combinations_with_replacement
from math import comb, factorial, prod
from types import SimpleNamespace

import flint
import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg

import identify.budget
from identify import InvalidInputError
from identify.budget import Budget
from identify.proofs import singular_value as singular
from identify.proofs.singular_value import bound_smallest_singular_value, estimate_seconds, reach
from identify.tensors import hermite_matrix

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SHIFT = 44


def unknowns(degree: int, dimension: int) -> int:
    return comb(dimension + degree - 1, degree)


def integer_points(points: FloatArray, shift: int = SHIFT) -> IntArray:
    """Nearest integer points of the unit vectors along the rows."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return np.rint(np.ldexp(unit, shift)).astype(np.int64)


@contextmanager
def precision(bits: int) -> Iterator[None]:
    before = flint.ctx.prec
    flint.ctx.prec = bits
    try:
        yield
    finally:
        flint.ctx.prec = before


class Exact:
    """H^T H of P / 2^shift without rounding: integers, and the multinomials apart.

    H = B diag(sqrt(c)) / (alpha 2^(shift (alpha-1))), B integer: H^T H - s^2 I is positive definite
    iff B^T B - (s alpha 2^(shift (alpha-1)))^2 diag(1/c) is.
    """

    def __init__(self, points: IntArray, shift: int, degree: int) -> None:
        dimension = points.shape[1]
        monomials = [
            [index.count(axis) for axis in range(dimension)]
            for index in combinations_with_replacement(range(dimension), degree)
        ]
        self.multinomials = [factorial(degree) // prod(map(factorial, k)) for k in monomials]
        self.scale = degree * 2 ** (shift * (degree - 1))
        self.rows = [
            [
                k[axis] * prod(x ** max(0, k[b] - (b == axis)) for b, x in enumerate(u))
                for k in monomials
            ]
            for u in points.tolist()
            for axis in range(dimension)
        ]
        integers = flint.fmpz_mat(self.rows)
        self.gram = (integers.transpose() * integers).tolist()

    def exceeds(self, sigma: Fraction, bits: int = 1500) -> bool | None:
        """Whether sigma_min(H) > sigma, by the pivots of L D L^T in balls; None if undecided."""
        square = (sigma * self.scale) ** 2
        with precision(bits):
            rows = [[flint.arb(x) for x in row] for row in self.gram]
            top, bottom = flint.arb(square.numerator), flint.arb(square.denominator)
            for i, count in enumerate(self.multinomials):
                rows[i][i] -= top / bottom / count
            for i, row in enumerate(rows):
                pivot = row[i]
                if not pivot > 0:
                    return False if pivot < 0 else None
                for j in range(i + 1, len(rows)):
                    factor = row[j] / pivot
                    below = rows[j]
                    for column in range(j, len(rows)):
                        below[column] -= factor * row[column]
        return True

    def eigenvalues(self, bits: int = 400) -> list[flint.arb]:
        """Enclosures of the eigenvalues of H^T H."""
        with precision(bits):
            roots = [flint.arb(c).sqrt() for c in self.multinomials]
            square = flint.arb(self.scale) ** 2
            matrix = flint.acb_mat([
                [flint.arb(x) * a * b / square for x, b in zip(row, roots, strict=True)]
                for row, a in zip(self.gram, roots, strict=True)
            ])  # fmt: skip
            return [value.real for value in matrix.eig()]


def near(rng: np.random.Generator, degree: int, dimension: int) -> FloatArray:
    """Points at distance 1e-1 to 1e-12 from a configuration whose H is singular."""
    count = -(-unknowns(degree, dimension) // dimension) + int(rng.integers(0, 4))
    points = rng.normal(size=(count, dimension))
    kind = int(rng.integers(0, 3))
    if kind == 0:  # on a hyperplane: x_1^2 times anything has no gradient there
        points[:, 0] = 0.0
    elif kind == 1:  # repeated points
        half = max(1, unknowns(degree, dimension) // dimension - 1)
        points = points[np.arange(count) % half]
    else:  # all but one on two subspaces
        middle = max(1, dimension // 2)
        points[::2, :middle] = 0.0
        points[1:-1:2, middle:] = 0.0
    return points + 10.0 ** rng.uniform(-12, -1) * rng.normal(size=points.shape)


def cases(count: int, share: float, seed: int) -> Iterator[tuple[IntArray, int, int]]:
    """(points, shift, degree): random, or with the given share nearly singular."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        degree, dimension = int(rng.integers(3, 6)), int(rng.integers(1, 5))
        if rng.random() < share and dimension > 1:
            points = near(rng, degree, dimension)
        else:
            least = -(-unknowns(degree, dimension) // dimension)
            points = rng.normal(size=(least + int(rng.integers(0, 8)), dimension))
        yield integer_points(points), SHIFT, degree


@pytest.mark.medium
def test_never_above_the_true_value() -> None:
    """1,000 cases: wherever the bound is positive, balls prove that sigma_min is larger."""
    small = well = sharp = zero = 0
    for points, shift, degree in cases(1000, 0.6, 1):
        found = bound_smallest_singular_value(points, shift, degree)
        if found.bound == 0.0:
            zero += 1
            assert found.estimate < 1e-5
            continue
        exact = Exact(points, shift, degree)
        assert exact.exceeds(Fraction(found.bound)) is True
        small += found.estimate < 1e-3
        if found.estimate > 1e-4:
            well += 1
            sharp += exact.exceeds(Fraction(found.bound) / Fraction(9, 10)) is False
    assert small > 50
    assert zero > 100
    assert sharp == well > 500


def singular_points(dimension: int, seed: int) -> IntArray:
    """Integer points on a hyperplane: H has no full rank, whatever rounding makes of it."""
    points = np.random.default_rng(seed).normal(size=(40, dimension))
    points[:, 0] = 0.0
    return integer_points(points)


@pytest.mark.parametrize("degree", [3, 4])
@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_without_the_rounding_errors_it_would_be_wrong(
    degree: int, dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H^T H with errors as adverse as their bound allows, which no processor makes by itself."""
    plain = singular._blocks

    def adverse(points: FloatArray, degree: int) -> Iterator[FloatArray]:
        blocks = list(plain(points, degree))
        squared = float(np.linalg.norm(np.concatenate(blocks), 2) ** 2)
        # Of sums of so many products: Higham 2002, section 3.1.
        error = 2.0**-53 * len(points) * min(points.shape[1], degree) * squared
        yield from blocks
        yield np.sqrt(error) * np.eye(blocks[0].shape[1])

    monkeypatch.setattr(singular, "_blocks", adverse)
    for seed in range(5):
        points = singular_points(dimension, seed)
        assert bound_smallest_singular_value(points, SHIFT, degree).bound == 0.0
        with monkeypatch.context() as patch:
            patch.setattr(singular, "_forming_error", lambda *given: 0.0)
            patch.setattr(singular, "_total_error", lambda *given: 0.0)
            assert bound_smallest_singular_value(points, SHIFT, degree).bound > 0.0


@pytest.mark.parametrize(
    ("degree", "dimension", "count"), [(4, 3, 5), (4, 4, 9), (3, 5, 7), (4, 5, 14)]
)
@pytest.mark.parametrize("seed", range(8))
def test_exceptional_numbers_of_points(degree: int, dimension: int, count: int, seed: int) -> None:
    """Alexander-Hirschowitz: as many equations as unknowns, and H is singular for all points."""
    points = np.random.default_rng(seed).normal(size=(count + 1, dimension))
    assert count * dimension >= unknowns(degree, dimension)
    singular_case = bound_smallest_singular_value(integer_points(points[:-1]), SHIFT, degree)
    assert singular_case.bound == singular_case.radius == 0.0
    assert singular_case.estimate < 1e-13
    assert "rounding" in singular_case.method
    assert bound_smallest_singular_value(integer_points(points), SHIFT, degree).bound > 0.0


@pytest.mark.parametrize(("degree", "dimension"), [(3, 2), (4, 2), (3, 3), (5, 2), (4, 3)])
@pytest.mark.parametrize("distance", [1.0, 1e-2, 1e-4])
def test_against_eigenvalues_in_balls(degree: int, dimension: int, distance: float) -> None:
    rng = np.random.default_rng(degree)
    points = rng.normal(size=(unknowns(degree, dimension), dimension))
    points[:, 0] *= distance
    exact = integer_points(points)
    found = bound_smallest_singular_value(exact, SHIFT, degree)
    with precision(400):
        values = Exact(exact, SHIFT, degree).eigenvalues()
        square = flint.arb(found.bound) ** 2
        assert all(value > square for value in values)
        smallest = min(float(value) for value in values) ** 0.5
    if smallest**2 > 100 * found.error:
        assert found.bound > 0.98 * smallest
        assert found.estimate == pytest.approx(smallest, rel=0.01)
    assert found.bound <= smallest


@pytest.mark.parametrize(("degree", "dimension"), [(2, 4), (3, 4), (5, 3), (20, 2), (9, 3)])
def test_every_rounding_bound_alone(degree: int, dimension: int) -> None:
    """Entries, Gram matrix and factor deviate by less than their bounds, and not by far less."""
    rng = np.random.default_rng(0)
    points = integer_points(rng.normal(size=(4 * degree + 9, dimension)))
    exact = Exact(points, SHIFT, degree)
    floats = np.ldexp(points.astype(np.float64), -SHIFT)
    matrix = hermite_matrix(floats, degree)
    gram = matrix.T @ matrix
    squared = singular._squared_norm_bound([np.abs(matrix)])
    true = float(np.linalg.norm(np.abs(matrix), 2)) ** 2
    assert true <= squared <= 1.1 * true
    with precision(1500):
        roots = [flint.arb(c).sqrt() for c in exact.multinomials]
        for row, expected in zip(matrix.tolist(), exact.rows, strict=True):
            for x, y, root in zip(row, expected, roots, strict=True):
                value = root * y / exact.scale
                assert abs(x - value) <= abs(value) * singular._gamma(2 * degree + 4)
        error = np.array([
            [float(flint.arb(x) - root * a * y / exact.scale**2)
             for x, y, a in zip(row, expected, roots, strict=True)]
            for row, expected, root in zip(gram.tolist(), exact.gram, roots, strict=True)
        ])  # fmt: skip
    forming = singular._forming_error(floats, degree, len(gram), squared)
    assert forming / 1e4 < np.linalg.norm(error, 2) <= forming
    trial = 0.5 * float(np.linalg.eigvalsh(gram)[0])
    lower = singular._factor(gram, trial)
    assert lower is not None
    shifted = gram - np.diag(np.full(len(gram), trial))
    with precision(400):
        product = flint.arb_mat(lower.tolist()) * flint.arb_mat(lower.T.tolist())
        left = np.array([float(x) for x in (product - flint.arb_mat(shifted.tolist())).entries()])
    bound = singular._total_error(0.0, gram, trial, lower)
    assert bound / 1e4 < np.linalg.norm(left.reshape(gram.shape), 2) <= bound


def test_subtraction_is_rounded_down() -> None:
    for shift, error in [(1.0, 2.0**-54), (1.0, 1e-17), (3e-7, 1e-23), (0.1, 0.3), (0.1, 0.1)]:
        result = singular._difference(shift, error)
        assert Fraction(result) <= max(Fraction(0), Fraction(shift) - Fraction(error))
    for shift, error in [(1.0, np.nan), (np.nan, 1.0), (1.0, np.inf), (np.inf, np.inf)]:
        assert singular._difference(shift, error) == 0.0


@pytest.mark.parametrize("shift", [0, 1, 20, 52, 53])
def test_other_shifts(shift: int) -> None:
    points = integer_points(np.random.default_rng(3).normal(size=(40, 3)), shift)
    found = bound_smallest_singular_value(points, shift, 4)
    assert found.bound > 0.1
    assert Exact(points, shift, 4).exceeds(Fraction(found.bound)) is True


@pytest.mark.parametrize("degree", [2, 3, 4, 5, 20])
def test_one_dimension(degree: int) -> None:
    """N = 1: sigma = sqrt(sum p^(2 alpha - 2))."""
    found = bound_smallest_singular_value(np.array([[2**40], [-(2**40)]]), 40, degree)
    assert 0.998 * 2**0.5 < found.bound < 2**0.5
    assert found.estimate == pytest.approx(2**0.5)


@pytest.mark.parametrize("shift", [150, 400, 1000])
def test_tiny_points_and_underflow(shift: int) -> None:
    """Entries, squares and pivots below the normal range give no false bound and no warning."""
    points = np.random.default_rng(0).integers(-9, 9, size=(30, 3))
    for degree in (2, 3, 7):
        found = bound_smallest_singular_value(points, shift, degree)
        if found.bound > 0.0:
            assert Exact(points, shift, degree).exceeds(Fraction(found.bound), 9000) is True
        assert np.isfinite([found.bound, found.estimate, found.error, found.radius]).all()
    assert found.bound == 0.0


def test_points_of_very_different_size() -> None:
    rng = np.random.default_rng(4)
    points = integer_points(rng.normal(size=(25, 3)))
    points[::2] >>= 30
    points[1] = 0
    found = bound_smallest_singular_value(points, SHIFT, 3)
    assert found.bound > 0.01
    assert Exact(points, SHIFT, 3).exceeds(Fraction(found.bound)) is True


def test_what_cannot_be_proved_says_why() -> None:
    rng = np.random.default_rng(5)
    few = bound_smallest_singular_value(integer_points(rng.normal(size=(4, 3))), SHIFT, 4)
    assert (few.bound, few.radius, few.estimate, few.error) == (0.0, 0.0, 0.0, 0.0)
    assert "12 for 15" in few.method
    large = bound_smallest_singular_value(integer_points(rng.normal(size=(150, 22))), SHIFT, 3)
    assert (large.bound, "2024" in large.method) == (0.0, True)
    steep = bound_smallest_singular_value(integer_points(rng.normal(size=(60, 2))), SHIFT, 21)
    assert (steep.bound, "degree 20" in steep.method) == (0.0, True)
    zero = bound_smallest_singular_value(np.zeros((9, 2), dtype=np.int64), SHIFT, 3)
    assert zero.bound == zero.estimate == 0.0
    assert bound_smallest_singular_value(np.zeros((0, 2), dtype=np.int64), SHIFT, 3).bound == 0.0


def test_bad_input() -> None:
    ones = np.ones((5, 2), dtype=np.int64)
    for points, shift, degree, name in [
        (np.ones((5, 2)), 0, 3, "points"),
        (ones[0], 0, 3, "points"),
        (ones[:, :0], 0, 3, "points"),
        (ones * -(2**63), SHIFT, 3, "points"),
        (ones * (2**53 + 1), 53, 3, "points"),
        (ones * 3, 0, 3, "points"),
        (ones, -1, 3, "shift"),
        (ones, 0, 1, "degree"),
    ]:
        with pytest.raises(InvalidInputError, match=f"^{name}: expected"):
            bound_smallest_singular_value(points, shift, degree)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_a_library_that_lets_bad_pivots_pass(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = scipy.linalg.cholesky

    def broken(matrix: FloatArray, **options: bool) -> FloatArray:
        lower = plain(matrix, **options)
        lower[-1, -1] = value
        return lower

    points = integer_points(np.random.default_rng(6).normal(size=(12, 3)))
    assert bound_smallest_singular_value(points, SHIFT, 3).bound > 0.0
    monkeypatch.setattr(scipy.linalg, "cholesky", broken)
    assert bound_smallest_singular_value(points, SHIFT, 3).bound == 0.0


def test_time_limit_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    points = integer_points(np.random.default_rng(7).normal(size=(30, 8)))
    late = bound_smallest_singular_value(points, SHIFT, 3, budget=Budget(float("-inf")))
    assert (late.bound, late.method[:10]) == (0.0, "time limit")
    shares: list[float] = []
    listening = Budget(progress=lambda _, share: shares.append(share))
    bound_smallest_singular_value(points, SHIFT, 3, budget=listening)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1] <= 1.0) == (0.0, True)
    assert estimate_seconds(3000, 2001) == estimate_seconds(100, 101) == 0.0
    assert 0.0 < estimate_seconds(200, 100) < estimate_seconds(2000, 1000)
    now = [0.0]
    monkeypatch.setattr(identify.budget, "time", SimpleNamespace(monotonic=lambda: now[0]))
    plain = bound_smallest_singular_value(points, SHIFT, 3, budget=Budget(0.25))
    assert plain.bound > 0.0
    monkeypatch.setattr(
        singular, "_forming_error", lambda *given: now.append(now.pop() + 0.3) or 0.0
    )
    found = bound_smallest_singular_value(points, SHIFT, 3, budget=Budget(0.25))
    assert (found.bound, found.method) == (0.0, "time limit reached")


def test_more_points_than_fit_use_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    points = integer_points(np.random.default_rng(8).normal(size=(40, 3)))
    monkeypatch.setattr(singular, "_MOST_NUMBERS", 20 * 3 * 10)
    found = bound_smallest_singular_value(points, SHIFT, 3)
    assert found.neurons == 20
    first = bound_smallest_singular_value(points[:20], SHIFT, 3)
    assert found.bound == pytest.approx(first.bound, rel=1e-9)


SHAPES = [(3, 2, 6), (3, 4, 9), (4, 3, 8), (5, 2, 9), (2, 3, 4)]


@pytest.mark.parametrize(("degree", "dimension", "count"), SHAPES)
def test_full_rank_within_the_radius(degree: int, dimension: int, count: int) -> None:
    """Random moves: H changes by less than the bound, and keeps its rank."""
    rng = np.random.default_rng(degree)
    exact = integer_points(rng.normal(size=(count, dimension)))
    points = np.ldexp(exact.astype(np.float64), -SHIFT)
    found = bound_smallest_singular_value(exact, SHIFT, degree)
    matrix = hermite_matrix(points, degree)
    for _ in range(200):
        move = rng.normal(size=points.shape)
        move *= found.radius / np.linalg.norm(move, axis=1, keepdims=True)
        moved = hermite_matrix(points + move, degree)
        assert np.linalg.norm(moved - matrix, 2) < found.bound
        assert np.linalg.matrix_rank(moved) == unknowns(degree, dimension)
    size = (degree - 1) * found.radius * count**0.5 * (1 + found.radius) ** (degree - 2)
    assert 0.999 * found.bound < size < found.bound * (1 + 1e-9)


@pytest.mark.parametrize("distance", [0.3, 1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize(("degree", "dimension", "count"), SHAPES)
def test_radius_ends_before_the_next_singular_points(
    degree: int, dimension: int, count: int, distance: float
) -> None:
    """Moving every point by the known distance onto a hyperplane loses rank."""
    rng = np.random.default_rng(degree)
    exact = integer_points(rng.normal(size=(count, dimension)))
    exact[:, 0] = 0
    assert bound_smallest_singular_value(exact, SHIFT, degree).bound == 0.0
    exact[:, 0] = np.rint(2.0**SHIFT * distance * rng.uniform(-1, 1, size=count))
    found = bound_smallest_singular_value(exact, SHIFT, degree)
    assert found.radius < np.max(np.abs(exact[:, 0])) / 2.0**SHIFT


def test_reach_by_exact_arithmetic() -> None:
    rng = np.random.default_rng(9)
    for _ in range(200):
        degree = int(rng.integers(2, 9))
        norms = rng.uniform(0.0, 1.5, size=int(rng.integers(1, 9)))
        norms[: int(rng.integers(0, norms.size + 1))] = 0.0
        sigma = float(10.0 ** rng.uniform(-9, 1))
        radius = Fraction(reach(norms, degree, sigma))
        changes = [
            sum(((degree - 1) * d * (Fraction(n) + d) ** (degree - 2)) ** 2 for n in norms.tolist())
            for d in (radius, radius * Fraction(10001, 10000))
        ]
        assert 0 < changes[0] < Fraction(sigma) ** 2 < changes[1]
    assert reach(np.ones(3), 3, 0.0) == reach(np.ones(3), 3, np.nan) == reach(np.ones(0), 3, 1) == 0
