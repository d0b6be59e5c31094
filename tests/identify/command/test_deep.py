"""verify, recover, inspect and check on one gradient of a network of any depth."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import identify
from identify.model.deep import DeepGradient, DeepNetwork
from tests.command_line import PNG, kkt
from tests.identify.disaggregation.problems import add_noise, plant, plant_batch
from tests.identify.disaggregation.second_sets import case
from tests.model_files import npz

SCHEMA = Draft202012Validator(
    json.loads(resources.files(identify).joinpath("deep_report.schema.json").read_text())
)
GATE = ("--fail-on", "globally,locally,candidates,not-covered")
SIZES = [16, 24, 150, 4]


def named(part, dtype=np.float64):
    arrays = {}
    for index, (weight, bias) in enumerate(zip(part.weights, part.biases, strict=True)):
        arrays[f"net.{2 * index}.weight"] = weight.astype(dtype)
        if bias is not None:
            arrays[f"net.{2 * index}.bias"] = bias.astype(dtype)
    return arrays


def stored(folder, planted, dtype=np.float32):
    model = npz(folder / "model.npz", **named(planted.network))
    gradient = npz(folder / "gradient.npz", **named(planted.gradient, dtype))
    return (model, "--source", "gradient", "--gradient", gradient, "--activation", "relu")


@pytest.fixture(scope="module")
def batch():
    return plant(SIZES, 5, 0)


def test_verify_says_everything(tmp_path, batch):
    arguments = (*stored(tmp_path, batch), "--loss", "cross-entropy", "--out", tmp_path / "out")
    outcome = kkt("verify", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    head = " ".join(outcome.out.split())
    for words in (
        "verdict GLOBALLY identifiable: the gradient determines its batch",
        "scope among all training sets of at most 5 samples",
        "recovered 5 samples, error bounds",
        "labels 5 of 5 read clearly",
        "the printed answer: proved that no other set",
        "the data: every gradient within",
        "masks agree with signs holds",
        "gradient of layer 1 holds",
        "layer rank gap clear",
        "the loss is cross-entropy",
        "sets of more samples are not excluded",
    ):
        assert words in head, words
    report = json.loads((tmp_path / "out/report.json").read_text())
    SCHEMA.validate(report)
    assert report["scope"] == {"kind": "at_most", "samples": 5}
    assert report["proof"]["holds"]
    assert [rank["rank"] for rank in report["ranks"]] == [5, 5, 3]
    printed = kkt("verify", *arguments[:-2], "--format", "json")
    again = json.loads(printed.out)
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in report.items() if k != "seconds"
    }


def test_recover_writes_samples_labels_and_a_picture(tmp_path, batch):
    pytest.importorskip("matplotlib")
    arguments = (*stored(tmp_path, batch), "--loss", "cross-entropy")
    outcome = kkt("recover", *arguments, "--out", tmp_path / "out", "--image-shape", "4,4")
    assert outcome.code == 0
    assert (tmp_path / "out/contact.png").read_bytes().startswith(PNG)
    with np.load(tmp_path / "out/samples.npz") as found:
        samples, labels, bounds = found["samples"], found["labels"], found["error_bounds"]
        assert found["layer"] == 0
    apart = np.linalg.norm(samples[:, None] - batch.samples, axis=2)
    place = apart.argmin(axis=1)
    assert sorted(place) == list(range(5))
    assert (apart.min(axis=1) <= bounds * np.linalg.norm(samples, axis=1)).all()
    np.testing.assert_array_equal(labels, batch.labels[place])


def test_two_layers_and_one_output(tmp_path):
    planted = plant([16, 120, 1], 4, 1)
    outcome = kkt(
        "verify", *stored(tmp_path, planted), "--loss", "logistic", "--fail-on", "globally"
    )
    assert outcome.code == 3
    assert "at most 4 samples" in outcome.out


@pytest.mark.parametrize(
    ("word", "code"), [("undecided", 3), ("candidates", 0), ("globally,not-covered", 0)]
)
def test_too_few_rows_are_undecided(tmp_path, word, code):
    planted = plant([24, 24, 30, 4], 11, 0)
    outcome = kkt("verify", *stored(tmp_path, planted), "--fail-on", word)
    assert outcome.code == code
    assert "too few rows" in outcome.out
    recovered = kkt("recover", *stored(tmp_path, planted), "--out", tmp_path / "out")
    assert recovered.code == 1
    report = json.loads((tmp_path / "out/report.json").read_text())
    SCHEMA.validate(report)
    assert report["kernel"]["gap"] is None


def test_candidates_are_samples_without_uniqueness(tmp_path, batch):
    """Another layer's gradient contradicts what was separated."""
    weights = [w.copy() for w in batch.gradient.weights]
    weights[2] = weights[2] * 1.5
    planted = type(batch)(
        batch.network, DeepGradient(tuple(weights), batch.gradient.biases), batch.samples,
        batch.cotangents, batch.labels, batch.loss,
    )  # fmt: skip
    arguments = stored(tmp_path, planted, np.float64)
    outcome = kkt("verify", *arguments, "--fail-on", "candidates")
    assert outcome.code == 3
    assert "UNDECIDED" in outcome.out
    assert "candidates, not known to be the only ones" in " ".join(outcome.out.split())
    assert kkt("verify", *arguments, "--fail-on", "globally").code == 0
    assert kkt("recover", *arguments, "--out", tmp_path / "out").code == 0
    SCHEMA.validate(json.loads((tmp_path / "out/report.json").read_text()))


def spoiled(planted, layer, change):
    """The planted problem with another gradient of one layer, weights and biases alike."""
    weights, biases = list(planted.gradient.weights), list(planted.gradient.biases)
    weights[layer], biases[layer] = change(weights[layer], biases[layer])
    return replace(planted, gradient=DeepGradient(tuple(weights), tuple(biases)))


def noise(weight, bias):
    rng = np.random.default_rng(3)
    return (rng.normal(size=weight.shape) * weight.std(), rng.normal(size=bias.shape) * bias.std())


def permuted(weight, bias):
    order = np.random.default_rng(4).permutation(len(bias))
    return weight[order], bias[order]


def other_batch(weight, bias):
    foreign = plant(SIZES, 5, 77).gradient
    return foreign.weights[1][: len(weight)], foreign.biases[1][: len(bias)]


@pytest.mark.parametrize("change", [noise, permuted, other_batch])
@pytest.mark.parametrize("width", [150, 18])
def test_a_changed_last_hidden_layer_does_not_open_the_gate(tmp_path, change, width):
    """The other layers are whole; `undecided` alone would say that nothing is seen."""
    planted = spoiled(plant([16, 24, width, 4], 5, 0), 1, change)
    arguments = (*stored(tmp_path, planted), "--loss", "cross-entropy")
    assert kkt("verify", *arguments, "--fail-on", "not-covered").code == 3
    outcome = kkt("verify", *arguments, "--out", tmp_path / "out")
    assert outcome.code == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    SCHEMA.validate(report)
    assert (report["verdict"], report["covered"]) == ("undecided", False)
    agreement = next(c for c in report["checks"] if c["name"] == "layers agree")
    assert agreement["holds"] is False


def test_noise_in_the_hidden_layer_of_two_is_not_covered(tmp_path):
    """The output layer alone has no tail that would show how exact the gradient is."""
    planted = spoiled(plant([16, 120, 1], 4, 1), 0, noise)
    arguments = (*stored(tmp_path, planted), "--loss", "logistic")
    assert kkt("verify", *arguments, "--fail-on", "not-covered").code == 3


def test_other_activations_below_leave_the_noise_to_be_compared(tmp_path):
    """No pair of layers is homogeneous but the last, and its upper part is withheld."""
    planted = spoiled(plant([16, 24, 150, 4], 5, 0, activation="relu"), 1, noise)
    weights, biases = list(planted.gradient.weights), list(planted.gradient.biases)
    weights[2] = biases[2] = None
    network = DeepNetwork(planted.network.weights, planted.network.biases, ["tanh", "relu"])
    report = identify.assess_gradient(network, DeepGradient(tuple(weights), tuple(biases)))
    assert (report.verdict, report.covered) == ("undecided", False)


def test_noise_in_every_layer_is_no_contradiction(batch):
    noisy = add_noise(batch.gradient, 0.05, np.random.default_rng(0))
    report = identify.assess_gradient(batch.network, noisy, "cross-entropy")
    assert report.found.check("layers agree").holds


def test_rows_that_are_samples_are_candidates(tmp_path):
    """Too few rows for the theorem, but neurons of the first layer with one sample each."""
    planted = plant([30, 200, 18, 4], 6, 0)
    arguments = stored(tmp_path, planted)
    outcome = kkt("verify", *arguments, "--out", tmp_path / "out")
    assert (outcome.code, "too few rows" in outcome.out) == (0, True)
    assert "one sample alone activates" in " ".join(outcome.out.split())
    report = json.loads((tmp_path / "out/report.json").read_text())
    SCHEMA.validate(report)
    assert (report["candidates"], report["covered"]) == (True, True)
    assert kkt("verify", *arguments, "--fail-on", "candidates").code == 3
    assert kkt("recover", *arguments, "--out", tmp_path / "rows").code == 0
    with np.load(tmp_path / "rows/samples.npz") as written:
        rows = written["single_rows"]
    assert len(rows) == report["single_rows"]
    on = (planted.network.forward(planted.samples).preactivations[0] > 0.0).sum(axis=0)
    assert len(rows) <= (on == 1).sum()
    apart = np.linalg.norm(rows[:, None] - planted.samples, axis=2).min(axis=1)
    assert (apart < 1e-5 * np.linalg.norm(rows, axis=1)).all()


def test_a_gradient_of_rank_one_is_a_candidate_whatever_the_rows(tmp_path):
    """Each row of the first layer's gradient is the sample, also where the theorem has no say."""
    planted = plant([16, 24, 5, 10], 1, 3)
    arguments = (*stored(tmp_path, planted), "--loss", "cross-entropy")
    outcome = kkt("verify", *arguments)
    assert (outcome.code, "UNDECIDED" in outcome.out) == (0, True)
    assert "each of its rows is the sample" in " ".join(outcome.out.split())
    assert kkt("verify", *arguments, "--fail-on", "candidates").code == 3
    row = planted.gradient.weights[0][np.abs(planted.gradient.weights[0]).max(axis=1).argmax()]
    direction = planted.samples[0] / np.linalg.norm(planted.samples[0])
    np.testing.assert_allclose(abs(row @ direction), np.linalg.norm(row))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--degree", 3), "--degree"),
        (("--noise", 0.1), "--noise"),
        (("--scale", "unit"), "--scale"),
        (("--non-negative",), "--non-negative"),
        (("--evidence", "exact"), "auto or numerical"),
        (("--weight-decay-in-gradient", "none"), "--weight-decay-in-gradient"),
        (("--hidden-share", 0.5), "--hidden-share"),
        (("--arithmetic", "float32"), "--arithmetic"),
        (("--layers", "net.0"), "expected"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(tmp_path, batch, options, words):
    outcome = kkt("verify", *stored(tmp_path, batch), *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert len(outcome.lines) == 1


@pytest.mark.parametrize(
    "change",
    [("--source", "kkt"), ("--source", "weight-decay")],
    ids=lambda change: change[1],
)
def test_what_is_not_covered(tmp_path, batch, change):
    model, _, _, _, gradient, _, _ = stored(tmp_path, batch)
    options = {"--source": "gradient", "--activation": "relu", change[0]: change[1]}
    if options["--source"] == "gradient":
        options["--gradient"] = gradient
    flat = [word for pair in options.items() for word in pair]
    outcome = kkt("verify", model, *flat)
    assert outcome.code == 2
    assert len(outcome.lines) == 1
    assert "not" in outcome.err
    blocked = kkt("verify", model, *flat, "--fail-on", "not-covered")
    assert blocked.code == 3
    assert blocked.err.startswith("kktcert: error: not covered: ")


def test_another_activation_than_the_network_has_does_not_open_the_gate(tmp_path, batch):
    model, _, _, _, gradient, _, _ = stored(tmp_path, batch)
    arguments = (model, "--source", "gradient", "--gradient", gradient, "--activation", "gelu")
    assert kkt("verify", *arguments).code == 0
    assert kkt("verify", *arguments, "--fail-on", "candidates,not-covered").code == 3


def test_a_smooth_network_from_file_to_samples(tmp_path):
    smooth = plant([36, 40, 40, 4], 4, 0, "gelu")
    model, _, _, _, gradient, _, _ = stored(tmp_path, smooth)
    arguments = (model, "--source", "gradient", "--gradient", gradient, "--activation", "gelu")
    outcome = kkt("recover", *arguments, "--loss", "cross-entropy", "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert "LOCALLY identifiable" in outcome.out
    with np.load(tmp_path / "out/samples.npz") as file:
        found, labels = file["samples"], file["labels"]
    apart = np.linalg.norm(smooth.samples[:, None] - found, axis=2)
    assert apart.min(axis=1).max() < 1e-5
    assert (labels[apart.argmin(axis=1)] == smooth.labels).all()
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["scope"] == {"kind": "exactly", "samples": 4}
    assert report["search"]["found"] == 4
    assert kkt("verify", *arguments, "--fail-on", "locally").code == 3
    checked = kkt("check", tmp_path / "out/report.json", *arguments)
    assert checked.code == 0
    assert "refuted" not in checked.out
    for field, value in (("power", 0), ("verdict", "undecided"), ("rank", 5)):
        changed = tmp_path / "changed.json"
        changed.write_text(json.dumps(report | {field: value}))
        assert kkt("check", changed, *arguments).code == 3


def test_a_deep_network_without_an_activation_says_what_to_name(tmp_path, batch):
    arguments = stored(tmp_path, batch)[:-2]
    outcome = kkt("verify", *arguments)
    assert outcome.code == 2
    assert "--activation relu" in outcome.err
    assert kkt("verify", *arguments, "--fail-on", "not-covered").code == 3


def test_other_commands_refuse_in_one_line(tmp_path, batch):
    arguments = stored(tmp_path, batch)
    outcome = kkt("alternatives", *arguments, "--out", tmp_path / "other")
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "verify, recover and audit alone" in outcome.err


def test_check_confirms_the_report_and_refutes_a_changed_one(tmp_path, batch):
    arguments = (*stored(tmp_path, batch), "--loss", "cross-entropy")
    kkt("verify", *arguments, "--out", tmp_path / "out")
    path = tmp_path / "out/report.json"
    outcome = kkt("check", path, *arguments, "--require", "confirmed")
    assert (outcome.code, outcome.err) == (0, "")
    assert "outcome: confirmed" in outcome.out
    assert kkt("check", path, *arguments, "--activation", "leaky_relu").code == 3
    report = json.loads(path.read_text())
    report["labels"][0] += 1
    path.write_text(json.dumps(report))
    outcome = kkt("check", path, *arguments, "--format", "json")
    claims = {claim["name"]: claim["outcome"] for claim in json.loads(outcome.out)["claims"]}
    assert (outcome.code, claims["labels"], claims["digest"]) == (3, "refuted", "refuted")


def test_check_of_an_undecided_or_older_report_ends_with_4_if_required(tmp_path, batch):
    planted = plant([16, 24, 18, 4], 5, 0)
    arguments = stored(tmp_path, planted)
    kkt("verify", *arguments, "--out", tmp_path / "out")
    path = tmp_path / "out/report.json"
    assert kkt("check", path, *arguments).code == 0
    outcome = kkt("check", path, *arguments, "--require", "confirmed")
    assert (outcome.code, "undecided claims nothing" in outcome.out) == (4, True)
    arguments = stored(tmp_path, batch)
    kkt("verify", *arguments, "--out", tmp_path / "out", "--force")
    report = json.loads(path.read_text())
    del report["certificate"]
    SCHEMA.validate(report)
    path.write_text(json.dumps(report))
    assert kkt("check", path, *arguments).code == 0
    outcome = kkt("check", path, *arguments, "--require", "confirmed")
    assert (outcome.code, "older report without certificate" in outcome.out) == (4, True)


def test_check_without_the_gradient_says_so(tmp_path, batch):
    arguments = stored(tmp_path, batch)
    kkt("verify", *arguments, "--out", tmp_path / "out")
    outcome = kkt("check", tmp_path / "out/report.json", arguments[0])
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "gradient" in outcome.err
    outcome = kkt("check", tmp_path / "out/report.json", *arguments, "--degree", 3)
    assert (outcome.code, len(outcome.lines)) == (2, 1)


def test_time_limit_and_numerical_evidence(tmp_path, batch):
    arguments = stored(tmp_path, batch)
    assert kkt("verify", *arguments, "--time-limit", 1e-9).code == 0
    report = json.loads(
        kkt("verify", *arguments, "--evidence", "numerical", "--format", "json").out
    )
    assert report["proof"] is None
    SCHEMA.validate(report)


def test_inspect_says_what_to_run(tmp_path, batch):
    model = stored(tmp_path, batch)[0]
    for options in ((), ("--activation", "relu")):
        outcome = kkt("inspect", model, *options)
        assert outcome.code == 0
        shown = " ".join(outcome.out.split())
        assert "--activation relu" in shown
        assert f"kktcert verify {model} " in shown
        assert "--source gradient --gradient FILE" in shown
    found = json.loads(kkt("inspect", model, "--activation", "relu", "--format", "json").out)
    assert found["covered"]
    assert found["network"]["sizes"] == SIZES
    assert {entry["source"]: entry["fits"] for entry in found["sources"]}["gradient"] is None
    gelu = json.loads(kkt("inspect", model, "--activation", "gelu", "--format", "json").out)
    assert gelu["covered"]
    assert gelu["sizes"]["largest_batch"] != found["sizes"]["largest_batch"]


def test_the_largest_batch_that_inspect_names_is_determined(tmp_path):
    """At that number of rows the count leaves one solution; beyond it none of the batches is."""
    planted = plant([40, 60, 4], 2, 0)
    found = json.loads(
        kkt("inspect", stored(tmp_path, planted)[0], "--activation", "relu", "--format", "json").out
    )
    most = found["sizes"]["largest_batch"]
    rng = np.random.default_rng(0)
    beyond = most + 1
    larger = plant_batch(planted.network, rng.normal(size=(beyond, 40)), rng.integers(0, 4, beyond))
    report = identify.assess_gradient(planted.network, larger.gradient, "cross-entropy")
    assert report.verdict == "undecided"
    assert report.found.kernel.rows_needed > 60


def test_an_interrupted_run_keeps_what_is_known(tmp_path, batch, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("identify.assess_batch.disaggregate", interrupt)
    arguments = stored(tmp_path, batch)
    outcome = kkt("verify", *arguments, "--out", tmp_path / "out", "--fail-on", "undecided")
    assert outcome.code == 130
    assert "interrupted after" in outcome.out
    report = json.loads((tmp_path / "out/report.json").read_text())
    SCHEMA.validate(report)
    assert report["interrupted"]
    assert report["verdict"] == "undecided"
    recovered = kkt("recover", *arguments, "--out", tmp_path / "other")
    assert recovered.code == 130
    assert not (tmp_path / "other/samples.npz").exists()


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_a_wrong_number_does_not_open_the_gate(tmp_path, batch, samples):
    arguments = stored(tmp_path, batch)
    count = len(batch.samples)
    assert samples != count
    outcome = kkt("verify", *arguments, "--samples", samples, *GATE)
    assert outcome.code == 3
    shown = " ".join(outcome.out.split())
    assert f"{samples} samples are assumed (--samples)" in shown
    assert f"is clear, is {count}" in shown


@pytest.mark.parametrize("kind", ["leaky_relu:0.1", "leaky_relu:0.5"])
def test_a_wrong_activation_does_not_open_the_gate(tmp_path, batch, kind):
    arguments = (*stored(tmp_path, batch)[:-2], "--activation", kind)
    outcome = kkt("verify", *arguments, *GATE)
    assert outcome.code == 3
    assert "GLOBALLY" not in outcome.out


@pytest.mark.parametrize("seed", range(3))
def test_noise_in_place_of_the_first_layer_does_not_open_the_gate(tmp_path, batch, seed):
    arguments = list(stored(tmp_path, batch))
    path = arguments[arguments.index("--gradient") + 1]
    arrays = dict(np.load(path))
    name = next(key for key, value in arrays.items() if value.ndim == 2)
    noise = np.random.default_rng(seed).normal(size=arrays[name].shape)
    other = npz(tmp_path / "other.npz", **{**arrays, name: noise.astype(arrays[name].dtype)})
    arguments[arguments.index("--gradient") + 1] = other
    assert kkt("verify", *arguments, *GATE).code == 3


def test_the_first_lines_say_what_to_do(tmp_path, batch):
    lines = kkt("verify", *stored(tmp_path, batch)).out.splitlines()
    assert lines[2].startswith("in short      this gradient gives away the")
    assert lines[3].startswith("what to do    do not send this gradient")


def test_a_power_with_few_neurons_is_searched(tmp_path):
    cubic = plant([40, 14, 1], 6, 0, "monomial:3", False)
    pairs = zip(("model", "gradient"), (cubic.network, cubic.gradient), strict=True)
    for name, part in pairs:
        two = identify.TwoLayerNetwork(part.weights[0], part.weights[1][0], degree=3)
        identify.save_network(two, tmp_path / f"{name}.npz")
    arguments = ("--source", "gradient", "--gradient", tmp_path / "gradient.npz")
    outcome = kkt("verify", tmp_path / "model.npz", *arguments, "--activation", "monomial:3")
    assert (outcome.code, outcome.err) == (0, "")
    assert "LOCALLY identifiable" in outcome.out
    other = kkt("verify", tmp_path / "model.npz", *arguments, "--activation", "monomial:4")
    assert other.code == 2


def test_two_sets_are_written_checked_and_stopped_by_the_gate(tmp_path):
    problem = case("two of one mask", 1)
    arguments = stored(tmp_path, problem, np.float64)
    out = tmp_path / "out"
    outcome = kkt("verify", *arguments, "--out", out, "--fail-on", "nonidentifiable")
    assert (outcome.code, outcome.err) == (3, "")
    assert "verdict NONIDENTIFIABLE" in " ".join(outcome.out.split())
    report = json.loads((out / "report.json").read_text())
    SCHEMA.validate(report)
    with np.load(out / "alternatives.npz") as sets:
        for which, one in enumerate(report["alternatives"], 1):
            np.testing.assert_array_equal(sets[f"samples_{which}"], one["samples"])
            np.testing.assert_array_equal(sets[f"cotangents_{which}"], one["cotangents"])
    files = (arguments[0], "--source", "gradient", "--gradient", arguments[4])
    assert kkt("check", out / "report.json", *files, "--require", "confirmed").code == 0
    assert kkt("verify", *arguments, "--fail-on", "globally").code == 0
    assert kkt("verify", *arguments, "--fail-on", "candidates").code == 3
    named_loss = kkt(
        "verify", *arguments, "--loss", "cross-entropy", "--fail-on", "nonidentifiable"
    )
    assert named_loss.code == 0
    kkt("recover", *arguments, "--out", tmp_path / "recovered")
    assert (tmp_path / "recovered" / "alternatives.npz").exists()
