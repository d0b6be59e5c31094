"""Complete lists of masks against all 2^r of them, and the sets that are left."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from identify.budget import Budget
from identify.disaggregation.factor import factor
from identify.disaggregation.few_neurons import list_masks, select_set

from .problems import add_noise, plant


def every_mask(found, amplitudes, live) -> set[bytes]:
    """All 0/1 vectors on the live rows that lie in diag(1/a) col G."""
    rows = np.flatnonzero(live)
    space = np.linalg.qr(found.columns[rows] / amplitudes[rows, None])[0]
    result = set()
    for bits in itertools.product((0.0, 1.0), repeat=len(rows)):
        vector = np.array(bits)
        outside = vector - space @ (space.T @ vector)
        if vector.any() and np.linalg.norm(outside) < 1e-6:
            result.add((vector > 0.5).tobytes())
    return result


@pytest.mark.parametrize(("width", "count"), [(8, 3), (10, 5), (12, 6), (14, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_list_is_that_of_all_vectors(width, count, seed):
    problem = plant([16, width, 1], count, seed)
    found = factor(problem.gradient.layer(0))
    amplitudes = problem.network.weights[1][0]
    masks = list_masks(found, amplitudes)
    if found.rank >= masks.live.sum():
        assert not masks.complete
        return
    assert masks.complete
    listed = {column.tobytes() for column in masks.masks[masks.live].T.copy()}
    assert len(listed) == masks.masks.shape[1]
    assert listed == every_mask(found, amplitudes, masks.live)
    true = problem.network.forward(problem.samples).preactivations[0] > 0
    true = true[:, masks.live]
    assert {row.tobytes() for row in true if row.any()} <= listed


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-6])
@pytest.mark.parametrize(("width", "count"), [(16, 7), (24, 12), (30, 15)])
def test_one_set_is_left_and_it_is_the_batch(width, count, noise):
    problem = plant([24, width, 1], count, 0)
    rng = np.random.default_rng(1)
    found = factor(add_noise(problem.gradient, noise, rng).layer(0))
    assert found.rank == count
    amplitudes = problem.network.weights[1][0]
    masks = list_masks(found, amplitudes)
    assert masks.complete
    assert masks.chance < 1e-3
    network = problem.network
    chosen = select_set(masks, found, amplitudes, network.weights[0], network.biases[0])
    true = network.forward(problem.samples).preactivations[0] > 0
    wanted = {row.tobytes() for row in true[:, masks.live]}
    listed = {column.tobytes() for column in masks.masks[masks.live].T.copy()}
    assert wanted <= listed
    if chosen.decided:
        got = {column.tobytes() for column in chosen.masks[masks.live].T.copy()}
        assert got == wanted
    else:
        assert chosen.consistent != 1
    assert chosen.realisable >= count


def test_a_deadline_leaves_the_list_incomplete():
    problem = plant([24, 30, 1], 14, 0)
    found = factor(problem.gradient.layer(0))
    amplitudes = problem.network.weights[1][0]
    masks = list_masks(found, amplitudes, budget=Budget(time.monotonic() - 1))
    assert not masks.complete
    assert "time" in masks.reason


def test_noise_leaves_no_list():
    problem = plant([24, 30, 1], 14, 0)
    noisy = add_noise(problem.gradient, 3e-2, np.random.default_rng(0))
    found = factor(noisy.layer(0), rank=14)
    assert not list_masks(found, problem.network.weights[1][0]).complete
