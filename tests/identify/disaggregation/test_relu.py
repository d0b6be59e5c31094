"""The operator L against its definition, and its kernel against a dense eigenproblem."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import linalg

from identify.budget import Budget
from identify.disaggregation.factor import factor
from identify.disaggregation.relu import Operator, build_operator, find_kernel
from identify.errors import BudgetExceededError

from .problems import plant


def slow_value(operator: Operator, j: int, z, p, quadratic) -> float:
    """Row j of L, weighted, term by term."""
    u, a, s = operator.basis[j], operator.amplitudes[j], operator.leak
    total = 0.0
    for i in range(len(u)):
        for k in range(len(u)):
            total += u[i] * z[i, k] * u[k]
        for c in range(len(a)):
            total -= (1 + s) * u[i] * p[i, c] * a[c]
    for c in range(len(a)):
        for d in range(len(a)):
            total += s * a[c] * quadratic[c, d] * a[d]
    return float(operator.weights[j] * total)


def slow_noise(operator: Operator, z, p) -> float:
    """sum_j w_j^2 (2 Z u_j - (1 + s) P A_j)^T S (2 Z u_j - (1 + s) P A_j)."""
    total = 0.0
    for u, a, w in zip(operator.basis, operator.amplitudes, operator.weights, strict=True):
        slope = 2 * z @ u - (1 + operator.leak) * p @ a
        total += w**2 * float(slope @ (operator.metric * slope))
    return total


def random_operator(seed: int, m: int, r: int, q: int, leak: float) -> Operator:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(m, r)))[0]
    return build_operator(basis, rng.uniform(0.5, 2, r), rng.normal(size=(m, q)), leak)


def symmetric(rng, count: int, size: int) -> np.ndarray:
    x = rng.normal(size=(count, size, size))
    return x + x.transpose(0, 2, 1)


@pytest.mark.parametrize("leak", [0.0, 0.3, -0.2])
@pytest.mark.parametrize(("m", "r", "q"), [(7, 1, 1), (9, 3, 1), (12, 2, 3), (20, 4, 2)])
def test_rows_are_those_of_the_definition(m, r, q, leak):
    operator = random_operator(m, m, r, q, leak)
    rng = np.random.default_rng(r)
    z, p = symmetric(rng, 5, r), rng.normal(size=(5, r, q))
    quadratic = symmetric(rng, 5, q) if leak else np.zeros((5, q, q))
    vectors = operator.pack(z, p, quadratic)
    assert vectors.shape == (operator.unknowns, 5)
    for old, new in zip((z, p, quadratic), operator.unpack(vectors), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-14)
    expected = np.array(
        [[slow_value(operator, j, z[b], p[b], quadratic[b]) for b in range(5)] for j in range(m)]
    )
    np.testing.assert_allclose(operator.apply(vectors), expected, atol=1e-12)
    right = rng.normal(size=(m, 2))
    np.testing.assert_allclose(operator.adjoint(right).T @ vectors, right.T @ expected, atol=1e-11)
    form = vectors.T @ operator.noise_form(vectors)
    np.testing.assert_allclose(form, form.T, atol=1e-10)
    for b in range(5):
        assert form[b, b] == pytest.approx(slow_noise(operator, z[b], p[b]), rel=1e-10)


def dense_kernel(operator: Operator) -> np.ndarray:
    """All generalised singular values by a dense eigenproblem; L has full column rank here."""
    rows = np.concatenate([block for _, block in operator.chunks()])
    form = operator.noise_form(np.eye(operator.unknowns))
    values = linalg.eigh(form, rows.T @ rows, eigvals_only=True)
    return np.sqrt(1.0 / values[values > 1e-12 * values.max()])[::-1]


@pytest.mark.parametrize("leak", [0.0, 0.2])
@pytest.mark.parametrize(("m", "r", "q"), [(30, 3, 1), (60, 4, 3), (80, 8, 1)])
def test_values_are_those_of_the_dense_eigenproblem(m, r, q, leak):
    operator = random_operator(m + 1, m, r, q, leak)
    kernel = find_kernel(operator)
    dense = dense_kernel(operator)
    np.testing.assert_allclose(kernel.values[: r + 1], dense[: r + 1], rtol=0.02)
    rows = np.concatenate([block for _, block in operator.chunks()])
    moved = np.linalg.norm(rows @ kernel.vectors, axis=0)
    form = np.diag(kernel.vectors.T @ operator.noise_form(kernel.vectors))
    np.testing.assert_allclose((moved / np.sqrt(form))[: r + 1], kernel.values[: r + 1], rtol=1e-6)
    plain = np.sort(np.linalg.svd(rows, compute_uv=False))
    assert kernel.plain == pytest.approx(plain[r], rel=0.05)


@pytest.mark.parametrize(("sizes", "activation"), [
    ([12, 60, 1], "relu"), ([12, 90, 3], "relu"), ([12, 90, 2], "leaky_relu:0.2"),
])  # fmt: skip
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_kernel_is_spanned_by_the_samples(sizes, activation, noise):
    problem = plant(sizes, 4, 3, activation)
    g = problem.gradient.layer(0)
    g = g + noise * np.linalg.norm(g) / np.sqrt(g.size) * np.random.default_rng(0).normal(
        size=g.shape
    )
    found = factor(g)
    leak = problem.network.activations[0].kink
    operator = build_operator(found.columns, found.values, problem.network.weights[1].T, leak)
    kernel = find_kernel(operator)
    delta = problem.network.backward(problem.network.forward(problem.samples), problem.cotangents)
    z = found.columns.T @ delta[0].T
    planted = operator.pack(
        np.einsum("ai,bi->iab", z, z),
        np.einsum("ai,ic->iac", z, problem.cotangents),
        np.einsum("ic,id->icd", problem.cotangents, problem.cotangents),
    )
    space = np.linalg.qr(kernel.vectors[:, :4])[0]
    outside = planted - space @ (space.T @ planted)
    limit = 1e4 * noise + 1e-8
    assert np.max(np.linalg.norm(outside, axis=0) / np.linalg.norm(planted, axis=0)) < limit
    assert kernel.values[3] < 10 * found.noise
    assert kernel.values[4] > 100 * found.noise


def test_a_deadline_ends_the_work():
    with pytest.raises(BudgetExceededError):
        find_kernel(random_operator(0, 40, 5, 1, 0.0), budget=Budget(time.monotonic() - 1.0))


def test_progress_is_told():
    stages = []
    budget = Budget(progress=lambda stage, _: stages.append(stage))
    find_kernel(random_operator(0, 40, 5, 1, 0.0), budget=budget)
    assert {"normal matrix", "Cholesky", "kernel"} <= set(stages)
