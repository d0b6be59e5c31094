"""Solvers, elimination, spans, and the loop: every step, every stop, every continuation."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from attack.checkpoints import load_state, save_state
from attack.elimination import non_negative, optimal_multipliers
from attack.lbfgs import LimitedMemory, _product, strong_wolfe
from attack.objectives import (
    Candidates,
    Objective,
    ResidualObjective,
    TemperatureSchedule,
    gradient_matching_objective,
    loo_objective,
)
from attack.objectives.penalties import FloorPenalty, SparsityPenalty
from attack.optimisers import Adam, MomentumDescent, Move, Point, Problem, shares
from attack.second_order import check_second_order
from attack.solve import Hooks, LoopState, Round, Solution, solve
from attack.solve_settings import SolveSettings
from attack.spans import AffineSpan, span_objective
from identify.errors import InvalidInputError, KktCertError
from tests.attack import problems


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def smooth(kind: str = "haim", **changes: Any) -> Objective:
    built = problems.EVERY[kind](activation="tanh")
    return replace(built, **changes) if changes else built  # type: ignore[type-var]


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
    assert losses[-1] < 0.95 * losses[0]
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
    object.__setattr__(
        objective,
        "penalties",
        tuple(p for p in objective.penalties if not isinstance(p, SparsityPenalty)),
    )
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
    expected = base.splitting_products(whole, v @ span.basis) @ span.basis.T
    assert torch.allclose(objective.splitting_products(at, v), expected)
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


# The loop ---------------------------------------------------------------------------------------


def run(objective: Objective, **fields: Any) -> Solution:
    hooks = fields.pop("hooks", None)
    limit = fields.pop("time_limit", None)
    start = fields.pop("start", None) or problems.candidates(objective, 4)
    chosen = SolveSettings(**{"solver": "sgd", "steps": 40, "splitting": "off", **fields})
    return solve(objective, start, chosen, hooks=hooks, time_limit=limit)


CASES = {
    "sgd auto": ({"splitting": "auto", "interval": 10, "window": 5, "rate_x": 0.02}, "haim"),
    "sgd paper": ({"splitting": "paper", "interval": 9, "rate_x": 0.02}, "gradient free"),
    "adam auto": ({"solver": "adam", "splitting": "auto", "interval": 9}, "regression"),
    "adam schedule": ({"solver": "adam"}, "schedule"),
    "lbfgs off": ({"solver": "lbfgs"}, "haim"),
    "lbfgs auto": ({"solver": "lbfgs", "splitting": "auto", "interval": 8}, "gradient free"),
    "lbfgs schedule": ({"solver": "lbfgs", "steps": 65}, "schedule"),
    "lbfgs eliminated": (
        {"solver": "lbfgs", "multipliers": "eliminated", "splitting": "auto", "interval": 9},
        "haim",
    ),
    "adam sometimes eliminated": (
        {"solver": "adam", "multipliers": "eliminated", "eliminate_every": 7},
        "multiclass",
    ),
    "fixed": ({"solver": "lbfgs", "multipliers": "fixed"}, "bilevel logistic"),
    "gauss-newton": (
        {"solver": "gauss-newton", "splitting": "auto", "interval": 9, "limit": 6},
        "gradient free",
    ),
}


def scheduled() -> Objective:
    first, last = (problems.network("relu", seed=seed) for seed in (3, 4))
    schedule = TemperatureSchedule(period=20.0)
    return loo_objective(first, last, normaliser=4, schedule=schedule)


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_continued_loop_ends_where_the_whole_one_does(case: str, tmp_path: Path) -> None:
    fields, kind = CASES[case]
    objective = scheduled() if kind == "schedule" else problems.EVERY[kind](activation="tanh")
    saved: list[Path] = []

    def save(state: LoopState) -> None:
        saved.append(tmp_path / f"{len(saved)}.safetensors")
        save_state(saved[-1], state, {})

    whole = run(objective, hooks=Hooks(save=save, save_every=6), **fields)
    if fields.get("splitting", "off") != "off":
        assert whole.state.rounds
    states = [load_state(path, torch.device("cpu"))[0] for path in saved]
    assert [s.step for s in states[:-1]] == sorted(s.step for s in states[:-1])
    for state in states[1:-1:2]:
        again = run(objective, start=state, **fields)
        assert torch.equal(again.candidates.x, whole.candidates.x)
        assert torch.equal(again.candidates.lam, whole.candidates.lam)
        assert again.loss == whole.loss
        assert again.stopped == whole.stopped
        assert again.state.step == whole.state.step
        assert again.state.rounds == whole.state.rounds
        assert [r[:5] for r in again.history] == [r[:5] for r in whole.history]
        assert again.check == whole.check


def test_an_interrupt_keeps_the_state_before_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = smooth("gradient free")
    fields = {"splitting": "auto", "interval": 6, "steps": 30, "rate_x": 0.02}
    whole = run(objective, **fields)
    for calls in (3, 15, 30):
        saved: list[LoopState] = []
        left = itertools.count(calls, -1)
        plain = type(objective).value_and_gradients

        def interrupted(self: Any, at: Candidates, left: Any = left, plain: Any = plain) -> Any:
            if next(left) == 0:
                raise KeyboardInterrupt
            return plain(self, at)

        with monkeypatch.context() as patch:
            patch.setattr(type(objective), "value_and_gradients", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(objective, hooks=Hooks(save=saved.append), **fields)
        again = run(objective, start=saved[-1], **fields)
        assert torch.equal(again.candidates.x, whole.candidates.x)


def planted(samples: int = 3) -> tuple[ResidualObjective, Candidates]:
    """One gradient of a cubic network, and the samples that made it."""
    network = problems.network("power3", hidden=(30,), bias="none")
    zero = [0 * p for p in network.parameters()]
    truth = gradient_matching_objective(network, zero, normaliser=1).start(samples, 1, 1.0)
    empty = gradient_matching_objective(network, zero, normaliser=1)
    gradient = [-r for r in empty.residual(truth)]
    return gradient_matching_objective(network, gradient, normaliser=1), truth


def test_rounds_are_recorded_and_lower_the_loss() -> None:
    objective, _ = planted()
    lines: list[dict[str, Any]] = []
    texts: list[tuple[str, float]] = []
    seen: list[int] = []
    hooks = Hooks(
        log=lines.append, progress=lambda text, share: texts.append((text, share)),
        round=lambda r, after: seen.append(after.count),
    )  # fmt: skip
    found = run(
        objective, start=objective.start(1, 0, 1.0), splitting="auto", solver="lbfgs", interval=10,
        steps=40, limit=4, hooks=hooks, log_every=5,
    )  # fmt: skip
    assert [r for r in found.state.rounds if r.accepted]
    for r in found.state.rounds:
        assert r.after <= r.before
        assert r.count_after == len(r.origin)
        assert max(r.origin) < r.count_before == len(r.eigenvalues)
        assert r.message in [line.get("message") for line in lines]
        assert Round.from_dict(json.loads(json.dumps(r.to_dict()))) == r
    assert seen == [r.count_after for r in found.state.rounds]
    assert 1 < found.candidates.count <= 4
    assert [row[0] for row in found.history][:3] == [0.0, 5.0, 10.0]
    assert found.history[-1][:2] == (40.0, found.loss)
    assert all(0 <= share <= 1 for _, share in texts)
    assert any("candidates split" in text for text, _ in texts)


def test_rounds_that_raise_the_loss_are_kept_on_demand() -> None:
    # A floor above all multipliers makes every split jump.
    objective, _ = planted()
    object.__setattr__(objective, "penalties", (FloorPenalty(3.0, weight=1e3),))
    settings: dict[str, Any] = {
        "splitting": "paper", "solver": "lbfgs", "interval": 20, "steps": 21, "log_every": 1,
    }  # fmt: skip
    start = objective.start(2, 0, 1.0)
    kept = run(objective, start=start, rollback=False, **settings).state.rounds[0]
    back = run(objective, start=start, **settings).state.rounds[0]
    assert kept.chosen == back.undone != ()
    assert kept.after > kept.before == back.before == back.after
    assert kept.count_after > back.count_after == start.count


@pytest.mark.parametrize("mode", ["auto", "paper"])
@pytest.mark.parametrize("limit", [2, 3, 4])
def test_no_round_passes_the_limit(mode: str, limit: int) -> None:
    objective, _ = planted()
    found = run(
        objective, start=objective.start(2, 0, 1.0), splitting=mode, interval=5, steps=30,
        limit=limit, solver="lbfgs",
    )  # fmt: skip
    assert found.candidates.count <= limit
    assert all(not r.taken or r.count_after <= limit for r in found.state.rounds)
    assert found.state.rounds or (limit == 2 or mode == "auto")


def test_auto_splits_when_the_loss_stalls() -> None:
    objective, _ = planted()
    found = run(
        objective, start=objective.start(2, 0, 1.0), splitting="auto", interval=1000, window=5,
        stall=0.5, steps=60, rate_x=1e-9, rate_lam=1e-9,
    )  # fmt: skip
    steps = [r.step for r in found.state.rounds]
    assert steps
    assert steps[0] == 10  # the first window only sets the mark
    assert all(b - a >= 10 for a, b in itertools.pairwise(steps))


def test_why_a_loop_stops() -> None:
    objective = smooth("gradient free")
    assert run(objective).stopped == "steps"
    assert run(objective, steps=0).state.step == 0
    assert run(objective, target_loss=1e6).stopped == "target loss"
    assert run(objective, time_limit=1e-9).stopped == "time limit"
    stuck, start = planted()
    start = start.select(torch.tensor([0]))
    found = run(stuck, solver="gauss-newton", start=start, steps=500)
    assert found.stopped in ("stationary", "no further decrease")
    found = run(stuck, solver="gauss-newton", start=start, steps=500, splitting="auto", limit=1)
    assert found.stopped in ("stationary", "no further decrease")
    flat = replace(stuck, target=tuple(0 * t for t in stuck.target))
    start = start.with_points(start.x, 0 * start.lam)
    found = run(flat, solver="gauss-newton", start=start, steps=50, splitting="auto")
    assert found.stopped == "target loss"
    found = run(stuck, solver="gauss-newton", steps=900, splitting="auto", interval=900)
    assert found.stopped == "second-order stationary"
    assert not found.state.rounds[-1].accepted
    assert found.state.ended == found.stopped


def test_a_time_limit_is_no_end() -> None:
    objective = smooth("gradient free")
    parts = run(objective, time_limit=1e-9)
    assert parts.state.step == 0
    whole = run(objective)
    again = run(objective, start=parts.state)
    assert torch.equal(again.candidates.x, whole.candidates.x)


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"rate_x": 1e9, "rate_lam": 1e-12}, "rate_x, now 1e+09"),
        ({"rate_x": 1e-12, "rate_lam": 1e200}, "rate_lam, now 1e+200"),
    ],
)
def test_nan_names_the_setting_and_keeps_the_last_good_state(
    fields: dict[str, float], advice: str
) -> None:
    objective = problems.EVERY["haim"](activation="power3")
    saved: list[LoopState] = []
    with pytest.raises(KktCertError) as caught:
        run(objective, hooks=Hooks(save=saved.append), **fields)
    text = str(caught.value)
    assert "expected a finite number" in text
    assert advice in text
    assert "\n" not in text
    state = caught.value.context["state"]
    assert math.isfinite(float(objective.value(state.candidates)))
    assert all(math.isfinite(float(objective.value(s.candidates))) for s in saved)


def test_a_start_with_an_infinite_loss() -> None:
    objective = problems.EVERY["haim"](activation="power3")
    start = objective.start(4, 0, 1e80)
    with pytest.raises(InvalidInputError, match="lower start_scale"):
        run(objective, start=start)


def test_the_check_is_exact_where_the_matrices_are_small() -> None:
    objective = smooth()
    at = problems.candidates(objective)
    found = check_second_order(Problem(objective), at)
    eye = torch.eye(objective.dimension, dtype=torch.float64)
    rows = [v.expand(at.count, -1) for v in eye]
    columns = [
        objective.splitting_products(at, v) + 2 * objective.penalty_products(at, v) for v in rows
    ]
    smallest = float(torch.linalg.eigvalsh(torch.stack(columns, 2)).min())
    assert found.smallest == pytest.approx(smallest, rel=1e-6)
    assert found.gamma == max(0.0, -found.smallest)
    gradient = objective.value_and_gradients(at)
    size = math.hypot(float(gradient.grad_x.norm()), float(gradient.grad_lam.norm()))
    assert found.epsilon == pytest.approx(size)
    assert "(eps, gamma)" in str(found)
    assert "\n" not in str(found)


def test_the_check_projects_bounded_multipliers() -> None:
    objective = smooth(penalties=())
    at = problems.candidates(objective)
    at = at.with_points(at.x, 0 * at.lam)
    found = check_second_order(Problem(objective), at)
    gradient = objective.value_and_gradients(at)
    inward = gradient.grad_lam.clamp_max(0)
    size = math.hypot(float(gradient.grad_x.norm()), float(inward.norm()))
    assert found.epsilon == pytest.approx(size)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"solver": "newton"}, "solver"),
        ({"splitting": "on"}, "splitting"),
        ({"multipliers": "none"}, "multipliers"),
        ({"steps": -1}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"rate_x": 0.0}, "rate_x"),
        ({"rate_lam": math.nan}, "rate_lam"),
        ({"momentum": 1.0}, "momentum"),
        ({"solver": "adam", "momentum": 0.5}, "momentum"),
        ({"solver": "lbfgs", "rate_x": 0.1}, "rate_x"),
        ({"memory": 5}, "memory"),
        ({"eliminate_every": 3}, "eliminate_every"),
        ({"ridge": 1e-3}, "ridge"),
        ({"stall": 1.0}, "stall"),
        ({"interval": 0}, "interval"),
        ({"target_loss": -1.0}, "target_loss"),
        ({"limit": 3}, "limit"),
        ({"seed": -1}, "seed"),
        ({"multipliers": "eliminated"}, "multipliers"),
        ({"penalties": "none"}, "penalties"),
        ({"penalties": "shared", "splitting": "paper"}, "penalties"),
        ({"rollback": False}, "rollback"),
        ({"rollback": 0, "splitting": "paper"}, "rollback"),
    ],
)
def test_settings_that_do_not_fit(fields: dict[str, Any], name: str) -> None:
    kind = "bilevel logistic" if fields == {"multipliers": "eliminated"} else "haim"
    with pytest.raises(InvalidInputError, match=name):
        run(problems.EVERY[kind](activation="tanh"), **fields)


def test_settings_fill_in_what_is_left_out() -> None:
    chosen = SolveSettings("sgd")
    assert (chosen.rate_x, chosen.rate_lam, chosen.momentum) == (1e-2, 1e-4, 0.9)
    assert (chosen.window, chosen.interval) == (250, 2500)
    chosen = SolveSettings("lbfgs")
    assert (chosen.memory, chosen.window, chosen.interval) == (10, 50, 250)
    assert SolveSettings(**chosen.to_dict()) == chosen


def test_a_move_that_is_stuck_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that cannot move leaves the candidates where they are, with splitting off."""
    objective = smooth()

    def stuck(self: Any, problem: Problem, at: Candidates, state: Any) -> Move:
        return Move(problem.evaluate(at), at, state, stuck="stationary")

    monkeypatch.setattr(MomentumDescent, "advance", stuck)
    start = problems.candidates(objective)
    found = run(objective, start=start)
    assert found.stopped == "stationary"
    assert torch.equal(found.candidates.x, start.x)
    assert any(isinstance(p, FloorPenalty) for p in objective.penalties)
