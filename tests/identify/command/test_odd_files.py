"""Files of odd kinds in every role: no traceback, one printable line, and the same numbers read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import files, gradient_pair, kkt
from tests.model_files import npz

RNG = np.random.default_rng(0)
W = RNG.normal(size=(20, 6))
CLEAN = {"hidden.weight": W, "output.weight": RNG.normal(size=(1, 20)), "degree": 3}

BAD_ARRAYS = {
    "NaN": np.where(np.eye(20, 6) > 0, np.nan, W),
    "infinity": W * np.inf,
    "complex": W + 1j,
    "objects": W.astype(object),
    "no dimension": np.array(3.0),
    "no rows": np.zeros((0, 6)),
    "words": np.array(["a", "b"]),
    "truth values": W > 0,
    "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
    "fields": np.zeros(3, dtype=[("a", "f8")]),
    "raw bytes": np.zeros(3, dtype="V8"),
    "four axes": W[None, None],
}
SAME_ARRAYS = {
    "big-endian": W.astype(">f8"),
    "Fortran": np.asfortranarray(W),
    "strided": np.repeat(W, 2, axis=0)[::2],
    "read-only": np.broadcast_to(W, W.shape),
}


def garbage(folder):
    """Paths that hold no network, by what they are."""
    raw = npz(folder / "whole.npz", **CLEAN).read_bytes()
    contents = {
        "nothing": b"", "half": raw[: len(raw) // 2], "noise": bytes(range(256)),
        "Latin": b'{"a": "\xe9"}',
    }  # fmt: skip
    found = {}
    for name, content in contents.items():
        for suffix in (".npz", ".safetensors", ".pt", ".safetensors.index.json", ".csv", ""):
            path = folder / f"{name}{suffix}"
            path.write_bytes(content)
            found[path.name] = path
    for name, text in {
        "missing shard": '{"weight_map": {"hidden.weight": "nowhere.safetensors"}}',
        "long number": '{"weight_map": 1' + 5000 * "0" + "}",
        "deep": 20_000 * "[",
        "no constant": '{"metadata": NaN}',
        "half a pair": '{"weight_map": {"a": "\\ud800"}}',
        "upwards": '{"weight_map": {"a": "../whole.safetensors"}}',
    }.items():
        found[name] = folder / f"{name}.safetensors.index.json"
        found[name].write_text(text)
    for name in ("pipe", "folder", "loop", "nowhere"):
        found[name] = folder / f"{name}.npz"
    os.mkfifo(found["pipe"])
    found["folder"].mkdir()
    found["loop"].symlink_to(found["loop"])
    found["nowhere"].symlink_to(folder / "not there")
    found["twice"] = folder / "twice.npz"
    member = io.BytesIO()
    np.save(member, W)
    with zipfile.ZipFile(found["twice"], "w") as archive:
        archive.writestr("hidden.weight.npy", member.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("hidden.weight.npy", member.getvalue())
    return found


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Model, gradient, data and report that are as they should be."""
    folder = tmp_path_factory.mktemp("known")
    model, gradient, x = gradient_pair(folder)
    source = ("--source", "gradient", "--gradient")
    assert kkt("verify", model, *source, gradient, "--out", folder / "out").code == 0
    data = npz(folder / "data.npz", samples=x)
    return {"model": model, "gradient": gradient, "data": data,
            "report": folder / "out/report.json", "source": source}  # fmt: skip


def commands(path, role, known):
    model, gradient, source = known["model"], known["gradient"], known["source"]
    if role == "model":
        yield "verify", path, *source, gradient, "--degree", 3
        yield "verify", path, *source, gradient, "--activation", "relu"
        yield "check", known["report"], path, *source, gradient
        yield "inspect", path
    elif role == "gradient":
        yield "verify", model, *source, path
        yield "check", known["report"], model, *source, path
    elif role == "data":
        yield "audit", model, path, *source, gradient
    else:
        yield "check", path, model, *source, gradient


def assert_one_line(found, label, *, refused=True):
    assert "Traceback" not in found.err
    assert found.code in ((2,) if refused else (0, 2, 3)), (label, found)
    if found.code == 2:
        assert len(found.lines) == 1, (label, found.err)
        assert found.lines[0].startswith("kktcert: error: "), (label, found.err)
        assert found.lines[0].isprintable(), (label, found.err)


@pytest.mark.parametrize("role", ["model", "gradient", "data", "report"])
def test_what_is_no_file_of_arrays_is_refused_in_one_line(tmp_path, known, role):
    for name, path in garbage(tmp_path).items():
        for command in commands(path, role, known):
            assert_one_line(kkt(*command), (name, command[0]))


@pytest.mark.parametrize("role", ["model", "gradient", "data"])
@pytest.mark.parametrize("kind", sorted(BAD_ARRAYS))
def test_arrays_without_numbers_are_refused_in_one_line(tmp_path, known, role, kind):
    array = BAD_ARRAYS[kind]
    arrays = {"samples": array} if role == "data" else {**CLEAN, "hidden.weight": array}
    path = tmp_path / "odd.npz"
    np.savez(path, **arrays)
    for command in commands(path, role, known):
        assert_one_line(kkt(*command), (kind, command[0]))


@pytest.mark.parametrize("kind", sorted(SAME_ARRAYS))
def test_the_same_numbers_in_another_layout_are_the_same(tmp_path, kind):
    plain = json.loads(kkt("inspect", npz(tmp_path / "p.npz", **CLEAN), "--format", "json").out)
    path = npz(tmp_path / "q ünï 漢.npz", **{**CLEAN, "hidden.weight": SAME_ARRAYS[kind]})
    found = json.loads(kkt("inspect", path, "--format", "json").out)
    assert found["network"]["sha256"] == plain["network"]["sha256"]


@pytest.mark.parametrize("kind", ["half", "bfloat16", "float32"])
def test_coarse_types_are_read_with_their_rounding(tmp_path, known, kind):
    torch = pytest.importorskip("torch")
    kinds = {"half": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    arrays = {k: torch.tensor(v).to(kinds[kind]) for k, v in CLEAN.items() if k != "degree"}
    torch.save(arrays, tmp_path / "m.pt")
    found = kkt("inspect", tmp_path / "m.pt", "--degree", 3, "--format", "json")
    rounding = {"half": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
    assert json.loads(found.out)["network"]["rounding"] >= rounding[kind] / 2
    for command in commands(tmp_path / "m.pt", "model", known):
        assert_one_line(kkt(*command), kind, refused=False)


@pytest.mark.parametrize("text", [
    "[]", "null", '{"a": 1, "a": 2}', '{"a": "\\ud800"}', '{"degree": 1e400}', "\ufeff{}",
    '{"schema_version": 1' + 5000 * "0" + "}", 100_000 * "[", '{"a": NaN}',
])  # fmt: skip
def test_reports_that_are_none_are_refused_in_one_line(tmp_path, known, text):
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    for command in commands(path, "report", known):
        assert_one_line(kkt(*command), text[:20])


WRITERS = {
    "verify": ("{model}", "--source", "gradient", "--gradient", "{gradient}", "--out", "out"),
    "recover": ("{model}", "--source", "gradient", "--gradient", "{gradient}", "--out", "out"),
    "plant": ("{data}", "--degree", "3", "--out", "out.npz"),
    "demo": ("--out", "out"),
}


@pytest.mark.parametrize("command", sorted(WRITERS))
def test_a_disk_that_is_full_names_the_file_and_keeps_no_half(tmp_path, known, command):
    if command == "demo":
        pytest.importorskip("matplotlib")
        pytest.importorskip("sklearn")
    resource = pytest.importorskip("resource")
    program = Path(sys.executable).parent / "kktcert"
    words = [word.format(**known) for word in WRITERS[command]]
    largest = 1000
    done = subprocess.run(
        [str(program), command, *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert done.returncode in (1, 2), done.stderr
    assert last.startswith("kktcert: error: out"), done.stderr
    assert "File too large" in last
    assert "Traceback" not in done.stderr
    left = {name: content for name, content in files(tmp_path).items() if content is not None}
    assert not [name for name, content in left.items() if len(content) >= largest]
    assert not [name for name in left if ".tmp" in name]


@pytest.mark.parametrize("command", [("--help",), ("inspect", "{model}"),
                                     ("verify", "{model}", "--format", "json")])  # fmt: skip
def test_a_full_pipe_is_one_line(known, command):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    program = Path(sys.executable).parent / "kktcert"
    words = [word.format(**known) for word in command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [str(program), *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "kktcert: error: output: No space left on device\n"


ASSESSED = "identify.assess.assess_identifiability"


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 9 GiB"), MemoryError(),
              RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)  # fmt: skip
@pytest.mark.parametrize("command", ["verify", "recover"])
def test_memory_that_runs_out_is_one_line(tmp_path, known, monkeypatch, command, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ASSESSED, fail)
    given = (known["model"], *known["source"], known["gradient"], "--out", tmp_path / "out")
    found = kkt(command, *given)
    assert found.code == 1
    assert found.err == (
        "kktcert: error: not enough memory; --memory-limit SIZE refuses such work beforehand\n"
    )


def test_other_errors_are_not_taken_for_memory(tmp_path, known, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(ASSESSED, fail)
    given = (known["model"], *known["source"], known["gradient"], "--out", tmp_path / "out")
    with pytest.raises(RuntimeError, match="size mismatch"):
        kkt("verify", *given)
