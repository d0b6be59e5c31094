"""What an audit found, as a record and as text."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from identify.arrays import FloatArray
from identify.records import Verdict
from identify.report.report import IdentifiabilityReport, scope_sentence
from identify.report.summary import headline
from identify.text import WIDTH, number, table


@dataclass(frozen=True)
class Exposure:
    """A true sample that the data expose: `error` relative to its norm, after the symmetries.

    `bound` is the error bound printed without knowledge of the truth, None where there is none;
    `recovered` the row of the recovery; `parallel` the other true samples on the same line.
    """

    index: int
    error: float
    bound: float | None
    recovered: int
    parallel: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What the owner of the training data wants to know; `str()` gives the text form.

    `multipliers` (n,) are lambda_i >= 0 if `kind` is "lambda", b_i if it is "b"; `residual` is
    relative, None if as many unknowns as equations leave nothing to check; `fit` is "exact",
    "approximate", "none" or "not checkable"; `active` None if the samples do not explain the data
    or their multipliers are not unique; `margins` (n,) y_i f(x_i), or f(x_i) without labels;
    `multiplier_bounds` (n,) how far the data's error may move the multipliers, NaN where they are
    0 or not unique; `slackness` the relative spread of the active margins (KKT);
    `identifiability` the report on the data alone.
    """

    source: str
    kind: str
    multipliers: FloatArray
    coefficients: FloatArray
    residual: float | None
    redundant_equations: int
    fit: str
    active: tuple[int, ...] | None
    margins: FloatArray
    labels: FloatArray | None
    slackness: float | None
    parallel: tuple[tuple[int, ...], ...]
    exposed: tuple[Exposure, ...]
    recovered: int
    unmatched: int
    identifiability: IdentifiabilityReport
    notes: tuple[str, ...]
    seconds: float
    multiplier_bounds: FloatArray

    @property
    def verdict(self) -> Verdict:
        """The verdict on the data alone."""
        return self.identifiability.verdict

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data: multipliers, residual, active, margins, exposed, and more."""
        report = self.identifiability
        return {
            "multipliers": self.multipliers.tolist(),
            "residual": self.residual,
            "active": None if self.active is None else list(self.active),
            "margins": self.margins.tolist(),
            "exposed": [
                {
                    "index": entry.index,
                    "error": entry.error,
                    "bound": entry.bound,
                    "recovered": entry.recovered,
                    "parallel": list(entry.parallel),
                }
                for entry in self.exposed
            ],
            "source": self.source,
            "multiplier_bounds": [
                float(bound) if math.isfinite(bound) else None for bound in self.multiplier_bounds
            ],
            "multiplier_kind": self.kind,
            "coefficients": self.coefficients.tolist(),
            "fit": self.fit,
            "redundant_equations": self.redundant_equations,
            "slackness": self.slackness,
            "parallel": [list(group) for group in self.parallel],
            "recovered": self.recovered,
            "unmatched": self.unmatched,
            "verdict": report.verdict.value,
            "reason": report.reason,
            "scope": None if report.scope is None else report.scope.to_dict(),
            "assumptions": list(report.assumptions),
            "notes": list(self.notes),
            "inputs": [dict(entry) for entry in report.inputs],
            "seed": report.seed,
            "versions": dict(report.versions),
            "seconds": self.seconds,
        }

    def to_json(self) -> str:
        """audit.json as text; NaN and infinity never occur in it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def __str__(self) -> str:
        return format_audit(self)

    def _repr_html_(self) -> str:
        from identify.report.page.fragment import audit_fragment

        content, title = self.identifiability.to_dict(), "Which samples are exposed?"
        return audit_fragment(content, str(self), title, exposed=bool(self.exposed))


_ROWS = 40


_FITS = {
    "kkt": "the weights are stationary for these samples",
    "weight-decay": "the weights are stationary for these samples",
    "gradient": "the gradient is that of these samples",
    "fine-tuning": "to first order these samples explain the movement of the weights",
}


_MISFITS = {
    "kkt": "the weights are not stationary for these samples: some are missing or wrong, labels or "
    "source are others, or training stopped early",
    "weight-decay": "the weights are not stationary for these samples: some are missing or wrong, "
    "the source is another, or training stopped early",
    "gradient": "the gradient is not that of these samples: some are missing or wrong",
    "fine-tuning": "these samples do not explain the movement of the weights: some are missing or "
    "wrong, or it is too large for first order",
}


def format_audit(audit: AuditReport) -> str:
    """Write an audit as plain text of at most 100 columns, the exposed samples first.

    Example:
        >>> import numpy as np
        >>> from identify.exposure.audit import audit
        >>> from identify.model.two_layer import TwoLayerNetwork
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> samples = rng.normal(size=(4, 6))
        >>> gradient = net.gradient(samples, [1.0, -2.0, 0.5, 1.5])
        >>> report = audit(net, samples, source="gradient", gradient=gradient)
        >>> print(format_audit(report).splitlines()[2][:27])
        exposed     4 of 4 samples,
    """
    title = "Audit of the training samples"
    report, count = audit.identifiability, len(audit.multipliers)
    distinct = count - sum(len(group) - 1 for group in audit.parallel)
    lines = [title, "=" * len(title)]
    lines += labelled("exposed", _exposed(audit, distinct))
    lines += labelled("verdict", f"{headline(report)}, on the data alone")
    lines += labelled("scope", scope_sentence(report))
    lines += labelled("reason", report.reason)
    lines += labelled("your data", _fit(audit))
    lines += labelled("active", _active(audit, count))
    lines += labelled("margins", _margins(audit))
    lines += ["", "Samples", *_samples(audit)]
    lines += bullets("Notes", audit.notes)
    lines += bullets("Assumptions", report.assumptions)
    inputs = [f"{entry['role']} sha256 {entry['sha256'][:12]}" for entry in report.inputs]
    tail = [*inputs, f"source {audit.source}", f"seed {report.seed}", f"{audit.seconds:.1f} s"]
    return "\n".join([*lines, "", *textwrap.wrap(", ".join(tail), WIDTH)])


def _exposed(audit: AuditReport, distinct: int) -> str:
    if not audit.exposed:
        return f"none of {distinct} samples, by this method"
    errors = [entry.error for entry in audit.exposed]
    text = f"{len(errors)} of {distinct} samples, relative errors {number(min(errors))}"
    if len(errors) > 1:
        text += f" to {number(max(errors))}"
    if audit.parallel:
        text += "; parallel samples count as one"
    return text


def _fit(audit: AuditReport) -> str:
    if audit.residual is None:
        return "not checkable: as many multipliers as equations, so that any samples would fit"
    spare = (
        f"relative residual {number(audit.residual)}, {audit.redundant_equations} equations more "
        "than multipliers"
    )
    if audit.fit == "none":
        return f"{_MISFITS[audit.source]} ({spare})"
    roughly = " approximately" if audit.fit == "approximate" else ""
    return f"{_FITS[audit.source]}{roughly} ({spare})"


def _active(audit: AuditReport, count: int) -> str:
    if audit.active is None:
        none = audit.fit == "none"
        reason = "the samples do not explain the data" if none else "several multipliers fit"
        return f"unknown: {reason}"
    return f"{len(audit.active)} of {count} samples have a multiplier above the noise"


def _margins(audit: AuditReport) -> str:
    name = "y f(x)" if audit.labels is not None else "f(x)"
    text = f"{name} from {_short(audit.margins.min())} to {_short(audit.margins.max())}"
    if audit.slackness is not None:
        text += f"; those of the active samples agree to {number(audit.slackness)} (relative)"
    return text


def _samples(audit: AuditReport) -> list[str]:
    exposed = {entry.index: entry for entry in audit.exposed}
    first = {i: group[0] for group in audit.parallel for i in group}
    count, active = len(audit.multipliers), set(audit.active or ())
    # Those that matter first, where not all fit.
    order = sorted(range(count), key=lambda i: (first.get(i, i) not in exposed, i not in active))
    shown = sorted(order[:_ROWS])
    rows = []
    for i in shown:
        entry = exposed.get(first.get(i, i))
        rows.append(
            [
                str(i),
                "-" if audit.labels is None else f"{audit.labels[i]:+.0f}",
                _short(audit.multipliers[i]),
                _short(audit.margins[i]),
                "-" if audit.active is None else ("yes" if i in active else "no"),
                "no" if entry is None else f"error {number(entry.error)}",
                "" if entry is None else number(entry.bound),
            ]
        )
    multiplier = "lambda" if audit.kind == "lambda" else "b"
    margin = "y f(x)" if audit.labels is not None else "f(x)"
    head = ["sample", "label", multiplier, margin, "active", "exposed", "printed bound"]
    more = [f"  and {count - len(shown)} more"] if count > len(shown) else []
    return [*table(head, rows), *more]


def _short(value: float) -> str:
    return f"{float(value):.4g}"


def labelled(label: str, text: str) -> list[str]:
    indent = " " * 12
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [label.ljust(12) + lines[0].lstrip(), *lines[1:]]


def bullets(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    rows: list[str] = []
    for item in items:
        rows += textwrap.wrap(
            item,
            WIDTH,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
    return ["", title, *rows]
