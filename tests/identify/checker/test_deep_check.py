"""Honest gradient reports are confirmed, from files of every kind, and copies of code agree."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from identify import thresholds
from identify.assess_batch import assess_gradient
from identify.checker.check import check_report
from identify.checker.deep import confirm, loss, uniqueness
from identify.checker.deep.cubic import Cubic, has_full_rank, integer_gram
from identify.checker.deep.kernel import build_operator, cut_kernel
from identify.checker.deep.network import (
    Layers,
    parse_activation,
    read_deep_gradient,
    read_deep_network,
    spelled,
)
from identify.checker.deep.printed import _residues
from identify.checker.deep.spectra import find_spectra
from identify.checker.outcome import CONFIRMED, OPEN, REFUTED, CheckInputError
from identify.disaggregation.cubic import build_cubic
from identify.disaggregation.factor import factor
from identify.disaggregation.printed import prove_printed
from identify.disaggregation.relu import build_operator as verifiers_operator
from identify.disaggregation.relu import find_kernel
from identify.model.activations import Activation
from identify.model.activations import parse_activation as verifiers_activation
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.deep_files import load_deep_gradient, load_deep_network
from identify.model.losses import loss_slope
from tests.identify.checker.deep_reports import (
    KINDS,
    as_read,
    few_neurons,
    float32,
    make,
    planted,
    save,
    signed,
)
from tests.identify.disaggregation import families
from tests.identify.disaggregation.problems import add_noise, initialise, plant


def always(_seconds):
    pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_honest_reports_are_confirmed(tmp_path, kind, seed):
    result = planted(kind, tmp_path, seed).check()
    assert result.outcome == CONFIRMED, str(result)
    assert {claim.outcome for claim in result.claims} == {CONFIRMED}


@pytest.mark.parametrize("seed", range(8))
def test_a_sweep_of_determined_batches(tmp_path, seed):
    case = families.determined(seed)
    options = dict(case.options)
    reported = make(tmp_path, case.network, case.gradient, options.pop("loss", None), **options)
    result = reported.check()
    expected = CONFIRMED if reported.report["verdict"] == "globally" else OPEN
    assert result.outcome == expected, str(result)


@pytest.mark.parametrize("level", [1e-12, 1e-9, 1e-7])
def test_noise_is_measured_alike(tmp_path, level):
    problem = plant([14, 120, 3], 4, 1)
    noisy = add_noise(problem.gradient, level, np.random.default_rng(0))
    reported = make(tmp_path, problem.network, noisy, "cross_entropy", reduction="mean")
    assert reported.report["verdict"] == "globally"
    result = reported.check()
    assert result.outcome == CONFIRMED, str(result)


def test_without_biases_the_samples_are_directions(tmp_path):
    problem = plant([12, 90, 1], 3, 4, bias=False)
    reported = make(tmp_path, problem.network, problem.gradient)
    assert (reported.report["verdict"], reported.report["scaled"]) == ("globally", False)
    assert reported.check().outcome == CONFIRMED


def test_smooth_layers_below(tmp_path):
    rng = np.random.default_rng(3)
    plain = initialise([10, 14, 120, 6], rng)
    network = DeepNetwork(plain.weights, plain.biases, ["tanh", "relu"])
    gradient = network.gradient(rng.normal(size=(3, 10)), rng.normal(size=(3, 6)))
    reported = make(tmp_path, network, gradient)
    assert reported.report["verdict"] == "globally"
    result = reported.check()
    assert result.outcome == CONFIRMED, str(result)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("outputs", [1, 4])
def test_other_losses(tmp_path, loss, outputs):
    rng = np.random.default_rng(8)
    network = initialise([10, 120, outputs], rng)
    samples = rng.normal(size=(4, 10))
    classes = rng.integers(0, outputs, 4)
    targets = np.eye(outputs)[classes] if loss == "squared" else 2.0 * np.eye(outputs)[classes] - 1
    slopes = loss_slope(loss, network.value(samples), targets) / 4
    reported = make(tmp_path, network, network.gradient(samples, slopes), loss, reduction="mean")
    assert reported.report["verdict"] == "globally"
    result = reported.check()
    assert result.outcome == CONFIRMED, str(result)
    if reported.report["labels"] is not None:
        report = reported.changed()
        report["labels"][1] += 1
        assert reported.check(signed(report))["labels"].outcome == REFUTED


def test_weight_decay_is_subtracted_and_a_head_left_out(tmp_path):
    """Fields that a later verifier writes: what was subtracted, and what comes before."""
    reported = planted("ten outputs, two hidden layers", tmp_path)
    network, clean = reported.network, reported.gradient
    pairs = [(clean.weights, network.weights), (clean.biases, network.biases)]
    parts = [tuple(g + 0.25 * w for g, w in zip(*pair, strict=True)) for pair in pairs]
    sent = DeepGradient(*parts)
    report = reported.changed()
    report["problem"] |= {"weight_decay": 0.25, "head": True}
    report["samples_of"] = "features before the first layer"
    more = ["plus 0.25 times the weights and biases", "the samples are the features that enter"]
    report["assumptions"] += more
    as_read(report, "gradient", sent.sha256())
    path = save(tmp_path / "sent.npz", sent)
    with np.load(reported.model_file) as file:
        np.savez(tmp_path / "whole.npz", **{"conv.weight": np.ones((2, 2, 3, 3))}, **file)
    files = {"model": tmp_path / "whole.npz", "gradient": path}
    # Two roundings more in float64, so that float32 noise is what it was.
    result = reported.check(signed(report), **files)
    assert result.outcome == CONFIRMED, str(result)
    report["problem"]["weight_decay"] = 0.2499
    assert reported.check(signed(report), **files).outcome == REFUTED
    report["problem"]["weight_decay"] = 0.25
    report["assumptions"].pop()
    assert reported.check(signed(report), **files)["assumptions"].outcome == REFUTED
    report["problem"]["head"] = False
    with pytest.raises(CheckInputError):
        reported.check(signed(report), **files)


def test_missing_gradients_are_no_claim(tmp_path):
    problem = plant([12, 16, 90, 2], 3, 0)
    weights, biases = list(problem.gradient.weights), list(problem.gradient.biases)
    weights[2] = biases[2] = None
    reported = make(tmp_path, problem.network, DeepGradient(tuple(weights), tuple(biases)))
    assert reported.report["verdict"] == "globally"
    result = reported.check()
    assert result.outcome == CONFIRMED, str(result)
    assert "2 layers" in result["gradients"].detail


def test_a_large_gradient_has_its_rank_by_the_leading_values(tmp_path):
    problem = plant([404, 403, 1], 3, 0)
    reported = make(tmp_path, problem.network, float32(problem.gradient), "logistic")
    assert reported.check().outcome == CONFIRMED


def test_time_limit_and_size(tmp_path, monkeypatch):
    reported = planted("one output, one hidden layer", tmp_path)
    result = reported.check(time_limit=1e-9)
    assert (result.outcome, result["inputs"].outcome) == (OPEN, CONFIRMED)
    assert "time limit" in result["ranks"].detail
    monkeypatch.setattr("identify.checker.deep.kernel.LARGEST", 5)
    result = reported.check()
    assert (result.outcome, result["kernel"].outcome) == (OPEN, OPEN)
    assert "too large" in result["verdict"].detail


def test_a_report_without_a_proof_is_proved_here(tmp_path):
    problem = plant([12, 70, 1], 4, 5)
    reported = make(tmp_path, problem.network, problem.gradient, "logistic", prove=False)
    assert reported.report["proof"] is None
    result = reported.check()
    assert (result.outcome, result["printed answer"].outcome) == (CONFIRMED, CONFIRMED)


def test_cholesky_proves_what_the_prime_proves(tmp_path, monkeypatch):
    reported = planted("one output, one hidden layer", tmp_path)
    by_prime = reported.check()["printed answer"]
    monkeypatch.setattr("identify.checker.deep.printed._MODULAR", 1)
    by_cholesky = reported.check()["printed answer"]
    assert (by_prime.how, by_cholesky.how) == ("exact", "float64 with rounding bounds")
    assert by_prime.outcome == by_cholesky.outcome == CONFIRMED
    monkeypatch.setattr("identify.checker.deep.case.Case.masks", np.ones((70, 4), dtype=bool))
    assert reported.check()["printed answer"].outcome != CONFIRMED


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(kernel={}),
        lambda r: r.update(more=1),
        lambda r: r.update(labels=["one"]),
        lambda r: r.pop("power"),
        lambda r: r["certificate"].pop("masks"),
        lambda r: r["certificate"].update(format=3),
        lambda r: r["certificate"]["masks"].pop(),
        lambda r: r["certificate"]["samples"][0].pop(),
        lambda r: r["certificate"]["masks"][-1].__setitem__(0, "00"),
        lambda r: r["certificate"]["masks"][-1].__setitem__(0, "zz"),
        lambda r: r["certificate"]["masks"].__setitem__(-1, None),
        lambda r: r["certificate"].update(pivots=[10**6]),
        lambda r: r["certificate"].update(pivots=[1, 1]),
        lambda r: r.update(samples_of="input of layer 9"),
        lambda r: r["problem"]["activations"].append("relu"),
        lambda r: r["inputs"].pop(),
        lambda r: r["error_bounds"].__setitem__(0, float("nan")),
    ],
)
def test_reports_of_other_types_are_refused_in_one_line(tmp_path, change):
    reported = planted("ten outputs, two hidden layers", tmp_path)
    report = reported.changed()
    change(report)
    with pytest.raises(CheckInputError) as caught:
        reported.check(report)
    assert "\n" not in str(caught.value)


def test_an_activation_that_both_name_has_to_agree(tmp_path):
    reported = planted("leaky, the loss unknown", tmp_path)
    assert reported.check(activation="LeakyReLU:0.10").outcome == CONFIRMED
    for other in ("relu", "leaky_relu:0.2", "gelu", "leaky_relu:0.1,relu"):
        assert reported.check(activation=other)["problem"].outcome == REFUTED


@pytest.mark.parametrize("text", ["relu", "LeakyReLU", "leaky_relu:0.123456789", "elu", "tanh"])
def test_activations_are_spelled_as_the_verifier_does(text):
    name = text.lower().replace("leakyrelu", "leaky_relu")
    kind = verifiers_activation(name)
    assert spelled(text) == str(kind)
    assert parse_activation(text) == (kind.name, kind.parameters)
    assert isinstance(kind, Activation)


@pytest.mark.parametrize("names", ["torch", "flat", "list", "weights"])
def test_both_readers_see_the_same_network(tmp_path, names):
    problem = plant([8, 8, 8, 3], 2, 0, bias=names != "weights")
    network, gradient = problem.network, problem.gradient
    for part, path in ((network, tmp_path / "m.npz"), (gradient, tmp_path / "g.npz")):
        arrays = [a for pair in zip(part.weights, part.biases, strict=True) for a in pair]
        arrays = [a for a in arrays if a is not None]
        kinds = ["weight"] if names == "weights" else ["weight", "bias"]
        keys = [f"{'net.' if names == 'torch' else 'fc'}{3 * k}.{kind}" for k in range(3)
                for kind in kinds]  # fmt: skip
        if names == "list":
            np.savez(path, *arrays)
        else:
            np.savez(path, **dict(zip(keys, arrays, strict=True)))
    layers, stored = read_deep_network(tmp_path / "m.npz")
    other = load_deep_network(tmp_path / "m.npz", activation="relu")
    assert (layers.sha256("relu relu"), stored) == (other.sha256(), None)
    mine = read_deep_gradient(tmp_path / "g.npz", layers)
    assert mine.sha256("gradient") == load_deep_gradient(tmp_path / "g.npz", other).sha256()


@pytest.mark.parametrize("seed", range(12))
def test_ranks_are_those_of_the_verifier(seed):
    case = families.undetermined(seed)
    top = case.network.depth - 2
    own = find_spectra(Layers(case.gradient.weights, case.gradient.biases), top, None, always)[top]
    found = factor(case.gradient.layer(top))
    assert (own.rank, own.clear) == (found.rank, found.clear)
    np.testing.assert_allclose([own.noise, own.gap], [found.noise, found.gap], rtol=0.5)


@pytest.mark.parametrize("stored", [np.float16, np.float32])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "output", [[1.0, -1.0], [0.5, -2.0, 4.0], [1.0, 1.0, 1.0, 0.3], [1.0, 0.9, -0.4, 0.2, 1.7]]
)
def test_repeated_rows_are_counted_as_by_the_verifier(output, count, stored):
    """Rows that are multiples share an error; alone they show none, and no rank is clear."""
    rng = np.random.default_rng(count)
    network = DeepNetwork(
        [rng.normal(size=(40, 12)), rng.choice(output, (1, 40))], [rng.normal(size=40), [0.0]],
        "relu",
    )  # fmt: skip
    gradient = network.gradient(rng.normal(size=(count, 12)), rng.normal(size=(count, 1)))
    weight, bias = (part[0].astype(stored).astype(float)
                    for part in (gradient.weights, gradient.biases))  # fmt: skip
    own = find_spectra(Layers((weight, None), (bias, None)), 0, None, always)[0]
    found = factor(np.column_stack([weight, bias]))
    assert (own.rank, own.clear, own.kinds) == (found.rank, found.clear, found.different)
    np.testing.assert_allclose([own.noise, own.gap], [found.noise, found.gap], rtol=1e-3)
    if count == 1 and len(output) < 4:
        assert own.kinds[0] == 1
        assert not own.clear


@pytest.mark.parametrize("seed", range(8))
def test_float32_bounds_hold_and_are_not_refuted(tmp_path, seed):
    """Small networks whose passes ran in float32: their errors lie in the samples' own space."""
    rng = np.random.default_rng(seed)
    network = initialise([int(rng.integers(4, 11)), 40, 40, 2], rng)
    samples = rng.normal(size=(int(rng.integers(2, 5)), network.weights[0].shape[1]))
    network = float32_network(network)
    gradient, samples = float32_passes(network, samples, rng.integers(0, 2, len(samples)))
    reported = make(tmp_path, network, gradient, "cross_entropy")
    result = reported.check()
    assert REFUTED not in {claim.outcome for claim in result.claims}, str(result)
    if reported.report["verdict"] == "globally":
        found = assess_gradient(network, gradient, "cross_entropy").found
        away = np.linalg.norm(found.samples[:, None] - samples, axis=2)
        errors = (away / np.linalg.norm(samples, axis=1)).min(axis=1)
        assert (errors <= found.error_bounds).all()


def float32_network(network):
    parts = [[part.astype(np.float32).astype(float) for part in parts]
             for parts in (network.weights, network.biases)]  # fmt: skip
    return DeepNetwork(*parts, "relu")


def float32_passes(network, samples, labels):
    """Forward and backward pass of the mean cross-entropy with every operation in float32."""
    weights, biases = ([part.astype(np.float32) for part in parts]
                       for parts in (network.weights, network.biases))  # fmt: skip
    inputs = [samples.astype(np.float32)]
    for weight, bias in zip(weights, biases, strict=True):
        z = inputs[-1] @ weight.T + bias
        inputs.append(np.maximum(z, np.float32(0)))
    odds = np.exp(z - z.max(axis=1, keepdims=True))
    delta = odds / odds.sum(axis=1, keepdims=True) - np.eye(z.shape[1], dtype=np.float32)[labels]
    delta = delta / np.float32(len(labels))
    parts = []
    for index in reversed(range(len(weights))):
        parts.append((delta.T @ inputs[index], delta.sum(axis=0)))
        delta = (delta @ weights[index]) * (inputs[index] > 0)
    own_weights, own_biases = zip(*reversed(parts), strict=True)
    return (DeepGradient([part.astype(float) for part in own_weights],
                         [part.astype(float) for part in own_biases]),
            inputs[0].astype(float))  # fmt: skip


@pytest.mark.parametrize("leak", [0.0, 0.2])
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_kernel_is_cut_off_as_for_the_verifier(leak, outputs):
    """Two ways to the same numbers: inverse iteration there, a complement of the samples here."""
    activation = f"leaky_relu:{leak}" if leak else "relu"
    problem = plant([12, 150, outputs], 4, 2, activation)
    noisy = add_noise(problem.gradient, 1e-8, np.random.default_rng(0))
    found = factor(noisy.layer(0))
    amplitudes = problem.network.weights[-1].T
    expected = find_kernel(verifiers_operator(found.columns, found.values, amplitudes, leak))
    spectrum = find_spectra(Layers(noisy.weights, noisy.biases), 0, None, always)[0]
    delta = problem.network.backward(problem.network.forward(problem.samples), problem.cotangents)[
        0
    ]
    operator = build_operator(spectrum, amplitudes, leak)
    cut = cut_kernel(operator, delta @ spectrum.left, problem.cotangents, spectrum.noise, always)
    noise = found.noise
    np.testing.assert_allclose(cut.other, expected.values[4] / noise, rtol=1e-2)
    np.testing.assert_allclose(cut.largest, expected.values[3] / noise, rtol=0.1)
    np.testing.assert_allclose(cut.sigma, expected.plain, rtol=1e-2)


@pytest.mark.parametrize(("leak", "outputs", "count"), [(0.0, 1, 5), (0.0, 4, 4), (0.2, 3, 4)])
def test_the_kernel_of_degree_3_is_cut_off_as_for_the_verifier(leak, outputs, count):
    activation = f"leaky_relu:{leak}" if leak else "relu"
    problem = plant([12, 50, outputs], count, 2, activation)
    noisy = add_noise(problem.gradient, 1e-9, np.random.default_rng(0))
    found, amplitudes = factor(noisy.layer(0)), problem.network.weights[-1].T
    own = build_cubic(verifiers_operator(found.columns, found.values, amplitudes, leak))
    expected = find_kernel(own)
    spectrum = find_spectra(Layers(noisy.weights, noisy.biases), 0, None, always)[0]
    run = problem.network.forward(problem.samples)
    z = problem.network.backward(run, problem.cotangents)[0] @ spectrum.left
    cubic = Cubic(build_operator(spectrum, amplitudes, leak))
    assert cubic.unknowns == own.unknowns
    cut = cut_kernel(cubic, z, problem.cotangents, spectrum.noise, always)
    np.testing.assert_allclose(cut.other, expected.values[count] / found.noise, rtol=1e-2)
    np.testing.assert_allclose(cut.largest, expected.values[count - 1] / found.noise, rtol=0.1)
    np.testing.assert_allclose(cut.sigma, expected.plain, rtol=1e-2)


@pytest.mark.parametrize("leak", [0.0, 0.25])
@pytest.mark.parametrize(("n", "q", "rows"), [(3, 1, 14), (4, 2, 25), (3, 3, 12)])
def test_both_proofs_of_degree_3_agree(n, q, rows, leak):
    rng = np.random.default_rng(rows)
    a, p, masks = rng.normal(size=(rows, q)), rng.normal(size=(n, q)), rng.random((rows, n)) < 0.5
    for equal in (False, True):
        if equal:
            masks[:, 1], p[1] = masks[:, 0], 2.0 * p[0]
        expected = prove_printed(a, p, masks, leak, degree=3)
        prime = 2147483629
        if q == 1:
            ones = np.ones((rows, 1), dtype=np.int64)
            x = np.where(masks, 1, int(_residues(np.array([leak]), prime)[0]))
        else:
            ones, slopes = _residues(a, prime), _residues(p, prime)
            x = sum(ones[:, [c]] * slopes[:, c] % prime for c in range(q)) % prime
            x = x * np.where(masks, 1, int(_residues(np.array([leak]), prime)[0])) % prime
        slope = int(_residues(np.array([leak]), prime)[0])
        assert has_full_rank(x, ones, slope, prime) is expected.holds
        if q == 1 and not leak:
            gram = integer_gram(masks.astype(float))
            assert (np.linalg.eigvalsh(gram)[0] > 1e-9) is np.bool_(expected.holds)


def test_the_noise_form_is_the_variance_of_what_noise_does():
    """<v, C v> against the mean of |L'(e) v|^2 over random errors e of U."""
    rng = np.random.default_rng(0)
    problem = plant([9, 40, 2], 3, 0)
    spectrum = find_spectra(
        Layers(problem.gradient.weights, problem.gradient.biases), 0, None, always
    )[0]
    operator = build_operator(spectrum, problem.network.weights[-1].T, 0.3)
    vector, step = rng.normal(size=operator.unknowns), 1e-6
    squares = []
    for _ in range(3000):
        moved = step * rng.normal(size=operator.basis.shape) / operator.values
        other = type(operator)(
            operator.basis + moved, operator.amplitudes, operator.leak, operator.weights,
            operator.values,
        )  # fmt: skip
        squares.append(np.sum(((other.matrix() - operator.matrix()) @ vector / step) ** 2))
    np.testing.assert_allclose(np.mean(squares), vector @ operator.form() @ vector, rtol=0.1)


def test_thresholds_are_copies():
    assert uniqueness.KERNEL_GAP == thresholds.KERNEL_GAP
    assert uniqueness.KERNEL_NOISE == thresholds.KERNEL_NOISE
    assert confirm.BOUND_LIMIT == thresholds.LARGEST_BOUND
    assert loss.CONFIDENT == thresholds.SMALLEST_CONFIDENCE
    assert confirm.LOOSEST == thresholds.LOOSEST


def test_the_folder_works_alone(tmp_path):
    from identify import checker

    reported = few_neurons(tmp_path)
    shutil.copytree(checker.__path__[0], tmp_path / "checker")
    (tmp_path / "report.json").write_text(__import__("json").dumps(signed(reported.report)))
    command = [sys.executable, "-I", "-c",
               "import sys; sys.path.insert(0, '.'); from checker.check import main; "
               "assert 'identify' not in sys.modules; sys.exit(main())",
               "report.json", "model.npz", "--gradient", "gradient.npz", "--activation", "relu",
               "--require", "confirmed"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "outcome: confirmed" in done.stdout


def test_in_memory_and_from_a_path_are_the_same(tmp_path):
    reported = planted("one output, one hidden layer", tmp_path)
    files = {"model": reported.model_file, "gradient": str(reported.gradient_file)}
    assert str(check_report(reported.report, **files)) == str(reported.check())


def test_samples_that_were_searched_for_are_no_claim(tmp_path):
    """A smooth activation before the outputs: the verdict is local, or undecided."""
    rng = np.random.default_rng(1)
    network = initialise([10, 60, 3], rng, "gelu")
    samples, labels = rng.normal(size=(3, 10)), np.array([0, 2, 1])
    slopes = loss_slope("cross_entropy", network.value(samples), labels) / 3
    reported = make(tmp_path, network, network.gradient(samples, slopes), "cross_entropy")
    assert reported.report["method"] == "search"
    result = reported.check()
    assert (result.outcome, result["inputs"].outcome) == (OPEN, CONFIRMED), str(result)
    report = reported.changed() | {"verdict": "globally", "candidates": False}
    report["scope"] = {"kind": "at_most", "samples": report["rank"]}
    assert reported.check(signed(report)).outcome == REFUTED
