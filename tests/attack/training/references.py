"""Plain references that the tests of losses and of training share."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def random_set(n, d, outputs, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1.0, 1.0], n) if outputs == 1 else rng.integers(0, outputs, n)
    return SimpleNamespace(samples=rng.standard_normal((n, d)), labels=labels)


def full_gradient(network, data, loss, decay):
    """grad F by autograd from the definitions, as one vector."""
    leaves = [p.clone().requires_grad_() for p in network.parameters()]
    f = network.forward(tensor(data.samples), leaves)
    y = torch.as_tensor(data.labels)
    if loss == "logistic":
        value = torch.log1p(torch.exp(-y * f[:, 0])).mean()
    elif loss == "squared":
        value = 0.5 * ((f - y.reshape(f.shape)) ** 2).mean()
    else:
        value = torch.nn.functional.cross_entropy(f, y)
    value = value + 0.5 * decay * sum((p**2).sum() for p in leaves)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, leaves)])
