"""Noise on one gradient: error, printed bound, verdict.

    KKTCERT_DATA=... python -m tests.benchmarks.noise [--seeds 5]

n = 20 CIFAR-10 images, m = 120, degree 3, coefficients of modulus one half to one; Gaussian noise
of relative size eps, its part outside the samples' span projected out.
"""

from __future__ import annotations

import argparse

import numpy as np

from identify import HermiteData, TwoLayerNetwork, assess_identifiability
from identify.exposure.compare import match_samples
from tests.benchmarks.gradient import problem


def noisy(seed: int, eps: float) -> tuple[HermiteData, np.ndarray]:
    """The gradient with noise inside the span."""
    data, samples = problem(20, 120, 3, seed)
    network, rng = data.network, np.random.default_rng([seed, 77])
    b = rng.choice([-1.0, 1.0], 20) * rng.uniform(0.5, 1.0, 20)
    clean = network.gradient(samples, b)
    _, _, axes = np.linalg.svd(samples, full_matrices=False)
    noise = rng.standard_normal((network.width, len(axes))) @ axes
    values = rng.standard_normal(network.width)
    size = eps * np.linalg.norm(clean.hidden_weight) / np.linalg.norm(noise)
    gradient = TwoLayerNetwork(
        clean.hidden_weight + size * noise, clean.output_weight + size * values, degree=3
    )
    return HermiteData.from_gradient(network, gradient), samples


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print(
        "| noise | verdicts | median error | max error | bound missing | bound below error "
        "| median bound / error |\n|---|---|---|---|---|---|---|"
    )
    for power in range(-12, -2):
        errors, ratios, verdicts, missing, below = [], [], [], 0, 0
        for seed in range(options.seeds):
            data, samples = noisy(seed, 10.0**power)
            report = assess_identifiability(data, evidence="numerical")
            verdicts.append(report.verdict.value)
            if report.recovery is None:
                missing += len(samples)
                continue
            matching = match_samples(
                report.recovery.samples, samples, up_to_sign=True, up_to_scale=True
            )
            bounds = report.recovery.error_bounds[matching.indices]
            missing += int(np.count_nonzero(np.isnan(bounds)))
            below += int(np.count_nonzero(bounds < matching.errors))
            errors += list(matching.errors)
            ratios += list(bounds / matching.errors)
        words = ", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts)))
        numbers = f"{np.median(errors):.1e} | {max(errors):.1e}" if errors else "- | -"
        ratio = f"{np.median(ratios):.0f}" if ratios else "-"
        print(f"| 1e{power} | {words} | {numbers} | {missing} | {below} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
