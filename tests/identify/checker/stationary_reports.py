"""Reports on weights with their files, and changes that a forger makes."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import identify
from identify.checker.check import check_report
from identify.checker.outcome import CheckResult
from identify.model.deep import DeepNetwork
from identify.report.report import digest
from identify.report.stationary import StationaryReport
from tests.identify.checker.deep_reports import save
from tests.identify.disaggregation.stationary_families import Weights, centred, changed


@dataclass(frozen=True, eq=False)
class Reported:
    """A report as plain data, its network, and the network's file."""

    report: dict[str, Any]
    network: DeepNetwork
    model_file: Path

    def check(self, report: object = None, **options: Any) -> CheckResult:
        """Check this report, or another one, against the file."""
        content = self.report if report is None else report
        return check_report(content, options.pop("model", self.model_file), **options)

    def changed(self) -> dict[str, Any]:
        """A copy to change."""
        return copy.deepcopy(self.report)


def written(folder: Path, network: DeepNetwork, report: StationaryReport) -> Reported:
    """The report beside the file of its network."""
    folder.mkdir(parents=True, exist_ok=True)
    return Reported(json.loads(report.to_json()), network, save(folder / "model.npz", network))


def make(folder: Path, network: DeepNetwork, source: str = "kkt", **options: Any) -> Reported:
    """The verifier's report and the file."""
    return written(folder, network, identify.assess_stationary(network, source, **options))


def reported(folder: Path, weights: Weights, **options: Any) -> Reported:
    """The report on weights of the families."""
    options = dict(weights.options) | options
    return make(folder, weights.network, weights.source, trained=weights.trained, **options)


def float32(network: DeepNetwork) -> DeepNetwork:
    """The weights as a file of a trained network has them."""
    return changed(network, lambda w: w.astype(np.float32).astype(np.float64))


def two_outputs(network: DeepNetwork) -> DeepNetwork:
    """Two opposite outputs whose difference over the root of 2 is the one output."""
    u = network.weights[1]
    heads = np.concatenate([-u, u]) / np.sqrt(2.0)
    return DeepNetwork([network.weights[0], heads], [network.biases[0], None], "relu")


def _hidden(count: int, seed: int, kind: str = "margin") -> DeepNetwork:
    x = centred(np.random.default_rng(seed), count, count + 9)
    return identify.plant_relu_network(x, kind=kind, copies=3, seed=seed).network


def _both(count: int, size: int, seed: int) -> DeepNetwork:
    x = identify.equiangular_samples(count, size, count + 5, seed=seed)
    return identify.plant_relu_network(x, trained="both", seed=seed).network


KINDS = (
    "hidden trained", "hidden trained, weight decay", "4 samples, 10 patterns",
    "8 samples, 126 patterns", "float32", "two outputs",
)  # fmt: skip


def planted(kind: str, folder: Path, seed: int = 3) -> Reported:
    """A report "globally" of one of the `KINDS`."""
    if kind == "hidden trained":
        return make(folder, _hidden(5, seed), trained="hidden")
    if kind == "hidden trained, weight decay":
        network = _hidden(4, seed, "regression")
        return make(folder, network, "weight-decay", trained="hidden")
    if kind == "4 samples, 10 patterns":
        return make(folder, _both(4, 2, seed), trained="both")
    if kind == "8 samples, 126 patterns":
        return make(folder, _both(8, 4, seed), "weight-decay", trained="both")
    if kind == "float32":
        return make(folder, float32(_both(4, 2, seed)), trained="both")
    return make(folder, two_outputs(_both(4, 2, seed)), trained="both")


def signed(report: dict[str, Any]) -> dict[str, Any]:
    """The report with a digest that fits, as every forger makes it."""
    report["certificate"]["digest"] = digest(report)
    return report
