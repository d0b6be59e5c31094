"""Small objectives in closed form for the tests of splitting, and plain ways to use them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

from attack.networks.activations import Activation
from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    LooPenalties,
    MultiplierSystem,
    Objective,
    Unrolled,
    bilevel_objective,
    buzaglo_objective,
    gradient_matching_objective,
    haim_objective,
    loo_objective,
)
from attack.splitting.plan import SplitPlan, joined


@dataclass(frozen=True, eq=False)
class FeatureObjective(Objective):
    """|T - sum_i lam_i phi(x_i)|^2 with phi_p(x) = exp(-|x - c_p|^2 / 2), or (c_p . x)^3."""

    centres: torch.Tensor
    target: torch.Tensor
    cubic: bool = False
    signed: bool = False
    quadratic: bool = True
    penalties: tuple = ()
    normaliser: float = 1.0
    name: str = "features"
    image_shape: None = None
    columns: int = 1

    @property
    def dimension(self):
        return self.centres.shape[1]

    @property
    def dtype(self):
        return self.centres.dtype

    @property
    def device(self):
        return self.centres.device

    def features(self, x):
        if self.cubic:
            return (x @ self.centres.T) ** 3
        return torch.exp(-0.5 * (x[:, None] - self.centres).square().sum(2))

    def outer(self, residual):
        """l of the residual T - sum_i lam_i phi(x_i)."""
        return residual.square().sum()

    def data_loss(self, candidates):
        return self.outer(self.target - candidates.lam[:, 0] @ self.features(candidates.x))

    def multiplier_system(self, candidates):
        if not self.quadratic:
            return super().multiplier_system(candidates)
        phi = self.features(candidates.x)
        return MultiplierSystem(self.target.square().sum(), phi @ phi.T, phi @ self.target)

    def start_multipliers(self, count, generator):
        return torch.rand(count, 1, generator=generator, dtype=torch.float64) + 0.5

    def start_labels(self, count):
        return None

    def check_labels(self, labels, count):
        return None

    def describe(self):
        return {}


@dataclass(frozen=True, eq=False)
class CliffObjective(FeatureObjective):
    """A loss that slopes down and jumps up as soon as sum_i lam_i phi(x_i) leaves the target.

    Its derivatives promise a gain and every step loses: the whole round has to be taken back.
    """

    quadratic: bool = False

    def outer(self, residual):
        behind = float(residual.detach().abs().sum()) > 1e-12
        return 1.0 - 0.1 * torch.tanh(residual.sum()) + 0.5 * behind


@dataclass(frozen=True, eq=False)
class WallObjective(FeatureObjective):
    """A second feature must not move at all: a candidate that moves it cannot be split."""

    def outer(self, residual):
        return residual.square().sum() + 1e6 * residual[-1].square()


def planted(seed, samples, centres=60, dimension=2, dtype=torch.float64, **settings):
    """A feature objective whose target is made by `samples` points, and these points."""
    generator = torch.Generator().manual_seed(seed)
    scale = 1.0 if settings.get("cubic") else 1.5
    points = torch.randn(centres, dimension, generator=generator, dtype=torch.float64)
    x = scale * torch.randn(samples, dimension, generator=generator, dtype=torch.float64)
    lam = 0.5 + torch.rand(samples, 1, generator=generator, dtype=torch.float64)
    empty = FeatureObjective(scale * points, torch.zeros(centres).double(), **settings)
    target = lam[:, 0] @ empty.features(x)
    objective = FeatureObjective(empty.centres.to(dtype), target.to(dtype), **settings)
    return objective, Candidates(x.to(dtype), lam.to(dtype))


def splitting_matrices(objective, candidates):
    """S_i of a feature objective with Gaussian features, written out."""
    phi = objective.features(candidates.x)
    residual = objective.target - candidates.lam[:, 0] @ phi
    apart = candidates.x[:, None] - objective.centres
    eye = torch.eye(objective.dimension, dtype=candidates.x.dtype)
    curvature = phi[:, :, None, None] * (apart[..., :, None] * apart[..., None, :] - eye)
    weighted = torch.einsum("p,ipab->iab", residual, curvature)
    return -2 * candidates.lam[:, :, None] * weighted


def descend(objective, candidates, steps=500):
    """Plain gradient optimisation (L-BFGS) to a stationary point; returns candidates and loss."""
    shape, size = candidates.x.shape, candidates.x.numel()

    def unpack(z):
        z = torch.from_numpy(z)
        return candidates.with_points(z[:size].reshape(shape), z[size:].reshape(-1, 1))

    def value(z):
        found = objective.value_and_gradients(unpack(z))
        slope = torch.cat([found.grad_x.flatten(), found.grad_lam.flatten()])
        return float(found.loss), slope.numpy()

    start = torch.cat([candidates.x.flatten(), candidates.lam.flatten()]).numpy()
    options = {"maxiter": steps, "maxfun": 3 * steps, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30}
    found = minimize(value, np.array(start), jac=True, method="L-BFGS-B", options=options)
    return unpack(found.x), float(found.fun)


def loss_of(objective, candidates):
    return float(objective.value_and_gradients(candidates).loss)


def undone_loss(objective, before, after, origin, index):
    """The loss after a round if the split of one candidate of `before` alone is undone."""
    rest = after.select((origin != index).nonzero()[:, 0])
    return loss_of(objective, joined(rest, before.select(torch.tensor([index]))))


def network_objectives(seed, dtype=torch.float64):
    """Every kind of objective at a random network, with its penalties."""
    soft = Activation("softplus", 5.0)
    one = parse_spec("6-12-1,relu,bias=first").initialise(seed=seed).to(dtype=dtype)
    start = parse_spec("6-12-1,relu,bias=first").initialise(seed=seed + 100).to(dtype=dtype)
    many = parse_spec("6-10-8-3,gelu,bias=all").initialise(seed=seed).to(dtype=dtype)
    cubic = parse_spec("6-12-1,power3,bias=none").initialise(seed=seed).to(dtype=dtype)
    other = many.with_parameters([p + 0.3 for p in many.parameters()])
    ones = [torch.ones_like(p) for p in many.parameters()]
    return {
        "haim": haim_objective(one, normaliser=6, activation=Activation("soft_relu", 10.0)),
        "haim cubic": haim_objective(cubic, normaliser=6, floor=None),
        "buzaglo": buzaglo_objective(many, normaliser=6),
        "loo": loo_objective(start, one, normaliser=6, activation=soft,
                             penalties=LooPenalties(sparsity=0.01)),
        "loo both": loo_objective(many, other, normaliser=6, features="both"),
        "gradient": gradient_matching_objective(many, ones, normaliser=6, loss="cross-entropy"),
        "bilevel": bilevel_objective(one.with_activation(soft), start.with_activation(soft),
                                     normaliser=6, loss="logistic",
                                     training=Unrolled(steps=2, rate=0.5)),
    }  # fmt: skip


KINDS = tuple(network_objectives(0))


def everyone(pairs, opposite=False):
    count = len(pairs.values)
    flags = torch.full((count,), opposite)
    return SplitPlan(torch.arange(count), pairs.vectors, pairs.values, flags)
