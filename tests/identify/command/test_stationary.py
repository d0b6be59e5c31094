"""verify and recover on the weights of two-layer ReLU networks."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import identify
from tests.command_line import PNG, kkt, random_network, save_network
from tests.model_files import npz

SCHEMA = Draft202012Validator(
    json.loads(resources.files(identify).joinpath("stationary_report.schema.json").read_text())
)
GATE = ("--fail-on", "globally,locally,candidates,not-covered")


def stored(folder, planted, dtype=np.float64):
    network = planted.network
    arrays = {"net.0.weight": network.weights[0], "net.2.weight": network.weights[1]}
    if network.biases[0] is not None:
        arrays["net.0.bias"] = network.biases[0]
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    return (npz(folder / "model.npz", **arrays), "--activation", "relu")


def centred(count=5, dimension=16, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, dimension))
    x -= x.mean(axis=0)
    return 6.0 * x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def planted():
    return identify.plant_relu_network(centred())


def test_verify_says_everything(tmp_path, planted):
    arguments = stored(tmp_path, planted)
    outcome = kkt("verify", *arguments, "--trained", "hidden", "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    head = " ".join(outcome.out.split())
    for words in (
        "these weights give away the 5 training samples",
        "verdict GLOBALLY identifiable: the weights determine the training samples",
        "scope among all training sets of at most 5 samples",
        "proved that no other set of at most 5 samples has exactly its weights",
        "stationarity of the hidden layer holds",
        "samples off the kinks holds",
        "equal margins holds",
        "trained hidden",
        "no sample lies exactly on the kink",
    ):
        assert words in head
    assert "gradient" not in outcome.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    SCHEMA.validate(report)
    assert report["kind"] == "stationary"
    assert report["pattern_rank"] == 15
    assert kkt("verify", *arguments, "--trained", "hidden", *GATE).code == 3


@pytest.mark.parametrize("source", ["kkt", "weight-decay"])
def test_recover_writes_samples_and_pictures(tmp_path, planted, source):
    arguments = stored(tmp_path, planted, np.float32)
    outcome = kkt("recover", *arguments, "--source", source, "--trained", "hidden",
                  "--image-shape", "4,4", "--out", tmp_path / "out")  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    with np.load(tmp_path / "out" / "samples.npz") as file:
        apart = np.abs(file["samples"][:, None] - planted.samples).max(axis=2).min(axis=1)
        assert apart.max() < 1e-4
        assert (file["labels"] == 1).all()
        assert (file["coefficients"] > 0).all()
    assert (tmp_path / "out" / "contact.png").read_bytes().startswith(PNG)
    SCHEMA.validate(json.loads((tmp_path / "out" / "report.json").read_text()))


def test_both_layers_need_special_data(tmp_path, planted):
    outcome = kkt("verify", *stored(tmp_path, planted))
    assert outcome.code == 0
    assert "if the output layer was fixed, give --trained hidden" in " ".join(outcome.out.split())
    special = identify.plant_relu_network(identify.equiangular_samples(4, 2, 9), trained="both")
    outcome = kkt("verify", *stored(tmp_path, special), "--format", "json")
    report = json.loads(outcome.out)
    SCHEMA.validate(report)
    assert report["verdict"] == "globally"
    assert report["neuron_directions"] == 10


def test_refused(tmp_path, planted):
    path, *options = stored(tmp_path, planted)
    for extra in (("--scale", "unit"), ("--noise", "1e-3"), ("--evidence", "exact"),
                  ("--source", "weight-decay", "--decay", "0.1")):  # fmt: skip
        outcome = kkt("verify", path, *options, *extra)
        assert outcome.code == 2
        assert extra[-2] in outcome.err
    power = tmp_path / "power.safetensors"
    save_network(random_network(), power)
    outcome = kkt("verify", power, "--trained", "hidden")
    assert outcome.code == 2
    assert "--trained: expected both for networks with a power as activation" in outcome.err
    deep = npz(tmp_path / "deep.npz", **{f"fc{k}.weight": np.eye(4) for k in (1, 2, 3)})
    outcome = kkt("verify", deep, "--activation", "relu")
    assert outcome.code == 2
    assert "3 linear layers are not yet covered" in outcome.err
    assert "kktcert attack" in outcome.err


def test_reports_are_checked(tmp_path, planted):
    arguments = stored(tmp_path, planted)
    kkt("verify", *arguments, "--trained", "hidden", "--out", tmp_path / "out")
    path = tmp_path / "out" / "report.json"
    outcome = kkt("check", path, arguments[0], "--require", "confirmed")
    assert (outcome.code, outcome.err) == (0, "")
    assert "weights that are a KKT point in the hidden layer alone" in outcome.out
    report = json.loads(path.read_text())
    report["coefficients"][0] *= 2.0
    path.write_text(json.dumps(report))
    assert kkt("check", path, arguments[0]).code == 3
    del report["certificate"]
    path.write_text(json.dumps(report))
    outcome = kkt("check", path, arguments[0])
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "not checkable: no certificate" in outcome.err
