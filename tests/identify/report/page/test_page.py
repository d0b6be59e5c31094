"""Pages for people: their content, that nothing leaves them, and that they can be read back."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from identify.errors import FileError
from identify.report.page.build import labelled_lines, report_page
from identify.report.page.content import BAD, OPEN, Bar, Page, Picture, Table, read_page
from identify.report.page.explanations import explained
from identify.report.page.render import render
from identify.verdict.rules import RULES

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)> & \" ' \u202e"
EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "line", "link", "meta", "rect"}


class Outline(HTMLParser):
    """Tags with their attributes, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.sound = [], [], True
        self.feed(text)
        self.sound = self.sound and not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.sound = self.sound and bool(self.open) and self.open.pop() == tag

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page(words="words", meaning=BAD):
    return Page(
        title=f"Title {words}",
        verdict="globally",
        meaning=meaning,
        lead=(("in short", words), ("what to do", words)),
        pictures=(Picture.of(PNG, words, words),),
        tables=(Table("T", words, ("a", words), (("1", words), (words, "2")), (BAD, "")),),
        bars=(Bar(words, 1e-9, 1e-6), Bar("other", 3.0)),
        lists=(("L", (words,)), ("empty", ())),
        recheck=words,
        provenance=(("seed", words),),
        text=words,
        source=words,
    )


@pytest.mark.parametrize("words", ["plain", NASTY, "long " * 200, "\u00e9\u4e2d\U0001f600"])
@pytest.mark.parametrize("count", [1, 3])
def test_pages_are_sound_html_that_shows_their_words_and_runs_nothing(words, count):
    text = render([page(words)] * count)
    outline = Outline(text)
    assert outline.sound, outline.open
    assert len(outline.named("h1")) == 1
    assert len(outline.named("article")) == count
    scripts = outline.named("script")
    assert [script.get("type") for script in scripts] == ["application/json"]
    assert not any(name.startswith("on") for _, found in outline.tags for name in found)
    assert all(image["alt"] for image in outline.named("img"))
    assert not outline.named("link")


def test_nothing_is_loaded_from_elsewhere():
    text = render([page()])
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!data:|#)[a-z/]", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("words", ["plain", NASTY])
def test_a_page_is_read_back_as_it_was(words):
    assert read_page(render([page(words)]), "x") == page(words)


@pytest.mark.parametrize(
    "text",
    ["", "<html></html>", '<script type="application/json" id="kktcert-page">[]</script>',
     '<script type="application/json" id="kktcert-page">[{}]</script>',
     '<script type="application/json" id="kktcert-page">{</script>'],
)  # fmt: skip
def test_other_files_are_no_pages(text):
    with pytest.raises(FileError):
        read_page(text, "x.html")


def test_a_page_with_a_word_of_its_own_for_its_meaning_is_refused():
    text = render([page()]).replace('"meaning": "bad"', '"meaning": "x onload=y"')
    with pytest.raises(FileError):
        read_page(text, "x.html")


def test_exposed_runs_come_first():
    text = render([page("calm", OPEN), page("exposed", BAD)])
    assert text.index("Title exposed") < text.index("Title calm")
    assert [row["href"] for row in Outline(text).named("a")] == ["#run-1", "#run-2"]


def test_every_rule_of_the_verdict_is_explained():
    assert [each.name for each in RULES if not explained(each.name)] == []


@pytest.mark.parametrize("verdict", ["globally", "locally", "nonidentifiable", "undecided"])
@pytest.mark.parametrize("candidates", [True, False])
def test_undecided_is_never_called_safe(verdict, candidates):
    found = report_page({"verdict": verdict, "candidates": candidates, "reason": "because"})
    exposed = candidates or verdict in ("globally", "locally")
    assert found.meaning == (BAD if exposed else OPEN)
    assert found.lead[0][0] == "in short"
    assert "safe" not in str(found.lead)


def test_the_text_gives_the_lead():
    text = (
        "T\n=\nin short      one\n              two\n\nverdict       x y\nscope         s\n\nA\n-\n"
    )
    assert labelled_lines(text) == [("in short", "one two"), ("verdict", "x y"), ("scope", "s")]
    found = report_page({"verdict": "undecided"}, text)
    assert found.lead == (("in short", "one two"), ("scope", "s"))


def contrast(one, two):
    """The ratio of WCAG 2.1 between two colours."""

    def light(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(one), light(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_light_in_dark_and_on_paper():
    schemes = re.findall(r":root \{([^}]*--ink[^}]*)\}", render([page()]))
    assert len(schemes) == 3
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", scheme))
        colours = {n: "#" + "".join(2 * c for c in v[1:]) if len(v) == 4 else v
                   for n, v in colours.items()}  # fmt: skip
        for name in ("ink", "soft", "bad", "good", "open", "bar"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, (name, colours)


def test_bars_keep_their_order_on_the_scale():
    bars = tuple(Bar(str(k), 10.0**-k) for k in range(1, 14, 3))
    text = render([Page("t", "v", OPEN, (("in short", "x"),), bars=bars)])
    widths = [float(r["width"]) for r in Outline(text).named("rect")]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(widths)
    assert render([Page("t", "v", OPEN, (), bars=(Bar("zero", 0.0),))])


def test_the_page_inside_is_json_without_a_tag():
    text = render([page(NASTY)])
    inner = text[text.index('id="kktcert-page">') + 18 : text.rindex("</script>")]
    assert "<" not in inner
    assert json.loads(inner)[0]["lead"][0][1] == NASTY
