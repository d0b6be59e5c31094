"""The text form of a report, to be read at a glance."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from identify.results import Condition, IdentifiabilityReport, Residual, Verdict

WIDTH = 100
_LABEL = 14
_NAMES = {
    "balance": "balance or consistency",
    "off_span": "outside the span",
    "linear": "linear equations",
    "samples": "recovered samples",
}


def format_report(report: IdentifiabilityReport) -> str:
    """Write a report as plain text of at most 100 columns, the verdict first.

    A residual without equations that could have failed is "not checkable", never 0. The caveats
    say what would break the redundant equations. The cost is negligible.

    Example:
        >>> import numpy as np
        >>> from identify.assess import assess_identifiability
        >>> from identify.hermite import HermiteData
        >>> from identify.network import TwoLayerNetwork
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> gradient = net.gradient(rng.normal(size=(4, 6)), [1.0, -2.0, 0.5, 1.5])
        >>> report = assess_identifiability(HermiteData.from_gradient(net, gradient))
        >>> print(format_report(report).splitlines()[2])
        verdict       GLOBALLY identifiable: the training samples are determined
    """
    title = "Identifiability report"
    lines = [title, "=" * len(title)]
    lines += _labelled("verdict", report.verdict.sentence)
    lines += _labelled("scope", scope_sentence(report))
    lines += _labelled("reason", report.reason)
    lines += _labelled("evidence", _evidence(report))
    lines += _labelled("stronger by", "; ".join(report.strengthen))
    lines += _labelled("data", _problem(report.problem, report.spans_input_space))
    lines += _labelled("recovered", _recovered(report))
    lines += _labelled("rank", _rank(report.problem))
    lines += _labelled("redundancy", _redundancy(report))
    lines += _labelled("conditioning", _conditioning(report))
    lines += _labelled("noise level", f"{number(report.noise_level)}, relative")
    lines += _section("Residuals, relative", _residuals(report.residuals))
    lines += _section("Conditions", _conditions(report.conditions))
    lines += _section("Assumptions", _bullets(report.assumptions))
    lines += _section("Symmetries", _bullets(report.symmetries))
    lines += _section("Caveats", _bullets(report.caveats))
    inputs = ", ".join(f"{entry['role']} sha256 {entry['sha256'][:12]}" for entry in report.inputs)
    version = report.versions.get("kktcert")
    tail = [inputs, f"seed {report.seed}", f"{report.seconds:.1f} s"]
    if version:
        tail.append(f"kktcert {version}")
    lines += ["", *_wrapped(", ".join(part for part in tail if part))]
    return "\n".join(lines)


def scope_sentence(report: IdentifiabilityReport) -> str:
    """The sets among which the verdict speaks, as the phrase that follows it.

    Example:
        >>> from types import SimpleNamespace
        >>> scope_sentence(SimpleNamespace(scope=None))
        'none: no uniqueness is claimed'
    """
    return "none: no uniqueness is claimed" if report.scope is None else report.scope.sentence


def sheet_title(report: IdentifiabilityReport) -> str:
    """The verdict with its scope, as it stands over pictures of recovered samples."""
    if report.scope is None:
        return (
            f"{report.verdict.value.upper()}, no uniqueness: the samples below explain the data, "
            f"and others may too ({report.reason})"
        )
    if isinstance(report.scope.samples, tuple):
        first, second = report.scope.samples
        return (
            f"NOT identifiable: the training sets below, of {first} and of {second} samples, "
            "explain the same data"
        )
    return f"{report.verdict.sentence}, {report.scope.sentence}"


def number(value: float | int | str | None) -> str:
    """Write a number in few characters; None as "-".

    Example:
        >>> number(56), number(1e-15), number(0.1), number(None), number(1234.5)
        ('56', '1.0e-15', '0.1', '-', '1.2e+03')
    """
    if value is None:
        return "-"
    if isinstance(value, str | int):
        return str(value)
    if not math.isfinite(value):
        return "-"
    if value == 0.0 or (1e-3 <= abs(value) < 1e3 and float(f"{value:.4g}") == value):
        return f"{value:.4g}"
    return f"{value:.1e}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], indent: int = 2) -> list[str]:
    """Align text in columns, two spaces apart, under a header.

    Example:
        >>> table(["a", "b"], [["long", "1"]], indent=0)
        ['a     b', 'long  1']
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    spell = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells)
    return [(" " * indent + line).rstrip() for line in spell]


def _labelled(label: str, text: str) -> list[str]:
    if not text:
        return []
    lines = _wrapped(text, indent=" " * _LABEL)
    return [label.ljust(_LABEL) + lines[0].lstrip(), *lines[1:]]


def _wrapped(text: str, indent: str = "", first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    ) or [""]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *lines] if lines else []


def _bullets(items: Iterable[str]) -> list[str]:
    return [line for item in items for line in _wrapped(item, "    ", "  - ")]


def _evidence(report: IdentifiabilityReport) -> str:
    kinds = {
        "proved_exact": "proved in exact arithmetic",
        "proved_interval": "proved in interval arithmetic",
        "numerical": "numerical",
    }
    parts = []
    for kind, words in kinds.items():
        names = [c.name for c in report.conditions if c.evidence.value == kind]
        if names:
            parts.append(f"{words}: {', '.join(names)}")
    return "; ".join(parts) or "none: no condition was checked"


def _problem(problem: Mapping[str, object], spans: bool | None) -> str:
    parts = []
    if "source" in problem:
        parts.append(f"source {problem['source']}")
    if "degree" in problem:
        parts.append(f"degree {problem['degree']}")
    width, distinct = problem.get("width"), problem.get("distinct_neurons")
    if width is not None:
        of_them = "" if distinct in (None, width) else f" ({distinct} distinct)"
        parts.append(f"{width} neurons{of_them}")
    if "dimension" in problem:
        parts.append(f"{problem['dimension']} inputs")
    span = problem.get("span_dimension")
    if span is not None:
        whole = {True: ", the whole input space", False: ", not the whole input space", None: ""}
        parts.append(f"span of dimension {span}{whole[spans]}")
    return ", ".join(parts)


def _recovered(report: IdentifiabilityReport) -> str:
    found = report.recovery
    if report.alternatives:
        sizes = " and ".join(str(other.count) for other in report.alternatives)
        return f"no unique samples; sets of {sizes} samples are shown"
    if found is None:
        return "no samples"
    count = len(found.samples)
    plural = "" if count == 1 else "s"
    bounds = [b for b in report.error_bounds or () if b is not None]
    if len(bounds) == count:
        error = f"largest error bound {number(max(bounds))} of a sample's norm"
    else:
        error = f"{count - len(bounds)} without an error bound"
    force = "" if report.verdict in (Verdict.GLOBALLY, Verdict.LOCALLY) else ", not shown unique"
    return f"{count} sample{plural}{force}, {error}"


def _rank(problem: Mapping[str, object]) -> str:
    if problem.get("rank") is None:
        return ""
    method = f" ({problem['rank_method']})" if problem.get("rank_method") else ""
    return f"{problem['rank']} found, {problem.get('unknowns')} required{method}"


def _redundancy(report: IdentifiabilityReport) -> str:
    count = report.redundant_equations
    if count is None:
        return "not known"
    if count < 1:
        return f"{count}: no equation speaks for the number of samples"
    plural = "equation agrees" if count == 1 else "equations agree"
    if report.verdict is not Verdict.GLOBALLY:
        plural = "equation" if count == 1 else "equations"
        return f"{count} {plural} beyond the unknowns"
    caveat = "; what would break them: see the caveats" if report.caveats else ""
    return f"{count} {plural} with the number of samples{caveat}"


def _conditioning(report: IdentifiabilityReport) -> str:
    if report.condition_number is None:
        return "not known"
    method = f" ({report.condition_method})" if report.condition_method else ""
    return f"{number(report.condition_number)}{method}"


def _residuals(residuals: Mapping[str, Residual]) -> list[str]:
    rows = []
    for name, residual in residuals.items():
        count = residual.equations
        plural = "" if count == 1 else "s"
        value = "not checkable" if residual.value is None else number(residual.value)
        against = (
            f"against {count} redundant equation{plural}" if count else "no redundant equation"
        )
        rows.append([_NAMES.get(name, name), value, against])
    return table(["", "residual", ""], rows)[1:] if rows else []


def _conditions(conditions: Sequence[Condition]) -> list[str]:
    words = {True: "holds", False: "fails", None: "not checked"}
    rows = [
        [
            c.name,
            words[c.holds] + (", not required" if c.source.endswith("not required") else ""),
            number(c.required),
            number(c.found),
            c.evidence.value,
        ]
        for c in conditions
    ]
    return table(["", "", "required", "found", "evidence"], rows) if rows else []
