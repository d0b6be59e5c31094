"""The package as installed: what importing it costs and whose it is."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata, resources

import pytest

import attack
import identify
import kktcert
import proofs_check

IMPORT = """
import sys
import identify
for name in identify.__all__:
    getattr(identify, name)
print(*sys.modules)
"""


@pytest.mark.medium
def test_import_is_light():
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    modules = set(run.stdout.split())
    assert "identify" in modules
    packages = {name.partition(".")[0] for name in modules}
    assert not packages & {
        "torch", "attack", "proofs_check", "sklearn", "matplotlib", "sympy", "PIL", "typer",
        "hypothesis", "safetensors",
    }  # fmt: skip
    assert not modules & {"scipy.stats", "scipy.signal", "scipy.integrate", "scipy.interpolate"}


def test_identify_belongs_to_this_distribution():
    # An editable installation is found twice when the tests run in the checkout.
    assert set(metadata.packages_distributions()["identify"]) == {"kktcert"}


def test_version_is_that_of_the_distribution(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"kktcert {metadata.version('kktcert')}\n"


@pytest.mark.parametrize(
    ("owners", "words"),
    [(["identify", "kktcert"], "also belongs to the distribution identify"), ([], "not installed")],
)
def test_the_command_refuses_a_foreign_identify(monkeypatch, capsys, owners, words):
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"identify": owners})
    with pytest.raises(SystemExit) as caught:
        run_command("--version")
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


@pytest.mark.parametrize("package", [identify, attack, proofs_check])
def test_packages_are_typed_and_list_what_is_public(package):
    assert resources.files(package).joinpath("py.typed").is_file()
    # The linter keeps the order: constants, classes, functions.
    assert len(package.__all__) == len(set(package.__all__)) > 0
    assert all(hasattr(package, name) for name in package.__all__)


def run_command(*arguments):
    original, sys.argv = sys.argv, ["kktcert", *arguments]
    try:
        kktcert.main()
    finally:
        sys.argv = original
