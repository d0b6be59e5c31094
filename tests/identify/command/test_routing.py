"""What the verifier does not cover is answered with the line to type."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shlex

import numpy as np
import pytest

from identify.command.routing import ATTACKED
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
    word = "" if NETWORKS[case][0].get("activation") else " --activation relu"
    gradient = f"kktcert verify {model}{word} --source gradient --gradient FILE"
    weights = [
        f"kktcert verify {model}{word} --source {source}"
        for source in (("kkt", "weight-decay") if not word else ("weight-decay",))
    ]
    verified = {
        "relu in the file": [gradient],  # no weights of a stationary point
        "three layers": [gradient],
        "nothing said": [*weights, gradient],
        "three layers, nothing said": [gradient],
    }.get(case, [])
    assert lines[: len(verified)] == verified
    rest = lines[len(verified) :]
    assert len(rest) == (0 if NETWORKS[case][0].get("activation") else 1)
    assert all(line.startswith(f"kktcert attack {model} ") for line in rest)


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
    assert "--layers fc1,fc2,fc3 --activation relu --source gradient --gradient FILE" in first


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


def test_the_attack_is_offered_for_the_activations_that_it_knows():
    pytest.importorskip("torch")
    from attack.networks.activations import _PARAMETERS

    assert tuple(_PARAMETERS) == ATTACKED


@pytest.mark.parametrize("word", ["silu", "sigmoid", "leaky_relu", "sine", "foo"])
@pytest.mark.parametrize("where", ["file", "option", "json"])
def test_no_attack_is_offered_that_does_not_know_the_activation(tmp_path, word, where):
    said = {"file": word, "json": json.dumps({"name": word})}.get(where)
    arrays = layers(4, 9, 7, 2) | ({} if said is None else {"activation": said})
    model = npz(tmp_path / "m.npz", **arrays)
    found = kkt("verify", model, *(() if said else ("--activation", word)))
    assert (found.code, len(found.lines)) == (2, 1)
    assert "kktcert attack" not in found.err
    assert "{" not in found.err
    if said:
        text = kkt("inspect", model).out
        assert "kktcert attack" not in text
        assert f"  activation = {word}\n" in text


@pytest.mark.parametrize("name", ["gelu", "relu", "tanh"])
def test_the_json_that_train_writes_names_an_activation(tmp_path, name):
    model = npz(tmp_path / "m.npz", **layers(4, 9, 7, 2), activation=json.dumps({"name": name}))
    given = ("--source", "gradient", "--gradient", model)
    assert kkt("verify", model, *given).code == 0
    assert kkt("verify", model, *given, "--activation", name).code == 0
    refused = kkt("verify", model, *given, "--activation", "silu")
    assert f"expected {name} as {model} says, got silu" in refused.err


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


def linear(name, rows, columns):
    return {f"{name}.weight": RNG.normal(size=(rows, columns)), f"{name}.bias": np.zeros(rows)}


def normed(name, width):
    return {
        f"{name}.weight": np.ones(width), f"{name}.bias": np.zeros(width),
        f"{name}.running_mean": np.zeros(width), f"{name}.running_var": np.ones(width),
        f"{name}.num_batches_tracked": np.array(3),
    }  # fmt: skip


KERNEL = {"conv1.weight": RNG.normal(size=(4, 1, 3, 3)), "conv1.bias": np.zeros(4)}
BEHIND = linear("fc1", 9, 16) | linear("fc2", 3, 9)
BEFORE = {
    "a convolution": (KERNEL | BEHIND, "--head"),
    "a convolution with its statistics": (KERNEL | normed("bn1", 4) | BEHIND, "--head"),
    "a layer norm": ({"norm.weight": np.ones(16), "norm.bias": np.zeros(16)} | BEHIND, "--head"),
    "an embedding of positions": ({"position": np.ones((5, 16))} | BEHIND, "--head"),
    "linear layers on both sides": (
        linear("0", 9, 4) | normed("1", 9) | linear("3", 16, 9) | linear("5", 3, 16),
        "--head --layers 3,5",
    ),
}
BETWEEN = {
    "one": linear("0", 9, 4) | normed("1", 9) | linear("3", 3, 9),
    "two": linear("a", 9, 4) | normed("b", 9) | linear("c", 5, 9) | normed("d", 5)
    | linear("e", 2, 5),
    "behind a convolution": KERNEL | linear("fc1", 9, 16) | normed("bn", 9) | linear("fc2", 3, 9),
}  # fmt: skip


@pytest.mark.parametrize("case", BEFORE)
def test_the_linear_layers_behind_others_are_read_with_the_line_to_type(tmp_path, case):
    arrays, options = BEFORE[case]
    model = npz(tmp_path / "m.npz", **arrays)
    gradient = npz(tmp_path / "g.npz", **arrays)
    line = f"kktcert verify {model} {options} --activation relu --source gradient --gradient "
    found = kkt("inspect", model)
    assert found.code == 0
    assert "not covered: " not in found.out
    assert f"  {line}FILE\n" in found.out
    given = ("--source", "gradient", "--gradient", gradient)
    for words in ((), ("--activation", "relu", *given), given):
        refused = kkt("verify", model, *words)
        assert (refused.code, len(refused.lines)) == (2, 1)
        typed = line + ("FILE" if not words else str(gradient))
        assert refused.err.endswith(f"; try: {typed}\n"), refused.err
    assert kkt(*shlex.split(line)[1:], gradient).code == 0


@pytest.mark.parametrize("case", BETWEEN)
@pytest.mark.parametrize("options", [(), ("--head",)])
def test_batch_normalisation_between_linear_layers_is_named(tmp_path, case, options):
    model = npz(tmp_path / "m.npz", **BETWEEN[case])
    source = ("--activation", "relu", "--source", "gradient", "--gradient", model)
    for found in (
        kkt("verify", model, *source, *options),
        kkt("verify", model, *source, *options),
        kkt("inspect", model, *options),
    ):
        text = " ".join((found.err + found.out).split())
        name = {"one": "1", "two": "b, d", "behind a convolution": "bn"}[case]
        assert f"batch normalisation {name} mixes the samples of a batch in train mode" in text
        assert "in eval mode fold it into the layer before" in text
        assert "try: " not in text


def test_a_fold_gives_the_batch(tmp_path):
    """What the advice says to do is right: with it the samples are found."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    first, norm, last = torch.nn.Linear(12, 60), torch.nn.BatchNorm1d(60), torch.nn.Linear(60, 3)
    net = torch.nn.Sequential(first, norm, torch.nn.ReLU(), last).double()
    net(torch.randn(50, 12).double())  # statistics
    net.eval()
    x = torch.randn(3, 12).double()
    torch.nn.functional.cross_entropy(net(x), torch.tensor([0, 1, 2])).backward()
    s = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    folded = {
        "0.weight": s[:, None] * first.weight.detach(),
        "0.bias": s * (first.bias - norm.running_mean).detach() + norm.bias.detach(),
        "3.weight": last.weight.detach(), "3.bias": last.bias.detach(),
    }  # fmt: skip
    gradient = {
        "0.weight": first.weight.grad / s[:, None], "0.bias": first.bias.grad / s,
        "3.weight": last.weight.grad, "3.bias": last.bias.grad,
    }  # fmt: skip
    torch.save(folded, tmp_path / "m.pt")
    torch.save(gradient, tmp_path / "g.pt")
    done = kkt("recover", tmp_path / "m.pt", "--activation", "relu", "--source", "gradient",
               "--gradient", tmp_path / "g.pt", "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    found = np.load(tmp_path / "out" / "samples.npz")["samples"]
    away = np.linalg.norm(found[:, None] - x.numpy(), axis=2).min(axis=0)
    assert away.max() < 1e-6


@pytest.mark.parametrize(
    ("sizes", "source", "line"),
    [
        ((4, 9, 1), "kkt", "--activation relu --source kkt"),
        ((4, 9, 1), "weight-decay", "--activation relu --source weight-decay"),
        ((4, 9, 3), "kkt", "--activation relu --source gradient --gradient FILE"),
        ((4, 9, 3), "weight-decay", "--activation relu --source weight-decay"),
        ((4, 9, 7, 1), "weight-decay", "--activation relu --source gradient --gradient FILE"),
        ((4, 9, 3), "gradient", "--activation relu --source gradient --gradient GRADIENT"),
    ],
)
def test_the_first_advice_is_the_activation(tmp_path, sizes, source, line):
    model, gradient = npz(tmp_path / "m.npz", **layers(*sizes)), tmp_path / "GRADIENT"
    given = ("--gradient", gradient) if source == "gradient" else ()
    found = kkt("verify", model, "--source", source, *given)
    assert (found.code, len(found.lines)) == (2, 1)
    line = line.replace("GRADIENT", str(gradient))
    if len(sizes) == 3:
        said = f"activation: expected its name, in {model} or as an option, got none; "
    else:
        said = f"{model}: nothing says which activation stands between the layers; "
    assert said in found.err
    assert f"; type kktcert verify {model} {line} for relu, or the word" in found.err
    assert found.err.index("kktcert verify") < found.err.index("kktcert attack")


def test_inspect_names_the_lines_above_which_it_says_what_is_missing(tmp_path):
    for sizes in ((4, 9, 3), (4, 9, 7, 2), (4, 9, 1)):
        text = kkt("inspect", npz(tmp_path / f"{len(sizes)}{sizes[-1]}.npz", **layers(*sizes))).out
        assert "not covered" not in text
        assert "Verifier: covered if told more: the " in text
        assert "the file does not say which activation" in text
        assert "relu: or the word that the network has" in text


def test_a_list_of_arrays_may_be_a_gradient(tmp_path):
    path = tmp_path / "update.npz"
    np.savez(path, RNG.normal(size=(9, 4)), np.zeros(9), RNG.normal(size=(3, 9)), np.zeros(3))
    line = f"kktcert verify MODEL --activation relu --source gradient --gradient {path}"
    assert line in json.loads(kkt("inspect", path, "--format", "json").out)["run"]


@pytest.mark.parametrize("command", ["member", "audit"])
def test_with_a_head_images_are_not_taken_for_features_in_silence(tmp_path, command):
    model = npz(tmp_path / "m.npz", **KERNEL, **BEHIND)
    images = npz(tmp_path / "i.npz", samples=RNG.normal(size=(2, 16)))
    source = ("--gradient", model, "--activation", "relu", "--head")
    source += ("--source", "gradient") if command == "audit" else ()
    found = kkt(command, model, images, *source)
    assert found.code == 0
    assert "samples are taken for the features that enter fc1; images of that size" in found.err
    plain = kkt("member", model, images, "--gradient", model)
    assert (plain.code, len(plain.lines)) == (2, 1)
    assert "attack.module_members takes module and images" in plain.err


@pytest.mark.parametrize(("option", "source"), [("--gradient", "gradient"),
                                                ("--initial", "fine-tuning")])  # fmt: skip
def test_a_file_without_its_source_is_told_the_source(tmp_path, option, source):
    model = npz(tmp_path / "m.npz", **layers(4, 9, 3))
    found = kkt("verify", model, option, model)
    assert f"add --source {source}, or drop {option}" in found.err


def test_checkpoints_without_an_activation_are_sent_to_span_first(tmp_path):
    first, last = (npz(tmp_path / f"{n}.npz", **layers(12, 9, 3)) for n in "ab")
    found = kkt("verify", last, "--source", "fine-tuning", "--initial", first)
    assert (found.code, len(found.lines)) == (2, 1)
    assert found.err.index("kktcert span") < found.err.index("kktcert attack")


def test_samples_in_place_of_a_network_are_called_so(tmp_path):
    data = npz(tmp_path / "d.npz", images=np.ones((2, 3, 3)), labels=[0, 1])
    found = kkt("verify", data, "--degree", 3)
    assert "holds images, labels: samples, and no network; give the network's file" in found.err
