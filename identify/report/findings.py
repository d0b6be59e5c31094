"""What a gate reads of a report: one finding for each sample, claim or verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from identify.text import number


class Severity(StrEnum):
    """What a finding means for a gate.

    ERROR stops a release: a sample is exposed, a claim refuted, or a word of --fail-on met.
    WARNING leaves the question open, NOTE is no alarm and no proof of privacy, PASSED is neither.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    PASSED = "passed"


RULES = {
    "exposed-sample": "A training sample can be reconstructed.",
    "verdict": "Whether the data determine their training samples.",
    "candidates": "Samples that fit the data are at hand, though no uniqueness is claimed.",
    "not-covered": "The verifier has no say about these data.",
    "claim": "A claim of a report, redone by independent code.",
}
"""The rules by name, and what each is about."""


@dataclass(frozen=True)
class Finding:
    """One line of a gate's result: ``rule`` is a name of RULES, ``subject`` what it is about."""

    rule: str
    subject: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class Findings:
    """All findings of one run of ``command`` on the file ``target``."""

    command: str
    target: str
    items: tuple[Finding, ...]


def report_findings(
    command: str, target: str, content: Mapping[str, Any], blocked: str | None = None
) -> Findings:
    """The findings of a report.

    Args:
        command, target: the command and the file that it was run on.
        content: report.json of any kind.
        blocked: the word of --fail-on that is met; its finding is an error.

    Example:
        >>> found = report_findings("verify", "m.npz", {"verdict": "undecided", "reason": "noise"})
        >>> [(item.rule, item.severity.value) for item in found.items]
        [('verdict', 'warning')]
    """
    verdict, reason = str(content["verdict"]), str(content.get("reason") or "")
    exposed = verdict in ("globally", "locally")
    items = [_verdict(verdict, reason, blocked)]
    if blocked == "candidates" or (content.get("candidates") and not exposed):
        severity = Severity.ERROR if blocked == "candidates" else Severity.WARNING
        items.append(Finding("candidates", "candidates", severity, RULES["candidates"]))
    if blocked == "not-covered" or content.get("covered") is False:
        severity = Severity.ERROR if blocked == "not-covered" else Severity.WARNING
        items.append(Finding("not-covered", "coverage", severity, reason or RULES["not-covered"]))
    bounds = content.get("error_bounds")
    if exposed and isinstance(bounds, Sequence):
        items += [_sample(index, bound) for index, bound in enumerate(bounds)]
    return Findings(command, target, tuple(items))


def refusal_findings(command: str, target: str, reason: str) -> Findings:
    """The finding of a gate that names not-covered, on a file that the verifier refuses."""
    return Findings(command, target, (Finding("not-covered", "coverage", Severity.ERROR, reason),))


def audit_findings(target: str, content: Mapping[str, Any], count: int) -> Findings:
    """The findings of an audit, one for each of the ``count`` samples of the owner.

    ``content`` is audit.json. A sample that was not found passes only where the data determine all
    of theirs: any other verdict does not say that another method fails too.

    Example:
        >>> told = {"verdict": "undecided", "reason": "noise", "exposed": []}
        >>> audit_findings("m.npz", told, 2).items[1].message
        'not found, but the verdict is undecided'
    """
    verdict = str(content["verdict"])
    exposed: dict[int, str] = {}
    for entry in content["exposed"]:
        said = f"exposed, relative error {number(entry['error'])}"
        others = entry.get("parallel") or entry.get("equal") or []
        for index in (entry["index"], *others):
            exposed[index] = said
    if verdict in ("globally", "locally"):
        rest = (Severity.PASSED, "none of the samples that the data determine")
    else:
        severity = Severity.NOTE if verdict == "nonidentifiable" else Severity.WARNING
        rest = (severity, f"not found, but the verdict is {verdict}")
    items = []
    for index in range(count):
        severity, said = (Severity.ERROR, exposed[index]) if index in exposed else rest
        items.append(Finding("exposed-sample", f"sample {index}", severity, said))
    return Findings("audit", target, tuple(items))


def check_findings(target: str, content: Mapping[str, Any], *, required: bool) -> Findings:
    """The findings of a check, one for each claim; ``required`` as --require confirmed.

    Example:
        >>> row = {"name": "verdict", "outcome": "refuted", "how": "hash", "detail": "differs"}
        >>> check_findings("report.json", {"claims": [row]}, required=False).items[0].message
        'refuted (hash): differs'
    """
    kinds = {"confirmed": Severity.PASSED, "refuted": Severity.ERROR}
    items = []
    for row in content["claims"]:
        severity = kinds.get(row["outcome"], Severity.WARNING)
        if required and row["name"] == "verdict" and severity is not Severity.PASSED:
            severity = Severity.ERROR
        said = f"{row['outcome']} ({row['how']}): {row['detail']}"
        items.append(Finding("claim", row["name"], severity, said))
    return Findings("check", target, tuple(items))


def _verdict(verdict: str, reason: str, blocked: str | None) -> Finding:
    severity = {
        "globally": Severity.ERROR,
        "locally": Severity.ERROR,
        "nonidentifiable": Severity.NOTE,
    }.get(verdict, Severity.WARNING)
    if blocked is not None and blocked not in ("candidates", "not-covered"):
        severity = Severity.ERROR
    remark = "" if severity is Severity.ERROR else "; this is no proof of privacy"
    return Finding("verdict", "verdict", severity, f"{verdict}: {reason}{remark}")


def _sample(index: int, bound: float | None) -> Finding:
    exact = "no error bound" if bound is None else f"relative error below {number(bound)}"
    message = f"can be reconstructed, {exact}"
    return Finding("exposed-sample", f"sample {index}", Severity.ERROR, message)
