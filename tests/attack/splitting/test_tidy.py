"""Merging and pruning before a split: the loss never rises, and the right candidates go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    LooPenalties,
    Unrolled,
    bilevel_objective,
    haim_objective,
    loo_objective,
)
from attack.objectives.penalties import BoxPenalty, FloorPenalty
from attack.splitting.plan import joined
from attack.splitting.split_round import rounding_level, split_candidates
from attack.splitting.tidy import merged_points, near_pairs, tidy
from tests.attack.split_problems import loss_of, planted

torch.set_num_threads(1)
SEEDS = range(8)


def tidied(objective, candidates, radius=0.1, least=0.0):
    loss = loss_of(objective, candidates)
    noise = rounding_level(objective, candidates, loss)
    found = tidy(objective, candidates, loss, radius=radius, least=least + noise, noise=noise)
    assert loss_of(objective, found.candidates) <= loss + noise
    assert found.candidates.count == candidates.count - len(found.merged) - len(found.pruned)
    gone = {b for _, b in found.merged} | set(found.pruned)
    assert found.origin.tolist() == [i for i in range(candidates.count) if i not in gone]
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_halves_of_a_solution_are_put_together(seed):
    objective, truth = planted(seed, samples=5, dimension=4)
    half = truth.with_points(truth.x, truth.lam / 2)
    found = tidied(objective, joined(half, half))
    assert sorted(found.merged) == [(i, i + 5) for i in range(5)]
    assert torch.allclose(found.candidates.x, truth.x)
    assert torch.allclose(found.candidates.lam, truth.lam)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_that_paid_is_not_merged_away(seed):
    objective, _ = planted(seed, samples=6, dimension=3)
    one = objective.start(3, seed, 1.0)
    split, origin, record = split_candidates(objective, one, merge_radius=0.0)
    loss = loss_of(objective, split)
    noise = rounding_level(objective, split, loss)
    found = tidy(objective, split, loss, radius=10.0, least=0.0, noise=noise)
    assert loss_of(objective, found.candidates) <= loss + noise
    chosen = set(record.chosen.tolist())
    for a, b in found.merged:
        assert not (origin[a] == origin[b] and int(origin[a]) in chosen)


def test_parallel_candidates_of_a_homogeneous_network_merge_exactly():
    # Without biases and within one activation pattern, (x, lam) and (c x, lam / c) act alike.
    network = parse_spec("5-9-1,relu,bias=none").initialise(seed=3)
    objective = haim_objective(network, normaliser=4, floor=None, box=None)
    start = objective.start(4, 1, 1.0)
    parallel = start.with_points(3.0 * start.x, 0.5 * start.lam)
    found = tidied(objective, joined(start, parallel), radius=1e-6)
    assert len(found.merged) + len(found.pruned) >= 4
    kept = start.with_points(5 / 3 * start.x, 1.5 * start.lam)
    pairs = torch.tensor([[0, 4]])
    one = merged_points(joined(start, parallel), pairs)
    assert torch.allclose(one.x, kept.x[:1])
    assert torch.allclose(one.lam, kept.lam[:1])


def test_labels_signs_and_distance_keep_candidates_apart():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.005, 1.0]])
    lam = torch.tensor([[1.0], [2.0], [1.0], [3.0]])
    assert near_pairs(Candidates(x, lam), 0.1).tolist() == [[3, 2], [1, 0]]
    assert near_pairs(Candidates(x, lam, torch.tensor([0, 1, 1, 1])), 0.1).tolist() == [[3, 2]]
    assert near_pairs(Candidates(x, lam * torch.tensor([[1.0], [-1], [1], [1]])), 0.1).tolist() == [
        [3, 2]
    ]
    assert near_pairs(Candidates(x, lam), 1e-4).tolist() == []
    assert near_pairs(Candidates(x[:1], lam[:1]), 1.0).tolist() == []
    # A multiplier of 0 has no sign, and the origin is near to what is small.
    zero = torch.cat([x[:1] * 1e-6, -x[:1] * 1e-6, x[2:]])
    assert near_pairs(Candidates(zero, lam * 0), 1e-3).tolist() == [[0, 1]]


@pytest.mark.parametrize("seed", SEEDS)
def test_candidates_that_no_multiplier_helps_are_pruned(seed):
    objective, truth = planted(seed, samples=4, dimension=3)
    generator = torch.Generator().manual_seed(seed)
    away = 50 + torch.randn(2, 3, generator=generator).double()  # no feature reaches there
    useless = Candidates(away, torch.ones(2, 1).double())
    found = tidied(objective, joined(truth, useless), radius=0.0)
    assert sorted(found.pruned) == [4, 5]
    assert found.merged == ()
    # A candidate with the wrong sign: the best multiplier >= 0 is 0.
    wrong = truth.with_points(truth.x + 0.3, -0.1 * truth.lam)
    pool = joined(truth, wrong)
    found = tidied(objective, pool, radius=0.0)
    assert set(found.pruned) <= {4, 5, 6, 7}
    signed = replace(objective, signed=True)
    assert tidied(signed, pool, radius=0.0).pruned == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_candidates_that_could_help_stay(seed):
    objective, truth = planted(seed, samples=4, dimension=3)
    lam = truth.lam.clone()
    lam[1] = 0.0  # weightless at the moment, wanted by the gradient
    lam[2] *= 1.5  # too heavy, but with a good multiplier
    found = tidied(objective, truth.with_points(truth.x, lam), radius=0.0, least=1e-9)
    assert found.pruned == ()


def test_the_last_candidate_stays():
    objective, truth = planted(0, samples=2, dimension=3)
    away = truth.with_points(truth.x + 50, truth.lam)
    found = tidied(replace(objective, target=0 * objective.target), away, radius=0.0)
    assert found.candidates.count == 1


def test_penalties_enter():
    objective, truth = planted(1, samples=3, dimension=2)
    half = truth.with_points(truth.x, truth.lam / 2)
    pool = joined(half, half)
    low = float(half.lam.max())
    floor = replace(objective, penalties=(FloorPenalty(low),))
    assert len(tidied(floor, pool).merged) == 3
    # Merging two candidates inside a box is free; a mean outside would not be.
    box = replace(objective, penalties=(BoxPenalty(-9.0, 9.0),))
    assert len(tidied(box, pool).merged) == 3


def test_several_multipliers_per_candidate():
    network = parse_spec("5-8-3,tanh,bias=all").initialise(seed=0)
    other = network.with_parameters([p + 0.1 for p in network.parameters()])
    objective = loo_objective(
        network, other, normaliser=4, features="both", penalties=LooPenalties(box=None)
    )
    start = objective.start(4, 0, 1.0)
    found = tidied(objective, joined(start, start), radius=1e-3)
    assert len(found.merged) == 4
    dead = Candidates(1.0 + start.x[:1], 0 * start.lam[:1])
    slopes = objective.value_and_gradients(joined(start, dead)).grad_lam[4]
    assert bool((slopes != 0).any())
    assert tidied(objective, joined(start, dead), radius=1e-3).pruned == ()


def test_without_a_gram_matrix_the_loss_decides():
    network = parse_spec("4-6-1,tanh,bias=first").initialise(seed=0)
    first = parse_spec("4-6-1,tanh,bias=first").initialise(seed=1)
    objective = bilevel_objective(
        network, first, normaliser=4, loss="logistic", training=Unrolled(2)
    )
    start = objective.start(4, 0, 1.0)
    found = tidied(objective, joined(start, start), radius=1e-3)
    assert len(found.merged) == 4
    weightless = start.with_points(start.x + 1, 1e-9 * start.lam)
    pool = joined(start, weightless)
    found = tidied(objective, pool, radius=0.0)
    assert set(found.pruned) <= {4, 5, 6, 7}
    # Where all moves together raise the loss, fewer are tried.
    plain, truth = planted(2, samples=3, dimension=2, quadratic=False)
    near = truth.with_points(truth.x + 1.5, truth.lam)
    assert tidied(plain, joined(truth, near), radius=10.0).evaluations > 1


def test_one_round_does_both():
    objective, _ = planted(6, samples=6, dimension=3)
    start = objective.start(3, 6, 1.0)
    twice = joined(start, start)
    after, origin, record = split_candidates(objective, twice)
    assert len(record.merged) == 3
    assert record.accepted
    assert record.after < record.before
    assert record.after == pytest.approx(loss_of(objective, after), rel=1e-9)
    kept = {a for a, _ in record.merged}
    assert set(origin.tolist()) <= kept
    assert bool(torch.isnan(record.eigenvalues).sum() == 3)
    assert set(record.chosen.tolist()) <= kept
