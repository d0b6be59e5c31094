"""Alternatives at a wanted distance that keep what they are told to keep."""

from __future__ import annotations

import numpy as np
import pytest

from identify.alternatives.constrained import excluded
from identify.alternatives.find import find_alternative
from identify.errors import InvalidInputError
from identify.model.dataset import Dataset
from tests.identify.alternatives.training_sets import plain_residual, stationary, unit_rows


def problem(seed=8, *, bias=False):
    rng = np.random.default_rng(seed)
    x = unit_rows(rng.normal(size=(5, 20))) * rng.uniform(0.5, 1.5, (5, 1))
    return stationary(x, np.ones(5), 3, neurons=3, bias=bias), x


def apart(first, second):
    return np.linalg.norm(second - first, axis=1).max() / np.linalg.norm(first, axis=1).max()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("distance", [0.1, 1.0, 10.0, 100.0])
def test_every_distance_is_met(distance, bias):
    network, x = problem(bias=bias)
    own, other = find_alternative(
        network, "weight-decay", start=Dataset(x), distance=distance, keep=("count", "margins")
    )
    assert apart(own.samples, other.samples) == pytest.approx(distance, rel=1e-6)
    np.testing.assert_allclose(network.value(other.samples), network.value(own.samples), rtol=1e-6)
    assert plain_residual(network, network, other.samples, other.coefficients) <= 1e-10


@pytest.mark.parametrize("distance", [0.1, 1.0, None])
def test_norms_are_kept(distance):
    network, x = problem()
    own, other = find_alternative(
        network, "weight-decay", start=Dataset(x), distance=distance, keep=("norms", "count")
    )
    sizes = [np.linalg.norm(found.samples, axis=1) for found in (own, other)]
    np.testing.assert_allclose(sizes[1], sizes[0], rtol=1e-9)
    assert distance is None or apart(own.samples, other.samples) == pytest.approx(distance)
    assert plain_residual(network, network, other.samples, other.coefficients) <= 1e-10


def test_beyond_two_norms_none_exists():
    network, x = problem()
    keep = ("norms",)
    assert find_alternative(network, "weight-decay", start=Dataset(x), distance=3, keep=keep) == ()
    assert "none exists" in (excluded(3.0, keep) or "")
    assert excluded(2.0, keep) is None
    assert excluded(3.0, ("box",)) is None


def test_nothing_outside_the_box_of_the_data():
    network, x = problem()
    far = find_alternative(network, "weight-decay", start=Dataset(x), distance=50.0,
                           keep=("box", "count"))  # fmt: skip
    assert far == ()


def test_data_that_fit_to_a_part_in_ten_thousand_are_refused():
    network, x = problem()
    rng = np.random.default_rng(0)
    near = x + 1e-5 * rng.normal(size=x.shape)
    with pytest.raises(InvalidInputError, match="samples that explain the weights to"):
        find_alternative(network, "weight-decay", start=Dataset(near))
