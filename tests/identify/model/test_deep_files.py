"""Networks of any depth and their gradients in the layouts that people have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from safetensors.numpy import save_file

import identify
from identify.errors import FileError, InvalidInputError, UnsupportableModelError
from identify.model.deep import DeepNetwork
from identify.model.deep_files import load_deep_gradient, load_deep_network, take_deep_gradient
from identify.model.deep_layers import find_deep_layers
from tests.identify.disaggregation.problems import initialise
from tests.model_files import npz

SIZES = [6, 5, 5, 5, 3]


def arrays_of(network, names):
    arrays = {}
    for name, weight, bias in zip(names, network.weights, network.biases, strict=True):
        arrays[f"{name}.weight"] = weight
        if bias is not None:
            arrays[f"{name}.bias"] = bias
    return arrays


def same(one, other):
    for a, b in ((one.weights, other.weights), (one.biases, other.biases)):
        for left, right in zip(a, b, strict=True):
            assert (left is None) == (right is None)
            if left is not None:
                np.testing.assert_array_equal(left, right)


NAMES = [
    ["net.0", "net.2", "net.4", "net.6"],
    ["fc1", "fc2", "fc3", "fc10"],
    ["layers.8", "layers.9", "layers.10", "layers.11"],
    ["model.body.1", "model.body.2", "model.body.3", "model.head"],
    ["0", "2", "4", "6"],
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_layers_are_found_whatever_their_names(tmp_path, names, suffix, bias):
    network = initialise(SIZES, np.random.default_rng(0), "leaky_relu:0.2", bias)
    arrays = arrays_of(network, names)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(a.copy()) for name, a in arrays.items()}, path)
    elif suffix == ".safetensors":
        save_file({k: arrays[k] for k in sorted(arrays)}, path)
    else:
        np.savez(path, **arrays)
    loaded = load_deep_network(path, activation="leaky_relu:0.2")
    same(loaded, network)
    assert loaded.names == tuple(names)
    assert loaded.sha256() == network.sha256()
    gradient = network.gradient(np.ones((2, 6)), np.ones((2, 3)))
    same(
        load_deep_gradient(npz(tmp_path / "g.npz", **arrays_of(gradient, names)), loaded), gradient
    )


def test_numbers_in_names_beat_the_order_of_the_file(tmp_path):
    network = initialise([4, 4, 4, 4], np.random.default_rng(0))
    arrays = arrays_of(network, ["l.0", "l.1", "l.2"])
    path = npz(tmp_path / "m.npz", **{k: arrays[k] for k in reversed(arrays)})
    same(load_deep_network(path, activation="relu"), network)


def test_an_order_that_the_file_does_not_tell_is_asked_for():
    shapes = {f"{name}.weight": (4, 4) for name in ("a", "b", "c")}
    with pytest.raises(FileError, match=r"in which order .* give --layers"):
        find_deep_layers("m.safetensors", shapes, ordered=False)
    assert [f.name for f in find_deep_layers("m.npz", shapes)] == ["a", "b", "c"]
    found = find_deep_layers("m.safetensors", shapes, layers="c,a,b", ordered=False)
    assert [f.name for f in found] == ["c", "a", "b"]


def test_shapes_decide_where_names_do_not():
    sizes = [9, 7, 8, 2]
    pairs = list(itertools.pairwise(sizes))
    names = ["x", "z", "y"]
    shapes = {f"{n}.weight": (o, i) for n, (i, o) in sorted(zip(names, pairs, strict=True))}
    assert [f.name for f in find_deep_layers("m", shapes, ordered=False)] == names


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        ({"0.weight": (4, 3), "1.weight": (5, 6)}, FileError),
        ({"0.weight": (4, 3), "0.bias": (3,), "1.weight": (2, 4)}, FileError),
        ({"0.weight": (4, 3), "n.weight": (4,), "1.weight": (2, 4)}, UnsupportableModelError),
        ({"0.weight": (4, 3, 3, 3), "1.weight": (2, 4)}, UnsupportableModelError),
        ({"0.weight": (4, 3), "0.running_mean": (4,)}, UnsupportableModelError),
        ({"0.bias": (4,)}, FileError),
    ],
)
def test_what_is_no_chain_of_layers_is_refused(shapes, error):
    with pytest.raises(error):
        find_deep_layers("m", shapes)


def test_the_activation_is_asked_for_and_not_contradicted(tmp_path):
    arrays = arrays_of(initialise(SIZES, np.random.default_rng(0)), NAMES[0])
    bare = npz(tmp_path / "m.npz", **arrays)
    told = npz(tmp_path / "t.npz", **arrays, activation="ReLU")
    with pytest.raises(InvalidInputError, match="--activation relu"):
        load_deep_network(bare)
    assert str(load_deep_network(told).activations[0]) == "relu"
    with pytest.raises(InvalidInputError, match=r"ReLU as .* says, got tanh"):
        load_deep_network(told, activation="tanh")
    power = npz(tmp_path / "p.npz", **arrays, degree=3)
    for path, given in ((told, "0,0,0,1"), (power, "relu")):
        with pytest.raises(InvalidInputError, match="leave the option out"):
            load_deep_network(path, activation=given)
    with pytest.raises(InvalidInputError, match="one of relu"):
        load_deep_network(bare, activation="reluu")


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_as_lists(tmp_path, bias):
    network = initialise(SIZES, np.random.default_rng(0), "relu", bias)
    gradient = network.gradient(np.ones((2, 6)), np.ones((2, 3)))
    every = [a for pair in zip(gradient.weights, gradient.biases, strict=True)
             for a in pair if a is not None]  # fmt: skip
    np.savez(tmp_path / "g.npz", *every)
    same(load_deep_gradient(tmp_path / "g.npz", network), gradient)
    same(take_deep_gradient(every, network), gradient)
    weights = take_deep_gradient(list(gradient.weights), network)
    assert weights.biases == (None,) * 4
    with pytest.raises(FileError, match="list of 3 arrays"):
        take_deep_gradient(every[:3], network)


def test_gradients_by_other_names_in_part_and_of_other_networks(tmp_path):
    network = initialise(SIZES, np.random.default_rng(0))
    gradient = network.gradient(np.ones((2, 6)), np.ones((2, 3)))
    same(take_deep_gradient(arrays_of(gradient, NAMES[1]), network), gradient)
    named = arrays_of(gradient, [f"module.{name}" for name in network.names])
    same(take_deep_gradient(named, network), gradient)
    part = take_deep_gradient({"layers.2.weight": gradient.weights[2]}, network)
    assert [w is None for w in part.weights] == [True, True, False, True]
    wrong = {**named, "module.layers.0.weight": np.ones((5, 7))}
    with pytest.raises(FileError, match="another network"):
        take_deep_gradient(wrong, network)
    with pytest.raises(UnsupportableModelError, match="besides"):
        take_deep_gradient({**named, "bn.weight": np.ones(5)}, network)
    with pytest.raises(InvalidInputError, match="None among them"):
        take_deep_gradient({"layers.0.weight": None}, network)


class TestTorch:
    def build(self, nn):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Dropout(0.5),
            nn.Sequential(nn.Linear(5, 4, bias=False), nn.Identity(), nn.GELU("tanh")),
            nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2),
        )  # fmt: skip

    def test_value_and_gradient_are_those_of_torch(self):
        torch = pytest.importorskip("torch")
        module = self.build(torch.nn).double().eval()
        network = identify.from_torch(module)
        assert isinstance(network, DeepNetwork)
        x = np.random.default_rng(0).normal(size=(3, 6))
        outputs = module(torch.from_numpy(x))
        np.testing.assert_allclose(network.value(x), outputs.detach().numpy(), atol=1e-12)
        torch.nn.functional.cross_entropy(outputs, torch.tensor([0, 1, 1])).backward()
        taken = take_deep_gradient(module, network)
        slope = torch.softmax(outputs, 1).detach().numpy()
        slope[np.arange(3), [0, 1, 1]] -= 1.0
        truth = network.gradient(x, slope / 3)
        for got, wanted in zip(taken.weights, truth.weights, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-12)

    def test_everything_else_is_named(self):
        torch = pytest.importorskip("torch")
        nn = torch.nn
        one, two = nn.Linear(3, 4), nn.Linear(4, 2)
        hooked = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        hooked[1].register_forward_hook(lambda *_: None)

        class Own(nn.Linear):
            pass

        cases = {
            "Dropout": nn.Sequential(one, nn.ReLU(), nn.Dropout(0.1), two),
            "BatchNorm1d": nn.Sequential(one, nn.BatchNorm1d(4), nn.ReLU(), two),
            "Conv2d": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), one),
            "Own": nn.Sequential(Own(3, 4), nn.ReLU(), two),
            "ReLU6": nn.Sequential(one, nn.ReLU6(), two),
            "LogSoftmax": nn.Sequential(one, nn.ReLU(), two, nn.LogSoftmax(1)),
            "hooks": hooked,
            "two activations": nn.Sequential(one, nn.ReLU(), nn.Tanh(), two),
            "follows the last": nn.Sequential(one, nn.ReLU(), two, nn.Sigmoid()),
            "none precedes": nn.Sequential(nn.ReLU(), one, nn.ReLU(), two),
            "no Linear": nn.Sequential(nn.Flatten()),
            "Parametrized": nn.Sequential(
                nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), two
            ),
        }
        for word, module in cases.items():
            with pytest.raises(UnsupportableModelError, match=word):
                identify.from_torch(module)
