"""Activations with their derivatives, network specifications, torch modules and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import identify
from attack.networks.activations import Activation, parse_activation
from attack.networks.files import load_network, save_network
from attack.networks.network import Network
from attack.networks.spec import from_module, parse_spec
from identify.errors import (
    FileError,
    InvalidInputError,
    KktCertError,
    NotYetSupportedError,
    UnsupportedModelError,
)

WORDS = (
    "relu", "soft_relu5", "soft_relu300", "gelu", "tanh", "softplus1", "softplus200", "power1",
    "power2", "power3", "power5", "identity",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the parameters of torch's own modules
        yield


def _points() -> torch.Tensor:
    return torch.linspace(-3, 3, 62, dtype=torch.float64)


@pytest.mark.parametrize("word", WORDS)
def test_stated_derivatives_are_those_of_autograd(word: str) -> None:
    activation = parse_activation(word)
    z = _points().requires_grad_()
    expected = [activation.as_function()(z)]
    for _ in range(3):
        graph = expected[-1].requires_grad
        found = torch.autograd.grad(
            expected[-1].sum(), z, create_graph=True, allow_unused=True
        ) if graph else (None,)  # fmt: skip
        expected.append(torch.zeros_like(z) if found[0] is None else found[0])
    got = activation.jet(z.detach(), 3)
    for order, (a, b) in enumerate(zip(got, expected, strict=True)):
        scale = float(b.detach().abs().max()) + 1e-300
        assert torch.allclose(a / scale, b.detach() / scale, rtol=1e-10, atol=1e-11), order
    parts = [activation.value, activation.first, activation.second, activation.third]
    assert all(torch.equal(part(z.detach()), a) for part, a in zip(parts, got, strict=True))


@pytest.mark.parametrize("word", WORDS)
def test_derivatives_belong_to_the_function_where_they_are_said_to(word: str) -> None:
    activation = parse_activation(word)
    z, step = _points() + 0.0123, 1e-5
    numerical = (activation.value(z + step) - activation.value(z - step)) / (2 * step)
    close = torch.allclose(numerical, activation.first(z), rtol=1e-5, atol=1e-6)
    assert close == (activation.name != "soft_relu")
    higher = (activation.first(z + step) - activation.first(z - step)) / (2 * step)
    assert torch.allclose(higher, activation.second(z), rtol=1e-4, atol=1e-3)


def test_derivatives_stay_finite_far_out() -> None:
    z = torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=torch.float64)
    for word in ("soft_relu300", "softplus200", "gelu", "tanh"):
        activation = parse_activation(word)
        assert all(bool(torch.isfinite(part).all()) for part in activation.jet(z, 3))
        point = z.clone().requires_grad_()
        (first,) = torch.autograd.grad(
            activation.as_function()(point).sum(), point, create_graph=True
        )
        (second,) = torch.autograd.grad(first.sum(), point)
        assert bool(torch.isfinite(second).all())


@pytest.mark.parametrize("word", WORDS)
def test_spelling_of_activations_round_trips(word: str) -> None:
    activation = parse_activation(word)
    assert parse_activation(activation.spec) == activation
    assert parse_activation(activation.to_json()) == activation


@pytest.mark.parametrize(
    "text",
    ["", "relu3", "swish", "power2.5", "power0", "softplus-1", "{", '{"name": "relu", "x": 1}',
     '{"name": []}', '{"name": "power", "power": "3"}', '{"name": "power", "power": NaN}', "power"
     + "9" * 40],
)  # fmt: skip
def test_bad_activations_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_activation(text)
    assert "\n" not in str(caught.value)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    word=st.sampled_from(WORDS),
    bias=st.sampled_from(("first", "all", "none")),
)
def test_specifications_round_trip(sizes: list[int], word: str, bias: str) -> None:
    text = f"{'-'.join(map(str, sizes))},{parse_activation(word).spec},bias={bias}"
    spec = parse_spec(text)
    assert str(spec) == text
    network = spec.initialise(0)
    assert network.widths == tuple(sizes)
    assert network.depth == len(sizes) - 1
    present = [b is not None for b in network.biases]
    assert present == [bias == "all" or (bias == "first" and k == 0) for k in range(len(present))]
    assert len(network.parameters()) == len(network.names())


@pytest.mark.parametrize(
    "text",
    ["", "784", "784,relu", "784-1", "784-0-1,relu", "784--1,relu", "784-1,relu,bias=some",
     "784-1,relu,first", "784-1,relu,bias=all,x", "784-x-1,relu", "٣-1,relu", "9999999999-1,relu"],
)  # fmt: skip
def test_bad_specifications_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_spec(text)
    assert "\n" not in str(caught.value)


def test_initialisation_scales() -> None:
    spec = parse_spec("400-300-200-1,relu,bias=all")
    plain = spec.initialise(1)
    assert float(plain.weights[1].abs().max()) <= 300**-0.5
    assert float(plain.weights[1].std()) == pytest.approx((3 * 300) ** -0.5, rel=0.02)
    small = spec.initialise(1, scale=1e-4)
    assert float(small.weights[0].std()) == pytest.approx(1e-4, rel=0.02)
    assert float(small.biases[0].std()) == pytest.approx(1e-4, rel=0.2)
    assert float(small.weights[1].std()) == pytest.approx((3 * 300) ** -0.5, rel=0.02)
    every = spec.initialise(1, scale=1e-4, first_only=False)
    assert float(every.weights[1].std()) == pytest.approx(1e-4, rel=0.02)
    lecun = spec.initialise(1, scheme="lecun")
    assert float(lecun.weights[0].std()) == pytest.approx(400**-0.5, rel=0.02)
    assert all(float(b.abs().max()) == 0 for b in lecun.biases)
    single = spec.initialise(1, dtype=torch.float32)
    assert torch.equal(single.weights[0], plain.weights[0].float())
    assert spec.initialise(1).sha256() == plain.sha256() != spec.initialise(2).sha256()
    for arguments in ({"seed": -1}, {"seed": 0, "scale": 0.0}, {"seed": 0, "scheme": "x"}):
        with pytest.raises(InvalidInputError):
            spec.initialise(**arguments)


def test_initialisation_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    parse_spec("4-3-1,relu").initialise(0, scheme="lecun")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("spec", "degree"),
    [("4-5-1,relu", 2), ("4-5-5-1,relu,bias=none", 3), ("4-5-5-1,relu,bias=all", None),
     ("4-5-1,power3", 4), ("4-5-5-1,power2", 7), ("4-5-1,gelu", None), ("4-1,gelu", 1),
     ("4-5-1,soft_relu50", None), ("4-5-5-1,identity", 3)],
)  # fmt: skip
def test_homogeneity_is_what_scaling_shows(spec: str, degree: int | None) -> None:
    network = parse_spec(spec).initialise(0)
    assert network.is_homogeneous == degree
    if degree is not None:
        scaled = network.with_parameters([1.5 * p for p in network.parameters()])
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
        assert torch.allclose(scaled(x), 1.5**degree * network(x))


MODULES = [
    (torch.nn.ReLU(), "relu"), (torch.nn.GELU(), "gelu"), (torch.nn.Tanh(), "tanh"),
    (torch.nn.Softplus(beta=4.0), "softplus4"),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "word"), MODULES)
def test_modules_are_taken_over(activation: torch.nn.Module, word: str) -> None:
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(6, 5), activation, torch.nn.Dropout(0.5),
        torch.nn.Linear(5, 4, bias=False), activation, torch.nn.Linear(4, 2),
    ).double()  # fmt: skip
    network = from_module(module)
    assert network.activation.spec == word
    assert [b is None for b in network.biases] == [False, True, False]
    assert module.training
    x = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(3, 6)
    module.eval()
    assert torch.allclose(network(x), module(x), atol=1e-9)
    names = [name for name, _ in module.named_parameters()]
    assert len(names) == len(network.names())


class Cube(torch.nn.Module):
    """A module without parameters that torch does not know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x**3


def test_unknown_modules_are_refused() -> None:
    linear = torch.nn.Linear
    custom = torch.nn.Sequential(linear(3, 4), Cube(), linear(4, 1))
    assert from_module(custom, Activation("power", 3)).is_homogeneous is None
    refused = [
        (custom, None),
        (custom, Activation("relu")),
        (torch.nn.Sequential(torch.nn.ReLU()), None),
        (torch.nn.Sequential(linear(3, 4), torch.nn.ReLU(), torch.nn.Tanh(), linear(4, 1)), None),
        (torch.nn.Sequential(linear(3, 4), torch.nn.ReLU(), torch.nn.ReLU6(), linear(4, 1)), None),
        (torch.nn.Sequential(linear(3, 4), torch.nn.GELU(approximate="tanh"), linear(4, 1)), None),
        (torch.nn.Sequential(torch.nn.ReLU(), linear(3, 4), torch.nn.ReLU(), linear(4, 1)), None),
        (torch.nn.Sequential(linear(3, 4), torch.nn.ReLU(), linear(4, 4), linear(4, 1)), None),
    ]
    for module, activation in refused:
        with pytest.raises(UnsupportedModelError) as caught:
            from_module(module, activation)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_files_round_trip(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    spec = "6-5-4-3-2-3-2-3-2-3-2-2,softplus20,bias=all"  # eleven layers: 10 sorts before 2
    network = parse_spec(spec).initialise(0, dtype=dtype)
    path = tmp_path / f"network{suffix}"
    save_network(network, path)
    loaded = load_network(path)
    assert loaded.dtype == dtype
    assert loaded.activation == network.activation
    assert loaded.sha256() == network.sha256()
    assert all(map(torch.equal, loaded.parameters(), network.parameters()))


def test_two_layer_files_of_the_verifier_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cubic = identify.TwoLayerNetwork(
        rng.normal(size=(6, 4)), rng.normal(size=6), degree=3, hidden_bias=rng.normal(size=6)
    )
    x = rng.normal(size=(5, 4))
    for suffix in (".safetensors", ".npz"):
        path = tmp_path / f"cubic{suffix}"
        identify.save_network(cubic, path)
        network = load_network(path)
        assert network.activation == Activation("power", 3)
        values = network(torch.from_numpy(x))[:, 0].numpy()
        np.testing.assert_allclose(values, cubic.value(x), rtol=1e-12)
    polynomial = identify.TwoLayerNetwork(
        rng.normal(size=(6, 4)), rng.normal(size=6), degree=2, activation=(0.0, 1.0, 0.5)
    )
    identify.save_network(polynomial, tmp_path / "polynomial.npz")
    with pytest.raises(NotYetSupportedError, match="polynomial"):
        load_network(tmp_path / "polynomial.npz")


def test_state_dicts_are_read_in_their_order(tmp_path: Path) -> None:
    linear = torch.nn.Linear
    module = torch.nn.Sequential(linear(3, 3), torch.nn.Tanh(), linear(3, 3), torch.nn.Tanh(),
                                 linear(3, 1))  # fmt: skip
    path = tmp_path / "model.pt"
    torch.save(module.state_dict(), path)
    network = load_network(path, activation="tanh")
    assert network.dtype == torch.float32
    assert network.sha256() == from_module(module).sha256()
    named = load_network(path, activation="tanh", layers="0, 2,4")
    assert named.sha256() == network.sha256()


def test_unusable_files_are_one_clear_line(tmp_path: Path) -> None:
    def write(name: str, **arrays: object) -> Path:
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return path

    good = {"a.weight": np.ones((4, 3)), "b.weight": np.ones((1, 4))}
    cases = [
        (write("none", **good), {}, "activation: expected a word such as relu"),
        (write("two", **good, activation="relu"), {"activation": "tanh"}, "leave the option out"),
        (write("odd", **good, activation="swish"), {}, "unknown activation"),
        (write("list", **good, activation=np.ones(3)), {}, "polynomial activations"),
        (write("degree", **good, degree=2.5), {}, "has no whole number as degree"),
        (
            write("chain", a=np.ones((4, 3)), b=np.ones((1, 5)), activation="relu"),
            {},
            "do not chain",
        ),
        (write("more", **good, c=np.ones(7), activation="relu"), {}, "besides the layers"),
        (write("nan", **{"a.weight": np.full((1, 3), np.nan)}, activation="relu"), {}, "NaN"),
        (write("int", **{"a.weight": np.ones((1, 3), dtype=int)}, activation="relu"), {}, "dtype"),
        (write("flat", a=np.ones(3), activation="relu"), {}, "holds no matrix"),
        (write("bias", **good, **{"a.bias": np.ones(3)}, activation="relu"), {}, "layers.0.bias"),
        (write("name", **good, activation="relu"), {"layers": "a,x"}, "layers: expected names"),
        (tmp_path / "absent.npz", {}, "cannot be opened"),
    ]
    for path, options, message in cases:
        with pytest.raises(KktCertError, match=message) as caught:
            load_network(path, **options)
        assert "\n" not in str(caught.value)
    network = parse_spec("3-1,relu").initialise(0)
    for path in (tmp_path / "network.txt", tmp_path / "missing" / "network.npz"):
        with pytest.raises(FileError):
            save_network(network, path)


def test_networks_check_their_tensors() -> None:
    one = torch.ones(2, 3, dtype=torch.float64)
    relu = Activation("relu")
    refused = [
        ((), ()),
        ((one,), ()),
        ((one, one), (None, None)),
        ((one,), (torch.ones(3, dtype=torch.float64),)),
        ((one,), (torch.ones(2),)),
        ((one.long(),), (None,)),
        ((one * float("inf"),), (None,)),
        ((one[0],), (None,)),
    ]
    for weights, biases in refused:
        with pytest.raises(InvalidInputError):
            Network(weights, biases, relu)
    network = Network((one,), (None,), relu)
    for x in (torch.ones(4, 2, dtype=torch.float64), torch.ones(4, 3), torch.ones(3).double()):
        with pytest.raises(InvalidInputError, match="x: expected shape"):
            network(x)
    with pytest.raises(InvalidInputError, match="parameters: expected shapes"):
        network.with_parameters([one, one])
    assert network.to(dtype=torch.float32).dtype == torch.float32
    assert not network.weights[0].requires_grad
