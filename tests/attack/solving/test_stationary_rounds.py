"""Splitting where it belongs: at stationary points, within the cap, and reduced at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    ResidualObjective,
    buzaglo_objective,
    gradient_matching_objective,
)
from attack.solving.loop import Hooks, solve
from attack.solving.problem import Problem
from attack.solving.reduction import reduce_candidates, zero_level
from attack.solving.settings import SolveSettings, default_limit
from attack.splitting.split_round import split_candidates
from attack.splitting.tidy import tidy
from identify.errors import InvalidInputError
from identify.exposure.compare import match_samples
from tests.attack.problems import network, planted_kkt_point, smooth


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def toy() -> tuple[ResidualObjective, Candidates]:
    """Three samples in five dimensions in the weights of a cubic network."""
    net, truth = planted_kkt_point(3, 5)
    return buzaglo_objective(net, normaliser=1, task="regression", box=None, floor=None), truth


@pytest.mark.parametrize(
    ("solver", "steps", "fewest"), [("gauss-newton", 300, 18), ("lbfgs", 1500, 15)]
)
def test_one_candidate_grows_to_the_three_samples(solver: str, steps: int, fewest: int) -> None:
    objective, truth = toy()
    found = 0
    for seed in range(20):
        start = objective.start(1, seed, 5**-0.5)
        end = solve(objective, start, SolveSettings(solver, steps=steps, seed=seed)).candidates
        if end.count == 3:
            matching = match_samples(
                end.x.numpy(), truth.x.numpy(), up_to_sign=True, up_to_scale=True
            )
            found += float(matching.errors.max()) < 1e-6
    assert found >= fewest


def random_cubes(seed: int) -> tuple[ResidualObjective, Candidates]:
    """Three random samples that explain the target exactly, at random cubic neurons."""
    net = parse_spec("5-30-1,power3,bias=none").initialise(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    lam = 0.5 + torch.rand(3, 1, generator=generator, dtype=torch.float64)
    lam[1] *= -1
    blank = buzaglo_objective(net, normaliser=1, task="regression", box=None, floor=None)
    truth = Candidates(x, lam)
    moved = [t - r for t, r in zip(blank.target, blank.residual(truth), strict=True)]
    return replace(blank, target=tuple(moved), factor=None), truth


@pytest.mark.parametrize(
    ("solver", "steps", "fewest"), [("gauss-newton", 300, 7), ("lbfgs", 1500, 7)]
)
def test_one_candidate_grows_at_random_neurons_too(solver: str, steps: int, fewest: int) -> None:
    found = 0
    for seed in (1, 4, 7, 9, 11, 12, 15, 16):
        objective, truth = random_cubes(seed)
        assert float(objective.value(truth)) <= zero_level(objective, truth)
        start = objective.start(1, seed, 5**-0.5)
        end = solve(objective, start, SolveSettings(solver, steps=steps, seed=seed)).candidates
        if end.count == 3:
            errors = match_samples(
                end.x.numpy(), truth.x.numpy(), up_to_sign=True, up_to_scale=True
            ).errors
            found += float(errors.max()) < 1e-6
    assert found >= fewest


@pytest.mark.parametrize("solver", ["gauss-newton", "lbfgs"])
def test_a_vanishing_loss_is_reduced_before_it_is_called_stationary(solver: str) -> None:
    objective, truth = toy()
    signs = objective.start(3, 0, 1.0)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        lam = torch.linalg.lstsq(
            objective.multiplier_system(truth.with_points(truth.x, signs.lam)).gram,
            objective.multiplier_system(truth.with_points(truth.x, signs.lam)).linear[:, None],
        ).solution
        shares = 0.2 + 0.6 * torch.rand(3, 1, generator=generator, dtype=torch.float64)
        twice = Candidates(
            torch.cat([truth.x, truth.x]), torch.cat([shares * lam, (1 - shares) * lam])
        )
        assert float(objective.value(twice)) <= zero_level(objective, twice)
        start = twice if seed else twice.with_points(twice.x, twice.lam)
        found = reduce_candidates(Problem(objective), SolveSettings(solver).build(), start)
        assert found.candidates.count == len(found.origin) == 3
        assert found.loss <= zero_level(objective, twice)
        end = solve(objective, start, SolveSettings(solver, steps=200, limit=12))
        assert end.candidates.count == 3


def test_where_the_loss_does_not_vanish_nothing_is_dropped() -> None:
    objective, _ = toy()
    at = objective.start(4, 0, 1.0)
    found = reduce_candidates(Problem(objective), SolveSettings("lbfgs").build(), at)
    assert found.origin.tolist() == [0, 1, 2, 3]
    assert zero_level(smooth("bilevel logistic"), at) == 0.0


def test_a_round_needs_a_stall_and_more_gain_than_the_solver_has() -> None:
    net = network("tanh", outputs=2)
    objective = gradient_matching_objective(net, network("tanh", outputs=2, seed=9), normaliser=3)
    start = objective.start(3, 1, 0.3)
    fields: dict[str, Any] = {"interval": 3, "window": 3, "steps": 40, "rate_x": 1e-3}
    falling = solve(objective, start, SolveSettings("sgd", stall=1e-6, **fields))
    assert falling.state.rounds == ()
    fields["rate_x"], fields["rate_lam"] = 0.02, 0.02
    eager = solve(objective, start, SolveSettings("sgd", stall=0.99, **fields)).state.rounds
    assert eager
    refused = [found.message for found in eager if not found.taken]
    assert any("the solver gains more" in text for text in refused)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_cap_holds_without_being_asked_for(count: int) -> None:
    objective = smooth("gradient free")
    most: list[int] = []
    hooks = Hooks(round=lambda _, after: most.append(after.count))
    settings = SolveSettings("lbfgs", steps=120, window=3, interval=3, stall=0.9)
    assert settings.limit is None
    solve(objective, objective.start(count, 0, 0.5), settings, hooks=hooks)
    assert most
    assert max(most) <= default_limit(count)


def test_the_first_round_prunes_nothing_and_later_ones_a_share() -> None:
    objective = smooth("gradient free")
    at = objective.start(8, 0, 0.5)
    idle = at.with_points(at.x, at.lam * torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1.0])[:, None])
    loss = float(objective.value(idle))
    for most in (0, 2, None):
        found = tidy(objective, idle, loss, radius=0.0, least=1e9, noise=1e-12, most=most)
        assert len(found.pruned) == most if most is not None else len(found.pruned) >= 6
    for share, expected in ((0.0, 0), (0.25, 2)):
        record = split_candidates(
            objective, idle, prune_share=share, minimum_gain=0.99, merge_radius=0.0, limit=0
        )[2]
        assert len(record.pruned) <= expected
    with pytest.raises(InvalidInputError, match="prune_share"):
        split_candidates(objective, idle, prune_share=2.0)
    first = solve(
        objective, idle, SolveSettings("sgd", steps=12, window=2, stall=0.9, rate_x=1e-6)
    ).state.rounds
    assert first
    assert first[0].pruned == ()
