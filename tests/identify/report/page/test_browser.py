"""Pages in a real browser: no overflow at three widths, light and dark, pictures that load."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib

import pytest

from identify.report.page.content import Picture
from identify.report.page.render import render
from tests.identify.report.page.test_page import page

BROWSER = next((name for name in ("chromium", "chromium-browser", "google-chrome")
                if shutil.which(name)), None)  # fmt: skip
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
LONG = "averylongwordwithoutanyplacetobreak" * 6
PROBE = """<script>addEventListener("load", () => { document.title = JSON.stringify({
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  broken: [...document.images].filter(i => !i.naturalWidth).length,
  out: [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg, details")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName),
}) })</script>"""


def picture(words):
    """A black PNG, wider than a telephone."""
    header = struct.pack(">IIBBBBB", 900, 40, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(900)) * 40)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return Picture.of(content, words, words)


def measured(folder, text, width):
    """What the browser finds, by a script that the page itself would not allow."""
    text = re.sub(r"<meta http-equiv=.Content-Security-Policy[^>]*>", PROBE, text)
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/p",
         f"--window-size={width},900", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1])


CASES = [
    pytest.param(768, 1, "words", marks=pytest.mark.medium),
    *(
        pytest.param(width, count, words, marks=pytest.mark.slow)
        for width in (390, 768, 1440)
        for count in (1, 3)
        for words in ("words", LONG)
    ),
]


@needs_browser
@pytest.mark.parametrize(("width", "count", "words"), CASES)
def test_nothing_overflows_and_every_picture_loads(width, count, words, tmp_path):
    shown = page(words)
    shown = type(shown)(**{**vars(shown), "pictures": (picture(words),)})
    found = measured(tmp_path, render([shown] * count), width)
    assert found == {"wide": 0, "broken": 0, "out": []}
