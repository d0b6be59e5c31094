"""Matching against a known truth: brute force, symmetries, unequal counts, bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from identify.errors import InvalidInputError
from identify.exposure.compare import compare_recovery, match_samples
from identify.records import Recovery


def recovery(samples, coefficients=None, bounds=1e-9):
    """A recovery that holds these samples."""
    samples = np.asarray(samples, dtype=float)
    b = np.ones(len(samples)) if coefficients is None else np.asarray(coefficients, dtype=float)
    return Recovery(samples, b, np.broadcast_to(np.float64(bounds), len(samples)).copy(), {})


def pair_error(guess, sample, up_to_sign, up_to_scale):
    """The least relative error over the factors that are free, one pair at a time."""
    signs = (1.0, -1.0) if up_to_sign else (1.0,)
    size = np.linalg.norm(guess) / np.linalg.norm(sample) if up_to_scale else 1.0
    return min(
        np.linalg.norm(guess - s * size * sample) / np.linalg.norm(size * sample) for s in signs
    )


@pytest.mark.parametrize("up_to_sign", [False, True])
@pytest.mark.parametrize("up_to_scale", [False, True])
def test_every_symmetry_is_undone(up_to_sign, up_to_scale):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(7, 5))
    order = rng.permutation(7)
    signs = rng.choice([-1.0, 1.0], size=7) if up_to_sign else np.ones(7)
    lengths = rng.uniform(0.1, 10.0, size=7) if up_to_scale else np.ones(7)
    guesses = ((signs * lengths)[:, None] * truth)[order]
    found = match_samples(guesses, truth, up_to_sign=up_to_sign, up_to_scale=up_to_scale)
    assert np.array_equal(order[found.indices], np.arange(7))
    assert found.errors.max() < 1e-13
    assert np.array_equal(found.signs, signs)
    assert np.allclose(found.factors, signs * lengths, rtol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_best_matching(seed):
    rng = np.random.default_rng(seed)
    k, n = (int(v) for v in rng.integers(1, 6, size=2))
    free = dict(up_to_sign=bool(seed % 2), up_to_scale=bool(seed // 2 % 2))
    guesses, truth = rng.normal(size=(k, 3)), rng.normal(size=(n, 3))
    found = match_samples(guesses, truth, **free)
    costs = np.array([[pair_error(g, t, **free) for g in guesses] for t in truth])
    short, long = sorted((k, n))
    table = costs if n <= k else costs.T
    best = min(
        sum(table[i, j] / (1.0 + table[i, j]) for i, j in enumerate(choice))
        for choice in itertools.permutations(range(long), short)
    )
    paired = found.indices >= 0
    assert np.count_nonzero(paired) == short
    assert len(set(found.indices[paired])) == short
    assert np.sum(found.errors[paired] / (1.0 + found.errors[paired])) == pytest.approx(best)
    for i in np.flatnonzero(paired):
        assert found.errors[i] == pytest.approx(costs[i, found.indices[i]])
    assert np.all(np.isinf(found.errors[~paired]))
    assert not np.any(found.factors[~paired])


def test_small_errors_are_measured_exactly():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(4, 50))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    noise = rng.normal(size=truth.shape)
    noise -= np.sum(noise * truth, axis=1, keepdims=True) * truth
    noise *= 1e-12 / np.linalg.norm(noise, axis=1, keepdims=True)
    found = match_samples(-(truth + noise), 3.0 * truth, up_to_sign=True, up_to_scale=True)
    assert np.allclose(found.errors, 1e-12, rtol=1e-3)


def test_a_hopeless_pair_does_not_bend_the_others():
    truth = np.array([[1.0, 0.0], [0.0, 1.0]])
    # The sum of plain errors is least for the crossed matching, 1.4 + 94 against 0 + 100.
    guesses = np.array([[1.0, 0.0], [95.0, -30.0]])
    found = match_samples(guesses, truth, up_to_sign=False, up_to_scale=False)
    assert found.indices.tolist() == [0, 1]
    assert found.errors[0] == 0.0


def test_a_forbidden_sign_or_scale_counts_as_error():
    assert match_samples([[-1.0]], [[1.0]], up_to_sign=False, up_to_scale=False).errors[0] == 2.0
    assert match_samples([[-3.0]], [[1.0]], up_to_sign=False, up_to_scale=True).errors[0] == 2.0
    assert match_samples([[-3.0]], [[1.0]], up_to_sign=True, up_to_scale=False).errors[0] == 2.0


def test_nothing_recovered_and_zero_samples():
    found = match_samples(np.zeros((0, 2)), np.eye(2), up_to_sign=True, up_to_scale=True)
    assert found.indices.tolist() == [-1, -1]
    assert np.all(np.isinf(found.errors))
    truth = np.array([[0.0, 0.0], [4.0, 0.0]])
    found = match_samples([[1.0, 0.0], [0.0, 0.4]], truth, up_to_sign=True, up_to_scale=True)
    assert found.indices.tolist() == [-1, 0]
    found = match_samples([[0.0, 0.4], [4.0, 0.0]], truth, up_to_sign=True, up_to_scale=False)
    assert found.errors.tolist() == pytest.approx([0.1, 0.0])
    # A vanished guess has no direction.
    found = match_samples([[0.0, 0.0]], [[4.0, 0.0]], up_to_sign=True, up_to_scale=True)
    assert found.indices.tolist() == [-1]


@pytest.mark.parametrize(
    ("guesses", "truth"),
    [(np.eye(2), np.eye(3)), (np.ones(2), np.eye(2)), (np.eye(2), [[np.nan, 1.0]])],
)
def test_arrays_that_do_not_fit(guesses, truth):
    with pytest.raises(InvalidInputError):
        match_samples(guesses, truth, up_to_sign=True, up_to_scale=True)


@pytest.mark.parametrize("degree", [3, 4])
def test_coefficients_follow_sign_and_scale(degree):
    rng = np.random.default_rng(3)
    truth, b = rng.normal(size=(4, 6)), np.array([1.0, -2.0, 0.5, 3.0])
    factors = np.array([2.0, -1.0, -0.5, 4.0])
    found = recovery(factors[:, None] * truth, b / factors**degree)
    table = compare_recovery(found, truth, degree, coefficients=b)
    assert table.coefficient_error < 1e-13
    assert table.recovered == table.within_bounds == 4
    wrong = compare_recovery(found, truth, degree, coefficients=b * [1, 1, -1, 1])
    assert wrong.coefficient_error == pytest.approx(2.0)
    assert compare_recovery(found, truth, degree).coefficient_error is None


def test_scales():
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(3, 5))
    lengths = np.array([1.0, 2.0, -3.0])
    found = recovery(lengths[:, None] * truth)
    assert compare_recovery(found, truth, 3, "free").max_error < 1e-13
    assert compare_recovery(found, truth, 3, "unit").max_error > 0.9
    assert compare_recovery(recovery(-truth), truth, 3, "unit").max_error == 0.0
    assert compare_recovery(recovery(-truth), truth, 3, "bias").max_error > 1.0
    assert compare_recovery(recovery(-truth), truth, 3, non_negative=True).max_error > 0.1
    # One common factor is free under equal margins, several are not.
    common = compare_recovery(recovery(0.01 * truth), truth, 3, "margin", coefficients=[1e-6] * 3)
    assert common.max_error < 1e-13
    assert common.coefficient_error < 1e-12
    assert compare_recovery(found, truth, 3, "margin").max_error > 0.3
    assert compare_recovery(recovery(np.eye(5)[:1]), np.eye(5)[1:], 3, "margin").recovered == 0


def test_bounds_and_lost_samples():
    truth = np.eye(4)
    shifted = truth + 1e-3 * np.roll(truth, 1, axis=1)
    found = recovery(shifted[:3], bounds=1.0)
    found.error_bounds[:] = [2e-3, 1e-4, np.nan]
    table = compare_recovery(found, truth, 3)
    assert (table.recovered, table.within_bounds) == (3, 1)
    assert table.max_error == np.inf
    assert table.median_error == pytest.approx(1e-3, rel=1e-2)


def test_bad_arguments():
    with pytest.raises(InvalidInputError, match="scale: expected one of free"):
        compare_recovery(recovery(np.eye(2)), np.eye(2), 3, "auto")
    with pytest.raises(InvalidInputError, match="coefficients"):
        compare_recovery(recovery(np.eye(2)), np.eye(2), 3, coefficients=[1.0])
    with pytest.raises(InvalidInputError, match="truth"):
        compare_recovery(recovery(np.eye(2)), np.zeros((0, 2)), 3)
