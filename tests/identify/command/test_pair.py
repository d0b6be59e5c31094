"""`verify` and `recover` on two checkpoints of a ReLU network."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

import identify
from identify.checkpoints.recipe import Recipe
from identify.checkpoints.replay import retrain
from tests.command_line import kkt
from tests.identify.checkpoints import training

SCHEMA = json.loads(resources.files(identify).joinpath("pair_report.schema.json").read_text())


def save(path, network):
    arrays = {}
    for index, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        arrays[f"{index}.weight"], arrays[f"{index}.bias"] = weight, bias
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    net = training.start((49, 250, 1), rng)
    x, y = rng.normal(size=(5, 49)), np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    end = retrain(net, x, y, Recipe(25, 0.1, loss="logistic"))
    return save(folder / "initial.npz", net), save(folder / "final.npz", end), x, y


def options(initial):
    return ("--source", "fine-tuning", "--initial", initial, "--activation", "relu")


def test_recover_writes_candidates_and_claims_nothing(pair, tmp_path):
    initial, final, x, y = pair
    found = kkt(
        "recover", final, *options(initial), "--out", tmp_path / "out", "--image-shape", "7,7"
    )
    assert found.code == 0
    assert found.out.startswith("undecided: at least 5 samples")
    assert "5 candidates" in found.out
    report = json.loads((tmp_path / "out/report.json").read_text())
    jsonschema.validate(report, SCHEMA)
    assert report["verdict"] == "undecided"
    assert report["candidates"]
    assert (tmp_path / "out/contact.png").is_file()
    with np.load(tmp_path / "out/samples.npz") as file:
        away = np.linalg.norm(file["samples"][:, None] - x, axis=2)
        assert np.all(away.min(axis=0) < 0.05 * np.linalg.norm(x, axis=1))
        assert np.array_equal(file["labels"][away.argmin(axis=0)], y)
    check = kkt("check", tmp_path / "out/report.json", final)
    assert check.code == 2
    assert "claim nothing" in check.err


def test_verify_speaks_to_the_gate(pair):
    initial, final, *_ = pair
    found = kkt("verify", final, *options(initial), "--format", "json")
    assert found.code == 0
    jsonschema.validate(json.loads(found.out), SCHEMA)
    assert kkt("verify", final, *options(initial), "--fail-on", "candidates").code == 3
    assert kkt("verify", final, *options(initial), "--fail-on", "globally").code == 0
    assert kkt("verify", final, *options(initial), "--fail-on", "undecided").code == 3


def test_after_adam_there_is_nothing_to_write(tmp_path):
    rng = np.random.default_rng(1)
    net = training.start((49, 100, 3), rng)
    x, y = rng.normal(size=(5, 49)), np.arange(5.0) % 3
    end = training.train(net, x, y, training.Recipe("adam", 15, 1e-3), rng)
    initial, final = save(tmp_path / "a.npz", net), save(tmp_path / "b.npz", end)
    found = kkt("recover", final, *options(initial), "--out", tmp_path / "out")
    assert found.code == 1
    assert "no samples to write: no span" in found.err
    assert not (tmp_path / "out/samples.npz").exists()
    jsonschema.validate(json.loads((tmp_path / "out/report.json").read_text()), SCHEMA)
    assert kkt("verify", final, *options(initial), "--fail-on", "not-covered").code == 3


@pytest.mark.parametrize("option", ["--degree", "--noise", "--decay", "--trained"])
def test_options_of_other_sources_are_refused(pair, option):
    initial, final, *_ = pair
    value = "hidden" if option == "--trained" else "3"
    found = kkt("verify", final, *options(initial), option, value)
    assert found.code == 2
    assert option in found.err


def test_smooth_and_deep_networks_are_not_yet_covered(tmp_path):
    rng = np.random.default_rng(2)
    for sizes, activation, word in (
        ((9, 8, 7, 1), "relu", "3 linear"),
        ((9, 8, 1), "gelu", "gelu"),
    ):
        one, two = training.start(sizes, rng, activation), training.start(sizes, rng, activation)
        paths = save(tmp_path / "a.npz", one), save(tmp_path / "b.npz", two)
        found = kkt("verify", paths[1], "--source", "fine-tuning", "--initial", paths[0],
                    "--activation", activation)  # fmt: skip
        assert found.code == 2
        assert word in found.err
        assert "kktcert span" in found.err
