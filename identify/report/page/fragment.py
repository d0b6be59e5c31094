"""A page as a piece of HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from identify.markup import preformatted, table_html, terms
from identify.report.page.build import report_page
from identify.report.page.content import BAD, OPEN, Page

_COLOURS = {BAD: "#d1242f", OPEN: "#9a6700"}
"""Readable on the light and the dark background of a notebook."""


def report_fragment(content: Mapping[str, Any], text: str) -> str:
    """Return a report for a notebook; ``content`` is report.json, ``text`` as printed."""
    return fragment(report_page(content, text))


def audit_fragment(
    content: Mapping[str, Any], text: str, title: str, *, exposed: bool
) -> str:  # fmt: skip
    """Return an audit for a notebook; ``content`` is the report.json on the data alone."""
    page = report_page(content, text, title=title)
    return fragment(replace(page, meaning=BAD if exposed else OPEN))


def fragment(page: Page) -> str:
    """Return the conclusion of a page, with its tables and its text folded away.

    Everything is escaped, nothing is loaded and no script runs.

    Example:
        >>> page = Page("A run", "undecided", OPEN, (("in short", "a < b"),))
        >>> "a &lt; b" in fragment(page)
        True
    """
    colour = _COLOURS.get(page.meaning, "#1a7f37")
    parts = [
        f"<h3>{html.escape(page.title)}</h3>",
        f'<p><strong style="color:{colour}">{html.escape(page.verdict)}</strong></p>',
        terms(page.lead),
    ]
    for heading, items in page.lists:
        if items:
            rows = "".join(f"<li>{html.escape(item)}</li>" for item in items)
            parts.append(_folded(heading, f"<ul>{rows}</ul>"))
    parts += [_folded(t.title, table_html(t.header, t.rows)) for t in page.tables]
    if page.text:
        parts.append(_folded("The report as text", preformatted(page.text)))
    return "<div>" + "".join(parts) + "</div>"


def _folded(heading: str, inside: str) -> str:
    return f"<details><summary>{html.escape(heading)}</summary>{inside}</details>"
