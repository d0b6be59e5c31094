"""What the verifier does not cover is answered with the line to type."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shlex

import numpy as np
import pytest

from tests.command_line import kkt, random_network, save_network
from tests.model_files import npz

RNG = np.random.default_rng(0)


def layers(*sizes):
    return {
        f"fc{k}.weight": RNG.normal(size=(b, a))
        for k, (a, b) in enumerate(itertools.pairwise(sizes), start=1)
    }


NETWORKS = {
    "relu in the file": (layers(4, 9, 1) | {"activation": "relu"}, (), None),
    "gelu as an option": (layers(4, 9, 1), ("--activation", "gelu"), "gelu"),
    "three layers": (layers(4, 9, 7, 1) | {"activation": "tanh"}, (), None),
    "three layers of a power": (layers(4, 9, 7, 1), ("--degree", 3), "power3"),
    "three classes": (layers(4, 9, 3) | {"degree": 3}, (), None),
    "two logits": (layers(4, 9, 2) | {"degree": 3}, (), None),
    "nothing said": (layers(4, 9, 1), (), "WORD"),
    "three layers, nothing said": (layers(4, 9, 7, 1), (), "WORD"),
}


def offered(text):
    """The line after "try: ", as arguments."""
    return shlex.split(text.strip().rpartition("try: ")[2])


@pytest.mark.parametrize("case", [name for name in NETWORKS if name != "relu in the file"])
def test_the_line_runs(tmp_path, monkeypatch, case):
    arrays, options, activation = NETWORKS[case]
    model = npz(tmp_path / "a model.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    found = kkt("verify", model, *options)
    assert kkt("recover", model, *options, "--out", tmp_path / "r").err == found.err
    assert found.code == 2
    assert len(found.lines) == 1
    words = offered(found.err)
    assert words[:3] == ["kktcert", "attack", str(model)]
    assert ("--activation" in words) == (activation is not None)
    if activation is not None:
        assert words[words.index("--activation") + 1] == activation
    if importlib.util.find_spec("torch") is not None:
        typed = ["relu" if word == "WORD" else word for word in words[1:]]
        typed += ["--steps", 0, "--count", 2, "--splitting", "off"]
        assert kkt(*typed).code == 0


@pytest.mark.parametrize("case", [n for n in NETWORKS if not NETWORKS[n][1] and n != "two logits"])
def test_inspect_says_what_to_run(tmp_path, case):
    model = npz(tmp_path / "m.npz", **NETWORKS[case][0])
    found = kkt("inspect", model, "--format", "json")
    lines = json.loads(found.out)["run"]
    listed = "\n  ".join(["What to run", *lines])
    assert f"{listed}\n" in kkt("inspect", model).out
    if NETWORKS[case][2] == "WORD":
        # The file names no activation: a ReLU network is covered for a gradient.
        relu = f"kktcert verify {model} --source gradient --gradient FILE --activation relu"
        assert lines.pop(0) == relu
    (line,) = lines
    # One gradient of a network that names its activation is for the verifier.
    command = "verify" if NETWORKS[case][0].get("activation") else "attack"
    assert line.startswith(f"kktcert {command} {model} ")


def test_inspect_sends_two_logits_to_the_verifier(tmp_path):
    model = npz(tmp_path / "m.npz", **NETWORKS["two logits"][0])
    found = json.loads(kkt("inspect", model, "--format", "json").out)
    assert found["covered"] is True
    assert "two outputs" in found["reason"]
    assert found["run"] == [
        f"kktcert verify {model} --source gradient --gradient FILE",
        f"kktcert verify {model} --source fine-tuning --initial FILE",
    ]


def test_inspect_with_layers_names_them_in_the_line_for_relu(tmp_path):
    model = npz(tmp_path / "m.npz", **layers(4, 9, 7, 1))
    found = kkt("inspect", model, "--layers", "fc1,fc2,fc3", "--format", "json")
    first = json.loads(found.out)["run"][0]
    assert "--layers fc1,fc2,fc3 --source gradient --gradient FILE --activation relu" in first


@pytest.mark.parametrize("name", ["gradient.npz", "client-3.grads.npz", "GRAD_0.npz"])
@pytest.mark.parametrize("degree", [{}, {"degree": 3}])
def test_inspect_sends_a_gradient_to_its_network(tmp_path, name, degree):
    path = npz(tmp_path / name, **layers(4, 9, 1), **degree)
    found = json.loads(kkt("inspect", path, "--format", "json").out)
    assert (found["kind"], found["network"], found["sources"]) == ("gradient", None, [])
    line = f"kktcert verify MODEL --source gradient --gradient {path}"
    wanted = [line] if degree else [f"{line} --activation relu", f"{line} --degree A"]
    assert found["run"] == wanted
    assert "not covered" not in kkt("inspect", path).out


@pytest.mark.parametrize("name", ["graded.npz", "model.npz", "degrade-1.npz"])
def test_inspect_calls_no_network_a_gradient(tmp_path, name):
    path = npz(tmp_path / name, **layers(4, 9, 1))
    assert json.loads(kkt("inspect", path, "--format", "json").out)["kind"] == "network"


def test_no_degree_is_advised_where_it_would_not_help(tmp_path):
    for name, arrays in (
        ("deep", layers(4, 9, 7, 1)),
        ("kernels", {"c.weight": RNG.normal(size=(5, 3, 3, 3)), "fc.weight": np.ones((1, 9))}),
    ):
        found = kkt("verify", npz(tmp_path / f"{name}.npz", **arrays))
        assert found.code == 2
        assert "--degree" not in found.err


@pytest.mark.parametrize(
    "arrays",
    [
        {"c.weight": RNG.normal(size=(5, 3, 3, 3)), "fc.weight": np.ones((1, 9))},
        layers(4, 9, 1) | {"activation": "1,0,2,1"},
    ],
    ids=["convolutions", "polynomial"],
)
def test_nothing_is_offered_that_would_be_refused(tmp_path, arrays):
    found = kkt("verify", npz(tmp_path / "m.npz", **arrays))
    assert found.code == 2
    assert "kktcert attack" not in found.err


def test_other_sources_have_their_objective(tmp_path):
    model = npz(tmp_path / "m.npz", **layers(4, 9, 7, 1), degree=3)
    other = npz(tmp_path / "o.npz", **layers(4, 9, 7, 1))
    source = ("--source", "gradient", "--gradient", other)
    line = offered(kkt("verify", model, *source).err)
    assert line[3:] == ["--objective", "gradient_matching", "--gradient", str(other),
                        "--out", "attack-run"]  # fmt: skip
    line = offered(kkt("verify", model, "--source", "fine-tuning", "--initial", other).err)
    assert line[3:] == ["--objective", "loo", "--initial", str(other), "--out", "attack-run"]


def test_a_covered_network_is_sent_to_verify(tmp_path):
    model = tmp_path / "m.safetensors"
    save_network(random_network(), model)
    lines = json.loads(kkt("inspect", model, "--format", "json").out)["run"]
    assert f"kktcert verify {model} --source gradient --gradient FILE" in lines
    assert not [line for line in lines if "--source kkt" in line]  # not stationary
    data = npz(tmp_path / "d.npz", samples=np.ones((2, 3)))
    lines = json.loads(kkt("inspect", data, "--format", "json").out)["run"]
    assert lines[0] == f"kktcert audit MODEL {data}"


def test_a_gradient_of_another_network_is_sent_to_the_attack(tmp_path):
    net, model = random_network(), tmp_path / "m.safetensors"
    save_network(net, model)
    given = net.gradient(RNG.normal(size=(3, 6)), [1.0, 2.0, -1.0])
    noise = RNG.normal(size=given.hidden_weight.shape) * np.abs(given.hidden_weight).mean()
    gradient = npz(
        tmp_path / "g.npz",
        **{"hidden.weight": given.hidden_weight + noise, "output.weight": given.output_weight},
    )
    found = kkt("verify", model, "--source", "gradient", "--gradient", gradient)
    assert found.code == 0
    assert "not covered; try: kktcert attack" in found.err
    assert "does not cover this gradient" in found.out


@pytest.mark.parametrize("stated", [True, False])
def test_a_wrong_degree_is_not_handed_on(tmp_path, stated):
    net = random_network()
    given = net.gradient(RNG.normal(size=(3, 6)), [1.0, 2.0, -1.0])
    arrays = net.arrays() | ({"degree": 3} if stated else {})
    gradient = npz(
        tmp_path / "g.npz",
        **{"hidden.weight": given.hidden_weight, "output.weight": 3.0 * given.output_weight},
    )
    found = kkt("verify", npz(tmp_path / "m.npz", **arrays), "--source", "gradient",
                "--gradient", gradient, *(() if stated else ("--degree", 3)))  # fmt: skip
    assert found.code == 2
    assert "power3" not in found.err
    assert ("--activation WORD" in found.err) == (not stated)


@pytest.mark.parametrize("source", ["kkt", "weight-decay"])
def test_two_logits_are_refused_where_they_are_not_opposite(tmp_path, source):
    model = npz(tmp_path / "m.npz", **layers(4, 9, 2), degree=3)
    found = kkt("verify", model, "--source", source)
    assert found.code == 2
    assert "the weights of the two outputs are not opposite" in found.err
    assert "try: kktcert attack" in found.err


@pytest.mark.parametrize("activation", [(), ("--activation", "relu"), ("--activation", "gelu")])
def test_two_checkpoints_of_other_networks_are_sent_to_span(tmp_path, activation):
    first = npz(tmp_path / "first.npz", **layers(12, 9, 7, 3))
    last = npz(tmp_path / "last.npz", **layers(12, 9, 7, 3))
    found = kkt("verify", last, "--source", "fine-tuning", "--initial", first, *activation)
    assert found.code == 2
    assert f"kktcert span {first} {last} says how many samples" in found.err
    assert kkt("span", first, last).code != 2
