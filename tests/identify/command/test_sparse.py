"""Gradients of which only the largest entries were sent: undecided, with the cause."""

from __future__ import annotations

import numpy as np
import pytest

from identify.arrays import zero_share
from identify.assess import assess_identifiability
from identify.assess_batch import assess_gradient
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.records import Verdict
from tests.identify.disaggregation.problems import change, plant

CAUSE = "top-k sparsification"


def largest(array, share):
    """The array with all but its largest entries set to 0."""
    kept = max(1, int(share * array.size))
    limit = np.sort(np.abs(array), axis=None)[-kept]
    return np.where(np.abs(array) >= limit, array, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_zero_share_against_loops(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(7, 9)) * (rng.random((7, 9)) < 0.4)
    matrix[2], matrix[:, 5] = 0.0, 0.0
    rows = [i for i in range(7) if any(matrix[i])]
    columns = [j for j in range(9) if any(matrix[:, j])]
    for whole, some in ((False, rows), (True, range(7))):
        zeros = sum(matrix[i, j] == 0.0 for i in some for j in columns)
        share = zero_share(matrix, rows=whole)
        assert share == pytest.approx(zeros / (len(some) * len(columns)))
    assert zero_share(np.zeros((3, 3))) == 0.0


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_a_power(share, seed):
    rng = np.random.default_rng(seed)
    network = TwoLayerNetwork(rng.normal(size=(50, 16)), rng.normal(size=50), degree=3)
    whole = network.gradient(rng.normal(size=(4, 16)), rng.normal(size=4))
    sent = TwoLayerNetwork(largest(whole.points, share), whole.output_weight, degree=3)
    data = HermiteData.from_gradient(network, sent)
    report = assess_identifiability(data, evidence="numerical")
    assert report.verdict is Verdict.UNDECIDED
    assert CAUSE in report.reason
    kept = assess_identifiability(HermiteData.from_gradient(network, whole), evidence="numerical")
    assert CAUSE not in kept.reason


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("sizes", [[16, 24, 150, 4], [16, 120, 1]])
def test_a_relu_network(share, sizes):
    planted = plant(sizes, 5, 0)
    sent = change(planted.gradient, lambda array: largest(array, share))
    report = assess_gradient(planted.network, sent)
    assert report.verdict == "undecided"
    assert CAUSE in report.found.reason
    assert CAUSE not in assess_gradient(planted.network, planted.gradient).found.reason


@pytest.mark.parametrize("seed", range(3))
def test_the_zeros_of_a_small_batch_are_no_cause(seed):
    """Two samples share few neurons: many exact zeros, and a clear rank."""
    planted = plant([16, 24, 12, 4], 2, seed)
    assert CAUSE not in assess_gradient(planted.network, planted.gradient).found.reason
