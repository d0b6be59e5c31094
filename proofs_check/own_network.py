"""Which hypotheses of the theorems a given network satisfies, with the numbers behind them."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from identify.assess import assess_identifiability
from identify.budget import Progress
from identify.hermite.data import HermiteData
from identify.records import Condition, Verdict
from identify.recovery.assumptions import Assumptions
from identify.recovery.bounds import ErrorBounds
from identify.recovery.samples import Samples
from identify.recovery.ties import check_ties
from identify.report.report import IdentifiabilityReport, scope_sentence
from identify.text import WIDTH, number, table
from identify.thresholds import BALANCE_LIMIT
from proofs_check.machinery.results import plain

RECONSTRUCTION, UNIQUENESS = "theorem-4.1", "uniqueness"
THEOREMS: Mapping[str, str] = {
    RECONSTRUCTION: "Theorem 4.1 of Shen, Wang, Qian & Lei 2026 (Data Reconstruction)",
    UNIQUENESS: "Uniqueness among at most r samples (ours)",
}
NOT_REACHED = "not reached, see the reason"
_WORDS = {True: "holds", False: "fails", None: "not checkable"}


@dataclass(frozen=True)
class NetworkCondition:
    """One hypothesis of one theorem on one network.

    `holds` is None where these numbers cannot decide it. `required` and `found` are None where
    there is no number. `counts` is False for what is no hypothesis: a sufficient condition, a
    convention that costs nothing, the redundancy that gives a theorem its force.
    """

    theorem: str
    name: str
    sentence: str
    holds: bool | None
    found: float | int | None = None
    required: float | int | None = None
    detail: str = ""
    counts: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The condition as plain data without NaN."""
        return {
            "theorem": self.theorem,
            "name": self.name,
            "sentence": self.sentence,
            "holds": self.holds,
            "found": _number(self.found),
            "required": _number(self.required),
            "detail": self.detail,
            "counts": self.counts,
        }


@dataclass(frozen=True, eq=False)
class NetworkCheck:
    """The conditions, and the report that they were read from; `str()` gives the text form."""

    conditions: tuple[NetworkCondition, ...]
    report: IdentifiabilityReport

    def of(self, theorem: str) -> tuple[NetworkCondition, ...]:
        """The conditions of "theorem-4.1" or "uniqueness"."""
        return tuple(entry for entry in self.conditions if entry.theorem == theorem)

    def applies(self, theorem: str) -> bool | None:
        """True if every condition holds, False if one fails, None if one cannot be decided."""
        values = [entry.holds for entry in self.of(theorem) if entry.counts]
        return False if False in values else None if None in values else True

    def __getitem__(self, key: tuple[str, str]) -> NetworkCondition:
        for entry in self.conditions:
            if (entry.theorem, entry.name) == key:
                return entry
        raise KeyError(key)

    def to_dict(self) -> dict[str, Any]:
        """The check as plain data."""
        return {
            "theorems": [
                {
                    "name": name,
                    "title": title,
                    "applies": self.applies(name),
                    "conditions": [entry.to_dict() for entry in self.of(name)],
                }
                for name, title in THEOREMS.items()
            ],
            "verdict": self.report.verdict.value,
            "reason": self.report.reason,
        }

    def to_json(self) -> str:
        """The check as JSON; NaN and infinity never occur in it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        title = "Conditions on this network"
        lines = [title, "=" * len(title)]
        lines.append(f"verdict: {self.report.verdict.value}, {scope_sentence(self.report)}")
        lines += textwrap.wrap(f"reason: {self.report.reason}", WIDTH, break_on_hyphens=False)
        words = {True: "applies", False: "does not apply", None: "not decided"}
        for name, heading in THEOREMS.items():
            lines += ["", f"{heading}: {words[self.applies(name)]}"]
            rows = [
                [
                    entry.name,
                    _WORDS[entry.holds],
                    number(entry.found),
                    number(entry.required),
                    entry.detail + ("" if entry.counts else " (not required)"),
                ]
                for entry in self.of(name)
            ]
            lines += table(["condition", "", "found", "required", ""], rows)
        return "\n".join(lines)


def check_network(
    data: HermiteData,
    samples: int | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    *,
    assumptions: Assumptions | None = None,
) -> NetworkCheck:
    """Say for each hypothesis of two theorems whether a network satisfies it.

    Theorem 4.1 of the data-reconstruction paper: degree, KKT point, interpolation condition (its
    three readings I-hermite, I-flat, I-value; I-hermite decides, since it is equivalent to the
    conclusion about T), independent samples, unit norms as a convention. Uniqueness among at most
    r samples: I-hermite on V, T_V a sum of r independent terms, and the redundant equations that
    give it force. Independence and norms are judged on the recovered samples.

    Args:
        data: from one of the constructors of `HermiteData`.
        samples, scale, non_negative, noise, time_limit, progress, seed, assumptions: as for
            `assess_identifiability`; all numbers come from its report.

    Returns:
        A `NetworkCheck`; `holds` is None where the numbers do not decide.

    Raises:
        InvalidInputError: an argument out of range.

    Cost: that of `assess_identifiability` without proofs.
    Source: Shen, Wang, Qian & Lei 2026, Theorem 4.1 (arXiv 2602.08723); Kruskal 1977 for the
        uniqueness of the decomposition.

    Example:
        >>> import numpy as np
        >>> from identify import HermiteData, plant_network
        >>> planted = plant_network(np.eye(3), degree=3)
        >>> found = check_network(HermiteData.from_kkt(planted.network))
        >>> found.applies("theorem-4.1"), found["theorem-4.1", "I-hermite"].found
        (True, 10)
    """
    given = Assumptions.chosen(
        assumptions, samples=samples, scale=scale, non_negative=non_negative, noise=noise
    )
    report = assess_identifiability(
        data, time_limit=time_limit, progress=progress, seed=seed, evidence="numerical",
        assumptions=given,
    )  # fmt: skip
    rows = [_degree(data), _balance(data, report), _stationary(data, report, given.noise)]
    if data.source == "kkt":
        rows.append(_multipliers(data, report))
    rows += _interpolation(RECONSTRUCTION, report)
    rows += [_whole_space(report), _independent(RECONSTRUCTION, data, report)]
    rows += [_norms(data, report), *_interpolation(UNIQUENESS, report)[:1]]
    rows += [_decomposition(report), _independent(UNIQUENESS, data, report), _redundancy(report)]
    return NetworkCheck(tuple(rows), report)


def _number(value: float | int | None) -> float | int | None:
    return value if isinstance(value, int) else plain(value)


def _row(report: IdentifiabilityReport, name: str) -> Condition | None:
    return next((entry for entry in report.conditions if entry.name == name), None)


def _size(value: float | int | str | None) -> float | int | None:
    """A number of a report's condition; None for words, and where there is none."""
    if value is None or isinstance(value, str):
        return None
    return value if isinstance(value, int) else float(value)


def _degree(data: HermiteData) -> NetworkCondition:
    return NetworkCondition(
        RECONSTRUCTION, "degree", "alpha >= 3", data.degree >= 3, data.degree, 3
    )


def _balance(data: HermiteData, report: IdentifiabilityReport) -> NetworkCondition:
    name, sentence = "balance", "|w_j|^2 = alpha a_j^2 for every neuron, as at every KKT point"
    found = _row(report, "balance")
    if not data.homogeneous or found is None:
        words = "a gradient or a movement is no stationary point"
        return NetworkCondition(RECONSTRUCTION, name, sentence, None, detail=words)
    value = data.consistency or 0.0
    return NetworkCondition(
        RECONSTRUCTION, name, sentence, found.holds, value, BALANCE_LIMIT, "relative residual"
    )


def _stationary(
    data: HermiteData, report: IdentifiabilityReport, noise: float | None
) -> NetworkCondition:
    """The eigenvector equations, as far as more of them were given than fix T."""
    name, sentence = "stationarity", "w_j = alpha a_j T(w_j^(alpha-1), .) for one tensor T"

    def made(holds: bool | None, value: float | None, words: str) -> NetworkCondition:
        limit = None if value is None else BALANCE_LIMIT
        return NetworkCondition(RECONSTRUCTION, name, sentence, holds, value, limit, words)

    if not data.homogeneous:
        return made(None, None, "a gradient or a movement is no stationary point")
    if (data.consistency or 0.0) > BALANCE_LIMIT:
        return made(False, None, "without balance there is no such tensor")
    if report.problem["rank"] is None:
        if report.noise_level <= max(BALANCE_LIMIT, noise or 0.0, data.rounding):
            return made(None, None, NOT_REACHED)
        return made(False, report.noise_level, "relative residual of the equations")
    for part in ("linear", "samples"):
        residual = report.residuals[part]
        if residual.value is not None:
            words = f"relative, {residual.equations} redundant equations"
            return made(residual.value <= BALANCE_LIMIT, residual.value, words)
    return made(None, None, "no more equations than unknowns")


def _multipliers(data: HermiteData, report: IdentifiabilityReport) -> NetworkCondition:
    name, sentence = "multipliers", "lambda_i >= 0: b_i f(x_i) > 0 for every sample"
    found = report.recovery
    if found is None:
        return NetworkCondition(
            RECONSTRUCTION, name, sentence, None, detail="no samples were recovered"
        )
    signs = found.coefficients * data.network.value(found.samples)
    count = int(np.count_nonzero(signs > 0.0))
    return NetworkCondition(
        RECONSTRUCTION,
        name,
        sentence,
        count == len(signs),
        count,
        len(signs),
        "recovered samples on their side of the margin",
    )


def _interpolation(theorem: str, report: IdentifiabilityReport) -> list[NetworkCondition]:
    rows = []
    for name, sentence in (
        ("I-hermite", "the values and gradients at the neurons determine every tensor on V"),
        ("I-flat", "the powers alpha - 1 of the neurons span; sufficient for I-hermite"),
        ("I-value", "the powers alpha of the neurons span; sufficient for I-flat"),
    ):
        found = _row(report, name)
        rows.append(
            NetworkCondition(
                theorem,
                name,
                sentence,
                None if found is None else found.holds,
                None if found is None else _size(found.found),
                None if found is None else _size(found.required),
                "rank on V" if found is not None else NOT_REACHED,
                counts=name == "I-hermite",
            )
        )
    return rows


def _whole_space(report: IdentifiabilityReport) -> NetworkCondition:
    return NetworkCondition(
        RECONSTRUCTION,
        "whole space",
        "V is the whole input space; otherwise T is determined on V alone",
        report.spans_input_space,
        _size(report.problem["span_dimension"]),
        _size(report.problem["dimension"]),
        "dimension of V",
        counts=False,
    )


def _independent(
    theorem: str, data: HermiteData, report: IdentifiabilityReport
) -> NetworkCondition:
    """Independence of the recovered samples, against their error bounds."""

    def made(
        holds: bool | None, words: str, value: float | None = None, limit: float | None = None
    ) -> NetworkCondition:
        sentence = "the samples are linearly independent"
        return NetworkCondition(theorem, "independence", sentence, holds, value, limit, words)

    found = report.recovery
    if found is None:
        rows = [_row(report, name) for name in ("I-hermite", "decomposition")]
        settled = [row.holds for row in rows if row is not None]
        if report.spans_input_space and settled == [True, False]:
            return made(False, "V is the whole space, T no sum of r independent terms")
        return made(None, "no samples were recovered")
    rows_of_unit = data.network.lift(found.samples)
    rows_of_unit = rows_of_unit / np.linalg.norm(rows_of_unit, axis=1, keepdims=True)
    smallest = float(np.linalg.svd(rows_of_unit, compute_uv=False)[-1])
    # Rows that move by their error bounds move a singular value by at most the norm of all moves.
    lengths = np.linalg.norm(data.network.lift(found.samples), axis=1)
    moved = float(np.linalg.norm(found.absolute_bounds / lengths))
    if not math.isfinite(moved):
        return made(None, "recovered samples without error bounds", smallest)
    words = "smallest singular value at norm 1, over its error"
    return made(True if smallest > moved else None, words, smallest, moved)


def _norms(data: HermiteData, report: IdentifiabilityReport) -> NetworkCondition:
    name, sentence = "unit norms", "|x_i| = 1"
    found = report.recovery
    free = "a convention: (c x_i, c^-alpha b_i) gives the same weights"

    def made(
        holds: bool | None, words: str, value: float | None = None, limit: float | None = None
    ) -> NetworkCondition:
        return NetworkCondition(
            RECONSTRUCTION, name, sentence, holds, value, limit, words, counts=False
        )

    if found is None or not np.all(np.isfinite(found.absolute_bounds)):
        return made(None, "no samples with error bounds" if data.has_bias else free)
    if data.has_bias:
        lengths = np.linalg.norm(found.samples, axis=1)
        gap = float(np.max(np.abs(lengths - 1.0)))
        allowed = float(np.max(found.absolute_bounds))
        return made(gap <= allowed, "the hidden bias fixes the norms", gap, allowed)
    count = len(found.samples)
    unit = found.samples / np.linalg.norm(found.samples, axis=1, keepdims=True)
    blank, bounds = np.zeros((count, 1, 1)), found.error_bounds
    tie = check_ties(
        data,
        Samples(unit, found.coefficients, blank, np.ones(count), True, np.zeros(count)),
        ErrorBounds(bounds, bounds, bounds, bounds, 0.0, ""),
        "unit",
        report.noise_level,
    )
    if tie is None or data.source != "kkt":
        return made(None, free)
    words = "unequal margins at norm 1" if not tie.holds else "equal margins at norm 1"
    return made(tie.holds, words, tie.spread, tie.tolerance)


def _decomposition(report: IdentifiabilityReport) -> NetworkCondition:
    found = _row(report, "decomposition")
    sentence = "T on V is a sum of r terms"
    if found is None or found.holds is None:
        return NetworkCondition(UNIQUENESS, "decomposition", sentence, None, detail=NOT_REACHED)
    return NetworkCondition(
        UNIQUENESS,
        "decomposition",
        sentence,
        found.holds,
        _size(found.found),
        _size(found.required),
        "residual of the refined terms",
    )


def _redundancy(report: IdentifiabilityReport) -> NetworkCondition:
    found = _row(report, "redundancy")
    holds, words = None, NOT_REACHED
    if found is not None:
        holds, words = found.holds, "without it r itself is open"
        if report.verdict is Verdict.GLOBALLY and not holds:
            holds, words = True, "rows of rank 1 take its place"
    return NetworkCondition(
        UNIQUENESS,
        "redundancy",
        "equations beyond the r^2 unknowns, which speak for r itself",
        holds,
        report.redundant_equations,
        1,
        words,
        counts=False,
    )
