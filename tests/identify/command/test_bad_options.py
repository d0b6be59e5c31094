"""Options that contradict each other or their range: exit code 2, one line, nothing written."""

from __future__ import annotations

import numpy as np
import pytest

from tests.command_line import Payload, refused, stationary_network, stored
from tests.model_files import npz

OUT_OF_RANGE = [
    ("--samples", "0"), ("--samples", "-3"), ("--samples", "2.5"), ("--samples", "many"),
    ("--noise", "0"), ("--noise", "1"), ("--noise", "-1e-3"), ("--noise", "nan"),
    ("--time-limit", "0"), ("--time-limit", "-1"), ("--time-limit", "nan"), ("--time-limit", "inf"),
    ("--seed", "-1"), ("--seed", "x"), ("--scale", "metres"), ("--scale", "bias"),
    ("--format", "xml"), ("--loss", "hinge"), ("--degree", "x"), ("--activation", "relu"),
    ("--layers", "a,b"), ("--gradient", "absent.npz"), ("--unknown", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), OUT_OF_RANGE)
@pytest.mark.parametrize("command", ["verify", "recover", "alternatives"])
def test_options_out_of_range(tmp_path, command, option, value):
    model = stored(stationary_network(), tmp_path / "model.npz")
    refused(tmp_path, command, model, option, value, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fail-on", "maybe"), "globally, locally, nonidentifiable, undecided, candidates"),
        (("--fail-on", "undecided,"), "--fail-on"),
        (("--fail-on", ""), "--fail-on"),
        (("--evidence", "faith"), "--evidence"),
        (("-v", "-q"), "-q"),
        (("extra",), "extra"),
        (("--out",), "--out"),
    ],
)
def test_options_of_verify(tmp_path, arguments, words):
    model = stored(stationary_network(), tmp_path / "model.npz")
    refused(tmp_path, "verify", model, *arguments, words=words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "--out"), (("--distance", -1, "--out", "x"), "positive number"),
     (("--keep", "labels", "--out", "x"), "norms, box")],
)  # fmt: skip
def test_options_of_alternatives(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    model = stored(stationary_network(), tmp_path / "model.npz")
    refused(tmp_path, "alternatives", model, *arguments, words=words)


@pytest.mark.parametrize("arguments", [["frobnicate"], ["verify"], ["--bad"], ["recover", "m.npz"]])
def test_usage(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, *arguments, words="--help")


class TestImages:
    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("--image-shape", "2,3", "4 numbers, as a sample has"),
            ("--image-shape", "2,2,3", "4 numbers"),
            ("--image-shape", "2", "H,W,C"),
            ("--image-shape", "2,x", "H,W,C"),
            ("--image-shape", "-2,-2", "H,W,C"),
            ("--image-shape", "2,2,2,1", "H,W,C"),
            ("--range", "1", "LO,HI"),
            ("--range", "1,1", "LO < HI"),
            ("--range", "0,nan", "LO < HI"),
            ("--range", "0,1", "--image-shape"),
            ("--add-mean", "absent.npz", "No such file"),
        ],
    )
    def test_options(self, tmp_path, option, value, words):
        model = stored(stationary_network(), tmp_path / "model.npz")
        out = ("--out", tmp_path / "out")
        refused(tmp_path, "recover", model, option, value, *out, words=words)

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"mean": np.zeros(5)}, "4 numbers"),
            ({"mean": np.full(4, np.nan)}, "NaN"),
            ({"mean": np.zeros(4, int)}, "dtype"),
            ({"images": np.zeros((3, 5))}, "4 numbers"),
            ({"other": np.zeros(4)}, "neither samples nor images"),
        ],
    )
    def test_mean_images(self, tmp_path, arrays, words):
        model = stored(stationary_network(), tmp_path / "model.npz")
        mean = npz(tmp_path / "mean.npz", **arrays)
        options = ("--image-shape", "2,2", "--add-mean", mean, "--out", tmp_path / "out")
        refused(tmp_path, "recover", model, *options, words=words)

    def test_a_shape_that_was_asked_for_needs_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setattr("identify.pictures.can_draw", lambda: False)
        model = stored(stationary_network(), tmp_path / "model.npz")
        options = ("--image-shape", "2,2", "--out", tmp_path / "out")
        refused(tmp_path, "recover", model, *options, words="pip install 'kktcert[demo]'")


class TestPlant:
    @pytest.fixture
    def data(self, tmp_path):
        return npz(tmp_path / "data.npz", samples=np.eye(4)[:3])

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--degree", 2, "--out", "m.npz"), "--degree"),
            (("--out", "m.npz"), "--degree"),
            (("--degree", 3), "--out"),
            (("--degree", 3, "--out", "m.pt"), ".safetensors or .npz"),
            (("--degree", 3, "--out", "absent/m.npz"), "folder that exists"),
            (("--degree", 3, "--out", "."), "--out"),
            (("--degree", 3, "--out", "data.npz"), "absent file"),
            (("--degree", 3, "--out", "m.npz", "--stationary", "always"), "margin or regression"),
            (("--degree", 3, "--out", "m.npz", "--seed", -1), "--seed"),
        ],
    )
    def test_options(self, tmp_path, monkeypatch, data, arguments, words):
        monkeypatch.chdir(tmp_path)
        refused(tmp_path, "plant", data, *arguments, words=words)

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"samples": np.full((2, 3), np.nan)}, "NaN"),
            ({"samples": np.zeros((0, 3))}, "empty"),
            ({"samples": np.ones(3)}, "shape"),
            ({"samples": np.eye(3, dtype=complex)}, "dtype complex128"),
            ({"samples": np.ones((2, 3))}, "independent"),
            ({"samples": np.eye(3), "labels": np.arange(3)}, "-1 and 1"),
            ({"samples": np.eye(3), "labels": np.ones(2)}, "labels"),
            ({"samples": np.eye(3), "images": np.eye(3)}, "both"),
            ({"weights": np.eye(3)}, "neither"),
            ({"samples": np.array([[Payload("flag")]], dtype=object)}, "object"),
        ],
    )
    def test_data(self, tmp_path, monkeypatch, arrays, words):
        monkeypatch.chdir(tmp_path)
        data = npz(tmp_path / "data.npz", **arrays)
        refused(tmp_path, "plant", data, "--degree", 3, "--out", "model.npz", words=words)
