"""Runs: the public function, the folder, resuming, and everything that can go wrong."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import attack
from attack.networks.files import save_network
from attack.networks.spec import parse_spec
from attack.objectives import OBJECTIVES, haim_objective
from attack.objectives.by_name import OPTIONS
from attack.runs import checkpoints
from attack.runs.checkpoints import load_state, pack, write_whole
from attack.runs.folder import CANDIDATES, CHECKPOINT, CONFIG, LOG, REPORT
from attack.solving.state import Round
from identify.errors import FileError, InvalidInputError, KktCertError
from tests.attack import problems


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


def test_a_run_in_memory_and_in_a_folder(tmp_path: Path) -> None:
    memory, kept = run(), run(tmp_path / "run")
    assert np.array_equal(memory.candidates, kept.candidates)
    names = {"config.toml", "report.json", "candidates.safetensors", "checkpoint.safetensors"}
    assert names | {"log.jsonl", "snapshots"} == {p.name for p in (tmp_path / "run").iterdir()}
    loaded = attack.load_run(tmp_path / "run")
    for found in (memory, kept, loaded):
        assert np.array_equal(np.asarray(found), memory.candidates)
        assert np.array_equal(found.multipliers, memory.multipliers)
        assert found.labels is not None
        assert set(found.labels) <= {-1.0, 1.0}
        assert len(found.labels) == len(found.candidates) == len(found.multipliers)
        assert found.rounds == memory.rounds
        assert found.check == memory.check
        assert found.stopped == "steps"
        assert found.steps == 30
        assert found.settings == memory.settings
        assert [s.step for s in found.snapshots] == [s.step for s in memory.snapshots]
        assert "(eps, gamma)" in str(found)
    assert loaded.path == tmp_path / "run"
    report = json.loads((tmp_path / "run" / REPORT).read_text())
    assert report["loss"] == kept.loss
    assert report["check"]["epsilon"] > 0
    assert report["history"]["columns"][:2] == ["step", "loss"]
    assert report["versions"]["torch"] == torch.__version__
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(0, 30, 2))
    assert [line["step"] for line in lines if "event" in line] == [r.step for r in kept.rounds]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses == [row[1] for row in kept.history[:-1]]


def test_the_loss_is_that_of_the_candidates(tmp_path: Path) -> None:
    found = run()
    activation = attack.Activation("soft_relu", 20.0)
    objective = haim_objective(VICTIM, normaliser=4, activation=activation)
    assert found.labels is not None
    assert found.masses is not None
    parts = (found.candidates, found.multipliers, found.labels, found.masses)
    at = attack.Candidates(*(torch.from_numpy(part) for part in parts))
    assert float(objective.value(at)) == pytest.approx(found.loss)


def test_snapshots_follow_the_rounds() -> None:
    victim, _ = problems.planted_kkt_point(3, 5)
    found = attack.reconstruct(
        victim, "haim", options={"floor": None}, count=2, steps=60, splitting="auto",
        settings={"interval": 15},
    )  # fmt: skip
    changed = [r for r in found.rounds if r.changed]
    assert changed
    assert len(found.snapshots) == 1 + len(changed)
    assert found.snapshots[0].x.shape == (2, 5)
    for r, snapshot in zip(changed, found.snapshots[1:], strict=True):
        assert len(snapshot.x) == r.count_after == len(snapshot.origin)
        assert tuple(snapshot.origin) == r.origin
    assert len(found.candidates) == len(found.snapshots[-1].x)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_by_name(name: str) -> None:
    victim = parse_spec("5-7-1,tanh").initialise(seed=0)
    needs: dict[str, dict[str, Any]] = {
        "loo": {"initial": parse_spec("5-7-1,tanh").initialise(seed=1)},
        "gradient_matching": {"gradient": [torch.ones_like(p) for p in victim.parameters()]},
        "gradient_norm": {"options": {"loss": "logistic", "decay": 0.1}},
        "bilevel": {"options": {"loss": "logistic", "unrolled": 2}},
    }
    task = {"options": {"task": "regression"}} if name == "buzaglo" else {}
    found = attack.reconstruct(
        victim, name, count=3, steps=4, splitting="off", **{**task, **needs.get(name, {})}
    )
    assert found.settings["objective"]["name"] == name
    assert found.candidates.shape == (3, 5)
    assert np.isfinite(found.loss)
    assert name in OPTIONS


@pytest.mark.parametrize("name", ["haim-mnist-1", "buzaglo-multiclass-1", "loo"])
def test_presets_set_what_they_publish(name: str) -> None:
    published = attack.preset(name)
    outputs = 3 if published.task == "multiclass" else 1
    victim = parse_spec(f"5-7-{outputs},relu").initialise(seed=0)
    first = parse_spec(f"5-7-{outputs},relu").initialise(seed=1) if name == "loo" else None
    found = attack.reconstruct(
        victim, preset=name, initial=first, count=6, steps=3, splitting="off", mean=0.1
    )
    solver = found.settings["solver"]
    assert solver["solver"] == published.optimiser
    assert (solver["rate_x"], solver["rate_lam"]) == (published.rate_x, published.rate_lam)
    assert found.settings["start"]["scale"] == published.start_scale
    assert found.settings["objective"]["normaliser"] == 6
    assert found.candidates.dtype == (np.float32 if published.dtype == "float32" else np.float64)
    assert found.settings["preset"] == name


def test_modules_files_and_dtypes(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.GELU(), torch.nn.Linear(7, 1))
    found = attack.reconstruct(module, count=2, steps=2, splitting="off")
    assert found.candidates.dtype == np.float32
    found = attack.reconstruct(module, count=2, steps=2, splitting="off", dtype=torch.float64)
    assert found.candidates.dtype == np.float64
    save_network(VICTIM, tmp_path / "v.safetensors")
    by_file = attack.reconstruct(tmp_path / "v.safetensors", **FIELDS)
    assert np.array_equal(by_file.candidates, run().candidates)
    save_network(VICTIM, tmp_path / "g.npz")
    found = attack.reconstruct(
        VICTIM, "gradient_matching", gradient=tmp_path / "g.npz", count=2, steps=2, splitting="off"
    )
    assert "gradient" in found.settings


def test_a_later_run_starts_where_an_earlier_one_ended() -> None:
    earlier = run()
    later = run(start=earlier, count=None, steps=0)
    assert np.array_equal(later.candidates, earlier.candidates)
    assert later.loss == pytest.approx(earlier.loss)
    assert later.settings["objective"]["normaliser"] == 4
    assert later.settings["start"]["kind"] == "candidates"


# Resuming ---------------------------------------------------------------------------------------

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


def test_a_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(splitting="off")
    written = 0
    plain = os.fsync

    def full(handle: int) -> None:
        nonlocal written
        written += 1
        if written > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(handle)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "fsync", full)
        with pytest.raises(FileError) as caught:
            run(tmp_path / "run", save_every=1, splitting="off")
    text = one_line(caught)
    assert "No space left on device" in text
    assert "previous one is intact" in text
    assert not [p for p in (tmp_path / "run").rglob("*.tmp")]
    state, _ = load_state(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
    assert 0 < state.step < 30
    found = run(tmp_path / "run", resume=True, splitting="off")
    assert np.array_equal(found.candidates, whole.candidates)


def test_a_write_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.bin"
    write_whole(target, b"old")
    for call in ("fsync", "replace"):

        def fail(*arguments: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.os, call, fail)
            with pytest.raises(FileError, match="intact"):
                write_whole(target, b"new")
        assert target.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"


def test_nan_in_the_middle_of_a_run(tmp_path: Path) -> None:
    fields = {
        **FIELDS, "solver": "sgd", "splitting": "off", "out": tmp_path / "run",
        "settings": {"rate_x": 1e6, "rate_lam": 1e-3},
    }  # fmt: skip
    with pytest.raises(KktCertError) as caught:
        attack.reconstruct(VICTIM, **fields)
    text = one_line(caught)
    assert "lower rate_x, now 1e+06" in text
    assert not isinstance(caught.value, InvalidInputError)
    partial = attack.load_run(tmp_path / "run")
    assert partial.stopped == "not finite"
    assert np.isfinite(partial.candidates).all()
    assert np.isfinite(partial.loss)
    assert np.array_equal(caught.value.context["run"].candidates, partial.candidates)
    load_state(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
    with pytest.raises(KktCertError, match="rate_x"):
        attack.reconstruct(VICTIM, **{**fields, "resume": True})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "hiam"}, "objective: expected one of haim"),
        ({"objective": "loo"}, "initial"),
        ({"objective": "gradient_matching"}, "gradient"),
        ({"objective": "bilevel"}, "loss of bilevel"),
        ({"objective": "gradient_norm"}, "loss of gradient_norm"),
        ({"options": {"flor": 1}}, "options"),
        ({"preset": "haim"}, "preset"),
        ({"preset": "loo", "objective": "haim"}, "preset"),
        ({"preset": "haim-mnist-1", "options": {"box": (0, 1)}}, "options"),
        ({"count": 0}, "count"),
        ({"start": np.zeros(3)}, "start"),
        ({"start": "nosie"}, "nosie"),
        ({"share": 0.5}, "share"),
        ({"settings": {"rate": 1}}, "settings"),
        ({"settings": {"limit": 2}}, "limit"),
        ({"device": "tpu"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"dtype": torch.float16}, "dtype"),
        ({"image_shape": (2, 2)}, "image_shape"),
        ({"mean": [1.0, 2.0]}, "mean"),
        ({"time_limit": 0.0}, "time_limit"),
        ({"save_every": 0}, "save_every"),
        ({"seed": -1}, "seed"),
        ({"labels": [1, 2, 3, 4]}, "labels"),
        ({"initial": parse_spec("5-9-1,relu").initialise(0), "objective": "loo"}, "initial"),
        ({"start_scale": 1e200}, "start"),
    ],
)
def test_arguments_that_do_not_fit(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidInputError, FileError)) as caught:
        run(tmp_path / "run" if changes.get("start_scale") is None else None, **changes)
    assert words in one_line(caught)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stopped", "words"),
    [
        ("steps", "all steps done; loss "),
        ("interrupted", "interrupted; loss "),
        ("second-order stationary", "no improvement for 2 rounds; loss "),
        ("stationary", "the solver stands still; loss "),
    ],
)
def test_the_status_says_why_it_ended_and_what_the_check_found(stopped: str, words: str) -> None:
    found = run(steps=2)
    idle = SimpleNamespace(taken=True, before=1.0, after=1.0, accepted=False, merged=(), pruned=())
    tidied = SimpleNamespace(**{**vars(idle), "after": 0.5, "merged": ((0, 1),), "pruned": (2, 3)})
    rounds = cast("tuple[Round, ...]", (tidied, idle, idle))
    ended = replace(found, stopped=stopped, rounds=rounds)
    assert ended.status.startswith(words)
    assert "1 merged (two had become one), 2 removed" in str(ended)
    assert "merged" not in str(replace(found, rounds=()))
    assert found.check is not None
    for gamma, margin, expected in (
        (0.5, 1e-9, "not passed"), (0.0, 1e-9, "passed"), (0.0, math.inf, "not decided")
    ):  # fmt: skip
        check = replace(found.check, gamma=gamma, margin=margin)
        assert replace(ended, check=check).status.endswith(f"second-order check {expected}")
    assert replace(ended, check=None).status.endswith("second-order check not done")
