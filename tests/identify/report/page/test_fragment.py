"""What notebooks show of reports, audits, recoveries and runs: escaped, and nothing to run."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import identify
from identify.checker.outcome import CheckResult, Claim
from identify.markup import SHOWN, pictures_html, png, table_html, terms
from identify.records import Recovery
from tests.command_line import random_network

HOSTILE = "<script>alert(1)</script><img src=x onerror=y>\"'&"
ALLOWED = {
    "dd", "details", "div", "dl", "dt", "figcaption", "figure", "h3", "img", "li", "p", "pre",
    "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


class Reader(HTMLParser):
    """Collects text, and refuses what a notebook should not be given."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.alternatives = [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED, tag
        assert {name for name, _ in attrs} <= {"alt", "scope", "src", "style", "width"}, attrs
        if tag == "img":
            given = dict(attrs)
            assert given["src"].startswith("data:image/png;base64,")
            self.alternatives.append(given["alt"])
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    net = random_network(width=60, dimension=16)
    samples = rng.uniform(size=(4, 16))
    return net, samples, net.gradient(samples, [1.0, -2.0, 0.5, 1.5])


@pytest.fixture(scope="module")
def report(problem):
    net, _, gradient = problem
    return identify.assess_identifiability(identify.HermiteData.from_gradient(net, gradient))


def test_a_report_says_its_verdict_and_conclusion(report):
    shown = "".join(read(report._repr_html_()).text)
    assert report.verdict.value in shown
    assert "training samples can be reconstructed" in shown
    assert all(condition.name in shown for condition in report.conditions)


@pytest.mark.parametrize("where", ["reason", "assumptions", "caveats"])
def test_hostile_text_of_a_report_stays_text(report, where):
    value = HOSTILE if where == "reason" else (HOSTILE,)
    assert HOSTILE in "".join(read(replace(report, **{where: value})._repr_html_()).text)


def test_a_deep_report_and_its_audit():
    rng = np.random.default_rng(1)
    network = identify.DeepNetwork(
        [rng.normal(size=(30, 6)), rng.normal(size=(3, 30))], [None, None], "relu"
    )
    images, labels = rng.normal(size=(3, 6)), np.array([0, 1, 2])
    scores = np.exp(network.value(images))
    slopes = (scores / scores.sum(axis=1, keepdims=True) - np.eye(3)) / 3
    gradient = network.gradient(images, slopes)
    found = identify.assess_gradient(network, gradient, "cross_entropy")
    assert found.verdict in "".join(read(found._repr_html_()).text)
    audit = identify.audit_gradient(found, network, gradient, images, labels)
    shown = read(audit._repr_html_())
    assert "Which samples are exposed?" in "".join(shown.text)


def test_an_audit(problem):
    net, samples, gradient = problem
    audit = identify.audit(net, samples, source="gradient", gradient=gradient)
    shown = "".join(read(audit._repr_html_()).text)
    assert "4 of 4 samples" in shown
    hostile = replace(audit, notes=(HOSTILE,))
    assert HOSTILE in "".join(read(hostile._repr_html_()).text)


def test_a_recovery_shows_its_samples(report):
    shown = read(report.recovery._repr_html_())
    assert len(shown.alternatives) == 4
    assert all(words.startswith("sample ") for words in shown.alternatives)


def test_a_recovery_of_no_images_is_a_table():
    found = Recovery(np.ones((2, 5)), np.ones(2), np.array([np.nan, 1e-3]), {})
    shown = read(found._repr_html_())
    assert shown.alternatives == []
    assert {"none", "0.001"} <= set(shown.text)


def test_what_other_objects_print_is_escaped():
    claim = Claim("verdict", "refuted", "hash", HOSTILE)
    assert HOSTILE in "".join(read(CheckResult((claim,))._repr_html_()).text)
    rows = [[HOSTILE, "1"]] * (SHOWN + 3)
    shown = read(table_html([HOSTILE, "b"], rows) + terms([(HOSTILE, HOSTILE)]))
    assert shown.text.count(HOSTILE) == SHOWN + 3
    assert "3 more rows" in shown.text


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_pictures_have_the_pixels(shape):
    image = pytest.importorskip("PIL.Image")
    values = np.random.default_rng(0).normal(size=shape)
    pixels = np.asarray(image.open(io.BytesIO(png(values))))
    low, high = values.min(), values.max()
    np.testing.assert_allclose(pixels, 255 * (values - low) / (high - low), atol=0.51)


def test_pictures_are_cut_and_have_words():
    html = pictures_html(np.zeros((SHOWN + 2, 4, 4)), [HOSTILE] * (SHOWN + 2))
    shown = read(html)
    assert shown.alternatives == [HOSTILE] * SHOWN
    assert "2 more" in shown.text
    for data in re.findall(r"base64,([^\"]+)", html):
        assert base64.b64decode(data).startswith(b"\x89PNG")
