"""Objectives on small random networks, one of every kind, for the tests of attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attack.networks.activations import Activation
from attack.networks.network import Network
from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    LooPenalties,
    Objective,
    ResidualObjective,
    Unrolled,
    bilevel_objective,
    buzaglo_objective,
    gradient_matching_objective,
    gradient_norm_objective,
    haim_objective,
    loo_objective,
)
from attack.objectives.penalties import BlurPenalty

ACTIVATIONS = (
    "relu", "soft_relu5", "gelu", "tanh", "softplus3", "power1", "power2", "power3", "identity",
)  # fmt: skip
SMOOTH = ("soft_relu5", "gelu", "tanh", "softplus3", "power3")
HIDDEN = ((), (7,), (7, 6), (4, 6, 3))
DIMENSION = 5


def network(
    activation: str = "tanh",
    hidden: tuple[int, ...] = (7, 6),
    outputs: int = 1,
    bias: str = "first",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    """A network of ``DIMENSION`` inputs at the default scale of torch."""
    sizes = "-".join(map(str, (DIMENSION, *hidden, outputs)))
    return parse_spec(f"{sizes},{activation},bias={bias}").initialise(seed, dtype=dtype)


def splitting_products(objective: Objective, candidates: Candidates, v: Tensor) -> Tensor:
    """S_i v_i for all candidates at once, v and result (m, D)."""
    return objective.splitting_operator(candidates)(v)


def _loo(features: str, outputs: int, **form: Any) -> ResidualObjective:
    first, last = (network(outputs=outputs, seed=seed, **form) for seed in (3, 4))
    objective = loo_objective(
        first, last, normaliser=4, features=features, penalties=LooPenalties(sparsity=0.01)
    )
    blur = BlurPenalty((1, 1, DIMENSION), 0.3)
    return replace(objective, penalties=(*objective.penalties, blur))


def _gradient(outputs: int, loss: str | None, **form: Any) -> ResidualObjective:
    net = network(outputs=outputs, **form)
    target = network(outputs=outputs, **{**form, "seed": 9})
    return gradient_matching_objective(
        net, target, normaliser=3, loss=loss, decay=0.2, box=(-0.5, 0.5)
    )


def _bilevel(outputs: int, loss: str, **form: Any) -> Objective:
    first, last = (network(outputs=outputs, seed=seed, **form) for seed in (3, 4))
    return bilevel_objective(
        last, first, normaliser=4, loss=loss, training=Unrolled(3, 0.3, momentum=0.5, decay=0.1)
    )


#: One builder per kind of objective; each takes activation, hidden, bias and dtype.
RESIDUAL: dict[str, Callable[..., ResidualObjective]] = {
    "haim": lambda **form: haim_objective(network(**form), normaliser=6, floor=0.4),
    "multiclass": lambda **form: buzaglo_objective(network(outputs=3, **form), normaliser=6),
    "regression": lambda **form: buzaglo_objective(
        network(outputs=2, **form), normaliser=6, task="regression"
    ),
    "loo final": lambda **form: _loo("final", 1, **form),
    "loo initial": lambda **form: _loo("initial", 2, **form),
    "loo both": lambda **form: _loo("both", 2, **form),
    "loo average": lambda **form: _loo("average", 2, **form),
    "gradient free": lambda **form: _gradient(2, None, **form),
    "gradient logistic": lambda **form: _gradient(1, "logistic", **form),
    "gradient squared": lambda **form: _gradient(2, "squared", **form),
    "gradient cross-entropy": lambda **form: _gradient(3, "cross-entropy", **form),
    "gradient norm": lambda **form: gradient_norm_objective(
        network(outputs=1, **form), normaliser=4, loss="squared", decay=0.3
    ),
}
EVERY: dict[str, Callable[..., Objective]] = {
    **RESIDUAL,
    "bilevel logistic": lambda **form: _bilevel(1, "logistic", **form),
    "bilevel cross-entropy": lambda **form: _bilevel(3, "cross-entropy", **form),
}


def candidates(objective: Objective, count: int = 6, seed: int = 1) -> Candidates:
    """Candidates in general position, inside and outside of every penalty."""
    return objective.start(count, seed, 1.0)


def noise(like: Tensor, seed: int = 5) -> Tensor:
    """Normal numbers in shape and dtype of ``like``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|, or |a - b| where b is rounding at most."""
    size = float(b.detach().norm())
    return float((a - b).detach().norm()) / (size if size > 1e-20 else 1.0)


def frozen_residual(objective: ResidualObjective, at: Candidates) -> Callable[..., Tensor]:
    """g(x (D,), i) = -2 <R, phi(x) lam_i> with R frozen at the candidates: S_i is its Hessian."""
    rest = [r.detach() for r in objective.residual(at.detach())]

    def g(x: Tensor, i: int) -> Tensor:
        label = None if at.labels is None else at.labels[i : i + 1]
        alone = Candidates(x[None], at.lam[i : i + 1], label)
        here = objective.residual(alone)
        # residual = T - phi lam, so phi lam = T - residual.
        terms = zip(rest, objective.target, here, strict=True)
        return -2 * torch.stack([(r * (t - h)).sum() for r, t, h in terms]).sum()

    return g


def planted_kkt_point(samples: int, dimension: int) -> tuple[Network, Candidates]:
    """An exact KKT point of a cubic network: its samples are orthonormal, every multiplier is 1.

    Each non-empty subset A of the samples gives a neuron w_A = (3 |A|)^(-1/4) sum over A of
    y_i x_i with a_A = sum_i y_i (w_A . x_i)^3, which solves w = 3 a sum_i y_i (w . x_i)^2 x_i.
    """
    x = torch.eye(samples, dimension, dtype=torch.float64)
    y = torch.ones(samples, dtype=torch.float64)
    y[::2] = -1
    masks = [(k >> torch.arange(samples)) & 1 for k in range(1, 2**samples)]
    rows = torch.stack([(3 * int(s.sum())) ** -0.25 * (s * y) @ x for s in masks])
    a = (rows @ x.T) ** 3 @ y
    net = Network((rows, a[None]), (None, None), Activation("power", 3))
    return net, Candidates(x, torch.ones(samples, 1, dtype=torch.float64), y)


def smooth(kind: str = "haim", **changes: Any) -> Objective:
    """A tanh objective of a kind, with changed fields."""
    built = EVERY[kind](activation="tanh")
    return replace(built, **changes) if changes else built  # type: ignore[type-var]
