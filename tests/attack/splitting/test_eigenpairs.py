"""Batched smallest eigenpairs against dense eigenvalues, for hard spectra, in both precisions."""

from __future__ import annotations

import math

import pytest
import torch

from attack.splitting.eigenpairs import (
    EXACT_LIMIT,
    EigenSearch,
    extreme_eigenpairs,
    smallest_eigenpairs,
)
from identify.errors import InvalidInputError

torch.set_num_threads(1)


def rotated(spectra, seed):
    """Symmetric matrices (m, D, D) with the given spectra (m, D) in random bases."""
    generator = torch.Generator().manual_seed(seed)
    count, dimension = spectra.shape
    noise = torch.randn(count, dimension, dimension, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(noise)
    return basis @ (spectra[:, :, None] * basis.mT)


def spectrum(family, dimension, generator):
    """One spectrum (D,) of a family, not sorted."""
    uniform = torch.rand(dimension, generator=generator, dtype=torch.float64)
    if family == "indefinite":
        values = 2 * uniform - 1
        values[0] = -1.5
        return values
    if family == "clustered":  # three clusters of width 1e-6, the lowest one at -1
        values = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)[torch.arange(dimension) % 3]
        return values + 1e-6 * uniform
    if family == "degenerate":  # the smallest eigenvalue several times, few distinct ones
        values = torch.tensor([-2.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        return values[torch.arange(dimension) % 4]
    if family == "low rank":
        values = torch.zeros(dimension, dtype=torch.float64)
        values[:2] = torch.tensor([-3.0, 1.0])
        return values
    if family == "positive":
        return 0.2 + torch.linspace(0, 1, dimension, dtype=torch.float64) ** 2 * 4
    return torch.zeros(dimension, dtype=torch.float64)


FAMILIES = ["indefinite", "clustered", "degenerate", "low rank", "positive", "zero"]


def family_matrices(family, dimension, seed, count=5):
    generator = torch.Generator().manual_seed(seed)
    spectra = torch.stack([spectrum(family, dimension, generator) for _ in range(count)])
    scales = torch.logspace(-3, 3, count, dtype=torch.float64)  # candidates differ in scale
    return rotated(spectra * scales[:, None], seed + 1)


def product_of(matrices):
    return lambda v: torch.einsum("ijk,ik->ij", matrices, v)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["exact", "lanczos", "lobpcg"])
@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_dense_eigenvalues(family, method, dtype):
    matrices = family_matrices(family, 40, seed=3).to(dtype)
    expected = torch.linalg.eigvalsh(matrices)
    size = expected.abs().amax(1)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-3
    pairs = smallest_eigenpairs(
        product_of(matrices), 5, 40, search=EigenSearch(method, 500, tolerance), like=matrices
    )
    assert bool(pairs.converged.all())
    assert bool(((pairs.values - expected[:, 0]).abs() <= 2 * tolerance * size).all())
    image = product_of(matrices)(pairs.vectors)
    residual = torch.linalg.vector_norm(image - pairs.values[:, None] * pairs.vectors, dim=1)
    rounding = 100 * torch.finfo(dtype).eps * size
    assert bool(((residual - pairs.residuals).abs() <= rounding).all())
    assert torch.allclose(
        torch.linalg.vector_norm(pairs.vectors, dim=1), torch.ones(5, dtype=dtype)
    )
    assert bool((pairs.scales <= size * (1 + 1e-5)).all())


@pytest.mark.parametrize("method", ["lanczos", "lobpcg"])
def test_few_products_bound_from_above_and_say_so(method):
    generator = torch.Generator().manual_seed(0)
    spectra = torch.randn(8, 300, generator=generator, dtype=torch.float64)
    matrices = rotated(spectra, 1)
    pairs = smallest_eigenpairs(
        product_of(matrices), 8, 300, search=EigenSearch(method, 10, tolerance=1e-10)
    )
    lowest = spectra.amin(1)
    assert pairs.products == 11
    assert not bool(pairs.converged.any())
    assert bool((pairs.values > lowest).all())
    # Some eigenvalue lies within the residual of the value.
    distance = (spectra - pairs.values[:, None]).abs().amin(1)
    assert bool((distance <= pairs.residuals * (1 + 1e-12)).all())


def test_margins_cover_the_error_of_lanczos():
    generator = torch.Generator().manual_seed(5)
    spectra = torch.cat([torch.randn(40, 120, generator=generator), torch.zeros(40, 120)])
    spectra[40:, 0] = -1.0  # a needle: one eigenvalue among zeros
    matrices = rotated(spectra.double(), 6)
    for steps in (12, 24, 48):
        pairs = smallest_eigenpairs(
            product_of(matrices), 80, 120, search=EigenSearch("lanczos", steps, tolerance=0.0)
        )
        error = pairs.values - spectra.double().amin(1)
        assert bool((error <= pairs.margins).all())
    assert float(pairs.margins.max()) < 0.3
    short = EigenSearch(iterations=12)
    warm = smallest_eigenpairs(product_of(matrices), 80, 120, start=pairs.vectors, search=short)
    assert bool(torch.isinf(warm.margins).all())


@pytest.mark.parametrize("method", ["lanczos", "lobpcg"])
def test_escapes_from_a_start_at_a_wrong_eigenvector(method):
    matrices = torch.diag(torch.arange(-3.0, 97.0, dtype=torch.float64))[None]
    wrong = torch.zeros(1, 100, dtype=torch.float64)
    wrong[0, 50] = 1.0
    pairs = smallest_eigenpairs(
        product_of(matrices), 1, 100, search=EigenSearch(method, 100), start=wrong
    )
    assert pairs.values.item() == pytest.approx(-3.0, abs=1e-3)


def test_warm_start_saves_products():
    generator = torch.Generator().manual_seed(1)
    spectra = torch.rand(4, 150, generator=generator, dtype=torch.float64)
    spectra[:, 0] = -0.3
    matrices = rotated(spectra, 2)
    search = EigenSearch(iterations=100)
    cold = smallest_eigenpairs(product_of(matrices), 4, 150, search=search)
    moved = matrices + 1e-3 * rotated(spectra, 3)
    warm = smallest_eigenpairs(product_of(moved), 4, 150, start=cold.vectors, search=search)
    again = smallest_eigenpairs(product_of(moved), 4, 150, search=search)
    assert bool(warm.converged.all())
    assert warm.products < again.products


@pytest.mark.parametrize("method", ["exact", "lanczos", "lobpcg"])
def test_both_ends(method):
    matrices = family_matrices("indefinite", 30, seed=8)
    expected = torch.linalg.eigvalsh(matrices)
    low, high = extreme_eigenpairs(
        product_of(matrices), 5, 30, search=EigenSearch(method, 120, tolerance=1e-7)
    )
    scale = expected.abs().amax(1)
    assert bool(((low.values - expected[:, 0]).abs() <= 1e-6 * scale).all())
    assert bool(((high.values - expected[:, -1]).abs() <= 1e-6 * scale).all())


def test_one_dimension_and_repeatable():
    matrices = torch.tensor([[[-2.0]], [[0.0]]], dtype=torch.float64)
    for method in ("exact", "lanczos", "lobpcg"):
        pairs = smallest_eigenpairs(product_of(matrices), 2, 1, search=EigenSearch(method))
        assert pairs.values.tolist() == pytest.approx([-2.0, 0.0])
    matrices = family_matrices("indefinite", 80, seed=2)
    first, second, other = (
        smallest_eigenpairs(
            product_of(matrices), 5, 80, search=EigenSearch(iterations=9, seed=seed)
        )
        for seed in (7, 7, 8)
    )
    assert torch.equal(first.vectors, second.vectors)
    assert not torch.equal(first.vectors, other.vectors)


def test_memory_decides_the_method(monkeypatch):
    matrices = family_matrices("indefinite", 70, seed=2)
    assert smallest_eigenpairs(product_of(matrices), 5, 70).method == "lanczos"
    assert smallest_eigenpairs(product_of(matrices[:, :4, :4]), 5, 4).method == "exact"
    monkeypatch.setattr("attack.splitting.eigenpairs._MEMORY", 1000)
    assert smallest_eigenpairs(product_of(matrices), 5, 70).method == "lobpcg"


def test_errors():
    zero = torch.zeros_like
    with pytest.raises(InvalidInputError, match=f"at most {EXACT_LIMIT}, got 65"):
        smallest_eigenpairs(zero, 1, 65, search=EigenSearch("exact"))
    with pytest.raises(InvalidInputError, match="start: expected shape"):
        smallest_eigenpairs(zero, 2, 3, start=torch.zeros(3, 2))
    with pytest.raises(InvalidInputError, match=r"at least 1 each, got \(0, 3\)"):
        smallest_eigenpairs(zero, 0, 3)
    with pytest.raises(InvalidInputError, match="product: expected finite numbers"):
        smallest_eigenpairs(lambda v: v * math.nan, 1, 3)
    with pytest.raises(InvalidInputError, match="product: expected shape"):
        smallest_eigenpairs(lambda v: v[:, :1], 1, 3)
    with pytest.raises(InvalidInputError, match="method"):
        EigenSearch("power")
    with pytest.raises(InvalidInputError, match="iterations: expected at least 1, got 0"):
        EigenSearch(iterations=0)
