"""Records that the package returns, and the words in which they are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
SCHEMA_VERSION = 1


class Verdict(StrEnum):
    """The four answers to "do the data determine the training samples?"."""

    GLOBALLY = "globally"
    LOCALLY = "locally"
    NONIDENTIFIABLE = "nonidentifiable"
    UNDECIDED = "undecided"

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        return {
            Verdict.GLOBALLY: "GLOBALLY identifiable: the training samples are determined",
            Verdict.LOCALLY: "LOCALLY identifiable: no other training set nearby",
            Verdict.NONIDENTIFIABLE: "NOT identifiable: two different training sets are shown",
            Verdict.UNDECIDED: "UNDECIDED: neither uniqueness nor its failure is established",
        }[self]


class Evidence(StrEnum):
    """How a condition was established."""

    PROVED_EXACT = "proved_exact"
    PROVED_INTERVAL = "proved_interval"
    NUMERICAL = "numerical"


@dataclass(frozen=True)
class Scope:
    """The training sets among which a verdict speaks.

    Example:
        >>> Scope("at_most", 6).sentence
        'among all training sets of at most 6 samples'
    """

    kind: str
    samples: int | tuple[int, int]

    @property
    def sentence(self) -> str:
        """The scope as the phrase that follows a verdict."""
        if isinstance(self.samples, tuple):
            first, second = self.samples
            return f"shown by one set of {first} and another of {second} samples"
        words = {"at_most": "at most", "exactly": "exactly"}[self.kind]
        plural = "" if self.samples == 1 else "s"
        return f"among all training sets of {words} {self.samples} sample{plural}"

    def to_dict(self) -> dict[str, Any]:
        """The scope as it stands in report.json."""
        count = list(self.samples) if isinstance(self.samples, tuple) else self.samples
        return {"kind": self.kind, "samples": count}


@dataclass(frozen=True)
class Condition:
    """One checked condition: what was required, what was found, by which evidence.

    `holds` is None where the condition could not be checked.
    """

    name: str
    holds: bool | None
    required: float | int | str | None
    found: float | int | str | None
    evidence: Evidence = Evidence.NUMERICAL
    source: str = ""


@dataclass(frozen=True)
class Residual:
    """A relative residual and the number of equations that could have made it non-zero.

    `value` is None where nothing could be checked; it is never 0 for that reason.
    """

    value: float | None
    equations: int


@dataclass(frozen=True, eq=False)
class Recovery:
    """Recovered training samples, ordered by |b_i| |x_i|^alpha, largest first.

    `samples` (n, d) in the units of the scale convention, `coefficients` (n,) b_i,
    `error_bounds` (n,) relative to |x_i|, NaN where there is none, `residuals` relative.
    """

    samples: FloatArray
    coefficients: FloatArray
    error_bounds: FloatArray
    residuals: Mapping[str, float]

    @property
    def labels(self) -> FloatArray:
        """Signs of the coefficients, shape (n,)."""
        return np.sign(self.coefficients)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A training set that explains the data: samples (n, d), coefficients (n,), residual."""

    samples: FloatArray
    coefficients: FloatArray
    stationarity: float

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.samples.shape[0])


@dataclass(frozen=True, eq=False)
class IdentifiabilityReport:
    """The verdict with everything that it rests on; `str()` gives the text form."""

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

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, in the fixed order of report.json."""
        from identify.certificate import digest

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
                    "required": _plain(c.required),
                    "found": _plain(c.found),
                    "evidence": c.evidence.value,
                    "source": c.source,
                }
                for c in self.conditions
            ],
            "residuals": {
                name: {"value": _plain(r.value), "equations": int(r.equations)}
                for name, r in self.residuals.items()
            },
            "redundant_equations": self.redundant_equations,
            "condition_number": _plain(self.condition_number),
            "condition_method": self.condition_method,
            "error_bounds": None
            if self.error_bounds is None
            else [_plain(bound) for bound in self.error_bounds],
            "assumptions": list(self.assumptions),
            "caveats": list(self.caveats),
            "certificate": None if self.certificate is None else dict(self.certificate),
            "noise_level": _plain(self.noise_level),
            "problem": {name: _plain(value) for name, value in self.problem.items()},
            "inputs": [dict(entry) for entry in self.inputs],
            "seed": self.seed,
            "versions": dict(self.versions),
            "seconds": _plain(self.seconds),
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
        from identify.text import format_report

        return format_report(self)


def _plain(value: Any) -> Any:
    """A JSON value: numpy scalars unwrapped, non-finite numbers null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
