"""Pages beside reports, and one page of many runs, from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from identify.report.page.content import read_page
from tests.command_line import kkt, random_network, stored


@pytest.fixture
def runs(tmp_path):
    """A gradient that gives its samples away, one that does not, and their folders."""
    rng = np.random.default_rng(0)
    net = random_network()
    model = stored(net, tmp_path / "net.npz")
    shown = net.gradient(rng.normal(size=(4, net.dimension)), [1.0, -2.0, 0.5, 1.5])
    hidden = net.gradient(rng.normal(size=(9, net.dimension)), np.ones(9))
    folders = []
    for name, gradient in (("hidden", hidden), ("shown", shown)):
        path = stored(gradient, tmp_path / f"{name}.npz")
        given = ("--source", "gradient", "--gradient", path, "--out", tmp_path / name)
        assert kkt("verify", model, *given).code == 0
        folders.append(tmp_path / name)
    return folders


def test_a_page_says_what_the_report_says(runs):
    for folder in runs:
        content = json.loads((folder / "report.json").read_text())
        page = read_page((folder / "report.html").read_text(encoding="utf-8"), "page")
        assert page.verdict == content["verdict"]
        assert page.lead[0][0] == "in short"
        assert page.recheck.startswith("kktcert check report.json ")
        assert len(page.tables) >= 1
        assert (folder / "report.html").stat().st_mode & 0o777 == 0o600


def test_one_page_of_many_runs_with_the_exposed_first(runs, tmp_path):
    out = tmp_path / "all.html"
    found = kkt("report", *runs, "--out", out, "--title", "Two <clients>")
    assert found.code == 0, found.err
    verdicts = [json.loads((f / "report.json").read_text())["verdict"] for f in runs]
    assert verdicts[1] == "globally"
    assert verdicts[0] != "globally"
    assert found.out.splitlines()[0].startswith("1 of 2 runs")
    text = out.read_text(encoding="utf-8")
    assert "Two &lt;clients&gt;" in text
    assert text.index(str(runs[1])) < text.index(str(runs[0]))
    assert kkt("report", *runs, "--out", out).code == 2
    assert kkt("report", *runs, "--out", out, "--force").code == 0


def test_a_folder_of_an_older_version_has_a_page_from_its_report_alone(runs, tmp_path):
    (runs[0] / "report.html").unlink()
    assert kkt("report", *runs, "--out", tmp_path / "all.html").code == 0


def test_folders_without_a_report_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    found = kkt("report", tmp_path / "empty", "--out", tmp_path / "all.html")
    assert found.code == 2
    assert "empty" in found.err
    (tmp_path / "empty" / "report.json").write_text("[1]")
    assert kkt("report", tmp_path / "empty", "--out", tmp_path / "all.html").code == 2
    assert not (tmp_path / "all.html").exists()


def test_pictures_are_left_out_on_demand(runs, tmp_path):
    pytest.importorskip("matplotlib")
    given = ("--source", "gradient", "--gradient", tmp_path / "shown.npz", "--range", "-5,5")
    out = tmp_path / "drawn"
    shape = ("--image-shape", "2,3")
    done = kkt("recover", tmp_path / "net.npz", *given, *shape, "--out", out)
    assert done.code == 0, done.err
    if not (out / "contact.png").exists():
        pytest.skip("not drawn at this shape")
    for more, count in (((), 1), (("--no-images",), 0)):
        target = tmp_path / f"page-{count}.html"
        assert kkt("report", out, "--out", target, *more).code == 0
        assert len(read_page(target.read_text(encoding="utf-8"), "page").pictures) == count
