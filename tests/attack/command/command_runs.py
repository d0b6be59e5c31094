"""Arguments and checks for the tests of the attack commands."""

from __future__ import annotations

import torch

from attack.networks.spec import parse_spec
from attack.reconstruction import reconstruct
from tests.command_line import files
from tests.model_files import npz

RUN_FILES = {"candidates.safetensors", "checkpoint.safetensors", "config.toml", "report.json"}


def run_files(folder):
    """Everything in a run folder but what `evaluate` adds or writes anew."""
    added = ("evaluation", "report.html")
    return {k: v for k, v in files(folder).items() if not k.startswith(added)}


def one_line(outcome, code, words):
    """Assert that the command failed with that code and exactly one line."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert len(outcome.lines) == 1, outcome.err
    assert outcome.lines[0].startswith("kktcert: error: ")
    assert outcome.lines[0].isprintable()
    assert words in outcome.err


def attack_arguments(folder, splitting="auto", steps=40):
    return (
        "attack", folder / "victim.safetensors", "--objective", "haim", "--count", 6,
        "--steps", steps, "--splitting", splitting, "--image-shape", "8,8",
        "--setting", "interval=12",
    )  # fmt: skip


def evaluate_arguments(shop, run):
    return (
        "evaluate", run, "--truth", shop / "victim.truth.npz",
        "--held-out", shop / "victim.held-out.npz",
    )  # fmt: skip


def finished_run(folder, rows, image_shape):
    """The folder of a run of no steps, whose candidates are the rows."""
    start = npz(folder / "start.npz", samples=rows)
    victim = parse_spec(f"{rows.shape[1]}-5-1,tanh").initialise(seed=0)
    reconstruct(
        victim, "haim", start=str(start), count=len(rows), steps=0, splitting="off",
        image_shape=image_shape, dtype=torch.float64, out=folder / "run",
    )  # fmt: skip
    return folder / "run"
