"""Membership in torch modules: hooks see what the layers see, and leave nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attack.membership import GivenInputs, module_members
from identify.errors import InvalidInputError, UnsupportableModelError
from identify.exposure.membership import Membership
from tests.benchmarks.membership import Tokens, convolutional


def gradient_of(module, x, y):
    nn.functional.cross_entropy(module(x), y).backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def summed(outputs, labels):
    return nn.functional.cross_entropy(outputs, labels, reduction="sum")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["convolutional", "tokens"])
def test_members_of_other_architectures(kind, dtype):
    torch.manual_seed(0)
    count = 4
    if kind == "tokens":
        module, x = Tokens(), torch.randint(0, 500, (2 * count, 8))
    else:
        module, x = convolutional(12), torch.rand(2 * count, 144).to(dtype)
    module = module.to(dtype).eval()
    y = torch.randint(0, 10, (2 * count,))
    gradient = gradient_of(module, x[:count], y[:count])
    for loss in (None, summed):
        found = module_members(module, gradient, GivenInputs(x, y), loss=loss)
        assert found.answers == (Membership.MEMBER,) * count + (Membership.NO_TRACE,) * count
    assert not any(part._forward_hooks for part in module.modules())


def test_the_modules_own_gradients_stay():
    module = nn.Sequential(nn.Linear(9, 20), nn.GELU(), nn.Linear(20, 3)).double()
    x, y = torch.randn(6, 9, dtype=torch.float64), torch.randint(0, 3, (6,))
    gradient = gradient_of(module, x[:3], y[:3])
    before = {name: value.clone() for name, value in gradient.items()}
    module_members(module, gradient, GivenInputs(x, y), loss=summed)
    assert all(torch.equal(p.grad, before[n]) for n, p in module.named_parameters())


def test_what_has_no_linear_layer_is_refused():
    with pytest.raises(UnsupportableModelError, match="Linear"):
        module_members(nn.ReLU(), {}, GivenInputs(torch.ones(2, 3)))


def test_a_layer_that_is_used_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    module = Twice()
    gradient = {n: torch.ones_like(p) for n, p in module.named_parameters()}
    with pytest.raises(InvalidInputError, match="twice"):
        module_members(module, gradient, GivenInputs(torch.ones(2, 4)))
    assert not module.layer._forward_hooks
