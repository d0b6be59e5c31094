"""Rank and spaces of a gradient: the two paths against each other and against planted ranks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from identify.disaggregation.factor import Factor, factor
from identify.errors import InvalidInputError


def planted(m: int, k: int, r: int, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(m, r)) @ rng.normal(size=(r, k)) / np.sqrt(m * k)
    return g + noise / np.sqrt(m * k) * rng.normal(size=(m, k))


def angle(found: np.ndarray, true: np.ndarray) -> float:
    """Largest sine between the column spaces."""
    q = np.linalg.qr(true)[0]
    return float(np.linalg.norm(found - q @ (q.T @ found), 2))


@pytest.mark.parametrize("shape", [(30, 50), (60, 20), (410, 480), (600, 405)])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-3])
def test_rank_and_spaces_of_a_planted_gradient(shape, noise):
    g = planted(*shape, 7, noise, seed=shape[0])
    exact = planted(*shape, 7, 0.0, seed=shape[0])
    found = factor(g)
    assert found.rank == 7
    assert found.clear
    u, s, vt = np.linalg.svd(exact, full_matrices=False)
    room = 10 * (noise / s[6] + 1e-12)
    assert angle(found.columns, u[:, :7]) < room
    assert angle(found.rows, vt[:7].T) < room
    np.testing.assert_allclose(found.values, s[:7], rtol=10 * noise + 1e-10)
    expected = noise / np.sqrt(g.size)
    if noise:
        assert found.noise == pytest.approx(expected, rel=0.1)
        assert np.linalg.norm(g - exact, 2) <= 1.1 * found.error
    else:
        assert found.noise < 1e-14


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-2])
def test_sketch_agrees_with_the_full_decomposition(noise):
    g = planted(405, 500, 12, noise, seed=1)
    u, s, _vt = np.linalg.svd(g, full_matrices=False)
    found = factor(g)
    assert found.rank == 12
    np.testing.assert_allclose(found.values, s[:12], rtol=1e-9)
    if noise:
        assert angle(found.columns, u[:, :12]) < 1e-3 * noise + 1e-9
        degrees = (405 - 12) * (500 - 12)
        upper = np.sqrt(np.sum(s[12:] ** 2) / stats.chi2.ppf(stats.norm.sf(3.1), degrees))
        assert found.noise == pytest.approx(upper, rel=1e-6)


def test_a_rank_above_the_first_block_is_found():
    found = factor(planted(410, 450, 90, 1e-9, seed=2))
    assert found.rank == 90
    assert found.clear


def test_a_full_rank_is_not_clear():
    assert not factor(planted(40, 30, 30, 0.0, seed=3)).clear


def test_equal_columns_do_not_hide_the_rank():
    """Rounded equal columns have equal errors: the tail ends where the different ones do."""
    g = planted(80, 40, 5, 0.0, seed=4)
    repeated = np.hstack([g, g[:, :30], g[:, :30], np.zeros((80, 25))])
    found = factor(repeated.astype(np.float32).astype(np.float64))
    assert found.rank == 5
    assert found.clear


def test_a_tail_of_few_directions_is_not_noise():
    rng = np.random.default_rng(5)
    strong = planted(60, 60, 3, 0.0, seed=6)
    weak = 1e-4 * np.outer(rng.normal(size=60), rng.normal(size=60)) / 60
    found = factor(strong + weak, rank=3)
    assert not found.flat


def test_a_given_rank_is_used():
    found = factor(planted(30, 40, 6, 1e-6, seed=7), rank=4)
    assert isinstance(found, Factor)
    assert found.rank == 4


@pytest.mark.parametrize(
    ("matrix", "rank"), [(np.zeros((3, 3)), None), (np.ones(3), None), (np.ones((2, 2)), 3),
                         (np.full((2, 2), np.nan), None)]
)  # fmt: skip
def test_refuses(matrix, rank):
    with pytest.raises(InvalidInputError):
        factor(matrix, rank=rank)


def signs(m, rng):
    return rng.choice([-1.0, 1.0], m)


REPEATED = [
    signs,
    lambda m, rng: signs(m, rng) * 2.0 ** rng.integers(-3, 3, m),
    lambda m, rng: np.full(m, 1 / 64),
    lambda m, rng: np.eye(1, m)[0],
]
ROUNDINGS = [lambda g: g.astype(np.float16).astype(float), lambda g: np.round(40 * g) / 40]


@pytest.mark.parametrize("amplitudes", REPEATED)
@pytest.mark.parametrize("rounded", ROUNDINGS)
def test_multiples_of_one_row_show_no_noise(amplitudes, rounded):
    """Every row is rounded alike, so that the tail is 0 whatever the rounding."""
    rng = np.random.default_rng(8)
    row = rounded(rng.normal(size=20))
    found = factor(np.outer(amplitudes(30, rng), row))
    assert found.rank == 1
    assert not found.clear
    assert not factor(np.outer(row, amplitudes(30, rng))).clear


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "amplitudes",
    [
        lambda m, rng: np.where(np.arange(m) < 3, 0.3, 1.0) * signs(m, rng),
        lambda m, rng: rng.choice([1.0, 0.7, 0.3], m, p=[0.8, 0.1, 0.1]),
        lambda m, rng: rng.choice([1.0, 3.0, 5.0], m) * signs(m, rng),
        lambda m, rng: rng.normal(size=m),
    ],
)
def test_equal_errors_of_equal_rows_do_not_average_out(amplitudes, seed):
    """The row space is off by no more than ``noise`` says, though most rows share one error."""
    rng = np.random.default_rng(seed)
    exact = np.outer(amplitudes(60, rng), rng.normal(size=13))
    found = factor(exact.astype(np.float16).astype(float))
    assert found.rank == 1
    assert angle(found.rows, exact[:1].T) <= found.noise * (np.sqrt(13) + 4) / found.values[0]


@pytest.mark.parametrize("seed", range(4))
def test_sums_on_a_coarse_grid_are_no_noise_of_zero(seed):
    """Three kinds of rows, one the sum of two others: few entries of a tail are 0 by chance."""
    rng = np.random.default_rng(seed)
    pair = rng.integers(-60, 60, size=(2, 6)) / 127.0
    rows = np.vstack([pair, pair.sum(axis=0)])
    assert not factor(rows[rng.integers(0, 3, 40)] * signs(40, rng)[:, None]).clear


@pytest.mark.parametrize("seed", range(4))
def test_float32_rounding_of_large_rows_is_no_rank(seed):
    """One row is far above the others: its rounding is a direction of its own."""
    rng = np.random.default_rng(seed)
    sizes = np.array([1.0] + 9 * [1e-6])[:, None]
    exact = sizes * (rng.normal(size=(10, 4)) @ rng.normal(size=(4, 97)))
    exact[0] += 1e-8 * rng.normal(size=97)
    found = factor(exact.astype(np.float32).astype(float))
    assert not (found.clear and found.rank > 4)
    assert found.noise >= 0.2 * 2.0**-24 * np.linalg.norm(exact) / np.sqrt(exact.size)
