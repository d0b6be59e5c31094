"""The bilevel objective at the solution of the inner problem: its value and its gradient."""

from __future__ import annotations

import pytest
import torch

from attack.networks.network import Network
from attack.networks.spec import parse_spec
from attack.objectives import Converged, Unrolled, bilevel_objective
from attack.reconstruction import reconstruct
from attack.training.losses import TrainingProblem
from attack.training.to_stationarity import polish, solve_hessian
from identify.errors import InvalidInputError

CASES = {
    "affine, three classes": ("5-3,identity", "cross-entropy", 0.05),
    "affine, one output": ("4-1,identity", "logistic", 0.1),
    "tanh": ("4-3-1,tanh", "squared", 0.02),
}


def problem(name, seed, count=6):
    """A victim trained on samples to stationarity, the samples, and the objective."""
    shape, loss, decay = CASES[name]
    start = parse_spec(shape).initialise(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, start.dimension, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % max(2, start.outputs)
    if loss == "logistic":
        labels = (2 * labels - 1).to(torch.float64)
    if loss == "squared":
        labels = (labels - 0.5).to(torch.float64)
    targets = labels[:, None] if loss == "squared" else labels
    inner = TrainingProblem(start, x, targets, loss, decay)
    final = polish(inner, start.parameters(), tolerance=1e-12).parameters
    victim = start.with_parameters(final)
    # Of several minima, that near the victim: from afar theta jumps between them.
    begin = start if name.startswith("affine") else victim
    objective = bilevel_objective(
        victim, begin, normaliser=count, loss=loss, training=Converged(1e-11, decay)
    )
    return victim, objective, objective.start(count, 0, 1.0, x=x, labels=labels)


@pytest.mark.parametrize("name", CASES)
def test_the_true_samples_have_loss_zero(name):
    _, objective, truth = problem(name, seed=1)
    assert float(objective.value(truth)) < 1e-16


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_implicit_gradient_is_that_of_finite_differences(name, seed):
    _, objective, truth = problem(name, seed)
    generator = torch.Generator().manual_seed(100 + seed)
    noise = torch.randn(truth.x.shape, generator=generator, dtype=torch.float64)
    at = truth.with_points(truth.x + 0.1 * noise, truth.lam)
    found = objective.value_and_gradients(at)
    for _ in range(3):
        way = torch.randn(truth.x.shape, generator=generator, dtype=torch.float64)
        tilt = torch.randn(truth.lam.shape, generator=generator, dtype=torch.float64)
        step = 1e-5
        ends = [
            float(objective.value(at.with_points(at.x + s * way, at.lam + s * tilt)))
            for s in (step, -step)
        ]
        slope = float((found.grad_x * way).sum() + (found.grad_lam * tilt).sum())
        size = float(found.grad_x.norm() * way.norm() + found.grad_lam.norm() * tilt.norm())
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5 * size)


def test_many_unrolled_steps_lead_to_the_same_gradient():
    victim, objective, truth = problem("affine, one output", seed=3)
    unrolled = bilevel_objective(
        victim, objective.initial, normaliser=len(truth.x), loss="logistic",
        training=Unrolled(600, rate=0.5, momentum=0.8, decay=0.1),
    )  # fmt: skip
    at = truth.with_points(1.2 * truth.x, truth.lam)
    implicit, explicit = (o.value_and_gradients(at) for o in (objective, unrolled))
    assert float(implicit.loss) == pytest.approx(float(explicit.loss), rel=1e-6)
    size = float(explicit.grad_x.norm())
    assert float((implicit.grad_x - explicit.grad_x).norm()) < 1e-6 * size
    ways = torch.randn(at.x.shape, generator=torch.Generator().manual_seed(0)).to(at.x)
    split, wanted = (o.splitting_operator(at)(ways) for o in (objective, unrolled))
    assert float(wanted.norm()) > 1e-6
    assert float((split - wanted).norm()) < 1e-5 * float(wanted.norm())


@pytest.mark.parametrize("seed", [0, 1])
def test_hessian_systems_are_solved(seed):
    start = parse_spec("3-2,identity").initialise(seed=seed)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inner = TrainingProblem(start, x, torch.arange(5) % 2, "cross-entropy", 0.2)
    right = [torch.ones_like(p) for p in start.parameters()]
    found = solve_hessian(inner, start.parameters(), right)

    def value(flat):
        parts = torch.split(flat, [p.numel() for p in right])
        return inner.value([q.reshape(p.shape) for p, q in zip(right, parts, strict=True)])

    flat = torch.cat([p.reshape(-1) for p in start.parameters()])
    dense = torch.autograd.functional.hessian(value, flat)
    wanted = torch.linalg.solve(dense, torch.ones_like(flat))
    assert torch.allclose(torch.cat([p.reshape(-1) for p in found]), wanted, rtol=1e-7)


@pytest.mark.parametrize("splitting", ["off", "auto"])
def test_an_attack_reaches_the_victim_with_every_sample_of_weight_one(splitting):
    victim, objective, truth = problem("affine, three classes", seed=5)
    options = {
        "loss": "cross-entropy", "inner": "converged", "decay": CASES["affine, three classes"][2],
    }  # fmt: skip
    run = reconstruct(
        victim, "bilevel", initial=objective.initial, options=options, count=len(truth.x),
        steps=60, labels=truth.labels, splitting=splitting,
    )  # fmt: skip
    first = float(objective.value(objective.start(len(truth.x), 0, 0.4, labels=truth.labels)))
    assert run.loss < 1e-3 * first
    if splitting == "off":
        assert (run.multipliers == 1).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inner": "magic"}, "inner"),
        ({"inner": "converged", "rate": 0.1}, "rate"),
        ({"inner": "converged"}, "decay"),
        ({"tolerance": 1e-3}, "tolerance"),
        ({"inner": "converged", "decay": 0.1, "tolerance": 0}, "tolerance"),
    ],
)
def test_options_of_another_inner_problem_are_refused(options, words):
    victim: Network = parse_spec("4-1,identity").initialise(seed=0)
    with pytest.raises(InvalidInputError, match=words):
        reconstruct(victim, "bilevel", options={"loss": "logistic", **options}, count=2, steps=1)
