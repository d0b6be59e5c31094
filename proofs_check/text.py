"""Text forms: the table of statements, one statement in full, the list, the self-test."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from identify.text import WIDTH, number, table
from proofs_check.results import NEEDED, NO_INSTANCE, NOT_BROKEN, PROVED, REFUTED, STATUSES
from proofs_check.statement import EXAMPLES

if TYPE_CHECKING:
    from proofs_check.results import Necessity, Result, SelfTest, Table
    from proofs_check.statement import Hypothesis, Statement


def format_table(found: Table) -> str:
    """Write one line a statement, then what was refuted and what no counterexample was found for.

    Example:
        >>> from proofs_check import check
        >>> print(format_table(check("kkt-balance", examples=0.1)).splitlines()[0])
        Statements
    """
    rows = [
        [
            result.name,
            result.status,
            str(result.examples),
            number(result.worst) if result.examples else "-",
            _needed(result),
            f"{result.seconds:.1f}",
        ]
        for result in found.results
    ]
    header = ["statement", "status", "examples", "worst", "hypotheses needed", "s"]
    lines = [*_title("Statements"), *table(header, rows, indent=0)]
    for result in found.results:
        if result.status == REFUTED:
            lines += ["", *_wrap(f"REFUTED {result.name}: {result.note or result.title}")]
            lines += _wrap(result.counterexample or "", "  ")
    open_rows = [
        f"{result.name}: {entry.hypothesis}, none in {entry.tries} tries"
        for result in found.results
        for entry in result.necessity
        if entry.outcome == NOT_BROKEN
    ]
    if open_rows:
        lines += ["", "Hypotheses without which no counterexample was found"]
        lines += [line for row in open_rows for line in _wrap(row, "  ")]
    absent = [result for result in found.results if result.note.startswith("needs the package")]
    if absent:
        lines += ["", "Not run"]
        lines += [line for r in absent for line in _wrap(f"{r.name} {r.note}", "  ")]
    counts = {status: 0 for status in STATUSES}
    for result in found.results:
        counts[result.status] += 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    tail = f"{_plural(len(found.results))}: {summary}; seed {found.seed}"
    if found.examples != 1.0:
        tail += f"; examples times {found.examples:g}"
    if found.stopped:
        tail += f"; {found.stopped}"
    return "\n".join([*lines, "", tail])


def format_details(statement: Statement, result: Result) -> str:
    """Write a statement in full, with what a run says about it and each hypothesis.

    Example:
        >>> from proofs_check.registry import select
        >>> from proofs_check.runner import run_statement
        >>> (entry,) = select("kkt-balance")
        >>> print(format_details(entry, run_statement(entry, 0.1)).splitlines()[0])
        kkt-balance: Balance between the layers
    """
    lines = _title(f"{statement.name}: {statement.title}")
    lines += [*_wrap(statement.sentence), *_labelled("formula", statement.formula)]
    lines += _labelled("source", statement.source)
    lines += _labelled("status", describe(result))
    if result.counterexample is not None:
        lines += _labelled("broken by", result.counterexample)
    for hypothesis in statement.hypotheses:
        lines += _labelled("assumes", f"{hypothesis.name}: {hypothesis.sentence}")
        entries = [e for e in result.necessity if e.hypothesis == hypothesis.name]
        lines += [line for e in entries for line in _labelled("", without(e, hypothesis))]
    lines += _labelled("remark", statement.remark)
    lines += _labelled("used in", ", ".join(statement.code))
    return "\n".join(lines)


def describe(result: Result) -> str:
    """The status in one sentence, with its numbers.

    Example:
        >>> from proofs_check.results import Result
        >>> describe(Result("a", "A", "no counterexample", 50, 0.25, 0.0))
        'no counterexample in 50 examples, largest deviation 0.25 of its tolerance'
    """
    plural = "" if result.examples == 1 else "s"
    words = f"in {result.examples} example{plural}"
    if result.worst:
        words += f", largest deviation {number(result.worst)} of its tolerance"
    if result.status == PROVED:
        return f"proved ({result.note}); no counterexample {words}"
    if result.status == REFUTED:
        again = ", confirmed in exact or high precision" if result.rechecked else ""
        return f"refuted{again}: {result.note}" if result.note else f"refuted{again}"
    note = f"; {result.note}" if result.note else ""
    if not result.examples:
        return result.status + note
    return f"{result.status} {words}{note}"


def without(entry: Necessity, hypothesis: Hypothesis) -> str:
    """What became of the statement without a hypothesis, in one sentence.

    Example:
        >>> from proofs_check.results import Necessity
        >>> from proofs_check.registry import select
        >>> (hypothesis,) = select("kkt-balance")[0].hypotheses
        >>> without(Necessity("stationary", "none found", 25), hypothesis)
        'without it: no counterexample in 25 tries'
    """
    if entry.outcome == NEEDED:
        return f"without it: {entry.instance}"
    if entry.outcome == NO_INSTANCE and hypothesis.violating is None:
        return "nothing breaks it alone"
    if entry.outcome == NO_INSTANCE:
        return "without it: nothing was tried"
    plural = "try" if entry.tries == 1 else "tries"
    return f"without it: no counterexample in {entry.tries} {plural}"


def format_list(statements: Sequence[Statement]) -> str:
    """Write names and titles, by topic.

    Example:
        >>> from proofs_check.registry import select
        >>> print(format_list(select("kkt-balance")).splitlines()[-1])
        1 statement
    """
    from proofs_check.registry import TOPICS

    lines: list[str] = []
    width = max(len(statement.name) for statement in statements)
    cost = max(len(name) for name in EXAMPLES)
    for topic, heading in TOPICS.items():
        rows = [entry for entry in statements if entry.topic == topic]
        if rows:
            lines += [f"{topic}: {heading}"]
            lines += [f"  {s.name:{width}}  {s.cost:{cost}}  {s.title}" for s in rows]
            lines.append("")
    return "\n".join([*lines, _plural(len(statements))])


def format_self_test(found: SelfTest) -> str:
    """Write one line a statement, then the sabotages that were missed.

    Example:
        >>> from proofs_check.results import Found, SelfTest
        >>> sign = Found("sign", "conclusion", True, 1)
        >>> print(format_self_test(SelfTest((("a", (sign,)),), 1.0, 0)).splitlines()[-1])
        1 of 1 sabotages found; seed 0
    """
    rows = [
        [
            name,
            f"{sum(entry.found for entry in entries)} of {len(entries)}",
            ", ".join(f"{entry.sabotage} ({entry.tries})" for entry in entries) or "not run",
        ]
        for name, entries in found.results
    ]
    header = ["statement", "found", "sabotages (instances until found; 0: none is left)"]
    lines = [*_title("Self-test"), *table(header, rows, indent=0)]
    lines += ["", *(f"MISSED {name}" for name in found.missed)] if found.missed else []
    total = sum(len(entries) for _, entries in found.results)
    tail = f"{total - len(found.missed)} of {total} sabotages found; seed {found.seed}"
    return "\n".join([*lines, "", f"{tail}; {found.stopped}" if found.stopped else tail])


def _needed(result: Result) -> str:
    """'2 of 3': hypotheses without which a counterexample was found."""
    if not result.necessity:
        return "-"
    needed = sum(entry.outcome == NEEDED for entry in result.necessity)
    return f"{needed} of {len(result.necessity)}"


def _plural(count: int) -> str:
    return f"{count} statement" if count == 1 else f"{count} statements"


def _title(text: str) -> list[str]:
    return [text, "=" * len(text)]


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _labelled(label: str, text: str) -> list[str]:
    lines = _wrap(text, " " * 10)
    return [label.ljust(10) + lines[0].lstrip(), *lines[1:]] if lines else []
