"""The list of commands costs no import of a command, and says what the commands say."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest
import typer

import attack.command.entries
import kktcert
import proofs_check.entries
from identify.command import commands
from tests.command_line import kkt

ENTRIES = (
    *commands.COMMANDS, *attack.command.entries.COMMANDS, *proofs_check.entries.COMMANDS,
)  # fmt: skip
HEAVY = ("scipy", "torch", "sympy", "flint", "tensorly", "matplotlib", "distributed", "jinja2")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_summary_is_the_first_line_of_the_command(entry):
    function = pkgutil.resolve_name(entry.function)
    assert entry.summary == inspect.getdoc(function).splitlines()[0]
    found = typer.main.get_command(kktcert.app).commands[entry.name]
    assert found.name == entry.name
    assert found.help.splitlines()[0] == entry.summary


def test_help_lists_every_command_and_loads_none():
    code = (
        "import sys, kktcert\n"
        "kktcert.run(['--help'])\n"
        f"print([n for n in sys.modules if n.split('.')[0] in {HEAVY!r}], file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    shown = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("\u2502 ")]
    assert [entry.name for entry in ENTRIES if entry.name not in shown] == []


def test_a_word_near_a_command_is_asked_back():
    found = kkt("vrify", "x")
    assert found.code == 2
    assert "verify" in found.err
    assert kkt("nonsense").code == 2
