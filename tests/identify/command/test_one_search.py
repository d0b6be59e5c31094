"""`alternatives` measures once, searches once, and has one time limit."""

from __future__ import annotations

import time

import numpy as np
import pytest

import identify.alternatives.find as find
import identify.assess as assess
from identify.hermite.data import HermiteData
from identify.recovery import measure as measuring
from tests.command_line import gradient_pair, kkt, random_network, stationary_network, stored
from tests.identify.families import undetermined

LIMIT = 1000.0


@pytest.fixture
def counted(monkeypatch):
    """Deadlines of every measurement and of every search."""
    calls = {"measure": [], "search": []}

    def spy(name, function):
        def run(*arguments, **options):
            calls[name].append(options["budget"].deadline)
            return function(*arguments, **options)

        return run

    measure = spy("measure", measuring.measure)
    monkeypatch.setattr(assess, "measure", measure)
    monkeypatch.setattr(measuring, "measure", measure)
    for module in (assess, find):
        monkeypatch.setattr(module, "search_sets", spy("search", module.search_sets))
    return calls


def cases(folder):
    """Arguments, and how many searches each is worth."""
    for name in "abcd":
        (folder / name).mkdir()
    model, gradient, _ = gradient_pair(folder / "a")
    crowded, many, _ = gradient_pair(folder / "b", width=3, samples=2)
    square, batch, _ = gradient_pair(folder / "d", seed=3, width=4, dimension=4)
    return {
        "determined": ((model, "--source", "gradient", "--gradient", gradient), 1),
        "given number": (
            (model, "--source", "gradient", "--gradient", gradient, "--samples", "4"),
            1,
        ),
        "two sets": ((crowded, "--source", "gradient", "--gradient", many), 1),
        "as many as neurons": ((square, "--source", "gradient", "--gradient", batch), 1),
        "weights": (
            (stored(stationary_network(), folder / "c" / "m.npz"), "--source", "weight-decay"),
            1,
        ),
        "no data": ((stored(random_network(), folder / "c" / "r.npz"),), 0),
    }


@pytest.mark.parametrize(
    "name",
    ["determined", "given number", "two sets", "as many as neurons", "weights", "no data"],
)
def test_one_measurement_and_one_search(name, counted, tmp_path):
    arguments, searches = cases(tmp_path)[name]
    begun = time.monotonic()
    kkt("alternatives", *arguments, "--out", tmp_path / "out", "--time-limit", LIMIT)
    assert (len(counted["measure"]), len(counted["search"])) == (1, searches)
    # All of it within one limit: a second one would end half a limit later.
    for deadline in counted["measure"] + counted["search"]:
        assert deadline < begun + 1.5 * LIMIT


@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_finds_nothing_is_not_repeated(seed, counted, tmp_path, monkeypatch):
    """Searchable and without sets: the verdict's own search was the one."""
    calls = []
    for module in (assess, find):
        monkeypatch.setattr(module, "search_sets", lambda *a, **k: calls.append(k))
    model, gradient, _ = gradient_pair(tmp_path, seed, width=3, samples=2)
    found = kkt(
        "alternatives", model, "--source", "gradient", "--gradient", gradient, "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert found.code == 1
    assert "no other training sets found; verdict undecided" in found.err
    assert (len(counted["measure"]), len(calls)) == (1, 1)


def test_given_data_need_no_second_measurement(counted, tmp_path):
    network = stationary_network()
    model = stored(network, tmp_path / "m.npz")
    np.savez(tmp_path / "d.npz", samples=np.eye(4)[:2])
    found = kkt("alternatives", model, "--source", "weight-decay", "--from", tmp_path / "d.npz",
                "--out", tmp_path / "out")  # fmt: skip
    assert found.code == 0, found.err
    assert (len(counted["measure"]), len(counted["search"])) == (1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_no_search_after_the_time_limit(seed, counted, tmp_path, monkeypatch):
    model, gradient, _ = gradient_pair(tmp_path, seed)
    real = assess.assess_identifiability

    def slow(*arguments, **options):
        report = real(*arguments, **options)
        monkeypatch.setattr(time, "monotonic", lambda: 1e12)
        return report

    monkeypatch.setattr(assess, "assess_identifiability", slow)
    kkt("alternatives", model, "--source", "gradient", "--gradient", gradient, "--out",
        tmp_path / "out", "--time-limit", LIMIT)  # fmt: skip
    assert (len(counted["measure"]), counted["search"]) == (1, [])


def test_the_same_sets_as_with_measurements_of_its_own():
    network = stationary_network(5, 3)
    report = assess.assess_identifiability(HermiteData.from_weight_decay(network))
    first = find.find_alternative(network, "weight-decay")
    second = find.find_alternative(network, "weight-decay", findings=report.findings)
    assert report.searched
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)


@pytest.mark.parametrize("seed", [253, 1048, 1438])
def test_trained_networks_without_a_set_of_r_have_larger_ones(seed, tmp_path):
    model = stored(undetermined(seed).data.network, tmp_path / "m.npz")
    arguments = (model, "--source", "weight-decay", "--out", tmp_path / "out")
    found = kkt("alternatives", *arguments)
    assert found.code == 0, found.err
    checked = kkt("check", tmp_path / "out" / "report.json", model, "--require", "confirmed")
    assert checked.code == 0, checked.out
