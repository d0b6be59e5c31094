"""Levenberg-Marquardt: the matrix it solves with, quadratic convergence, certified networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    ResidualObjective,
    gradient_matching_objective,
    haim_objective,
)
from attack.objectives.spans import AffineSpan, span_objective
from attack.reconstruction import reconstruct
from attack.solving.gauss_newton import GaussNewton, check_small, curvature
from attack.solving.loop import solve
from attack.solving.problem import Problem
from attack.solving.settings import SolveSettings
from identify.errors import InvalidInputError
from tests.attack import problems


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def jacobian(objective: ResidualObjective, at: Candidates) -> Tensor:
    """The Jacobian of the residual in (x_1, lam_1, ...), by autograd."""

    def residual(z: Tensor) -> Tensor:
        x, lam = z[:, : at.x.shape[1]], z[:, at.x.shape[1] :]
        return torch.cat([r.flatten() for r in objective.residual(at.with_points(x, lam))])

    z = torch.cat([at.x, at.lam], 1)
    found: Tensor = torch.autograd.functional.jacobian(residual, z)
    return found.reshape(-1, z.numel())


@pytest.mark.parametrize("activation", ["tanh", "power3", "relu", "soft_relu5"])
@pytest.mark.parametrize("kind", sorted(problems.RESIDUAL))
def test_the_matrix_is_that_of_the_jacobian(kind: str, activation: str) -> None:
    objective = replace(problems.RESIDUAL[kind](activation=activation), penalties=())
    at = problems.candidates(objective, 3)
    expected = jacobian(objective, at)
    assert problems.relative(curvature(objective, at), expected.T @ expected) < 1e-12


@pytest.mark.parametrize("hidden", [(), (7,), (4, 6, 3)])
def test_the_matrix_at_any_depth(hidden: tuple[int, ...]) -> None:
    objective = problems.RESIDUAL["gradient cross-entropy"](
        activation="gelu", hidden=hidden, bias="all"
    )
    objective = replace(objective, penalties=())
    at = problems.candidates(objective, 2)
    expected = jacobian(objective, at)
    assert problems.relative(curvature(objective, at), expected.T @ expected) < 1e-12


@pytest.mark.parametrize("kind", ["haim", "loo both", "gradient squared"])
def test_penalties_enter_with_their_hessians(kind: str) -> None:
    objective = problems.RESIDUAL[kind](activation="tanh")
    at = problems.candidates(objective, 3)
    bare = replace(objective, penalties=())
    extra = curvature(objective, at) - curvature(bare, at)
    z = torch.cat([at.x, at.lam], 1)

    def total(flat: Tensor) -> Tensor:
        parts = flat.reshape(z.shape)
        x, lam = parts[:, : at.x.shape[1]], parts[:, at.x.shape[1] :]
        return objective.penalty_values(at.with_points(x, lam)).sum()

    expected = 0.5 * torch.autograd.functional.hessian(total, z.flatten())
    assert float(expected.abs().max()) > 0
    assert torch.allclose(extra, expected, atol=1e-10)


def test_the_matrix_in_a_span() -> None:
    base = problems.RESIDUAL["haim"](activation="tanh")
    rows = problems.noise(torch.zeros(2, base.dimension, dtype=torch.float64))
    objective = span_objective(base, AffineSpan.of(torch.zeros(base.dimension), rows))
    at = objective.start(3, 0, 1.0)
    whole = curvature(base, objective.lifted(at)).reshape(3, 6, 3, 6)
    change = torch.block_diag(objective.span.basis, torch.eye(1, dtype=torch.float64))
    expected = torch.einsum("ap,ipjq,bq->iajb", change, whole, change)
    assert torch.allclose(curvature(objective, at).reshape(3, 3, 3, 3), expected)


def certified(
    samples: int, dimension: int, width: int, seed: int, activation: str = "power3"
) -> tuple[ResidualObjective, Candidates]:
    """One gradient of a wide enough network at unit samples: they are determined."""
    network = parse_spec(f"{dimension}-{width}-1,{activation},bias=none").initialise(
        seed, scale=1.0, first_only=False
    )
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, dimension))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    b = rng.uniform(0.3, 1.2, (samples, 1)) * rng.choice([-1.0, 1.0], (samples, 1))
    truth = Candidates(torch.from_numpy(x), torch.from_numpy(b))
    zero = [0 * p for p in network.parameters()]
    empty = gradient_matching_objective(network, zero, normaliser=1)
    gradient = [-r for r in empty.residual(truth)]
    return gradient_matching_objective(network, gradient, normaliser=1), truth


def error(found: Tensor, truth: Tensor) -> float:
    """The largest angle of a true sample to the nearest candidate of either sign."""
    units = [z / z.norm(dim=1, keepdim=True) for z in (found.double(), truth)]
    distances = torch.stack([torch.cdist(units[1], sign * units[0]) for sign in (1, -1)])
    return float(distances.amin((0, 2)).max())


def test_convergence_is_quadratic() -> None:
    objective, truth = certified(4, 8, 60, seed=0)
    problem, solver = Problem(objective), GaussNewton()
    at = truth.with_points(
        truth.x + 0.02 * problems.noise(truth.x), truth.lam + 0.02 * problems.noise(truth.lam, 6)
    )
    state, losses = solver.begin(at), []
    for _ in range(12):
        move = solver.advance(problem, at, state)
        at, state = move.candidates, move.state
        losses.append(move.at.loss)
    assert losses[-1] < 1e-26 * losses[0]
    assert error(at.x, truth.x) < 1e-12
    # Residuals r -> C r^2: the exponent between the last steps above rounding.
    tail = [np.log(v / losses[0]) for v in losses if v > 1e-24 * losses[0]]
    assert (tail[-1] - tail[-2]) / (tail[-2] - tail[-3]) > 1.5


@pytest.mark.medium
@pytest.mark.parametrize(("samples", "dimension", "width"), [(6, 64, 80), (10, 64, 120)])
def test_certified_networks_from_random_starts(samples: int, dimension: int, width: int) -> None:
    for seed in range(5):
        objective, truth = certified(samples, dimension, width, seed)
        span = AffineSpan.of(torch.zeros(dimension), objective.target[0], rank=samples)
        inside = span_objective(objective, span)
        for attempt in range(5):
            settings = SolveSettings(
                "gauss-newton", steps=150, splitting="auto", limit=samples, target_loss=1e-26,
                seed=attempt,
            )  # fmt: skip
            found = solve(inside, inside.start(samples, attempt, samples**-0.5), settings)
            if error(inside.lifted(found.candidates).x, truth.x) < 1e-12:
                break
        else:
            pytest.fail(f"problem {seed}: loss {found.loss}")


@pytest.mark.medium
def test_growing_by_splits_from_one_candidate() -> None:
    found = 0
    for seed in range(4):
        objective, truth = certified(5, 12, 60, seed)
        settings = SolveSettings(
            "gauss-newton", steps=250, splitting="auto", limit=5, target_loss=1e-26
        )
        end = solve(objective, objective.start(1, seed, 12**-0.5), settings)
        counts = [r.count_after for r in end.state.rounds]
        assert counts == sorted(counts)
        found += error(end.candidates.x, truth.x) < 1e-10
    assert found >= 2


def test_a_smooth_network_in_the_span_of_its_gradient() -> None:
    objective, truth = certified(5, 30, 40, seed=3, activation="gelu")
    span = AffineSpan.of(torch.zeros(30), objective.target[0], rank=5)
    assert torch.allclose(span.lift(span.drop(truth.x)), truth.x, atol=1e-9)
    for seed in range(4, 10):
        run = reconstruct(
            objective.network, "gradient_matching", gradient=list(objective.target),
            options={"normaliser": 1}, count=5, span=span, solver="gauss-newton", steps=120,
            splitting="off", seed=seed, start_scale=0.3, settings={"target_loss": 1e-26},
        )  # fmt: skip
        if run.loss < 1e-24:
            break
    assert run.loss < 1e-24
    distance = torch.cdist(truth.x, torch.from_numpy(run.candidates)).amin(1)
    assert float(distance.max()) < 1e-9


def test_bounded_multipliers_stay_at_least_zero() -> None:
    network = problems.network("tanh")
    objective = haim_objective(network, normaliser=4, floor=None)
    problem, solver = Problem(objective), GaussNewton()
    at = objective.start(5, 0, 1.0)
    state = solver.begin(at)
    losses = []
    for _ in range(40):
        move = solver.advance(problem, at, state)
        at, state = move.candidates, move.state
        losses.append(move.at.loss)
        assert bool((at.lam >= 0).all())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("multipliers", ["fixed", "eliminated"])
def test_other_multipliers(multipliers: str) -> None:
    objective = problems.RESIDUAL["haim"](activation="tanh")
    start = problems.candidates(objective, 4)
    settings = SolveSettings("gauss-newton", steps=15, splitting="off", multipliers=multipliers)
    found = solve(objective, start, settings)
    assert found.loss < float(objective.value(start))
    assert torch.equal(found.candidates.lam, start.lam) == (multipliers == "fixed")


def test_a_point_without_multiplier_is_no_trouble() -> None:
    objective, truth = certified(3, 6, 40, seed=1)
    lam = truth.lam.clone()
    lam[0] = 0
    at = truth.with_points(truth.x + 0.1, lam)
    move = GaussNewton().advance(Problem(objective), at, GaussNewton().begin(at))
    assert bool(torch.isfinite(move.candidates.x).all())
    assert float(objective.value(move.candidates)) < move.at.loss


@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [("bilevel logistic", 3, "for this objective"), ("haim", 1001, "6000 unknowns")],
)
def test_what_gauss_newton_refuses(kind: str, count: int, words: str) -> None:
    objective: Any = problems.EVERY[kind](activation="tanh")
    with pytest.raises(InvalidInputError, match=words):
        check_small(objective, count)
