"""Matrix work in pieces against the whole, and a clock that runs out at every look."""

from __future__ import annotations

import itertools
import json

import flint
import numpy as np
import pytest
import scipy.linalg

import identify.budget
from identify.assess import assess_identifiability
from identify.budget import Budget
from identify.checker import case as check_case
from identify.checker import enclosure as check_enclosure
from identify.checker.arithmetic import timed as check_timed
from identify.checker.outcome import NotCheckableError
from identify.hermite.data import HermiteData
from identify.model.gradients import load_gradient
from identify.model.loading import load_network
from identify.proofs import timed
from tests.command_line import gradient_pair
from tests.identify.checker.changes import case_of
from tests.identify.proofs.enclosure_problems import planted

BOTH = pytest.mark.parametrize("module", [timed, check_timed])


class OutOfTime(Exception):
    """Raised by the clock of these tests."""


def clock(looks):
    """A clock that raises at that look, and the list of what was asked of it."""
    asked = []

    def tick(seconds=0.0):
        asked.append(seconds)
        if looks is not None and len(asked) > looks:
            raise OutOfTime

    return tick, asked


def balls(rng, rows, columns, radius):
    values = rng.normal(size=(rows, columns)).tolist()
    return flint.arb_mat([[flint.arb(v, radius) for v in line] for line in values])


@BOTH
@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (128, 20), (129, 20), (300, 40)])
def test_products_in_pieces(module, rows, columns):
    rng = np.random.default_rng(rows)
    left, right = balls(rng, rows, columns, 1e-9), balls(rng, columns, 7, 1e-9)
    tick, asked = clock(None)
    found, whole = module.product(left, right, tick), left * right
    assert (found.nrows(), found.ncols()) == (rows, 7)
    for a, b in zip(found.entries(), whole.entries(), strict=True):
        assert a.overlaps(b)
        assert float(a.rad()) < 4.0 * float(b.rad())
    # One look for each 128 rows at least.
    assert len(asked) >= -(-rows // 128)


@BOTH
@pytest.mark.parametrize("size", [4, 128, 150])
def test_inverses_begin_only_where_there_is_time(module, size):
    matrix = balls(np.random.default_rng(size), size, size, 0.0)
    tick, asked = clock(None)
    found = module.inverse(matrix, tick) * matrix
    assert all(found[i, j].overlaps(flint.arb(int(i == j))) for i in range(3) for j in range(3))
    assert (max(asked) > 0.0) == (size > 128)
    if size > 128:
        with pytest.raises(OutOfTime):
            module.inverse(matrix, clock(1)[0])
    with pytest.raises(ZeroDivisionError):
        module.inverse(flint.arb_mat(size, size), tick)


@BOTH
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 9), (40, 40), (700, 12), (90, 30)])
@pytest.mark.parametrize("near", [1.0, 1e-4, 1e-9])
def test_triangles_from_blocks(module, rows, columns, near, monkeypatch):
    matrix = np.random.default_rng(rows).normal(size=(rows, columns))
    # The last column is nearly the first: squares would lose it.
    matrix[:, -1] = matrix[:, 0] + near * matrix[:, -1]
    options = {} if module is timed else {"squares": True}
    for limit in (1e9, 0.0):
        monkeypatch.setattr(module, "_SMALL_FLOPS", limit)
        tick, asked = clock(None)
        found = module.triangle(matrix, tick, **options)
        np.testing.assert_allclose(found.T @ found, matrix.T @ matrix, atol=1e-11 * rows)
        assert np.all(np.abs(np.tril(found, -1)) < 1e-12)
        if rows > columns > 1:
            smallest = [np.linalg.svd(part, compute_uv=False)[-1] for part in (found, matrix)]
            assert smallest[0] == pytest.approx(smallest[1], rel=1e-4)
        if limit == 0.0:
            assert len(asked) >= -(-rows // max(128, 2 * columns))


@pytest.mark.parametrize(("rows", "columns"), [(8, 3), (60, 5), (300, 10)])
def test_a_tournament_of_rows(rows, columns, monkeypatch):
    rng = np.random.default_rng(rows)
    matrix = rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-6, 0, (rows, 1))
    whole = timed.independent_rows(matrix, columns)
    assert whole == scipy.linalg.qr(matrix.T, mode="r", pivoting=True)[1][:columns].tolist()
    monkeypatch.setattr(timed, "_SMALL_FLOPS", 0.0)
    tick, asked = clock(None)
    found = timed.independent_rows(matrix, columns, tick)
    assert len(set(found)) == columns
    assert len(asked) == -(-rows // columns)
    smallest = [np.linalg.svd(matrix[chosen], compute_uv=False)[-1] for chosen in (found, whole)]
    assert smallest[0] > 0.01 * smallest[1]


class FalseTime:
    """Each look at the clock takes one second."""

    def __init__(self):
        self.seconds = itertools.count()

    def monotonic(self):
        return next(self.seconds)


@pytest.mark.parametrize(("degree", "r", "k"), [(3, 3, 8), (4, 2, 6), (3, 4, 12)])
def test_an_enclosure_ends_at_every_look(degree, r, k, monkeypatch):
    """Wherever the time runs out the outcome is undecided and says so; nothing goes on after."""
    problem = planted(degree, r, k, 1)
    watch = FalseTime()
    monkeypatch.setattr(identify.budget, "time", watch)
    assert problem.enclose(1e-11, budget=Budget(10**9)).outcome == "proved"
    looks = next(watch.seconds)
    # Row by row: one look for each equation in each of the passes over them.
    assert looks > 2 * k * r
    for end in range(0, looks - 3, 5):
        watch = FalseTime()
        monkeypatch.setattr(identify.budget, "time", watch)
        box = problem.enclose(1e-11, budget=Budget(end))
        assert (box.outcome, box.reason) == ("undecided", "the time limit was reached")
        # The clock is asked a last time for the condition numbers.
        assert next(watch.seconds) <= end + 6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_checked_enclosure_ends_at_every_look(seed, tmp_path, monkeypatch):
    model, gradient, _ = gradient_pair(tmp_path, seed, samples=3 + seed % 2)
    report = report_of(model, gradient)
    case = case_of(report, (model, gradient))
    real, asked = check_case.Case.in_time, []

    def count(self, needed=0.0):
        asked.append(needed)
        return real(self, needed)

    monkeypatch.setattr(check_case.Case, "in_time", count)
    check_enclosure.check_enclosure(case)
    looks, unknowns = len(asked), case.r**2
    assert looks > 3 * unknowns
    for end in range(1, looks, 7):
        left = itertools.count(end, -1)

        def late(_self, _needed=0.0, left=left):
            if next(left) <= 0:
                raise NotCheckableError("the time limit is reached")

        monkeypatch.setattr(check_case.Case, "in_time", late)
        with pytest.raises(NotCheckableError, match="time limit"):
            check_enclosure.check_enclosure(case_of(report, (model, gradient)))


def report_of(model, gradient):
    network = load_network(model)
    data = HermiteData.from_gradient(network, load_gradient(gradient, network))
    return json.loads(assess_identifiability(data).to_json())


@pytest.mark.parametrize("seed", range(3))
def test_blocks_smaller_than_the_unknowns(seed, tmp_path, monkeypatch):
    for module in (timed, check_timed):
        monkeypatch.setattr(module, "_ROWS", 3)
        monkeypatch.setattr(module, "_WORK", 0)
        monkeypatch.setattr(module, "_SMALL_FLOPS", 0.0)
    files = gradient_pair(tmp_path, seed, samples=3 + seed % 2)[:2]
    report = report_of(*files)
    assert report["certificate"]["enclosure"] is not None
    assert check_enclosure.check_enclosure(case_of(report, files))[0] == "ball arithmetic"
    report["certificate"]["enclosure"]["precision"] = 212
    assert check_enclosure.check_enclosure(case_of(report, files))[0] == "ball arithmetic"
