"""What goes out: wheel and source archive, links of the README, and whose folder identify is."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import identify

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
README = (ROOT / "README.md").read_text(encoding="utf-8")
INDEX = "https://forge.invalid/owner/kktcert"
NEEDED = (
    "kktcert.py",
    "identify/py.typed",
    "identify/report.schema.json",
    "identify/deep_report.schema.json",
    "identify/stationary_report.schema.json",
    "identify/pair_report.schema.json",
    "identify/report/page/page.html.j2",
    "attack/py.typed",
    "proofs_check/py.typed",
)
BUILD = "from setuptools import build_meta as b; print(b.build_{kind}('dist'))"


def test_a_release_has_absolute_links_and_nothing_else_changes():
    text = SETUP["absolute"](README, INDEX, "1.2.3")
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert images
    assert all(image.startswith(f"{INDEX}/raw/v1.2.3/docs/images/") for image in images)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    for one, other in zip(re.findall(r"\]\(([^)]+)\)", README), links, strict=True):
        assert other.endswith(one)
    assert SETUP["absolute"]("[a](https://b) [c](#d)", INDEX, "1") == "[a](https://b) [c](#d)"
    assert set(SETUP["urls"](INDEX, "1")) == {"Source", "Documentation", "Changelog", "Issues"}


def test_the_citation_is_of_this_version():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "type"} <= set(found)
    assert (str(found["version"]), found["license"]) == (PROJECT["version"], PROJECT["license"])


def test_every_direct_requirement_is_pinned():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for part in extras.values() for line in part)]
    named = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in lines} - {"kktcert"}
    assert named - pinned == set()


def test_the_three_commands_of_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([\w-]+) ", text, flags=re.MULTILINE)
    assert len(commands) == 3
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [
        c for c in commands if not re.search(rf"^(.* )?{c}( .*)?:", makefile, re.MULTILINE)
    ] == []


@pytest.mark.medium
def test_importing_warns_of_another_owner_of_the_folder(tmp_path):
    def warned():
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        run = subprocess.run(
            [sys.executable, "-c", "import identify; print(identify.__file__)"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == str(ROOT / "identify" / "__init__.py")
        return run.stderr

    assert "RuntimeWarning" not in warned()
    info = tmp_path / "identify-2.6.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: identify\nVersion: 2.6.1\n")
    told = warned()
    assert told.count("RuntimeWarning") == 1
    assert "identify 2.6.1" in told


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and source archive of a copy of what git knows, or would."""
    folder = tmp_path_factory.mktemp("build") / "kktcert"
    kept = shutil.ignore_patterns(
        ".*", "*.egg-info", "build", "dist", "_build", "__pycache__", "demo-output"
    )
    shutil.copytree(ROOT, folder, ignore=kept)
    names = {}
    for kind in ("wheel", "sdist"):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BUILD.format(kind=kind)],
            cwd=folder,
            env={**os.environ, "KKTCERT_REPOSITORY": INDEX},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        names[kind] = folder / "dist" / run.stdout.splitlines()[-1]
    return names


@pytest.mark.slow
def test_wheel_and_source_archive_hold_what_is_needed(built):
    with zipfile.ZipFile(built["wheel"]) as archive:
        inside = set(archive.namelist())
        metadata = next(name for name in inside if name.endswith("/METADATA"))
        text = archive.read(metadata).decode("utf-8")
    assert [name for name in NEEDED if name not in inside] == []
    assert not [name for name in inside if name.startswith(("tests", "docs"))]
    assert f"Project-URL: Source, {INDEX}" in text
    assert f"{INDEX}/raw/v{PROJECT['version']}/docs/images/" in text
    with tarfile.open(built["sdist"]) as archive:
        root = archive.getnames()[0].split("/")[0]
        packed = set(archive.getnames())
    more = ("tests/test_distribution.py", "docs/index.md", "constraints.txt", "CITATION.cff")
    assert [n for n in (*NEEDED, *more) if f"{root}/{n}" not in packed] == []
    modules = {n for n in inside if n.endswith((".py", ".j2", ".json"))}
    assert [n for n in modules if f"{root}/{n}" not in packed] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_empty_environment_runs_a_verdict(built, kind, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*words, check=True):
        return subprocess.run(
            words, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=500, check=check
        )

    constraints = str(ROOT / "constraints.txt")
    done = run(python, "-m", "pip", "install", "-q", "-c", constraints, built[kind], check=False)
    if done.returncode and re.search(r"Connection|resolution|Retry|Network", done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    where = run(python, "-c", "import identify; print(identify.__file__)").stdout
    assert where.startswith(str(tmp_path))
    command = tmp_path / "env" / "bin" / "kktcert"
    assert "verify" in run(command, "--help").stdout
    samples = np.random.default_rng(0).normal(size=(4, 9))
    planted = identify.plant_network(samples, stationary="regression", determined=True)
    identify.save_network(planted.network, tmp_path / "model.safetensors")
    words = ("verify", "model.safetensors", "--source", "weight-decay", "--out", "report")
    assert "GLOBALLY identifiable" in run(command, *words).stdout
    assert "<!doctype html>" in (tmp_path / "report" / "report.html").read_text()
    check = ("check", "report/report.json", "model.safetensors", "--source", "weight-decay")
    assert "outcome: confirmed" in run(command, *check).stdout
