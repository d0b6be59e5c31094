"""What the benchmarks compare: our loss is the peers', and no tensor is too large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attack.networks.spec import parse_spec
from attack.objectives.presets import preset
from attack.solving.problem import Problem
from attack.solving.second_order import check_second_order
from attack.splitting.split_round import split_candidates
from tests.benchmarks import attack_steps
from tests.benchmarks.peers import Peer

pytestmark = pytest.mark.medium


@pytest.mark.parametrize("step", [0, 30_000])
@pytest.mark.parametrize(
    "name", ["haim-mnist-1", "haim-cifar-2", "buzaglo-multiclass-1", "buzaglo-multiclass-2", "loo"]
)
def test_peers_have_our_loss_and_gradients(name: str, step: int) -> None:
    setting = replace(preset(name), dtype="float64")
    outputs, bias = (10, "first") if setting.task else (1, "first")
    if setting.objective == "loo":
        bias = "all"
    form = parse_spec(f"7-9-8-{outputs},relu,bias={bias}")
    network, initial = form.initialise(1), form.initialise(0)
    mean = torch.linspace(0.2, 0.8, 7, dtype=torch.float64)
    known = initial if setting.objective == "loo" else None
    ours = setting.build(network, count=12, initial=known, mean=mean).with_step(step)
    # Wide enough to leave the box, with multipliers on both sides of the floor.
    start = ours.start(12, 3, 0.8)
    start = start.with_points(start.x, start.lam - 0.3)
    peer = Peer(setting, network, known, mean, start)
    x, lam = start.x.clone().requires_grad_(), start.lam.clone().requires_grad_()
    theirs = peer.loss(x, lam, step)
    found = ours.value_and_gradients(start)
    assert float(theirs.detach()) == pytest.approx(float(found.loss), rel=1e-12)
    assert float(found.loss - found.data_loss) > 1e-3
    for slope, own in zip(
        torch.autograd.grad(theirs, [x, lam]), (found.grad_x, found.grad_lam), strict=True
    ):
        assert float((slope - own).norm()) <= 1e-10 * float(own.norm())


class _Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation returned."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            # A view of an expanded tensor is no memory.
            if isinstance(part, torch.Tensor):
                held = part.untyped_storage().nbytes() // part.element_size()
                self.numbers = max(self.numbers, held)
        return result


@pytest.mark.parametrize("mode", ["paper", "auto"])
@pytest.mark.parametrize("name", ["haim-mnist-1", "loo"])
def test_nothing_has_the_size_of_all_parameters_for_every_candidate(name: str, mode: str) -> None:
    count, width = 60, 90
    form = parse_spec(f"70-{width}-{width}-1,relu,bias=all")
    setting = preset(name)
    objective = setting.build(form.initialise(1), count=count, initial=form.initialise(0))
    start = objective.start(count, 0, 0.3)
    with _Largest() as seen:
        objective.value_and_gradients(start)
        split_candidates(objective, start, mode=mode, rollback=False)
        check_second_order(Problem(objective), start)
    parameters = sum(p.numel() for p in form.initialise(1).parameters())
    basis = count * 24 * 70  # of Lanczos
    assert basis <= seen.numbers <= 2 * basis < count * parameters / 3


@pytest.mark.parametrize("method", attack_steps.METHODS)
def test_timed_steps_end_at_the_same_candidates(method: str) -> None:
    found = attack_steps.measure(method, "6-9-8-1", 5, "float64", repeats=3)
    assert found.apart < 1e-10
    assert len(found.peer) == len(found.ours) == 3
    assert min(*found.peer, *found.ours) > 0
    header, _, line = attack_steps.table([found]).strip().splitlines()
    assert header.count("|") == line.count("|")
    assert f"| {method} | 5 | float64 |" in line
