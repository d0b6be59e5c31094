"""Penalties shared by mass: splits change none by themselves, and all else follows the loss."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attack import solve
from attack.objectives import Candidates, Objective
from attack.objectives.penalties import BoxPenalty, FloorPenalty, SparsityPenalty
from attack.runs.checkpoints import load_state, save_state
from attack.solving.gauss_newton import curvature
from attack.solving.multipliers import optimal_multipliers
from attack.solving.problem import Problem
from attack.solving.second_order import check_second_order
from attack.solving.settings import SolveSettings
from attack.solving.state import LoopState
from attack.splitting.eigenpairs import extreme_eigenpairs, smallest_eigenpairs
from attack.splitting.plan import SplitPlan, joined, offspring
from attack.splitting.split_round import split_candidates
from attack.splitting.tidy import merged_points
from identify.errors import InvalidInputError
from tests.attack import problems
from tests.attack.problems import splitting_products
from tests.attack.split_problems import descend, planted

KINDS = ("haim", "multiclass", "loo both", "gradient squared", "bilevel logistic")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def problem(kind: str, count: int = 5, seed: int = 0) -> tuple[Objective, Candidates]:
    """An objective with penalties that bind, and candidates of different masses."""
    objective = problems.EVERY[kind](activation="tanh")
    if not objective.penalties:
        objective = replace(objective, penalties=(BoxPenalty(-0.3, 0.3),))
    at = problems.candidates(objective, count)
    generator = torch.Generator().manual_seed(seed)
    mass = 0.2 + torch.rand(count, generator=generator, dtype=torch.float64)
    at = at.with_points(2 * at.x, 0.2 * at.lam).with_mass(mass)
    assert float(objective.penalty_values(at).min()) > 0
    return objective, at


def plan_for(at: Candidates, opposite: bool, seed: int = 0) -> SplitPlan:
    v = problems.noise(at.x, seed)
    flags = torch.full((at.count,), opposite)
    ones = torch.ones(at.count, dtype=torch.float64)
    return SplitPlan(torch.arange(at.count), v / v.norm(dim=1, keepdim=True), -ones, flags)


@pytest.mark.parametrize("kind", KINDS)
def test_mass_one_is_a_whole_penalty_each(kind: str) -> None:
    objective, at = problem(kind)
    bare = Candidates(at.x, at.lam, at.labels)
    for one, other in zip(
        vars(objective.value_and_gradients(bare)).values(),
        vars(objective.value_and_gradients(at.with_mass())).values(),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_autograd(kind: str) -> None:
    objective, at = problem(kind)
    x, lam = at.x.clone().requires_grad_(), at.lam.clone().requires_grad_()
    loss = objective.loss(at.with_points(x, lam))
    # The definition, written out.
    written = objective.data_loss(at) + sum(
        s * p.values(at.x[i : i + 1], at.lam[i : i + 1] / s).sum()
        for p in objective.penalties
        for i, s in enumerate(at.mass)
    )
    assert float(loss.detach()) == pytest.approx(float(written), rel=1e-12)
    expected = torch.autograd.grad(loss, [x, lam])
    got = objective.value_and_gradients(at)
    assert problems.relative(got.grad_x, expected[0]) < 1e-10
    assert problems.relative(got.grad_lam, expected[1]) < 1e-10


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_split_of_no_length_costs_nothing(kind: str, opposite: bool) -> None:
    objective, at = problem(kind)
    if opposite and not objective.signed:
        objective, at = problem("loo both")
    none = torch.zeros(at.count, dtype=torch.float64)
    before = float(objective.value(at))
    # Opposite signs keep the penalties of the points; that of |lam| grows with sum |lam|.
    sparse = [p for p in objective.penalties if isinstance(p, SparsityPenalty)]
    extra = 2 * sum(float(p.values(at.x, at.lam).sum()) for p in sparse) if opposite else 0.0
    split, _ = offspring(at, plan_for(at, opposite), none)
    assert float(split.mass.sum()) == pytest.approx(float(at.mass.sum()), rel=1e-12)
    assert float(objective.value(split)) == pytest.approx(before + extra, rel=1e-12)
    # The control: whole penalties jump.
    bare = Candidates(at.x, at.lam, at.labels)
    whole, _ = offspring(bare, plan_for(at, opposite), none)
    jump = float(objective.value(whole) - objective.value(bare)) - extra
    assert jump > 0.1 * float(objective.penalty_values(bare).sum())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_curvature_of_a_split(kind: str, shared: bool) -> None:
    objective, at = problem(kind)
    if not shared:
        at = Candidates(at.x, at.lam, at.labels)
    plan = plan_for(at, opposite=False)
    v = plan.directions
    quadratic = splitting_products(objective, at, v) + objective.split_penalty_products(at, v)
    zero = torch.zeros(at.count, dtype=torch.float64)
    start = float(objective.value(offspring(at, plan, zero)[0]))
    eps = 2e-4
    change = float(objective.value(offspring(at, plan, zero + eps)[0])) - start
    assert change == pytest.approx(0.5 * eps**2 * float((v * quadratic).sum()), rel=1e-3)


@pytest.mark.parametrize("shared", [True, False])
def test_curvature_of_opposite_signs(shared: bool) -> None:
    objective, at = problem("loo both", count=1)
    if not shared:
        at = Candidates(at.x, at.lam, at.labels)
    operator = objective.splitting_operator(at)

    def product(v: Tensor) -> Tensor:
        return operator(v) + objective.split_penalty_products(at, v)

    _, high = extreme_eigenpairs(product, 1, objective.dimension)
    bend = (high.vectors * objective.split_penalty_products(at, high.vectors)).sum(1)
    turned = float((1.5 if shared else 2.0) * bend - high.values)
    plan = SplitPlan(torch.arange(1), high.vectors, high.values, torch.tensor([True]))
    zero, eps = torch.zeros(1, dtype=torch.float64), 1e-3
    ends = [float(objective.value(offspring(at, plan, zero + e)[0])) for e in (0.0, eps)]
    assert ends[1] - ends[0] == pytest.approx(0.5 * eps**2 * turned, rel=1e-3)


def test_the_check_measures_the_same_matrix() -> None:
    objective, at = problem("haim")
    found = check_second_order(Problem(objective), at)
    operator = objective.splitting_operator(at)
    pairs = smallest_eigenpairs(
        lambda v: operator(v) + objective.penalty_products(at, v), at.count, objective.dimension
    )
    assert found.smallest == pytest.approx(float(pairs.values.min()), rel=1e-9)


@pytest.mark.parametrize("kind", ["haim", "loo both", "gradient squared"])
def test_gauss_newton_has_their_hessian(kind: str) -> None:
    objective, at = problem(kind, count=3)
    whole = Candidates(at.x, at.lam, at.labels)
    data = curvature(objective, whole) - _penalty_hessian(objective, whole)
    extra = curvature(objective, at) - data
    assert torch.allclose(extra, _penalty_hessian(objective, at), atol=1e-9)


def _penalty_hessian(objective: Objective, at: Candidates) -> Tensor:
    z = torch.cat([at.x, at.lam], 1)

    def total(flat: Tensor) -> Tensor:
        parts = flat.reshape(z.shape)
        x, lam = parts[:, : at.x.shape[1]], parts[:, at.x.shape[1] :]
        return objective.penalty_values(at.with_points(x, lam)).sum()

    found: Tensor = 0.5 * torch.autograd.functional.hessian(total, z.flatten())
    return found


@pytest.mark.parametrize("seed", range(4))
def test_eliminated_multipliers_are_the_best(seed: int) -> None:
    objective, at = problem("haim", count=8, seed=seed)
    best = at.with_points(at.x, optimal_multipliers(objective, at))
    slope = objective.value_and_gradients(best).grad_lam
    assert bool((best.lam >= 0).all())
    assert float((slope * best.lam).abs().max()) < 1e-6
    assert bool((slope > -1e-6).all())
    # The control: the multipliers that are best for whole penalties are not.
    bare = Candidates(at.x, at.lam, at.labels)
    other = at.with_points(at.x, optimal_multipliers(objective, bare))
    assert float(objective.value(other)) > float(objective.value(best))


def test_merging_takes_a_split_back() -> None:
    objective, at = problem("haim")
    split, _ = offspring(at, plan_for(at, False), torch.zeros(at.count, dtype=torch.float64))
    pairs = torch.stack([torch.arange(at.count), torch.arange(at.count) + at.count], 1)
    back = merged_points(split, pairs)
    assert torch.allclose(back.mass, at.mass)
    assert float(objective.value(back)) == pytest.approx(float(objective.value(at)), rel=1e-12)
    twice = joined(at, at)
    new, origin, record = split_candidates(objective, twice, limit=0, merge_radius=1e-9)
    assert len(record.merged) > 0
    assert record.after == pytest.approx(float(objective.value(new)), rel=1e-12)
    expected = torch.zeros(at.count, dtype=torch.float64)
    kept = {int(k) % at.count for k, _ in record.merged}
    for place, mass in zip(origin.tolist(), new.mass.tolist(), strict=True):
        expected[place % at.count] += mass
    for index in kept:
        assert float(expected[index]) == pytest.approx(2 * float(at.mass[index]))


@pytest.mark.parametrize("seed", range(4))
def test_a_floor_no_longer_stands_in_the_way_of_a_split(seed: int) -> None:
    bare, _ = planted(seed, samples=6, dimension=3)
    at, _ = descend(bare, bare.start(3, seed, 1.0))
    objective = replace(bare, penalties=(FloorPenalty(float(at.lam.max()), weight=1e4),))
    _, _, shared = split_candidates(objective, at.with_mass())
    _, _, whole = split_candidates(objective, at)
    _, _, free = split_candidates(bare, at)
    assert shared.chosen.tolist() == free.chosen.tolist() != []
    assert whole.chosen.tolist() == []
    assert shared.after < shared.before


def test_auto_shares_and_the_others_do_not(tmp_path: Path) -> None:
    objective = problems.EVERY["haim"](activation="tanh")
    start = problems.candidates(objective, 2)
    assert SolveSettings(splitting="auto").penalties == "shared"
    assert SolveSettings(splitting="paper").penalties == "whole"
    with pytest.raises(InvalidInputError, match="penalties: expected whole with splitting paper"):
        SolveSettings(splitting="paper", penalties="shared")
    whole = LoopState.first(start, SolveSettings(penalties="whole"))
    assert whole.candidates.mass is None
    whole = LoopState.first(start.with_mass(), SolveSettings(penalties="whole"))
    assert whole.candidates.mass is None
    settings = SolveSettings("lbfgs", steps=400)
    found = solve(objective, start, settings)
    mass = found.candidates.mass
    assert found.candidates.count > start.count
    assert float(mass.sum()) <= start.count + 1e-9
    assert bool((torch.log2(mass) <= math.log2(start.count)).all())
    save_state(tmp_path / "state", found.state, {})
    state, _ = load_state(tmp_path / "state", torch.device("cpu"))
    assert torch.equal(state.candidates.mass, mass)


@pytest.mark.parametrize("mass", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan]])
def test_masses_that_do_not_fit(mass: list[float]) -> None:
    objective = problems.EVERY["haim"](activation="tanh")
    at = problems.candidates(objective, 2).with_mass(torch.tensor(mass, dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="mass: expected"):
        objective.check(at)
