"""Contact sheets: captions, partners of two sets, lengths and signs, the grey scale."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import identify.command.sheet
from identify.command.sheet import Sheet
from identify.command.sheet_rows import cosines, fit_to_pixels, partners
from identify.records import Recovery, TrainingSet, Verdict
from identify.verdict.sentences import symmetries


def best_by_trying(table):
    """The largest sum over one-to-one pairs, by all permutations."""
    n, m = table.shape
    return max(sum(table[i, p[i]] for i in range(n)) for p in itertools.permutations(range(m), n))


@pytest.mark.parametrize("free_sign", [False, True])
@pytest.mark.parametrize(("n", "m", "seed"), [(1, 1, 0), (2, 4, 1), (3, 3, 2), (4, 5, 3)])
def test_partners_are_the_best_of_all_pairings(n, m, seed, free_sign):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n, 6)), rng.normal(size=(m, 6))
    order, signs, alike = partners(first, second, free_sign=free_sign)
    table = cosines(first, second)
    assert sorted(order) == list(range(m))
    turned = signs[:, None] * second[order]
    np.testing.assert_allclose(np.diag(cosines(first, turned)), alike, atol=1e-12)
    np.testing.assert_allclose(
        alike.sum(), best_by_trying(np.abs(table) if free_sign else table), atol=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_centred_images_get_back_their_length_and_sign(seed):
    rng = np.random.default_rng(seed)
    pixels = np.where(rng.random((40, 30)) < 0.5, 0.0, rng.random((40, 30)))
    mean = pixels.mean(axis=0)
    centred = pixels[:5] - mean
    factors = rng.choice([-1.0, 1.0], 5) * rng.uniform(0.1, 9.0, 5)
    noisy = factors[:, None] * (centred + 1e-4 * rng.normal(size=centred.shape))
    found = fit_to_pixels(noisy, mean, (0.0, 1.0), free_sign=True)
    assert np.abs(found - centred).max() < 0.01
    kept = fit_to_pixels(-centred, mean, (0.0, 1.0), free_sign=False)
    assert np.all((kept * -centred).sum(axis=1) > 0)


def test_what_fits_no_pixels_stays():
    mean = np.array([0.0, 1.0])
    rows = np.array([[0.0, 0.0], [-1.0, 1.0]])
    found = fit_to_pixels(rows, mean, (0.0, 1.0), free_sign=False)
    np.testing.assert_array_equal(found, rows)


class TestPage:
    """What is handed to the page."""

    @pytest.fixture(autouse=True)
    def page(self, monkeypatch):
        self.drawn = {}

        def keep(path, rows, title, *, limits=None, footnote=""):
            self.drawn.update(rows=rows, title=title, limits=limits, note=footnote)

        monkeypatch.setattr(identify.command.sheet, "contact_sheet", keep)

    def report(self, *, scale="free", recovery=None, sets=(), source="weight-decay"):
        return SimpleNamespace(
            recovery=recovery, alternatives=tuple(sets), symmetries=symmetries(3, scale, False),
            problem={"source": source}, verdict=Verdict.UNDECIDED, scope=None, reason="why",
        )  # fmt: skip

    def recovery(self, rows):
        bounds = np.array([1e-9, np.nan])[: len(rows)]
        return Recovery(rows, np.ones(len(rows)), bounds, {})

    def test_images_without_a_length_are_stretched_and_the_page_says_so(self):
        Sheet((2, 2)).draw("", self.report(recovery=self.recovery(np.eye(4)[:2])))
        assert self.drawn["limits"] is None
        assert "stretched" in self.drawn["note"]
        assert "sign and length" in self.drawn["note"]
        assert self.drawn["rows"][0][2] == ["sample 1\nerror < 1.0e-09", "sample 2\nno error bound"]

    def test_images_with_a_length_share_one_scale(self):
        rows = np.array([[0.0, 1.0, 2.0, 3.0], [-1.0, 0.0, 0.0, 0.0]])
        Sheet((2, 2)).draw("", self.report(scale="bias", recovery=self.recovery(rows)))
        assert self.drawn["limits"] == (-1.0, 3.0)
        assert "black -1, white 3" in self.drawn["note"]
        assert "length of an image" not in self.drawn["note"]

    def test_with_the_mean_pixels_fix_length_and_sign(self):
        pixels = np.array([[0.0, 1.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.5]])
        mean = np.full(4, 0.4)
        rows = (pixels - mean) * [[-3.0], [0.2]]
        sheet = Sheet((2, 2), mean=mean)
        sheet.draw("", self.report(recovery=self.recovery(rows)))
        np.testing.assert_allclose(self.drawn["rows"][0][1].reshape(2, 4), pixels)
        assert self.drawn["limits"] == (0.0, 1.0)

    @pytest.mark.parametrize("turn", [1.0, -1.0])
    def test_sets_stand_in_step(self, turn):
        one = np.eye(4)[:2]
        other = np.eye(4)[[2, 1, 0]] * turn
        sets = [TrainingSet(rows, np.ones(len(rows)), 0.0) for rows in (one, other)]
        Sheet((2, 2)).draw("", self.report(sets=sets, source="gradient"), sets)
        (first, top, names), (second, below, numbers) = self.drawn["rows"]
        np.testing.assert_array_equal(below[:2], top)
        assert (first, second) == (
            "one training set: 2 samples",
            "another training set with the same gradient: 3 samples",
        )
        assert names == ["sample 1", "sample 2"]
        assert numbers == ["sample 3\ncosine 1.00", "sample 2\ncosine 1.00", "sample 1"]

    def test_a_smaller_second_set_stands_in_step_too(self):
        rows = (np.eye(4)[:3], np.eye(4)[[2]])
        sets = [TrainingSet(part, np.ones(len(part)), 0.0) for part in rows]
        Sheet((2, 2)).draw("", self.report(sets=sets))
        (_, top, names), (_, below, numbers) = self.drawn["rows"]
        np.testing.assert_array_equal(top[0], below[0])
        assert names[0] == "sample 3\ncosine 1.00"
        assert numbers == ["sample 1"]

    def test_what_was_made_of_given_samples_stays_below_them(self):
        one = np.eye(4)[:2]
        sets = [TrainingSet(rows, np.ones(2), 0.0) for rows in (one, one[::-1])]
        Sheet((2, 2)).draw("", self.report(sets=sets), sets, given=True)
        assert self.drawn["rows"][0][0] == "your samples: 2 samples"
        assert self.drawn["rows"][1][2][0].startswith("sample 1\n")
        assert "not determined" not in self.drawn["note"]
