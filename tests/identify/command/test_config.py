"""Options from a file, the file that a command leaves, versions and completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import typer

import kktcert
from identify.command.config import FILE, key_of
from identify.command.versions import LIBRARIES
from tests.command_line import gradient_pair, kkt, random_network, refused, stored

COMMANDS = typer.main.get_command(kktcert.app).commands


def write(folder, text, name="c.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_takes_a_file_and_its_names_are_different(command):
    parameters = COMMANDS[command].params
    keys = [key_of(p) for p in parameters]
    assert "config" in keys
    assert "command" not in keys
    assert len(set(keys)) == len(keys)


def test_options_come_from_the_file_and_the_command_line_wins(tmp_path):
    model, gradient, _ = gradient_pair(tmp_path)
    config = write(
        tmp_path,
        f'command = "verify"\nmodel = "{model}"\nsource = "gradient"\ngradient = "{gradient}"\n'
        'format = "json"\nseed = 7\nnon_negative = false\nfail-on = "globally"\n',
    )
    found = kkt("verify", "--config", config)
    assert found.code == 3, found.err
    assert json.loads(found.out)["seed"] == 7
    assert json.loads(kkt("verify", "--config", config, "--seed", "3").out)["seed"] == 3
    assert kkt("verify", "--config", config, "--fail-on", "undecided").code == 0
    # An argument of the command line too.
    other = stored(random_network(5), tmp_path / "other.npz")
    assert kkt("verify", other, "--config", config).code == 0


def test_a_command_leaves_the_file_it_ran_with_and_it_gives_the_same_run(tmp_path):
    model, gradient, _ = gradient_pair(tmp_path)
    given = ("--source", "gradient", "--gradient", gradient, "--seed", "4", "-q")
    first = kkt("verify", model, *given, "--out", tmp_path / "a", "--force")
    left = tmp_path / "a" / FILE
    content = tomllib.loads(left.read_text(encoding="utf-8"))
    assert content["command"] == "verify"
    assert (content["seed"], content["model"], content["quiet"]) == (4, str(model), True)
    assert not {"force", "config", "version", "time-limit"} & set(content)
    assert left.stat().st_mode & 0o777 == 0o600
    again = kkt("verify", "--config", left, "--out", tmp_path / "b")
    assert again.code == first.code == 0, again.err
    reports = [json.loads((tmp_path / part / "report.json").read_text()) for part in "ab"]
    for report in reports:
        report.pop("seconds")
    assert reports[0] == reports[1]
    assert kkt("verify", "--config", left).code == 2
    for command in ("recover", "audit"):
        refused(tmp_path, command, "--config", left, words="for another command")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = ", "no TOML"),
        ("sed = 1", "'sed'"),
        ("quiet = 1", "true or false"),
        ("seed = true", "a text or a number"),
        ("seed = [1]", "a text or a number"),
        ("seed = 1979-05-27", "a text or a number"),
        ('seed = "x"', "--seed"),
        ('scale = "large"', "--scale"),
        ("config = 'd.toml'", "'config'"),
        ("force = true", "'force'"),
    ],
)
def test_files_that_are_refused(random_case, tmp_path, text, words):
    refused(tmp_path, "verify", *random_case, "--config", write(tmp_path, text), words=words)


def test_a_file_that_is_not_there_or_no_text(random_case, tmp_path):
    refused(tmp_path, "verify", *random_case, "--config", tmp_path / "none", words="none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    refused(tmp_path, "verify", *random_case, "--config", tmp_path / "binary", words="no TOML")


def test_lists_are_for_options_that_may_be_repeated(tmp_path):
    rng = np.random.default_rng(0)
    net = random_network()
    model = stored(net, tmp_path / "net.npz")
    for name in ("one", "two"):
        gradient = stored(net.gradient(rng.normal(size=(4, 6)), [1.0, -2.0, 0.5, 1.5]),
                          tmp_path / f"{name}.npz")  # fmt: skip
        given = ("--source", "gradient", "--gradient", gradient, "--out", tmp_path / name)
        assert kkt("verify", model, *given).code == 0
    folders = [str(tmp_path / name) for name in ("one", "two")]
    config = write(tmp_path, f"folder = {json.dumps(folders)}\nno-images = true\n")
    found = kkt("report", "--config", config, "--out", tmp_path / "all.html")
    assert found.code == 0, found.err
    assert "of 2 runs" in found.out


def test_a_refused_run_leaves_no_file(tmp_path):
    kept = tmp_path / "out"
    kept.mkdir()
    (kept / "mine.txt").write_text("x")
    refused(tmp_path, "verify", tmp_path / "absent.npz", "--out", kept, "--force")


def test_an_attack_leaves_its_file_too(tmp_path):
    pytest.importorskip("torch")
    model = stored(random_network(), tmp_path / "net.npz")
    words = ("--objective", "haim", "--steps", "2", "--setting", "memory=3", "-q")
    found = kkt("attack", model, *words, "--count", "2", "--out", tmp_path / "run")
    assert found.code == 0, found.err
    content = tomllib.loads((tmp_path / "run" / FILE).read_text(encoding="utf-8"))
    assert content["setting"] == ["memory=3"]
    again = kkt("attack", "--config", tmp_path / "run" / FILE, "--out", tmp_path / "again")
    assert again.code == 0, again.err


def test_versions_for_bug_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = kkt("--version", "--verbose")
    assert found.code == 0
    told = dict(line.split(None, 1) for line in found.out.splitlines())
    assert told["kktcert"] == kkt("--version").out.split()[1]
    assert told["numpy"] == np.__version__
    assert set(LIBRARIES) <= set(told)
    assert "threads" in found.out
    assert os.environ.get("HOME", "?") not in found.out
    refused(tmp_path, "--verbose", words="--verbose")


def test_every_dependency_is_among_the_versions():
    import re
    from importlib import metadata

    lines = metadata.requires("kktcert")
    extras = ("attack", "demo", "hub", "proofs", "sweep")
    wanted = {
        re.match(r"[\w-]+", line)[0]
        for line in lines
        if "extra ==" not in line or any(f'"{name}"' in line for name in extras)
    }
    assert wanted <= set(LIBRARIES)


def complete(shell, **variables):
    code = "import sys, kktcert\nsys.argv = ['kktcert']\nkktcert.main()"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, kktcert.COMPLETE: shell, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout


@pytest.mark.slow
def test_shells_complete_commands_and_options():
    assert "complete -o default" in complete("source_bash")
    commands = complete("complete_bash", COMP_WORDS="kktcert ver", COMP_CWORD="1").split()
    assert commands == ["verify"]
    words = complete("complete_bash", COMP_WORDS="kktcert audit --fail", COMP_CWORD="2").split()
    assert words == ["--fail-on"]
