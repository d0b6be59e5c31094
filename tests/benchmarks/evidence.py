"""What is proved: time against size, precision against conditioning, many cases, rounded weights.

    python -m tests.benchmarks.evidence levels      time and outcome of every proof against N
    python -m tests.benchmarks.evidence precision   bits that an enclosure needs
    python -m tests.benchmarks.evidence cases       proved, numerical or undecided in 300 cases
    python -m tests.benchmarks.evidence rounding    weights of float32, float16 and 3 digits

Images are not needed: samples are digits (scikit-learn, mean removed) or normal vectors.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np

from identify import HermiteData, IdentifiabilityReport, TwoLayerNetwork, assess_identifiability
from identify.arrays import FloatArray
from identify.errors import KktCertError
from identify.planting.plant import plant_network
from identify.proofs.enclosure import enclose_terms
from identify.proofs.rank import prove_rank, round_points
from identify.proofs.singular_value import bound_smallest_singular_value
from identify.tensors import symmetric_dimension
from tests.benchmarks.planting import digits

SHIFT = 44


def gradient_problem(r: int, neurons: int, degree: int, seed: int) -> HermiteData:
    """One gradient of r digits at normal weights."""
    rng = np.random.default_rng([seed, r, degree])
    images = digits()
    samples = images[rng.choice(len(images), r, replace=False)]
    samples = samples / np.linalg.norm(samples, axis=1, keepdims=True)
    network = TwoLayerNetwork(
        rng.standard_normal((neurons, samples.shape[1])),
        rng.standard_normal(neurons),
        degree=degree,
    )
    b = rng.uniform(0.5, 1.5, size=r) * rng.choice([-1.0, 1.0], size=r)
    return HermiteData.from_gradient(network, network.gradient(samples, b))


def unit_problem(
    r: int, neurons: int, degree: int, seed: int, angle: float | None = None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Unit points, exact right-hand sides, terms and signs; two terms at a given angle."""
    rng = np.random.default_rng([seed, r])
    points = rng.standard_normal((neurons, r))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    terms = rng.standard_normal((r, r))
    terms /= np.linalg.norm(terms, axis=1, keepdims=True)
    if angle is not None:
        terms[1] = terms[0] + angle * terms[1]
    rounded = round_points(points, SHIFT) / 2.0**SHIFT
    sides = (rounded @ terms.T) ** (degree - 1) @ terms
    return rounded, sides, terms, np.ones(r)


def levels(sizes: list[int]) -> None:
    """Times of the three proofs for one gradient, degree 3."""
    print("| r | N | neurons | proof | outcome | s |\n|---|---|---|---|---|---|", flush=True)
    for r in sizes:
        count = symmetric_dimension(3, r)
        neurons = int(np.ceil(1.15 * count / r)) + 2
        points, sides, terms, signs = unit_problem(r, neurons, 3, 0)
        integers = round_points(points, SHIFT)
        start = time.perf_counter()
        rank = prove_rank(integers, 3)
        seconds = time.perf_counter() - start
        head = f"| {r} | {count} | {neurons} |"
        print(f"{head} rank modulo a prime | {rank.outcome} | {seconds:.2f} |", flush=True)
        if count <= 2000:
            start = time.perf_counter()
            bound = bound_smallest_singular_value(integers, SHIFT, 3)
            seconds = time.perf_counter() - start
            ratio = bound.bound / bound.estimate if bound.estimate else 0.0
            words = f"at least {bound.bound:.2e}, {ratio:.3f} of the estimate"
            print(f"{head} smallest singular value | {words} | {seconds:.2f} |", flush=True)
        if r <= 20:
            start = time.perf_counter()
            box = enclose_terms(integers, SHIFT, sides, np.ones(neurons), 3, terms, signs, 1e-12)
            seconds = time.perf_counter() - start
            size = f", largest {np.max(box.relative):.1e}" if box.outcome == "proved" else ""
            print(f"{head} enclosure | {box.outcome}{size} | {seconds:.2f} |", flush=True)


def integer_problem(bits: int) -> tuple[np.ndarray, FloatArray, FloatArray, FloatArray]:
    """Points in units of 2^-62, exact right-hand sides, terms at an angle of 2^-bits, signs.

    All numbers are small integers times powers of two, so that float64 rounds none of them.
    """
    rng = np.random.default_rng(3)
    points = rng.integers(-3, 4, size=(20, 4))
    terms = np.rint(2.0**bits * np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, -1]]))
    terms[1] += [0, 1, 2, 0]
    sides = ((points / 4.0) @ terms.T) ** 2 @ terms
    return points * 2**60, sides, terms, np.ones(4)


def precision() -> None:
    """Bits at which the enclosure succeeds, two of four terms at a shrinking angle."""
    print(
        "| angle | data | condition number | outcome | bits | largest relative radius |\n"
        "|---|---|---|---|---|---|",
        flush=True,
    )
    for rho, words in ((0.0, "exact"), (1e-16, "to 1e-16"), (1e-12, "to 1e-12")):
        for bits in (0, 2, 4, 6, 8, 10, 12):
            integers, sides, terms, signs = integer_problem(bits)
            weights = np.ones(len(integers))
            box = enclose_terms(integers, 62, sides, weights, 3, terms, signs, rho)
            size = f"{np.max(box.relative):.1e}" if box.outcome == "proved" else "-"
            worst = float(np.max(box.conditions))
            print(
                f"| 2^-{bits} | {words} | {worst:.1e} | {box.outcome} | {box.precision} | {size} |",
                flush=True,
            )


def planted_problem(n: int, degree: int, seed: int) -> HermiteData | None:
    """Digits planted in weights that determine them, or None where that fails."""
    rng = np.random.default_rng([seed, n, degree, 7])
    images = digits()
    chosen = images[rng.choice(len(images), n, replace=False)]
    try:
        planted = plant_network(
            chosen,
            degree=degree,
            stationary="regression",
            determined=True,
            seed=seed,
            time_limit=10.0,
        )
    except KktCertError:
        return None
    return HermiteData.from_weight_decay(planted.network)


def compare_levels(data: HermiteData) -> tuple[str, bool, IdentifiabilityReport]:
    """The strongest level, whether the numerical verdict agrees, and the report."""
    best = assess_identifiability(data, evidence="auto", time_limit=60.0)
    plain = assess_identifiability(data, evidence="numerical")
    agree = best.verdict is plain.verdict
    if best.verdict.value != "globally":
        return best.verdict.value, agree, best
    return best.evidence.value, agree, best


def cases(count: int) -> None:
    """Planted and gradient cases, the level that each reaches."""
    sizes = {3: range(2, 11), 4: range(2, 9), 5: range(2, 7)}
    kinds = [
        (degree, n, source)
        for degree, ns in sizes.items()
        for n in ns
        for source in ("gradient", "planted")
        if not (source == "planted" and (degree != 3 or n < 4))
    ]
    table: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    notes: list[str] = []
    done = 0
    seed = 0
    while done < count:
        for degree, n, source in kinds:
            if done >= count:
                break
            if source == "gradient":
                columns = symmetric_dimension(degree, n)
                neurons = max(n + 1, int(np.ceil(1.2 * columns / n)) + 2)
                data: HermiteData | None = gradient_problem(n, neurons, degree, seed)
            else:
                data = planted_problem(n, degree, seed)
            if data is None:
                continue
            level, agree, report = compare_levels(data)
            done += 1
            table[degree, source][level] += 1
            if not agree:
                table[degree, source]["disagree"] += 1
            if level not in ("proved_exact", "proved_interval"):
                why = "; ".join(report.strengthen) or report.reason
                notes.append(f"degree {degree}, n {n}, {source}, seed {seed}: {level}: {why}")
        seed += 1
    words = ["proved_exact", "proved_interval", "numerical", "undecided", "nonidentifiable"]
    words.append("disagree")
    print("| degree | source | " + " | ".join(words) + " |\n|---|---" + "|---" * len(words) + "|")
    for (degree, source), counter in table.items():
        cells = " | ".join(str(counter[word]) for word in words)
        print(f"| {degree} | {source} | {cells} |")
    print("\n".join(notes))


def rounded(values: FloatArray, form: str) -> FloatArray:
    """Values as a format stores them."""
    if form == "3 digits":
        return np.array([float(f"{v:.2e}") for v in values.ravel()]).reshape(values.shape)
    return values.astype(form).astype(np.float64)


def rounding() -> None:
    """Verdict and evidence for weights, or a gradient, in coarser formats."""
    units = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "3 digits": 5e-3}
    print(
        "| source | stored as | verdict | evidence | noise level | largest error bound "
        "| what would strengthen, or why |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    planted = None
    seed = 0
    while planted is None:
        planted = planted_problem(6, 3, seed)
        seed += 1
    for source in ("gradient", "planted"):
        for form, unit in units.items():
            data = gradient_problem(6, 20, 3, 0) if source == "gradient" else planted

            def store(net: TwoLayerNetwork, form: str = form, unit: float = unit):
                return replace(
                    net,
                    hidden_weight=rounded(net.hidden_weight, form),
                    output_weight=rounded(net.output_weight, form),
                    rounding=unit,
                )

            if source == "gradient":
                # The gradient is that of the stored weights; the gradient itself is rounded.
                assert data.target is not None
                used = HermiteData.from_gradient(data.network, store(data.target))
            else:
                used = HermiteData.from_weight_decay(store(data.network))
            report = assess_identifiability(used, time_limit=60.0)
            bounds = [b for b in report.error_bounds or () if b is not None]
            worst = f"{max(bounds):.1e}" if bounds else "-"
            why = "; ".join(report.strengthen) or "-"
            if report.verdict.value != "globally":
                why = report.reason
            print(
                f"| {source} | {form} | {report.verdict.value} | {report.evidence.value} "
                f"| {report.noise_level:.1e} | {worst} | {why} |",
                flush=True,
            )


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["levels", "precision", "cases", "rounding"])
    parser.add_argument("--sizes", type=int, nargs="*", default=[5, 10, 15, 20, 30])
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    if options.table == "levels":
        levels(options.sizes)
    elif options.table == "precision":
        precision()
    elif options.table == "cases":
        cases(options.count)
    else:
        rounding()


if __name__ == "__main__":
    main()
