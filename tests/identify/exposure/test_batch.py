"""The owner's view on one gradient of a ReLU network."""

from __future__ import annotations

import json

import numpy as np
import pytest

import identify
from identify.errors import InvalidInputError
from identify.model.deep import DeepGradient, DeepNetwork
from tests.command_line import kkt
from tests.identify.command.test_deep import stored
from tests.identify.disaggregation.problems import add_noise, plant, plant_batch
from tests.model_files import npz

SIZES = [16, 24, 150, 4]
LOSS = ("--loss", "cross-entropy")


@pytest.fixture(scope="module")
def batch():
    return plant(SIZES, 5, 0)


@pytest.fixture(scope="module")
def owned(batch):
    """Twelve samples of which the batch has five, in an order of its own."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(12, 16))
    y = rng.integers(0, 4, 12)
    place = np.array([7, 2, 11, 0, 5])
    x[place], y[place] = batch.samples, batch.labels
    return x, y, place


def audit(batch, x, y=None, gradient=None, loss="cross-entropy", **options):
    sent = batch.gradient if gradient is None else gradient
    report = identify.assess_gradient(batch.network, sent, loss, **options)
    return identify.audit_gradient(report, batch.network, sent, x, y)


def test_the_members_are_exposed_with_their_labels(batch, owned):
    x, y, place = owned
    found = audit(batch, x, y)
    assert sorted(entry.index for entry in found.exposed) == sorted(place)
    assert all(entry.label_right for entry in found.exposed)
    assert all(entry.error <= entry.bound for entry in found.exposed)
    assert sorted(found.members) == sorted(place)
    np.testing.assert_allclose(found.weights[place], 0.2, rtol=1e-6)
    assert (found.fit, found.recovered) == ("exact", 5)


def test_a_wrong_label_is_told(batch, owned):
    x, y, place = owned
    wrong = y.copy()
    wrong[place[0]] = (wrong[place[0]] + 1) % 4
    found = audit(batch, x, wrong)
    assert [e.label_right for e in found.exposed].count(False) == 1
    assert found.fit == "none"
    assert found.members is None


def test_other_samples_are_not_exposed(batch):
    rng = np.random.default_rng(4)
    found = audit(batch, rng.normal(size=(6, 16)), rng.integers(0, 4, 6))
    assert (found.exposed, found.recovered, found.fit) == ((), 5, "none")
    assert "5 recovered are none of yours" in str(found)


def test_equal_samples_count_as_one(batch, owned):
    x, y, place = owned
    twice = np.vstack([x, x[place[:1]]])
    found = audit(batch, twice, np.append(y, y[place[0]]))
    assert found.count == 12
    entry = next(e for e in found.exposed if e.index == place[0])
    assert entry.equal == (12,)


def test_the_solver_does_not_see_the_samples(batch, owned):
    x, y, _ = owned
    report = identify.assess_gradient(batch.network, batch.gradient, "cross-entropy")
    before = report.to_json()
    identify.audit_gradient(report, batch.network, batch.gradient, x, y)
    assert report.to_json() == before


def test_features_are_compared_where_the_samples_end(owned):
    x, y, place = owned
    base = plant(SIZES, 5, 0)
    network = DeepNetwork(base.network.weights, base.network.biases, ["gelu", "relu"])
    planted = plant_batch(network, x[place], y[place])
    found = audit(planted, x, y)
    assert sorted(entry.index for entry in found.exposed) == sorted(place)
    assert any("features that enter layer 2" in note for note in found.notes)


def test_rows_are_compared_where_nothing_is_separated():
    planted = plant([30, 200, 18, 4], 6, 0)
    found = audit(planted, planted.samples, planted.labels)
    assert found.report.found.samples is None
    assert found.exposed
    assert all(entry.error < 1e-8 for entry in found.exposed)
    assert any("rows of the first layer" in note for note in found.notes)


def test_noise_exposes_approximately(batch, owned):
    x, y, place = owned
    noisy = add_noise(batch.gradient, 1e-3, np.random.default_rng(0))
    found = audit(batch, x, y, gradient=noisy)
    assert sorted(found.members) == sorted(place)
    assert {entry.index for entry in found.exposed} <= set(place)


def test_one_output_takes_any_two_classes():
    planted = plant([16, 120, 1], 4, 1)
    x = np.vstack([planted.samples, np.random.default_rng(0).normal(size=(3, 16))])
    y = np.append((planted.labels + 1) // 2, [0, 1, 1])
    found = audit(planted, x, y, loss="logistic")
    assert found.members == (0, 1, 2, 3)
    assert [entry.label_right for entry in found.exposed] == [True] * 4


def test_without_a_loss_nothing_is_weighed(batch, owned):
    x, y, place = owned
    found = audit(batch, x, y, loss=None)
    assert (found.weights, found.fit) == (None, "not checkable")
    assert len(found.exposed) == len(place)


def test_missing_layers_are_left_out(batch, owned):
    x, y, place = owned
    weights, biases = list(batch.gradient.weights), list(batch.gradient.biases)
    weights[2] = biases[2] = None
    found = audit(batch, x, y, gradient=DeepGradient(tuple(weights), tuple(biases)))
    assert sorted(found.members) == sorted(place)


@pytest.mark.parametrize(
    ("samples", "labels", "words"),
    [
        (np.ones((3, 15)), None, "16 numbers a sample"),
        (np.ones((3, 16)), [0, 1, 4], "classes 0 to 3"),
        (np.ones((3, 16)), [0, 1], "labels"),
        (np.ones((5001, 16)), None, "at most 5,000"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(batch, samples, labels, words):
    report = identify.assess_gradient(batch.network, batch.gradient, "cross-entropy")
    with pytest.raises(InvalidInputError, match=words):
        identify.audit_gradient(report, batch.network, batch.gradient, samples, labels)


def test_the_command(tmp_path, batch, owned):
    x, y, place = owned
    arguments = stored(tmp_path, batch)
    data = npz(tmp_path / "data.npz", images=(255.0 * x).reshape(12, 4, 4), labels=y)
    options = (*arguments[1:], *LOSS, "--std", 255)
    outcome = kkt("audit", arguments[0], data, *options, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    text = " ".join(outcome.out.split())
    assert "5 of 12 samples, relative errors" in text
    assert "5 of 5 read rightly" in text
    assert "the gradient is that of 5 of them" in text
    found = json.loads((tmp_path / "out/audit.json").read_text())
    assert sorted(entry["index"] for entry in found["exposed"]) == sorted(place)
    assert json.loads((tmp_path / "out/report.json").read_text())["verdict"] == "globally"
    printed = json.loads(kkt("audit", arguments[0], data, *options, "--format", "json").out)
    assert printed["members"] == sorted(place)
    assert kkt("audit", arguments[0], data, *options, "--fail-on", "exposed").code == 3
    # The file as it is has other pixel values; the remark says which.
    plain = kkt("audit", arguments[0], data, *arguments[1:], *LOSS)
    assert "--std 255" in " ".join(plain.out.split())
    other = npz(tmp_path / "other.npz", samples=np.ones((2, 9)))
    assert kkt("audit", arguments[0], other, *arguments[1:]).code == 2
