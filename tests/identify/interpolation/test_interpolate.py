"""Kernel form, MINRES, rank, conditioning and memory, against dense references."""

import tracemalloc

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork
from identify.budget import Budget
from identify.hermite.reduction import ReducedData, reduce_data
from identify.interpolation.gram import GramOperator, solve_gram
from identify.interpolation.interpolate import interpolate
from identify.interpolation.solvers import solve_tensor, stacked_target
from identify.numerical_rank import decide_rank
from identify.tensors import CoordinateTensor, hermite_matrix, monomials, symmetric_dimension
from tests.identify.estimate import estimate_samples, minimum_norm
from tests.identify.families import gradient_case, unit_rows

# Alexander & Hirschowitz 1995: (degree, r, m) where the rank is one less than counted.
EXCEPTIONS = [(4, 3, 5), (4, 4, 9), (4, 5, 14), (3, 5, 7)]


def plain_hermite_matrix(points: np.ndarray, degree: int) -> np.ndarray:
    """Columns T(u^(degree-1), .) of an orthonormal basis of Sym^degree, by full tensors."""
    r = points.shape[1]
    rows = []
    for index in np.ndindex(*(r,) * degree):
        if list(index) != sorted(index):
            continue
        tensor = np.zeros((r,) * degree)
        orbit = {tuple(np.array(index)[list(p)]) for p in _permutations(degree)}
        for entry in orbit:
            tensor[entry] = 1.0 / np.sqrt(len(orbit))
        values = []
        for u in points:
            part = tensor
            for _ in range(degree - 1):
                part = part @ u
            values.append(part)
        rows.append(np.concatenate(values))
    return np.array(rows).T


def _permutations(count: int) -> list[tuple[int, ...]]:
    from itertools import permutations

    return list(permutations(range(count)))


def random_points(rng: np.random.Generator, m: int, r: int) -> np.ndarray:
    return unit_rows(rng.normal(size=(m, r)))


@pytest.mark.parametrize("degree", [3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_hermite_matrix_and_kernel_form_agree_with_full_tensors(degree: int, seed: int) -> None:
    rng = np.random.default_rng([degree, seed])
    m, r = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    points = random_points(rng, m, r)
    fast, slow = hermite_matrix(points, degree), plain_hermite_matrix(points, degree)
    assert fast.shape == (m * r, symmetric_dimension(degree, r))
    assert np.allclose(fast @ fast.T, slow @ slow.T, atol=1e-13)
    gram = GramOperator(degree, points)
    dense = np.column_stack([gram.apply(e) for e in np.eye(m * r)])
    assert np.allclose(dense, slow @ slow.T, atol=1e-13)


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_kernel_form_with_value_rows_and_weights(degree: int) -> None:
    rng = np.random.default_rng(degree)
    points, extra = random_points(rng, 5, 3), random_points(rng, 4, 3)
    w, v = rng.uniform(0.1, 1, 5), rng.uniform(0.1, 1, 4)
    gram = GramOperator(degree, points, w, extra, v)
    matrix = np.vstack(
        [
            hermite_matrix(points, degree) * np.repeat(w, 3)[:, None],
            monomials(extra, degree) * v[:, None],
        ]
    )
    dense = np.column_stack([gram.apply(e) for e in np.eye(gram.size)])
    assert np.allclose(dense, matrix @ matrix.T, atol=1e-13)
    z = rng.normal(size=gram.size)
    coordinates = CoordinateTensor(matrix.T @ z, degree, 3)
    direction = rng.normal(size=3)
    assert np.allclose(gram.tensor(z).contract(direction), coordinates.contract(direction))
    centres, heights = random_points(rng, 6, 3), rng.normal(size=6)
    assert np.allclose(
        gram.forward(centres, heights), matrix @ (monomials(centres, degree).T @ heights)
    )
    assert np.allclose(
        gram.tensor(z).evaluate(centres), monomials(centres, degree) @ coordinates.coordinates
    )


@pytest.mark.parametrize(("degree", "r", "m"), EXCEPTIONS)
def test_alexander_hirschowitz_exceptions(degree: int, r: int, m: int) -> None:
    rng = np.random.default_rng(1)
    needed = symmetric_dimension(degree, r)
    for points, expected in (
        (random_points(rng, m, r), min(m * r, needed) - 1),
        (random_points(rng, m + 1, r), needed),
    ):
        sigma = np.linalg.svd(hermite_matrix(points, degree), compute_uv=False)
        assert decide_rank(sigma, 1e-12).rank == expected


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_minres_solves_singular_and_inconsistent_systems(noise: float) -> None:
    """K is singular and noise makes it inconsistent: the solution is the least-squares one."""
    rng = np.random.default_rng(2)
    points = random_points(rng, 40, 6)
    matrix = hermite_matrix(points, 3)
    truth = rng.normal(size=matrix.shape[1])
    target = matrix @ truth + noise * rng.normal(size=len(matrix))
    gram = GramOperator(3, points)
    found = solve_gram(gram, target, tolerance=1e-13)
    coordinates = matrix.T @ found.vector
    best = np.linalg.lstsq(matrix, target, rcond=None)[0]
    assert np.linalg.norm(coordinates - best) < 1e-7 * np.linalg.norm(best)
    assert np.linalg.norm(coordinates - truth) <= 10 * noise * np.sqrt(matrix.size) + 1e-9


def reduced(case_seed: int, n: int, m: int, degree: int, d: int = 15) -> ReducedData:
    rng = np.random.default_rng(case_seed)
    case = gradient_case(
        "plain", rng.normal(size=(m, d)), rng.normal(size=m), rng.normal(size=(n, d)),
        rng.normal(size=n), degree,
    )  # fmt: skip
    return reduce_data(case.data, 1e-13)


@pytest.mark.parametrize(("n", "m", "degree"), [(6, 14, 3), (9, 28, 3), (5, 20, 4), (4, 20, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_kernel_path_agrees_with_dense_path(n: int, m: int, degree: int, seed: int) -> None:
    data = reduced(seed, n, m, degree)
    dense = interpolate(data, 1e-13, method="dense")
    kernel = interpolate(data, 1e-13, method="kernel")
    assert dense.determined is True
    assert kernel.determined is True
    assert dense.rank == kernel.rank == symmetric_dimension(degree, n)
    solved = solve_tensor(data, kernel, tolerance=1e-14)
    assert dense.tensor is not None
    assert solved.tensor is not None
    direction = np.random.default_rng(seed).normal(size=n)
    expected = dense.tensor.contract(direction)
    scale = np.linalg.norm(expected)
    assert np.linalg.norm(solved.tensor.contract(direction) - expected) < 1e-9 * scale
    assert dense.condition_number is not None
    assert kernel.condition_number is not None
    assert 0.2 < kernel.condition_number / dense.condition_number < 1.1


def test_counting_comes_before_solving(monkeypatch: pytest.MonkeyPatch) -> None:
    data = reduced(0, 12, 20, 3)
    assert data.equations < symmetric_dimension(3, 12)
    for name in ("GramOperator", "hermite_matrix", "probe_rank"):
        monkeypatch.setattr(
            f"identify.interpolation.solvers.{name}", lambda *given: pytest.fail("solved")
        )
    linear = interpolate(data, 1e-13, method="kernel")
    assert linear.method == "counting"
    assert linear.determined is False
    assert linear.gram is None


@pytest.mark.parametrize("position", ["exceptional", "in a subspace"])
def test_probe_finds_a_kernel(position: str) -> None:
    """A kernel that counting cannot see is never called full rank."""
    rng = np.random.default_rng(3)
    if position == "exceptional":
        points, degree = random_points(rng, 14, 5), 4
    else:
        points = unit_rows(rng.normal(size=(60, 4)) @ rng.normal(size=(4, 5)))
        degree = 3
    data = reduced(0, 5, len(points), degree)
    fields = dict(data.__dict__)
    fields.update(points=points, weights=np.ones(len(points)))
    broken = ReducedData(**fields)
    assert interpolate(broken, 1e-13, method="kernel").determined is not True
    dense = interpolate(broken, 1e-13, method="dense")
    assert dense.determined is False
    assert dense.rank < symmetric_dimension(degree, 5)


def test_flat_and_value_conditions_are_counted_and_implied() -> None:
    """I-value => I-flat => I-hermite on random points of growing number."""
    rng = np.random.default_rng(4)
    seen = set()
    for m in range(4, 40, 3):
        case = gradient_case(
            "plain", rng.normal(size=(m, 4)), rng.normal(size=m), rng.normal(size=(4, 4)),
            rng.normal(size=4), 3,
        )  # fmt: skip
        linear = interpolate(reduce_data(case.data, 1e-13), 1e-13)
        flat, value = linear.flat[1] == linear.flat[0], linear.value[1] == linear.value[0]
        hermite = bool(linear.determined)
        assert not (value and not flat)
        assert not (flat and not hermite)
        seen.add((value, flat, hermite))
    assert len(seen) == 4


def test_matrix_free_path_stays_within_memory() -> None:
    """No array above 8 max(N, m^2, m d) numbers: here even the peak of all arrays together."""
    rng = np.random.default_rng(5)
    n, m, d = 40, 420, 2000
    samples = unit_rows(rng.normal(size=(n, d)))
    network = TwoLayerNetwork(rng.normal(size=(m, d)), rng.normal(size=m), degree=3)
    data = HermiteData.from_gradient(network, network.gradient(samples, rng.normal(size=n)))
    limit = 8 * max(symmetric_dimension(3, n), m * m, m * d)
    assert m * n * symmetric_dimension(3, n) > 3e7
    estimate_samples(data)
    tracemalloc.start()
    recovered = estimate_samples(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / 8 < limit
    assert np.abs(recovered @ samples.T).max(axis=0).min() > 1 - 1e-12


def test_deadline_returns_a_partial_solution() -> None:
    data = reduced(0, 20, 150, 3, d=25)
    linear = minimum_norm(data, 1e-13)
    assert linear.gram is not None
    target = stacked_target(data, linear.gram.weights, linear.gram.value_weights)
    found = solve_gram(linear.gram, target, tolerance=1e-15, budget=Budget(float("-inf")))
    assert 0.0 < found.residual < 1.0
    assert found.products < 20
