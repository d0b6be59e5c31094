"""--fail-on: a gate that passes only where no samples are at hand and the files are covered."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from identify.model.loading import load_network, save_network
from identify.model.two_layer import TwoLayerNetwork
from identify.planting.plant import plant_network
from tests.command_line import gradient_pair, kkt, random_network, refused, stored
from tests.model_files import npz

GATE = ("--fail-on", "globally,locally,candidates,not-covered")
STATED = 0.04


def batch(folder, rounding, n, d, m, images):
    """Model and gradient of a batch, as read back from a coarse format."""
    rng = np.random.default_rng(0)
    network = random_network(0, m, d)
    samples = rng.uniform(size=(n, d)) / 4 if images else rng.normal(size=(n, d))
    gradient = network.gradient(samples, np.resize([1.0, -1.0], n))
    paths = []
    for name, part in (("model", network), ("gradient", gradient)):
        step = 2.0 ** np.floor(np.log2(np.abs(part.hidden_weight))) * 2 * rounding
        hidden = np.round(part.hidden_weight / step) * step
        coarse = TwoLayerNetwork(hidden, part.output_weight, 3, rounding=rounding)
        paths.append(stored(coarse, folder / f"{name}.npz"))
    return (paths[0], "--source", "gradient", "--gradient", paths[1], "--trust-metadata")


def rank_one(folder, kind, seed=0):
    """One sample, and a gradient that no power explains: masks, GELU, ReLU, tanh with a bias."""
    rng = np.random.default_rng(seed)
    network = random_network(
        seed, 20, 8, hidden_bias=rng.normal(size=20) if kind == "tanh" else None
    )
    x = rng.normal(size=8)
    before = network.lift(x[None])[0] @ network.points.T
    if kind == "dropout":
        mask = 2.0 * (rng.random(20) < 0.5)
        value, slope = before**3 * mask, 3 * before**2 * mask
    elif kind == "gelu":
        share = np.array([0.5 * (1 + math.erf(t / math.sqrt(2))) for t in before])
        value = before * share
        slope = share + before * np.exp(-(before**2) / 2) / math.sqrt(2 * math.pi)
    elif kind == "relu":
        value, slope = np.maximum(before, 0.0), 1.0 * (before > 0)
    else:
        value, slope = np.tanh(before), 1 - np.tanh(before) ** 2
    arrays = {"hidden.weight": np.outer(network.output_weight * slope, x), "output.weight": value}
    if kind == "tanh":
        arrays["hidden.bias"] = network.output_weight * slope
    model = stored(network, folder / "model.npz")
    return model, "--source", "gradient", "--gradient", npz(folder / "gradient.npz", **arrays)


@pytest.mark.parametrize(
    ("rounding", "sizes", "images"),
    [
        (2.0**-8, (5, 32, 60), False),
        (2.0**-8, (4, 16, 40), True),
        (2.0**-8, (3, 12, 20), False),
        (2.0**-7, (5, 32, 40), False),
    ],
)
def test_samples_at_hand_stop_the_gate(tmp_path, rounding, sizes, images):
    arguments = batch(tmp_path, rounding, *sizes, images)
    outcome = kkt("verify", *arguments, "--format", "json")
    content = json.loads(outcome.out)
    assert (outcome.code, content["verdict"]) == (0, "undecided")
    assert content["candidates"] is content["covered"] is True
    assert kkt("verify", *arguments, "--fail-on", "candidates").code == 3
    assert kkt("verify", *arguments, "--fail-on", "globally,locally,nonidentifiable").code == 0


@pytest.mark.parametrize("kind", ["dropout", "gelu", "relu", "tanh"])
def test_a_gradient_of_rank_one_is_the_sample(tmp_path, kind):
    """Whatever made it: the rows are the sample, or the files are not covered."""
    arguments = rank_one(tmp_path, kind)
    assert kkt("verify", *arguments, *GATE).code == 3
    alone = kkt("verify", *arguments, "--fail-on", "candidates")
    assert alone.code in (2, 3)
    if kind == "dropout":
        assert alone.code == 3


@pytest.mark.parametrize("kind", ["gelu", "relu", "tanh"])
def test_another_activation_is_not_covered(tmp_path, kind):
    arguments = rank_one(tmp_path, kind, seed=3)
    assert kkt("verify", *arguments, "--fail-on", "not-covered").code == 3
    # As before where the gate does not name it: refused, or undecided with its reason.
    outcome = kkt("verify", *arguments)
    assert outcome.code in (0, 2)
    if outcome.code == 0:
        assert "not covered" in outcome.out


def test_weights_that_are_not_stationary_are_not_covered(random_case):
    assert kkt("verify", *random_case, *GATE).code == 3
    assert kkt("verify", *random_case, "--fail-on", "globally,locally,candidates").code == 0


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_files_that_are_not_covered(tmp_path, activation):
    path = npz(tmp_path / "m.npz", **random_network().arrays(), activation=activation, degree=3)
    outcome = kkt("verify", path, *GATE)
    assert outcome.code == 3
    assert outcome.err.startswith("kktcert: error: not covered: ")
    refused(tmp_path, "verify", path, "--fail-on", "globally")
    refused(tmp_path, "verify", path)


@pytest.mark.parametrize("trained", ["both", "hidden"])
def test_relu_weights_that_are_not_stationary_are_not_covered(tmp_path, trained):
    path = npz(tmp_path / "m.npz", **random_network().arrays(), activation="relu")
    outcome = kkt("verify", path, "--trained", trained, *GATE)
    assert outcome.code == 3
    assert "not covered; try: kktcert attack" in outcome.err
    assert kkt("verify", path, "--trained", trained, "--fail-on", "globally").code == 0


@pytest.mark.parametrize("where", ["model.npz", "model.safetensors", "gradient", "initial"])
def test_a_stated_rounding_does_not_open_the_gate(tmp_path, where):
    """The level counts and is printed; the gate passes by it only if it is told to."""
    model, file, _ = gradient_pair(tmp_path)
    network, gradient = load_network(model), load_network(file)

    def told(part, path):
        stated = TwoLayerNetwork(part.hidden_weight, part.output_weight, 3, rounding=STATED)
        save_network(stated, path)
        return path

    if where == "initial":
        moved = TwoLayerNetwork(
            network.hidden_weight - 1e-7 * gradient.hidden_weight,
            network.output_weight - 1e-7 * gradient.output_weight,
            3,
        )
        final = stored(moved, tmp_path / "final.npz")
        start = told(network, tmp_path / "start.npz")
        arguments = (final, "--source", "fine-tuning", "--initial", start)
    elif where == "gradient":
        other = told(gradient, tmp_path / "told.npz")
        arguments = (model, "--source", "gradient", "--gradient", other)
    else:
        path = told(network, tmp_path / f"told-{where}")
        arguments = (path, "--source", "gradient", "--gradient", file)
    plain = kkt("verify", *arguments)
    assert plain.code == 0
    assert "UNDECIDED" in plain.out
    assert "the file states a rounding of 0.04" in plain.out
    gate = kkt("verify", *arguments, "--fail-on", "globally")
    assert gate.code == 3
    assert "--trust-metadata" in gate.err
    assert kkt("verify", *arguments, "--fail-on", "globally", "--trust-metadata").code == 0
    assert kkt("verify", *arguments, "--fail-on", "nonidentifiable").code == 0


def test_a_true_statement_opens_nothing_either(tmp_path):
    """float16 weights saved in float64 keep their rounding and stay undecided by it."""
    rng = np.random.default_rng(1)
    network = random_network(1, 12, 6)
    coarse = TwoLayerNetwork(
        network.hidden_weight.astype("f2"), network.output_weight.astype("f2"), 3
    )
    gradient = coarse.gradient(rng.normal(size=(3, 6)), [1.0, -1.0, 1.0])
    model = stored(coarse, tmp_path / "model.npz")
    slope = stored(gradient, tmp_path / "gradient.npz")
    loaded = load_network(model)
    assert (loaded.rounding, loaded.dtype_rounding) == (2.0**-11, 2.0**-53)
    # The gradient was taken at these very weights: by their type the samples are determined.
    arguments = (model, "--source", "gradient", "--gradient", slope, "--hidden-share", 1e-3)
    assert kkt("verify", *arguments, "--fail-on", "globally").code == 3
    assert kkt("verify", *arguments, "--fail-on", "globally", "--trust-metadata").code == 0


@pytest.mark.parametrize(("noise", "code"), [(0.0, 3), (5.0, 0)])
def test_audit_fails_on_exposed(tmp_path, noise, code):
    model, gradient, samples = gradient_pair(tmp_path)
    other = samples + noise * np.random.default_rng(0).normal(size=samples.shape)
    np.savez(tmp_path / "data.npz", samples=other)
    arguments = ("audit", model, tmp_path / "data.npz", "--source", "gradient", "--gradient",
                 gradient)  # fmt: skip
    assert kkt(*arguments, "--fail-on", "exposed").code == code
    assert kkt(*arguments).code == 0
    refused(tmp_path, *arguments, "--fail-on", "globally", words="exposed")


@pytest.mark.parametrize("words", ["exposed", "candidate", "not-covered,", ""])
def test_words_of_the_gate(random_case, tmp_path, words):
    refused(tmp_path, "verify", *random_case, "--fail-on", words, words="--fail-on")


@pytest.mark.parametrize("share", [0, 1.5, -1, "nan"])
def test_bad_hidden_share(random_case, tmp_path, share):
    refused(tmp_path, "verify", *random_case, "--hidden-share", share, words="--hidden-share")


@pytest.mark.parametrize("source", ["kkt", "weight-decay", "gradient", "fine-tuning"])
def test_a_set_that_the_number_would_decide_is_blocked(tmp_path, source):
    """Two samples at degree 3: without their number two sets are shown, with it one is left."""
    rng = np.random.default_rng(1)
    if source in ("kkt", "weight-decay"):
        kind = "margin" if source == "kkt" else "regression"
        planted = plant_network(rng.normal(size=(2, 10)), degree=3, stationary=kind, seed=1)
        arguments = (stored(planted.network, tmp_path / "w.npz"), "--source", source)
    else:
        network = random_network(1, 40, 12)
        samples = rng.normal(size=(2, 12)) / 4
        arguments = two_files(tmp_path, network, network.gradient(samples, [0.4, -0.6]), source)
    alone = kkt("verify", *arguments, "--out", tmp_path / "out", *GATE)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["verdict"] in ("nonidentifiable", "undecided")
    assert (alone.code, report["candidates"]) == (3, True)
    assert kkt("verify", *arguments, "--samples", "2", "--fail-on", "globally").code == 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_that_no_number_decides_pass(tmp_path, seed):
    """Too few neurons for the equations: no number of samples makes a set the only one."""
    network = random_network(seed, 3, 9)
    samples = np.random.default_rng(seed).normal(size=(6, 9)) / 3
    gradient = network.gradient(samples, [0.4, -0.6, 0.2, -0.7, 0.5, 0.3])
    arguments = two_files(tmp_path, network, gradient, "gradient")
    assert kkt("verify", *arguments, *GATE).code == 0


def two_files(folder, network, gradient, source):
    """A model with its gradient, or with the model after a small step along it."""
    before = stored(network, folder / "model.npz")
    if source == "gradient":
        return before, "--source", source, "--gradient", stored(gradient, folder / "gradient.npz")
    after = TwoLayerNetwork(
        network.hidden_weight - 1e-6 * gradient.hidden_weight,
        network.output_weight - 1e-6 * gradient.output_weight,
        3,
    )
    return stored(after, folder / "after.npz"), "--source", source, "--initial", before


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_the_time_limit_left_open_is_not_covered(tmp_path, seed):
    network = random_network(seed, 200, 40)
    samples = np.random.default_rng(seed).normal(size=(12, 40)) / 6
    gradient = network.gradient(samples, np.resize([0.4, -0.6], 12))
    arguments = two_files(tmp_path, network, gradient, "gradient")
    limited = kkt("verify", *arguments, "--time-limit", "1e-6", *GATE)
    assert limited.code == 3
    assert "time limit" in limited.out
