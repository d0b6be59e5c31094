"""Unusable input: exit code 2, one line on standard error, nothing printed, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kktcert
from identify.model.loading import save_network
from identify.model.two_layer import TwoLayerNetwork
from tests.command_line import (
    Payload,
    gradient_pair,
    kkt,
    random_network,
    refused,
    stationary_network,
    stored,
)
from tests.model_files import layers, npz, raw_npz, raw_safetensors

OPTIONS = ("--degree", 3)


def with_entry(name, value, dtype=np.float64):
    arrays = {**layers(dtype=dtype), "hidden.bias": np.ones(4, dtype)}
    arrays[name].flat[-1] = value
    return arrays


def file_of(**arrays):
    return lambda folder: npz(folder / "model.npz", **arrays)


def declared(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
    return lambda folder: raw_npz(folder / "model.npz", "hidden.weight", header, bytes(8))


def declared_safetensors(folder):
    entry = {"dtype": "F64", "shape": [2**40, 2**20], "data_offsets": [0, 8]}
    return raw_safetensors(folder / "model.safetensors", {"hidden.weight": entry}, bytes(8))


def truncated(suffix):
    def make(folder):
        path = stored(stationary_network(), folder / f"model{suffix}")
        path.write_bytes(path.read_bytes()[:-40])
        return path

    return make


def empty(name):
    def make(folder):
        (folder / name).write_bytes(b"")
        return folder / name

    return make


def running_code(folder):
    torch = pytest.importorskip("torch")
    torch.save({"hidden.weight": Payload(folder / "flag")}, folder / "model.pt")
    return folder / "model.pt"


def objects(folder):
    arrays = {**layers(), "hidden.weight": np.full((4, 3), Payload(folder / "flag"))}
    return npz(folder / "model.npz", **arrays)


def saved(network):
    return lambda folder: stored(network, folder / "model.safetensors")


DEEPER = {f"{k}.weight": np.ones((4, 4)) for k in range(3)}
ZEROS = {name: np.zeros_like(array) for name, array in layers().items()}

MODELS = {
    "absent": (lambda folder: folder / "model.npz", "No such file"),
    "a folder": (lambda folder: folder, "a folder without weights"),
    "NaN": (file_of(**with_entry("hidden.weight", np.nan)), "NaN or infinity"),
    "infinity": (file_of(**with_entry("output.weight", np.inf)), "NaN or infinity"),
    "NaN in a bias": (file_of(**with_entry("hidden.bias", np.nan)), "NaN or infinity"),
    "no neurons": (file_of(**layers((0, 3), (1, 0))), "has shape"),
    "no inputs": (file_of(**layers((4, 0))), "has shape"),
    "mismatched": (file_of(**layers((4, 3), (1, 5))), "has shape (1, 5)"),
    "absurd shape": (declared("(1099511627776, 1024)"), "declares shape"),
    "negative shape": (declared("(-1, 3)"), "hidden.weight"),
    "absurd safetensors": (declared_safetensors, "no readable safetensors"),
    "integers": (file_of(**layers(dtype=np.int64)), "has dtype int64"),
    "complex": (file_of(**layers(dtype=np.complex128)), "has dtype complex128"),
    "objects": (objects, "object"),
    "pickled code": (running_code, "would run code"),
    "truncated npz": (truncated(".npz"), "model.npz"),
    "truncated safetensors": (truncated(".safetensors"), "truncated"),
    "empty npz": (empty("model.npz"), "is empty"),
    "empty safetensors": (empty("model.safetensors"), "is empty"),
    "empty pt": (empty("model.pt"), "is empty"),
    "suffix": (empty("model.pickle"), "unknown suffix"),
    "deeper": (file_of(**DEEPER), "0.weight, 1.weight, 2.weight"),
    "GELU": (file_of(**layers(), activation="gelu"), "gelu"),
    "all neurons dead": (file_of(**ZEROS), "all neurons dead"),
    "output bias": (file_of(**layers(), **{"output.bias": np.ones(1)}), "output.bias"),
    "polynomial": (saved(random_network(activation=(0.0, 1.0, 0.0, 1.0))), "not yet supported"),
    "several outputs": (
        saved(TwoLayerNetwork(np.ones((4, 3)), np.ones((3, 4)), 3)),
        "3 outputs are not yet supported",
    ),
    "two outputs that are not opposite": (
        saved(TwoLayerNetwork(np.ones((4, 3)), np.ones((2, 4)), 3)),
        "are not opposite",
    ),
    "contradicting degree": (file_of(**layers(), degree=4), "3 from the degree of the option"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("command", ["verify", "recover", "alternatives"])
def test_models(tmp_path, name, command):
    make, words = MODELS[name]
    out = ("--out", tmp_path / "new" / "out")
    refused(tmp_path, command, make(tmp_path), *OPTIONS, *out, words=words)


UNREADABLE = sorted(
    set(MODELS)
    - {"deeper", "GELU", "all neurons dead", "output bias", "polynomial", "several outputs"}
    - {"two outputs that are not opposite"}
)


@pytest.mark.parametrize("name", UNREADABLE)
def test_inspect_refuses_what_cannot_be_read(tmp_path, name):
    make, words = MODELS[name]
    refused(tmp_path, "inspect", make(tmp_path), *OPTIONS, words=words)


@pytest.mark.parametrize("name", ["NaN", "objects", "mismatched", "integers", "empty npz"])
@pytest.mark.parametrize("option", ["--gradient", "--initial"])
def test_files_beside_the_model(tmp_path, name, option):
    source = {"--gradient": "gradient", "--initial": "fine-tuning"}[option]
    model = stored(random_network(width=4, dimension=3), tmp_path / "other.safetensors")
    make, _ = MODELS[name]
    beside = make(tmp_path)
    refused(tmp_path, "verify", model, "--source", source, option, beside, words=beside.name)


def test_missing_degree(tmp_path):
    model = npz(tmp_path / "model.npz", **layers())
    refused(tmp_path, "verify", model, words="give --degree A")


def test_contradicting_activation(tmp_path):
    model = npz(tmp_path / "model.npz", **layers())
    refused(tmp_path, "verify", model, "--degree", 3, "--activation", "0,0,0,0,1", words="degree")
    refused(tmp_path, "verify", model, "--activation", "0,x", words="no polynomial")
    refused(tmp_path, "verify", model, "--degree", 2, words="degree")


def test_unknown_layers_are_refused_with_those_present(tmp_path):
    model = npz(tmp_path / "model.npz", **layers(names=("fc1", "fc2")))
    refused(tmp_path, "verify", model, *OPTIONS, "--layers", "fc1,fc3", words="fc1, fc2")
    refused(tmp_path, "verify", model, *OPTIONS, "--layers", "fc1", words="HIDDEN,OUTPUT")


class TestSources:
    @pytest.fixture
    def model(self, tmp_path):
        return stored(stationary_network(), tmp_path / "model.npz")

    @pytest.fixture
    def other(self, tmp_path):
        return stored(random_network(width=2, dimension=4), tmp_path / "other.npz")

    @pytest.mark.parametrize("source", ["kkt", "weight-decay", "fine-tuning"])
    def test_gradient_without_its_source(self, tmp_path, model, other, source):
        options = ("--source", source, "--gradient", other)
        refused(tmp_path, "verify", model, *options, words="gradient with --gradient")

    @pytest.mark.parametrize("source", ["kkt", "weight-decay", "gradient"])
    def test_initial_without_its_source(self, tmp_path, model, other, source):
        gradient = ("--gradient", other) if source == "gradient" else ()
        options = ("--source", source, "--initial", other, *gradient)
        refused(tmp_path, "verify", model, *options, words="fine-tuning with --initial")

    def test_sources_without_their_files(self, tmp_path, model):
        refused(tmp_path, "verify", model, "--source", "gradient", words="give --gradient FILE")
        refused(tmp_path, "verify", model, "--source", "fine-tuning", words="give --initial FILE")

    @pytest.mark.parametrize("source", ["kkt", "gradient", "fine-tuning"])
    def test_decay_without_its_source(self, tmp_path, model, other, source):
        files = {"gradient": ("--gradient", other), "fine-tuning": ("--initial", other)}
        options = ("--source", source, *files.get(source, ()), "--decay", 0.1)
        refused(tmp_path, "verify", model, *options, words="weight-decay with --decay")

    @pytest.mark.parametrize("decay", ["0", "-1", "nan", "inf", "x"])
    def test_decay_out_of_range(self, tmp_path, model, decay):
        options = ("--source", "weight-decay", "--decay", decay)
        refused(tmp_path, "verify", model, *options, words="--decay")

    def test_a_loss_that_is_no_margin_loss(self, tmp_path, model):
        refused(tmp_path, "verify", model, "--loss", "squared", words="--loss")

    @pytest.mark.parametrize("value", ["max-margin", ""])
    def test_unknown_source(self, tmp_path, model, value):
        refused(tmp_path, "verify", model, "--source", value, words="--source")

    def test_zero_gradient(self, tmp_path):
        model = stored(random_network(), tmp_path / "model.npz")
        zeros = {"hidden.weight": np.zeros((12, 6)), "output.weight": np.zeros((1, 12))}
        gradient = npz(tmp_path / "gradient.npz", **zeros)
        options = ("--source", "gradient", "--gradient", gradient)
        refused(tmp_path, "verify", model, *options, words="all zeros")

    def test_gradient_of_another_network(self, tmp_path):
        _, gradient, _ = gradient_pair(tmp_path, width=60)
        options = ("--source", "gradient", "--gradient", gradient)
        wide = stored(random_network(width=61), tmp_path / "wide.npz")
        refused(tmp_path, "verify", wide, *options, words="another network")
        same_shape = stored(random_network(seed=9, width=60), tmp_path / "same.npz")
        outcome = kkt("verify", same_shape, *options)
        assert outcome.code == 0
        assert "UNDECIDED" in outcome.out
        assert "another network" in " ".join(outcome.out.split())

    def test_no_gradient_of_the_first_layer(self, tmp_path):
        network = random_network()
        flat = TwoLayerNetwork(network.hidden_weight, np.zeros(12), 3)
        model = stored(flat, tmp_path / "model.npz")
        gradient = stored(flat.gradient(np.eye(6), np.ones(6)), tmp_path / "gradient.npz")
        options = ("--source", "gradient", "--gradient", gradient)
        refused(tmp_path, "verify", model, *options, words="first layer then has no gradient")

    def test_nothing_moved_in_fine_tuning(self, tmp_path, other):
        options = ("--source", "fine-tuning", "--initial", other)
        refused(tmp_path, "verify", other, *options, words="equal weights")

    def test_fine_tuning_of_another_shape(self, tmp_path, other):
        wide = stored(random_network(width=3, dimension=4), tmp_path / "wide.npz")
        options = ("--source", "fine-tuning", "--initial", wide)
        refused(tmp_path, "verify", other, *options, words="shape")

    def test_fine_tuning_of_another_degree(self, tmp_path, other):
        fifth = stored(random_network(width=2, dimension=4, degree=5), tmp_path / "fifth.npz")
        options = ("--source", "fine-tuning", "--initial", fifth)
        refused(tmp_path, "verify", other, *options, words="degree")


class TestOutput:
    @pytest.fixture
    def model(self, tmp_path, monkeypatch):
        """A model, and no way to begin with the work."""

        def work(*arguments, **options):
            raise AssertionError("the output folder was checked too late")

        monkeypatch.setattr("identify.assess.assess_identifiability", work)
        return stored(stationary_network(), tmp_path / "model.npz")

    @pytest.fixture(params=["verify", "recover", "alternatives"])
    def command(self, request):
        return request.param

    def test_a_file(self, tmp_path, model, command):
        (tmp_path / "file").write_text("kept")
        for force in ((), ("--force",)):
            out = ("--out", tmp_path / "file", *force)
            refused(tmp_path, command, model, *out, words="the file")

    def test_not_empty(self, tmp_path, model, command):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").write_text("kept")
        refused(tmp_path, command, model, "--out", tmp_path / "full", words="add --force")

    def test_below_a_file(self, tmp_path, model, command):
        (tmp_path / "file").write_text("kept")
        refused(tmp_path, command, model, "--out", tmp_path / "file" / "out", words="--out")

    def test_a_link_to_nowhere(self, tmp_path, model, command):
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        refused(tmp_path, command, model, "--out", tmp_path / "link", words="--out")

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
    def test_not_writable(self, tmp_path, model, command):
        refused(tmp_path, command, model, "--out", "/proc/kktcert", words="can be written")
        refused(tmp_path, command, model, "--out", "/proc/self", "--force", words="--out")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_not_permitted(self, tmp_path, model, command):
        (tmp_path / "locked").mkdir(mode=0o500)
        refused(tmp_path, command, model, "--out", tmp_path / "locked", words="can be written")

    def test_a_name_that_no_system_allows(self, tmp_path, model, command):
        refused(tmp_path, command, model, "--out", tmp_path / ("x" * 300), words="--out")


@pytest.mark.parametrize("command", ["audit", "alternatives"])
@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"samples": np.full((2, 4), np.inf)}, "NaN or infinity"),
        ({"samples": np.ones((2, 5))}, "4 numbers, as the network takes"),
        ({"samples": np.ones((2, 4), complex)}, "complex128"),
        ({}, "neither samples nor images"),
    ],
)
def test_data_beside_the_model(tmp_path, command, arrays, words):
    model = stored(stationary_network(), tmp_path / "model.npz")
    data = npz(tmp_path / "data.npz", **arrays)
    place = (data,) if command == "audit" else ("--from", data)
    refused(tmp_path, command, model, *place, "--out", tmp_path / "out", words=words)


def test_nothing_is_left_where_the_folder_was_new(tmp_path):
    model = npz(tmp_path / "model.npz", **ZEROS)
    out = tmp_path / "a" / "b"
    refused(tmp_path, "verify", model, *OPTIONS, "--out", out)
    assert not (tmp_path / "a").exists()


def test_names_from_a_file_cannot_break_the_line(tmp_path):
    model = npz(tmp_path / "model.npz", **{"a\n\x1b[2J": np.ones(1)})
    refused(tmp_path, "verify", model, *OPTIONS)


def test_in_a_process_of_its_own(tmp_path):
    model = tmp_path / "model.npz"
    save_network(random_network(activation=(0.0, 1.0, 0.0, 1.0)), model)
    run = subprocess.run(
        [sys.executable, "-m", "kktcert", "verify", str(model), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=Path(kktcert.__file__).parent,
    )
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert run.stderr.startswith("kktcert: error: polynomial activations are not yet supported")
    assert os.listdir(tmp_path) == ["model.npz"]
