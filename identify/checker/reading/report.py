"""Read an untrusted report: structure, types and shapes, for the checker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..outcome import CheckInputError, FloatArray, IntArray
from .fields import (
    LARGEST_INTEGER,
    as_boolean,
    as_integers,
    as_list,
    as_matrix,
    as_number,
    as_numbers,
    as_table,
    as_text,
    as_whole,
    check_plain,
    get_field,
    load_json,
    maybe_number,
    maybe_whole,
    one_of,
)
from .types import check_types

SOURCES = ("kkt", "weight-decay", "gradient", "fine-tuning")
VERDICTS = ("globally", "locally", "nonidentifiable", "undecided")
MAX_PRECISION = 848
COMPLETE = 2
"""The format from which on the conditions list all that decides."""
ARITHMETIC = ("auto", "exact", "float64", "float32", "float16", "bfloat16")
EVIDENCE = ("proved_exact", "proved_interval", "numerical")


@dataclass(frozen=True)
class Row:
    """One condition of the report; reports of earlier versions do not say what is needed."""

    name: str
    holds: bool | None
    required: float | None
    found: float | None
    evidence: str
    needed: bool | None = None


@dataclass(frozen=True)
class Assumed:
    """What the caller took for granted."""

    samples: int | None
    scale: str
    non_negative: bool
    noise: float | None
    loss: str | None
    decay: float | None
    arithmetic: str | None
    point: str | None
    gradient_decay: float | None = None


@dataclass(frozen=True, eq=False)
class Enclosure:
    """The box of a Krawczyk test: `centres`, `radii` (r, r), `pivots` (r r,) indices j r + axis."""

    precision: int
    radius: float
    pivots: IntArray
    centres: FloatArray
    radii: FloatArray
    relative: FloatArray
    conditions: FloatArray


@dataclass(frozen=True, eq=False)
class ShownSet:
    """A training set that the report shows."""

    samples: FloatArray
    coefficients: FloatArray
    residual: float


@dataclass(frozen=True, eq=False)
class Certificate:
    """The certificate, with consistent shapes; parts that the report lacks are None."""

    assumed: Assumed
    basis: FloatArray | None
    neurons: IntArray | None
    shift: int | None
    points: IntArray | None
    rank: tuple[int, int, int] | None
    singular: tuple[float, int, float] | None
    terms: FloatArray | None
    signs: FloatArray | None
    enclosure: Enclosure | None
    sets: tuple[ShownSet, ...] | None
    digest: str
    format: int


@dataclass(frozen=True, eq=False)
class Report:
    """The fields of a report that make a claim; `raw` is all of it."""

    raw: Mapping[str, Any]
    verdict: str
    scope: tuple[str, tuple[int, ...]] | None
    spans: bool | None
    sample_count: int | None
    evidence: str
    rows: tuple[Row, ...]
    residuals: Mapping[str, tuple[float | None, int]]
    redundant: int | None
    bounds: tuple[float | None, ...] | None
    absolute: tuple[float | None, ...] | None
    allowed: float | None
    assumptions: tuple[str, ...]
    noise: float | None
    source: str
    degree: int
    width: int
    dimension: int
    span: int | None
    unknowns: int | None
    rank: int | None
    inputs: Mapping[str, str]
    certificate: Certificate | None

    def row(self, name: str) -> Row | None:
        """The condition of that name, or None."""
        return next((row for row in self.rows if row.name == name), None)

    def digest(self) -> str:
        """Hash the report without times, versions and the digest itself."""
        content = {k: v for k, v in self.raw.items() if k not in ("seconds", "versions")}
        content["certificate"] = {k: v for k, v in self.raw["certificate"].items() if k != "digest"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def read_report(report: object, time_limit: float | None = None) -> Report:
    """Read a report from a path or from plain data.

    Raises:
        CheckInputError: no JSON object, numbers that are not finite, missing fields, wrong types,
            shapes that do not fit together.
    """
    if isinstance(report, str | Path):
        report = load_json(Path(report), time_limit)
    check_plain(report)
    raw = as_table(report, "report")
    check_types(raw)
    problem = as_table(get_field(raw, "problem"), "problem")
    certificate = get_field(raw, "certificate")
    return Report(
        raw=raw,
        verdict=one_of(get_field(raw, "verdict"), "verdict", VERDICTS),
        scope=_scope(get_field(raw, "scope")),
        spans=as_boolean(get_field(raw, "spans_input_space"), "spans_input_space", optional=True),
        sample_count=maybe_whole(get_field(raw, "sample_count"), "sample_count"),
        evidence=one_of(get_field(raw, "evidence"), "evidence", EVIDENCE),
        rows=tuple(_row(row) for row in as_list(get_field(raw, "conditions"), "conditions")),
        residuals=_residuals(as_table(get_field(raw, "residuals"), "residuals")),
        redundant=maybe_whole(
            get_field(raw, "redundant_equations"), "redundant_equations", -LARGEST_INTEGER
        ),
        bounds=_bounds(get_field(raw, "error_bounds"), "error_bounds"),
        absolute=_bounds(raw.get("absolute_bounds"), "absolute_bounds"),
        allowed=maybe_number(raw.get("data_error"), "data_error", low=0.0),
        assumptions=_lines(get_field(raw, "assumptions"), "assumptions"),
        noise=maybe_number(get_field(raw, "noise_level"), "noise_level", low=0.0),
        source=one_of(get_field(problem, "source"), "problem.source", SOURCES),
        degree=as_whole(get_field(problem, "degree"), "problem.degree", 3, 1000),
        width=as_whole(get_field(problem, "width"), "problem.width", 1),
        dimension=as_whole(get_field(problem, "dimension"), "problem.dimension", 1),
        span=maybe_whole(problem.get("span_dimension"), "problem.span_dimension"),
        unknowns=maybe_whole(problem.get("unknowns"), "problem.unknowns"),
        rank=maybe_whole(problem.get("rank"), "problem.rank"),
        inputs=_inputs(get_field(raw, "inputs")),
        certificate=None if certificate is None
        else _certificate(as_table(certificate, "certificate")),
    )  # fmt: skip


def _lines(value: object, where: str) -> tuple[str, ...]:
    return tuple(as_text(line, where) for line in as_list(value, where))


def _scope(value: object) -> tuple[str, tuple[int, ...]] | None:
    if value is None:
        return None
    table = as_table(value, "scope")
    kind = one_of(get_field(table, "kind"), "scope.kind", ("at_most", "exactly", "shown"))
    counts = get_field(table, "samples")
    if kind != "shown":
        return kind, (as_whole(counts, "scope.samples", 1),)
    first, second = as_list(counts, "scope.samples", 2)
    return kind, (as_whole(first, "scope.samples", 1), as_whole(second, "scope.samples", 1))


def _row(value: object) -> Row:
    table = as_table(value, "conditions")
    numbers: list[float | None] = []
    for key in ("required", "found"):
        entry = get_field(table, key)
        numbers.append(maybe_number(entry, f"conditions.{key}"))
    return Row(
        as_text(get_field(table, "name"), "conditions.name"),
        as_boolean(get_field(table, "holds"), "conditions.holds", optional=True),
        numbers[0],
        numbers[1],
        one_of(get_field(table, "evidence"), "conditions.evidence", EVIDENCE),
        as_boolean(table.get("needed"), "conditions.needed", optional=True),
    )


def _residuals(table: Mapping[str, Any]) -> dict[str, tuple[float | None, int]]:
    result = {}
    for name in ("balance", "off_span", "linear", "samples"):
        entry = as_table(get_field(table, name), f"residuals.{name}")
        value = maybe_number(get_field(entry, "value"), f"residuals.{name}.value", low=0.0)
        count = as_whole(get_field(entry, "equations"), f"residuals.{name}.equations")
        result[name] = (value, count)
    return result


def _bounds(value: object, where: str) -> tuple[float | None, ...] | None:
    if value is None:
        return None
    return tuple(maybe_number(b, where, low=0.0) for b in as_list(value, where))


def _inputs(value: object) -> dict[str, str]:
    result = {}
    for entry in as_list(value, "inputs"):
        table = as_table(entry, "inputs")
        role = one_of(get_field(table, "role"), "inputs.role", ("model", "gradient", "initial"))
        if role in result:
            raise CheckInputError("inputs", "every role once", f"{role} twice")
        result[role] = as_text(get_field(table, "sha256"), "inputs.sha256")
    return result


def _certificate(table: dict[str, Any]) -> Certificate:
    basis = points = neurons = shift = None
    r = None
    if get_field(table, "basis"):
        basis = as_matrix(table["basis"], "certificate.basis", None, None)
        r = basis.shape[1]
        neurons = as_integers(get_field(table, "neurons"), "certificate.neurons")
        # The points have to fit in a float64 exactly.
        shift = as_whole(get_field(table, "shift"), "certificate.shift", 8, 51)
        lines = as_list(get_field(table, "points"), "certificate.points", len(neurons))
        if r < 1 or not lines:
            raise CheckInputError("certificate.points", "at least one", "none")
        points = np.array([as_integers(line, "certificate.points", r) for line in lines])
    rank, singular = get_field(table, "rank"), get_field(table, "singular_value")
    terms, enclosure = get_field(table, "terms"), get_field(table, "enclosure")
    if r is None and not rank is singular is terms is enclosure is None:
        raise CheckInputError("certificate", "a basis for what is proved", "none")
    sets = get_field(table, "sets")
    values = signs = None
    if terms is not None:
        terms = as_table(terms, "certificate.terms")
        values = as_matrix(get_field(terms, "values"), "certificate.terms.values", r, r)
        signs = as_numbers(get_field(terms, "signs"), "certificate.terms.signs", r)
        if not set(signs.tolist()) <= {-1.0, 1.0}:
            raise CheckInputError("certificate.terms.signs", "1 or -1", "another number")
    return Certificate(
        assumed=_assumed(as_table(get_field(table, "assumed"), "certificate.assumed")),
        basis=basis,
        neurons=neurons,
        shift=shift,
        points=points,
        rank=None if rank is None else _rank(as_table(rank, "certificate.rank")),
        singular=None if singular is None
        else _singular(as_table(singular, "certificate.singular_value")),
        terms=values,
        signs=signs,
        enclosure=None if enclosure is None
        else _enclosure(as_table(enclosure, "certificate.enclosure"), r or 0),
        sets=None if not sets else tuple(_set(s) for s in as_list(sets, "certificate.sets", 2)),
        digest=as_text(get_field(table, "digest"), "certificate.digest"),
        format=as_whole(get_field(table, "format"), "certificate.format", 1, COMPLETE),
    )  # fmt: skip


def _assumed(table: dict[str, Any]) -> Assumed:
    where = "certificate.assumed"
    loss = get_field(table, "loss")
    noise = maybe_number(get_field(table, "noise"), f"{where}.noise")
    decay = maybe_number(get_field(table, "decay"), f"{where}.decay")
    if noise is not None and not 0.0 < noise < 1.0:
        raise CheckInputError(f"{where}.noise", "a number in (0, 1)", noise)
    if decay is not None and not decay > 0.0:
        raise CheckInputError(f"{where}.decay", "a positive number", decay)
    shift = maybe_number(table.get("gradient_decay"), f"{where}.gradient_decay", low=0.0)
    losses = ("logistic", "squared", "cross-entropy")
    scales = ("free", "unit", "margin", "bias")
    # Reports of earlier versions name neither.
    kind, point = table.get("arithmetic"), table.get("point")
    return Assumed(
        samples=maybe_whole(get_field(table, "samples"), f"{where}.samples", 1),
        scale=one_of(get_field(table, "scale"), f"{where}.scale", scales),
        non_negative=bool(as_boolean(get_field(table, "non_negative"), f"{where}.non_negative")),
        noise=noise,
        loss=None if loss is None else one_of(loss, f"{where}.loss", losses),
        gradient_decay=shift,
        decay=decay,
        arithmetic=None if kind is None else one_of(kind, f"{where}.arithmetic", ARITHMETIC),
        point=None if point is None else one_of(point, f"{where}.point", ("midpoint", "initial")),
    )


def _rank(table: dict[str, Any]) -> tuple[int, int, int]:
    prime = as_whole(get_field(table, "prime"), "certificate.rank.prime", 2, 2**63)
    count = as_whole(get_field(table, "neurons"), "certificate.rank.neurons", 1)
    return prime, count, as_whole(get_field(table, "unknowns"), "certificate.rank.unknowns", 1)


def _singular(table: dict[str, Any]) -> tuple[float, int, float]:
    where = "certificate.singular_value"
    bound = as_number(get_field(table, "bound"), f"{where}.bound")
    count = as_whole(get_field(table, "neurons"), f"{where}.neurons", 1)
    return bound, count, as_number(get_field(table, "radius"), f"{where}.radius")


def _enclosure(table: dict[str, Any], r: int) -> Enclosure:
    where = "certificate.enclosure"
    return Enclosure(
        precision=as_whole(get_field(table, "precision"), f"{where}.precision", 53, MAX_PRECISION),
        radius=as_number(get_field(table, "radius"), f"{where}.radius"),
        pivots=as_integers(get_field(table, "pivots"), f"{where}.pivots", r * r),
        centres=as_matrix(get_field(table, "centres"), f"{where}.centres", r, r),
        radii=as_matrix(get_field(table, "radii"), f"{where}.radii", r, r),
        relative=as_numbers(get_field(table, "relative"), f"{where}.relative", r),
        conditions=as_numbers(get_field(table, "conditions"), f"{where}.conditions", r),
    )


def _set(value: object) -> ShownSet:
    table = as_table(value, "certificate.sets")
    samples = as_matrix(get_field(table, "samples"), "certificate.sets.samples", None, None)
    coefficients = as_numbers(
        get_field(table, "coefficients"), "certificate.sets.coefficients", len(samples)
    )
    return ShownSet(
        samples,
        coefficients,
        as_number(get_field(table, "residual"), "certificate.sets.residual", low=0.0),
    )
