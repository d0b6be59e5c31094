"""The command `kktcert proofs`: output, exit codes, limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import typer

import kktcert
from proofs_check.machinery import registry
from proofs_check.machinery.run_many import Run
from tests.command_line import kkt
from tests.proofs_check import toy

QUICK = ("kkt-balance", "dead-neurons")


@pytest.fixture
def toys(monkeypatch):
    """Put statements of our own in place of all others."""

    def use(*entries):
        monkeypatch.setattr(registry, "all_statements", lambda: entries)

    return use


def test_table_goes_to_standard_output():
    found = kkt("proofs", *QUICK, "--examples", 0.05)
    assert found.code == 0
    assert found.err == ""
    assert "kkt-balance: Balance between the layers" in found.out
    assert found.out.rstrip().endswith("2 statements: 2 proved; seed 0; examples times 0.05")


def test_json_is_the_same_for_the_same_seed():
    runs = [kkt("proofs", *QUICK, "--examples", 0.05, "--seed", 4, "--format", "json")] * 2
    tables = [json.loads(run.out) for run in runs]
    for table in tables:
        assert [entry["name"] for entry in table["statements"]] == list(QUICK)
        for entry in table["statements"]:
            assert entry.pop("seconds") > 0.0
            assert entry["status"] == "proved"
            assert entry["examples"] == 10
    assert tables[0] == tables[1]
    assert (tables[0]["seed"], tables[0]["stopped"], tables[0]["refuted"]) == (4, None, [])


def test_refuted_statement_ends_with_3(toys):
    toys(toy.statement(conclusion=toy.at_most(700)))
    found = kkt("proofs")
    assert found.code == 3
    assert "REFUTED toy: 701 is above 700" in found.out
    found = kkt("proofs", "--format", "json")
    assert found.code == 3
    assert json.loads(found.out)["refuted"] == ["toy"]


def test_missed_sabotage_ends_with_3(toys):
    harmless = toy.Sabotage("same", "nothing changes", conclusion=toy.is_even)
    toys(toy.statement(sabotages=(harmless,)))
    found = kkt("proofs", "--self-test")
    assert found.code == 3
    assert "MISSED toy: same" in found.out
    assert "same (conclusion, missed, 200 tries): the conclusion holds" in found.out
    assert found.lines == ["kktcert: error: 1 deliberate mistakes were not found"]


def test_sabotage_without_its_package_is_listed_and_no_failure(toys):
    def conclusion(pair):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    toys(toy.statement(sabotages=(toy.Sabotage("far", "away", conclusion=conclusion),)))
    found = kkt("proofs", "--self-test")
    assert found.code == 0
    assert "NOT TRIED toy: far" in found.out
    assert "needs the package torch" in found.out
    assert "0 of 1 sabotages found, 1 not tried" in found.out


def test_self_test_finds_every_sabotage():
    found = kkt("proofs", *QUICK, "--self-test", "--format", "json")
    assert found.code == 0
    table = json.loads(found.out)
    assert [entry["name"] for entry in table["statements"]] == list(QUICK)
    assert (table["missed"], table["not_tried"]) == ([], [])
    for entry in table["statements"]:
        for mistake in entry["sabotages"]:
            assert mistake["found"] is True
            assert mistake["outcome"] == "found"
            assert mistake["detail"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-statement",),
        ("kkt-balance", "kkt-ballance"),
        ("kkt-balance", "--examples", 0),
        ("kkt-balance", "--examples", "nan"),
        ("kkt-balance", "--processes", 0),
        ("kkt-balance", "--seed", -1),
        ("kkt-balance", "--time-limit", 0),
        ("kkt-balance", "--format", "xml"),
        ("kkt-balance", "-v", "-q"),
    ],
)
def test_unusable_input_is_one_line_and_exit_2(arguments):
    found = kkt("proofs", *arguments)
    assert found.code == 2
    assert found.out == ""
    assert len(found.lines) == 1


def test_list_runs_nothing(monkeypatch):
    monkeypatch.setattr(Run, "go", None)
    found = kkt("proofs", "--list")
    assert found.code == 0
    names = {line.split()[0] for line in found.out.splitlines() if line.startswith("  ")}
    assert names == {entry.name for entry in registry.all_statements()}
    listed = json.loads(kkt("proofs", "kkt", "--list", "--format", "json").out)["statements"]
    assert [entry["name"] for entry in listed] == [s.name for s in registry.select("kkt")]
    assert listed[0]["hypotheses"][0]["sentence"]


def test_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = kkt("proofs", *QUICK)
    assert found.code == 2
    assert "pip install 'kktcert[proofs]'" in found.lines[0]


def test_time_limit_keeps_a_partial_table():
    found = kkt("proofs", "kkt", "--time-limit", 1e-6, "--format", "json", "--processes", 1)
    assert found.code == 0
    table = json.loads(found.out)
    assert table["stopped"] == "time limit"
    assert {entry["status"] for entry in table["statements"]} == {"not run"}


def test_progress_goes_to_standard_error():
    found = kkt("proofs", *QUICK, "--examples", 0.05, "--verbose")
    assert [line.split()[-1] for line in found.lines] == list(QUICK)
    assert kkt("proofs", *QUICK, "--examples", 0.05, "--quiet").err == ""


def test_interrupt_prints_what_was_reached_and_ends_with_130(monkeypatch):
    go = Run.go

    def interrupted(self, progress=None):
        go(Run(self.statements[:1], self.examples, results=self.results), progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "go", interrupted)
    found = kkt("proofs", *QUICK, "--examples", 0.05, "--format", "json")
    assert found.code == 130
    table = json.loads(found.out)
    assert [entry["status"] for entry in table["statements"]] == ["proved", "not run"]
    assert table["stopped"] == "interrupted"


@pytest.mark.medium
@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
def test_interrupt_reaches_a_run_in_two_processes():
    code = "import kktcert, sys; sys.exit(kktcert.run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "proofs", "kkt", "tensors", "-v"]
    command += ["--processes", "2", "--format", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        # On a busy machine a line with the seconds may come before the first statement.
        names = {statement.name for statement in registry.all_statements()}
        first = next(line for line in process.stderr if line.split()[-1] in names)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    table = json.loads(out)
    assert table["stopped"] == "interrupted"
    reached = [entry["name"] for entry in table["statements"] if entry["status"] != "not run"]
    assert first.split()[-1] in reached
    assert err.splitlines()[-1] == "kktcert: interrupted"
    assert "Traceback" not in err


@pytest.mark.medium
def test_mounting_loads_no_statement_and_no_engine():
    code = (
        "import sys, kktcert\n"
        "print([n for n in sys.modules if n.startswith('proofs_check.statements.')"
        " or n in ('hypothesis', 'torch', 'sympy')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert "proofs" in typer.main.get_command(kktcert.app).commands
