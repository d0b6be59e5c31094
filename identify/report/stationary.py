"""The report on a stationary point of a two-layer ReLU network: record, JSON and text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from identify.disaggregation.records import GLOBALLY, Disaggregation
from identify.disaggregation.stationary import NO_FACTS, StationaryFacts
from identify.report.gradient import (
    GradientReport,
    _checks,
    _problem,
    proof_lines,
)
from identify.report.plain import plain
from identify.report.report import digest
from identify.text import bullets, counted, labelled, number, section, table

KIND = "stationary"
FORMAT = 1
_SHOWN = 50
_POINTS = {
    "kkt": "a KKT point of the max-margin problem",
    "weight_decay": "trained with weight decay",
}


@dataclass(frozen=True, eq=False)
class StationaryReport(GradientReport):
    """The verdict on a stationary point with everything that it rests on; `str()` gives the text.

    ``facts`` counts patterns and holds the margins; the rest is as for one gradient, whose loss
    slopes are minus the coefficients b_i = lambda_i y_i here.

    Example:
        >>> from identify.disaggregation.records import UNDECIDED
        >>> found = Disaggregation(UNDECIDED, "too few patterns", 3, (), "kernel")
        >>> facts = StationaryFacts(3, 6, None, None, None)
        >>> StationaryReport(found, {}, (), (), 0, {}, facts=facts).to_dict()["patterns_needed"]
        6
    """

    facts: StationaryFacts = field(default=NO_FACTS)

    @property
    def covered(self) -> bool:
        """Whether the weights can be such a stationary point of this network.

        False also where the rank is not clear: then nothing speaks for a stationary point.
        """
        return super().covered and any(rank.clear for rank in self.found.ranks[:1])

    @property
    def coefficients(self) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """b (n,) or, for several outputs, (n, C), up to the decay; None without samples."""
        p = self.found.cotangents
        return None if p is None else np.asarray(-p[:, 0] if p.shape[1] == 1 else -p)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, in the fixed order of report.json."""
        report = super().to_dict()
        # These are of gradients alone.
        for name in ("search", "alternatives", "single_rows", "what_if_noise"):
            del report[name]
        facts = self.facts
        # What was assumed of the weights goes with the samples that it makes unique.
        report["certificate"] |= {
            "format": FORMAT,
            "source": plain(self.problem.get("source")),
            "trained": plain(self.problem.get("trained")),
        }
        report |= {
            "kind": KIND,
            "neuron_directions": facts.directions,
            "patterns_needed": facts.needed,
            "pattern_rank": facts.patterns,
            "coefficients": plain(self.coefficients),
            "margins": plain(facts.margins),
        }
        report["certificate"]["digest"] = digest(report)
        return report

    def __str__(self) -> str:
        title = "Stationary point report"
        found = self.found
        lines = [
            title,
            "=" * len(title),
            *_head(self),
            *proof_lines(found, "weights", "all weights within {} of these have"),
        ]
        lines += section("Samples", _samples(self))
        lines += section("Checks", _checks(found))
        lines += section("Patterns", _patterns(self.facts))
        lines += section("Network", _problem(self.problem))
        lines += section("Assumptions", bullets(self.assumptions))
        lines += section("Caveats", bullets(found.caveats))
        lines += ["", f"seed {self.seed}, {found.seconds:.1f} s"]
        return "\n".join(lines)


def _head(report: StationaryReport) -> list[str]:
    found = report.found
    if found.verdict == GLOBALLY:
        short = f"these weights give away the {found.rank} training samples that made them"
        todo = "do not publish these weights if nobody may see the samples"
        verdict = "GLOBALLY identifiable: the weights determine the training samples"
    else:
        verdict = "UNDECIDED: nothing is claimed"
        if report.candidates:
            short = "samples can be read off these weights; whether they are the only ones is open"
            todo = "do not publish these weights if nobody may see the samples"
        elif found.late:
            short = "the time limit ended the examination: nothing is known about the samples"
            todo = "give it more time (--time-limit); do not take them as safe"
        elif not report.covered:
            point = _POINTS.get(str(report.problem.get("source")), "a stationary point")
            short = f"these weights are not seen to be {point}"
            todo = "check --source, --trained and --activation; do not take them as safe"
        else:
            short = "no samples were separated"
            todo = "this is no proof of privacy: the rank and the span of the samples are seen"
    lines = [*labelled("in short", short), *labelled("what to do", todo), ""]
    lines += labelled("verdict", verdict) + labelled("scope", report.scope_sentence)
    return lines + labelled("recovered", _recovered(found)) + labelled("reason", found.reason)


def _recovered(found: Disaggregation) -> str:
    if found.samples is None:
        if not found.rank:
            return "nothing"
        return f"no samples; the hidden layer has rank {found.rank}, so there are at least as many"
    count, bounds = len(found.samples), found.error_bounds
    text = counted(count, "sample")
    text += "" if found.scaled else ", up to their length"
    if bounds is not None:
        text += f", error bounds {number(float(bounds.min()))} to {number(float(bounds.max()))}"
    return (
        text if found.verdict == GLOBALLY else f"{text}; candidates, not known to be the only ones"
    )


def _samples(report: StationaryReport) -> list[str]:
    found, b, margins = report.found, report.coefficients, report.facts.margins
    if found.samples is None or b is None:
        return []
    size = np.abs(b) if b.ndim == 1 else np.linalg.norm(b, axis=1)
    rows = []
    for i, value in enumerate(size):
        label = "-" if found.labels is None else str(int(found.labels[i]))
        bound = None if found.error_bounds is None else float(found.error_bounds[i])
        margin = None if margins is None else float(margins[i])
        rows.append([str(i + 1), number(bound), number(float(value)), label, number(margin)])
    lines = table(["sample", "error bound", "multiplier", "label", "margin"], rows[:_SHOWN])
    return [*lines, f"  and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else lines


def _patterns(facts: StationaryFacts) -> list[str]:
    rows = [
        ["different directions of neurons", str(facts.directions)],
        ["different patterns that the kernel of L needs", str(facts.needed)],
    ]
    if facts.patterns is not None:
        rows.append(["dimension spanned by the patterns found", str(facts.patterns)])
    if facts.balance is not None:
        rows.append(["largest violation of |w_j| = |a_j|", number(facts.balance)])
    return table(["", ""], rows)[1:]
