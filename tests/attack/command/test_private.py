"""What the attack commands write is for the owner alone; what they may take; how they end."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tests.attack.command.command_runs import finished_run
from tests.command_line import kkt
from tests.model_files import npz


@pytest.fixture
def loose():
    before = os.umask(0o000)
    yield
    os.umask(before)


def open_to_others(folder):
    return [str(p) for p in folder.rglob("*") if p.stat().st_mode & 0o077]


@pytest.fixture
def judged(tmp_path):
    """A run of no steps and its truth: the arguments of evaluate."""
    rows = np.random.default_rng(0).random((6, 64))
    run = finished_run(tmp_path, rows + 0.01, (8, 8))
    truth = npz(tmp_path / "t.npz", samples=rows)
    return run, ("evaluate", run, "--truth", truth)


@pytest.mark.usefixtures("loose")
def test_a_victim_its_run_and_its_scores_are_private(tmp_path):
    where = tmp_path / "out"
    where.mkdir(mode=0o700)
    victim = where / "v.safetensors"
    made = kkt("train", "digits", "--network", "64-9-1,relu", "--per-class", 1, "--steps", 3,
               "--out", victim)  # fmt: skip
    assert made.code == 0, made
    found = kkt("attack", victim, "--count", 3, "--steps", 2, "--splitting", "off",
                "--out", where / "run")  # fmt: skip
    assert found.code == 0, found
    scored = kkt("evaluate", where / "run", "--truth", where / "v.truth.npz")
    assert scored.code == 0, scored
    drawn = kkt("figures", where / "run", "--out", where / "figures")
    assert drawn.code == 0, drawn
    more = kkt("attack", victim, "--count", 3, "--steps", 4, "--splitting", "off",
               "--out", where / "run", "--resume")  # fmt: skip
    assert more.code == 0, more
    names = {path.suffix for path in where.rglob("*")}
    assert {".safetensors", ".npz", ".png", ".json"} <= names
    assert open_to_others(where) == []


def test_no_image_of_the_truth_is_kept(judged):
    run, arguments = judged
    assert kkt(*arguments).code == 0
    assert (run / "evaluation.npz").exists()
    found = kkt(*arguments, "--no-images")
    assert found.code == 0
    assert "evaluation.npz" not in found.out
    assert not (run / "evaluation.npz").exists()
    assert (run / "evaluation.json").exists()


def test_an_evaluation_ends_with_its_conclusion(judged):
    run, arguments = judged
    text = " ".join(kkt(*arguments).out.split())
    assert "Conclusion: better than everything that knows nothing of the samples" in text
    assert json.loads(kkt(*arguments, "--format", "json").out)["conclusion"]["word"] == "better"
    assert json.loads((run / "evaluation.json").read_text())["conclusion"]["word"] == "better"


@pytest.mark.parametrize("limit", ["1MB", "50M"])
def test_too_little_memory_is_refused_beforehand(tmp_path, judged, limit):
    victim = tmp_path / "v.safetensors"
    small = ("--memory-limit", limit)
    made = ("train", "digits", "--network", "64-9-1,relu", "--per-class", 1, "--steps", 1)
    refused = kkt(*made, "--out", victim, *small)
    assert not victim.exists()
    assert kkt(*made, "--out", victim, "--memory-limit", "4GB").code == 0
    attack = ("attack", victim, "--steps", 1, "--splitting", "off", "--out", tmp_path / "r")
    for found in (refused, kkt(*attack, *small), kkt(*judged[1], *small)):
        assert found.code == 2
        assert len(found.lines) == 1
        assert "the estimate for this work" in found.err
    assert not (tmp_path / "r").exists()


def test_threads_are_those_of_the_run(tmp_path):
    victim = tmp_path / "v.safetensors"
    made = ("train", "digits", "--network", "64-9-1,relu", "--per-class", 1, "--steps", 1)
    assert kkt(*made, "--out", victim, "--threads", 1).code == 0
    attack = ("attack", victim, "--steps", 1, "--splitting", "off", "--count", 2)
    assert kkt(*attack, "--out", tmp_path / "r", "--threads", 2).code == 0
    assert "threads = 2" in (tmp_path / "r" / "config.toml").read_text()
