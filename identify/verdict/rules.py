"""The rules of the verdict, in their order: Theorem 4.1 with I-hermite, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from identify.hermite.reduction import rank_one
from identify.records import Condition, Scope, Verdict
from identify.recovery.stages import Decomposed, Interpolated, Recovered, Reduced, Stage
from identify.thresholds import NOISE_LIMIT
from identify.verdict import equations, proved, recovered, sentences
from identify.verdict.rule import Grounds, rule

RULES = (
    rule("finished", Stage, equations.finished),
    rule("balance", Stage, equations.balance),
    rule("range", Stage, equations.representable),
    rule("consistency", Stage, equations.consistency),
    rule("noise level", Stage, equations.noise_level),
    rule("settled noise", Reduced, equations.settled),
    rule("span", Reduced, equations.span),
    rule("number possible", Interpolated, equations.number_possible),
    rule("neurons", Interpolated, equations.neurons),
    rule("I-hermite", Interpolated, equations.hermite),
    rule("I-flat", Interpolated, equations.flat),
    rule("I-value", Interpolated, equations.value),
    rule("number covered", Interpolated, equations.number_covered),
    rule("decomposition", Interpolated, equations.decomposition),
    rule("finite samples", Recovered, recovered.finite),
    rule("second method", Recovered, recovered.second_method),
    rule("leftover", Recovered, recovered.leftover),
    rule("tie", Recovered, recovered.tie),
    rule("non-negative", Recovered, recovered.non_negative),
    rule("right side", Recovered, recovered.right_side),
    rule("redundancy", Decomposed, recovered.redundancy),
    rule("hidden share", Recovered, recovered.hidden_share),
    rule("error bounds", Recovered, recovered.error_bounds),
    rule("separate margins", Recovered, recovered.separate_margins),
    rule("stable rank", Recovered, proved.stable_rank),
    rule("first-order bounds", Recovered, proved.first_order_bounds),
    rule("enclosure", Recovered, proved.enclosure),
    rule("agreement", Recovered, proved.agreement),
    rule("evidence", Recovered, proved.asked_evidence),
)
"""Every rule, the first that fails deciding; the rows of a report are in this order."""


@dataclass(frozen=True)
class Outcome:
    """Verdict, reason, scope and the rows of the report.

    `searchable` says that other sets are worth looking for.
    """

    verdict: Verdict
    reason: str
    scope: Scope | None
    conditions: tuple[Condition, ...]
    searchable: bool = False


def judge(grounds: Grounds[Stage]) -> Outcome:
    """The verdict by the rules: `globally` if every needed condition holds, else `undecided`.

    By Theorem 4.1 with I-hermite for its interpolation condition: if the linear equations
    determine T on V, r = dim V, and T is a sum of r independent terms, then every set of at most r
    samples that explains the data is that of the terms. The other rules are what this takes for
    granted: the source, an exact enough span, support for the number r, known samples. The first
    needed condition that does not hold, or is open, gives the reason.

    Source: Shen, Wang, Qian & Lei 2026, Theorem 4.1; Kruskal 1977 for independent terms.
    """
    seen = [(each.name, found) for each in RULES if (found := each.look(grounds)) is not None]
    rows = tuple(found.row(name) for name, found in seen)
    for _, found in seen:
        if found.fails:
            return Outcome(Verdict.UNDECIDED, found.sentence, None, rows, found.searchable)
    stage = grounds.stage
    if not isinstance(stage, Recovered):
        return Outcome(Verdict.UNDECIDED, "nothing was recovered", None, rows)
    reason = sentences.unique(stage, grounds.given.samples)
    return Outcome(Verdict.GLOBALLY, reason, Scope("at_most", stage.reduced.dimension), rows)


def has_candidates(grounds: Grounds[Stage], outcome: Outcome) -> bool:
    """Whether samples are at hand though they are not shown to be the only ones.

    A refined set with redundant equations fits to the noise, or the refined set would be the only
    one if its number were known, as an attacker may know it, or the rows of a gradient or of a
    movement are all parallel: then they are the sample, whatever the activation.
    """
    if outcome.verdict not in (Verdict.UNDECIDED, Verdict.NONIDENTIFIABLE):
        return False
    data, stage = grounds.data, grounds.stage
    if isinstance(stage, Recovered) and _by_number(grounds, stage):
        return True
    if outcome.verdict is not Verdict.UNDECIDED:
        return False
    if isinstance(stage, Recovered) and stage.redundancy >= 1:
        return True
    tolerance = min(max(10.0 * data.rounding, 1e-12), NOISE_LIMIT)
    return not data.homogeneous and rank_one(data, tolerance)


def _by_number(grounds: Grounds[Stage], stage: Recovered) -> bool:
    """Whether the same measurements would decide for one set, were r the known number."""
    given = replace(grounds.given, samples=stage.reduced.dimension)
    # Neither the time nor a proof that is missing hides what the numbers show.
    known = replace(grounds, given=given, proofs=None, asked="numerical", ended="")
    return judge(known).verdict is Verdict.GLOBALLY
