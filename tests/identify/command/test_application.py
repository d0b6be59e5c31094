"""The application as a whole: help, log, demo, and the smaller commands."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import typer

import kktcert
from identify.command.output import Log, OutputFolder
from identify.errors import InvalidInputError
from identify.model.loading import load_network
from tests.command_line import PNG, files, gradient_pair, kkt, results
from tests.identify.reports import check_report
from tests.model_files import npz


class TestLog:
    @pytest.mark.medium
    def test_verbose_names_the_stages_on_standard_error(self, tmp_path):
        model, gradient, _ = gradient_pair(tmp_path, width=30, dimension=12, samples=10)
        arguments = ("verify", model, "--source", "gradient", "--gradient", gradient)
        outcome = kkt(*arguments, "-v", "--format", "json")
        check_report(outcome.out)
        assert outcome.lines
        assert all(line.startswith("kktcert: ") for line in outcome.lines)
        assert len(set(outcome.lines)) == len(outcome.lines)
        for options in ((), ("-q",)):
            assert kkt(*arguments, *options).err == ""

    @pytest.mark.parametrize("verbose", [False, True])
    def test_without_a_terminal_a_line_comes_first_soon_and_then_rarely(
        self, monkeypatch, capsys, verbose
    ):
        waits = []

        class Clock:
            def __init__(self):
                self.left = 3

            def wait(self, seconds):
                waits.append(seconds)
                self.left -= 1
                return self.left < 0

            def set(self):
                self.left = min(self.left, 0)

        log = Log(verbose=verbose)
        clock = Clock()
        monkeypatch.setattr("identify.command.output.threading.Thread", self.at_once())
        monkeypatch.setattr("identify.command.output.threading.Event", lambda: clock)
        log.share, log.stage = 0.25, "solving"
        with log.progress():
            pass
        assert waits[:2] == [2.0, 60.0]
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 3
        assert all(row.startswith("kktcert: solving, 25%, ") for row in lines)

    @pytest.mark.parametrize("command", ["verify", "recover", "check", "demo"])
    def test_no_long_command_is_silent(self, tmp_path, monkeypatch, command):
        """Standard error is no terminal: a line comes while the work goes on."""
        model, gradient, _ = gradient_pair(tmp_path)
        given = [str(model), "--source", "gradient", "--gradient", str(gradient)]
        out = ["--out", str(tmp_path / "out")]
        words = [command, *given, *out]
        if command == "check":
            assert kkt("verify", *given, *out).code == 0
            words = [command, str(tmp_path / "out/report.json"), *given]
        elif command == "demo":
            pytest.importorskip("matplotlib")
            pytest.importorskip("sklearn")
            words = [command, *out]
        target = {"check": "identify.checker.check.check_report",
                  "demo": "identify.demo.demo.run_demo"}.get(
                      command, "identify.assess.assess_identifiability")  # fmt: skip
        told, seen = threading.Event(), []

        class Line(io.StringIO):
            def write(self, text):
                seen.append(text)
                told.set()
                return len(text)

        def wait(*_, **__):
            # The work goes on until a line came, or too long.
            assert told.wait(20.0)
            raise KeyboardInterrupt

        monkeypatch.setattr(target, wait)
        monkeypatch.setattr("identify.command.output.FIRST_LINE", 0.01)
        with contextlib.redirect_stderr(Line()):
            assert kktcert.run(words) == 130
        assert "".join(seen).startswith("kktcert: ")

    @staticmethod
    def at_once():
        class Thread:
            def __init__(self, target, **_):
                self.start, self.join = target, lambda: None

        return Thread

    def test_the_library_logs_its_stages(self, tmp_path, caplog):
        model, gradient, _ = gradient_pair(tmp_path)
        with caplog.at_level("INFO", logger="identify"):
            assert kkt("verify", model, "--source", "gradient", "--gradient", gradient).err == ""
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) > 2
        assert lines[-1].startswith("globally in ")

    @pytest.mark.parametrize("command", ["verify", "recover", "alternatives"])
    def test_verbose_prints_the_log_of_the_library_once(self, tmp_path, command):
        model, gradient, _ = gradient_pair(tmp_path)
        given = ("--source", "gradient", "--gradient", gradient, "--out", tmp_path / "out")
        lines = kkt(command, model, *given, "-v").lines
        assert any(line.startswith("kktcert: globally in ") for line in lines)
        assert all(one != other for one, other in itertools.pairwise(lines))
        for name in ("identify", "attack"):
            logger = logging.getLogger(name)
            assert (logger.handlers, logger.level) == ([], logging.NOTSET)

    def test_verbose_tells_stages_that_no_logger_knows(self, capsys):
        with Log(verbose=True).progress() as show:
            show("drawing", 0.0)
            logging.getLogger("attack.solving").info("a line\x1b[2J")
            logging.getLogger("attack.solving").debug("too much")
            logging.getLogger("elsewhere").info("not ours")
            show("drawing", 0.5)
        assert capsys.readouterr().err == "kktcert: drawing\nkktcert: a line\\x1b[2J\n"

    def test_a_quiet_command_tells_no_progress(self, monkeypatch, capsys):
        monkeypatch.setattr("identify.command.output.FIRST_LINE", 0.0)
        with Log(quiet=True).progress() as show:
            show("solving", 0.5)
        assert capsys.readouterr().err == ""

    def test_progress_ends_with_the_work(self, monkeypatch, capsys):
        monkeypatch.setattr("identify.command.output.FIRST_LINE", 3600.0)
        with pytest.raises(ZeroDivisionError), Log().progress():
            raise ZeroDivisionError
        assert not [t for t in threading.enumerate() if t.name == "kktcert-progress"]
        assert capsys.readouterr().err == ""

    def test_a_terminal_gets_a_bar(self, monkeypatch, capsys):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        log = Log()
        with log.progress() as show:
            show("solving", 0.5)
            print("result")
        captured = capsys.readouterr()
        assert captured.out == "result\n"
        assert log.stage == "solving"

    def test_remarks_stay_on_one_line(self, capsys):
        Log().note("two\nlines")
        assert capsys.readouterr().err == "kktcert: two\\nlines\n"


class TestOthers:
    def test_alternatives(self, open_case, tmp_path):
        outcome = kkt("alternatives", *open_case, "--out", tmp_path / "out", "--format", "json")
        assert outcome.code == 0
        content = json.loads(outcome.out)
        assert [entry["samples"] for entry in content["sets"]] == [2, 3]
        assert all(entry["stationarity"] < 1e-10 for entry in content["sets"])
        assert sorted(results(tmp_path / "out")) == [
            "alternatives.npz",
            "report.html",
            "report.json",
        ]

    def test_alternatives_from_data(self, open_case, tmp_path):
        data = npz(tmp_path / "data.npz", samples=np.eye(4)[:2])
        options = ("--from", data, "--out", tmp_path / "out")
        outcome = kkt("alternatives", *open_case, *options)
        assert outcome.code == 0
        with np.load(tmp_path / "out" / "alternatives.npz") as sets:
            np.testing.assert_allclose(np.abs(sets["samples_1"]), np.eye(4)[:2], atol=1e-12)

    def test_no_alternatives(self, random_case, tmp_path):
        outcome = kkt("alternatives", *random_case, "--out", tmp_path / "out")
        assert outcome.code == 1
        assert outcome.err.startswith("kktcert: error: no other training sets found")
        assert sorted(results(tmp_path / "out")) == ["report.html", "report.json"]

    def test_audit(self, pair, tmp_path):
        arguments, truth = pair
        data = npz(tmp_path / "data.npz", samples=truth)
        options = (*arguments[1:], "--out", tmp_path / "out")
        outcome = kkt("audit", arguments[0], data, *options)
        assert (outcome.code, outcome.err) == (0, "")
        assert sorted(results(tmp_path / "out")) == ["audit.json", "report.html", "report.json"]
        content = json.loads((tmp_path / "out" / "audit.json").read_text())
        assert [entry["index"] for entry in content["exposed"]] == [0, 1, 2, 3]
        check_report((tmp_path / "out" / "report.json").read_text())
        printed = kkt("audit", arguments[0], data, *arguments[1:], "--format", "json")
        assert json.loads(printed.out)["exposed"][0]["error"] < 1e-8

    @pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
    def test_plant(self, tmp_path, suffix):
        data = npz(tmp_path / "data.npz", samples=np.eye(4)[:3], labels=[0, 1, 0])
        model = tmp_path / f"model{suffix}"
        arguments = ("plant", data, "--degree", 3, "--out", model, "--stationary", "regression")
        outcome = kkt(*arguments, "--format", "json")
        assert (outcome.code, outcome.err) == (0, "")
        content = json.loads(outcome.out)
        assert content["residual"] < 1e-12
        with np.load(f"{model}.truth.npz") as truth:
            np.testing.assert_array_equal(truth["samples"], np.eye(4)[:3])
            np.testing.assert_array_equal(truth["labels"], [-1, 1, -1])
        assert load_network(model).width == content["neurons"]
        assert kkt(*arguments).code == 2
        assert kkt(*arguments, "--force").code == 0
        assert kkt("verify", model, "--source", "weight-decay").code == 0

    def test_no_network_to_plant(self, tmp_path):
        data = npz(tmp_path / "data.npz", samples=np.eye(2))
        outcome = kkt("plant", data, "--degree", 3, "--out", tmp_path / "m.npz", "--determined")
        assert (outcome.code, len(outcome.lines)) == (1, 1)
        assert list(files(tmp_path)) == ["data.npz"]


class TestApplication:
    def test_help_without_arguments(self):
        outcome = kkt()
        assert (outcome.code, outcome.err) == (0, "")
        assert all(name in outcome.out for name in ("verify", "recover", "inspect", "--version"))

    @pytest.mark.parametrize(
        "command", ["demo", "inspect", "verify", "recover", "audit", "alternatives", "plant"]
    )
    def test_every_command_explains_itself(self, command):
        outcome = kkt(command, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        assert command in outcome.out

    def test_version_of_a_command(self):
        assert kkt("verify", "--version").out == kkt("--version").out

    def test_the_demo_needs_its_extra(self, tmp_path, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        outcome = kkt("demo", "--out", tmp_path / "out")
        assert outcome.code == 2
        assert outcome.lines[0].endswith("pip install 'kktcert[demo]'")
        assert files(tmp_path) == {}

    def test_the_demo_fills_its_folder(self, tmp_path, monkeypatch):
        def short(out, *, seed, progress):
            progress("drawing", 0.5)
            (out / "page.png").write_bytes(PNG)
            return f"the table of seed {seed}"

        monkeypatch.setattr("identify.demo.demo.run_demo", short)
        outcome = kkt("demo", "--out", tmp_path / "out", "--seed", 3)
        assert (outcome.code, outcome.out) == (0, "the table of seed 3\n")
        assert kkt("demo", "--out", tmp_path / "out").code == 2
        assert kkt("demo", "--out", tmp_path / "out", "--force").code == 0
        assert list(results(tmp_path / "out")) == ["page.png"]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with (
            pytest.raises(InvalidInputError, match="--out"),
            OutputFolder(tmp_path / "file" / "x", force=True),
        ):
            pass

    def test_in_a_process_of_its_own(self, pair, tmp_path):
        arguments = [str(argument) for argument in pair[0]]
        run = subprocess.run(
            [sys.executable, "-m", "kktcert", "verify", *arguments, "--format", "json",
             "--fail-on", "globally", "--out", str(tmp_path / "out")],
            capture_output=True,
            text=True,
            cwd=Path(kktcert.__file__).parent,
        )  # fmt: skip
        assert (run.returncode, run.stderr) == (3, "")
        assert check_report(run.stdout)["verdict"] == "globally"
        assert run.stdout == (tmp_path / "out" / "report.json").read_text()


@pytest.mark.parametrize("command", [None, *sorted(typer.main.get_command(kktcert.app).commands)])
def test_help_has_an_example_exit_codes_and_whole_words(monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    text = kkt(*([command] if command else []), "--help").out
    assert re.findall(r"<[a-z\[A-Z]+\]?>|[{}]", text) == []  # <bool>, <list[Path]>, {MODEL}
    assert "\u2026" not in text  # a name that was cut
    if command is not None:
        assert f"Example: kktcert {command}" in text
        assert "Exit codes: 0 done" in text
        parameters = typer.main.get_command(kktcert.app).commands[command].params
        described = [p.help or "" for p in parameters if not getattr(p, "hidden", False)]
        assert [w for line in described for w in line.split() if w not in text] == []


def test_examples_of_the_help_name_only_options_that_exist():
    for name, command in typer.main.get_command(kktcert.app).commands.items():
        known = {option for p in command.params for option in p.opts}
        example = command.epilog.splitlines()[0].split()
        assert example[:3] == ["Example:", "kktcert", name]
        assert {word for word in example if word.startswith("--")} <= known
