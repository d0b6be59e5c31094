"""Rank proofs against plain elimination over the rational numbers, and against theorems."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb
from types import SimpleNamespace

import flint
import numpy as np
import pytest
import sympy

import identify.budget
from identify import InvalidInputError
from identify.budget import Budget
from identify.proofs import rank as exact
from identify.proofs.rank import (
    estimate_bytes,
    estimate_seconds,
    modular_hermite_matrix,
    prove_rank,
    round_points,
)
from identify.tensors import exponents, hermite_matrix, symmetric_dimension
from tests.identify.families import unit_rows

MERSENNE = 2**31 - 1
EXCEPTIONAL = [(4, 3, 5), (4, 4, 9), (4, 5, 14), (3, 5, 7)]


def gradient_rows(points: np.ndarray, degree: int) -> list[list[int]]:
    """Gradients of all monomials in Python integers, straight from their definition."""
    r = points.shape[1]
    table = [k for k in product(range(degree + 1), repeat=r) if sum(k) == degree]
    rows = []
    for u in points.tolist():
        for axis in range(r):
            row = []
            for k in table:
                value = k[axis]
                for other, power in enumerate(k):
                    value *= u[other] ** max(power - (other == axis), 0)
                row.append(value)
            rows.append(row)
    return rows


def reference_rank(rows: list[list[int]]) -> int:
    """Rank over the rational numbers by Gaussian elimination with fractions."""
    work = [[Fraction(entry) for entry in row] for row in rows]
    rank = 0
    for column in range(len(work[0])):
        pivot = next((i for i in range(rank, len(work)) if work[i][column]), None)
        if pivot is None:
            continue
        work[rank], work[pivot] = work[pivot], work[rank]
        for i in range(rank + 1, len(work)):
            if work[i][column]:
                factor = work[i][column] / work[rank][column]
                work[i] = [a - factor * b for a, b in zip(work[i], work[rank], strict=True)]
        rank += 1
    return rank


def integers(count: int, r: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-size, size, (count, r), endpoint=True)


def numerical_rank(points: np.ndarray, degree: int) -> int:
    rows = unit_rows(points[points.any(axis=1)].astype(np.float64))
    return int(np.linalg.matrix_rank(hermite_matrix(rows, degree), tol=1e-9))


def check_leading(proof: exact.RankProof, points: np.ndarray, degree: int) -> None:
    """The claim of a full proof, by another route: pivots of the first points modulo the prime."""
    matrix = modular_hermite_matrix(points[: proof.neurons], degree, proof.prime)
    reduced = flint.nmod_mat(*matrix.shape, matrix.ravel().tolist(), proof.prime)
    assert reduced.rref()[1] == proof.required


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_the_matrix_holds_the_derivatives_of_all_monomials(degree: int) -> None:
    points = integers(3, 3, 2**44, degree)
    x = sympy.symbols("x:3")
    table = exponents(degree, 3).tolist()
    monomials = [sympy.prod([v**k for v, k in zip(x, row, strict=True)]) for row in table]
    slopes = sympy.lambdify([x], [[sympy.diff(f, v) for f in monomials] for v in x], "math")
    rows = [row for u in points.tolist() for row in slopes(u)]
    for prime in (7, MERSENNE):
        matrix = modular_hermite_matrix(points, degree, prime)
        assert matrix.dtype == np.int64
        assert matrix.tolist() == [[entry % prime for entry in row] for row in rows]


@pytest.mark.parametrize("size", [1, 3, 2**44], ids=["tiny", "small", "44 bits"])
@pytest.mark.parametrize(
    ("degree", "r"), [(3, 1), (3, 2), (3, 3), (3, 4), (4, 2), (4, 3), (5, 2), (5, 3)]
)
def test_the_rank_is_that_of_plain_elimination(degree: int, r: int, size: int) -> None:
    required = symmetric_dimension(degree, r)
    fewest = -(-required // r)
    for seed, count in enumerate({1, fewest - 1, fewest, fewest + 1, fewest + 4} - {0}):
        points = integers(count, r, size, 10 * degree + seed)
        proof = prove_rank(points, degree, seed=seed)
        rank = reference_rank(gradient_rows(points, degree))
        assert proof.required == required
        assert proof.outcome == ("full" if rank == required else "deficient")
        assert proof.rank == (rank if count >= fewest else count * r)
        if proof.outcome == "full":
            check_leading(proof, points, degree)
        else:
            assert proof.prime is None


@pytest.mark.parametrize(("degree", "r", "count"), EXCEPTIONAL)
def test_the_exceptional_cases_are_proved_deficient(degree: int, r: int, count: int) -> None:
    """Alexander & Hirschowitz 1995: one less than expected, for any points."""
    required = symmetric_dimension(degree, r)
    assert count * r >= required
    points = integers(count, r, 2**44, 0)
    proof = prove_rank(points, degree)
    assert (proof.outcome, proof.rank) == ("deficient", required - 1)
    assert (proof.prime, proof.neurons) == (None, count)
    assert "rational" in proof.method
    more = prove_rank(integers(count + 1, r, 2**44, 1), degree)
    assert (more.outcome, more.rank) == ("full", required)


@pytest.mark.parametrize(
    ("degree", "r"),
    [(3, 2), (3, 3), (3, 4), (3, 6), (3, 8), (4, 2), (4, 6), (5, 3), (5, 4), (5, 5), (6, 3)],
)
def test_generic_points_have_full_rank_as_soon_as_counting_allows(degree: int, r: int) -> None:
    required = symmetric_dimension(degree, r)
    fewest = -(-required // r)
    points = round_points(unit_rows(np.random.default_rng(r).normal(size=(fewest, r))), 44)
    assert prove_rank(points, degree).outcome == "full"
    fewer = prove_rank(points[:-1], degree)
    assert (fewer.outcome, fewer.rank) == ("deficient", (fewest - 1) * r)
    assert fewer.method == f"{(fewest - 1) * r} equations for {required} unknowns"


@pytest.mark.parametrize(("r", "count"), [(3, 2), (4, 3), (6, 4), (6, 5)])
def test_quadrics_are_always_defective(r: int, count: int) -> None:
    proof = prove_rank(integers(count, r, 1000, 0), 2)
    assert (proof.outcome, proof.rank) == ("deficient", count * r - comb(count, 2))


def degenerate(kind: str, r: int, seed: int) -> np.ndarray:
    """Integer points with linear relations that hold exactly."""
    rng = np.random.default_rng(seed)
    if kind == "generic":
        return integers(30, r, 50, seed)
    if kind == "hyperplane":
        return integers(30, r - 1, 9, seed) @ rng.integers(-9, 10, (r - 1, r))
    if kind == "few directions":
        return rng.integers(1, 9, (30, 1)) * np.tile(integers(3, r, 50, seed), (10, 1))
    if kind == "two planes":
        points = integers(30, r, 50, seed)
        points[:15, 0] = 0
        points[15:, 1] = 0
        return points
    axes = np.eye(r, dtype=np.int64)
    return np.concatenate(
        [axes, axes[:, None, :].repeat(r, 1).reshape(-1, r) + np.tile(axes, (r, 1))]
    )


KINDS = ["generic", "hyperplane", "few directions", "two planes", "pairs of axes"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("degree", "r"), [(3, 3), (3, 5), (4, 3), (4, 4), (5, 3)])
def test_exact_and_numerical_ranks_agree(degree: int, r: int, kind: str) -> None:
    points = degenerate(kind, r, degree + r)
    proof = prove_rank(points, degree)
    assert proof.rank == numerical_rank(points, degree)
    assert proof.outcome == ("full" if proof.rank == proof.required else "deficient")
    if kind in ("hyperplane", "few directions"):
        assert proof.outcome == "deficient"


def test_rounding_breaks_relations_that_hold_for_real_numbers_only() -> None:
    """The statement is about the integers, and says so: nearly dependent is independent."""
    rng = np.random.default_rng(0)
    points = unit_rows(rng.normal(size=(12, 3)) @ rng.normal(size=(3, 4)))
    assert np.linalg.matrix_rank(hermite_matrix(points, 3), tol=1e-9) < 20
    assert prove_rank(round_points(points, 44), 3).outcome == "full"


def square_case() -> tuple[np.ndarray, int]:
    """Points with a square matrix of non-zero determinant, and a prime that divides it."""
    for seed in range(100):
        points = integers(2, 2, 99, seed)
        determinant = int(flint.fmpz_mat(gradient_rows(points, 3)).det())
        factors = [p for p in sympy.primefactors(determinant) if p > 3] if determinant else []
        if factors:
            return points, factors[0]
    raise AssertionError("no determinant has a prime factor above 3")


def test_a_second_prime_rescues_a_prime_that_divides_the_determinant() -> None:
    points, bad = square_case()
    proof = prove_rank(points, 3, primes=[bad, MERSENNE])
    assert (proof.outcome, proof.rank, proof.prime) == ("full", 4, MERSENNE)


def test_a_third_prime_is_used_and_a_single_one_suffices() -> None:
    """Points that lie in hyperplanes modulo 7 and modulo 11, and nowhere else."""
    points = integers(10, 4, 99, 0)
    points[:, 0] *= 77
    assert prove_rank(points, 3, primes=[7, 11, 13]).prime == 13
    assert prove_rank(points, 3, primes=[13]).prime == 13
    over_rationals = prove_rank(points, 3, primes=[7, 11])
    assert (over_rationals.outcome, over_rationals.rank) == ("full", 20)
    assert over_rationals.prime is None


def test_modular_ranks_alone_never_prove_a_deficiency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "EXACT_COLUMNS", 10)
    points = integers(10, 4, 99, 0)
    points[:, 0] *= 77
    proof = prove_rank(points, 3, primes=[7, 11])
    assert proof.outcome == "undecided"
    assert proof.prime in (7, 11)
    matrix = modular_hermite_matrix(points[: proof.neurons], 3, proof.prime)
    assert flint.nmod_mat(*matrix.shape, matrix.ravel().tolist(), proof.prime).rank() == proof.rank
    assert proof.rank < proof.required == 20
    for degree, r, count in EXCEPTIONAL:
        proof = prove_rank(integers(count, r, 2**44, 0), degree)
        assert (proof.outcome, proof.rank) == ("undecided", proof.required - 1)
        assert "no rank over the rational numbers" in proof.method


def test_leading_points_are_enough_where_they_are_generic() -> None:
    points = integers(400, 4, 2**44, 0)
    proof = prove_rank(points, 3)
    assert proof.outcome == "full"
    assert proof.neurons * 4 <= 20 + 12
    check_leading(proof, points, 3)


@pytest.mark.parametrize("repeated", [8, 30, 100])
def test_more_points_are_used_where_the_leading_ones_do_not_suffice(repeated: int) -> None:
    points = integers(120, 4, 2**44, 0)
    points[:repeated] = points[0]
    proof = prove_rank(points, 3)
    assert proof.outcome == "full"
    assert repeated < proof.neurons <= 120
    check_leading(proof, points, 3)


def test_the_rank_survives_scaling_order_and_integer_changes_of_basis() -> None:
    for points in (degenerate("two planes", 4, 1), degenerate("hyperplane", 4, 1)):
        rng = np.random.default_rng(5)
        basis = np.triu(rng.integers(-3, 4, (4, 4)), 1) + np.eye(4, dtype=np.int64)
        moved = rng.permutation(points * rng.integers(1, 9, (len(points), 1))) @ basis
        first, second = prove_rank(points, 4), prove_rank(moved, 4)
        assert (first.outcome, first.rank) == (second.outcome, second.rank)


def test_primes_come_from_the_seed() -> None:
    points = integers(8, 3, 2**44, 0)
    primes = [prove_rank(points, 3, seed=seed).prime for seed in (0, 0, 1, 2)]
    assert primes[0] == primes[1]
    assert len(set(primes)) == 3
    for prime in primes:
        assert 2**30 < prime < 2**31
        assert sympy.isprime(prime)


def stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on it is 0.0 s for the product, so that only its estimates count."""
    monkeypatch.setattr(identify.budget, "time", SimpleNamespace(monotonic=lambda: 0.0))


def test_a_time_limit_leaves_out_steps_that_would_outlast_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_the_clock(monkeypatch)
    large = integers(700, 60, 2**44, 0)
    with monkeypatch.context() as patch:
        patch.setattr(flint, "nmod_mat", lambda *shape: pytest.fail(f"a matrix of {shape}"))
        proof = prove_rank(large, 3, budget=Budget(5.0))
    assert (proof.outcome, proof.rank, proof.prime) == ("undecided", 0, None)
    assert "more than the time that is left" in proof.method
    small = integers(8, 3, 2**44, 0)
    assert prove_rank(small, 3, budget=Budget(-1.0)).outcome == "undecided"
    assert prove_rank(small, 3, budget=Budget(60.0)).outcome == "full"
    assert prove_rank(small[:2], 3, budget=Budget(-1.0)).outcome == "deficient"


def test_a_time_limit_keeps_the_rank_found_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_EXACT_ELIMINATE", 1e3)
    stop_the_clock(monkeypatch)
    proof = prove_rank(integers(7, 5, 99, 0), 3, budget=Budget(60.0))
    assert (proof.outcome, proof.rank, proof.required) == ("undecided", 34, 35)
    assert proof.prime is not None
    assert "more than the time that is left" in proof.method


def test_progress_rises_to_one_in_every_stage() -> None:
    seen: list[tuple[str, float]] = []
    budget = Budget(progress=lambda stage, share: seen.append((stage, share)))
    prove_rank(integers(7, 5, 99, 0), 3, budget=budget)
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == ["rank modulo a prime", "rank over the rational numbers"]
    shares = [share for stage, share in seen if stage == stages[1]]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    modular = [share for stage, share in seen if stage == stages[0]]
    assert modular.count(1.0) == 2
    assert all(0.0 <= share <= 1.0 for share in modular)


def test_an_error_of_the_watcher_passes_through() -> None:
    def stop(stage: str, share: float) -> None:
        raise RuntimeError(stage)

    with pytest.raises(RuntimeError, match="rank modulo a prime"):
        prove_rank(integers(8, 3, 99, 0), 3, budget=Budget(progress=stop))


def test_the_number_of_threads_of_flint_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flint.ctx, "threads", 1)
    prove_rank(integers(8, 3, 99, 0), 3)
    assert flint.ctx.threads == 1


@pytest.mark.parametrize("shift", [0, 10, 44, 52])
def test_rounding_is_to_the_nearest_integer(shift: int) -> None:
    points = unit_rows(np.random.default_rng(shift).normal(size=(20, 4)))
    rounded = round_points(points, shift)
    assert rounded.dtype == np.int64
    for p, whole in zip(points.ravel().tolist(), rounded.ravel().tolist(), strict=True):
        assert abs(Fraction(p) * 2**shift - whole) <= Fraction(1, 2)


def test_estimates_grow_with_the_columns_and_stop_at_square() -> None:
    for estimate in (estimate_seconds, estimate_bytes):
        values = [estimate(n, n) for n in (20, 120, 1540, 4960)]
        assert values == sorted(values)
        assert values[0] > 0
        assert estimate(10**6, 120) == estimate(120, 120)
        assert estimate(60, 120) < estimate(120, 120)
    assert estimate_bytes(4960, 4960) > 2 * 8 * 4960**2


GOOD = integers(8, 3, 99, 0)


@pytest.mark.parametrize(
    ("points", "degree", "options", "message"),
    [
        (GOOD / 2, 3, {}, "points: expected integers that fit in int64, got float64; see"),
        (GOOD.astype(np.uint64), 3, {}, "points: expected integers that fit in int64, got uint64"),
        (GOOD > 0, 3, {}, "points: expected integers that fit in int64, got bool"),
        (GOOD[0], 3, {}, r"points: expected an array of shape \(points, dimension\), got \(3,\)"),
        (GOOD[:0], 3, {}, r"points: expected an array of shape .*, got \(0, 3\)"),
        (GOOD, 1, {}, "degree: expected at least 2, got 1"),
        (GOOD, 3, {"primes": []}, "primes: expected at least one prime, got none"),
        (GOOD, 3, {"primes": [3]}, "prime: expected a prime number above 3 and below 2.31, got 3"),
        (GOOD, 3, {"primes": [7, 9]}, "prime: expected a prime number .*, got 9"),
        (GOOD, 3, {"primes": [2**31 + 11]}, "prime: expected a prime number .*, got 2147483659"),
        (GOOD, 3, {"primes": [-7]}, "prime: expected a prime number .*, got -7"),
        (GOOD, 3, {"seed": -1}, "seed: expected a non-negative integer, got -1"),
    ],
)
def test_bad_input_is_named(points, degree, options, message) -> None:
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        prove_rank(points, degree, **options)


@pytest.mark.parametrize(
    ("points", "shift", "message"),
    [
        (np.eye(2), 53, "shift: expected 0 to 52, got 53"),
        (np.eye(2), -1, "shift: expected 0 to 52, got -1"),
        (2 * np.eye(2), 44, "points: expected norms of at most 1, got 2.0"),
        (np.array([[np.nan, 0.0]]), 44, "points: expected norms of at most 1, got nan"),
        (np.array([[np.inf, 0.0]]), 44, "points: expected norms of at most 1, got inf"),
        (np.ones(3), 44, r"points: expected an array of shape .*, got \(3,\)"),
    ],
)
def test_bad_points_are_not_rounded(points, shift, message) -> None:
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        round_points(points, shift)
