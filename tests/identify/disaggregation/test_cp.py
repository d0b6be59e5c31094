"""Decomposition of planted kernels, exact and noisy."""

from __future__ import annotations

import numpy as np
import pytest

from identify.disaggregation.cp import decompose_kernel


def planted(r: int, q: int, noise: float, seed: int):
    rng = np.random.default_rng(seed)
    e = rng.normal(size=(r, r))
    e /= np.linalg.norm(e, axis=0)
    t, p = rng.normal(size=(r, r)), rng.normal(size=(r, q))
    z = np.einsum("ai,ki,bi->kab", e, t, e)
    error = rng.normal(size=z.shape)
    z = z + noise * np.abs(z).mean() * (error + error.transpose(0, 2, 1)) / 2
    return e, p, z, np.einsum("ai,ki,iq->kaq", e, t, p)


@pytest.mark.parametrize(("r", "q"), [(1, 1), (2, 3), (6, 1), (12, 4), (25, 2)])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3])
def test_terms_are_those_planted(r, q, noise):
    e, p, z, slices = planted(r, q, noise, seed=r)
    terms = decompose_kernel(z, slices)
    overlap = np.abs(e.T @ terms.vectors)
    order = overlap.argmax(axis=1)
    assert sorted(order) == list(range(r))
    limit = 1e-7 + 300 * noise
    assert overlap.max(axis=1).min() > 1 - limit
    # z p^T fixes p against z, sign included.
    signs = np.sign(np.sum(e * terms.vectors[:, order], axis=0))
    found = terms.cotangents[order] * signs[:, None]
    np.testing.assert_allclose(found, p, atol=limit * 30)


def test_alternating_least_squares_improves_on_the_pencils():
    _, _, z, slices = planted(8, 1, 3e-2, seed=0)
    rough = decompose_kernel(z, slices, starts=1)
    better = decompose_kernel(z, slices)
    assert better.sweeps > 0
    assert better.residual <= rough.residual * 1.01


def test_every_pencil_singular():
    with pytest.raises(np.linalg.LinAlgError):
        decompose_kernel(np.zeros((2, 2, 2)), np.zeros((2, 2, 1)))
