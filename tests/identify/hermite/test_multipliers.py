"""Multipliers of given samples against dense least squares and known gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.multipliers import fit_multipliers
from identify.hermite.stationarity import target_of
from identify.model.two_layer import TwoLayerNetwork


def draw(seed, degree=3, bias=False, m=9, d=5, n=4):
    """A random network and samples."""
    rng = np.random.default_rng(seed)
    network = TwoLayerNetwork(
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        degree,
        hidden_bias=rng.normal(size=m) if bias else None,
    )
    return network, rng.normal(size=(n, d)), rng


def dense(network, samples):
    """One column grad f(x_i) for each sample."""
    columns = []
    for sample in samples:
        part = network.gradient(sample[None], [1.0])
        columns.append(np.concatenate([part.points.ravel(), part.output_weight]))
    return np.stack(columns, axis=1)


def stacked(data):
    """The right-hand side in the order of `dense`."""
    rows, values = target_of(data)
    return np.concatenate([rows.ravel(), values])


@pytest.mark.parametrize("degree", [3, 4, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_a_gradient_gives_its_coefficients_back(degree, bias):
    network, x, rng = draw(degree, degree, bias)
    b = rng.normal(size=4)
    data = HermiteData.from_gradient(network, network.gradient(x, b))
    for labels in (None, np.sign(b)):
        fit = fit_multipliers(data, x, labels)
        assert np.allclose(fit.coefficients, b, rtol=1e-10)
        assert fit.residual < 1e-13
        assert fit.unique
        assert fit.redundant == 9 * (6 if bias else 5) - 4
        sizes = np.linalg.norm(dense(network, x), axis=0)
        assert np.allclose(fit.contributions, np.abs(b) * sizes / np.linalg.norm(stacked(data)))


@pytest.mark.parametrize("seed", range(6))
def test_data_of_other_samples_against_dense_solvers(seed):
    network, x, rng = draw(seed, 3 + seed % 2, bool(seed % 3), n=6)
    data = HermiteData.from_gradient(network, network.gradient(rng.normal(size=(3, 5)), np.ones(3)))
    matrix, target = dense(network, x), stacked(data)
    fit = fit_multipliers(data, x)
    reference = np.linalg.lstsq(matrix, target)[0]
    assert np.allclose(fit.coefficients, reference, rtol=1e-8, atol=1e-10)
    y = rng.choice([-1.0, 1.0], size=6)
    fit = fit_multipliers(data, x, y)
    shares, gap = scipy.optimize.nnls(matrix * y, target)
    assert np.allclose(fit.coefficients * y, shares, rtol=1e-8, atol=1e-10)
    assert np.array_equal(fit.coefficients != 0.0, shares > 0.0)
    assert fit.residual == pytest.approx(gap / np.linalg.norm(target))


def test_an_exhausted_solver_has_a_stand_in(monkeypatch):
    network, x, _ = draw(7)
    b = np.array([1.0, 2.0, 0.0, 3.0])
    data = HermiteData.from_gradient(network, network.gradient(x, b))

    def stop(*_, **__):
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(scipy.optimize, "nnls", stop)
    fit = fit_multipliers(data, x, np.ones(4))
    assert np.allclose(fit.coefficients, b, atol=1e-9)


def test_nearly_parallel_samples_keep_their_digits():
    network, x, rng = draw(8, m=50, d=30, n=1)
    x = x + 1e-4 * rng.normal(size=(6, 30))
    assert np.linalg.cond(dense(network, x)) > 1e4
    b = rng.uniform(1.0, 2.0, size=6)
    data = HermiteData.from_gradient(network, network.gradient(x, b))
    for labels in (None, np.ones(6)):
        fit = fit_multipliers(data, x, labels)
        assert np.allclose(fit.coefficients, b, rtol=1e-9)
        assert fit.residual < 1e-13


@pytest.mark.parametrize("degree", [3, 4])
def test_parallel_samples_share_one_column(degree):
    network, x, _ = draw(9, degree)
    x = np.vstack([x, -1.7 * x[1], x[1]])
    b = np.array([1.0, 2.0, -1.0, 0.5, 0.25, 1.0])
    data = HermiteData.from_gradient(network, network.gradient(x, b))
    fit = fit_multipliers(data, x)
    assert fit.groups.tolist() == [0, 1, 2, 3, 1, 1]
    assert fit.residual < 1e-13
    assert fit.unique
    factors = np.array([1.0, (-1.7) ** degree, 1.0])
    parts = fit.coefficients[[1, 4, 5]] * factors
    assert parts.sum() == pytest.approx(b[[1, 4, 5]] @ factors)
    assert np.allclose(parts, parts[0])
    assert np.allclose(fit.coefficients[[0, 2, 3]], b[[0, 2, 3]])
    # Labels leave only those members whose sign fits; (-1.7 x, -1) is (x, 1) at odd degree.
    labels = np.array([1.0, 1.0, -1.0, 1.0, (-1.0) ** degree, -1.0])
    known = network.gradient(x[:5], (np.abs(b) * labels)[:5])
    data = HermiteData.from_gradient(network, known)
    fit = fit_multipliers(data, x, labels)
    assert fit.residual < 1e-13
    assert np.all(fit.coefficients * labels >= 0.0)
    assert fit.coefficients[5] == 0.0


def test_opposite_parallel_samples_cancel():
    network, x, _ = draw(10)
    x = np.vstack([x, x[0]])
    data = HermiteData.from_gradient(network, network.gradient(x[1:4], [1.0, 2.0, 3.0]))
    fit = fit_multipliers(data, x, np.array([1.0, 1.0, 1.0, 1.0, -1.0]))
    assert np.allclose(fit.coefficients, [0, 1, 2, 3, 0], atol=1e-10)
    assert np.all(fit.contributions[[0, 4]] < 1e-12)


def test_samples_that_no_neuron_sees():
    network, x, rng = draw(11)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    visible = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    flat = TwoLayerNetwork(network.hidden_weight * visible @ turn, network.output_weight, 3)
    x, b = x * visible @ turn, np.array([1.0, -2.0, 3.0, 4.0])
    data = HermiteData.from_gradient(flat, flat.gradient(x, b))
    # Orthogonal to every neuron up to rounding only.
    x = np.vstack([x, np.zeros(5), turn[4]])
    assert np.any(flat.hidden_weight @ x[5])
    for labels in (None, np.array([1.0, -1.0, 1.0, 1.0, 1.0, 1.0])):
        fit = fit_multipliers(data, x, labels)
        assert np.allclose(fit.coefficients, [*b, 0.0, 0.0])
        assert fit.unique


def test_more_samples_than_equations_are_not_checkable():
    network, x, rng = draw(12, m=4, d=3, n=30)
    data = HermiteData.from_gradient(network, network.gradient(rng.normal(size=(5, 3)), np.ones(5)))
    fit = fit_multipliers(data, x)
    assert fit.residual < 1e-12
    assert fit.redundant == 4 * 3 - 10  # 10 is the dimension of cubic forms in 3 variables
    assert not fit.unique
    network, x, rng = draw(12, m=2, d=4, n=30)
    data = HermiteData.from_gradient(network, network.gradient(rng.normal(size=(5, 4)), np.ones(5)))
    assert fit_multipliers(data, x).redundant == 0


def test_repeated_neurons_give_no_equations():
    network, x, _ = draw(13, m=3)
    double = TwoLayerNetwork(
        np.vstack([network.hidden_weight, -network.hidden_weight]), np.ones(6), 3
    )
    data = HermiteData.from_gradient(double, double.gradient(x, np.ones(4)))
    assert fit_multipliers(data, x).redundant == 3 * 5 - 4


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_units_do_not_matter(size):
    network, x, _ = draw(14)
    b = np.array([1.0, -2.0, 3.0, 4.0])
    small = TwoLayerNetwork(size * network.hidden_weight, size * network.output_weight, 3)
    data = HermiteData.from_gradient(small, small.gradient(x, b))
    assert np.allclose(fit_multipliers(data, x).coefficients, b)
    data = HermiteData.from_gradient(network, network.gradient(x, b))
    fit = fit_multipliers(data, size * x)
    assert np.allclose(fit.coefficients, b / size**3)


def test_weight_decay_and_fine_tuning_targets():
    network, x, _ = draw(15)
    data = HermiteData.from_weight_decay(network, 0.5)
    rows, values = target_of(data)
    assert np.array_equal(rows, 0.5 * network.hidden_weight)
    assert np.array_equal(values, 0.5 * network.output_weight)
    b = 1e-7 * np.array([1.0, -2.0, 3.0, 4.0])
    step = network.gradient(x, b)
    final = TwoLayerNetwork(
        network.hidden_weight + step.hidden_weight, network.output_weight + step.output_weight, 3
    )
    fit = fit_multipliers(HermiteData.from_fine_tuning(network, final), x)
    assert np.allclose(fit.coefficients, b, rtol=1e-4)
    assert 1e-12 < fit.residual < 1e-4


def test_too_many_samples():
    network, _, _ = draw(16)
    data = HermiteData.from_weight_decay(network)
    with pytest.raises(InvalidInputError, match="at most 5000, got 5001"):
        fit_multipliers(data, np.ones((5001, 5)))
