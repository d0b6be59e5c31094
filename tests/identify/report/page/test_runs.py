"""Pages of attacks, replays and spans: what they say is what the files say."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from identify.markup import sheet
from identify.report.page.content import BAD, OPEN, read_page
from identify.report.page.render import render
from identify.report.page.runs import attack_page, replay_page, span_page

RUN = {"kind": "attack", "objective": "<haim>", "candidates": 4, "loss": 0.25, "data_loss": None,
       "steps": 9, "stopped": "steps", "rounds": [], "versions": {"kktcert": "0"}}  # fmt: skip
ROUND = {"step": 3, "count_before": 4, "count_after": 6, "before": 1.0, "after": 0.5,
         "accepted": True, "taken": True}  # fmt: skip


def conclusion(word):
    row = {"name": "held_out", "samples": 8, "found": 0.7, "null": 0.5, "better": 7, "p": 0.01,
           "ahead": word == "better"}  # fmt: skip
    return {"conclusion": {"word": word, "measure": "ncc", "comparisons": [row],
                           "sentence": f"Conclusion: {word} <b>."}}  # fmt: skip


def test_an_attack_that_was_not_compared_claims_nothing():
    page = attack_page(RUN | {"rounds": [ROUND, ROUND | {"taken": False}]})
    assert (page.verdict, page.meaning) == ("not compared", OPEN)
    assert "is not known" in page.lead[0][1]
    assert [len(table.rows) for table in page.tables] == [1]
    assert [bar.name for bar in page.bars] == ["loss"]
    assert "&lt;haim&gt;" in render([page])


@pytest.mark.parametrize(("word", "meaning"), [("better", BAD), ("equal", OPEN), ("worse", OPEN)])
def test_what_an_evaluation_says_decides(word, meaning):
    page = attack_page(RUN, conclusion(word))
    assert page.meaning == meaning
    assert page.lead[0][1] == f"{word} <b>."
    assert page.tables[0].rows[0][0] == "held out"
    html = render([page])
    assert read_page(html, "x") == page
    assert "<b>" not in html


def test_an_evaluation_without_a_comparison():
    told = {"conclusion": {"word": "equal", "measure": "ncc", "comparisons": [],
                           "sentence": "Conclusion: none."}}  # fmt: skip
    assert attack_page(RUN, told).tables == ()


@pytest.mark.parametrize(
    ("verdict", "reached", "meaning"),
    [("locally", True, BAD), ("undecided", True, BAD), ("undecided", False, OPEN)],
)
def test_a_replay(verdict, reached, meaning):
    content = {"verdict": verdict, "reached": reached, "error_bounds": [1e-6, None],
               "labels": [1, [0.5, 0.5]], "residual": 1e-9, "rounding": math.inf, "steps": 4,
               "rate": 0.1, "assumptions": ["2 samples"], "fitted": ["rate"]}  # fmt: skip
    page = replay_page(content)
    assert (page.verdict, page.meaning) == (verdict, meaning)
    assert page.tables[0].rows[1][1] == "-"
    assert [bar.name for bar in page.bars] == ["residual"]
    assert ("found with them", "rate") in page.lead


def test_a_span():
    page = span_page([3.0, 2.0, 1.0])
    assert page.verdict == "at least 3"
    assert len(page.bars) == 3


@pytest.mark.parametrize("shape", [(13, 5, 6), (3, 5, 6, 3), (1, 4, 4)])
def test_a_sheet_shows_every_image_in_its_range(shape):
    image = pytest.importorskip("PIL.Image")
    values = np.random.default_rng(0).normal(size=shape)
    pixels = np.asarray(image.open(io.BytesIO(sheet(values, columns=4))), dtype=float)
    scale = round(60 / max(shape[1:3]))
    high, wide = scale * shape[1] + 2, scale * shape[2] + 2
    for index, part in enumerate(values):
        y, x = high * (index // 4), wide * (index % 4)
        own = 255 * (part - part.min()) / (part.max() - part.min())
        shown = pixels[y : y + high - 2 : scale, x : x + wide - 2 : scale]
        # The first pixel of the sheet may be set to black, so that grey is stretched once.
        np.testing.assert_allclose(shown.ravel()[1:], own.ravel()[1:], atol=0.51)
