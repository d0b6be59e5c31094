"""The equations of degree 3 against their definition, and where they decide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import linalg

import identify
from identify.budget import UNLIMITED
from identify.disaggregation.cubic import build_cubic, count_rows, count_unknowns
from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.printed import prove_printed
from identify.disaggregation.problem import pose
from identify.disaggregation.relu import build_operator, find_kernel

from .problems import plant

SHAPES = [(7, 1, 1), (9, 3, 1), (8, 2, 3), (10, 4, 2)]


def random_cubic(seed, m, r, q, leak):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(m, r)))[0]
    return build_cubic(build_operator(basis, rng.uniform(0.5, 2, r), rng.normal(size=(m, q)), leak))


def stored(operator, tensors):
    """Entries as they are stored: the transpose of the slices is their inverse."""
    quadratic, r = operator.quadratic, operator.rank
    q = quadratic.amplitudes.shape[1]
    total = np.zeros((operator.unknowns, len(tensors)))
    for c in range(r + q):
        part = tensors[:, c]
        packed = quadratic.pack(part[:, :r, :r], part[:, :r, r:], part[:, r:, r:])
        total[operator.slots[c]] += operator.scales[c][:, None] * packed
    return total


def symmetric_tensors(rng, count, r, q, leak):
    raw = rng.normal(size=(count, r + q, r + q, r + q))
    tensors = sum(raw.transpose(0, *(1 + np.array(order))) for order in
                  itertools.permutations(range(3)))  # fmt: skip
    if not leak:
        tensors[:, r:, r:, r:] = 0.0
    return tensors


@pytest.mark.parametrize("leak", [0.0, 0.3])
@pytest.mark.parametrize(("m", "r", "q"), SHAPES)
def test_rows_are_the_equations_times_each_unknown(m, r, q, leak):
    operator = random_cubic(m, m, r, q, leak)
    assert operator.unknowns == count_unknowns(r, q, leaky=bool(leak))
    tensors = symmetric_tensors(np.random.default_rng(r), 4, r, q, leak)
    u, a, w = operator.quadratic.basis, operator.quadratic.amplitudes, operator.quadratic.weights
    expected = np.zeros((m, r + q, 4))
    for j, c, b in itertools.product(range(m), range(r + q), range(4)):
        part = tensors[b, c]
        value = u[j] @ part[:r, :r] @ u[j] - (1 + leak) * u[j] @ part[:r, r:] @ a[j]
        expected[j, c, b] = w[j] * (value + leak * a[j] @ part[r:, r:] @ a[j])
    vectors = stored(operator, tensors)
    np.testing.assert_allclose(operator.apply(vectors), expected.reshape(-1, 4), atol=1e-11)
    right = np.random.default_rng(0).normal(size=(m * (r + q), 2))
    np.testing.assert_allclose(
        operator.adjoint(right).T @ vectors, right.T @ operator.apply(vectors), atol=1e-10
    )
    dense = operator.apply(np.eye(operator.unknowns))
    np.testing.assert_allclose(operator.normal(UNLIMITED), dense.T @ dense, atol=1e-11)


@pytest.mark.parametrize("leak", [0.0, 0.3])
@pytest.mark.parametrize(("m", "r", "q"), SHAPES)
def test_the_norm_is_that_of_the_slices(m, r, q, leak):
    operator = random_cubic(m, m, r, q, leak)
    vectors = np.random.default_rng(1).normal(size=(operator.unknowns, 5))
    slices = operator.slices(vectors)
    np.testing.assert_allclose(
        np.sum(slices**2, axis=(0, 1)), np.sum(vectors**2, axis=0), rtol=1e-12
    )
    form = sum(
        slices[:, c].T @ operator.quadratic.noise_form(slices[:, c]) for c in range(slices.shape[1])
    )
    np.testing.assert_allclose(vectors.T @ operator.noise_form(vectors), form, atol=1e-10)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_an_error_of_the_column_space_does_no_more_than_for_degree_2(leak):
    rng = np.random.default_rng(5)
    basis, a = np.linalg.qr(rng.normal(size=(30, 4)))[0], rng.normal(size=(30, 2))
    moved = basis + 1e-3 * rng.normal(size=basis.shape)
    pair = [build_operator(part, np.ones(4), a, leak) for part in (basis, moved)]
    norms = []
    for one, other in (pair, [build_cubic(part) for part in pair]):
        unit = np.eye(one.unknowns)
        norms.append(np.linalg.norm(one.apply(unit) - other.apply(unit), 2))
    assert norms[1] <= norms[0] * (1 + 1e-12)


@pytest.mark.parametrize("leak", [0.0, 0.2])
def test_values_are_those_of_the_dense_eigenproblem(leak):
    operator = random_cubic(3, 40, 3, 2, leak)
    kernel = find_kernel(operator)
    unit = np.eye(operator.unknowns)
    dense, form = operator.apply(unit), operator.noise_form(unit)
    values = linalg.eigh(form, dense.T @ dense, eigvals_only=True)
    expected = np.sqrt(1.0 / values[values > 1e-12 * values.max()])[::-1]
    np.testing.assert_allclose(kernel.values[:4], expected[:4], rtol=0.02)
    singular = np.sort(np.linalg.svd(dense, compute_uv=False))
    assert kernel.plain == pytest.approx(singular[3], rel=0.05)


@pytest.mark.parametrize(
    ("sizes", "count", "activation"),
    [
        ([40, 40, 10], 6, "relu"), ([40, 25, 60, 10], 8, "relu"), ([30, 40, 4], 7, "relu"),
        ([30, 34, 3], 7, "leaky_relu:0.2"), ([60, 600, 1], 48, "relu"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(2))
def test_a_third_of_the_neurons_is_enough(sizes, count, activation, seed):
    problem = plant(sizes, count, seed, activation)
    loss = "cross_entropy" if sizes[-1] > 1 else None
    result = disaggregate(problem.network, problem.gradient, loss, prove=False)
    operator_rows = count * (count + 1) // 2 + count * (max(1, sizes[-1] - 1) - 1)
    assert sizes[-2] < operator_rows
    if sizes[-1] == 1:
        # D = 22,000: not formed.
        assert (result.verdict, result.kernel.rows_needed) == ("undecided", operator_rows)
        return
    assert (result.verdict, result.kernel.degree) == ("globally", 3)
    apart = np.linalg.norm(result.samples[:, None] - problem.samples, axis=2)
    assert apart.min(axis=0).max() < 1e-8


@pytest.mark.parametrize("short", [1, 4])
def test_fewer_neurons_than_the_count_are_named(short):
    rows = count_rows(6, 9, leaky=False)
    problem = plant([40, rows - short, 10], 6, 1)
    result = disaggregate(problem.network, problem.gradient, "cross_entropy")
    assert (result.verdict, result.samples) == ("undecided", None)
    assert f"too few rows: {rows} neurons" in result.reason


@pytest.mark.parametrize("seed", range(6))
def test_the_value_off_the_kernel_is_that_of_the_dense_matrix_down_to_rounding(seed):
    """Rows near the count: where the kernel is larger, its excess must not pass for a gap."""
    problem = plant([20, 39 + seed % 3, 2], 12, seed)
    operator = build_cubic(pose(
        problem.network, problem.gradient, None, None, samples=None, seed=0
    ).operator)  # fmt: skip
    dense = np.linalg.svd(operator.apply(np.eye(operator.unknowns)), compute_uv=False)
    dense = np.sort(np.concatenate([dense, np.zeros(max(0, operator.unknowns - len(dense)))]))
    found = find_kernel(operator).plain
    assert found <= 2.0 * max(dense[12], 1e-14)
    assert found >= 0.5 * dense[12] or dense[12] < 1e-13


def exact_rank(a, p, masks, leak):
    """Rank of the float64 matrix of the equations in the basis of the samples, cubes left out."""
    n, q = p.shape
    x = (a @ p.T) * np.where(masks, 1.0, leak)
    monomials = {}
    rows = []
    for j in range(len(a)):
        line = np.concatenate([x[j], a[j]])
        for c in range(n + q):
            row = {}
            for i, k in itertools.combinations_with_replacement(range(n + q), 2):
                if i >= n and not leak:
                    continue
                factor = 1.0 if i == k else 2.0
                factor = factor if k < n else -(1 + leak) if i < n else leak * factor
                name = tuple(sorted((i, k, c)))
                row[monomials.setdefault(name, len(monomials))] = factor * line[i] * line[k]
            rows.append(row)
    matrix = np.zeros((len(rows), len(monomials)))
    for at, row in enumerate(rows):
        matrix[at, list(row)] = list(row.values())
    kept = [at for name, at in monomials.items() if not (name[0] == name[2] < n)]
    return np.linalg.matrix_rank(matrix[:, kept]), len(kept)


@pytest.mark.parametrize("leak", [0.0, 0.25])
@pytest.mark.parametrize(("n", "q", "rows"), [(2, 1, 8), (3, 1, 14), (3, 2, 16), (4, 3, 24)])
@pytest.mark.parametrize("equal", [False, True])
def test_the_proof_of_degree_3_is_the_rank(n, q, rows, leak, equal):
    rng = np.random.default_rng([n, q])
    a, p, masks = rng.normal(size=(rows, q)), rng.normal(size=(n, q)), rng.random((rows, n)) < 0.5
    if equal:
        masks[:, 1], p[1] = masks[:, 0], 2.0 * p[0]
    rank, required = exact_rank(a, p, masks, leak)
    proof = prove_printed(a, p, masks, leak, degree=3)
    assert (proof.required, proof.rank) == (required, rank)
    assert proof.holds == (rank == required)


def test_near_duplicates_whose_masks_differ_in_two_neurons_are_told_apart():
    """Degree 2 leaves a larger kernel there; the truth is one set."""
    decided = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        problem = plant([12, 110, 4], 4, seed)
        x = problem.samples.copy()
        step = rng.normal(size=12)
        for size in np.geomspace(1e-3, 1.0, 60):
            x[1] = x[0] + size * step
            z = problem.network.forward(x).preactivations[0] > 0
            if (z[0] != z[1]).sum() >= 2:
                break
        report = identify.assess_gradient(
            problem.network, problem.network.gradient(x, rng.normal(size=(4, 4)))
        )
        if report.verdict == "globally":
            decided += 1
            apart = np.linalg.norm(report.found.samples[:, None] - x, axis=2)
            assert apart.min(axis=0).max() < 1e-5
    assert decided >= 3


def test_a_proof_of_too_many_columns_is_left_out():
    rng = np.random.default_rng(0)
    a, p, masks = rng.normal(size=(300, 9)), rng.normal(size=(30, 9)), rng.random((300, 30)) < 0.5
    proof = prove_printed(a, p, masks, 0.0, degree=3)
    assert proof.holds is None
    assert "too large" in proof.method
