"""What the owner is told about the weights of a ReLU network: record, JSON and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from identify.arrays import FloatArray
from identify.exposure.batch_report import AuditOfReport, BatchExposure, exposed_line
from identify.report.stationary import KIND, StationaryReport
from identify.text import labelled, number, section, table

_ROWS = 40


@dataclass(frozen=True, eq=False)
class WeightsAudit(AuditOfReport):
    """What the weights give away of the samples in the owner's file; `str()` is the text form.

    ``coefficients`` b (n,) in units of the decay, 0 for a sample that equals an earlier one; their
    sizes are lambda_i >= 0 if ``lambdas``. None where labels or a loss are missing. ``residual`` is
    relative; ``fit`` "exact", "approximate", "none" or "not checkable"; ``active`` None if the
    samples do not explain the weights or b is not unique; ``margins`` (n,) y_i f(x_i), or f(x_i)
    without labels, for one output. ``groups`` has for each sample the first one that equals it;
    ``report`` is the report on the weights alone.
    """

    report: StationaryReport
    labels: FloatArray | None
    coefficients: FloatArray | None
    lambdas: bool
    residual: float | None
    fit: str
    active: tuple[int, ...] | None
    margins: FloatArray | None
    groups: tuple[int, ...]
    exposed: tuple[BatchExposure, ...]
    recovered: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def multipliers(self) -> FloatArray | None:
        """lambda_i or b_i, shape (n,)."""
        b = self.coefficients
        return np.abs(b) if self.lambdas and b is not None else b

    @property
    def slackness(self) -> float | None:
        """Relative spread of the active margins of a KKT point, None without them."""
        if self.margins is None or not self.active or self.report.problem["source"] != "kkt":
            return None
        tight = self.margins[list(self.active)]
        tight = tight if self.labels is not None else np.abs(tight)
        size = float(np.abs(tight).max())
        return float(np.ptp(tight)) / size if size > 0.0 else None

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain data, in the fixed order of audit.json."""
        multipliers = self.multipliers
        return {
            "kind": KIND,
            "multipliers": None if multipliers is None else multipliers.tolist(),
            "multiplier_kind": "lambda" if self.lambdas else "b",
            "residual": self.residual,
            "fit": self.fit,
            "active": None if self.active is None else list(self.active),
            "margins": None if self.margins is None else self.margins.tolist(),
            "slackness": self.slackness,
            **self._found(),
            **self._origin(),
        }

    def __str__(self) -> str:
        title = "Audit of the weights of a ReLU network"
        lines = [title, "=" * len(title)]
        lines += labelled("exposed", exposed_line(self.exposed, self.count, self.recovered))
        lines += self._verdict_lines("weights")
        lines += labelled("your data", _fit(self))
        lines += labelled("active", _active(self))
        lines += labelled("margins", _margins(self))
        lines += section("Samples", _samples(self))
        return "\n".join([*lines, *self._last_lines()])


def _fit(audit: WeightsAudit) -> str:
    if audit.residual is None:
        return (
            "not checkable: with several outputs give labels in the file and --loss cross-entropy"
        )
    size = f"relative residual {number(audit.residual)}"
    if audit.fit == "none":
        return (
            "the weights are not stationary for these samples: some are missing or wrong, labels, "
            f"source or trained layers are others, or training stopped early ({size})"
        )
    roughly = " approximately" if audit.fit == "approximate" else ""
    return f"the weights are stationary for these samples{roughly} ({size})"


def _active(audit: WeightsAudit) -> str:
    if audit.active is None:
        if audit.residual is None:
            return ""
        none = audit.fit == "none"
        reason = "the samples do not explain the weights" if none else "several multipliers fit"
        return f"unknown: {reason}"
    return f"{len(audit.active)} of {audit.count} samples have a multiplier above the noise"


def _margins(audit: WeightsAudit) -> str:
    margins = audit.margins
    if margins is None:
        return ""
    name = "y f(x)" if audit.labels is not None else "f(x)"
    text = f"{name} from {float(margins.min()):.4g} to {float(margins.max()):.4g}"
    if audit.slackness is not None:
        text += f"; those of the active samples agree to {number(audit.slackness)} (relative)"
    return text


def _samples(audit: WeightsAudit) -> list[str]:
    exposed = {entry.index: entry for entry in audit.exposed}
    active = set(audit.active or ())
    order = sorted(
        range(len(audit.groups)),
        key=lambda i: (audit.groups[i] not in exposed, i not in active, i),
    )
    multipliers, rows = audit.multipliers, []
    for i in order[:_ROWS]:
        entry = exposed.get(audit.groups[i])
        rows.append([
            str(i),
            "-" if audit.labels is None else f"{audit.labels[i]:g}",
            "-" if multipliers is None else f"{float(multipliers[i]):.4g}",
            "-" if audit.margins is None else f"{float(audit.margins[i]):.4g}",
            "-" if audit.active is None else ("yes" if i in active else "no"),
            "no" if entry is None else f"error {number(entry.error)}",
            "" if entry is None else number(entry.bound),
        ])  # fmt: skip
    name = "lambda" if audit.lambdas else "b"
    margin = "y f(x)" if audit.labels is not None else "f(x)"
    head = ["sample", "label", name, margin, "active", "exposed", "printed bound"]
    left = len(order) - len(rows)
    return [*table(head, rows), *([f"  and {left} more"] if left else [])]
