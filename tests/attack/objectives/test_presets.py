"""Published settings: their constants as they reach objective and solver, beside the sources."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attack.networks.spec import parse_spec
from attack.objectives import ResidualObjective
from attack.objectives.penalties import BoxPenalty, FloorPenalty, SignedFloorPenalty
from attack.objectives.presets import PRESETS, Preset, preset
from attack.runs.beginning import Effort
from attack.runs.task import Target, Task
from attack.solving.solver import Adam, MomentumDescent
from attack.splitting.accept import PAPER_STEPS, STEP_ACCURACY
from attack.splitting.plan import PAPER_LIMIT, PAPER_THRESHOLD, paper_choice
from attack.splitting.split_round import PAPER_PRODUCTS
from tests.attack.objectives.published import DIFFERENT, PUBLISHED, ROUND


def task_of(chosen: Preset) -> Task:
    """The preset on a small victim of its form, as `reconstruct` builds it; mean 0."""
    outputs = chosen.network.split(",")[0].split("-")[-1]
    spec = parse_spec(f"6-8-{outputs},relu")
    return Target(
        network=spec.initialise(0), initial=spec.initialise(1), objective=None, gradient=None,
        options=None, preset=chosen, mean=0.0, span=None, ridge=None, image_shape=None,
        device="cpu", dtype=None,
    ).task(None)  # fmt: skip


def used(chosen: Preset) -> dict[str, Any]:
    """The constants with which an attack by the preset runs, read off what it builds."""
    task = task_of(chosen)
    objective = task.objective
    assert isinstance(objective, ResidualObjective)
    effort = Effort(splitting="paper", solver=None, steps=None, more=None, seed=0)
    settings = effort.settings(task, task.count)
    solver = settings.build()
    assert isinstance(solver, Adam | MomentumDescent)
    found: dict[str, Any] = {
        "objective": objective.name,
        "optimiser": solver.name,
        "rate_x": solver.rate_x,
        "rate_lam": solver.rate_lam,
        "momentum": solver.beta_1 if isinstance(solver, Adam) else solver.momentum,
        "steps": settings.steps,
        "split every": settings.interval if chosen.split_every else 0,
        "start_scale": chosen.start_scale,
        "dtype": str(objective.dtype).removeprefix("torch."),
        "network": chosen.network.split(",")[0],
        "bias": chosen.network.split("bias=")[1],
        "of a class": task.count // max(2, objective.network.outputs),
        "features": chosen.features,
        "labels": None if objective.start_labels(20) is None else "equal blocks",
    }
    return found | _multipliers(objective) | _activation(objective) | _penalties(objective)


def _multipliers(objective: ResidualObjective) -> dict[str, Any]:
    drawn = objective.start_multipliers(20_000, torch.Generator().manual_seed(0)).flatten()
    if float(drawn.abs().max()) > 3.0:
        assert float(drawn.std()) == pytest.approx(1.0, rel=0.02)
        return {"multipliers": ("normal",)}
    ends = (round(float(end), 2) for end in (drawn.min(), drawn.max()))
    return {"multipliers": ("uniform", *ends)}


def _activation(objective: ResidualObjective) -> dict[str, Any]:
    attacked = objective.network.activation
    if attacked.name == "soft_relu":
        return {"softness": attacked.parameter, "softplus": None}
    steps = (0, 20_000, 40_000, 80_000)
    at = [objective.with_step(step) for step in steps]
    assert all(isinstance(part, ResidualObjective) for part in at)
    heat = tuple(part.network.activation.parameter for part in at)  # type: ignore[attr-defined]
    return {"softness": None, "softplus": heat}


def _penalties(objective: ResidualObjective) -> dict[str, Any]:
    boxes = [p for p in objective.penalties if isinstance(p, BoxPenalty)]
    floors = [p for p in objective.penalties if isinstance(p, FloorPenalty | SignedFloorPenalty)]
    assert len(boxes) == 1
    assert len(boxes) + len(floors) == len(objective.penalties)
    box, floor = boxes[0], floors[0] if floors else None
    signed = {"floor of": "|lam|"} if isinstance(floor, SignedFloorPenalty) else {}
    return signed | {
        "box": (float(box.lower), float(box.upper)),
        "box weight": box.weight,
        "box over": "mean of pixels" if box.mean else "sum of pixels",
        "floor": None if floor is None else floor.floor,
        "floor weight": None if floor is None else floor.weight,
    }


def test_every_preset_is_in_the_table() -> None:
    assert set(PUBLISHED) == set(PRESETS)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_run_with_the_published_constants_but_for_those_listed(name: str) -> None:
    own = used(preset(name))
    differences = {key: own[key] for key, value in PUBLISHED[name].items() if own[key] != value}
    listed = {key: value for (preset_, key), (value, _) in DIFFERENT.items() if preset_ == name}
    assert differences == listed


def test_a_round_of_the_authors_has_their_constants() -> None:
    assert {
        "products": PAPER_PRODUCTS, "steps": PAPER_STEPS, "accuracy": STEP_ACCURACY,
        "threshold": PAPER_THRESHOLD, "most": PAPER_LIMIT,
        "half of 7": len(paper_choice(torch.full((7,), -1.0))),
    } == ROUND  # fmt: skip


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_build_their_objective(name: str) -> None:
    chosen = preset(name)
    objective = task_of(chosen).whole
    assert objective.name == chosen.objective
    at = objective.start(20, 0, chosen.start_scale)
    found = objective.value_and_gradients(at)
    assert bool(torch.isfinite(found.grad_x).all())
    assert parse_spec(chosen.network.replace("D", "784")).sizes[0] == 784
