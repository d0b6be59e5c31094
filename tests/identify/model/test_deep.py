"""Deep networks against torch's autograd and against central differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from identify.errors import InvalidInputError
from identify.model.activations import Activation, parse_activation
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope, loss_value

torch = pytest.importorskip("torch")
functional = torch.nn.functional
TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "leaky_relu:0.3": lambda z: functional.leaky_relu(z, 0.3),
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "elu:0.7": lambda z: functional.elu(z, 0.7),
    "sine": torch.sin,
    "monomial:3": lambda z: z**3,
    "polynomial:1,0.5,-2,0.25": lambda z: 1 + 0.5 * z - 2 * z**2 + 0.25 * z**3,
    "identity": lambda z: z,
}
SHAPES = [(1, 1, True), (2, 1, False), (3, 4, True), (4, 10, False), (2, 2, True)]


def random_network(seed: int, activation: str, depth: int, outputs: int, bias: bool) -> DeepNetwork:
    rng = np.random.default_rng(seed)
    sizes = [5, *rng.integers(3, 7, depth).tolist(), outputs]
    weights = [rng.normal(size=(o, i)) / np.sqrt(i) for i, o in itertools.pairwise(sizes)]
    biases = [rng.normal(size=len(w)) if bias else None for w in weights]
    return DeepNetwork(weights, biases, activation)


def torch_gradient(network, activation, samples, loss, targets):
    """Gradients of the summed loss with respect to all weights, biases and the samples."""
    weights = [torch.tensor(np.array(w), requires_grad=True) for w in network.weights]
    biases = [
        None if b is None else torch.tensor(np.array(b), requires_grad=True) for b in network.biases
    ]
    x = h = torch.tensor(samples, requires_grad=True)
    for index, (w, b) in enumerate(zip(weights, biases, strict=True)):
        h = h @ w.T if b is None else h @ w.T + b
        if index < len(weights) - 1:
            h = TORCH[activation](h)
    t = torch.tensor(targets)
    if loss == "cross_entropy":
        value = functional.cross_entropy(h, t, reduction="sum")
    elif loss == "logistic":
        value = functional.softplus(-t * h).sum()
    else:
        value = ((h - t) ** 2).sum() / 2
    value.backward()
    return value, h, weights, biases, x


@pytest.mark.parametrize("activation", TORCH)
@pytest.mark.parametrize(("depth", "outputs", "bias"), SHAPES)
def test_agrees_with_autograd(activation, depth, outputs, bias):
    network = random_network(depth, activation, depth, outputs, bias)
    rng = np.random.default_rng(outputs)
    samples = rng.normal(size=(6, 5))
    loss = ["squared", "logistic", "cross_entropy"][depth % 3]
    targets = {
        "squared": rng.normal(size=(6, outputs)),
        "logistic": rng.choice([-1.0, 1.0], size=(6, outputs)),
        "cross_entropy": rng.integers(0, outputs, 6),
    }[loss]
    value, outputs_, weights, biases, x = torch_gradient(
        network, activation, samples, loss, targets
    )
    f = network.value(samples)
    np.testing.assert_allclose(f, outputs_.detach().numpy(), rtol=1e-10, atol=1e-12)
    assert loss_value(loss, f, targets).sum() == pytest.approx(value.item(), rel=1e-10)
    p = loss_slope(loss, f, targets)
    gradient = network.gradient(samples, p)
    for index in range(network.depth):
        scale = max(1.0, float(weights[index].grad.abs().max()))
        np.testing.assert_allclose(
            gradient.weights[index], weights[index].grad.numpy(), rtol=1e-9, atol=1e-11 * scale
        )
        if bias:
            np.testing.assert_allclose(
                gradient.biases[index], biases[index].grad.numpy(), rtol=1e-9, atol=1e-11 * scale
            )
        else:
            assert gradient.biases[index] is None
    delta = network.backward(network.forward(samples), p)[0]
    np.testing.assert_allclose(
        delta @ network.weights[0], x.grad.numpy(), rtol=1e-8, atol=1e-10 * scale
    )


@pytest.mark.parametrize("activation", TORCH)
def test_jvp_agrees_with_central_differences(activation):
    network = random_network(3, activation, 3, 2, True)
    rng = np.random.default_rng(7)
    x, v = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    step = 1e-6
    ahead, behind = network.forward(x + step * v), network.forward(x - step * v)
    for along, plus, minus in zip(
        network.jvp(network.forward(x), v), ahead.preactivations, behind.preactivations, strict=True
    ):
        numerical = (plus - minus) / (2 * step)
        scale = max(1.0, float(np.abs(numerical).max()))
        np.testing.assert_allclose(along, numerical, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("activation", TORCH)
def test_slope_from_value(activation):
    """Where the value decides the slope it is the slope; the others say that it does not."""
    kind = parse_activation(activation)
    z = np.linspace(-3, 3, 41) + 0.01
    read = kind.slope_from_value(kind.value(z))
    if kind.name in ("gelu", "gelu_tanh", "silu", "sine", "monomial", "polynomial"):
        assert read is None
    else:
        np.testing.assert_allclose(read, kind.slope(z), atol=1e-12)


def test_part_of_a_network_is_the_network_above():
    network = random_network(0, "tanh", 3, 2, True)
    x = np.random.default_rng(1).normal(size=(3, 5))
    whole = network.forward(x)
    part = network.forward(whole.inputs[2], first=2)
    np.testing.assert_array_equal(part.outputs, whole.outputs)
    p = np.ones((3, 2))
    np.testing.assert_array_equal(network.backward(part, p)[0], network.backward(whole, p)[2])


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: DeepNetwork([], None, "relu"), "layer"),
        (lambda: DeepNetwork([np.ones((2, 3)), np.ones((1, 3))], None, "relu"), "columns"),
        (lambda: DeepNetwork([np.ones((2, 3))], [np.ones(3)], "relu"), "shape"),
        (lambda: DeepNetwork([[[np.nan]]], None, "relu"), "finite"),
        (lambda: DeepNetwork([np.ones((2, 3)), np.ones((1, 2))], None, ["relu"] * 2), "1 of"),
        (lambda: Activation("swishy"), "one of"),
        (lambda: Activation("monomial", (2.5,)), "integer"),
        (lambda: Activation("polynomial", (1.0, 0.0)), "last one"),
        (lambda: parse_activation("elu:x"), "number"),
        (lambda: loss_slope("hinge", np.ones((1, 1)), [1]), "one of"),
        (lambda: loss_slope("cross_entropy", np.ones((1, 2)), [2]), "integers"),
        (lambda: loss_slope("logistic", np.ones((1, 1)), [0.5]), "-1 and 1"),
        (lambda: DeepGradient([np.ones((2, 2))], [np.ones(3)]), "shape"),
    ],
)
def test_errors_say_what_was_expected(call, word):
    with pytest.raises(InvalidInputError, match=word):
        call()


@pytest.mark.parametrize(
    "activation",
    ["gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus", "elu:0.7", "sine", "monomial:1",
     "monomial:4", "polynomial:1,2,3,4", "identity"],
)  # fmt: skip
def test_curvature_is_the_derivative_of_the_slope(activation: str) -> None:
    kind = parse_activation(activation)
    z, step = np.linspace(-5.0, 5.0, 40), 1e-5
    own = (kind.slope(z + step) - kind.slope(z - step)) / (2.0 * step)
    np.testing.assert_allclose(kind.curvature(z), own, atol=1e-6)
