"""What commands write is for the owner alone, and what they may take of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from identify.command.limits import check_memory, parse_bytes, refuse_above, threads
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from tests.command_line import (
    files,
    gradient_pair,
    kkt,
    random_network,
    results,
    stationary_network,
    stored,
)
from tests.identify.disaggregation.problems import plant
from tests.model_files import npz


def open_to_others(folder):
    """Files and folders that others could read."""
    return [str(p) for p in [folder, *folder.rglob("*")] if p.stat().st_mode & 0o077]


@pytest.fixture
def loose():
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.fixture
def gradient(tmp_path):
    model, path, _ = gradient_pair(tmp_path, width=20, dimension=9, samples=4)
    return model, "--source", "gradient", "--gradient", path


@pytest.mark.usefixtures("loose")
@pytest.mark.parametrize("command", ["verify", "recover"])
def test_results_are_for_the_owner_alone(tmp_path, gradient, command):
    out = tmp_path / "deep" / "results"
    assert kkt(command, *gradient, "--out", out).code == 0
    assert files(out)
    assert open_to_others(tmp_path / "deep") == []
    assert os.umask(0o000) == 0o000  # the caller's own is back


@pytest.mark.usefixtures("loose")
@pytest.mark.parametrize("command", ["alternatives", "audit", "relu", "demo"])
def test_every_command_that_writes_writes_for_the_owner(tmp_path, command):
    where = tmp_path / "where"
    if command == "alternatives":
        model = stored(stationary_network(), tmp_path / "two.npz")
        given = (command, model, "--source", "weight-decay", "--image-shape", "2,2")
    elif command == "audit":
        model, path, x = gradient_pair(tmp_path)
        data = npz(tmp_path / "x.npz", samples=x)
        given = (command, model, data, "--source", "gradient", "--gradient", path)
    elif command == "relu":
        planted = plant([16, 24, 150, 4], 3, 0)
        files_of = (("m", planted.network), ("g", planted.gradient))
        model, path = (
            npz(tmp_path / f"{name}.npz", **{f"{k}.weight": w for k, w in enumerate(part.weights)},
                **{f"{k}.bias": b for k, b in enumerate(part.biases)})
            for name, part in files_of
        )  # fmt: skip
        given = ("recover", model, "--activation", "relu", "--source", "gradient", "--gradient",
                 path, "--image-shape", "4,4")  # fmt: skip
    else:
        pytest.importorskip("matplotlib")
        pytest.importorskip("sklearn")
        given = (command,)
    found = kkt(*given, "--out", where)
    assert found.code == 0, found.err
    assert files(where)
    assert command == "audit" or any(path.suffix == ".png" for path in where.rglob("*"))
    assert open_to_others(where) == []


@pytest.mark.usefixtures("loose")
def test_a_file_that_is_replaced_becomes_private(tmp_path, gradient):
    out = tmp_path / "results"
    out.mkdir()
    (out / "report.json").write_text("old")
    assert kkt("verify", *gradient, "--out", out, "--force").code == 0
    assert (out / "report.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("loose")
def test_a_planted_network_and_its_truth_are_private(tmp_path):
    data = tmp_path / "data.npz"
    np.savez(data, samples=np.random.default_rng(0).normal(size=(3, 4)))
    out = tmp_path / "model.npz"
    assert kkt("plant", data, "--degree", 3, "--out", out).code == 0
    for path in (out, tmp_path / "model.npz.truth.npz"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_no_images_leaves_the_picture_out(tmp_path, gradient):
    drawn = kkt("recover", *gradient, "--out", tmp_path / "a", "--image-shape", "3,3")
    assert drawn.code == 0
    quiet = kkt("recover", *gradient, "--out", tmp_path / "b", "--no-images")
    assert "contact.png" in files(tmp_path / "a")
    assert sorted(results(tmp_path / "b")) == ["report.html", "report.json", "samples.npz"]
    assert quiet.err == ""


@pytest.mark.parametrize("option", [("--image-shape", "3,3"), ("--range", "0,1")])
def test_no_images_beside_an_option_for_images_is_refused(tmp_path, gradient, option):
    found = kkt("recover", *gradient, "--out", tmp_path / "a", "--no-images", *option)
    assert found.code == 2
    assert option[0] in found.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("command", ["verify", "recover", "alternatives"])
def test_too_little_memory_is_refused_beforehand_with_the_estimate(tmp_path, gradient, command):
    found = kkt(command, *gradient, "--out", tmp_path / "a", "--memory-limit", "20M")
    assert found.code == 2
    assert len(found.lines) == 1
    assert "the estimate for this work, got 20 MB" in found.err
    assert not (tmp_path / "a").exists()
    allowed = kkt("verify", *gradient, "--memory-limit", "8GiB")
    assert allowed.code == 0


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    model, given, _ = gradient_pair(folder)
    arguments = (model, "--source", "gradient", "--gradient", given)
    assert kkt("verify", *arguments, "--out", folder / "out").code == 0
    return {
        "inspect": ("inspect", model),
        "check": ("check", folder / "out/report.json", *arguments),
        "derive": ("derive", "--dimension", 2, "--width", 2, "--samples", 1, "--degree", 3),
        "demo": ("demo", "--out", folder / "demo"),
        "proofs": ("proofs", "kkt-balance"),
        "figures": ("figures", folder / "out", "--out", folder / "figures"),
    }


@pytest.mark.parametrize("command", ["inspect", "check", "derive", "demo", "proofs", "figures"])
def test_every_command_that_computes_knows_what_it_takes(checked, command):
    if command == "figures":
        pytest.importorskip("torch")
    for limit in ("20M", "100MB"):
        found = kkt(*checked[command], "--memory-limit", limit)
        assert (found.code, found.out) == (2, "")
        assert "the estimate for this work" in found.err
    assert not any(Path(a).exists() for a in checked[command] if str(a).endswith(command))


@pytest.mark.parametrize("command", ["inspect", "check", "derive"])
def test_enough_memory_changes_nothing(checked, command):
    plain = kkt(*checked[command])
    allowed = kkt(*checked[command], "--memory-limit", "1GB")
    assert (allowed.code, allowed.code) == (0, plain.code)
    if command != "check":
        assert allowed.out == plain.out


def test_a_large_report_is_not_read_for_its_estimate(checked, tmp_path, monkeypatch):
    report = tmp_path / "report.json"
    report.write_text(" " * 30_000_000)
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("read"))
    found = kkt("check", report, *checked["check"][2:], "--memory-limit", "200MB")
    assert "at least 370 MB" in found.err or "at least 367 MB" in found.err


@pytest.mark.parametrize("sizes", [[16, 24, 150, 4], [12, 60, 1]])
def test_a_gradient_of_a_relu_network_is_estimated_too(tmp_path, sizes):
    planted = plant(sizes, 4, 0)
    arrays = {f"{k}.weight": w for k, w in enumerate(planted.network.weights)}
    sent = {f"{k}.weight": w for k, w in enumerate(planted.gradient.weights)}
    given = (
        npz(tmp_path / "m.npz", **arrays), "--activation", "relu", "--source", "gradient",
        "--gradient", npz(tmp_path / "g.npz", **sent),
    )  # fmt: skip
    refused = kkt("verify", *given, "--memory-limit", "100M")
    assert refused.code == 2
    assert "the estimate for this work" in refused.err
    assert kkt("verify", *given, "--memory-limit", "1G").code == 0


@pytest.mark.parametrize("text", ["", "much", "-1G", "1e9", "0", "8 PB", "٣G", "1" * 30])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidInputError, match="--memory-limit"):
        parse_bytes(text)


def test_the_estimate_grows_with_the_network():
    def fits(width, limit):
        net = random_network(width=width, dimension=8)
        given = net.gradient(np.eye(8)[:4], np.ones(4))
        try:
            check_memory(limit, HermiteData.from_gradient(net, given), 0)
        except InvalidInputError:
            return False
        return True

    assert fits(40, "200MB")
    assert not fits(3000, "200MB")
    assert fits(3000, "2GB")
    refuse_above(None, 10**30, "")


@pytest.mark.parametrize("count", [1, 2])
def test_threads_hold_while_the_work_lasts(count):
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def most():
        return [p["num_threads"] for p in threadpoolctl.threadpool_info()]

    before, kept = most(), os.environ.get("OMP_NUM_THREADS")
    with threads(count):
        assert all(number == count for number in most())
        code = "import os; print(os.environ['OMP_NUM_THREADS'])"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert child.stdout.strip() == str(count)
    assert most() == before
    assert os.environ.get("OMP_NUM_THREADS") == kept


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_number_of_threads_that_is_none_is_refused(gradient, value):
    found = kkt("verify", *gradient, "--threads", value)
    assert found.code == 2
    assert "--threads" in found.err


def test_the_options_of_alternatives_are_shown():
    text = kkt("alternatives", "--help").out
    for name in ("--from", "--distance", "--keep"):
        assert name in text
