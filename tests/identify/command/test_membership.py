"""span and member on files."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from identify.model.losses import loss_slope
from identify.report.page.content import read_page
from tests.command_line import kkt
from tests.identify.checkpoints.training import Recipe, start, train
from tests.identify.command.test_deep import named
from tests.model_files import npz

SIZES = (40, 30, 10)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    before = start(SIZES, rng, "gelu")
    x, y = rng.random((9, 40)), rng.integers(0, 10, 9).astype(float)
    slopes = loss_slope("cross_entropy", before.value(x[:5]), y[:5]) / 5
    after = train(before, x[:5], y[:5], Recipe("plain", 12), rng)
    adam = train(before, x[:5], y[:5], Recipe("adam", 12, 1e-3), rng)
    return {
        "initial": npz(folder / "initial.npz", **named(before)),
        "final": npz(folder / "final.npz", **named(after)),
        "adam": npz(folder / "adam.npz", **named(adam)),
        "gradient": npz(folder / "gradient.npz", **named(before.gradient(x[:5], slopes))),
        "asked": npz(folder / "asked.npz", samples=x, labels=y),
        "others": npz(folder / "others.npz", samples=rng.random((19, 40))),
        "other": npz(folder / "other.npz", **named(start((39, 30, 10), rng))),
    }


def test_span_says_the_number_and_who_lies_in_it(files, tmp_path):
    out = tmp_path / "span.safetensors"
    arguments = ("span", files["initial"], files["final"], "--member", files["asked"])
    outcome = kkt(*arguments, "--held-out", files["others"], "--out", out)
    assert outcome.code == 0
    assert outcome.out.startswith("At least 5 samples, in a space of 5 dimensions.")
    assert "5 of 9 samples took part" in outcome.out
    assert out.is_file()
    assert kkt(*arguments, "--out", out).code == 2
    told = json.loads(kkt(*arguments, "--format", "json").out)
    assert told["samples_at_least"] == 5
    assert [s["answer"] for s in told["membership"]["samples"]] == ["member"] * 5 + ["no trace"] * 4


def test_spans_and_replays_are_for_the_owner_alone(files, tmp_path):
    labels = npz(tmp_path / "labels.npz", labels=np.load(files["asked"])["labels"][:5])
    pair, where = (files["initial"], files["final"]), tmp_path / "where"
    where.mkdir(mode=0o700)
    before = os.umask(0o000)
    try:
        assert kkt("span", *pair, "--out", where / "span.safetensors").code == 0
        recipe = ("--recipe", "steps=12,rate=0.05", "--activation", "gelu", "--labels", labels)
        assert kkt("replay", *pair, *recipe, "--image-shape", "5,8", "--out", where / "r").code == 0
    finally:
        os.umask(before)
    written = list(where.rglob("*"))
    assert {"span.safetensors", "samples.npz", "replay.json"} <= {path.name for path in written}
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_span_says_that_there_is_no_number(files, tmp_path):
    outcome = kkt("span", files["initial"], files["adam"], "--out", tmp_path / "s.safetensors")
    assert outcome.code == 1
    assert outcome.out.startswith("No number and no span")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("known", [(), ("--activation", "gelu")])
def test_member_finds_the_batch(files, known):
    arguments = ("member", files["initial"], files["asked"], "--gradient", files["gradient"])
    outcome = kkt(*arguments, "--held-out", files["others"], *known)
    assert outcome.code == 0
    assert outcome.out.startswith("5 of 9 samples took part")
    assert ("net.2" in outcome.out) == bool(known)


def test_member_with_the_loss_tests_the_labels(files, tmp_path):
    data = np.load(files["asked"])
    wrong = npz(tmp_path / "wrong.npz", samples=data["samples"], labels=(data["labels"] + 1) % 10)
    for images, count in ((files["asked"], 5), (wrong, 0)):
        outcome = kkt("member", files["initial"], images, "--gradient", files["gradient"],
                      "--activation", "gelu", "--loss", "cross-entropy")  # fmt: skip
        assert outcome.out.startswith(f"{count} of 9 samples took part")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("span", "initial", "other"), "40"),
        (("span", "initial", "initial"), "moved"),
        (("span", "initial", "final", "--held-out", "others"), "--member"),
        (("member", "other", "asked", "--gradient", "gradient"), "39"),
    ],
)
def test_what_does_not_fit_is_one_line(files, command, words):
    outcome = kkt(*(files.get(word, word) for word in command))
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("span", "initial", "final"),
        ("member", "initial", "asked", "--gradient", "gradient"),
        ("replay", "initial", "final", "--activation", "gelu", "--recipe", "steps=12,rate=0.05",
         "--labels", "0,1,2,3,4", "--out", "absent"),
    ],
)  # fmt: skip
def test_a_memory_limit_is_refused_beforehand(files, tmp_path, command):
    words = [tmp_path / word if word == "absent" else files.get(word, word) for word in command]
    outcome = kkt(*words, "--memory-limit", "1M")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--memory-limit" in outcome.err
    assert not list(tmp_path.iterdir())


def test_replay_writes_the_samples(files, tmp_path):
    data = np.load(files["asked"])
    labels = npz(tmp_path / "labels.npz", labels=data["labels"][:5])
    arguments = ("replay", files["initial"], files["final"], "--activation", "gelu", "--labels",
                 labels, "--no-images")  # fmt: skip
    out = tmp_path / "out"
    outcome = kkt(*arguments, "--recipe", "steps=12,rate=0.05", "--out", out)
    assert outcome.code == 0
    assert outcome.out.startswith("LOCALLY identifiable: 5 samples")
    found = np.load(out / "samples.npz")["samples"]
    distances = np.abs(found[:, None] - data["samples"][None, :5]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-6
    told = json.loads((out / "replay.json").read_text())
    assert told["verdict"] == "locally"
    assert told["scope"] == {"kind": "exactly", "samples": 5}
    assert (read_page((out / "report.html").read_text(encoding="utf-8"), "x").meaning) == "bad"
    span = tmp_path / "span.safetensors"
    assert kkt("span", files["initial"], files["final"], "--out", span).code == 0
    page = kkt("report", out, span, "--out", tmp_path / "all.html")
    assert page.out.startswith("1 of 2 runs"), page
    (out / "report.html").unlink()
    assert kkt("report", out, "--out", tmp_path / "one.html").out.startswith("1 of 1 runs")
    wrong = kkt(*arguments, "--recipe", "steps=20,rate=0.05", "--out", tmp_path / "wrong",
                "--starts", "1", "--time-limit", "5")  # fmt: skip
    assert wrong.code == 0
    assert wrong.out.startswith("undecided")


def test_replay_without_a_span_writes_nothing(files, tmp_path):
    recipe = ("--recipe", "steps=12,rate=0.001", "--labels", "0,1,2,3,4")
    arguments = ("replay", files["initial"], files["adam"], "--activation", "gelu", *recipe)
    outcome = kkt(*arguments, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "no span" in outcome.err
    assert not list(tmp_path.iterdir())
