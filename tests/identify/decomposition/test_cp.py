"""The second way to the terms: tensorly's CP, judged by our own residual."""

import numpy as np
import pytest

from identify.decomposition.cp import MAX_DIMENSION, cp_starts, slices
from identify.decomposition.decompose import decompose_tensor
from identify.errors import InvalidInputError
from identify.hermite.reduction import reduce_data
from identify.tensors import CoordinateTensor, monomials
from tests.identify.estimate import minimum_norm
from tests.identify.families import gradient_case, unit_rows


def problem(seed, n, m, degree, common=0.0):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(n, n + 2)) + common * rng.normal(size=n + 2)
    coefficients = rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 2.0, n)
    points = rng.normal(size=(m, n + 2))
    case = gradient_case("cp", points, rng.normal(size=m), unit_rows(samples), coefficients, degree)
    data = reduce_data(case.data, 1e-13)
    tensor = minimum_norm(data, 1e-13).tensor
    return data, tensor, samples


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_slices_are_contractions_of_the_terms(degree):
    rng = np.random.default_rng(degree)
    x, b = rng.normal(size=(3, 3)), rng.normal(size=3)
    tensor = CoordinateTensor(b @ monomials(x, degree), degree, 3)
    block = slices(tensor, np.eye(3), degree, seed=1)
    if degree == 3:
        assert np.allclose(block, np.einsum("i,ij,ik,il->jkl", b, x, x, x))
    flat = np.einsum("ij,ik->ijk", x, x).reshape(3, -1)
    left = block.reshape(9, -1) - flat.T @ np.linalg.lstsq(flat.T, block.reshape(9, -1))[0]
    assert np.linalg.norm(left) < 1e-12 * np.linalg.norm(block)


@pytest.mark.parametrize(
    ("n", "m", "degree", "common"),
    [(3, 20, 3, 0.0), (6, 40, 3, 1.0), (4, 40, 4, 0.0), (3, 40, 5, 0.0)],
)
@pytest.mark.parametrize("seed", range(2))
def test_both_ways_lead_to_the_same_terms(n, m, degree, common, seed):
    data, tensor, samples = problem(seed, n, m, degree, common)
    found = [
        decompose_tensor(data, tensor, accept=1e-12, seed=seed, method=method)
        for method in ("pencil", "tensorly")
    ]
    for each in found:
        assert each is not None
        assert each.residual < 1e-11
        cosines = np.abs(unit_rows(each.terms @ data.basis.T) @ unit_rows(samples).T)
        assert cosines.max(axis=0).min() > 1.0 - 1e-9


def test_a_stalled_start_is_seen_by_our_residual():
    """Of many starts some stall; their residual says so, and they are not the answer."""
    data, tensor, _ = problem(0, 10, 60, 3)
    residuals = [residual for residual, _, _ in cp_starts(data, tensor, starts=6)]
    assert max(residuals) > 1e-2
    best = decompose_tensor(data, tensor, accept=1e-11, method="tensorly")
    assert best is not None
    assert best.residual < 1e-10


def test_refusals():
    data, tensor, _ = problem(0, 3, 20, 3)
    with pytest.raises(InvalidInputError, match="pencil or tensorly"):
        decompose_tensor(data, tensor, accept=1e-12, method="magic")
    data, tensor, _ = problem(0, MAX_DIMENSION + 1, 30, 3)
    with pytest.raises(InvalidInputError, match="use the pencil"):
        decompose_tensor(data, tensor, accept=1e-12, method="tensorly")
