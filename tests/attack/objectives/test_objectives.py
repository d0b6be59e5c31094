"""Closed forms of every objective against autograd, explicit Hessians and the split itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attack.networks.activations import Activation
from attack.networks.spec import parse_spec
from attack.objectives import (
    Candidates,
    Objective,
    Unrolled,
    buzaglo_objective,
    doubled_products,
    gradient_matching_objective,
    haim_objective,
    loo_objective,
)
from attack.objectives.closed_form import FactoredLayer, forward_pass
from attack.objectives.penalties import (
    BlurPenalty,
    BoxPenalty,
    FloorPenalty,
    RidgePenalty,
    SignedFloorPenalty,
    SparsityPenalty,
)
from attack.objectives.presets import preset
from identify.errors import InvalidInputError
from tests.attack.problems import (
    ACTIVATIONS,
    DIMENSION,
    EVERY,
    HIDDEN,
    RESIDUAL,
    SMOOTH,
    candidates,
    frozen_residual,
    network,
    noise,
    planted_kkt_point,
    relative,
    splitting_products,
)

KINDS = sorted(RESIDUAL)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_double_backward(kind: str, activation: str) -> None:
    for hidden, bias in zip(HIDDEN, ("all", "first", "none", "all"), strict=True):
        objective = RESIDUAL[kind](activation=activation, hidden=hidden, bias=bias)
        at = candidates(objective)
        got = objective.value_and_gradients(at)
        x, lam = at.x.clone().requires_grad_(), at.lam.clone().requires_grad_()
        loss = objective.loss(at.with_points(x, lam))
        grad_x, grad_lam = torch.autograd.grad(loss, [x, lam])
        assert relative(got.loss, loss.detach()) < 1e-12
        assert relative(got.grad_x, grad_x) < 1e-10
        assert relative(got.grad_lam, grad_lam) < 1e-10
        assert not got.loss.requires_grad
        assert relative(objective.value(at), got.loss) < 1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_splitting_products_agree_with_doubling(kind: str, activation: str) -> None:
    for hidden in HIDDEN:
        objective = RESIDUAL[kind](activation=activation, hidden=hidden, bias="all")
        at = candidates(objective)
        v = noise(at.x)
        fast = splitting_products(objective, at, v)
        assert relative(fast, doubled_products(objective.data_loss, at)(v)) < 1e-10


@settings(max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    activation=st.sampled_from(ACTIVATIONS),
    hidden=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    bias=st.sampled_from(("first", "all", "none")),
    count=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_closed_forms_on_random_shapes(
    kind: str, activation: str, hidden: tuple[int, ...], bias: str, count: int, seed: int
) -> None:
    objective = RESIDUAL[kind](activation=activation, hidden=hidden, bias=bias)
    at = candidates(objective, count, seed)
    got = objective.data_value_and_gradients(at)
    plain = Objective.data_value_and_gradients(objective, at)
    for closed, reference in zip(got, plain, strict=True):
        assert relative(closed, reference) < 1e-10
    v = noise(at.x, seed)
    fast = splitting_products(objective, at, v)
    assert relative(fast, doubled_products(objective.data_loss, at)(v)) < 1e-10


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("kind", KINDS)
def test_splitting_products_agree_with_explicit_hessians(kind: str, activation: str) -> None:
    objective = RESIDUAL[kind](activation=activation)
    at = candidates(objective, 3)
    g = frozen_residual(objective, at)
    v = noise(at.x)
    got = splitting_products(objective, at, v)
    for i in range(3):
        hessian = torch.autograd.functional.hessian(lambda x, i=i: g(x, i), at.x[i])
        assert torch.allclose(hessian, hessian.T, atol=1e-10)
        assert relative(got[i], hessian @ v[i]) < 1e-10


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_a_split_changes_the_loss_as_predicted(kind: str) -> None:
    # The second-order law behind sample splitting, on the loss itself and without the penalties.
    objective = EVERY[kind](activation="tanh")
    at = candidates(objective, 4)
    v = noise(at.x)
    products = splitting_products(objective, at, v)
    before = float(objective.data_loss(at))
    i, eps = 2, 1e-3
    index = torch.tensor([0, 1, 2, 3, 2])
    x, lam = at.x[index].clone(), at.lam[index].clone()
    lam[[2, 4]] /= 2
    x[2], x[4] = at.x[i] + eps * v[i], at.x[i] - eps * v[i]
    halves = Candidates(x, lam, None if at.labels is None else at.labels[index])
    predicted = 0.5 * eps**2 * float(v[i] @ products[i])
    assert float(objective.data_loss(halves)) - before == pytest.approx(predicted, rel=1e-3)
    x[2], x[4] = at.x[i], at.x[i]
    assert float(objective.data_loss(halves)) == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_splitting_matrices_are_symmetric(kind: str) -> None:
    objective = EVERY[kind](activation="soft_relu5")
    at = candidates(objective)
    operator = objective.splitting_operator(at)
    u, v = noise(at.x, 1), noise(at.x, 2)
    left, right = (u * operator(v)).sum(1), (operator(u) * v).sum(1)
    assert torch.allclose(left, right, rtol=1e-9, atol=1e-12)
    assert torch.allclose(operator(u + 2 * v), operator(u) + 2 * operator(v))


@pytest.mark.parametrize("bias", ["first", "all", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_multiplier_system_is_the_loss(kind: str, bias: str) -> None:
    objective = RESIDUAL[kind](activation="softplus3", bias=bias)
    at = candidates(objective)
    system = objective.multiplier_system(at)
    for seed in range(3):
        lam = noise(at.lam, seed)
        flat = lam.reshape(-1)
        got = system.constant - 2 * system.linear @ flat + flat @ system.gram @ flat
        loss = objective.data_loss(at.with_points(at.x, lam))
        assert relative(got, loss) < 1e-10
    assert float(torch.linalg.eigvalsh(system.gram)[0]) > -1e-10
    assert objective.quadratic


def test_bilevel_has_no_multiplier_system() -> None:
    objective = EVERY["bilevel logistic"]()
    with pytest.raises(InvalidInputError, match="a loss that is quadratic in them, got bilevel"):
        objective.multiplier_system(candidates(objective))
    assert not objective.quadratic


@pytest.mark.parametrize("kind", KINDS)
def test_float32_follows_float64(kind: str) -> None:
    wide = RESIDUAL[kind](activation="soft_relu5")
    narrow = RESIDUAL[kind](activation="soft_relu5", dtype=torch.float32)
    a, b = candidates(wide), candidates(narrow)
    assert b.x.dtype == torch.float32
    assert torch.equal(a.x.float(), b.x)
    first, second = wide.value_and_gradients(a), narrow.value_and_gradients(b)
    v = noise(a.x)
    pairs = [
        (second.loss, first.loss),
        (second.grad_x, first.grad_x),
        (second.grad_lam, first.grad_lam),
        (splitting_products(narrow, b, v.float()), splitting_products(wide, a, v)),
    ]
    for got, expected in pairs:
        assert got.dtype == torch.float32
        assert relative(got.double(), expected) < 1e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["haim", "multiclass", "regression", "gradient norm"])
def test_factored_layers_agree_with_formed_ones(
    kind: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hidden in HIDDEN:
        objective = RESIDUAL[kind](activation=activation, hidden=hidden, bias="all")
        at = candidates(objective)
        v = noise(at.x)
        results = []
        for limit in (0.0, 1e9):
            monkeypatch.setattr("attack.objectives.implicit_residual.FACTORED_LIMIT", limit)
            sweep = objective._sweep(at, 1)[1][0]
            kinds = {isinstance(layer, FactoredLayer) for layer in sweep.direction}
            assert kinds == {limit > 0}
            results.append([*objective.data_value_and_gradients(at),
                            splitting_products(objective, at, v)])  # fmt: skip
        plain = [*Objective.data_value_and_gradients(objective, at),
                 doubled_products(objective.data_loss, at)(v)]  # fmt: skip
        for formed, factored, reference in zip(*results, plain, strict=True):
            assert relative(formed, reference) < 1e-10
            assert relative(factored, reference) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_factored_loss_keeps_its_digits_near_zero(dtype: torch.dtype) -> None:
    net, exact = planted_kkt_point(samples=5, dimension=60)
    victim = net.to(dtype=dtype)
    objective = haim_objective(victim, normaliser=1, box=None, floor=None)
    x = (exact.x + 1e-3 * noise(exact.x)).to(dtype)
    at = Candidates(x, exact.lam.to(dtype), exact.labels.to(dtype))
    reference = objective.data_loss(at)
    share = float(reference) / sum(float(p.square().sum()) for p in victim.parameters())
    assert 1e-8 < share < 1e-3
    assert relative(objective.value(at), reference) < (1e-9 if dtype == torch.float64 else 1e-4)


def test_many_candidates_need_no_object_per_parameter() -> None:
    # 100 candidates x 32,000 parameters are 3.2 million numbers; the passes hold (m, width) arrays.
    net = parse_spec("60-200-100-1,relu").initialise(0, dtype=torch.float32)
    objective = haim_objective(net, normaliser=100, activation=Activation("soft_relu", 20))
    at = objective.start(100, 0, 0.1)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    with Watch():
        objective.value_and_gradients(at)
        splitting_products(objective, at, at.x)
        objective.multiplier_system(at)
    assert largest <= 100 * 200


PENALTIES = [
    BoxPenalty(-0.3, 0.4, weight=2.0),
    BoxPenalty(torch.full((12,), -0.2), torch.linspace(0.1, 0.5, 12), weight=0.1, mean=True),
    FloorPenalty(0.5),
    BlurPenalty((3, 2, 2), weight=0.7),
    SparsityPenalty(0.3),
    RidgePenalty(0.4),
    SignedFloorPenalty(0.5),
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.describe()["name"])
def test_penalties_agree_with_autograd(penalty) -> None:  # type: ignore[no-untyped-def]
    x = noise(torch.empty(5, 12, dtype=torch.float64)).requires_grad_()
    lam = noise(torch.empty(5, 2, dtype=torch.float64), 1).requires_grad_()
    total = penalty.values(x, lam).sum()
    grads = torch.autograd.grad(total, [x, lam], create_graph=True, allow_unused=True)
    got_x, got_lam = torch.zeros_like(x), torch.zeros_like(lam)
    penalty.add_gradients(x.detach(), lam.detach(), got_x.detach(), got_lam.detach())
    v = noise(x, 2)
    product = torch.zeros_like(x)
    if grads[0] is not None and grads[0].requires_grad:
        product = torch.autograd.grad(grads[0], x, v)[0]
    for got, expected in zip((got_x, got_lam), grads, strict=True):
        assert relative(got, torch.zeros_like(got) if expected is None else expected) < 1e-12
    assert relative(penalty.products(x.detach(), v), product) < 1e-12


def test_penalties_of_an_objective_add_up() -> None:
    objective = RESIDUAL["loo both"]()
    at = candidates(objective)
    values = objective.penalty_values(at)
    assert values.shape == (at.count,)
    difference = objective.loss(at) - objective.data_loss(at)
    assert relative(difference, values.sum()) < 1e-10
    v = noise(at.x)
    parts = sum(p.products(at.x, v) for p in objective.penalties)
    assert torch.allclose(objective.penalty_products(at, v), parts)


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_starts_are_repeatable_and_described(kind: str) -> None:
    objective = EVERY[kind]()
    a, b = objective.start(7, 3, 0.5), objective.start(7, 3, 0.5)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.lam, b.lam)
    assert not torch.equal(a.x, objective.start(7, 4, 0.5).x)
    assert a.lam.shape == (7, objective.columns)
    if not objective.signed:
        assert float(a.lam.min()) >= 0
    described = objective.describe()
    assert described["objective"] == objective.name
    import json

    json.dumps(described, allow_nan=False)


def test_bad_input_is_one_clear_line() -> None:
    binary, multi = network(), network(outputs=3)
    objective = haim_objective(binary, normaliser=4)
    at = objective.start(4, 0, 1.0)
    cases = [
        (lambda: haim_objective(multi, normaliser=4), "one output for haim, got 3"),
        (lambda: buzaglo_objective(binary, normaliser=4), "at least two outputs"),
        (lambda: haim_objective(binary, normaliser=0), "normaliser: expected a positive count"),
        (lambda: haim_objective(binary, normaliser=4, image_shape=(1, 2, 2)), "image_shape"),
        (lambda: loo_objective(multi, binary, normaliser=4), "initial: expected shapes"),
        (
            lambda: gradient_matching_objective(binary, multi, normaliser=4),
            "gradient: expected shapes",
        ),
        (
            lambda: gradient_matching_objective(binary, binary, normaliser=4, loss="cross-entropy"),
            "at least two outputs",
        ),
        (lambda: objective.start(0, 0, 1.0), "count: expected at least 1"),
        (
            lambda: objective.check(at.with_points(at.x.float(), at.lam)),
            "x: expected torch.float64",
        ),
        (
            lambda: objective.check(at.with_points(at.x[:2], at.lam)),
            r"lam: expected shape \(2, 1\)",
        ),
        (
            lambda: objective.check(at.with_points(at.x * float("nan"), at.lam)),
            "x: expected finite numbers",
        ),
        (
            lambda: objective.start(2, 0, 1.0, labels=torch.tensor([1.0, 2.0])),
            "labels: expected floating numbers -1 and 1, got 2.0",
        ),
        (
            lambda: buzaglo_objective(multi, normaliser=4).start(
                2, 0, 1.0, labels=torch.tensor([0, 3])
            ),
            "labels: expected classes 0 to 2, got 3",
        ),
        (
            lambda: Unrolled(steps=0),
            "steps: expected 1 to 10000",
        ),
        (lambda: preset("none"), "preset: expected one of"),
    ]
    for action, message in cases:
        with pytest.raises(InvalidInputError, match=message) as caught:
            action()
        assert "\n" not in str(caught.value)


def test_forward_pass_is_the_network() -> None:
    for activation in ACTIVATIONS:
        net = network(activation, bias="all", outputs=2)
        x = noise(torch.empty(4, DIMENSION, dtype=torch.float64))
        assert torch.allclose(forward_pass(net, x, 3).values, net(x), rtol=1e-12, atol=1e-14)
