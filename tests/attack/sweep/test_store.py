"""The file of results: what is kept, what a resumed sweep finds, and what it refuses."""

from __future__ import annotations

import stat

import pytest

from attack.sweep.outcome import Outcome
from attack.sweep.show import flat, sweep_table
from attack.sweep.spec import Call, Sweep
from attack.sweep.store import Results
from identify.errors import FileError, InvalidInputError

SWEEP = Sweep(Call("verify", ("net.npz",)), grid={"seed": (0, 1, 2)})


def outcome(number, code=0, verdict="globally"):
    error = "" if code == 0 else "it broke"
    results = {"verify": {"verdict": verdict, "parts": {"r": number}}}
    return Outcome(number, code, results, error, 0.5, "here:1", "2026-01-01T00:00:00+00:00")


def test_a_resumed_sweep_finds_what_is_missing(tmp_path):
    path = tmp_path / "r.sqlite"
    with Results.create(path, SWEEP, {"net.npz": "aa"}) as results:
        results.record([outcome(1), outcome(2, code=1)])
        results.keep_checkpoints({3: b"there"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Results.resume(path, SWEEP, {"net.npz": "aa"}) as results:
        assert [task.number for task in results.missing()] == [3]
        assert [task.number for task in results.missing(failed=True)] == [2, 3]
        assert results.checkpoint(3) == b"there"
        assert results.checkpoint(1) is None
        results.record([outcome(3)])
        assert results.checkpoint(3) is None
        assert results.missing() == ()
        assert [row.state for row in results.rows()] == ["done", "failed", "done"]
        assert results.fact("versions")["kktcert"]


def test_other_runs_or_other_inputs_are_refused(tmp_path):
    path = tmp_path / "r.sqlite"
    with Results.create(path, SWEEP, {"net.npz": "aa"}):
        pass
    with pytest.raises(FileError, match="exists"), Results.create(path, SWEEP):
        pass
    other = Sweep(Call("verify", ("net.npz",)), grid={"seed": (0, 1, 3)})
    with pytest.raises(InvalidInputError, match="another"), Results.resume(path, other):
        pass
    with (
        pytest.raises(InvalidInputError, match="input files"),
        Results.resume(path, SWEEP, {"net.npz": "bb"}),
    ):
        pass


def test_files_that_hold_no_results_are_named(tmp_path):
    broken = tmp_path / "x.sqlite"
    broken.write_bytes(b"no database at all, but long enough to be one" * 40)
    for path in (broken, tmp_path / "absent.sqlite", tmp_path):
        with pytest.raises(FileError), Results.read(path):
            pass


def test_the_table_shows_what_differs(tmp_path):
    with Results.create(tmp_path / "r.sqlite", SWEEP) as results:
        results.record([outcome(1), outcome(2, verdict="undecided"), outcome(3, code=2)])
        rows = results.rows()
    lines = sweep_table(rows)
    assert lines[0].split() == ["run", "seed", "state", "seconds", "verdict", "r"]
    assert "undecided" in lines[2]
    assert lines[-1] == "run 3: it broke"
    assert flat(rows[0])["verify.parts.r"] == 1
    assert sweep_table(rows, ["r"])[0].split() == ["run", "seed", "state", "r"]
    with pytest.raises(InvalidInputError, match="verdict"):
        sweep_table(rows, ["nothing"])
