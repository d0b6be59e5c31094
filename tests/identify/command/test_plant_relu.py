"""Planted ReLU networks from the command line: verify and check confirm what was planted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from identify.model.deep_files import load_deep_network
from tests.command_line import kkt
from tests.model_files import npz


def planted(folder, *options, suffix=".safetensors"):
    model = folder / f"model{suffix}"
    outcome = kkt("plant", "--activation", "relu", *options, "--out", model, "--format", "json")
    assert (outcome.code, outcome.err) == (0, "")
    return model, json.loads(outcome.out)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("options", "trained", "source"),
    [
        ((), "hidden", "kkt"),
        (("--samples", 5, "--dimension", 20, "--width", 64), "hidden", "kkt"),
        (("--stationary", "regression"), "hidden", "weight-decay"),
        (("--trained", "both"), "both", "kkt"),
        (("--trained", "both", "--samples", 8, "--width", 90, "--seed", 2), "both", "kkt"),
    ],
)
def test_what_is_planted_is_found_and_confirmed(tmp_path, options, trained, source, suffix):
    model, facts = planted(tmp_path, *options, "--determined", suffix=suffix)
    assert (facts["trained"], facts["determined"]) == (trained, True)
    network = load_deep_network(model)
    assert network.widths == (facts["neurons"],)
    assert network.dimension == facts["dimension"]
    arguments = (model, "--source", source, "--trained", trained)
    assert kkt("verify", *arguments, "--out", tmp_path / "out", "--fail-on", "globally").code == 3
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rank"] == facts["samples"]
    assert kkt("check", tmp_path / "out" / "report.json", model, "--require", "confirmed").code == 0
    audited = kkt("audit", model, f"{model}.truth.npz", *arguments[1:], "--format", "json")
    assert len(json.loads(audited.out)["exposed"]) == facts["samples"]


def test_given_samples_and_labels(tmp_path):
    x = np.array([[2.0, 0.0, 1.0], [-1.0, 2.0, 0.0], [-1.0, -2.0, 0.5]])
    data = npz(tmp_path / "data.npz", samples=x, labels=[1, 1, 0])
    model, facts = planted(tmp_path, data, "--stationary", "regression")
    with np.load(f"{model}.truth.npz") as truth:
        np.testing.assert_array_equal(truth["samples"], x)
        np.testing.assert_array_equal(truth["labels"], [1, 1, -1])
    assert facts["samples"] == 3
    again = kkt("plant", data, "--activation", "relu", "--out", model)
    assert (again.code, again.err.count("\n")) == (2, 1)


def test_the_same_seed_gives_the_same_network(tmp_path):
    first, _ = planted(tmp_path, "--seed", 4)
    second, _ = planted(tmp_path, "--seed", 4, suffix=".npz")
    third, _ = planted(tmp_path, "--seed", 5, "--force")
    hashes = [load_deep_network(path).sha256() for path in (second, third)]
    assert first == third
    assert hashes[0] != hashes[1]
    planted(tmp_path, "--seed", 4, "--force")
    assert load_deep_network(first).sha256() == hashes[0]


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (("--activation", "gelu"), "--activation: expected relu", 2),
        (("--activation", "relu", "--degree", 3), "--degree: expected nothing", 2),
        (("--degree", 3, "--width", 9), "--width: expected nothing for a power", 2),
        (("--degree", 3, "--trained", "both"), "--trained: expected nothing for a power", 2),
        (("--degree", 3), "DATA.npz: expected samples", 2),
        ((), "--degree: expected at least 3", 2),
        (("--activation", "relu", "--samples", 5, "--dimension", 4), "as many dimensions", 2),
        (("--activation", "relu", "--width", 0), "width: expected at least 1", 2),
        (("--activation", "relu", "--width", 3, "--determined"), "", 1),
    ],
)
def test_refused(tmp_path, options, words, code):
    outcome = kkt("plant", *options, "--out", tmp_path / "model.npz")
    assert (outcome.code, outcome.err.count("\n")) == (code, 1)
    assert words in outcome.err
    assert not list(tmp_path.iterdir())


def test_samples_are_given_or_drawn(tmp_path):
    data = npz(tmp_path / "data.npz", samples=np.eye(3))
    outcome = kkt("plant", data, "--activation", "relu", "--samples", 3, "--out",
                  tmp_path / "model.npz")  # fmt: skip
    assert outcome.code == 2
    assert "--samples: expected nothing beside DATA.npz" in outcome.err


@pytest.mark.parametrize("trained", ["hidden", "both"])
def test_inspect_says_which_weights_these_can_be(tmp_path, trained):
    model, facts = planted(tmp_path, "--trained", trained)
    outcome = kkt("inspect", model, "--format", "json")
    content = json.loads(outcome.out)
    sources = {entry["source"]: entry for entry in content["sources"]}
    option = " --trained hidden" if trained == "hidden" else ""
    for source in ("kkt", "weight-decay"):
        assert sources[source]["fits"] is True
        reason = sources[source]["reason"]
        assert f"rank {facts['samples']}: as many samples" in reason
        assert f"{facts['patterns']} directions of neurons, enough for the 6" in reason
        assert ("only if the output layer was fixed" in reason) == bool(option)
        assert f"kktcert verify {model} --source {source}{option}" in content["run"]


def test_inspect_says_when_weights_are_no_stationary_point(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"0.weight": rng.normal(size=(30, 12)), "0.bias": rng.normal(size=30),
              "2.weight": rng.normal(size=(1, 30))}  # fmt: skip
    model = npz(tmp_path / "model.npz", **arrays)
    content = json.loads(kkt("inspect", model, "--activation", "relu", "--format", "json").out)
    sources = {entry["source"]: entry for entry in content["sources"]}
    assert sources["kkt"]["fits"] is False
    assert "is not clear" in sources["kkt"]["reason"]
    assert not any("--source kkt" in line for line in content["run"])
    assert content["covered"] is True


@pytest.mark.parametrize(("width", "seed"), [(10, 0), (11, 2), (12, 1)])
def test_what_is_said_to_be_determined_is_unique(tmp_path, width, seed):
    """By the equations of degree 3: those of degree 2 ask for 15 patterns."""
    size = ("--samples", 5, "--width", width)
    model, facts = planted(tmp_path, *size, "--seed", seed, "--determined")
    assert facts["determined"]
    assert 9 <= facts["patterns"] < 15
    assert facts["patterns_needed"] == 9
    found = kkt("verify", model, "--source", "kkt", "--activation", "relu", "--trained", "hidden",
                "--format", "json")  # fmt: skip
    assert json.loads(found.out)["verdict"] == "globally"
