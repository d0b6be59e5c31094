"""Runs that stop and go on: time limits, kills, damaged folders."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import attack
from attack.networks.files import save_network
from attack.networks.spec import parse_spec
from attack.runs.checkpoints import load_state, pack
from attack.runs.folder import CANDIDATES, CHECKPOINT, CONFIG, LOG, REPORT
from identify.errors import FileError, InvalidInputError


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


VICTIM = parse_spec("5-12-1,relu").initialise(seed=0)
FIELDS: dict[str, Any] = {
    "count": 4, "steps": 30, "solver": "adam", "start_scale": 0.3,
    "settings": {"interval": 8, "log_every": 2}, "splitting": "auto",
}  # fmt: skip


def run(out: Path | None = None, **changes: Any) -> attack.Run:
    return attack.reconstruct(VICTIM, **{**FIELDS, "out": out, **changes})


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What comes out ---------------------------------------------------------------------------------


RESUMED: dict[str, dict[str, Any]] = {
    "adam": {},
    "lbfgs": {"solver": "lbfgs", "start_scale": 0.5},
    "sgd paper": {
        "solver": "sgd", "splitting": "paper",
        "settings": {"interval": 7, "rate_x": 0.02, "rate_lam": 0.01},
    },
}  # fmt: skip


def hasty_clock() -> SimpleNamespace:
    """Every look at this clock takes 1,000 seconds."""
    began, looks = time.monotonic(), itertools.count()
    return SimpleNamespace(monotonic=lambda: began + 1e3 * next(looks))


@pytest.mark.medium
@pytest.mark.parametrize("case", sorted(RESUMED))
def test_a_time_limit_and_a_resume_change_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = RESUMED[case]
    whole = run(tmp_path / "whole", **fields)
    parts = 0
    while parts < 30:  # at least one step each
        monkeypatch.setattr(sys.modules["attack.solving.loop"], "time", hasty_clock())
        found = run(tmp_path / "parts", resume=True, time_limit=9.5e3, **fields)
        parts += 1
        if found.stopped != "time limit":
            break
    assert parts > 2
    for name in (CANDIDATES, "snapshots/0000.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert found.rounds == whole.rounds
    assert [row[:5] for row in found.history] == [row[:5] for row in whole.history]
    logs = [
        [json.loads(line) for line in (tmp_path / name / LOG).read_text().splitlines()]
        for name in ("parts", "whole")
    ]
    for line in (*logs[0], *logs[1]):
        line.pop("seconds", None)
    assert logs[0] == logs[1]


KILLED = """
import json, sys, time
import torch
torch.set_num_threads(1)
import attack

def wait(text, share):
    time.sleep(0.02)

victim, out, fields = sys.argv[1:]
attack.reconstruct(victim, **json.loads(fields), out=out, save_every=1, progress=wait)
"""


@pytest.mark.medium
def test_kill_and_resume_change_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    out, victim = tmp_path / "killed", tmp_path / "victim.safetensors"
    save_network(VICTIM, victim)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, victim, out, json.dumps(FIELDS)], env=environment,
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if (out / LOG).exists() and len((out / LOG).read_text().splitlines()) >= 7:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert not (out / CANDIDATES).exists()
    state, _ = load_state(out / CHECKPOINT, torch.device("cpu"))
    assert 0 < state.step < 30
    with pytest.raises(FileError, match="no result yet"):
        attack.load_run(out)
    again = run(out, resume=True)
    assert (out / CANDIDATES).read_bytes() == (tmp_path / "whole" / CANDIDATES).read_bytes()
    assert again.rounds == whole.rounds


def test_a_finished_run_can_be_resumed_and_lengthened(tmp_path: Path) -> None:
    short = run(tmp_path / "run", steps=13)
    before = (tmp_path / "run" / CANDIDATES).read_bytes()
    same = run(tmp_path / "run", steps=13, resume=True)
    assert (tmp_path / "run" / CANDIDATES).read_bytes() == before
    assert same.rounds == short.rounds
    longer = run(tmp_path / "run", steps=30, resume=True)
    assert np.array_equal(longer.candidates, run().candidates)
    assert attack.load_run(tmp_path / "run").settings["solver"]["steps"] == 30


def test_a_folder_without_checkpoint_starts_over(tmp_path: Path) -> None:
    run(tmp_path / "run")
    before = (tmp_path / "run" / CANDIDATES).read_bytes()
    (tmp_path / "run" / CHECKPOINT).unlink()
    run(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / CANDIDATES).read_bytes() == before


def test_an_interrupt_leaves_a_run_to_resume(tmp_path: Path) -> None:
    def interrupt(text: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", progress=interrupt)
    partial = attack.load_run(tmp_path / "run")
    assert partial.stopped == "interrupted"
    assert partial.check is None
    assert 0 < partial.steps < 30
    found = run(tmp_path / "run", resume=True)
    assert np.array_equal(found.candidates, run().candidates)


# What is refused --------------------------------------------------------------------------------

OTHER = parse_spec("5-12-1,relu").initialise(seed=9)
WIDER = parse_spec("5-13-1,relu").initialise(seed=0)


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        (OTHER, {}, "network"),
        (WIDER, {}, "network"),
        (VICTIM, {"seed": 1}, "seed: expected 0, with which the run was started, got 1"),
        (VICTIM, {"count": 5}, "count"),
        (VICTIM, {"start_scale": 0.2}, "start.scale"),
        (VICTIM, {"splitting": "off"}, "splitting: expected auto"),
        (VICTIM, {"steps": 20}, "steps: expected 30"),
        (VICTIM, {"solver": "lbfgs"}, "solver: expected adam"),
        (VICTIM, {"settings": {"interval": 9, "log_every": 2}}, "interval: expected 8"),
        (VICTIM, {"dtype": torch.float32}, "dtype"),
        (VICTIM, {"options": {"floor": 0.2}}, "objective.penalties"),
        (VICTIM, {"image_shape": (1, 5)}, "image_shape"),
    ],
)
def test_resuming_something_else(
    network: attack.Network, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    run(tmp_path / "run")
    before = content(tmp_path / "run")
    with pytest.raises(InvalidInputError) as caught:
        attack.reconstruct(
            network, **{**FIELDS, "out": tmp_path / "run", "resume": True, **changes}
        )
    assert words in one_line(caught)
    assert content(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (CONFIG, b"seed = "),
        (CONFIG, b"\xff\xfe\x00"),
        (CONFIG, None),
        (CHECKPOINT, b""),
        (CHECKPOINT, b"garbage"),
        (CHECKPOINT, 100),
        (CHECKPOINT, pack({}, {})),
        (CHECKPOINT, pack({"x": torch.zeros(2)}, {"memory": "abc", "rounds": 3})),
        ("snapshots/0000.safetensors", b"garbage"),
    ],
)
def test_a_damaged_folder(name: str, damage: bytes | int | None, tmp_path: Path) -> None:
    run(tmp_path / "run", steps=6)
    target = tmp_path / "run" / name
    if damage is None:
        target.unlink()
    else:
        target.write_bytes(damage if isinstance(damage, bytes) else target.read_bytes()[:damage])
    before = content(tmp_path / "run")
    with pytest.raises(FileError) as caught:
        run(tmp_path / "run", steps=6, resume=True)
    assert "run" in one_line(caught)
    assert content(tmp_path / "run") == before


@pytest.mark.parametrize("name", [CANDIDATES, REPORT, CONFIG])
def test_a_damaged_result(name: str, tmp_path: Path) -> None:
    run(tmp_path / "run", steps=6)
    for damage in (b"garbage", b"{}", b"[]", b'{"check": 3}', b"\x00" * 50):
        (tmp_path / "run" / name).write_bytes(damage)
        with pytest.raises(FileError) as caught:
            attack.load_run(tmp_path / "run")
        one_line(caught)


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a")
    for resume in (False, True):
        with pytest.raises(FileError) as caught:
            run(tmp_path / "full", resume=resume)
        one_line(caught)
    with pytest.raises(FileError):
        run(tmp_path / "full" / "a.txt")
    with pytest.raises(FileError):
        attack.load_run(tmp_path / "absent")
    with pytest.raises(InvalidInputError, match="out"):
        run(resume=True)
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", steps=2, resume=True).stopped == "steps"
