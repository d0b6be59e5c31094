"""The owner's view on the weights of a two-layer ReLU network."""

from __future__ import annotations

import json

import numpy as np
import pytest

import identify
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork
from identify.model.losses import loss_slope
from tests.command_line import kkt
from tests.identify.checker.stationary_reports import two_outputs
from tests.identify.disaggregation.stationary_families import centred
from tests.model_files import npz

DECAY = 0.05


@pytest.fixture(scope="module")
def planted():
    return identify.plant_relu_network(centred(np.random.default_rng(0), 5, 16), copies=3)


@pytest.fixture(scope="module")
def owned(planted):
    """Nine samples of which the network was trained on five, in an order of its own."""
    x = np.random.default_rng(9).normal(size=(9, 16))
    place = np.array([7, 2, 4, 0, 5])
    x[place] = planted.samples
    return x, place


def audit(network, x, y=None, source="kkt", trained="hidden", **options):
    report = identify.assess_stationary(network, source, trained=trained, **options)
    return identify.audit_stationary(report, network, x, y)


def test_the_training_samples_are_exposed_with_their_multipliers(planted, owned):
    x, place = owned
    found = audit(planted.network, x)
    assert sorted(entry.index for entry in found.exposed) == sorted(place)
    assert all(entry.error <= entry.bound for entry in found.exposed)
    assert (found.fit, found.recovered) == ("exact", 5)
    assert found.active == tuple(sorted(place))
    np.testing.assert_allclose(found.coefficients[place], planted.coefficients, rtol=1e-7)
    np.testing.assert_allclose(found.margins[place], 1.0, rtol=1e-8)
    assert found.slackness < 1e-8
    assert found.to_dict()["multiplier_kind"] == "b"


def test_labels_make_multipliers_of_one_sign(planted, owned):
    x, place = owned
    right, wrong = np.ones(9), np.ones(9)
    right[1] = wrong[place[0]] = 0.0
    found = audit(planted.network, x, right)
    assert (found.fit, found.to_dict()["multiplier_kind"]) == ("exact", "lambda")
    np.testing.assert_allclose(found.multipliers[place], planted.multipliers, rtol=1e-7)
    turned = audit(planted.network, x, wrong)
    assert turned.active is None or place[0] not in turned.active
    assert turned.fit in ("none", "approximate")
    assert {e.label_right for e in turned.exposed} == {True, False}


def test_samples_inside_the_margin_are_named(planted):
    inside = np.vstack([planted.samples, 0.1 * planted.samples[:1]])
    found = audit(planted.network, inside, [1, 1, 1, 1, 1, 0])
    assert any("inactive samples 5 have a smaller margin" in note for note in found.notes)
    assert audit(planted.network, planted.samples, [1] * 4 + [-1]).notes == ()


def test_other_samples_are_not_exposed(planted):
    found = audit(planted.network, np.random.default_rng(4).normal(size=(6, 16)))
    assert (found.exposed, found.recovered, found.fit) == ((), 5, "none")
    assert found.active is None
    assert "5 recovered are none of yours" in str(found)
    assert "not stationary for these samples" in str(found)


def test_equal_samples_count_as_one(planted, owned):
    x, place = owned
    found = audit(planted.network, np.vstack([x, x[place[:1]]]))
    assert found.count == 9
    entry = next(e for e in found.exposed if e.index == place[0])
    assert entry.equal == (9,)
    assert found.coefficients[9] == 0.0
    assert place[0] in found.active


def test_where_nothing_is_separated_the_multipliers_are_there():
    """Two samples that share their patterns: undecided, and the owner sees that both count."""
    x = centred(np.random.default_rng(1), 3, 9)
    x = np.vstack([x, x[:1] + 1e-3 * np.random.default_rng(2).normal(size=(1, 9))])
    network = identify.plant_relu_network(x, kind="regression", copies=1).network
    found = audit(network, x, source="weight-decay")
    assert found.fit == "exact"
    assert set(found.active or range(4)) >= {1, 2}


def test_both_layers_and_two_outputs():
    x = identify.equiangular_samples(4, 2, 9)
    network = two_outputs(identify.plant_relu_network(x, trained="both").network)
    found = audit(network, x, [3, 3, 3, 3], trained="both")
    assert [entry.index for entry in found.exposed] == [0, 1, 2, 3]
    assert (found.fit, found.active) == ("exact", (0, 1, 2, 3))
    broken = DeepNetwork(network.weights, network.biases, "leaky_relu:0.2")
    assert audit(broken, x, trained="both").fit == "none"


def test_several_outputs_need_labels_and_the_loss():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(1, 9)) / 3.0, np.array([1])
    network = settled(x, y, rng.normal(size=(3, 40)), rng)
    found = audit(network, x, y, source="weight-decay", loss="cross-entropy")
    assert (found.fit, found.active) == ("exact", (0,))
    np.testing.assert_allclose(found.multipliers, 1.0 / DECAY, rtol=1e-6)
    assert found.margins is None
    assert audit(network, x, [2], source="weight-decay", loss="cross-entropy").fit == "none"
    for labels, loss in ((None, "cross-entropy"), (y, None)):
        other = audit(network, x, labels, source="weight-decay", loss=loss)
        assert (other.fit, other.multipliers) == ("not checkable", None)
        assert "not checkable" in str(other)
        json.loads(other.to_json())


def settled(x, y, head, rng):
    """A hidden layer trained with weight decay and cross-entropy until it moves no more."""
    lifted = np.column_stack([x, np.ones(len(x))])
    w = rng.normal(size=(head.shape[1], lifted.shape[1]))
    for _ in range(8000):
        z = lifted @ w.T
        p = loss_slope("cross_entropy", np.maximum(z, 0.0) @ head.T, y) / len(x)
        w -= 0.05 * (((z > 0.0) * (p @ head)).T @ lifted + DECAY * w)
    return DeepNetwork([w[:, :-1], head], [w[:, -1], None], "relu")


def test_refused(planted):
    x = planted.samples
    for labels in ([1, 2, 3, 1, 2], [1, 2]):
        with pytest.raises(InvalidInputError):
            audit(planted.network, x, labels)
    with pytest.raises(InvalidInputError):
        audit(planted.network, x[:, :3])


def files(folder, planted, x):
    network = planted.network
    model = npz(folder / "model.npz", **{
        "0.weight": network.weights[0], "0.bias": network.biases[0], "2.weight": network.weights[1],
    })  # fmt: skip
    return model, npz(folder / "data.npz", images=x.reshape(-1, 4, 4)), "--activation", "relu"


def test_the_command(tmp_path, planted, owned):
    x, place = owned
    model, data, *options = files(tmp_path, planted, x)
    arguments = ("audit", model, data, *options, "--trained", "hidden")
    outcome = kkt(*arguments, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert "5 of 9 samples" in outcome.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"audit.json", "report.json", "report.html", "command.toml"}
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert content["kind"] == "stationary"
    assert sorted(entry["index"] for entry in content["exposed"]) == sorted(place)
    assert kkt(*arguments, "--fail-on", "exposed").code == 3
    printed = kkt(*arguments, "--format", "json")
    assert json.loads(printed.out)["active"] == sorted(place.tolist())
    report = tmp_path / "out" / "report.json"
    assert kkt("check", report, model, "--require", "confirmed").code == 0


def test_the_gate_of_the_command_lets_others_pass(tmp_path, planted):
    x = np.random.default_rng(1).normal(size=(4, 16))
    model, data, *options = files(tmp_path, planted, x)
    outcome = kkt("audit", model, data, *options, "--trained", "hidden", "--fail-on", "exposed")
    assert outcome.code == 0
    undecided = kkt("audit", model, data, *options)
    assert undecided.code == 0
    assert "UNDECIDED, on the weights alone" in undecided.out


def test_a_notebook_shows_the_audit(planted, owned):
    x, _ = owned
    report = identify.assess_stationary(planted.network, trained="hidden")
    shown = identify.audit_stationary(report, planted.network, x)._repr_html_()
    assert "Which samples are exposed?" in shown
    assert "<script" not in shown
