"""Trained networks and what they say: the share of `nonidentifiable`, each shown pair judged.

    KKTCERT_DATA=folder python -m tests.benchmarks.trained_verdicts [--count 140] [--first 0]

Networks of degree 3, 4 and 5 trained with weight decay until nothing moves any more, with the
squared and the logistic loss, from several widths, on n digits of MNIST or, without KKTCERT_DATA,
on n random directions. Every second network sees but 2 to 6 principal components of them, so that
most have more samples than inputs. A shown pair is judged by the formulas themselves and by the
checker. It is *false* if one of them finds a fault, or if the samples are as few as the span's
dimension and redundant equations speak for them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize
from scipy.special import expit

from identify import HermiteData, IdentifiabilityReport, TwoLayerNetwork, assess_identifiability
from identify.arrays import FloatArray
from identify.checker.check import check_report
from identify.model.loading import save_network
from tests.benchmarks.splitting_table import markdown
from tests.identify.new_judge import merged_truth, pair_faults
from tests.identify.new_problems import Problem

DEGREES, LOSSES, WIDTHS = (3, 4, 5), ("squared", "logistic"), (12, 30, 60)
RANDOM_DIMENSION = 30
DEAD, STATIONARY, ATTEMPTS = 1e-3, 1e-12, 40


@dataclass(frozen=True)
class Setting:
    """What is trained: n samples, width m at the start, decay of both layers."""

    degree: int
    loss: str
    width: int
    samples: int
    decay: float


@dataclass(frozen=True, eq=False)
class Trained:
    """A stationary network of the live neurons, and the data that trained it."""

    setting: Setting
    network: TwoLayerNetwork
    samples: FloatArray
    coefficients: FloatArray


class Objective:
    """Mean loss + decay/2 |theta|^2 of f(x) = sum_j a_j (w_j . x)^degree, theta rows (w_j, a_j)."""

    def __init__(self, x: FloatArray, y: FloatArray, setting: Setting) -> None:
        self.x, self.y, self.setting = x, y, setting

    def slopes(self, outputs: FloatArray) -> FloatArray:
        """Derivatives of the mean loss by the outputs (n,)."""
        if self.setting.loss == "squared":
            return np.asarray((outputs - self.y) / len(self.y))
        return np.asarray(-self.y * expit(-self.y * outputs) / len(self.y))

    def __call__(self, flat: FloatArray) -> tuple[float, FloatArray]:
        """Value and gradient."""
        degree, decay = self.setting.degree, self.setting.decay
        theta = flat.reshape(-1, self.x.shape[1] + 1)
        w, a = theta[:, :-1], theta[:, -1]
        inner = self.x @ w.T
        outputs = inner**degree @ a
        if self.setting.loss == "squared":
            loss = 0.5 * float(np.mean((outputs - self.y) ** 2))
        else:
            loss = float(np.mean(np.logaddexp(0.0, -self.y * outputs)))
        b = self.slopes(outputs)
        first = degree * ((b[:, None] * inner ** (degree - 1)) * a).T @ self.x
        gradient = np.column_stack([first, inner.T**degree @ b]) + decay * theta
        return loss + 0.5 * decay * float(flat @ flat), gradient.ravel()


def train(
    x: FloatArray, y: FloatArray, setting: Setting, rng: np.random.Generator
) -> Trained | None:
    """L-BFGS from a random start, then least squares on the gradient; None where all dies.

    At a stationary point the first layer lies in the span of the samples, so that training from
    a start in the span, in coordinates of it, is training.
    """
    basis, coordinates = np.linalg.qr(x.T)
    objective = Objective(coordinates.T, y, setting)
    r = coordinates.shape[0]
    start = rng.standard_normal((setting.width, r + 1)) * (1.0 / np.sqrt(r + 1.0))
    options = {"maxiter": 6000, "maxfun": 12_000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 20}
    theta = scipy.optimize.minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options=options
    ).x.reshape(setting.width, r + 1)
    sizes = np.linalg.norm(theta, axis=1)
    if sizes.max() < 1e-2:
        return None
    live = theta[sizes > DEAD * sizes.max()].ravel()
    ends = scipy.optimize.least_squares(
        lambda flat: objective(flat)[1] / setting.decay, live, method="trf", xtol=3e-16,
        ftol=3e-16, gtol=3e-16, max_nfev=300,
    ).x  # fmt: skip
    left = float(np.linalg.norm(objective(ends)[1])) / setting.decay
    theta = ends.reshape(-1, r + 1)
    sizes = np.linalg.norm(theta, axis=1)
    if left > STATIONARY * float(np.linalg.norm(ends)) or sizes.min() < DEAD * sizes.max():
        return None
    network = TwoLayerNetwork(theta[:, :-1] @ basis.T, theta[:, -1], setting.degree)
    return Trained(setting, network, x, -objective.slopes(network.value(x)))


def draw_samples(count: int, rng: np.random.Generator) -> FloatArray:
    """n digits minus their mean image, or random directions, of norm 1."""
    folder = os.environ.get("KKTCERT_DATA")
    if folder:
        file = np.load(Path(folder) / "mnist_subset.npz")
        images = file["images"].reshape(len(file["images"]), -1) / 255.0
        x = images[rng.choice(len(images), count, replace=False)] - images.mean(axis=0)
    else:
        x = rng.standard_normal((count, RANDOM_DIMENSION))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def few_components(x: FloatArray, dimension: int) -> FloatArray:
    """The leading principal components of the samples, again of norm 1."""
    reduced = x @ np.linalg.svd(x, full_matrices=False)[2][:dimension].T
    return np.asarray(reduced / np.linalg.norm(reduced, axis=1, keepdims=True))


def trained(seed: int) -> Trained:
    """Network number `seed`: inputs, degrees, losses and widths in turn, the rest by chance."""
    rng = np.random.default_rng([seed, 0x7A])
    few, rest = bool(seed % 2), seed // 2
    degree, rest = DEGREES[rest % 3], rest // 3
    loss, width = LOSSES[rest % 2], WIDTHS[rest // 2 % 3]
    for _ in range(ATTEMPTS):
        count = int(rng.integers(3, 11))
        decay = float(10.0 ** rng.uniform(-3.5, -2.0))
        x, y = draw_samples(count, rng), rng.choice([-1.0, 1.0], count)
        if few:
            x = few_components(x, int(rng.integers(2, 7)))
        found = train(x, y, Setting(degree, loss, width, count, decay), rng)
        if found is not None:
            return found
    raise RuntimeError(f"no start of seed {seed} was trained to stationarity")


def judge(case: Trained, report: IdentifiabilityReport, folder: Path) -> list[str]:
    """What is false about a `nonidentifiable`; empty for other verdicts."""
    if report.verdict.value != "nonidentifiable":
        return []
    data = HermiteData.from_weight_decay(case.network)
    problem = Problem("trained", data, case.samples, case.coefficients / case.setting.decay)
    found = pair_faults(problem, report)
    left = report.redundant_equations
    if len(merged_truth(problem)[0]) <= report.problem["span_dimension"] and (left or 0) > 0:
        found.append(f"as few samples as dimensions, {left} redundant equations")
    save_network(case.network, folder / "model.npz")
    result = check_report(json.loads(report.to_json()), folder / "model.npz")
    if result.outcome != "confirmed":
        found.append(f"checker: {result['verdict'].detail}")
    return found


def main() -> None:
    """Print one row a kind of network, and every other verdict with its reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=140)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    notes: list[str] = []
    for seed in range(options.first, options.first + options.count):
        case = trained(seed)
        started = time.perf_counter()
        report = assess_identifiability(HermiteData.from_weight_decay(case.network))
        inputs = "few inputs" if seed % 2 else "images"
        name = f"degree {case.setting.degree}, {case.setting.loss}, {inputs}"
        for key in (name, "all"):
            seconds[key] += time.perf_counter() - started
            tables[key][report.verdict.value] += 1
        with tempfile.TemporaryDirectory() as folder:
            faults = judge(case, report, Path(folder))
        if faults:
            for key in (name, "all"):
                tables[key]["false"] += 1
            notes.append(f"FALSE, seed {seed}, {case.setting}: {faults}")
        elif report.verdict.value != "nonidentifiable":
            notes.append(f"{report.verdict.value}, seed {seed}, {case.setting}: {report.reason}")
    words = ["nonidentifiable", "undecided", "globally", "false"]
    order = [*sorted(set(tables) - {"all"}), "all"]
    lines = [[key, *(tables[key][word] for word in words), f"{seconds[key]:.0f}"] for key in order]
    print(markdown(["networks", *words, "s"], lines))
    print("\n".join(notes))


if __name__ == "__main__":
    main()
