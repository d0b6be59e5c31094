"""What a person reads about labels, equal samples, and dashes in tables."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from identify.assess_batch import assess_gradient
from identify.model.dataset import equal_rows
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope
from identify.verdict.sentences import span_unclear
from tests.command_line import kkt
from tests.model_files import npz

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 12))
TWICE = np.concatenate([X, X[:1], X[2:3], X[:1]])


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The arguments of a gradient of four samples at a ReLU network."""
    folder = tmp_path_factory.mktemp("asked")
    sizes = ((80, 12), (3, 80))
    weights, biases = [RNG.normal(size=s) for s in sizes], [RNG.normal(size=s[0]) for s in sizes]
    network = DeepNetwork(weights, biases, "relu")
    slopes = loss_slope("cross_entropy", network.value(X), [0, 1, 2, 0]) / 4
    gradient = network.gradient(X, slopes)
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    model = npz(folder / "m.npz", **dict(zip(names, (weights[0], biases[0], weights[1], biases[1]),
                                             strict=True)))  # fmt: skip
    parts = (gradient.weights[0], gradient.biases[0], gradient.weights[1], gradient.biases[1])
    file = npz(folder / "g.npz", **dict(zip(names, parts, strict=True)))
    return model, ("--activation", "relu", "--source", "gradient", "--gradient", file)


LABELS = {
    "words": np.array(["cat", "dog", "cat", "owl"]),
    "bytes": np.array([b"0", b"1", b"2", b"0"]),
    "digits as text": np.array(["0", "1", "2", "0"]),
    "complex": np.array([0, 1, 2, 0], dtype=complex),
    "dates": np.array(["2020-01-01"] * 4, dtype="datetime64[D]"),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("command", ["audit", "member", "plant", "inspect", "labels"])
def test_labels_that_are_no_numbers_are_one_line(tmp_path, asked, kind, command):
    data = npz(tmp_path / "d.npz", samples=X, labels=LABELS[kind])
    model, options = asked
    arguments = {
        "audit": ("audit", model, data, *options),
        "member": ("member", model, data, "--gradient", options[-1], "--activation", "relu"),
        "plant": ("plant", data, "--degree", 3, "--out", tmp_path / "p.npz"),
        "inspect": ("inspect", data),
        "labels": ("attack", model, "--activation", "relu", "--labels", data, "--out",
                   tmp_path / "run"),
    }[command]  # fmt: skip
    done = kkt(*arguments)
    assert (done.code, len(done.lines)) == (2, 1)
    if "labels are numbers" not in done.err:
        # numpy stores it as objects, which are never read.
        assert kind == "dates"
    else:
        assert f'{data}: "labels" holds ' in done.err
        assert "return_inverse=True)[1] makes them of names" in done.err


@pytest.mark.parametrize("kind", [int, float, np.uint8, bool])
def test_labels_that_are_numbers_are_read(tmp_path, asked, kind):
    labels = np.array([0, 1, 1, 0]).astype(kind)
    model, options = asked
    done = kkt("audit", model, npz(tmp_path / "d.npz", samples=X, labels=labels), *options)
    assert done.code == 0, done.err


class TestEqualSamples:
    @pytest.mark.parametrize("seed", range(4))
    def test_against_a_double_loop(self, seed):
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, 2, size=(12, 3)) * 1.0
        slow = {}
        for i in range(len(rows)):
            first = next(k for k in range(len(rows)) if (rows[k] == rows[i]).all())
            slow.setdefault(first, []).append(i)
        assert equal_rows(rows) == tuple(tuple(g) for g in slow.values() if len(g) > 1)
        assert equal_rows(np.array([[0.0], [-0.0]])) == ((0, 1),)

    def test_their_indices_are_named(self, tmp_path, asked):
        model, options = asked
        data = npz(tmp_path / "d.npz", samples=TWICE, labels=[0, 1, 2, 0, 0, 2, 0])
        assert "0 = 4 = 6, 2 = 5 (counted from 0)" in kkt("inspect", data).out
        planted = kkt("plant", data, "--degree", 3, "--out", tmp_path / "p.npz")
        assert "got rank 4 for 7 rows (counted from 0, equal rows are 0 = 4 = 6, 2 = 5)" in (
            planted.err
        )
        done = kkt("audit", model, data, *options, "--loss", "CE")
        note = "samples of yours are equal and count as one: 0 = 4 = 6, 2 = 5"
        assert note in " ".join(done.out.split())
        assert "equal" not in kkt("inspect", npz(tmp_path / "x.npz", samples=X)).out

    def test_members_are_counted_from_0_as_audits_do(self, tmp_path, asked):
        model, options = asked
        data = npz(tmp_path / "d.npz", samples=np.concatenate([X[:2], RNG.normal(size=(1, 12))]))
        done = kkt("member", model, data, "--gradient", options[-1], "--activation", "relu")
        rows = [line.split()[:3] for line in done.out.splitlines() if line.startswith("  ")]
        assert [row[0] for row in rows[-3:]] == ["0", "1", "2"]
        assert rows[-1] == ["2", "no", "trace"]


def test_columns_of_dashes_are_left_out(asked):
    model, options = asked
    unknown = kkt("verify", model, *options).out
    known = kkt("verify", model, *options, "--loss", "CE").out
    assert "  sample  error bound  |p|" in unknown
    assert "margin / error" not in unknown
    assert "margin / error" in known
    assert "  loss          cross-entropy" in known
    assert "  head          no" in known


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_coarse_data_name_float64(kind):
    """Where a rank is not clear, the noise of float32 is named with the way out, and no other."""
    rng = np.random.default_rng(1)
    sizes = ((80, 12), (3, 80))
    network = DeepNetwork(
        [rng.normal(size=s) for s in sizes], [rng.normal(size=s[0]) for s in sizes], "relu"
    )
    x = np.concatenate([X, 1.001 * X[:1]])  # two samples of one mask
    full = network.gradient(x, rng.normal(size=(5, 3)))
    gradient = DeepGradient(
        tuple(w.astype(kind).astype(float) for w in full.weights),
        tuple(b.astype(kind).astype(float) for b in full.biases),
    )
    report = assess_gradient(network, gradient)
    assert "equal or nested masks, or noise" in report.reason
    assert ("computed in float64 may show them" in report.reason) == (kind is np.float32)


@pytest.mark.parametrize(("noise", "named"), [(1e-13, False), (6e-8, True), (1e-3, True)])
def test_a_span_that_is_not_clear_names_float64(noise, named):
    span = SimpleNamespace(rank=3, smallest=1e-6, largest_uncounted=1e-7)
    said = span_unclear(SimpleNamespace(span=span, dimension=3, neurons=9), noise)
    assert said.startswith("the dimension of the samples' span is not clear: singular value 3 is ")
    assert ("computed in float64 may show them" in said) == named
