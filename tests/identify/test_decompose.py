"""Pencil and refinement against the truth and against tensorly's CP as a second method."""

import warnings

import numpy as np
import pytest

from identify.decompose import (
    decompose_tensor,
    fit_coefficients,
    pencil_starts,
    refine,
    start_terms,
)
from identify.equations import HermiteEquations
from identify.interpolation import interpolate
from identify.reduction import ReducedData, reduce_data
from tests.identify.families import Case, gradient_case, unit_rows


def example(seed: int, n: int, m: int, degree: int, zero_outputs: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    output = rng.normal(size=m)
    output[:zero_outputs] = 0.0
    return gradient_case(
        "plain", rng.normal(size=(m, n + 3)), output, rng.normal(size=(n, n + 3)),
        rng.normal(size=n), degree,
    )  # fmt: skip


def largest_error(terms: np.ndarray, data: ReducedData, samples: np.ndarray) -> float:
    found, truth = unit_rows(terms @ data.basis.T), unit_rows(samples)
    cosines = found @ truth.T
    best = np.abs(cosines).argmax(axis=0)
    signs = np.sign(cosines[best, np.arange(len(truth))])
    return float(np.linalg.norm(found[best] * signs[:, None] - truth, axis=1).max())


@pytest.mark.parametrize("degree", [3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_recovers_the_samples(degree: int, seed: int) -> None:
    n = 3 + seed
    case = example(seed, n, {3: 30, 4: 60, 5: 90}[degree], degree)
    data = reduce_data(case.data, 1e-13)
    linear = interpolate(data, 1e-13)
    assert linear.tensor is not None
    found = decompose_tensor(data, linear.tensor, accept=1e-12)
    assert found is not None
    assert found.residual < 1e-13
    assert case.samples is not None
    assert largest_error(found.terms, data, case.samples) < 1e-10


def test_value_rows_count() -> None:
    """Neurons without output weight give their value: without them the rank is too small."""
    case = example(1, 4, 14, 3, zero_outputs=8)
    data = reduce_data(case.data, 1e-13)
    assert data.neurons == 6
    assert len(data.value_targets) == 8
    linear = interpolate(data, 1e-13)
    assert linear.determined is True
    assert linear.tensor is not None
    found = decompose_tensor(data, linear.tensor, accept=1e-12)
    assert found is not None
    assert case.samples is not None
    assert largest_error(found.terms, data, case.samples) < 1e-10


@pytest.mark.medium
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_tensorly(seed: int) -> None:
    """tensorly's CP of the full tensor, kept only if its own residual is small."""
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import parafac

    # Alternating least squares needs samples that are not too correlated.
    rng = np.random.default_rng(seed)
    ortho, _ = np.linalg.qr(rng.normal(size=(7, 4)))
    samples = ortho.T + 0.1 * rng.normal(size=(4, 7))
    case = gradient_case(
        "plain", rng.normal(size=(20, 7)), rng.normal(size=20), samples,
        rng.choice([-1.0, 1.0], 4), 3,
    )  # fmt: skip
    data = reduce_data(case.data, 1e-13)
    linear = interpolate(data, 1e-13)
    assert linear.tensor is not None
    full = np.stack([linear.tensor.contract(axis) for axis in np.eye(data.dimension)])
    best, kept = np.inf, None
    for start in range(8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cp = parafac(
                tensorly.tensor(full), rank=4, n_iter_max=3000, tol=1e-15, init="random",
                random_state=start,
            )  # fmt: skip
        residual = float(np.linalg.norm(tensorly.cp_to_tensor(cp) - full) / np.linalg.norm(full))
        if residual < best:
            best, kept = residual, np.asarray(cp.factors[0]).T
        if best < 1e-10:
            break
    assert best < 1e-6
    found = decompose_tensor(data, linear.tensor, accept=1e-12)
    assert found is not None
    assert kept is not None
    cosines = np.abs(unit_rows(found.terms) @ unit_rows(kept).T)
    assert np.all(cosines.max(axis=1) > 1 - 1e-8)


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_jacobian_forms_agree(degree: int) -> None:
    """Dense, operator and normal matrix against central differences, with value rows."""
    case = example(2, 4, 15, degree, zero_outputs=5)
    data = reduce_data(case.data, 1e-13)
    rng = np.random.default_rng(degree)
    terms = rng.normal(size=(3, data.dimension))
    signs = np.ones(3) if degree % 2 else rng.choice([-1.0, 1.0], 3)
    system = HermiteEquations(data, signs)
    dense = system.jacobian(terms)
    step = 1e-6
    columns = [
        (
            system.residual(terms + step * e.reshape(terms.shape))
            - system.residual(terms - step * e.reshape(terms.shape))
        )
        / (2 * step)
        for e in np.eye(terms.size)
    ]
    assert np.allclose(dense, np.column_stack(columns), atol=1e-6 * np.abs(dense).max())
    operator = system.operator(terms)
    x, y = rng.normal(size=terms.size), rng.normal(size=len(dense))
    assert np.allclose(operator.matvec(x), dense @ x)
    assert np.allclose(operator.rmatvec(y), dense.T @ y)
    assert np.allclose(system.normal_matrix(terms), dense.T @ dense)


def test_coefficients_by_least_squares() -> None:
    case = example(3, 4, 20, 4)
    data = reduce_data(case.data, 1e-13)
    assert case.samples is not None
    assert case.coefficients is not None
    directions = unit_rows(case.samples @ data.basis)
    b = fit_coefficients(data, directions) * data.tensor_scale
    expected = case.coefficients * np.linalg.norm(case.samples, axis=1) ** 4
    assert np.allclose(b, expected, rtol=1e-8)


@pytest.mark.parametrize("solver", ["dense", "normal", "iterative"])
def test_refinement_by_every_solver(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answer from QR, normal equations and LSMR."""
    if solver != "dense":
        monkeypatch.setattr("identify.decompose._DENSE_NUMBERS", 0)
    if solver == "iterative":
        monkeypatch.setattr("identify.decompose._ITERATIVE", 0)
        monkeypatch.setattr("identify.decompose._NORMAL_LIMIT", 0)
    case = example(4, 6, 40, 3)
    data = reduce_data(case.data, 1e-13)
    assert case.samples is not None
    rng = np.random.default_rng(0)
    directions = unit_rows(unit_rows(case.samples @ data.basis) + 0.02 * rng.normal(size=(6, 6)))
    found = refine(data, *start_terms(data, directions))
    assert found.residual < 1e-13
    assert largest_error(found.terms, data, case.samples) < 1e-10


def test_more_samples_than_dimensions_leave_a_residual() -> None:
    """n > r: the flattening still has rank r, and only the residual tells."""
    rng = np.random.default_rng(6)
    case = gradient_case(
        "n > d", rng.normal(size=(40, 4)), rng.normal(size=40), rng.normal(size=(7, 4)),
        rng.normal(size=7), 3,
    )  # fmt: skip
    data = reduce_data(case.data, 1e-13)
    linear = interpolate(data, 1e-13)
    assert linear.tensor is not None
    assert len(pencil_starts(data, linear.tensor)) > 0
    found = decompose_tensor(data, linear.tensor, accept=1e-12)
    assert found is not None
    assert found.residual > 1e-3
