"""Reports on one gradient of a ReLU network: types of every field, and the certificate."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..outcome import BoolArray, CheckInputError, FloatArray, IntArray
from ..reading.fields import (
    as_boolean,
    as_integers,
    as_list,
    as_matrix,
    as_numbers,
    as_table,
    as_text,
    check_plain,
    load_json,
)
from ..reading.types import Kind, choice, either, listed, maybe, real, table, whole

KIND = "gradient"
COMPLETE = 2
INPUT, FEATURES = "input", "features before the first layer"
_HEX = re.compile("([0-9a-f]{2})+")


def _hash(value: object, where: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", as_text(value, where)):
        raise CheckInputError(where, "64 hexadecimal digits", repr(value)[:80])


def _bits(value: object, where: str) -> None:
    if not _HEX.fullmatch(as_text(value, where)):
        raise CheckInputError(where, "bytes as hexadecimal digits", repr(value)[:80])


def _sentence(value: object, where: str) -> None:
    if not as_text(value, where):
        raise CheckInputError(where, "a sentence", "an empty text")


def _versions(value: object, where: str) -> None:
    for name, version in as_table(value, where).items():
        as_text(version, f"{where}.{name}")


def _flag(value: object, where: str) -> None:
    as_boolean(value, where)


def _numbers(value: object, where: str) -> None:
    as_numbers(value, where)


_NUMBERS = maybe(listed(maybe(real())))
_RANK = {"layer": whole(1), "rank": whole(0), "gap": maybe(real()), "noise": maybe(real()),
         "relative_noise": maybe(real()), "clear": _flag}  # fmt: skip
_KERNEL = {"unknowns": whole(0), "rows": whole(0), "rows_needed": whole(),
           "largest_kernel": maybe(real()), "smallest_other": maybe(real()),
           "gap": maybe(real())}  # fmt: skip
# Fields that came later, and are missing in older reports.
_LATER_KERNEL = {"degree": choice(2, 3)}
_CHECK = {"name": as_text, "holds": maybe(_flag), "value": maybe(real()), "limit": maybe(real()),
          "equations": whole(0), "note": as_text}  # fmt: skip
_PROOF = {"holds": maybe(_flag), "rank": whole(0), "required": whole(0), "prime": maybe(whole()),
          "method": as_text}  # fmt: skip
_DATA = {"holds": _flag, "error": maybe(real()), "eta": maybe(real()), "sigma": maybe(real()),
         "open": whole(0)}  # fmt: skip
_PROBLEM = {"sizes": listed(whole(1), 2), "activations": listed(as_text),
            "biases": listed(_flag), "gradients": listed(_flag),
            "loss": maybe(choice("cross_entropy", "logistic", "squared")),
            "reduction": maybe(choice("mean", "sum")), "samples": maybe(whole(1))}  # fmt: skip
_LATER_PROBLEM = {"weight_decay": maybe(real(0.0)), "head": _flag}
_EXCLUDED = {"mask": _bits, "neurons": listed(whole(0)), "multipliers": listed(real(0.0))}
_CERTIFICATE = {"format": choice(1, 2), "samples": maybe(listed(_numbers)),
                "cotangents": maybe(listed(_numbers)), "masks": listed(maybe(listed(_bits))),
                "pivots": maybe(listed(whole(0))), "excluded": maybe(listed(table(_EXCLUDED))),
                "digest": _hash}  # fmt: skip
_SEARCH = {"found": whole(0), "missing": whole(0), "starts": whole(0), "steps": whole(0),
           "others": whole(0), "coverage_starts": whole(0), "coverage_share": maybe(real(0.0)),
           "least_hits": maybe(whole(0)), "null_starts": whole(0), "null_hits": whole(0),
           "residuals": listed(real(0.0)), "tolerances": listed(real(0.0)),
           "conditions": listed(real(0.0)), "stopped": maybe(as_text)}  # fmt: skip
_SCOPE = either(
    table({"kind": choice("shown"), "samples": listed(whole(1), 2, 2)}),
    table({"kind": choice("at_most", "exactly"), "samples": whole(1)}),
)
_SHOWN = {"samples": listed(_numbers), "cotangents": listed(_numbers),
          "error_bounds": listed(real(0.0)), "residual": real(0.0),
          "margin": real(0.0)}  # fmt: skip
_VERDICT = choice("globally", "locally", "nonidentifiable", "undecided")
_TRIAL = {"noise": real(0.0), "verdict": _VERDICT, "candidates": _flag,
          "samples": whole(0)}  # fmt: skip
_NOISE = {"decided_up_to": real(0.0), "undecided_from": maybe(real(0.0)),
          "stopped": maybe(as_text), "trials": listed(table(_TRIAL))}  # fmt: skip
_FIELDS: dict[str, Kind] = {
    "schema_version": choice(1),
    "kind": choice(KIND),
    "verdict": _VERDICT,
    "reason": _sentence,
    "scope": maybe(_SCOPE),
    "candidates": _flag,
    "covered": _flag,
    "interrupted": _flag,
    "rank": whole(0),
    "sample_count": maybe(whole(1)),
    "samples_of": maybe(as_text),
    "scaled": maybe(_flag),
    "labels": maybe(listed(whole())),
    "label_confidence": _NUMBERS,
    "counts": _NUMBERS,
    "error_bounds": _NUMBERS,
    "ranks": listed(table(_RANK)),
    "method": choice("kernel", "masks", "search", "none"),
    "kernel": maybe(table(_KERNEL, _LATER_KERNEL)),
    "power": maybe(whole()),
    "smallest_visible_slope": maybe(real()),
    "checks": listed(table(_CHECK)),
    "proof": maybe(table(_PROOF)),
    "data_statement": maybe(table(_DATA)),
    "assumptions": listed(as_text),
    "caveats": listed(as_text),
    "problem": table(_PROBLEM, _LATER_PROBLEM),
    "inputs": listed(table({"role": choice("network", "gradient"), "sha256": _hash})),
    "seed": whole(0),
    "versions": _versions,
    "seconds": real(0.0),
}
_LATER: dict[str, Kind] = {
    "certificate": table(_CERTIFICATE),
    "single_rows": maybe(whole(1)),
    "completed": listed(whole(1)),
    "search": maybe(table(_SEARCH)),
    "alternatives": listed(table(_SHOWN), 0, 2),
    "what_if_noise": maybe(table(_NOISE)),
}
_TYPES = table(_FIELDS, _LATER)


@dataclass(frozen=True, eq=False)
class Answer:
    """The recovered samples as the certificate has them.

    ``samples`` (n, k) enter linear layer ``layer``; ``cotangents`` p (n, C); ``masks`` (n, m_l) of
    the hidden layers from there upwards, None for a smooth activation.
    """

    layer: int
    scaled: bool
    samples: FloatArray
    cotangents: FloatArray
    masks: tuple[BoolArray | None, ...]


@dataclass(frozen=True, eq=False)
class Exclusion:
    """A mask (m,) that no sample has, with multipliers (m,) of its signs."""

    mask: BoolArray
    multipliers: FloatArray


@dataclass(frozen=True, eq=False)
class Shown:
    """One of two batches: samples (n, d), slopes (n, C), bounds (n,), residual, margin."""

    samples: FloatArray
    cotangents: FloatArray
    error_bounds: FloatArray
    residual: float
    margin: float


@dataclass(frozen=True, eq=False)
class DeepReport:
    """A report whose fields have the types of the schema; ``answer`` is None where it has none."""

    raw: Mapping[str, Any]
    answer: Answer | None
    pivots: IntArray | None
    excluded: tuple[Exclusion, ...]
    shown: tuple[Shown, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether there is a certificate: reports of earlier versions have none."""
        return "certificate" in self.raw

    @property
    def complete(self) -> bool:
        """Whether the report promises every check and statement; that is format 2."""
        return self.certified and self.raw["certificate"]["format"] >= COMPLETE

    @property
    def globally(self) -> bool:
        """Whether the report claims that its samples are the only ones."""
        return bool(self.raw["verdict"] == "globally")

    @property
    def locally(self) -> bool:
        """Whether the report claims that no other batch near its samples has the gradient."""
        return bool(self.raw["verdict"] == "locally")

    @property
    def nonidentifiable(self) -> bool:
        """Whether the report claims that two different batches have the gradient."""
        return bool(self.raw["verdict"] == "nonidentifiable")

    @property
    def searched(self) -> bool:
        """Whether the samples come from a search."""
        return bool(self.raw["method"] == "search")

    @property
    def sizes(self) -> list[int]:
        """Input, hidden layers, outputs."""
        return list(self.raw["problem"]["sizes"])

    @property
    def loss(self) -> str | None:
        """The loss that was assumed."""
        value = self.raw["problem"]["loss"]
        return None if value is None else str(value)

    @property
    def decay(self) -> float | None:
        """The weight decay that was subtracted from the gradient."""
        value = self.raw["problem"].get("weight_decay")
        return None if value is None else float(value)

    @property
    def head(self) -> bool:
        """Whether other layers come before the network."""
        return bool(self.raw["problem"].get("head"))

    def check(self, name: str) -> Mapping[str, Any] | None:
        """The stated check of that name, or None."""
        return next((check for check in self.raw["checks"] if check["name"] == name), None)

    def digest(self) -> str:
        """Hash the report without times, versions and the digest itself."""
        content = {k: v for k, v in self.raw.items() if k not in ("seconds", "versions")}
        content["certificate"] = {k: v for k, v in self.raw["certificate"].items() if k != "digest"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def is_deep(report: object) -> bool:
    """Whether plain data are a report on one gradient of a network of any depth."""
    return isinstance(report, dict) and report.get("kind") == KIND


def load_report(report: object, time_limit: float | None) -> object:
    """Plain data of a report; a path is read."""
    return load_json(Path(report), time_limit) if isinstance(report, str | Path) else report


def read_deep_report(report: object) -> DeepReport:
    """Read a report from plain data.

    Raises CheckInputError for fields that are missing, unknown or of another type, and for shapes
    that do not fit together.
    """
    check_plain(report)
    raw = as_table(report, "report")
    _TYPES(raw, "")
    problem = raw["problem"]
    depth = len(problem["sizes"]) - 1
    for name, length in (("activations", depth - 1), ("biases", depth), ("gradients", depth)):
        as_list(problem[name], f"problem.{name}", length)
    roles = sorted(entry["role"] for entry in raw["inputs"])
    if roles != ["gradient", "network"]:
        raise CheckInputError("inputs", "the network and the gradient", ", ".join(roles))
    facts = raw.get("search")
    if (facts is not None) != (raw["method"] == "search"):
        raise CheckInputError("search", "there for the method search, and only then", "another")
    if facts is not None:
        for name in ("residuals", "tolerances", "conditions"):
            as_list(facts[name], f"search.{name}", facts["found"])
    shown = tuple(_read_shown(entry, problem["sizes"]) for entry in raw.get("alternatives", []))
    if "certificate" not in raw:
        return DeepReport(raw, None, None, (), shown)
    certificate = raw["certificate"]
    width = problem["sizes"][-2]
    pivots = certificate["pivots"]
    excluded = [
        Exclusion(
            _mask(entry["mask"], width, "certificate.excluded.mask"),
            _spread(entry["neurons"], entry["multipliers"], width),
        )
        for entry in certificate["excluded"] or []
    ]
    found = None if pivots is None else as_integers(pivots, "certificate.pivots")
    if found is not None and (len(set(pivots)) < len(pivots) or max(pivots, default=0) >= width):
        raise CheckInputError("certificate.pivots", "different neurons", "others")
    return DeepReport(raw, _answer(raw, certificate), found, tuple(excluded), shown)


def _read_shown(entry: Mapping[str, Any], sizes: list[int]) -> Shown:
    samples = as_matrix(entry["samples"], "alternatives.samples", None, sizes[0])
    cotangents = as_matrix(entry["cotangents"], "alternatives.cotangents", len(samples), sizes[-1])
    bounds = as_numbers(entry["error_bounds"], "alternatives.error_bounds", len(samples))
    return Shown(samples, cotangents, bounds, float(entry["residual"]), float(entry["margin"]))


def _answer(raw: Mapping[str, Any], certificate: Mapping[str, Any]) -> Answer | None:
    if certificate["samples"] is None or certificate["cotangents"] is None:
        return None
    sizes = raw["problem"]["sizes"]
    place = re.fullmatch(r"input of layer (\d{1,6})", raw["samples_of"] or "")
    first = FEATURES if raw["problem"].get("head") else INPUT
    layer = 0 if raw["samples_of"] == first else -1
    layer = layer if place is None else int(place.group(1)) - 1
    if not 0 <= layer <= len(sizes) - 3:
        raise CheckInputError("samples_of", "the input or that of a hidden layer", "another")
    samples = as_matrix(certificate["samples"], "certificate.samples", None, sizes[layer])
    cotangents = as_matrix(
        certificate["cotangents"], "certificate.cotangents", len(samples), sizes[-1]
    )
    lines = as_list(certificate["masks"], "certificate.masks")
    if raw["method"] == "search" and not lines:
        lines = [None] * (len(sizes) - 2 - layer)
    as_list(lines, "certificate.masks", len(sizes) - 2 - layer)
    masks = []
    for line, width in zip(lines, sizes[layer + 1 : -1], strict=True):
        if line is not None:
            as_list(line, "certificate.masks", len(samples))
            line = np.array([_mask(text, width, "certificate.masks") for text in line])
        masks.append(line)
    return Answer(layer, bool(raw["scaled"]), samples, cotangents, tuple(masks))


def _mask(text: str, width: int, where: str) -> BoolArray:
    if len(text) != 2 * math.ceil(width / 8):
        raise CheckInputError(where, f"{width} bits", f"{4 * len(text)}")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    return np.asarray(bits[:width] == 1)


def _spread(neurons: list[int], multipliers: list[float], width: int) -> FloatArray:
    where = "certificate.excluded"
    values = as_numbers(multipliers, where, len(neurons))
    if len(set(neurons)) < len(neurons) or max(neurons, default=0) >= width:
        raise CheckInputError(where, "different neurons", "others")
    result = np.zeros(width)
    result[neurons] = values
    return result
