"""The page of the documentation that lists the statements, made from the registry and a run.

From the root of the project:

    python -m proofs_check.page
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from proofs_check.machinery.registry import TOPICS, all_statements, module_of, topic_of
from proofs_check.machinery.results import (
    NEEDED,
    NO_INSTANCE,
    PROVED,
    STATUSES,
    Necessity,
    Result,
    Table,
    describe,
)
from proofs_check.machinery.run_many import Run
from proofs_check.machinery.statement import EXAMPLES, Hypothesis, Statement

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "proofs_check.md"
COMMAND = "python -m proofs_check.page"

CORRECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Inside V the recovered set is unique not only among sets of at most r samples: any other "
        "decomposition of a sum of r >= 2 independent terms has at least r + alpha - 2 terms. So "
        "sets of up to r + alpha - 3 samples in V are excluded, and this is sharp. At degree 3 it "
        "is the old bound r, and one sample more always has a continuum of sets.",
        ("next-decomposition", "one-sample-more"),
    ),
    (
        "The flattening that says nothing about the number of samples is that of vectors alone. "
        "From degree 4 on the rank of the middle flattening is a lower bound for n, and equals n "
        "for samples with independent powers.",
        ("first-flattening", "middle-flattening"),
    ),
    (
        "That the span V of a gradient's rows contains the samples exactly if M has rank n is "
        "true of linearly independent samples. Dependent ones can lie in V while M has a lower "
        "rank.",
        ("gradient-span", "span-of-samples"),
    ),
    (
        "The bound for the number of neurons needs finitely many eigenvectors. For independent "
        "samples this is no assumption: it always holds.",
        ("eigenvector-count",),
    ),
    (
        "Scaling the weights by s keeps the equations for any s, but the multipliers stay "
        "non-negative for s > 0 alone: at even degree a negative s turns their sign.",
        ("weight-scale",),
    ),
    (
        "Three coplanar samples at degree 3 are hidden behind two false ones only if the cubic of "
        "their plane has a single real line. With three real lines they are seen.",
        ("coplanar-cubes",),
    ),
    (
        "Equal margins are n - 1 further equations only between samples that the network tells "
        "apart. The two false samples behind three mirror-symmetric ones of a plane are mirror "
        "images: their margins agree by symmetry, and say nothing.",
        ("margin-ties",),
    ),
    (
        "With a hidden bias the freedom off the span can be empty: the direction that is left "
        "over may be that of the bias itself, and it is fixed.",
        ("never-identifiable",),
    ),
    (
        "An exact fit has no force where the derivative of the equations in the n terms has the "
        "rank of H. Fewer equations than unknowns do not suffice for a second solution: square "
        "systems may have a single real one.",
        ("fit-without-force",),
    ),
    (
        "More equations than unknowns do not suffice for low-rank recovery either: the true set "
        "has to be isolated, and three samples of a plane at degree 4 are not.",
        ("low-rank-recovery",),
    ),
    (
        "The bound for the Hessian in candidates and multipliers needs the gradient in the "
        "candidates to vanish, not that in the multipliers. A gradient of norm eps costs "
        "eps / |lambda_i|, and a candidate with multiplier 0 the norm of its gradient direction.",
        ("splitting-hessian-joint", "splitting-hessian-idle"),
    ),
    (
        "Splits with mean displacement 0 change the loss as stated at every point and for every "
        "loss: the stationary point and convexity are needed for other splits alone.",
        ("splitting-optimal", "splitting-halves"),
    ),
    (
        "Several candidates split with one common step need a shorter step, by the square root "
        "of their number: the step of a single split may raise the loss.",
        ("splitting-gain-together",),
    ),
    (
        "The bound for the number of steps holds with constants that are valid for the final "
        "number of candidates. In the candidates alone the first ones stay valid. And since every "
        "split halves the splitting matrix, its end point can be reached without moving at all.",
        ("splitting-convergence", "splitting-largest-curvature", "splitting-halving"),
    ),
    (
        "For special data with both layers of a ReLU network trained the number of patterns is not "
        "enough: with 6 samples and s = 4 all 21 of n (n + 1) / 2 patterns occur and span 16 "
        "dimensions.",
        ("relu-kkt-special",),
    ),
)
"""What the checks corrected, each with the statements that now say it."""

_INTRO = f"""# Checked statements

Every theorem, lemma and identity that kktcert relies on is also a small program that can fail.
`kktcert proofs` runs them all. This page lists them with the result of a run at the defaults with
seed 0. It is made by `{COMMAND}`.

Each statement has instances of several kinds: generic, structured, nearly degenerate, and made
from handwritten digits. The conclusion is judged with a tolerance that is derived from rounding
and conditioning. The number of instances is {EXAMPLES["light"]}, {EXAMPLES["medium"]} or
{EXAMPLES["heavy"]} by the cost of one; `--examples` scales it.

| status | meaning |
| --- | --- |
| proved | Symbolic or exact arithmetic proves it for the sizes that the entry names, and no instance breaks it. |
| no counterexample | No instance broke it. This is evidence and no proof. |
| refuted | An instance breaks it. It is made as small as possible and, where the statement offers it, judged again in exact or high precision. |
| not run | A package is missing, or the time was over. |

*Needed* says for how many hypotheses a counterexample was found when that hypothesis alone is
dropped. Each statement also carries deliberate mistakes, in its conclusion and in the code
underneath. `kktcert proofs --self-test` puts them in one at a time, where the conclusion is
judged: instances and hypotheses come from sound code. A mistake is found if a conclusion fails
that holds without it; the list shows what failed. Every one is found. Statements about a
construction that no package has, like most of those on ReLU networks, mistake the construction.

*Code* names what a statement runs: the module that holds it, and the functions of `identify` and
`attack` that its conclusion or its algebra calls. What only builds instances is left out.

The [library page](library.md#statements-as-a-library) shows how to run statements from Python, to ask which
hypotheses your own network satisfies, and to use the instances and properties in your own tests.
"""  # noqa: E501


def render(statements: Sequence[Statement], table: Table) -> str:
    """The page in Markdown.

    Example:
        >>> from proofs_check import all_statements, check
        >>> print(render(all_statements()[:1], check(all_statements()[0].name, 0.1))[:20])
        # Checked statements
    """
    lines = [re.sub(r"(?<=[^\n|])\n(?=[^\n|#])", " ", _INTRO)]
    lines += ["## What the checks corrected", "", _CORRECTED, ""]
    known = {statement.name for statement in statements}
    for text, names in CORRECTIONS:
        links = ", ".join(f"[{name}](#{name})" for name in names if name in known)
        lines.append(f"- {escape(text)} {links}".rstrip())
    lines += ["", "## Overview", "", *overview(statements, table), ""]
    for topic, heading in TOPICS.items():
        chosen = [entry for entry in statements if topic_of(entry.name) == topic]
        if chosen:
            lines += [f"## {heading}", ""]
        for entry in chosen:
            lines += [*section(entry), *outcome(entry, table[entry.name]), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


_CORRECTED = (
    "Some statements were first written down in another form and broke, or turned out to say "
    "less than is true."
)


def overview(statements: Sequence[Statement], table: Table) -> list[str]:
    """One row a statement: status, examples, hypotheses that are needed."""
    rows = ["| statement | says | status | examples | needed |", "| --- | --- | --- | --- | --- |"]
    for entry in statements:
        result = table[entry.name]
        needed = sum(part.outcome == NEEDED for part in result.necessity)
        share = f"{needed} of {len(result.necessity)}" if result.necessity else "-"
        rows.append(
            f"| [{entry.name}](#{entry.name}) | {escape(entry.title)} | {result.status} "
            f"| {result.examples} | {share} |"
        )
    every = [result.status for result in table.results]
    words = ", ".join(f"{every.count(status)} {status}" for status in STATUSES if status in every)
    return [*rows, "", f"{len(statements)} statements: {words}."]


def section(statement: Statement) -> list[str]:
    """What a statement says, without any run."""
    lines = [f"### {statement.name}", "", f"**{escape(statement.title)}.** "]
    lines[-1] += escape(statement.sentence)
    lines += ["", "$$", statement.formula, "$$", "", f"- *Source:* {escape(statement.source)}"]
    if statement.remark:
        lines.append(f"- *Remark:* {escape(statement.remark)}")
    mistakes = "; ".join(escape(f"{e.sentence} ({e.kind})") for e in statement.sabotages)
    lines.append(f"- *Deliberate mistakes:* {mistakes}")
    uses = [_link(place, place) for place in (module_of(statement), *statement.code)]
    lines.append(f"- *Code:* {', '.join(uses)}")
    return lines


def outcome(statement: Statement, result: Result) -> list[str]:
    """What a run says about a statement and its hypotheses."""
    plural = "" if result.examples == 1 else "s"
    if result.status == PROVED:
        words = f"proved: {result.note}. No counterexample in {result.examples} example{plural}"
    else:
        words = describe(result).split(", largest deviation")[0]
    lines = [f"- *Status:* {escape(words)}"]
    if result.counterexample is not None:
        lines.append(f"- *Broken by:* `{result.counterexample}`")
    found = {entry.hypothesis: entry for entry in result.necessity}
    for hypothesis in statement.hypotheses:
        entry = found.get(hypothesis.name)
        words = f"- *Assumes* {escape(hypothesis.name)}: {escape(hypothesis.sentence)}."
        lines.append(f"{words} {_without(hypothesis, entry)}".rstrip())
    return lines


def _without(hypothesis: Hypothesis, entry: Necessity | None) -> str:
    if entry is None:
        return ""
    if entry.outcome == NEEDED:
        return f"Without it: `{entry.instance}`"
    if entry.outcome == NO_INSTANCE:
        return "Nothing breaks it alone." if hypothesis.violating is None else "Not tried."
    return f"Without it no counterexample was found in {entry.tries} tries."


def escape(text: str) -> str:
    r"""Plain text as Markdown.

    Example:
        >>> escape("|a_j|^2 > [b]")
        '\\|a\\_j\\|^2 \\> \\[b\\]'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text)


def _link(place: str, words: str) -> str:
    """A link from the page to the file that defines a dotted name."""
    parts = place.split(".")
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        if spec is not None and spec.origin is not None:
            file = Path(spec.origin).resolve().relative_to(ROOT).as_posix()
            return f"[`{words}`](../{file})"
    raise ValueError(f"code: expected a name that exists, got {place}")


def main() -> None:
    """Run every statement and write the page."""
    run = Run(all_statements(), processes=2)
    run.go(lambda name, share: print(f"{share:4.0%} {name}", file=sys.stderr))
    table = run.table()
    PAGE.write_text(render(run.statements, table), encoding="utf-8")
    print(f"written to {PAGE}: {len(table.results)} statements, {len(table.refuted)} refuted")


if __name__ == "__main__":
    main()
