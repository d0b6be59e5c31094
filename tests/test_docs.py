"""The documentation says what the commands do: options, links, fields, pasted output."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import typer
from sklearn.datasets import load_digits

import identify
import kktcert

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
REFERENCE = (DOCS / "commands.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(kktcert.app).commands
LINK = re.compile(r"\]\(([^)\s]+)\)")


def slug(title):
    """The anchor of a heading."""
    return re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def sections(text):
    """Text below each heading, up to the next one, by anchor."""
    parts = re.split(r"^#+ (.+)$", without_code(text), flags=re.MULTILINE)
    return {slug(title): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def named_options(section):
    """Options in the first column of the tables of a section."""
    cells = re.findall(r"^\| (`-.*?) \| ", section, flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell)}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_reference_and_help_name_the_same_options(command):
    below = sections(REFERENCE)
    named = named_options(below[command])
    for group in re.findall(r"\]\(#(\w[\w-]*-options)\)", below[command]):
        assert named_options(below[group])
        named |= named_options(below[group])
    taken = {name for p in COMMANDS[command].params for name in p.opts if name.startswith("-")}
    assert named == taken | {"--help"}


def test_reference_lists_every_command():
    listed = re.findall(r"^\| \[(\w+)\]\(#\1\) \|", REFERENCE, flags=re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `kktcert (\w+)", readme, flags=re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("reportjson", "report.schema.json"),
        ("reportjson-of-a-relu-networks-weights", "stationary_report.schema.json"),
        ("reportjson-of-two-checkpoints", "pair_report.schema.json"),
        ("reportjson-of-one-gradient-of-a-deep-network", "deep_report.schema.json"),
    ],
)
def test_reference_lists_every_field_of_the_report(section, name):
    schema = json.loads(resources.files(identify).joinpath(name).read_text())
    cells = re.findall(r"^\| (`\w.*?) \| ", sections(REFERENCE)[section], flags=re.MULTILINE)
    assert {word for cell in cells for word in re.findall(r"`(\w+)`", cell)} == set(
        schema["properties"]
    )


BESIDE = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md")]


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: page.name)
def test_links_resolve(page):
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.is_file(), target
        assert not anchor or anchor in sections(other.read_text(encoding="utf-8")), target


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    tree = index.split("```{toctree}")[1].split("```")[0].split()
    assert sorted(f"{name}.md" for name in tree if not name.startswith(":") and name != "2") == [
        page.name for page in PAGES if page.name != "index.md"
    ]


def test_library_page_names_every_public_function():
    text = (DOCS / "library.md").read_text(encoding="utf-8")
    errors = {n for n in identify.__all__ if n.endswith("Error")}
    assert [n for n in identify.__all__ if f"`{n}" not in text and n not in errors] == []


def load_refresh():
    spec = importlib.util.spec_from_file_location("refresh_outputs", DOCS / "refresh_outputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def masked(text):
    """Words alone: numbers, sizes of tables and line breaks differ between machines.

    Hashes come first, or what follows the digits that one of them begins with would stay.
    """
    return " ".join(re.sub(r"\b[0-9a-f]{12,}\b|[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", text).split())


@pytest.mark.parametrize("digits", ["0123456789ab", "a1b2c3d4e5f6", "1e5000000000", "12e4" * 16])
def test_the_mask_covers_whole_hashes_and_nothing_else(digits):
    assert masked(f"sha256 {digits}, rank 35 of 1.2e-13") == "sha# #, rank # of #"
    assert masked("verdict globally") != masked("verdict locally")


def test_every_command_has_its_first_screen_in_a_page_that_is_refreshed():
    tool = load_refresh()
    shown = {
        command.split()[1]
        for path in (*tool.PAGES, *tool.ELSEWHERE)
        for block in re.findall(r"```console\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL)
        for command, output in tool.commands(block)
        if command.startswith("kktcert ") and output
    }
    every = set(typer.main.get_command(kktcert.app).commands)
    assert every - shown == set()


@pytest.mark.medium
def test_pasted_output_is_what_the_commands_print(tmp_path, monkeypatch, capsys):
    tool = load_refresh()
    monkeypatch.chdir(tmp_path)

    def run(command):
        program, *arguments = command.split()
        if program == "python":
            exec(compile(Path(arguments[0]).read_text(), arguments[0], "exec"), {})
            return ""
        capsys.readouterr()
        assert kktcert.run(arguments) == 0, command
        return capsys.readouterr().out

    for path in tool.PAGES:
        page = path.read_text(encoding="utf-8")
        tool.save_scripts(page, tmp_path)
        now = tool.refresh(page, run)
        for old, new in zip(
            re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL),
            re.findall(r"```console\n(.*?)```", now, flags=re.DOTALL),
            strict=True,
        ):
            assert masked(new) == masked(old), "run: python docs/refresh_outputs.py"
    # What the text around the output says.
    with np.load(tmp_path / "recovered/samples.npz") as found:
        np.testing.assert_allclose(np.linalg.norm(found["samples"], axis=1), 1.0)
        assert set(found) == {"samples", "coefficients", "error_bounds", "absolute_bounds"}
    assert kktcert.run(["alternatives", "model.safetensors", "--out", "none"]) == 1
    with np.load(tmp_path / "batch/samples.npz") as found:
        pixels, classes = load_digits(return_X_y=True)
        apart = np.linalg.norm(pixels[:, None] / 16 - found["samples"], axis=2)
        assert apart.min(axis=0).max() < 1e-5
        np.testing.assert_array_equal(classes[apart.argmin(axis=0)], found["labels"])
    assert (tmp_path / "batch/contact.png").is_file()
