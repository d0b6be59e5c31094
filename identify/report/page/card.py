"""A section for a model card: the verdict of a run in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from identify.report.page.content import Page

HEADING = "## Training data exposure"
_LEAD = ("in short", "how exactly", "rests on", "exposed", "scope", "reason", "what to do")
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~])")
_CLOSING = (
    "No verdict here is a proof of privacy: it says what one method shows of these data, under the "
    "assumptions named."
)


def model_card(pages: Sequence[Page]) -> str:
    """Return a Markdown section on the runs, for the card of a model.

    Text of reports is escaped: names in files come from strangers.

    Example:
        >>> page = Page("A run", "undecided", "open", (("in short", "nothing <b> is known"),))
        >>> print(model_card([page]).splitlines()[4])
        | verdict | undecided |
    """
    parts = [HEADING, ""]
    for page in pages:
        if len(pages) > 1:
            parts += [f"### {_escaped(page.source or page.title)}", ""]
        parts += ["| | |", "| --- | --- |", f"| verdict | {_escaped(page.verdict)} |"]
        lead = dict(page.lead)
        parts += [f"| {name} | {_escaped(lead[name])} |" for name in _LEAD if lead.get(name)]
        kept = [row for row in page.provenance if "sha256" in row[1] or row[0] == "versions"]
        parts += [f"| {_escaped(name)} | {_escaped(said)} |" for name, said in kept]
        if page.recheck:
            # A fence of its own length, whatever the names of files hold.
            longest = max((len(run) for run in re.findall("`+", page.recheck)), default=0)
            fence = "`" * max(3, longest + 1)
            parts += ["", "To check it again:", "", fence, page.recheck, fence]
        for heading, items in page.lists[:2]:
            if items:
                parts += ["", f"{_escaped(heading)}:", ""]
                parts += [f"- {_escaped(item)}" for item in items]
        parts.append("")
    return "\n".join([*parts, _CLOSING, ""])


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
