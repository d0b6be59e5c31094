"""Large and hostile files, full disks, Ctrl-C before there is a command."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from identify.checker.outcome import CheckInputError
from identify.checker.reading import fields
from identify.checker.reading.arrays import read_arrays
from identify.checker.reading.fields import load_json
from identify.command.output import OutputFolder, replacing
from identify.errors import FileError, listed
from identify.model import untrusted
from tests.command_line import kkt, random_network, stored


class TestManyArrays:
    @pytest.mark.parametrize("suffix", ["safetensors", "npz"])
    def test_a_file_is_opened_a_few_times_and_not_once_an_array(
        self, tmp_path, monkeypatch, suffix
    ):
        arrays = {f"layer.{k}.weight": np.ones((2, 2), np.float32) for k in range(300)}
        path = tmp_path / f"many.{suffix}"
        (save_file if suffix == "safetensors" else lambda a, p: np.savez(p, **a))(arrays, path)
        opened = []

        def counted(*arguments, **options):
            opened.append(arguments)
            return original(*arguments, **options)

        if suffix == "npz":
            original = untrusted.zipfile.ZipFile
            monkeypatch.setattr(untrusted.zipfile, "ZipFile", counted)
        else:
            import safetensors

            original = safetensors.safe_open
            monkeypatch.setattr(safetensors, "safe_open", counted)
        assert kkt("inspect", path).code == 0
        # Once for the headers and once for the numbers.
        assert 1 <= len(opened) <= 2

    def test_every_header_of_an_npz_is_read_once(self, tmp_path, monkeypatch):
        arrays = {f"layer.{k}.weight": np.ones((2, 2), np.float32) for k in range(50)}
        np.savez(tmp_path / "many.npz", **arrays)
        read, headers = untrusted._npy_header, []
        monkeypatch.setattr(untrusted, "_npy_header", lambda m: headers.append(m) or read(m))
        assert kkt("inspect", tmp_path / "many.npz").code == 0
        assert len(headers) == len(arrays)


class TestReports:
    @pytest.mark.parametrize("limit", [0.5, 1, 7])
    def test_a_report_that_outlasts_the_limit_is_refused(self, tmp_path, limit, monkeypatch):
        rate = 100_000
        monkeypatch.setattr(fields, "READ_RATE", rate)
        path = tmp_path / "report.json"
        path.write_text(json.dumps({"x": 1}) + " " * (8 * rate))
        with pytest.raises(CheckInputError, match="give --time-limit 9"):
            load_json(path, limit)
        assert load_json(path, 9) == load_json(path) == {"x": 1}


class TestBombs:
    def bomb(self, path, names=("hidden.weight",), rows=2000):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                with archive.open(f"{name}.npy", "w") as member:
                    np.save(member, np.zeros((rows, 100)))
        return path

    @pytest.mark.parametrize("names", [("hidden.weight",), ("a", "b", "c"), ("degree",)])
    def test_what_grows_too_much_is_refused_unread(self, tmp_path, monkeypatch, names):
        path = self.bomb(tmp_path / "n.npz", names)
        for module in ("identify.checker.reading.arrays.MAX_EXPANSION",
                       "identify.model.untrusted.MAX_EXPANSION_BYTES"):  # fmt: skip
            monkeypatch.setattr(module, 10**6)
        with pytest.raises(CheckInputError, match="growth by at most"):
            read_arrays(path)
        with pytest.raises(FileError, match="would grow to"):
            untrusted.read_tensors(path)

    def test_arrays_that_are_not_asked_for_are_not_read(self, tmp_path, monkeypatch):
        path = self.bomb(tmp_path / "n.npz", ("a", "b"))
        monkeypatch.setattr(np, "frombuffer", lambda *_, **__: pytest.fail("read whole"))
        assert read_arrays(path).shapes == {"a": (2000, 100), "b": (2000, 100)}


class TestFullDisks:
    @pytest.mark.parametrize("named", [None, "temporary", "elsewhere"])
    def test_the_file_is_named_and_nothing_is_left(self, tmp_path, named):
        def fail(path):
            path.write_bytes(b"half")
            names = {"temporary": str(path), "elsewhere": "/other"}
            raise OSError(errno.ENOSPC, "No space left on device", names.get(named))

        with pytest.raises(OSError, match="No space left") as caught, \
                replacing(tmp_path / "samples.npz") as path:  # fmt: skip
            fail(path)
        expected = "/other" if named == "elsewhere" else str(tmp_path / "samples.npz")
        assert caught.value.filename == expected
        assert list(tmp_path.iterdir()) == []

    def test_a_typed_error_names_the_file_as_well(self, tmp_path):
        with pytest.raises(FileError, match=r"net\.npz: cannot be written") as caught, \
                replacing(tmp_path / "net.npz") as path:  # fmt: skip
            raise FileError(path, "cannot be written: No space left on device", "check the path")
        assert ".tmp" not in str(caught.value)

    def test_the_command_says_so_in_one_line(self, tmp_path, monkeypatch):
        model = stored(random_network(), tmp_path / "m.npz")

        def full(self, name, text):
            with self.writing(name):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(OutputFolder, "write_text", full)
        found = kkt("verify", model, "--out", tmp_path / "out")
        assert found.code == 1
        assert found.err == (
            f"kktcert: error: {tmp_path / 'out' / 'report.json'}: No space left on device\n"
        )
        assert not (tmp_path / "out").exists()


class TestWords:
    def test_names_from_files_cannot_break_lines_or_drive_terminals(self, tmp_path):
        names = ["", "a\nb", "\x1b[2J", "\u202ex", "ok"]
        save_file({name: np.ones((2, 2)) for name in names}, tmp_path / "n.safetensors")
        found = kkt("inspect", tmp_path / "n.safetensors")
        assert found.code == 0, found.err
        assert all(line.isprintable() for line in found.out.splitlines())
        assert '""' in found.out
        assert listed(["", "a"]) == '"", a'

    def test_folders_with_line_breaks(self, tmp_path):
        model = stored(random_network(), tmp_path / "m.npz")
        found = kkt("verify", model, "--out", tmp_path / "a\nb")
        assert found.code == 0
        assert found.out.splitlines()[-1].startswith("written to ")


@pytest.mark.parametrize("module", ["typer", "numpy", "proofs_check.entries"])
def test_ctrl_c_during_the_imports(module):
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        f"sys.modules.pop({module!r}, None)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "import kktcert\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert run.returncode == 130
    assert run.stderr == "kktcert: interrupted\n"
