"""Two logits as one output: stationary weights, checkpoints, and what is no such network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from identify.assess import assess_identifiability
from identify.errors import InvalidInputError, UnsupportedModelError
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.model.two_logits import one_output_head
from identify.planting.plant import plant_network
from tests.command_line import kkt
from tests.model_files import npz

ROOT = 2.0**0.5


def split(network, common=0.0, seed=0):
    """The network with two logits whose orthonormal difference is that output."""
    u = network.output_weight
    v = common * np.random.default_rng(seed).normal(size=len(u)) * np.linalg.norm(u)
    heads = np.stack([v - u, v + u]) / ROOT
    return TwoLayerNetwork(
        network.hidden_weight, heads, network.degree, hidden_bias=network.hidden_bias
    )


def arrays(network):
    return dict(network.arrays()) | {"degree": network.degree}


def planted(seed, stationary="auto"):
    x = np.random.default_rng(seed).normal(size=(3, 4))
    return plant_network(x, degree=3, stationary=stationary, determined=True, seed=seed)


def cross_entropy(network, x, y):
    """dloss/df (n, 2) of the mean cross-entropy, y in {0, 1}."""
    slopes = scipy.special.softmax(network.value(x), axis=1)
    slopes[np.arange(len(x)), y] -= 1.0
    return slopes / len(x)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("decay", [0.01, 0.05])
def test_training_with_decay_ends_where_the_reduced_equations_hold(seed, decay):
    """decay (a_1 - a_0) / 2 is what the data pull: the orthonormal head has the decay itself."""
    rng = np.random.default_rng(seed)
    m, d, degree = 6, 3, 3
    x, y = rng.normal(size=(4, d)), np.array([0, 1, 1, 0])

    def build(theta):
        return TwoLayerNetwork(theta[: m * d].reshape(m, d), theta[m * d :].reshape(2, m), degree)

    def slope(theta):
        network = build(theta)
        got = network.gradient(x, cross_entropy(network, x, y))
        flat = np.concatenate([got.hidden_weight.ravel(), got.output_weight.ravel()])
        return flat + decay * theta

    def loss(theta):
        f = build(theta).value(x)
        fit = np.mean(scipy.special.logsumexp(f, axis=1) - f[np.arange(len(x)), y])
        return fit + 0.5 * decay * theta @ theta, slope(theta)

    start = rng.normal(size=m * (d + 2))
    found = scipy.optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-10})
    theta = found.x
    assert np.linalg.norm(slope(theta)) < 1e-6
    assert np.linalg.norm(theta) > 0.5  # not the origin
    network = build(theta)
    a = network.output_weight
    assert np.linalg.norm(a[0] + a[1]) < 1e-4 * np.linalg.norm(a)
    reduced = one_output_head(network)
    # b_i of the reduced network: sqrt(2) times those of f_1 - f_0, in units of the decay.
    slopes = cross_entropy(network, x, y)[:, 1]
    gradient = reduced.gradient(x, -ROOT * slopes / decay)
    size = np.linalg.norm(reduced.hidden_weight)
    assert np.linalg.norm(gradient.hidden_weight - reduced.hidden_weight) < 1e-4 * size
    assert np.linalg.norm(gradient.output_weight - reduced.output_weight) < 1e-4 * size
    # The plain difference is not in balance: its share of the decay is half.
    norms = np.sum(network.hidden_weight**2, axis=1)
    np.testing.assert_allclose(norms, degree / 2 * (a[1] - a[0]) ** 2, atol=1e-4 * norms.max())
    assert (HermiteData.from_weight_decay(network).consistency or 0.0) < 1e-4


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["margin", "regression"])
def test_planted_weights_keep_their_verdict_and_are_checked(tmp_path, seed, kind):
    truth = planted(seed, kind)
    source = "kkt" if kind == "margin" else "weight-decay"
    one = HermiteData.of(source, truth.network)
    two = HermiteData.of(source, split(truth.network))
    np.testing.assert_allclose(two.scales, one.scales, rtol=1e-14)
    np.testing.assert_array_equal(two.rows, one.rows)
    assert two.network.sha256() == split(truth.network).sha256()
    assert assess_identifiability(two).verdict is assess_identifiability(one).verdict
    model = npz(tmp_path / "m.npz", **arrays(split(truth.network)))
    found = kkt("verify", model, "--source", source, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    report = tmp_path / "out" / "report.json"
    assert json.loads(report.read_text())["verdict"] == "globally"
    assert kkt("check", report, model, "--require", "confirmed").code == 0
    # The report is not that of the one output, and the file not that of another sum.
    assert kkt("check", report, npz(tmp_path / "o.npz", **arrays(truth.network))).code == 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_step_of_training_is_fine_tuning(tmp_path, seed):
    rng = np.random.default_rng(seed)
    first = TwoLayerNetwork(rng.normal(size=(24, 4)), rng.normal(size=(2, 24)) / 10, 3)
    x, rate = rng.normal(size=(3, 4)), 1e-3
    got = first.gradient(x, cross_entropy(first, x, [0, 1, 1]))
    last = TwoLayerNetwork(
        first.hidden_weight - rate * got.hidden_weight,
        first.output_weight - rate * got.output_weight,
        3,
    )
    data = HermiteData.from_fine_tuning(first, last)
    assert data.point == "initial"
    assert (data.consistency or 0.0) < 1e-9
    report = assess_identifiability(data)
    assert report.verdict.value == "globally"
    rows = report.recovery.samples / np.linalg.norm(report.recovery.samples, axis=1)[:, None]
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    assert np.abs(rows @ unit.T).max(axis=0).min() > 1 - 1e-6
    files = [npz(tmp_path / f"{k}.npz", **arrays(net)) for k, net in enumerate((first, last))]
    given = (files[1], "--source", "fine-tuning", "--initial", files[0])
    assert kkt("verify", *given, "--out", tmp_path / "out").code == 0
    done = kkt("check", tmp_path / "out/report.json", *given, "--require", "confirmed")
    assert done.code == 0, done.out


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("source", ["kkt", "weight-decay"])
def test_heads_that_are_not_opposite_are_refused(tmp_path, source, seed):
    network = split(planted(0).network, common=0.5, seed=seed)
    with pytest.raises(UnsupportedModelError, match="not opposite"):
        HermiteData.of(source, network)
    model = npz(tmp_path / "m.npz", **arrays(network))
    for command in (("verify", model), ("recover", model, "--out", tmp_path / "r"),
                    ("alternatives", model, "--out", tmp_path / "a")):  # fmt: skip
        found = kkt(*command, "--source", source)
        assert (found.code, len(found.lines)) == (2, 1)
        assert "not opposite" in found.err
    assert kkt("inspect", model).code == 0


@pytest.mark.parametrize("common", [1e-3, 1e-2, 5e-2])
def test_what_the_outputs_have_in_common_is_noise(common):
    data = HermiteData.from_kkt(split(planted(1).network, common=common))
    share = common / np.sqrt(1 + common**2) * np.sqrt(24)
    assert 0.2 * share < data.rounding < 5 * share
    assert assess_identifiability(data).verdict.value != "globally" or data.rounding < 1e-2


def test_checkpoints_that_moved_alike_are_refused():
    rng = np.random.default_rng(0)
    first = TwoLayerNetwork(rng.normal(size=(9, 4)), rng.normal(size=(2, 9)), 3)
    for moved in ([[1.0], [1.0]], [[1.0], [0.0]], [[0.0], [1.0]]):
        last = TwoLayerNetwork(first.hidden_weight + 0.1, first.output_weight + moved, 3)
        with pytest.raises(UnsupportedModelError, match="did not move opposite"):
            HermiteData.from_fine_tuning(first, last)


@pytest.mark.parametrize("option", [("--decay", "0.1"), ("--loss", "logistic")])
def test_units_that_the_difference_has_not_are_refused(tmp_path, option):
    network = split(planted(0, "regression").network)
    model = npz(tmp_path / "m.npz", **arrays(network))
    found = kkt("verify", model, "--source", "weight-decay", *option)
    assert (found.code, len(found.lines)) == (2, 1)
    assert f"leave {option[0]} out" in found.err
    with pytest.raises(InvalidInputError, match="two outputs"):
        HermiteData.from_weight_decay(network, decay=0.1)


@pytest.mark.parametrize("outputs", [3, 4, 10])
def test_more_outputs_are_refused(tmp_path, outputs):
    rng = np.random.default_rng(0)
    model = npz(tmp_path / "m.npz", **{
        "hidden.weight": rng.normal(size=(9, 4)), "output.weight": rng.normal(size=(outputs, 9)),
        "degree": 3,
    })  # fmt: skip
    for source in ("kkt", "weight-decay"):
        found = kkt("verify", model, "--source", source)
        assert (found.code, len(found.lines)) == (2, 1)


def test_a_stated_rounding_stays_a_statement_for_two_outputs():
    """The gate reads the types of the numbers, whatever is derived from them."""
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(2, 12))
    stated = {"rounding": 0.01, "dtype_rounding": 2.0**-53}
    network = TwoLayerNetwork(rng.normal(size=(12, 4)), heads, 3, **stated)
    slopes = np.array([[-1.0, 1.0], [2.0, -2.0]])
    plain = network.gradient(rng.normal(size=(2, 4)), slopes)
    gradient = TwoLayerNetwork(plain.hidden_weight, plain.output_weight, 3, **stated)
    for decay in (None, 0.0):
        data = HermiteData.from_gradient(network, gradient, decay=decay)
        assert data.stated_rounding == pytest.approx(0.01, rel=10)
        assert data.without_statements().rounding < 1e-12
    opposite = TwoLayerNetwork(network.hidden_weight, [-heads[0], heads[0]], 3, **stated)
    assert HermiteData.from_kkt(opposite).without_statements().rounding < 1e-12
