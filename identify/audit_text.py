"""The sentences and the text form of an audit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from identify.hermite import HermiteData
from identify.multipliers import MultiplierFit, fit_multipliers
from identify.results import FloatArray, IdentifiabilityReport, Verdict
from identify.text import WIDTH, number, scope_sentence, table

if TYPE_CHECKING:
    from identify.audit import AuditReport, Exposure

EXACT = 1e-6
"""Error below which a sample counts as exposed exactly, whatever its bound."""
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


def data_notes(
    data: HermiteData,
    fit: MultiplierFit,
    samples: FloatArray,
    labels: FloatArray | None,
    margins: FloatArray,
    active: tuple[int, ...] | None,
    parallel: Sequence[tuple[int, ...]],
    slackness: float | None,
) -> list[str]:
    """What the multipliers, margins and parallels at the true samples show."""
    notes = []
    if active is None and data.source == "kkt" and labels is not None:
        free = fit_multipliers(data, samples).residual
        if free < 0.1 * fit.residual:
            notes.append(
                f"with multipliers of any sign the residual would be {number(free)}: some labels "
                "are wrong, or the source is weight decay"
            )
    if not fit.unique:
        notes.append(
            "the multipliers are not unique: the gradients of these samples are linearly dependent"
        )
    for group in parallel:
        notes.append(
            f"samples {_listed(group)} are parallel and count as one; only the sum of their parts "
            "is determined"
        )
    if slackness is not None and active is not None and slackness > 0.01:
        notes.append(
            f"the margins of the active samples differ by {number(slackness)} (relative): "
            "complementary slackness fails, this is no KKT point of the max-margin problem"
        )
    if data.source == "kkt" and labels is not None and active:
        tight = float(np.median(margins[list(active)]))
        below = [int(i) for i in np.flatnonzero(margins < 0.99 * tight) if i not in active]
        if tight > 0.0 and below:
            notes.append(
                f"inactive samples {_listed(below)} have a smaller margin than the active ones: "
                "the margin constraint is violated, this is no KKT point of the max-margin problem"
            )
        if tight <= 0.0:
            notes.append("active samples are classified wrongly (y_i f(x_i) <= 0)")
    logistic = data.loss in ("logistic", "cross-entropy") and data.source != "fine-tuning"
    if labels is not None and logistic and active:
        expected = -labels if data.source == "gradient" else labels
        wrong = [i for i in active if fit.coefficients[i] * expected[i] < 0.0]
        if wrong:
            notes.append(
                f"the coefficients of samples {_listed(wrong)} have the wrong sign for their label "
                "under the logistic loss"
            )
    return notes


def exposure_notes(
    report: IdentifiabilityReport,
    fit: MultiplierFit,
    exposed: Sequence[Exposure],
    active: tuple[int, ...] | None,
    recovered: int,
    explained: bool,
) -> list[str]:
    """What the recovery means for the owner, beside the list of exposed samples."""
    notes = []
    distinct = len({int(fit.groups[i]) for i in active}) if active is not None else None
    if report.recovery is None:
        notes.append(
            "no set of samples was recovered, so nothing is exposed by this method; another "
            "method, or an attacker who knows more, may still find something"
        )
    elif exposed and report.verdict is not Verdict.GLOBALLY:
        notes.append(
            "the exposed samples stand among candidates: from the data alone it does not follow "
            "that the candidates are the training samples"
        )
    if recovered > len(exposed):
        more = ""
        if distinct is not None and distinct > recovered:
            more = (
                f"; {distinct} distinct samples are active, more than the {recovered} recovered, "
                "which are then mixtures"
            )
        notes.append(
            f"{recovered - len(exposed)} of {recovered} recovered samples are none of yours{more}"
        )
    if report.verdict is Verdict.GLOBALLY and explained and active is not None:
        near = {entry.index for entry in exposed if entry.error <= max(entry.bound or 0.0, EXACT)}
        lost = sorted({int(fit.groups[i]) for i in active} - near)
        if lost and distinct is not None and distinct <= recovered:
            notes.append(
                f"the verdict `globally` is wrong here: active samples {_listed(lost)} are not "
                "recovered within their bounds; please report this as a bug"
            )
    return notes


def format_audit(audit: AuditReport) -> str:
    """Write an audit as plain text of at most 100 columns, the exposed samples first.

    Example:
        >>> from identify.audit import audit
        >>> from identify.network import TwoLayerNetwork
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
    lines += _labelled("exposed", _exposed(audit, distinct))
    lines += _labelled("verdict", f"{report.verdict.sentence}, on the data alone")
    lines += _labelled("scope", scope_sentence(report))
    lines += _labelled("reason", report.reason)
    lines += _labelled("your data", _fit(audit))
    lines += _labelled("active", _active(audit, count))
    lines += _labelled("margins", _margins(audit))
    lines += ["", "Samples", *_samples(audit)]
    lines += _bullets("Notes", audit.notes)
    lines += _bullets("Assumptions", report.assumptions)
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


def _listed(indices: Iterable[int]) -> str:
    every = [str(i) for i in indices]
    return ", ".join(every[:8]) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def _labelled(label: str, text: str) -> list[str]:
    indent = " " * 12
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [label.ljust(12) + lines[0].lstrip(), *lines[1:]]


def _bullets(title: str, items: Sequence[str]) -> list[str]:
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
