"""Recovery from one gradient of CIFAR-10 images: time, memory and error; a baseline beside it.

    KKTCERT_DATA=... python -m tests.benchmarks.gradient [--sizes 30 50 100] [--degrees 3]
                                                         [--baseline]

One process per row, so that the peak memory is that row's. Images: mean removed, unit norm.
W standard normal, a normal / sqrt(m); degree 3 with the logistic loss and alternating labels;
degrees 4 and 5 with coefficients of modulus one half, since outputs of standard deviation above
ten leave most samples a logistic loss's gradient below rounding.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import identify
from identify import HermiteData, TwoLayerNetwork
from identify.exposure.compare import match_samples
from identify.tensors import hermite_matrix, symmetric_dimension

WIDTHS = {
    3: {10: 40, 20: 120, 30: 250, 50: 600, 100: 2200, 200: 8800},
    4: {8: 54, 12: 148, 20: 580},
    5: {6: 55, 8: 129, 12: 474},
}


def problem(n: int, m: int, degree: int, seed: int) -> tuple[HermiteData, np.ndarray]:
    """One gradient of a batch of n images, and the images."""
    images = np.load(Path(os.environ["KKTCERT_DATA"]) / "cifar10_subset.npz")["images"]
    flat = images.reshape(len(images), -1) / 255.0
    rng = np.random.default_rng(seed)
    samples = flat[rng.choice(len(flat), n, replace=False)] - flat.mean(axis=0)
    samples /= np.linalg.norm(samples, axis=1, keepdims=True)
    hidden = rng.standard_normal((m, samples.shape[1]))
    output = rng.standard_normal(m) / np.sqrt(m)
    network = TwoLayerNetwork(hidden, output, degree=degree)
    labels = np.where(np.arange(n) % 2, 1.0, -1.0)
    strength = 1.0 / (1.0 + np.exp(labels * network.value(samples))) if degree == 3 else 0.5
    b = -labels * strength
    return HermiteData.from_gradient(network, network.gradient(samples, b)), samples


def recovery(n: int, m: int, degree: int, seed: int) -> str:
    """Recovery alone, for sizes at which the verdict takes too long."""
    from tests.identify.estimate import estimate_samples

    data, samples = problem(n, m, degree, seed)
    start = time.perf_counter()
    found = estimate_samples(data, seed=seed)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    error = max(match_samples(found, samples, up_to_sign=True, up_to_scale=True).errors)
    return f"n = {n}, m = {m}: recovery {seconds:.0f} s, max error {error:.1e}, {peak:.0f} MB"


def row(n: int, m: int, degree: int, seed: int) -> str:
    """Recovery alone, then with the verdict, in this process."""
    from tests.identify.estimate import estimate_samples

    data, samples = problem(n, m, degree, seed)
    start = time.perf_counter()
    found = estimate_samples(data, seed=seed)
    alone = time.perf_counter() - start
    start = time.perf_counter()
    report = identify.assess_identifiability(data, seed=seed, evidence="numerical")
    whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    matching = match_samples(found, samples, up_to_sign=True, up_to_scale=True)
    bound = max(b or np.inf for b in report.error_bounds or (np.inf,))
    count = symmetric_dimension(degree, n)
    return (
        f"| {degree} | {n} | {m} | {count} | {alone:.2f} | {whole:.2f} | {whole / alone:.2f} "
        f"| {max(matching.errors):.1e} | {bound:.1e} | {report.verdict.value} "
        f"| {peak:.0f} |"
    )


def baseline(n: int, m: int, degree: int, seed: int) -> str:
    """Dense least squares on monomials, then tensorly's CP on the full tensor."""
    import tensorly
    from tensorly.decomposition import parafac

    from identify.hermite.reduction import reduce_data
    from identify.tensors import CoordinateTensor
    from tests.identify.estimate import estimate_samples

    data, samples = problem(n, m, degree, seed)
    start = time.perf_counter()
    found = estimate_samples(data, seed=seed)
    ours = time.perf_counter() - start
    error = max(match_samples(found, samples, up_to_sign=True, up_to_scale=True).errors)
    start = time.perf_counter()
    reduced = reduce_data(data, 1e-13)
    matrix = hermite_matrix(reduced.points, degree)
    coordinates = np.linalg.lstsq(matrix, reduced.targets.ravel(), rcond=None)[0]
    dense = time.perf_counter() - start
    tensor = CoordinateTensor(coordinates, degree, reduced.dimension)
    full = np.stack([tensor.contract(axis) for axis in np.eye(reduced.dimension)])
    start = time.perf_counter()
    factors = parafac(
        tensorly.tensor(full), rank=n, n_iter_max=2000, tol=1e-14, init="random", random_state=seed
    ).factors[0]
    cp = time.perf_counter() - start
    recovered = np.asarray(factors).T @ reduced.basis.T
    other = max(match_samples(recovered, samples, up_to_sign=True, up_to_scale=True).errors)
    return (
        f"| {n} | {m} | {ours:.2f} | {error:.1e} | {dense:.2f} | {cp:.2f} | {other:.1e} "
        f"| {(dense + cp) / ours:.1f} |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--degrees", type=int, nargs="*", default=[3])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--recovery", type=int, nargs=3, metavar=("N", "M", "DEGREE"))
    parser.add_argument("--row", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.recovery:
        print(recovery(*options.recovery, options.seed))
        return
    if options.row:
        n, m, degree = options.row
        print((baseline if options.baseline else row)(n, m, degree, options.seed))
        return
    if options.baseline:
        print(
            "| n | m | kktcert s | error | dense least squares s | tensorly CP s | its error "
            "| ratio of times |\n|---|---|---|---|---|---|---|---|",
            flush=True,
        )
    else:
        print(
            "| degree | n | m | N | recovery s | with verdict s | ratio | max error "
            "| max bound | verdict | MB |\n|---|---|---|---|---|---|---|---|---|---|---|",
            flush=True,
        )
    seconds: dict[int, list[tuple[float, float]]] = {degree: [] for degree in options.degrees}
    for degree in [3] if options.baseline else options.degrees:
        for n, m in WIDTHS[degree].items():
            if (options.sizes and n not in options.sizes) or (not options.sizes and n > 100):
                continue
            command = [sys.executable, __file__, "--row", str(n), str(m), str(degree)]
            command += ["--seed", str(options.seed)] + ["--baseline"] * options.baseline
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(line, end="", flush=True)
            if not options.baseline:
                seconds[degree].append((6.0 * m * m * n, float(line.split("|")[5])))
    for degree, pairs in seconds.items():
        large = [pair for pair in pairs if pair[0] > 1e8]
        if len(large) > 1:
            flops, times = np.log(np.array(large)).T
            slope = np.polyfit(flops, times, 1)[0]
            print(
                f"\nDegree {degree}: recovery time grows like (6 m^2 r)^{slope:.2f} "
                "(log-log fit over the rows above 1e8 flops a product)."
            )


if __name__ == "__main__":
    main()
