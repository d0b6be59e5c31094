"""What goes wrong in and around runs: one clear line, the exit code, and nothing lost."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

import attack.runs.checkpoints
from attack.networks.files import save_network
from attack.networks.spec import parse_spec
from attack.runs.folder import load_run
from tests.attack.command.command_runs import (
    RUN_FILES,
    attack_arguments,
    evaluate_arguments,
    one_line,
)
from tests.command_line import files, kkt, refused


class TestBrokenRuns:
    """Nothing is lost: the folder is as before, or holds the last good state."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (("--count", 7), "count: expected 6"),
            (("--seed", 3), "seed: expected 0"),
            (("--steps", 10), "steps: expected 40"),
            (("--splitting", "off"), "with which the run was started"),
            (("--option", "floor=0.2"), "with which the run was started"),
        ],
    )
    def test_resuming_with_other_options(self, shop, run, tmp_path, change, words):
        arguments = list(attack_arguments(shop))
        if change[0] in arguments:
            arguments[arguments.index(change[0]) + 1] = change[1]
        else:
            arguments += change
        refused(tmp_path, *arguments, "--out", run, "--resume", words=words)

    @pytest.mark.parametrize("spec", ["64-31-1,relu", "64-30-1,relu", "64-30-1,tanh"])
    def test_resuming_with_another_network(self, shop, run, tmp_path, spec):
        model = tmp_path / "other.safetensors"
        save_network(parse_spec(spec).initialise(seed=5), model)
        arguments = ["attack", model, *attack_arguments(shop)[2:]]
        refused(tmp_path, *arguments, "--out", run, "--resume", words="with which the run was")

    @pytest.mark.parametrize("name", ["config.toml", "checkpoint.safetensors"])
    @pytest.mark.parametrize("damage", [b"", b"\x00\xff" * 50])
    def test_resuming_from_a_corrupt_folder(self, shop, run, tmp_path, name, damage):
        (run / name).write_bytes(damage)
        words = name if damage else ""
        refused(tmp_path, *attack_arguments(shop), "--out", run, "--resume", words=words)

    def test_resuming_from_a_truncated_checkpoint(self, shop, run, tmp_path):
        whole = (run / "checkpoint.safetensors").read_bytes()
        (run / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
        refused(
            tmp_path, *attack_arguments(shop), "--out", run, "--resume",
            words="checkpoint.safetensors: cannot be read",
        )  # fmt: skip

    @pytest.mark.parametrize("name", ["config.toml", "candidates.safetensors", "report.json"])
    @pytest.mark.parametrize("damage", [None, b"", b"\x00\xff" * 50, b"[]"])
    def test_judging_a_corrupt_folder(self, shop, run, tmp_path, name, damage):
        if damage is None:
            (run / name).unlink()
        else:
            (run / name).write_bytes(damage)
        refused(tmp_path, *evaluate_arguments(shop, run))
        refused(tmp_path, "figures", run, "--out", tmp_path / "figures")

    def test_a_folder_that_is_no_run(self, shop, tmp_path):
        for folder in (tmp_path / "absent", shop / "victim.json", tmp_path):
            refused(tmp_path, *evaluate_arguments(shop, folder))
            refused(tmp_path, "figures", folder, "--out", tmp_path / "figures")

    def test_nan_in_the_middle_keeps_the_last_good_candidates(self, shop, tmp_path):
        folder = tmp_path / "run"
        outcome = kkt(
            "attack", shop / "victim.safetensors", "--solver", "sgd", "--count", 6, "--steps", 300,
            "--setting", "rate_x=1e4", "--setting", "rate_lam=1e4", "--splitting", "off",
            "--out", folder,
        )  # fmt: skip
        one_line(outcome, 1, "lower rate_")
        assert set(files(folder)) >= RUN_FILES
        found = load_run(folder)
        assert np.isfinite(found.candidates).all()
        assert found.stopped == "not finite"
        assert kkt(*evaluate_arguments(shop, folder)).code == 0

    def test_a_full_disk_keeps_the_checkpoint_before(self, shop, tmp_path, monkeypatch):
        folder = tmp_path / "run"
        assert kkt(*attack_arguments(shop, steps=15), "--out", folder).code == 0
        before = (folder / "checkpoint.safetensors").read_bytes()
        whole = attack.runs.checkpoints.os.fsync

        def full(handle):
            if b"checkpoint" in Path(f"/proc/self/fd/{handle}").resolve().name.encode():
                raise OSError(errno.ENOSPC, "No space left on device")
            whole(handle)

        arguments = (*attack_arguments(shop), "--out", folder, "--resume")
        with monkeypatch.context() as patch:
            patch.setattr(attack.runs.checkpoints.os, "fsync", full)
            outcome = kkt(*arguments)
        one_line(outcome, 1, "No space left on device")
        assert (folder / "checkpoint.safetensors").read_bytes() == before
        assert not [path for path in folder.iterdir() if ".tmp" in path.name]
        assert kkt(*arguments).code == 0
        np.testing.assert_array_equal(
            load_run(folder).candidates, load_run(shop / "run").candidates
        )
