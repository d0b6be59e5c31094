"""The proof by signs that no set of r samples exists, and that it spares the sets that do."""

from __future__ import annotations

import numpy as np
import pytest

from identify.alternatives.signs import no_set_of_dimension, positive_relation
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from tests.identify.alternatives.training_sets import stationary, unit_rows


def reduced_of(network):
    data = HermiteData.from_weight_decay(network)
    return measure(data, Assumptions().resolved(data)).reduced


def test_relations():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.normal(size=(6, 3))
        weights = rng.uniform(0.2, 1.0, 6)
        rows[-1] = -(weights[:-1] @ rows[:-1]) / weights[-1]
        found = positive_relation(rows)
        assert found.min() > 0.0
        np.testing.assert_allclose(found @ rows, 0.0, atol=1e-12)
        # All on one side of a plane: no positive relation.
        assert positive_relation(np.column_stack([np.abs(rows[:, 0]) + 0.1, rows[:, 1:]])) is None
    assert positive_relation(np.eye(3)) is None


@pytest.mark.parametrize("degree", [3, 5])
def test_planted_sets_are_never_excluded(degree):
    rng = np.random.default_rng(degree)
    wide = 0
    for seed in range(25):
        n = int(rng.integers(2, 5))
        x, b = unit_rows(rng.normal(size=(n, n + 1))), rng.choice([-1.0, 1.0], n)
        reduced = reduced_of(stationary(x, b, degree, seed=seed))
        if reduced.dimension == n:
            wide += reduced.neurons > n
            assert not no_set_of_dimension(reduced, 1e-10)
    assert wide >= 10


@pytest.mark.parametrize(("degree", "proved"), [(5, True), (7, True), (4, False)])
def test_three_neurons_of_a_plane(degree, proved):
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    heights = np.linalg.norm(rows, axis=1) / np.sqrt(degree)
    reduced = reduced_of(TwoLayerNetwork(rows, heights, degree))
    assert (reduced.neurons, reduced.dimension) == (3, 2)
    assert no_set_of_dimension(reduced, 1e-10) is proved
    assert not no_set_of_dimension(reduced, 0.03)
    # Turned against the other two, the last neuron has a relation of mixed signs.
    heights[-1] = -heights[-1]
    assert not no_set_of_dimension(reduced_of(TwoLayerNetwork(rows, heights, degree)), 1e-10)
