"""A victim and a run on it for the tests of the attack commands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.attack.command.command_runs import attack_arguments
from tests.command_line import kkt

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A folder with a binary victim, and a run on it."""
    folder = tmp_path_factory.mktemp("shop")
    assert kkt(
        "train", "digits", "--network", "64-30-1,relu", "--per-class", 3, "--scale", 1e-2,
        "--target-loss", 1e-8, "--out", folder / "victim", "-q",
    ).code == 0  # fmt: skip
    assert kkt(*attack_arguments(folder), "--out", folder / "run", "-q").code == 0
    return folder


@pytest.fixture
def run(shop, tmp_path):
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(shop / "run", tmp_path / "run"))
