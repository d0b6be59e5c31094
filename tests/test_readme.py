"""The README's examples run as they stand, and what it shows is what the commands print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import identify

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def block(language):
    found = [text for name, text in BLOCKS if name == language]
    assert len(found) == 1
    return found[0]


def environment():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def run_gate(folder):
    return subprocess.run(
        ["sh", "-c", block("sh")],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.medium
def test_library_example_prints_what_is_shown(tmp_path):
    script = tmp_path / "example.py"
    script.write_text(block("python"), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    shown = README.split("It prints:\n\n```\n", 1)[1].split("```", 1)[0]
    assert run.stdout == shown


@pytest.mark.medium
def test_gate_blocks_weights_that_determine_their_samples(tmp_path):
    samples = np.random.default_rng(0).normal(size=(5, 12))
    planted = identify.plant_network(samples, stationary="regression", determined=True)
    identify.save_network(planted.network, tmp_path / "model.safetensors")
    run = run_gate(tmp_path)
    assert run.returncode == 3
    assert "gate: blocked, the weights determine" in run.stderr
    assert '"verdict": "globally"' in (tmp_path / "privacy-report/report.json").read_text()


@pytest.mark.medium
def test_gate_lets_weights_pass_that_do_not(tmp_path):
    network = identify.TwoLayerNetwork(np.eye(2), np.full(2, 3.0**-0.5), degree=3)
    identify.save_network(network, tmp_path / "model.safetensors")
    run = run_gate(tmp_path)
    assert run.returncode == 0
    assert "no proof of privacy" in run.stdout
    assert '"verdict": "nonidentifiable"' in (tmp_path / "privacy-report/report.json").read_text()


@pytest.mark.medium
def test_gate_blocks_a_model_that_cannot_be_read(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    run = run_gate(tmp_path)
    assert run.returncode == 2
    assert "gate: blocked, the model was not verified" in run.stderr
    assert not (tmp_path / "privacy-report").exists()


@pytest.mark.parametrize("verdict", [v.value for v in identify.Verdict])
def test_every_verdict_is_in_the_table(verdict):
    assert re.search(rf"^\| `{verdict}` \|", README, flags=re.MULTILINE)


def test_links_resolve():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_picture_is_small():
    assert (ROOT / "docs/images/overview.png").stat().st_size < 400_000
