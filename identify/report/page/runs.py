"""Pages of runs that end without a report of the verifier: attacks, replays, spans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from identify.report.page.build import provenance
from identify.report.page.content import BAD, OPEN, Bar, Page, Picture, Table
from identify.text import counted, number

_ROUNDS = 200
_WORDS = {
    "better": "better than what knows nothing",
    "equal": "not told apart from what knows nothing",
    "worse": "worse than what knows nothing",
}


def attack_page(
    content: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
    *,
    text: str = "",
    pictures: Sequence[Picture] = (),
    source: str = "",
) -> Page:
    """Build the page of an attack by optimisation.

    Args:
        content: report.json of the run.
        evaluation: evaluation.json, if the candidates were compared with the truth.
        text: the run as the command prints it.
        pictures: in their order.
        source: the folder, for pages of many runs.

    Example:
        >>> page = attack_page({"objective": "haim", "candidates": 4, "loss": 0.1, "steps": 9})
        >>> page.verdict, page.lead[0][1]
        ('not compared', '4 candidates were found; whether they are training samples is not known')
    """
    conclusion = (evaluation or {}).get("conclusion")
    word = str(conclusion["word"]) if isinstance(conclusion, Mapping) else "not compared"
    found = counted(int(content.get("candidates") or 0), "candidate")
    if isinstance(conclusion, Mapping):
        short = str(conclusion["sentence"]).removeprefix("Conclusion: ")
    else:
        short = f"{found} were found; whether they are training samples is not known"
    advice = "" if conclusion else "kktcert evaluate RUN --truth DATA.npz compares with the truth"
    lead = [
        ("in short", short),
        ("objective", str(content.get("objective", "unknown"))),
        ("loss", f"{number(content.get('loss'))} after {content.get('steps')} steps"),
        ("ended by", str(content.get("stopped") or "unknown")),
        ("what to do", advice),
    ]
    tables = (_conclusion(conclusion), _rounds(content))
    return Page(
        title="What does an attack by optimisation find?",
        verdict=_WORDS.get(word, word),
        meaning=BAD if word == "better" else OPEN,
        lead=tuple(row for row in lead if row[1]),
        pictures=tuple(pictures),
        tables=tuple(table for table in tables if table is not None),
        bars=_positive((("loss", content.get("loss")),
                        ("loss without penalties", content.get("data_loss")))),
        lists=(("What would break it", (
            "A low loss is no proof: other sets of candidates may have the same.",
            "A run that finds nothing is no proof of privacy.",
        )),),
        provenance=provenance(content),
        text=text,
        source=source,
    )  # fmt: skip


def replay_page(
    content: Mapping[str, Any],
    text: str = "",
    *,
    pictures: Sequence[Picture] = (),
    source: str = "",
) -> Page:
    """Build the page of a replayed training run; ``content`` is replay.json.

    Example:
        >>> page = replay_page({"verdict": "locally", "reached": True, "error_bounds": [1e-6]})
        >>> page.meaning, page.lead[0][1]
        ('bad', '1 training sample can be reconstructed, the recipe being known')
    """
    bounds = content.get("error_bounds") or []
    count = counted(len(bounds), "training sample")
    if content.get("verdict") == "locally":
        short, meaning = f"{count} can be reconstructed, the recipe being known", BAD
    elif content.get("reached"):
        short, meaning = f"{count} explain the final weights; others near them may too", BAD
    else:
        short, meaning = "no samples were found whose training ends in the final weights", OPEN
    labels = content.get("labels") or [None] * len(bounds)
    rows = tuple(
        (str(k), "-" if isinstance(label, list) else number(label), number(bound))
        for k, (label, bound) in enumerate(zip(labels, bounds, strict=False))
    )
    table = Table(
        "Samples",
        "The error bound is the largest possible error over the length of the sample.",
        ("sample", "label", "error bound"),
        rows[:_ROUNDS],
    )
    lead = [
        ("in short", short),
        ("equations", f"{content.get('equations')}, rank {content.get('rank')} of "
                      f"{content.get('unknowns')} unknowns"),
        ("recipe", f"{content.get('steps')} steps at rate {number(content.get('rate'))}"),
        ("found with them", ", ".join(map(str, content.get("fitted") or ()))),
    ]  # fmt: skip
    return Page(
        title="What do two checkpoints give away to whoever knows the recipe?",
        verdict=str(content.get("verdict", "unknown")),
        meaning=meaning,
        lead=tuple(row for row in lead if row[1]),
        pictures=tuple(pictures),
        tables=(table,) if rows else (),
        bars=_positive((("residual", content.get("residual")),
                        ("rounding", content.get("rounding")))),
        lists=(("What it rests on", tuple(map(str, content.get("assumptions") or ()))),),
        provenance=provenance(content),
        text=text,
        source=source,
    )  # fmt: skip


def span_page(values: Sequence[float], *, source: str = "") -> Page:
    """Build the page of the span between two checkpoints, by its singular values.

    Example:
        >>> span_page([2.0, 1.0]).lead[0][1]
        'at least 2 training samples took part, and the space in which they lie is known'
    """
    count = counted(len(values), "training sample")
    return Page(
        title="What do two checkpoints show of their training samples?",
        verdict=f"at least {len(values)}",
        meaning=OPEN,
        lead=(
            ("in short", f"at least {count} took part, and the space in which they lie is known"),
            ("what to do", "kktcert span with --member says which given samples lie in it; kktcert "
                           "replay finds the samples where the recipe is known"),
        ),
        bars=_positive(tuple((f"singular value {k + 1}", v) for k, v in enumerate(values[:40]))),
        source=source,
    )  # fmt: skip


def _conclusion(given: Any) -> Table | None:
    if not isinstance(given, Mapping) or not given.get("comparisons"):
        return None
    rows = tuple(
        (str(c["name"]).replace("_", " "), number(c["found"]), number(c["null"]),
         f"{c['better']} of {c['samples']}", number(c["p"]))
        for c in given["comparisons"]
    )  # fmt: skip
    return Table(
        "Compared with what knows nothing of the samples",
        f"Medians of {given.get('measure')}; p is that of the Wilcoxon signed-rank test.",
        ("null", "candidates", "null's median", "better on", "p"),
        rows,
    )


def _rounds(content: Mapping[str, Any]) -> Table | None:
    given = [row for row in content.get("rounds") or () if row.get("taken")]
    if not given:
        return None
    rows = tuple(
        (str(r["step"]), f"{r['count_before']} to {r['count_after']}", number(r["before"]),
         number(r["after"]), "kept" if r["accepted"] else "not kept")
        for r in given[:_ROUNDS]
    )  # fmt: skip
    return Table(
        "Rounds of splitting",
        "A round splits candidates where that lowers the loss.",
        ("step", "candidates", "loss before", "loss after", ""),
        rows,
    )


def _positive(given: Sequence[tuple[str, Any]]) -> tuple[Bar, ...]:
    return tuple(
        Bar(name, float(value))
        for name, value in given
        if isinstance(value, int | float) and 0 < value < math.inf
    )
