"""The identifiability report: record, digest and text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from identify.records import Condition, Evidence, Recovery, Residual, Scope, TrainingSet, Verdict
from identify.report.plain import plain
from identify.report.summary import headline, remark_on_conditions, summary
from identify.text import bullets, counted, labelled, number, section, table, wrapped

if TYPE_CHECKING:
    from identify.recovery.stages import Stage

_UNSIGNED = ("seconds", "versions")


def digest(report: Mapping[str, Any]) -> str:
    """sha256 over a report without its time, versions and digest, in canonical JSON.

    It tells accidental changes apart from proofs that fail; whoever forges a report can forge it.

    Example:
        >>> digest({"verdict": "undecided", "certificate": None})[:12]
        '3e93fe9f0327'
    """
    content = {name: value for name, value in report.items() if name not in _UNSIGNED}
    if isinstance(content.get("certificate"), Mapping):
        content["certificate"] = {
            name: value for name, value in content["certificate"].items() if name != "digest"
        }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class IdentifiabilityReport:
    """The verdict with everything that it rests on; `str()` gives the text form.

    `findings` are the measurements behind it and `searched` says whether other sets were looked
    for, so that nobody need do either again; report.json has neither.
    """

    verdict: Verdict
    reason: str
    scope: Scope | None
    spans_input_space: bool | None
    symmetries: tuple[str, ...]
    sample_count: int | None
    conditions: tuple[Condition, ...]
    residuals: Mapping[str, Residual]
    redundant_equations: int | None
    condition_number: float | None
    condition_method: str | None
    error_bounds: tuple[float | None, ...] | None
    assumptions: tuple[str, ...]
    caveats: tuple[str, ...]
    noise_level: float
    problem: Mapping[str, Any]
    inputs: tuple[Mapping[str, str], ...]
    seed: int
    versions: Mapping[str, str]
    seconds: float
    evidence: Evidence = Evidence.NUMERICAL
    strengthen: tuple[str, ...] = ()
    certificate: Mapping[str, Any] | None = None
    recovery: Recovery | None = field(default=None)
    alternatives: tuple[TrainingSet, ...] = ()
    findings: Stage | None = field(default=None, repr=False)
    searched: bool = False
    candidates: bool = False
    covered: bool = True
    absolute_bounds: tuple[float | None, ...] | None = None
    data_error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, in the fixed order of report.json."""
        report = self._content()
        if report["certificate"] is not None:
            report["certificate"]["digest"] = digest(report)
        return report

    def _content(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "scope": None if self.scope is None else self.scope.to_dict(),
            "spans_input_space": self.spans_input_space,
            "symmetries": list(self.symmetries),
            "sample_count": self.sample_count,
            "evidence": self.evidence.value,
            "strengthen": list(self.strengthen),
            "conditions": [
                {
                    "name": c.name,
                    "holds": None if c.holds is None else bool(c.holds),
                    "required": plain(c.required),
                    "found": plain(c.found),
                    "evidence": c.evidence.value,
                    "source": c.source,
                    "needed": bool(c.needed),
                }
                for c in self.conditions
            ],
            "residuals": {
                name: {"value": plain(r.value), "equations": int(r.equations)}
                for name, r in self.residuals.items()
            },
            "redundant_equations": self.redundant_equations,
            "condition_number": plain(self.condition_number),
            "condition_method": self.condition_method,
            "error_bounds": plain(self.error_bounds),
            "absolute_bounds": plain(self.absolute_bounds),
            "data_error": plain(self.data_error),
            "assumptions": list(self.assumptions),
            "caveats": list(self.caveats),
            "candidates": self.candidates,
            "covered": self.covered,
            "certificate": None if self.certificate is None else dict(self.certificate),
            "noise_level": plain(self.noise_level),
            "problem": plain(self.problem),
            "inputs": [dict(entry) for entry in self.inputs],
            "seed": self.seed,
            "versions": dict(self.versions),
            "seconds": plain(self.seconds),
        }

    def to_json(self) -> str:
        """report.json as text; NaN and infinity never occur in it."""
        report = self.to_dict()
        certificate = report["certificate"]
        if certificate is None:
            return json.dumps(report, indent=2, allow_nan=False) + "\n"
        # Thousands of numbers, one line for each part of the certificate.
        parts = (
            f"    {json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
            for name, value in certificate.items()
        )
        block = "{\n" + ",\n".join(parts) + "\n  }"
        text = json.dumps(report | {"certificate": None}, indent=2, allow_nan=False)
        return text.replace('\n  "certificate": null', f'\n  "certificate": {block}', 1) + "\n"

    def __str__(self) -> str:
        return format_report(self)

    def _repr_html_(self) -> str:
        from identify.report.page.fragment import report_fragment

        return report_fragment(self.to_dict(), str(self))


_NAMES = {
    "balance": "balance or consistency",
    "off_span": "outside the span",
    "linear": "linear equations",
    "samples": "recovered samples",
}


def format_report(report: IdentifiabilityReport) -> str:
    """Write a report as plain text of at most 100 columns: plain words first, then the verdict.

    A residual without equations that could have failed is "not checkable", never 0. The caveats
    say what would break the redundant equations. The cost is negligible.

    Example:
        >>> import numpy as np
        >>> from identify.assess import assess_identifiability
        >>> from identify.hermite.data import HermiteData
        >>> from identify.model.two_layer import TwoLayerNetwork
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> gradient = net.gradient(rng.normal(size=(4, 6)), [1.0, -2.0, 0.5, 1.5])
        >>> report = assess_identifiability(HermiteData.from_gradient(net, gradient))
        >>> print(format_report(report).splitlines()[2])
        in short      4 training samples can be reconstructed from this gradient
    """
    title = "Identifiability report"
    lines = [title, "=" * len(title)]
    for label, text in summary(report):
        lines += labelled(label, text)
    lines += ["", *labelled("verdict", headline(report))]
    lines += labelled("scope", scope_sentence(report))
    lines += labelled("reason", report.reason)
    lines += labelled("evidence", _evidence(report))
    lines += labelled("stronger by", "; ".join(report.strengthen))
    lines += labelled("data", _problem(report.problem, report.spans_input_space))
    lines += labelled("recovered", _recovered(report))
    lines += labelled("rank", _rank(report.problem))
    lines += labelled("redundancy", _redundancy(report))
    lines += labelled("conditioning", _conditioning(report))
    lines += labelled("noise level", _noise(report))
    lines += section("Residuals, relative", _residuals(report.residuals))
    lines += section("Conditions", _conditions(report.conditions))
    remark = remark_on_conditions(report)
    lines += wrapped(remark, "  ") if remark else []
    lines += section("Assumptions", bullets(report.assumptions))
    lines += section("Symmetries", bullets(report.symmetries))
    lines += section("Caveats", bullets(report.caveats))
    inputs = ", ".join(f"{entry['role']} sha256 {entry['sha256'][:12]}" for entry in report.inputs)
    version = report.versions.get("kktcert")
    tail = [inputs, f"seed {report.seed}", f"{report.seconds:.1f} s"]
    if version:
        tail.append(f"kktcert {version}")
    lines += ["", *wrapped(", ".join(part for part in tail if part))]
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
    return headline(report)


def _evidence(report: IdentifiabilityReport) -> str:
    kinds = {
        "proved_exact": "proved in exact arithmetic",
        "proved_interval": "proved in interval arithmetic",
        "numerical": "numerical",
    }
    parts = []
    for kind, words in kinds.items():
        names = [
            # How many equations there are is proved, not that they speak for the number.
            "redundancy (the count, not the number of samples)"
            if c.name == "redundancy" and kind != "numerical"
            else c.name
            for c in report.conditions
            if c.evidence.value == kind
        ]
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


def _noise(report: IdentifiabilityReport) -> str:
    text = f"{number(report.noise_level)}, relative"
    if report.data_error is None:
        return text
    return f"{text}; bounds and boxes allow for data off by {number(report.data_error)}"


def _recovered(report: IdentifiabilityReport) -> str:
    found = report.recovery
    if report.alternatives:
        sizes = " and ".join(str(other.count) for other in report.alternatives)
        return f"no unique samples; sets of {sizes} samples are shown"
    if found is None:
        return "no samples"
    count = len(found.samples)
    bounds = [b for b in report.error_bounds or () if b is not None]
    absolute = [b for b in report.absolute_bounds or () if b is not None]
    if len(bounds) == count:
        error = f"largest error bound {number(max(bounds))} of a sample's norm"
    else:
        relative = "a bound relative to its norm" if len(absolute) == count else "an error bound"
        error = f"{count - len(bounds)} without {relative}"
    if len(absolute) == count:
        error += f", {number(max(absolute))} absolute"
    force = "" if report.verdict in (Verdict.GLOBALLY, Verdict.LOCALLY) else ", not shown unique"
    return f"{counted(count, 'sample')}{force}, {error}"


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
        return f"{counted(count, 'equation')} beyond the unknowns"
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
        value = "not checkable" if residual.value is None else number(residual.value)
        against = (
            f"against {counted(count, 'redundant equation')}" if count else "no redundant equation"
        )
        rows.append([_NAMES.get(name, name), value, against])
    return table(["", "residual", ""], rows)[1:] if rows else []


def _conditions(conditions: Sequence[Condition]) -> list[str]:
    words = {True: "holds", False: "fails", None: "not checked"}
    rows = [
        [
            c.name,
            words[c.holds] + ("" if c.needed else ", not required"),
            number(c.required),
            number(c.found),
            c.evidence.value,
        ]
        for c in conditions
    ]
    return table(["", "", "required", "found", "evidence"], rows) if rows else []
