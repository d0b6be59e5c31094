"""The attack commands from files to files: exit codes, what is printed, what is written."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kktcert
from attack.command.attack_options import ObjectiveName, SolverName, SplittingName, WindowName
from attack.command.training_options import SchemeName, TaskName, TrainingLoss
from attack.evaluation.metrics import SSIM_WINDOWS
from attack.networks.files import save_network
from attack.networks.spec import parse_spec
from attack.objectives import OBJECTIVES
from attack.runs.folder import load_run
from attack.solving.settings import SOLVERS, SPLITTING
from attack.training.images import TASKS
from attack.training.losses import LOSSES
from identify.model.dataset import load_samples
from identify.report.page.content import read_page
from tests.attack.command.command_runs import (
    RUN_FILES,
    attack_arguments,
    evaluate_arguments,
    one_line,
    run_files,
)
from tests.command_line import files, kkt, refused, results
from tests.model_files import npz

PNG = b"\x89PNG\r\n\x1a\n"


class TestAttack:
    def test_files_and_text(self, shop, tmp_path):
        outcome = kkt(*attack_arguments(shop), "--out", tmp_path / "a" / "run")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("Attack\n======\nobjective   haim by lbfgs\n")
        assert "(eps, gamma)" in outcome.out
        assert set(files(tmp_path / "a" / "run")) >= RUN_FILES
        found = load_run(tmp_path / "a" / "run")
        assert found.image_shape == (8, 8)
        assert found.settings["count"] == 6
        assert found.settings["solver"]["interval"] == 12

    def test_json(self, shop, tmp_path):
        outcome = kkt(*attack_arguments(shop), "--out", tmp_path / "run", "--format", "json")
        assert outcome.code == 0
        content = json.loads(outcome.out)
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert content == report
        assert content["objective"] == "haim"

    def test_a_resumed_run_is_that_of_one_go(self, shop, tmp_path):
        short = (*attack_arguments(shop, steps=20), "--out", tmp_path / "run")
        assert kkt(*short).code == 0
        outcome = kkt(*attack_arguments(shop), "--out", tmp_path / "run", "--resume")
        assert outcome.code == 0, outcome
        first, second = (load_run(folder) for folder in (shop / "run", tmp_path / "run"))
        np.testing.assert_array_equal(first.candidates, second.candidates)
        np.testing.assert_array_equal(first.multipliers, second.multipliers)

    def test_interrupted_and_resumed(self, shop, tmp_path, monkeypatch):
        from identify.command.output import Log

        def interrupt(self, stage, share):
            if share > 0.5:
                raise KeyboardInterrupt

        arguments = (*attack_arguments(shop), "--out", tmp_path / "run")
        with monkeypatch.context() as patch:
            patch.setattr(Log, "_plain", interrupt)
            outcome = kkt(*arguments)
        assert outcome.code == 130
        assert outcome.out == ""
        assert outcome.lines[0].endswith("the same command with --resume goes on")
        assert load_run(tmp_path / "run").stopped == "interrupted"
        assert kkt(*arguments, "--resume").code == 0
        np.testing.assert_array_equal(
            load_run(tmp_path / "run").candidates, load_run(shop / "run").candidates
        )

    def test_time_limit_ends_well(self, shop, tmp_path):
        outcome = kkt(
            *attack_arguments(shop, steps=10**7), "--out", tmp_path / "run", "--time-limit", 0.2,
        )  # fmt: skip
        assert outcome.code == 0
        assert "status      time limit reached; " in outcome.out

    def test_loo_with_its_preset_and_the_start_of_training(self, shop, tmp_path):
        outcome = kkt(
            "attack", shop / "victim.safetensors", "--preset", "loo", "--count", 5, "--steps", 3,
            "--initial", shop / "victim.initial.safetensors", "--add-mean",
            shop / "victim.truth.npz", "--splitting", "off", "--out", tmp_path / "run",
        )  # fmt: skip
        assert outcome.code == 0, outcome
        found = load_run(tmp_path / "run")
        assert found.settings["preset"] == "loo"
        assert found.settings["solver"]["solver"] == "adam"
        assert found.candidates.dtype == np.float32

    def test_gradient_matching_with_options(self, tmp_path):
        network = parse_spec("4-12-1,power3").initialise(seed=0)
        save_network(network, tmp_path / "m.safetensors")
        save_network(parse_spec("4-12-1,power3").initialise(seed=1), tmp_path / "g.safetensors")
        outcome = kkt(
            "attack", tmp_path / "m.safetensors", "--objective", "gradient_matching",
            "--gradient", tmp_path / "g.safetensors", "--option", "loss=squared", "--option",
            "box=[-2, 2]", "--count", 3, "--steps", 3, "--solver", "gauss-newton",
            "--out", tmp_path / "run",
        )  # fmt: skip
        assert outcome.code == 0, outcome
        penalties = load_run(tmp_path / "run").settings["objective"]["penalties"]
        assert any("2" in str(penalty) for penalty in penalties)

    def test_a_start_from_images_keeps_the_share(self, shop, tmp_path):
        outcome = kkt(
            *attack_arguments(shop, "off", steps=0), "--start", shop / "victim.held-out.npz",
            "--share", 0.5, "--mixture", "blend", "--start-scale", 0, "--out", tmp_path / "run",
        )  # fmt: skip
        assert outcome.code == 0, outcome
        found = load_run(tmp_path / "run")
        assert found.settings["start"]["share"] == 0.5
        others = load_samples(shop / "victim.held-out.npz").samples
        for row in found.candidates:
            assert np.abs(row - 0.5 * others).max(axis=1).min() < 1e-12

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--objective", "loo"), "initial: expected the network before training"),
            (("--preset", "loo"), "give theta_0 with --initial"),
            (("--objective", "gradient_matching"), "--gradient"),
            (("--objective", "bilevel"), "loss of bilevel"),
            (("--objective", "hope"), "--objective"),
            (("--objective", "buzaglo"), "at least two outputs"),
            (("--preset", "none"), "preset: expected one of"),
            (("--preset", "loo", "--objective", "haim"), "preset"),
            (("--objective", "loo", "--initial", "absent.npz"), "absent.npz"),
            (("--objective", "loo", "--initial", "other.safetensors"), "initial"),
            (("--objective", "gradient_matching", "--gradient", "other.safetensors"), "gradient"),
            (("--option", "floor"), "--option: expected NAME=VALUE"),
            (("--option", "roof=1"), "--option: expected some of"),
            (("--option", "floor=1", "--option", "floor=2"), "floor once"),
            (("--setting", "speed=1"), "--setting: expected some of"),
            (("--setting", "memory=0"), "memory"),
            (("--solver", "sgd", "--setting", "rate_x=-1"), "rate_x"),
            (("--count", 0), "--count"),
            (("--steps", -1), "--steps"),
            (("--share", 0.5), "--share"),
            (("--share", 2, "--start", "x.npz"), "--share"),
            (("--start", "absent.npz"), "absent.npz"),
            (("--start", "wide.npz"), "dimension 64"),
            (("--image-shape", "7,8"), "--image-shape"),
            (("--add-mean", "absent.npz"), "absent.npz"),
            (("--device", "cuda:9"), "--device"),
            (("--dtype", "float8"), "--dtype"),
            (("--layers", "a,b"), "layers"),
            (("--activation", "tanh"), "activation: expected relu"),
            (("--seed", -1), "--seed"),
            (("--time-limit", 0), "--time-limit"),
        ],
    )
    def test_bad_options(self, shop, tmp_path, monkeypatch, arguments, words):
        monkeypatch.chdir(tmp_path)
        save_network(parse_spec("64-29-1,relu").initialise(seed=0), "other.safetensors")
        npz(tmp_path / "wide.npz", samples=np.ones((2, 65)))
        model = shop / "victim.safetensors"
        refused(tmp_path, "attack", model, *arguments, "--out", "run", words=words)

    def test_labels_outside_the_classes(self, tmp_path):
        save_network(parse_spec("4-5-3,relu").initialise(seed=0), tmp_path / "m.safetensors")
        for labels, words in (([0, 3], "labels"), ([0.5, 1], "class numbers")):
            start = npz(tmp_path / "s.npz", samples=np.eye(4)[:2], labels=labels)
            refused(
                tmp_path, "attack", tmp_path / "m.safetensors", "--objective", "buzaglo",
                "--start", start, "--count", 2, "--out", tmp_path / "run", words=words,
            )  # fmt: skip

    def test_folders_that_cannot_take_a_run(self, shop, tmp_path):
        arguments = attack_arguments(shop)
        (tmp_path / "file").write_text("kept")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "note").write_text("kept")
        refused(tmp_path, *arguments, "--out", tmp_path / "file", words="--out: expected a folder")
        refused(tmp_path, *arguments, "--out", tmp_path / "file" / "run", words="below the file")
        refused(tmp_path, *arguments, "--out", tmp_path / "full", words="--resume")
        refused(tmp_path, *arguments, "--out", tmp_path / "full", "--resume", words="no run")


class TestEvaluate:
    def test_scores_beside_the_null(self, shop, run):
        before = run_files(run)
        outcome = kkt(*evaluate_arguments(shop, run))
        assert (outcome.code, outcome.err) == (0, "")
        assert "candidates    held-out  mean image      random" in outcome.out
        assert f"written to {run}: evaluation.json, evaluation.npz" in outcome.out
        assert run_files(run) == before
        page = read_page((run / "report.html").read_text(encoding="utf-8"), "page")
        assert (
            page.lead[0][1]
            in json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["conclusion"][
                "sentence"
            ]
        )
        assert len(page.pictures) == 2
        record = json.loads((run / "evaluation.json").read_text())
        assert set(record["null"]) == {"held_out", "mean_image", "random"}
        assert record["samples"] == 6
        assert record["found"]["candidates"] == len(load_run(run).candidates)
        assert record["curve"] == sorted(record["curve"])
        assert record["start"] is None
        with np.load(run / "evaluation.npz") as pictures:
            truth = load_samples(shop / "victim.truth.npz").samples
            np.testing.assert_allclose(pictures["truth"], truth, atol=1e-6)
            assert pictures["nearest_held_out"].shape == (6, 64)

    def test_json_and_the_same_seed(self, shop, run):
        outputs = [kkt(*evaluate_arguments(shop, run), "--format", "json").out for _ in range(2)]
        assert outputs[0] == outputs[1]
        content = json.loads(outputs[0])
        assert content["settings"]["half_size"] is True
        other = kkt(
            *evaluate_arguments(shop, run), "--format", "json", "--full-size", "--top", 3,
            "--seed", 8,
        )  # fmt: skip
        assert "top 3 ssim" in json.loads(other.out)["found"]["scores"]["matched_ncc"]["summary"]

    def test_without_held_out_images_the_missing_null_is_named(self, shop, run):
        outcome = kkt("evaluate", run, "--truth", shop / "victim.truth.npz")
        assert outcome.code == 0
        assert "the strongest null is missing" in outcome.out

    def test_few_held_out_images_are_named(self, shop, run, tmp_path):
        with np.load(shop / "victim.held-out.npz") as others:
            few = npz(tmp_path / "few.npz", samples=others["samples"][:3], mean=others["mean"])
        outcome = kkt("evaluate", run, "--truth", shop / "victim.truth.npz", "--held-out", few)
        assert "Only 3 held-out images for" in outcome.out

    def test_a_start_from_images_is_scored_too(self, shop, tmp_path):
        folder = tmp_path / "run"
        started = ("--start", shop / "victim.truth.npz", "--share", 0.8, "--start-scale", 0.1)
        assert kkt(*attack_arguments(shop, steps=3), *started, "--out", folder).code == 0
        outcome = kkt(*evaluate_arguments(shop, folder))
        assert outcome.code == 0
        assert "only what it gains over its start comes from the network" in outcome.out
        record = json.loads((folder / "evaluation.json").read_text())
        start = record["start"]["found"]["scores"]["matched_l2"]["summary"]
        null = record["null"]["random"]["scores"]["matched_l2"]["summary"]
        assert start["median l2"] < 0.8 * null["median l2"]

    def test_channels_first_are_put_last(self, tmp_path):
        rng = np.random.default_rng(0)
        images = rng.random((4, 5, 6, 3))
        network = parse_spec("90-6-1,tanh").initialise(seed=0)
        save_network(network, tmp_path / "m.safetensors")
        first = np.moveaxis(images, 3, 1) - 0.5
        npz(tmp_path / "t.npz", samples=first, mean=np.full((3, 5, 6), 0.5))
        folder = tmp_path / "run"
        outcome = kkt(
            "attack", tmp_path / "m.safetensors", "--count", 4, "--steps", 0, "--start",
            tmp_path / "t.npz", "--image-shape", "3,5,6", "--out", folder, "--splitting", "off",
        )  # fmt: skip
        assert outcome.code == 0, outcome
        assert kkt("evaluate", folder, "--truth", tmp_path / "t.npz").code == 0
        with np.load(folder / "evaluation.npz") as pictures:
            np.testing.assert_allclose(
                pictures["truth"].reshape(4, 5, 6, 3) + 0.5, images, atol=1e-6
            )
        record = json.loads((folder / "evaluation.json").read_text())
        assert record["image_shape"] == [5, 6, 3]
        summary = record["found"]["scores"]["matched_ncc"]["summary"]
        assert summary["median l2"] < 1e-6

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--truth", "wide.npz"), "samples of 64 numbers"),
            (("--truth", "absent.npz"), "absent.npz"),
            (("--truth", "truth.npz", "--held-out", "wide.npz"), "samples of 64 numbers"),
            (("--truth", "truth.npz", "--held-out", "truth.npz"), "6 of the true samples"),
            (("--truth", "truth.npz", "--held-out", "moved.npz"), "mean of the truth removed"),
            (("--truth", "truth.npz", "--add-mean", "moved.npz"), "--add-mean"),
            (("--truth", "bare.npz"), "give the mean that was removed"),
            (("--truth", "truth.npz", "--image-shape", "9,9"), "--image-shape"),
            (("--truth", "truth.npz", "--range", "1,0"), "--range"),
            (("--truth", "truth.npz", "--top", 0), "--top"),
            (("--truth", "truth.npz", "--seed", -1), "--seed"),
            (("--truth", "truth.npz", "--ssim-window", "big"), "--ssim-window"),
            ((), "--truth"),
        ],
    )
    def test_bad_options(self, shop, run, tmp_path, monkeypatch, arguments, words):
        monkeypatch.chdir(tmp_path)
        shutil.copy(shop / "victim.truth.npz", "truth.npz")
        with np.load("truth.npz") as truth:
            samples, mean = truth["samples"], truth["mean"]
        npz(tmp_path / "wide.npz", samples=np.ones((2, 65)))
        npz(tmp_path / "moved.npz", samples=samples + 0.01, mean=mean - 0.01)
        npz(tmp_path / "bare.npz", samples=samples)
        refused(tmp_path, "evaluate", run, *arguments, words=words)


class TestFigures:
    def test_figures_of_two_runs(self, shop, run, tmp_path):
        off = tmp_path / "off"
        assert kkt(*attack_arguments(shop, "off"), "--out", off).code == 0
        for folder in (run, off):
            assert kkt(*evaluate_arguments(shop, folder)).code == 0
        out = tmp_path / "figures"
        outcome = kkt("figures", run, off, "--out", out)
        assert outcome.code == 0, outcome
        index = json.loads((out / "figures.json").read_text())
        drawn = [part["file"] for part in index["figures"]]
        assert {"pairs-run.png", "pairs-off.png", "loss.png", "curve.png", "splitting.png"} <= set(
            drawn
        )
        assert set(results(out)) == {"figures.json", *drawn}
        assert all((out / name).read_bytes().startswith(PNG) for name in drawn)
        assert all("not drawn: " in line for line in outcome.lines)
        assert len(outcome.lines) == len(index["not_drawn"])
        # Figures of an earlier call that this one does not draw are no part of it.
        refused(tmp_path, "figures", run, "--out", out, words="--force")
        assert kkt("figures", run, "--out", out, "--force", "-q").code == 0
        assert "pairs-off.png" not in files(out)

    def test_scores_of_other_candidates_are_left_out(self, shop, tmp_path):
        folder = tmp_path / "run"
        assert kkt(*attack_arguments(shop, steps=20), "--out", folder).code == 0
        assert kkt(*evaluate_arguments(shop, folder)).code == 0
        assert kkt(*attack_arguments(shop, steps=25), "--out", folder, "--resume").code == 0
        outcome = kkt("figures", folder, "--out", tmp_path / "out")
        assert outcome.code == 0
        assert "not evaluated as it is now; run kktcert evaluate" in outcome.err
        assert not (tmp_path / "out" / "pairs-run.png").exists()

    def test_runs_of_one_name(self, shop, run, tmp_path):
        shutil.copytree(run, tmp_path / "b" / "run")
        assert kkt("figures", run, tmp_path / "b" / "run", "--out", tmp_path / "out").code == 0
        index = json.loads((tmp_path / "out" / "figures.json").read_text())
        (losses,) = (part for part in index["figures"] if part["file"] == "loss.png")
        assert len(losses["numbers"]) == 2

    def test_nothing_to_draw(self, shop, tmp_path):
        folder, out = tmp_path / "run", tmp_path / "out"
        assert kkt(*attack_arguments(shop, "off", steps=0), "--out", folder).code == 0
        outcome = kkt("figures", folder, "--out", out, "-q")
        one_line(outcome, 1, "no figure to draw")
        assert not out.exists()

    @pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"candidates_sha256": 3}'])
    def test_damaged_scores(self, shop, run, tmp_path, damage):
        (run / "evaluation.json").write_bytes(damage)
        words = "run kktcert evaluate again"
        refused(tmp_path, "figures", run, "--out", tmp_path / "out", words=words)

    def test_damaged_pictures(self, shop, run, tmp_path):
        assert kkt(*evaluate_arguments(shop, run)).code == 0
        (run / "evaluation.npz").write_bytes(b"PK")
        refused(tmp_path, "figures", run, "--out", tmp_path / "out", words="evaluation.npz")


class TestPage:
    """docs/attack.md: its commands run in order and print what is pasted below them."""

    PAGE = Path(kktcert.__file__).parent / "docs" / "attack.md"

    @pytest.mark.medium
    def test_pasted_output_is_what_the_commands_print(self, tmp_path, monkeypatch):
        spec = importlib.util.spec_from_file_location(
            "refresh_outputs", self.PAGE.with_name("refresh_outputs.py")
        )
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.chdir(tmp_path)

        def run(command):
            outcome = kkt(*command.split()[1:])
            assert outcome.code == 0, (command, outcome.err)
            return outcome.out

        page = self.PAGE.read_text(encoding="utf-8")
        blocks = [
            re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
            for text in (page, tool.refresh(page, run))
        ]
        for old, new in zip(*blocks, strict=True):
            assert masked(new) == masked(old)
        # What the text around the output says.
        run_, null = scores("off")
        assert run_["ssim > 0.4"] > null["ssim > 0.4"]
        assert run_["median l2"] < 0.6 * null["median l2"]
        run_, null = scores("haim")
        assert run_["median ssim"] < null["median ssim"]
        run_, null = scores("loo")
        assert run_["median l2"] < 0.5 * null["median l2"]


def masked(text):
    """Words alone: numbers, widths and names of what ended a run differ between machines."""
    text = re.sub(r"^tidied .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^status .*?; loss .*$", "status", text, flags=re.MULTILINE)
    return " ".join(re.sub(r"\b[0-9a-f]{12,}\b|[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", text).split())


def scores(folder):
    record = json.loads(Path(folder, "evaluation.json").read_text())
    return (
        part["scores"]["matched_ncc"]["summary"]
        for part in (record["found"], record["null"]["held_out"])
    )


@pytest.mark.parametrize(
    ("arguments", "package", "words"),
    [
        (("train", "digits", "--network", "4-1,relu", "--out", "m"), "torch", "kktcert[attack]"),
        (("attack", "m.npz", "--out", "r"), "torch", "kktcert[attack]"),
        (("evaluate", "r", "--truth", "t.npz"), "torch", "kktcert[attack]"),
        (("figures", "r", "--out", "f"), "torch", "kktcert[attack]"),
        (("figures", "r", "--out", "f"), "matplotlib", "kktcert[demo]"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, arguments, package, words):
    find = importlib.util.find_spec
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else find(name)
    )
    refused(tmp_path, *arguments, words=f"pip install '{words}'")


LIGHT = """
import sys
import kktcert
for arguments in (["--help"], ["attack", "--help"], ["inspect", sys.argv[1]]):
    assert kktcert.run(arguments) == 0
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.medium
def test_help_and_the_verifier_do_without_torch(shop):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, shop / "victim.safetensors"],
        cwd=Path(kktcert.__file__).parent,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    for command in ("train", "attack", "evaluate", "figures"):
        assert f" {command} " in done.stdout
    modules = set(done.stdout.splitlines()[-1].split())
    assert not modules & {"torch", "torchmetrics", "matplotlib", "sklearn", "sympy"}


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (ObjectiveName, OBJECTIVES), (SolverName, SOLVERS), (SplittingName, SPLITTING),
        (TaskName, TASKS), (TrainingLoss, LOSSES), (WindowName, SSIM_WINDOWS),
        (SchemeName, ("uniform", "lecun")),
    ],
)  # fmt: skip
def test_options_offer_what_the_library_knows(words, known):
    assert {word.value for word in words} == set(known)
