"""`kktcert train` from files to files: exit codes, what is printed, what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from attack.networks.files import load_network
from identify.model.dataset import load_samples
from identify.model.loading import load_network as load_two_layers
from tests.attack.command.command_runs import one_line
from tests.command_line import files, kkt, refused
from tests.model_files import npz


class TestTrain:
    def test_files(self, shop):
        names = {
            "victim.safetensors", "victim.initial.safetensors", "victim.truth.npz",
            "victim.held-out.npz", "victim.json",
        }  # fmt: skip
        assert names <= {path.name for path in shop.iterdir()}
        final, first = (load_network(shop / f"victim{k}.safetensors") for k in ("", ".initial"))
        assert repr(final) == repr(first) == "Network(64-30-1,relu,bias=first)"
        truth = load_samples(shop / "victim.truth.npz")
        assert truth.image_shape == (8, 8)
        assert truth.labels.tolist().count(1.0) == 3
        margins = truth.labels * final(torch.from_numpy(truth.samples))[:, 0].numpy()
        record = json.loads((shop / "victim.json").read_text())
        np.testing.assert_allclose(record["training"]["margins"], margins)
        assert record["training"]["sha256"] == final.sha256()
        assert record["training"]["initial_sha256"] == first.sha256()
        assert record["training"]["loss"] <= 1e-8
        assert record["data"]["count"] == 6

    def test_held_out_images_are_the_next_ones_with_the_same_mean(self, shop):
        with np.load(shop / "victim.truth.npz") as a, np.load(shop / "victim.held-out.npz") as b:
            np.testing.assert_array_equal(a["mean"], b["mean"])
            assert len(b["samples"]) == 24
            assert not set(a["indices"]) & set(b["indices"])
            np.testing.assert_allclose(a["samples"].mean(axis=0), 0.0, atol=1e-12)

    def test_no_images_are_left(self, tmp_path):
        data = npz(tmp_path / "d.npz", samples=np.eye(4), labels=[-1, 1, -1, 1])
        outcome = kkt(
            "train", data, "--network", "4-5-1,relu", "--per-class", 2, "--mean", "none",
            "--steps", 3, "--out", tmp_path / "m.safetensors",
        )  # fmt: skip
        assert outcome.code == 0
        assert outcome.lines == ["kktcert: no held-out images: none are left of what was asked for"]
        assert not (tmp_path / "m.held-out.npz").exists()
        assert "m.safetensors, m.initial.safetensors, m.truth.npz, m.json" in outcome.out

    def test_json_and_the_same_seed(self, tmp_path):
        arguments = ("train", "digits", "--network", "64-9-10,tanh", "--count", 30, "--steps", 5)
        found = []
        for name in ("a", "b"):
            outcome = kkt(*arguments, "--out", tmp_path / name, "--format", "json", "--seed", 4)
            assert (outcome.code, outcome.err) == (0, "")
            found.append(json.loads(outcome.out))
        assert found[0]["settings"]["loss"] == "cross-entropy"
        assert found[0]["data"]["task"] == "multiclass"
        assert found[0]["steps"] == 5
        assert found[0]["sha256"] == found[1]["sha256"]
        assert (tmp_path / "a.safetensors").read_bytes() == (
            tmp_path / "b.safetensors"
        ).read_bytes()

    def test_force_replaces_all_files_and_nothing_else_does(self, tmp_path):
        arguments = (
            "train", "digits", "--network", "64-3-1,relu", "--per-class", 2, "--steps", 2,
            "--out", tmp_path / "m",
        )  # fmt: skip
        assert kkt(*arguments).code == 0
        refused(tmp_path, *arguments, "--seed", 1, words="--force")
        before = files(tmp_path)
        assert kkt(*arguments, "--seed", 1, "--force").code == 0
        after = files(tmp_path)
        assert after["m.safetensors"] != before["m.safetensors"]
        # Without images left, those of the earlier run would belong to other data.
        data = npz(tmp_path / "d.npz", samples=np.eye(64)[:4], labels=[-1, 1, -1, 1])
        arguments = (arguments[0], data, *arguments[2:])
        assert kkt(*arguments, "--mean", "none", "--force").code == 0
        assert "m.held-out.npz" not in files(tmp_path)

    def test_fine_tuning_starts_from_the_file(self, shop, tmp_path):
        outcome = kkt(
            "train", "digits", "--initial", shop / "victim.safetensors", "--skip", 5,
            "--per-class", 2, "--steps", 4, "--out", tmp_path / "tuned",
        )  # fmt: skip
        assert outcome.code == 0, outcome
        start = load_network(tmp_path / "tuned.initial.safetensors")
        assert start.sha256() == load_network(shop / "victim.safetensors").sha256()
        assert load_network(tmp_path / "tuned.safetensors").sha256() != start.sha256()

    @pytest.mark.parametrize(("dtype", "rounding"), [("float64", 2.0**-53), ("float32", 2.0**-24)])
    def test_networks_that_the_verifier_covers_are_written_for_it(self, tmp_path, dtype, rounding):
        model = tmp_path / "model.safetensors"
        outcome = kkt(
            "train", "digits", "--network", "64-8-1,power3", "--per-class", 2, "--scale", 0.1,
            "--steps", 3, "--dtype", dtype, "--out", model,
        )  # fmt: skip
        assert outcome.code == 0, outcome
        two = load_two_layers(model)
        assert (two.degree, two.width, two.has_bias) == (3, 8, True)
        assert two.rounding == rounding
        assert repr(load_network(model)) == "Network(64-8-1,power3,bias=first)"

    def test_one_hot_targets_keep_class_numbers_as_labels(self, tmp_path):
        outcome = kkt(
            "train", "digits", "--network", "64-5-10,relu", "--task", "one-hot", "--per-class", 1,
            "--steps", 2, "--out", tmp_path / "m",
        )  # fmt: skip
        assert outcome.code == 0
        assert load_samples(tmp_path / "m.truth.npz").labels.tolist() == list(range(10))
        with np.load(tmp_path / "m.truth.npz") as truth:
            assert truth["targets"].shape == (10, 10)

    def test_an_interrupt_writes_what_was_reached(self, tmp_path, monkeypatch):
        from identify.command.output import Log

        def interrupt(self, stage, share):
            if share > 0.5:
                raise KeyboardInterrupt

        monkeypatch.setattr(Log, "_plain", interrupt)
        outcome = kkt(
            "train", "digits", "--network", "64-20-1,relu", "--per-class", 5, "--scale", 1e-4,
            "--target-loss", 0, "--steps", 300, "--out", tmp_path / "m",
        )  # fmt: skip
        assert outcome.code == 130
        assert "(interrupted)" in outcome.out
        assert "--initial continues from it" in outcome.err
        record = json.loads((tmp_path / "m.json").read_text())
        assert 0 < record["training"]["steps"] < 300
        load_network(tmp_path / "m.safetensors")

    def test_time_limit_keeps_what_was_reached(self, tmp_path):
        outcome = kkt(
            "train", "digits", "--network", "64-50-1,relu", "--per-class", 90, "--scale", 1e-4,
            "--target-loss", 0, "--steps", 10**8, "--time-limit", 0.3, "--out", tmp_path / "m",
        )  # fmt: skip
        assert outcome.code == 0
        assert "(time limit)" in outcome.out

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((), "--network"),
            (("--network", "64-x"), "network: expected"),
            (("--network", "63-5-1,relu"), "samples: expected shape (n, 63)"),
            (("--network", "64-5-1,relu", "--per-class", 0), "--per-class"),
            (("--network", "64-5-1,relu", "--per-class", 10**6), "per_class: expected at most"),
            (("--network", "64-5-1,relu", "--classes", "1,x"), "--classes"),
            (("--network", "64-5-1,relu", "--classes", "1,11"), "classes: expected different"),
            (("--network", "64-5-1,relu", "--decay", -1), "--decay"),
            (("--network", "64-5-1,relu", "--rate", 0), "--rate"),
            (("--network", "64-5-1,relu", "--steps", -1), "--steps"),
            (("--network", "64-5-1,relu", "--device", "cuda:7"), "--device"),
            (("--network", "64-5-1,relu", "--device", "toaster"), "--device"),
            (("--network", "64-5-1,relu", "--device", "meta"), "--device"),
            (("--network", "64-5-1,relu", "--layers", "a,b"), "--initial"),
            (("--network", "64-5-2,relu", "--loss", "logistic"), "1 output"),
            (("--network", "64-5-1,relu", "--loss", "cross-entropy"), "2 outputs"),
            (("--initial", "absent.npz"), "absent.npz"),
            (("--initial", "absent.npz", "--scale", 1), "--scale"),
        ],
    )
    def test_bad_options(self, tmp_path, monkeypatch, arguments, words):
        monkeypatch.chdir(tmp_path)
        refused(tmp_path, "train", "digits", *arguments, "--out", "m", words=words)

    @pytest.mark.parametrize(
        ("out", "words"),
        [("m.npz", "--out"), ("absent/m", "folder that exists"), (".", "--out")],
    )
    def test_bad_targets(self, tmp_path, monkeypatch, out, words):
        monkeypatch.chdir(tmp_path)
        refused(tmp_path, "train", "digits", "--network", "64-5-1,relu", "--out", out, words=words)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--network", "4-5-1,relu"), "task: expected two classes, got 3"),
            (("--network", "4-5-2,relu"), "labels: expected classes 0 to 1, got 2"),
            (
                ("--network", "4-5-1,relu", "--loss", "logistic", "--task", "regression"),
                "+1 and -1",
            ),
        ],
    )
    def test_labels_outside_the_classes(self, tmp_path, arguments, words):
        data = npz(tmp_path / "d.npz", samples=np.eye(4)[:3], labels=[0, 1, 2])
        refused(tmp_path, "train", data, *arguments, "--out", tmp_path / "m", words=words)

    def test_a_loss_that_is_not_finite_is_a_failed_run(self, tmp_path):
        before = files(tmp_path)
        outcome = kkt(
            "train", "digits", "--network", "64-9-1,relu", "--loss", "squared", "--per-class", 5,
            "--batch", 4, "--rate", 1e6, "--out", tmp_path / "m",
        )  # fmt: skip
        one_line(outcome, 1, "lower the rate")
        assert files(tmp_path) == before
