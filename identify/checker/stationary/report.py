"""Reports on the weights of two-layer ReLU networks: types, and the same report on a gradient.

At a stationary point the weights are one gradient of themselves, so that a report on them is one on
that gradient with three fields of checks more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..deep.report import CERTIFICATE, FIELDS, DeepReport, as_hash, build_report, digest_of
from ..outcome import CheckInputError
from ..reading.fields import as_boolean, as_list, as_numbers, as_table, as_text, check_plain
from ..reading.types import Kind, choice, listed, maybe, real, table, whole

KIND = "stationary"
KKT, WEIGHT_DECAY = "kkt", "weight_decay"
BOTH, HIDDEN = "both", "hidden"
BALANCE, KINKS, MARGINS = "balance of the layers", "samples off the kinks", "equal margins"
LAYERS = ("stationarity of the hidden layer", "stationarity of the output layer")
"""What the checks of the two layers' gradients are called here."""
_OWN = ("neuron_directions", "patterns_needed", "pattern_rank", "coefficients", "margins")


def _flag(value: object, where: str) -> None:
    as_boolean(value, where)


def _coefficients(value: object, where: str) -> None:
    rows = as_list(value, where)
    if rows and isinstance(rows[0], list):
        for row in rows:
            as_numbers(row, where, len(rows[0]))
    else:
        as_numbers(rows, where)


_SOURCE, _TRAINED = choice(KKT, WEIGHT_DECAY), choice(BOTH, HIDDEN)
_PROBLEM = {"sizes": listed(whole(1), 3, 3), "activations": listed(as_text, 1, 1),
            "biases": listed(_flag, 2, 2), "source": _SOURCE, "trained": _TRAINED,
            "loss": maybe(choice("cross_entropy", "logistic", "squared")),
            "samples": maybe(whole(1))}  # fmt: skip
_FIELDS: dict[str, Kind] = FIELDS | {
    "kind": choice(KIND),
    "verdict": choice("globally", "undecided"),
    "scope": maybe(table({"kind": choice("at_most"), "samples": whole(1)})),
    "method": choice("kernel", "masks", "none"),
    "problem": table(_PROBLEM),
    "inputs": listed(table({"role": choice("network"), "sha256": as_hash}), 1, 1),
    "neuron_directions": whole(0),
    "patterns_needed": whole(0),
    "pattern_rank": maybe(whole(0)),
    "coefficients": maybe(_coefficients),
    "margins": maybe(listed(real())),
}
_CERTIFICATE = CERTIFICATE | {"format": choice(1), "source": _SOURCE, "trained": _TRAINED}
_LATER: dict[str, Kind] = {"certificate": table(_CERTIFICATE), "completed": listed(whole(1))}
_TYPES = table(_FIELDS, _LATER)


@dataclass(frozen=True, eq=False)
class WeightsReport:
    """A report as it was written, and as one on the gradient that the weights are."""

    raw: Mapping[str, Any]
    deep: DeepReport

    @property
    def source(self) -> str:
        """What is taken for granted of the weights: a KKT point, or weight decay."""
        return str(self.raw["problem"]["source"])

    @property
    def both(self) -> bool:
        """Whether both layers were trained, and not the hidden one alone."""
        return bool(self.raw["problem"]["trained"] == BOTH)

    @property
    def margins(self) -> bool:
        """Whether the samples have to lie on one margin."""
        return self.source == KKT

    def check(self, name: str) -> Mapping[str, Any] | None:
        """The stated check of that name, or None."""
        return next((check for check in self.raw["checks"] if check["name"] == name), None)

    def digest(self) -> str:
        """Hash the report without times, versions and the digest itself."""
        return digest_of(self.raw)


def is_stationary(report: object) -> bool:
    """Whether plain data are a report on the weights of a two-layer ReLU network."""
    return isinstance(report, dict) and report.get("kind") == KIND


def read_stationary_report(report: object) -> WeightsReport:
    """Read a report from plain data.

    Raises CheckInputError for fields that are missing, unknown or of another type, for shapes that
    do not fit together, and for a report without a certificate.
    """
    check_plain(report)
    raw = as_table(report, "report")
    _TYPES(raw, "")
    if "certificate" not in raw:
        hint = "not checkable: no certificate, as in reports of earlier versions"
        raise CheckInputError("report", "a certificate", "none", hint)
    return WeightsReport(raw, build_report(_as_gradient(raw)))


def _as_gradient(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The report in the words of one on a gradient; checks that those do not have are left out."""
    problem = raw["problem"]
    kkt = problem["source"] == KKT
    sizes = problem["sizes"]
    if kkt:
        # Margins are those of one output.
        sizes = [*sizes[:2], 1]
    names = {name: f"gradient of layer {k}" for k, name in enumerate(LAYERS, 1)}
    checks = [
        check | {"name": names.get(check["name"], check["name"])}
        for check in raw["checks"]
        if check["name"] not in (BALANCE, KINKS, MARGINS)
    ]
    kept = {name: value for name, value in raw.items() if name not in _OWN}
    return kept | {
        "checks": checks,
        "problem": {
            "sizes": sizes,
            "activations": problem["activations"],
            "biases": problem["biases"],
            "gradients": [True, problem["trained"] == BOTH],
            "loss": None if kkt else problem["loss"],
            "reduction": None,
            "samples": problem["samples"],
        },
        "certificate": raw["certificate"] | {"format": 2},
    }
