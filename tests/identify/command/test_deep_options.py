"""Heads, reductions, weight decay and activations layer by layer, on the command line."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import scipy.special

import identify
from identify.disaggregation.decay import without_decay
from identify.errors import InvalidInputError
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.deep_files import load_deep_network
from tests.command_line import kkt
from tests.identify.command.test_deep import SCHEMA, named, stored
from tests.identify.disaggregation.problems import distances, plant, plant_batch
from tests.model_files import npz

SIZES = [16, 24, 150, 4]


@pytest.fixture(scope="module")
def batch():
    return plant(SIZES, 5, 0)


def report_of(folder, *arguments):
    outcome = kkt("verify", *arguments, "--out", folder)
    assert outcome.code == 0, outcome.err
    report = json.loads((folder / "report.json").read_text())
    SCHEMA.validate(report)
    return report, " ".join(outcome.out.split())


def scaled(planted, factor):
    gradient = DeepGradient(
        tuple(factor * w for w in planted.gradient.weights),
        tuple(factor * b for b in planted.gradient.biases),
    )
    return type(planted)(
        planted.network, gradient, planted.samples, planted.cotangents, planted.labels, planted.loss
    )


@pytest.mark.parametrize(
    ("factor", "reduction", "verdict"),
    [(1, "mean", "globally"), (1, "sum", "undecided"), (5, "sum", "globally"),
     (5, "mean", "undecided")],
)  # fmt: skip
def test_a_reduction_is_one_more_equation(tmp_path, batch, factor, reduction, verdict):
    arguments = (*stored(tmp_path, scaled(batch, factor)), "--loss", "cross-entropy")
    report, text = report_of(tmp_path / "out", *arguments, "--reduction", reduction)
    assert report["verdict"] == verdict
    assert report["problem"]["reduction"] == reduction
    assert f"the loss is the {reduction} over the batch" in text
    if verdict == "undecided":
        assert "known loss" in report["reason"]


def with_decay(planted, decay):
    weights = [g + decay * w for g, w in
               zip(planted.gradient.weights, planted.network.weights, strict=True)]  # fmt: skip
    biases = [g + decay * b for g, b in
              zip(planted.gradient.biases, planted.network.biases, strict=True)]  # fmt: skip
    return type(planted)(
        planted.network, DeepGradient(tuple(weights), tuple(biases)), planted.samples,
        planted.cotangents, planted.labels, planted.loss,
    )  # fmt: skip


@pytest.mark.parametrize("decay", [5e-4, 1e-2, 0.3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_weight_decay_is_estimated_and_subtracted(tmp_path, batch, decay, dtype):
    sent = with_decay(batch, decay)
    arguments = (*stored(tmp_path, sent, dtype), "--loss", "cross-entropy")
    plain, _ = report_of(tmp_path / "plain", *arguments)
    assert plain["verdict"] == "undecided"
    report, text = report_of(tmp_path / "out", *arguments, "--weight-decay-in-gradient", "auto")
    assert report["verdict"] == "globally"
    tolerance = 1e-5 if dtype is np.float32 else 1e-11
    assert report["problem"]["weight_decay"] == pytest.approx(decay, rel=tolerance)
    assert "times the weights and biases" in text
    given, _ = report_of(tmp_path / "given", *arguments, "--weight-decay-in-gradient", decay)
    assert given["verdict"] == "globally"


def test_no_decay_is_estimated_as_none(tmp_path, batch):
    arguments = (*stored(tmp_path, batch, np.float64), "--loss", "cross-entropy")
    report, _ = report_of(tmp_path / "out", *arguments, "--weight-decay-in-gradient", "auto")
    assert report["verdict"] == "globally"
    assert report["problem"]["weight_decay"] < 1e-12


def test_two_layers_with_one_output_tell_their_decay():
    planted = plant([16, 120, 1], 4, 1)
    report = identify.assess_gradient(
        planted.network, with_decay(planted, 0.02).gradient, "logistic", decay="auto"
    )
    assert report.verdict == "globally"
    assert distances(report.found.samples, planted.samples).max() < 1e-8


def test_a_wrong_decay_is_not_confirmed(batch):
    report = identify.assess_gradient(
        batch.network, with_decay(batch, 0.01).gradient, "cross-entropy", decay=0.02
    )
    assert (report.verdict, report.covered) == ("undecided", False)


def smooth_batch(sizes, kind, seed, count=3):
    """A smooth network, its batch, and the gradient of cross-entropy there."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(b, a)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    network = DeepNetwork(weights, [0.1 * rng.normal(size=b) for b in sizes[1:]], kind)
    x = rng.normal(size=(count, sizes[0]))
    slopes = scipy.special.softmax(network.value(x), axis=1)
    slopes[np.arange(count), np.arange(count) % sizes[-1]] -= 1.0
    return network, x, network.gradient(x, slopes / count)


def sent_with(network, gradient, decay):
    weights = [g + decay * w for g, w in zip(gradient.weights, network.weights, strict=True)]
    biases = [g + decay * b for g, b in zip(gradient.biases, network.biases, strict=True)]
    return DeepGradient(tuple(weights), tuple(biases))


@pytest.mark.parametrize("sizes", [(16, 60, 3), (14, 24, 50, 3)])
@pytest.mark.parametrize(("kind", "decay"), [("gelu", 5e-4), ("tanh", 0.02), ("sigmoid", 0.3)])
def test_smooth_layers_tell_their_decay_by_their_rank(sizes, kind, decay):
    network, _, gradient = smooth_batch(sizes, kind, len(sizes))
    sent = sent_with(network, gradient, decay)
    cleaned, found = without_decay(network, sent, "auto")
    assert found == pytest.approx(decay, rel=1e-9)
    np.testing.assert_allclose(cleaned.weights[0], gradient.weights[0], atol=1e-10)
    assert without_decay(network, gradient, "auto")[1] < 1e-12


def test_smooth_gradients_with_decay_give_their_batch():
    network, x, gradient = smooth_batch((16, 60, 3), "gelu", 0)
    sent = sent_with(network, gradient, 0.01)
    report = identify.assess_gradient(network, sent, "cross-entropy", decay="auto")
    assert report.verdict == "locally"
    assert distances(report.found.samples, x).max() < 1e-6


@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("kept", [{1}, {0, 1}, {1, 2}])
def test_layers_that_are_left_may_tell_the_decay(batch, decay, kept):
    sent = with_decay(batch, decay).gradient
    part = DeepGradient(*(
        tuple(a if k in kept else None for k, a in enumerate(arrays))
        for arrays in (sent.weights, sent.biases)
    ))  # fmt: skip
    found = without_decay(batch.network, part, "auto")[1]
    assert found == pytest.approx(decay, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("count", [5, 9, 30])
def test_layers_that_do_not_tell_the_decay_are_refused(count):
    network, _, gradient = smooth_batch((5, 9, 3), "tanh", 0, count)
    with pytest.raises(InvalidInputError, match="the layers do not tell"):
        identify.assess_gradient(network, sent_with(network, gradient, 0.1), decay="auto")


@pytest.mark.parametrize("kinds", ["gelu,relu", "tanh,leaky_relu:0.1", "relu,relu"])
def test_every_layer_may_have_its_own_activation(tmp_path, kinds):
    rng = np.random.default_rng(1)
    base = plant(SIZES, 4, 1)
    network = DeepNetwork(base.network.weights, base.network.biases, kinds.split(","))
    planted = plant_batch(network, rng.normal(size=(4, 16)), rng.integers(0, 4, 4))
    arguments = [*stored(tmp_path, planted), "--loss", "cross-entropy"]
    arguments[arguments.index("relu")] = kinds
    report, _ = report_of(tmp_path / "out", *arguments)
    assert report["problem"]["activations"] == [str(kind) for kind in network.activations]
    if kinds.startswith("gelu"):
        # The value of GELU does not tell its slope, so the answer ends above that layer.
        assert report["samples_of"] == "input of layer 2"
    else:
        assert (report["verdict"], report["samples_of"]) == ("globally", "input")
    assert "network" in kkt("inspect", arguments[0], "--activation", kinds).out


def test_a_wrong_number_of_activations_is_refused(tmp_path, batch):
    arguments = list(stored(tmp_path, batch))
    arguments[arguments.index("relu")] = "relu,gelu,relu"
    outcome = kkt("verify", *arguments)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "2 of them" in outcome.err


def test_coefficients_are_still_coefficients(tmp_path):
    model = npz(tmp_path / "m.npz", **{"a.weight": np.ones((4, 3)), "b.weight": np.ones((1, 4))})
    outcome = kkt("inspect", model, "--activation", "0,0,0,1")
    assert outcome.code == 0
    assert "polynomial" in outcome.out or "degree" in outcome.out


def with_front(arrays, rng):
    front = {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)),
        "conv.bias": rng.normal(size=8),
        "norm.weight": rng.normal(size=8),
    }
    return front | arrays


def test_a_head_takes_features(tmp_path, batch):
    rng = np.random.default_rng(0)
    model = npz(tmp_path / "model.npz", **with_front(named(batch.network), rng))
    gradient = npz(tmp_path / "g.npz", **with_front(named(batch.gradient), rng))
    arguments = (model, "--source", "gradient", "--gradient", gradient, "--activation", "relu",
                 "--loss", "cross-entropy")  # fmt: skip
    outcome = kkt("verify", *arguments)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "besides the layers" in outcome.err
    report, text = report_of(tmp_path / "out", *arguments, "--head")
    assert (report["verdict"], report["problem"]["head"]) == ("globally", True)
    assert report["samples_of"] == "features before the first layer"
    assert "the samples are the features that enter the first of these layers" in text
    outcome = kkt("recover", *arguments, "--head", "--out", tmp_path / "r", "--image-shape", "4,4")
    assert outcome.code == 0
    assert not (tmp_path / "r/contact.png").exists()
    with np.load(tmp_path / "r/samples.npz") as found:
        assert distances(found["samples"], batch.samples).max() < 1e-5
    assert "--head" in kkt("inspect", model, "--activation", "relu", "--head").out


def test_a_head_of_a_torch_module():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 150),
        nn.ReLU(), nn.Linear(150, 4),
    ).double().eval()  # fmt: skip
    x, y = torch.randn(5, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 1])
    nn.functional.cross_entropy(module(x), y).backward()
    network = identify.from_torch(module, head=True)
    assert [network.dimension, *network.widths, network.outputs] == [108, 150, 4]
    report = identify.assess_gradient(network, module, "cross-entropy", head=True)
    assert report.verdict == "globally"
    features = module[:4](x).detach().numpy()
    assert distances(report.found.samples, features).max() < 1e-8
    with pytest.raises(identify.UnsupportableModelError, match="Conv2d"):
        identify.from_torch(module)


@pytest.mark.parametrize("option", [("--head",), ("--reduction", "sum")])
def test_powers_refuse_what_is_for_deep_networks(tmp_path, option):
    rng = np.random.default_rng(0)
    net = identify.TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
    identify.save_network(net, tmp_path / "net.npz")
    gradient = net.gradient(rng.normal(size=(2, 6)), [1.0, -1.0])
    identify.save_network(gradient, tmp_path / "g.npz")
    outcome = kkt(
        "verify", tmp_path / "net.npz", "--source", "gradient", "--gradient", tmp_path / "g.npz",
        *option,
    )  # fmt: skip
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert option[0] in outcome.err


def test_a_reduction_needs_a_gradient(tmp_path, batch):
    outcome = kkt("verify", stored(tmp_path, batch)[0], "--reduction", "mean")
    assert (outcome.code, len(outcome.lines)) == (2, 1)


def test_a_list_of_activations_may_stand_in_the_file(tmp_path, batch):
    model = npz(tmp_path / "m.npz", activation="tanh,relu", **named(batch.network))
    assert [str(kind) for kind in load_deep_network(model).activations] == ["tanh", "relu"]
    with pytest.raises(InvalidInputError):
        load_deep_network(model, activation="relu")
