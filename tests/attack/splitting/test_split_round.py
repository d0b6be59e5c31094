"""Sample splitting: expansion, acceptance, roll back, both modes, and what it is good for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    haim_objective,
)
from attack.objectives.penalties import BoxPenalty, FloorPenalty
from attack.splitting.eigenpairs import smallest_eigenpairs
from attack.splitting.plan import SplitPlan, offspring
from attack.splitting.split_round import split_candidates
from identify.errors import InvalidInputError
from tests.attack.problems import splitting_products
from tests.attack.split_problems import (
    KINDS,
    CliffObjective,
    FeatureObjective,
    WallObjective,
    descend,
    everyone,
    loss_of,
    network_objectives,
    planted,
    splitting_matrices,
    undone_loss,
)

torch.set_num_threads(1)
SEEDS = range(12)


# --- the expansion -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_products_are_those_of_the_written_out_matrices(seed):
    objective, _ = planted(seed, samples=4, dimension=3)
    candidates = objective.start(3, seed, 1.0)
    matrices = splitting_matrices(objective, candidates)
    v = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double()
    expected = torch.einsum("iab,ib->ia", matrices, v)
    assert torch.allclose(splitting_products(objective, candidates, v), expected, atol=1e-12)


def remainders(objective, candidates, plan, coefficient, steps):
    before = loss_of(objective, candidates)
    found = []
    for step in steps:
        split, _ = offspring(candidates, plan, torch.full_like(plan.curvatures, step))
        predicted = 0.5 * step**2 * coefficient
        found.append(abs(loss_of(objective, split) - before - predicted) / abs(predicted))
    return found


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_second_order_change_with_a_remainder_of_order_four(seed, opposite):
    # Of one candidate: eps^2/2 v.Sv for halves, minus that for offspring of opposite signs.
    objective, _ = planted(seed, samples=4, dimension=3)
    candidates = objective.start(3, seed, 1.0)
    pairs = smallest_eigenpairs(objective.splitting_operator(candidates), 3, 3)
    index = int(pairs.values.abs().argmax())
    plan = everyone(pairs, opposite).subset(torch.arange(3) == index)
    sign = -1.0 if opposite else 1.0
    coarse, fine = remainders(
        objective, candidates, plan, sign * float(pairs.values[index]), (0.04, 0.02)
    )
    assert fine < 0.02
    # |remainder| / eps^2 falls like eps^2: order 4.
    assert math.log2(coarse / fine) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_splits_at_once_add_up_to_second_order(seed):
    objective, _ = planted(seed, samples=4, dimension=3)
    candidates = objective.start(4, seed, 1.0)
    pairs = smallest_eigenpairs(objective.splitting_operator(candidates), 4, 3)
    total = float(pairs.values.sum())
    coarse, fine = remainders(objective, candidates, everyone(pairs), total, (0.02, 0.01))
    assert math.log2(coarse / fine) == pytest.approx(2.0, abs=0.1)


def test_no_direction_does_better_than_the_smallest_eigenvector():
    objective, _ = planted(1, samples=4, dimension=3)
    candidates = objective.start(1, 1, 1.0)
    pairs = smallest_eigenpairs(objective.splitting_operator(candidates), 1, 3)
    step = torch.full((1,), 0.01).double()
    generator = torch.Generator().manual_seed(0)
    best = loss_of(objective, offspring(candidates, everyone(pairs), step)[0])
    for _ in range(50):
        v = torch.randn(1, 3, generator=generator).double()
        plan = replace(everyone(pairs), directions=v / v.norm())
        assert loss_of(objective, offspring(candidates, plan, step)[0]) >= best - 1e-9


# --- acceptance --------------------------------------------------------------------------------


def check_round(objective, before, after, origin, record):
    """What must hold after any round of mode auto."""
    assert origin.shape == (after.count,)
    assert record.after <= record.before * (1 + 1e-12)
    assert record.after == pytest.approx(loss_of(objective, after), rel=1e-9)
    assert record.accepted == bool(len(record.chosen))
    assert record.eigenvalues.shape == (before.count,)
    counts = torch.bincount(origin, minlength=before.count).tolist()
    for index, opposite in zip(record.chosen.tolist(), record.opposite.tolist(), strict=True):
        assert counts[index] == (3 if opposite else 2)
    for _, gone in record.merged:
        assert counts[gone] == 0
    for index in record.pruned:
        assert counts[index] == 0


@pytest.mark.medium
@pytest.mark.parametrize("kind", KINDS)
def test_every_accepted_split_lowers_the_loss(kind):
    rounds = splits = 0
    for seed in range(8):
        objective = network_objectives(seed)[kind]
        candidates = objective.start(6, seed, 0.7)
        for again in range(2):
            after, origin, record = split_candidates(objective, candidates, seed=again)
            check_round(objective, candidates, after, origin, record)
            if record.accepted:
                assert record.after < record.before
            for index, gain in zip(record.chosen.tolist(), record.gains.tolist(), strict=True):
                # Undoing this split alone costs at least what the record says: convex l.
                if index in {kept for kept, _ in record.merged} or kind == "bilevel":
                    continue
                undone = undone_loss(objective, candidates, after, origin, index)
                assert undone - record.after >= gain - 1e-9 * record.before
                assert gain > 0
                splits += 1
            rounds += record.accepted
            candidates = after
    assert rounds >= 4
    assert splits >= 4 or kind == "bilevel"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cubic", [False, True])
def test_every_accepted_split_lowers_the_loss_at_stationary_points(cubic, seed):
    objective, _ = planted(seed, samples=6, dimension=3, cubic=cubic)
    candidates, _ = descend(objective, objective.start(3, seed, 1.0), steps=200)
    after, origin, record = split_candidates(objective, candidates, merge_radius=0.0)
    check_round(objective, candidates, after, origin, record)
    assert record.accepted
    assert cubic or record.gradient_norm < 1e-3
    for index, gain in zip(record.chosen.tolist(), record.gains.tolist(), strict=True):
        assert undone_loss(objective, candidates, after, origin, index) - record.after >= gain
    # The second order decides alone: all of the gain is promised by the eigenvalues.
    predicted = 0.5 * (record.steps**2 * record.eigenvalues[record.chosen].abs()).sum()
    assert record.before - record.after <= float(predicted) * 1.2


def test_float32_round():
    for kind in ("haim", "loo", "buzaglo"):
        objective = network_objectives(1, torch.float32)[kind]
        candidates = objective.start(6, 1, 0.7)
        after, origin, record = split_candidates(objective, candidates)
        assert after.x.dtype == torch.float32
        assert record.accepted
        assert loss_of(objective, after) < record.before
        assert after.count == len(origin)


def test_penalties_count():
    objective, _ = planted(3, samples=6, dimension=3)
    candidates, _ = descend(objective, objective.start(3, 3, 1.0))
    free = split_candidates(objective, candidates, merge_radius=0.0, limit=3)[2]
    assert len(free.chosen) == 3
    # A box that every candidate violates: each split would pay h(x_i) once more.
    box = replace(objective, penalties=(BoxPenalty(-0.1, 0.1, weight=100.0),))
    after, _, record = split_candidates(box, candidates, merge_radius=0.0, limit=3)
    assert not record.accepted
    assert torch.equal(after.x, candidates.x)
    # A floor that the halves fall below: only gains above its jump are worth it.
    floor = 1.5 * float(candidates.lam.max())
    gains = free.gains.sort().values
    jump = 2 * (floor - candidates.lam / 2) ** 2 - (floor - candidates.lam) ** 2
    weight = float(gains[1:].mean() / jump.mean())
    lifted = replace(objective, penalties=(FloorPenalty(floor, weight),))
    after, _, record = split_candidates(lifted, candidates, merge_radius=0.0, limit=3)
    assert record.after == pytest.approx(loss_of(lifted, after), rel=1e-9)
    assert record.after < record.before
    assert 1 <= len(record.chosen) < 3
    assert len(record.chosen) + len(record.undone) == 3


def test_a_split_that_moves_a_wall_is_undone_alone():
    # Candidate 0 sees feature 0 only; candidate 1 moves the last feature, which must not move.
    far = 30.0
    centres = torch.tensor([[-far, 1.5], [-far, -1.5], [far, 1.5], [far, 0.0]]).double()
    points = torch.tensor([[-far, 0.0], [far, 0.0]]).double()
    candidates = Candidates(points, torch.ones(2, 1).double())
    empty = WallObjective(centres, torch.zeros(4).double())
    target = candidates.lam[:, 0] @ empty.features(points)
    objective = replace(empty, target=target + torch.tensor([1.0, 1.0, 1.0, 0.0]))
    after, origin, record = split_candidates(objective, candidates, merge_radius=0.0, limit=2)
    assert record.chosen.tolist() == [0]
    assert record.undone == (1,)
    assert record.after < record.before
    assert origin.tolist().count(0) == 2
    check_round(objective, candidates, after, origin, record)


def test_a_round_that_raises_the_loss_is_rolled_back():
    centres = torch.tensor([[0.0, 1.0]]).double()
    candidates = Candidates(torch.zeros(1, 2).double(), torch.ones(1, 1).double())
    empty = CliffObjective(centres, torch.zeros(1).double())
    objective = replace(empty, target=empty.features(candidates.x)[0])
    after, origin, record = split_candidates(objective, candidates, minimum_gain=0.0)
    assert record.rolled_back
    assert not record.accepted
    assert record.undone == (0,)
    assert torch.equal(after.x, candidates.x)
    assert torch.equal(after.lam, candidates.lam)
    assert origin.tolist() == [0]
    assert record.after == record.before
    assert "taken back" in record.message


def test_nothing_is_changed_in_place_and_rounds_repeat():
    objective = network_objectives(2)["loo"]
    candidates = objective.start(6, 2, 0.7)
    x, lam = candidates.x.clone(), candidates.lam.clone()
    first = split_candidates(objective, candidates, seed=4, method="lanczos", products=4)
    second = split_candidates(objective, candidates, seed=4, method="lanczos", products=4)
    assert torch.equal(candidates.x, x)
    assert torch.equal(candidates.lam, lam)
    assert torch.equal(first[0].x, second[0].x)
    assert torch.equal(first[1], second[1])
    assert first[2].products == 6  # four, and one residual at each end of the spectrum


def test_limit_and_cost():
    objective, _ = planted(0, samples=20, centres=200, dimension=100, cubic=True)
    candidates = objective.start(20, 0, 0.3)
    _, _, record = split_candidates(objective, candidates, limit=3)
    assert len(record.chosen) <= 3
    assert record.products <= 25
    assert record.evaluations <= 25
    after, _, record = split_candidates(objective, candidates, limit=0, merge_radius=0.0)
    assert not record.accepted
    assert after.count <= 20


# --- bookkeeping -------------------------------------------------------------------------------


def test_offspring_origin_labels_and_state():
    x = torch.arange(8.0).reshape(4, 2)
    candidates = Candidates(x, torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.arange(4))
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    plan = SplitPlan(torch.tensor([3, 1]), directions, -torch.ones(2), torch.tensor([False, True]))
    new, origin = offspring(candidates, plan, torch.tensor([0.5, 0.25]))
    assert origin.tolist() == [0, 1, 2, 3, 3, 1, 1]
    assert new.labels.tolist() == origin.tolist()
    assert new.lam[:, 0].tolist() == [1.0, 4.0, 4.0, 4.0, 4.0, -1.0, -1.0]
    assert new.x[3].tolist() == [6.5, 7.0]
    assert new.x[4].tolist() == [5.5, 7.0]
    assert new.x[1].tolist() == [2.0, 3.0]
    assert new.x[5].tolist() == [2.0, 2.75]
    assert new.x[6].tolist() == [2.0, 3.25]
    sums = torch.zeros(4).index_add(0, origin, new.lam[:, 0])
    assert torch.equal(sums, candidates.lam[:, 0])


@pytest.mark.parametrize("seed", SEEDS)
def test_origin_points_to_the_parent(seed):
    objective = network_objectives(seed)["haim"]
    candidates = objective.start(6, seed, 0.7)
    after, origin, record = split_candidates(objective, candidates, merge_radius=0.0)
    reach = dict(zip(record.chosen.tolist(), record.steps.tolist(), strict=True))
    for new, old in enumerate(origin.tolist()):
        distance = float((after.x[new] - candidates.x[old]).norm())
        assert distance == pytest.approx(reach.get(old, 0.0), abs=1e-12)
        share = 0.5 if old in reach else 1.0
        assert float(after.lam[new]) == pytest.approx(share * float(candidates.lam[old]))
        assert after.labels[new] == candidates.labels[old]


def test_check_of_a_stationary_point():
    objective, truth = planted(4, samples=3, dimension=2)
    after, _, record = split_candidates(objective, truth, merge_radius=0.0)
    assert not record.accepted
    assert record.gradient_norm < 1e-12
    assert abs(record.smallest) < 1e-12
    assert "(eps, gamma) = (" in record.message
    assert "no split" in record.message
    assert torch.equal(after.x, truth.x)
    # A positive definite S_i: local minimum of one candidate, gamma = 0.
    single = Candidates(torch.zeros(1, 2).double(), torch.full((1, 1), 2.0).double())
    flat = FeatureObjective(torch.zeros(1, 2).double(), torch.ones(1).double())
    record = split_candidates(flat, single)[2]
    assert record.smallest < 0  # lam too large: pushed apart
    record = split_candidates(flat, single.with_points(single.x, single.lam / 4))[2]
    assert record.smallest > 0
    assert ", 0): |grad L| = eps" in record.message
    assert record.relative_smallest == pytest.approx(2 * record.smallest)


def test_relu_has_no_curvature_and_says_so():
    network = parse_spec("4-6-1,relu,bias=first").initialise(seed=0)
    objective = haim_objective(network, normaliser=4)
    record = split_candidates(objective, objective.start(4, 0, 0.5))[2]
    assert not record.accepted
    assert "all S_i are 0" in record.message


def test_candidates_without_weight_are_watched_through_their_gradient():
    objective, _ = planted(5, samples=3, dimension=2)
    candidates = objective.start(3, 5, 1.0)
    lam = candidates.lam.clone()
    lam[1] = 0.0
    candidates = candidates.with_points(candidates.x, lam)
    record = split_candidates(objective, candidates, limit=0)[2]
    residual = objective.target - lam[:, 0] @ objective.features(candidates.x)
    phi = objective.features(candidates.x[1:2])[0]
    slope = -2 * (residual * phi) @ (objective.centres - candidates.x[1])
    assert record.pruned == ()
    assert record.idle_gradient == pytest.approx(float(slope.norm()), rel=1e-9)
    assert "where lam = 0" in record.message


# --- what it is good for -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_splitting_leaves_the_stall_of_too_few_candidates(seed):
    objective, truth = planted(seed, samples=6, dimension=2)
    size = float(objective.target.square().sum())
    candidates, stalled = descend(objective, objective.start(3, seed, 1.0))
    control, still = descend(objective, candidates, steps=3000)
    assert still > 1e-4 * size
    assert control.count == 3
    loss = stalled
    for turn in range(8):
        if loss < 1e-9 * size:
            break
        candidates, _, record = split_candidates(objective, candidates, seed=turn, limit=2)
        assert record.after <= record.before
        candidates, loss = descend(objective, candidates, steps=1500)
    assert loss < 1e-9 * size
    distance = torch.cdist(truth.x, candidates.x).amin(1)
    assert candidates.count <= 18
    assert float(distance.max()) < 0.3


# --- bad input ---------------------------------------------------------------------------------


def test_errors():
    objective, _ = planted(0, samples=2)
    candidates = objective.start(2, 0, 1.0)
    for settings, message in [
        ({"mode": "both"}, "mode: expected auto or paper, got both"),
        ({"limit": -1}, "limit: expected at least 0"),
        ({"products": 0}, "products: expected at least 1"),
        ({"minimum_gain": 1.0}, "minimum_gain"),
        ({"merge_radius": math.nan}, "merge_radius"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            split_candidates(objective, candidates, **settings)
    with pytest.raises(InvalidInputError, match="x: expected shape"):
        split_candidates(objective, Candidates(torch.zeros(2, 5).double(), candidates.lam))
    with pytest.raises(InvalidInputError, match="finite numbers"):
        split_candidates(objective, Candidates(candidates.x * math.nan, candidates.lam))
    huge = Candidates(candidates.x, candidates.lam * 1e200)
    with pytest.raises(InvalidInputError, match="loss: expected a finite number"):
        split_candidates(objective, huge)
