"""The identities that define the objectives, on exact solutions of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attack.networks.activations import Activation
from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    LooPenalties,
    TemperatureSchedule,
    Unrolled,
    bilevel_objective,
    buzaglo_objective,
    gradient_matching_objective,
    gradient_norm_objective,
    haim_objective,
    loo_objective,
)
from identify.errors import InvalidInputError
from tests.attack.problems import (
    DIMENSION,
    RESIDUAL,
    candidates,
    network,
    noise,
    planted_kkt_point,
    relative,
    splitting_products,
)


@pytest.mark.parametrize("spec", ["5-6-1,relu", "5-6-1,power3", "5-6-4-1,power2", "5-6-4-1,relu"])
def test_homogeneous_networks_give_their_value_along_themselves(spec: str) -> None:
    # Euler: <theta, grad f> = degree * f, which the linear part of the system must show.
    net = parse_spec(spec).initialise(0)
    objective = haim_objective(net, normaliser=1)
    at = objective.start(4, 0, 1.0)
    expected = (net.is_homogeneous or 0) * at.labels * net(at.x)[:, 0]
    assert relative(objective.multiplier_system(at).linear, expected) < 1e-12


def test_an_exact_kkt_point_has_loss_zero() -> None:
    net, at = planted_kkt_point(samples=3, dimension=DIMENSION)
    objective = haim_objective(net, normaliser=1, box=None, floor=None)
    found = objective.value_and_gradients(at)
    assert float(found.loss) < 1e-28
    assert float(found.grad_x.norm() + found.grad_lam.norm()) < 1e-13
    moved = at.with_points(at.x + 0.01, at.lam)
    assert float(objective.loss(moved)) > 1e-4


def test_weight_decay_stationary_point_has_loss_zero() -> None:
    # theta = -(1/(n mu)) sum loss'_i grad f_i by construction of T: read off in gradient matching.
    net = network("gelu", outputs=2)
    regression = buzaglo_objective(net, normaliser=5, task="regression", box=None)
    at = candidates(regression, 5)
    rest = regression.residual(at)
    shifted = replace(
        regression,
        target=tuple((t - r).detach() for t, r in zip(regression.target, rest, strict=True)),
    )
    assert float(shifted.loss(at)) < 1e-28
    assert regression.signed
    assert regression.columns == 2


def test_multiclass_uses_the_runner_up() -> None:
    net = network("tanh", outputs=4)
    objective = buzaglo_objective(net, normaliser=1)
    at = candidates(objective, 8)
    values = net(at.x)
    margins = []
    for row, label in zip(values, at.labels, strict=True):
        others = torch.cat([row[:label], row[label + 1 :]])
        margins.append(float(row[label] - others.max()))
    rows = objective.readout.basis(values, at.labels)[:, 0]
    assert torch.allclose((rows * values).sum(1), torch.tensor(margins, dtype=torch.float64))


def test_gradient_of_a_batch_is_matched_exactly() -> None:
    for kind in ("logistic", "squared", "cross-entropy"):
        net = network("tanh", outputs=3 if kind == "cross-entropy" else 1)
        probe = gradient_matching_objective(
            net, [0 * p for p in net.parameters()], normaliser=4, loss=kind
        )
        at = probe.start(4, 0, 1.0)
        theta = [p.clone().requires_grad_() for p in net.parameters()]
        f = net.forward(at.x, theta)
        if kind == "cross-entropy":
            loss = torch.nn.functional.cross_entropy(f, at.labels)
        elif kind == "logistic":
            loss = torch.nn.functional.softplus(-at.labels * f[:, 0]).mean()
        else:
            loss = 0.5 * (f[:, 0] - at.labels).square().mean()
        decay = 0.3
        loss = loss + 0.5 * decay * sum(p.square().sum() for p in theta)
        gradient = torch.autograd.grad(loss, theta)
        objective = gradient_matching_objective(net, gradient, normaliser=4, loss=kind, decay=decay)
        found = objective.value_and_gradients(at)
        assert float(found.loss) < 1e-28
        norm = gradient_norm_objective(net, normaliser=4, loss=kind, decay=decay)
        expected = sum(float(g.square().sum()) for g in gradient)
        assert float(norm.loss(at)) == pytest.approx(expected, rel=1e-12)


def test_one_step_of_bilevel_from_the_victim_is_the_gradient_norm() -> None:
    net = network("softplus3")
    bilevel = bilevel_objective(
        net, normaliser=4, loss="logistic", training=Unrolled(rate=0.3, decay=0.1)
    )
    norm = gradient_norm_objective(net, normaliser=4, loss="logistic", decay=0.1)
    at = candidates(bilevel, 4)
    assert relative(bilevel.data_loss(at), 0.09 * norm.data_loss(at)) < 1e-12
    v = noise(at.x)
    expected = 0.09 * splitting_products(norm, at, v)
    assert relative(splitting_products(bilevel, at, v), expected) < 1e-10


def test_bilevel_recovers_the_training_it_unrolls() -> None:
    first = network("tanh")
    objective = bilevel_objective(
        first, first, normaliser=4, loss="squared", training=Unrolled(5, 0.2, momentum=0.9)
    )
    at = candidates(objective, 4)
    module = torch.nn.Sequential(
        torch.nn.Linear(DIMENSION, 7), torch.nn.Tanh(), torch.nn.Linear(7, 6, bias=False),
        torch.nn.Tanh(), torch.nn.Linear(6, 1, bias=False),
    ).double()  # fmt: skip
    for own, given_ in zip(module.parameters(), first.parameters(), strict=True):
        own.data.copy_(given_)
    solver = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    for _ in range(5):
        solver.zero_grad()
        (0.5 * (module(at.x)[:, 0] - at.labels).square().mean()).backward()
        solver.step()
    trained = [p.detach() for p in module.parameters()]
    for got, expected in zip(objective.trained_parameters(at), trained, strict=True):
        assert relative(got.detach(), expected) < 1e-12
    reached = replace(objective, final=first.with_parameters(trained))
    assert float(reached.loss(at)) < 1e-28


def test_linearised_training_is_a_sum_of_initial_features() -> None:
    # theta_f - theta_0 = sum_i c_i grad f(theta_0; x_i) exactly.
    first = network("gelu", seed=3)
    x = noise(torch.empty(4, DIMENSION, dtype=torch.float64))
    c = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)
    theta = [p.clone().requires_grad_() for p in first.parameters()]
    moves = torch.autograd.grad((c * first.forward(x, theta)[:, 0]).sum(), theta)
    last = first.with_parameters([p + m for p, m in zip(first.parameters(), moves, strict=True)])
    objective = loo_objective(
        first, last, normaliser=4, features="initial", penalties=LooPenalties(box=None)
    )
    assert float(objective.loss(Candidates(x, 4 * c[:, None]))) < 1e-28
    other = loo_objective(
        first, last, normaliser=4, features="final", penalties=LooPenalties(box=None)
    )
    assert float(other.loss(Candidates(x, 4 * c[:, None]))) > 1e-6
    with pytest.raises(InvalidInputError, match="initial: expected the network before training"):
        loo_objective(None, last, normaliser=4)


def test_both_kernels_contain_average() -> None:
    both, average = RESIDUAL["loo both"](), RESIDUAL["loo average"]()
    at = candidates(average)
    doubled = at.with_points(at.x, torch.cat([at.lam, at.lam], 1) / 2)
    assert both.columns == 2 * average.columns
    assert relative(both.data_loss(doubled), average.data_loss(at)) < 1e-12


def test_schedule_changes_the_temperature_only() -> None:
    net = network("relu")
    objective = loo_objective(
        network("relu", seed=8), net, normaliser=4, schedule=TemperatureSchedule()
    )
    later = objective.with_step(40_000)
    assert later.network.activation == Activation("softplus", 110)
    assert later.with_step(40_000) is later
    assert torch.equal(later.network.weights[0], net.weights[0])
    plain = haim_objective(net, normaliser=4)
    assert plain.with_step(7) is plain
