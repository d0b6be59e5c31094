"""Pages as one self-contained HTML file."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from identify.report.page.content import BAD, GOOD, OPEN, Bar, Page

_ORDER = {BAD: 0, OPEN: 1, GOOD: 2}
_WIDTH, _LEFT, _ROW = 640, 240, 24


def render(pages: Sequence[Page], title: str | None = None) -> str:
    """Return one HTML document: a page, or an overview of several with the pages below it.

    Nothing is loaded from elsewhere, and no script runs; pictures are inside. Text is escaped.

    Args:
        pages: at least one; several are ordered with the exposed ones first.
        title: of the document; that of the only page unless given.

    Cost: as long as the pictures.

    Example:
        >>> page = Page("A run", "undecided", OPEN, (("in short", "a < b"),))
        >>> html = render([page])
        >>> "a &lt; b" in html, html.count("<h1")
        (True, 1)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("identify.report", "page"), autoescape=True, undefined=StrictUndefined
    )
    ordered = sorted(pages, key=lambda page: _ORDER.get(page.meaning, 1))
    data = "[" + ",".join(page.to_json() for page in ordered) + "]"
    return environment.get_template("page.html.j2").render(
        pages=ordered,
        title=title or (pages[0].title if len(pages) == 1 else f"{len(pages)} runs of kktcert"),
        bars=lambda found: Markup(_bars(found)),
        data=Markup(data),
    )


def _bars(bars: Sequence[Bar]) -> str:
    """Bars on a logarithmic scale as SVG; every number is also text."""
    known = [b for b in bars if b.value > 0 and math.isfinite(b.value)]
    values = [b.value for b in known] + [b.limit for b in known if b.limit]
    if not values:
        return ""
    low = math.floor(min(map(math.log10, values))) - 1
    high = max(low + 2, math.ceil(max(map(math.log10, values))))

    def place(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 80) * (math.log10(value) - low) / (high - low)

    height = _ROW * len(known) + 22
    said = "; ".join(f"{b.name} {b.value:.1e}" for b in known)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{html.escape(said)}">'
    ]
    step = max(1, (high - low) // 6)
    for power in range(low, high + 1, step):
        x = place(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height - 20}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 5}" text-anchor="middle">1e{power}</text>')
    for row, b in enumerate(known):
        y = _ROW * row + 4
        parts.append(f'<text x="0" y="{y + 12}">{html.escape(b.name)}</text>')
        end = place(b.value)
        parts.append(
            f'<rect class="bar" x="{_LEFT}" y="{y}" width="{max(1.0, end - _LEFT):.1f}" '
            f'height="14"/><text x="{_WIDTH - 62}" y="{y + 12}">{b.value:.1e}</text>'
        )
        if b.limit:
            x = place(b.limit)
            parts.append(
                f'<line class="limit" x1="{x:.1f}" y1="{y - 3}" x2="{x:.1f}" y2="{y + 17}"/>'
            )
    return "".join([*parts, "</svg>"])
