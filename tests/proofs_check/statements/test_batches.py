"""Statements about ReLU networks, sample by sample, on cases small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from identify.model.deep import DeepNetwork
from proofs_check.statements.batches import cubic, kernel, mask_lists, sharpness, signals
from proofs_check.statements.batches.networks import Batch
from proofs_check.statements.batches.signals import Signals
from tests.proofs_check import helpers


def two_samples(masks, slopes=((1,), (1,)), amplitudes=None):
    """Two samples whose inputs are the unit vectors of a plane, with a bias."""
    m = np.array(masks)
    a = np.ones((len(m), 1), dtype=int) if amplitudes is None else np.array(amplitudes)
    return Signals(m, a, np.array(slopes), np.array([[1, 0, 1], [0, 1, 1]]), 0)


def test_three_masks_determine_two_samples():
    batch = two_samples([[1, 0], [0, 1], [1, 1]])
    assert signals.kernel_dimension(batch) == 2
    assert signals.product_kernel_dimension(batch) == 2
    helpers.assert_instance(kernel.ONE_SET, batch)


def test_two_neurons_leave_the_sum_of_two_signals():
    batch = two_samples([[1, 0], [0, 1]])
    assert signals.kernel_dimension(batch) == 3
    found = signals.signals_of(batch)
    assert found is not None
    assert len(found) == 3
    helpers.assert_counterexample(kernel.ONE_SET, "kernel", batch)


def test_a_mask_of_two_samples_has_a_continuum_of_signals():
    both = [[1, 1], [1, 1], [0, 0]]
    batch = two_samples(both, [[1, 0], [0, 1]], [[1, 2], [2, 1], [1, 1]])
    assert signals.signals_of(batch) is None
    assert signals.kernel_dimension(batch) >= 4


@pytest.mark.parametrize("seed", range(5))
def test_kernel_of_the_product_and_in_integers_agree(seed):
    batch = signals.draw(12, 3, 2, seed)
    assert signals.product_kernel_dimension(batch) == signals.kernel_dimension(batch)


def test_two_disjoint_masks_are_the_only_set():
    weights = [[1.0, 0.0], [-1.0, 0.5], [2.0, 0.0]]
    network = DeepNetwork([weights, [[1.0, 1.0, 1.0]]], [[0.1, 0.1, 0.1], [0.0]], "relu")
    batch = Batch(network, np.array([[1.0, 0.5], [-1.0, 0.5]]), np.ones((2, 1)), 0)
    helpers.assert_instance(mask_lists.ONLY_SET, batch)


def test_halves_by_hand():
    network = DeepNetwork([[[1.0]], [[1.0]]], [[0.0], [0.0]], "relu")
    batch = Batch(network, np.array([[1.0]]), np.array([[3.0]]), 0)
    halves = (np.array([[2.0], [0.5]]), np.array([[1.0], [2.0]]))
    assert sharpness.same_gradient(batch, *halves).holds
    assert not sharpness.same_gradient(batch, halves[0], halves[1][::-1]).holds


@pytest.mark.parametrize("seed", range(5))
def test_kernel_of_degree_3_of_the_product_and_in_integers_agree(seed):
    batch = signals.draw(7, 3, 1 + seed % 2, seed)
    assert cubic.product_cubic_dimension(batch) == cubic.cubic_dimension(batch)


def test_two_disjoint_masks_and_their_sum_at_degree_3():
    """Their sum is a 0/1 vector of the column space too, and no degree takes it out."""
    batch = two_samples([[1, 0], [0, 1]])
    assert cubic.cubic_dimension(batch) == 3
    helpers.assert_counterexample(cubic.ONE_SET, "kernel", batch)
