"""Published settings build the objectives they name."""

from __future__ import annotations

import pytest
import torch

from attack.networks.spec import parse_spec
from attack.objectives import ResidualObjective
from attack.objectives.penalties import FloorPenalty
from attack.objectives.presets import PRESETS, preset


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_build_their_objective(name: str) -> None:
    chosen = preset(name)
    sizes = "6-8-1" if "-10," not in chosen.network else "6-8-10"
    spec = parse_spec(f"{sizes},relu")
    objective = chosen.build(spec.initialise(0), count=20, initial=spec.initialise(1), mean=0.3)
    assert isinstance(objective, ResidualObjective)
    assert objective.name == chosen.objective
    at = objective.start(20, 0, chosen.start_scale)
    found = objective.value_and_gradients(at)
    assert bool(torch.isfinite(found.grad_x).all())
    assert parse_spec(chosen.network.replace("D", "784")).sizes[0] == 784
    floors = [p.floor for p in objective.penalties if isinstance(p, FloorPenalty)]
    assert floors == ([] if chosen.floor is None else [chosen.floor])
