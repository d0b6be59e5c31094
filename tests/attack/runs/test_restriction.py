"""The span of a run from two checkpoints or a file, and the ridge on signed multipliers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attack
from attack.networks.files import save_network
from attack.networks.network import Network
from attack.networks.spec import parse_spec
from attack.objectives import haim_objective, loo_objective
from attack.objectives.by_name import Victim
from attack.objectives.penalties import RidgePenalty
from attack.objectives.spans import AffineSpan, SpanObjective, span_objective
from attack.runs.folder import SPAN, load_kept_span
from attack.runs.restriction import take_span
from attack.runs.ridge import choose_ridge, take_ridge, with_ridge
from attack.solving.multipliers import non_negative, optimal_multipliers
from attack.solving.settings import SolveSettings
from identify.checkpoints.span import find_span, save_span
from identify.errors import FileError, InvalidInputError
from identify.model.deep import DeepNetwork
from tests.attack import problems


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def descended(
    samples: int, bias: str = "all", dimension: int = 12, seed: int = 0
) -> tuple[Network, Network, np.ndarray[Any, Any]]:
    """A network before and after some steps of descent on a squared loss, and its samples."""
    before = parse_spec(f"{dimension}-30-1,tanh,bias={bias}").initialise(seed, dtype=torch.float64)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(samples, dimension)))
    y = torch.from_numpy(rng.choice([-1.0, 1.0], size=(samples, 1)))
    parameters = [p.clone().requires_grad_() for p in before.parameters()]
    for _ in range(20):
        loss = (before.forward(x, parameters) - y).square().mean()
        slopes = torch.autograd.grad(loss, parameters)
        parameters = [
            (p - 0.1 * s).detach().requires_grad_() for p, s in zip(parameters, slopes, strict=True)
        ]
    return before, before.with_parameters([p.detach() for p in parameters]), x.numpy()


@pytest.mark.parametrize("bias", ["none", "first", "all"])
@pytest.mark.parametrize("samples", [2, 5])
def test_the_span_of_two_checkpoints_holds_the_samples(bias: str, samples: int) -> None:
    for seed in range(2):
        before, after, x = descended(samples, bias, seed=seed)
        found = take_span("auto", Victim(after, before), published=False)
        assert found.span is not None
        assert found.span.dimension == samples - (bias != "none")
        points = torch.from_numpy(x)
        assert torch.allclose(found.span.lift(found.span.drop(points)), points, atol=1e-8)


def test_rows_with_a_bias_are_the_points_with_last_coordinate_1() -> None:
    rng = np.random.default_rng(3)
    x = np.hstack([rng.normal(size=(4, 7)), np.ones((4, 1))])
    rows = np.linalg.qr(x.T)[0].T
    span = AffineSpan.of_rows(rows, has_bias=True)
    z = torch.from_numpy(rng.normal(size=(5, 3)))
    lifted = np.hstack([span.lift(z).numpy(), np.ones((5, 1))])
    assert np.allclose(lifted @ rows.T @ rows, lifted)
    for bad in (np.eye(3)[:1, :], np.eye(4)[:2]):
        with pytest.raises(InvalidInputError, match="span"):
            AffineSpan.of_rows(bad, has_bias=True)


def test_where_no_gap_decides_all_pixels_are_kept_and_a_note_says_why() -> None:
    nets = [parse_spec("12-9-1,relu").initialise(seed) for seed in (0, 1)]
    found = take_span("auto", Victim(nets[1], nets[0]), published=False)
    assert found.span is None
    assert found.note.startswith("off: ")
    same = take_span("auto", Victim(nets[0], nets[0]), published=False)
    assert same.note == "off: the first layer did not move"
    for given, published in ((None, True), ("off", False)):
        assert take_span(given, Victim(*descended(3)[1::-1]), published).span is None
    assert take_span(None, Victim(nets[0]), published=False).note == ""


def test_the_file_of_a_span_gives_the_same_run(tmp_path: Path) -> None:
    before, after, _ = descended(4)
    for name, network in (("before", before), ("after", after)):
        save_network(network, tmp_path / f"{name}.safetensors")
    deep = [
        DeepNetwork([w.numpy() for w in n.weights], [b.numpy() for b in n.biases], "tanh")
        for n in (before, after)
    ]
    save_span(tmp_path / "span.safetensors", find_span(*deep))
    fields: dict[str, Any] = {"initial": before, "count": 6, "steps": 5, "splitting": "off"}
    runs = [
        attack.reconstruct(after, "loo", span=span, ridge=1e-3, out=tmp_path / name, **fields)
        for name, span in (("a", None), ("b", str(tmp_path / "span.safetensors")))
    ]
    assert np.allclose(runs[0].candidates, runs[1].candidates, atol=1e-7)
    kept = load_kept_span(tmp_path / "a")
    assert kept is not None
    inside = AffineSpan(*map(torch.from_numpy, kept))
    points = torch.from_numpy(runs[0].candidates)
    assert torch.allclose(inside.lift(inside.drop(points)), points, atol=1e-9)
    assert "span        3 coordinates: at least 4 samples" in str(runs[0])
    assert "ridge       0.001 times" in str(runs[0])
    free = attack.reconstruct(after, "loo", span="off", out=tmp_path / "c", **fields)
    assert free.settings.get("span") is None
    assert not (tmp_path / "c" / SPAN).exists()
    other = tmp_path / "other.safetensors"
    pair = [
        DeepNetwork([w.numpy() for w in n.weights], [b.numpy() for b in n.biases], "tanh")
        for n in descended(3, dimension=8)[:2]
    ]
    save_span(other, find_span(*pair))
    with pytest.raises(InvalidInputError, match="dimension 12"):
        attack.reconstruct(after, "loo", span=str(other), **fields)
    with pytest.raises(FileError):
        attack.reconstruct(after, "loo", span=str(tmp_path / "absent"), **fields)


def test_a_resumed_run_has_the_same_span_and_ridge(tmp_path: Path) -> None:
    before, after, _ = descended(4)
    fields: dict[str, Any] = {"initial": before, "count": 6, "splitting": "off"}
    attack.reconstruct(after, "loo", steps=8, out=tmp_path / "run", **fields)
    longer = attack.reconstruct(after, "loo", steps=16, out=tmp_path / "run", resume=True, **fields)
    whole = attack.reconstruct(after, "loo", steps=16, **fields)
    assert np.array_equal(longer.candidates, whole.candidates)
    with pytest.raises(InvalidInputError, match="expected"):
        attack.reconstruct(
            after, "loo", steps=16, out=tmp_path / "run", resume=True, span="off", **fields
        )


@pytest.mark.parametrize("kind", ["regression", "gradient free", "loo average", "loo both"])
def test_the_ridge_is_a_penalty_with_exact_derivatives(kind: str) -> None:
    plain = problems.RESIDUAL[kind](activation="tanh")
    at = problems.candidates(plain)
    for mass in (None, torch.linspace(0.5, 2.0, at.count, dtype=torch.float64)):
        here = at if mass is None else at.with_mass(mass)
        heavier = with_ridge(plain, 0.3)
        share = 1.0 if mass is None else 1 / mass[:, None]
        more = heavier.value(here) - plain.value(here)
        assert torch.allclose(more, 0.3 * (share * here.lam.square()).sum())
        slopes = [o.value_and_gradients(here).grad_lam for o in (heavier, plain)]
        assert torch.allclose(slopes[0] - slopes[1], 0.6 * share * here.lam)


@pytest.mark.parametrize("shared", [False, True])
def test_eliminated_multipliers_are_the_best_with_a_ridge(shared: bool) -> None:
    first, last = (problems.network(outputs=2, seed=seed) for seed in (3, 4))
    objective = with_ridge(loo_objective(first, last, normaliser=4), 0.02)
    at = problems.candidates(objective)
    if shared:
        at = at.with_mass(torch.linspace(0.25, 1.0, at.count, dtype=torch.float64))
    best = at.with_points(at.x, optimal_multipliers(objective, at))
    found = objective.value_and_gradients(best)
    assert float(found.grad_lam.abs().max()) < 1e-8
    free = at.with_points(at.x, optimal_multipliers(loo_objective(first, last, normaliser=4), at))
    assert float(best.lam.norm()) < float(free.lam.norm())


def test_the_chosen_ridge_does_not_depend_on_scales() -> None:
    before, after, _ = descended(4)
    weights = []
    for normaliser in (5, 50):
        objective = loo_objective(before, after, normaliser=normaliser)
        start = objective.start(8, seed=0, scale=0.3)
        start = start.with_points(start.x, start.lam * (normaliser / 5))
        weights.append(choose_ridge(objective, start) * normaliser**2)
    assert weights[0] > 0
    assert weights[1] == pytest.approx(weights[0], rel=0.3)


def test_a_ridge_asks_for_signed_multipliers_and_a_positive_number() -> None:
    before, after, _ = descended(3)
    signed, bounded = loo_objective(before, after, normaliser=4), problems.EVERY["haim"]()
    assert take_ridge(None, signed, published=False) == "auto"
    assert take_ridge(None, signed, published=True) == "off"
    assert take_ridge(None, bounded, published=False) == "off"
    assert take_ridge("off", bounded, published=False) == "off"
    for given, objective in ((1e-3, bounded), ("auto", bounded), (-1.0, signed), ("x", signed)):
        with pytest.raises(InvalidInputError, match="ridge"):
            take_ridge(given, objective, published=False)
    for bad in (0.0, float("inf")):
        with pytest.raises(InvalidInputError, match="ridge"):
            RidgePenalty(bad)
    inside = SpanObjective(
        signed, take_span("auto", Victim(after, before), False).span,  # type: ignore[arg-type]
        "loo", 4.0, (), None,
    )  # fmt: skip
    assert with_ridge(inside, 0.1).penalties[-1].describe() == {"name": "ridge", "weight": 0.1}
    SolveSettings("lbfgs", multipliers="eliminated").check(with_ridge(signed, 0.1), 4)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0])
def test_points_of_few_dimensions_have_multipliers_in_float32(scale: float) -> None:
    net = problems.network("soft_relu5", hidden=(30,), dtype=torch.float32)
    for seed, rank in ((0, 1), (1, 2), (2, 3)):
        objective = haim_objective(net, normaliser=40)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(rank, problems.DIMENSION, generator=generator)
        inside = span_objective(objective, AffineSpan.of(torch.zeros(problems.DIMENSION), rows))
        at = inside.dropped(objective.start(40, seed, scale))
        lam = optimal_multipliers(inside, at)
        best = at.with_points(at.x, lam)
        assert bool(torch.isfinite(lam).all())
        assert bool((lam >= 0).all())
        assert float(inside.value(best)) <= float(inside.value(at)) * (1 + 1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [10, 40, 80])
def test_gram_matrices_that_float32_made_indefinite(size: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    rows = torch.rand(size, rank, generator=generator)
    gram = (rows @ rows.T).double()
    assert float(torch.linalg.eigvalsh(gram)[0]) < -1e-8
    z = non_negative(gram, gram.sum(1), start=torch.ones(size, dtype=torch.float64))
    assert bool((z >= 0).all())
    # z = 1 attains the least value, - 1.G 1.
    value = z @ gram @ z - 2 * gram.sum(1) @ z
    assert float(value) == pytest.approx(-float(gram.sum()), rel=1e-3)
