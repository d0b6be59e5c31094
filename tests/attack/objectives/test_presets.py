"""Published settings build the objectives they name."""

from __future__ import annotations

import pytest
import torch

from attack.networks.spec import parse_spec
from attack.objectives import ResidualObjective
from attack.objectives.penalties import FloorPenalty
from attack.objectives.presets import PRESETS, preset

# rate_x, rate_lam, start_scale, softness of the relu, floor: as published with each run.
PUBLISHED = {
    "haim-cifar-1": (0.55492, 1e-4, 8.857e-4, 19.145, 0.49830),
    "haim-cifar-2": (0.34621, 1e-4, 4.474e-3, 21.679, 0.49359),
    "haim-mnist-1": (0.030524, 1e-4, 3.498e-2, 149.866, 0.44705),
    "haim-mnist-2": (0.28212, 1e-4, 1.742e-3, 19.215, 0.41527),
    "buzaglo-multiclass-1": (2.420e-4, 0.95128, 3.605e-4, 326.466, 0.040118),
    "buzaglo-multiclass-2": (1.362e-3, 0.47933, 6.228e-5, 39.517, 0.20321),
    "buzaglo-regression-1": (0.95175, 1e-4, 1.975e-2, 90.289, None),
    "buzaglo-regression-2": (0.87155, 1e-4, 1.365e-2, 107.413, None),
    "buzaglo-regression-3": (0.94914, 1e-4, 3.504e-6, 103.717, None),
    "loo": (0.02, 0.02, 0.2, None, None),
    "sample-splitting-haim": (1e-2, 1e-4, 1e-4, 50.0, 0.1),
    "sample-splitting-buzaglo": (1e-2, 1e-4, 1e-4, 50.0, 0.1),
    "sample-splitting-loo": (1e-2, 1e-4, 1e-4, 50.0, None),
}
# Optimiser, momentum, steps, steps between splits, candidates of a class, dtype; by first word.
SOLVERS = {
    "haim": ("sgd", 0.9, 50_000, 0, 500, "float64"),
    "buzaglo-multiclass": ("sgd", 0.9, 50_000, 0, 100, "float64"),
    "buzaglo-regression": ("sgd", 0.9, 50_000, 0, 500, "float64"),
    "loo": ("adam", 0.9, 80_001, 0, 500, "float32"),
    "sample-splitting": ("sgd", 0.9, 200_000, 50_000, 500, "float64"),
}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_have_the_published_numbers(name: str) -> None:
    chosen = preset(name)
    rate_x, rate_lam, scale, softness, floor = PUBLISHED[name]
    assert (chosen.rate_x, chosen.rate_lam, chosen.start_scale) == (rate_x, rate_lam, scale)
    assert chosen.activation == (None if softness is None else f"soft_relu{softness}")
    assert chosen.floor == floor
    (family,) = (word for word in SOLVERS if name.startswith(word))
    assert SOLVERS[family] == (
        chosen.optimiser, chosen.momentum, chosen.steps, chosen.split_every, chosen.candidates,
        chosen.dtype,
    )  # fmt: skip


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
