"""What the owner is told about one gradient of a deep network: record, JSON and text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from identify.arrays import FloatArray
from identify.report.gradient import GradientReport
from identify.report.stationary import StationaryReport
from identify.text import bullets, labelled, number, section, table

_ROWS = 40


@dataclass(frozen=True)
class BatchExposure:
    """A true sample that the gradient gives away.

    ``index`` row of the data, ``error`` relative, ``bound`` the printed one or None, ``recovered``
    row of the report, ``label`` as read off, ``label_right`` None without a true label, ``equal``
    other rows of the data with the same numbers.
    """

    index: int
    error: float
    bound: float | None
    recovered: int
    label: int | None
    label_right: bool | None
    equal: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The exposure as plain data, in the fixed order of audit.json."""
        return vars(self) | {"equal": list(self.equal)}


class AuditOfReport:
    """What an audit of a gradient and one of weights have in common, beside their own report."""

    report: GradientReport | StationaryReport
    exposed: tuple[BatchExposure, ...]
    recovered: int
    groups: tuple[int, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def count(self) -> int:
        """How many different samples the file holds."""
        return len(set(self.groups))

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain data, in the fixed order of audit.json."""
        raise NotImplementedError

    def to_json(self) -> str:
        """audit.json as text; NaN and infinity never occur in it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        from identify.report.page.fragment import audit_fragment

        content, title = self.report.to_dict(), "Which samples are exposed?"
        return audit_fragment(content, str(self), title, exposed=bool(self.exposed))

    def _found(self) -> dict[str, Any]:
        """How many samples are exposed, and which."""
        return {
            "exposed": [entry.to_dict() for entry in self.exposed],
            "recovered": self.recovered,
            "unmatched": self.recovered - len(self.exposed),
        }

    def _origin(self) -> dict[str, Any]:
        """The verdict that the audit rests on, and where all comes from."""
        report = self.report
        return {
            "verdict": report.verdict,
            "reason": report.reason,
            "scope": report.to_dict()["scope"],
            "assumptions": list(report.assumptions),
            "notes": list(self.notes),
            "inputs": [dict(entry) for entry in report.inputs],
            "seed": report.seed,
            "versions": dict(report.versions),
            "seconds": self.seconds,
        }

    def _verdict_lines(self, on: str) -> list[str]:
        report = self.report
        lines = labelled("verdict", f"{report.verdict.upper()}, on the {on} alone")
        lines += labelled("scope", report.scope_sentence)
        return lines + labelled("reason", report.reason)

    def _last_lines(self) -> list[str]:
        lines = section("Notes", bullets(self.notes))
        lines += section("Assumptions", bullets(self.report.assumptions))
        return [*lines, "", f"seed {self.report.seed}, {self.seconds:.1f} s"]


@dataclass(frozen=True, eq=False)
class BatchAudit(AuditOfReport):
    """What one gradient gives away of the samples in the owner's file; `str()` is the text form.

    ``weights`` (n,) c_i >= 0 of gradient = sum c_i grad loss, None without loss or labels;
    ``residual`` relative; ``fit`` "exact", "approximate", "none" or "not checkable"; ``groups``
    for each sample the first one that equals it; ``report`` the report on the gradient alone.
    """

    report: GradientReport
    labels: FloatArray | None
    weights: FloatArray | None
    residual: float | None
    fit: str
    groups: tuple[int, ...]
    exposed: tuple[BatchExposure, ...]
    recovered: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def members(self) -> tuple[int, ...] | None:
        """Rows with a weight above a thousandth of the largest, None where they explain nothing."""
        if self.weights is None or self.fit in ("none", "not checkable"):
            return None
        return tuple(int(i) for i in np.flatnonzero(self.weights > 1e-3 * self.weights.max()))

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain data, in the fixed order of audit.json."""
        members = self.members
        return {
            "kind": "gradient",
            **self._found(),
            "weights": None if self.weights is None else self.weights.tolist(),
            "members": None if members is None else list(members),
            "residual": self.residual,
            "fit": self.fit,
            **self._origin(),
        }

    def __str__(self) -> str:
        title = "Audit of one gradient"
        lines = [title, "=" * len(title)]
        lines += labelled("exposed", exposed_line(self.exposed, self.count, self.recovered))
        lines += labelled("labels", _labels(self))
        lines += self._verdict_lines("gradient")
        lines += labelled("your data", _fit(self))
        lines += section("Samples", _samples(self))
        return "\n".join([*lines, *self._last_lines()])


def exposed_line(exposed: Sequence[BatchExposure], count: int, recovered: int) -> str:
    """How many of ``count`` samples are exposed, and how many others were recovered."""
    left = recovered - len(exposed)
    others = f"; {left} recovered {'is' if left == 1 else 'are'} none of yours" if left else ""
    if not exposed:
        return f"none of {count} samples, by this method{others}"
    errors = [entry.error for entry in exposed]
    text = f"{len(errors)} of {count} samples, relative errors {number(min(errors))}"
    if len(errors) > 1:
        text += f" to {number(max(errors))}"
    return text + others


def _labels(audit: BatchAudit) -> str:
    known = [entry.label_right for entry in audit.exposed if entry.label_right is not None]
    return f"{sum(known)} of {len(known)} read rightly off the gradient" if known else ""


def _fit(audit: BatchAudit) -> str:
    if audit.residual is None:
        return (
            "not checkable: give labels in the file and --loss to weigh them against the gradient"
        )
    size = f"relative residual {number(audit.residual)}"
    members = audit.members
    if members is None:
        return f"the gradient is not that of these samples: some are missing or wrong ({size})"
    return f"the gradient is that of {len(members)} of them ({audit.fit}, {size})"


def _samples(audit: BatchAudit) -> list[str]:
    exposed = {entry.index: entry for entry in audit.exposed}
    members = set(audit.members or ())
    order = sorted(
        range(len(audit.groups)),
        key=lambda i: (audit.groups[i] not in exposed, i not in members, i),
    )
    rows = []
    for i in order[:_ROWS]:
        entry = exposed.get(audit.groups[i])
        weight = "-" if audit.weights is None else f"{float(audit.weights[i]):.3g}"
        label = "-" if audit.labels is None else f"{audit.labels[i]:g}"
        seen = "no" if entry is None else f"error {number(entry.error)}"
        bound = "" if entry is None else number(entry.bound)
        read = "" if entry is None or entry.label is None else str(entry.label)
        rows.append([str(i), label, weight, seen, bound, read])
    head = ["sample", "label", "weight", "exposed", "printed bound", "label read"]
    left = len(order) - len(rows)
    return [*table(head, rows), *([f"  and {left} more"] if left else [])]
