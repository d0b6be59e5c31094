"""Solvers, their memory across a split, elimination, and spans."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from attack.objectives import Candidates
from attack.objectives.penalties import SparsityPenalty
from attack.objectives.spans import AffineSpan, span_objective
from attack.solving.lbfgs import LimitedMemory, _product, strong_wolfe
from attack.solving.multipliers import non_negative, optimal_multipliers
from attack.solving.problem import Point, Problem, shares
from attack.solving.solver import Adam, MomentumDescent
from identify.errors import InvalidInputError
from tests.attack import problems
from tests.attack.problems import smooth, splitting_products


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# Steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_are_the_published_ones(name: str) -> None:
    objective = smooth()
    at = problems.candidates(objective)
    x, lam = at.x.clone().requires_grad_(), at.lam.clone().requires_grad_()
    solver: Any = MomentumDescent(0.02, 0.003, 0.8) if name == "sgd" else Adam(0.02, 0.003)
    state = solver.begin(at)
    first = [torch.zeros_like(x), torch.zeros_like(lam)]
    second = [torch.zeros_like(x), torch.zeros_like(lam)]
    for step in range(1, 13):
        move = solver.advance(Problem(objective), at, state)
        at, state = move.candidates, move.state
        slopes = torch.autograd.grad(objective.loss(at.with_points(x, lam)), [x, lam])
        for k, (point, slope, rate) in enumerate(zip((x, lam), slopes, (0.02, 0.003), strict=True)):
            if name == "sgd":
                first[k] = 0.8 * first[k] + slope
                point.data -= rate * first[k]
            else:
                first[k] = 0.9 * first[k] + 0.1 * slope
                second[k] = 0.999 * second[k] + 0.001 * slope**2
                mean, square = first[k] / (1 - 0.9**step), second[k] / (1 - 0.999**step)
                point.data -= rate * mean / (square.sqrt() + 1e-8)
    assert problems.relative(at.x, x) < 1e-12
    assert problems.relative(at.lam, lam) < 1e-12


def test_lbfgs_reaches_a_minimum_and_says_that_it_is_stuck() -> None:
    objective, solver = smooth("gradient squared"), LimitedMemory()
    at = problems.candidates(objective, 2)
    state, losses = solver.begin(at), []
    for _ in range(300):
        move = solver.advance(Problem(objective), at, state)
        at, state = move.candidates, move.state
        losses.append(move.at.loss)
        if move.stuck:
            break
    assert move.stuck == "no further decrease"
    assert all(b <= a for a, b in itertools.pairwise(losses))
    gradient = objective.value_and_gradients(at)
    assert float(gradient.grad_x.norm() + gradient.grad_lam.norm()) < 1e-6 * losses[0]


@pytest.mark.parametrize("multipliers", ["free", "fixed"])
def test_lbfgs_respects_what_multipliers_may_do(multipliers: str) -> None:
    objective = smooth(penalties=())
    assert not objective.signed
    solver, problem = LimitedMemory(), Problem(objective, multipliers)
    at = start = problems.candidates(objective)
    state, zeros, losses = solver.begin(at), 0, []
    for _ in range(60):
        move = solver.advance(problem, at, state)
        at, state = move.candidates, move.state
        losses.append(move.at.loss)
        assert bool((at.lam >= 0).all())
        zeros += int((at.lam == 0).sum())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]
    if multipliers == "fixed":
        assert torch.equal(at.lam, start.lam)
    else:
        assert zeros > 0


@pytest.mark.parametrize("first", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    ("f", "df"),
    [
        (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
        (lambda t: -t / (t * t + 2), lambda t: (t * t - 2) / (t * t + 2) ** 2),
        (
            lambda t: (t + 0.004) ** 5 - 2 * (t + 0.004) ** 4,
            lambda t: 5 * (t + 0.004) ** 4 - 8 * (t + 0.004) ** 3,
        ),
        (lambda t: math.exp(min(t, 700)) - 5 * t, lambda t: math.exp(min(t, 700)) - 5),
    ],
)
def test_strong_wolfe(f: Any, df: Any, first: float) -> None:
    empty = torch.zeros(1, 1)

    def trial(length: float) -> tuple[Point, float]:
        at = Candidates(torch.tensor([[length]], dtype=torch.float64), empty)
        return Point(at, f(length), f(length), empty, empty), df(length)

    found, count = strong_wolfe(trial, f(0.0), df(0.0), first)
    assert found is not None
    assert count <= 20
    length = float(found.candidates.x)
    assert found.loss <= f(0.0) + 1e-4 * length * df(0.0)
    if count < 20:
        assert abs(df(length)) <= -0.9 * df(0.0)


def test_the_search_gives_up_where_the_gradient_is_wrong() -> None:
    empty = torch.zeros(1, 1)

    def trial(length: float) -> tuple[Point, float]:
        return Point(Candidates(empty, empty), 1.0 + length, 1.0, empty, empty), -1.0

    assert strong_wolfe(trial, 1.0, -1.0, 1.0)[0] is None


# Memory across a split --------------------------------------------------------------------------


def halved(at: Candidates) -> tuple[Candidates, Tensor]:
    """All candidates but the first as two halves at one point."""
    origin = torch.cat([torch.arange(at.count), torch.arange(1, at.count)])
    lam = at.lam[origin].clone()
    lam[1:] /= 2
    return at.select(origin).with_points(at.x[origin], lam), origin


def test_shares() -> None:
    at = problems.candidates(smooth())
    new, origin = halved(at)
    assert torch.allclose(shares(at, new, origin)[:, 0], torch.tensor([1.0] + [0.5] * 10).double())


def test_momentum_goes_on_after_a_split() -> None:
    objective, solver = smooth(penalties=()), MomentumDescent(0.01, 0.01)
    at = problems.candidates(objective)
    move = solver.advance(Problem(objective), at, solver.begin(at))
    new, origin = halved(move.candidates)
    memory = solver.carry(move.state, move.candidates, new, origin)
    assert torch.equal(memory["x"][-1], memory["x"][at.count - 1])
    whole = torch.zeros_like(move.state["lam"]).index_add(0, origin, memory["lam"])
    assert torch.allclose(whole, move.state["lam"])


def test_adam_steps_alike_after_a_split() -> None:
    objective, solver = smooth(penalties=()), Adam(0.01, 0.01)
    at, state = problems.candidates(objective), None
    state = solver.begin(at)
    for _ in range(4):
        move = solver.advance(Problem(objective), at, state)
        at, state = move.candidates, move.state
    new, origin = halved(at)
    plain = solver.advance(Problem(objective), at, state)
    split = solver.advance(Problem(objective), new, solver.carry(state, at, new, origin))
    assert torch.allclose(split.candidates.x, plain.candidates.x[origin], atol=1e-7)


def test_lbfgs_keeps_its_secant_equation_after_a_split() -> None:
    objective, solver = smooth("regression", penalties=()), LimitedMemory()
    at = problems.candidates(objective)
    state = solver.begin(at)
    for _ in range(4):
        move = solver.advance(Problem(objective), at, state)
        at, state = move.candidates, move.state
    new, origin = halved(at)
    carried = solver.carry(state, at, new, origin)
    assert "grad_x" not in carried
    count = sum(name.startswith("s.") for name in carried)
    assert count == 4
    pairs = [(carried[f"s.{k}"], carried[f"y.{k}"]) for k in range(count)]
    for k, (s, y) in enumerate(pairs):
        old = (state[f"s.{k}"] * state[f"y.{k}"]).sum()
        assert float((s * y).sum()) == pytest.approx(float(old))
    s, y = pairs[-1]
    assert torch.allclose(_product(pairs, y), s)
    # The carried change is that of the gradient of the halves themselves.
    step = 1e-6
    moved = new.with_points(new.x + step * s[:, :5], new.lam + step * s[:, 5:])
    parent = at.with_points(at.x + step * state["s.3"][:, :5], at.lam + step * state["s.3"][:, 5:])
    change = objective.value_and_gradients(moved).grad_x - objective.value_and_gradients(new).grad_x
    old = objective.value_and_gradients(parent).grad_x - objective.value_and_gradients(at).grad_x
    share = shares(at, new, origin)
    assert problems.relative(change, share * old[origin]) < 1e-4


# Elimination ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    size=st.integers(1, 9), rank=st.integers(1, 9), seed=st.integers(0, 10_000),
    weight=st.sampled_from([0.0, 0.3, 5.0]), floor=st.sampled_from([0.0, 0.2]),
)  # fmt: skip
def test_non_negative_minimises(
    size: int, rank: int, seed: int, weight: float, floor: float
) -> None:
    rng = np.random.default_rng(seed)
    factor, right = (
        rng.standard_normal((max(size, rank), size)),
        rng.standard_normal(max(size, rank)),
    )
    gram = torch.from_numpy(factor.T @ factor)
    linear = torch.from_numpy(factor.T @ right)
    guess = torch.from_numpy(rng.standard_normal(size))
    z = non_negative(gram, linear, weight=weight, floor=floor, start=guess)
    slope = gram @ z - linear - weight * (floor - z).clamp_min(0)
    assert bool((z >= 0).all())
    assert bool((slope >= -1e-8).all())
    assert float((slope * z).abs().max()) < 1e-8
    if not weight:
        expected, _ = nnls(factor, right)
        assert np.allclose(z.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["haim", "multiclass", "regression", "loo both", "gradient free", "gradient squared"]
)
def test_eliminated_multipliers_are_the_best(kind: str) -> None:
    objective = smooth(kind)
    dense = tuple(p for p in objective.penalties if not isinstance(p, SparsityPenalty))
    objective = replace(objective, penalties=dense)
    at = problems.candidates(objective)
    best = at.with_points(at.x, optimal_multipliers(objective, at))
    least = float(objective.value(best))
    slope = objective.value_and_gradients(best).grad_lam
    if objective.signed:
        assert float(slope.norm()) < 1e-6
    else:
        assert bool((best.lam >= 0).all())
        assert float((slope * best.lam).abs().max()) < 1e-6
        assert bool((slope > -1e-6).all())
    for seed in range(5):
        other = best.lam + 0.1 * problems.noise(best.lam, seed)
        if not objective.signed:
            other = other.clamp_min(0)
        assert float(objective.value(best.with_points(at.x, other))) >= least


@pytest.mark.parametrize("kind", ["haim", "regression"])
def test_gradient_at_the_best_multipliers(kind: str) -> None:
    objective = smooth(kind)
    problem, at = Problem(objective, "eliminated"), problems.candidates(objective, 3)
    v, eps = problems.noise(at.x), 1e-5
    ends = [
        problem.evaluate(at.with_points(at.x + sign * eps * v, at.lam)).loss for sign in (1, -1)
    ]
    slope = float((problem.evaluate(at).grad_x * v).sum())
    assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(slope, rel=1e-5)


def test_elimination_survives_duplicates_and_the_origin() -> None:
    objective = smooth(penalties=())
    at = problems.candidates(objective, 3)
    twice = at.select(torch.tensor([0, 0, 1, 2]))
    assert bool(torch.isfinite(optimal_multipliers(objective, twice)).all())
    power = problems.EVERY["haim"](activation="power3")
    origin = power.start(3, 0, 0.0)
    assert bool(torch.isfinite(optimal_multipliers(power, origin)).all())


def test_what_cannot_be_eliminated() -> None:
    for kind, word in (("bilevel logistic", "quadratic"), ("loo final", "SparsityPenalty")):
        objective = problems.EVERY[kind](activation="tanh")
        with pytest.raises(InvalidInputError, match=word):
            optimal_multipliers(objective, problems.candidates(objective))


# Spans ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(problems.EVERY))
def test_a_span_is_a_change_of_coordinates(kind: str) -> None:
    base = problems.EVERY[kind](activation="tanh")
    rows = problems.noise(torch.zeros(3, base.dimension, dtype=torch.float64))
    span = AffineSpan.of(0.1 * torch.ones(base.dimension), rows)
    objective = span_objective(base, span)
    at = objective.start(4, 0, 1.0)
    whole = objective.lifted(at)
    assert torch.allclose(objective.dropped(whole).x, at.x)
    found = objective.value_and_gradients(at)
    x, lam = at.x.clone().requires_grad_(), at.lam.clone().requires_grad_()
    loss = objective.loss(at.with_points(x, lam))
    slopes = torch.autograd.grad(loss, [x, lam])
    assert float(found.loss) == pytest.approx(float(base.value(whole)))
    assert problems.relative(found.grad_x, slopes[0]) < 1e-9
    assert problems.relative(found.grad_lam, slopes[1]) < 1e-9
    v = problems.noise(at.x)
    expected = splitting_products(base, whole, v @ span.basis) @ span.basis.T
    assert torch.allclose(splitting_products(objective, at, v), expected)
    extra = base.penalty_products(whole, v @ span.basis) @ span.basis.T
    assert torch.allclose(objective.penalty_products(at, v), extra)
    assert objective.describe()["span"]["dimension"] == 3


def test_a_span_drops_dependent_rows_and_refuses_nonsense() -> None:
    rows = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 1, 0]])
    span = AffineSpan.of(torch.zeros(3), rows)
    assert span.dimension == 2
    assert torch.allclose(span.basis @ span.basis.T, torch.eye(2).double())
    for mean, wrong in (
        (torch.zeros(2), rows),
        (torch.zeros(3), 0 * rows),
        (torch.zeros(3), rows * math.nan),
    ):
        with pytest.raises(InvalidInputError, match="span"):
            AffineSpan.of(mean, wrong)
    with pytest.raises(InvalidInputError, match="dimension 5"):
        span_objective(smooth(), span)
