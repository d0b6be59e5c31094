"""The loop: every stop, every round, every continuation, and its settings."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attack.objectives import (
    Candidates,
    Objective,
    ResidualObjective,
    TemperatureSchedule,
    gradient_matching_objective,
    loo_objective,
)
from attack.objectives.penalties import FloorPenalty
from attack.runs.checkpoints import load_state, save_state
from attack.solving.loop import Hooks, Solution, solve
from attack.solving.problem import Move, Problem
from attack.solving.second_order import check_second_order
from attack.solving.settings import SolveSettings
from attack.solving.solver import MomentumDescent
from attack.solving.state import LoopState, Round
from identify.errors import InvalidInputError, KktCertError
from tests.attack import problems
from tests.attack.problems import smooth, splitting_products


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(objective: Objective, **fields: Any) -> Solution:
    hooks = fields.pop("hooks", None)
    limit = fields.pop("time_limit", None)
    start = fields.pop("start", None) or problems.candidates(objective, 4)
    chosen = SolveSettings(**{"solver": "sgd", "steps": 40, "splitting": "off", **fields})
    return solve(objective, start, chosen, hooks=hooks, time_limit=limit)


#: Settings that call nearly everything a stall.
OFTEN: dict[str, Any] = {"interval": 8, "window": 4, "stall": 0.99}
CASES = {
    "sgd auto": ({"splitting": "auto", "interval": 10, "window": 5, "rate_x": 0.02}, "haim"),
    "sgd paper": ({"splitting": "paper", "interval": 9, "rate_x": 0.02}, "gradient free"),
    "adam auto": ({"solver": "adam", "splitting": "auto", **OFTEN}, "regression"),
    "adam schedule": ({"solver": "adam"}, "schedule"),
    "lbfgs off": ({"solver": "lbfgs"}, "haim"),
    "lbfgs auto": ({"solver": "lbfgs", "splitting": "auto", **OFTEN}, "gradient free"),
    "lbfgs schedule": ({"solver": "lbfgs", "steps": 65}, "schedule"),
    "lbfgs eliminated": (
        {"solver": "lbfgs", "multipliers": "eliminated", "splitting": "auto", **OFTEN},
        "haim",
    ),
    "adam sometimes eliminated": (
        {"solver": "adam", "multipliers": "eliminated", "eliminate_every": 7},
        "multiclass",
    ),
    "fixed": ({"solver": "lbfgs", "multipliers": "fixed"}, "bilevel logistic"),
    "gauss-newton": (
        {"solver": "gauss-newton", "splitting": "auto", "limit": 6, **OFTEN},
        "gradient free",
    ),
}


def scheduled() -> Objective:
    first, last = (problems.network("relu", seed=seed) for seed in (3, 4))
    schedule = TemperatureSchedule(period=20.0)
    return loo_objective(first, last, normaliser=4, schedule=schedule)


@pytest.mark.medium
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
        objective, start=objective.start(1, 0, 1.0), splitting="auto", solver="lbfgs",
        steps=200, limit=4, hooks=hooks, log_every=5,
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
    assert found.history[-1][:2] == (float(found.state.step), found.loss)
    assert all(0 <= share <= 1 for _, share in texts)
    assert any("candidates split" in text for text, _ in texts)


def test_rounds_that_raise_the_loss_are_kept_on_demand() -> None:
    # A floor above all multipliers makes every split jump.
    objective, _ = planted()
    objective = replace(objective, penalties=(FloorPenalty(3.0, weight=1e3),))
    settings: dict[str, Any] = {
        "splitting": "paper", "solver": "lbfgs", "interval": 20, "steps": 21, "log_every": 1,
    }  # fmt: skip
    start = objective.start(2, 0, 1.0)
    kept = run(objective, start=start, rollback=False, **settings).state.rounds[0]
    back = run(objective, start=start, **settings).state.rounds[0]
    assert kept.chosen == back.undone != ()
    assert kept.after > kept.before == back.before == back.after
    assert kept.count_after > back.count_after == start.count


def test_rounds_that_are_kept_begin_the_solver_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = smooth("gradient free")
    fields: dict[str, Any] = {
        "splitting": "paper", "solver": "sgd", "interval": 10, "steps": 12, "rate_x": 0.02,
    }  # fmt: skip
    carried = []
    plain = MomentumDescent.carry

    def carry(self: Any, *arguments: Any) -> Any:
        carried.append(arguments)
        return plain(self, *arguments)

    monkeypatch.setattr(MomentumDescent, "carry", carry)
    assert run(objective, **fields).state.rounds
    assert len(carried) == 1
    assert run(objective, rollback=False, **fields).state.rounds
    assert len(carried) == 1


@pytest.mark.parametrize("mode", ["auto", "paper"])
@pytest.mark.parametrize("limit", [2, 3, 4])
def test_no_round_passes_the_limit(mode: str, limit: int) -> None:
    objective, _ = planted()
    found = run(
        objective, start=objective.start(2, 0, 1.0), splitting=mode, interval=5, steps=30,
        limit=limit, solver="lbfgs", window=4, stall=0.99,
    )  # fmt: skip
    assert found.candidates.count <= limit
    assert all(not r.taken or r.count_after <= limit for r in found.state.rounds)
    assert len(found.state.rounds) >= limit - 2
    assert found.candidates.count > 2 or limit == 2


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
    assert found.stopped == "no split lowers the loss"
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
        splitting_products(objective, at, v) + 2 * objective.penalty_products(at, v) for v in rows
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
