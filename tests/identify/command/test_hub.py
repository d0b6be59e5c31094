"""Models of the hub from its cache, without a network; and sections for model cards."""

from __future__ import annotations

import importlib.util
import tomllib

import pytest

from identify.command import hub
from identify.command.config import FILE
from identify.report.page.card import HEADING, model_card
from identify.report.page.content import Page, read_page
from tests.command_line import gradient_pair, kkt, random_network, refused, stored

COMMIT = "0" * 39 + "1"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of huggingface_hub in a folder, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def put(name, file, write):
        folder = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(COMMIT)
        snapshot = folder / "snapshots" / COMMIT
        snapshot.mkdir(parents=True, exist_ok=True)
        write(snapshot / file)
        return snapshot

    return put


def test_a_model_of_the_cache_is_verified_checked_and_named(cache, tmp_path):
    model, gradient, _ = gradient_pair(tmp_path)
    cache("org/some-net", "model.safetensors", lambda path: path.write_bytes(model.read_bytes()))
    given = ("--source", "gradient", "--gradient", gradient)
    found = kkt("verify", "org/some-net", *given, "--out", "out")
    assert found.code == 0, found.err
    assert "GLOBALLY" in found.out
    work = tmp_path / "work" / "out"
    page = read_page((work / "report.html").read_text(encoding="utf-8"), "x")
    assert page.recheck.startswith("kktcert check report.json org/some-net")
    assert str(tmp_path / "cache") not in (work / "report.html").read_text(encoding="utf-8")
    assert tomllib.loads((work / FILE).read_text(encoding="utf-8"))["model"] == "org/some-net"
    checked = kkt("check", work / "report.json", "org/some-net", *given)
    assert "outcome: confirmed" in checked.out
    assert kkt("inspect", "org/some-net@main").code == 0


@pytest.mark.parametrize("file", ["weights.npz", "pytorch_model.bin"])
def test_other_files_of_weights_are_found(cache, file):
    net = random_network()

    def write(path):
        if path.suffix == ".npz":
            stored(net, path)
            return
        torch = pytest.importorskip("torch")
        layers = {"a.weight": net.hidden_weight, "b.weight": net.output_weight[None]}
        torch.save({name: torch.tensor(array) for name, array in layers.items()}, path)

    cache("org/net", file, write)
    found = kkt("inspect", "org/net", "--degree", "3")
    assert found.code == 0, found.err


def test_what_is_neither_here_nor_in_the_cache(cache, tmp_path):
    refused(tmp_path, "verify", "org/absent", words="neither here nor")
    cache("org/empty", "config.json", lambda path: path.write_text("{}"))
    refused(tmp_path, "verify", "org/empty", words="no file of weights")


def test_without_the_extra_the_line_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(tmp_path, "inspect", "org/net", words="kktcert[hub]")


@pytest.mark.parametrize(
    "text", ["org/net.pt", "here/net", "./org/net", "/org/net", "a/b/c", "net"]
)
def test_paths_are_never_asked_for_on_the_hub(tmp_path, monkeypatch, text):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_fetched", lambda *given: pytest.fail("asked"))
    assert str(hub.model_path(text)) == text.removeprefix("./")


def test_an_existing_folder_wins(cache, tmp_path):
    cache("org/net", "model.safetensors", lambda path: path.write_bytes(b""))
    folder = tmp_path / "work" / "org" / "net"
    folder.mkdir(parents=True)
    stored(random_network(), folder / "model.safetensors")
    assert kkt("inspect", "org/net").code == 0


def test_a_model_card_of_a_run(tmp_path):
    model, gradient, _ = gradient_pair(tmp_path)
    given = ("--source", "gradient", "--gradient", gradient, "--out", tmp_path / "out")
    assert kkt("verify", model, *given).code == 0
    refused(tmp_path, "report", tmp_path / "out", "--out", tmp_path / "c.html", "--model-card",
            words=".md")  # fmt: skip
    found = kkt("report", tmp_path / "out", "--out", tmp_path / "c.md", "--model-card")
    assert found.code == 0, found.err
    text = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert text.startswith(HEADING)
    assert "| verdict | globally |" in text
    assert "4 training samples can be reconstructed" in text
    assert "kktcert check report.json" in text
    assert "no verdict" in text.lower()
    assert "base64" not in text


def test_hostile_text_makes_no_markup():
    hostile = "<script> | [x](y) `z`\n# h"
    page = Page(
        hostile,
        hostile,
        "open",
        (("in short", hostile),),
        recheck="a ``` b\n````",
        lists=((hostile, (hostile,)),),
        provenance=(("m", f"sha256 {hostile}"),),
    )
    lines = model_card([page, page]).splitlines()
    assert not any("<script>" in line.replace(r"\<script\>", "") for line in lines)
    rows = [line for line in lines if line.startswith("|")]
    assert all(line.replace(r"\|", "").count("|") == 3 for line in rows)
    assert lines.count("`````") == 4
    assert [line for line in lines if line.startswith("# ")] == []


def test_a_report_alone_has_a_card(tmp_path):
    """A report without a page, of an older version, has a card too."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text('{"verdict": "undecided", "reason": "noise"}')
    found = kkt("report", tmp_path / "old", "--out", tmp_path / "c.md", "--model-card")
    assert found.code == 0, found.err
    assert "noise" in (tmp_path / "c.md").read_text(encoding="utf-8")
