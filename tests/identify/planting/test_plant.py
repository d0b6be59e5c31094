"""Planted networks against definitions written out here, and against closed forms."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement
from math import comb, factorial

import numpy as np
import pytest

from identify.budget import Budget
from identify.errors import BudgetExceededError, InvalidInputError
from identify.planting.eigenvectors import eigen_system, real_eigenvectors, refine, search
from identify.planting.margins import balance, outputs
from identify.planting.plant import PlantedNetwork, PlantingError, plant_network

CASES = [
    pytest.param(degree, n, d, kind, seed, id=f"{kind}-{degree}-{n}x{d}-{seed}")
    for seed, (degree, n, d) in enumerate(
        [(3, 1, 4), (3, 2, 2), (3, 3, 9), (3, 5, 5), (3, 6, 40), (4, 3, 3), (4, 5, 30),
         (5, 3, 7), (5, 4, 64), (6, 3, 5), (7, 2, 3)]
    )
    for kind in ("regression", "margin")
]  # fmt: skip


def draw(n, d, seed, shared=0.5):
    """Correlated samples of different norms."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + shared * rng.normal(size=d)
    return x * np.exp(0.3 * rng.normal(size=(n, 1)))


def slow_output(network, x):
    """f(x), neuron by neuron."""
    return sum(
        a * float(w @ x) ** network.degree
        for a, w in zip(network.output_weight, network.hidden_weight, strict=True)
    )


def slow_residual(planted):
    """Largest relative defect of a neuron, from the stationarity equations as they are written."""
    network, alpha = planted.network, planted.network.degree
    b = planted.multipliers * planted.labels
    worst = 0.0
    for a, w in zip(network.output_weight, network.hidden_weight, strict=True):
        output, hidden = 0.0, np.zeros_like(w)
        for b_i, x in zip(b, planted.samples, strict=True):
            output += b_i * (w @ x) ** alpha
            hidden += alpha * a * b_i * (w @ x) ** (alpha - 1) * x
        defect = np.sqrt((a - output) ** 2 + np.sum((w - hidden) ** 2))
        worst = max(worst, defect / np.sqrt(a**2 + w @ w))
    return worst


def plain_hermite(points, degree):
    """d/du_k of every monomial sqrt(alpha!/k!) u^k over alpha, row by row: shape (m r, N)."""
    count, r = points.shape
    columns = list(combinations_with_replacement(range(r), degree))
    matrix = np.zeros((count * r, len(columns)))
    for column, factors in enumerate(columns):
        powers = np.bincount(factors, minlength=r)
        weight = np.sqrt(factorial(degree) / np.prod([factorial(p) for p in powers]))
        for j, u in enumerate(points):
            for axis in range(r):
                if powers[axis]:
                    lowered = powers.copy()
                    lowered[axis] -= 1
                    slope = powers[axis] * np.prod(u**lowered) / degree
                    matrix[j * r + axis, column] = weight * slope
    return matrix


def rotation(n, d, seed):
    """n orthonormal rows of R^d."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, n)))[0].T


@pytest.mark.parametrize(("degree", "n", "d", "kind", "seed"), CASES)
def test_every_equation_holds(degree, n, d, kind, seed):
    samples = draw(n, d, seed)
    planted = plant_network(samples, degree=degree, stationary=kind, seed=seed)
    assert planted.kind == kind
    np.testing.assert_array_equal(planted.samples, samples)
    assert slow_residual(planted) <= 1e-12
    assert planted.stationarity <= 1e-12
    assert np.all(planted.multipliers > 0)
    assert set(planted.labels) <= {-1.0, 1.0}
    values = np.array([slow_output(planted.network, x) for x in samples])
    np.testing.assert_allclose(planted.labels * values, planted.margins, rtol=1e-11)
    if kind == "margin":
        np.testing.assert_allclose(planted.margins, 1.0, rtol=1e-12)
        assert planted.targets is None
        assert planted.decay is None
        return
    # The gradient of the stated loss, mean (f - t)^2 / 2 + decay |theta|^2 / 2, vanishes.
    factor = (values - planted.targets) / n
    gradient = planted.network.gradient(samples, factor)
    force = planted.decay * planted.network.hidden_weight
    size = np.linalg.norm(force)
    # f - t cancels: what is left of float64 is relative to f.
    slack = np.max(np.abs(values)) / np.max(np.abs(values - planted.targets))
    assert np.linalg.norm(gradient.hidden_weight + force) <= 1e-12 * size * max(10.0, slack)
    assert planted.loss == "squared"


def test_balance_and_norms_are_those_of_a_stationary_point():
    planted = plant_network(draw(5, 8, 0), stationary="margin")
    network = planted.network
    norms = np.sum(network.hidden_weight**2, axis=1)
    np.testing.assert_allclose(norms, 3 * network.output_weight**2, rtol=1e-12)
    # sum_j a_j^2 = sum_i b_i f(x_i), which is the sum of the multipliers at unit margins.
    np.testing.assert_allclose(
        np.sum(network.output_weight**2), np.sum(planted.multipliers), rtol=1e-12
    )


def test_orthonormal_unit_margins_have_the_closed_form():
    n, x = 4, rotation(4, 11, 3)
    planted = plant_network(x, stationary="margin", labels=[1, -1, 1, 1])
    supports = [a for k in range(1, n + 1) for a in combinations(range(n), k)]
    assert planted.network.width == len(supports) == 15
    # lambda^2 = 3^(-3/2) sum over the supports that contain i of |A|^(-1/2).
    total = sum(comb(n - 1, k - 1) * k**-0.5 for k in range(1, n + 1))
    np.testing.assert_allclose(planted.multipliers, np.sqrt(3**-1.5 * total), rtol=1e-12)
    b = planted.coefficients
    for support in supports:
        height = sum(b[i] ** -2 for i in support)
        w = (3 * height) ** -0.25 * sum(x[i] / b[i] for i in support)
        a = sum(b[i] * (w @ x[i]) ** 3 for i in support)
        away = np.abs(planted.network.hidden_weight - w).max(axis=1)
        nearest = int(np.argmin(away))
        assert away[nearest] < 1e-12
        assert planted.network.output_weight[nearest] == pytest.approx(a, rel=1e-11)


def test_orthogonal_regression_has_one_neuron_for_each_support():
    x = rotation(5, 9, 1) * np.array([1.0, 2.0, 0.5, 1.5, 1.0])[:, None]
    planted = plant_network(x, stationary="regression", labels=np.ones(5))
    assert planted.network.width == 31
    found = {
        tuple(np.flatnonzero(np.abs(row) > 1e-9)) for row in planted.network.hidden_weight @ x.T
    }
    assert found == {a for k in range(1, 6) for a in combinations(range(5), k)}
    assert np.sqrt(np.mean(planted.margins**2)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("degree", "n", "shared", "kind"),
    [(3, 3, 0.3, "margin"), (3, 5, 0.3, "margin"), (3, 5, 2.0, "regression"),
     (4, 3, 0.3, "regression"), (4, 4, 0.5, "margin"), (5, 3, 0.3, "regression"),
     (3, 2, 0.3, "margin"), (3, 4, 3.0, "regression"), (5, 4, 3.0, "regression")],
)  # fmt: skip
def test_determined_agrees_with_a_dense_hermite_matrix(degree, n, shared, kind):
    samples = draw(n, n + 3, 7, shared)
    labels = None if kind == "margin" else np.ones(n)
    planted = plant_network(samples, degree=degree, stationary=kind, labels=labels)
    basis = np.linalg.qr(samples.T)[0]
    points = planted.network.hidden_weight @ basis
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    matrix = plain_hermite(points, degree)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    rank = int(np.count_nonzero(sigma > 1e-8 * sigma[0]))
    assert planted.required == matrix.shape[1] == comb(n + degree - 1, degree)
    assert planted.rank == rank
    assert planted.redundant == rank - n**2
    assert planted.determined == (rank == matrix.shape[1] and rank > n**2)
    if rank == matrix.shape[1]:
        assert planted.condition_number == pytest.approx(sigma[0] / sigma[-1], rel=1e-6)
    else:
        assert planted.condition_number is None


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["margin", "regression"])
@pytest.mark.parametrize("seed", range(4))
def test_determined_is_reached_for_correlated_samples(kind, seed):
    # Pairwise correlations near 0.5: with equal labels a cubic network has few neurons.
    samples = draw(6, 30, seed, shared=1.0)
    alike = plant_network(samples, stationary="regression", labels=np.ones(6), seed=seed)
    planted = plant_network(samples, stationary=kind, determined=True, seed=seed)
    assert planted.determined
    assert planted.network.width > alike.network.width
    assert slow_residual(planted) <= 1e-12


def test_labels_are_kept():
    samples, labels = draw(5, 12, 2, shared=0.2), np.array([1, 1, -1, -1, 1])
    for kind in ("margin", "regression"):
        planted = plant_network(samples, stationary=kind, labels=labels)
        np.testing.assert_array_equal(planted.labels, labels)
        assert planted.truth()["labels"].dtype == np.float64


def test_even_degree_plants_one_label():
    planted = plant_network(draw(4, 10, 1), degree=4, stationary="regression", determined=True)
    np.testing.assert_array_equal(planted.labels, 1.0)


def test_even_degree_never_mixes_orthogonal_samples_of_both_labels():
    planted = plant_network(np.eye(4), degree=4, labels=[1, 1, -1, -1], stationary="margin")
    assert np.all((np.abs(planted.network.hidden_weight) > 1e-9).sum(axis=1) <= 2)
    # Terms x1^2 x3^2 of T are in no equation: 4 of 35 monomials at least.
    assert planted.determined is False
    assert planted.rank <= 31


def test_auto_prefers_unit_margins_and_falls_back():
    samples = draw(5, 12, 0)
    assert plant_network(samples).kind == "margin"
    # T has one real eigenvector, and no single neuron has both margins 1 and both lambda > 0.
    close = np.array([[1.0, 0.0], [3.0, 0.3]])
    labels = [1, 1]
    with pytest.raises(PlantingError, match=r"\(margin\); try regression"):
        plant_network(close, labels=labels, stationary="margin")
    planted = plant_network(close, labels=labels)
    assert planted.kind == "regression"
    np.testing.assert_allclose(
        planted.targets,
        planted.network.value(close) + 2 * planted.decay * planted.coefficients,
        rtol=1e-12,
    )


def test_truth_holds_what_the_command_writes():
    planted = plant_network(draw(3, 4, 0), stationary="regression", decay=0.5)
    truth = planted.truth()
    assert list(truth) == ["samples", "labels", "multipliers", "margins", "targets"]
    assert planted.decay == 0.5
    shift = (truth["targets"] - planted.network.value(planted.samples)) / (3 * 0.5)
    np.testing.assert_allclose(shift, planted.coefficients, rtol=1e-9)
    assert "targets" not in plant_network(np.eye(2), stationary="margin").truth()


def test_same_seed_same_network():
    samples = draw(5, 8, 4)
    first, second = (plant_network(samples, seed=3) for _ in range(2))
    assert first.network.sha256() == second.network.sha256()
    assert isinstance(first, PlantedNetwork)
    assert first.seed == 3


def test_progress_and_time_limit():
    stages = []
    plant_network(
        np.eye(3),
        stationary="regression",
        progress=lambda stage, done: stages.append((stage, done)),
    )
    assert stages == [("planting (regression)", pytest.approx(1 / 24))]
    with pytest.raises(BudgetExceededError, match="time limit of 1e-09 s") as caught:
        plant_network(np.eye(3), time_limit=1e-9)
    assert caught.value.partial is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.ones((2, 3))}, "linearly independent rows, got rank 1 for 2 rows"),
        ({"samples": np.arange(12.0).reshape(4, 3)}, "rank 2 for 4 rows"),
        ({"samples": np.vstack([np.eye(2), [[1.0, 1e-9]]])}, "rank 2 for 3 rows"),
        ({"samples": np.array([[1.0, 0.0], [0.0, 0.0]])}, "a row of zeros"),
        ({"samples": np.ones(3)}, r"shape \(n, d\)"),
        ({"samples": np.zeros((0, 3))}, r"shape \(n, d\)"),
        ({"samples": np.array([[np.nan, 1.0]])}, "NaN"),
        ({"labels": [1, 0, 1]}, "labels: expected -1 and 1 only, got"),
        ({"labels": [1, 2, -1]}, "labels: expected -1 and 1 only, got"),
        ({"labels": [1, -1]}, r"labels: expected shape \(3,\)"),
        ({"degree": 2}, "degree: expected an integer of at least 3, got 2"),
        ({"degree": 3.5}, "degree: expected an integer of at least 3, got 3.5"),
        ({"stationary": "kkt"}, "stationary: expected auto, margin or regression, got 'kkt'"),
        ({"decay": 0.0}, "decay: expected a positive number"),
        ({"time_limit": 0.0}, "time_limit: expected a positive number"),
    ],
)
def test_bad_input(change, message):
    arguments = {"samples": np.eye(3), **change}
    with pytest.raises(InvalidInputError, match=message) as caught:
        plant_network(arguments.pop("samples"), **arguments)
    assert "\n" not in str(caught.value)


def test_impossible_requests_say_why():
    with pytest.raises(PlantingError, match="2 samples at degree 3 leave no redundant equation"):
        plant_network(np.eye(2), determined=True)
    with pytest.raises(PlantingError, match="N = 988260 is too large"):
        plant_network(rotation(180, 180, 0), determined=True)
    labels = [1, 1, -1, -1]
    with pytest.raises(PlantingError, match="no determined network found for 4 samples"):
        plant_network(np.eye(4), degree=4, labels=labels, determined=True)


@pytest.mark.parametrize(("correlation", "count"), [(0.2, 3), (0.32, 3), (0.34, 1), (0.6, 1)])
def test_a_pair_has_three_cubic_eigenvectors_below_correlation_one_third(correlation, count):
    samples = np.array([[1.0, 0.0], [correlation, np.sqrt(1 - correlation**2)]])
    assert len(real_eigenvectors(samples, [1.0, 1.0], 3)[0]) == count
    # For odd degree the opposite sign of b is the opposite correlation.
    assert len(real_eigenvectors(samples, [1.0, -1.0], 3)[0]) == 3


@pytest.mark.parametrize("degree", [3, 4, 5, 6])
@pytest.mark.parametrize(("n", "d"), [(4, 4), (3, 20), (7, 3)])
def test_eigenvectors_satisfy_their_equation(degree, n, d):
    rng = np.random.default_rng(degree)
    samples, b = 3.0 * rng.normal(size=(n, d)), rng.normal(size=n)
    vectors, values = real_eigenvectors(samples, b, degree, seed=1)
    slopes = (b * (vectors @ samples.T) ** (degree - 1)) @ samples
    r = min(n, d)
    assert 1 <= len(vectors) <= ((degree - 1) ** r - 1) // (degree - 2)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-13)
    error = np.linalg.norm(slopes - values[:, None] * vectors, axis=1)
    assert np.all(error <= 1e-10 * np.abs(values))
    assert np.all(np.diff(np.abs(values)) <= 1e-8 * np.abs(values[0]))
    cosines = np.abs(vectors @ vectors.T) - np.eye(len(vectors))
    assert np.max(cosines) < 1 - 1e-13
    if degree % 2:
        assert np.all(values > 0)


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("degree", [3, 4, 5])
def test_orthonormal_eigenvectors_are_all_found(degree, n):
    vectors, _ = real_eigenvectors(rotation(n, n + 2, n), np.ones(n), degree)
    assert len(vectors) == (2**n - 1 if degree % 2 else (3**n - 1) // 2)


@pytest.mark.parametrize(
    ("samples", "b", "degree", "message"),
    [
        (np.zeros((2, 2)), [1, 1], 3, "samples: expected"),
        (np.eye(2), [1, 0], 3, "coefficients: expected 2 numbers, none of them 0"),
        (np.eye(2), [1], 3, "coefficients: expected 2 numbers"),
        (np.eye(2), [1, 1], 2, "degree: expected at least 3, got 2"),
    ],
)
def test_bad_eigenvector_input(samples, b, degree, message):
    with pytest.raises(InvalidInputError, match=message):
        real_eigenvectors(samples, b, degree)


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_outputs_are_the_slopes_of_the_squared_output_weights(degree):
    # The envelope identity that the way to unit margins rests on, by central differences.
    samples = np.linalg.qr(draw(4, 6, degree).T)[1].T
    samples /= np.linalg.norm(samples, axis=1, keepdims=True)
    b = np.array([1.0, 1.2, 0.9, 1.1])
    system = search(samples, b, degree)

    def squares(coefficients):
        values = refine(samples, coefficients, degree, system.vectors).values
        return (degree ** (degree / 2) * np.abs(values)) ** (-2 / (degree - 1))

    for i, unit in enumerate(np.eye(4)):
        step = 1e-5 * unit
        slope = (squares(b + step) - squares(b - step)) / 2e-5
        expected = outputs(degree, system)[:, i]
        np.testing.assert_allclose(-0.5 * (degree - 1) * slope, expected, rtol=1e-5, atol=1e-7)


def test_balance_reaches_unequal_targets_or_gives_up():
    samples, y = np.eye(3), np.ones(3)
    vectors = search(samples, y, 3).vectors
    targets = np.array([1.0, 2.0, 0.7])
    result = balance(samples, y, y, 3, vectors, targets)
    assert result is not None
    system = eigen_system(samples, result.coefficients, 3, result.system.vectors)
    np.testing.assert_allclose(outputs(3, system).sum(axis=0), targets, rtol=1e-13)
    # Without the neurons that see sample 3 its margin cannot be reached.
    blind = vectors[np.abs(vectors[:, 2]) < 1e-9]
    assert balance(samples, y, y, 3, blind, targets) is None
    assert balance(samples, y, y, 3, vectors, targets, budget=Budget(0.0)) is None
