"""Runs: the public function, the folder, resuming, and everything that can go wrong."""

from __future__ import annotations

import errno
import json
import math
import os
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
from attack.objectives import OBJECTIVES, gradient_matching_objective, haim_objective
from attack.objectives.by_name import OPTIONS
from attack.runs import checkpoints
from attack.runs.checkpoints import load_state, write_whole
from attack.runs.folder import CHECKPOINT, LOG, REPORT
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


def test_an_objective_may_bring_its_gradient_with_it() -> None:
    gradient = [torch.ones_like(p) for p in VICTIM.parameters()]
    objective = gradient_matching_objective(VICTIM, gradient, normaliser=4, loss="squared")
    found = attack.reconstruct(VICTIM, objective, count=4, steps=3, start_scale=0.3)
    assert found.labels is not None
    assert found.candidates.shape == (4, 5)


def test_a_notebook_shows_a_run_and_its_candidates() -> None:
    victim = parse_spec("16-8-1,relu").initialise(seed=0)
    for shape, pictures in ((None, 0), ((4, 4), 4)):
        found = attack.reconstruct(
            victim, **{**FIELDS, "steps": 3, "splitting": "off", "image_shape": shape}
        )
        html = replace(found, stopped="<b>")._repr_html_()
        assert html.count("data:image/png;base64,") == pictures
        assert "<dt>objective</dt><dd>haim by adam</dd>" in html
        assert "&lt;b&gt;" in html
        assert "<b>" not in html


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
        ("no split lowers the loss", "no improvement for 2 rounds; loss "),
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
    alone = str(replace(ended, rounds=()))
    assert "merged" not in alone
    assert "second-order stationary" not in alone  # which only the check can say
    assert found.check is not None
    for gamma, margin, expected in (
        (0.5, 1e-9, "not passed"), (0.0, 1e-9, "passed"), (0.0, math.inf, "not decided")
    ):  # fmt: skip
        check = replace(found.check, gamma=gamma, margin=margin)
        assert replace(ended, check=check).status.endswith(f"second-order check {expected}")
    assert replace(ended, check=None).status.endswith("second-order check not done")
