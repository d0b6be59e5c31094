"""Gradient reports with their files, and changes that a forger makes."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from identify.assess_batch import assess_gradient
from identify.checker.check import check_report
from identify.checker.outcome import CheckResult
from identify.model.deep import DeepGradient, DeepNetwork
from identify.report.report import digest
from tests.identify.disaggregation.problems import change, initialise, plant


@dataclass(frozen=True, eq=False)
class Reported:
    """A report as plain data, its network and gradient, and the files of both."""

    report: dict[str, Any]
    network: DeepNetwork
    gradient: DeepGradient
    model_file: Path
    gradient_file: Path

    def check(self, report: object = None, **options: Any) -> CheckResult:
        """Check this report, or another one, against the files."""
        files = {"model": self.model_file, "gradient": self.gradient_file} | options
        content = self.report if report is None else report
        return check_report(content, files.pop("model"), **files)

    def changed(self) -> dict[str, Any]:
        """A copy to change."""
        return copy.deepcopy(self.report)


def save(path: Path, part: DeepNetwork | DeepGradient) -> Path:
    """Write the arrays under names as torch gives them."""
    arrays = {}
    for index, (weight, bias) in enumerate(zip(part.weights, part.biases, strict=True)):
        for name, array in (("weight", weight), ("bias", bias)):
            if array is not None:
                arrays[f"net.{2 * index}.{name}"] = array
    np.savez(path, **arrays)
    return path


def make(folder: Path, network: DeepNetwork, gradient: DeepGradient, loss: str | None = None,
         **options: Any) -> Reported:  # fmt: skip
    """The report of the verifier and the files."""
    report = assess_gradient(network, gradient, loss, **options)
    folder.mkdir(parents=True, exist_ok=True)
    return Reported(
        json.loads(report.to_json()), network, gradient,
        save(folder / "model.npz", network), save(folder / "gradient.npz", gradient),
    )  # fmt: skip


def float32(gradient: DeepGradient) -> DeepGradient:
    """The gradient as a client sends it."""
    return change(gradient, lambda x: x.astype(np.float32).astype(np.float64))


KINDS: dict[str, tuple[list[int], int, str, str | None]] = {
    "one output, one hidden layer": ([12, 70, 1], 4, "relu", "logistic"),
    "ten outputs, two hidden layers": ([16, 24, 150, 10], 4, "relu", "cross_entropy"),
    "three hidden layers": ([14, 20, 20, 60, 3], 3, "relu", "cross_entropy"),
    "leaky, the loss unknown": ([12, 18, 110, 2], 4, "leaky_relu:0.1", None),
    "degree 3": ([16, 20, 24, 4], 5, "relu", "cross_entropy"),
    "degree 3, leaky": ([14, 21, 2], 5, "leaky_relu:0.1", None),
}


def planted(kind: str, folder: Path, seed: int = 5) -> Reported:
    """A float32 gradient of one of the `KINDS`."""
    sizes, count, activation, loss = KINDS[kind]
    problem = plant(sizes, count, seed, activation)
    return make(folder, problem.network, float32(problem.gradient), loss)


def few_neurons(folder: Path) -> Reported:
    """A report that rests on the complete list of masks: 10 samples, 28 neurons."""
    problem = plant([16, 28, 1], 10, 2)
    return make(folder, problem.network, problem.gradient, "logistic")


def signed(report: dict[str, Any]) -> dict[str, Any]:
    """The report with a digest that fits, as every forger makes it."""
    report["certificate"]["digest"] = digest(report)
    return report


def other_network(seed: int, like: DeepNetwork) -> DeepNetwork:
    """A network of the same sizes."""
    sizes = [like.dimension, *like.widths, like.outputs]
    return initialise(sizes, np.random.default_rng(seed), str(like.activations[0]))


def as_read(report: dict[str, Any], role: str, sha256: str) -> None:
    """Put another hash into the report."""
    for entry in report["inputs"]:
        if entry["role"] == role:
            entry["sha256"] = sha256


def flip(text: str, bit: int) -> str:
    """A mask with one neuron changed."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    bits[bit] ^= 1
    return np.packbits(bits).tobytes().hex()
