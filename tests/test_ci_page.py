"""The Action and the script of docs/ci.md are run, but for what needs the network."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import yaml

import identify
from tests.test_readme import environment

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
ACTION = yaml.safe_load(BLOCKS["yaml"])


def run(script, folder):
    return subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def release(request, tmp_path):
    """A folder with a model and its data, and whether the model determines them."""
    if request.param == "determined":
        samples = np.random.default_rng(0).normal(size=(5, 12))
        network = identify.plant_network(
            samples, stationary="regression", determined=True
        ).network  # fmt: skip
    else:
        # No sample of these is in a set that explains the network.
        samples = np.array([[0.6, 0.8], [0.8, -0.6]])
        network = identify.TwoLayerNetwork(np.eye(2), np.full(2, 3.0**-0.5), degree=3)
    identify.save_network(network, tmp_path / "model.safetensors")
    np.savez(tmp_path / "data.npz", samples=samples)
    return tmp_path, request.param == "determined"


def test_the_action_is_a_workflow():
    # YAML 1.1 reads the word on as true.
    assert True in ACTION
    steps = ACTION["jobs"]["gate"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    upload = next(s for s in steps if "upload-sarif" in s.get("uses", ""))
    assert upload["if"] == "always()"
    assert f"> {upload['with']['sarif_file']}" in steps[3]["run"]
    assert ACTION["permissions"]["security-events"] == "write"
    install = shlex.split(steps[2]["run"])
    assert install[:4] == ["python", "-m", "pip", "install"]


@pytest.mark.parametrize(
    "release",
    [
        pytest.param("determined", marks=pytest.mark.medium),
        pytest.param("open", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_the_steps_stop_what_they_have_to_stop(release):
    folder, determined = release
    lines = [s["run"] for s in ACTION["jobs"]["gate"]["steps"] if "run" in s]
    done = [run(line, folder) for line in lines if "pip install" not in line]
    assert [d.returncode for d in done] == [3 if determined else 0], done
    found = json.loads((folder / "kktcert.sarif").read_text())["runs"][0]["results"]
    assert ("error" in {r["level"] for r in found}) is determined


@pytest.mark.parametrize(
    "release",
    [
        pytest.param("determined", marks=pytest.mark.slow),
        pytest.param("open", marks=pytest.mark.medium),
    ],
    indirect=True,
)
def test_the_script_for_releases(release):
    folder, determined = release
    done = run(BLOCKS["sh"], folder)
    assert done.returncode == (3 if determined else 0), done
    names = ["verify.xml"] if determined else ["verify.xml", "audit.xml", "check.xml"]
    failures = [len(ET.parse(folder / name).findall(".//failure")) for name in names]
    assert (sum(failures) > 0) is determined
    assert ("no proof of privacy" in done.stdout) is not determined
